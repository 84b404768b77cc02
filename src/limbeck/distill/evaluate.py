"""How close students come to their teacher on held-out text, with intervals clustered by document.

Positions of one document are not independent, so every interval treats documents as the sampling unit.
A mean over positions is a ratio of two document totals, sum(y_d) / sum(n_d) = r, whose standard error is

    se = sqrt( D / (D - 1) * sum_d (y_d - r * n_d)^2 ) / sum_d n_d

over D documents (the ratio estimator with documents as clusters: Cochran, Sampling Techniques, 3rd ed.,
1977, chapter 6, without the finite-population factor), and the interval is r -/+ t(D - 1) * se.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from limbeck.distill.forward import Halves, split
from limbeck.distill.targets import Bools, Document, Ints
from limbeck.errors import CorpusError, StudentError, TeacherError
from limbeck.errors import TokenizerMismatchError as MismatchError
from limbeck.progress import Progress

Doubles = npt.NDArray[np.float64]
Precision = Literal["no", "bf16"]

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

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        teacher = {
            "perplexity": self.teacher_perplexity.value,
            "perplexity_interval": interval_json(self.teacher_perplexity),
        }
        return {
            "documents": self.documents,
            "positions": self.positions,
            "confidence": 1 - ALPHA,
            "teacher": teacher,
            **{name: arm.as_dict() for name, arm in self.arms.items()},
            "differences": {d.baseline: d.as_dict() for d in self.differences},
        }


@dataclass(frozen=True, slots=True)
class _Readings:
    """What one arm did at each of the N loss positions, documents in the order given."""

    kl_N: Doubles
    agrees_N: Bools
    nll_N: Doubles


def measure_fidelity(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    documents: Sequence[Document],
    token_counts_V: Ints,
    *,
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
    readings: Sequence[Document] | None = None,
) -> Heldout:
    """Measure how far each student is from the teacher on held-out documents.

    One teacher forward a batch serves all students. Only loss positions go through the heads, a tile at a
    time; log-softmax and divergence are float32, sums float64.

    Args:
        teacher: A causal `transformers` model.
        students: Arm name to model, the arm to judge first; the differences are that arm minus the others.
        documents: Held-out documents; those without a loss position are ignored.
        token_counts_V: How often each token occurs in the training text.
        precision: "bf16" multiplies matrices in bfloat16; logits of size 16 then carry errors of up to 0.06.
        batch_tokens: Tokens a forward at the most, padding included; a longer document goes alone.
        progress: Hears of every batch, in documents.
        readings: What the teacher reads instead of each document, as many loss positions in it; None means
            the documents themselves.

    Raises:
        CorpusError: There is no loss position.
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
        _check_vocabularies(ours, halves, len(token_counts_V))
        teacher_nll_N, found = _read(ours, halves, read, precision, batch_tokens, progress)
    return _summarise(kept, teacher_nll_N, found, token_counts_V)


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


def _check_vocabularies(teacher: Halves, students: Mapping[str, Halves], counted: int) -> None:
    expected = teacher.head.weight.shape[0]
    sizes = {name: half.head.weight.shape[0] for name, half in students.items()}
    for name, size in (sizes | {"token counts": counted}).items():
        if size != expected:
            raise MismatchError(
                f"{name} has a vocabulary of {size}, the teacher one of {expected}; they must be equal"
            )


def _read(
    teacher: Halves,
    students: Mapping[str, Halves],
    read: Sequence[tuple[Document, Document]],
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
) -> tuple[Doubles, dict[str, _Readings]]:
    documents = [d for d, _ in read]
    starts = np.concatenate([[0], np.cumsum([d.positions for d in documents])])
    total = int(starts[-1])
    teacher_nll_N = np.empty(total)
    readings = {
        name: _Readings(np.empty(total), np.empty(total, np.bool_), np.empty(total))
        for name in students
    }
    progress.begin("evaluate", len(documents), "documents")
    for batch in _batches(documents, batch_tokens):
        where = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
        _read_batch(
            teacher,
            students,
            [read[i] for i in batch],
            precision,
            where,
            teacher_nll_N,
            readings,
        )
        _check_finite([documents[i] for i in batch], where, teacher_nll_N, readings)
        progress.advance(len(batch))
    progress.end(f"{total} positions")
    return teacher_nll_N, readings


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
    teacher: Halves,
    students: Mapping[str, Halves],
    read: Sequence[tuple[Document, Document]],
    precision: Precision,
    where: Ints,
    teacher_nll_N: Doubles,
    readings: Mapping[str, _Readings],
) -> None:
    """Fill the places `where` of the readings from one batch."""
    device = teacher.head.weight.device
    ours, theirs = ([x.to(device) for x in _right_padded(side)] for side in zip(*read, strict=True))
    next_N = ours[0][:, 1:][ours[2][:, :-1]]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        hidden = {"teacher": _hidden_at_loss(teacher, theirs)}
        for name, half in students.items():
            hidden[f"student {name}"] = _hidden_at_loss(half, ours)
        for tile in torch.arange(len(next_N), device=device).split(_HEAD_ROWS):
            places = where[tile.cpu().numpy()]
            next_n = next_N[tile]
            p_log = _log_softmax(teacher.head(hidden["teacher"][tile]))
            p_NV, top_N = p_log.exp(), p_log.argmax(-1)
            teacher_nll_N[places] = _nll(p_log, next_n)
            for name, half in students.items():
                q_log = _log_softmax(half.head(hidden[f"student {name}"][tile]))
                arm = readings[name]
                arm.kl_N[places] = (p_NV * (p_log - q_log)).sum(-1).cpu().numpy()
                arm.agrees_N[places] = (q_log.argmax(-1) == top_N).cpu().numpy()
                arm.nll_N[places] = _nll(q_log, next_n)


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


def _summarise(
    documents: Sequence[Document],
    teacher_nll_N: Doubles,
    readings: Mapping[str, _Readings],
    token_counts_V: Ints,
) -> Heldout:
    document_N = np.repeat(np.arange(len(documents)), [d.positions for d in documents])
    spots_N = np.concatenate([answer_positions(d.loss_T) for d in documents])
    realised_N = np.concatenate([d.tokens_T[1:][d.loss_T[:-1]] for d in documents])
    positions = _position_buckets(spots_N)
    frequencies = _frequency_buckets(token_counts_V[realised_N])
    arms = {
        name: Fidelity(
            kl=mean_by_document(arm.kl_N, document_N),
            kl_tails=_tails(arm.kl_N),
            top1=within(mean_by_document(arm.agrees_N, document_N), 0, 1),
            perplexity=_exp(mean_by_document(arm.nll_N, document_N)),
            by_position=_buckets(positions, arm.kl_N, document_N),
            by_frequency=_buckets(frequencies, arm.kl_N, document_N),
        )
        for name, arm in readings.items()
    }
    return Heldout(
        documents=len(documents),
        positions=len(document_N),
        teacher_perplexity=_exp(mean_by_document(teacher_nll_N, document_N)),
        arms=arms,
        differences=_differences(readings, document_N),
    )


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


def _differences(readings: Mapping[str, _Readings], document_N: Ints) -> tuple[Difference, ...]:
    first, *others = readings
    confidence = 1 - ALPHA / max(1, len(others))
    ours = readings[first]
    return tuple(
        Difference(
            baseline=name,
            kl=mean_by_document(ours.kl_N - readings[name].kl_N, document_N, confidence),
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
