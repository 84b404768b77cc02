from pathlib import Path

import pytest

from limbeck.errors import LedgerError
from limbeck.guard.admin.log_view import LogView
from limbeck.ledger.keys import new_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.record import Entry


def test_the_view_shows_what_the_log_holds_newest_first(tmp_path: Path) -> None:
    keys = new_keys("example.org/log")
    view = LogView(tmp_path / "ledger.db", keys.secret)
    with open_log(tmp_path / "ledger.db", keys) as log:
        for n in range(5):
            account = "acme" if n % 2 == 0 else "other"
            log.append([Entry("decision", account, {"action": "hold", "n": n})])
        shown = view.of_account("acme", 2)
        assert [record.content["n"] for record in shown] == [4, 2]
        assert all(record.kind == "decision" and len(record.hash) == 64 for record in shown)
        state = view.state()
    assert (state.size, state.accounts) == (5, 2)
    assert state.checkpoint is not None
    assert state.checkpoint.startswith("example.org/log\n5\n")
    assert state.signed is not None
    assert shown[0].ts <= state.signed
    assert view.of_account("nobody", 9) == []


def test_a_ledger_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="is no ledger"):
        LogView(tmp_path / "none.db", b"x" * 32).state()
