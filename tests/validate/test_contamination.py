import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import TaskError
from limbeck.validate.contamination import GRAM, find_overlaps, summary, symbols
from limbeck.validate.training_text import texts_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "contamination"
WORDS = [
    f"{a}{b}" for a in ("ka", "lo", "mi", "ru", "te") for b in ("nar", "pel", "sot", "vim", "zug")
]
ITEM = "A farmer has seven cows and sells two of them at the market in Ghent; how many remain on the farm?"
OTHER = (
    "Which of the four rivers of the county runs past the old mill before it meets the sea at last?"
)


def test_an_item_word_for_word_in_a_longer_text_is_found_in_every_way() -> None:
    [found, other] = find_overlaps(
        [ITEM, OTHER], [("doc", f"Preface, and more.\n\n{ITEM}\n\nAfterword.")]
    )
    assert (found.exact, found.gram, found.near, found.where) == (True, True, True, "doc")
    assert not other.found


def test_case_and_white_space_do_not_hide_an_item() -> None:
    [found] = find_overlaps([ITEM], [("doc", ITEM.upper().replace(" ", "\n "))])
    assert found.exact


def test_thirteen_symbols_in_a_row_are_found_and_twelve_are_not() -> None:
    row = symbols(ITEM)
    for length, seen in ((GRAM, True), (GRAM - 1, False)):
        text = " ".join(["begin", *row[3 : 3 + length], "end"])
        [found] = find_overlaps([ITEM], [("doc", text)])
        assert found.gram is seen
        assert not found.exact


def test_a_near_copy_with_changed_words_is_found_as_near() -> None:
    changed = ITEM.replace("Ghent", "Leeds")
    [found] = find_overlaps([ITEM], [("doc", changed)])
    assert (found.near, found.exact) == (True, False)


def test_the_template_of_a_task_is_no_evidence() -> None:
    template = "Read the following review of a film with care and say whether it is good or bad:"
    items = [f"{template} {word} was {word}." for word in WORDS]
    overlaps = find_overlaps(items, [("doc", f"{template} the weather report.")])
    assert not any(o.found for o in overlaps)
    assert find_overlaps(items, [("doc", items[3])])[3].exact


def test_short_items_are_looked_for_as_a_whole() -> None:
    overlaps = find_overlaps(
        ["The capital of Eritrea is", "A mill"], [("doc", "so the capital of Eritrea is Asmara")]
    )
    assert [o.exact for o in overlaps] == [True, False]


@given(st.lists(st.sampled_from(WORDS), min_size=20, max_size=60), st.integers(0, 30))
def test_a_copy_is_found_wherever_it_stands(words: list[str], before: int) -> None:
    text = " ".join(words)
    [found] = find_overlaps([text], [("doc", " ".join([*WORDS[:before], "|", text, "|", *WORDS]))])
    assert found.exact
    assert found.gram


def test_counts_are_of_items() -> None:
    counts = summary(find_overlaps([ITEM, OTHER], [("doc", ITEM), ("again", ITEM)]))
    assert counts == {"items": 2, "exact": 1, "gram13": 1, "near": 1, "found": 1}


def test_training_files_are_read_as_lines_of_strings_or_as_text(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "one"}, {"content": "two"}]},
        {"text": "three"},
    ]
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    assert [t for _, t in texts_of(tmp_path / "a.jsonl.gz")] == ["user\n\none\n\ntwo", "three"]
    (tmp_path / "b.txt").write_text("four\n", encoding="utf-8")
    assert list(texts_of(tmp_path / "b.txt")) == [("b.txt", "four\n")]
    (tmp_path / "c.jsonl").write_text("{}\n{", encoding="utf-8")
    with pytest.raises(TaskError, match=r"c\.jsonl line 2 is not JSON"):
        list(texts_of(tmp_path / "c.jsonl"))
    with pytest.raises(TaskError, match=r"none\.txt cannot be read"):
        list(texts_of(tmp_path / "none.txt"))


@pytest.mark.skipif(
    not DATA.is_dir(), reason="the labelled pairs lie in ../shared/data, which is not here"
)
def test_labelled_pairs_are_found_and_clean_problems_left_alone() -> None:
    def lines(name: str) -> list[dict[str, str]]:
        return [json.loads(x) for x in (DATA / name).read_text(encoding="utf-8").splitlines()]

    with gzip.open(DATA / "s1k.json.gz", "rt", encoding="utf-8") as file:
        training = [(str(r["id"]), r["problem"]) for r in json.load(file)]
    dirty = [r["math500_problem"] for r in lines("s1_c_lex.jsonl")]
    clean = [r["problem"] for r in lines("clean_baseline.jsonl")]
    found = [o.found for o in find_overlaps([*dirty, *clean], training)]
    assert sum(found[: len(dirty)]) / len(dirty) > 0.65
    assert sum(found[len(dirty) :]) / len(clean) <= 0.02
