import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck import artefact

Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x)
)


def test_a_file_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    path = tmp_path / "data"
    artefact.write_bytes(path, data)
    assert artefact.sha256_file(path) == hashlib.sha256(data).hexdigest()


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    artefact.write_text(path, "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact.os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        artefact.write_text(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_not_a_number_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        artefact.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not (tmp_path / "x.json").exists()


@given(Json)
def test_the_hash_of_json_does_not_see_the_order_of_keys(value: object) -> None:
    def reversed_keys(x: object) -> object:
        if isinstance(x, dict):
            return {k: reversed_keys(v) for k, v in reversed(list(x.items()))}
        return x

    assert artefact.sha256_json(value) == artefact.sha256_json(reversed_keys(value))


def test_a_tree_is_listed_by_path(tmp_path: Path) -> None:
    for name in ("b/two", "a", "b/one"):
        artefact.write_text(tmp_path / name, name)
    assert list(artefact.hash_tree(tmp_path)) == ["a", "b/one", "b/two"]


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"ä": [1, 2.5, None], "b": {"c": True}}
    artefact.write_json(tmp_path / "x.json", value)
    assert artefact.read_json(tmp_path / "x.json") == value
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == value
