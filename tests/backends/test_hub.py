"""Tests of models from the hub, on a cache in the hub's own layout."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import RepositoryNotFoundError

from limbeck.backends.hub import load_hub
from limbeck.errors import TeacherError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def offline_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put(cache: Path, folder: Path) -> None:
    repo = cache / "models--tiny--teacher"
    snapshot = Path(shutil.copytree(folder, repo / "snapshots" / COMMIT))
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT, encoding="utf-8")


@pytest.mark.parametrize("name", ["tiny/teacher", "tiny/teacher@main", f"tiny/teacher@{COMMIT}"])
def test_a_cached_model_loads_without_the_hub(
    offline_cache: Path, tiny_teacher_folder: Path, name: str
) -> None:
    put(offline_cache, tiny_teacher_folder)
    loaded = load_hub(name, name=f"hf:{name}", dtype="float32")
    assert loaded.name == f"hf:{name}"
    assert loaded.source == f"tiny/teacher@{COMMIT}"
    assert loaded.licence == "MIT"


def test_an_unreachable_hub_is_one_clear_sentence(offline_cache: Path) -> None:
    assert not list(offline_cache.iterdir())
    with pytest.raises(TeacherError, match=r"hf:tiny/none is not in the local cache"):
        load_hub("tiny/none", name="hf:tiny/none", dtype="float32")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (RuntimeError("socket closed\nmany lines"), r"cannot be reached \(RuntimeError\)"),
        (PermissionError(13, "Permission denied"), "cannot be downloaded.*Permission denied"),
        ("missing repository", "does not exist on the hub, or is private"),
    ],
)
def test_every_failure_of_the_hub_is_a_teacher_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception | str, sentence: str
) -> None:
    def fail(*_args: object, **_kwargs: object) -> Any:
        if isinstance(error, str):
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError, error)
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(TeacherError, match=sentence) as caught:
        load_hub("tiny/teacher", name="hf:tiny/teacher", dtype="float32")
    assert "\n" not in str(caught.value)


def test_weights_in_the_older_format_are_fetched_only_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def download(_repo: str, *, allow_patterns: list[str], **_rest: object) -> str:
        asked.append(allow_patterns[-1])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(TeacherError, match=r"no config\.json"):
        load_hub("tiny/teacher", name="hf:tiny/teacher", dtype="float32")
    assert asked == ["*.safetensors", "pytorch_model*.bin"]
