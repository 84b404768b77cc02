"""Two detectors that look at texts alone: where they come from, and whether they ask for hidden reasoning."""

from detectors.reader import Seen


class Source:
    """The artefact control: log-odds that an account's texts come from a copying set, added up from its lowest point.

    It knows nothing of behaviour. Where it does as well as a detector of behaviour, the data set explains the result.
    """

    name = "text source (control)"
    _CLIP = 3.0

    def __init__(self) -> None:
        self._sum: dict[str, float] = {}

    def see(self, seen: Seen) -> float:
        """Return the cumulative sum (CUSUM) of the account's log-odds."""
        odds = min(self._CLIP, max(-self._CLIP, seen.source_odds))
        held = max(0.0, self._sum.get(seen.one.account, 0.0) + odds)
        self._sum[seen.one.account] = held
        return held


class Unmimic:
    """The input guard of unmimic 0.1.0: its verdict on each request; it keeps nothing of an account."""

    name = "unmimic 0.1.0 input guard"

    def see(self, seen: Seen) -> float:
        """Return the score of the request, 1 more where it is blocked."""
        return seen.attack
