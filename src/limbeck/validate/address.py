"""Addresses of OpenAI-compatible chat endpoints."""

import ipaddress
from urllib.parse import urlsplit

_COMPLETIONS = "/chat/completions"


def chat_address(url: str) -> str:
    """Return the whole address of the chat endpoint that a URL stands for.

    It is what OpenAI clients call the base URL (`https://api.example.org/v1`); a bare host stands for its `/v1`, and
    an address that ends in `/chat/completions` is taken as it is.

    Raises:
        ValueError: Not an http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(f"an endpoint needs an http or https URL, got {url!r}")
    base = url.rstrip("/")
    if base.endswith(_COMPLETIONS):
        return base
    return base + ("" if urlsplit(base).path else "/v1") + _COMPLETIONS


def is_loopback(url: str) -> bool:
    """Say whether an address stays on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
