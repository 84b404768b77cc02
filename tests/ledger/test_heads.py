from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.heads import Head, check, heads_root, prove, read_entry
from limbeck.ledger.merkle import leaf_hash

NAMES = st.binary(min_size=16, max_size=16).map(bytes.hex)


def heads(names: set[str]) -> dict[str, Head]:
    return {name: Head(name, n + 1, leaf_hash(name.encode())) for n, name in enumerate(names)}


@given(st.sets(NAMES, max_size=20), NAMES)
def test_every_account_is_shown_to_be_there_or_not(names: set[str], other: str) -> None:
    known = heads(names)
    entries = sorted(head.entry() for head in known.values())
    top = heads_root(entries)
    for name in [*names, other]:
        assert check(name, prove(name, entries), len(entries), top, "it") == known.get(name)


@given(st.sets(NAMES, min_size=2, max_size=12), st.data())
def test_an_account_that_is_there_cannot_be_shown_to_be_absent(
    names: set[str], data: st.DataObject
) -> None:
    known = heads(names)
    entries = sorted(head.entry() for head in known.values())
    hidden = data.draw(st.sampled_from(sorted(names)))
    shown = sorted(names - {hidden})
    for one in shown:
        for two in [None, *shown]:
            proof = prove(one, entries) + ([] if two is None else prove(two, entries))
            with pytest.raises(LedgerError, match="shows neither"):
                check(hidden, proof, len(entries), heads_root(entries), "it")
    with pytest.raises(LedgerError, match="shows neither"):
        check(hidden, [], len(entries), heads_root(entries), "it")


def test_an_entry_of_another_tree_is_refused() -> None:
    entries = sorted(head.entry() for head in heads({"ab" * 16, "cd" * 16}).values())
    proof: list[Any] = prove("ab" * 16, entries)
    with pytest.raises(LedgerError, match="not in the tree of heads"):
        check("ab" * 16, proof, 2, leaf_hash(b"another"), "it")
    with pytest.raises(LedgerError, match="not in the tree of heads"):
        check("ab" * 16, [{**proof[0], "place": 1}], 2, heads_root(entries), "it")


def test_a_pin_of_no_accounts_has_the_root_of_none() -> None:
    assert check("ab" * 16, [], 0, heads_root([]), "it") is None
    with pytest.raises(LedgerError, match="but its root is over some"):
        check("ab" * 16, [], 0, leaf_hash(b"x"), "it")


def test_an_entry_reads_back() -> None:
    head = Head("ab" * 16, 7, leaf_hash(b"x"))
    assert read_entry(head.entry()) == head
    with pytest.raises(LedgerError, match="has 56 bytes, got 3"):
        read_entry(b"abc")
