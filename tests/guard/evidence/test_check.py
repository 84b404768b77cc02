import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from limbeck.guard.evidence.check import Check, accused, margins

EXCESS = st.lists(st.floats(0, 9), max_size=6)


def held_out(excess: list[float]) -> list[Check]:
    return [
        Check(f"f{n}", 9, 1, {"own": np.array([x, 0.0]), "shared": np.zeros(2)})
        for n, x in enumerate(excess)
    ]


@given(EXCESS)
def test_the_margin_covers_every_family_that_was_held_out_and_as_much_again_as_the_worst_stood_out(
    excess: list[float],
) -> None:
    margin = margins(held_out(excess), 2)
    worst, next_worst = sorted([0.0, 0.0, *excess])[:-3:-1]
    assert np.allclose(margin["own"], worst + (worst - next_worst))
    assert np.all(margin["shared"] == 0)


def test_an_account_is_accused_when_it_beats_every_rival_by_any_way_but_one_left_out() -> None:
    own_ARJ = np.array(
        [[[5.0, 0.0], [5.0, 0.0]], [[5.0, 0.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 5.0]]]
    )
    watched = {"own": own_ARJ, "shared": np.full_like(own_ARJ, -100.0)}
    none = {"own": np.zeros(2), "shared": np.zeros(2)}
    limit_R = np.array([4.0, 4.0])
    assert accused(watched, none, limit_R).tolist() == [True, False, True]
    assert accused(watched, none, limit_R, 0).tolist() == [False, False, True]
    assert (
        accused(watched, {"own": np.full(2, 2.0), "shared": np.zeros(2)}, limit_R).tolist()
        == [False] * 3
    )
