"""Held-out divergence after the same steps, off-policy, on-policy and half of each, from one start."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck.backends import load
from limbeck.distill.capture import answer_prompts, end_tokens
from limbeck.distill.corpus import Prompt, answered
from limbeck.distill.evaluate import Estimate, mean_by_document, measure_fidelity
from limbeck.distill.forward import split
from limbeck.distill.losses import reverse_kl
from limbeck.distill.mixing import prompt_of
from limbeck.distill.objective import LossSpec
from limbeck.distill.on_policy import MixedSpec, train_on_policy
from limbeck.distill.own_text import read_writing, total
from limbeck.distill.recipe import GenerateRecipe, OnPolicyRecipe, OwnLossRecipe, TrainRecipe
from limbeck.distill.store import StoreSpec
from limbeck.distill.targets import Document, Taught
from limbeck.distill.write import Sampling, write_answers
from limbeck.model import LocalModel
from limbeck.progress import Silent

FRACTIONS = {"on": 1.0, "off": 0.0, "half": 0.5}
"""Arms and the share of texts that the student writes; the first is compared with the others."""
_TILE = 64


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much is trained and measured."""

    prompts: int
    """Documents a step."""
    steps: int
    warm_steps: int
    """Off-policy steps before the arms part; 0 begins with the pruned student."""
    max_new_tokens: int
    staleness: int
    kind: str
    """The divergence on text of the student's own; on the teacher's it is forward KL from the store."""
    learning_rate: float
    precision: str
    seed: int


@dataclass(frozen=True, slots=True)
class Texts:
    """The teacher's answers."""

    warm: Sequence[Taught]
    """Read by every arm's start, and by nobody else."""
    training: Sequence[Taught]
    heldout: Sequence[Document]


def listen(plan: Comparison, teacher: LocalModel, prompts: Sequence[Prompt]) -> Texts:
    """Let the teacher answer: prompts to begin with, then those to train on, and those held out."""
    how = GenerateRecipe(max_new_tokens=plan.max_new_tokens, batch=64)
    taught = list(answer_prompts(teacher, prompts, how, StoreSpec(), seed=plan.seed))
    training = [t for t in taught if not t.document.heldout]
    warm = plan.warm_steps * plan.prompts
    return Texts(
        training[:warm], training[warm:], [t.document for t in taught if t.document.heldout]
    )


def compare(
    plan: Comparison, folder: Path, teacher: LocalModel, texts: Texts, say: Any = print
) -> dict[str, Any]:
    """Train every arm and measure it on the teacher's held-out answers and on its own.

    Args:
        plan: How much.
        folder: Holds `student/`.
        teacher: As it answered.
        texts: Its answers; fewer than the steps need are read again.
        say: Hears one line of progress.
    """
    start = load(str(folder / "student"), dtype="float32")
    if plan.warm_steps:
        _train(plan, start, teacher, texts.warm, 0.0, plan.warm_steps)
    begin = {name: tensor.clone() for name, tensor in start.model.state_dict().items()}
    arms: dict[str, LocalModel] = {}
    written: dict[str, Any] = {}
    for name, fraction in FRACTIONS.items():
        arms[name] = load(str(folder / "student"), dtype="float32")
        arms[name].model.load_state_dict(begin)
        seconds, wrote = _train(plan, arms[name], teacher, texts.training, fraction, plan.steps)
        written[name] = {"seconds": seconds, "answers": wrote.answers, "cut": wrote.cut}
        say(f"{name}: {plan.steps} steps in {seconds:.0f} s")
    arms["start"] = start
    found = measure_fidelity(
        teacher.model,
        {name: arm.model for name, arm in arms.items()},
        texts.heldout,
        np.ones(teacher.model.get_output_embeddings().weight.shape[0], dtype=np.int64),
        precision="bf16" if plan.precision == "bf16" else "no",
        batch_tokens=2048,
        progress=Silent(),
    ).as_dict()
    own = {name: _own_text(plan, teacher, arm, texts.heldout) for name, arm in arms.items()}
    return {
        "heldout": {name: _three(found[name]) for name in arms},
        "on_minus": {name: _three(d) for name, d in found["differences"].items()},
        "own_text": own,
        "training": written,
        "training_prompts": len(texts.training),
        "heldout_prompts": len(texts.heldout),
    }


def _train(
    plan: Comparison,
    student: LocalModel,
    teacher: LocalModel,
    taught: Sequence[Taught],
    fraction: float,
    steps: int,
) -> tuple[float, Any]:
    """Take some steps; return their seconds and what the student wrote."""
    own = OnPolicyRecipe(
        fraction=fraction,
        documents=plan.prompts,
        max_staleness=plan.staleness,
        max_new_tokens=plan.max_new_tokens,
        loss=OwnLossRecipe.model_validate({"kind": plan.kind}),
    )
    longest = max(len(t.document.tokens_T) for t in taught) + plan.max_new_tokens
    recipe = TrainRecipe(
        epochs=steps / -(-len(taught) // plan.prompts),
        learning_rate=plan.learning_rate,
        row_length=max(512, longest),
        precision="bf16" if plan.precision == "bf16" else "no",
        checkpoint_every=10**6,
    )
    spec = MixedSpec(own=LossSpec(**own.loss.model_dump()), read=LossSpec())
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        options: dict[str, Any] = {"seed": plan.seed, "resume": False, "progress": Silent()}
        done = train_on_policy(student, teacher, taught, recipe, own, spec, out, **options)
        return sum(e.seconds for e in done.log), total(read_writing(out))


def _own_text(
    plan: Comparison, teacher: LocalModel, student: LocalModel, heldout: Sequence[Document]
) -> dict[str, Any]:
    """Let the student answer the held-out prompts, and return its reverse KL on that, in nats per position."""
    prompts = [prompt_of(document, 1) for document in heldout]
    sampling = Sampling(1.0, plan.max_new_tokens, end_tokens(student))
    generator = torch.Generator().manual_seed(plan.seed)
    tokens = [p.tokens_T for p in prompts]
    answers = write_answers(student.model, tokens, sampling, generator)
    documents = [answered(p, a) for p, a in zip(prompts, answers, strict=True)]
    values = [_reverse_kl(teacher, student, document) for document in documents]
    numbers = np.repeat(np.arange(len(values)), [len(v) for v in values])
    return _estimate(mean_by_document(np.concatenate(values), numbers)) | {
        "ended": sum(a[-1] in sampling.ends for a in answers) / len(answers)
    }


@torch.inference_mode()
def _reverse_kl(teacher: LocalModel, student: LocalModel, document: Document) -> Any:
    tokens_BT = torch.from_numpy(document.tokens_T).long()[None]
    loss_T = torch.from_numpy(document.loss_T)
    logs: list[list[torch.Tensor]] = []
    for model in (teacher.model, student.model):
        halves = split(model)
        hidden_ND = halves.hidden(tokens_BT)[0, loss_T]
        logs.append([halves.head(part).float().log_softmax(-1) for part in hidden_ND.split(_TILE)])
    values = [reverse_kl(p_log, q_log) for p_log, q_log in zip(*logs, strict=True)]
    return torch.cat(values).double().numpy()


def _three(figures: Mapping[str, Any]) -> list[float]:
    """Return mean, low and high of a divergence."""
    mean = figures["kl_mean"]
    return [mean, *(figures["kl_interval"] or (mean, mean))]


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval or (estimate.value, estimate.value)
    return {"reverse_kl": [estimate.value, *interval]}
