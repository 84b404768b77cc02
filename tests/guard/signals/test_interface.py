from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.observation import Response
from limbeck.guard.signals.interface import RICH_TOKENS, answer_tokens, interface

VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.floats(allow_nan=False)
    | st.text(max_size=3)
)
FIELDS = (
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "n",
    "best_of",
    "temperature",
    "max_tokens",
    "tools",
)


def test_an_ordinary_request_only_is_warm() -> None:
    found = interface({}, Response(text="x" * 40), prefill=False)
    assert (
        found.logprobs,
        found.logit_bias,
        found.many,
        found.prefill,
        found.saturated,
        found.tools,
    ) == (0,) * 6
    assert (found.warm, found.tokens) == (1.0, 10.0)


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 5}, "logprobs"),
        ({"logit_bias": {"7": 100}}, "logit_bias"),
        ({"max_tokens": 4096}, "saturated"),
        ({"max_completion_tokens": 10}, "saturated"),
        ({"functions": [{}]}, "tools"),
    ],
)
def test_what_reveals_or_steers_is_seen(request_: dict[str, Any], name: str) -> None:
    assert getattr(interface(request_, Response(completion_tokens=10), prefill=True), name) == 1.0


def test_many_samples_count_towards_one() -> None:
    assert interface({"n": 4}, None, prefill=False).many == 0.75


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(FIELDS), VALUE), st.booleans())
def test_every_number_stays_in_its_range_whatever_is_sent(
    body: dict[str, Any], prefill: bool
) -> None:
    found = interface(body, None, prefill=prefill)
    for name in ("logprobs", "logit_bias", "many", "prefill", "saturated", "warm", "tools", "rich"):
        assert 0.0 <= getattr(found, name) <= 1.0
    assert found.tokens >= 0.0


def test_tokens_are_counted_estimated_or_taken_from_the_limit() -> None:
    assert answer_tokens(Response(text="x" * 8, completion_tokens=3), 9) == 3
    assert answer_tokens(Response(text="x" * 8), 9) == 2
    assert answer_tokens(None, 9) == 9
    assert answer_tokens(None, None) == RICH_TOKENS
    assert answer_tokens(Response(text="x", status=429), 9) == 0
