"""Export what a log holds of one account, with the proof that it is all of it and that none of it was changed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import read_checkpoint
from limbeck.ledger.container import write_container
from limbeck.ledger.encoding import canonical, to_base64, to_time
from limbeck.ledger.heads import prove
from limbeck.ledger.keys import Keys
from limbeck.ledger.merkle import Subtree, consistency_proof, inclusion_proof
from limbeck.ledger.pseudonym import THE_LOG, opening, pseudonym
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import read_leaf
from limbeck.ledger.sealed import sealed_files

FORMAT = "limbeck-account-bundle/1"
RECORDS, LOG_RECORDS = "records.jsonl", "log-records.jsonl"
PROOFS, CHECKPOINTS, HEADS_PROOFS = "proofs.jsonl", "checkpoints.jsonl", "heads.jsonl"
POLICY, TEXTS, README = "policy.txt", "texts.jsonl", "README.txt"
_MOST_CHECKPOINTS = 2000
_CACHED_SUBTREES = 1 << 17


@dataclass(frozen=True, slots=True)
class Exported:
    """What a bundle holds."""

    account: str
    records: int
    size: int
    """Records of the whole log that the bundle speaks about."""
    until: int
    """Milliseconds since 1970; records of the account up to then are all there."""
    later: int
    """Records that the log has got since; the bundle says nothing about them."""


def export_account(
    log: Reading,
    keys: Keys,
    account: str,
    path: Path,
    *,
    policy: str | None = None,
    texts: bool = False,
    known: Iterable[str] = (),
) -> Exported:
    """Write the bundle of one account, up to the last pin of the log; see `account_files`."""
    files, made = account_files(log, keys, account, policy=policy, texts=texts, known=known)
    write_container(path, files)
    return made


def account_files(
    log: Reading,
    keys: Keys,
    account: str,
    *,
    policy: str | None = None,
    texts: bool = False,
    known: Iterable[str] = (),
) -> tuple[dict[str, bytes], Exported]:
    """Return the files of the bundle of one account, up to the last pin of the log.

    Args:
        log: The log; pin it before, or records since its last pin are left out.
        keys: The log's.
        account: As the operator calls it.
        policy: The text of the policy that the decisions followed.
        texts: Add the raw texts of this account that are still kept.
        known: Checkpoints that the reader has from elsewhere; the bundle will be shown to go on from them.

    Raises:
        LedgerError: The log has no pin yet, the account no record before it, or a known checkpoint is not the log's.
    """
    pins = log.pins()
    if not pins:
        raise LedgerError("the ledger has no pin yet, so no bundle could show that it is complete")
    size = pins[-1] + 1
    opened_by = opening(keys.secret, account)
    name = pseudonym(account, opened_by)
    mine, own = log.of_account(name, size), log.of_account(THE_LOG, size)
    if not mine:
        raise LedgerError(f"the ledger has no record of the account {account!r} up to its last pin")
    until = read_leaf(log.leaf(size - 1)).time
    both = sorted([*mine, *own])
    subtree = lru_cache(_CACHED_SUBTREES)(log.subtree)  # neighbours share most of their paths
    files = {
        RECORDS: _lines(log.leaf(seq) for seq in mine),
        LOG_RECORDS: _lines(log.leaf(seq) for seq in own),
        PROOFS: _lines(canonical(_proof(subtree, seq, size)) for seq in both),
        CHECKPOINTS: _lines(_checkpoint_rows(subtree, _bounds(log, both, size, known))),
        HEADS_PROOFS: _lines(canonical(prove(name, log.pinned(seq))) for seq in pins),
        README: _readme(account, len(mine), until).encode(),
    }
    if policy is not None:
        files[POLICY] = policy.encode()
    if texts:
        files[TEXTS] = _lines(_texts(log, mine))
    about = {
        "account": account,
        "format": FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "opening": to_base64(opened_by),
        "pseudonym": name,
        "size": size,
    }
    made = Exported(account, len(mine), size, until, log.size() - size)
    return sealed_files(files, about, keys.signer), made


def _proof(subtree: Subtree, seq: int, size: int) -> dict[str, Any]:
    return {"path": [to_base64(h) for h in inclusion_proof(seq, size, subtree)], "seq": seq}


def _checkpoint_rows(subtree: Subtree, notes: Mapping[int, str]) -> Iterable[bytes]:
    """Yield the checkpoints, each with the path from the one before it."""
    before = 0
    for at in sorted(notes):
        path = [to_base64(h) for h in consistency_proof(before, at, subtree)]
        yield canonical({"consistency": path, "note": notes[at]})
        before = at


def _bounds(log: Reading, places: Sequence[int], size: int, known: Iterable[str]) -> dict[int, str]:
    """Return checkpoints around each record, by size, evenly thinned where there are very many; and the known ones."""
    notes: dict[int, str] = {}
    for seq in places:
        for note in (log.checkpoint_before(seq), log.checkpoint_over(seq)):
            if note is not None and 0 < (at := read_checkpoint(note)[0].size) <= size:
                notes[at] = note
    if len(notes) > _MOST_CHECKPOINTS:
        every = sorted(notes)[:: -(-len(notes) // _MOST_CHECKPOINTS)]
        notes = {at: notes[at] for at in every}
    last = log.checkpoint_at(size)
    if last is None:
        raise LedgerError(f"the ledger lacks the checkpoint of its last pin, at {size} records")
    return {**notes, size: last, **_known(log, size, known)}


def _known(log: Reading, size: int, known: Iterable[str]) -> dict[int, str]:
    """Return checkpoints that the reader has, by size; with any signatures of witnesses that they carry."""
    notes: dict[int, str] = {}
    for note in known:
        found = read_checkpoint(note)[0]
        if not 0 < found.size <= size:
            raise LedgerError(
                f"a known checkpoint is over {found.size} records, the bundle over {size}"
            )
        if log.frontier(found.size).root() != found.root:
            raise LedgerError(f"the known checkpoint at {found.size} records is not of this ledger")
        notes[found.size] = note
    return notes


def _texts(log: Reading, places: Sequence[int]) -> Iterable[bytes]:
    for seq in places:
        if (found := log.raw(seq)) is not None:
            yield canonical({"salt": to_base64(found[1]), "seq": seq, "text": found[0]})


def _lines(rows: Iterable[bytes]) -> bytes:
    return b"".join(row + b"\n" for row in rows)


def _readme(account: str, records: int, until: int) -> str:
    return f"""\
EVIDENCE BUNDLE: ACCOUNT {account}

This bundle holds all {records} records that a ledger kept of this account up to {to_time(until)}: decisions,
keyed sketches of requests, sign-offs, appeals. Records of other accounts are not in it.

To check it, without a network and without trusting whoever sent it:

    pip install 'limbeck[guard]'
    limbeck guard verify BUNDLE --public-key PUBLIC.txt

PUBLIC.txt is the ledger's public key. Get it from elsewhere than from this bundle: from the operator's web site or
contract, or from an earlier bundle. Without it you learn only that one key sealed everything here.

The check says that no record was changed, dropped, added between others, reordered or dated back since the ledger first
signed it, and that the account has no other records up to the time above. It does not say that what the operator
wrote down was true, nor that the operator's own clock was right; for that, compare the checkpoints here with any that
you or a witness received earlier (--known FILE).

What is in it:
    {RECORDS:20} the account's records, one a line, exactly the bytes that were signed
    {LOG_RECORDS:20} records of the ledger about itself: gaps, and pins of how many records every account has
    {PROOFS:20} for each record, its path in the Merkle tree (RFC 6962)
    {CHECKPOINTS:20} signed checkpoints, each with the proof that it goes on from the one before
    {HEADS_PROOFS:20} for each pin, how many records this account had, or that it had none since the pin before
    {POLICY:20} the policy that the decisions followed, if it was added
    {TEXTS:20} raw texts, if any were kept and added
    manifest.json        hashes of all files; manifest.sig is its signature

docs/ledger-format.md in Limbeck's repository describes every byte.
"""
