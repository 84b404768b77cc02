"""Text that a student writes to be trained on: answers to the prompts of some steps, and the record of it."""

import contextlib
import copy
import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.artefact import write_text
from limbeck.distill.capture import end_tokens
from limbeck.distill.corpus import Prompt, answered
from limbeck.distill.mixing import prompt_of
from limbeck.distill.recipe import OnPolicyRecipe
from limbeck.distill.spread import Team
from limbeck.distill.targets import Document
from limbeck.distill.write import Sampling, write_answers
from limbeck.errors import RecipeError
from limbeck.model import LocalModel

LOG = "writing.jsonl"

Answers = list[list[int]]
Asked = tuple[int, Prompt]
"""A prompt and the step that its answer is for."""


@dataclass(frozen=True, slots=True)
class Writing:
    """What was written at one time: a line of the log, or the sum of several."""

    step: int
    """The first of the steps that train on it."""
    answers: int
    cut: int
    """Answers that ended at their length, not with the end of the turn."""
    stale: int
    """Answers that a later step trains on, when the student has moved on."""
    tokens: int
    """Tokens of the answers."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Writer:
    """A student that answers prompts, alone or side by side with the same student in other processes."""

    student: LocalModel
    own: OnPolicyRecipe
    precision: str
    """"bf16" writes in bfloat16, "no" in the weights' own format."""
    team: Team
    seed: int
    folder: Path
    """Where the log lies."""

    def write(self, wanted: Mapping[int, Sequence[Prompt]]) -> dict[int, list[Document]]:
        """Return the answered prompts of each step, and add a line to the log.

        Batches hold prompts of similar length. They are cut before they are dealt out to processes and seeded one
        by one, so the text does not depend on the number of processes.

        Args:
            wanted: Consecutive steps to their prompts; a step may have none.
        """
        started, first = time.perf_counter(), min(wanted)
        asked = [(step, prompt) for step, prompts in wanted.items() for prompt in prompts]
        if not asked:
            return {step: [] for step in wanted}
        asked.sort(key=lambda a: len(a[1].tokens_T))
        batches = [asked[at : at + self.own.batch] for at in range(0, len(asked), self.own.batch)]
        sampling = Sampling(self.own.temperature, self.own.max_new_tokens, end_tokens(self.student))
        answers = self._answers(batches, sampling, first)
        fresh: dict[int, list[Document]] = {step: [] for step in wanted}
        for (step, prompt), answer in zip(asked, answers, strict=True):
            fresh[step].append(answered(prompt, answer))
        entry = Writing(
            step=first,
            answers=len(answers),
            cut=sum(answer[-1] not in sampling.ends for answer in answers),
            stale=len(answers) - len(fresh[first]),
            tokens=sum(map(len, answers)),
            seconds=time.perf_counter() - started,
        )
        if self.team.leads:
            _append(self.folder, entry)
        return fresh

    def _answers(
        self, batches: Sequence[Sequence[Asked]], sampling: Sampling, first: int
    ) -> Answers:
        """Return the answers in the order of the batches, whichever process wrote them."""
        mine = range(self.team.rank, len(batches), self.team.size)
        with _writing(self.student.model, self.precision) as model:
            written = [
                (n, _answer(model, batches[n], sampling, (self.seed, first, n))) for n in mine
            ]
        everybodys = sorted(pair for theirs in self.team.gather(written) for pair in theirs)
        return [answer for _, answers in everybodys for answer in answers]


def _answer(
    model: Any, batch: Sequence[Asked], sampling: Sampling, seeds: tuple[int, ...]
) -> Answers:
    state = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    generator = torch.Generator().manual_seed(state % 2**63)
    return write_answers(model, [prompt.tokens_T for _, prompt in batch], sampling, generator)


@contextlib.contextmanager
def _writing(model: Any, precision: str) -> Generator[Any]:
    """Give the model as it writes: in evaluation mode, and for "bf16" a copy in bfloat16.

    Under autocast instead of the copy, frozen weights would be converted anew for every token.
    """
    if precision == "bf16":
        yield copy.deepcopy(model).to(torch.bfloat16).eval()
        return
    model.eval()
    try:
        yield model
    finally:
        model.train()


def prompts_with_room(
    documents: Sequence[Document], own: OnPolicyRecipe, row_length: int, teacher: LocalModel
) -> list[Prompt]:
    """Return the prompt of every document, with room for an answer in a row and in the teacher's context.

    Raises:
        RecipeError: The longest prompt leaves no room, and the student is to write.
    """
    prompts = [prompt_of(document, own.prompt_tokens) for document in documents]
    if own.fraction:
        check_room(prompts, own, row_length, teacher)
    return prompts


def check_room(
    prompts: Sequence[Prompt], own: OnPolicyRecipe, row_length: int, teacher: LocalModel
) -> None:
    """Check that an answer to every prompt fits a row and the teacher's context.

    Raises:
        RecipeError: The longest prompt leaves no room.
    """
    longest = max((len(p.tokens_T) for p in prompts), default=0)
    context = getattr(teacher.model.config, "max_position_embeddings", None)
    rooms = (("train.row_length", row_length), (f"the context of {teacher.name}", context))
    for name, room in rooms:
        if room is not None and longest + own.max_new_tokens > room:
            raise RecipeError(
                f"on_policy.max_new_tokens = {own.max_new_tokens} after the longest prompt, {longest} tokens, "
                f"is beyond {name}, {room} tokens; lower it, or shorten prompts with corpus.max_length"
            )


# The record


def read_writing(folder: Path) -> list[Writing]:
    """Read the log, empty where there is none; a last line that a crash cut short is left out."""
    path = folder / LOG
    entries: list[Writing] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entries.append(Writing(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return entries


def cut_writing(folder: Path, done: int, *, write: bool = True) -> None:
    """Forget what was written for steps after `done`; of several processes one may `write`."""
    if not write:
        return
    kept = [e for e in read_writing(folder) if e.step <= done]
    write_text(folder / LOG, "".join(json.dumps(asdict(e)) + "\n" for e in kept))


def _append(folder: Path, entry: Writing) -> None:
    with (folder / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(entry)) + "\n")


def total(entries: Sequence[Writing]) -> Writing:
    """Return the sum of some entries, with the first one's step."""
    return Writing(
        step=min((e.step for e in entries), default=1),
        answers=sum(e.answers for e in entries),
        cut=sum(e.cut for e in entries),
        stale=sum(e.stale for e in entries),
        tokens=sum(e.tokens for e in entries),
        seconds=sum(e.seconds for e in entries),
    )


def on_policy_notes(
    own: OnPolicyRecipe, written: Mapping[str, Any], read_loss: str, *, control: bool
) -> tuple[str, ...]:
    """Return what a reader must know of the objective, one sentence each.

    Args:
        own: How the student wrote.
        written: Sums over the run: answers, cut, stale, tokens.
        read_loss: What was minimised on text from the store.
        control: Whether a cross-entropy control was trained beside the student.
    """
    if not own.fraction:
        return ()
    others = f"; on the other texts, from the store, {read_loss}" if own.fraction < 1 else ""
    notes = [
        f"The objective is on-policy: a fraction of {own.fraction:.4g} of the texts trained on are the "
        f"student's own, {written['answers']:,} answers of {written['tokens']:,} tokens drawn at temperature "
        f"{own.temperature:g}, on which it minimised {own.loss.kind} from the teacher's whole distribution"
        f"{others}.",
        f"Of its answers {written['cut']:,} were cut at {own.max_new_tokens} tokens; {written['stale']:,} were "
        f"stale when they were trained on, by at most {own.max_staleness} steps.",
    ]
    if control:
        notes.append(
            "The cross-entropy control read the teacher's answers to the same prompts, in the same order and "
            "steps; a student's own text has no right next token."
        )
    return tuple(notes)
