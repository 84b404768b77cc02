from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from limbeck.backends import load
from limbeck.distill import compiled
from limbeck.distill.compiled import check_compiles
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import TrainRecipe, load_recipe
from limbeck.distill.targets import Taught
from limbeck.distill.train import LOG, read_log, train
from limbeck.errors import RecipeError
from limbeck.progress import Silent


@dataclass(frozen=True, slots=True)
class _Cpu:
    type: str = "cpu"


def test_a_compiler_is_missed_before_anything_is_captured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiled, "device", _Cpu)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RecipeError, match=r"needs a C\+\+ compiler, and g\+\+, clang"):
        check_compiles(1)
    monkeypatch.setenv("CXX", "clang-19")
    with pytest.raises(RecipeError, match=r"clang-19 is not on the path"):
        check_compiles(1)


def test_several_processes_do_not_compile() -> None:
    with pytest.raises(RecipeError, match="2 were launched"):
        check_compiles(2)


def test_a_student_that_writes_is_not_compiled() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "on-policy.toml"
    with pytest.raises(RecipeError, match=r"whose steps differ in length, and train\.compile"):
        load_recipe(recipe, ["train.compile=true"])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_a_compiled_student_follows_the_curve_of_one_that_is_not(
    tiny_teacher_folder: Path, tiny_taught: list[Taught], tmp_path: Path
) -> None:
    recipe = TrainRecipe(epochs=3, learning_rate=1e-2, row_length=64, rows=2, precision="no")
    curves: list[list[float]] = []
    for compile_ in (False, True):
        model = load(str(tiny_teacher_folder), dtype="float32").model
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1.01
        folder = tmp_path / str(compile_)
        asked = recipe.model_copy(update={"compile": compile_})
        train(
            model, tiny_taught, asked, LossSpec(), folder, seed=3, resume=False, progress=Silent()
        )
        curves.append([entry.loss for entry in read_log(folder / LOG)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-3)
