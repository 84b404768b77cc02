"""How close students come to their teacher on held-out text, with intervals clustered by document.

Positions of one document are not independent, so every interval treats documents as the sampling unit.
A mean over positions is a ratio of two document totals, sum(y_d) / sum(n_d) = r, whose standard error is

    se = sqrt( D / (D - 1) * sum_d (y_d - r * n_d)^2 ) / sum_d n_d

over D documents (the ratio estimator with documents as clusters: Cochran, Sampling Techniques, 3rd ed.,
1977, chapter 6, without the finite-population factor), and the interval is r -/+ t(D - 1) * se.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from limbeck.distill.forward import Halves, split
from limbeck.distill.objective import LossSpec
from limbeck.distill.sparse_loss import sparse_loss
from limbeck.distill.targets import (
    Bools,
    Document,
    Ints,
    SparseTargets,
    Taught,
    concatenate,
    select,
)
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.vocabulary import Vocabulary, respelled
from limbeck.errors import CorpusError, StudentError, TeacherError
from limbeck.errors import TokenizerMismatchError as MismatchError
from limbeck.progress import Progress

Doubles = npt.NDArray[np.float64]
Precision = Literal["no", "bf16"]
Knowledge = Literal["distribution", "likely_tokens", "text"]
"""What is known of the teacher at a position: all of its distribution, its likeliest tokens and the mass of the rest
(every KL is then a lower bound), or only the token that it wrote (there is then no KL, only differences of it)."""

ALPHA = 0.05
"""Chance of a wrong interval; comparisons between arms share it (Bonferroni)."""
POSITION_STARTS = (0, 1, 4, 16, 64)
"""First position of each bucket of positions within an answer."""
_HEAD_ROWS = 256
"""Positions that go through the heads at once: 256 x 49,152 float32 is 50 MB an array."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with the interval that holds it at the stated confidence."""

    value: float
    interval: tuple[float, float] | None
    """None where fewer than two documents were measured."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Mean divergence over a part of the positions."""

    label: str
    positions: int
    kl: Estimate
    """Nats per position."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "bucket": self.label,
            "positions": self.positions,
            "kl_mean": self.kl.value,
            "kl_interval": interval_json(self.kl),
        }


@dataclass(frozen=True, slots=True)
class Tails:
    """Quantiles over positions of KL(teacher || student), in nats."""

    p50: float
    p90: float
    p99: float
    max: float

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {"p50": self.p50, "p90": self.p90, "p99": self.p99, "max": self.max}


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What one arm kept of the teacher."""

    kl: Estimate
    """Mean KL(teacher || arm) at temperature 1, in nats per position."""
    kl_tails: Tails
    top1: Estimate
    """Share of positions at which both rank the same token first, in [0, 1]."""
    perplexity: Estimate
    """exp of the mean negative log-likelihood of the realised tokens."""
    by_position: tuple[Bucket, ...]
    """By position within the answer; empty buckets are left out."""
    by_frequency: tuple[Bucket, ...]
    """By how often the realised token occurs in the training text, in quarters of the positions."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        return {
            "kl_mean": self.kl.value,
            "kl_interval": interval_json(self.kl),
            "kl_tails": self.kl_tails.as_dict(),
            "top1_agreement": self.top1.value,
            "top1_interval": interval_json(self.top1),
            "perplexity": self.perplexity.value,
            "perplexity_interval": interval_json(self.perplexity),
            "kl_by_position": [b.as_dict() for b in self.by_position],
            "kl_by_frequency": [b.as_dict() for b in self.by_frequency],
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """How well one arm predicts a teacher whose text alone is known: there is no KL."""

    top1: Estimate
    """Share of positions at which it ranks the token first that the teacher wrote."""
    perplexity: Estimate
    """exp of the mean negative log-likelihood of those tokens."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        absent = (
            "kl_mean",
            "kl_interval",
            "kl_tails",
            "kl_by_position",
            "kl_by_frequency",
        )
        return {
            "top1_agreement": self.top1.value,
            "top1_interval": interval_json(self.top1),
            "perplexity": self.perplexity.value,
            "perplexity_interval": interval_json(self.perplexity),
            **dict.fromkeys(absent),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """First arm minus another on the same positions; pairing removes what both find hard."""

    baseline: str
    kl: Estimate
    """Nats; below 0, the first arm lies nearer to the teacher."""
    top1: Estimate
    """Above 0, the first arm agrees more often."""
    confidence: float
    """Confidence of both intervals: 1 - ALPHA / number of baselines."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "kl_mean": self.kl.value,
            "kl_interval": interval_json(self.kl),
            "top1_agreement": self.top1.value,
            "top1_interval": interval_json(self.top1),
            "confidence": self.confidence,
        }


@dataclass(frozen=True, slots=True)
class Heldout:
    """Every arm against the teacher, on the same held-out positions."""

    documents: int
    positions: int
    teacher_perplexity: Estimate
    arms: Mapping[str, Fidelity]
    differences: tuple[Difference, ...]
    """The first arm against each of the others."""
    lost_mass: Estimate | None = None
    """The teacher's mean probability of tokens that the students do not have; None where they have all."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        return _heldout_dict(
            self.documents,
            self.positions,
            self.teacher_perplexity,
            self.arms,
            self.differences,
            self.lost_mass,
        )


@dataclass(frozen=True, slots=True)
class Predicted:
    """Every arm against what a teacher said whose weights are not here, on the same held-out positions."""

    documents: int
    positions: int
    knowledge: Knowledge
    """What is known of the teacher; with "likely_tokens" every KL is a lower bound."""
    teacher_perplexity: Estimate | None
    """None where the teacher does not state the probability of every token that it wrote."""
    arms: Mapping[str, Fidelity] | Mapping[str, Prediction]
    differences: tuple[Difference, ...]
    """As of `Heldout`."""
    differences_of: Literal["likelihood", "bounded_kl"]
    """What stands in for KL in `differences`: see `measure_prediction`."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        figures = _heldout_dict(
            self.documents, self.positions, self.teacher_perplexity, self.arms, self.differences
        )
        return {"knowledge": self.knowledge, "differences_of": self.differences_of, **figures}


def _heldout_dict(
    documents: int,
    positions: int,
    teacher: Estimate | None,
    arms: Mapping[str, Fidelity] | Mapping[str, Prediction],
    differences: tuple[Difference, ...],
    lost_mass: Estimate | None = None,
) -> dict[str, object]:
    lost = (
        {}
        if lost_mass is None
        else {"lost_mass": lost_mass.value, "lost_mass_interval": interval_json(lost_mass)}
    )
    return {
        "documents": documents,
        "positions": positions,
        "confidence": 1 - ALPHA,
        "teacher": {
            "perplexity": None if teacher is None else teacher.value,
            "perplexity_interval": None if teacher is None else interval_json(teacher),
            **lost,
        },
        **{name: arm.as_dict() for name, arm in arms.items()},
        "differences": {d.baseline: d.as_dict() for d in differences},
    }


@dataclass(frozen=True, slots=True)
class _Readings:
    """What one arm did at each of the N loss positions, documents in the order given."""

    kl_N: Doubles
    """0 where nothing is known of it."""
    agrees_N: Bools
    nll_N: Doubles


@dataclass(frozen=True, slots=True)
class _TeacherReadings:
    """What the teacher did at each of the N loss positions."""

    nll_N: Doubles
    lost_N: Doubles
    """Probability of the tokens that students do not have."""
    sayable_N: Bools
    """Whether students have the realised next token."""


class _Numbering:
    """The teacher's ids of the students' tokens and the other way round, on a device; both are all or some."""

    def __init__(self, vocabulary: Vocabulary | None, device: torch.device) -> None:
        self.trims = vocabulary is not None
        self._vocabulary = vocabulary
        if vocabulary is not None:
            self._kept_K = torch.from_numpy(vocabulary.kept_K).to(device)
            self._numbers_V = torch.full((vocabulary.teacher_size,), -1, device=device)
            self._numbers_V[self._kept_K] = torch.arange(len(vocabulary), device=device)

    def number(self, ids: Tensor) -> Tensor:
        """Return the students' ids; -1 of a token that they do not have."""
        return self._numbers_V[ids] if self.trims else ids

    def read(self, document: Document) -> Document:
        """Return a document as students read it, with as many loss positions."""
        return document if self._vocabulary is None else respelled(document, self._vocabulary)

    def kept(self, log_NV: Tensor) -> Tensor:
        """Return the columns that students have."""
        return log_NV[:, self._kept_K] if self.trims else log_NV


class _Reference(Protocol):
    """What students are compared with, one batch after the other."""

    knowledge: Knowledge

    def read(self, document: Document) -> Document:
        """Return a document as students read it."""
        ...

    def listen(self, tokens_BT: Tensor, real_BT: Tensor, loss_BT: Tensor) -> None:
        """Take in the next batch."""
        ...

    def tile(self, tile_n: Tensor, places_n: Ints, next_n: Tensor) -> "_Known":
        """Return what is known at some positions: by number in the batch, and by number among all."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the teacher at a few positions."""

    top_n: Tensor
    """Its first choice, or the token that it wrote."""
    kl: Callable[[Tensor], Tensor] | None
    """Maps a student's log-probabilities [n, V] to divergences."""
    next_n: Tensor
    """The realised token in the students' ids, -1 where they have none."""
    nll_n: Doubles | None = None
    """Of the realised token."""
    lost_n: Doubles | None = None
    """Probability of the tokens that students do not have."""


@dataclass
class _Weights:
    """A teacher whose weights are here; holds the hidden states of the batch."""

    halves: Halves
    numbering: _Numbering
    hidden_ND: Tensor | None = None
    knowledge: Knowledge = "distribution"

    def read(self, document: Document) -> Document:
        """Return a document in the students' tokens."""
        return self.numbering.read(document)

    def listen(self, tokens_BT: Tensor, real_BT: Tensor, loss_BT: Tensor) -> None:
        """Run the teacher."""
        self.hidden_ND = self.halves.hidden(tokens_BT, attention_mask=real_BT)[loss_BT]

    def tile(self, tile_n: Tensor, places_n: Ints, next_n: Tensor) -> _Known:
        """Return its distributions."""
        if self.hidden_ND is None:
            raise TeacherError("the teacher was read before it listened")
        p_log = _log_softmax(self.halves.head(self.hidden_ND[tile_n]))
        nll_n, number = _nll(p_log, next_n), self.numbering.number
        top_n = number(p_log.argmax(-1))
        p_log = self.numbering.kept(p_log)
        p_NV = p_log.exp()
        left_N = p_NV.sum(-1) if self.numbering.trims else torch.ones_like(p_NV[:, 0])

        def kl(q_log: Tensor) -> Tensor:
            return (p_NV * (p_log - q_log)).sum(-1) - torch.special.xlogy(left_N, left_N)

        lost_n = (1 - left_N).clamp(min=0).cpu().double().numpy()
        return _Known(top_n, kl, number(next_n), nll_n, lost_n)


@dataclass
class _Words:
    """A teacher that is known by what it said."""

    targets: SparseTargets
    """Of all positions, documents in the order given."""
    knowledge: Knowledge

    def read(self, document: Document) -> Document:
        """Return the document: its tokens are the students'."""
        return document

    def listen(self, tokens_BT: Tensor, real_BT: Tensor, loss_BT: Tensor) -> None:
        """Nothing to do: it has spoken."""

    def tile(self, tile_n: Tensor, places_n: Ints, next_n: Tensor) -> _Known:
        """Return what it said."""
        said = TorchTargets.from_numpy(select(self.targets, places_n), next_n.device)
        first_n = said.offsets_N1[:-1].to(next_n.device)
        named_n = torch.zeros_like(next_n, dtype=torch.bool)
        named_n[said.row_E[said.is_head_E]] = True
        top_n = next_n.clone()
        top_n[named_n] = said.ids_E[first_n[named_n]]
        if self.knowledge == "text":
            return _Known(top_n, None, next_n)
        return _Known(top_n, lambda q_log: _bounded_kl(said, q_log), next_n)

    def realised_nll(self, documents: Sequence[Document]) -> Doubles | None:
        """Return the teacher's own negative log-likelihoods, or None where it does not state each."""
        next_N = np.concatenate([d.tokens_T[1:][d.loss_T[:-1]] for d in documents])
        row_E = np.repeat(np.arange(len(next_N)), np.diff(self.targets.offsets_N1))
        own_E = self.targets.is_head_E & (self.targets.ids_E == next_N[row_E])
        if own_E.sum() < len(next_N) or not self.targets.weights_E[own_E].all():
            return None
        return -np.log(self.targets.weights_E[own_E].astype(np.float64))


def _bounded_kl(said: TorchTargets, q_log_NV: Tensor) -> Tensor:
    """Return KL over {each named token, everything else}: by the data-processing inequality a lower bound."""
    log_q_E = q_log_NV[said.row_E, said.ids_E]
    inside_N = torch.zeros(len(said), device=q_log_NV.device)
    inside_N = inside_N.index_add(0, said.row_E, torch.where(said.is_head_E, log_q_E.exp(), 0.0))
    log_q_tail_N = torch.log1p(-inside_N.clamp(max=1 - torch.finfo(torch.float32).eps))
    return sparse_loss(LossSpec(coarse_tail=True), said, log_q_E, log_q_tail_N)


def measure_fidelity(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    documents: Sequence[Document],
    token_counts_V: Ints,
    *,
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
    vocabulary: Vocabulary | None = None,
    readings: Sequence[Document] | None = None,
) -> Heldout:
    """Measure how far each student is from the teacher on held-out documents.

    One teacher forward a batch serves all students. Only loss positions go through the heads, a tile at a
    time; log-softmax and divergence are float32, sums float64.

    Students with fewer tokens than the teacher are measured by the divergence of `vocabulary`; a first choice
    of the teacher that they do not have is a disagreement. All perplexities, the teacher's too, are then over
    the positions whose next token they have.

    Args:
        teacher: A causal `transformers` model.
        students: Arm name to model, the arm to judge first; the differences are that arm minus the others.
        documents: Held-out documents; those without a loss position are ignored.
        token_counts_V: How often each token occurs in the training text.
        precision: "bf16" multiplies matrices in bfloat16; logits of size 16 then carry errors of up to 0.06.
        batch_tokens: Tokens a forward at the most, padding included; a longer document goes alone.
        progress: Hears of every batch, in documents.
        vocabulary: The tokens that all students have; None means all tokens.
        readings: What the teacher reads instead of each document, as many loss positions in it; None means
            the documents themselves.

    Raises:
        CorpusError: There is no loss position, or none whose next token the students have.
        TokenizerMismatchError: The vocabularies differ in size.
        TeacherError: The teacher's logits are not finite.
        StudentError: No student is given, a student's logits are not finite, or its logits are not a
            linear function of its hidden states.
    """
    read = [(d, r) for d, r in zip(documents, readings or documents, strict=True) if d.positions]
    kept = [d for d, _ in read]
    if not kept:
        raise CorpusError(
            f"the held-out part has no loss position in {len(documents)} documents; "
            "raise corpus.heldout_fraction or give more documents"
        )
    if not students:
        raise StudentError("there is no student to measure; at least one is needed")
    with evaluating([teacher, *students.values()]):
        halves = {name: split(model) for name, model in students.items()}
        ours = split(teacher)
        _check_vocabularies(ours.head.weight.shape[0], halves, len(token_counts_V), vocabulary)
        numbering = _Numbering(vocabulary, ours.head.weight.device)
        reference = _Weights(ours, numbering)
        said, found = _read(reference, halves, read, precision, batch_tokens, progress)
    document_N = _document_of(kept)
    if not said.sayable_N.any():
        raise CorpusError(
            f"none of the {len(document_N)} held-out positions has a next token that the students have; "
            "raise student.vocabulary"
        )
    lost = within(mean_by_document(said.lost_N, document_N), 0, 1) if numbering.trims else None
    spoken_N = said.sayable_N
    return Heldout(
        documents=len(kept),
        positions=len(document_N),
        teacher_perplexity=_exp(mean_by_document(said.nll_N[spoken_N], document_N[spoken_N])),
        arms=_fidelity(kept, found, token_counts_V, spoken_N),
        differences=_differences(found, document_N, {n: r.kl_N for n, r in found.items()}),
        lost_mass=lost,
    )


def measure_prediction(
    students: Mapping[str, nn.Module],
    taught: Sequence[Taught],
    token_counts_V: Ints,
    *,
    knowledge: Knowledge,
    own_text: bool,
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
) -> Predicted:
    """Measure how well students predict what a teacher wrote whose weights are not here.

    - Where its likeliest tokens are known, KL is that over {each of them, everything else}: a lower bound.
      Where only its text is known there is no KL.
    - Agreement is with its first choice where that is known, else with the token that it wrote.
    - Differences in KL between students need no teacher where the text is its own: for text drawn from p,
      KL(p || q1) - KL(p || q2) is the expected difference of the negative log-likelihoods. p is the distribution that
      the text came from, with its temperature and whatever filter chose among its answers. On other text they are
      differences of the bounded KL.

    Args:
        students: As in `measure_fidelity`.
        taught: Held-out documents with what the teacher said; those without a loss position are ignored.
        token_counts_V: As in `measure_fidelity`.
        knowledge: "likely_tokens" or "text".
        own_text: Whether the teacher wrote the loss positions; without it, "text" makes no sense.
        precision: As in `measure_fidelity`.
        batch_tokens: As in `measure_fidelity`.
        progress: Hears of every batch, in documents.

    Raises:
        CorpusError: There is no loss position.
        TokenizerMismatchError: The vocabularies differ in size.
        StudentError: As in `measure_fidelity`.
    """
    kept = [t for t in taught if t.document.positions]
    documents = [t.document for t in kept]
    if not kept:
        raise CorpusError(f"the held-out part has no loss position in {len(taught)} documents")
    if not students:
        raise StudentError("there is no student to measure; at least one is needed")
    words = _Words(concatenate([t.targets for t in kept]), knowledge)
    with evaluating(list(students.values())):
        halves = {name: split(model) for name, model in students.items()}
        _check_vocabularies(len(token_counts_V), halves, len(token_counts_V), None)
        read = [(d, d) for d in documents]
        said, readings = _read(words, halves, read, precision, batch_tokens, progress)
    nll_N, document_N = words.realised_nll(documents), _document_of(documents)
    return Predicted(
        documents=len(documents),
        positions=len(document_N),
        knowledge=knowledge,
        teacher_perplexity=None if nll_N is None else _exp(mean_by_document(nll_N, document_N)),
        arms=_prediction(readings, document_N)
        if knowledge == "text"
        else _fidelity(documents, readings, token_counts_V, said.sayable_N),
        differences=_differences(
            readings,
            document_N,
            {n: r.nll_N if own_text else r.kl_N for n, r in readings.items()},
        ),
        differences_of="likelihood" if own_text else "bounded_kl",
    )


@contextmanager
def evaluating(models: Sequence[nn.Module]) -> Generator[None]:
    """Put models into evaluation mode for a block."""
    training = [m.training for m in models]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for model, flag in zip(models, training, strict=True):
            model.train(flag)


def _check_vocabularies(
    full: int, students: Mapping[str, Halves], counted: int, vocabulary: Vocabulary | None
) -> None:
    expected = full if vocabulary is None else len(vocabulary)
    sizes = {name: half.head.weight.shape[0] for name, half in students.items()}
    for name, size in sizes.items():
        if size != expected:
            whose = f"the teacher one of {full}" if vocabulary is None else f"the trim {expected}"
            raise MismatchError(f"{name} has a vocabulary of {size}, {whose}; they must be equal")
    if counted != full:
        raise MismatchError(
            f"token counts has a vocabulary of {counted}, the teacher one of {full}; they must be equal"
        )


def _read(
    teacher: _Reference,
    students: Mapping[str, Halves],
    read: Sequence[tuple[Document, Document]],
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
) -> tuple[_TeacherReadings, dict[str, _Readings]]:
    documents = [d for d, _ in read]
    starts = np.concatenate([[0], np.cumsum([d.positions for d in documents])])
    total = int(starts[-1])
    said = _TeacherReadings(np.zeros(total), np.zeros(total), np.ones(total, np.bool_))
    readings = {
        name: _Readings(np.zeros(total), np.empty(total, np.bool_), np.empty(total))
        for name in students
    }
    progress.begin("evaluate", len(documents), "documents")
    for batch in _batches(documents, batch_tokens):
        where = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
        _read_batch(teacher, students, [read[i] for i in batch], precision, where, said, readings)
        _check_finite([documents[i] for i in batch], where, said.nll_N, readings)
        progress.advance(len(batch))
    progress.end(f"{total} positions")
    return said, readings


def _batches(documents: Sequence[Document], batch_tokens: int) -> Iterator[list[int]]:
    """Yield indices of documents of similar length, longest first."""
    batch: list[int] = []
    for i in sorted(range(len(documents)), key=lambda i: -len(documents[i].tokens_T)):
        longest = len(documents[batch[0] if batch else i].tokens_T)
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    yield batch


@torch.inference_mode()
def _read_batch(
    teacher: _Reference,
    students: Mapping[str, Halves],
    read: Sequence[tuple[Document, Document]],
    precision: Precision,
    where: Ints,
    said: _TeacherReadings,
    readings: Mapping[str, _Readings],
) -> None:
    """Fill the places `where` of the readings from one batch."""
    device = next(iter(students.values())).head.weight.device
    documents, heard = zip(*read, strict=True)
    tokens_BT, _, loss_BT = (x.to(device) for x in _right_padded(documents))
    next_N = tokens_BT[:, 1:][loss_BT[:, :-1]]
    ours = [x.to(device) for x in _right_padded([teacher.read(d) for d in documents])]
    theirs = (x.to(device) for x in _right_padded(heard))
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        teacher.listen(*theirs)
        hidden = {name: _hidden_at_loss(half, ours) for name, half in students.items()}
        for tile in torch.arange(len(next_N), device=device).split(_HEAD_ROWS):
            places = where[tile.cpu().numpy()]
            next_n = next_N[tile]
            known = teacher.tile(tile, places, next_n)
            said.sayable_N[places] = (known.next_n >= 0).cpu().numpy()
            if known.nll_n is not None:
                said.nll_N[places] = known.nll_n
            if known.lost_n is not None:
                said.lost_N[places] = known.lost_n
            for name, half in students.items():
                q_log = _log_softmax(half.head(hidden[name][tile]))
                arm = readings[name]
                if known.kl is not None:
                    arm.kl_N[places] = known.kl(q_log).cpu().numpy()
                arm.agrees_N[places] = (q_log.argmax(-1) == known.top_n).cpu().numpy()
                arm.nll_N[places] = _nll(q_log, known.next_n.clamp(min=0))


def _hidden_at_loss(half: Halves, padded: Sequence[Tensor]) -> Tensor:
    tokens_BT, real_BT, loss_BT = padded
    return half.hidden(tokens_BT, attention_mask=real_BT)[loss_BT]


def _right_padded(documents: Sequence[Document]) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, attention mask and loss mask, each [B, T]."""
    width = max(len(d.tokens_T) for d in documents)
    tokens_BT = torch.zeros(len(documents), width, dtype=torch.long)
    real_BT = torch.zeros(len(documents), width, dtype=torch.long)
    loss_BT = torch.zeros(len(documents), width, dtype=torch.bool)
    for row, document in enumerate(documents):
        length = len(document.tokens_T)
        tokens_BT[row, :length] = torch.as_tensor(document.tokens_T, dtype=torch.long)
        real_BT[row, :length] = 1
        loss_BT[row, :length] = torch.as_tensor(document.loss_T)
    return tokens_BT, real_BT, loss_BT


def _log_softmax(logits_NV: Tensor) -> Tensor:
    return logits_NV.float().log_softmax(-1)


def _nll(log_NV: Tensor, next_N: Tensor) -> Doubles:
    return -log_NV.gather(-1, next_N[:, None])[:, 0].double().cpu().numpy()


def _check_finite(
    documents: Sequence[Document],
    where: Ints,
    teacher_nll_N: Doubles,
    readings: Mapping[str, _Readings],
) -> None:
    keys = np.repeat([d.key for d in documents], [d.positions for d in documents])
    bad_N = ~np.isfinite(teacher_nll_N[where])
    if bad_N.any():
        raise TeacherError(_not_finite("the teacher", keys[bad_N][0]))
    for name, arm in readings.items():
        bad_N = ~(np.isfinite(arm.kl_N[where]) & np.isfinite(arm.nll_N[where]))
        if bad_N.any():
            raise StudentError(_not_finite(f"student {name}", keys[bad_N][0]))


def _not_finite(who: str, key: str) -> str:
    return (
        f"{who} gives logits that are not finite on held-out document {key}; its weights are broken"
    )


def _document_of(documents: Sequence[Document]) -> Ints:
    """Return the number of the document of every position."""
    return np.repeat(np.arange(len(documents)), [d.positions for d in documents])


def _fidelity(
    documents: Sequence[Document],
    readings: Mapping[str, _Readings],
    token_counts_V: Ints,
    sayable_N: Bools,
) -> dict[str, Fidelity]:
    document_N = _document_of(documents)
    spots_N = np.concatenate([answer_positions(d.loss_T) for d in documents])
    realised_N = np.concatenate([d.tokens_T[1:][d.loss_T[:-1]] for d in documents])

    def perplexity(nll_N: Doubles) -> Estimate:
        return _exp(mean_by_document(nll_N[sayable_N], document_N[sayable_N]))

    positions = _position_buckets(spots_N)
    frequencies = _frequency_buckets(token_counts_V[realised_N])
    return {
        name: Fidelity(
            kl=mean_by_document(arm.kl_N, document_N),
            kl_tails=_tails(arm.kl_N),
            top1=within(mean_by_document(arm.agrees_N, document_N), 0, 1),
            perplexity=perplexity(arm.nll_N),
            by_position=_buckets(positions, arm.kl_N, document_N),
            by_frequency=_buckets(frequencies, arm.kl_N, document_N),
        )
        for name, arm in readings.items()
    }


def _prediction(readings: Mapping[str, _Readings], document_N: Ints) -> dict[str, Prediction]:
    return {
        name: Prediction(
            top1=within(mean_by_document(arm.agrees_N, document_N), 0, 1),
            perplexity=_exp(mean_by_document(arm.nll_N, document_N)),
        )
        for name, arm in readings.items()
    }


def mean_by_document(
    value_N: npt.NDArray[np.float64 | np.bool_], document_N: Ints, confidence: float = 1 - ALPHA
) -> Estimate:
    """Return the mean over positions, with an interval that takes documents as the sampling unit.

    The formula stands at the head of this module.

    Args:
        value_N: One value per position, N at least 1.
        document_N: To which document each position belongs, as integers from 0.
        confidence: Of the two-sided interval, in (0, 1).
    """
    counts_D = np.bincount(document_N)
    totals_D = np.bincount(document_N, weights=value_N).astype(np.float64)
    return ratio_of_totals(totals_D, counts_D, confidence)


def ratio_of_totals(total_D: Doubles, size_D: Ints, confidence: float = 1 - ALPHA) -> Estimate:
    """Return sum(total) / sum(size) over documents, with its interval; documents of size 0 do not count.

    Args:
        total_D: What was summed in each document.
        size_D: Over how much: positions, or bytes.
        confidence: Of the two-sided interval, in (0, 1).
    """
    total_D, size_D = total_D[size_D > 0], size_D[size_D > 0]
    clusters, size = len(size_D), size_D.sum()
    mean = float(total_D.sum() / size)
    if clusters < 2:
        return Estimate(mean, None)
    squares = float(np.square(total_D - mean * size_D).sum())
    error = math.sqrt(clusters / (clusters - 1) * squares) / float(size)
    half = float(stdtrit(clusters - 1, (1 + confidence) / 2)) * error
    return Estimate(mean, (mean - half, mean + half))


def answer_positions(loss_T: Bools) -> Ints:
    """Return for each loss position its place, from 0, in its unbroken run of loss positions.

    A run is one answer of a chat, or the whole of a plain text.
    """
    places = np.flatnonzero(loss_T)
    breaks = np.concatenate([[True], np.diff(places) > 1])
    first = np.maximum.accumulate(np.where(breaks, np.arange(len(places)), 0))
    return np.arange(len(places)) - first


def _position_buckets(spots_N: Ints) -> dict[str, Bools]:
    ends = [start - 1 for start in POSITION_STARTS[1:]]
    labels = [_span(a, b) for a, b in zip(POSITION_STARTS, ends, strict=False)]
    labels.append(f"{POSITION_STARTS[-1]}+")
    bucket_N = np.searchsorted(POSITION_STARTS, spots_N, side="right") - 1
    return {label: bucket_N == i for i, label in enumerate(labels)}


def _frequency_buckets(seen_N: Ints) -> dict[str, Bools]:
    """Split positions into quarters by their token's training frequency; ties stay together."""
    edges = np.unique(np.quantile(seen_N, [0.25, 0.5, 0.75], method="inverted_cdf"))
    edges = edges[edges < seen_N.max()]
    bucket_N = np.searchsorted(edges, seen_N, side="left")
    buckets: dict[str, Bools] = {}
    for i in range(len(edges) + 1):
        inside_N = bucket_N == i
        label = _span(int(seen_N[inside_N].min()), int(seen_N[inside_N].max()))
        buckets[label] = inside_N
    return buckets


def _span(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}–{high}"


def _buckets(parts: Mapping[str, Bools], kl_N: Doubles, document_N: Ints) -> tuple[Bucket, ...]:
    return tuple(
        Bucket(label, int(inside_N.sum()), mean_by_document(kl_N[inside_N], document_N[inside_N]))
        for label, inside_N in parts.items()
        if inside_N.any()
    )


def _differences(
    readings: Mapping[str, _Readings], document_N: Ints, nats: Mapping[str, Doubles]
) -> tuple[Difference, ...]:
    """Compare the first arm with the others, by the nats of each arm at every position."""
    first, *others = readings
    confidence = 1 - ALPHA / max(1, len(others))
    ours = readings[first]
    return tuple(
        Difference(
            baseline=name,
            kl=mean_by_document(nats[first] - nats[name], document_N, confidence),
            top1=mean_by_document(
                ours.agrees_N.astype(np.float64) - readings[name].agrees_N, document_N, confidence
            ),
            confidence=confidence,
        )
        for name in others
    )


def _tails(kl_N: Doubles) -> Tails:
    p50, p90, p99, largest = (float(x) for x in np.quantile(kl_N, [0.5, 0.9, 0.99, 1]))
    return Tails(p50, p90, p99, largest)


def within(estimate: Estimate, low: float, high: float) -> Estimate:
    """Cut an interval to the range that the quantity can have."""
    if estimate.interval is None:
        return estimate
    below, above = estimate.interval
    return Estimate(estimate.value, (max(low, below), min(high, above)))


def _exp(estimate: Estimate) -> Estimate:
    """Turn mean nats into perplexity; the interval follows, for exp is increasing."""
    interval = estimate.interval and (
        math.exp(estimate.interval[0]),
        math.exp(estimate.interval[1]),
    )
    return Estimate(math.exp(estimate.value), interval)


def interval_json(estimate: Estimate) -> list[float] | None:
    """Return an interval as JSON values."""
    return None if estimate.interval is None else list(estimate.interval)
