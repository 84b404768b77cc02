"""The state of a watch as bytes: one JSON line that says whose it is and who is in it, then packed states."""

import json
from collections.abc import Sequence
from itertools import chain
from typing import cast

from limbeck.errors import GuardError
from limbeck.guard.recollection import PACKED_BYTES as MEMORY_BYTES
from limbeck.guard.watched import CLUSTER_BYTES, PACKED_BYTES, Account, Cluster, Resident

VERSION = 1


def write(
    made_for: Sequence[str],
    accounts: Resident[Account],
    clusters: Resident[Cluster],
    lifted: int | None = None,
) -> bytes:
    """Return all state, the longest unseen first.

    Args:
        made_for: What the state is of no use without: the secret's and the calibration's names.
        accounts: All accounts.
        clusters: All clusters.
        lifted: The last accusation that was taken back, as the caller counts them.
    """
    head = {
        "version": VERSION,
        "made_for": list(made_for),
        "lifted": lifted,
        "evicted": [accounts.evicted, clusters.evicted],
        "accounts": [name for name, _ in accounts],
        "clusters": [[key, c.name, c.first, c.memory is not None] for key, c in clusters],
    }
    states = chain((a.pack() for _, a in accounts), (c.pack() for _, c in clusters))
    return json.dumps(head).encode() + b"\n" + b"".join(states)


def read(
    data: bytes,
    made_for: Sequence[str],
    accounts: Resident[Account],
    clusters: Resident[Cluster],
    rivals: int,
) -> int | None:
    """Fill empty tables with what `write` returned; return the last accusation that was taken back by then.

    Raises:
        GuardError: It is no snapshot, or was made for something else.
    """
    first, _, rest = data.partition(b"\n")
    try:
        head = json.loads(first)
        version, whose = head["version"], head["made_for"]
    except (ValueError, KeyError, TypeError):
        raise GuardError("this is no snapshot of a watch") from None
    if (version, whose) != (VERSION, list(made_for)):
        raise GuardError(
            "the snapshot was made under another secret or calibration; use that one, or start anew"
        )
    at = 0
    for name in cast("list[str]", head["accounts"]):
        accounts.put(name, Account.unpack(rest[at : at + PACKED_BYTES]))
        at += PACKED_BYTES
    for key, name, origin, begun in cast("list[tuple[int, str, str, bool]]", head["clusters"]):
        size = CLUSTER_BYTES + (MEMORY_BYTES if begun else 0)
        cluster = Cluster(name, origin, rivals)
        cluster.restore(rest[at : at + size])
        clusters.put(key, cluster)
        at += size
    accounts.evicted, clusters.evicted = head["evicted"]
    return cast("int | None", head.get("lifted"))
