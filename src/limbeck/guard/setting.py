"""What a worker goes by: the configuration, prepared for the data path. A reload swaps one value for another."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from limbeck.guard.interface.admit import Sealing, ServedModel
from limbeck.guard.seal.tags import Tags


@dataclass(frozen=True, slots=True)
class Price:
    """What a thousand tokens cost, in millionths of the operator's currency unit."""

    prompt: int = 0
    completion: int = 0

    def of(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return the cost of a request, rounded up."""
        return -(-(prompt_tokens * self.prompt + completion_tokens * self.completion) // 1000)


@dataclass(frozen=True, slots=True)
class Setting:
    """Everything that a request is judged by, apart from whose it is."""

    models: Mapping[str, ServedModel]
    sealing: Sealing = field(default_factory=Sealing)
    tags: Tags = field(default_factory=Tags)
    prices: Mapping[str, Price] = field(default_factory=dict)
    body_bytes: int = 20 * 1024 * 1024
    reply_bytes: int = 256 * 1024 * 1024
    in_flight: int = 4096
    """Requests at a time in one worker; beyond them the answer is 503."""
    slowed_per_minute: int = 6
    """Requests a minute of an account whose pace was lowered, in one worker."""
    output_tokens: int = 4096
    """Tokens that a request without a limit of its own is taken to be worth when its budget is reserved."""
    upstream_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers that every request upstream has, its key among them."""
    client_ip_header: bytes | None = None
    """Where a proxy in front says whom a request is from; None trusts nobody but the socket."""

    def __repr__(self) -> str:
        return f"Setting(models={sorted(self.models)})"
