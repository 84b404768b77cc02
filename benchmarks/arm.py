"""One way to take a step, in a process of its own that waits for its turn.

    python benchmarks/arm.py NAME FOLDER

A line on standard input starts a step; a JSON line on standard output ends it. The first JSON line says
that everything is loaded. `gkd` runs in another environment (`make baselines`), so nothing of Limbeck is
imported here before an arm needs it.

Memory is what the system holds in RAM for the process (RSS). `floor_bytes` is what every arm must hold:
the interpreter and its libraries, measured before any model is loaded, plus the student's parameters,
gradients and both AdamW moments, counted. `peak_bytes` is the highest RSS during a step (VmHWM, reset
before it). What lies between is extra: activations, logits, a teacher, targets, caches.
"""

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from residence import reset_peak, resident_bytes
from safetensors.torch import load_file
from setting import Setting, read_setting
from torch import Tensor, nn
from torch.nn import functional

CLIP = 1.0
"""Largest norm of the gradient; the default of `train` and of the Trainer."""
BETAS = (0.9, 0.95)


class Turns:
    """The arm's line to whoever says when it may compute; owns standard output."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # libraries print, and their lines must not mix with ours
        self._bare = 0
        self._facts: dict[str, int | float | None] | None = None
        self._started = 0.0
        self._seconds = 0.0

    def imported(self) -> None:
        """Say that all is imported and no model loaded: measure what the interpreter takes."""
        _touch_kernels()
        self._bare = resident_bytes("VmRSS") or 0

    def loaded(self, student: Any, teacher: Any = None, *, decode_seconds: float = 0.0) -> None:
        """Say that the models are loaded; `decode_seconds` is a step's share of reading a store."""
        # Adam keeps two moments of what is trained, and that has a gradient.
        standing = sum(
            p.numel() * p.element_size() * (4 if p.requires_grad else 1)
            for p in (student.parameters() if student is not None else ())
        )
        weights = () if teacher is None else teacher.parameters()
        self._facts = {
            "floor_bytes": self._bare + standing if self._bare else None,
            "teacher_bytes": sum(p.numel() * p.element_size() for p in weights),
            "decode_seconds": decode_seconds,
            "threads": torch.get_num_threads(),
        }

    def wait(self) -> None:
        """Wait for the turn, then start the clock; the end of the input ends the process."""
        if self._facts is not None:
            _trim()
            self._tell(self._facts)
            self._facts = None
        if not sys.stdin.readline():
            raise SystemExit(0)
        reset_peak()
        self._started = time.perf_counter()

    def stop(self) -> None:
        """Stop the clock."""
        self._seconds = time.perf_counter() - self._started

    def tell(self, loss: float | None, positions: int | None = None) -> None:
        """Report the step that was stopped, and its loss positions where they are not the setting's."""
        self._tell(
            {
                "seconds": self._seconds,
                "peak_bytes": resident_bytes("VmHWM"),
                "loss": loss,
                "positions": positions,
            }
        )

    def _tell(self, facts: dict[str, int | float | None]) -> None:
        self._out.write(json.dumps(facts) + "\n")
        self._out.flush()


class TrainingTurns:
    """Progress of `train` that lets every step wait for its turn."""

    def __init__(self, turns: Turns, log: Path) -> None:
        self._turns = turns
        self._log = log

    def begin(self, step: str, total: int | None, unit: str) -> None:
        """Ignore it."""

    def advance(self, by: int = 1, note: str = "") -> None:
        """Report the step that is done, if one is, and wait before the next."""
        if by:
            self._turns.stop()
            last = json.loads(self._log.read_text(encoding="utf-8").splitlines()[-1])
            self._turns.tell(last["loss"], last["positions"])
        self._turns.wait()

    def end(self, note: str = "") -> None:
        """Ignore it."""

    def skip(self, step: str, why: str) -> None:
        """Ignore it."""


def ours(setting: Setting, turns: Turns, *, compiled: bool = False) -> None:
    """Train from the store with Limbeck's own loop."""
    from limbeck.distill.objective import LossSpec
    from limbeck.distill.recipe import TrainRecipe
    from limbeck.distill.store import StoreReader
    from limbeck.distill.train import LOG, train

    _import_models()
    turns.imported()
    student = _student(setting)
    started = time.perf_counter()
    taught = list(StoreReader(setting.path / "store").documents())
    decode_seconds = (time.perf_counter() - started) / setting.steps
    recipe = TrainRecipe(
        epochs=1.0,
        learning_rate=setting.learning_rate,
        warmup=0.0,
        final_rate=1.0,
        betas=BETAS,
        row_length=setting.length,
        rows=setting.rows,
        clip=CLIP,
        precision="bf16" if setting.precision == "bf16" else "no",
        compile=compiled,
        checkpoint_every=setting.steps + 1,
    )
    turns.loaded(student, decode_seconds=decode_seconds)
    folder = setting.path / ("training-compiled" if compiled else "training")
    train(
        student,
        taught,
        recipe,
        LossSpec(kind="forward_kl"),
        folder,
        seed=setting.seed,
        resume=False,
        progress=TrainingTurns(turns, folder / LOG),
    )


def compiled(setting: Setting, turns: Turns) -> None:
    """Do the same with the student's layers compiled, which the first step pays for."""
    ours(setting, turns, compiled=True)


def cross_entropy(setting: Setting, turns: Turns) -> None:
    """Train on the text alone, as everybody writes it."""
    _import_models()
    turns.imported()
    student = _student(setting)
    turns.loaded(student)

    def loss(tokens_BT: Tensor) -> Tensor:
        return student(input_ids=tokens_BT, labels=tokens_BT).loss

    _train(setting, student, loss, turns)


def online(setting: Setting, turns: Turns) -> None:
    """Ask the teacher in every step and compare whole distributions, as simply as possible."""
    _import_models()
    turns.imported()
    student, teacher = _student(setting), _teacher(setting)
    turns.loaded(student, teacher)

    def loss(tokens_BT: Tensor) -> Tensor:
        with torch.no_grad():
            p_log_BTV = teacher(tokens_BT).logits[:, :-1].float().log_softmax(-1)
        q_log_BTV = student(tokens_BT).logits[:, :-1].float().log_softmax(-1)
        terms_BTV = functional.kl_div(q_log_BTV, p_log_BTV, reduction="none", log_target=True)
        return terms_BTV.sum(-1).mean()

    _train(setting, student, loss, turns)


def gkd(setting: Setting, turns: Turns) -> None:
    """Run TRL's GKDTrainer off-policy.

    In TRL 1.16.0 `lmbda = 0` never lets the student write, `beta = 0` is a case of its own, KL(teacher ||
    student), and not the limit of the Jensen-Shannon divergence; `temperature` reaches generation alone,
    so the divergence is at temperature 1.
    """
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    # Neither lies in the environment that checks types.
    datasets: Any = importlib.import_module("datasets")
    trl: Any = importlib.import_module("trl.experimental.gkd")
    from transformers import AutoTokenizer, TrainerCallback

    _import_models()
    turns.imported()
    student, teacher = _student(setting), _teacher(setting)
    rows = [row.tolist() for row in _tokens(setting).flatten(0, 1)]
    options = trl.GKDConfig(
        output_dir=str(setting.path / "gkd"),
        lmbda=0.0,
        beta=0.0,
        temperature=1.0,
        seq_kd=False,
        max_steps=setting.steps,
        per_device_train_batch_size=setting.rows,
        gradient_accumulation_steps=1,
        gradient_checkpointing=setting.gkd_checkpointing,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="constant",
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        bf16=setting.precision == "bf16",
        use_cpu=True,
        train_sampling_strategy="sequential",
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
            turns.tell(float(heard[-1]))

    trainer = trl.GKDTrainer(
        model=student,
        teacher_model=teacher,
        args=options,
        data_collator=_collate,
        train_dataset=datasets.Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=AutoTokenizer.from_pretrained(setting.path / "student"),
        callbacks=[_Turn()],
    )
    heard: list[Tensor] = []
    compute: Callable[..., Tensor] = trainer.compute_loss

    def listening(*args: Any, **named: Any) -> Tensor:
        loss = compute(*args, **named)
        heard[:] = [loss.detach()]
        return loss

    trainer.compute_loss = listening
    turns.loaded(student, teacher)
    trainer.train()


def capture(setting: Setting, turns: Turns) -> None:
    """Ask the teacher once and write a store: a step takes what one training step will read."""
    from pair import document, store_writer

    from limbeck.backends import load
    from limbeck.distill.capture import capture_documents
    from limbeck.distill.store import StoreSpec

    _import_models()
    turns.imported()
    dtype = "bfloat16" if setting.precision == "bf16" else "float32"
    teacher = load(str(setting.path / "teacher"), dtype=dtype)
    texts = [document(row.int().numpy()) for row in _tokens(setting).flatten(0, 1)]
    turns.loaded(None, teacher.model)
    with store_writer(setting, teacher, setting.path / "captured") as writer:
        heard = capture_documents(
            teacher, texts, StoreSpec(), batch_tokens=setting.tokens, seed=setting.seed
        )
        for _ in range(setting.steps):
            turns.wait()
            for _ in range(setting.rows):
                writer.append(next(heard))
            turns.stop()
            turns.tell(None)
    turns.wait()


ARMS: dict[str, Callable[[Setting, Turns], None]] = {
    "ours": ours,
    "compiled": compiled,
    "cross_entropy": cross_entropy,
    "online": online,
    "gkd": gkd,
    "capture": capture,
}


def _train(
    setting: Setting, student: nn.Module, loss_of: Callable[[Tensor], Tensor], turns: Turns
) -> None:
    """Run the loop of the arms that have none of their own."""
    student.train()
    trainable = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable, lr=setting.learning_rate, betas=BETAS, weight_decay=0.0, fused=True
    )
    for tokens_BT in _batches(setting, turns):
        with _autocast(setting):
            loss = loss_of(tokens_BT)
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        turns.stop()
        turns.tell(float(loss.detach()))
        del loss


def _batches(setting: Setting, turns: Turns) -> Iterator[Tensor]:
    for tokens_BT in _tokens(setting):
        turns.wait()
        yield tokens_BT
    turns.wait()


def _tokens(setting: Setting) -> Tensor:
    return load_file(setting.path / "tokens.safetensors")["tokens_SBT"]


def _collate(rows: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    tokens_BT = torch.tensor([row["input_ids"] for row in rows])
    return {
        "input_ids": tokens_BT,
        "attention_mask": torch.ones_like(tokens_BT),
        "labels": tokens_BT.clone(),
    }


def _import_models() -> None:
    """Load now what `transformers` loads when it first makes a model."""
    importlib.import_module("transformers.models.llama.modeling_llama")


def _student(setting: Setting) -> Any:
    from transformers import AutoModelForCausalLM

    student: Any = AutoModelForCausalLM.from_pretrained(
        setting.path / "student", dtype=torch.float32
    )
    if setting.frozen_head:
        student.get_input_embeddings().weight.requires_grad_(False)
    return student


def _teacher(setting: Setting) -> Any:
    from transformers import AutoModelForCausalLM

    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    teacher: Any = AutoModelForCausalLM.from_pretrained(setting.path / "teacher", dtype=dtype)
    return teacher.eval().requires_grad_(False)


def _autocast(setting: Setting) -> contextlib.AbstractContextManager[object]:
    if setting.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast("cpu", torch.bfloat16)


def _touch_kernels() -> None:
    """Take one step of a toy, so that libraries which load on first use are not counted as a model's."""
    toy = nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(toy.parameters(), fused=True)
    for precision in (contextlib.nullcontext(), torch.autocast("cpu", torch.bfloat16)):
        with precision:
            loss = toy(torch.ones(64, 64)).log_softmax(-1).mean()
        loss.backward()
        optimizer.step()


def _trim() -> None:
    """Give back what loading left behind, once, before the first step; glibc alone can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    """Run the arm that the command line names."""
    name, folder = sys.argv[1:]
    turns = Turns()
    ARMS[name](read_setting(Path(folder)), turns)


if __name__ == "__main__":
    main()
