"""Coins on the data path: a genuine answer either way, chosen by the rule that the audit will use."""

import asyncio
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from guard.fakeupstream import Asked, Pieces, completion, whole
from guard.running import Client, hello, running
from limbeck.errors import GuardError
from limbeck.guard.coinage import Coinage, keeping, read_key
from limbeck.guard.tossing import Coins
from limbeck.trace.coins import Pair, parse_coin, toss

KEY = b"k" * 32


def rule(*pair: str) -> int:
    return toss(KEY, "beacon", Pair(*pair).hash)


def digest(*pair: str) -> str:
    return Pair(*pair).hash.hex()


def answers(*texts: str) -> Any:
    turn = itertools.cycle(texts)

    async def play(asked: Asked) -> Pieces:
        yield whole(completion(next(turn)))

    return play


def served(
    bodies: list[bytes], *texts: str, **more: Any
) -> tuple[list[str], list[dict[str, Any]], int]:
    """Ask with coins for everything; return what was served, the coins, and how often the upstream was asked."""
    coins: list[dict[str, Any]] = []

    drawn = Coins(rule, 1.0, frozenset(more.get("accounts", ())), random.Random(1))  # noqa: S311

    def note(coin: bytes) -> None:
        coins.append(json.loads(coin))

    async def run() -> tuple[list[str], int]:
        async with (
            running(answers(*texts), coins=drawn, report_coin=note) as run,
            Client(run.port) as client,
        ):
            said = [
                (await client.post(body)).json["choices"][0]["message"]["content"]
                for body in bodies
            ]
            return said, len(run.fake.asked)

    said, asked = asyncio.run(run())
    return said, coins, asked


def test_the_bit_of_the_rule_says_which_of_two_genuine_answers_is_served() -> None:
    bodies = [hello(messages=[{"role": "user", "content": f"Q{n}"}]) for n in range(30)]
    said, coins, asked = served(bodies, "one", "two")
    assert asked == 60
    for number, (text, coin) in enumerate(zip(said, coins, strict=True)):
        assert {coin["y0"], coin["y1"]} == {"one", "two"}
        assert coin["prompt"] == f"Q{number}"
        assert coin["served"] == rule(coin["prompt"], coin["y0"], coin["y1"], "a")
        assert text == (coin["y1"] if coin["served"] else coin["y0"])
    assert 5 < sum(coin["served"] for coin in coins) < 25


def test_reasoning_that_is_hidden_is_no_part_of_a_coin() -> None:
    _, coins, _ = served([hello()], "<think>QX</think>one", "<think>ZJ</think>two")
    assert {coins[0]["y0"], coins[0]["y1"]} == {"one", "two"}


@pytest.mark.parametrize("body", [hello(temperature=0)])
def test_what_cannot_differ_is_asked_once(body: bytes) -> None:
    assert served([body], "one", "two")[1:] == ([], 1)


def test_equal_answers_are_no_coin_and_other_accounts_are_left_alone() -> None:
    assert (
        served([hello()], "one", "one ")[0::2] == (["one"], 2)
        or served([hello()], "one", "one")[1] == []
    )
    assert served([hello()], "one", "two", accounts=["b"])[1:] == ([], 1)


def test_a_kept_coin_is_a_line_that_trace_reads(tmp_path: Path) -> None:
    keep = keeping(tmp_path / "coins.jsonl", Coinage(rule, digest))
    pair = Pair("Q", "one", "two", "a")
    bit = rule("Q", "one", "two", "a")
    hashed = keep({"prompt": "Q", "y0": "one", "y1": "two", "served": bit, "account": "a"})
    assert hashed == pair.hash.hex()
    (line,) = (tmp_path / "coins.jsonl").read_text(encoding="utf-8").splitlines()
    assert parse_coin(line, "line 1").pair == pair
    assert (tmp_path / "coins.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("value", ["", "zz", "00" * 31])
def test_a_key_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(GuardError, match="64 hexadecimal"):
        read_key("K", {"K": value})
