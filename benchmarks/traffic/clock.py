"""When requests come: people in their days, machines round the clock, runs in bursts."""

import numpy as np
import numpy.typing as npt

DAY_S = 86400.0
_BY_HOUR = np.array(
    [1, 0.4, 0.2, 0.1, 0.1, 0.2, 0.6, 1.5, 3, 5, 6, 6, 5, 5, 6, 6, 5.5, 5, 4.5, 4.5, 5, 5, 4, 2.2]
)
"""How likely a person is at work in each hour of his own day; our assumption, shaped like office and evening use."""
_WEEKEND = 0.6
_ZONES_H = (-8, -5, -3, 0, 1, 2, 5.5, 8, 9)


def daily(
    rng: np.random.Generator, start: float, days: float, count: int
) -> npt.NDArray[np.float64]:
    """Return `count` moments of one person's days in ascending order, fewer at night and at weekends.

    Args:
        rng: Draws the person's time zone, then the moments.
        start: Seconds since 1970-01-01 UTC.
        days: The moments fall into this many days after `start`.
        count: How many.
    """
    zone_s = 3600 * _ZONES_H[int(rng.integers(len(_ZONES_H)))]
    whole = max(1, int(days))
    weekday_D = (int(start // DAY_S) + 3 + np.arange(whole)) % 7  # 1970-01-01 was a Thursday
    chance_D = np.where(weekday_D >= 5, _WEEKEND, 1.0)
    day_N = rng.choice(whole, count, p=chance_D / chance_D.sum())
    hour_N = rng.choice(24, count, p=_BY_HOUR / _BY_HOUR.sum())
    local_N = day_N * DAY_S + (hour_N + rng.random(count)) * 3600
    return np.sort(start - start % DAY_S + (local_N - zone_s) % (whole * DAY_S))


def steady(
    rng: np.random.Generator, start: float, days: float, count: int
) -> npt.NDArray[np.float64]:
    """Return `count` moments spread evenly over days and nights, each jittered within its slot."""
    slot_s = days * DAY_S / count
    return start + (np.arange(count) + rng.random(count)) * slot_s


def bursts(
    rng: np.random.Generator, start: float, days: float, count: int, *, runs: int, gap_s: float
) -> npt.NDArray[np.float64]:
    """Return `count` moments in `runs` unbroken runs, on average `gap_s` apart within a run."""
    begins = np.sort(rng.random(runs)) * days * DAY_S
    share = [len(part) for part in np.array_split(np.arange(count), runs)]
    runs_of = [
        start + begin + np.cumsum(rng.exponential(gap_s, size))
        for begin, size in zip(begins, share, strict=True)
    ]
    return np.sort(np.concatenate(runs_of))


def pauses(rng: np.random.Generator, count: int, median_s: float) -> npt.NDArray[np.float64]:
    """Return the pauses of a person between turns: log-normal around a median."""
    return median_s * np.exp(rng.normal(0.0, 0.8, count))
