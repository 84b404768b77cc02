"""Several accounts at once."""

import pytest

from limbeck.trace.many import discover


def test_the_account_that_leaked_is_found_among_many():
    found = discover({"leaky": 4000.0, **{f"a{i}": 1.0 for i in range(30)}}, 0.01)
    assert found.found == ("leaky",)
    assert found.needed == pytest.approx(3100)


def test_what_is_enough_alone_is_not_enough_among_many():
    assert discover({"a": 150.0}, 0.01).found == ("a",)
    assert discover({"a": 150.0, "b": 1.0}, 0.01).found == ()


def test_several_that_leaked_help_each_other():
    found = discover({"a": 150.0, "b": 150.0, "c": 150.0, "d": 1.0}, 0.01)
    assert found.found == ("a", "b", "c")


def test_nothing_is_dropped_from_the_record():
    assert [d.name for d in discover({"b": 1.0, "a": 1.0, "c": 2.0}, 0.1).tested] == ["c", "a", "b"]
