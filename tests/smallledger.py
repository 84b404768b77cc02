"""A small ledger, and bundles of it that an attacker may rewrite with or without the key."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.ledger.bundle import export_account
from limbeck.ledger.container import read_container, write_container
from limbeck.ledger.keys import Keys, new_keys
from limbeck.ledger.log import Log, open_log
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import Entry, RawText
from limbeck.ledger.sealed import MANIFEST, SEAL, seal

START = 1_764_000_000_000
NAME = "example.org/guard"


@dataclass
class Clock:
    """A clock that a test sets; it goes on by a second whenever it is read."""

    now: int = START
    step: int = 1000

    def __call__(self) -> int:
        self.now += self.step
        return self.now


@dataclass
class Ledger:
    """A log on disk with its keys."""

    path: Path
    keys: Keys = field(default_factory=lambda: new_keys(NAME))
    clock: Clock = field(default_factory=Clock)

    def write(self, act: Callable[[Log], object], **options: Any) -> None:
        with open_log(self.path, self.keys, clock=self.clock, spacing_ms=0, **options) as log:
            act(log)

    def export(self, account: str, out: Path, **options: Any) -> Path:
        with read_log(self.path) as log:
            export_account(log, self.keys, account, out, **options)
        return out

    def checkpoint(self) -> str:
        with read_log(self.path) as log:
            note = log.last_checkpoint()
            assert note is not None
            return note


def decision(account: str, n: int) -> Entry:
    return Entry("decision", account, {"action": "allow", "n": n, "note": "déjà vu"})


def some_traffic(log: Log) -> None:
    """Six batches of five accounts with three pins; `anna` has records in the first and last stretch only."""
    for batch in range(6):
        names = ["bert", "carl", "dora"] + (["anna", "anna"] if batch in {0, 5} else [])
        log.append([decision(name, batch) for name in names])
        if batch in {1, 3}:
            log.pin()
    log.append([Entry("gap", None, {"why": "restart", "seconds": 3})])
    raw = RawText("a prompt that was kept", "a dispute", START + 86_400_000)
    log.append([Entry("appeal", "anna", {"text": "it was an evaluation"}, raw)])
    log.pin()


@dataclass
class Forger:
    """An insider: has the key, and seals a bundle again after changing its files."""

    keys: Keys
    files: dict[str, bytes]
    about: dict[str, Any]

    def rows(self, name: str) -> list[bytes]:
        return self.files[name].splitlines()

    def put(self, name: str, rows: list[bytes]) -> None:
        self.files[name] = b"".join(row + b"\n" for row in rows)

    def sealed(self, out: Path) -> Path:
        seal(out, self.files, self.about, self.keys.signer)
        return out


def forge(bundle: Path, keys: Keys) -> Forger:
    files = read_container(bundle)
    about = json.loads(files.pop(MANIFEST))
    del files[SEAL], about["files"], about["public_key"]
    return Forger(keys, files, about)


def rewritten(bundle: Path, out: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """An outsider: changes files, without the key."""
    files = read_container(bundle)
    change(files)
    write_container(out, files)
    return out
