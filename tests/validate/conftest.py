"""Two tiny models, and a task file with its items."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from limbeck.backends import load
from limbeck.model import LocalModel

ITEMS = 60


@pytest.fixture(scope="session")
def tiny_local(tiny_teacher_folder: Path) -> LocalModel:
    """The tiny teacher, loaded; read it, never change it."""
    return load(str(tiny_teacher_folder), dtype="float32")


@pytest.fixture(scope="session")
def tiny_student_folder(
    tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny teacher with a little noise on its weights."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("models") / "tiny-student"
    shutil.copytree(tiny_teacher_folder, folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    noisy = {
        k: v + 0.1 * v.std() * torch.randn(v.shape, generator=generator) if v.dim() > 1 else v
        for k, v in weights.items()
    }
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def gold(tiny_local: LocalModel) -> list[str]:
    """What the tiny teacher itself chooses: a task on which it is nearly perfect."""
    from limbeck.validate.local import LocalRespondent
    from limbeck.validate.respond import Asked

    asked = [Asked(str(i), f"Clock {i} stands on", "text") for i in range(ITEMS)]
    choices = (" the shelf", " the mill", " a bridge")
    said = LocalRespondent(tiny_local).weigh(asked, [choices] * ITEMS, heard=lambda _: None)
    return [choices[max(range(3), key=lambda c: s.log_C[c] / len(choices[c]))] for s in said]


@pytest.fixture
def choice_task(tmp_path: Path, gold: list[str]) -> Path:
    """A task of the teacher's own choices, one in six of them turned wrong so that it is not perfect."""
    wrong = {" the shelf": " the mill", " the mill": " a bridge", " a bridge": " the shelf"}
    rows = [
        {"id": f"c{i}", "n": i, "answer": wrong[g] if i % 6 == 0 else g} for i, g in enumerate(gold)
    ]
    return write_task(
        tmp_path,
        "clocks",
        rows,
        scorer="choice",
        prompt="Clock {n} stands on",
        choices=[" the shelf", " the mill", " a bridge"],
        chance=1 / 3,
        id="id",
    )


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
    """Write a task and return the path of its TOML."""
    (folder / f"{name}.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8"
    )
    values = {"name": name, "file": f"{name}.jsonl", **settings}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
