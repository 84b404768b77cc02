"""Sealed coins: two genuine answers to one prompt, and a bit that nobody could foresee, which decides what is served.

The bit of a pair is b = lowest bit of HMAC-SHA256(key, beacon || H), where H is the SHA-256 of prompt, y0, y1 and
account, each with its length in front. The key is committed to before the beacon is known and the answers are fixed by
H, so neither key nor answers can be chosen to suit a suspect; and a model that was not trained on what was served knows
nothing of b. Two pairs with the same H have the same bit, so they are one coin. Pure; needs the standard library alone.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.errors import TraceError
from limbeck.ledger.merkle import leaf_hash, root

KEY_BYTES = 32
FIELDS = ("prompt", "y0", "y1", "served", "account", "hash")
"""Of a line of coins.jsonl; `served` is the bit: 0 where y0 was served, 1 where y1 was."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers of the teacher to one prompt of one account, before the toss."""

    prompt: str
    y0: str
    y1: str
    account: str = ""
    """Whose prompt it was; empty where coins are not told apart by account."""

    @property
    def hash(self) -> bytes:
        """Return H, 32 bytes."""
        digest = hashlib.sha256()
        for part in (self.prompt, self.y0, self.y1, self.account):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.digest()


@dataclass(frozen=True, slots=True)
class Coin:
    """A pair with its bit."""

    pair: Pair
    bit: int
    """0 or 1: which answer was served."""

    @property
    def served(self) -> str:
        """Return the answer that the account received."""
        return self.pair.y1 if self.bit else self.pair.y0

    @property
    def withheld(self) -> str:
        """Return the answer that nobody received."""
        return self.pair.y0 if self.bit else self.pair.y1

    def as_json(self) -> dict[str, Any]:
        """Return the line of coins.jsonl."""
        pair = self.pair
        values = (pair.prompt, pair.y0, pair.y1, self.bit, pair.account, pair.hash.hex())
        return dict(zip(FIELDS, values, strict=True))

    def line(self) -> str:
        """Return the line of coins.jsonl as it is spelt, without its newline."""
        return json.dumps(self.as_json(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Usable:
    """Pairs that can be tossed for, with what had to be left out."""

    pairs: tuple[Pair, ...]
    equal: int
    """Left out: both answers are the same, so nothing can be learned of a bit."""
    duplicate: int
    """Left out: the account asked the same prompt before."""


def usable(pairs: Iterable[Pair]) -> Usable:
    """Keep the first pair of every account and prompt whose two answers differ; count the rest."""
    kept: dict[tuple[str, str], Pair] = {}
    equal = duplicate = 0
    for pair in pairs:
        place = (pair.account, pair.prompt)
        if place in kept:
            duplicate += 1
        elif pair.y0.strip() == pair.y1.strip():
            equal += 1
        else:
            kept[place] = pair
    return Usable(tuple(kept.values()), equal, duplicate)


def toss(key: bytes, beacon: str, pair_hash: bytes) -> int:
    """Return the bit of a pair.

    Args:
        key: 32 secret bytes, committed to before the beacon was known.
        beacon: The public value as it was published; its UTF-8 bytes count. Empty where there is none.
        pair_hash: H.

    Raises:
        TraceError: A key or hash of another length.
    """
    if len(key) != KEY_BYTES or len(pair_hash) != hashlib.sha256().digest_size:
        raise TraceError(
            f"a coin needs a key and a hash of 32 bytes, got {len(key)} and {len(pair_hash)}"
        )
    return hmac.digest(key, beacon.encode() + pair_hash, "sha256")[-1] & 1


def deal(pairs: Sequence[Pair], key: bytes, beacon: str) -> list[Coin]:
    """Toss for every pair."""
    return [Coin(pair, toss(key, beacon, pair.hash)) for pair in pairs]


def key_commitment(key: bytes) -> str:
    """Return what may be published of a key before it is used: it binds, and tells nothing."""
    return hashlib.sha256(b"limbeck coin key\n" + key).hexdigest()


def pairs_root(pairs: Iterable[Pair]) -> str:
    """Return the Merkle root over the pairs' hashes, in order, without their bits."""
    return root(leaf_hash(pair.hash) for pair in pairs).hex()


def coins_root(coins: Iterable[Coin]) -> str:
    """Return the Merkle root over hashes and bits, in order."""
    return root(leaf_hash(coin.pair.hash + bytes([coin.bit])) for coin in coins).hex()


def parse_coin(line: str, where: str) -> Coin:
    """Read a line of coins.jsonl and check its hash.

    Raises:
        TraceError: It is not JSON, lacks a field, or its hash is not that of its texts; `where` names it.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{where} is not JSON: {error}") from None
    if not isinstance(row, Mapping):
        raise TraceError(f"{where} is no object; a coin has {', '.join(FIELDS)}")
    if missing := [name for name in FIELDS if name not in row]:
        raise TraceError(f"{where} lacks {', '.join(missing)}; a coin has {', '.join(FIELDS)}")
    texts = [row[name] for name in ("prompt", "y0", "y1", "account")]
    if not all(isinstance(text, str) for text in texts):
        raise TraceError(f"{where} must have text in prompt, y0, y1 and account")
    if type(row["served"]) is not int or row["served"] not in (0, 1):
        raise TraceError(f"{where} must have 0 or 1 in served, got {row['served']!r}")
    coin = Coin(Pair(*texts), row["served"])
    if coin.pair.hash.hex() != row["hash"]:
        raise TraceError(
            f"{where} was edited: its texts hash to {coin.pair.hash.hex()[:16]}…, not to {str(row['hash'])[:16]}…"
        )
    return coin
