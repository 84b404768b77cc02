"""Which of a teacher's answers are kept, and why the others are not. Pure: asks nobody, reads no file.

An answer is rejected by the first check that refuses it, cheap ones first, and counted under that reason alone; so
kept and rejected add up to all.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from limbeck.chat import Message
from limbeck.distill.recipe import FilterRecipe
from limbeck.distill.targets import Ids
from limbeck.errors import FilterError, MissingDependencyError

Reason = Literal[
    "unfinished",
    "too_short",
    "too_long",
    "repetitive",
    "pattern",
    "forbidden",
    "not_json",
    "json_schema",
    "reference",
    "verifier",
    "judge_unparsed",
    "judge_score",
    "duplicate",
    "not_chosen",
]
REASONS: Mapping[Reason, str] = {
    "unfinished": "cut at its length",
    "too_short": "shorter than filter.min_tokens",
    "too_long": "longer than filter.max_tokens",
    "repetitive": "repeats itself more than filter.max_repetition",
    "pattern": "without what filter.pattern wants",
    "forbidden": "with what filter.forbidden refuses",
    "not_json": "not JSON",
    "json_schema": "not what filter.json_schema allows",
    "reference": "not the corpus' own response",
    "verifier": "refused by the verifier",
    "judge_unparsed": "the judge's reply was no score",
    "judge_score": "scored below filter.judge.min_score",
    "duplicate": "equal to an earlier answer to the prompt",
    "not_chosen": "another answer to the prompt was taken",
}
"""Why an answer is rejected, in the order in which it is checked."""
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer that may be kept, with what it answers."""

    turns: tuple[Message, ...]
    """The conversation up to the answer."""
    answer: str
    """In the student's tokens, decoded; the end of the turn is not in it."""
    reference: str | None
    """The corpus' own response to the same prompt, where it has one."""
    finished: bool
    """Whether the answer ended by itself, not at its length."""
    tokens_T: Ids
    """The answer's tokens, without the end of the turn."""
    heldout: bool
    prompt: int
    """Number of the prompt: equal for answers to the same one."""


class Verifier(Protocol):
    """A function of the user's that says True to an answer or False; anything else is an error."""

    def __call__(self, candidate: Candidate, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether an answer is kept; `because` is None where it is."""

    kept: bool
    because: Reason | None = None


Check = Callable[[Candidate], Reason | None]
"""Returns why a candidate is rejected, or None where the check has nothing against it."""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What a filter did."""

    kept: tuple[int, ...]
    """Numbers of the kept answers, ascending."""
    answers: Mapping[str, int]
    """All answers by side of the split, "train" and "heldout"; so is the next."""
    kept_by_side: Mapping[str, int]
    rejected: Mapping[Reason, int]
    """Answers by reason, both sides together; reasons that rejected nothing are absent."""


def checks_of(
    recipe: FilterRecipe, schema: Any | None = None, verify: Verifier | None = None
) -> list[Check]:
    """Return the checks that a recipe asks for, in their order; the judge's score is not among them.

    Args:
        recipe: The `[filter]` section.
        schema: The JSON value of its schema file, where it names one.
        verify: A function of the user's.

    Raises:
        FilterError: The schema is no JSON Schema.
        MissingDependencyError: A schema without the package jsonschema.
    """
    checks: list[Check] = []
    if recipe.finished:
        checks.append(lambda c: None if c.finished else "unfinished")
    if recipe.min_tokens is not None:
        shortest = recipe.min_tokens
        checks.append(lambda c: "too_short" if len(c.tokens_T) < shortest else None)
    if recipe.max_tokens is not None:
        longest = recipe.max_tokens
        checks.append(lambda c: "too_long" if len(c.tokens_T) > longest else None)
    if recipe.max_repetition is not None:
        most, n = recipe.max_repetition, recipe.repetition_n
        checks.append(lambda c: "repetitive" if repetition(c.tokens_T, n) > most else None)
    if recipe.pattern is not None:
        wanted = re.compile(recipe.pattern)
        checks.append(lambda c: None if wanted.search(c.answer) else "pattern")
    if recipe.forbidden is not None:
        refused = re.compile(recipe.forbidden)
        checks.append(lambda c: "forbidden" if refused.search(c.answer) else None)
    if schema is not None:
        checks.append(_schema_check(schema))
    if recipe.matches_reference:
        checks.append(_reference_check(recipe.answer_pattern))
    if verify is not None:
        checks.append(_verifier_check(verify))
    return checks


def decide(candidate: Candidate, checks: Iterable[Check]) -> Decision:
    """Return the decision of the first check that rejects a candidate, or that it is kept."""
    for check in checks:
        reason = check(candidate)
        if reason is not None:
            return Decision(False, reason)
    return Decision(True)


def repetition(tokens_T: Sequence[int] | Ids, n: int) -> float:
    """Return the share of n-grams that repeat earlier ones, 1 - distinct / all, in [0, 1).

    The measure seq-rep-n of Welleck et al. 2020 (Neural text generation with unlikelihood training, section 6); 0 where the
    text is shorter than n.
    """
    tokens = [int(t) for t in tokens_T]
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def score_decision(score: float | None, min_score: float) -> Decision:
    """Return the decision on a judge's score; None is a reply that was no score."""
    if score is None:
        return Decision(False, "judge_unparsed")
    return Decision(True) if score >= min_score else Decision(False, "judge_score")


def choose(
    candidates: Sequence[Candidate],
    decisions: Sequence[Decision],
    scores: Mapping[int, float],
    recipe: FilterRecipe,
) -> list[Decision]:
    """Return the decisions after choosing among each prompt's accepted answers.

    Args:
        candidates: All answers.
        decisions: What the checks and the judge said of each.
        scores: The judge's scores, by number of the answer; needed for keep = "best".
        recipe: Its `distinct` and `keep`.
    """
    decided = list(decisions)
    if recipe.distinct:
        seen: set[tuple[int, str]] = set()
        for number, candidate in enumerate(candidates):
            mark = (candidate.prompt, candidate.answer.strip())
            if decided[number].kept and mark in seen:
                decided[number] = Decision(False, "duplicate")
            elif decided[number].kept:
                seen.add(mark)
    if recipe.keep == "all":
        return decided
    best: dict[int, int] = {}
    for number, candidate in enumerate(candidates):
        if not decided[number].kept:
            continue
        chosen = best.setdefault(candidate.prompt, number)
        if recipe.keep == "best" and scores[number] > scores[chosen]:
            best[candidate.prompt] = number
    taken = set(best.values())
    return [
        Decision(False, "not_chosen") if d.kept and n not in taken else d
        for n, d in enumerate(decided)
    ]


def tally(candidates: Sequence[Candidate], decisions: Sequence[Decision]) -> Sifted:
    """Count decisions.

    Raises:
        FilterError: One side of the split has no answer left; the counts are in the message.
    """
    kept = tuple(n for n, d in enumerate(decisions) if d.kept)
    reasons = [d.because for d in decisions]
    sifted = Sifted(
        kept=kept,
        answers=_sides(candidates),
        kept_by_side=_sides([candidates[n] for n in kept]),
        rejected={r: reasons.count(r) for r in REASONS if r in reasons},
    )
    for side, words in (("train", "to train on"), ("heldout", "held out")):
        if not sifted.kept_by_side[side]:
            raise FilterError(
                f"the filter leaves no answer {words}, of {sifted.answers[side]}; rejected on both sides: "
                f"{told(sifted.rejected)}. The answers are kept: loosen [filter] and run again"
            )
    return sifted


def told(rejected: Mapping[Any, int]) -> str:
    """Write counts of rejections as `12 not JSON, 3 cut at its length`."""
    return ", ".join(f"{n} {REASONS.get(r, r)}" for r, n in rejected.items()) or "none"


def _sides(candidates: Sequence[Candidate]) -> dict[str, int]:
    heldout = sum(c.heldout for c in candidates)
    return {"train": len(candidates) - heldout, "heldout": heldout}


def _schema_check(schema: Any) -> Check:
    try:
        from jsonschema import SchemaError, ValidationError, validators
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError:
        raise MissingDependencyError(
            "filter.json_schema needs the package jsonschema: pip install 'limbeck[api]'"
        ) from None
    kind = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise FilterError(f"filter.json_schema is no JSON Schema: {error.message}") from None
    # An empty registry: a schema that points elsewhere must not make us fetch it.
    validator = kind(schema, registry=Registry())

    def check(candidate: Candidate) -> Reason | None:
        try:
            value = json.loads(candidate.answer, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            return "not_json"
        try:
            validator.validate(value)
        except ValidationError:
            return "json_schema"
        except Unresolvable as error:
            raise FilterError(
                f"filter.json_schema points to {error.ref}, which is not in it; a schema must stand alone"
            ) from None
        return None

    return check


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _reference_check(pattern: str | None) -> Check:
    found = None if pattern is None else re.compile(pattern)

    def compared(text: str) -> str | None:
        match = None if found is None else found.search(text)
        return match[1] if match is not None else None

    def check(candidate: Candidate) -> Reason | None:
        if candidate.reference is None:
            raise FilterError(
                "filter.matches_reference needs responses in the corpus, and the prompt "
                f"{_start(candidate)} has none"
            )
        wanted = compared(candidate.reference) or candidate.reference
        said = candidate.answer if found is None else compared(candidate.answer)
        return None if said is not None and said.strip() == wanted.strip() else "reference"

    return check


def _verifier_check(verify: Verifier) -> Check:
    def check(candidate: Candidate) -> Reason | None:
        try:
            said = verify(candidate)
        except Exception as error:  # code of the user's: whatever it raises is told with its place
            raise FilterError(
                f"the verifier failed on an answer to {_start(candidate)}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(said, bool):
            raise FilterError(
                f"the verifier must return True or False, got {said!r} for an answer to {_start(candidate)}"
            )
        return None if said else "verifier"

    return check


def _start(candidate: Candidate) -> str:
    text = candidate.turns[-1].content if candidate.turns else ""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
