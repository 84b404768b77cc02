import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from limbeck.errors import GuardError
from limbeck.guard.accounts import PACKED_BYTES, Account
from limbeck.guard.decision import Action, Decision
from limbeck.guard.evidence.calibration import LEANS, Calibration
from limbeck.guard.fit import Plan, calibrate, record
from limbeck.guard.observation import Observation
from limbeck.guard.policy import Evidence, Memory, Policy, load_policy
from limbeck.guard.watch import Watch
from tinytraffic import Traffic, compose, dice, observation, words

SECRET = b"test"
ALPHA = 0.1
PLAN = Plan(alpha=ALPHA, least=10)


@cache
def fitted() -> Calibration:
    traffic = compose(honest=26, seed=1)
    histories, labels = record(lambda: traffic.observations, traffic.truths, PLAN, secret=SECRET)
    return calibrate(histories, labels, PLAN)


@cache
def fresh() -> Traffic:
    return compose(honest=8, campaigns=2, seed=2)


def policy(**memory: int) -> Policy:
    shipped = load_policy()
    return shipped.model_copy(
        update={"evidence": Evidence(alpha=ALPHA), "memory": Memory(**memory)}
    )


def watch(**memory: int) -> Watch:
    return Watch(policy(**memory), secret=SECRET, calibration=fitted())


def test_copiers_are_accused_and_honest_accounts_are_not() -> None:
    watching, traffic = watch(), fresh()
    accused = {
        one.account
        for one in traffic.observations
        if watching.observe(one).action >= Action.CHALLENGE
    }
    guilty = {name for name, truth in traffic.truths.items() if truth.guilty}
    assert accused <= guilty
    assert len(accused) >= len(guilty) / 2


def test_a_decision_says_why() -> None:
    watching = watch()
    made = [watching.observe(one) for one in fresh().observations]
    accusations = [one for one in made if one.action >= Action.CHALLENGE]
    assert accusations
    for one in accusations:
        assert one.e_value >= 1 / ALPHA
        assert one.because
        assert all(reason.detail.startswith("against ") for reason in one.because)


def test_the_same_traffic_is_decided_in_the_same_way() -> None:
    one, other = watch(), watch()
    assert [one.observe(o) for o in fresh().observations] == [
        other.observe(o) for o in fresh().observations
    ]


@pytest.mark.parametrize("cut", [0, 1, 137, 300])
def test_a_watch_that_restores_a_snapshot_decides_as_one_that_never_stopped(cut: int) -> None:
    traffic = fresh().observations
    whole, first, second = watch(), watch(), watch()
    expected = [whole.observe(o) for o in traffic]
    made = [first.observe(o) for o in traffic[:cut]]
    second.restore(first.snapshot())
    made += [second.observe(o) for o in traffic[cut:]]
    assert made == expected
    assert second.snapshot() == whole.snapshot()


def test_an_accusation_stands_until_a_person_lifts_it() -> None:
    watching = watch()
    made = [watching.observe(one) for one in fresh().observations]
    accused = next(one for one in reversed(made) if one.action >= Action.CHALLENGE)
    rng = dice(5)
    harmless = observation(accused.account, accused.ts + 60, " ".join(words(rng, 9)))
    assert watching.observe(harmless).action >= Action.CHALLENGE
    watching.lift(accused.account)
    assert watching.e_value(accused.account) == 0.0
    with pytest.raises(GuardError, match="'nobody'"):
        watching.lift("nobody")


def test_a_declared_evaluation_is_never_accused_whatever_it_asks() -> None:
    watching = watch()
    for one in fresh().observations:
        declared = watching.observe(replace(one, declared_use="evaluation"))
        assert declared.action == Action.REDUCE


def test_accounts_are_bounded_and_the_longest_unseen_makes_room() -> None:
    watching = watch(accounts=10, clusters=10)
    for n in range(100):
        watching.observe(observation(f"a{n}", float(n), "hello there", payment=f"p{n}"))
        watching.observe(observation("steady", float(n), "hello again"))
    assert len(watching.accounts) == 10
    assert watching.accounts.evicted == 91
    assert len(watching.clusters) == 10
    assert watching.accounts.peek("steady") is not None


def test_nobody_washes_an_accusation_away_with_a_flood_of_accounts() -> None:
    watching = watch(accounts=12, clusters=10)
    for one in fresh().observations:
        if one.account == "copier-0-1":
            watching.observe(one)
    accused = watching.accounts.peek("copier-0-1")
    assert accused is not None
    assert accused.standing >= Action.CHALLENGE
    for n in range(100):
        watching.observe(observation(f"a{n}", float(n), "hello there"))
    assert watching.accounts.peek("copier-0-1") is accused


def test_one_busy_account_takes_no_more_memory_than_its_state() -> None:
    watching = watch()
    rng = dice(6)
    texts = [" ".join(words(rng, 10)) for _ in range(50)]
    sizes: set[int] = set()
    for n in range(6000):
        watching.observe(observation("busy", n * 0.01, texts[n % 50], ip=f"10.0.{n % 256}.{n % 7}"))
        if n % 1000 == 999:
            sizes.add(len(watching.snapshot()))
    account = watching.accounts.peek("busy")
    assert account is not None
    assert len(account.pack()) == PACKED_BYTES <= 4096
    assert len(account.groups) == 8
    assert max(sizes) < 4096 + 256 * 7 * 400


def test_a_clock_that_jumps_changes_no_bound() -> None:
    watching = watch()
    for ts in (0.0, 1e11, -1e9, 5.0, 5.0, float(2**40)):
        decision = watching.observe(observation("a", ts, "hello there"))
        assert 0.0 <= decision.e_value <= 1e6
    for ts in (10.0, 9.0, 8.0):
        watching.observe(observation("a", ts, "hello there"))


def test_an_account_packs_with_its_standing_and_back() -> None:
    account = Account(3)
    account.groups = (1, 2**64 - 1)
    account.standing = Action.HOLD
    account.peak_R = np.array([1.5, -np.inf, 0.1])
    again = Account.unpack(account.pack())
    assert again.pack() == account.pack()
    assert (again.groups, again.standing) == (account.groups, Action.HOLD)


def test_a_promise_that_the_calibration_cannot_keep_is_refused() -> None:
    with pytest.raises(GuardError, match=r"below 0\.1"):
        Watch(load_policy(), secret=SECRET, calibration=fitted())


def test_a_snapshot_of_another_secret_is_refused() -> None:
    other = Watch(policy(), secret=b"other", calibration=fitted())
    with pytest.raises(GuardError, match="another secret"):
        watch().restore(other.snapshot())
    with pytest.raises(GuardError, match="no snapshot"):
        watch().restore(b"{")


def test_the_hot_path_imports_nothing_heavy() -> None:
    code = "import sys, limbeck.guard.watch; print([m for m in ('torch', 'scipy', 'pandas', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_a_calibration_evidence_says_nothing() -> None:
    watching = Watch(load_policy(), secret=SECRET)
    made = [watching.observe(one) for one in fresh().observations]
    assert {one.e_value for one in made} == {1.0}
    assert {one.action for one in made} == {Action.ALLOW}


def test_discoveries_are_found_over_all_accounts_and_hold_no_honest_one() -> None:
    watching = watch()
    for one in fresh().observations:
        watching.observe(one)
    found = watching.discoveries(0.4)
    assert all(fresh().truths[name].guilty for name in found)
    assert watching.discoveries(0.999) >= found


@pytest.mark.parametrize("leans", [True, False])
def test_a_clusters_evidence_counts_against_an_account_that_leans_the_same_way(leans: bool) -> None:
    watching = watch()
    for one in fresh().observations:
        watching.observe(one)
    account = watching.accounts.peek("copier-0-1")
    assert account is not None
    own = 1.0 if leans else -1.0
    account.peak_R, account.latest_R, account.evidence = (
        np.full(4, -np.inf),
        np.full(4, LEANS + own),
        None,
    )
    account.standing = Action.ALLOW
    last = fresh().observations[-1].ts
    decision = watching.observe(observation("copier-0-1", last, "hello", payment="card 0"))
    assert (decision.action >= Action.CHALLENGE) == leans
    assert decision.cluster == ("payment:card 0" if leans else "")


def test_colleagues_of_one_copier_are_not_accused_with_him() -> None:
    watching = watch()
    office: list[Observation] = []
    chats = [one for one in fresh().observations if one.account.startswith("chat")]
    copier = [one for one in fresh().observations if one.account == "copier-0-0"]
    office += [replace(one, payment="office") for one in chats]
    office += [replace(one, payment="office") for one in copier]
    made: list[Decision] = [watching.observe(one) for one in sorted(office, key=lambda o: o.ts)]
    accused = {one.account for one in made if one.action >= Action.CHALLENGE}
    assert len(accused - {"copier-0-0"}) <= 1
