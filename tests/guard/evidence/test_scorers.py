import numpy as np

from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.evidence.history import Rows
from limbeck.guard.evidence.scorers import against, caps, stack
from limbeck.guard.features import NAMES, SENSE

F = len(NAMES)


def rows(rng: np.random.Generator, owners: int, first: float) -> Rows:
    owner_N = np.repeat(np.arange(owners), 4)
    feature_NF = rng.uniform(0.4, 0.6, (len(owner_N), F))
    feature_NF[:, NAMES.index("elicited")] = rng.uniform(first - 0.05, first + 0.05, len(owner_N))
    return Rows(owner_N, np.tile(np.arange(4), owners), feature_NF)


def test_a_score_is_in_spreads_of_the_least_favourable_family() -> None:
    rng = np.random.default_rng(0)
    honest, copying = rows(rng, 40, 0.1), rows(rng, 40, 0.8)
    family_O = np.arange(40) % 2
    honest.feature_NF[family_O[honest.owner_N] == 1, NAMES.index("elicited")] += 0.2
    part = against(honest, family_O, np.ones(40, bool), [copying], seed=0)
    scorer = stack([part], caps([copying]))
    assert scorer.weight_RJF.shape == (1, 1, F)
    assert scorer.centre_KRJ.shape == (len(POINTS), 1, 1)
    score_N = scorer.rows(honest.place_N, honest.feature_NF)[:, 0, 0]
    favourable = score_N[family_O[honest.owner_N] == 0].mean()
    least = score_N[family_O[honest.owner_N] == 1].mean()
    assert abs(least) < 0.3
    assert favourable < least
    assert scorer.rows(copying.place_N, copying.feature_NF).mean() > 2


def test_caps_lie_at_nine_in_ten_in_the_direction_of_each_sense() -> None:
    rng = np.random.default_rng(1)
    copying = rows(rng, 50, 0.5)
    cap_JF = caps([copying])
    beyond_F = ((copying.feature_NF - cap_JF[0]) * np.array(SENSE) > 0).mean(axis=0)
    assert np.all(np.abs(beyond_F - 0.1) <= 0.01)


def test_the_same_seed_learns_the_same() -> None:
    rng = np.random.default_rng(2)
    honest, copying = rows(rng, 30, 0.1), rows(rng, 30, 0.8)
    args = (honest, np.zeros(30, int), np.ones(30, bool), [copying])
    one, other = against(*args, seed=3), against(*args, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
