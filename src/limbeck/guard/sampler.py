"""Which requests of an account the signals look at: all of the first ones, then a random share of a flood."""

import random
import secrets
from collections import OrderedDict

MOST_ACCOUNTS = 100_000
_FAR = 1.0


class _Flow:
    """One account's requests: how many of its first are left, and how many came in this second and the last."""

    __slots__ = ("before", "left", "now", "second", "skipped", "then")

    def __init__(self, burst: float, now: float) -> None:
        self.left = burst
        self.then = now
        self.second = now
        self.now = 0
        self.before = 0
        self.skipped = 0


class Sampler:
    """Decides by account, so that one flood costs no other account its look.

    An account has `burst` looks saved up and gains `per_s` a second. Beyond them a request is looked at with the
    probability per_s / rate, by chance, so that nobody can time what is seen. What is skipped is counted.
    """

    def __init__(self, burst: int, per_s: float, rng: random.Random | None = None) -> None:
        self._burst = float(burst)
        self._per_s = per_s
        # Nobody sees its draws, so that a quick generator with a secret seed will do.
        self._rng = rng or random.Random(secrets.randbits(256))  # noqa: S311
        self._flows: OrderedDict[str, _Flow] = OrderedDict()
        self._skipped: set[str] = set()

    def looks(self, account: str, now: float) -> bool:
        """Say whether the signals look at a request of this account."""
        flow = self._flows.get(account)
        if flow is None:
            flow = self._flows[account] = _Flow(self._burst, now)
            if len(self._flows) > MOST_ACCOUNTS:
                self._forget()
        passed = now - flow.then
        if passed > 0:  # a clock that steps back saves nothing up
            flow.left = min(self._burst, flow.left + passed * self._per_s)
        flow.then = now
        if abs(now - flow.second) >= _FAR:
            flow.before, flow.now, flow.second = (flow.now if passed < _FAR else 0), 0, now
        flow.now += 1
        if flow.left >= 1:
            flow.left -= 1
            return True
        if self._rng.random() * max(flow.before, flow.now) < self._per_s:
            return True
        flow.skipped += 1
        self._skipped.add(account)
        return False

    def skipped(self) -> dict[str, int]:
        """Return how many requests of which accounts were skipped since the last call."""
        counts = {name: flow.skipped for name in self._skipped if (flow := self._flows.get(name))}
        for name in counts:
            self._flows[name].skipped = 0
        self._skipped.clear()
        return counts

    def _forget(self) -> None:
        """Forget the account that was seen first; it starts with saved looks again."""
        name, flow = self._flows.popitem(last=False)
        if flow.skipped:
            self._flows[name] = flow
            self._flows.popitem(last=False)
