"""Recorded first, acted on afterwards; while nothing can be recorded, nothing is done to anybody."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from limbeck.errors import LedgerError, StateError
from limbeck.guard import brain
from limbeck.guard.brain import Brain, newest_text
from limbeck.guard.decision import Action, Decision, Reason
from limbeck.guard.observation import Observation
from limbeck.guard.record import Facts, decode, encode
from limbeck.ledger.keys import new_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.record import Entry, read_leaf

FACTS = Facts(
    1.7e9, "a", "o", "", "k", "/v1/chat/completions", "m", 200, False, 0.1, 9, 3, None, "ip", "ua", "", None, "", (), False, ""
)  # fmt: skip
BODY = b'{"model":"m","messages":[{"role":"user","content":"What is a limbeck?"}]}'


def frame(body: bytes = BODY, **more: Any) -> bytes:
    return encode(FACTS._replace(**more), body)[4:]


@dataclass
class Scripted:
    """A watch that decides as it is told, by account."""

    actions: dict[str, list[Action]]
    seen: list[Observation] = field(default_factory=list)

    def observe(self, observation: Observation) -> Decision:
        self.seen.append(observation)
        queue = self.actions.get(observation.account, [])
        action = queue.pop(0) if queue else Action.ALLOW
        if action is Action.BLOCK:
            raise ValueError("a signal that cannot take this")
        return Decision(
            observation.ts,
            observation.account,
            action,
            (Reason("new_ground_rate", 0.9),),
            "c",
            float("inf"),
        )


@dataclass
class Ledger:
    """Records in memory, or fails."""

    leaves: list[Entry] = field(default_factory=list)
    fails: str = ""

    def append(self, entries: Sequence[Entry]) -> Any:
        if self.fails:
            raise LedgerError(self.fails)
        first = len(self.leaves)
        self.leaves += entries
        return SimpleNamespace(first=first)

    @property
    def reading(self) -> Any:
        def leaf(seq: int) -> bytes:
            return f"leaf {seq}".encode()

        return SimpleNamespace(leaf=leaf)


def flush(thinker: Brain, records: Any) -> None:
    thinker.take()
    thinker.flush(records)


def test_a_frame_is_read_as_it_was_written() -> None:
    assert decode(frame(removed=("n", "seed"))) == (FACTS._replace(removed=("n", "seed")), BODY)


def test_a_decision_is_recorded_once_and_then_acted_on_with_its_record_as_evidence() -> None:
    done: list[tuple[Action, str]] = []
    ledger = Ledger()
    thinker = Brain(
        Scripted({"a": [Action.HOLD, Action.HOLD]}),
        lambda d, e: done.append((d.action, e)),
        secret=b"s" * 32,
    )
    for _ in range(2):
        thinker.observe(frame())
    assert done == []
    flush(thinker, ledger)
    assert done == [(Action.HOLD, leaf_hash(b"leaf 0").hex())]
    assert [entry.kind for entry in ledger.leaves] == ["decision", "sketch"]
    assert ledger.leaves[0].content["e_value"] == "inf"
    flush(thinker, ledger)
    assert len(ledger.leaves) == 2


def test_while_the_ledger_fails_nobody_is_sanctioned_and_nothing_is_lost() -> None:
    done: list[str] = []
    ledger = Ledger(fails="the disk is full")
    thinker = Brain(
        Scripted({"a": [Action.HOLD]}), lambda d, e: done.append(d.account), secret=b"s" * 32
    )
    thinker.observe(frame())
    flush(thinker, ledger)
    assert (done, thinker.health.ledger) == ([], "the disk is full")
    ledger.fails = ""
    flush(thinker, ledger)
    assert (done, thinker.health.ledger) == (["a"], None)
    assert [entry.kind for entry in ledger.leaves] == ["decision", "sketch"]


def test_while_the_accounts_are_away_a_recorded_decision_waits_and_is_done_once() -> None:
    away = [True]
    done: list[str] = []

    def impose(decision: Decision, evidence: str) -> None:
        if away[0]:
            raise StateError("the database is away")
        done.append(decision.account)

    thinker, ledger = Brain(Scripted({"a": [Action.HOLD]}), impose, secret=b"s" * 32), Ledger()
    thinker.observe(frame())
    flush(thinker, ledger)
    assert (done, thinker.health.sanctions) == ([], "the database is away")
    away[0] = False
    flush(thinker, ledger)
    flush(thinker, ledger)
    assert (done, thinker.health.sanctions) == (["a"], None)


def test_a_spool_that_grows_too_long_becomes_a_gap_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(brain, "MOST_SPOOLED", 10)
    thinker, ledger = Brain(Scripted({}), lambda d, e: None, secret=b"s" * 32), Ledger(fails="full")
    for _ in range(20):
        thinker.observe(frame())
    flush(thinker, ledger)
    assert thinker.pending == 0
    ledger.fails = ""
    flush(thinker, ledger)
    assert [dict(entry.content) for entry in ledger.leaves] == [{"requests": 20, "why": "no room"}]


def test_what_no_signal_saw_is_in_the_ledger() -> None:
    thinker, ledger = Brain(Scripted({}), lambda d, e: None, secret=b"s" * 32), Ledger()
    thinker.miss(7)
    thinker.skip({"a": 5})
    thinker.skip({"a": 4, "b": 1})
    for _ in range(brain.FLUSHES_A_SKIP):
        flush(thinker, ledger)
    said = [
        (entry.account, entry.content["requests"], entry.content["why"]) for entry in ledger.leaves
    ]
    assert said == [(None, 7, "no room"), ("a", 9, "sampled"), ("b", 1, "sampled")]


def test_one_request_that_a_signal_cannot_take_stops_nothing() -> None:
    watch = Scripted({"bad": [Action.BLOCK], "a": [Action.HOLD]})
    done: list[str] = []
    thinker = Brain(watch, lambda d, e: done.append(d.account), secret=b"s" * 32)
    thinker.observe(frame(account="bad"))
    thinker.observe(frame())
    flush(thinker, Ledger())
    assert done == ["a"]
    assert thinker.skipped == 1


def test_a_user_behind_a_reseller_is_an_account_of_its_own() -> None:
    watch = Scripted({})
    Brain(watch, lambda d, e: None, secret=b"s" * 32).observe(frame(user="mallory"))
    assert watch.seen[0].account == "a/mallory"


def test_a_real_ledger_takes_it_all_and_holds_no_prompt(tmp_path: Path) -> None:
    keys = new_keys("test")
    thinker = Brain(
        Scripted({"a": [Action.REDUCE, Action.REDUCE]}), lambda d, e: None, secret=keys.secret
    )
    with open_log(tmp_path / "ledger.db", keys) as log:
        thinker.observe(frame(ts=time.time()))
        thinker.observe(frame(ts=time.time()))
        flush(thinker, log)
        leaves = list(log.reading.leaves(0, log.reading.size()))
    assert [read_leaf(leaf).kind for leaf in leaves] == ["decision", "sketch"]
    assert not any(b"limbeck?" in leaf for leaf in leaves)
    digests = read_leaf(leaves[1]).content["requests"]
    assert len(digests) == 2
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("request_body", "text"),
    [
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "a",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "image_url"}],
                    }
                ]
            },
            "a",
        ),
        ({"prompt": "a"}, "a"),
        ({"prompt": ["x", "a"]}, "a"),
        ({"prompt": [1, 2]}, ""),
        ({"input": "a"}, "a"),
        ({}, ""),
    ],
)
def test_the_newest_text_is_found_in_every_form(request_body: dict[str, Any], text: str) -> None:
    assert newest_text(json.loads(json.dumps(request_body))) == text
