"""A figure with its interval, its size and the method that made it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point with an interval; both ends are finite."""

    value: float
    low: float
    high: float
    n: int
    """Independent units behind it: clusters where items are clustered, otherwise items."""
    confidence: float
    """Of the two-sided interval, in (0, 1)."""
    method: str
    """How the interval was made, such as `Wilson`."""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "value": self.value,
            "interval": [self.low, self.high],
            "n": self.n,
            "confidence": self.confidence,
            "method": self.method,
        }


def check_confidence(confidence: float) -> None:
    """Refuse a confidence outside (0, 1).

    Raises:
        ValueError: It lies outside.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
