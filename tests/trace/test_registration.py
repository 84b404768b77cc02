from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError, TraceError
from limbeck.ledger.note import new_signer, sign
from limbeck.stats.coins import BETS
from limbeck.trace.registration import (
    STATISTIC,
    Named,
    Registration,
    read_registration,
    read_statement,
    weights_of,
    write_registration,
)

SIGNER = new_signer("example.org/owner", seed=bytes(32))
PLAN = Registration(
    created=1_764_000_000_000,
    coins_sha256="ab" * 32,
    coins=300,
    accounts=7,
    statistic=STATISTIC,
    weights="fitted",
    bets=BETS,
    references=(Named("teacher", "cd" * 32),),
    alpha=0.001,
    suspects=2,
    by_account=True,
    candidates=("model A",),
    beacon_source="drand quicknet, round 1234",
    beacon_at=1_764_000_600_000,
)


def test_a_registration_reads_back() -> None:
    assert read_registration(write_registration(PLAN, SIGNER), SIGNER.public) == PLAN


@given(st.floats(1e-6, 0.5), st.integers(1, 9), st.integers(1, 50), st.booleans())
def test_the_tests_levels_add_up_to_the_registered_one(
    alpha: float, suspects: int, accounts: int, by_account: bool
) -> None:
    plan = replace(PLAN, alpha=alpha, suspects=suspects, accounts=accounts, by_account=by_account)
    assert plan.tests == suspects * (accounts + 1 if by_account else 1)
    assert plan.alpha_each * plan.tests == pytest.approx(alpha)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alpha": 1.0}, "alpha must lie between 0 and 1"),
        ({"suspects": 0}, "at least one suspect"),
        ({"coins": 0}, "at least one suspect, one coin"),
        ({"candidates": ("a", "b", "c")}, "3 candidates are named, but only 2"),
        ({"bets": ()}, "bets must be above 0"),
        ({"bets": (1.0, -1.0)}, "bets must be above 0"),
        ({"beacon_source": " "}, "the beacon's source must be named"),
        ({"beacon_at": PLAN.created}, "is public before the registration"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TraceError, match=words):
        write_registration(replace(PLAN, **change), SIGNER)


def test_a_registration_that_another_key_signed_is_refused() -> None:
    other = new_signer("example.org/owner", seed=b"1" * 32)
    with pytest.raises(LedgerError, match="has no valid signature"):
        read_registration(write_registration(PLAN, other), SIGNER.public)


def test_a_note_about_something_else_is_refused() -> None:
    with pytest.raises(LedgerError, match="a note says 'hello' where"):
        read_statement(
            sign('{"what":"hello"}\n', SIGNER), SIGNER.public, "limbeck trace, registered"
        )


def test_weights_are_one_of_two() -> None:
    assert (weights_of("fitted"), weights_of("one")) == ("fitted", "one")
    with pytest.raises(TraceError, match="weights must be fitted or one, got 'best'"):
        weights_of("best")
