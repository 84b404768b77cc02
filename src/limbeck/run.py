"""A run's folder: whose recipe it holds, which steps are done, and the manifest that is written last."""

import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from limbeck.artefact import hash_tree, read_json, sha256_file, sha256_json, write_json
from limbeck.errors import RunError
from limbeck.lock import hold

_CARD = "README.md"


@dataclass(frozen=True, slots=True)
class Stamp:
    """That a step is done: what went in, what came out, and how long it took."""

    step: str
    inputs_sha256: str
    outputs: Mapping[str, str]
    """Relative POSIX path to SHA-256 of every file the step made."""
    seconds: float
    facts: Mapping[str, Any]
    """Small figures that later steps and the report use."""

    @property
    def sha256(self) -> str:
        """Hash that stands for the outputs when a later step names its inputs."""
        return sha256_json(dict(self.outputs))


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, opened."""

    folder: Path
    recipe: Mapping[str, Any]
    """The recipe as JSON values, defaults written out."""

    def path(self, name: str) -> Path:
        """Return the path of a file or folder of this run."""
        return self.folder / name

    def stamp(self, step: str) -> Stamp | None:
        """Return a step's stamp, or None where the step is not done."""
        path = self._stamp_path(step)
        if not path.is_file():
            return None
        try:
            return Stamp(**read_json(path))
        except (ValueError, TypeError):
            raise RunError(f"{path} is damaged; remove it and the step runs again") from None

    def is_done(self, step: str, inputs_sha256: str) -> bool:
        """Tell whether a step is done with these inputs and its outputs are as it left them."""
        stamp = self.stamp(step)
        if stamp is None or stamp.inputs_sha256 != inputs_sha256:
            return False
        return not self.damaged(stamp)

    def damaged(self, stamp: Stamp) -> list[str]:
        """Return the files of a step that are gone or not as it left them."""
        return [
            name
            for name, sha in stamp.outputs.items()
            if not (path := self.folder / name).is_file() or sha256_file(path) != sha
        ]

    def finish(
        self,
        step: str,
        inputs_sha256: str,
        outputs: Sequence[str],
        *,
        seconds: float,
        facts: Mapping[str, Any] | None = None,
    ) -> Stamp:
        """Hash a step's outputs (files, or folders with all below them) and write its stamp.

        A model card inside a folder does not count: it is written anew when there are figures to tell. Nor
        do hidden files: a process that was killed leaves them half-written.
        """
        hashes: dict[str, str] = {}
        for name in outputs:
            path = self.folder / name
            if path.is_dir():
                tree = hash_tree(path)
                hashes |= {f"{name}/{below}": tree[below] for below in tree if _counts(below)}
            elif path.is_file():
                hashes[name] = sha256_file(path)
        stamp = Stamp(step, inputs_sha256, hashes, seconds, dict(facts or {}))
        value = {
            "step": stamp.step,
            "inputs_sha256": stamp.inputs_sha256,
            "outputs": hashes,
            "seconds": seconds,
            "facts": dict(stamp.facts),
        }
        write_json(self._stamp_path(step), value)
        return stamp

    def clear(self, *names: str) -> None:
        """Remove files or folders of a step that starts over."""
        for name in names:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _stamp_path(self, step: str) -> Path:
        return self.folder / "steps" / f"{step}.json"


@contextmanager
def open_run(
    folder: Path,
    recipe: Mapping[str, Any],
    *,
    binding: Sequence[str] | None = None,
    free: Mapping[str, Sequence[str]] | None = None,
) -> Generator[Run]:
    """Open a run's folder for writing, or make it; one process at a time.

    Args:
        folder: The run's folder.
        recipe: The recipe as JSON values.
        binding: Steps that bind the folder to its recipe once they have begun; before that the recipe may
            still change. None binds it from the start.
        free: Names of sections, wherever they lie in the recipe, that may change until one of the given steps has
            begun; at any time where none is given.

    Raises:
        RunError: The folder holds another recipe's run, something else, or another process writes there.
    """
    known = folder / "recipe.json"
    if known.is_file():
        if binding is None or any(_begun_or_done(folder, step) for step in binding):
            loose = {
                section
                for section, steps in (free or {}).items()
                if not any(_begun_or_done(folder, step) for step in steps)
            }
            _check_same(folder, _read_recipe(known), recipe, loose)
    elif folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no Limbeck run; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / ".lock", str(folder)):
        write_json(known, dict(recipe))
        yield Run(folder, recipe)


def read_run(folder: Path) -> Run:
    """Open a run's folder for reading.

    Raises:
        RunError: There is no run.
    """
    known = folder / "recipe.json"
    if not known.is_file():
        raise RunError(
            f"{folder} holds no Limbeck run (no recipe.json); name a folder that distill wrote"
        )
    return Run(folder, _read_recipe(known))


def _read_recipe(path: Path) -> Mapping[str, Any]:
    try:
        value: object = read_json(path)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise RunError(
            f"{path} is damaged; put back the recipe of this run, or choose another --out"
        )
    return cast("Mapping[str, Any]", value)


def _begun_or_done(folder: Path, step: str) -> bool:
    return any((folder / "steps" / f"{step}{end}").exists() for end in (".json", ".begun.json"))


def _counts(below: str) -> bool:
    return below != _CARD and not any(part.startswith(".") for part in below.split("/"))


def _check_same(
    folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any], loose: AbstractSet[str]
) -> None:
    left, right = dict(_leaves(theirs)), dict(_leaves(ours))
    binding = (k for k in left.keys() | right.keys() if loose.isdisjoint(k.split(".")))
    changed = sorted(k for k in binding if left.get(k) != right.get(k))
    if not changed:
        return
    first = ", ".join(
        f"{key} = {left.get(key)!r} there, {right.get(key)!r} here" for key in changed[:3]
    )
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    raise RunError(
        f"{folder} holds the run of another recipe ({first}{more}); choose another --out"
    )


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _leaves(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
