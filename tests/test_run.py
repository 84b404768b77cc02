import os
from pathlib import Path

import pytest

from limbeck.artefact import write_text
from limbeck.errors import RunError
from limbeck.run import open_run, read_run

RECIPE = {"name": "r", "train": {"epochs": 1.0, "rows": 4}}


def test_a_step_is_done_only_with_the_same_inputs_and_untouched_outputs(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE) as run:
        write_text(run.path("store/shard"), "bytes")
        run.finish("capture", "in", ["store"], seconds=1.0)
        assert run.is_done("capture", "in")
        assert not run.is_done("capture", "other")
        write_text(run.path("store/shard"), "byteS")
        assert not run.is_done("capture", "in")
        run.clear("store")
        assert not run.is_done("capture", "in")


def test_a_folder_of_another_recipe_is_refused_and_the_key_named(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE):
        pass
    other = {"name": "r", "train": {"epochs": 2.0, "rows": 4}}
    with (
        pytest.raises(RunError, match=r"another recipe \(train.epochs = 1.0 there, 2.0 here\)"),
        open_run(tmp_path / "run", other),
    ):
        pass


def test_loose_sections_may_change_until_their_steps_begin(tmp_path: Path) -> None:
    def recipe(cost: float, pattern: str = "p", url: str = "a") -> dict[str, object]:
        api = {"url": url, "limits": {"max_cost": cost}}
        return {"name": "r", "teacher": {"api": api}, "filter": {"pattern": pattern}}

    def opened(made: dict[str, object]) -> None:
        with open_run(tmp_path / "run", made, free={"limits": (), "filter": ("build",)}):
            pass

    opened(recipe(1.0))
    opened(recipe(2.0, "q"))
    with pytest.raises(RunError, match=r"\(teacher\.api\.url = 'a' there, 'b' here\)"):
        opened(recipe(2.0, "q", "b"))
    write_text(tmp_path / "run" / "steps" / "build.begun.json", "{}")
    opened(recipe(3.0, "q"))
    with pytest.raises(RunError, match=r"\(filter\.pattern = 'q' there, 'p' here\)"):
        opened(recipe(3.0))


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "thesis.tex", "dear")
    with pytest.raises(RunError, match="holds no Limbeck run"), open_run(tmp_path, RECIPE):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_processes_do_not_write_to_one_run(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run", RECIPE),
        pytest.raises(RunError, match=rf"another process .*{tmp_path}.*process {os.getpid()} on "),
        open_run(tmp_path / "run", RECIPE),
    ):
        pass


def test_a_stamp_comes_back_with_its_facts(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE) as run:
        write_text(run.path("a"), "x")
        made = run.finish("one", "in", ["a"], seconds=2.5, facts={"n": 3})
    assert read_run(tmp_path / "run").stamp("one") == made


def test_a_damaged_stamp_is_named(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE) as run:
        write_text(run.path("steps/one.json"), "{")
        with pytest.raises(RunError, match=r"steps/one\.json is damaged"):
            run.stamp("one")


def test_reading_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no Limbeck run"):
        read_run(tmp_path)


def test_a_recipe_may_change_until_a_binding_step_has_begun(tmp_path: Path) -> None:
    other = {"name": "r", "train": {"epochs": 2.0, "rows": 4}}
    with open_run(tmp_path / "run", RECIPE, binding=["capture"]) as run:
        write_text(run.path("a"), "x")
        run.finish("terms", "in", ["a"], seconds=1.0)
    with open_run(tmp_path / "run", other, binding=["capture"]) as run:
        assert run.stamp("terms") is not None
        write_text(run.path("steps/capture.begun.json"), "{}")
    assert read_run(tmp_path / "run").recipe == other
    with (
        pytest.raises(RunError, match="another recipe"),
        open_run(tmp_path / "run", RECIPE, binding=["capture"]),
    ):
        pass


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE):
        pass
    for text in ("{", "[]"):
        write_text(tmp_path / "run" / "recipe.json", text)
        with pytest.raises(RunError, match=r"recipe\.json is damaged"):
            read_run(tmp_path / "run")


def test_what_a_killed_process_left_half_written_does_not_count(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", RECIPE) as run:
        write_text(run.path("store/shard"), "bytes")
        whole = run.finish("capture", "in", ["store"], seconds=1.0)
        write_text(run.path("store/.shard.7.partial"), "by")
        assert run.finish("capture", "in", ["store"], seconds=1.0).outputs == whole.outputs
