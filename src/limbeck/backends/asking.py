"""Ask many things at once: bounded, paced, paid within a budget, tried again with jitter, and never twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from limbeck.backends.answers import Answers
from limbeck.backends.ask import Ask
from limbeck.backends.budget import Budget, Prices
from limbeck.backends.pace import Pace
from limbeck.backends.reply import Again, Answered, Outcome, Stop
from limbeck.chat import Completion
from limbeck.errors import LimbeckError, TeacherError

_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0


class Sender(Protocol):
    """What asking needs of a connection."""

    async def send(self, ask: Ask) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How fast, how often and for how much a server may be asked."""

    concurrency: int = 8
    """Requests under way at once."""
    retries: int = 6
    """Further tries of one request."""
    longest_wait_s: float = 120.0
    """A server that asks for a longer pause stops the run, to be gone on with later."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and answer together, as the server counts them."""
    prompt_price: float | None = None
    """Currency units for a million prompt tokens."""
    completion_price: float | None = None
    """Currency units for a million tokens of answers."""
    max_cost: float | None = None
    """Most that the whole run may cost, in currency units."""

    @property
    def prices(self) -> Prices:
        """What tokens cost; those without a price cost nothing."""
        return Prices.per_million(self.prompt_price or 0.0, self.completion_price or 0.0)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a set of answers took, earlier tries included."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    uncounted: int
    """Answers whose tokens the server did not count."""
    cost: int
    """In millionths of a millionth of the currency unit; uncounted answers at their worst case."""


Heard = Callable[[int, str], None]
"""Called with the number of new answers and a short live figure."""


def backoff(attempt: int, asked: float | None, rng: np.random.Generator) -> float:
    """Return the seconds to wait before try `attempt` (from 1), never less than the server asks.

    Full jitter: uniform between 0 and the doubled wait of the try before, so that clients that failed together
    do not come back together (M. Brooker, Exponential backoff and jitter, AWS Architecture Blog, 2015).
    """
    most = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (attempt - 1))
    return (asked or 0.0) + float(rng.uniform(0.0, most))


def usage_of(asks: Sequence[Ask], answers: Answers, prices: Prices) -> Usage:
    """Return what those of the requests took that are answered; equal ones were sent once and count once."""
    prompt = completion = uncounted = cost = done = 0
    for ask in {ask.sha256: ask for ask in asks}.values():
        counts = answers.known.get(ask.sha256)
        if counts is None:
            continue
        done += 1
        uncounted += None in counts
        prompt += counts[0] or 0
        completion += counts[1] or 0
        cost += _cost(ask, counts, prices)
    return Usage(done, prompt, completion, uncounted, cost)


def _cost(ask: Ask, counts: tuple[int | None, int | None], prices: Prices) -> int:
    prompt, completion = counts
    return prices.of(
        ask.most_prompt_tokens if prompt is None else prompt,
        ask.most_completion_tokens if completion is None else completion,
    )


class Asker:
    """Owns one run's pace and budget at one server."""

    def __init__(
        self,
        sender: Sender,
        answers: Answers,
        limits: Limits,
        *,
        spent: int = 0,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Start with what earlier tries have spent.

        Args:
            sender: A connection.
            answers: What was answered before; grows.
            limits: How fast, how often, for how much.
            spent: In millionths of a millionth of the currency unit.
            seed: Seeds the jitter.
            clock: Returns seconds.
            sleep: Waits for seconds.
        """
        self._sender = sender
        self._answers = answers
        self._limits = limits
        self._budget = Budget(limits.max_cost, spent)
        self._paces = {
            name: Pace(rate)
            for name, rate in (
                ("requests", limits.requests_per_minute),
                ("tokens", limits.tokens_per_minute),
            )
            if rate is not None
        }
        self._paused_until = 0.0
        self._rng = np.random.default_rng(seed)
        self._clock = clock
        self._sleep = sleep
        self._stopped: LimbeckError | OSError | None = None
        self._stop = asyncio.Event()

    async def ask_all(self, asks: Sequence[Ask], heard: Heard) -> None:
        """Ask everything that has no answer yet; afterwards `answers` holds them all.

        When one request stops the run, those under way may still end, for they are paid for; none is begun.

        Raises:
            RefusedError: The server says no to us.
            BudgetError: The next request could cost more than is allowed.
            TeacherError: The server cannot be reached or understood.
        """
        self._stopped, self._stop = None, asyncio.Event()
        waiting = iter(_unanswered(asks, self._answers))
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._limits.concurrency, max(1, len(asks)))):
                group.create_task(self._work(waiting, heard))
        if self._stopped is not None:
            raise self._stopped

    async def _work(self, waiting: Iterator[Ask], heard: Heard) -> None:
        for ask in waiting:
            if self._stopped is not None:
                return
            try:
                await self._ask(ask)
            except (LimbeckError, OSError) as error:  # OSError: a full disk, say
                self._stopped = self._stopped or error
                self._stop.set()
                return
            if ask.sha256 in self._answers.known:
                heard(1, self._figure())

    def _figure(self) -> str:
        return (
            f"cost {self._budget}"
            if self._limits.prompt_price or self._limits.completion_price
            else ""
        )

    async def _ask(self, ask: Ask) -> None:
        why = ""
        for attempt in range(1 + self._limits.retries):
            if self._stopped is not None:
                return
            outcome = await self._try(ask)
            match outcome:
                case Answered(completion):
                    self._answers.append(ask.sha256, completion)
                    return
                case Stop(error):
                    raise error
                case Again(why, after):
                    await self._pause(attempt + 1, why, after)
        raise TeacherError(
            f"{why}; that was try {1 + self._limits.retries}, the last. Go on later with --resume"
        )

    async def _try(self, ask: Ask) -> Outcome:
        """Pay, keep the pace, send, and settle what it did cost."""
        worst = _cost(ask, (None, None), self._limits.prices)
        self._budget.promise(worst)
        cost = 0
        try:
            await self._keep_pace(ask)
            if self._stopped is not None:
                return Again("stopped")
            outcome = await self._sender.send(ask)
            cost = self._settled(ask, outcome)
        finally:
            self._budget.settle(worst, cost)
        return outcome

    def _settled(self, ask: Ask, outcome: Outcome) -> int:
        match outcome:
            case Answered(Completion(finish="beyond_context")) | Again(lost=False) | Stop():
                self._return_tokens(ask, 0)
                return 0
            case Answered(completion):
                counts = (completion.prompt_tokens, completion.completion_tokens)
                if None not in counts:
                    self._return_tokens(ask, sum(c or 0 for c in counts))
                return _cost(ask, counts, self._limits.prices)
            case Again():
                return _cost(ask, (None, None), self._limits.prices)

    def _return_tokens(self, ask: Ask, used: int) -> None:
        pace = self._paces.get("tokens")
        if pace is not None:
            self._paces["tokens"] = pace.give_back(ask.likely_tokens - used)

    async def _keep_pace(self, ask: Ask) -> None:
        wait = 0.0
        for name, pace in self._paces.items():
            amount = 1 if name == "requests" else ask.likely_tokens
            self._paces[name], seconds = pace.take(amount, self._clock())
            wait = max(wait, seconds)
        if wait > 0:
            await self._rest(wait)
        while (left := self._paused_until - self._clock()) > 0 and self._stopped is None:
            await self._rest(left + backoff(1, None, self._rng))

    async def _pause(self, attempt: int, why: str, after: float | None) -> None:
        """Wait before the next try; where the server named a time, everybody waits."""
        if after is not None and after > self._limits.longest_wait_s:
            raise TeacherError(
                f"{why}; it asks to wait {after:.0f} s, longer than longest_wait_s = "
                f"{self._limits.longest_wait_s:g}. Go on later with --resume"
            )
        if attempt > self._limits.retries:
            return
        seconds = backoff(attempt, after, self._rng)
        if after is not None:
            self._paused_until = max(self._paused_until, self._clock() + after)
        await self._rest(seconds)

    async def _rest(self, seconds: float) -> None:
        """Sleep, or wake when the run stops."""
        waits = {
            asyncio.ensure_future(self._sleep(seconds)),
            asyncio.ensure_future(self._stop.wait()),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _unanswered(asks: Sequence[Ask], answers: Answers) -> Iterator[Ask]:
    """Yield each request without an answer once, in order."""
    begun: set[str] = set()
    for ask in asks:
        sha256 = ask.sha256
        if sha256 not in answers.known and sha256 not in begun:
            begun.add(sha256)
            yield ask
