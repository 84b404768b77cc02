import gzip
import json
from pathlib import Path

import pytest

from limbeck.errors import GuardError
from limbeck.guard.signals.suite import build, hits, load, read_items, save
from limbeck.guard.sketch import Sketcher, fingerprints, words_of

ITEMS = [
    "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May.",
    "A robe takes two bolts of blue fibre and half that much white fibre; how many bolts in total does it take?",
]
KEY = Sketcher(b"operator")


def share(text: str) -> float:
    suite = build("s", ITEMS, KEY)
    return hits(fingerprints(KEY.shingles(words_of(text))), [suite])


def test_an_item_is_recognised_alone_framed_and_behind_examples() -> None:
    assert share(ITEMS[0]) == 1.0
    assert share(f"Question: {ITEMS[1]}\nAnswer:") > 0.6
    assert share(f"{ITEMS[0]} Answer: 72\n\n{ITEMS[1]} Answer:") > 0.7


def test_other_texts_are_not() -> None:
    assert (
        share("Write a poem about the sea and the moon, in the manner of a tired sailor at dawn.")
        == 0.0
    )
    assert share("") == 0.0


def test_a_sketch_survives_its_file_and_holds_no_text(tmp_path: Path) -> None:
    suite = build("s", ITEMS, KEY)
    save(suite, tmp_path / "s.suite")
    again = load(tmp_path / "s.suite", KEY)
    assert (again.name, again.items, again.marks.tolist()) == ("s", 2, suite.marks.tolist())
    assert b"Natalia" not in (tmp_path / "s.suite").read_bytes()


def test_a_sketch_of_another_secret_is_refused(tmp_path: Path) -> None:
    save(build("s", ITEMS, KEY), tmp_path / "s.suite")
    with pytest.raises(GuardError, match="another secret"):
        load(tmp_path / "s.suite", Sketcher(b"somebody else"))


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"kind": "limbeck-suite", "version": 1}\nabc'])
def test_a_file_that_is_no_sketch_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(GuardError, match="no suite"):
        load(tmp_path / "s", KEY)


def test_items_are_read_from_lines_records_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(ITEMS))
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps({"question": item}) for item in ITEMS))
    (tmp_path / "c.csv").write_text("n,body\n" + "\n".join(f'1,"{item}"' for item in ITEMS))
    with gzip.open(tmp_path / "d.jsonl.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, ITEMS)))
    assert list(read_items(tmp_path / "a.txt")) == ITEMS
    assert list(read_items(tmp_path / "b.jsonl")) == ITEMS
    assert list(read_items(tmp_path / "c.csv", "body")) == ITEMS
    assert list(read_items(tmp_path / "d.jsonl.gz")) == ITEMS


def test_an_item_without_text_and_a_suite_without_items_are_errors(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"question": "x"}\n{"answer": "y"}\n')
    with pytest.raises(GuardError, match="line 2: no text"):
        list(read_items(tmp_path / "b.jsonl"))
    with pytest.raises(GuardError, match="cannot be read"):
        list(read_items(tmp_path / "none"))
    with pytest.raises(GuardError, match="no item of at least"):
        build("s", ["two words"], KEY)
