"""Coins that a gateway tossed while it served: held against its ledger, and made a folder that an audit reads.

The gateway writes a coin's hash into its ledger before anything can be known of a suspect, so a coin that was added,
edited or lost since shows. What no ledger shows is what happened before: whoever holds the key knows a pair's bit as
soon as both answers are there, and could draw again until it suits. So such coins convince their owner and are never
bundled for others; docs/trace-bundle.md says why nothing mends that after the fact.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from limbeck.errors import LedgerError, TraceError
from limbeck.ledger.audit import audit_log
from limbeck.ledger.checkpoint import verify_checkpoint
from limbeck.ledger.keys import Keys
from limbeck.ledger.pseudonym import opening, pseudonym
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import read_leaf
from limbeck.trace.coins import Coin, parse_coin, toss, usable
from limbeck.trace.sealing import Beacon, commit, read_lines, seal


@dataclass(frozen=True, slots=True)
class Live:
    """Coins of a gateway that stand in its ledger."""

    coins: tuple[Coin, ...]
    """In the order of the ledger."""
    unrecorded: int
    """Coins of the file that the ledger does not have, left out: a crash before the record, or added since."""


def read_live(path: Path, log: Reading, keys: Keys, *, known: Sequence[str] = ()) -> Live:
    """Read a gateway's coins and check them against its whole ledger.

    Args:
        path: The gateway's `coins.jsonl`.
        log: Its ledger.
        keys: The ledger's.
        known: Checkpoints of the ledger from earlier or elsewhere; the ledger must go on from each.

    Raises:
        TraceError: A coin was edited, or one that the ledger recorded is missing.
        LedgerError: The ledger does not hold, or a known checkpoint is not of it.
    """
    if not path.is_file():
        raise TraceError(f"{path} is missing: the gateway tossed no coins, or keeps them elsewhere")
    audit_log(log)
    if log.public_key() != keys.signer.public:
        raise LedgerError(f"the ledger is of the key {log.public_key()}, not {keys.signer.public}")
    for note in known:
        _check_known(log, note, keys)
    coins = [parse_coin(line, f"{path} line {n}") for n, line in enumerate(read_lines(path), 1)]
    by_place: dict[tuple[str, str], list[Coin]] = {}
    for coin in coins:
        account = coin.pair.account
        name = pseudonym(account, opening(keys.secret, account))
        by_place.setdefault((name, coin.pair.hash.hex()), []).append(coin)
    recorded = _recorded(log)
    missing = Counter(recorded) - Counter({place: len(c) for place, c in by_place.items()})
    if missing:
        raise TraceError(
            f"the ledger recorded {missing.total()} coins that {path} lacks; an audit of the rest would be of coins "
            "that somebody may have picked"
        )
    found = tuple(by_place[place].pop(0) for place in recorded)
    return Live(found, len(coins) - len(found))


def collect(
    live: Live,
    folder: Path,
    keys: Keys,
    *,
    key: bytes,
    beacon: str,
    teacher: Mapping[str, object],
    now: datetime,
) -> int:
    """Write the coins into a folder that `limbeck trace audit` reads, and return how many.

    A prompt that an account asked twice counts once, the first time; pairs keep the order of the ledger.

    Args:
        live: As they were read.
        folder: New, or empty but for other files.
        keys: Whose signature stands under them.
        key: The coins' key.
        beacon: As the gateway was given it; empty where there was none.
        teacher: What answered: JSON values.
        now: Aware time.

    Raises:
        TraceError: A bit that key and beacon do not give, no usable coin, or a folder that holds coins already.
    """
    for coin in live.coins:
        if toss(key, beacon, coin.pair.hash) != coin.bit:
            raise TraceError(
                f"the coin {coin.pair.hash.hex()[:16]}… has a bit that this key and this beacon do not give"
            )
    found = usable(coin.pair for coin in live.coins)
    about = {**teacher, "live": True}
    commit(folder, found, keys.signer, teacher=about, now=now, key=key)
    seal(folder, keys.signer, Beacon(beacon) if beacon else None)
    return len(found.pairs)


def _recorded(log: Reading) -> list[tuple[str, str]]:
    """Return pseudonym and hash of every coin in the ledger, in order."""
    leaves = log.leaves(0, log.size())
    records = (read_leaf(leaf, f"record {n}") for n, leaf in enumerate(leaves))
    return [
        (record.account, str(record.content["hash"]))
        for record in records
        if record.kind == "coin" and "hash" in record.content
    ]


def _check_known(log: Reading, note: str, keys: Keys) -> None:
    checkpoint = verify_checkpoint(note, keys.signer.public)
    if checkpoint.size > log.size() or log.frontier(checkpoint.size).root() != checkpoint.root:
        raise LedgerError(
            f"the known checkpoint at {checkpoint.size} records is not of this ledger: it was cut off, rewritten or swapped"
        )
