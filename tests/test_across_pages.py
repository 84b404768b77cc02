"""What docs/across-tokenizers.md and docs/prompt-distillation.md print: recipes that load, commands that exist."""

import re
import tomllib
from pathlib import Path

import pytest

from limbeck.distill.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / name for name in ("across-tokenizers.md", "prompt-distillation.md")]
REST = {
    "name": "page",
    "teacher": {"model": "packaged:smollm2-135m-instruct"},
    "corpus": {"files": ["chats.jsonl"]},
    "student": {"layers": 2},
}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_printed_recipe_is_one(page: Path) -> None:
    snippets = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert snippets
    for snippet in snippets:
        parse_recipe(REST | tomllib.loads(snippet))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_printed_command_runs_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    commands = re.findall(r"^    (python|limbeck distill) (\S+)", text, flags=re.MULTILINE)
    assert commands
    for program, path in commands:
        assert (ROOT / path).is_file(), path
        if program == "limbeck distill":
            load_recipe(ROOT / path)
