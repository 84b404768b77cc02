"""Laws of sealed coins."""

import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import TraceError
from limbeck.trace.coins import (
    Coin,
    Pair,
    coins_root,
    deal,
    key_commitment,
    pairs_root,
    parse_coin,
    toss,
    usable,
)

KEY = bytes(range(32))
texts = st.text(max_size=12)
pairs = st.builds(Pair, texts, texts, texts, texts)


def test_a_bit_is_the_lowest_of_an_hmac_over_beacon_and_hash():
    pair = Pair("ask", "yes", "no", "anna")
    fields = (b"ask", b"yes", b"no", b"anna")
    hashed = hashlib.sha256(b"".join(len(f).to_bytes(8, "big") + f for f in fields)).digest()
    assert pair.hash == hashed
    said = hmac.new(KEY, b"round 7" + hashed, "sha256").digest()
    assert toss(KEY, "round 7", pair.hash) == said[-1] % 2


@given(pairs, pairs)
def test_only_equal_pairs_have_equal_hashes(one: Pair, two: Pair):
    assert (one.hash == two.hash) == (one == two)


def test_moving_text_from_one_field_to_the_next_changes_the_hash():
    assert Pair("ab", "c", "d").hash != Pair("a", "bc", "d").hash


@given(pairs, st.integers(0, 1))
def test_a_line_reads_back_as_the_coin_that_was_written(pair: Pair, bit: int):
    coin = Coin(pair, bit)
    assert parse_coin(json.dumps(coin.as_json()), "line 1") == coin
    assert {coin.served, coin.withheld} == {pair.y0, pair.y1}


def test_bits_are_fair_and_change_with_key_and_with_beacon():
    many = [Pair(str(i), "a", "b") for i in range(4000)]
    bits = [[c.bit for c in deal(many, *how)] for how in ((KEY, ""), (KEY, "x"), (bytes(32), ""))]
    for row in bits:
        assert 1800 < sum(row) < 2200  # six standard deviations
    for one, two in ((0, 1), (0, 2), (1, 2)):
        alike = sum(a == b for a, b in zip(bits[one], bits[two], strict=True))
        assert 1800 < alike < 2200


def test_equal_answers_and_repeated_prompts_are_left_out_and_counted():
    found = usable(
        [
            Pair("p", "a", "b", "x"),
            Pair("p", "c", "d", "x"),
            Pair("p", "c", "d", "y"),
            Pair("q", "same", " same\n", "x"),
        ]
    )
    assert [(p.prompt, p.account) for p in found.pairs] == [("p", "x"), ("p", "y")]
    assert (found.equal, found.duplicate) == (1, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y1": "edited"}, "was edited"),
        ({"served": 2}, "0 or 1 in served"),
        ({"served": True}, "0 or 1 in served"),
        ({"prompt": None}, "must have text"),
    ],
)
def test_a_coin_that_was_changed_is_refused(change: dict[str, object], said: str):
    row = Coin(Pair("p", "a", "b"), 1).as_json() | change
    with pytest.raises(TraceError, match=said):
        parse_coin(json.dumps(row), "line 3")


@pytest.mark.parametrize("line", ["{", "[]", '{"prompt": "p"}'])
def test_a_line_that_is_no_coin_is_named(line: str):
    with pytest.raises(TraceError, match="line 3"):
        parse_coin(line, "line 3")


def test_roots_bind_order_bits_and_answers():
    coins = deal([Pair(str(i), "a", "b") for i in range(5)], KEY, "")
    flipped = [Coin(coins[0].pair, 1 - coins[0].bit), *coins[1:]]
    roots = {coins_root(c) for c in (coins, flipped, coins[::-1], coins[:-1])}
    assert len(roots) == 4
    assert pairs_root(c.pair for c in coins) == pairs_root(c.pair for c in flipped)


def test_a_key_commitment_is_not_the_key():
    assert key_commitment(KEY) != KEY.hex()
    assert key_commitment(KEY) != key_commitment(bytes(32))


def test_a_short_key_is_refused():
    with pytest.raises(TraceError, match="32 bytes, got 3"):
        toss(b"abc", "", bytes(32))
