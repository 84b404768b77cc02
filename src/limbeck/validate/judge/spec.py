"""How a judge is named: `NAME=URL` of any OpenAI-compatible chat endpoint."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from limbeck.errors import JudgeError

KEY_PREFIX = "LIMBECK_JUDGE_KEY_"
"""A judge's key is read from the environment variable of this name and the judge's own in capitals."""

TIMEOUT = 60.0
"""Seconds that a request may take."""

_COMPLETIONS = "/chat/completions"


@dataclass(frozen=True, slots=True)
class JudgeSpec:
    """A judge that can be reached over HTTP."""

    name: str
    """Its name in the report, and the model that the endpoint is asked for."""
    url: str
    """The whole address of the chat endpoint, ending in `/chat/completions`."""
    key: str | None = field(default=None, repr=False)
    """Bearer token; never written anywhere."""
    concurrency: int = 8
    """Requests under way at once, at the most."""
    timeout: float = TIMEOUT
    """Seconds that a request may take, above 0."""
    retries: int = 2
    """Further attempts after a failure that may pass."""
    max_tokens: int | None = 512
    """Longest reply; None sends no limit."""

    def __post_init__(self) -> None:
        for name, value, least in (
            ("concurrency", self.concurrency, 1),
            ("retries", self.retries, 0),
            ("max_tokens", 1 if self.max_tokens is None else self.max_tokens, 1),
        ):
            if value < least:
                raise JudgeError(
                    f"{name} of judge {self.name} must be at least {least}, got {value}"
                )
        if not self.timeout > 0:
            raise JudgeError(f"timeout of judge {self.name} must be above 0, got {self.timeout}")


def parse_judge(
    text: str, environment: Mapping[str, str], *, timeout: float = TIMEOUT
) -> JudgeSpec:
    """Return the judge that `NAME=URL` names, with its key from the environment if there is one.

    The URL is what OpenAI clients call the base URL (`https://api.example.org/v1`); a bare host stands for its
    `/v1`, and a full address that ends in `/chat/completions` is taken as it is.

    Args:
        text: Such as `gold=http://127.0.0.1:8000/v1`.
        environment: Where `LIMBECK_JUDGE_KEY_GOLD` is looked up.
        timeout: Seconds that a request may take.

    Raises:
        JudgeError: The text is not `NAME=URL`, or a key would travel in the clear to another machine.
    """
    name, equals, url = (part.strip() for part in text.partition("="))
    if not (name and equals and url):
        raise JudgeError(
            f"a judge is given as NAME=URL, such as gold=http://127.0.0.1:8000/v1; got {text!r}"
        )
    address = _address(name, url)
    key = environment.get(KEY_PREFIX + re.sub(r"[^A-Z0-9]+", "_", name.upper()))
    if key and urlsplit(address).scheme == "http" and not is_loopback(address):
        raise JudgeError(f"judge {name} has a key and {url} is not encrypted; use https")
    return JudgeSpec(name, address, key or None, timeout=timeout)


def is_loopback(url: str) -> bool:
    """Say whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise JudgeError(f"judge {name} needs an http or https URL, got {url!r}")
    base = url.rstrip("/")
    if base.endswith(_COMPLETIONS):
        return base
    return base + ("" if urlsplit(base).path else "/v1") + _COMPLETIONS
