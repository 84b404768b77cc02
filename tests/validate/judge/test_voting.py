from collections import Counter
from typing import Any

import numpy as np
import pytest

from limbeck.progress import Silent
from limbeck.validate.judge.ballot import Ballot
from limbeck.validate.judge.material import Entry, gather
from limbeck.validate.judge.voting import Votes, deal, vote_on_all, vote_until
from limbeck.validate.ledger import Answer, VerifiedOutcome


def _entries(sums: Any) -> tuple[Entry, ...]:
    return gather(sums.questions, sums.teacher, sums.student, sums.verified, seed=0)["sums"]


def _rounds(sums: Any, seed: int = 0) -> Any:
    return deal(_entries(sums), np.random.default_rng(seed))


def _always_a(_: Ballot) -> str:
    return "[[A]]"


def test_every_item_is_put_to_every_judge_in_both_orders(
    make_sums: Any, spoken: Any, run: Any
) -> None:
    sums = make_sums(50)
    panel = [spoken("oracle", sums.oracle), spoken("always-a", _always_a)]
    votes: Votes = run(vote_on_all(_entries(sums), panel, Silent()))
    assert [judge.asked for judge in panel] == [100, 100]
    assert votes.vote_JI[0].tolist() == [e.won for e in votes.entries]
    assert set(votes.vote_JI[1]) == {0.5}
    assert votes.voted == 1
    assert not votes.error_JI[0].any()
    assert votes.error_JI.shape == (2, 25)


def test_a_verdict_that_is_missing_is_no_tie(make_sums: Any, spoken: Any, run: Any) -> None:
    sums = make_sums(20)

    def half_mute(ballot: Ballot) -> str:
        return "[[A]]" if "Adding" in ballot.answer_a else "who knows"

    half = spoken("half", half_mute)
    votes: Votes = run(vote_on_all(_entries(sums), [half], Silent()))
    assert np.isnan(votes.vote_JI).all()
    assert votes.voted == 0
    assert votes.replies["half"]["unparsed"] == 20


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(
    make_sums: Any, spoken: Any, run: Any
) -> None:
    sums = make_sums(20)
    same = [Answer(a.item, f" {a.text}\n") for a in sums.teacher]
    entries = gather(sums.questions, sums.teacher, same, [], seed=0)["sums"]
    judge = spoken("judge", sums.oracle)
    votes: Votes = run(vote_on_all(entries, [judge], Silent()))
    assert judge.asked == 0
    assert set(votes.vote_JI[0]) == {0.5}


def test_rounds_hold_every_item_once_and_a_verified_cluster_each(make_sums: Any) -> None:
    sums = make_sums(100, verified=40)
    clustered = [
        VerifiedOutcome(o.item, f"user {i % 10}", o.teacher, o.student)
        for i, o in enumerate(sums.verified)
    ]
    entries = gather(sums.questions, sums.teacher, sums.student, clustered, seed=0)["sums"]
    rounds = deal(entries, np.random.default_rng(0))
    assert len(rounds) == 5
    assert {r.weight for r in rounds} == {4}
    assert Counter(e.question.item for r in rounds for e in r.entries) == Counter(
        q.item for q in sums.questions
    )
    assert {len(r.others) for r in rounds} == {16}


def test_asking_stops_when_the_interval_is_narrow_enough(
    make_sums: Any, spoken: Any, run: Any
) -> None:
    sums = make_sums(1500, verified=500)
    judge = spoken("oracle", sums.oracle)
    votes: Votes = run(
        vote_until(_rounds(sums), [judge], precision=0.15, alpha=0.05, progress=Silent())
    )
    assert votes.anytime is not None
    point, low, high = votes.anytime
    assert high - low <= 0.3
    assert low < 0.4 < high  # of ten, one win of the student, three of the teacher, six even
    assert low <= point <= high
    assert judge.asked == 2 * len(votes.entries) < 2 * 1500


def test_a_precision_out_of_reach_asks_about_everything(
    make_sums: Any, spoken: Any, run: Any
) -> None:
    sums = make_sums(100)
    judge = spoken("oracle", sums.oracle)
    votes: Votes = run(
        vote_until(_rounds(sums), [judge], precision=0.001, alpha=0.05, progress=Silent())
    )
    assert len(votes.entries) == 100
    assert votes.anytime is not None
    assert votes.anytime[2] - votes.anytime[1] > 0.002


@pytest.mark.parametrize("voice", ["oracle", "student-lover", "mute"])
def test_the_anytime_interval_holds_the_truth_whatever_the_judge_says(
    make_sums: Any, spoken: Any, run: Any, voice: str
) -> None:
    sums = make_sums(300, verified=200)

    def lover(b: Ballot) -> str:
        return "[[A]]" if b.answer_a.startswith("It is") else "[[B]]"

    def mute(_: Ballot) -> str:
        return "?"

    voices = {"oracle": sums.oracle, "student-lover": lover, "mute": mute}
    judge = spoken(voice, voices[voice])
    rounds = _rounds(sums, seed=3)
    votes: Votes = run(vote_until(rounds, [judge], precision=0.01, alpha=0.05, progress=Silent()))
    assert votes.anytime is not None
    assert votes.anytime[1] <= 0.4 <= votes.anytime[2]
    assert votes.anytime[2] - votes.anytime[1] < 0.4
