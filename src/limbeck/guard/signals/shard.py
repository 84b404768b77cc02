"""The signature of one pool dealt to many accounts: they ask alike, share too little, and work evenly.

Honest neighbours differ from each other (an office, a reseller's users) or repeat each other (pipelines of one company,
a laboratory's benchmark runs). Shards of one pool do neither: two accounts are as alike as an account is to itself, no
prompt comes twice, and loads are even. Very large honest crowds of one kind come near it, which calibration must show.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from limbeck.guard.signals.breadth import BUCKETS, Breadth

_HEAD = struct.Struct("<IIdddddd")


@dataclass(frozen=True, slots=True)
class Signature:
    """`alike` near 1: accounts are as alike as each is to itself, 0: each has its own topics.

    `even` is 1 for loads at most as uneven as chance makes them; `apart` 1 where accounts never share a prompt.
    """

    alike: float
    even: float
    apart: float


class Shard:
    """Pairs of requests within and between the accounts of a cluster, counted as they come."""

    __slots__ = ("_accounts", "_alike", "_all", "_own", "_requests", "_same", "_shared", "_squares")

    def __init__(self) -> None:
        """Start with no pair counted."""
        self._accounts = 0
        self._requests = 0
        self._squares = 0.0
        self._own = 0.0
        self._same = 0.0
        self._all = 0.0
        self._alike = 0.0
        self._shared = 0.0

    @property
    def accounts(self) -> int:
        """Accounts that were seen in the cluster."""
        return self._accounts

    def begin(self, requests: int, account: Breadth) -> None:
        """Count what the only account so far did before there was a second one."""
        self._accounts = 1
        self._requests = requests
        self._squares = float(requests) ** 2
        self._same = self._alike = float(account.pairs)
        self._own = self._all = account.total * (account.total - 1) / 2

    def join(self, requests: int) -> None:
        """Count an account that brings requests of its own, made before it was linked."""
        self._accounts += 1
        self._requests += requests
        self._squares += float(requests) ** 2

    def step(self, topics: Sequence[int], account: Breadth, cluster: Breadth, asked: int) -> None:
        """Count a request against all before it.

        Args:
            topics: Its topic words, hashed.
            account: The account's topics before this request.
            cluster: The cluster's topics before this request.
            asked: Requests of this account before this one.
        """
        self._requests += 1
        self._squares += 2 * asked + 1
        for topic in topics:
            bucket = topic % BUCKETS
            self._same += account.count(bucket)
            self._alike += cluster.count(bucket)
        self._own += len(topics) * account.total
        self._all += len(topics) * cluster.total

    def share(self, known: float) -> None:
        """Count the share of a request's cells that are new to its account but not to the cluster."""
        self._shared += known

    def signature(self) -> Signature:
        """Return what the pairs say so far; 0.5 each where nothing can be said."""
        if self._accounts < 2:
            return Signature(0.5, 0.5, 0.5)
        between, pairs = self._alike - self._same, self._all - self._own
        within = (self._same + 1.0) / (self._own + BUCKETS)
        across = (max(0.0, between) + 1.0) / (max(0.0, pairs) + BUCKETS)
        mean = self._requests / self._accounts
        spread = (self._squares / self._accounts - mean * mean) / mean
        return Signature(
            alike=1.0 / (1.0 + max(0.0, math.log(within / across))),
            even=1.0 / (1.0 + max(0.0, spread - 1.0)),
            apart=1.0 - self._shared / self._requests,
        )

    def pack(self) -> bytes:
        """Return the state as bytes."""
        return _HEAD.pack(
            self._accounts, self._requests, self._squares, self._own, self._same, self._all, self._alike, self._shared
        )  # fmt: skip

    @classmethod
    def unpack(cls, data: bytes) -> "Shard":
        """Return the state that `pack` wrote."""
        shard = cls()
        (shard._accounts, shard._requests, shard._squares, shard._own, shard._same, shard._all, shard._alike,
         shard._shared) = _HEAD.unpack_from(data)  # fmt: skip
        return shard


PACKED_BYTES = _HEAD.size
