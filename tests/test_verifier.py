from pathlib import Path

import pytest

from limbeck.artefact import sha256_file
from limbeck.errors import FilterError
from limbeck.verifier import as_verifier, load_verifier

CODE = """
LIMIT = 5

def short(candidate):
    return len(candidate) < LIMIT

half = 0.5
"""


def test_a_function_is_run_from_the_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checks.py"
    path.write_text(CODE, encoding="utf-8")
    verifier = load_verifier(f"{path}:short")
    assert verifier.call("abc") is True
    assert verifier.call("abcdef") is False
    assert verifier.identity == {"name": "checks.py:short", "sha256": sha256_file(path)}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("checks.py", "must have the form"),
        ("checks.py:", "must have the form"),
        ("checks:short", "must have the form"),
        ("missing.py:short", "does not exist"),
        ("checks.py:long", "has no function long"),
        ("checks.py:half", "has no function half"),
        ("broken.py:short", "fails: ZeroDivisionError"),
        ("odd.py:short", "fails: SyntaxError"),
    ],
)
def test_what_cannot_be_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checks.py").write_text(CODE, encoding="utf-8")
    Path("broken.py").write_text("1 / 0", encoding="utf-8")
    Path("odd.py").write_text("def short(:", encoding="utf-8")
    with pytest.raises(FilterError, match=says):
        load_verifier(spec)


def test_a_function_from_python_is_known_by_its_source() -> None:
    def one(candidate: str) -> bool:
        return bool(candidate)

    def two(candidate: str) -> bool:
        return not candidate

    first, second = as_verifier(one), as_verifier(two)
    assert first.name.endswith(":test_a_function_from_python_is_known_by_its_source.<locals>.one")
    assert first.sha256 != second.sha256
    assert first.sha256 is not None
    assert as_verifier(one) == first
    assert as_verifier(first) is first


def test_a_function_without_source_says_so() -> None:
    assert as_verifier(bool).sha256 is None
