"""A student's smaller vocabulary: which of the teacher's tokens it keeps, and what that makes of text and targets.

A trimmed student cannot say the tokens that were taken from it. With p the teacher's distribution, K the
kept tokens and l = 1 - sum over K of p the *lost mass*, what the student q, a distribution over K, is
measured and trained by is

    sum over K of p log( p / ((1 - l) q) )  =  (1 - l) KL( p given K || q ),

the divergence over {each kept token, everything else} in which the student is granted the teacher's own
mass for everything else. It is at least 0, is 0 where q is the teacher given K, and weighs a position by
what is left of it; a position at which the teacher wants a trimmed token teaches little. Only forward KL
allows this with sparse targets: its gradient by logits, (1 - l) q - p, needs no more than the entries that
are left, and they stay unbiased. The mass that is lost is reported, never spread over the others.

A trimmed token in a text is read as the pieces that the trimmed tokenizer spells it with. The teacher's
positions lie where its tokens end, so each is the student's position after the last of those pieces: text
keeps all its loss positions. Between the pieces the teacher said nothing, so there is no loss there.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from limbeck.artefact import read_json, write_text
from limbeck.distill.targets import Bools, Document, Floats, Ints, SparseTargets, Taught
from limbeck.errors import RecipeError

Size = int | Literal["corpus"]
"""How many tokens a student keeps, or those that the training text needs."""
Closure = Callable[[Iterable[int]], set[int]]
"""Returns some token ids with all those that they are made of."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens that a student keeps; its own ids number them in ascending order of the teacher's ids."""

    kept_K: Ints
    """Teacher ids, ascending, distinct."""
    teacher_size: int
    """Rows of the teacher's embedding."""
    spelling: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """The student's ids of the pieces of each trimmed token; rows that stand for no text have none."""

    def __len__(self) -> int:
        """Return the number of kept tokens."""
        return len(self.kept_K)

    def holds(self, ids: npt.NDArray[np.integer]) -> Bools:
        """Tell which of the teacher's ids are kept."""
        places = np.searchsorted(self.kept_K, ids)
        return self.kept_K[np.minimum(places, len(self.kept_K) - 1)] == ids

    def number(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Return the student's ids of kept tokens.

        Raises:
            KeyError: A token that is not kept.
        """
        if not self.holds(ids).all():
            raise KeyError(f"token {int(ids[~self.holds(ids)][0])} is not kept")
        return np.searchsorted(self.kept_K, ids).astype(np.int32)

    def pieces(self, ids: npt.NDArray[np.integer]) -> list[Sequence[int]]:
        """Return the student's ids of each of the teacher's tokens: its number, or its pieces.

        Raises:
            KeyError: A token that is neither kept nor spelled.
        """
        places = np.searchsorted(self.kept_K, ids).tolist()
        return [
            (place,) if held else self.spelling[token]
            for token, place, held in zip(
                ids.tolist(), places, self.holds(ids).tolist(), strict=True
            )
        ]

    def spell(self, ids: Iterable[int]) -> list[int]:
        """Return a text in the student's tokens."""
        return [i for piece in self.pieces(np.array([*ids], dtype=np.int64)) for i in piece]


def choose_tokens(
    size: Size,
    *,
    said_V: Floats,
    needed: Iterable[int],
    required: Iterable[int],
    closure: Closure,
) -> Ints:
    """Return the tokens to keep, ascending.

    Args:
        size: How many, or `corpus`: what is needed and required, and nothing else.
        said_V: How often the training text and the teacher's distributions there say each token; the more
            often, the sooner it is kept, of equals the smaller id.
        needed: Tokens of the training text and of the teacher's heads there.
        required: Tokens without which no text can be written: bytes and special tokens.
        closure: What a token is made of must be kept with it, or it could not be made.

    Raises:
        RecipeError: Fewer tokens than required, or not fewer than the teacher's.
    """
    kept = closure(required)
    if size == "corpus":
        kept |= closure(needed)
        return np.array(sorted(kept), dtype=np.int64)
    tokens = len(said_V)
    if not len(kept) <= size < tokens:
        raise RecipeError(
            f"student.vocabulary must be at least {len(kept)}, the bytes and special tokens, and below "
            f"the teacher's {tokens} tokens, got {size}"
        )
    order = np.argsort(-said_V, kind="stable").tolist()
    while len(kept) < size:  # a pass may skip a token whose pieces a later one brings
        for token in order:
            more = closure([token]) - kept
            if len(kept) + len(more) <= size:
                kept |= more
    return np.array(sorted(kept), dtype=np.int64)


def said(taught: Iterable[Taught], tokens: int) -> tuple[Floats, set[int]]:
    """Count what training text and teacher say.

    Args:
        taught: Training documents with the teacher's targets.
        tokens: Tokens of the teacher's tokenizer.

    Returns:
        For each token its occurrences in the text plus the teacher's expected ones (unbiased, from head and
        samples); and the tokens of the text and of the heads.
    """
    said_V = np.zeros(tokens, dtype=np.float64)
    needed: set[int] = set()
    for one in taught:
        targets = one.targets
        np.add.at(said_V, one.document.tokens_T, 1.0)
        inside_E = targets.ids_E < tokens
        np.add.at(said_V, targets.ids_E[inside_E], targets.weights_E[inside_E])
        needed.update(one.document.tokens_T.tolist())
        needed.update(targets.ids_E[targets.is_head_E & inside_E].tolist())
    return said_V.astype(np.float32), needed


def respelled(document: Document, vocabulary: Vocabulary) -> Document:
    """Return a document in the student's tokens; loss positions keep their number and their order."""
    pieces = vocabulary.pieces(document.tokens_T)
    ends_T = np.cumsum([len(piece) for piece in pieces]) - 1
    loss_T = np.zeros(int(ends_T[-1]) + 1, np.bool_)
    loss_T[ends_T[document.loss_T]] = True
    tokens_T = np.array([i for piece in pieces for i in piece], dtype=np.int32)
    return replace(document, tokens_T=tokens_T, loss_T=loss_T)


def lessons(
    taught: Iterable[Taught], vocabulary: Vocabulary, *, row_length: int
) -> Iterator[Taught]:
    """Yield training documents in the student's tokens; those longer than a row then are left out."""
    for one in taught:
        document = respelled(one.document, vocabulary)
        if len(document.tokens_T) <= row_length:
            yield Taught(document, narrowed_targets(one.targets, vocabulary))


def narrowed_targets(targets: SparseTargets, vocabulary: Vocabulary) -> SparseTargets:
    """Return what is left of targets, in the student's ids; their mass sums to 1 less what was lost.

    An entry of a trimmed token goes. Where the tail was sampled, its mass becomes that of the samples that
    are left, an unbiased estimate of the tail's kept mass. Where it was not, it stays whole, and may hold
    mass of trimmed tokens: such tails are small (docs/store-format.md), and count as the bucket they are.
    The entropy loses the terms of trimmed head tokens; those of the trimmed tail are not known, so a loss
    that starts from it lies off by a constant that no weight of the student changes.
    """
    positions = len(targets)
    row_E = np.repeat(np.arange(positions), np.diff(targets.offsets_N1))
    kept_E = vocabulary.holds(targets.ids_E)
    is_sample_E = ~targets.is_head_E
    weights_E = targets.weights_E.astype(np.float64)
    had_samples_N = np.bincount(row_E, is_sample_E, positions) > 0
    sampled_N = np.bincount(row_E, weights_E * (is_sample_E & kept_E), positions)
    gone_E = targets.is_head_E & ~kept_E
    surprise_E = np.where(gone_E, -weights_E * np.log(np.where(gone_E, weights_E, 1.0)), 0.0)
    entropy_N = targets.entropy_N - np.bincount(row_E, surprise_E, positions)
    counts_N = np.bincount(row_E[kept_E], minlength=positions)
    return SparseTargets(
        offsets_N1=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_N, dtype=np.int64)]),
        ids_E=vocabulary.number(targets.ids_E[kept_E]),
        weights_E=targets.weights_E[kept_E],
        is_head_E=targets.is_head_E[kept_E],
        tail_N=np.where(had_samples_N, sampled_N, targets.tail_N).astype(np.float32),
        entropy_N=np.maximum(entropy_N, 0).astype(np.float32),
    )


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """Write a vocabulary as JSON, atomically."""
    spelling = {str(token): list(pieces) for token, pieces in vocabulary.spelling.items()}
    value = {
        "teacher_size": vocabulary.teacher_size,
        "kept": vocabulary.kept_K.tolist(),
        "spelling": spelling,
    }
    write_text(path, json.dumps(value) + "\n")


def read_vocabulary(path: Path) -> Vocabulary | None:
    """Read a vocabulary; None where there is no such file, so that every token is kept."""
    if not path.is_file():
        return None
    value = read_json(path)
    spelling = {int(token): pieces for token, pieces in value["spelling"].items()}
    return Vocabulary(np.array(value["kept"], dtype=np.int64), value["teacher_size"], spelling)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of some text a vocabulary can say."""

    documents: int
    respelled: int
    """Documents with a trimmed token, which are longer for it."""
    too_long: int
    """Of those, documents that no longer fit a row."""
    positions: int
    trimmed: int
    """Loss positions whose realised token is trimmed."""

    def as_dict(self) -> dict[str, int]:
        """Return JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def coverage(documents: Sequence[Document], vocabulary: Vocabulary, *, row_length: int) -> Coverage:
    """Count the documents, and the realised tokens at loss positions, that hold a trimmed token."""
    next_kept = [vocabulary.holds(d.tokens_T[1:][d.loss_T[:-1]]) for d in documents]
    lengths = [len(vocabulary.spell(d.tokens_T)) for d in documents]
    return Coverage(
        documents=len(documents),
        respelled=sum(not vocabulary.holds(d.tokens_T).all() for d in documents),
        too_long=sum(length > row_length for length in lengths),
        positions=sum(len(kept_N) for kept_N in next_kept),
        trimmed=sum(int((~kept_N).sum()) for kept_N in next_kept),
    )


def trim_notes(
    vocabulary: Vocabulary, trained: Coverage, heldout: Coverage, lost_mass: float
) -> tuple[str, ...]:
    """Return what a reader must know of a trimmed student's figures, one sentence each.

    Args:
        vocabulary: What was kept.
        trained: Of the training documents.
        heldout: Of the measured documents.
        lost_mass: The teacher's mean probability of trimmed tokens at the measured positions.
    """
    share = heldout.trimmed / max(1, heldout.positions)
    return (
        f"The student has {len(vocabulary):,} of the teacher's {vocabulary.teacher_size:,} tokens. Its KL is over "
        "{each of its tokens, everything else}, the teacher's mass for everything else granted; that mass is "
        f"{lost_mass:.3%} on average. It does not compare with the KL of a student that has all tokens.",
        f"Trimmed tokens are read in pieces: in {trained.respelled:,} of {trained.documents:,} training documents, "
        f"of which {trained.too_long:,} became longer than a row and are left out, and in {heldout.respelled:,} of "
        f"{heldout.documents:,} held-out ones. Of the held-out positions {share:.2%} have a trimmed next token; "
        "perplexities are over the others.",
    )
