"""What requests cost, and a limit that is never passed: each is paid for in advance at its worst case.

Money is counted in whole millionths of a millionth of the currency unit, so that a price of 0.0375 for a million
tokens is the integer 37,500 a token and sums are exact.
"""

from dataclasses import dataclass

from limbeck.errors import BudgetError

_UNIT = 10**12
_PER_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Prices:
    """Money a token."""

    prompt: int
    completion: int

    @classmethod
    def per_million(cls, prompt: float, completion: float) -> "Prices":
        """Return prices that a provider states for a million tokens, to six decimals."""
        return cls(round(prompt * _PER_MILLION), round(completion * _PER_MILLION))

    def of(self, prompt_tokens: int, completion_tokens: int) -> int:
        """Return what these tokens cost."""
        return prompt_tokens * self.prompt + completion_tokens * self.completion


class Budget:
    """Owns what was spent and what is promised to requests under way."""

    def __init__(self, limit: float | None, spent: int = 0) -> None:
        """Start with what earlier tries of the same run have spent.

        Args:
            limit: Most that may be spent altogether, in currency units; None for no limit.
            spent: Money spent before.
        """
        self._limit = None if limit is None else round(limit * _UNIT)
        self.spent = spent
        self._promised = 0

    def promise(self, worst: int) -> None:
        """Set money aside for a request.

        Raises:
            BudgetError: It could pass the limit.
        """
        if self._limit is not None and self.spent + self._promised + worst > self._limit:
            raise BudgetError(
                f"the next request could cost {money(worst)}, which with {money(self.spent)} spent and "
                f"{money(self._promised)} under way is above max_cost = {money(self._limit)}; answers are kept: "
                "raise max_cost and go on with --resume"
            )
        self._promised += worst

    def settle(self, worst: int, cost: int) -> None:
        """Turn a promise into what the request did cost."""
        self._promised -= worst
        self.spent += cost

    def __str__(self) -> str:
        """Say what was spent, and of how much."""
        of = "" if self._limit is None else f" of {money(self._limit)}"
        return f"{money(self.spent)}{of}"


def money(amount: int) -> str:
    """Write money in currency units: two decimals, more where it is less than a unit."""
    whole = amount / _UNIT
    return f"{whole:.2f}" if whole >= 1 or not amount else f"{whole:.2g}"


def units(amount: int) -> float:
    """Return money in currency units."""
    return amount / _UNIT
