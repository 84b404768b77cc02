"""What tests of the admin API and the console share: an open state with its ledger and its admin keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from limbeck.guard.admin.ledger import LedgerRecord, LedgerState
from limbeck.guard.state.admins import Role
from limbeck.guard.state.home import State
from limbeck.guard.state.leases import LeaseStore


@dataclass
class FakeLedger:
    """A ledger of a few records."""

    records: dict[str, list[LedgerRecord]] = field(default_factory=dict[str, list[LedgerRecord]])

    def state(self) -> LedgerState:
        size = sum(len(found) for found in self.records.values())
        return LedgerState(size, len(self.records), "example.org/log\n7\nroot\n", 1_790_000_000.0)

    def of_account(self, account: str, limit: int) -> Sequence[LedgerRecord]:
        return self.records.get(account, [])[:limit]


@dataclass(frozen=True)
class Office:
    """An open state with an account `acme`, its ledger, and an admin key for each role."""

    state: State
    store: LeaseStore
    ledger: FakeLedger
    keys: dict[Role, str]

    def bearer(self, role: Role = Role.SIGN) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[role]}"}
