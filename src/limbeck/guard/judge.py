"""Whether a request goes to the upstream: whose key it is, what they may, whether they can pay. No waiting here."""

import math
from collections.abc import Callable

from limbeck.errors import StateError
from limbeck.guard.account import ALL, Holder, Measure
from limbeck.guard.accounts import Accounts, Lack
from limbeck.guard.accounts import Refusal as Shortage
from limbeck.guard.ask import Ask
from limbeck.guard.decision import Action
from limbeck.guard.enforce import in_force, passage, slowed
from limbeck.guard.interface.admit import Sealing, admit
from limbeck.guard.interface.body import parse
from limbeck.guard.pace import Pace
from limbeck.guard.refusal import Refusal
from limbeck.guard.sanction import SanctionRules
from limbeck.guard.setting import Price, Setting

UNKNOWN_KEY = Refusal(
    401, "invalid_api_key", "the header Authorization must be 'Bearer' and a key that is in force here"
)  # fmt: skip
NO_USER = Refusal(
    400, "user_required", "requests of this account must name the user behind them, in the field user", "user"
)  # fmt: skip
_FREE = Price()


class Judge:
    """Judges requests by one setting; made anew when the setting is replaced."""

    def __init__(
        self,
        setting: Setting,
        accounts: Accounts,
        clock: Callable[[], float],
        rules: Callable[[], SanctionRules] = SanctionRules,
    ) -> None:
        self._setting = setting
        self._accounts = accounts
        self._rules = rules
        self._clock = clock
        sealing = setting.sealing
        self._reduced = Sealing(sealing.unknown, "drop", sealing.extra, max_depth=sealing.max_depth)
        self._pace = Pace(setting.slowed_per_minute)

    def judge(self, ask: Ask) -> Refusal | None:
        """Fill in what the request is and may; return why it goes no further, or None."""
        try:
            return self._who(ask) or self._what(ask) or self._pays(ask)
        except StateError as error:
            return Refusal(
                503, "accounts_unavailable", str(error), kind="server_error", retry_after_s=1
            )

    def still_welcome(self, ask: Ask) -> bool:
        """Say whether the key still opens and its account is still served, for a request that is under way."""
        assert ask.heads is not None  # noqa: S101
        try:
            holder = self._accounts.authenticate(ask.heads.key, self._clock())
        except StateError:
            return True  # it was admitted by what was known then; the next request is not
        return holder is not None and in_force(holder, self._rules().mode) < Action.HOLD

    def _who(self, ask: Ask) -> Refusal | None:
        assert ask.heads is not None  # noqa: S101
        key = ask.heads.key
        holder = self._accounts.authenticate(key, ask.now) if key else None
        if holder is None:
            return UNKNOWN_KEY
        ask.holder = holder
        request = parse(ask.raw, max_depth=self._setting.sealing.max_depth)
        if isinstance(request, Refusal):
            return request
        ask.request = request
        if holder.account.sub_accounts is None:
            return None
        user = request.get("user")
        ask.holder = self._accounts.on_behalf(holder, user if type(user) is str else "", ask.now)
        if ask.holder is None:
            ask.holder = holder
            return NO_USER
        return None

    def _what(self, ask: Ask) -> Refusal | None:
        holder, request, setting = ask.holder, ask.request, self._setting
        assert holder is not None  # noqa: S101
        assert request is not None  # noqa: S101
        model = request.get("model")
        if holder.uses and type(model) is str:
            ask.use = holder.use_for(model, ask.endpoint.path, ask.now)
            if ask.use is not None and not self._accounts.draw(ask.use, requests=1, now=ask.now):
                ask.use = None
        allowed = passage(holder, ask.use, self._rules())
        if isinstance(allowed, Refusal):
            return allowed
        if allowed.slowed and (wait := self._pace.wait_s(holder.id, ask.now)) > 0:
            return slowed(holder, math.ceil(wait), setting.slowed_per_minute, self._rules())
        ask.granted, ask.reduced = allowed.granted, allowed.reduced
        sealing = self._reduced if allowed.reduced else setting.sealing
        admitted = admit(ask.endpoint, ask.raw, request, ask.granted, setting.models, sealing)
        if isinstance(admitted, Refusal):
            return admitted
        if holder.plan.models != ALL and admitted.model.name not in holder.plan.models:
            return Refusal(
                403,
                "model_not_in_plan",
                f"your plan does not include the model {admitted.model.name!r}",
                "model",
                "permission_error",
            )
        ask.admitted = admitted
        return None

    def _pays(self, ask: Ask) -> Refusal | None:
        holder, request, admitted = ask.holder, ask.request, ask.admitted
        assert holder is not None  # noqa: S101
        assert request is not None  # noqa: S101
        assert admitted is not None  # noqa: S101
        prompt, answer = len(ask.raw) // 3, self._setting.output_tokens
        for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
            if (limit := request.get(name)) is not None:
                answer = limit
                break
        answer *= request.get("n") or 1
        price = self._setting.prices.get(admitted.model.name, _FREE)
        taken = self._accounts.reserve(
            holder, requests=1, tokens=prompt + answer, cost=price.of(prompt, answer), now=ask.now
        )
        if isinstance(taken, Shortage):
            return short(taken, holder)
        ask.reservation = taken
        return None


def short(shortage: Shortage, holder: Holder) -> Refusal:
    """Return the refusal of a request that no budget has room for."""
    if shortage.lack is Lack.STATE or shortage.budget is None:
        return Refusal(
            503,
            "accounts_unavailable",
            "the budgets cannot be read at the moment, and nothing is served without them",
            kind="server_error",
            retry_after_s=max(1, math.ceil(shortage.retry_after)),
        )
    budget = shortage.budget
    units = {
        Measure.REQUESTS: "requests",
        Measure.TOKENS: "tokens",
        Measure.COST: "millionths of cost",
    }
    return Refusal(
        429,
        "budget_exceeded",
        f"account {shortage.holder or holder.id} may spend {budget.limit} {units[budget.measure]} a {budget.window}, and has "
        f"{shortage.left} left; that is too little for this request",
        kind="rate_limit_error",
        retry_after_s=max(1, math.ceil(shortage.retry_after)),
    )
