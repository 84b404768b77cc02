"""How close students come to a teacher that has another tokenizer.

Divergence, agreement and perplexity *per token* are not defined between models that cut a text differently. What is:

- bits per byte: -log2 of the probability that a model gives to a passage, token by token with the end of the turn,
  over the passage's bytes. Comparable between any two models; a figure of each model alone.
- label KL: KL(teacher || student) in nats between the distributions over labels (`labels`), at positions where spans
  coincide. By the data-processing inequality a lower bound of the divergence of what both say of the text.
- label agreement: the share of those positions at which both find the same label likeliest.

Intervals take documents as the sampling unit, as in `evaluate`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from limbeck.distill.align import END, WHOLE, Pair, Spans, select
from limbeck.distill.capture import hidden_states, token_batches
from limbeck.distill.evaluate import (
    ALPHA,
    Estimate,
    Precision,
    evaluating,
    interval_json,
    ratio_of_totals,
    within,
)
from limbeck.distill.forward import Halves, split
from limbeck.distill.grouped import label_sums
from limbeck.distill.labels import Labels
from limbeck.distill.next_bytes import Said, label_probs, last_needed
from limbeck.distill.targets import Ids, Ints
from limbeck.errors import CorpusError, StudentError, TeacherError
from limbeck.progress import Progress

UNDEFINED = (
    "KL, agreement and perplexity per token are not defined: teacher and student cut a text into different "
    "tokens"
)
_ROWS = 128
_FLOOR = 1e-30


@dataclass(frozen=True, slots=True)
class Closeness:
    """What one arm kept of the teacher."""

    bits_per_byte: Estimate
    label_kl: Estimate
    """Nats per position where spans coincide."""
    label_agreement: Estimate

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json."""
        return {
            **_figure("bits_per_byte", self.bits_per_byte),
            **_figure("label_kl", self.label_kl),
            **_figure("label_agreement", self.label_agreement),
        }


@dataclass(frozen=True, slots=True)
class Across:
    """Every arm against the teacher, on the same held-out text."""

    documents: int
    positions: int
    """The students' loss positions."""
    coincident: int
    """Those at which spans coincide."""
    content_bytes: int
    teacher_bits: Estimate
    arms: Mapping[str, Closeness]
    differences: Mapping[str, Closeness]
    """The first arm minus each of the others, paired by document."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values under the names of docs/report.schema.json; what is not defined is null."""
        confidence = 1 - ALPHA / max(1, len(self.differences))
        return {
            "documents": self.documents,
            "positions": self.positions,
            "confidence": 1 - ALPHA,
            "across": {
                "undefined": UNDEFINED,
                "coincident": self.coincident,
                "bytes": self.content_bytes,
            },
            "teacher": {
                "perplexity": None,
                "perplexity_interval": None,
                **_figure("bits_per_byte", self.teacher_bits),
            },
            **{name: {**_NO_ARM, **arm.as_dict()} for name, arm in self.arms.items()},
            "differences": {
                name: {**_NO_DIFFERENCE, **one.as_dict(), "confidence": confidence}
                for name, one in self.differences.items()
            },
        }


_NO_DIFFERENCE: Mapping[str, None] = dict.fromkeys(
    ("kl_mean", "kl_interval", "top1_agreement", "top1_interval")
)
_NO_ARM: Mapping[str, None] = {
    **_NO_DIFFERENCE,
    **dict.fromkeys(
        ("kl_tails", "perplexity", "perplexity_interval", "kl_by_position", "kl_by_frequency")
    ),
}


def _figure(name: str, estimate: Estimate) -> dict[str, object]:
    return {name: estimate.value, f"{name}_interval": interval_json(estimate)}


@dataclass(frozen=True, slots=True)
class _Totals:
    """What one model did on one document."""

    nats: float
    """Of the passages' realised tokens, by this model."""
    kl: float = 0.0
    agreeing: int = 0


def measure_across(
    teacher: nn.Module,
    students: Mapping[str, nn.Module],
    pairs: Sequence[Pair],
    labels: Labels,
    *,
    precision: Precision,
    batch_tokens: int,
    progress: Progress,
) -> Across:
    """Measure how far each student is from a teacher with another tokenizer, on held-out pairs.

    Args:
        teacher: A causal `transformers` model.
        students: Arm name to model, the arm to judge first; the differences are that arm minus the others.
        pairs: Held-out documents.
        labels: What distributions are summed over.
        precision: "bf16" multiplies matrices in bfloat16.
        batch_tokens: Tokens a forward at the most, padding included.
        progress: Hears of every batch, in documents.

    Raises:
        CorpusError: There is nothing to measure on.
        StudentError: No student is given, or one's logits are not finite.
        TeacherError: The teacher's logits are not finite.
    """
    if not pairs:
        raise CorpusError(
            "the held-out part has no aligned document; raise corpus.heldout_fraction"
        )
    if not students:
        raise StudentError("there is no student to measure; at least one is needed")
    pairs = sorted(pairs, key=lambda p: -len(p.teacher_T))
    found: list[tuple[_Totals, dict[str, _Totals]]] = []
    progress.begin("evaluate", len(pairs), "documents")
    with evaluating([teacher, *students.values()]):
        ours, theirs = split(teacher), {name: split(m) for name, m in students.items()}
        lengths = [max(len(p.teacher_T), len(p.student.tokens_T)) for p in pairs]
        for batch in token_batches(lengths, batch_tokens):
            read = [pairs[i] for i in batch]
            found += _read(ours, theirs, read, labels, precision)
            progress.advance(len(batch))
    progress.end(f"{len(pairs)} documents")
    return _summarise(pairs, found)


@torch.inference_mode()
def _read(
    teacher: Halves,
    students: Mapping[str, Halves],
    pairs: Sequence[Pair],
    labels: Labels,
    precision: Precision,
) -> Iterator[tuple[_Totals, dict[str, _Totals]]]:
    device = teacher.head.weight.device.type
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        told = list(hidden_states(teacher, [p.teacher_T for p in pairs]))
        heard = {
            name: list(hidden_states(half, [p.student.tokens_T for p in pairs]))
            for name, half in students.items()
        }
        for n, pair in enumerate(pairs):
            yield _measure(
                (teacher, told[n]),
                {name: (half, heard[name][n]) for name, half in students.items()},
                pair,
                labels,
            )


def _measure(
    teacher: tuple[Halves, Tensor],
    students: Mapping[str, tuple[Halves, Tensor]],
    pair: Pair,
    labels: Labels,
) -> tuple[_Totals, dict[str, _Totals]]:
    rows, contents = pair.rows(), pair.row_contents()
    both = np.flatnonzero((rows.kind_R == WHOLE) | (rows.kind_R == END))
    p_RL = _label_probs_of(teacher, pair, labels, both, contents)
    said = _Totals(_nats(teacher, pair.teacher_T, teacher_tokens(pair), "the teacher", pair))
    arms: dict[str, _Totals] = {}
    for name, student in students.items():
        tokens = rows.student_R
        nats = _nats(student, pair.student.tokens_T, tokens, f"student {name}", pair)
        half, hidden_TD = student
        realised_R = pair.student.tokens_T[tokens[both]]
        logits_RV = half.head(hidden_TD[torch.from_numpy(tokens[both] - 1)]).float()
        q_RL = label_sums(logits_RV.softmax(-1).cpu(), realised_R, labels.student)
        kl = torch.special.xlogy(p_RL, p_RL) - torch.special.xlogy(p_RL, q_RL.clamp(min=_FLOOR))
        agreeing = int((p_RL.argmax(-1) == q_RL.argmax(-1)).sum())
        arms[name] = _Totals(nats, float(kl.double().sum()), agreeing)
    return said, arms


def _label_probs_of(
    teacher: tuple[Halves, Tensor],
    pair: Pair,
    labels: Labels,
    both: Ints,
    contents: Sequence[bytes],
) -> Tensor:
    """Return the teacher's probabilities of labels at some rows, [R, size]."""
    half, hidden_TD = teacher
    rows = pair.rows()
    parts: list[Tensor] = []
    for start in range(0, len(both), _ROWS):
        at = both[start : start + _ROWS]
        part = select(rows, at)
        first = int(part.teacher_R.min())
        last = max(last_needed(part, row, pair, labels) for row in range(len(part)))
        probs_KV = half.head(hidden_TD[first - 1 : last]).float().softmax(-1).cpu()
        said = Said(probs_KV, first, pair.teacher_T)
        parts.append(label_probs(said, part, pair, labels, [contents[i] for i in at.tolist()]))
    return torch.cat(parts) if parts else torch.zeros(0, labels.student.size)


def teacher_tokens(pair: Pair) -> Ints:
    """Return the numbers of the teacher's tokens in the passages, their ends included, that something precedes."""
    return _tokens([p.teacher for p in pair.passages])


def _tokens(spans: Sequence[Spans]) -> Ints:
    numbers = [
        n
        for s in spans
        for n in (*range(max(s.first, 1), s.stop), *([] if s.end is None else [s.end]))
    ]
    return np.array(numbers, dtype=np.int64)


def _nats(
    model: tuple[Halves, Tensor], tokens_T: Ids, numbers: Ints, who: str, pair: Pair
) -> float:
    """Return -log of the probability of some realised tokens, in nats."""
    half, hidden_TD = model
    total = 0.0
    for start in range(0, len(numbers), _ROWS):
        at = torch.from_numpy(numbers[start : start + _ROWS])
        log_NV = half.head(hidden_TD[at - 1]).float().log_softmax(-1)
        ids = torch.from_numpy(tokens_T[at.numpy()]).long().to(log_NV.device)
        total -= float(log_NV.gather(-1, ids[:, None]).double().sum())
    if not math.isfinite(total):
        kind = TeacherError if who == "the teacher" else StudentError
        raise kind(
            f"{who} gives logits that are not finite on held-out document {pair.student.key}; "
            "its weights are broken"
        )
    return total


def _summarise(
    pairs: Sequence[Pair], found: Sequence[tuple[_Totals, dict[str, _Totals]]]
) -> Across:
    kinds = [pair.rows().kind_R for pair in pairs]
    bytes_D = np.array([pair.content_bytes for pair in pairs])
    whole_D = np.array([int(((k == WHOLE) | (k == END)).sum()) for k in kinds])
    names = list(found[0][1])
    columns = {name: _columns([arms[name] for _, arms in found]) for name in names}
    first, *others = names
    confidence = 1 - ALPHA / max(1, len(others))
    teacher_D = _columns([said for said, _ in found])[0]
    return Across(
        documents=len(pairs),
        positions=sum(map(len, kinds)),
        coincident=int(whole_D.sum()),
        content_bytes=int(bytes_D.sum()),
        teacher_bits=ratio_of_totals(teacher_D, bytes_D),
        arms={name: _closeness(columns[name], bytes_D, whole_D, 1 - ALPHA) for name in names},
        differences={
            name: _closeness(
                columns[first] - columns[name], bytes_D, whole_D, confidence, paired=True
            )
            for name in others
        },
    )


def _columns(totals: Sequence[_Totals]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return bits, KL and agreements, each [documents]."""
    return np.array([[t.nats / math.log(2), t.kl, t.agreeing] for t in totals]).T


def _closeness(
    columns: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    bytes_D: Ints,
    whole_D: Ints,
    confidence: float,
    *,
    paired: bool = False,
) -> Closeness:
    agreement = ratio_of_totals(columns[2], whole_D, confidence)
    return Closeness(
        bits_per_byte=ratio_of_totals(columns[0], bytes_D, confidence),
        label_kl=ratio_of_totals(columns[1], whole_D, confidence),
        label_agreement=agreement if paired else within(agreement, 0, 1),
    )
