"""Proofs from outside that a note existed at a time: RFC 3161 time-stamps, checked here, and OpenTimestamps, read here."""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from limbeck.errors import TraceError
from limbeck.extras import need

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

_OTS_MAGIC = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
_OTS_VERSION, _OTS_SHA256 = b"\x01", b"\x08"


def stamped_at(token: bytes, note: bytes, roots: Path) -> datetime:
    """Verify a time-stamp response over a note; return the time-stamping authority's time.

    Args:
        token: The response, DER, as `openssl ts -reply` or an authority's server gives it.
        note: What was stamped.
        roots: PEM file with the certificates that are trusted, the authority's own root among them.

    Raises:
        TraceError: The token is not one, is over something else, or is not signed under these roots.
    """
    need("checking an RFC 3161 time-stamp", "trace", "rfc3161_client")
    import rfc3161_client
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(roots.read_bytes())
    except ValueError as error:
        raise TraceError(f"{roots} holds no PEM certificates: {error}") from error
    try:
        response = rfc3161_client.decode_timestamp_response(token)
        _verify(response, note, certificates)
    except (ValueError, rfc3161_client.VerificationError) as error:
        raise TraceError(f"the time-stamp does not hold for the registration: {error}") from error
    return response.tst_info.gen_time


def _verify(response: object, note: bytes, certificates: "list[Certificate]") -> None:
    import rfc3161_client

    builder = rfc3161_client.VerifierBuilder()
    for certificate in certificates:
        builder = builder.add_root_certificate(certificate)
    builder.build().verify_message(response, note)  # pyright: ignore[reportArgumentType]


def is_over(proof: bytes, note: bytes) -> bool:
    """Say whether an OpenTimestamps proof is one over this note; the chain of blocks that it points to is not asked."""
    start = _OTS_MAGIC + _OTS_VERSION + _OTS_SHA256
    return proof.startswith(start) and proof[len(start) :][:32] == hashlib.sha256(note).digest()
