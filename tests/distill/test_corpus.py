import copy
import csv
import gzip
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.chat import Message
from limbeck.distill.corpus import (
    Corpus,
    Counts,
    Kind,
    Record,
    answered,
    as_prompts,
    prompt_ids,
    read_records,
    tokenise,
    tokenise_prompts,
)
from limbeck.distill.recipe import CorpusRecipe
from limbeck.errors import CorpusError, MissingDependencyError, RecipeError

SHARED = Path(__file__).parents[3] / "shared" / "data"
TEXTS = [f"Text number {n} speaks of barrels, copper and rain." for n in range(200)]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, *names: str, seed: int = 0, **recipe: Any) -> Corpus:
    return read_records(CorpusRecipe(files=names, **recipe), base=folder, seed=seed)


def read_rows(folder: Path, rows: Sequence[Any], *, seed: int = 0, **recipe: Any) -> Corpus:
    write_lines(folder / "rows.jsonl", rows)
    return read(folder, "rows.jsonl", seed=seed, **recipe)


def read_template(
    template: str, slots: Mapping[str, Iterable[str]], *, seed: int = 0, limit: int | None = None
) -> Corpus:
    values = {name: tuple(of) for name, of in slots.items()}
    recipe = CorpusRecipe(template=template, slots=values, limit=limit)
    return read_records(recipe, base=Path(), seed=seed)


def contents(corpus: Corpus) -> list[Any]:
    return [record.content for record in corpus.records]


def chat(*turns: str) -> tuple[Message, ...]:
    return tuple(
        Message("assistant" if n % 2 else "user", content) for n, content in enumerate(turns)
    )


def heldout(corpus: Corpus) -> set[Any]:
    return {record.content for record in corpus.records if record.heldout}


# Files.


def test_jsonl_texts_are_read_in_order(tmp_path: Path):
    corpus = read_rows(tmp_path, [{"text": text, "other": 1} for text in TEXTS])
    assert (corpus.kind, contents(corpus)) == ("text", TEXTS)
    assert corpus.records[2].where == "rows.jsonl line 3"


def test_gzip_and_a_byte_order_mark_and_empty_lines_change_nothing(tmp_path: Path):
    plain = "".join(json.dumps({"text": text}) + "\r\n\n" for text in TEXTS)
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        file.write(b"\xef\xbb\xbf" + plain.encode())
    assert contents(read(tmp_path, "rows.jsonl.gz")) == TEXTS


def test_a_prompt_with_its_response_is_a_chat(tmp_path: Path):
    rows = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(3)]
    corpus = read_rows(tmp_path, rows)
    assert (corpus.kind, contents(corpus)) == ("chats", [chat(f"p{n}", f"r{n}") for n in range(3)])


def test_a_prompt_without_response_is_a_prompt(tmp_path: Path):
    corpus = read_rows(tmp_path, [{"prompt": "a"}, {"prompt": "b", "response": None}])
    assert (corpus.kind, contents(corpus)) == ("prompts", [chat("a"), chat("b")])


def test_messages_keep_roles_and_order(tmp_path: Path):
    said = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    rows = [{"messages": [m.as_dict() for m in turns]} for turns in (said, chat("v", "b"))]
    assert contents(read_rows(tmp_path, rows)) == [said, chat("v", "b")]


def test_csv_and_jsonl_give_the_same_corpus(tmp_path: Path):
    rows = [{"prompt": f'p "{n}",\nx', "response": f"r{n}"} for n in range(5)]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["prompt", "response"])
        writer.writeheader()
        writer.writerows(rows)
    assert read(tmp_path, "rows.csv").sha256 == read_rows(tmp_path, rows).sha256


def test_parquet_and_jsonl_give_the_same_corpus(tmp_path: Path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"messages": [{"role": "user", "content": f"u{n}"}, {"role": "assistant", "content": "a"}]}
        for n in range(5)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert read(tmp_path, "rows.parquet").sha256 == read_rows(tmp_path, rows).sha256


def test_a_local_dataset_and_jsonl_give_the_same_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    datasets = pytest.importorskip("datasets", reason="needs the optional package datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    (tmp_path / "data").mkdir()
    rows = [{"text": text} for text in TEXTS]
    write_lines(tmp_path / "data" / "train.jsonl", rows)
    loaded = read_records(CorpusRecipe(dataset="data"), base=tmp_path, seed=0)
    assert loaded.sha256 == read_rows(tmp_path, rows).sha256
    with pytest.raises(CorpusError, match=r"corpus\.dataset data, split absent, cannot be loaded"):
        read_records(CorpusRecipe(dataset="data", dataset_split="absent"), base=tmp_path, seed=0)


def test_without_the_package_a_dataset_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'limbeck\[datasets\]'"):
        read_records(CorpusRecipe(dataset="some/name"), base=Path(), seed=0)


def test_a_text_file_becomes_documents_of_whole_paragraphs(tmp_path: Path):
    paragraphs = [f"Paragraph {n}. " + "word " * 150 for n in range(40)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    documents = contents(read(tmp_path, "book.txt"))
    assert "\n\n".join(documents) == "\n\n".join(paragraphs)
    assert all(2_000 <= len(document) <= 3_000 for document in documents[:-1])


def test_a_text_file_without_blank_lines_still_becomes_many_documents(tmp_path: Path):
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS * 20), encoding="utf-8")
    write_lines(tmp_path / "x.jsonl", [])
    documents = contents(read(tmp_path, "lines.txt"))
    assert all(len(document) <= 4_100 for document in documents)
    assert set("\n".join(documents).splitlines()) == set(TEXTS)


def test_several_files_make_one_corpus(tmp_path: Path):
    write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "b.jsonl", [{"text": "b"}])
    assert contents(read(tmp_path, "b.jsonl", "a.jsonl")) == ["b", "a"]


# What is wrong with a file.

GOOD = '{"text": "good"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "rows.jsonl line 2 is not JSON"),
        ("[" * 100_000, "rows.jsonl line 2 is not JSON"),
        ("[1]", "line 2 must be an object with text, prompt or messages, got list"),
        ('{"text": 5}', "line 2: text must be a string, got int"),
        (
            '{"body": "x"}',
            "line 2 needs exactly one of the fields text, prompt and messages; its fields are: body",
        ),
        ('{"text": "x", "prompt": "y"}', "line 2 needs exactly one of the fields"),
        ('{"text": null}', "line 2 needs exactly one of the fields"),
        ('{"response": "x"}', "line 2 needs exactly one of the fields"),
        ('{"prompt": "x", "response": ["y"]}', "line 2: response must be a string, got list"),
        ('{"messages": []}', "line 2: messages must be a list of role and content"),
        ('{"messages": "hi"}', "messages must be a list of role and content, got str"),
        ('{"messages": ["hi"]}', "message 1 must be an object with role and content, got str"),
        (
            '{"messages": [{"role": "tool", "content": "x"}]}',
            "message 1 has the role 'tool'; known: system, user, assistant",
        ),
        ('{"messages": [{"role": ["user"], "content": "x"}]}', "message 1 has the role ['user']"),
        ('{"messages": [{"role": "user"}]}', "message 1: content must be a string, got null"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "must end with a turn of the user"),
        ('{"text": "\\ud800"}', "line 2: text holds half a surrogate pair"),
        ('{"prompt": "x"}', "rows.jsonl line 1 has text and rows.jsonl line 2 has prompts"),
        ('{"prompt": "x", "response": "y"}', "line 1 has text and rows.jsonl line 2 has chats"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str):
    (tmp_path / "rows.jsonl").write_text(GOOD + line + "\n", encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, "rows.jsonl")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.txt", "rows.csv"])
def test_a_line_that_is_not_utf8_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b'{"text": "x"}\n{"text": "caf\xe9"}\n')
    with pytest.raises(CorpusError, match=rf"{name} line 2 is not UTF-8"):
        read(tmp_path, name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,x\na,1\nb\n", "rows.csv line 3 does not have the 2 columns of the header"),
        ("text,x\na,1\nb,2,3\n", "rows.csv line 3 does not have the 2 columns of the header"),
        ('text\na\n"b\n', "is not CSV"),
        ("body\na\n", "rows.csv line 2 needs exactly one of the fields"),
        ("text\n", "holds no records"),
    ],
)
def test_a_wrong_csv_is_named(tmp_path: Path, content: str, message: str):
    (tmp_path / "rows.csv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError) as caught:
        read(tmp_path, "rows.csv")
    assert message in str(caught.value)


def test_missing_unknown_empty_and_damaged_files_are_named(tmp_path: Path):
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "plain.jsonl.gz").write_bytes(b"not gzip")
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(b"text " * 1000)[:-20])
    (tmp_path / "no.parquet").write_bytes(b"no parquet")
    (tmp_path / "folder.txt").mkdir()
    for name, message in {
        "absent.jsonl": "absent.jsonl does not exist",
        "folder.txt": "is no file",
        "data.xml": "data.xml has no known suffix: use one of .jsonl",
        "empty.jsonl": "empty.jsonl holds no records",
        "plain.jsonl.gz": "plain.jsonl.gz is damaged",
        "cut.txt.gz": "cut.txt.gz is damaged",
        "no.parquet": "no.parquet is not readable as Parquet",
    }.items():
        with pytest.raises(CorpusError) as caught:
            read(tmp_path, name)
        assert message in str(caught.value)


def test_a_wrong_parquet_row_is_named(tmp_path: Path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"text": ["a", None]}), tmp_path / "rows.parquet")
    with pytest.raises(CorpusError, match=r"rows\.parquet row 2 needs exactly one"):
        read(tmp_path, "rows.parquet")


@pytest.mark.parametrize("rows", [[{"text": "a"}], [{"text": "a"}, {"text": " a "}, {"text": ""}]])
def test_a_corpus_of_one_record_cannot_be_split(tmp_path: Path, rows: list[Any]):
    with pytest.raises(CorpusError, match="1 different record"):
        read_rows(tmp_path, rows)


# Duplicates, counts, limit.


def test_what_differs_in_white_space_alone_is_a_duplicate_and_the_first_stays(tmp_path: Path):
    corpus = read_rows(tmp_path, [{"text": t} for t in ("a  b", "a\nb", "c", " a b ", "ab")])
    assert contents(corpus) == ["a  b", "c", "ab"]
    assert corpus.counts.duplicate == 2


def test_the_same_words_in_other_roles_are_no_duplicate(tmp_path: Path):
    rows = [{"prompt": "a b", "response": "c"}, {"prompt": "a", "response": "b c"}]
    assert read_rows(tmp_path, rows).counts.duplicate == 0


def test_empty_records_are_dropped_and_counted(tmp_path: Path):
    rows = [
        {"prompt": "a", "response": "b"},
        {"prompt": "c", "response": " \n"},
        {"prompt": "", "response": "d"},
        {"prompt": "e", "response": "f"},
    ]
    corpus = read_rows(tmp_path, rows)
    assert (corpus.counts.empty, corpus.counts.records) == (2, 2)


@given(st.lists(st.sampled_from([*"abcdefgh", "", " a", "b "]), min_size=20), st.integers(1, 9))
def test_everything_read_is_either_kept_or_counted_as_dropped(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], limit: int
):
    folder = tmp_path_factory.mktemp("corpus")
    try:
        corpus = read_rows(folder, [{"text": t} for t in texts], limit=limit)
    except CorpusError:
        assert min(limit, len({t.strip() for t in texts} - {""})) < 2
        return
    counts = corpus.counts
    assert counts.read == len(texts)
    assert counts.read == counts.empty + counts.duplicate + counts.beyond_limit + counts.records
    assert counts.records == len(corpus.records) == counts.train + counts.heldout


def test_a_limit_draws_by_seed_and_keeps_the_order(tmp_path: Path):
    rows = [{"text": text} for text in TEXTS]
    first = contents(read_rows(tmp_path, rows, limit=50))
    assert first == [text for text in TEXTS if text in set(first)]
    assert first != TEXTS[:50]
    assert contents(read_rows(tmp_path, rows, limit=50)) == first
    assert contents(read_rows(tmp_path, rows, limit=50, seed=1)) != first
    assert set(contents(read_rows(tmp_path, rows[::-1], limit=50))) == set(first)


# Split.


def test_the_share_held_out_is_about_what_was_asked_for(tmp_path: Path):
    rows = [{"text": f"{n} bottles"} for n in range(2_000)]
    for fraction in (0.1, 0.5):
        corpus = read_rows(tmp_path, rows, heldout_fraction=fraction)
        # Four standard deviations of a binomial.
        assert abs(corpus.counts.heldout / 2_000 - fraction) < 4 * (fraction / 2_000) ** 0.5


def test_the_split_does_not_change_with_order_or_with_more_documents(tmp_path: Path):
    rows = [{"text": text} for text in TEXTS]
    before = heldout(read_rows(tmp_path, rows[:100]))
    assert before
    assert heldout(read_rows(tmp_path, rows[:100][::-1])) == before
    assert heldout(read_rows(tmp_path, rows)) & set(TEXTS[:100]) == before


def test_a_larger_share_holds_out_a_superset(tmp_path: Path):
    rows = [{"text": text} for text in TEXTS]
    small = heldout(read_rows(tmp_path, rows, heldout_fraction=0.1))
    assert small < heldout(read_rows(tmp_path, rows, heldout_fraction=0.3))


def test_answers_to_one_prompt_never_lie_on_both_sides(tmp_path: Path):
    rows = [{"prompt": f"p{n % 40}", "response": f"r{n}"} for n in range(400)]
    corpus = read_rows(tmp_path, rows, heldout_fraction=0.5)
    sides = {(record.content[0], record.heldout) for record in corpus.records}
    assert (len(corpus.records), len(sides)) == (400, 40)
    assert {side for _, side in sides} == {True, False}


def test_a_conversation_lies_with_its_first_question(tmp_path: Path):
    rows = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(60)]
    longer = [
        {"messages": [*({"role": r, "content": c} for r, c in turns)]}
        for turns in [
            [("user", f"p{n}"), ("assistant", "x"), ("user", "y"), ("assistant", "z")]
            for n in range(60)
        ]
    ]
    corpus = read_rows(tmp_path, rows + longer, heldout_fraction=0.5)
    assert len({(record.content[0], record.heldout) for record in corpus.records}) == 60


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_even_a_tiny_corpus_has_both_sides(tmp_path: Path, fraction: float):
    corpus = read_rows(tmp_path, [{"text": t} for t in "abc"], heldout_fraction=fraction)
    assert min(corpus.counts.train, corpus.counts.heldout) == 1


def test_the_hash_of_a_corpus_follows_its_content(tmp_path: Path):
    rows = [{"text": text} for text in TEXTS]
    before = read_rows(tmp_path, rows).sha256
    assert read_rows(tmp_path, rows).sha256 == before
    assert read_rows(tmp_path, [*rows, {"text": "more"}]).sha256 != before
    assert read_rows(tmp_path, rows, heldout_fraction=0.5).sha256 != before


# Templates.


def test_a_template_makes_every_combination_once():
    corpus = read_template("{a}-{b}-{a}", {"a": "xyz", "b": "12"})
    expected = {chat(f"{a}-{b}-{a}") for a in "xyz" for b in "12"}
    assert set(contents(corpus)) == expected
    assert (corpus.kind, corpus.counts.read, corpus.counts.records) == ("prompts", 6, 6)


def test_the_seed_orders_the_prompts_of_a_template():
    slots = {"a": [str(n) for n in range(50)]}
    first = contents(read_template("{a}", slots))
    assert first == contents(read_template("{a}", slots))
    assert first != contents(read_template("{a}", slots, seed=1))
    assert first != sorted(first, key=str)


def test_a_limit_draws_from_more_combinations_than_memory_could_hold():
    values = [str(n) for n in range(1_000)]
    corpus = read_template("{a} {b} {c} {d}", dict.fromkeys("abcd", values), limit=20)
    assert (corpus.counts.read, corpus.counts.records) == (10**12, 20)
    assert corpus.counts.beyond_limit == 10**12 - 20


def test_doubled_braces_are_braces():
    assert "{x} 1" in str(contents(read_template("{{x}} {a}", {"a": "12"})))


@pytest.mark.parametrize(
    ("template", "slots", "message"),
    [
        ("{a} {b}", {"a": "xy"}, "corpus.template has {b}, but corpus.slots.b has no values"),
        ("{a}", {"a": ""}, "corpus.slots.a has no values"),
        ("{a}", {"a": "xy", "c": "z"}, "corpus.slots.c does not appear in corpus.template"),
        ("{a}", {"a": "xx"}, "corpus.slots.a lists a value twice"),
        ("{a", {"a": "xy"}, "corpus.template is malformed"),
        ("{}", {"a": "xy"}, "a slot is a plain name"),
        ("{a.real}", {"a": "xy"}, "a slot is a plain name"),
        ("{a!r}", {"a": "xy"}, "a slot is a plain name"),
        ("{a:>9}", {"a": "xy"}, "a slot is a plain name"),
        (
            "{a}{b}",
            {"a": map(str, range(2_000)), "b": map(str, range(2_000))},
            "makes 4000000 prompts: set corpus.limit",
        ),
    ],
)
def test_a_template_that_does_not_fit_its_slots_is_named(
    template: str, slots: dict[str, Any], message: str
):
    with pytest.raises(RecipeError) as caught:
        read_template(template, slots)
    assert message in str(caught.value)


# Tokens.

SYSTEM_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' or loop.last %}"
    "{{ '<|im_start|>' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>' }}{% endif %}"
)
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
REFUSING_TEMPLATE = "{{ raise_exception('no system turns here') }}"


def with_template(tokenizer: Any, template: str | None) -> Any:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def two_sides(kind: Kind, *some: Any) -> Corpus:
    """A corpus of the given contents, and one more record that is held out."""
    other: Any = {"text": "held out", "chats": chat("Q", "Z"), "prompts": chat("Q")}[kind]
    records = [Record(c, f"{n:064x}", False, f"record {n}") for n, c in enumerate(some)]
    return Corpus(kind, (*records, Record(other, "f" * 64, True, "the other")), Counts(records=2))


def predicted(document: Any, tokenizer: Any) -> list[str]:
    """Tokens that the loss positions of a document ask for."""
    at = np.flatnonzero(document.loss_T) + 1
    return tokenizer.convert_ids_to_tokens(document.tokens_T[at].tolist())


def test_loss_positions_are_the_answers_tokens_and_end_of_turn_token_by_token(tiny_tokenizer: Any):
    # Letters that no merge of the tokenizer joins, so that the expectation can be written by hand.
    tokenizer = with_template(tiny_tokenizer, SYSTEM_TEMPLATE)
    corpus = two_sides("chats", chat("QX", "ZQ", "XX", "Z"))
    document = tokenise(corpus, tokenizer, max_length=512).documents[0]
    expected: list[tuple[str, bool]] = []

    def turn(role: str, content: str, *, answer: bool) -> None:
        expected.append(("<|im_start|>", False))
        expected.extend((token, False) for token in tokenizer.tokenize(role))
        expected.append(("Ċ", False))
        expected.extend((token, answer) for token in content)
        expected.append(("<|im_end|>", answer))
        expected.append(("Ċ", False))

    expected.append(("<|im_start|>", False))
    expected.extend((token, False) for token in tokenizer.tokenize("system\nBe kind."))
    expected.extend([("<|im_end|>", False), ("Ċ", False)])
    turn("user", "QX", answer=False)
    turn("assistant", "ZQ", answer=True)
    turn("user", "XX", answer=False)
    turn("assistant", "Z", answer=True)
    assert tokenizer.convert_ids_to_tokens(document.tokens_T.tolist()) == [t for t, _ in expected]
    asked = [asks for _, asks in expected]
    # Position t counts when token t + 1 is the assistant's.
    assert document.loss_T.tolist() == [*asked[1:], False]
    assert predicted(document, tokenizer) == ["Z", "Q", "<|im_end|>", "Z", "<|im_end|>"]


def test_a_chat_has_exactly_the_tokens_of_the_template(tiny_tokenizer: Any):
    said = chat("Could we meet on Monday?", "Grüße! At noon.")
    document = tokenise(two_sides("chats", said), tiny_tokenizer, max_length=512).documents[0]
    whole = tiny_tokenizer.apply_chat_template([m.as_dict() for m in said], return_dict=False)
    assert document.tokens_T.tolist() == whole
    answer = tiny_tokenizer("Grüße! At noon.", add_special_tokens=False)["input_ids"]
    at = np.flatnonzero(document.loss_T) + 1
    assert document.tokens_T[at].tolist() == [*answer, tiny_tokenizer.eos_token_id]


def test_a_special_token_within_an_answer_does_not_end_its_turn(tiny_tokenizer: Any):
    corpus = two_sides("chats", chat("Q", "Z<|im_end|>X"))
    document = tokenise(corpus, tiny_tokenizer, max_length=512).documents[0]
    assert predicted(document, tiny_tokenizer) == ["Z", "<|im_end|>", "X", "<|im_end|>"]


def test_a_template_without_special_tokens_ends_its_turn_with_what_it_has(tiny_tokenizer: Any):
    tokenizer = with_template(tiny_tokenizer, PLAIN_TEMPLATE)
    document = tokenise(two_sides("chats", chat("Q", "ZX")), tokenizer, max_length=99).documents[0]
    assert predicted(document, tokenizer) == ["Z", "X", "Ċ"]


def test_a_template_that_rewrites_earlier_turns_is_an_error(tiny_tokenizer: Any):
    tokenizer = with_template(tiny_tokenizer, FORGETFUL_TEMPLATE)
    with pytest.raises(CorpusError, match=r"record 0: .* renders the turns before message 2 diff"):
        tokenise(two_sides("chats", chat("Q", "Z", "X", "Z")), tokenizer, max_length=512)


def test_a_template_that_refuses_a_chat_names_the_record(tiny_tokenizer: Any):
    tokenizer = with_template(tiny_tokenizer, REFUSING_TEMPLATE)
    with pytest.raises(CorpusError, match="record 0: the chat template refuses it: no system"):
        tokenise(two_sides("chats", chat("Q", "Z")), tokenizer, max_length=512)


def test_chats_for_a_tokenizer_without_chat_template_are_an_error(tiny_tokenizer: Any):
    tokenizer = with_template(tiny_tokenizer, None)
    with pytest.raises(CorpusError, match="no chat template: use a chat model or plain text"):
        tokenise(two_sides("chats", chat("Q", "Z")), tokenizer, max_length=512)


def test_an_answer_that_melts_into_its_header_is_dropped_and_counted(tiny_tokenizer: Any):
    merged = next(t for t in sorted(tiny_tokenizer.get_vocab()) if t.isalpha() and len(t) > 1)
    head, tail = merged[0], merged[1:]
    template = PLAIN_TEMPLATE.replace("': '", f"':{head}'").replace(": '", f":{head}'")
    tokenizer = with_template(tiny_tokenizer, template)
    read_in = tokenise(
        two_sides("chats", chat("Q", tail), chat("Q", "Z")), tokenizer, max_length=64
    )
    assert (read_in.counts.inseparable, len(read_in.documents)) == (1, 2)


def test_a_chat_longer_than_the_limit_is_dropped_and_counted(tiny_tokenizer: Any):
    corpus = two_sides("chats", chat("Q", "Z" * 100), chat("Q", "Z"))
    read_in = tokenise(corpus, tiny_tokenizer, max_length=64)
    assert (read_in.counts.too_long, read_in.counts.train, read_in.counts.heldout) == (1, 1, 1)
    assert max(len(d.tokens_T) for d in read_in.documents) <= 64


def test_when_one_side_is_left_empty_the_message_says_why(tiny_tokenizer: Any):
    with pytest.raises(
        CorpusError, match=r"nothing is left to train on: with max_length = 64, 1 of 2"
    ):
        tokenise(two_sides("chats", chat("Q", "Z" * 100)), tiny_tokenizer, max_length=64)


def test_text_counts_at_every_position_but_the_last(tiny_tokenizer: Any):
    document = tokenise(two_sides("text", "QXZ"), tiny_tokenizer, max_length=8).documents[0]
    assert tiny_tokenizer.convert_ids_to_tokens(document.tokens_T.tolist()) == list("QXZ")
    assert document.loss_T.tolist() == [True, True, False]
    assert (document.tokens_T.dtype, document.loss_T.dtype) == (np.int32, np.bool_)


def test_long_text_is_cut_and_nothing_of_it_is_lost(tiny_tokenizer: Any):
    text = "QXZ" * 11
    read_in = tokenise(two_sides("text", text), tiny_tokenizer, max_length=8)
    pieces = [d for d in read_in.documents if not d.heldout]
    assert [len(d.tokens_T) for d in pieces] == [8, 8, 8, 8]
    assert tiny_tokenizer.decode(np.concatenate([d.tokens_T for d in pieces])) == text[:32]
    # The 33rd token is alone: it predicts nothing.
    assert (read_in.counts.cut, read_in.counts.too_short, read_in.counts.train) == (1, 1, 4)
    assert len({d.key for d in pieces}) == 1


def test_every_piece_begins_with_the_token_that_the_tokenizer_puts_before_a_text(
    tiny_tokenizer: Any,
):
    processors = pytest.importorskip("tokenizers.processors")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", bos)]
    )
    pieces = tokenise(two_sides("text", "QXZ" * 5), tokenizer, max_length=8).documents[:-1]
    assert [d.tokens_T[0] for d in pieces] == [bos] * 3
    assert [len(d.tokens_T) for d in pieces] == [8, 8, 2]
    said = tokenise(two_sides("chats", chat("Q", "Z")), tokenizer, max_length=64).documents[0]
    assert said.tokens_T.tolist().count(bos) == 2  # one a turn: none is put before a rendered chat


# Prompts.


def test_a_prompt_ends_where_the_answer_begins(tiny_tokenizer: Any):
    record = two_sides("prompts", chat("QX")).records[0]
    assert tiny_tokenizer.decode(prompt_ids(record, tiny_tokenizer)) == (
        "<|im_start|>user\nQX<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_answered_prompt_has_the_loss_positions_of_the_same_chat(tiny_tokenizer: Any):
    prompt = tokenise_prompts(
        two_sides("prompts", chat("QX")), tiny_tokenizer, max_length=64
    ).prompts[0]
    answer = tiny_tokenizer("ZZX<|im_end|>", add_special_tokens=False)["input_ids"]
    made = answered(prompt, answer)
    written = tokenise(
        two_sides("chats", chat("QX", "ZZX")), tiny_tokenizer, max_length=64
    ).documents[0]
    # The template adds a line feed after the turn, which a model does not write.
    assert made.tokens_T.tolist() == written.tokens_T[:-1].tolist()
    assert made.loss_T.tolist() == written.loss_T[:-1].tolist()
    assert made.positions == len(answer)


def test_prompts_that_leave_no_room_are_dropped_and_counted(tiny_tokenizer: Any):
    corpus = two_sides("prompts", chat("Q" * 80), chat("Q"))
    read_in = tokenise_prompts(corpus, tiny_tokenizer, max_length=64)
    assert (read_in.counts.too_long, len(read_in.prompts)) == (1, 2)


def test_texts_and_answers_are_no_prompts(tiny_tokenizer: Any):
    for content in ("text", chat("Q", "A")):
        with pytest.raises(CorpusError, match="is no prompt"):
            prompt_ids(Record(content, "0", False, "record 0"), tiny_tokenizer)
    with pytest.raises(CorpusError, match="record 0 has no answer"):
        tokenise(two_sides("prompts", chat("Q")), tiny_tokenizer, max_length=64)


def test_the_teacher_may_answer_chats_anew_each_prompt_once(tmp_path: Path):
    rows = [{"prompt": f"p{n % 10}", "response": f"r{n}"} for n in range(30)]
    chats = read_rows(tmp_path, rows, heldout_fraction=0.5)
    prompts = as_prompts(chats)
    assert sorted(contents(prompts), key=str) == [chat(f"p{n}") for n in range(10)]
    assert (prompts.counts.answers_ignored, prompts.counts.duplicate) == (30, 20)
    assert heldout(prompts) == {c[:1] for c in heldout(chats)}
    assert as_prompts(prompts) is prompts
    with pytest.raises(CorpusError, match="the corpus is plain text"):
        as_prompts(read_rows(tmp_path, [{"text": "a"}, {"text": "b"}]))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not there")
def test_real_files_can_be_read():
    read_in = read(SHARED, "text/c4.jsonl.gz")
    assert read_in.counts.read == 300
    book = read(SHARED, "text/wikitext2.valid.txt.gz", "text/wiki_sentences.txt.gz")
    assert book.counts.records > 500
    assert max(map(len, contents(book))) < 10_000
