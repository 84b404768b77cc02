"""A run whose student has another tokenizer than its teacher, over the run's folder.

`corpus/documents.jsonl` holds pairs, or prompts for the teacher to answer; answers are paired as they are written and
lie in `answers/`. `corpus/labels.safetensors` holds the student's labels, so that training needs no teacher.
"""

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from limbeck.chat import Message
from limbeck.distill.align import Pair
from limbeck.distill.beginning import Beginning
from limbeck.distill.capture import answer_prompts, end_tokens
from limbeck.distill.capture_pairs import capture_pairs, listen_to_pairs, pair_order
from limbeck.distill.corpus import Chat, Corpus, Counts, Prompt, Record, count_sides, prompt_ids
from limbeck.distill.labels import Labels, StudentLabels, read_labels, share_labels
from limbeck.distill.pairs import (
    Side,
    chat_pair,
    kind_counts,
    pair_lines,
    pair_up,
    read_pair,
    turn_ends,
)
from limbeck.distill.prefix import prefixed
from limbeck.distill.recipe import AlignRecipe, Recipe
from limbeck.distill.spelling import spelling_of
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Ids, Taught
from limbeck.model import LocalModel
from limbeck.told import lend, lines, read_beginning, write_beginning

LABELS = "corpus/labels.safetensors"
_PART_SEED = 1_000_000_007


@dataclass(frozen=True)
class Reader:
    """The student as far as reading goes."""

    name: str
    tokenizer: Any
    tokenizer_sha256: str
    rows: int
    """Of its head."""
    ends: frozenset[int]
    """Its ids that end a turn."""
    context: int | None


@dataclass(frozen=True)
class Aligned:
    """Both sides of a run with `[align]`."""

    recipe: Recipe
    align: AlignRecipe
    folder: Path
    """The run's."""
    teacher: LocalModel
    reader: Reader
    prefix: Chat = ()
    """What only the teacher reads."""

    @cached_property
    def sides(self) -> tuple[Side, Side]:
        """The student's side, then the teacher's."""
        config = self.teacher.model.config
        rows = self.teacher.model.get_output_embeddings().weight.shape[0]
        reader = self.reader
        return (
            Side(
                reader.tokenizer,
                spelling_of(reader.tokenizer, reader.rows, name=f"student {reader.name}"),
                context=reader.context,
            ),
            Side(
                self.teacher.tokenizer,
                spelling_of(self.teacher.tokenizer, rows, name=f"teacher {self.teacher.name}"),
                self.prefix,
                getattr(config, "max_position_embeddings", None),
            ),
        )

    @cached_property
    def labels(self) -> Labels:
        """What both vocabularies share."""
        student, teacher = self.sides
        return share_labels(
            teacher.spelling,
            student.spelling,
            teacher_ends=end_tokens(self.teacher) | turn_ends(self.teacher.tokenizer),
            student_ends=self.reader.ends,
        )

    # The corpus.

    def read(self, corpus: Corpus, *, max_length: int) -> tuple[list[dict[str, Any]], Counts]:
        """Return the lines of texts or answered chats, and their counts; write what both sides share."""
        pairs, counts = pair_up(corpus, *self.sides, max_length=max_length)
        most = min(int(pair.rows().teacher_R.min()) - 1 for pair in pairs)
        shared = write_beginning(self.folder, [pair.teacher_T for pair in pairs], most)
        self.labels.student.save(self.folder / LABELS)
        return list(pair_lines(pairs, shared)), counts

    def ask(self, corpus: Corpus, *, max_length: int) -> tuple[list[dict[str, Any]], Counts]:
        """Return the lines of prompts, and their counts; write what both sides share.

        Args:
            corpus: Prompts.
            max_length: Tokens that a prompt must stay below, as the student reads it.
        """
        kept: list[tuple[Record, Ids]] = []
        for record in corpus.records:
            if len(prompt_ids(record, self.reader.tokenizer)) < max_length:
                told = replace(record, content=prefixed(record, self.prefix))
                kept.append((record, prompt_ids(told, self.teacher.tokenizer)))
        tokens = [told_T for _, told_T in kept]
        prompts = [Prompt(told_T, record.heldout, record.key) for record, told_T in kept]
        counts = replace(corpus.counts, too_long=len(corpus.records) - len(kept))
        counts = count_sides(counts, prompts, max_length)
        shared = write_beginning(self.folder, tokens, min(map(len, tokens)) - 1)
        self.labels.student.save(self.folder / LABELS)
        return [_prompt_line(record, told_T[shared:]) for record, told_T in kept], counts

    # Capture.

    @cached_property
    def _lent(self) -> tuple[Beginning | None, Ids]:
        return lend(self.teacher, read_beginning(self.folder))

    @property
    def beginning(self) -> Beginning | None:
        """What the teacher has read before each of its documents; None where it reads everything every time."""
        return self._lent[0]

    def listen(
        self, spec: StoreSpec, part: int, parts: int, *, done: int, heard: Callable[[str], None]
    ) -> Iterator[Taught]:
        """Return one part's documents with targets, after the first `done`; prompts are answered first."""
        pairs = self.pairs(part, parts, heard=heard)
        return capture_pairs(
            self.teacher,
            pair_order(pairs),
            self.labels,
            spec,
            method=self.align.method,
            batch_tokens=self.recipe.capture.batch_tokens,
            seed=self.recipe.seed,
            skip=done,
            beginning=self._lent[0],
        )

    def pilot(self, count: int) -> list[tuple[Document, Tensor]]:
        """Return a few documents with dense targets."""
        pairs = self._read_pairs(lines(self.folder)) if self.recipe.generate is None else []
        if self.recipe.generate is not None:
            asked = list(lines(self.folder))[:count]
            pairs = self._read_pairs(json.loads(x) for x in self._answers(asked, part=0, skip=0))
        chosen = sorted(pairs, key=lambda p: p.student.key)[:count]
        heard = listen_to_pairs(
            self.teacher, chosen, self.labels, method=self.align.method, beginning=self._lent[0]
        )
        return [(pair.student, torch.cat(said)) for pair, said in heard]

    def pairs(
        self, part: int = 0, parts: int = 1, *, heard: Callable[[str], None] | None = None
    ) -> list[Pair]:
        """Return one part's pairs; with `heard`, answers that are not written yet are."""
        if self.recipe.generate is None:
            return self._read_pairs(lines(self.folder))[part::parts]
        path = self.folder / f"answers/part-{part:03d}.jsonl"
        if heard is not None:
            asked = list(lines(self.folder))[part::parts]
            self._write_answers(path, asked, part, heard)
        with path.open(encoding="utf-8") as file:
            return self._read_pairs(map(json.loads, file))

    def all_pairs(self) -> list[Pair]:
        """Return the pairs of every part."""
        parts = self.recipe.capture.store_parts
        return [pair for part in range(parts) for pair in self.pairs(part, parts)]

    def _read_pairs(self, found: Iterable[dict[str, Any]]) -> list[Pair]:
        student, teacher = self.sides
        shared_T = read_beginning(self.folder)
        spellings = student.spelling, teacher.spelling
        return [read_pair(line, shared_T, spellings) for line in found if "tokens" in line]

    def _write_answers(
        self, path: Path, asked: Sequence[dict[str, Any]], part: int, heard: Callable[[str], None]
    ) -> None:
        """Append the answers that are missing, one line each; a line that a crash cut short is written again."""
        path.parent.mkdir(exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            whole = [line for line in file if line.endswith(b"\n")]
            file.truncate(sum(map(len, whole)))
            for number, line in enumerate(self._answers(asked, part, len(whole)), len(whole) + 1):
                file.write(f"{line}\n".encode())
                file.flush()
                heard(f"{number} of {len(asked)} answers")

    def _answers(self, asked: Sequence[dict[str, Any]], part: int, skip: int) -> Iterator[str]:
        """Yield each answered prompt as a pair's line, or with the reason why there is no pair."""
        generate = self.recipe.generate
        if generate is None:
            return
        beginning, before_T = self._lent
        prompts = [_prompt_of(line, before_T) for line in asked]
        shared = len(read_beginning(self.folder))
        taught = answer_prompts(
            self.teacher,
            prompts,
            generate,
            StoreSpec(tail_samples=0, max_head=1),  # the targets come later, over labels
            seed=self.recipe.seed + part * _PART_SEED,
            skip=skip,
            beginning=beginning,
        )
        for line, prompt, one in zip(asked[skip:], prompts[skip:], taught, strict=True):
            pair = self._pair_answer(line, one.document.tokens_T[len(prompt.tokens_T) :])
            found = {"dropped": pair} if isinstance(pair, str) else next(pair_lines([pair], shared))
            yield json.dumps(found)

    def _pair_answer(self, line: Mapping[str, Any], answer_T: Ids) -> Pair | str:
        """Read the teacher's answer as text, and let both sides read that."""
        student, teacher = self.sides
        ended = int(answer_T[-1]) in end_tokens(self.teacher)
        written_T = answer_T[: len(answer_T) - ended]
        text = _text(b"".join(teacher.spelling.spell(written_T)))
        if text is None or not teacher.spelling.is_text(written_T):
            return "unaligned"
        messages = tuple(Message(m["role"], m["content"]) for m in line["messages"])
        answered = (*messages, Message("assistant", text))
        record = Record(answered, line["key"], line["heldout"], where="an answer of the teacher")
        room = self.recipe.train.row_length
        return chat_pair(record, student, teacher, max_length=room, only_last=True, ended=ended)

    # Figures.

    def figures(self) -> dict[str, Any]:
        """Return how spans lie beside each other, for the report."""
        pairs = self.all_pairs()
        counts = kind_counts(pairs)
        asked = sum(1 for _ in lines(self.folder))
        return {
            "method": self.align.method,
            "positions": counts,
            "coincident_share": (counts["whole"] + counts["end"]) / max(1, sum(counts.values())),
            "shared_labels": len(self.labels.by_bytes),
            "unaligned_answers": asked - len(pairs) if self.recipe.generate is not None else 0,
        }


def student_labels(folder: Path) -> StudentLabels:
    """Return a run's student labels.

    Raises:
        RunError: They are missing or damaged.
    """
    return read_labels(folder / LABELS)


def _prompt_line(record: Record, told_T: Ids) -> dict[str, Any]:
    content = record.content if isinstance(record.content, tuple) else ()
    return {
        "key": record.key,
        "heldout": record.heldout,
        "teacher": told_T.tolist(),
        "messages": [m.as_dict() for m in content],
    }


def _prompt_of(line: Mapping[str, Any], before_T: Ids) -> Prompt:
    told_T = np.concatenate([before_T, np.asarray(line["teacher"], dtype=np.int32)])
    return Prompt(told_T, line["heldout"], line["key"])


def _text(written: bytes) -> str | None:
    """Return an answer as text, without a last character of which some bytes are missing; None if it is none."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(written)
    except UnicodeDecodeError:
        return None
    return text if text.strip() else None
