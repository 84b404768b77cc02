import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.evidence.check import Check, accused, margins

EXCESS = st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), max_size=6)


def held_out(kind: str, excess: list[tuple[float, float]]) -> list[Check]:
    return [
        Check(f"f{n}", 9, 1, {"own": np.zeros(2), "shared": np.zeros(2)} | {kind: np.array(x)})
        for n, x in enumerate(excess)
    ]


@settings(deadline=None)  # the machine may be busy
@given(EXCESS)
def test_the_margin_covers_every_family_that_was_held_out_and_as_much_again_as_the_worst_stood_out(
    excess: list[tuple[float, float]],
) -> None:
    asked = []
    for j in range(2):
        worst, next_worst = sorted([0.0, 0.0, *(x[j] for x in excess)])[:-3:-1]
        asked.append(worst + (worst - next_worst))
    own, shared = (margins(held_out(kind, excess), 2)[kind] for kind in ("own", "shared"))
    assert np.allclose(own, max(asked))
    assert np.allclose(shared, np.maximum(asked, np.mean(asked)))


def test_nothing_held_out_asks_for_no_margin() -> None:
    assert all(np.all(margin_J == 0) for margin_J in margins([], 3).values())


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
