"""A request's headers: those that matter here, and those that go on to the upstream."""

from collections.abc import Iterable
from typing import NamedTuple

from limbeck.guard.refusal import Refusal

Header = tuple[bytes, bytes]

FORWARDED = frozenset(
    {b"accept", b"user-agent", b"x-request-id", b"traceparent", b"tracestate", b"idempotency-key"}
)
"""What the upstream sees of the caller's headers. Keys, cookies and addresses stay here."""
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_JSON = b"application/json"


class Heads(NamedTuple):
    """What a request's headers say."""

    key: str
    length: int
    user_agent: str
    trace: str
    forwarded: list[Header]
    client_ip: str


def read_heads(headers: Iterable[Header], client_ip_header: bytes | None = None) -> Heads | Refusal:
    """Return what the headers say, or why they are refused. Names are in lower case."""
    key: bytes | None = None
    length, agent, trace, client_ip = 0, "", "", ""
    content_type = b""
    forwarded: list[Header] = []
    for header in headers:
        name, value = header
        if name in FORWARDED:
            forwarded.append(header)
            if name == b"user-agent":
                agent = value.decode("latin-1")
            elif name == b"traceparent":
                trace = value.decode("latin-1")
        elif name == b"authorization":
            if key is not None:
                return Refusal(400, "two_keys", "the header Authorization must be there once")
            key = value
        elif name == b"content-type":
            content_type = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"content-encoding" and value.lower() != b"identity":
            return Refusal(415, "encoded_body", "the body must not be compressed")
        elif name == client_ip_header:
            client_ip = value.decode("latin-1").rsplit(",", 1)[-1].strip()
    if content_type[:16].lower() != _JSON:
        return Refusal(415, "not_json", "the header Content-Type must be application/json")
    forwarded.append((b"content-type", content_type))
    return Heads(bearer(key), length, agent, trace, forwarded, client_ip)


def bearer(value: bytes | None) -> str:
    """Return the key of an Authorization header, or an empty string."""
    if value is None or value[:7].lower() != b"bearer ":
        return ""
    return value[7:].strip().decode("latin-1")


def reply_headers(headers: Iterable[Header]) -> list[Header]:
    """Return an upstream's headers without those that concern its own connection."""
    return [header for header in headers if header[0].lower() not in HOP_BY_HOP]


def header(headers: Iterable[Header], wanted: bytes) -> bytes | None:
    """Return the value of the first header of this name, given in lower case."""
    for name, value in headers:
        if name.lower() == wanted:
            return value
    return None


def with_length(headers: Iterable[Header], length: int) -> list[Header]:
    """Return headers for a body of another length."""
    kept = [
        header
        for header in headers
        if header[0].lower() not in (b"content-length", b"content-md5", b"digest", b"etag")
    ]
    kept.append((b"content-length", b"%d" % length))
    return kept
