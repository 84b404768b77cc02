import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.errors import LedgerError
from limbeck.ledger.audit import audit_log
from limbeck.ledger.checkpoint import verify_checkpoint
from limbeck.ledger.keys import create_keys, new_keys, read_keys
from limbeck.ledger.log import Log, open_log
from limbeck.ledger.merkle import leaf_hash, root
from limbeck.ledger.reading import read_log
from limbeck.ledger.record import Entry, RawText, read_leaf, sketch
from smallledger import START, Clock, Ledger, decision, some_traffic

WRITER = """
import sys
from pathlib import Path
from limbeck.ledger.keys import read_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.record import Entry
with open_log(Path(sys.argv[1]), read_keys(Path(sys.argv[2])), pin_ms=20, spacing_ms=5) as log:
    for n in range(10**6):
        receipt = log.append([Entry("decision", f"a{(n + i) % 7}", {"n": n}) for i in range(5)])
        print(receipt.size, flush=True)
"""


def audited(path: Path) -> int:
    with read_log(path) as log:
        return audit_log(log).records


def records(path: Path) -> list[Any]:
    with read_log(path) as log:
        return [read_leaf(leaf) for leaf in log.leaves(0, log.size())]


def test_a_batch_is_signed_and_read_back(fresh: Ledger) -> None:
    def act(log: Log) -> None:
        one = log.append([decision("anna", 1), decision("bert", 2)])
        two = log.append([decision("anna", 3)])
        assert (one.first, one.size, two.first, two.size) == (0, 2, 2, 3)
        found = verify_checkpoint(two.checkpoint, fresh.keys.signer.public)
        assert found.root == root(leaf_hash(leaf) for leaf in log.reading.leaves(0, 3))

    fresh.write(act)
    found = records(fresh.path)
    assert [r.content["n"] for r in found] == [1, 2, 3]
    assert [r.count for r in found] == [1, 1, 2]
    assert found[2].previous == leaf_hash(found[0].leaf()).hex()
    assert found[0].account != "anna"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40), max_size=25), st.data())
def test_any_batches_openings_and_pins_make_a_sound_log(
    tmp_path: Path, batches: list[list[str]], data: st.DataObject
) -> None:
    ledger = Ledger(tmp_path / f"{time.monotonic_ns()}.db")
    todo = iter(batches)
    while rest := list(itertools.islice(todo, data.draw(st.integers(1, 9)))):
        pinned = data.draw(st.booleans())

        def act(log: Log, rest: list[list[str]] = rest, pinned: bool = pinned) -> None:
            for batch in rest:
                log.append([decision(name, 0) for name in batch])
            if pinned:
                log.pin()

        ledger.write(act, pin_ms=data.draw(st.sampled_from([None, 3000])))
    if batches:
        assert audited(ledger.path) >= sum(map(len, batches))


def test_proofs_hold_across_the_256_leaves_of_a_kept_subtree(fresh: Ledger) -> None:
    fresh.write(lambda log: [log.append([decision("a", i)] * 100) for i in range(7)])
    with read_log(fresh.path) as log:
        leaves = [leaf_hash(leaf) for leaf in log.leaves(0, 700)]
        from limbeck.ledger.merkle import consistency_proof, inclusion_proof, over

        for seq in (0, 255, 256, 511, 512, 699):
            assert log.inclusion(seq, 700) == inclusion_proof(seq, 700, over(leaves))
        for old in (1, 255, 256, 300, 699):
            assert log.consistency(old, 700) == consistency_proof(old, 700, over(leaves))


@pytest.mark.parametrize("seed", range(3))
def test_a_log_that_is_killed_at_any_moment_loses_nothing_acknowledged(
    tmp_path: Path, seed: int
) -> None:
    path, keys = tmp_path / "log.db", tmp_path / "keys"
    create_keys(keys, "example.org/guard")
    acknowledged = 0
    for turn in range(3):
        words = [sys.executable, "-c", WRITER, str(path), str(keys)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(20 + 7 * seed + turn):
                acknowledged = int(writer.stdout.readline())
            time.sleep(0.0007 * (seed + 1))
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().split("\n")[:-1]
        acknowledged = int(rest[-1]) if rest else acknowledged
        assert audited(path) >= acknowledged
    with open_log(path, read_keys(keys)) as log:
        assert log.append([decision("after", 0)]).size > acknowledged
    assert audited(path) > acknowledged


def test_records_without_a_checkpoint_are_signed_at_the_next_opening(fresh: Ledger) -> None:
    fresh.write(lambda log: [log.append([decision("a", i)]) for i in range(3)])
    with sqlite3.connect(fresh.path) as db:
        db.execute("DELETE FROM checkpoint WHERE size = 3")
    db.close()
    with read_log(fresh.path) as log, pytest.raises(LedgerError, match="1 records at the end"):
        audit_log(log)
    fresh.write(lambda log: None)
    assert audited(fresh.path) == 3


def test_one_process_writes_at_a_time_and_others_may_read(fresh: Ledger) -> None:
    def act(log: Log) -> None:
        log.append([decision("a", 1)])
        with pytest.raises(LedgerError, match="another process is writing to the ledger"):
            fresh.write(lambda _: None)
        assert audited(fresh.path) == 1

    fresh.write(act)


def test_a_full_disk_is_said_and_nothing_of_the_batch_is_kept(fresh: Ledger) -> None:
    """SQLite refuses to grow past a number of pages just as it does when the disk is full: SQLITE_FULL."""

    def act(log: Log) -> None:
        log.append([decision("a", 1)])
        db = log._db  # pyright: ignore[reportPrivateUsage]
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
        big = [Entry("decision", "a", {"text": "x" * 9000}) for _ in range(9)]
        for _ in range(3):
            with pytest.raises(LedgerError, match=r"the disk is full: .*nothing of this batch"):
                log.append(big)
        assert log.reading.size() == 1
        db.execute("PRAGMA max_page_count = 100000")
        assert log.append(big).first == 1

    fresh.write(act)
    assert audited(fresh.path) == 10


FILLER = """
import resource, signal, sys
from pathlib import Path
from limbeck.errors import LedgerError
from limbeck.ledger.keys import read_keys
from limbeck.ledger.log import open_log
from limbeck.ledger.record import Entry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))
done = 0
with open_log(Path(sys.argv[1]), read_keys(Path(sys.argv[2]))) as log:
    try:
        while True:
            done = log.append([Entry("decision", "a", {"text": "x" * 900})] * 8).size
    except LedgerError as error:
        print(done, error)
"""


def test_a_file_that_may_not_grow_is_an_error_that_keeps_what_was_acknowledged(
    tmp_path: Path,
) -> None:
    """Here the system call itself fails, as it does where a quota is used up."""
    create_keys(tmp_path / "keys", "example.org/guard")
    words = [sys.executable, "-c", FILLER, str(tmp_path / "log.db"), str(tmp_path / "keys")]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    done, _, said = ended.stdout.partition(" ")
    assert ended.stderr == ""
    assert "nothing of this batch was" in said
    with open_log(tmp_path / "log.db", read_keys(tmp_path / "keys")) as log:
        assert log.reading.size() >= int(done) > 0
    assert audited(tmp_path / "log.db") >= int(done)


def test_an_entry_that_is_none_spoils_no_batch(fresh: Ledger) -> None:
    def act(log: Log) -> None:
        log.append([decision("a", 1)])
        for bad in (Entry("rumour", "a", {}), Entry("decision", "a", {"x": float("nan")})):
            with pytest.raises(LedgerError):
                log.append([decision("a", 2), bad])
        with pytest.raises(LedgerError, match="at least one record"):
            log.append([])
        assert log.append([decision("a", 3)]).size == 2

    fresh.write(act)
    assert [r.count for r in records(fresh.path)] == [1, 2]


def test_a_clock_that_is_set_back_does_not_turn_the_log_s_time_back(fresh: Ledger) -> None:
    def act(log: Log) -> None:
        log.append([decision("a", 1)])
        fresh.clock.now -= 3_600_000
        log.append([decision("a", 2)])

    fresh.write(act)
    one, two = records(fresh.path)
    assert two.time == one.time
    assert two.clock == one.time - 3_599_000
    assert one.clock is None
    fresh.write(lambda log: log.append([decision("a", 3)]))
    assert records(fresh.path)[2].time == one.time
    assert audited(fresh.path) == 3


def test_heads_are_pinned_when_their_time_has_come(fresh: Ledger) -> None:
    fresh.write(lambda log: [log.append([decision("a", i)]) for i in range(9)], pin_ms=3000)
    kinds = [r.kind for r in records(fresh.path)]
    assert kinds.count("heads") == 3
    assert audited(fresh.path) == 12


def test_checkpoints_close_together_make_room_but_pins_and_the_newest_stay(fresh: Ledger) -> None:
    def act(log: Log) -> None:
        for i in range(40):
            log.append([decision("a", i)])
            if i == 20:
                log.pin()

    with open_log(fresh.path, fresh.keys, clock=fresh.clock, spacing_ms=10_000) as log:
        act(log)
    with read_log(fresh.path) as reading:
        key = fresh.keys.signer.public
        found = [verify_checkpoint(note, key) for note in reading.notes()]
    assert len(found) < 9
    assert {22, 41} <= {c.size for c in found}
    gaps = [b.time - a.time for a, b in itertools.pairwise(found)]
    assert max(gaps) <= 11_000
    assert audited(fresh.path) == 41


def test_the_keys_of_another_log_are_refused(fresh: Ledger) -> None:
    fresh.write(some_traffic)
    with pytest.raises(LedgerError, match="is the ledger of the key"):
        Ledger(fresh.path, new_keys("example.org/guard")).write(lambda _: None)


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    path.write_bytes(b"not a database, but somebody's notes" * 100)
    with pytest.raises(LedgerError, match="cannot be opened as a ledger"):
        Ledger(path).write(lambda _: None)
    with pytest.raises(LedgerError, match="is no ledger"):
        audited(path)
    assert path.read_bytes().startswith(b"not a database")


def _sql(words: str) -> Callable[[sqlite3.Connection], object]:
    return lambda db: db.execute(words)


TAMPERING = {
    "a rewritten record": _sql(
        "UPDATE record SET leaf = CAST(replace(leaf, 'déjà', 'deja') AS BLOB) WHERE seq = 20"
    ),
    "a dropped end": _sql("DELETE FROM record WHERE seq >= 20"),
    "a dropped record": _sql("DELETE FROM record WHERE seq = 24"),
}


@pytest.mark.parametrize("attack", TAMPERING)
def test_a_log_whose_end_was_altered_is_not_gone_on_with(fresh: Ledger, attack: str) -> None:
    fresh.write(some_traffic)
    with sqlite3.connect(fresh.path) as db:
        TAMPERING[attack](db)
    db.close()
    with pytest.raises(LedgerError):
        fresh.write(lambda _: None)


def test_purging_removes_the_text_from_the_file_and_changes_no_leaf(fresh: Ledger) -> None:
    prompt_text = "a prompt that nobody may find again"
    raw = RawText(prompt_text, "a dispute", START + 60_000)
    kept = RawText("another prompt, kept longer", "a dispute", START + 10**9)

    def act(log: Log) -> None:
        secret, texts = fresh.keys.secret, {"prompt": raw.text}
        log.append([sketch(secret, "anna", texts, {}, kind) for kind in (raw, kept)])
        assert log.purge() == 0
        assert prompt_text.encode() in b"".join(p.read_bytes() for p in files())
        before = [log.reading.leaf(0), log.reading.leaf(1)]
        fresh.clock.now += 60_000
        assert log.purge() == 1
        assert [log.reading.leaf(0), log.reading.leaf(1)] == before
        assert log.reading.raw(0) is None
        assert log.reading.raw(1) is not None

    def files() -> list[Path]:
        return sorted(fresh.path.parent.glob("log.db*"))

    fresh.write(act)
    assert prompt_text.encode() not in b"".join(p.read_bytes() for p in files())
    assert [r.kind for r in records(fresh.path)] == ["sketch", "sketch", "purge"]
    assert audited(fresh.path) == 3


def test_accounts_are_pseudonyms_in_the_file(fresh: Ledger) -> None:
    fresh.write(lambda log: log.append([decision("anna@example.org", 1)]))
    assert b"anna@example.org" not in fresh.path.read_bytes()


def test_memory_of_accounts_is_bounded_and_forgetting_them_changes_nothing(
    fresh: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("limbeck.ledger.log._CACHED_ACCOUNTS", 3)

    def act(log: Log) -> None:
        for i in range(30):
            log.append([decision(f"a{i % 10}", i), decision(f"b{i % 4}", i)])
        assert len(log._chains) <= 5  # pyright: ignore[reportPrivateUsage]

    fresh.write(act)
    assert audited(fresh.path) == 60


def test_a_clock_is_asked_once_a_batch(fresh: Ledger) -> None:
    clock = Clock(START, 1)
    with open_log(fresh.path, fresh.keys, clock=clock) as log:
        before = clock.now
        log.append([decision("a", i) for i in range(50)])
    assert clock.now == before + 1
    assert len({r.time for r in records(fresh.path)}) == 1
    assert json.loads(records(fresh.path)[0].leaf())["time"] == clock.now
    assert os.path.getsize(fresh.path) > 0
