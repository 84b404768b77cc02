"""What is remembered of one account or cluster: the state of every signal, in under 4 KiB."""

import struct

import numpy as np
import numpy.typing as npt

from limbeck.guard.asked import Asked
from limbeck.guard.features import KEPT, NAMES, OF_CLUSTER
from limbeck.guard.signals import breadth, ground, rhythm, shard, template
from limbeck.guard.yield_meter import PACKED_BYTES as METER_BYTES
from limbeck.guard.yield_meter import Meter

Vector = npt.NDArray[np.float64]
WINDOW = 256
"""Requests over which means are taken; older ones fade, so that a change of use shows."""
_HEAD = struct.Struct("<QQ")


class Memory:
    """The state of an account, or of a cluster of linked accounts."""

    __slots__ = (
        "breadth",
        "ground",
        "mean",
        "meter",
        "requests",
        "rhythm",
        "shard",
        "suite_hits",
        "template",
    )

    def __init__(self) -> None:
        """Start before the first request."""
        self.requests = 0
        self.suite_hits = 0
        self.mean: Vector = np.zeros(KEPT)
        self.ground = ground.Ground()
        self.template = template.Template()
        self.breadth = breadth.Breadth()
        self.rhythm = rhythm.Rhythm()
        self.meter = Meter()
        self.shard = shard.Shard()

    def step(self, asked: Asked, ts: float) -> float:
        """Take in one request; return the share of its cells that were new."""
        covered = self.ground.step(asked.cells, asked.topics, asked.identity)
        self.ground.remember(asked.cells)
        templated = self.template.step(asked.sample)
        self.breadth.step(asked.topics)
        self.rhythm.step(ts)
        self.meter.step(covered.fresh, asked.tokens)
        self.requests += 1
        self.suite_hits += asked.suite >= 0.5
        new = covered.fresh * (1.0 - asked.suite)
        values = (
            *asked.values, covered.fresh, covered.growth, templated, covered.repeat,
            asked.standalone * new * (1.0 - templated) * asked.rich, asked.standalone * new * asked.elicits, new * asked.probes,
        )  # fmt: skip
        self.mean += (np.array(values) - self.mean) * (1.0 / min(self.requests, WINDOW))
        return covered.fresh

    def features(self) -> Vector:
        """Return the feature vector in the order of `features.NAMES`."""
        shape = self.rhythm.shape()
        signature = self.shard.signature()
        whole = (self.breadth.narrow(), shape.flat, shape.fast, shape.even)
        return np.concatenate(
            [self.mean, whole, (signature.alike, signature.even, signature.apart)]
        )

    def suite_share(self) -> float:
        """Return the share of requests that hit a known suite."""
        return self.suite_hits / self.requests if self.requests else 0.0

    def asks_per_item(self) -> float:
        """Return about how often each item was asked: 1 where all differ."""
        return self.requests / max(1.0, self.ground.distinct() / ground.CELLS)

    def pack(self) -> bytes:
        """Return the state as `PACKED_BYTES` bytes, whatever its history."""
        parts = (self.ground, self.template, self.breadth, self.rhythm, self.meter, self.shard)
        head = _HEAD.pack(self.requests, self.suite_hits)
        return head + self.mean.tobytes() + b"".join(part.pack() for part in parts)

    @classmethod
    def unpack(cls, data: bytes) -> "Memory":
        """Return the state that `pack` wrote."""
        memory = cls()
        memory.requests, memory.suite_hits = _HEAD.unpack_from(data)
        at = _HEAD.size
        memory.mean = np.frombuffer(data, np.float64, KEPT, at).copy()
        at += memory.mean.nbytes
        memory.ground = ground.Ground.unpack(data[at : (at := at + ground.PACKED_BYTES)])
        memory.template = template.Template.unpack(data[at : (at := at + template.PACKED_BYTES)])
        memory.breadth = breadth.Breadth.unpack(data[at : (at := at + breadth.PACKED_BYTES)])
        memory.rhythm = rhythm.Rhythm.unpack(data[at : (at := at + rhythm.PACKED_BYTES)])
        memory.meter = Meter.unpack(data[at : (at := at + METER_BYTES)])
        memory.shard = shard.Shard.unpack(data[at:PACKED_BYTES])
        return memory


PACKED_BYTES = (
    _HEAD.size + 8 * KEPT + ground.PACKED_BYTES + template.PACKED_BYTES + breadth.PACKED_BYTES
    + rhythm.PACKED_BYTES + METER_BYTES + shard.PACKED_BYTES
)  # fmt: skip
assert len(NAMES) == KEPT + 4 + len(OF_CLUSTER)  # noqa: S101 (the order of `features` is the order of NAMES)
