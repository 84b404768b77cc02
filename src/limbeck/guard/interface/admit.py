"""Whether a request may go to the upstream, and with which bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from limbeck.guard.interface import capability as may
from limbeck.guard.interface.body import MAX_DEPTH
from limbeck.guard.interface.endpoints import COMPLETIONS, EMBEDDINGS, Endpoint, Parameter
from limbeck.guard.refusal import Refusal, wrong

Handling = Literal["refuse", "drop"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as clients name it: its name upstream, and whether its answers begin inside its reasoning."""

    name: str
    upstream: str
    starts_thinking: bool = False


@dataclass(frozen=True, slots=True)
class Sealing:
    """How strictly the interface is sealed.

    `unknown` is for parameters that no list has, `beyond_plan` for those that the plan does not grant.
    `extra` adds parameters of one's own upstream, by path and name. A bias on tokens together with their
    log-probabilities reveals the model's output layer (Carlini et al. 2024, arXiv 2403.06634), so only
    `bias_with_logprobs` allows it, whatever the plan.
    """

    unknown: Handling = "refuse"
    beyond_plan: Handling = "refuse"
    extra: Mapping[str, Mapping[str, Parameter]] = field(default_factory=dict)
    bias_with_logprobs: bool = False
    max_depth: int = MAX_DEPTH


class Admitted(NamedTuple):
    """A request that may go on: `body` is what the upstream reads, byte for byte the caller's unless changed.

    `removed` names the parameters that were taken out. `lead` is what the caller wrote of the answer.
    """

    endpoint: Endpoint
    model: ServedModel
    request: dict[str, Any]
    body: bytes
    stream: bool
    removed: tuple[str, ...]
    lead: tuple[str, ...]


def admit(
    endpoint: Endpoint,
    raw: bytes,
    request: dict[str, Any],
    granted: frozenset[str],
    models: Mapping[str, ServedModel],
    sealing: Sealing,
) -> Admitted | Refusal:
    """Return the request as it may go on, or why it may not. Unknown models and parameters do not.

    `raw` is the body that `request` was parsed from.
    """
    for name in endpoint.required:
        if request.get(name) is None:
            return Refusal(400, "missing_parameter", f"{name} must be given", name)
    extra = sealing.extra.get(endpoint.path)
    judged = _judge(request, endpoint, extra, granted, sealing)
    if isinstance(judged, Refusal):
        return judged
    removed = judged
    model = models.get(request["model"])
    if model is None:
        return Refusal(
            404,
            "model_not_found",
            f"model {request['model'][:64]!r} is not served here; GET /v1/models lists those that are",
            "model",
        )
    lead = _lead(request, endpoint, granted)
    if isinstance(lead, Refusal):
        return lead
    body = raw
    if removed or model.upstream != model.name:
        sent = {key: value for key, value in request.items() if key not in removed}
        sent["model"] = model.upstream
        body = orjson.dumps(sent)
        request = {**sent, "model": model.name}
    return Admitted(
        endpoint,
        model,
        request,
        body,
        endpoint.streams and request.get("stream") is True,
        tuple(removed),
        lead,
    )


def _judge(
    request: dict[str, Any],
    endpoint: Endpoint,
    extra: Mapping[str, Parameter] | None,
    granted: frozenset[str],
    sealing: Sealing,
) -> list[str] | Refusal:
    """Return the parameters to leave out, or why the request is refused."""
    removed: list[str] = []
    used: set[str] = set()
    known = endpoint.parameters
    for name, value in request.items():
        parameter = known.get(name) or (extra.get(name) if extra else None)
        if parameter is None:
            if sealing.unknown == "refuse":
                return Refusal(
                    400,
                    "unknown_parameter",
                    f"{name[:64]!r} is not a parameter of {endpoint.path} here",
                    name[:64],
                )
            removed.append(name)
            continue
        if value is None:
            continue
        right = parameter.check(value)
        if right is not None:
            return wrong(name, right)
        if parameter.needs is None:
            continue
        needed = parameter.needs(value)
        if granted.issuperset(needed):
            used.update(needed)
        elif sealing.beyond_plan == "refuse":
            return _not_granted(name, needed, granted)
        else:
            removed.append(name)
    if may.LOGIT_BIAS in used and may.LOGPROBS in used and not sealing.bias_with_logprobs:
        return Refusal(
            400,
            "logit_bias_with_logprobs",
            "logit_bias and log-probabilities cannot be asked for in one request here",
            "logit_bias",
        )
    return removed


def _not_granted(name: str, needed: tuple[str, ...], granted: frozenset[str]) -> Refusal:
    missing = next(one for one in needed if one not in granted)
    return Refusal(
        403,
        "not_in_plan",
        f"this value of {name} needs {missing!r}, which your plan does not include: "
        f"{may.CAPABILITIES[missing]}",
        name,
        "permission_error",
    )


def _lead(
    request: dict[str, Any], endpoint: Endpoint, granted: frozenset[str]
) -> tuple[str, ...] | Refusal:
    """Return the text after which the answer goes on, where the caller wrote some of it."""
    if endpoint.turns is not None:
        turns = request[endpoint.turns]
        last = turns[-1] if type(turns) is list else None
        if last is None or last.get("role") != "assistant":
            return ()
        if may.PREFILL not in granted:
            return Refusal(
                403,
                "not_in_plan",
                "a last message from the assistant needs 'prefill', which your plan does not include: "
                f"{may.CAPABILITIES[may.PREFILL]}",
                endpoint.turns,
                "permission_error",
            )
        content = last.get("content")
        if type(content) is list:
            return ("".join(part.get("text", "") for part in content),)
        return (content or "",)
    if endpoint is EMBEDDINGS:
        return ()
    prompt = request[COMPLETIONS.required[1]]
    prompts = prompt if type(prompt) is list else [prompt]
    if any(type(one) is not str for one in prompts):
        if may.REASONING in granted:
            return ()
        return wrong(
            "prompt",
            "text: your plan does not include 'reasoning', and token ids hide where it begins",
        )
    return tuple(prompts)
