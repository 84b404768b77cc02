"""The quality benchmark, on a model small enough to run all of it."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.backends import load
from limbeck.distill.targets import Taught
from limbeck.distill.train import train
from limbeck.model import LocalModel
from limbeck.progress import Silent

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "quality.py"
LENGTH = 16
SENTENCES = (
    "The river runs past the mill and under the old stone bridge.",
    "A baker weighs flour, water and salt before the town wakes up.",
)


@pytest.fixture(scope="module")
def quality() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_quality", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def teacher(tiny_teacher_folder: Path) -> LocalModel:
    return load(str(tiny_teacher_folder), dtype="float32")


@pytest.fixture(scope="module")
def texts(quality: ModuleType, teacher: LocalModel) -> list[Any]:
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    drawn = np.random.default_rng(1).choice(words, 400)
    return quality.documents(teacher, " ".join(drawn), LENGTH, 1000)


def test_interval_of_seeds_is_students_t(quality: ModuleType) -> None:
    mean, low, high = quality.interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.302653 / 3**0.5, rel=1e-5)
    assert mean - low == pytest.approx(high - mean)


def test_a_renormalised_top_forgets_the_tail_and_random_draws_do_not(quality: ModuleType) -> None:
    generator = torch.Generator().manual_seed(2)
    log_probs_NV = torch.randn(400, 80, generator=generator)[:1].expand(400, -1).log_softmax(-1)
    top = quality.renormalised_top(log_probs_NV, generator)
    assert np.diff(top.offsets_N1).tolist() == [50] * 400
    assert top.weights_E.reshape(400, 50).sum(1) == pytest.approx(np.ones(400), rel=1e-5)
    drawn = quality.random_draws(log_probs_NV, generator)
    mean_V = np.bincount(drawn.ids_E, drawn.weights_E, minlength=80) / 400
    assert np.abs(mean_V - log_probs_NV[0].exp().numpy()).max() < 0.015
    assert not drawn.is_head_E.any()


def test_every_arm_learns_by_the_loop_of_the_product(
    quality: ModuleType, teacher: LocalModel, texts: list[Any], tmp_path: Path
) -> None:
    told = quality.lesson(teacher, texts[:8], ["default"], 0)
    head = teacher.model.get_output_embeddings()
    taught = [Taught(d, t) for d, t in zip(told.documents, told.targets["default"], strict=True)]
    for name in ("ours", "ours_50", "ours_20_teacher", "ours_20_random", "cross_entropy"):
        arm = quality.ARMS[name]
        recipe = quality.TrainRecipe(
            row_length=LENGTH,
            rows=2,
            precision="no",
            learning_rate=1e-2,
            positions=arm.selection.fraction,
            position_choice=arm.selection.choice,
        )
        ours, theirs = (quality.keep_layers(teacher.model, [0, 3]) for _ in range(2))
        for model in (ours, theirs):
            quality.freeze_embeddings(model)
        quality.train(ours, head, arm, told, recipe, 4)
        train(
            theirs,
            taught,
            recipe,
            arm.spec,
            tmp_path / name,
            seed=4,
            resume=False,
            progress=Silent(),
        )
        pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), name


def test_the_dense_arm_descends_the_divergence_that_is_reported(
    quality: ModuleType, teacher: LocalModel, texts: list[Any]
) -> None:
    told = quality.lesson(teacher, texts[:4], [], 0)
    head = teacher.model.get_output_embeddings()
    student = quality.keep_layers(teacher.model, [0, 3])
    quality.freeze_embeddings(student)
    batch = quality.assemble(
        [quality.Row((n,), (0,)) for n in range(4)], told.documents, LENGTH, pad_id=0
    )
    count = len(batch.loss_N)
    quality._dense(student, head, told)(batch, torch.arange(count), count)
    found = [p.grad.clone() for p in student.parameters() if p.requires_grad]
    student.zero_grad()
    logits_NV = student(batch.tokens_BT).logits.flatten(0, 1)[batch.loss_N]
    p_log_NV = teacher.model(batch.tokens_BT).logits.flatten(0, 1)[batch.loss_N].log_softmax(-1)
    q_log_NV = logits_NV.log_softmax(-1)
    kl = (p_log_NV.detach().exp() * (p_log_NV.detach() - q_log_NV)).sum(-1).mean()
    kl.backward()
    expected = [p.grad for p in student.parameters() if p.requires_grad]
    assert found
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
    exam = quality.Exam(told.documents, told.states)
    assert quality.examine(student, head, exam, "no")[0] == pytest.approx(kl.item(), rel=1e-4)
    assert quality.examine(teacher.model, head, exam, "no") == pytest.approx((0.0, 1.0), abs=1e-5)


@pytest.mark.slow
def test_the_figures_keep_their_contract(
    quality: ModuleType, teacher: LocalModel, texts: list[Any]
) -> None:
    size = quality.Size(
        2, LENGTH, pool=20, train=6, tune=3, validation=2, test=3, rows=2, rates=(1e-3, 1e-2)
    )
    said: list[str] = []
    found = quality.measure(teacher, texts[:20], texts[20:], size, [5, 6], "no", said.append)
    found = json.loads(json.dumps({"quick": True, "seed": 5} | found, allow_nan=False))
    assert found["seeds"] == [5, 6]
    assert found["tokens"] == 6 * (LENGTH - 1)
    assert found["default"] in found["arms"]
    assert {"ours", "ours_50", "ours_20", "dense", "topk50", "rs12", "cross_entropy"} <= set(
        found["arms"]
    )
    for figures in found["arms"].values():
        for key in ("kl", "agreement"):
            mean, low, high = figures[key]
            assert low <= mean <= high
            assert mean == pytest.approx(np.mean(figures[f"{key}_by_seed"]))
        assert figures["tokens"] == pytest.approx(found["tokens"] * figures["positions"], rel=0.05)
    assert set(found["differences_to_dense"]) == set(found["arms"]) - {"dense"}
    for figures in found["differences_to_dense"].values():
        _, low, high = figures["kl"]
        assert (figures["verdict"] == "worse") == (low > 0)
        assert (figures["verdict"] == "better") == (high < 0)
    assert set(found["learning_rates"].values()) <= set(size.rates)
    assert found["learning_rates"].keys() == found["tuning"].keys()
    budgets = [
        found["arms"][name]["bytes_per_token"] for name in ("ours_small", "ours", "ours_large")
    ]
    assert budgets == sorted(budgets)
    assert len(said) == len(found["tuning"]) + 2 * len(found["arms"])
    assert quality.table(found).row_count == len(found["arms"])
