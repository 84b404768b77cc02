"""Tests of stated licences."""

import json
from pathlib import Path

import pytest

from limbeck.backends.licence import front_matter, licence_of


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "Apache-2.0"),
        ("---\nlicense: llama3.2\n---\n", "llama3.2"),
        ("---\nlicense: other\nlicense_name: gemma-terms\n---\n", "gemma-terms"),
        ("---\nlicense: other\n---\n", None),
        ("---\nlicense:\n- mit\n---\n", "MIT"),
        ("---\nlicense: [mit, gpl-3.0]\n---\n", None),
        ("---\ntags: [a]\n---\nlicense: mit\n", None),
        ("---\nlicense: mit\n", None),
        ("---\nlicense: 'mit\n---\n", None),
        ("# Title\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_a_card_states_a_licence_in_its_front_matter_only(
    tmp_path: Path, card: str, licence: str | None
) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert licence_of(tmp_path) == licence


def test_without_a_card_the_config_is_asked(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"license": "MIT"}), encoding="utf-8")
    assert licence_of(tmp_path) == "MIT"


def test_front_matter_that_is_a_list_counts_as_none() -> None:
    assert front_matter("---\n- a\n---\n") == {}
