"""What the keeper thinks: observations in, evidence weighed, decisions recorded first and acted on afterwards.

No socket and no clock of its own: `keeper` calls it.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from limbeck.errors import GuardError, LedgerError
from limbeck.guard.decision import Action, Decision
from limbeck.guard.observation import Observation
from limbeck.guard.record import Facts, decode, observation
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.pseudonym import keyed_digest
from limbeck.ledger.record import Entry

MOST_SPOOLED = 100_000
"""Records that wait in memory while the ledger cannot be written; beyond them sketches become a gap."""
MOST_REMEMBERED = 200_000
SKETCHED = 4_096
"""Characters of a request's newest text under a sketch."""
FLUSHES_A_SKIP = 40
"""Flushes between two records of what an account's sample left out: about ten seconds."""
SKETCHES_A_RECORD = 4_096
"""The ledger takes records of 1 MiB at the most."""


class Watches(Protocol):
    """Weighs evidence (`limbeck.guard.watch.Watch`)."""

    def observe(self, observation: Observation) -> Decision:
        """Take in one request and say what to do about its account from now on."""
        ...


class Records(Protocol):
    """Keeps records (`limbeck.ledger.log.Log`)."""

    def append(self, entries: Sequence[Entry]) -> Any:
        """Record a batch, durably; the result's `first` is the place of the first."""
        ...

    @property
    def reading(self) -> Any:
        """Read what was recorded: `leaf(seq)`."""
        ...


Impose = Callable[[Decision, str], None]
"""Gives an account the standing that a decision asks for, on the evidence of the record with this hash."""


@dataclass(slots=True)
class Batch:
    """What waits for the ledger."""

    decisions: list[Decision] = field(default_factory=list)
    coins: list[tuple[str, str]] = field(default_factory=list)
    digests: dict[str, list[str]] = field(default_factory=dict)
    digest_count: int = 0
    gap: int = 0
    skips: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many decisions and sketches."""
        return len(self.decisions) + self.digest_count

    def add(self, later: "Batch") -> None:
        """Take in what came later."""
        self.decisions += later.decisions
        self.coins += later.coins
        for account, digests in later.digests.items():
            self.digests.setdefault(account, []).extend(digests)
        self.digest_count += later.digest_count
        self.gap += later.gap
        for account, count in later.skips.items():
            self.skips[account] = self.skips.get(account, 0) + count

    def entries(self) -> list[Entry]:
        """Return it as records."""
        entries = [Entry("decision", one.account, _content(one)) for one in self.decisions]
        entries += [Entry("coin", account, {"hash": hashed}) for account, hashed in self.coins]
        if self.gap:
            entries.append(Entry("gap", None, {"requests": self.gap, "why": "no room"}))
        entries += [
            Entry("gap", account, {"requests": count, "why": "sampled"})
            for account, count in self.skips.items()
        ]
        for name, digests in self.digests.items():
            for start in range(0, len(digests), SKETCHES_A_RECORD):
                part = digests[start : start + SKETCHES_A_RECORD]
                entries.append(Entry("sketch", name, {"requests": part}))
        return entries


@dataclass(slots=True)
class Health:
    """What is wrong with the keeper's parts: None, or a sentence."""

    ledger: str | None = None
    sanctions: str | None = None
    watch: str | None = None


class Brain:
    """Owns what is pending: records that are not on the disk, decisions that are not acted on."""

    def __init__(
        self,
        watch: Watches,
        impose: Impose,
        *,
        secret: bytes,
        sketches: bool = True,
        keep_coin: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> None:
        self.health = Health()
        self.observed = 0
        self.skipped = 0
        self.decided: dict[str, int] = {}
        self.recorded = 0
        self.gaps = 0
        self.sampled_out = 0
        self._watch = watch
        self._impose = impose
        self._secret = secret
        self._sketches = sketches
        self._keep_coin = keep_coin
        self._fresh = Batch()
        self._taken = Batch()
        self._skips: dict[str, int] = {}
        self._to_impose: list[tuple[Decision, str]] = []
        self._flushes = 0
        self._standing: OrderedDict[str, Action] = OrderedDict()

    @property
    def pending(self) -> int:
        """How many records wait for the ledger."""
        return len(self._fresh) + len(self._taken)

    def observe(self, frame: bytes) -> Facts | None:
        """Take in one request; return its facts, or None if it is not readable."""
        facts, body = decode(frame)
        try:
            seen = observation(facts, body)
        except orjson.JSONDecodeError:
            self.skipped += 1
            return None
        self.observed += 1
        if self._sketches:
            self._sketch(seen)
        try:
            decision = self._watch.observe(seen)
        except (ValueError, ArithmeticError, LookupError, TypeError) as error:
            # One request that a signal cannot take must not stop the watch over all others.
            self.health.watch = f"a signal failed: {type(error).__name__}: {error}"
            self.skipped += 1
            return facts
        self._consider(decision)
        return facts

    def miss(self, count: int) -> None:
        """Note requests that a worker had no room for; the ledger says so."""
        self.gaps += count
        self._fresh.gap += count

    def coin(self, coin: Mapping[str, Any]) -> None:
        """Keep a coin in its private file, and its hash for the ledger."""
        if self._keep_coin is not None:
            self._fresh.coins.append((coin["account"], self._keep_coin(coin)))

    def skip(self, counts: Mapping[str, int]) -> None:
        """Note requests of a flood that were left out of the sample."""
        skips = self._skips
        for account, count in counts.items():
            self.sampled_out += count
            skips[account] = skips.get(account, 0) + count

    def take(self) -> None:
        """Set aside what came since the last time, for `flush`."""
        self._flushes += 1
        if self._flushes % FLUSHES_A_SKIP == 0:
            self._fresh.skips, self._skips = self._skips, {}
        self._taken.add(self._fresh)
        self._fresh = Batch()

    def flush(self, records: Records) -> None:
        """Record what was taken, then act on the decisions that are recorded now.

        While the ledger cannot be written, nothing new is acted on; what was taken waits. Both wait for disks: this
        may run in a thread while the brain goes on to observe, but neither twice at once nor beside `take`.
        """
        taken = self._taken
        entries = taken.entries()
        if entries:
            try:
                receipt = records.append(entries)
            except LedgerError as error:
                self.health.ledger = str(error)
                self._shed()
                return
            self._to_impose += [
                (decision, leaf_hash(records.reading.leaf(receipt.first + place)).hex())
                for place, decision in enumerate(taken.decisions)
            ]
            self.recorded += len(entries)
            self._taken = Batch()
        self.health.ledger = None
        self._act()

    def _sketch(self, seen: Observation) -> None:
        digest = keyed_digest(self._secret, newest_text(seen.request)[:SKETCHED])[:32]
        self._fresh.digests.setdefault(seen.account, []).append(digest)
        self._fresh.digest_count += 1

    def _consider(self, decision: Decision) -> None:
        standing = self._standing
        before = standing.get(decision.account, Action.ALLOW)
        if decision.action == before:
            return
        name = decision.action.name.lower()
        self.decided[name] = self.decided.get(name, 0) + 1
        self._fresh.decisions.append(decision)
        if decision.action == Action.ALLOW:
            standing.pop(decision.account, None)
            return
        standing[decision.account] = decision.action
        standing.move_to_end(decision.account)
        if len(standing) > MOST_REMEMBERED:
            standing.popitem(last=False)

    def _act(self) -> None:
        while self._to_impose:
            decision, evidence = self._to_impose[0]
            try:
                self._impose(decision, evidence)
            except (
                GuardError
            ) as error:  # the accounts' database is away: try again at the next flush
                self.health.sanctions = str(error)
                return
            self._to_impose.pop(0)
        self.health.sanctions = None

    def _shed(self) -> None:
        taken = self._taken
        if len(taken) > MOST_SPOOLED:
            self.gaps += taken.digest_count
            taken.gap += taken.digest_count
            taken.digests = {}
            taken.digest_count = 0


def newest_text(request: Any) -> str:
    """Return what a request's user said last, in any endpoint's form; an empty string where it is not text."""
    turns = request.get("messages") or request.get("input") or request.get("prompt")
    if type(turns) is str:
        return turns
    if type(turns) is not list or not turns:
        return ""
    for turn in reversed(turns):
        if type(turn) is str:
            return turn
        if type(turn) is dict and turn.get("role", "user") == "user":
            content = turn.get("content")
            if type(content) is str:
                return content
            if type(content) is list:
                return "".join(part.get("text", "") for part in content if type(part) is dict)
    return ""


def _content(decision: Decision) -> dict[str, Any]:
    """Return what the ledger holds of a decision."""
    return {
        "ts": _number(decision.ts),
        "action": decision.action.name.lower(),
        "clause": decision.clause,
        "e_value": _number(decision.e_value),
        "cluster": decision.cluster,
        "because": [
            {"code": one.code, "value": _number(one.value), "detail": one.detail}
            for one in decision.because
        ],
        "indicators": {name: _number(value) for name, value in decision.indicators.items()},
    }


def _number(value: float) -> float | str:
    """Return a number as JSON can hold it: infinite evidence is spelled."""
    number = float(value)
    return number if math.isfinite(number) else str(number)
