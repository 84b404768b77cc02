"""One worker against the reference in memory: the leases change nothing of what is admitted, refused and charged.

The clock only goes forward here. Set back, it returns to a window whose lease was just given up: what lies unused in it comes
back with the next tick, and until then a request may be refused that the reference admits (never the other way round;
`test_a_clock_that_jumps_spends_each_window_once`).
"""

import itertools
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardstate import T0, Clock
from limbeck.guard.account import Budget, Holder, Measure, Plan, Window
from limbeck.guard.accounts import Refusal, Reservation
from limbeck.guard.memory import MemoryAccounts, Meter, holder_of
from limbeck.guard.state.database import Database
from limbeck.guard.state.settings import StateSettings
from limbeck.guard.state.spender import Spender
from limbeck.guard.state.sql_leases import SqlLeases

BUDGETS = st.lists(
    st.builds(
        Budget,
        measure=st.sampled_from(list(Measure)),
        window=st.sampled_from([Window.MINUTE, Window.DAY, Window.MONTH]),
        limit=st.integers(0, 40),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda budget: (budget.measure, budget.window),
)
AMOUNT = st.integers(0, 20)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 3), AMOUNT, AMOUNT),
        st.tuples(st.just("reserve"), st.just(1), AMOUNT, AMOUNT),
        st.tuples(st.just("settle"), st.integers(0, 9), AMOUNT, AMOUNT),
        st.tuples(st.just("release"), st.integers(0, 9), st.just(0), st.just(0)),
        st.tuples(st.just("step"), st.sampled_from([1, 59, 60, 86_400]), st.just(0), st.just(0)),
        st.tuples(st.just("tick"), st.sampled_from([1, 5]), st.just(0), st.just(0)),
    ),
    min_size=10,
    max_size=40,
)
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Generator[SqlLeases]:
    folder = tmp_path_factory.mktemp("spender")
    database = Database(f"sqlite:///{folder / 'state.db'}", durable=False)
    database.migrate()
    yield SqlLeases(database)
    database.close()


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shares")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(budgets=BUDGETS, steps=STEPS)
def test_a_lone_worker_admits_and_charges_exactly_what_the_reference_does(
    store: SqlLeases,
    shares: Path,
    budgets: list[Budget],
    steps: list[tuple[str, int, int, int]],
) -> None:
    name = f"account-{next(NUMBERS)}"
    holder = holder_of(name, Plan("plan", budgets=tuple(budgets)))
    steady = Clock(0.0)
    with closing(Spender(store, shares, StateSettings(), steady)) as spender:
        taken = _played(spender, holder, steady, steps, budgets)
    charged = {(m.measure, m.window, m.starts): n for m, n in store.spent(name).items()}
    for (_, measure, window, starts), amount in taken.items():
        assert charged.pop((Measure(measure), window, starts), (0, 0)) == (amount, 0)
    assert set(charged.values()) <= {(0, 0)}


def _played(
    spender: Spender,
    holder: Holder,
    steady: Clock,
    steps: list[tuple[str, int, int, int]],
    budgets: list[Budget],
) -> Counter[Meter]:
    """Play the steps to both and compare; return what the reference says is taken."""
    now = T0
    reference = MemoryAccounts({})
    open_: list[tuple[Reservation, Reservation]] = []
    for what, one, tokens, cost in steps:
        if what == "reserve":
            got = spender.reserve(holder, (one, tokens, cost), now)
            expected = reference.reserve(holder, requests=one, tokens=tokens, cost=cost, now=now)
            assert isinstance(got, Refusal) == isinstance(expected, Refusal)
            if isinstance(got, Refusal) or isinstance(expected, Refusal):
                assert isinstance(got, Refusal)
                assert got.budget in budgets
            else:
                open_.append((got, expected))
        elif what == "step":
            now += one
        elif what == "tick":
            steady.now += one
            spender.tick()
        elif open_:
            for reservation in open_[one % len(open_)]:
                if what == "settle":
                    reservation.settle(tokens=tokens, cost=cost)
                else:
                    reservation.release()
    for pair in open_:
        for reservation in pair:
            reservation.release()
    return reference.taken
