"""A steady pace: when the next request may start, so that a server's limits are kept rather than met."""

from dataclasses import dataclass, replace

_MINUTE = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """So many units a minute, evenly, with none saved up: the generic cell rate algorithm without a burst."""

    per_minute: int
    free_at: float = 0.0
    """Time, in seconds of the caller's clock, before which nothing more may start."""

    def take(self, units: float, now: float) -> tuple["Pace", float]:
        """Return the pace after these units, and the seconds to wait before they may start."""
        start = max(now, self.free_at)
        return replace(self, free_at=start + self._seconds(units)), start - now

    def give_back(self, units: float) -> "Pace":
        """Return the pace when fewer units were used than taken; negative where it were more."""
        return replace(self, free_at=self.free_at - self._seconds(units))

    def _seconds(self, units: float) -> float:
        return units * _MINUTE / self.per_minute
