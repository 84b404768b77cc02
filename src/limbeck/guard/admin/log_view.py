"""The ledger's file, looked at while the gateway writes it."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from limbeck.guard.admin.ledger import LedgerRecord, LedgerState
from limbeck.ledger.checkpoint import read_checkpoint
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.pseudonym import opening, pseudonym
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import read_leaf


class LogView:
    """Reads a ledger for the admin API and the console; opens the file anew for every look.

    Args:
        path: The ledger's file.
        secret: What accounts' pseudonyms come of (`Keys.secret`).
    """

    def __init__(self, path: Path, secret: bytes) -> None:
        self._path, self._secret = path, secret

    def state(self) -> LedgerState:
        """Return how far the ledger is."""
        with read_log(self._path) as log:
            note = log.last_checkpoint()
            signed = None if note is None else read_checkpoint(note)[0].time / 1000
            return LedgerState(log.size(), log.accounts(), note, signed)

    def of_account(self, account: str, limit: int) -> Sequence[LedgerRecord]:
        """Return an account's newest records, newest first."""
        name = pseudonym(account, opening(self._secret, account))
        with read_log(self._path) as log:
            newest = islice(reversed(log.of_account(name, log.size())), limit)
            return [_shown(seq, log.leaf(seq)) for seq in newest]


def _shown(seq: int, leaf: bytes) -> LedgerRecord:
    record = read_leaf(leaf, f"record {seq}")
    return LedgerRecord(seq, record.time / 1000, record.kind, leaf_hash(leaf).hex(), record.content)
