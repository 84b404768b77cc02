"""docs/accounts.md: its first commands run as they stand, and its tables name every key, rule and noun."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.state.home import open_state
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.settings import StateSettings

PAGE = Path(__file__).parents[1] / "docs" / "accounts.md"


def test_the_first_commands_lead_to_a_key_that_opens(tmp_path: Path) -> None:
    start = PAGE.read_text("utf-8").split("## Start")[1].split("\n## ")[0]
    commands = re.findall(r"^    limbeck (guard .*?)(?:  +.*)?$", start, re.MULTILINE)
    assert len(commands) == 5
    runner = CliRunner(env={"LIMBECK_GUARD_FOLDER": str(tmp_path / "guard")})
    output = ""
    for command in commands:
        done = runner.invoke(app, shlex.split(command))
        assert done.exit_code == 0, (command, done.output, done.exception)
        output += done.stdout
    [key] = re.findall(r"lk-\S+", output)
    assert len(re.findall(r"la-\S+", output)) == 1
    state = open_state(tmp_path / "guard")
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    holder = mirror.find(key, state.clock())
    state.close()
    assert holder is not None
    assert (holder.org.id, len(holder.plan.budgets)) == ("acme", 2)


def test_the_page_names_every_setting_and_every_rule_with_its_default() -> None:
    page = PAGE.read_text("utf-8")
    for name in StateSettings.model_fields:
        assert f"`{name}`" in page, name
    for field in fields(SanctionRules):
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{field.name}` |")]
        default = str(field.default).lower().removesuffix(".0") or "empty"
        assert default in row.split("|")[2]
