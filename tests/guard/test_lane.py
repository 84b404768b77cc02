from limbeck.guard.decision import Action
from limbeck.guard.features import ask
from limbeck.guard.lane import place
from limbeck.guard.memory import Memory
from limbeck.guard.policy import Lane
from limbeck.guard.signals.suite import build
from limbeck.guard.sketch import Sketcher
from tinytraffic import dice, observation, words

KEY = Sketcher(b"test")
RNG = dice(0)
ITEMS = [" ".join(words(RNG, 12)) for _ in range(40)]
SUITE = build("s", ITEMS, KEY)


def ran(texts: list[str]) -> Memory:
    memory = Memory()
    for n, text in enumerate(texts):
        memory.step(ask(observation("a", float(n), text), KEY, [SUITE]), float(n))
    return memory


def test_a_declared_evaluation_is_in_the_lane_from_its_first_request() -> None:
    found = place(Lane(), ran(["anything"]), "evaluation")
    assert found is not None
    assert found.action == Action.REDUCE
    assert found.because[0].code == "declared_use"


def test_another_declared_use_is_not() -> None:
    assert place(Lane(), ran(["anything"]), "translation") is None


def test_a_run_of_a_known_suite_is_recognised_and_mixed_traffic_is_not() -> None:
    recognised = place(Lane(), ran(ITEMS), None)
    assert recognised is not None
    assert recognised.because[0].code == "known_suite"
    mixed = [text for item in ITEMS for text in (item, " ".join(words(RNG, 12)))]
    assert place(Lane(), ran(mixed), None) is None
    assert place(Lane(), ran(ITEMS[:3]), None) is None


def test_repeats_are_bounded() -> None:
    few, many = place(Lane(), ran(ITEMS * 2), None), place(Lane(), ran(ITEMS * 30), None)
    assert few is not None
    assert many is not None
    assert "repeats_bounded" not in {reason.code for reason in few.because}
    assert "repeats_bounded" in {reason.code for reason in many.because}
