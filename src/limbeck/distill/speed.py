"""What a student costs to run beside its teacher: generation speed, parameters, memory and disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import RunError
from limbeck.progress import Progress


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of all rounds with the smallest and the largest.

    For n independent rounds that range holds the true median with probability 1 - 2^(1 - n): 0.94 for 5.
    """

    median: float
    low: float
    high: float

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {"median": self.median, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Speed:
    """Generation speed of teacher and student, one sequence at a time."""

    teacher: Spread
    """Tokens per second."""
    student: Spread
    """Tokens per second."""
    ratio: Spread
    """Student over teacher, round by round."""
    rounds: int
    tokens: int
    """Tokens written in each timed generation."""

    @property
    def cost_ratio(self) -> float:
        """Seconds per token of the student over the teacher's: the share of the bill on one machine."""
        return 1 / self.ratio.median

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "ratio": self.ratio.as_dict(),
            "teacher_tokens_per_s": self.teacher.as_dict(),
            "student_tokens_per_s": self.student.as_dict(),
            "rounds": self.rounds,
            "tokens_per_round": self.tokens,
            "cost_ratio": self.cost_ratio,
        }


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model occupies."""

    parameters: int
    """Shared ones counted once."""
    weight_bytes: int
    """Parameters and buffers in memory, in their own number format."""
    cache_bytes_per_token: int
    """Key-value cache for each token of one sequence."""
    disk_bytes: int | None
    """Bytes of the model's folder; None where it has none."""

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        return {
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "cache_bytes_per_token": self.cache_bytes_per_token,
            "disk_bytes": self.disk_bytes,
        }


def measure_speed(
    teacher: nn.Module,
    student: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress,
    vocabulary: Vocabulary | None = None,
) -> Speed:
    """Time greedy generation of both models, interleaved, so that a noisy machine disturbs both alike.

    Each round times both on one prompt; who goes first alternates (teacher, student, student, teacher, ...).
    One generation each beforehand warms up and is not counted. A time includes reading the prompt.

    Args:
        teacher: A causal `transformers` model.
        student: Another one.
        prompts: Token ids; round r takes prompt r modulo their number.
        tokens: Tokens a generation, exactly: an end-of-text token does not stop it.
        rounds: Timed generations of each model, at least 1.
        clock: Returns seconds; only differences are used.
        progress: Hears of every round.
        vocabulary: The tokens that the student has; None means the teacher's.

    Raises:
        RunError: There is no prompt, or a prompt without tokens, or nothing to generate.
    """
    if not prompts or not all(prompts):
        raise RunError("timing needs at least one prompt, each with at least one token")
    if tokens < 1 or rounds < 1:
        raise RunError(f"timing needs tokens and rounds of at least 1, got {tokens} and {rounds}")
    models = {"teacher": teacher.eval(), "student": student.eval()}
    read = {"teacher": prompts, "student": prompts}
    if vocabulary is not None:
        read["student"] = [vocabulary.spell(prompt) for prompt in prompts]
    progress.begin("time", rounds, "rounds")
    for name, model in models.items():
        write_greedily(model, read[name][0], tokens)
    rates: dict[str, list[float]] = {"teacher": [], "student": []}
    for turn in range(rounds):
        order = ("teacher", "student") if turn % 2 == 0 else ("student", "teacher")
        for name in order:
            start = clock()
            write_greedily(models[name], read[name][turn % len(prompts)], tokens)
            rates[name].append(tokens / (clock() - start))
        progress.advance(1, f"{rates['student'][-1] / rates['teacher'][-1]:.2f}x")
    ratios = [s / t for s, t in zip(rates["student"], rates["teacher"], strict=True)]
    progress.end(f"{median(ratios):.2f}x")
    return Speed(
        _spread(rates["teacher"]), _spread(rates["student"]), _spread(ratios), rounds, tokens
    )


def measure_alone(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    tokens: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    progress: Progress,
) -> Spread:
    """Time greedy generation of one model in tokens per second, for want of a teacher here to time beside it.

    Arguments and errors are those of `measure_speed`.
    """
    if not prompts or not all(prompts) or tokens < 1 or rounds < 1:
        raise RunError("timing needs a prompt with a token, and tokens and rounds of at least 1")
    progress.begin("time", rounds, "rounds")
    write_greedily(model.eval(), prompts[0], tokens)
    rates: list[float] = []
    for turn in range(rounds):
        start = clock()
        write_greedily(model, prompts[turn % len(prompts)], tokens)
        rates.append(tokens / (clock() - start))
        progress.advance(1, f"{rates[-1]:.1f} tokens/s")
    progress.end()
    return _spread(rates)


@torch.inference_mode()
def write_greedily(model: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """Return the `tokens` most likely next tokens, one by one, with a key-value cache and no stop token."""
    inputs_BT = _row(model, prompt)
    cache: Any = None
    written: list[int] = []
    for _ in range(tokens):
        reply = model(inputs_BT, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = reply.past_key_values
        inputs_BT = reply.logits[:, -1:].argmax(-1)
        written.append(int(inputs_BT))
    return written


@torch.inference_mode()
def measure_footprint(model: Any, folder: Path | None) -> Footprint:
    """Count a model's parameters and bytes.

    The cache is measured, not computed: one short forward, then the bytes of the keys and values it left.

    Args:
        model: A causal `transformers` model.
        folder: Where it lies on disk, if it does.
    """
    probe_BT = _row(model, [0] * 8)
    cache = model(probe_BT, use_cache=True, logits_to_keep=1).past_key_values
    kept = [t for layer in cache.layers for t in (layer.keys, layer.values)]
    held = [*model.parameters(), *model.buffers()]
    files = [] if folder is None else [f for f in folder.rglob("*") if f.is_file()]
    return Footprint(
        parameters=sum(p.numel() for p in model.parameters()),
        weight_bytes=sum(t.nbytes for t in held),
        cache_bytes_per_token=sum(t.nbytes for t in kept) // probe_BT.shape[1],
        disk_bytes=None if folder is None else sum(f.stat().st_size for f in files),
    )


def _row(model: Any, tokens: Sequence[int]) -> Tensor:
    device = next(model.parameters()).device
    return torch.tensor([list(tokens)], device=device)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(median(values)), min(values), max(values))
