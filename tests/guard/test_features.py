import hashlib
from dataclasses import replace

from limbeck.guard.features import NAMES, OF_REQUEST, SENSE, ask
from limbeck.guard.signals.suite import build
from limbeck.guard.sketch import Sketcher
from tinytraffic import compose, observation

KEY = Sketcher(b"test")


def test_every_feature_has_a_name_of_its_own_and_a_direction() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(SENSE) == {-1, 1}


def test_a_request_is_measured_in_the_order_of_its_names() -> None:
    request = {"logprobs": True, "temperature": 0}
    asked = ask(
        observation("a", 0.0, "Think step by step: what is a limbeck?", request=request), KEY, ()
    )
    value = dict(zip((name for name, _ in OF_REQUEST), asked.values, strict=True))
    assert (value["standalone"], value["reasoning"], value["logprobs"], value["warm"]) == (
        1,
        1,
        1,
        0,
    )
    assert (asked.elicits, asked.probes, asked.suite) == (1, 1, 0)


def test_the_same_words_leave_the_same_cells_whatever_case_they_have() -> None:
    one = ask(observation("a", 0.0, "Copper kettles shine on the shelf."), KEY, ())
    other = ask(observation("b", 9.0, "copper KETTLES shine, on the shelf"), KEY, ())
    assert (one.cells, one.topics, one.sample) == (other.cells, other.topics, other.sample)


def test_known_suites_are_hit() -> None:
    item = "Copper kettles shine on the shelf while the still is warm and drips."
    suite = build("s", [item], KEY)
    assert ask(observation("a", 0.0, item), KEY, [suite]).suite == 1.0


def test_an_empty_request_is_measured_too() -> None:
    asked = ask(observation("a", 0.0, ""), KEY, ())
    assert (asked.cells, asked.topics) == ((), ())


GOLDEN = "87b0a245883bade1ef07895a7a24c8263b18014a3e6d389117fe76d7acb35391"
"""Of 2,720 requests, taken before their measuring was made cheaper: calibrations rest on these numbers."""
ENDINGS = (
    "", " Erkläre Schritt für Schritt, ça va?", " 一步一步 explain your reasoning_steps", "\nA) x\nB) y\nAnswer:",
)  # fmt: skip


def test_what_is_measured_of_a_request_stays_the_same_to_the_bit() -> None:
    sketcher, digest, count = Sketcher(b"gold"), hashlib.sha256(), 0
    for one in compose(honest=6, campaigns=2, requests=20, seed=4).observations:
        *turns, last = one.request["messages"]
        for more in ENDINGS:
            changed = [*turns, {**last, "content": last["content"] + more}]
            asked = ask(replace(one, request={**one.request, "messages": changed}), sketcher, ())
            found = (asked.values, asked.sample, asked.topics, asked.identity, asked.tokens)
            digest.update(repr(found).encode())
            count += 1
    assert count == 2_720
    assert digest.hexdigest() == GOLDEN
