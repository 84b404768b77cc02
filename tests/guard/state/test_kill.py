"""Processes killed under load at any moment: nothing that was acted on is lost, nothing is charged twice."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from guardstate import T0, Clock, MakeState, attempt, fork, furnish, per
from limbeck.guard.account import Measure
from limbeck.guard.accounts import Refusal
from limbeck.guard.decision import Action
from limbeck.guard.sanction import Mode, Proposal, SanctionRules
from limbeck.guard.state.appeals import appeals, decide_appeal, file_appeal
from limbeck.guard.state.home import State, open_state
from limbeck.guard.state.keys import create_key, key, keys, revoke_key
from limbeck.guard.state.shared import SharedAccounts
from limbeck.guard.state.standings import propose, restore, sign_off, standings
from limbeck.guard.state.stores import open_store
from limbeck.guard.state.timeline import timeline

SECONDS, WORKERS = 2.0, 3
LIMITS = {"small": 700, "large": 10**7}
KINDS = ("sqlite", "postgresql", "redis")
ENFORCE = SanctionRules(mode=Mode.ENFORCE)


@pytest.fixture(params=KINDS)
def killed_state(request: pytest.FixtureRequest, make_state: MakeState, clock: Clock) -> State:
    """A guard's folder whose workers will be killed."""
    match request.param:
        case "postgresql":
            return make_state(clock, database=request.getfixturevalue("postgres_url"))
        case "redis":
            return make_state(clock, counters=request.getfixturevalue("redis_url"))
        case _:
            return make_state(clock)


def test_killed_workers_leave_every_budget_exact(killed_state: State, tmp_path: Path) -> None:
    state = killed_state
    secrets = [
        furnish(state, per("requests", "day", limit), per("tokens", "day", 10**9), account=name)
        for name, limit in LIMITS.items()
    ]
    log = tmp_path / "admitted"
    kills = _kill_at_random(lambda: _spend(state.folder, secrets, log))
    told = Counter(log.read_text("ascii"))
    with SharedAccounts(
        state, clock=Clock(0.0)
    ) as accounts:  # it settles the dead before it starts
        holders = [accounts.authenticate(secret, T0) for secret in secrets]
        for holder, (name, limit), admitted, settled in zip(
            holders, LIMITS.items(), "ab", "AB", strict=True
        ):
            requests, tokens = _charged(state, name)
            assert told[admitted] <= requests <= min(limit, told[admitted] + kills)
            assert 60 * told[settled] <= tokens <= 60 * (told[settled] + kills)
            assert tokens % 60 == 0
            while limit < 10**7 and requests < limit:
                assert not isinstance(attempt(accounts, holder, T0), Refusal)
                requests += 1
        assert isinstance(attempt(accounts, holders[0], T0), Refusal)
    assert _charged(state, "small")[0] == LIMITS["small"]
    assert told["a"] > 100
    assert kills > 5
    store = open_store(state)
    assert store.beats() == {}
    store.shut()
    assert list(state.shares.glob("*.shares")) == []


@pytest.mark.parametrize("killed_state", ["sqlite", "postgresql"], indirect=True)
def test_every_decision_that_was_acknowledged_is_there_with_one_event(
    killed_state: State, tmp_path: Path
) -> None:
    state = killed_state
    furnish(state)
    log = tmp_path / "acknowledged"
    kills = _kill_at_random(lambda: _decide(state.folder, log))
    acknowledged = [line.split() for line in log.read_text("ascii").splitlines()]
    with state.read() as connection:
        events = Counter(
            (e.what, e.detail.get("evidence", e.detail.get("key"))) for e in timeline(connection)
        )
        for what, id in acknowledged:
            if what == "revoked":
                assert key(connection, id).revoked is not None
                assert events["key revoked", id] == 1
            else:
                assert events["measure proposed", id] == 1
                assert events["measure signed off", id] == 1
        signed = {id for (what, id) in events if what == "measure signed off"}
        proposed = {id for (what, id) in events if what == "measure proposed"}
        assert signed == proposed
        assert {standing.evidence for standing in standings(connection)} <= proposed
        assert len(keys(connection)) == events_of(events, "key created")
    assert len(acknowledged) > 20
    assert kills > 5


def test_a_killed_appeal_is_filed_whole_or_not_at_all(state: State, tmp_path: Path) -> None:
    furnish(state)
    log = tmp_path / "appeals"

    def appeal_and_decide() -> None:
        mine = open_state(state.folder, Clock())
        out = _log(log)
        while True:
            with mine.change("policy") as change:
                propose(change, Proposal("acme", Action.HOLD, "c", os.urandom(4).hex()), ENFORCE)
                for left in appeals(change.connection, only_open=True):
                    decide_appeal(change, left.id, uphold=False, by="Ada Lovelace")
                filed = file_appeal(change, ENFORCE, "acme", text="why?")
            with mine.change("Ada Lovelace") as change:
                decide_appeal(change, filed.id, uphold=True, by="Ada Lovelace")
                restore(change, "acme", "Ada Lovelace")
            os.write(out, f"{filed.id}\n".encode())

    _kill_at_random(appeal_and_decide, workers=1, seconds=1.0)
    decided = set(log.read_text("ascii").split())
    with state.read() as connection:
        found = {appeal.id: appeal for appeal in appeals(connection)}
        assert decided <= set(found)
        assert all(found[id].state == "upheld" for id in decided)
        events = Counter(
            e.detail["appeal"] for e in timeline(connection) if e.what == "appeal closed"
        )
    assert set(events.values()) == {1}


def _spend(folder: Path, secrets: list[str], log: Path) -> None:
    """Spend for ever; write down each admitted request (a, b) and each settled one (A, B) after it happened."""
    accounts = SharedAccounts(open_state(folder, Clock())).start()
    out = _log(log)
    while True:
        for secret, letter in zip(secrets, "ab", strict=True):
            got = attempt(accounts, accounts.authenticate(secret, T0), T0, tokens=100)
            if not isinstance(got, Refusal):
                os.write(out, letter.encode())
                got.settle(tokens=60, cost=0)
                os.write(out, letter.upper().encode())


def _decide(folder: Path, log: Path) -> None:
    """Make, sign and undo for ever; write down what was acknowledged after it was."""
    state = open_state(folder, Clock())
    out, me = _log(log), str(os.getpid())
    while True:
        evidence = os.urandom(8).hex()
        with state.change("policy") as change:
            propose(change, Proposal("acme", Action.BLOCK, "c1", evidence, user=me), ENFORCE)
            sign_off(change, "acme", "Ada Lovelace", user=me)
        os.write(out, f"signed {evidence}\n".encode())
        with state.change("Ada Lovelace") as change:
            made = create_key(change, state.pepper, "acme")
            revoke_key(change, made.key.id)
            restore(change, "acme", "Ada Lovelace", user=me)
        os.write(out, f"revoked {made.key.id}\n".encode())


def _kill_at_random(
    work: Callable[[], None], *, workers: int = WORKERS, seconds: float = SECONDS
) -> int:
    """Run work in processes and kill them at random moments, starting others; return how many were killed."""
    dice, kills = random.Random(7), 0  # noqa: S311
    children = [fork(work) for _ in range(workers)]
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(dice.uniform(0.02, 0.35))
        victim = children.pop(dice.randrange(len(children)))
        os.kill(victim, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(victim, 0)[1])
        kills += 1
        children.append(fork(work))
    for child in children:
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return kills + len(children)


def _charged(state: State, holder: str) -> tuple[int, int]:
    store = open_store(state)
    charged = Counter[Measure]()
    for meter, (amount, leased) in store.spent(holder).items():
        charged[meter.measure] += amount
        assert leased >= 0
    store.shut()
    return charged[Measure.REQUESTS], charged[Measure.TOKENS]


def _log(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def events_of(events: Counter[tuple[str, object]], what: str) -> int:
    return sum(count for (name, _), count in events.items() if name == what)
