from itertools import islice
from pathlib import Path

import pytest

from limbeck.errors import LedgerError
from limbeck.ledger.checkpoint import verify_checkpoint
from limbeck.ledger.merkle import leaf_hash, root, shows_consistency, shows_inclusion
from limbeck.ledger.pseudonym import THE_LOG, opening, pseudonym
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import read_leaf
from smallledger import Ledger, decision, some_traffic


def test_every_record_and_every_checkpoint_is_proved(ledger: Ledger) -> None:
    key = ledger.keys.signer.public
    with read_log(ledger.path) as log:
        assert log.public_key() == key
        size, top = log.size(), root(map(leaf_hash, log.leaves(0, log.size())))
        for seq in range(size):
            path = log.inclusion(seq, size)
            assert shows_inclusion(leaf_hash(log.leaf(seq)), seq, size, path, top)
        for note in log.notes():
            old = verify_checkpoint(note, key)
            path = log.consistency(old.size, size)
            assert shows_consistency(old.size, old.root, size, top, path)


def test_an_account_is_read_in_order_and_backwards(ledger: Ledger) -> None:
    name = pseudonym("anna", opening(ledger.keys.secret, "anna"))
    with read_log(ledger.path) as log:
        places = log.of_account(name, log.size())
        assert [read_leaf(log.leaf(seq)).count for seq in places] == [1, 2, 3, 4, 5]
        assert list(islice(log.newest_of(name), 2)) == places[:-3:-1]
        assert log.of_account(name, places[2] + 1) == places[:3]
        assert log.of_account("ab" * 16, log.size()) == []
        assert len(log.of_account(THE_LOG, log.size())) == 4  # three pins and a gap
        assert log.accounts() == 4


def test_checkpoints_are_found_around_a_record(ledger: Ledger) -> None:
    key = ledger.keys.signer.public
    with read_log(ledger.path) as log:
        before, over = log.checkpoint_before(5), log.checkpoint_over(5)
        assert before is not None
        assert over is not None
        assert verify_checkpoint(before, key).size <= 5 < verify_checkpoint(over, key).size
        assert log.checkpoint_before(0) is None
        assert log.checkpoint_over(log.size()) is None
        assert log.checkpoint_at(5) == before


def test_a_reader_sees_one_state_while_others_write(fresh: Ledger) -> None:
    fresh.write(some_traffic)
    with read_log(fresh.path) as log:
        size = log.size()
        fresh.write(lambda writer: writer.append([decision("anna", 1)]))
        assert log.size() == size
    with read_log(fresh.path) as log:
        assert log.size() == size + 1


def test_what_is_not_there_is_an_error(ledger: Ledger, tmp_path: Path) -> None:
    with read_log(ledger.path) as log, pytest.raises(LedgerError, match="has no record 999"):
        log.leaf(999)
    with pytest.raises(LedgerError, match="there is no such file"), read_log(tmp_path / "none.db"):
        pass
