"""Draw answers from whatever model a user names: here or behind an API, each draw apart from every other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from limbeck import backends
from limbeck.backends.served import PREFIX, ServedModel
from limbeck.chat import Message
from limbeck.distill.capture import end_tokens
from limbeck.distill.corpus import Record, prompt_ids
from limbeck.distill.write import Sampling, write_answers
from limbeck.model import LocalModel
from limbeck.opening import run_of
from limbeck.placement import device, place
from limbeck.progress import Progress

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers are drawn."""

    temperature: float = 1.0
    max_new_tokens: int = 128
    seed: int = 0


def open_local(spec: str, base: Path, dtype: str) -> LocalModel:
    """Load a model by a folder, a run's folder, `hf:org/name` or `packaged:name`, and put it where it computes.

    Raises:
        LimbeckError: There is no such model.
    """
    run = None if ":" in spec else run_of(spec, base)
    folder = spec if run is None else str(run / "student")
    model = backends.load(folder, dtype="bfloat16" if dtype == "bfloat16" else "float32", base=base)
    place(model.model, device(0))
    return model


def draw(
    model: LocalModel | ServedModel,
    prompts: Sequence[str],
    drawing: Drawing,
    *,
    number: int,
    progress: Progress,
) -> list[str]:
    """Return one answer to each prompt; `number` tells independent draws apart.

    Raises:
        ScoringError: A served model cannot be asked.
    """
    if isinstance(model, LocalModel):
        return draw_texts(model, prompts, drawing, number=number, progress=progress)
    written = model.complete(
        [(Message("user", p),) for p in prompts],
        drawing.max_new_tokens,
        temperature=drawing.temperature,
        # A server that heeds seeds must not write the same twice.
        seed=2 * drawing.seed + number,
    )
    progress.advance(len(prompts))
    return written


def draw_texts(
    model: LocalModel,
    prompts: Sequence[str],
    drawing: Drawing,
    *,
    number: int,
    progress: Progress,
) -> list[str]:
    """Return one answer of a loaded model to each prompt, drawn at the temperature."""
    import torch

    sampling = Sampling(drawing.temperature, drawing.max_new_tokens, end_tokens(model))
    ids = [
        prompt_ids(Record((Message("user", p),), "", False, f"prompt {i}"), model.tokenizer)
        for i, p in enumerate(prompts)
    ]
    texts: list[str] = []
    for start in range(0, len(ids), _BATCH):
        seed = np.random.SeedSequence((drawing.seed, number, start)).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(seed[0] >> 1))
        answers = write_answers(model.model, ids[start : start + _BATCH], sampling, generator)
        texts += model.tokenizer.batch_decode(answers, skip_special_tokens=True)
        progress.advance(len(answers))
    return texts


def open_either(spec: str, base: Path, dtype: str) -> LocalModel | ServedModel:
    """Return a model that can be asked: loaded, or behind `openai:NAME@URL`.

    Raises:
        LimbeckError: There is no such model.
    """
    return ServedModel(spec) if spec.startswith(PREFIX) else open_local(spec, base, dtype)
