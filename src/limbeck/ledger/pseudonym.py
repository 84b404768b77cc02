"""Names that only the ledger's owner can give: accounts as pseudonyms, texts as keyed digests and commitments.

    opening   = HMAC-SHA256(secret, "limbeck account" newline ACCOUNT)           32 bytes
    pseudonym = SHA-256("limbeck pseudonym" newline opening ACCOUNT)             first 16 bytes, in hexadecimal

Who has one account's opening can check that account's pseudonym and no other. Both sides are bound: an account cannot
be given another's pseudonym afterwards.
"""

import hashlib
import hmac
import secrets

THE_LOG = "0" * 32
"""The pseudonym under which a log records what concerns itself."""
_SALT_BYTES = 32


def opening(secret: bytes, account: str) -> bytes:
    """Return what opens this account's pseudonym, 32 bytes."""
    return hmac.digest(secret, b"limbeck account\n" + account.encode(), "sha256")


def pseudonym(account: str, opened_by: bytes) -> str:
    """Return the account's pseudonym, 32 hexadecimal digits."""
    digest = hashlib.sha256(b"limbeck pseudonym\n" + opened_by + account.encode())
    return digest.digest()[:16].hex()


def keyed_digest(secret: bytes, text: str) -> str:
    """Return a digest of a text, 64 hexadecimal digits, that says nothing to whoever lacks the secret.

    Equal texts have equal digests; that is what sketches of requests are compared by.
    """
    return hmac.digest(secret, b"limbeck sketch\n" + text.encode(), "sha256").hex()


def new_salt() -> bytes:
    """Return a fresh salt for one commitment."""
    return secrets.token_bytes(_SALT_BYTES)


def commitment(salt: bytes, text: str) -> str:
    """Return the commitment to a text, 64 hexadecimal digits; without the salt nobody can test a guess against it."""
    return hmac.digest(salt, b"limbeck text\n" + text.encode(), "sha256").hex()
