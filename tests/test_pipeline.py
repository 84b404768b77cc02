import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from limbeck.artefact import write_text
from limbeck.errors import RecipeError, RunError
from limbeck.pipeline import Step, run_steps
from limbeck.progress import Progress, Silent
from limbeck.run import Run, open_run


@dataclass
class Kitchen:
    run: Run
    resume: bool = False
    flour: str = "wheat"
    fails: bool = False
    worked: list[str] = field(default_factory=list[str])
    progress: Progress = field(default_factory=Silent)


def _dough(kitchen: Kitchen) -> Mapping[str, Any]:
    kitchen.worked.append("dough")
    write_text(kitchen.run.path("dough"), kitchen.flour)
    return {"grams": 500}


def _bread(kitchen: Kitchen) -> Mapping[str, Any]:
    half = kitchen.run.path("oven/half").exists()
    kitchen.worked.append("bread, resumed" if half else "bread")
    write_text(kitchen.run.path("oven/half"), "crust")
    if kitchen.fails:
        raise RuntimeError("power cut")
    write_text(kitchen.run.path("bread"), kitchen.flour)
    return {"seconds": 7.0}


STEPS: tuple[Step[Kitchen], ...] = (
    Step("dough", (), lambda k: k.flour, ("dough",), (), _dough),
    Step("bread", ("dough",), lambda _: "hot", ("bread",), ("oven",), _bread),
)


def _bake(folder: Path, only: str | None = None, **options: Any) -> list[str]:
    with open_run(folder, {"name": "r"}) as run:
        kitchen = Kitchen(run, **options)
        run_steps(kitchen, STEPS, only)
    return kitchen.worked


def test_a_finished_step_is_skipped(tmp_path: Path) -> None:
    assert _bake(tmp_path / "run") == ["dough", "bread"]
    assert _bake(tmp_path / "run") == []


def test_a_changed_input_makes_what_follows_anew(tmp_path: Path) -> None:
    _bake(tmp_path / "run")
    assert _bake(tmp_path / "run", flour="rye") == ["dough", "bread"]
    assert (tmp_path / "run" / "bread").read_text() == "rye"


def test_a_damaged_output_is_made_again(tmp_path: Path) -> None:
    _bake(tmp_path / "run")
    write_text(tmp_path / "run" / "bread", "mould")
    assert _bake(tmp_path / "run") == ["bread"]


def test_unfinished_work_waits_for_resume_and_is_not_lost(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        _bake(tmp_path / "run", fails=True)
    with pytest.raises(RunError, match=r"unfinished bread \(oven\); go on with --resume"):
        _bake(tmp_path / "run")
    assert _bake(tmp_path / "run", resume=True) == ["bread, resumed"]


def test_unfinished_work_of_other_inputs_is_not_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="power cut"):
        _bake(tmp_path / "run", fails=True)
    assert _bake(tmp_path / "run", resume=True, flour="rye") == ["dough", "bread"]


def test_a_step_alone_asks_for_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="bread needs the output of dough"):
        _bake(tmp_path / "run", only="bread")
    assert _bake(tmp_path / "run", only="dough") == ["dough"]
    assert _bake(tmp_path / "run", only="bread") == ["bread"]


def test_an_unknown_step_is_named_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--only cake names no step; the steps are dough, bread"):
        _bake(tmp_path / "run", only="cake")


def test_output_that_nobody_vouches_for_is_not_removed(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", {"name": "r"}):
        pass
    write_text(tmp_path / "run" / "dough", "grandmother's")
    with pytest.raises(RunError, match=r"no steps/dough\.json"):
        _bake(tmp_path / "run")
    assert (tmp_path / "run" / "dough").read_text() == "grandmother's"


def test_a_step_may_state_its_own_seconds(tmp_path: Path) -> None:
    _bake(tmp_path / "run")
    with open_run(tmp_path / "run", {"name": "r"}) as run:
        stamp = run.stamp("bread")
    assert stamp is not None
    assert stamp.seconds == 7.0


def test_damage_to_what_was_costly_is_named_and_not_made_again(tmp_path: Path) -> None:
    costly = (replace(STEPS[0], costly=True), STEPS[1])
    with open_run(tmp_path / "run", {"name": "r"}) as run:
        run_steps(Kitchen(run), costly, None)
        write_text(run.path("dough"), "weevils")
        with pytest.raises(RunError, match="run/dough is damaged or gone"):
            run_steps(Kitchen(run), costly, None)
        assert run.path("dough").read_text() == "weevils"


def test_a_step_that_begins_takes_the_manifest_away(tmp_path: Path) -> None:
    _bake(tmp_path / "run")
    write_text(tmp_path / "run" / "manifest.json", "{}")
    _bake(tmp_path / "run")
    assert (tmp_path / "run" / "manifest.json").exists()
    _bake(tmp_path / "run", flour="rye", only="dough")
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_the_time_of_a_failed_try_counts(tmp_path: Path) -> None:
    def slow(kitchen: Kitchen) -> Mapping[str, Any]:
        time.sleep(0.05)
        write_text(kitchen.run.path("dough"), "x")
        if kitchen.fails:
            raise RuntimeError("power cut")
        return {}

    steps = (replace(STEPS[0], work=slow),)
    with open_run(tmp_path / "run", {"name": "r"}) as run:
        with pytest.raises(RuntimeError, match="power cut"):
            run_steps(Kitchen(run, fails=True), steps, None)
        run_steps(Kitchen(run), steps, None)
        stamp = run.stamp("dough")
    assert stamp is not None
    assert stamp.seconds >= 0.1
