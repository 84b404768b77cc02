"""One request as the guard sees it: a line of the traffic log, or a request that just passed the gateway."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from limbeck.guard.asked import Measured


@dataclass(frozen=True, slots=True)
class Response:
    """What went back, as far as it is known."""

    text: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    status: int = 200


@dataclass(frozen=True, slots=True)
class Observation:
    """One request of one account, with what came back.

    `ts` is in seconds since 1970-01-01 UTC, as the gateway's clock or the log says; it may jump. `request`
    is the parsed OpenAI body. Links (`ip`, `asn`, `user_agent`, `payment`) are empty where unknown.
    """

    ts: float
    account: str
    org: str
    model: str
    endpoint: str
    request: Mapping[str, Any]
    ip: str = ""
    asn: str = ""
    user_agent: str = ""
    payment: str = ""
    response: Response | None = None
    declared_use: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    measured: Measured | None = None
    """What was measured of the request when it came, where its text is not kept; `request` is empty then."""
