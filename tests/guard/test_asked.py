import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import GuardError
from limbeck.guard.asked import Measured, from_values, to_values
from limbeck.guard.policy import load_policy
from limbeck.guard.traffic import from_observation, to_observation
from limbeck.guard.watch import Watch
from tinytraffic import compose, observation

WATCH = Watch(load_policy(), secret=b"s")
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text(max_size=60) | st.none()}
)  # fmt: skip
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)  # fmt: skip
BODIES = st.dictionaries(
    st.sampled_from(["messages", "input", "prompt", "instructions", "max_tokens", "temperature", "n", "top_logprobs", "logprobs", "tools", "logit_bias"]),
    st.lists(TURN, max_size=6) | VALUE,
    max_size=6,
)  # fmt: skip


def measured() -> Measured:
    return WATCH.measure(observation("a", 1.0, "What is a limbeck, and who made the first one?"))


@given(BODIES)
def test_whatever_was_asked_a_line_holds_what_was_measured_of_it(body: dict[str, Any]) -> None:
    found = WATCH.measure(observation("a", 1.0, "", request=body))
    assert from_values(json.loads(json.dumps(to_values(found)))) == found


@given(BODIES)
def test_no_feature_of_a_request_leaves_0_to_1(body: dict[str, Any]) -> None:
    asked = WATCH.measure(observation("a", 1.0, "", request=body)).asked
    assert all(0.0 <= value <= 1.0 for value in asked.values)


def test_empty_frames_do_not_add_up_to_honesty() -> None:
    turns = [{"role": "system", "content": ""}] * 1000 + [{"role": "user", "content": "x"}]
    asked = WATCH.measure(observation("a", 1.0, "", request={"messages": turns})).asked
    assert max(asked.values) == 1.0


def test_a_watch_decides_on_measured_lines_as_on_the_texts_themselves() -> None:
    texts, numbers = (Watch(load_policy(), secret=b"s") for _ in range(2))
    for one in compose(honest=1, campaigns=1).observations:
        line = from_observation(one)
        expected = texts.observe(to_observation(line))
        line["measured"] = to_values(texts.measure(one))
        del line["request"]
        assert numbers.observe(to_observation(line)) == expected


def test_what_was_measured_under_another_secret_is_refused() -> None:
    line = from_observation(observation("a", 1.0, "hello"))
    line["measured"] = to_values(measured())
    del line["request"]
    with pytest.raises(GuardError, match="name the guard's folder"):
        Watch(load_policy(), secret=b"other").observe(to_observation(line))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key": 1}, "measured.key"),
        ({"values": {"guilt": 1.0}}, "'guilt'"),
        ({"values": {"rich": 2}}, "values.rich"),
        ({"values": {"rich": True}}, "values.rich"),
        ({"values": []}, "measured.values"),
        ({"sample": [1] * 9}, "measured.sample"),
        ({"sample": [-1]}, "measured.sample"),
        ({"topics": ["a"]}, "measured.topics"),
        ({"identity": None}, "measured.identity"),
        ({"tokens": "9"}, "measured.tokens"),
        ({"more": 1}, "'more'"),
    ],
)
def test_a_line_that_is_none_says_what_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(GuardError, match=said):
        from_values({**to_values(measured()), **changes})
