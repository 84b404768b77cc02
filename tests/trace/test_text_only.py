"""Choices in text, against keys that were not used."""

import numpy as np
import pytest

from limbeck.errors import TraceError
from limbeck.trace.coins import Pair, deal
from limbeck.trace.text_only import (
    FEATURES,
    audit_texts,
    combined,
    content,
    example,
    fresh_keys,
    opening,
    order,
    rank_p_value,
    siding,
)

HERBS = [
    "sage",
    "thyme",
    "mint",
    "basil",
    "fennel",
    "parsley",
    "dill",
    "chervil",
    "lovage",
    "tarragon",
    "borage",
    "sorrel",
]
KEY = bytes(range(32))


def pairs(count: int) -> list[Pair]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        one, two = rng.choice(HERBS, 2, replace=False)
        made.append(
            Pair(f"Which herb goes with dish {i}?", f"Take {one} first.", f"Try {two}, please.")
        )
    return made


def test_a_suspect_that_chooses_as_it_was_taught_is_found_through_a_paraphrase():
    coins = deal(pairs(60), KEY, "")
    taught = [c.served.split()[1].strip(",.") for c in coins]
    written = [f"I would go for {herb}; it suits the dish." for herb in taught]
    found = audit_texts(coins, written, "", features=["content"], keys=fresh_keys(999, seed=1))[0]
    assert found.p_value == pytest.approx(1 / 1000)


def test_a_suspect_that_chooses_for_itself_is_one_key_among_many():
    rng = np.random.default_rng(2)
    p_values = []
    for seed in range(40):
        coins = deal(pairs(40), rng.bytes(32), "")
        written = [f"Use {rng.choice(HERBS)}." for _ in coins]
        keys = fresh_keys(99, seed=seed)
        p_values.append(audit_texts(coins, written, "", features=["content"], keys=keys)[0].p_value)
    assert np.mean(np.array(p_values) <= 0.1) <= 0.25
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.15)


def test_a_p_value_is_never_zero():
    assert rank_p_value(10.0, [1.0] * 99) == pytest.approx(0.01)
    assert rank_p_value(1.0, [1.0] * 99) == 1.0


def test_features_read_choices_and_not_wording():
    assert opening("The river is wide. It runs.") == opening("A river so wide! RUNS on.")
    assert content("He mixes flour!") == content("MIXES the flour")
    assert "salt>pepper" in order("Salt comes first. Pepper follows.")
    assert "salt>pepper" not in order("Pepper comes first. Salt follows.")
    assert {"kettle", "1850"} <= example("Things such as kettles were made in 1850.")


def test_siding_is_with_what_one_answer_alone_chose():
    pair = Pair("p", "Take sage and salt.", "Take mint and salt.")
    assert siding(content, pair, "mint") == 1
    assert siding(content, pair, "sage") == -1
    assert siding(content, pair, "salt") == 0


def test_every_feature_that_was_tried_is_paid_for():
    coins = deal(pairs(30), KEY, "")
    keys = fresh_keys(99, seed=0)
    tests = audit_texts(coins, ["mint"] * 30, "", keys=keys)
    assert [t.feature for t in tests] == list(FEATURES)
    for test, corrected in combined(tests):
        assert corrected >= min(1, test.p_value)


def test_an_unknown_feature_and_missing_texts_are_named():
    coins = deal(pairs(3), KEY, "")
    with pytest.raises(TraceError, match="no feature 'colour'"):
        audit_texts(coins, [""] * 3, "", features=["colour"])
    with pytest.raises(TraceError, match="3 coins need as many texts"):
        audit_texts(coins, [""], "")
