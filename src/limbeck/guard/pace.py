"""A pace of so many requests a minute for each of many accounts."""

from collections import OrderedDict

MOST_ACCOUNTS = 100_000


class Pace:
    """Token buckets, at most `MOST_ACCOUNTS`; those unused for longest are forgotten, which forgives them."""

    def __init__(self, per_minute: int, burst: int = 1) -> None:
        self._per_s = per_minute / 60
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, account: str, now: float) -> float:
        """Take one request out of the account's bucket and return 0, or return how long to wait for one.

        A clock that steps back gives nothing and takes nothing.
        """
        left, then = self._buckets.get(account, (float(self._burst), now))
        left = min(self._burst, left + max(now - then, 0.0) * self._per_s)
        enough = left >= 1
        self._buckets[account] = (left - 1 if enough else left, now)
        self._buckets.move_to_end(account)
        if len(self._buckets) > MOST_ACCOUNTS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1 - left) / self._per_s
