"""Accounts and clusters as the watch keeps them: bounded in number and in size, packed into bytes and back."""

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from limbeck.guard.decision import Action
from limbeck.guard.memory import PACKED_BYTES as MEMORY_BYTES
from limbeck.guard.memory import Memory, Vector

GROUPS = 8
"""Groups that an account can belong to: one that changes its address every hour does not grow."""
LOOKED_AT = 64
"""Entries among which one is sought that may leave."""
RIVALS = 16
"""Rivals at the most, so that a state has a fixed size."""
_HEAD = struct.Struct("<BBH")
_T = TypeVar("_T")


class Account:
    """One account: its memory, its evidence, its groups and its standing."""

    __slots__ = ("evidence", "groups", "latest_R", "memory", "pardon_R", "peak_R", "standing")

    def __init__(self, rivals: int) -> None:
        """Start unknown."""
        self.memory = Memory()
        self.peak_R: Vector = np.full(rivals, -np.inf)
        """The largest score so far against each rival."""
        self.latest_R: Vector = np.full(rivals, -np.inf)
        """The score of its own requests at the last checkpoint, before any margin."""
        self.pardon_R: Vector = np.full(rivals, -np.inf)
        """Scores of its clusters that a person has looked at; only what exceeds them counts again."""
        self.groups: tuple[int, ...] = ()
        self.standing = Action.ALLOW
        """The accusation that stands until a person lifts it."""
        self.evidence: tuple[float, int] | None = None
        """What follows from `peak_R`: the e-value and the best rival; None where it has to be computed anew."""

    def pack(self) -> bytes:
        """Return the state as `PACKED_BYTES` bytes."""
        rivals = len(self.peak_R)
        head = _HEAD.pack(int(self.standing), len(self.groups), rivals)
        groups = struct.pack(f"<{GROUPS}Q", *self.groups, *[0] * (GROUPS - len(self.groups)))
        scores = b"".join(map(_scores, (self.peak_R, self.latest_R, self.pardon_R)))
        return head + groups + scores + self.memory.pack()

    @classmethod
    def unpack(cls, data: bytes) -> "Account":
        """Return the state that `pack` wrote."""
        standing, groups, rivals = _HEAD.unpack_from(data)
        account = cls(rivals)
        at = _HEAD.size
        account.standing = Action(standing)
        account.groups = struct.unpack_from(f"<{GROUPS}Q", data, at)[:groups]
        at += 8 * GROUPS
        account.peak_R, account.latest_R, account.pardon_R = (
            np.frombuffer(data, np.float64, rivals, at + 8 * RIVALS * n).copy() for n in range(3)
        )
        account.memory = Memory.unpack(data[at + 24 * RIVALS :])
        return account


PACKED_BYTES = _HEAD.size + 8 * GROUPS + 24 * RIVALS + MEMORY_BYTES


class Cluster:
    """Accounts that one link joins: nothing but a name until there is a second account."""

    __slots__ = ("first", "memory", "name", "peak_R")

    def __init__(self, name: str, first: str, rivals: int) -> None:
        """Start with its first account."""
        self.name = name
        self.first = first
        self.memory: Memory | None = None
        self.peak_R: Vector = np.full(rivals, -np.inf)

    def begin(self, memory: Memory | None) -> Memory:
        """Take over what the first account did, as far as it is still known, as the second one comes."""
        self.memory = Memory() if memory is None else Memory.unpack(memory.pack())
        self.memory.shard.begin(self.memory.requests, self.memory.breadth)
        return self.memory

    def pack(self) -> bytes:
        """Return the scores, and the memory where there is one."""
        return _scores(self.peak_R) + (b"" if self.memory is None else self.memory.pack())

    def restore(self, data: bytes) -> None:
        """Take in what `pack` wrote."""
        self.peak_R = np.frombuffer(data, np.float64, len(self.peak_R)).copy()
        if len(data) > 8 * RIVALS:
            self.memory = Memory.unpack(data[8 * RIVALS :])


class Resident(Generic[_T]):
    """A table of at most so many entries: whoever was not seen for the longest makes room.

    Entries that `keeps` wants stay as long as there are others among the longest unseen, so that nobody washes an
    accusation away with a flood of new accounts.
    """

    def __init__(self, limit: int, keeps: Callable[[_T], bool]) -> None:
        """Start empty."""
        self._limit = limit
        self._keeps = keeps
        self._entries: OrderedDict[str | int, _T] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        """How many there are."""
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str | int, _T]]:
        """Go through them, the longest unseen first."""
        return iter(self._entries.items())

    def get(self, name: str | int) -> _T | None:
        """Return an entry and count it as seen, or None."""
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
        return entry

    def peek(self, name: str | int) -> _T | None:
        """Return an entry without counting it as seen."""
        return self._entries.get(name)

    def put(self, name: str | int, entry: _T) -> None:
        """Add an entry as the one seen last."""
        self._entries[name] = entry
        if len(self._entries) > self._limit:
            oldest = list(islice(self._entries.items(), min(LOOKED_AT, self._limit)))
            leaves = next((k for k, one in oldest if not self._keeps(one)), oldest[0][0])
            del self._entries[leaves]
            self.evicted += 1


def _scores(score_R: Vector) -> bytes:
    padded = np.full(RIVALS, -np.inf)
    padded[: len(score_R)] = score_R
    return padded.tobytes()


CLUSTER_BYTES = 8 * RIVALS
"""Of a packed cluster without a memory; with one, `memory.PACKED_BYTES` more."""
