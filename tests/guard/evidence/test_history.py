import numpy as np

from limbeck.guard.evidence.calibration import LEANS, Scorer
from limbeck.guard.evidence.checkpoints import POINTS
from limbeck.guard.evidence.history import Recorder
from limbeck.guard.features import NAMES

K, F = len(POINTS), len(NAMES)
SCORER = Scorer(
    np.eye(1, F)[None, :, :],
    np.full((1, F), 99.0),
    np.zeros((K, 1, 1)),
    np.ones((K, 1, 1)),
    np.zeros(1),
)
"""The score is the first feature."""


def vector(score: float) -> np.ndarray:
    feature_F = np.zeros(F)
    feature_F[0] = score
    return feature_F


def played() -> Recorder:
    recorder = Recorder()
    recorder.own("a", 0, vector(LEANS + 1.0))
    recorder.own("b", 0, vector(LEANS - 0.5))
    recorder.shared("pool", 0, vector(3.0))
    recorder.touch("a", "pool")
    recorder.touch("b", "pool")
    recorder.shared("pool", 1, vector(9.0))
    recorder.touch("b", "pool")
    recorder.own("b", 1, vector(LEANS + 0.5))
    recorder.touch("b", "pool")
    recorder.shared("pool", 2, vector(4.0))
    return recorder


def test_an_account_is_lifted_only_while_it_leans_and_only_by_what_it_was_weighed_with() -> None:
    histories = played().histories(("b", "never", "a"))
    alone_ARJ, through_ARJ = histories.peaks({"own": SCORER, "shared": SCORER}, np.array([True]))
    assert alone_ARJ[:, 0, 0].tolist() == [LEANS + 0.5, -np.inf, LEANS + 1.0]
    assert through_ARJ[:, 0, 0].tolist() == [9.0, -np.inf, 3.0]


def test_clusters_that_are_not_chosen_lift_nobody() -> None:
    histories = played().histories(("a", "b"))
    _, through_ARJ = histories.peaks({"own": SCORER, "shared": SCORER}, np.array([False]))
    assert np.all(through_ARJ == -np.inf)


def test_nothing_recorded_is_nothing_to_score() -> None:
    histories = Recorder().histories(("a",))
    alone_ARJ, _ = histories.peaks({"own": SCORER, "shared": SCORER}, np.zeros(0, bool))
    assert np.all(alone_ARJ == -np.inf)
