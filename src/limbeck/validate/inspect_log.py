"""Scores out of Inspect's logs, `.eval` or `.json`, read without the package that wrote them."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from limbeck.errors import TaskError
from limbeck.validate.outcome import Outcome
from limbeck.validate.tasks import TaskFile

_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partial, incorrect, no answer."""


def read_log(path: Path, settings: TaskFile) -> list[Outcome]:
    """Return the outcomes of one log, epochs of a sample averaged.

    Args:
        path: The log.
        settings: `metric` names the scorer to read (None takes the only one), `cluster` a field of the samples'
            metadata, `chance` what guessing scores.

    Raises:
        TaskError: The log is missing, damaged or unfinished, holds no scored sample, or a score that is no number
            in [0, 1]; the sample is named.
    """
    found: dict[str, list[tuple[Mapping[str, Any], float]]] = {}
    for sample in _samples(path):
        score = _score(sample, settings, path)
        found.setdefault(str(sample.get("id")), []).append((sample, score))
    if not found:
        raise TaskError(f"task {settings.name} is empty: {path} holds no samples")
    return [
        Outcome(
            item=name,
            cluster=_cluster(epochs[0][0], settings, path),
            chance=float(settings.chance),
            score=sum(score for _, score in epochs) / len(epochs),
            text=_written(epochs[0][0]) if len(epochs) == 1 else None,
        )
        for name, epochs in found.items()
    ]


def _samples(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        if zipfile.is_zipfile(path):
            yield from _from_archive(path)
            return
        log: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"log {path} does not exist") from None
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise TaskError(f"log {path} cannot be read: {error}") from None
    if not isinstance(log, dict) or "eval" not in log:
        raise TaskError(f"{path} is no Inspect log: it has no `eval`")
    known = cast("dict[str, Any]", log)
    _check_finished(known, path)
    yield from known.get("samples") or ()


def _from_archive(path: Path) -> Iterator[Mapping[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "header.json" not in names:
            raise TaskError(f"log {path} is unfinished or no Inspect log: it has no header.json")
        try:
            _check_finished(json.loads(archive.read("header.json")), path)
            for name in sorted(n for n in names if n.startswith("samples/")):
                yield json.loads(archive.read(name))
        except NotImplementedError as error:  # a compression that this Python does not know
            raise TaskError(
                f"log {path} cannot be read here: {error}; write it as JSON with "
                "`inspect log convert --to json`"
            ) from None


def _check_finished(log: Mapping[str, Any], path: Path) -> None:
    status = log.get("status", "success")
    if status != "success":
        raise TaskError(
            f"log {path} ended with status {status!r}; only finished ones can be compared"
        )


def _score(sample: Mapping[str, Any], settings: TaskFile, path: Path) -> float:
    scores: Mapping[str, Any] = sample.get("scores") or {}
    where = f"sample {sample.get('id')!r} of {path}"
    if settings.metric is None and len(scores) != 1:
        raise TaskError(f"{where} has the scores {list(scores)}; name one as metric")
    name = settings.metric or next(iter(scores))
    if name not in scores:
        raise TaskError(f"{where} has no score {name!r}; it has {list(scores)}")
    value: object = scores[name].get("value")
    if isinstance(value, str):
        value = _LETTERS.get(value, value)
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise TaskError(f"{where} has the score {value!r}, which is no number in [0, 1]")


def _cluster(sample: Mapping[str, Any], settings: TaskFile, path: Path) -> str:
    if settings.cluster is None:
        return str(sample.get("id"))
    metadata: Mapping[str, Any] = sample.get("metadata") or {}
    if settings.cluster not in metadata:
        raise TaskError(
            f"sample {sample.get('id')!r} of {path} has no {settings.cluster!r} in its metadata"
        )
    return str(metadata[settings.cluster])


def _written(sample: Mapping[str, Any]) -> str | None:
    completion = (sample.get("output") or {}).get("completion")
    return completion if isinstance(completion, str) else None
