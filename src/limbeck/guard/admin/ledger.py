"""What the admin API and the console read of the ledger."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class LedgerState:
    """How far the ledger is: its records, and its newest signed checkpoint, which is text to hand on."""

    size: int
    accounts: int
    checkpoint: str | None = None
    signed: float | None = None


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """One record about an account: its place, its time (seconds since 1970 UTC), its kind, its hash."""

    seq: int
    ts: float
    kind: str
    hash: str
    content: Mapping[str, Any]


class LedgerView(Protocol):
    """The ledger, to be looked at."""

    def state(self) -> LedgerState:
        """Return how far it is.

        Raises:
            LedgerError: It cannot be read.
        """
        ...

    def of_account(self, account: str, limit: int) -> Sequence[LedgerRecord]:
        """Return an account's newest records, newest first.

        Raises:
            LedgerError: It cannot be read.
        """
        ...
