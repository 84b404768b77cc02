"""One request while it is being answered: whose it is, what it asks, and what came of it so far."""

from typing import Any

from limbeck.guard.account import DeclaredUse, Holder
from limbeck.guard.accounts import Reservation
from limbeck.guard.heads import Heads
from limbeck.guard.interface import capability as may
from limbeck.guard.interface.admit import Admitted
from limbeck.guard.interface.endpoints import Endpoint
from limbeck.guard.record import Facts
from limbeck.guard.seal.tags import Tags


class Ask:
    """The state of one request. Fields are filled in from top to bottom as it is understood."""

    __slots__ = (
        "admitted", "begun", "code", "completion_tokens", "cut", "endpoint", "granted", "heads", "holder", "ip", "late",
        "now", "prompt_tokens", "raw", "reduced", "request", "reservation", "served", "status", "text", "use",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, now: float, begun: float, ip: str) -> None:
        self.endpoint = endpoint
        self.now = now
        self.begun = begun
        self.ip = ip
        self.heads: Heads | None = None
        self.raw = b""
        self.holder: Holder | None = None
        self.request: dict[str, Any] | None = None
        self.use: DeclaredUse | None = None
        self.granted: frozenset[str] = frozenset()
        self.reduced = False
        self.admitted: Admitted | None = None
        self.reservation: Reservation | None = None
        self.status = 0
        self.code = ""
        self.served = False
        """Whether anything of the upstream's work reached the client, so that it is charged."""
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.text: str | None = None
        self.cut = False
        self.late = False

    @property
    def sealed(self) -> bool:
        """Whether reasoning must stay hidden."""
        return may.REASONING not in self.granted

    @property
    def logprobs(self) -> bool:
        """Whether log-probabilities may leave."""
        return may.LOGPROBS in self.granted

    def within(self, tags: Tags) -> str | None:
        """Return the mark inside of which the answer begins, or None."""
        admitted = self.admitted
        assert admitted is not None  # noqa: S101
        if admitted.lead:
            for lead in admitted.lead:
                if (mark := tags.left_open(lead)) is not None:
                    return mark
        return tags.pairs[0][0] if admitted.model.starts_thinking and tags.pairs else None

    def facts(self, seconds: float) -> Facts:
        """Return what is recorded of the request."""
        holder, heads, admitted = self.holder, self.heads, self.admitted
        assert holder is not None  # noqa: S101
        assert heads is not None  # noqa: S101
        payment = holder.org.payment
        model = admitted.model.name if admitted is not None else _named(self.request)
        return Facts(
            self.now,
            holder.account.id,
            holder.org.id,
            holder.user,
            holder.key,
            self.endpoint.path,
            model,
            self.status,
            admitted is not None and admitted.stream,
            seconds,
            self.prompt_tokens,
            self.completion_tokens,
            self.text,
            heads.client_ip or self.ip,
            heads.user_agent,
            payment[0] if payment else "",
            None if self.use is None else self.use.kind.value,
            self.code,
            () if admitted is None else admitted.removed,
            self.cut,
            heads.trace,
        )


def _named(request: dict[str, Any] | None) -> str:
    model = None if request is None else request.get("model")
    return model[:256] if type(model) is str else ""
