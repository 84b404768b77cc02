"""How the interface is used: what reveals the distribution, steers it, or asks for as much as there is.

Honest accounts show it too: benchmark runners ask for log-probabilities to score choices and for many samples to
vote, classification pipelines bias labels, coding agents prefill, long-form writers use all tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from limbeck.guard.observation import Response
from limbeck.guard.reading import number

RICH_TOKENS = 512.0
"""Answer tokens that count as a full trace."""
CHARACTERS_PER_TOKEN = 4.0
LARGE_LIMIT = 2048.0
WARM = 0.7


@dataclass(frozen=True, slots=True)
class Interface:
    """Each in [0, 1]; `rich` is the answer's length as a share of a full trace, `tokens` its length."""

    logprobs: float
    logit_bias: float
    many: float
    prefill: float
    saturated: float
    warm: float
    tools: float
    rich: float
    tokens: float


def interface(request: Mapping[str, Any], response: Response | None, *, prefill: bool) -> Interface:
    """Return the profile of one request."""
    limit = number(request, "max_completion_tokens", "max_tokens", "max_output_tokens")
    limit = None if limit is not None and limit < 0 else limit
    tokens = answer_tokens(response, limit)
    temperature = number(request, "temperature")
    samples = number(request, "n", "best_of") or 1.0
    top = number(request, "top_logprobs") or 0.0
    full = limit is not None and limit >= LARGE_LIMIT
    used = limit is not None and limit > 0 and tokens >= 0.95 * limit
    return Interface(
        logprobs=float(bool(request.get("logprobs")) or top > 0),
        logit_bias=float(bool(request.get("logit_bias"))),
        many=1.0 - 1.0 / max(1.0, samples),
        prefill=float(prefill),
        saturated=float(full or used),
        warm=float(temperature is None or temperature >= WARM),
        tools=float(bool(request.get("tools")) or bool(request.get("functions"))),
        rich=min(1.0, tokens / RICH_TOKENS),
        tokens=tokens,
    )


def answer_tokens(response: Response | None, limit: float | None) -> float:
    """Return how many tokens were released: counted, else estimated from text, else at most what was asked for."""
    if response is None:
        return min(limit if limit is not None else RICH_TOKENS, RICH_TOKENS)
    if response.status >= 400:
        return 0.0
    if response.completion_tokens is not None:
        return float(response.completion_tokens)
    if response.text is not None:
        return len(response.text) / CHARACTERS_PER_TOKEN
    return min(limit if limit is not None else RICH_TOKENS, RICH_TOKENS)
