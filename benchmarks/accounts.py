"""What accounts cost a worker: microseconds of the processor a call, megabytes for 100,000 accounts, and how fast a revocation arrives.

    python benchmarks/accounts.py [--accounts 100000]

Everything runs on the embedded database. The last line is JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import sqlalchemy as sa

from limbeck.guard.account import Budget, Measure, Plan, Window
from limbeck.guard.accounts import Refusal
from limbeck.guard.state import tables
from limbeck.guard.state.home import State, init_state, open_state
from limbeck.guard.state.keys import create_key, draw_secret, revoke_key
from limbeck.guard.state.organisations import create_organisation
from limbeck.guard.state.plans import write_plan
from limbeck.guard.state.register import open_account
from limbeck.guard.state.shared import SharedAccounts

_BUDGETS = (
    Budget(Measure.REQUESTS, Window.MINUTE, 10**9),
    Budget(Measure.TOKENS, Window.MINUTE, 10**12),
    Budget(Measure.COST, Window.MONTH, 10**14),
)
_CALLS, _ROUNDS = 20_000, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    wanted = parser.parse_args().accounts
    with tempfile.TemporaryDirectory() as folder:
        state = init_state(Path(folder))
        key = _furnish(state)
        small = _times(state, key)
        _fill(state, wanted)
        state.close()
        figures = {
            "accounts": wanted,
            **small,
            **_memory(Path(folder)),
            **_revocation(Path(folder)),
        }
    print(json.dumps(figures))


def _furnish(state: State) -> str:
    with state.change("benchmark") as change:
        create_organisation(change, "org")
        write_plan(change, Plan("plan", budgets=_BUDGETS))
        open_account(change, org="org", plan_id="plan", id="first")
        return create_key(change, state.pepper, "first").secret


def _times(state: State, key: str) -> dict[str, float]:
    """Time the calls of the data path, in one process without contention."""
    with SharedAccounts(state) as accounts:
        now = time.time()
        holder = accounts.authenticate(key, now)
        assert holder is not None

        def spend() -> None:
            got = accounts.reserve(holder, requests=1, tokens=900, cost=1300, now=now)
            assert not isinstance(got, Refusal)
            got.settle(tokens=700, cost=1000)

        def reserve() -> None:
            accounts.reserve(holder, requests=1, tokens=900, cost=1300, now=now)

        return {
            "authenticate_us": _micros(lambda: accounts.authenticate(key, now)),
            "unknown_key_us": _micros(lambda: accounts.authenticate("lk-nobody", now)),
            "reserve_us": _micros(reserve),
            "reserve_and_settle_us": _micros(spend),
        }


def _micros(call: Callable[[], object]) -> float:
    times: list[float] = []
    for _ in range(_ROUNDS):
        began = (
            time.thread_time()
        )  # the processor's time: what others do on the machine does not count
        for _ in range(_CALLS):
            call()
        times.append((time.thread_time() - began) / _CALLS * 1e6)
    return round(median(times), 2)


def _fill(state: State, count: int) -> None:
    """Add accounts with a key each, in bulk."""
    accounts: list[dict[str, object]] = []
    keys: list[dict[str, object]] = []
    secrets: list[str] = []
    for n in range(count):
        id, text = draw_secret("lk-")
        accounts.append(
            {"id": f"account-{n:06d}", "org": "org", "plan": "plan", "name": "", "created": 1.0}
        )
        digest = state.pepper.key(text)
        keys.append(
            {"id": id, "account": f"account-{n:06d}", "digest": digest, "label": "", "created": 1.0}
        )
        secrets.append(text)
    with state.change("benchmark") as change:
        change.connection.execute(sa.insert(tables.account), accounts)
        change.connection.execute(sa.insert(tables.api_key), keys)
    (state.folder / "secrets").write_text("\n".join(secrets), "ascii")


def _memory(folder: Path) -> dict[str, float]:
    """Measure a fresh worker: what all accounts take, then what one request from each of them takes on top."""
    reads, writes = os.pipe()
    if os.fork() == 0:
        os.write(writes, json.dumps(_worker(folder)).encode())
        os._exit(0)
    os.wait()
    return json.loads(os.read(reads, 10_000))


def _worker(folder: Path) -> dict[str, float]:
    state = open_state(folder)
    before, began = _resident_mb(), time.thread_time()
    accounts = SharedAccounts(state)
    seconds, loaded = time.thread_time() - began, _resident_mb()
    began, now, admitted = time.thread_time(), time.time(), 0
    with (folder / "secrets").open(encoding="ascii") as secrets:
        for line in secrets:
            holder = accounts.authenticate(line.rstrip("\n"), now)
            assert holder is not None
            got = accounts.reserve(holder, requests=1, tokens=900, cost=1300, now=now)
            assert not isinstance(got, Refusal)
            got.settle(tokens=700, cost=1000)
            admitted += 1
            if admitted % 5000 == 0:
                accounts.work()  # what the timer does beside it
    first = (time.thread_time() - began) / admitted * 1e6
    spent = _resident_mb()
    accounts.close()
    state.close()
    return {
        "mirror_mb": round(loaded - before, 1),
        "mirror_load_s": round(seconds, 2),
        "worker_rss_mb": round(loaded, 1),
        "worker_rss_all_spent_mb": round(spent, 1),
        "first_request_us": round(first, 1),
    }


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def _revocation(folder: Path) -> dict[str, float]:
    """Measure the time from the commit of a revocation to its effect in a worker, over several keys."""
    state = open_state(folder)
    delays: list[float] = []
    with SharedAccounts(state) as accounts:
        for _ in range(8):
            with state.change("benchmark") as change:
                made = create_key(change, state.pepper, "first")
            while accounts.authenticate(made.secret, time.time()) is None:
                time.sleep(0.001)
            with state.change("benchmark") as change:
                revoke_key(change, made.key.id)
            began = time.perf_counter()
            while accounts.authenticate(made.secret, time.time()) is not None:
                time.sleep(0.001)
            delays.append(time.perf_counter() - began)
    state.close()
    return {
        "revocation_ms_median": round(median(delays) * 1e3),
        "revocation_ms_max": round(max(delays) * 1e3),
    }


if __name__ == "__main__":
    main()
