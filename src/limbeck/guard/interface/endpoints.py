"""The allow-lists: which parameters each endpoint takes, what they must be, and which capability they need."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.guard.interface import capability as may
from limbeck.guard.interface.shapes import (
    Check,
    boolean,
    by_type,
    either,
    fields,
    free_object,
    integer,
    list_of,
    number,
    one_of,
    pairs,
    text,
)

MAX_TOKENS = 10_000_000
MAX_MESSAGES = 100_000
USUAL_TEMPERATURE = 1.0
Needs = Callable[[Any], tuple[str, ...]]
"""From a value to the capabilities that it takes."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a parameter must be, and which capabilities a value of it needs."""

    check: Check
    needs: Needs | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path of the API: its parameters, those it must have, and where a prompt's last turn is found."""

    path: str
    parameters: Mapping[str, Parameter]
    required: tuple[str, ...]
    streams: bool = True
    turns: str | None = None


def _always(capability: str) -> Needs:
    return lambda value: (capability,)


def _when_true(capability: str) -> Needs:
    return lambda value: (capability,) if value else ()


def _above(limit: float, capability: str) -> Needs:
    return lambda value: (capability,) if value > limit else ()


_string = text()
_id = text(512)
_image = fields({"url": _string, "detail": one_of("auto", "low", "high")}, ["url"])
_text_part = fields({"type": _string, "text": _string}, ["text"])
_part = by_type(
    {
        "text": _text_part,
        "image_url": fields({"type": _string, "image_url": either(_image, _string)}, ["image_url"]),
        "input_audio": fields(
            {
                "type": _string,
                "input_audio": fields({"data": _string, "format": text(16)}, ["data", "format"]),
            },
            ["input_audio"],
        ),
        "refusal": fields({"type": _string, "refusal": _string}, ["refusal"]),
    }
)
_content = either(_string, list_of(_part, 10_000))
_call = fields(
    {
        "id": _id,
        "type": one_of("function"),
        "index": integer(0, 10_000),
        "function": fields({"name": text(256), "arguments": _string}, ["name", "arguments"]),
    },
    ["function"],
)
_message = by_type(
    {
        "system": fields({"role": _string, "content": _content, "name": _id}, ["content"]),
        "developer": fields({"role": _string, "content": _content, "name": _id}, ["content"]),
        "user": fields({"role": _string, "content": _content, "name": _id}, ["content"]),
        "assistant": fields(
            {
                "role": _string,
                "content": _content,
                "name": _id,
                "refusal": _string,
                "tool_calls": list_of(_call, 1_000),
                "function_call": fields({"name": text(256), "arguments": _string}),
                "annotations": list_of(free_object, 1_000),
                "audio": fields({"id": _id}),
            }
        ),
        "tool": fields(
            {"role": _string, "content": _content, "tool_call_id": _id, "name": _id}, ["content"]
        ),
        "function": fields({"role": _string, "content": _content, "name": _id}),
    },
    key="role",
)
_PLAIN_ROLES = frozenset({"system", "developer", "user"})


def _any_message(value: Any) -> str | None:
    """Accept a message; nearly all are a role and a text, which takes no table to see."""
    if (
        type(value) is dict
        and len(value) == 2
        and type(value.get("content")) is str
        and type(role := value.get("role")) is str
        and role in _PLAIN_ROLES
    ):
        return None
    return _message(value)


_function = fields(
    {
        "name": text(256),
        "description": _string,
        "parameters": free_object,
        "strict": boolean,
    },
    ["name"],
)
_tool = by_type({"function": fields({"type": _string, "function": _function}, ["function"])})
_named = fields({"type": one_of("function"), "function": fields({"name": text(256)}, ["name"])})
_json_schema = fields(
    {"name": text(256), "description": _string, "schema": free_object, "strict": boolean}, ["name"]
)
_format = by_type(
    {
        "text": fields({"type": _string}),
        "json_object": fields({"type": _string}),
        "json_schema": fields({"type": _string, "json_schema": _json_schema}, ["json_schema"]),
    }
)
_effort = one_of("none", "minimal", "low", "medium", "high", "xhigh")
_metadata = pairs(text(512), 16)
_bias = pairs(number(-100, 100), 1_000)
_stop = either(text(1_024), list_of(text(1_024), 16))

_SAMPLING: dict[str, Parameter] = {
    "temperature": Parameter(number(0, 2), _above(USUAL_TEMPERATURE, may.TEMPERATURE)),
    "top_p": Parameter(number(0, 1)),
    "presence_penalty": Parameter(number(-2, 2)),
    "frequency_penalty": Parameter(number(-2, 2)),
    "stop": Parameter(_stop),
    "seed": Parameter(integer(-(2**63), 2**63 - 1), _always(may.SEED)),
    "n": Parameter(integer(1, 128), _above(1, may.MANY)),
    "logit_bias": Parameter(_bias, _when_true(may.LOGIT_BIAS)),
    "stream": Parameter(boolean),
    "stream_options": Parameter(fields({"include_usage": boolean, "include_obfuscation": boolean})),
    "user": Parameter(_id),
}
_model = Parameter(text(256))

CHAT = Endpoint(
    "/v1/chat/completions",
    {
        "model": _model,
        "messages": Parameter(list_of(_any_message, MAX_MESSAGES, 1)),
        **_SAMPLING,
        "max_tokens": Parameter(integer(0, MAX_TOKENS)),
        "max_completion_tokens": Parameter(integer(0, MAX_TOKENS)),
        "logprobs": Parameter(boolean, _when_true(may.LOGPROBS)),
        "top_logprobs": Parameter(integer(0, 20), _always(may.LOGPROBS)),
        "tools": Parameter(list_of(_tool, 1_000)),
        "tool_choice": Parameter(either(one_of("none", "auto", "required"), _named)),
        "parallel_tool_calls": Parameter(boolean),
        "response_format": Parameter(_format),
        "reasoning_effort": Parameter(_effort),
        "verbosity": Parameter(one_of("low", "medium", "high")),
        "modalities": Parameter(list_of(one_of("text"), 1)),
        "metadata": Parameter(_metadata),
        "store": Parameter(boolean, _when_true(may.STORED)),
        "service_tier": Parameter(text(64)),
        "safety_identifier": Parameter(_id),
        "prompt_cache_key": Parameter(_id),
    },
    ("model", "messages"),
    turns="messages",
)

COMPLETIONS = Endpoint(
    "/v1/completions",
    {
        "model": _model,
        "prompt": Parameter(
            either(
                _string,
                list_of(_string, 2_048, 1),
                list_of(integer(0, 2**31), MAX_TOKENS, 1),
                list_of(list_of(integer(0, 2**31), MAX_TOKENS, 1), 2_048, 1),
            )
        ),
        **_SAMPLING,
        "max_tokens": Parameter(integer(0, MAX_TOKENS)),
        "suffix": Parameter(_string),
        "logprobs": Parameter(integer(0, 20), _always(may.LOGPROBS)),
        "echo": Parameter(boolean, _when_true(may.ECHO)),
        "best_of": Parameter(integer(1, 128), _above(1, may.BEST_OF)),
    },
    ("model", "prompt"),
)

EMBEDDINGS = Endpoint(
    "/v1/embeddings",
    {
        "model": _model,
        "input": COMPLETIONS.parameters["prompt"],
        "encoding_format": Parameter(one_of("float", "base64")),
        "dimensions": Parameter(integer(1, 1_000_000)),
        "user": Parameter(_id),
    },
    ("model", "input"),
    streams=False,
)

_said = by_type(
    {
        "input_text": _text_part,
        "output_text": fields(
            {
                "type": _string,
                "text": _string,
                "annotations": list_of(free_object, 1_000),
                "logprobs": list_of(free_object, 0),
            },
            ["text"],
        ),
        "refusal": fields({"type": _string, "refusal": _string}, ["refusal"]),
        "input_image": fields(
            {
                "type": _string,
                "image_url": _string,
                "file_id": _id,
                "detail": one_of("auto", "low", "high"),
            }
        ),
    }
)
_status = text(32)
_turn = fields(
    {
        "type": one_of("message"),
        "id": _id,
        "status": _status,
        "role": one_of("user", "assistant", "system", "developer"),
        "content": either(_string, list_of(_said, 10_000)),
    },
    ["role", "content"],
)
_items = by_type(
    {
        "message": _turn,
        "function_call": fields(
            {
                "type": _string,
                "id": _id,
                "call_id": _id,
                "name": text(256),
                "arguments": _string,
                "status": _status,
            },
            ["call_id", "name", "arguments"],
        ),
        "function_call_output": fields(
            {
                "type": _string,
                "id": _id,
                "call_id": _id,
                "output": either(_string, list_of(_said, 10_000)),
                "status": _status,
            },
            ["call_id", "output"],
        ),
    }
)


def _item(value: Any) -> str | None:
    """Accept an item of a response's input; a turn may leave out that it is a message."""
    untyped = type(value) is dict and "type" not in value
    return _turn(value) if untyped else _items(value)


_INCLUDED = {
    "message.output_text.logprobs": may.LOGPROBS,
    "reasoning.encrypted_content": may.REASONING,
}


def _included(value: list[str]) -> tuple[str, ...]:
    return tuple(_INCLUDED[one] for one in value)


RESPONSES = Endpoint(
    "/v1/responses",
    {
        "model": _model,
        "input": Parameter(either(_string, list_of(_item, MAX_MESSAGES, 1))),
        "instructions": Parameter(_string),
        "max_output_tokens": Parameter(integer(1, MAX_TOKENS)),
        "max_tool_calls": Parameter(integer(1, 10_000)),
        "temperature": _SAMPLING["temperature"],
        "top_p": _SAMPLING["top_p"],
        "top_logprobs": Parameter(integer(0, 20), _always(may.LOGPROBS)),
        "stream": _SAMPLING["stream"],
        "stream_options": Parameter(fields({"include_obfuscation": boolean})),
        "tools": Parameter(
            list_of(
                by_type(
                    {
                        "function": fields(
                            {
                                "type": _string,
                                "name": text(256),
                                "description": _string,
                                "parameters": free_object,
                                "strict": boolean,
                            },
                            ["name"],
                        )
                    }
                ),
                1_000,
            )
        ),
        "tool_choice": Parameter(
            either(
                one_of("none", "auto", "required"),
                fields({"type": one_of("function"), "name": text(256)}, ["type", "name"]),
            )
        ),
        "parallel_tool_calls": Parameter(boolean),
        "text": Parameter(
            fields(
                {
                    "format": by_type(
                        {
                            "text": fields({"type": _string}),
                            "json_object": fields({"type": _string}),
                            "json_schema": fields(
                                {
                                    "type": _string,
                                    "name": text(256),
                                    "description": _string,
                                    "schema": free_object,
                                    "strict": boolean,
                                },
                                ["name", "schema"],
                            ),
                        }
                    ),
                    "verbosity": one_of("low", "medium", "high"),
                }
            )
        ),
        "reasoning": Parameter(
            fields({"effort": _effort, "summary": one_of("auto", "concise", "detailed")}),
            lambda value: (may.REASONING,) if value.get("summary") else (),
        ),
        "include": Parameter(list_of(one_of(*_INCLUDED), len(_INCLUDED)), _included),
        "metadata": Parameter(_metadata),
        "store": Parameter(boolean, _when_true(may.STORED)),
        "previous_response_id": Parameter(_id, _always(may.STORED)),
        "truncation": Parameter(one_of("auto", "disabled")),
        "service_tier": Parameter(text(64)),
        "user": Parameter(_id),
        "safety_identifier": Parameter(_id),
        "prompt_cache_key": Parameter(_id),
    },
    ("model", "input"),
    turns="input",
)

ENDPOINTS = {one.path: one for one in (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)}
