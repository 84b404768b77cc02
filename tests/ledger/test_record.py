from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.encoding import canonical
from limbeck.ledger.merkle import leaf_hash
from limbeck.ledger.record import (
    KINDS,
    Entry,
    RawText,
    Record,
    check_entry,
    follows,
    read_leaf,
    sketch,
)

RECORD = Record(4, 1_764_000_000_000, "decision", "ab" * 16, 2, "cd" * 32, {"action": "allow"})


@given(
    st.builds(
        Record,
        seq=st.integers(0, 2**60),
        time=st.integers(0, 2**50),
        kind=st.sampled_from([*KINDS, "heads", "purge"]),
        account=st.text(max_size=8),
        count=st.integers(0, 2**60),
        previous=st.none() | st.text(max_size=8),
        content=st.dictionaries(
            st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3
        ),
        clock=st.none() | st.integers(0, 2**50),
        text=st.none() | st.text(max_size=8),
    )
)
def test_a_record_reads_back_from_its_leaf(record: Record) -> None:
    assert read_leaf(record.leaf()) == record


def test_a_leaf_is_one_line_of_canonical_json() -> None:
    leaf = replace(RECORD, content={"text": "two\nlines"}).leaf()
    assert leaf == (
        b'{"account":"abababababababababababababababab","content":{"text":"two\\nlines"},"count":2,'
        b'"kind":"decision","previous":"' + b"cd" * 32 + b'","seq":4,"time":1764000000000}'
    )


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "rumour"},
        {"seq": "4"},
        {"seq": 4.0},
        {"count": True},
        {"content": []},
        {"clock": None},
        {"more": 1},
    ],
)
def test_a_leaf_with_a_field_that_is_not_one_is_refused(change: dict[str, Any]) -> None:
    row = {
        "account": "ab" * 16,
        "content": {},
        "count": 2,
        "kind": "decision",
        "previous": None,
        "seq": 4,
        "time": 0,
    }
    read_leaf(canonical(row))
    with pytest.raises(LedgerError):
        read_leaf(canonical({**row, **change}))
    for name in row:
        with pytest.raises(LedgerError):
            read_leaf(canonical({k: v for k, v in row.items() if k != name}))


def test_a_record_of_more_than_a_mebibyte_is_refused() -> None:
    with pytest.raises(LedgerError, match="1 MiB at the most"):
        replace(RECORD, content={"text": "x" * (1 << 20)}).leaf()


@pytest.mark.parametrize("kind", ["heads", "purge", "rumour", ""])
def test_callers_record_only_what_is_theirs(kind: str) -> None:
    with pytest.raises(LedgerError, match="a record's kind must be one of decision"):
        check_entry(Entry(kind, "anna", {}))


def test_a_raw_text_needs_a_reason() -> None:
    with pytest.raises(LedgerError, match="only with a reason"):
        check_entry(Entry("decision", "anna", {}, RawText("a prompt", " ", 0)))


def test_a_sketch_holds_digests_and_numbers_and_nothing_of_the_text() -> None:
    made = sketch(bytes(32), "anna", {"prompt": "a secret recipe"}, {"tokens": 3, "share": 0.5})
    check_entry(made)
    leaf = replace(RECORD, kind=made.kind, content=made.content).leaf()
    assert b"recipe" not in leaf
    assert made == sketch(
        bytes(32), "anna", {"prompt": "a secret recipe"}, {"tokens": 3, "share": 0.5}
    )
    assert made != sketch(
        b"1" * 32, "anna", {"prompt": "a secret recipe"}, {"tokens": 3, "share": 0.5}
    )


def test_digests_of_several_requests_are_a_sketch_too() -> None:
    check_entry(Entry("sketch", "anna", {"requests": ["ab" * 16, "cd" * 16], "tokens": [3, None]}))


@pytest.mark.parametrize(
    "content",
    [
        {"digests": {"prompt": "a secret recipe"}, "facts": {}},
        {"facts": {"a secret recipe": 1}},
        {"requests": ["ab" * 16, "a secret recipe"]},
        {"requests": [["ab" * 33]]},
        {"requests": {"ab"}},
        {3: "ab" * 16},
    ],
)
def test_a_sketch_that_could_hold_text_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="make it with `sketch`"):
        check_entry(Entry("sketch", "anna", content))


def test_a_record_follows_the_one_that_it_names_and_no_other() -> None:
    first = replace(RECORD, count=1, previous=None)
    second = replace(RECORD, count=2, previous=leaf_hash(first.leaf()).hex())
    assert follows(first, None, 0)
    assert follows(second, first.leaf(), 1)
    assert not follows(second, replace(first, time=first.time + 1).leaf(), 1)
    assert not follows(second, None, 0)
    assert not follows(replace(second, count=3), first.leaf(), 1)
