"""What a student costs to run beside its teacher: generation speed, parameters, memory and disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor, nn

from limbeck.distill.beginning import Beginning
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

    def scaled(self, factor: float) -> "Spread":
        """Return the same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


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
    prompt_tokens: tuple[float, float]
    """Mean tokens of the timed prompts: the teacher's, the student's."""
    cached_ratio: Spread | None = None
    """Student over a teacher that has the beginning of its prompts in its cache; None where it was not timed."""
    bytes_per_token: tuple[float, float] | None = None
    """Mean bytes of a token, teacher and student; None where they share a tokenizer."""

    @property
    def cost_ratio(self) -> float:
        """Seconds per token of the student over the teacher's: the share of the bill on one machine.

        Reading the prompt counts, so (seconds to read the student's prompt and write n tokens) over (seconds to
        read the teacher's and write n tokens).
        """
        return 1 / self.ratio.median

    def per_byte(self, teacher: float, student: float) -> "Speed":
        """Return the speed with ratios of text, not of tokens, from the bytes that a token of each holds."""
        scale = student / teacher
        cached = self.cached_ratio
        return replace(
            self,
            ratio=self.ratio.scaled(scale),
            cached_ratio=None if cached is None else cached.scaled(scale),
            bytes_per_token=(teacher, student),
        )

    def as_dict(self) -> dict[str, object]:
        """Return JSON values."""
        values: dict[str, object] = {
            "ratio": self.ratio.as_dict(),
            "teacher_tokens_per_s": self.teacher.as_dict(),
            "student_tokens_per_s": self.student.as_dict(),
            "rounds": self.rounds,
            "tokens_per_round": self.tokens,
            "cost_ratio": self.cost_ratio,
            "prompt_tokens": _both(self.prompt_tokens),
        }
        if self.cached_ratio is not None:
            values["cost_ratio_cached_prompt"] = 1 / self.cached_ratio.median
        if self.bytes_per_token is not None:
            values["bytes_per_token"] = _both(self.bytes_per_token)
        return values


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
    teacher_prompts: Sequence[Sequence[int]] | None = None,
    beginning: Beginning | None = None,
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
        teacher_prompts: What the teacher reads instead, prompt by prompt; None means the same.
        beginning: What all of the teacher's prompts begin with, kept in its cache; it is then timed with and
            without.

    Raises:
        RunError: There is no prompt, or a prompt without tokens, or nothing to generate.
    """
    if not prompts or not all(prompts):
        raise RunError("timing needs at least one prompt, each with at least one token")
    if tokens < 1 or rounds < 1:
        raise RunError(f"timing needs tokens and rounds of at least 1, got {tokens} and {rounds}")
    theirs = prompts if teacher_prompts is None else teacher_prompts
    ours = prompts if vocabulary is None else [vocabulary.spell(prompt) for prompt in prompts]
    runs: dict[str, Callable[[int], object]] = {
        "teacher": lambda n: write_greedily(teacher, theirs[n], tokens),
        "student": lambda n: write_greedily(student, ours[n], tokens),
    }
    if beginning is not None:
        known = len(beginning)
        runs["cached"] = lambda n: write_greedily(
            teacher, theirs[n][known:], tokens, beginning.cache(1)
        )
    for model in (teacher, student):
        model.eval()
    progress.begin("time", rounds, "rounds")
    for run in runs.values():
        run(0)
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[:: 1 if turn % 2 == 0 else -1]:
            start = clock()
            runs[name](turn % len(prompts))
            rates[name].append(tokens / (clock() - start))
        progress.advance(1, f"{rates['student'][-1] / rates['teacher'][-1]:.2f}x")
    ratio, *cached = [_ratio(rates["student"], rates[n]) for n in runs if n != "student"]
    progress.end(f"{ratio.median:.2f}x")
    timed = [turn % len(prompts) for turn in range(rounds)]
    return Speed(
        teacher=_spread(rates["teacher"]),
        student=_spread(rates["student"]),
        ratio=ratio,
        rounds=rounds,
        tokens=tokens,
        prompt_tokens=(fmean(len(theirs[n]) for n in timed), fmean(len(ours[n]) for n in timed)),
        cached_ratio=cached[0] if cached else None,
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
def write_greedily(model: Any, prompt: Sequence[int], tokens: int, cache: Any = None) -> list[int]:
    """Return the `tokens` most likely next tokens, one by one, with a key-value cache and no stop token.

    `cache` holds what was read before the prompt.
    """
    inputs_BT = _row(model, prompt)
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


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    return _spread([a / b for a, b in zip(ours, theirs, strict=True)])


def _both(pair: tuple[float, float]) -> dict[str, float]:
    return {"teacher": pair[0], "student": pair[1]}


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(median(values)), min(values), max(values))
