"""Tracing from end to end: seal coins for a list of prompts, audit a suspect on them, write the report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.artefact import write_json, write_text
from limbeck.backends.prompt_logprobs import PromptLogprobs
from limbeck.backends.served import PREFIX, ServedModel
from limbeck.drawing import Drawing, draw, open_either, open_local
from limbeck.errors import CorpusError, ScoringError, TeacherError, TraceError
from limbeck.ledger.keys import create_keys, read_keys
from limbeck.ledger.note import Signer
from limbeck.model import LocalModel
from limbeck.opening import open_model
from limbeck.progress import Progress
from limbeck.stats.coins import threshold
from limbeck.supporting import Party, Wanted, supporting
from limbeck.trace.audit import Audit, Item, Weigher, Weights, audit, judge
from limbeck.trace.coins import Coin, Pair, usable
from limbeck.trace.likeness import Finding
from limbeck.trace.local import LocalWeigher
from limbeck.trace.many import Discoveries, discover
from limbeck.trace.report import Models, capped, figures, render_html, text_figures
from limbeck.trace.sealing import COMMITMENT, Beacon, Sealed, commit, read_sealed, seal
from limbeck.trace.siblings import Contexts, Floats, SiblingTest, rank_siblings
from limbeck.trace.text_only import FEATURES, KEYS, KeyTest, audit_texts, combined, fresh_keys
from limbeck.trace.verdict import Verdict, decide_by_p
from limbeck.validate.local import LocalRespondent
from limbeck.validate.respond import Asked, Respondent

KEYS_FOLDER = "keys"
"""Below the coins' folder: the signing key that is made where none is given."""
_SIGNER = "limbeck/trace"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a suspect; everything in it is fixed before the audit begins."""

    suspect: str
    references: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    alpha: float = 1e-3
    weights: Weights = "fitted"
    at_most: int | None = None
    by_account: bool = False
    """Test every account by itself too, which takes all coins at hand."""
    text_only: bool = False
    supporting: Wanted = field(default_factory=Wanted)
    """What else is compared, for the drawer that enters no verdict."""
    dtype: str = "float32"


# Sealing


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """Read prompts with their accounts: JSONL with `prompt` and perhaps `account`, or text with one prompt a line.

    Raises:
        CorpusError: The file is missing, empty or malformed; the line is named.
    """
    if not path.is_file():
        raise CorpusError(f"prompt file {path} does not exist")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise CorpusError(f"prompt file {path} is not text in UTF-8: {error}") from None
    numbered = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise CorpusError(f"prompt file {path} holds no prompts")
    if path.suffix != ".jsonl":
        return [(line, "") for _, line in numbered]
    return [_prompt(line, f"{path} line {n}") for n, line in numbered]


def _prompt(line: str, where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise CorpusError(f"{where} must be an object with a prompt, got {type(row).__name__}")
    prompt, account = row.get("prompt"), row.get("account", "")
    if not isinstance(prompt, str) or not prompt.strip() or not isinstance(account, str):
        raise CorpusError(f"{where} needs text in prompt, and text in account if it has one")
    return prompt, account


def commit_answers(
    prompts: Sequence[tuple[str, str]],
    teacher: str,
    out: Path,
    *,
    drawing: Drawing,
    keys: Path | None,
    base: Path,
    progress: Progress,
) -> None:
    """Draw two answers to each prompt and commit to them; nothing is tossed yet.

    Raises:
        TraceError: The folder holds coins already, or no pair is left.
        LimbeckError: The teacher cannot be loaded or asked.
    """
    if (out / COMMITMENT).exists():
        raise TraceError(f"{out} holds coins already; a sealed file is never written again")
    asked = list(dict.fromkeys(prompts))
    progress.begin("answers", 2 * len(asked), "answers")
    first, second, about = _two_answers(teacher, [p for p, _ in asked], drawing, base, progress)
    made = [Pair(p, a, b, who) for (p, who), a, b in zip(asked, first, second, strict=True)]
    found = usable([*made, *_repeats(prompts, made)])
    progress.end(f"{len(found.pairs)} pairs, {found.equal} equal, {found.duplicate} asked before")
    drawn = {"temperature": drawing.temperature, "max_new_tokens": drawing.max_new_tokens}
    commit(out, found, _signer(out, keys), teacher=about | drawn, now=datetime.now(UTC))


def _two_answers(
    teacher: str, prompts: Sequence[str], drawing: Drawing, base: Path, progress: Progress
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Return two answers to each prompt, and who wrote them."""
    model = open_either(teacher, base, "float32")
    first, second = (draw(model, prompts, drawing, number=n, progress=progress) for n in (0, 1))
    if isinstance(model, LocalModel):
        return first, second, {"name": model.name, "weights_sha256": model.weights_sha256}
    return first, second, {"name": teacher, "weights_sha256": None}


def _repeats(prompts: Sequence[tuple[str, str]], made: Sequence[Pair]) -> list[Pair]:
    """Return the pairs that further copies of a prompt stand for, so that they are counted as duplicates."""
    by_prompt = {(p.prompt, p.account): p for p in made}
    seen: set[tuple[str, str]] = set()
    again: list[Pair] = []
    for prompt in prompts:
        if prompt in seen:
            again.append(by_prompt[prompt])
        seen.add(prompt)
    return again


def seal_answers(out: Path, beacon: Beacon | None, *, keys: Path | None) -> Sealed:
    """Toss the coins of a folder that was committed to, and return them checked."""
    if not (out / COMMITMENT).is_file():  # before keys are made for nothing
        raise TraceError(f"{out} has no {COMMITMENT}: coins come from `limbeck trace seal`")
    seal(out, _signer(out, keys), beacon)
    return read_sealed(out)


def _signer(out: Path, keys: Path | None) -> Signer:
    folder = out / KEYS_FOLDER if keys is None else keys
    if keys is None and not folder.exists():
        return create_keys(folder, _SIGNER).signer
    return read_keys(folder).signer


# Auditing


@dataclass(frozen=True, slots=True)
class Traced:
    """An audit with everything that its report says."""

    report: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.html`."""
        write_json(folder / "report.json", self.report)
        write_text(folder / "report.html", render_html(self.report))


def trace(question: Question, coins: Path, *, base: Path, progress: Progress) -> Traced:
    """Audit a suspect on a folder of coins.

    Raises:
        TraceError: Coins that do not match their commitment, an account without coins, or a suspect that gives no
            log-probabilities.
        LimbeckError: A model cannot be loaded or asked.
    """
    threshold(question.alpha)  # refuses an alpha that is none before anything costly is done
    sealed = read_sealed(coins)
    chosen = sealed.of(question.accounts)
    if question.text_only:
        return Traced(_trace_texts(question, sealed, chosen, base, progress))
    suspect = open_weigher(question.suspect, base, question.dtype)
    references = _open_references(question, sealed, base)
    for reference in references:
        if reference.identity == suspect.identity:
            raise TraceError(
                f"the reference {reference.name} is the suspect itself, beside which nothing can show; name another"
            )
    progress.begin("audit", len(chosen), "coins")
    done = audit(
        chosen,
        suspect,
        references,
        alpha=question.alpha,
        weights=question.weights,
        at_most=question.at_most,
        stop_early=not question.by_account,
        heard=progress.advance,
    )
    progress.end(f"{len(done.items)} coins, {done.verdict.finding}")
    party = _party(suspect)
    return Traced(
        figures(
            done,
            sealed,
            _models(suspect, references),
            created=datetime.now(UTC),
            accounts=question.accounts,
            discoveries=by_account(done, question.alpha) if question.by_account else None,
            supporting=_supporting(
                question, party, [_party(r) for r in references], sealed, chosen, base, progress
            ),
        )
    )


def open_weigher(spec: str, base: Path, dtype: str) -> Weigher:
    """Return whoever answers to a model's name and can say how likely a text is.

    Raises:
        LimbeckError: There is no such model.
    """
    if spec.startswith(PREFIX):
        return ServedWeigher(spec)
    return LocalWeigher(open_local(spec, base, dtype))


class ServedWeigher:
    """A model behind an API under audit."""

    def __init__(self, spec: str) -> None:
        """Read the spec; nothing is sent yet.

        Raises:
            ScoringError: It has not the form `openai:NAME@URL`.
        """
        self.answering = ServedModel(spec)
        """The same model, asked for text."""
        self._served = PromptLogprobs(spec)
        self.name = self._served.name
        self.identity = self._served.identity

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        """Return the log-likelihoods of both texts of each pair, prompt included, which cancels.

        Raises:
            TraceError: The server states no log-probabilities of a prompt.
        """
        texts = [(p.prompt, answer) for p in pairs for answer in (p.y0, p.y1)]
        try:
            logs = self._served.weigh(texts)
        except ScoringError as error:
            raise TraceError(str(error)) from None
        return list(zip(logs[::2], logs[1::2], strict=True))


def _open_references(question: Question, sealed: Sealed, base: Path) -> list[Weigher]:
    """Return the references that were named, or else the teacher where it can be loaded here."""
    if question.references:
        return [open_weigher(name, base, question.dtype) for name in question.references]
    teacher = str(sealed.committed.teacher.get("name", ""))
    if not teacher or teacher.startswith(PREFIX):
        return []
    try:
        return [open_weigher(teacher, base, question.dtype)]
    except TeacherError as error:
        raise TraceError(
            f"the coins' teacher cannot be loaded here, so name a --reference that saw neither answer: {error}"
        ) from None


def _models(suspect: Weigher, references: Sequence[Weigher]) -> Models:
    return Models(suspect.name, suspect.identity, {r.name: r.identity for r in references})


def by_account(done: Audit, alpha: float) -> Discoveries:
    """Test each account's coins by themselves, out of an audit that scored them all."""
    items: dict[str, list[Item]] = {}
    for item in done.items:
        items.setdefault(item.account, []).append(item)
    e_values = {
        name: capped(
            judge(mine, done.suspect, done.references, alpha=alpha, weights=done.weights).log_e
        )
        for name, mine in items.items()
    }
    return discover(e_values, alpha)


def _party(weigher: Weigher) -> Party:
    """Return a model of the audit as the drawer of supporting evidence asks it."""
    if isinstance(weigher, LocalWeigher):
        return Party(weigher.name, weigher.local)
    assert isinstance(weigher, ServedWeigher)  # noqa: S101 - `open_weigher` makes no other
    return Party(weigher.name, weigher.answering)


def _supporting(
    question: Question,
    suspect: Party,
    references: Sequence[Party],
    sealed: Sealed,
    coins: Sequence[Coin],
    base: Path,
    progress: Progress,
) -> Sequence[Finding]:
    """Return the drawer's findings; what they cost is spent only where they were asked for."""
    if not question.supporting.anything:
        return ()
    return supporting(
        question.supporting,
        suspect,
        references,
        sealed,
        coins,
        base=base,
        dtype=question.dtype,
        progress=progress,
    )


# Ranking a teacher among its siblings


@dataclass(frozen=True, slots=True)
class Family:
    """A teacher with what it was before its last phase, and the re-runs of that phase."""

    teacher: str
    before: str
    siblings: tuple[str, ...]


def trace_siblings(
    family: Family,
    suspect: str,
    contexts: Sequence[str],
    *,
    candidates: int,
    base: Path,
    dtype: str,
    progress: Progress,
) -> SiblingTest:
    """Rank a teacher among its siblings by how much of it a suspect holds.

    The candidates of each context are the likeliest tokens of the teacher before its last phase. Every context given is
    used, so their number is fixed by whoever names them.

    Raises:
        TraceError: No context, no sibling, or a model with another tokenizer.
        LimbeckError: A model cannot be loaded.
    """
    if not contexts:
        raise TraceError("a rank among siblings needs contexts at which models are compared")
    before = open_local(family.before, base, dtype)
    places = Contexts(tuple(contexts), LocalWeigher(before).likeliest(contexts, candidates))
    names = (suspect, family.before, family.teacher, *family.siblings)
    progress.begin("models", len(names), "models")
    heard: list[Floats] = []
    for name in names:
        model = open_local(name, base, dtype)
        if model.tokenizer_sha256 != before.tokenizer_sha256:
            raise TraceError(
                f"{name} has another tokenizer than {family.before}, and siblings are compared token by token"
            )
        heard.append(LocalWeigher(model).log_probs(places))
        progress.advance()
    progress.end()
    return rank_siblings(heard[0], heard[1], heard[2], heard[3:])


# Auditing text alone


def _trace_texts(
    question: Question,
    sealed: Sealed,
    coins: Sequence[Coin],
    base: Path,
    progress: Progress,
) -> dict[str, Any]:
    respondent = open_model(
        question.suspect, "bfloat16" if question.dtype == "bfloat16" else "float32", base
    )
    chosen = coins[: question.at_most]
    longest = int(sealed.committed.teacher.get("max_new_tokens", 128))
    progress.begin("suspect's answers", len(chosen), "answers")
    written = respondent.write(
        [Asked(f"coin {i}", c.pair.prompt, "chat") for i, c in enumerate(chosen)],
        max_new_tokens=longest,
        heard=progress.advance,
    )
    progress.end()
    tests, verdict = weigh_texts(chosen, written, sealed.beacon.value, question.alpha)
    models = Models(respondent.name, respondent.identity, {})
    drawer = _supporting_of_text(question, respondent, sealed, chosen, base, progress)
    return text_figures(
        tests,
        verdict,
        sealed,
        models,
        coins=len(chosen),
        created=datetime.now(UTC),
        accounts=question.accounts,
        supporting=drawer,
    )


def _supporting_of_text(
    question: Question,
    respondent: Respondent,
    sealed: Sealed,
    coins: Sequence[Coin],
    base: Path,
    progress: Progress,
) -> Sequence[Finding]:
    """Return the drawer's findings beside an audit of text alone, which opens no reference of its own."""
    if not question.supporting.anything:
        return ()
    local = respondent.local if isinstance(respondent, LocalRespondent) else None
    suspect = Party(respondent.name, local or ServedModel(question.suspect))
    references = [
        Party(name, open_either(name, base, question.dtype)) for name in question.references
    ]
    return _supporting(question, suspect, references, sealed, coins, base, progress)


def weigh_texts(
    coins: Sequence[Coin],
    written: Sequence[str],
    beacon: str,
    alpha: float,
    *,
    features: Sequence[str] = tuple(FEATURES),
    keys: Sequence[bytes] | None = None,
) -> tuple[list[tuple[KeyTest, float]], Verdict]:
    """Test every feature with the same fresh keys, correct for their number, and decide.

    Args:
        coins: As they were sealed.
        written: The suspect's answer to each coin's prompt.
        beacon: The beacon's value.
        alpha: Fixed beforehand.
        features: Those that were named beforehand.
        keys: The fresh keys; None draws enough that alpha can be reached.
    """
    enough = max(KEYS, int(np.ceil(2 * len(features) / alpha)))
    keys = fresh_keys(enough) if keys is None else keys
    tests = audit_texts(coins, written, beacon, features=features, keys=keys)
    corrected = list(combined(tests))
    return corrected, decide_by_p(min(p for _, p in corrected), alpha=alpha, coins=len(coins))


__all__ = [
    "Audit",
    "Beacon",
    "Drawing",
    "Family",
    "Question",
    "Traced",
    "commit_answers",
    "read_prompts",
    "seal_answers",
    "trace",
    "trace_siblings",
]
