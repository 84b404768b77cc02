from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from limbeck.errors import GuardError
from limbeck.guard.decision import Action
from limbeck.guard.evidence.calibration import Calibration
from limbeck.guard.evidence.check import limits
from limbeck.guard.evidence.history import Histories
from limbeck.guard.evidence.labels import Labels
from limbeck.guard.evidence.ranking import Peaks, rank
from limbeck.guard.fit import STEEPNESS, Plan, calibrate, record
from limbeck.guard.policy import Evidence, load_policy
from limbeck.guard.score import Truth
from limbeck.guard.watch import Watch
from tinytraffic import Traffic, compose

SECRET = b"test"
PLAN = Plan(alpha=0.1, least=10)


@cache
def traffic() -> Traffic:
    return compose(honest=26, seed=3)


@cache
def recorded() -> tuple[Histories, Labels]:
    return record(lambda: traffic().observations, traffic().truths, PLAN, secret=SECRET)


@cache
def fitted() -> Calibration:
    return calibrate(*recorded(), PLAN)


def watch(calibration: Calibration) -> Watch:
    policy = load_policy().model_copy(update={"evidence": Evidence(alpha=PLAN.alpha)})
    return Watch(policy, secret=SECRET, calibration=calibration)


def test_what_is_ranked_is_what_the_watch_sees() -> None:
    """The scores that calibrate come from recorded histories, those of the gateway from the running watch."""
    histories, labels = recorded()
    offline_AR = Peaks.of(histories, fitted().scorers, labels).watched_ARJ.max(axis=2)
    watching = watch(fitted())
    for one in traffic().observations:
        watching.observe(one)
    for n, name in enumerate(histories.accounts):
        account = watching.accounts.peek(name)
        assert account is not None
        seen_R = np.maximum(account.peak_R, -100.0)
        assert np.allclose(seen_R, offline_AR[n], atol=1e-9), name


def test_the_promise_holds_on_fresh_honest_accounts() -> None:
    watching = watch(fitted())
    more = compose(honest=40, campaigns=0, seed=99)
    accused = {
        o.account for o in more.observations if watching.observe(o).action >= Action.CHALLENGE
    }
    for kind in PLAN.rivals:
        of = [name for name in accused if name.startswith(kind)]
        assert len(of) / 40 <= PLAN.alpha


def test_no_family_that_was_held_out_is_accused_after_the_margin() -> None:
    report = fitted().report
    assert set(report["held_out"]) == {
        f"{kind}: {kind}/{n}" for kind in PLAN.rivals for n in (0, 1)
    }
    assert all(of["margin_own"] >= 0 <= of["margin_shared"] for of in report["ways"].values())


def test_copiers_whose_way_was_not_looked_for_are_counted_apart() -> None:
    for of in fitted().report["ways"].values():
        assert of["accused_unseen"] <= of["accused"] <= of["accounts"]
    assert any(of["accused"] for of in fitted().report["ways"].values())


def test_the_same_log_and_seed_make_the_same_calibration() -> None:
    again = calibrate(
        *record(lambda: traffic().observations, traffic().truths, PLAN, secret=SECRET), PLAN
    )
    for one, other in zip(again.peaks, fitted().peaks, strict=True):
        assert np.array_equal(one, other)


def test_units_that_were_learned_from_do_not_calibrate() -> None:
    histories, labels = recorded()
    joined = {name: (name,) for name in PLAN.rivals}
    ranked = rank(Peaks.of(histories, fitted().scorers, labels), labels, joined)
    calibrating = labels.honest_A & ~labels.trained_A
    clusters = len(set(labels.composed_A[calibrating]) - {-1})
    assert sum(map(len, ranked)) == int(calibrating.sum()) + clusters
    assert limits(ranked, [99] * 4, STEEPNESS, 0.1).shape == (4,)


def test_one_class_alone_is_refused() -> None:
    only = compose(honest=10, kinds=("chat",))
    with pytest.raises(GuardError, match="1 honest class"):
        record(lambda: only.observations, only.truths, PLAN, secret=SECRET)


def test_a_log_without_copiers_or_without_a_named_rival_is_refused() -> None:
    honest = compose(honest=4, campaigns=0)
    with pytest.raises(GuardError, match="no account of class copier"):
        record(lambda: honest.observations, honest.truths, PLAN, secret=SECRET)
    two = compose(honest=4, kinds=("chat", "agent"))
    with pytest.raises(GuardError, match="no honest account of class pipeline"):
        record(lambda: two.observations, two.truths, PLAN, secret=SECRET)


def test_a_promise_beyond_the_data_is_refused_with_what_is_lacking() -> None:
    with pytest.raises(
        GuardError, match=r"takes 999 honest histories.* chat has \d+ and lacks 9\d\d"
    ):
        calibrate(*recorded(), replace(PLAN, alpha=0.001))


def test_an_account_without_truth_is_named() -> None:
    truths = {k: v for k, v in traffic().truths.items() if k != "chat-0"}
    with pytest.raises(GuardError, match="'chat-0'"):
        record(lambda: traffic().observations, truths, PLAN, secret=SECRET)


def test_a_class_that_is_not_named_joins_the_rival_that_explains_it_best() -> None:
    truths = {
        name: replace(truth, kind="office", family=f"office/{truth.family[-1]}")
        if name in {f"chat-{n}" for n in range(8)}
        else truth
        for name, truth in traffic().truths.items()
    }
    found = calibrate(*record(lambda: traffic().observations, truths, PLAN, secret=SECRET), PLAN)
    assert found.report["rivals"]["chat"]["classes"] == ["chat", "office"]


def agents_of_one_family() -> dict[str, Truth]:
    return {
        name: replace(truth, family="agent/only") if truth.kind == "agent" else truth
        for name, truth in traffic().truths.items()
    }


def test_a_class_of_one_family_is_no_rival_of_its_own_unless_named() -> None:
    """Its promise could not be checked: there is no second family to hold out."""
    truths = agents_of_one_family()
    recording = record(lambda: traffic().observations, truths, PLAN, secret=SECRET)
    rivals = ("chat", "pipeline", "benchmark")
    found = calibrate(*recording, replace(PLAN, rivals=rivals))
    assert set(found.rivals) == set(rivals)
    assert any("agent" in one["classes"] for one in found.report["rivals"].values())
    with pytest.raises(GuardError, match="class agent has fewer than two families"):
        calibrate(*recording, PLAN)
