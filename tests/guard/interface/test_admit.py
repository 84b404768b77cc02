"""What may go to the upstream: the list, the plan, the bytes."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.interface.admit import Admitted, Sealing, ServedModel, admit
from limbeck.guard.interface.body import parse
from limbeck.guard.interface.capability import CAPABILITIES
from limbeck.guard.interface.endpoints import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    ENDPOINTS,
    RESPONSES,
    Endpoint,
    Parameter,
)
from limbeck.guard.interface.shapes import integer
from limbeck.guard.refusal import Refusal

MODELS = {"m": ServedModel("m", "m"), "alias": ServedModel("alias", "real")}
NOTHING: frozenset[str] = frozenset()
ALL = frozenset(CAPABILITIES)
HELLO = [{"role": "user", "content": "Hello"}]


def tried(
    request: dict[str, Any],
    granted: frozenset[str] = NOTHING,
    sealing: Sealing | None = None,
    at: Endpoint = CHAT,
) -> Admitted | Refusal:
    return entered(at, orjson.dumps(request), granted, sealing or Sealing())


def entered(
    at: Endpoint, raw: bytes, granted: frozenset[str], sealing: Sealing
) -> Admitted | Refusal:
    request = parse(raw)
    return (
        request
        if isinstance(request, Refusal)
        else admit(at, raw, request, granted, MODELS, sealing)
    )


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HELLO, **more}


def admitted(result: Admitted | Refusal) -> Admitted:
    assert isinstance(result, Admitted), result
    return result


def refused(result: Admitted | Refusal) -> Refusal:
    assert isinstance(result, Refusal), result
    return result


def test_what_is_allowed_goes_on_byte_for_byte() -> None:
    raw = b' {"messages" : [{"role":"user","content":"\\u0048i \xc3\xa9"}],\n"model":"m", "temperature":0.70 } '
    assert admitted(entered(CHAT, raw, NOTHING, Sealing())).body is raw


def test_an_agents_whole_conversation_is_allowed() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    request = chat(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "anna", "content": [
                {"type": "text", "text": "See"},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "x": [1, {"y": None}]}}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": 1}, "strict": True}},
        stream=True, stream_options={"include_usage": True}, stop=["\n"], max_tokens=5, user="u", top_p=1,
    )  # fmt: skip
    result = admitted(tried(request))
    assert result.stream
    assert orjson.loads(result.body) == request


@settings(deadline=None)
@given(st.text(min_size=1).filter(lambda name: name not in CHAT.parameters and name.isprintable()))
def test_a_parameter_that_is_not_on_the_list_never_goes_on(name: str) -> None:
    assert refused(tried(chat(**{name: 1}))).code == "unknown_parameter"
    dropped = admitted(tried(chat(**{name: 1}), sealing=Sealing(unknown="drop")))
    assert orjson.loads(dropped.body) == chat()
    assert dropped.removed == (name,)


BEYOND = [
    (CHAT, {"logprobs": True}, "logprobs"),
    (CHAT, {"top_logprobs": 0}, "logprobs"),
    (CHAT, {"logit_bias": {"1": 5}}, "logit_bias"),
    (CHAT, {"n": 2}, "n"),
    (CHAT, {"seed": 1}, "seed"),
    (CHAT, {"temperature": 1.3}, "temperature"),
    (CHAT, {"store": True}, "stored"),
    (CHAT, {"messages": [*HELLO, {"role": "assistant", "content": "Sure, "}]}, "prefill"),
    (COMPLETIONS, {"logprobs": 0}, "logprobs"),
    (COMPLETIONS, {"echo": True}, "echo"),
    (COMPLETIONS, {"best_of": 2}, "best_of"),
    (RESPONSES, {"include": ["message.output_text.logprobs"]}, "logprobs"),
    (RESPONSES, {"include": ["reasoning.encrypted_content"]}, "reasoning"),
    (RESPONSES, {"reasoning": {"summary": "auto"}}, "reasoning"),
    (RESPONSES, {"previous_response_id": "r"}, "stored"),
    (RESPONSES, {"input": [*HELLO, {"role": "assistant", "content": "Sure"}]}, "prefill"),
]


def least(endpoint: Endpoint) -> dict[str, Any]:
    """The smallest request that an endpoint takes."""
    return {
        "model": "m",
        **{name: HELLO if name == "messages" else "Hi" for name in endpoint.required[1:]},
    }


@pytest.mark.parametrize(("endpoint", "asked", "capability"), BEYOND)
def test_each_capability_opens_its_parameter_and_nothing_else_does(
    endpoint: Endpoint, asked: dict[str, Any], capability: str
) -> None:
    request = {**least(endpoint), **asked}
    without = refused(tried(request, ALL - {capability}, at=endpoint))
    assert without.code == "not_in_plan"
    assert repr(capability) in without.message
    assert orjson.loads(admitted(tried(request, ALL, at=endpoint)).body) == request


@pytest.mark.parametrize("handling", ["refuse", "drop"])
def test_a_bias_beside_log_probabilities_is_refused_in_every_plan(handling: Any) -> None:
    sealing = Sealing(unknown=handling, beyond_plan=handling)
    for more in ({"logprobs": True}, {"top_logprobs": 5}, {"logprobs": True, "top_logprobs": 1}):
        assert (
            refused(tried(chat(logit_bias={"1": 1}, **more), ALL, sealing)).code
            == "logit_bias_with_logprobs"
        )
    legacy = {**least(COMPLETIONS), "logit_bias": {"1": 1}, "logprobs": 1}
    assert refused(tried(legacy, ALL, sealing, COMPLETIONS)).code == "logit_bias_with_logprobs"


def test_only_the_operator_can_allow_a_bias_beside_log_probabilities() -> None:
    assert admitted(
        tried(chat(logit_bias={"1": 1}, logprobs=True), ALL, Sealing(bias_with_logprobs=True))
    )


def test_what_the_plan_lacks_is_left_out_where_so_configured() -> None:
    result = admitted(
        tried(chat(logprobs=True, top_logprobs=3, n=4), sealing=Sealing(beyond_plan="drop"))
    )
    assert orjson.loads(result.body) == chat()
    assert result.removed == ("logprobs", "top_logprobs", "n")


def test_an_unknown_model_is_refused_and_an_alias_is_renamed() -> None:
    assert refused(tried({"model": "real", "messages": HELLO})).code == "model_not_found"
    result = admitted(tried({"model": "alias", "messages": HELLO}))
    assert orjson.loads(result.body)["model"] == "real"
    assert result.request["model"] == "alias"


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": "0"}, {"temperature": True}, {"temperature": -0.1}, {"temperature": 2.1}, {"n": 0}, {"n": 1.0},
        {"stream": "true"}, {"stream": 1}, {"max_tokens": -1}, {"messages": []}, {"messages": "Hi"},
        {"messages": [{"role": "wizard", "content": "x"}]}, {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "cache": 1}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video", "text": "x"}]}]},
        {"tools": [{"type": "web_search"}]}, {"logit_bias": {"1": 101}}, {"logit_bias": [1]}, {"stop": [1]},
        {"response_format": {"type": "grammar"}}, {"metadata": {"a": 1}}, {"stream_options": {"x": 1}},
        {"top_logprobs": 21}, {"reasoning_effort": "endless"}, {"modalities": ["audio"]},
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused_by_name(bad: dict[str, Any]) -> None:
    refusal = refused(tried(chat(**bad), ALL))
    assert refusal.code == "invalid_value"
    assert refusal.param == next(iter(bad))


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda e: e.path)
def test_null_is_as_good_as_absent_except_where_a_value_must_be(endpoint: Endpoint) -> None:
    nulls = dict.fromkeys(endpoint.parameters, None)
    assert admitted(tried({**nulls, **least(endpoint)}, at=endpoint))
    for name in endpoint.required:
        assert (
            refused(tried({**least(endpoint), name: None}, at=endpoint)).code == "missing_parameter"
        )


def test_the_operator_can_add_a_parameter_of_his_upstream() -> None:
    sealing = Sealing(extra={CHAT.path: {"top_k": Parameter(integer(1, 100))}})
    assert admitted(tried(chat(top_k=5), sealing=sealing)).body == orjson.dumps(chat(top_k=5))
    assert refused(tried(chat(top_k=500), sealing=sealing)).param == "top_k"
    assert (
        refused(tried({**least(COMPLETIONS), "top_k": 5}, sealing=sealing, at=COMPLETIONS)).param
        == "top_k"
    )


def test_the_text_that_an_answer_goes_on_from_is_known() -> None:
    begun = chat(messages=[*HELLO, {"role": "assistant", "content": "<think>"}])
    assert admitted(tried(begun, ALL)).lead == ("<think>",)
    assert admitted(tried({"model": "m", "prompt": ["a", "b"]}, at=COMPLETIONS)).lead == ("a", "b")
    assert admitted(tried(chat())).lead == ()


def test_token_ids_hide_where_reasoning_begins_and_need_it_in_the_plan() -> None:
    for prompt in ([1, 2], [[1], [2]]):
        request = {"model": "m", "prompt": prompt}
        assert refused(tried(request, at=COMPLETIONS)).param == "prompt"
        assert admitted(tried(request, ALL, at=COMPLETIONS))
        assert admitted(tried({"model": "m", "input": prompt}, at=EMBEDDINGS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(sorted(ENDPOINTS)), st.data(), st.booleans(), st.booleans())
def test_whatever_is_asked_only_listed_parameters_go_on(
    path: str, data: st.DataObject, everything: bool, drop: bool
) -> None:
    import json

    endpoint = ENDPOINTS[path]
    request = {
        **least(endpoint),
        **data.draw(
            st.dictionaries(
                st.sampled_from(sorted(endpoint.parameters))
                | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
                JSON,
                max_size=6,
            )
        ),
    }
    handling = "drop" if drop else "refuse"
    raw = json.dumps(request).encode()
    result = entered(endpoint, raw, ALL if everything else NOTHING, Sealing(handling, handling))
    if isinstance(result, Admitted):
        assert orjson.loads(result.body).keys() <= endpoint.parameters.keys()
        assert result.body is raw or result.removed or result.model.name != result.model.upstream
