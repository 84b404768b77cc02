"""One way to take an on-policy step, in a process of its own that waits for its turn.

    python benchmarks/onpolicy_arm.py NAME FOLDER

The protocol and the accounting of memory are those of `arm.py`. A step is everything: the student writes,
the teacher judges, the student learns. `trl` runs in another environment (`make baselines`), so nothing of
Limbeck is imported here before an arm needs it.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from arm import BETAS, CLIP, TrainingTurns, Turns
from onpolicy_setting import OnPolicySetting, read_setting
from torch import Tensor


def ours(setting: OnPolicySetting, turns: Turns, staleness: int = 0) -> None:
    """Train with Limbeck's own loop, on text written for one step at a time or for several."""
    import numpy as np

    from limbeck.backends import load
    from limbeck.distill.objective import LossSpec
    from limbeck.distill.on_policy import MixedSpec, train_on_policy
    from limbeck.distill.recipe import OnPolicyRecipe, TrainRecipe
    from limbeck.distill.targets import Document, Taught, concatenate
    from limbeck.distill.train import LOG

    _import_models()
    turns.imported()
    dtype = "bfloat16" if setting.precision == "bf16" else "float32"
    student = load(str(setting.path / "student"), dtype="float32")
    teacher = load(str(setting.path / "teacher"), dtype=dtype)
    taught: list[Taught] = []
    for prompt in _read(setting)[
        "prompts"
    ]:  # an answer of one token stands for what is written anew
        tokens_T = np.asarray([*prompt["tokens"], 0], dtype=np.int32)
        loss_T = np.arange(len(tokens_T)) == len(tokens_T) - 2
        taught.append(Taught(Document(tokens_T, loss_T, False, "0" * 64), concatenate([])))
    recipe = TrainRecipe(
        epochs=1.0,
        learning_rate=setting.learning_rate,
        warmup=0.0,
        final_rate=1.0,
        betas=BETAS,
        row_length=max(len(t.document.tokens_T) for t in taught) + setting.max_new_tokens,
        rows=setting.prompts,
        clip=CLIP,
        precision="bf16" if setting.precision == "bf16" else "no",
        checkpoint_every=setting.steps + 1,
    )
    own = OnPolicyRecipe(
        documents=setting.prompts,
        max_staleness=staleness,
        batch=setting.prompts * (staleness + 1),
        max_new_tokens=setting.max_new_tokens,
    )
    turns.loaded(student.model, teacher.model)
    folder = setting.path / f"training-{staleness}"
    train_on_policy(
        student,
        teacher,
        taught,
        recipe,
        own,
        MixedSpec(own=LossSpec("reverse_kl"), read=LossSpec()),
        folder,
        seed=setting.seed,
        resume=False,
        progress=TrainingTurns(turns, folder / LOG),
    )


def ahead(setting: OnPolicySetting, turns: Turns) -> None:
    """Write the answers to several steps at once."""
    ours(setting, turns, setting.staleness)


def trl(setting: OnPolicySetting, turns: Turns) -> None:
    """Run TRL's DistillationTrainer.

    In TRL 1.16.0 it is stable, always on-policy, and writes for one optimiser step at a time; `beta = 1` is
    reverse KL, and its chunked loss divides by the tokens that were written.
    """
    datasets: Any = importlib.import_module("datasets")
    library: Any = importlib.import_module("trl")
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    _import_models()
    turns.imported()
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    load: Any = AutoModelForCausalLM.from_pretrained
    student = load(setting.path / "student", dtype=torch.float32)
    teacher = load(setting.path / "teacher", dtype=dtype).eval().requires_grad_(False)
    tokenizer: Any = AutoTokenizer.from_pretrained(setting.path / "student", padding_side="left")
    found = _read(setting)
    order = [found["prompts"][i] for i in found["order"]]
    messages = [[{"role": "user", "content": p["message"]}] for p in order]
    _check_prompts(tokenizer, messages, order)
    options = library.DistillationConfig(
        output_dir=str(setting.path / "trl"),
        beta=1.0,
        temperature=1.0,
        max_completion_length=setting.max_new_tokens,
        shuffle_dataset=False,
        max_steps=setting.steps,
        per_device_train_batch_size=setting.prompts,
        gradient_accumulation_steps=1,
        gradient_checkpointing=setting.checkpointing,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        bf16=setting.precision == "bf16",
        use_cpu=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=setting.seed,
    )

    class _Turn(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turns.wait()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.stop()
            loss, positions = heard[-1]
            turns.tell(float(loss), int(positions))

    trainer = library.DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=options,
        train_dataset=datasets.Dataset.from_dict({"prompt": messages}),
        processing_class=tokenizer,
        callbacks=[_Turn()],
    )
    heard: list[tuple[Tensor, Tensor]] = []
    compute: Callable[..., Tensor] = trainer.compute_loss

    def listening(model: Any, inputs: Any, *args: Any, **named: Any) -> Tensor:
        loss = compute(model, inputs, *args, **named)
        heard[:] = [(loss.detach(), inputs["completion_mask"].sum())]
        return loss

    trainer.compute_loss = listening
    turns.loaded(student, teacher)
    trainer.train()


ARMS: dict[str, Callable[[OnPolicySetting, Turns], None]] = {
    "ours": ours,
    "ahead": ahead,
    "trl": trl,
}


def _read(setting: OnPolicySetting) -> dict[str, Any]:
    return json.loads((setting.path / "prompts.json").read_text(encoding="utf-8"))


def _check_prompts(tokenizer: Any, messages: list[Any], order: list[dict[str, Any]]) -> None:
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    if list(ids["input_ids"]) != [p["tokens"] for p in order]:
        raise SystemExit("DistillationTrainer would read other prompts than Limbeck does")


def _import_models() -> None:
    """Load now what `transformers` loads when it first makes a model."""
    importlib.import_module("transformers.models.llama.modeling_llama")


def main() -> None:
    """Run the arm that the command line names."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    name, folder = sys.argv[1:]
    turns = Turns()
    ARMS[name](read_setting(Path(folder)), turns)


if __name__ == "__main__":
    main()
