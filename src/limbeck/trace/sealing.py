"""A folder of coins: what is committed to before the beacon, what is sealed after it, and how both are checked.

| file | written | holds |
|---|---|---|
| `pairs.jsonl` | first | the answers before the toss; gone once they are coins |
| `commitment.json` | first, completed at the end | two signed notes and the public key |
| `coin.key` | first, mode 0600 | the secret key of the bits; goes into a bundle, not to the public |
| `coins.jsonl` | last | `prompt`, `y0`, `y1`, `served`, `account`, `hash` |

The first note signs the root over all pairs and a hash of the key; it is what a time-stamp or a witness should see. The
second signs the beacon, which must be younger than the first, and the root over pairs and bits.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as holds
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.artefact import read_json, sha256_bytes, write_json, write_text
from limbeck.errors import LedgerError, TraceError
from limbeck.ledger.encoding import canonical, field, parse
from limbeck.ledger.note import PublicKey, Signer, is_signed, parse_key, parse_note, sign
from limbeck.trace.coins import (
    KEY_BYTES,
    Coin,
    Pair,
    Usable,
    coins_root,
    deal,
    key_commitment,
    pairs_root,
    parse_coin,
)

COINS, COMMITMENT, KEY, PAIRS = "coins.jsonl", "commitment.json", "coin.key", "pairs.jsonl"
FORMAT = "limbeck.coins/1"


@dataclass(frozen=True, slots=True)
class Beacon:
    """A public value that nobody could foresee, such as a round of a randomness beacon or a block's hash."""

    value: str
    time: datetime | None = None
    """When it was published; None where the owner states nothing, and then nobody can tell that it is young enough."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What was signed before the beacon was known."""

    created: datetime
    pairs: int
    pairs_root: str
    key_sha256: str
    teacher: Mapping[str, Any]
    """Name and hash of the model that answered, and how its answers were drawn."""
    skipped: Mapping[str, int]
    """Pairs that were left out, by reason."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A folder's coins, checked against what was signed."""

    coins: tuple[Coin, ...]
    committed: Committed
    beacon: Beacon
    """Its value is empty where there was none."""
    root: str
    public_key: PublicKey
    key: bytes | None = holds(repr=False)
    """The secret key, where the folder holds it; then every bit was checked."""

    def of(self, accounts: Sequence[str]) -> tuple[Coin, ...]:
        """Return the coins of these accounts, of all where none is named.

        Raises:
            TraceError: An account has no coin.
        """
        known = {coin.pair.account for coin in self.coins}
        for account in accounts:
            if account not in known:
                raise TraceError(f"account {account!r} has no coin; {_some(known)}")
        return tuple(c for c in self.coins if not accounts or c.pair.account in accounts)


def commit(
    folder: Path,
    found: Usable,
    signer: Signer,
    *,
    teacher: Mapping[str, Any],
    now: datetime,
    key: bytes | None = None,
) -> None:
    """Write pairs and key into a folder, and sign their commitment.

    Args:
        folder: New, or empty but for other files.
        found: The pairs.
        signer: Whose signature stands under the commitment.
        teacher: What answered, and how: JSON values.
        now: Aware time of the commitment.
        key: 32 bytes; None draws a fresh one.

    Raises:
        TraceError: The folder holds coins already, or there is no pair.
    """
    if any((folder / name).exists() for name in (COINS, COMMITMENT, KEY, PAIRS)):
        raise TraceError(f"{folder} holds coins already; a sealed file is never written again")
    if not found.pairs:
        raise TraceError(
            f"no pair can be tossed for: {found.equal} had equal answers, {found.duplicate} were asked before"
        )
    key = secrets.token_bytes(KEY_BYTES) if key is None else key
    statement = {
        "what": "limbeck coins, committed",
        "created": now.astimezone(UTC).isoformat(),
        "pairs": len(found.pairs),
        "pairs_root": pairs_root(found.pairs),
        "key_sha256": key_commitment(key),
        "teacher": dict(teacher),
        "skipped": {"equal": found.equal, "duplicate": found.duplicate},
    }
    folder.mkdir(parents=True, exist_ok=True)
    _write_private(folder / KEY, key.hex() + "\n")
    lines = [[p.prompt, p.y0, p.y1, p.account] for p in found.pairs]
    write_text(folder / PAIRS, "".join(json.dumps(line) + "\n" for line in lines))
    note = _signed(statement, signer)
    values = {"format": FORMAT, "public_key": str(signer.public), "committed": note}
    write_json(folder / COMMITMENT, {**values, "sealed": None, "root": None, "beacon": None})


def seal(folder: Path, signer: Signer, beacon: Beacon | None) -> None:
    """Toss for the pairs that were committed to, and sign the outcome.

    Args:
        folder: Where `commit` wrote.
        signer: The same as there.
        beacon: The public value; None binds the bits to the key alone, and whoever reads the report is told so.

    Raises:
        TraceError: There is no commitment, the coins are sealed already, another signer, or a beacon that was public
            before the commitment.
    """
    if (folder / COINS).exists():
        raise TraceError(f"{folder / COINS} is sealed already; its beacon cannot be changed")
    values = read_commitment(folder)
    public = _public(values, folder)
    if str(signer.public) != str(public):
        raise TraceError(f"{folder} was committed to by {public.name}, not with this key")
    committed = _committed(values["committed"], public, folder)
    check_beacon(beacon, committed.created)
    coins = deal(read_pairs(folder, committed), _read_key(folder, committed), _value(beacon))
    statement = {
        "what": "limbeck coins, sealed",
        "commitment_sha256": sha256_bytes(values["committed"].encode()),
        "beacon": _beacon_json(beacon),
        "coins": len(coins),
        "root": coins_root(coins),
    }
    write_text(folder / COINS, "".join(f"{coin.line()}\n" for coin in coins))
    changed = {key: statement[key] for key in ("root", "beacon")}
    write_json(folder / COMMITMENT, {**values, **changed, "sealed": _signed(statement, signer)})
    (folder / PAIRS).unlink()


def check_beacon(beacon: Beacon | None, committed_at: datetime) -> None:
    """Refuse a beacon that the owner could know when committing.

    Raises:
        TraceError: It has no value, or was public before the commitment.
    """
    if beacon is None:
        return
    if not beacon.value.strip():
        raise TraceError("the beacon's value is empty; give the public value as it was published")
    if beacon.time is not None and beacon.time <= committed_at:
        raise TraceError(
            f"the beacon of {beacon.time.isoformat()} was public before the commitment of {committed_at.isoformat()}; "
            "take one that is published later"
        )


def read_sealed(folder: Path) -> Sealed:
    """Read a folder's coins and check them against its signed commitment.

    Raises:
        TraceError: A file is missing, a coin was edited, added or taken out, a signature or bit is wrong, or a beacon
            was public before the commitment.
    """
    values = read_commitment(folder)
    path = folder / COINS
    if values.get("sealed") is None or not path.is_file():
        raise TraceError(
            f"{folder} is committed to and not sealed yet; when the beacon is published: limbeck trace seal --out "
            f"{folder} --beacon TIME=VALUE"
        )
    public = _public(values, folder)
    committed = _committed(values["committed"], public, folder)
    statement = _statement(values["sealed"], public, folder)
    where = f"the seal in {folder / COMMITMENT}"
    for name, kind in (("commitment_sha256", str), ("root", str), ("coins", int)):
        field(statement, name, kind, where)
    coins = tuple(_read_coins(path))
    _check_roots(coins, committed, statement, values, path)
    beacon = _beacon(statement.get("beacon"))
    check_beacon(beacon, committed.created)
    key = _read_key(folder, committed) if (folder / KEY).is_file() else None
    if key is not None and list(coins) != deal([c.pair for c in coins], key, _value(beacon)):
        raise TraceError(f"{path} has bits that its key and beacon do not give")
    return Sealed(coins, committed, beacon or Beacon(""), statement["root"], public, key)


def _check_roots(
    coins: Sequence[Coin],
    committed: Committed,
    statement: Mapping[str, Any],
    values: Mapping[str, Any],
    path: Path,
) -> None:
    if sha256_bytes(values["committed"].encode()) != statement["commitment_sha256"]:
        raise TraceError(f"{path.parent / COMMITMENT} joins the notes of two commitments")
    found = coins_root(coins)
    if found != statement["root"] or len(coins) != statement["coins"]:
        raise TraceError(
            f"{path} does not match its commitment: {len(coins)} coins with root {found[:16]}…, and "
            f"{statement['coins']} with root {str(statement['root'])[:16]}… were signed"
        )
    if pairs_root(c.pair for c in coins) != committed.pairs_root:
        raise TraceError(f"{path} holds other answers than were committed to before the beacon")


def _read_coins(path: Path) -> Iterator[Coin]:
    for number, line in enumerate(read_lines(path), start=1):
        yield parse_coin(line, f"{path} line {number}")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file of JSON lines; a text may hold other line separators than the newline.

    Raises:
        TraceError: It is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise TraceError(f"{path} is not text in UTF-8: {error}") from None
    return lines[:-1] if lines[-1] == "" else lines


def read_commitment(folder: Path) -> dict[str, Any]:
    """Return what stands in a folder's commitment.json: `public_key`, `committed` and perhaps `sealed`, all text.

    Raises:
        TraceError: It is missing, or not of the format.
    """
    path = folder / COMMITMENT
    if not path.is_file():
        raise TraceError(f"{folder} has no {COMMITMENT}: coins come from `limbeck trace seal`")
    try:
        values = read_json(path)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise TraceError(f"{path} is not of the format {FORMAT}")
    if missing := {"public_key", "committed"} - values.keys():
        raise TraceError(f"{path} lacks {', '.join(sorted(missing))}")
    for name in ("public_key", "committed", "sealed"):
        value = values.get(name)
        if not (isinstance(value, str) or (name == "sealed" and value is None)):
            raise TraceError(f"{path} must have text in {name}, got {value!r}")
    return values


def read_committed(folder: Path) -> Committed:
    """Return what a folder's coins were committed to, sealed or not.

    Raises:
        TraceError: There is no commitment, or it does not hold.
    """
    values = read_commitment(folder)
    return _committed(values["committed"], _public(values, folder), folder)


def _public(values: Mapping[str, Any], folder: Path) -> PublicKey:
    try:
        return parse_key(values["public_key"])
    except LedgerError as error:
        raise TraceError(f"{folder / COMMITMENT}: {error}") from None


def _committed(note: str, public: PublicKey, folder: Path) -> Committed:
    statement = _statement(note, public, folder)
    where = f"the commitment in {folder / COMMITMENT}"
    return Committed(
        created=_moment(field(statement, "created", str, where), where),
        pairs=field(statement, "pairs", int, where),
        pairs_root=field(statement, "pairs_root", str, where),
        key_sha256=field(statement, "key_sha256", str, where),
        teacher=field(statement, "teacher", dict, where),
        skipped=field(statement, "skipped", dict, where),
    )


def _moment(text: str, where: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise TraceError(f"{where} has no time with its zone, got {text[:40]!r}")
    return time


def _signed(statement: Mapping[str, Any], signer: Signer) -> str:
    return sign(canonical(statement).decode() + "\n", signer)


def _statement(note: str, public: PublicKey, folder: Path) -> dict[str, Any]:
    where = f"a note in {folder / COMMITMENT}"
    try:
        parsed = parse_note(note)
        value = parse(parsed.text.removesuffix("\n").encode(), where)
    except LedgerError as error:
        raise TraceError(f"{where}: {error}") from None
    if not is_signed(parsed, public):
        raise TraceError(f"{where} is not signed by {public.name}: it was changed")
    if not isinstance(value, dict):
        raise TraceError(f"{where} is no object, got {type(value).__name__}")
    return value


def read_pairs(folder: Path, committed: Committed) -> list[Pair]:
    """Return the pairs of a folder that is committed to and not sealed yet.

    Raises:
        TraceError: They are missing, malformed, or not what was committed to.
    """
    path = folder / PAIRS
    if not path.is_file():
        raise TraceError(
            f"{path} is missing: only coins that are committed to and not sealed have it"
        )
    pairs = [_pair(line, f"{path} line {n}") for n, line in enumerate(read_lines(path), start=1)]
    if pairs_root(pairs) != committed.pairs_root:
        raise TraceError(f"{path} is not what was committed to")
    return pairs


def _pair(line: str, where: str) -> Pair:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{where} is not JSON: {error}") from None
    if not (isinstance(row, list) and len(row) == 4 and all(isinstance(x, str) for x in row)):
        raise TraceError(f"{where} must list prompt, y0, y1 and account")
    return Pair(*row)


def _read_key(folder: Path, committed: Committed) -> bytes:
    path = folder / KEY
    try:
        key = bytes.fromhex(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        raise TraceError(f"{path} is missing or is no key of 64 hexadecimal digits") from None
    if key_commitment(key) != committed.key_sha256:
        raise TraceError(f"{path} is not the key that was committed to")
    return key


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)


def _value(beacon: Beacon | None) -> str:
    return "" if beacon is None else beacon.value


def _beacon_json(beacon: Beacon | None) -> dict[str, Any] | None:
    if beacon is None:
        return None
    time = None if beacon.time is None else beacon.time.astimezone(UTC).isoformat()
    return {"value": beacon.value, "time": time}


def _beacon(value: Mapping[str, Any] | None) -> Beacon | None:
    if value is None:
        return None
    where = "the beacon that was sealed with"
    told = field(value, "value", str, where)
    time = None if value.get("time") is None else field(value, "time", str, where)
    return Beacon(told, None if time is None else _moment(time, where))


def _some(known: set[str]) -> str:
    names = sorted(repr(name) for name in known)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"coins belong to {', '.join(names[:5])}{more}"
