"""Addresses of servers that go into recipes, and so into files: plain, and without secrets."""

from urllib.parse import urlsplit

from limbeck.errors import RecipeError


def check_address(base_url: str) -> None:
    """Refuse an address that is none, or that would carry a secret into files.

    Raises:
        RecipeError: It is not plain http or https with a host, or holds a user, password or query.
    """
    parts = urlsplit(base_url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        host = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        raise RecipeError(
            f"base_url {host} holds a user, a password or a query, and recipes are written to files: put the key "
            "into an environment variable and its name into key_variable"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RecipeError(
            f"base_url must begin with https:// or http:// and name a host, got {base_url!r}"
        )
