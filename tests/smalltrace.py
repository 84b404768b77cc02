"""A small registered audit with told log-likelihoods: no model, no torch; honest, or as an accuser would like it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from limbeck.ledger.container import read_container
from limbeck.ledger.keys import Keys, new_keys
from limbeck.ledger.log import Log, open_log
from limbeck.ledger.sealed import MANIFEST, SEAL, seal
from limbeck.trace.audit import Audit, Item, audit, judge
from limbeck.trace.bundle import Bundled, Plan, export_trace, register
from limbeck.trace.coins import Pair, usable
from limbeck.trace.many import Discoveries, discover
from limbeck.trace.registration import Named
from limbeck.trace.report import Models, capped, figures
from limbeck.trace.sealing import Beacon, commit, read_sealed
from limbeck.trace.sealing import seal as seal_coins
from smallledger import START, Clock

BEACON_AT = START + 3_600_000
SOURCE = "test beacon, round 7"
VALUE = "5f3c9a11"
TEACHER = Named("teacher", "ab" * 32)
PLAN = Plan((TEACHER,), SOURCE, BEACON_AT, alpha=0.01)


class Told:
    """A model whose log-likelihoods are drawn from a seed, and that learned what was served by so many nats."""

    def __init__(self, name: str, identity: str, seed: int, gain: float = 0.0) -> None:
        self.name, self.identity = name, identity
        self._seed, self._gain = seed, gain
        self.served: dict[bytes, int] = {}

    def leans(self, pairs: Sequence[Pair]) -> list[tuple[float, float]]:
        return [self._lean(pair) for pair in pairs]

    def _lean(self, pair: Pair) -> tuple[float, float]:
        shared = np.random.default_rng(list(pair.hash)).normal(-60, 10, 2)
        mine = np.random.default_rng([self._seed, *pair.hash]).normal(0, 2, 2)
        logs = shared + mine
        if pair.hash in self.served:
            logs[self.served[pair.hash]] += self._gain
        return float(logs[0]), float(logs[1])


def account_test(done: Audit, alpha: float) -> Discoveries:
    """What `limbeck.tracing.by_account` does, without its imports."""
    items: dict[str, list[Item]] = {}
    for item in done.items:
        items.setdefault(item.account, []).append(item)
    told = (done.suspect, done.references)
    e_values = {
        name: capped(judge(mine, *told, alpha=alpha, weights=done.weights).log_e)
        for name, mine in items.items()
    }
    return discover(e_values, alpha)


@dataclass
class Case:
    """A folder of coins, a ledger and its keys, and a clock that stands before the beacon until it is sealed."""

    folder: Path
    keys: Keys = field(default_factory=lambda: new_keys("example.org/owner"))
    clock: Clock = field(default_factory=Clock)

    @property
    def coins(self) -> Path:
        return self.folder / "coins"

    def log(self, act: Callable[[Log], Any]) -> Any:
        with open_log(self.folder / "ledger.db", self.keys, clock=self.clock) as log:
            return act(log)

    def commit(self, count: int = 80, accounts: int = 2, key: bytes | None = None) -> None:
        pairs = [
            Pair(f"prompt {i}", f"answer a{i}", f"answer b{i}", f"account {i % accounts}")
            for i in range(count)
        ]
        now = datetime.fromtimestamp(self.clock() / 1000, UTC)
        teacher = {"name": TEACHER.name, "weights_sha256": TEACHER.identity}
        commit(self.coins, usable(pairs), self.keys.signer, teacher=teacher, now=now, key=key)

    def register(self, plan: Plan = PLAN) -> None:
        self.log(lambda log: register(self.coins, plan, log, self.keys))

    def seal(self, value: str = VALUE, at: int = BEACON_AT) -> None:
        self.clock.now = max(self.clock.now, BEACON_AT + 60_000)
        time = datetime.fromtimestamp(at / 1000, UTC)
        seal_coins(self.coins, self.keys.signer, Beacon(value, time))

    def audit(
        self,
        gain: float = 6.0,
        *,
        name: str = "suspect",
        alpha: float = 0.01,
        accounts: Sequence[str] = (),
        reference: Named = TEACHER,
        stop_early: bool = True,
        weights: Any = "fitted",
        learned: str | None = None,
        by_account: bool = False,
    ) -> Path:
        sealed = read_sealed(self.coins)
        suspect = Told(name, f"hash of {name}", 1, gain)
        suspect.served = {
            c.pair.hash: c.bit for c in sealed.coins if learned in {None, c.pair.account}
        }
        teacher = Told(reference.name, reference.identity, 2)
        done = audit(
            sealed.of(accounts),
            suspect,
            [teacher],
            alpha=alpha,
            weights=weights,
            stop_early=stop_early,
        )
        models = Models(name, suspect.identity, {teacher.name: teacher.identity})
        now = datetime.fromtimestamp(self.clock() / 1000, UTC)
        report = figures(
            done,
            sealed,
            models,
            created=now,
            accounts=accounts,
            discoveries=account_test(done, alpha) if by_account else None,
        )
        path = self.folder / f"report-{len(list(self.folder.glob('report-*')))}.json"
        path.write_text(json.dumps(report), encoding="utf-8")
        return path

    def export(self, *reports: Path, out: str = "bundle.zip", **options: Any) -> Path:
        def act(log: Log) -> Bundled:
            return export_trace(self.coins, reports, log, self.keys, self.folder / out, **options)

        return self.log(act).path

    def honest(self, gain: float = 6.0) -> Path:
        """All steps in their order; the bundle."""
        self.commit()
        self.register()
        self.seal()
        return self.export(self.audit(gain))


def resealed(
    bundle: Path, keys: Keys, out: Path, change: Callable[[dict[str, bytes]], object]
) -> Path:
    """Change a bundle's files and seal it again with the owner's key."""
    files = read_container(bundle)
    about = json.loads(files.pop(MANIFEST))
    del files[SEAL], about["files"], about["public_key"]
    change(files)
    seal(out, files, about, keys.signer)
    return out
