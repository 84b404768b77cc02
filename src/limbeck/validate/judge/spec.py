"""How a judge is named: `NAME=URL` of any OpenAI-compatible chat endpoint."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from limbeck.errors import JudgeError
from limbeck.validate.address import chat_address, is_loopback

KEY_PREFIX = "LIMBECK_JUDGE_KEY_"
"""A judge's key is read from the environment variable of this name and the judge's own in capitals."""

TIMEOUT = 60.0
"""Seconds that a request may take."""


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


def parse_judges(texts: Sequence[str], environment: Mapping[str, str]) -> list[JudgeSpec]:
    """Return the judges that several `NAME=URL` name.

    Raises:
        JudgeError: One is not of that form, or two have one name.
    """
    judges = [parse_judge(text, environment) for text in texts]
    check_judge_names([judge.name for judge in judges])
    return judges


def check_judge_names(names: Sequence[str]) -> None:
    """Refuse two judges of one name.

    Raises:
        JudgeError: A name occurs twice.
    """
    if len(set(names)) < len(names):
        raise JudgeError(f"every judge needs a name of its own, got {', '.join(names)}")


def check_precision(precision: float | None) -> None:
    """Refuse a half-width at which nothing could stop.

    Raises:
        JudgeError: It is neither None nor in (0, 0.5).
    """
    if precision is not None and not 0 < precision < 0.5:
        raise JudgeError(f"precision of judging must be in (0, 0.5), got {precision}")


def parse_judge(
    text: str, environment: Mapping[str, str], *, timeout: float = TIMEOUT
) -> JudgeSpec:
    """Return the judge that `NAME=URL` names, with its key from the environment if there is one.

    Args:
        text: Such as `gold=http://127.0.0.1:8000/v1`; `limbeck.validate.address.chat_address` says what a URL may be.
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
    try:
        address = chat_address(url)
    except ValueError as error:
        raise JudgeError(f"judge {name}: {error}") from None
    key = environment.get(KEY_PREFIX + re.sub(r"[^A-Z0-9]+", "_", name.upper()))
    if key and address.startswith("http:") and not is_loopback(address):
        raise JudgeError(f"judge {name} has a key and {url} is not encrypted; use https")
    return JudgeSpec(name, address, key or None, timeout=timeout)
