import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from limbeck.errors import JudgeError
from limbeck.validate.judge.bradley_terry import Match, bradley_terry, fit

WINS = np.array([[0, 7, 9, 4], [3, 0, 6, 5], [1, 4, 0, 2], [6, 5, 8, 0]], dtype=np.float64)
MODELS = ("teacher", "student", "start", "damaged")


def _matches(wins: np.ndarray = WINS) -> list[Match]:
    """Return one prompt a comparison."""
    played: list[Match] = []
    for i, j in itertools.permutations(range(len(wins)), 2):
        for game in range(int(wins[i, j])):
            played.append(Match(f"{i}{j}{game}", MODELS[i], MODELS[j], 1.0))
    return played


def test_strengths_are_those_of_choix() -> None:
    # choix 0.4.1 on WINS: opt_pairwise with alpha 0.01, whose penalty is alpha sum s^2, and mm_pairwise without one.
    penalised = [0.5584660565, -0.0984296873, -0.9059009563, 0.4458645872]
    plain = [0.5600405363, -0.0986046426, -0.9085572079, 0.4471213143]
    assert fit(WINS[None], 0.02)[0] == pytest.approx(penalised, abs=1e-7)
    assert fit(WINS[None], 1e-9)[0] == pytest.approx(plain, abs=1e-5)


@settings(deadline=None)  # the machine may be busy
@given(seed=st.integers(0, 300), models=st.integers(2, 6))
def test_strengths_are_where_scipy_finds_the_least_loss(seed: int, models: int) -> None:
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 30, (models, models)) / 2.0
    np.fill_diagonal(wins, 0)

    def loss(score: np.ndarray) -> float:
        p = expit(score[:, None] - score[None, :])
        return float(-(wins * np.log(p)).sum() + 0.005 * score @ score)

    ours = fit(wins[None], 0.01)[0]
    best = minimize(loss, np.zeros(models), method="BFGS", options={"gtol": 1e-8})
    assert loss(ours) <= best.fun + 1e-9
    assert ours.sum() == pytest.approx(0, abs=1e-6)


def test_many_tables_are_fitted_as_each_by_itself() -> None:
    lopsided = np.array([[0, 99, 99, 99], [1, 0, 0, 0], [0, 0, 0, 50], [0, 0, 0, 0.0]])
    tables = np.stack([WINS, WINS.T, 40 * WINS, lopsided])
    both = fit(tables)
    for table, score in zip(tables, both, strict=True):
        assert score == pytest.approx(fit(table[None])[0], abs=1e-6)


def test_turning_every_match_around_changes_nothing() -> None:
    turned = [Match(m.prompt, m.right, m.left, 1 - m.share) for m in _matches()]
    assert bradley_terry(turned, seed=0, resamples=50) == bradley_terry(
        _matches(), seed=0, resamples=50
    )


def test_the_strongest_comes_first_and_lies_in_its_interval() -> None:
    ranking = bradley_terry(_matches(), seed=0, resamples=200)
    assert [s.model for s in ranking.strengths] == ["teacher", "damaged", "student", "start"]
    assert all(s.low < s.score < s.high for s in ranking.strengths)
    assert (ranking.prompts, ranking.matches) == (60, 60)


def test_ties_alone_make_equals() -> None:
    ties = [Match("p", a, b, 0.5) for a, b in itertools.combinations(MODELS, 2)]
    ranking = bradley_terry(ties, seed=0, resamples=20)
    assert [s.score for s in ranking.strengths] == pytest.approx([0] * 4)


def _votes(rng: np.random.Generator, prompts: int, votes: int) -> list[Match]:
    """Let every prompt suit the models by luck of its own, and many judges see the same luck."""
    played: list[Match] = []
    for p in range(prompts):
        suits = rng.normal(0, 2, 3) + np.array([0.4, 0.0, -0.4])
        for i, j in itertools.combinations(range(3), 2):
            chance = expit(suits[i] - suits[j])
            wins = rng.random(votes) < chance
            played += [Match(f"{p}", MODELS[i], MODELS[j], float(w)) for w in wins]
    return played


def _truth() -> np.ndarray:
    rng = np.random.default_rng(99)
    suits = rng.normal(0, 2, (200_000, 3)) + np.array([0.4, 0.0, -0.4])
    wins = expit(suits[:, :, None] - suits[:, None, :]).mean(0)
    np.fill_diagonal(wins, 0)
    return fit(wins[None] * 1000, 1e-6)[0]


def test_resampling_prompts_covers_the_truth_and_resampling_votes_does_not() -> None:
    truth: dict[str, float] = dict(zip(MODELS, _truth(), strict=False))
    rng = np.random.default_rng(5)
    covered = {"prompts": 0, "votes": 0}
    runs = 60
    for run in range(runs):
        votes = _votes(rng, prompts=60, votes=8)
        alone = [Match(f"{n}", m.left, m.right, m.share) for n, m in enumerate(votes)]
        for way, matches in (("prompts", votes), ("votes", alone)):
            ranking = bradley_terry(matches, seed=run, resamples=100, confidence=0.9)
            covered[way] += sum(s.low <= truth[s.model] <= s.high for s in ranking.strengths)
    # Over 200 runs with 300 resamples: 89% and 45% at a nominal 90%. Here, with fewer, a wide berth.
    assert covered["prompts"] / (3 * runs) > 0.78
    assert covered["votes"] / (3 * runs) < 0.65


@pytest.mark.parametrize(
    ("matches", "message"),
    [
        ([], "three models or more, got none"),
        ([Match("p", "a", "b", 1)], "got a, b"),
        ([*_matches(), Match("p", "start", "start", 1)], "start cannot be compared with itself"),
        ([*_matches(), Match("p", "start", "teacher", 1.5)], r"in \[0, 1\], got 1.5 \(prompt p\)"),
        ([*_matches(), Match("p", "start", "new", 1)], "no common scale.* new"),
    ],
    ids=["none", "two", "itself", "share", "apart"],
)
def test_comparisons_without_a_common_scale_are_refused(matches: list[Match], message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        bradley_terry(matches, seed=0)
