import sqlite3

import pytest

from limbeck.errors import LedgerError
from limbeck.ledger.audit import audit_log
from limbeck.ledger.reading import read_log
from smallledger import Ledger, some_traffic

ATTACKS = {
    "a rewritten record": "UPDATE record SET leaf = CAST(replace(leaf, 'allow', 'block') AS BLOB) WHERE seq = 3",
    "a dropped record": "DELETE FROM record WHERE seq = 3",
    "a dropped end": "DELETE FROM record WHERE seq > 20",
    "swapped records": "UPDATE record SET leaf = (SELECT leaf FROM record AS o WHERE o.seq = 7 - record.seq) "
    "WHERE seq IN (3, 4)",
    "a dated-back record": "UPDATE record SET leaf = CAST(replace(leaf, '\"time\":17', '\"time\":16') AS BLOB) WHERE seq = 3",
    "a checkpoint of another size": "UPDATE checkpoint SET note = (SELECT note FROM checkpoint AS o "
    "WHERE o.size < checkpoint.size ORDER BY size DESC LIMIT 1) WHERE size = (SELECT max(size) FROM checkpoint)",
    "a record of another type": "UPDATE record SET leaf = 'text' WHERE seq = 3",
    "a forged signature": "UPDATE checkpoint SET note = replace(note, 'guard ', 'guard A')",
}


def test_a_sound_log_is_counted(ledger: Ledger) -> None:
    with read_log(ledger.path) as log:
        found = audit_log(log)
        assert (found.records, found.pins) == (log.size(), 3)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_the_file_is_found(fresh: Ledger, attack: str) -> None:
    fresh.write(some_traffic)
    with sqlite3.connect(fresh.path) as db:
        assert db.execute(ATTACKS[attack]).rowcount > 0
    db.close()
    with read_log(fresh.path) as log, pytest.raises(LedgerError):
        audit_log(log)
