"""Training in two processes on this machine, which talk over the loopback interface."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from limbeck.backends import load
from limbeck.distill import checkpoint
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.spread import SHARDS_VARIABLE, Team, like, wants_shards, whole
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter
from limbeck.distill.student import freeze_embeddings
from limbeck.distill.targets import Taught
from limbeck.distill.train import LOG, read_log, train
from limbeck.launch import join
from limbeck.progress import Silent

SPEC = LossSpec(cross_entropy=0.25)
UNEVEN = TrainRecipe(
    epochs=2, learning_rate=1e-3, row_length=64, rows=3, precision="no", checkpoint_every=2
)
"""Steps of three rows, and fewer at an epoch's end: two processes never have equally many."""
CHOOSING = UNEVEN.model_copy(update={"epochs": 3, "accumulate": 2, "positions": 0.4})
"""The student chooses positions within each micro-batch; at an epoch's end there is one for two processes."""
_DEADLINE_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Job:
    """One training, as a process of a launch is told of it."""

    out: str
    recipe: TrainRecipe
    shards: bool = False
    frozen: bool = False
    stop_after: int | None = None
    """Steps after which it is interrupted."""


class _Interrupted(Silent):
    def __init__(self, after: int | None) -> None:
        self._left = after

    def advance(self, by: int = 1, note: str = "") -> None:
        if self._left is not None and note:
            self._left -= by
            if self._left == 0:
                raise KeyboardInterrupt


def perform(job: Job, teacher: Path, taught: Sequence[Taught], folder: Path) -> dict[str, Tensor]:
    """Train as a job says, going on from what lies in its folder, and return the weights."""
    model: Any = load(str(teacher), dtype="float32").model
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    if job.frozen:
        freeze_embeddings(model)
    os.environ[SHARDS_VARIABLE] = str(job.shards).lower()
    progress = _Interrupted(job.stop_after)
    try:
        train(model, taught, job.recipe, SPEC, folder, seed=3, resume=True, progress=progress)
    except KeyboardInterrupt:
        assert job.stop_after is not None
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def follow_orders(teacher: str, store: str, out: str, orders: str) -> None:
    """Do jobs in one of the launched processes; the first keeps the weights."""
    torch.set_num_threads(1)
    taught = list(StoreReader(Path(store)).documents())
    with join() as launch:
        for order in json.loads(orders):
            job = Job(**order | {"recipe": TrainRecipe.model_validate_json(order["recipe"])})
            weights = perform(job, Path(teacher), taught, Path(out) / job.out)
            if launch.leads:
                save_file(weights, Path(out) / f"{job.out}.safetensors")


def _launch(teacher: Path, store: Path, out: Path, jobs: Sequence[Job]) -> None:
    """Run jobs in two processes, as `torchrun` would start them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    orders = json.dumps([asdict(j) | {"recipe": j.recipe.model_dump_json()} for j in jobs])
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_spread; test_spread.follow_orders(*sys.argv[2:])"
    words = [str(Path(__file__).parent), str(teacher), str(store), str(out), orders]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ
            | shared
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=_DEADLINE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(said)


@pytest.fixture
def store(tiny_taught: list[Taught], tiny_teacher_folder: Path, tmp_path: Path) -> Path:
    """The tiny teacher's targets on disk."""
    vocabulary = load(str(tiny_teacher_folder), dtype="float32").model.config.vocab_size
    with StoreWriter(
        tmp_path / "store",
        StoreSpec(),
        vocabulary=vocabulary,
        tokenizer_sha256="0" * 64,
        teacher={},
    ) as writer:
        for taught in tiny_taught:
            writer.append(taught)
    return tmp_path / "store"


def test_two_processes_follow_the_curve_of_one_and_go_on_from_each_others_checkpoints(
    tiny_teacher_folder: Path, store: Path, tmp_path: Path
) -> None:
    taught = list(StoreReader(store).documents())

    def alone(job: Job, out: str) -> dict[str, Tensor]:
        return perform(job, tiny_teacher_folder, taught, tmp_path / out)

    begun_by_one = Job("from-one", UNEVEN, shards=True)
    alone(Job("", UNEVEN, stop_after=3), begun_by_one.out)
    assert checkpoint.latest(tmp_path / begun_by_one.out) is not None
    jobs = [
        Job("copies", UNEVEN),
        Job("shards", UNEVEN, shards=True),
        Job("frozen", UNEVEN, shards=True, frozen=True),
        Job("choosing-copies", CHOOSING),
        Job("choosing-shards", CHOOSING, shards=True),
        begun_by_one,
        Job("from-two", UNEVEN, shards=True, stop_after=3),
    ]
    _launch(tiny_teacher_folder, store, tmp_path, jobs)

    whole_run = alone(Job("", UNEVEN), "one")
    for name in ("copies", "shards", "from-one"):
        _assert_same_curve(tmp_path / "one", tmp_path / name)
        _assert_same_weights(whole_run, load_file(tmp_path / f"{name}.safetensors"))
    _assert_same_weights(whole_run, alone(Job("", UNEVEN), "from-two"))
    _assert_same_curve(tmp_path / "one", tmp_path / "from-two")

    frozen = alone(Job("", UNEVEN, frozen=True), "one-frozen")
    _assert_same_curve(tmp_path / "one-frozen", tmp_path / "frozen")
    name = "model.embed_tokens.weight"
    untouched = load_file(tmp_path / "frozen.safetensors")[name]
    assert torch.equal(frozen[name], untouched)
    assert not torch.equal(whole_run[name], untouched)

    alone(Job("", CHOOSING), "one-choosing")
    for name in ("choosing-copies", "choosing-shards"):
        _assert_same_curve(tmp_path / "one-choosing", tmp_path / name)


def _assert_same_curve(one: Path, two: Path) -> None:
    left, right = read_log(one / LOG), read_log(two / LOG)
    assert len(left) >= 5
    assert [e.step for e in left] == [e.step for e in right]
    assert [e.positions for e in left] == [e.positions for e in right]
    for a, b in zip(left, right, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-5)
        assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-4)


def _assert_same_weights(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, weight in one.items():
        # Adam turns the sign of a gradient that is nothing but rounding into a step.
        assert float((weight - two[name]).norm() / weight.norm()) < 1e-4, name


def test_shards_are_asked_for_as_accelerate_does() -> None:
    assert wants_shards({SHARDS_VARIABLE: "true"})
    assert not wants_shards({SHARDS_VARIABLE: "false"})
    assert not wants_shards({})


def test_alone_nothing_is_spread() -> None:
    team = Team.here(torch.device("cpu"))
    assert (team.rank, team.size, team.leads, team.shards) == (0, 1, True, False)
    module = torch.nn.Linear(2, 2)
    assert team.wrap(module, []) is module
    assert team.mean(torch.tensor(0.5)) == 0.5
    assert whole(module.weight) is module.weight
    assert torch.equal(like(torch.ones(2, 2), module.weight), torch.ones(2, 2))
