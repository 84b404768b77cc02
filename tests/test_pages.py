"""What README and docs/ print: recipes that load, commands whose words the command line knows."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from limbeck.cli import app
from limbeck.distill.recipe import load_recipe, parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
SNIPPETS = ("across-tokenizers", "on-policy", "prompt-distillation", "students")
"""Pages whose TOML is parts of a recipe; other pages have tests of their own."""
REST = {
    "name": "page",
    "teacher": {"model": "packaged:smollm2-135m-instruct"},
    "corpus": {"files": ["chats.jsonl"]},
    "student": {"layers": 2},
}
SHELL = ("|", "[", "...", "…")
"""What a printed synopsis has and a command has not."""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def commands_of(page: Path, program: str) -> list[list[str]]:
    """Return the words of a program's commands, from blocks and from the running text."""
    text = text_of(page).replace("\\\n", " ")
    blocks = re.findall(
        rf"^(?: {{4}}|\| [^|\n]*\| `)?({program} .*?)(?:`|  +[#a-zA-Z]|$)", text, re.M
    )
    inline = re.findall(rf"`({program} [^`]+)`", text)
    found = [_words(c) for c in [*blocks, *inline]]
    return [words for words in found if not any(sign in word for sign in SHELL for word in words)]


def _words(command: str) -> list[str]:
    """Return a command's words, up to where a shell sends its output."""
    words = shlex.split(command.replace("\n", " "), comments=True)
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_printed_recipe_is_one(name: str) -> None:
    page = ROOT / "docs" / f"{name}.md"
    snippets = re.findall(r"```toml\n(.*?)```", text_of(page), flags=re.DOTALL)
    assert snippets
    for snippet in snippets:
        given = tomllib.loads(snippet)
        parse_recipe({k: _under(REST.get(k), v) for k, v in (REST | given).items()})


def _under(rest: Any, given: Any) -> Any:
    """Lay a printed section over the least that a recipe needs, unless it says itself how a student begins."""
    if not isinstance(given, dict) or not isinstance(rest, dict) or "init" in given:
        return given
    return rest | given


def test_commands_are_found_on_the_pages_that_have_them() -> None:
    with_commands = {p.stem for p in PAGES if commands_of(p, "limbeck")}
    assert with_commands >= {"README", "export", "on-policy", "prompt-distillation", "scale"}
    assert with_commands >= {"students", "validate", "api-teachers"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_printed_command_is_one_that_limbeck_knows(page: Path) -> None:
    group: Any = typer.main.get_command(app)
    for _, *words in commands_of(page, "limbeck"):
        command = group
        while hasattr(command, "commands") and words:
            name = words.pop(0)
            assert name in command.commands, name
            command = command.commands[name]
        if not words:  # the page only names it
            continue
        values = command.make_context(command.name, [w for w in words if w != "$SMALL"]).params
        recipe = values.get("recipe")
        if recipe is not None and recipe.parts[0] == "recipes":
            load_recipe(ROOT / recipe, values["overrides"] or [])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_printed_benchmark_is_there_and_takes_these_options(page: Path) -> None:
    for _, script, *words in commands_of(page, "python"):
        if not script.startswith("benchmarks/"):
            continue
        source = text_of(ROOT / script)
        unknown = [w for w in words if w.startswith("--") and f'"{w}"' not in source]
        assert not unknown, script


def test_every_page_is_reached_from_the_readme() -> None:
    texts = {page.name: text_of(page) for page in PAGES}
    reached, new = set[str](), {"README.md"}
    while new:
        reached |= new
        links = {
            link for name in new for link in re.findall(r"\]\((?:docs/)?([\w-]+\.md)", texts[name])
        }
        new = (links & texts.keys()) - reached
    assert texts.keys() - reached == set()


def test_no_page_waits_for_its_figures() -> None:
    waiting = [
        page.name
        for page in PAGES
        if re.search(r"\b(MEASURED|TODO|TBD|FIXME)\b|@@\w+@@", text_of(page))
    ]
    assert waiting == []
