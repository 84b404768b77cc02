"""What the teacher reads or answers: read, de-duplicated, split, turned into tokens, and counted.

A corpus holds one kind of record: plain *text*, *chats* that end with an answer, or *prompts* that wait for one.

- De-duplication compares content with every run of white space taken as one space; the content itself is
  kept as it was written, and the first of several equals stays.
- A record is held out or not by the hash of its content, so neither order nor later additions move it.
  Chats and prompts go by the turns before the first answer, so that two answers to one prompt never
  lie on both sides. A corpus too small for the wanted share still holds out the record of the smallest hash.
- A text file becomes documents of whole lines: one ends at the first blank line after 2,000
  characters, or at the first line end after 4,000.
"""

import csv
import gzip
import hashlib
import io
import json
import math
import string
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from limbeck.chat import ROLES, Message, Role
from limbeck.distill.recipe import CorpusRecipe
from limbeck.distill.targets import Document, Ids
from limbeck.errors import CorpusError, MissingDependencyError, RecipeError

Chat = tuple[Message, ...]
Content = str | Chat
Kind = Literal["text", "chats", "prompts"]
SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".csv", ".csv.gz", ".parquet")

_ROLES: Mapping[str, Role] = {role: role for role in ROLES}
_BLOCK_AT_BLANK = 2_000
_BLOCK_AT_LINE = 4_000
_MOST_COMBINATIONS = 1_000_000
_MOST_NUMBERED = 2**62


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of everything that was read; `read` is the sum of the four drops and `records`."""

    read: int = 0
    """Records in the source; for a template, its combinations."""
    empty: int = 0
    """Dropped: no text, or a turn without any."""
    duplicate: int = 0
    """Dropped: equal to an earlier record."""
    beyond_limit: int = 0
    """Dropped: not drawn, because of `corpus.limit`."""
    records: int = 0
    """Kept before tokens were counted."""
    answers_ignored: int = 0
    """Answers in the corpus that the teacher is asked to write anew."""
    cut: int = 0
    """Texts longer than `corpus.max_length`, cut into pieces; nothing of them is lost."""
    too_long: int = 0
    """Dropped: chats or prompts longer than `corpus.max_length`."""
    too_short: int = 0
    """Dropped: texts, or last pieces of texts, without a token to predict."""
    inseparable: int = 0
    """Dropped: chats with an answer whose first characters the tokenizer merges with the turn's header."""
    unaligned: int = 0
    """Dropped: texts that the tokens of teacher or student do not spell byte for byte; only with `[align]`."""
    train: int = 0
    """Documents or prompts to train on; pieces of cut texts count each."""
    heldout: int = 0
    """Documents or prompts kept out of training."""

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name, in the order above."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Record:
    """One text, chat or prompt."""

    content: Content
    key: str
    """SHA-256 of what decided the split: the text, or the turns before the first answer."""
    heldout: bool
    where: str
    """Source and line, for messages."""
    reference: str | None = None
    """The answer that a prompt had in the corpus, where the teacher is to write one anew."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Records of one kind, without duplicates."""

    kind: Kind
    records: tuple[Record, ...]
    counts: Counts

    @property
    def sha256(self) -> str:
        """Hash of the kind and of every record's content and side, in order."""
        digest = hashlib.sha256(self.kind.encode())
        for record in self.records:
            digest.update(f"{_digest(record.content)} {record.heldout:d}\n".encode())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenised prompt that ends where the answer begins."""

    tokens_T: Ids
    heldout: bool
    key: str
    turns: Chat = ()
    """The conversation itself, for a teacher that reads text."""
    reference: str | None = None
    """The corpus' own answer, where it has one."""


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A corpus as tokens, with the counts brought up to date."""

    documents: tuple[Document, ...]
    counts: Counts


@dataclass(frozen=True, slots=True)
class TokenisedPrompts:
    """Prompts as tokens, with the counts brought up to date."""

    prompts: tuple[Prompt, ...]
    counts: Counts


class Tokenizer(Protocol):
    """What tokenising asks of a `transformers` tokenizer."""

    chat_template: Any
    bos_token_id: Any

    @property
    def all_special_ids(self) -> Sequence[int]: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...
    def __call__(self, text: str, **options: Any) -> Any: ...
    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


def read_records(recipe: CorpusRecipe, *, base: Path, seed: int) -> Corpus:
    """Read a corpus, drop what is empty or double, and split it.

    Args:
        recipe: Says what to read.
        base: Folder that relative paths start from; that of the recipe.
        seed: Orders a template's prompts and draws what stays below `recipe.limit`.

    Raises:
        CorpusError: A file is missing or malformed (file and line are named), kinds are mixed, or fewer than
            two different records remain.
        RecipeError: Template and slots do not fit.
        MissingDependencyError: `recipe.dataset` without the package `datasets`.
    """
    if recipe.template is not None:
        total, found = _from_template(recipe.template, recipe.slots, recipe.limit, seed)
    else:
        found = list(
            _from_files(recipe, base) if recipe.files is not None else _from_dataset(recipe, base)
        )
        total = len(found)
    if not found:
        raise CorpusError(f"{_source(recipe)} holds no records")
    kind = _kind(found)
    filled = [(content, where) for content, where in found if not _is_empty(content)]
    unique = _unique(filled)
    drawn = _draw(unique, recipe.limit, seed)
    records = _split(drawn, recipe.heldout_fraction, _source(recipe))
    undrawn = total - len(found)
    return Corpus(
        kind=kind,
        records=records,
        counts=Counts(
            read=total,
            empty=len(found) - len(filled),
            duplicate=len(filled) - len(unique),
            beyond_limit=undrawn + len(unique) - len(drawn),
            records=len(records),
            heldout=sum(r.heldout for r in records),
            train=sum(not r.heldout for r in records),
        ),
    )


def as_prompts(corpus: Corpus) -> Corpus:
    """Return the corpus' prompts: chats lose their last answer, so that the teacher writes it anew.

    Raises:
        CorpusError: The corpus is plain text.
    """
    if corpus.kind == "text":
        raise CorpusError("self-made text needs prompts or chats, but the corpus is plain text")
    if corpus.kind == "prompts":
        return corpus
    seen: set[str] = set()
    prompts: list[Record] = []
    for record in corpus.records:
        content = record.content[:-1]
        digest = _digest(content)
        if digest not in seen:
            seen.add(digest)
            answer = record.content[-1]
            reference = answer.content if isinstance(answer, Message) else None
            prompts.append(replace(record, content=content, reference=reference))
    heldout = sum(r.heldout for r in prompts)
    counts = replace(
        corpus.counts,
        answers_ignored=len(corpus.records),
        duplicate=corpus.counts.duplicate + len(corpus.records) - len(prompts),
        records=len(prompts),
        heldout=heldout,
        train=len(prompts) - heldout,
    )
    return Corpus("prompts", tuple(prompts), counts)


def tokenise(corpus: Corpus, tokenizer: Tokenizer, *, max_length: int) -> Tokenised:
    """Turn texts and answered chats into documents of at most `max_length` tokens.

    Text: every position but the last is a loss position. A longer text is cut into pieces; each starts with the
    token that the tokenizer puts before any text, if there is one. Chats: the tokens of the assistant count, its
    end-of-turn token included, role headers and the white space after a turn excluded. Where a template ends a
    turn with no special token, everything up to the next turn counts, for that is what ends it.

    Raises:
        CorpusError: Prompts without answers; chats for a tokenizer that has no chat template, or whose template
            renders a conversation differently once it goes on; or one side of the split is left empty.
    """
    if corpus.kind == "prompts":
        raise CorpusError(
            f"{corpus.records[0].where} has no answer: add responses, or let the teacher write them "
            "with a [generate] section"
        )
    documents: list[Document] = []
    dropped = {"cut": 0, "too_long": 0, "too_short": 0, "inseparable": 0}
    for record in corpus.records:
        if isinstance(record.content, str):
            documents += _text_documents(record, record.content, tokenizer, max_length, dropped)
        else:
            documents += _chat_documents(record, record.content, tokenizer, max_length, dropped)
    counts = count_sides(replace(corpus.counts, **dropped), documents, max_length)
    return Tokenised(tuple(documents), counts)


def tokenise_prompts(corpus: Corpus, tokenizer: Tokenizer, *, max_length: int) -> TokenisedPrompts:
    """Turn prompts into tokens, dropping those that leave no room for an answer within `max_length`.

    Raises:
        CorpusError: The corpus holds no prompts, the tokenizer has no chat template, or one side of the
            split is left empty.
    """
    made = [
        Prompt(prompt_ids(r, tokenizer), r.heldout, r.key, _turns(r), r.reference)
        for r in corpus.records
    ]
    prompts = tuple(p for p in made if len(p.tokens_T) < max_length)
    counts = replace(corpus.counts, too_long=len(made) - len(prompts))
    return TokenisedPrompts(prompts, count_sides(counts, prompts, max_length))


def prompt_ids(record: Record, tokenizer: Tokenizer) -> Ids:
    """Return a prompt's tokens up to the place where the assistant's answer begins.

    Raises:
        CorpusError: The record is text or already answered, or the tokenizer cannot render chats.
    """
    if isinstance(record.content, str) or record.content[-1].role == "assistant":
        raise CorpusError(f"{record.where} is no prompt: it must end with a user's turn")
    text = render(record, record.content, tokenizer, ask=True)
    return np.asarray(token_ids(tokenizer, text), dtype=np.int32)


def _turns(record: Record) -> Chat:
    return record.content if isinstance(record.content, tuple) else ()


def answered(prompt: Prompt, answer_T: Sequence[int] | Ids) -> Document:
    """Return the document of a prompt with its answer; every token of the answer is predicted."""
    answer = np.asarray(answer_T, dtype=np.int32)
    tokens_T = np.concatenate([prompt.tokens_T, answer])
    loss_T = np.zeros(len(tokens_T), dtype=np.bool_)
    loss_T[len(prompt.tokens_T) - 1 : len(tokens_T) - 1] = True
    return Document(tokens_T, loss_T, prompt.heldout, prompt.key)


# Reading: each source yields (content, where it stood).


def _source(recipe: CorpusRecipe) -> str:
    if recipe.files is not None:
        return f"corpus.files {', '.join(recipe.files)}"
    return f"corpus.dataset {recipe.dataset}" if recipe.dataset is not None else "corpus.template"


def _from_files(recipe: CorpusRecipe, base: Path) -> Iterator[tuple[Content, str]]:
    for name in recipe.files or ():
        path = base / name
        suffix = next((s for s in SUFFIXES if name.lower().endswith(s)), None)
        if suffix is None:
            raise CorpusError(
                f"corpus file {name} has no known suffix: use one of {', '.join(SUFFIXES)}"
            )
        if not path.is_file():
            raise CorpusError(f"corpus file {path} does not exist or is no file")
        try:
            yield from _from_file(path, name, suffix.removesuffix(".gz"))
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CorpusError(f"corpus file {name} is damaged: {error}") from None
        except OSError as error:
            raise CorpusError(
                f"corpus file {name} cannot be read: {error.strerror or error}"
            ) from None


def _from_file(path: Path, name: str, suffix: str) -> Iterator[tuple[Content, str]]:
    match suffix:
        case ".jsonl":
            return _from_jsonl(path, name)
        case ".txt":
            return _from_text(path, name)
        case ".csv":
            return _from_csv(path, name)
        case _:
            return _from_parquet(path, name)


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")


def _lines(path: Path, name: str) -> Iterator[tuple[int, str]]:
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(f"{name} line {number} is not UTF-8: {error.reason}") from None


def _from_jsonl(path: Path, name: str) -> Iterator[tuple[Content, str]]:
    for number, line in _lines(path, name):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"{where} is not JSON: {error}") from None
        yield _content(row, where), where


def _from_text(path: Path, name: str) -> Iterator[tuple[Content, str]]:
    block: list[str] = []
    size, first = 0, 1
    for number, line in _lines(path, name):
        block.append(line)
        size += len(line)
        if (size >= _BLOCK_AT_BLANK and not line.strip()) or size >= _BLOCK_AT_LINE:
            yield "".join(block).strip("\r\n"), f"{name} line {first}"
            block, size, first = [], 0, number + 1
    if "".join(block).strip():
        yield "".join(block).strip("\r\n"), f"{name} line {first}"


def _from_csv(path: Path, name: str) -> Iterator[tuple[Content, str]]:
    reader = csv.DictReader((line for _, line in _lines(path, name)), strict=True)
    try:
        for row in reader:
            where = f"{name} line {reader.line_num}"
            if None in row or None in row.values():
                raise CorpusError(
                    f"{where} does not have the {len(reader.fieldnames or ())} columns of the header"
                )
            yield _content(row, where), where
    except csv.Error as error:
        raise CorpusError(f"{name} line {reader.line_num} is not CSV: {error}") from None


def _from_parquet(path: Path, name: str) -> Iterator[tuple[Content, str]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingDependencyError(
            f"reading {name} needs pyarrow: pip install 'limbeck[distill]'"
        ) from None
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    where = f"{name} row {number}"
                    yield _content(row, where), where
    except pa.ArrowException as error:
        raise CorpusError(
            f"{name} is not readable as Parquet after row {number}: {error}"
        ) from None


def _from_dataset(recipe: CorpusRecipe, base: Path) -> Iterator[tuple[Content, str]]:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise MissingDependencyError(
            "corpus.dataset needs the package datasets: pip install 'limbeck[datasets]'"
        ) from None
    name = str(recipe.dataset)
    place = str(base / name) if (base / name).is_dir() else name
    try:
        rows = datasets.load_dataset(place, split=recipe.dataset_split)
    except (OSError, ValueError, DatasetsError) as error:
        raise CorpusError(
            f"corpus.dataset {name}, split {recipe.dataset_split}, cannot be loaded: {error}"
        ) from None
    for number, row in enumerate(rows, start=1):
        where = f"{name} row {number}"
        yield _content(row, where), where


def _from_template(
    template: str, slots: Mapping[str, tuple[str, ...]], limit: int | None, seed: int
) -> tuple[int, list[tuple[Content, str]]]:
    names = _slot_names(template)
    if missing := [n for n in names if not slots.get(n)]:
        raise RecipeError(
            f"corpus.template has {{{missing[0]}}}, but corpus.slots.{missing[0]} has no values"
        )
    if unused := [n for n in slots if n not in names]:
        raise RecipeError(f"corpus.slots.{unused[0]} does not appear in corpus.template")
    for name in names:
        if len(set(slots[name])) < len(slots[name]):
            raise RecipeError(f"corpus.slots.{name} lists a value twice")
    sizes = [len(slots[n]) for n in names]
    total = math.prod(sizes)
    if total > _MOST_NUMBERED or (limit is None and total > _MOST_COMBINATIONS):
        raise RecipeError(
            f"corpus.template makes {total} prompts: set corpus.limit (at most {_MOST_COMBINATIONS} "
            f"without it), or trim corpus.slots"
        )
    rng = np.random.default_rng(seed)
    drawn = rng.choice(total, size=min(total, limit or total), replace=False, shuffle=True)
    found: list[tuple[Content, str]] = []
    for index in drawn.tolist():
        places = np.unravel_index(index, sizes) if sizes else ()
        values = {n: slots[n][int(place)] for n, place in zip(names, places, strict=True)}
        found.append(
            ((Message("user", template.format(**values)),), f"corpus.template with {values}")
        )
    return total, found


def _slot_names(template: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise RecipeError(
            f"corpus.template is malformed: {error}; write {{{{ for a brace"
        ) from None
    names: list[str] = []
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise RecipeError(f"corpus.template has {{{name}}}: a slot is a plain name in braces")
        if name not in names:
            names.append(name)
    return names


# One row of any source.


def _content(row: Any, where: str) -> Content:
    """Return the text or chat of one row of named fields."""
    if not isinstance(row, Mapping):
        raise CorpusError(
            f"{where} must be an object with text, prompt or messages, got {_name(row)}"
        )
    given = [n for n in ("text", "prompt", "messages") if row.get(n) is not None]
    if len(given) != 1:
        fields = ", ".join(map(str, row)) or "none"
        raise CorpusError(
            f"{where} needs exactly one of the fields text, prompt and messages; its fields are: {fields}"
        )
    match given[0]:
        case "text":
            return _string(row["text"], "text", where)
        case "prompt":
            return _exchange(row, where)
        case _:
            return _messages(row["messages"], where)


def _exchange(row: Mapping[str, Any], where: str) -> Chat:
    prompt = Message("user", _string(row["prompt"], "prompt", where))
    if row.get("response") is None:
        return (prompt,)
    return prompt, Message("assistant", _string(row["response"], "response", where))


def _messages(value: Any, where: str) -> Chat:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise CorpusError(
            f"{where}: messages must be a list of role and content, got {_name(value)}"
        )
    turns = tuple(_message(item, f"{where}: message {n}") for n, item in enumerate(value, start=1))
    if turns[-1].role == "system":
        raise CorpusError(f"{where}: messages must end with a turn of the user or the assistant")
    return turns


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise CorpusError(f"{where} must be an object with role and content, got {_name(item)}")
    role = _ROLES.get(str(item.get("role")))
    if role is None:
        raise CorpusError(f"{where} has the role {item.get('role')!r}; known: {', '.join(ROLES)}")
    return Message(role, _string(item.get("content"), "content", where))


def _string(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {field} must be a string, got {_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise CorpusError(
            f"{where}: {field} holds half a surrogate pair, which is no text"
        ) from None
    return value


def _name(value: object) -> str:
    return "null" if value is None else type(value).__name__


# All rows together.


def _kind_of(content: Content) -> Kind:
    if isinstance(content, str):
        return "text"
    return "chats" if content[-1].role == "assistant" else "prompts"


def _kind(found: Sequence[tuple[Content, str]]) -> Kind:
    first, first_where = found[0]
    kind = _kind_of(first)
    for content, where in found:
        other = _kind_of(content)
        if other != kind:
            raise CorpusError(
                f"a corpus holds one kind of record, but {first_where} has {kind} and {where} has {other} "
                "(a prompt without a response counts as prompts)"
            )
    return kind


def _is_empty(content: Content) -> bool:
    texts = (
        [content]
        if isinstance(content, str)
        else [m.content for m in content if m.role != "system"]
    )
    return not texts or any(not text.strip() for text in texts)


def _digest(content: Content) -> str:
    """Return the SHA-256 of a content, with runs of white space taken as one space."""
    turns = (
        [("text", content)] if isinstance(content, str) else [(m.role, m.content) for m in content]
    )
    plain = [[role, " ".join(text.split())] for role, text in turns]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()


def _split_key(content: Content) -> str:
    if isinstance(content, str):
        return _digest(content)
    first_answer = next((n for n, m in enumerate(content) if m.role == "assistant"), len(content))
    # A chat that the assistant opens has no prompt: it goes by all of it.
    return _digest(content[:first_answer] or content)


def _unique(found: Iterable[tuple[Content, str]]) -> list[tuple[Content, str]]:
    first: dict[str, tuple[Content, str]] = {}
    for content, where in found:
        first.setdefault(_digest(content), (content, where))
    return list(first.values())


def _draw(
    found: list[tuple[Content, str]], limit: int | None, seed: int
) -> list[tuple[Content, str]]:
    """Keep `limit` records, drawn by a seeded hash of their content; their order stays."""
    if limit is None or len(found) <= limit:
        return found
    ranks = [hashlib.sha256(f"{seed} {_digest(content)}".encode()).digest() for content, _ in found]
    chosen = sorted(sorted(range(len(found)), key=ranks.__getitem__)[:limit])
    return [found[n] for n in chosen]


def _split(
    found: Sequence[tuple[Content, str]], fraction: float, source: str
) -> tuple[Record, ...]:
    keys = [_split_key(content) for content, _ in found]
    if len(set(keys)) < 2:
        raise CorpusError(
            f"{source} leaves {len(set(keys))} different record(s) after dropping what is empty or double; "
            "training and evaluation need at least 2 (chats count by their prompt)"
        )
    below = {key for key in keys if int(key[:16], 16) / 2**64 < fraction}
    heldout = (below or {min(keys)}) - ({max(keys)} if len(below) == len(set(keys)) else set())
    return tuple(
        Record(content, key, key in heldout, where)
        for (content, where), key in zip(found, keys, strict=True)
    )


# Tokens.


def count_sides(
    counts: Counts, kept: Sequence[Document] | Sequence[Prompt], max_length: int
) -> Counts:
    """Return the counts with what was kept on each side.

    Raises:
        CorpusError: One side is empty.
    """
    heldout = sum(item.heldout for item in kept)
    counts = replace(counts, heldout=heldout, train=len(kept) - heldout)
    if not counts.heldout or not counts.train:
        side = "held out" if counts.train else "to train on"
        raise CorpusError(
            f"nothing is left {side}: with max_length = {max_length}, {counts.too_long} of "
            f"{counts.records} records were too long and {counts.too_short} too short; in "
            f"{counts.inseparable} the tokenizer merges an answer with the turn's header"
            + (
                f"; {counts.unaligned} are not spelt alike by both tokenizers"
                if counts.unaligned
                else ""
            )
        )
    return counts


def token_ids(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[int]:
    """Return a text's tokens; `special` adds those that the tokenizer puts around any text."""
    return list(tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def text_ids(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    """Return the token that begins every text, if there is one, and the text's own tokens."""
    ids = token_ids(tokenizer, text, special=True)
    opens = ids[:1] == [tokenizer.bos_token_id] and token_ids(tokenizer, text)[:1] != ids[:1]
    return ids[: int(opens)], ids[int(opens) :]


def _text_documents(
    record: Record, text: str, tokenizer: Tokenizer, max_length: int, dropped: dict[str, int]
) -> Iterator[Document]:
    opening, body = text_ids(tokenizer, text)
    room = max_length - len(opening)
    pieces = [opening + body[start : start + room] for start in range(0, len(body), room)]
    dropped["cut"] += len(pieces) > 1
    for piece in pieces or [opening]:
        if len(piece) < 2:
            dropped["too_short"] += 1
            continue
        tokens_T = np.asarray(piece, dtype=np.int32)
        loss_T = np.ones(len(piece), dtype=np.bool_)
        loss_T[-1] = False
        yield Document(tokens_T, loss_T, record.heldout, record.key)


def _chat_documents(
    record: Record, chat: Chat, tokenizer: Tokenizer, max_length: int, dropped: dict[str, int]
) -> Iterator[Document]:
    document = chat_document(record, chat, tokenizer)
    if document is None:
        dropped["inseparable"] += 1
    elif len(document.tokens_T) > max_length:
        dropped["too_long"] += 1
    else:
        yield document


def chat_document(
    record: Record, chat: Chat, tokenizer: Tokenizer, *, first: int = 0
) -> Document | None:
    """Return a chat with the assistant's tokens as loss positions, from turn `first` on.

    None where the tokenizer merges an answer with the turn's header.
    """
    text = render(record, chat, tokenizer, ask=False)
    ids = token_ids(tokenizer, text)
    answers = answer_places(record, chat, text, ids, tokenizer, first)
    if answers is None:
        return None
    special = special_ids(tokenizer)
    loss_T = np.zeros(len(ids), dtype=np.bool_)
    for start, stop in answers.values():
        ends = [n for n in range(start, stop) if ids[n] in special]
        loss_T[max(start - 1, 0) : (ends[-1] + 1 if ends else stop) - 1] = True
    return Document(np.asarray(ids, dtype=np.int32), loss_T, record.heldout, record.key)


def answer_places(
    record: Record, chat: Chat, text: str, ids: Sequence[int], tokenizer: Tokenizer, first: int = 0
) -> dict[int, tuple[int, int]] | None:
    """Return for each turn of the assistant where its tokens start and stop, the end of the turn included.

    Args:
        record: For messages.
        chat: The conversation.
        text: What the tokenizer's template makes of it.
        ids: That text's tokens.
        tokenizer: Its tokenizer.
        first: Turn to begin with; earlier answers are left out.

    Returns:
        None where the tokenizer merges an answer with the turn's header.

    Raises:
        CorpusError: The template renders a conversation differently once it goes on.
    """
    places: dict[int, tuple[int, int]] = {}
    for turn, message in enumerate(chat):
        if message.role != "assistant" or turn < first:
            continue
        before, through = _render_answer(record, chat, turn, text, tokenizer)
        start, stop = len(before), len(through)
        if ids[:start] != before or ids[:stop] != through:
            return None
        places[turn] = start, stop
    return places


def _render_answer(
    record: Record, chat: Chat, turn: int, text: str, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
    """Return the tokens up to the start of an answer, and those up to the end of its turn."""
    before = render(record, chat[:turn], tokenizer, ask=True)
    through = render(record, chat[: turn + 1], tokenizer, ask=False)
    if not through.startswith(before) or not text.startswith(through):
        raise CorpusError(
            f"{record.where}: the tokenizer's chat template renders the turns before message {turn + 1} "
            "differently once the conversation goes on, so the answer's tokens cannot be told apart"
        )
    return token_ids(tokenizer, before), token_ids(tokenizer, through)


def render(record: Record, chat: Chat, tokenizer: Tokenizer, *, ask: bool) -> str:
    """Return what a tokenizer's template makes of a chat; `ask` adds the header of an answer.

    Raises:
        CorpusError: The tokenizer has no chat template, or the template refuses the chat.
    """
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise CorpusError(
            f"{record.where} is a chat, but the tokenizer of teacher or student has no chat template: use a "
            "chat model or plain text"
        )
    turns = [m.as_dict() for m in chat]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask)
    except (TemplateError, ValueError, TypeError) as error:
        raise CorpusError(f"{record.where}: the chat template refuses it: {error}") from None
    return str(text)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    """Return the ids that stand for no text."""
    added = {n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)
