"""What a store keeps of each distribution."""

from dataclasses import dataclass

from limbeck.errors import StoreError


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """How a dense distribution becomes a sparse one, and how it lies on disk.

    For a given number of entries the variance of an unbiased sparse estimate is least when every token
    above some mass c is kept and the rest is kept at random with weight c. `head_threshold` and
    `tail_weight` are that c, one for entries that also carry a mass and one for entries that do not.
    """

    head_threshold: float = 0.1
    """Tokens at least this likely are in the head, with their own mass; in (0, 1)."""
    max_head: int = 16
    """Entries in a head at the most; the most likely ones stay."""
    tail_samples: int = 8
    """Samples of the tail at a position at the most; 0 keeps the tail's mass only."""
    tail_weight: float | None = 0.133
    """Tail mass that one sample stands for; None draws `tail_samples` wherever there is a tail."""
    tail_floor: float = 0.03
    """A smaller tail is stored as this mass with probability tail / floor, else as none: unbiased."""
    levels: int = 128
    """Masses are multiples of 1 / levels, rounded at random without bias; 2 to 65,535."""
    top_k: int | None = None
    """Keep exactly the k most likely tokens and no samples; for comparison with other formats."""
    bytes_per_token: float | None = None
    """Most bytes a loss position may take, tokens and everything else counted; `choose` picks the rest."""
    max_gradient_mse: float | None = None
    """Most E||t - p||^2 that the estimate t may have; `choose` picks the rest."""
    temperature: float = 1.0
    """Temperature of the stored distribution."""
    shard_documents: int = 64
    """Documents a shard; a crash loses one shard at the most."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _between("head_threshold", self.head_threshold, 0, 1)
        _between("tail_floor", self.tail_floor, 0, 1, low_included=True)
        if self.tail_weight is not None:
            _between("tail_weight", self.tail_weight, 0, 1)
        if self.temperature <= 0:
            raise StoreError(f"store.temperature must be above 0, got {self.temperature}")
        _whole("max_head", self.max_head, 1, 65_535)
        _whole("tail_samples", self.tail_samples, 0, 255)
        _whole("levels", self.levels, 2, 65_535)
        _whole("shard_documents", self.shard_documents, 1, 1 << 20)
        if self.top_k is not None:
            _whole("top_k", self.top_k, 1, self.max_head)
        if self.bytes_per_token is not None and self.max_gradient_mse is not None:
            raise StoreError("give store.bytes_per_token or store.max_gradient_mse, not both")


def _between(
    name: str, value: float, low: float, high: float, *, low_included: bool = False
) -> None:
    if not (low <= value if low_included else low < value) or not value < high:
        raise StoreError(f"store.{name} must lie between {low} and {high}, got {value}")


def _whole(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise StoreError(f"store.{name} must be {low} to {high}, got {value}")
