"""Training on the student's own text: what is minimised, how old it may be, and that it goes on to the bit."""

import copy
import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from limbeck.backends import load
from limbeck.distill import checkpoint
from limbeck.distill.forward import split
from limbeck.distill.fused_dense import TeacherStates
from limbeck.distill.losses import objective, softened
from limbeck.distill.objective import LossSpec
from limbeck.distill.on_policy import MixedObjective, MixedSpec, hidden_at_loss, train_on_policy
from limbeck.distill.own_text import read_writing
from limbeck.distill.packing import assemble, pack
from limbeck.distill.recipe import OnPolicyRecipe, TrainRecipe
from limbeck.distill.spread import Team
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter
from limbeck.distill.targets import Document, Taught, concatenate
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.train import LOG, Trained, read_log
from limbeck.errors import RecipeError, RunError, TrainingError
from limbeck.model import LocalModel
from limbeck.progress import Silent

RECIPE = TrainRecipe(
    epochs=3, learning_rate=3e-3, row_length=48, rows=4, precision="no", checkpoint_every=2
)
OWN = OnPolicyRecipe(documents=6, max_staleness=1, batch=8, max_new_tokens=10)
SPEC = MixedSpec(own=LossSpec("reverse_kl"), read=LossSpec())


def student_of(folder: Path) -> LocalModel:
    """The tiny teacher with noise on its weights, and many end tokens, so that answers differ in length."""
    student = load(str(folder), dtype="float32")
    student.model.generation_config.eos_token_id = list(range(0, 400, 19))
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in student.model.parameters():
            parameter += 0.06 * torch.randn(parameter.shape, generator=generator)
    return student


def _run(
    folder: Path,
    teacher: LocalModel,
    taught: list[Taught],
    out: Path,
    *,
    recipe: TrainRecipe = RECIPE,
    own: OnPolicyRecipe = OWN,
    spec: MixedSpec = SPEC,
    resume: bool = False,
    progress: Any = None,
    dropout: float = 0.0,
) -> tuple[dict[str, torch.Tensor], Trained]:
    student = student_of(folder)
    for layer in student.model.model.layers:
        layer.self_attn.attention_dropout = dropout
    done = train_on_policy(
        student,
        teacher,
        taught,
        recipe,
        own,
        spec,
        out,
        seed=3,
        resume=resume,
        progress=progress or Silent(),
    )
    return {n: p.detach().clone() for n, p in student.model.named_parameters()}, done


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("kind", ["reverse_kl", "jsd"])
def test_a_student_comes_nearer_to_its_teacher_on_text_of_its_own(
    tiny_teacher_folder: Path,
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    kind: Any,
) -> None:
    spec = MixedSpec(own=LossSpec(kind), read=LossSpec())
    recipe = RECIPE.model_copy(update={"epochs": 8.0})
    _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path, recipe=recipe, spec=spec)
    log = read_log(tmp_path / LOG)
    first, last = ([e.loss for e in part] for part in (log[:3], log[-3:]))
    assert sum(last) < 0.5 * sum(first)
    assert [e.step for e in log] == list(range(1, len(log) + 1))


def _by_definition(
    student: Any, teacher: Any, own: list[Document], read: list[Document], positions: int
) -> torch.Tensor:
    """Read each document alone and sum over it: reverse KL where it is the student's, forward KL elsewhere."""
    total = torch.zeros((), dtype=torch.float64)
    for documents, kind in ((own, "reverse_kl"), (read, "forward_kl")):
        for document in documents:
            tokens_BT = torch.from_numpy(document.tokens_T).long()[None]
            loss_T = torch.from_numpy(document.loss_T)
            p_log_NV = softened(teacher(tokens_BT).logits[0, loss_T].detach(), 1.0)
            z_NV = student(tokens_BT).logits[0, loss_T]
            total = total + objective(LossSpec(cast("Any", kind)), p_log_NV, z_NV, None).sum()
    return total / positions


def test_a_mixed_step_is_one_mean_over_all_its_positions_and_has_its_gradient(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_documents: list[Document]
) -> None:
    """In float64, packed and in micro-batches, against documents read one by one and dense autograd.

    The store's side keeps every token of the teacher's distribution, so that its forward KL is the dense one.
    """
    student = student_of(tiny_teacher_folder).model.double()
    teacher = copy.deepcopy(tiny_teacher.model).double()
    own, read = tiny_documents[:7], tiny_documents[7:12]
    positions = sum(d.positions for d in (*own, *read))
    whole = MixedObjective(student, SPEC)
    total = torch.zeros((), dtype=torch.float64)
    for documents, is_own in ((own, True), (read, False)):
        rows = pack([len(d.tokens_T) for d in documents], 48, seed=0)
        for row in rows:
            batch = assemble([row], documents, 48, pad_id=0)
            with torch.no_grad():
                hidden_ND = hidden_at_loss(split(teacher), batch)
            states = TeacherStates(hidden_ND, teacher.get_output_embeddings().weight)
            said = states if is_own else _every_token(states)
            total = total + whole(batch, said, positions)
    exact = _by_definition(student, teacher, own, read, positions)
    # The store's weights are float32; the student's side is float64 throughout.
    torch.testing.assert_close(total, exact, rtol=1e-6, atol=1e-7)
    trained = list(student.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(total, trained),
        torch.autograd.grad(exact, trained),
        rtol=1e-5,
        atol=1e-7,
    )


def _every_token(states: TeacherStates) -> TorchTargets:
    """Return targets whose head is the whole vocabulary."""
    p_NV = (states.hidden_ND @ states.weight_VD.t()).softmax(-1)
    n, v = p_NV.shape
    return TorchTargets(
        offsets_N1=torch.arange(n + 1) * v,
        row_E=torch.arange(n).repeat_interleave(v),
        ids_E=torch.arange(v).repeat(n),
        weights_E=p_NV.flatten(),
        is_head_E=torch.ones(n * v, dtype=torch.bool),
        tail_N=torch.zeros(n),
        entropy_N=torch.special.entr(p_NV).sum(-1),
    )


def test_the_loss_counts_every_written_token_once_and_nothing_else(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    _, done = _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path)
    written = read_writing(tmp_path)
    assert done.positions == sum(w.tokens for w in written) > 0
    assert sum(w.answers for w in written) == 3 * len(tiny_taught)
    assert all(0 <= w.cut <= w.answers <= w.tokens for w in written)


def test_micro_batches_make_the_step_of_the_whole_batch(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    own = OWN.model_copy(update={"fraction": 0.5, "max_staleness": 0})
    logs: list[list[Any]] = []
    for rows in (1, 50):
        recipe = RECIPE.model_copy(update={"rows": rows, "epochs": 0.5})
        out = tmp_path / str(rows)
        _run(tiny_teacher_folder, tiny_teacher, tiny_taught, out, recipe=recipe, own=own)
        logs.append(read_log(out / LOG))
    assert len(logs[0]) == 2
    assert [e.positions for e in logs[0]] == [e.positions for e in logs[1]]
    for one, two in zip(*logs, strict=True):
        assert two.loss == pytest.approx(one.loss, rel=1e-4)
        assert two.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-3)


@pytest.mark.parametrize("staleness", [0, 2])
def test_no_text_is_older_than_it_may_be(
    tiny_teacher_folder: Path,
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    staleness: int,
) -> None:
    own = OWN.model_copy(update={"max_staleness": staleness})
    _, done = _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path, own=own)
    written = read_writing(tmp_path)
    assert [w.step for w in written] == list(range(1, done.steps + 1, staleness + 1))
    fresh = [w.answers - w.stale for w in written]
    per_step = -(-len(tiny_taught) // OWN.documents)
    expected = [len(tiny_taught) - OWN.documents * (per_step - 1), OWN.documents]
    assert set(fresh) <= set(expected)
    assert (sum(w.stale for w in written) == 0) == (staleness == 0)


def test_answers_to_all_steps_of_a_chunk_are_written_by_the_student_at_its_beginning(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    """The first chunk is the untrained student's, whatever the learning rate makes of it later."""
    own = OWN.model_copy(update={"max_staleness": 3})
    counts: list[list[int]] = []
    for rate in (1e-12, 3e-3):
        recipe = RECIPE.model_copy(update={"learning_rate": rate, "epochs": 2.0})
        out = tmp_path / str(rate)
        _, done = _run(tiny_teacher_folder, tiny_teacher, tiny_taught, out, recipe=recipe, own=own)
        counts.append([e.positions for e in done.log])
    still, moved = counts
    assert len(still) == 8
    assert still[:4] == moved[:4]
    assert still[4:] != moved[4:]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_same_seed_gives_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path,
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    precision: str,
) -> None:
    recipe = RECIPE.model_copy(update={"precision": precision, "epochs": 1.0})
    one, two = (
        _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path / name, recipe=recipe)[0]
        for name in ("one", "two")
    )
    assert _same(one, two)


class Killed(Silent):
    """Stops a training after some steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, by: int = 1, note: str = "") -> None:
        self.left -= by
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("fraction", "staleness", "after"), [(1.0, 0, 5), (1.0, 3, 6), (0.5, 2, 5)]
)
def test_a_killed_training_goes_on_to_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path,
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    fraction: float,
    staleness: int,
    after: int,
) -> None:
    own = OWN.model_copy(update={"fraction": fraction, "max_staleness": staleness})
    run = partial(_run, tiny_teacher_folder, tiny_teacher, tiny_taught, own=own)
    whole, done = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", progress=Killed(after))
    found = checkpoint.latest(tmp_path / "killed")
    assert found is not None
    assert found.step % (staleness + 1) == 0
    assert found.step < after or not staleness
    with pytest.raises(RunError, match="unfinished training"):
        run(tmp_path / "killed")
    resumed, again = run(tmp_path / "killed", resume=True)
    assert _same(whole, resumed)
    assert [(e.step, e.loss) for e in again.log] == [(e.step, e.loss) for e in done.log]
    counted = [
        [(w.step, w.answers, w.cut, w.stale, w.tokens) for w in read_writing(tmp_path / name)]
        for name in ("whole", "killed")
    ]
    assert counted[0] == counted[1]


def test_a_student_with_dropout_goes_on_to_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    """Noise is a function of seed and step: what was drawn by others before does not matter."""

    def run(name: str, **how: Any) -> tuple[dict[str, torch.Tensor], Trained]:
        torch.manual_seed(len(name))
        folder, out = tiny_teacher_folder, tmp_path / name
        return _run(folder, tiny_teacher, tiny_taught, out, dropout=0.2, **how)

    whole, done = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("killed", progress=Killed(5))
    resumed, _ = run("killed", resume=True)
    assert _same(whole, resumed)
    _, still = _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path / "still")
    assert still.log[0].loss != done.log[0].loss


def test_a_fraction_of_zero_trains_from_the_store_alone(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    own = OWN.model_copy(update={"fraction": 0.0})
    spec = MixedSpec(own=LossSpec("reverse_kl"), read=LossSpec("cross_entropy"))
    _, done = _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path, own=own, spec=spec)
    assert read_writing(tmp_path) == []
    assert done.positions == 3 * sum(t.document.positions for t in tiny_taught)
    assert done.log[-1].loss < done.log[0].loss


def test_a_process_without_rows_takes_part_and_adds_nothing(
    tiny_teacher_folder: Path, tiny_documents: list[Document]
) -> None:
    student = student_of(tiny_teacher_folder).model
    document = tiny_documents[0]
    silent = Document(document.tokens_T, np.zeros_like(document.loss_T), False, document.key)
    batch = assemble(pack([len(silent.tokens_T)], 48, seed=0), [silent], 48, pad_id=0)
    loss = MixedObjective(student, SPEC)(batch, None, 5)
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None and not p.grad.any() for p in student.parameters())


def test_prompts_that_leave_no_room_for_an_answer_are_refused(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    for update, where in (({"row_length": 40}, "train.row_length, 40"), ({}, "context of")):
        recipe = RECIPE.model_copy(update={"row_length": 4096} | update)
        own = OWN.model_copy(update={"max_new_tokens": 39 if update else 512})
        with pytest.raises(RecipeError, match=rf"longest prompt, 3 tokens, is beyond .*{where}"):
            _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path, recipe=recipe, own=own)


def test_a_loss_that_is_not_finite_names_the_step(
    tiny_teacher_folder: Path, tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    broken = copy.deepcopy(tiny_teacher.model)
    with torch.no_grad():
        broken.get_input_embeddings().weight[5:90] = float("nan")
    teacher = LocalModel("broken", broken, tiny_teacher.tokenizer, "0", "0", None, None)
    with pytest.raises(TrainingError, match=r"at step 1 \(documents .* is not finite"):
        _run(tiny_teacher_folder, teacher, tiny_taught, tmp_path)


def test_a_sharded_student_is_refused(
    tiny_teacher_folder: Path,
    tiny_teacher: LocalModel,
    tiny_taught: list[Taught],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shards = Team(torch.device("cpu"), rank=0, size=2, shards=True)
    monkeypatch.setattr(Team, "here", Mock(return_value=shards))
    with pytest.raises(RecipeError, match="whole student in every process"):
        _run(tiny_teacher_folder, tiny_teacher, tiny_taught, tmp_path)


# Real processes

_CHILD = """
import json, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_on_policy import SPEC, student_of
from safetensors.torch import save_file
from limbeck.backends import load
from limbeck.distill.on_policy import train_on_policy
from limbeck.distill.recipe import OnPolicyRecipe, TrainRecipe
from limbeck.distill.store import StoreReader
from limbeck.progress import Silent

class Told(Silent):
    def advance(self, by=1, note=""):
        print("step", flush=True)

_, _, teacher, store, recipe, own, out, weights = sys.argv
student = student_of(Path(teacher))
train_on_policy(
    student, load(teacher, dtype="float32"), list(StoreReader(Path(store)).documents()),
    TrainRecipe.model_validate_json(recipe), OnPolicyRecipe.model_validate_json(own), SPEC,
    Path(out), seed=3, resume=True, progress=Told(),
)
save_file({n: p.detach().contiguous() for n, p in student.model.named_parameters()}, weights)
"""


@pytest.fixture
def store(tiny_teacher: LocalModel, tiny_taught: list[Taught], tmp_path: Path) -> Path:
    """What the tiny teacher said, on disk."""
    with StoreWriter(
        tmp_path / "store",
        StoreSpec(),
        vocabulary=tiny_teacher.model.config.vocab_size,
        tokenizer_sha256="0" * 64,
        teacher={},
    ) as writer:
        for taught in tiny_taught:
            writer.append(taught)
        writer.finish()
    return tmp_path / "store"


def _start(
    folder: Path, store: Path, own: OnPolicyRecipe, out: Path, **environment: str
) -> subprocess.Popen[str]:
    recipe = RECIPE.model_copy(update={"epochs": 4.0})
    arguments = [
        *(Path(__file__).parent, folder, store, recipe.model_dump_json(), own.model_dump_json()),
        *(out, out.with_suffix(f".{environment.get('RANK', '0')}.safetensors")),
    ]
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path, store: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    own = OWN.model_copy(update={"fraction": 0.75, "max_staleness": 1})
    whole = _start(tiny_teacher_folder, store, own, tmp_path / "whole")
    steps = len(whole.communicate(timeout=900)[0].splitlines()) - 1
    assert whole.returncode == 0
    rng = np.random.default_rng(12)
    for kill_after in (3, steps - 4):
        child = _start(tiny_teacher_folder, store, own, tmp_path / "killed")
        assert child.stdout is not None
        for _ in range(kill_after):
            child.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.05)))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=300)
    last = _start(tiny_teacher_folder, store, own, tmp_path / "killed")
    last.communicate(timeout=900)
    assert last.returncode == 0
    one, two = (load_file(tmp_path / f"{name}.0.safetensors") for name in ("whole", "killed"))
    assert _same(one, two)
    log = [json.loads(x)["step"] for x in (tmp_path / "killed" / LOG).read_text().splitlines()]
    assert log == list(range(1, steps + 1))


@pytest.mark.slow
@pytest.mark.parametrize("documents", [6, 1])
def test_two_processes_take_the_steps_of_one(
    tiny_teacher_folder: Path, store: Path, tmp_path: Path, documents: int
) -> None:
    """Text, positions and, within rounding, losses; with one document a step, one process has nothing to do."""
    own = OWN.model_copy(update={"fraction": 0.6, "documents": documents, "batch": 3})
    alone = _start(tiny_teacher_folder, store, own, tmp_path / "one")
    alone.communicate(timeout=900)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    pair = [
        _start(
            *(tiny_teacher_folder, store, own, tmp_path / "two"),
            **shared,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            ACCELERATE_USE_CPU="true",
        )
        for rank in range(2)
    ]
    for child in pair:
        child.communicate(timeout=900)
    assert [alone.returncode, *(child.returncode for child in pair)] == [0, 0, 0]
    one, two = (read_log(tmp_path / name / LOG) for name in ("one", "two"))
    assert [e.positions for e in one] == [e.positions for e in two]
    np.testing.assert_allclose([e.loss for e in one], [e.loss for e in two], rtol=2e-3)
    written = [
        [(w.answers, w.cut, w.tokens) for w in read_writing(tmp_path / n)] for n in ("one", "two")
    ]
    assert written[0] == written[1]


def test_the_store_of_these_tests_is_the_teachers(store: Path, tiny_taught: list[Taught]) -> None:
    there = list(StoreReader(store).documents())
    assert len(there) == len(tiny_taught)
    assert len(concatenate([t.targets for t in there])) == sum(
        t.document.positions for t in tiny_taught
    )
