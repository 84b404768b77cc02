"""Names that a person chooses, and names that are drawn."""

import re
import secrets

from limbeck.errors import AccountError

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # without l, o, 0 and 1, which people misread
_CHOSEN = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
MAX_USER = 128


def chosen(what: str, id: str) -> str:
    """Check a name that a person chose, such as an account's.

    Raises:
        AccountError: It is not one to 63 of `a-z 0-9 . _ -` with a letter or digit first.
    """
    if not _CHOSEN.fullmatch(id):
        raise AccountError(
            f"{what} must be 1 to 63 of a-z, 0-9, '.', '_' and '-', a letter or digit first, got {id!r}"
        )
    return id


def drawn(length: int = 10) -> str:
    """Return a name drawn from 32 letters, 5 bits each."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def is_user(text: str) -> bool:
    """Tell whether a text can name a user behind a reseller: printable, and not too long."""
    return len(text) <= MAX_USER and text.isprintable()


def person(by: str) -> str:
    """Check the name of a person who answers for a decision.

    Raises:
        AccountError: It is empty, or the name of a program.
    """
    name = by.strip()
    if not name or name.lower() in {"policy", "system", "guard", "auto", "limbeck", "clock"}:
        raise AccountError(f"this needs the name of the person who answers for it, got {by!r}")
    return name
