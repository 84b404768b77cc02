"""The drawer of supporting evidence: load what is compared, compare it, and count how often the innocent are as alike.

It reads no bit and no log-likelihood of the audit, and the audit reads nothing of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limbeck.backends.served import PREFIX, ServedModel
from limbeck.drawing import Drawing, draw, open_either, open_local
from limbeck.errors import LimbeckError, TraceError
from limbeck.model import LocalModel
from limbeck.progress import Progress
from limbeck.trace.coins import Coin
from limbeck.trace.kinship import kinship
from limbeck.trace.likeness import Finding, counted, measured
from limbeck.trace.likest import text_finding
from limbeck.trace.sealing import Sealed

TEXTS = 48
"""Prompts that every model answers, the first of the coins; they bound what a comparison of text costs."""
Model = LocalModel | ServedModel
_UNHEARD = "no test was made"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be compared."""

    kinship: bool = False
    """Tokenizers, sizes, weights and activations."""
    candidates: tuple[tuple[str, str], ...] = ()
    """Other candidate teachers, name and model, beside whom the suspect's text is compared."""

    @property
    def anything(self) -> bool:
        """Whether anything is."""
        return self.kinship or bool(self.candidates)


@dataclass(frozen=True, slots=True)
class Party:
    """A model of the audit, loaded where it is here."""

    name: str
    model: Model

    @property
    def identity(self) -> str:
        """What tells it apart from others of its name."""
        model = self.model
        return model.weights_sha256 if isinstance(model, LocalModel) else model.identity

    @property
    def local(self) -> LocalModel | None:
        """The model where its weights are here."""
        return self.model if isinstance(self.model, LocalModel) else None


def parse_candidates(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read `NAME=MODEL`, each name once.

    Raises:
        TraceError: Another form, or a name twice.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, model = text.partition("=")
        if not (equals and name.strip() and model.strip()):
            raise TraceError(
                f"a candidate has the form NAME=MODEL, such as other=hf:org/other, got {text!r}"
            )
        if name in found or name == "teacher":
            raise TraceError(
                f"the candidate {name!r} is named twice"
                if name in found
                else "the teacher is always among the candidates; name others with --candidate"
            )
        found[name] = model
    return tuple(found.items())


def supporting(
    wanted: Wanted,
    suspect: Party,
    references: Sequence[Party],
    sealed: Sealed,
    coins: Sequence[Coin],
    *,
    base: Path,
    dtype: str,
    progress: Progress,
) -> list[Finding]:
    """Return every finding that was asked for, labelled with how often it is made of the innocent.

    Args:
        wanted: What is compared.
        suspect: The model in question.
        references: Models that saw neither answer. Those that are the teacher itself are no null and are left out.
        sealed: The coins' folder; its commitment names the teacher.
        coins: Those that were audited.
        base: Folder that relative models start from.
        dtype: Number format of local models.
        progress: Hears of it.

    Raises:
        LimbeckError: A candidate cannot be loaded or asked.
    """
    opened = [Party(name, open_either(spec, base, dtype)) for name, spec in wanted.candidates]
    nulls = _nulls(references, opened, sealed.committed.teacher)
    findings: list[Finding] = []
    rows: list[list[Finding]] = [[] for _ in nulls]
    prompts = [coin.pair.prompt for coin in coins]
    if wanted.kinship:
        teacher = _teacher(sealed, references, base, dtype)
        findings += _kin(suspect, teacher, prompts)
        for row, null in zip(rows, nulls, strict=True):
            row += _kin(null, teacher, prompts)
    if wanted.candidates:
        mine, theirs = _texts(suspect, nulls, opened, sealed, coins[:TEXTS], progress)
        findings.append(mine)
        for row, finding in zip(rows, theirs, strict=True):
            row.append(finding)
    return measured(findings, rows, counted())


def _nulls(
    references: Sequence[Party], candidates: Sequence[Party], teacher: Mapping[str, Any]
) -> list[Party]:
    """Return the references that are neither the teacher nor one of the candidates."""
    known = {teacher.get("weights_sha256"), *(c.identity for c in candidates)}
    return [r for r in references if r.identity not in known and r.name != teacher.get("name")]


def _teacher(
    sealed: Sealed, references: Sequence[Party], base: Path, dtype: str
) -> LocalModel | str:
    """Return the coins' teacher, or why it is not here."""
    name = str(sealed.committed.teacher.get("name", ""))
    identity = sealed.committed.teacher.get("weights_sha256")
    for party in references:
        if party.local is not None and party.local.weights_sha256 == identity:
            return party.local
    if not name or name.startswith(PREFIX):
        return "the teacher's weights are behind an API"
    try:
        model = open_local(name, base, dtype)
    except LimbeckError as error:
        return f"the teacher cannot be loaded here: {error}"
    if model.weights_sha256 != identity:
        return f"{name} has other weights than the teacher that answered"
    return model


def _kin(party: Party, teacher: LocalModel | str, prompts: Sequence[str]) -> list[Finding]:
    """Return what a model has in common with the teacher, or the one finding that says why nothing was compared."""
    if isinstance(teacher, str):
        return [Finding("weights and activations", "not compared", teacher, _UNHEARD)]
    if party.local is None:
        why = f"the weights of {party.name} are behind an API"
        return [Finding("weights and activations", "not compared", why, _UNHEARD)]
    return kinship(party.local, teacher, prompts)


def _texts(
    suspect: Party,
    nulls: Sequence[Party],
    candidates: Sequence[Party],
    sealed: Sealed,
    coins: Sequence[Coin],
    progress: Progress,
) -> tuple[Finding, list[Finding]]:
    """Let everybody answer the coins' prompts as the teacher did, and compare."""
    parties = [suspect, *candidates, *nulls]
    drawing = _drawing(sealed.committed.teacher)
    prompts = [coin.pair.prompt for coin in coins]
    progress.begin("texts", len(parties) * len(prompts), "answers")
    # 0 and 1 were the teacher's; equal numbers would give like models like words.
    said = [
        draw(party.model, prompts, drawing, number=number, progress=progress)
        for number, party in enumerate(parties, start=2)
    ]
    progress.end()
    others = len(candidates) + 1
    rivals = {p.name: t for p, t in zip(candidates, said[1:others], strict=True)}
    innocent = {
        f"{n} {p.name}": t for n, (p, t) in enumerate(zip(nulls, said[others:], strict=True))
    }
    pairs = [coin.pair for coin in coins]
    return (
        text_finding(pairs, said[0], rivals, innocent),
        [text_finding(pairs, texts, rivals, {}) for texts in innocent.values()],
    )


def _drawing(teacher: Mapping[str, Any]) -> Drawing:
    """Return how the teacher's answers were drawn, as far as the commitment says."""
    usual = Drawing()
    return Drawing(
        float(teacher.get("temperature", usual.temperature)),
        int(teacher.get("max_new_tokens", usual.max_new_tokens)),
    )
