import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends import load
from limbeck.distill import checkpoint
from limbeck.distill.objective import LossSpec
from limbeck.distill.packing import Row, assemble, pack
from limbeck.distill.positions import Selection, most_uncertain, narrow
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.targets import Taught, concatenate
from limbeck.distill.torch_targets import TorchTargets
from limbeck.distill.train import LOG, Objective, check_share, deal, learning_rate, read_log, train
from limbeck.errors import RecipeError, RunError, TrainingError
from limbeck.progress import Silent

RECIPE = TrainRecipe(
    epochs=6, learning_rate=1e-2, row_length=64, rows=2, precision="no", checkpoint_every=3
)
SPEC = LossSpec(cross_entropy=0.25)


def _student(folder: Path) -> Any:
    model = load(str(folder), dtype="float32").model
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return model


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _train(
    folder: Path, taught: list[Taught], out: Path, **options: Any
) -> dict[str, torch.Tensor]:
    model = _student(folder)
    recipe, resume = options.pop("recipe", RECIPE), options.pop("resume", False)
    train(model, taught, recipe, SPEC, out, seed=3, resume=resume, progress=Silent(), **options)
    return _weights(model)


@given(steps=st.integers(1, 400), warmup=st.floats(0, 1), final=st.floats(0, 1))
def test_the_learning_rate_never_leaves_its_range(steps: int, warmup: float, final: float) -> None:
    recipe = TrainRecipe(learning_rate=0.01, warmup=warmup, final_rate=final)
    rates = [learning_rate(recipe, step, steps) for step in range(1, steps + 1)]
    assert all(0 <= rate <= 0.01 + 1e-15 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_training_brings_the_student_nearer_to_its_teacher(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    _train(tiny_teacher_folder, tiny_taught, tmp_path)
    log = read_log(tmp_path / LOG)
    assert log[-1].loss < 0.5 * log[0].loss
    assert [e.step for e in log] == list(range(1, len(log) + 1))


def test_a_batch_has_one_loss_however_it_is_packed_padded_or_split(
    tiny_teacher_folder: Path, tiny_taught: list[Taught]
) -> None:
    objective = Objective(_student(tiny_teacher_folder), SPEC)
    documents = [t.document for t in tiny_taught]
    lengths = [len(d.tokens_T) for d in documents]
    positions = sum(d.positions for d in documents)

    def loss(row_length: int, rows: int, side: Any) -> float:
        packed = pack(lengths, row_length, seed=row_length)
        total = 0.0
        for start in range(0, len(packed), rows):
            part = packed[start : start + rows]
            batch = assemble(part, documents, row_length, pad_id=0, pad_side=side)
            said = concatenate([tiny_taught[i].targets for i in batch.documents])
            with torch.no_grad():
                total += float(objective(batch, TorchTargets.from_numpy(said), positions))
        return total

    alone = loss(max(lengths), 1, "right")
    for row_length, rows, side in ((64, 2, "right"), (64, 5, "left"), (200, 1, "left")):
        assert loss(row_length, rows, side) == pytest.approx(alone, rel=1e-5)


def test_micro_batches_make_the_step_of_the_whole_batch(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    # One step of plain size: Adam's first step is the sign of the gradient, so a wrong weight shows.
    whole = RECIPE.model_copy(update={"rows": 4, "accumulate": 1, "epochs": 1.0})
    split = RECIPE.model_copy(update={"rows": 1, "accumulate": 4, "epochs": 1.0})
    _train(tiny_teacher_folder, tiny_taught, tmp_path / "whole", recipe=whole)
    _train(tiny_teacher_folder, tiny_taught, tmp_path / "split", recipe=split)
    one, two = read_log(tmp_path / "whole" / LOG), read_log(tmp_path / "split" / LOG)
    assert [e.positions for e in one] == [e.positions for e in two]
    for a, b in zip(one, two, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-3)
        assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-3)


def test_the_same_seed_gives_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    one = _train(tiny_teacher_folder, tiny_taught, tmp_path / "one")
    two = _train(tiny_teacher_folder, tiny_taught, tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)


@given(
    kept=st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=24),
    size=st.integers(1, 8),
    processes=st.integers(1, 9),
    whole=st.booleans(),
)
def test_processes_share_a_step_without_a_row_twice_or_a_meeting_missed(
    kept: list[list[bool]], size: int, processes: int, whole: bool
) -> None:
    rows = [Row((n,), (0,)) for n in range(len(kept))]
    masks = [np.array(mask) for mask in kept]
    shares = deal(rows, masks, size, processes, whole=whole)
    assert len(shares) == processes
    assert len({len(parts) for parts in shares}) == 1
    parts = sorted((p for parts in shares for p in parts), key=lambda p: p.number)
    assert [p.number for p in parts] == list(range(len(parts)))
    busy = [p for p in parts if len(p.kept_M)]
    assert sum(p.positions(1.0) for p in parts) == sum(map(sum, kept))
    assert all(len(p.rows) <= size for p in parts)
    told = [
        (p.rows[r].documents[0], k)
        for p in busy
        for r, k in _places(p.kept_M.tolist(), [kept[row.documents[0]] for row in p.rows])
    ]
    assert told == [(n, k) for n, mask in enumerate(kept) for k, flag in enumerate(mask) if flag]
    if whole:
        alone = deal(rows, masks, size, 1, whole=True)[0]
        assert [p.rows for p in alone] == [p.rows for p in parts[: len(alone)]]
        assert all(p.positions(1.0) == 0 for p in parts[len(alone) :])


def _places(kept_M: list[int], masks: list[list[bool]]) -> list[tuple[int, int]]:
    """Return (row, position within the row) of positions that are numbered over several rows."""
    every = [(r, k) for r, mask in enumerate(masks) for k in range(len(mask))]
    return [every[n] for n in kept_M]


def test_more_processes_than_a_step_can_feed_are_refused() -> None:
    check_share(RECIPE, 2)
    with pytest.raises(RecipeError, match="3 processes cannot share a step of 2 rows"):
        check_share(RECIPE, 3)
    chooses = RECIPE.model_copy(update={"positions": 0.5, "accumulate": 2})
    check_share(chooses, 2)
    with pytest.raises(RecipeError, match=r"3 processes .* train.accumulate = 2 micro-batches"):
        check_share(chooses, 3)


def test_training_makes_every_tensor_where_the_student_is(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    """On a default device that holds no values, a tensor that is made without naming its own spoils the run."""
    once = RECIPE.model_copy(update={"epochs": 1.0, "positions": 0.5})
    one = _train(tiny_teacher_folder, tiny_taught, tmp_path / "one", recipe=once)
    model = _student(tiny_teacher_folder)
    with torch.device("meta"):
        train(
            model,
            tiny_taught,
            once,
            SPEC,
            tmp_path / "two",
            seed=3,
            resume=False,
            progress=Silent(),
        )
    assert all(torch.equal(one[name], two) for name, two in _weights(model).items())


@pytest.mark.parametrize("choice", ["teacher_entropy", "random"])
def test_a_choice_of_positions_does_not_depend_on_micro_batches(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path, choice: str
) -> None:
    few = {"positions": 0.1, "position_choice": choice, "epochs": 1.0}
    whole = RECIPE.model_copy(update=few | {"rows": 4, "accumulate": 1})
    split = RECIPE.model_copy(update=few | {"rows": 1, "accumulate": 4})
    _train(tiny_teacher_folder, tiny_taught, tmp_path / "whole", recipe=whole)
    _train(tiny_teacher_folder, tiny_taught, tmp_path / "split", recipe=split)
    one, two = read_log(tmp_path / "whole" / LOG), read_log(tmp_path / "split" / LOG)
    assert [e.positions for e in one] == [e.positions for e in two]
    for a, b in zip(one, two, strict=True):
        assert b.loss == pytest.approx(a.loss, rel=1e-3)
        assert b.gradient_norm == pytest.approx(a.gradient_norm, rel=1e-3)


@pytest.mark.parametrize("choice", ["teacher_entropy", "student_entropy", "random"])
def test_a_fraction_of_the_positions_is_trained_on_and_teaches(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path, choice: str
) -> None:
    recipe = RECIPE.model_copy(update={"positions": 0.5, "position_choice": choice})
    _train(tiny_teacher_folder, tiny_taught, tmp_path, recipe=recipe)
    log = read_log(tmp_path / LOG)
    everything = recipe.epochs * sum(t.document.positions for t in tiny_taught)
    assert sum(e.positions for e in log) == pytest.approx(everything / 2, rel=0.05)
    # Which positions are the hardest changes from step to step, so the loss falls less than on all.
    assert log[-1].loss < 0.8 * log[0].loss


@pytest.mark.parametrize("choice", ["teacher_entropy", "student_entropy", "random"])
def test_choosing_every_position_changes_nothing(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path, choice: str
) -> None:
    once = RECIPE.model_copy(update={"epochs": 1.0})
    every = once.model_copy(update={"positions": 1.0, "position_choice": choice})
    one = _train(tiny_teacher_folder, tiny_taught, tmp_path / "one", recipe=once)
    two = _train(tiny_teacher_folder, tiny_taught, tmp_path / "two", recipe=every)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("choice", ["teacher_entropy", "student_entropy", "random"])
def test_training_on_chosen_positions_goes_on_from_a_checkpoint_to_the_same_weights(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path, choice: str
) -> None:
    class Killed(Silent):
        steps = 0

        def advance(self, by: int = 1, note: str = "") -> None:
            self.steps += by
            if self.steps == 5:
                raise KeyboardInterrupt

    recipe = RECIPE.model_copy(
        update={"positions": 0.3, "position_choice": choice, "epochs": 2.0, "checkpoint_every": 2}
    )
    whole = _train(tiny_teacher_folder, tiny_taught, tmp_path / "whole", recipe=recipe)
    model, out = _student(tiny_teacher_folder), tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        train(model, tiny_taught, recipe, SPEC, out, seed=3, resume=False, progress=Killed())
    assert checkpoint.latest(out) is not None
    resumed = _train(tiny_teacher_folder, tiny_taught, out, recipe=recipe, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_student_chooses_where_its_own_entropy_is_largest(
    tiny_teacher_folder: Path, tiny_taught: list[Taught]
) -> None:
    model = _student(tiny_teacher_folder)
    documents = [t.document for t in tiny_taught]
    rows = pack([len(d.tokens_T) for d in documents], 64, seed=0)[:2]
    batch = assemble(rows, documents, 64, pad_id=0)
    targets = TorchTargets.from_numpy(
        concatenate([tiny_taught[i].targets for i in batch.documents])
    )
    with torch.no_grad():
        logits_NV = torch.cat(
            [
                model(torch.from_numpy(documents[i].tokens_T).long()[None]).logits[0][
                    torch.from_numpy(documents[i].loss_T)
                ]
                for i in batch.documents
            ]
        )
        entropy_N = torch.special.entr(logits_NV.softmax(-1)).sum(-1)
        kept_M = most_uncertain(entropy_N.numpy(), 0.25)
        chooses = Objective(model, SPEC, Selection(0.25, "student_entropy"))
        told = Objective(model, SPEC)
        by_student = chooses(batch, targets, len(kept_M))
        by_us = told(*narrow(batch, targets, torch.from_numpy(kept_M)), len(kept_M))
    assert float(by_student) == pytest.approx(float(by_us), rel=1e-5)


def test_unfinished_training_is_not_started_over_in_silence(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    model = _student(tiny_teacher_folder)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.save(tmp_path, 3, model, optimizer)
    with pytest.raises(RunError, match=r"unfinished training \(step 3\); go on with --resume"):
        _train(tiny_teacher_folder, tiny_taught, tmp_path)


def test_a_loss_that_is_not_finite_names_step_and_batch_and_keeps_the_last_checkpoint(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    model = _student(tiny_teacher_folder)
    recipe = RECIPE.model_copy(update={"epochs": 1.0, "checkpoint_every": 1})
    train(model, tiny_taught, recipe, SPEC, tmp_path, seed=3, resume=False, progress=Silent())
    kept = checkpoint.latest(tmp_path)
    assert kept is not None
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 0] = float("nan")
    checkpoint.save(tmp_path, kept.step + 1, model, torch.optim.AdamW(model.parameters()))
    more = recipe.model_copy(update={"epochs": 2.0})
    message = (
        rf"at step {kept.step + 2} \(documents [0-9a-f]{{12}}.* is not finite; checkpoint of step"
    )
    with pytest.raises(TrainingError, match=message):
        train(model, tiny_taught, more, SPEC, tmp_path, seed=3, resume=True, progress=Silent())
    assert kept.folder.is_dir()


def test_a_damaged_checkpoint_is_named(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    model = _student(tiny_teacher_folder)
    optimizer = torch.optim.AdamW(model.parameters())
    made = checkpoint.save(tmp_path, 1, model, optimizer)
    path = made.folder / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(TrainingError, match="checkpoint-00000001 is damaged"):
        checkpoint.restore(made, model, optimizer)


_CHILD = """
import sys, json
from pathlib import Path
import numpy as np
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.store import StoreReader
from limbeck.distill.train import train
from limbeck.progress import Silent
sys.path.insert(0, sys.argv[1])
from test_train import SPEC, _student
from safetensors.torch import save_file

class Slow(Silent):
    def advance(self, by=1, note=""):
        print("step", flush=True)

taught = list(StoreReader(Path(sys.argv[3])).documents())
model = _student(Path(sys.argv[2]))
recipe = TrainRecipe.model_validate_json(sys.argv[4])
train(model, taught, recipe, SPEC, Path(sys.argv[5]), seed=3, resume=True, progress=Slow())
save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, sys.argv[6])
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_ends_in_the_same_weights_to_the_bit(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    from limbeck.distill.store import StoreSpec, StoreWriter

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
        writer.finish()

    def start(name: str) -> subprocess.Popen[str]:
        out, weights = tmp_path / name, tmp_path / f"{name}.safetensors"
        here = str(Path(__file__).parent)
        arguments = [
            here,
            tiny_teacher_folder,
            tmp_path / "store",
            RECIPE.model_dump_json(),
            out,
            weights,
        ]
        return subprocess.Popen(
            [sys.executable, "-c", _CHILD, *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "2"},
        )

    whole = start("whole")
    steps = len((whole.communicate(timeout=900)[0]).splitlines()) - 1
    assert whole.returncode == 0

    rng = np.random.default_rng(11)
    for kill_after in sorted(rng.choice(np.arange(2, steps - 1), 3, replace=False).tolist()):
        child = start("killed")
        assert child.stdout is not None
        for _ in range(kill_after):
            child.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.05)))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=300)
    last = start("killed")
    last.communicate(timeout=900)
    assert last.returncode == 0
    one, two = load_file(tmp_path / "whole.safetensors"), load_file(tmp_path / "killed.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)
    log = [json.loads(x)["step"] for x in (tmp_path / "killed" / LOG).read_text().splitlines()]
    assert log == list(range(1, steps + 1))
