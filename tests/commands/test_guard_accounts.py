"""The guard's commands, each run as a person would, in one process for speed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.errors import AccountError, StateError
from limbeck.guard.decision import Action, Reason
from limbeck.guard.sanction import Proposal
from limbeck.guard.state.home import open_state
from limbeck.guard.state.mirror import Mirror
from limbeck.guard.state.rules import sanction_rules
from limbeck.guard.state.standings import propose

ADA = ("--by", "Ada Lovelace")


class Guard:
    """A guard's folder and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str) -> str:
        runner = CliRunner(env={"LIMBECK_GUARD_FOLDER": str(self.folder), "COLUMNS": "200"})
        done = runner.invoke(app, ["guard", *arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json"))


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    made = Guard(tmp_path / "guard")
    made("init")
    made("org", "create", "acme", "--domain", "acme.example", "--payment", "4242 4242")
    made("plan", "create", "std", "--budget", "requests/minute=60", "--capability", "seed")
    made("account", "create", "main", "--org", "acme", "--plan", "std")
    return made


def test_a_key_is_created_listed_rotated_and_revoked(guard: Guard) -> None:
    made = guard.json("key", "create", "main", "--label", "ci", "--expires", "90d")
    assert made["secret"].startswith(f"lk-{made['id']}-")
    assert "digest" not in made
    new = guard.json("key", "rotate", made["id"], "--overlap", "2h")
    assert new["replaces"] == made["id"]
    assert guard.json("key", "revoke", new["id"])["revoked"] is not None
    listed = guard("key", "list", "main")
    assert made["id"] in listed
    assert made["secret"] not in listed
    assert [k["id"] for k in guard.json("key", "list")] == [made["id"], new["id"]]
    shown = guard("key", "create", "main")
    assert "shown once" in shown


def test_everything_is_listed_and_shown(guard: Guard) -> None:
    guard(
        "account",
        "create",
        "shop",
        "--org",
        "acme",
        "--plan",
        "std",
        "--user-budget",
        "tokens/day=9",
    )
    assert guard.json("account", "show", "shop")["account"]["sub_accounts"] == {
        "budgets": [{"measure": "tokens", "window": "day", "limit": 9}],
        "required": False,
    }
    assert "requests/minute=60" in guard("plan", "list")
    assert guard.json("plan", "show", "std")["capabilities"] == ["seed"]
    assert "acme.example" in guard("org", "list")
    assert len(guard.json("org", "show", "acme")["payment"][0]) == 32
    guard("plan", "create", "big", "--model", "m")
    assert guard.json("account", "move", "main", "--plan", "big")["plan"] == "big"
    assert guard.json("account", "close", "shop")["closed"] is not None
    assert "main" in guard("account", "list", "--org", "acme")
    assert "account opened" in guard("account", "show", "main")


def test_a_use_is_declared_approved_and_withdrawn(guard: Guard) -> None:
    use = guard.json(
        "use", "create", "main", "--kind", "evaluation", "--expires", "30d", "--volume", "500"
    )
    assert use["approved_by"] is None
    assert guard.json("use", "approve", use["id"], *ADA)["approved_by"] == "Ada Lovelace"
    assert guard.json("use", "revoke", use["id"])["withdrawn"] is not None
    assert guard.json("use", "show", use["id"])["volume"] == 500
    assert use["id"] in guard("use", "list", "main")


def test_a_block_is_signed_appealed_and_restored(guard: Guard) -> None:
    guard("rules", "set", "mode=enforce", "appeal_hours=24", *ADA)
    assert guard.json("rules", "show")["appeal_hours"] == 24
    _propose_block(guard.folder)
    assert "hold" in guard("standing", "list", "--waiting")
    signed = guard.json("standing", "approve", "main", *ADA)
    assert (signed["action"], signed["signed_off_by"]) == ("block", "Ada Lovelace")
    filed = guard.json("appeal", "create", "main", "--text", "A benchmark.")
    assert guard.json("appeal", "list", "--overdue") == []
    assert guard.json("appeal", "lapse") == []
    decided = guard.json("appeal", "reject", filed["id"], *ADA, "--answer", "No.")
    assert decided["state"] == "rejected"
    second = guard.json("appeal", "create", "main", "--text", "Really.")
    assert guard.json("appeal", "approve", second["id"], *ADA)["state"] == "upheld"
    assert guard.json("standing", "show", "main")["action"] == "allow"
    assert guard.json("standing", "restore", "main", *ADA)["action"] == "allow"
    assert "e-1" in guard("account", "show", "main")


def test_an_owner_is_blocked_and_taken_off_the_list(guard: Guard) -> None:
    entry = guard.json("block", "create", "--payment", "4242 4242", *ADA, "--reason", "resold")
    assert "4242" not in json.dumps(entry)
    key = guard.json("key", "create", "main")["secret"]
    assert _action(guard.folder, key) is Action.BLOCK
    assert guard.json("block", "restore", entry["id"], *ADA)["lifted"] is not None
    assert _action(guard.folder, key) is Action.ALLOW
    assert entry["id"] in guard("block", "list")


def test_a_user_behind_a_reseller_is_vouched_for(guard: Guard) -> None:
    guard("account", "create", "shop", "--org", "acme", "--plan", "std", "--reseller")
    vouched = guard.json("standing", "vouch", "shop", "--user", "ann", *ADA)
    assert vouched["vouched_by"] == "Ada Lovelace"


def test_admins_have_a_name_and_a_role(guard: Guard) -> None:
    made = guard.json("admin", "create", "Ada Lovelace", "--role", "sign")
    assert made["secret"].startswith("la-")
    assert guard.json("admin", "revoke", made["id"])["revoked"] is not None
    assert "sign" in guard("admin", "list")
    with pytest.raises(AccountError, match="a role is read, operate, sign, got 'root'"):
        guard("admin", "create", "Eve", "--role", "root")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("key", "create", "none"), "no account 'none'"),
        (("key", "create", "main", "--expires", "soon"), "looks like 30d"),
        (("plan", "create", "p", "--budget", "requests=1"), "looks like requests/minute=60"),
        (("use", "create", "main", "--kind", "fun", "--expires", "1d"), "a use is evaluation"),
        (("block", "create", *ADA), "one of --org, --payment and --domain"),
        (("standing", "restore", "main", "--by", "policy"), "name of the person"),
        (("rules", "set", "mode", *ADA), "mode must be one of"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    guard: Guard, arguments: tuple[str, ...], match: str
) -> None:
    with pytest.raises(AccountError, match=match):
        guard(*arguments)


def test_a_command_before_init_says_so_and_exits_with_1(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="run limbeck guard init"):
        Guard(tmp_path)("key", "list")
    done = subprocess.run(
        [sys.executable, "-m", "limbeck", "guard", "key", "list", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("limbeck: there is no database at")


def _propose_block(folder: Path) -> None:
    state = open_state(folder)
    proposal = Proposal("main", Action.BLOCK, "copying.2", "e-1", because=(Reason("new", 0.9),))
    with state.change("policy") as change:
        propose(change, proposal, sanction_rules(change.connection))
    state.close()


def _action(folder: Path, key: str) -> Action:
    state = open_state(folder)
    mirror = Mirror(state.database, state.pepper)
    mirror.refresh()
    holder = mirror.find(key, state.clock())
    state.close()
    assert holder is not None
    return holder.action
