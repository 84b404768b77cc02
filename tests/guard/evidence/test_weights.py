import numpy as np

from limbeck.guard.evidence.weights import direction
from limbeck.guard.features import NAMES, SENSE

F = len(NAMES)


def rows(rng: np.random.Generator, n: int, **means: float) -> np.ndarray:
    found = rng.uniform(0.45, 0.55, (n, F))
    for name, mean in means.items():
        found[:, NAMES.index(name)] = rng.uniform(mean - 0.1, mean + 0.1, n)
    return found


def learn(honest: np.ndarray, copying: np.ndarray) -> np.ndarray:
    return direction(honest, np.ones(len(honest)), copying, np.ones(len(copying)))


def test_a_signal_that_tells_them_apart_in_its_own_direction_counts_most() -> None:
    rng = np.random.default_rng(0)
    weight_F = learn(rows(rng, 200, logprobs=0.1), rows(rng, 200, logprobs=0.9))
    assert int(np.abs(weight_F).argmax()) == NAMES.index("logprobs")
    assert weight_F[NAMES.index("logprobs")] > 0


def test_no_signal_ever_counts_against_its_direction() -> None:
    rng = np.random.default_rng(1)
    weight_F = learn(
        rows(rng, 200, logprobs=0.9, dependent=0.1), rows(rng, 200, logprobs=0.1, dependent=0.9)
    )
    assert (weight_F * np.array(SENSE) >= 0).all()
    assert weight_F[NAMES.index("logprobs")] == 0
    assert weight_F[NAMES.index("dependent")] == 0


def test_heavier_rows_count_for_more() -> None:
    rng = np.random.default_rng(2)
    honest = rows(rng, 100, rubric=0.1)
    copying = np.concatenate([rows(rng, 50, rubric=0.9), rows(rng, 50, rubric=0.1)])
    equal = direction(honest, np.ones(100), copying, np.ones(100))
    first = direction(honest, np.ones(100), copying, np.r_[np.ones(50), np.full(50, 0.01)])
    at = NAMES.index("rubric")
    assert first[at] > equal[at] > 0
