"""Where a guard's files are, and what its command line says over them."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from limbeck.guard.config import GuardConfig

_LONGEST_SOCKET = 100
"""Linux takes paths of sockets up to 107 bytes."""


@dataclass(frozen=True, slots=True)
class Places:
    """A guard's folder and what is in it. `overrides` are tables that win over guard.toml."""

    config: Path
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sockets: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder of guard.toml, of the accounts and of the ledger."""
        return self.config.parent

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens for its workers."""
        return (self.sockets or self.folder) / "keeper.sock"

    @property
    def snapshot(self) -> Path:
        """Where what the watch remembers is written down."""
        return self.folder / "watch.snapshot"

    @property
    def coins(self) -> Path:
        """The private file of coins; `limbeck trace collect` makes them a folder to audit."""
        return self.folder / "coins.jsonl"

    def ledger(self, config: GuardConfig) -> Path:
        """Return the file of the ledger; its keys lie beside it."""
        return self.folder / config.ledger.folder / "ledger.db"

    def traffic(self, config: GuardConfig) -> Path | None:
        """Return the folder of the traffic log, None where none is written."""
        return None if config.traffic.folder is None else self.folder / config.traffic.folder

    def policy(self, config: GuardConfig) -> Path | None:
        """Return the policy file, None for the one that comes with Limbeck."""
        return None if config.watch.policy is None else self.folder / config.watch.policy


def places_of(config: Path, overrides: Mapping[str, Mapping[str, Any]]) -> Places:
    """Return the places; sockets go into a folder of their own where the path is too long for one."""
    folder = config.resolve()
    if len(str(folder.parent / "keeper.sock").encode()) <= _LONGEST_SOCKET:
        return Places(folder, overrides)
    return Places(folder, overrides, Path(tempfile.mkdtemp(prefix="limbeck-")))
