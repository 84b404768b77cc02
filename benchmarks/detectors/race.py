"""Runs detectors over traffic: the highest score of every account, and how fast a campaign's rises."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from detectors.reader import Seen

Doubles = npt.NDArray[np.float64]


class Detector(Protocol):
    """A running score for every account."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def see(self, seen: Seen) -> float:
        """Take in a request and return how suspicious its account is by now."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """A campaign as it went on."""

    score_Q: Mapping[str, Doubles]
    """Detector to the highest score of any account of the campaign so far, at each of its requests."""
    copied_Q: npt.NDArray[np.int64]
    """Copying answers released up to and including each request."""

    def caught(self, detector: str, above: float) -> int | None:
        """Return the requests up to and including the first on which the score exceeds a threshold."""
        over_Q = self.score_Q[detector] > above
        return int(over_Q.argmax()) + 1 if over_Q.any() else None


def peaks(detectors: Sequence[Detector], traffic: Iterable[Seen]) -> dict[str, dict[str, float]]:
    """Return each detector's highest score of each account."""
    found: dict[str, dict[str, float]] = {detector.name: {} for detector in detectors}
    for seen in traffic:
        account = seen.one.account
        for detector in detectors:
            score = detector.see(seen)
            held = found[detector.name]
            if score > held.get(account, -np.inf):
                held[account] = score
    return found


def trace(
    detectors: Sequence[Detector],
    traffic: Iterable[Seen],
    copies: Mapping[str, npt.NDArray[np.bool_]],
) -> Trace:
    """Run a campaign past detectors.

    Args:
        detectors: Each sees all of it.
        traffic: The campaign's requests in the order of time.
        copies: Account to which of its requests copy.
    """
    scores: dict[str, list[float]] = {detector.name: [] for detector in detectors}
    asked: dict[str, int] = {}
    copied: list[bool] = []
    for seen in traffic:
        account = seen.one.account
        copied.append(bool(copies[account][asked.get(account, 0)]))
        asked[account] = asked.get(account, 0) + 1
        for detector in detectors:
            scores[detector.name].append(detector.see(seen))
    running = {name: np.maximum.accumulate(np.array(row)) for name, row in scores.items()}
    return Trace(running, np.cumsum(copied))
