import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends.answers import Answers
from limbeck.backends.ask import Ask, chat_ask
from limbeck.backends.asking import Asker, Limits, backoff, usage_of
from limbeck.backends.budget import Prices, units
from limbeck.backends.reply import Again, Answered, Outcome, Stop
from limbeck.chat import Completion, Message
from limbeck.errors import BudgetError, RefusedError, TeacherError

DONE = Answered(Completion("ok", "stop", "m", 10, 20))


def asks(count: int) -> list[Ask]:
    turns = (Message("user", "Hi"),)
    return [
        chat_ask("m", turns, max_tokens=50, temperature=1, sample=sample) for sample in range(count)
    ]


class Server:
    """A sender with a clock of its own: sleeping moves it, answering takes what it is told to take."""

    def __init__(self, answer: Callable[[Ask, int], Outcome], takes_s: float = 0.0) -> None:
        self.answer, self.takes_s = answer, takes_s
        self.now = 0.0
        self.sent: list[tuple[float, str]] = []
        self.waits: list[float] = []
        self.at_once = self.most_at_once = 0

    async def send(self, ask: Ask) -> Outcome:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.sent.append((self.now, ask.sha256))
        outcome = self.answer(ask, len(self.sent) - 1)
        await asyncio.sleep(0)
        self.now += self.takes_s
        self.at_once -= 1
        return outcome

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def run(
    server: Server,
    path: Path,
    requests: Sequence[Ask],
    limits: Limits,
    *,
    spent: int = 0,
) -> list[str]:
    notes: list[str] = []

    async def all_of_them() -> None:
        with Answers(path) as answers:
            asker = Asker(
                server, answers, limits, spent=spent, clock=lambda: server.now, sleep=server.sleep
            )
            await asker.ask_all(requests, lambda by, note: notes.append(note))

    asyncio.run(all_of_them())
    return notes


def answered(path: Path) -> int:
    with Answers(path) as answers:
        return len(answers)


def test_everything_is_asked_once_with_no_more_at_once_than_allowed(tmp_path: Path) -> None:
    server, requests = Server(lambda ask, n: DONE), asks(20)
    notes = run(server, tmp_path / "a", [*requests, *requests], Limits(concurrency=3))
    assert sorted(sha for _, sha in server.sent) == sorted(a.sha256 for a in requests)
    assert server.most_at_once == 3
    assert len(notes) == 20


def test_what_was_answered_before_is_not_asked_again(tmp_path: Path) -> None:
    path, requests = tmp_path / "a", asks(6)
    run(Server(lambda ask, n: DONE), path, requests[:4], Limits())
    server = Server(lambda ask, n: DONE)
    run(server, path, requests, Limits())
    assert {sha for _, sha in server.sent} == {a.sha256 for a in requests[4:]}


def test_a_busy_server_is_tried_again_until_it_answers(tmp_path: Path) -> None:
    server = Server(lambda ask, n: Again("busy") if n < 4 else DONE)
    run(server, tmp_path / "a", asks(1), Limits(retries=4))
    assert len(server.sent) == 5
    assert answered(tmp_path / "a") == 1


def test_tries_come_to_an_end_and_the_last_reason_is_told(tmp_path: Path) -> None:
    server = Server(lambda ask, n: Again("busy as a bee"))
    with pytest.raises(TeacherError, match=r"busy as a bee; that was try 3, the last.*--resume"):
        run(server, tmp_path / "a", asks(1), Limits(retries=2))
    assert len(server.sent) == 3


@given(attempt=st.integers(1, 30), asked=st.none() | st.floats(0, 500), seed=st.integers(0, 99))
def test_a_wait_is_at_least_what_the_server_asks_and_bounded(
    attempt: int, asked: float | None, seed: int
) -> None:
    wait = backoff(attempt, asked, np.random.default_rng(seed))
    assert (asked or 0) <= wait <= (asked or 0) + min(60, 2.0 ** (attempt - 1))


def test_waits_are_spread_so_that_clients_do_not_come_back_together() -> None:
    waits = {backoff(3, None, np.random.default_rng(s)) for s in range(100)}
    assert len(waits) == 100
    assert max(waits) - min(waits) > 3


def test_a_pause_that_the_server_asks_for_is_kept_by_everybody(tmp_path: Path) -> None:
    server = Server(lambda ask, n: Again("slow down", after=30) if n == 0 else DONE)
    run(server, tmp_path / "a", asks(12), Limits(concurrency=2))
    later = [at for at, _ in server.sent[2:]]
    assert min(later) >= 30
    assert answered(tmp_path / "a") == 12


def test_a_pause_beyond_patience_stops_the_run(tmp_path: Path) -> None:
    server = Server(lambda ask, n: Again("come back tomorrow", after=3600))
    with pytest.raises(TeacherError, match=r"wait 3600 s, longer than longest_wait_s = 120"):
        run(server, tmp_path / "a", asks(1), Limits())
    assert len(server.sent) == 1


def test_a_no_stops_everybody_but_what_is_under_way_is_kept(tmp_path: Path) -> None:
    def answer(ask: Ask, number: int) -> Outcome:
        return Stop(RefusedError("not allowed")) if number == 5 else DONE

    server = Server(answer)
    with pytest.raises(RefusedError, match="not allowed"):
        run(server, tmp_path / "a", asks(100), Limits(concurrency=4))
    assert len(server.sent) <= 5 + 4
    assert answered(tmp_path / "a") == len(server.sent) - 1


def test_requests_a_minute_are_kept(tmp_path: Path) -> None:
    server = Server(lambda ask, n: DONE)
    run(server, tmp_path / "a", asks(10), Limits(concurrency=1, requests_per_minute=30))
    starts = [at for at, _ in server.sent]
    assert np.diff(starts).min() >= 2 - 1e-9


def test_tokens_a_minute_are_kept_by_what_was_really_used(tmp_path: Path) -> None:
    server = Server(lambda ask, n: DONE)
    run(server, tmp_path / "a", asks(10), Limits(concurrency=1, tokens_per_minute=600))
    starts = [at for at, _ in server.sent]
    assert starts[-1] == pytest.approx(9 * 30 / 600 * 60)


def test_cost_is_shown_and_kept_below_its_limit(tmp_path: Path) -> None:
    limits = Limits(concurrency=3, completion_price=1000.0, max_cost=0.2)
    server = Server(lambda ask, n: DONE)
    with pytest.raises(BudgetError, match=r"max_cost = 0\.2"):
        run(server, tmp_path / "a", asks(50), limits)
    with Answers(tmp_path / "a") as answers:
        spent = units(usage_of(asks(50), answers, limits.prices).cost)
    assert 0.1 <= spent <= 0.2
    # Each answer cost 20 tokens, and the next could cost 50: eight fit, the ninth might not.
    assert round(spent / 0.02) == answered(tmp_path / "a")


def test_live_notes_tell_the_cost(tmp_path: Path) -> None:
    limits = Limits(prompt_price=10.0, completion_price=100.0, max_cost=5.0)
    notes = run(Server(lambda ask, n: DONE), tmp_path / "a", asks(2), limits)
    assert notes == ["cost 0.0021 of 5.00", "cost 0.0042 of 5.00"]


def test_a_resumed_run_counts_what_it_spent_before(tmp_path: Path) -> None:
    limits = Limits(completion_price=1000.0, max_cost=0.1)
    with pytest.raises(BudgetError, match=r"0\.08 spent"):
        run(Server(lambda ask, n: DONE), tmp_path / "a", asks(1), limits, spent=8 * 10**10)


def test_an_answer_that_was_lost_on_the_way_costs_its_worst_case(tmp_path: Path) -> None:
    limits = Limits(retries=9, completion_price=1000.0, max_cost=0.12)
    server = Server(lambda ask, n: Again("cut off", lost=True))
    with pytest.raises(BudgetError):
        run(server, tmp_path / "a", asks(1), limits)
    assert len(server.sent) == 2


def test_usage_counts_equal_requests_once_and_uncounted_ones_at_their_worst(tmp_path: Path) -> None:
    requests = asks(3)
    with Answers(tmp_path / "a") as answers:
        answers.append(requests[0].sha256, Completion("a", "stop", "m", 5, 7))
        answers.append(requests[1].sha256, Completion("a", "stop", "m", None, None))
        usage = usage_of([*requests, *requests], answers, Prices(1, 10))
    assert (usage.requests, usage.uncounted) == (2, 1)
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, 7)
    assert usage.cost == 5 + 70 + requests[1].most_prompt_tokens + 500


def test_a_full_disk_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Answers, sha256: str, completion: Completion) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Answers, "append", full)
    server = Server(lambda ask, n: DONE)
    with pytest.raises(OSError, match="No space left"):
        run(server, tmp_path / "a", asks(50), Limits(concurrency=2))
    assert len(server.sent) <= 4
