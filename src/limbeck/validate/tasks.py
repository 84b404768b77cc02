r"""Tasks: items with gold answers, what chance alone would score, and which items share their luck.

A task is a short TOML beside a JSONL file, one JSON object a line (`.gz` too):

    name = "polarity"
    file = "reviews.jsonl"
    scorer = "choice"
    prompt = "Review: {text}\nSentiment:"     # {field} of the line; {{ and }} for braces
    choices = [" negative", " positive"]
    labels = { neg = " negative", pos = " positive" }    # what the gold field says -> choice
    gold = "label"
    chance = 0.5                               # or "uniform": one over the item's choices
    cluster = "film"                           # items of one film share their luck

What cannot be right is refused before any model is asked: an empty task, equal ids, gold outside the choices, a chance
level that nobody stated.
"""

import gzip
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limbeck.artefact import sha256_bytes, sha256_json
from limbeck.errors import TaskError

Scorer = Literal["choice", "exact", "numeric", "regex", "json_schema", "unit_tests"]
External = Literal["lm_eval", "inspect"]
Normalisation = Literal["bytes", "tokens", "none"]
Ask = Literal["text", "chat"]
UNIFORM = "uniform"


class TaskFile(BaseModel):
    """The keys of a task's TOML."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    scorer: Scorer | External
    chance: Annotated[float, Field(ge=0, lt=1)] | Literal["uniform"]
    """Expected score of guessing; `uniform` is one over the number of an item's choices. Always stated."""
    about: str = ""
    """One sentence on what the task shows."""
    file: str | None = None
    """JSONL, relative to the TOML; `.gz` too."""
    prompt: str = "{question}"
    """What the model is asked: `{field}` stands for a field of the line."""
    id: str | None = None
    """Field that identifies an item; None takes the line number."""
    cluster: str | None = None
    """Field whose equal values share their luck, such as a passage or a user."""
    gold: str = "answer"
    """Field of the right answer: text, number, pattern, JSON, or the tests of a program."""
    choices: tuple[str, ...] = ()
    """Choices of every item."""
    choices_field: str | None = None
    """Field with the choices of each item."""
    choice_prefix: str = ""
    """Put before every choice; a space where the prompt ends without one."""
    labels: dict[str, str] = {}
    """What the gold field says to the choice that it means."""
    normalise: Normalisation = "bytes"
    """What a choice's log-likelihood is divided by: its UTF-8 bytes, its tokens, or nothing."""
    ask: Ask | None = None
    """Plain text to go on with, or a chat turn; None is text for `choice` and a chat for the rest."""
    system: str | None = None
    """System message of a chat."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 64
    """Tokens of a written answer at the most."""
    tolerance: Annotated[float, Field(ge=0)] = 1e-6
    """Relative error of a number that still counts as right."""
    json_schema: dict[str, Any] | str | None = None
    """JSON Schema, as a table or as the path of a file."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Seconds that a program under test may take."""
    task: str | None = None
    """Name of the task, for `lm_eval`."""
    folder: str | None = None
    """Folder of local task files, for `lm_eval`."""
    metric: str | None = None
    """Metric that is read, for `lm_eval` (such as acc) and `inspect` (name of the scorer)."""
    teacher_log: str | None = None
    """Log of the teacher, for `inspect`."""
    student_log: str | None = None
    """Log of the student, for `inspect`."""

    @model_validator(mode="after")
    def _fits_scorer(self) -> "TaskFile":
        needs: dict[str, tuple[str, ...]] = {
            "lm_eval": ("task",),
            "inspect": ("teacher_log", "student_log"),
        }
        for key in needs.get(self.scorer, ("file",)):
            if getattr(self, key) is None:
                raise ValueError(f'needs {key} with scorer = "{self.scorer}"')
        if self.scorer == "choice" and bool(self.choices) == (self.choices_field is not None):
            raise ValueError("needs exactly one of choices and choices_field")
        if self.scorer == "json_schema" and self.json_schema is None:
            raise ValueError("needs json_schema")
        if self.chance == UNIFORM and self.scorer not in ("choice", "lm_eval"):
            raise ValueError('has chance = "uniform", which goes with choices')
        return self


@dataclass(frozen=True, slots=True)
class Item:
    """One question with its gold answer."""

    id: str
    prompt: str
    gold: str
    """The right choice, text, number, pattern, JSON value or tests, as text."""
    chance: float
    cluster: str
    choices: tuple[str, ...] = ()
    """Empty unless one of several is to be chosen."""


@dataclass(frozen=True, slots=True)
class Task:
    """Items that are asked and scored in one way."""

    settings: TaskFile
    items: tuple[Item, ...]
    schema: Mapping[str, Any] | None = None
    """The JSON Schema, read."""

    @property
    def name(self) -> str:
        """The task's name."""
        return self.settings.name

    @property
    def ask(self) -> Ask:
        """How the model is asked."""
        return self.settings.ask or ("text" if self.settings.scorer == "choice" else "chat")

    @property
    def sha256(self) -> str:
        """Hash over settings and items, so that a verdict names what it was reached on."""
        rows = [[i.id, i.prompt, i.gold, i.chance, i.cluster, *i.choices] for i in self.items]
        settings = self.settings.model_dump(mode="json", exclude={"file", "folder", "about"})
        return sha256_json({"settings": settings, "schema": self.schema, "items": rows})


def read_settings(path: Path) -> TaskFile:
    """Read the TOML of a task.

    Raises:
        TaskError: It is missing or no TOML, or a key is unknown, missing or out of range.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TaskError(f"task {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TaskError(f"task {path} is not TOML: {error}") from None
    return parse_settings(raw, str(path))


def parse_settings(raw: Mapping[str, Any], where: str) -> TaskFile:
    """Check the keys of a task.

    Raises:
        TaskError: A key is unknown, missing or out of range; `where` names the task.
    """
    try:
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
        return TaskFile.model_validate(values)
    except ValidationError as error:
        raise TaskError(f"task {where}: {'; '.join(_sentences(error))}") from None


def read_task(path: Path, *, limit: int | None = None) -> Task:
    """Read a task that Limbeck scores itself.

    Args:
        path: The task's TOML.
        limit: Items at the most, those with the smallest hash of their id; None takes all.

    Raises:
        TaskError: Something is missing, malformed or contradicts itself; the line is named.
    """
    settings = read_settings(path)
    if settings.file is None:
        raise TaskError(f'task {path} has scorer = "{settings.scorer}", which has no items to read')
    file = path.parent / settings.file
    return make_task(settings, _lines(file), str(file), base=path.parent, limit=limit)


def make_task(
    settings: TaskFile,
    lines: Iterator[tuple[str, Mapping[str, Any]]],
    where: str,
    *,
    base: Path | None = None,
    limit: int | None = None,
) -> Task:
    """Turn (place, object) pairs into a task.

    Args:
        settings: The task's keys.
        lines: Where each object stands, and the object.
        where: Name of the source, for messages.
        base: What a relative path of a schema starts from.
        limit: Items at the most; None takes all.

    Raises:
        TaskError: There is no item, an id occurs twice, or an item is malformed.
    """
    items = [_item(settings, place, line) for place, line in lines]
    if not items:
        raise TaskError(f"task {settings.name} is empty: {where} holds no items")
    seen: dict[str, int] = {}
    for number, item in enumerate(items, 1):
        if item.id in seen:
            raise TaskError(
                f"task {settings.name}: items {seen[item.id]} and {number} of {where} have one id, {item.id!r}"
            )
        seen[item.id] = number
    if limit is not None:
        items = sorted(items, key=lambda i: sha256_bytes(i.id.encode()))[:limit]
    return Task(settings, tuple(items), _schema(settings, base or Path()))


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8")
    except FileNotFoundError:
        raise TaskError(f"task file {path} does not exist") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TaskError(f"task file {path} cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            raise TaskError(f"{place} is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise TaskError(f"{place} must be an object, got {type(value).__name__}")
        yield place, cast("Mapping[str, Any]", value)


def _item(settings: TaskFile, place: str, line: Mapping[str, Any]) -> Item:
    choices = _choices(settings, place, line)
    gold = _gold(settings, place, line, choices)
    prompt = _filled(settings.prompt, place, line)
    if not prompt.strip():
        raise TaskError(f"{place}: the prompt is empty")
    chance = 1 / len(choices) if settings.chance == UNIFORM else float(settings.chance)
    name = place.rpartition(" ")[2] if settings.id is None else _text(line, settings.id, place)
    # Items that ask the very same are one draw, not two.
    cluster = (
        sha256_bytes(f"{prompt}\0{choices}".encode())[:16]
        if settings.cluster is None
        else _text(line, settings.cluster, place)
    )
    return Item(name, prompt, gold, chance, cluster, choices)


def _choices(settings: TaskFile, place: str, line: Mapping[str, Any]) -> tuple[str, ...]:
    if settings.scorer != "choice":
        return ()
    found: object = settings.choices
    if settings.choices_field is not None:
        found = _field(line, settings.choices_field, place)
    if not isinstance(found, list | tuple) or len(found) < 2:
        raise TaskError(f"{place}: at least two choices are needed, got {found!r}")
    choices = tuple(
        f"{settings.choice_prefix}{choice}" for choice in cast("Sequence[object]", found)
    )
    if len(set(choices)) < len(choices) or not all(c.strip() for c in choices):
        raise TaskError(f"{place}: choices must differ and none may be empty, got {list(choices)}")
    return choices


def _gold(settings: TaskFile, place: str, line: Mapping[str, Any], choices: tuple[str, ...]) -> str:
    value = _field(line, settings.gold, place)
    if not choices:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and not isinstance(value, bool) and str(value) not in settings.labels:
        if 0 <= value < len(choices):
            return choices[value]
        raise TaskError(
            f"{place}: gold is choice {value}, but there are choices 0 to {len(choices) - 1}"
        )
    meant = settings.labels.get(str(value), str(value))
    for gold in (meant, f"{settings.choice_prefix}{meant}"):
        if gold in choices:
            return gold
    raise TaskError(f"{place}: gold {meant!r} is none of the choices {list(choices)}")


def _filled(template: str, place: str, line: Mapping[str, Any]) -> str:
    try:
        return template.format_map({k: _plain(v) for k, v in line.items()})
    except KeyError as error:
        raise TaskError(
            f"{place} has no field {error.args[0]!r}, which the prompt names; it has {', '.join(line)}"
        ) from None
    except (ValueError, IndexError, AttributeError) as error:
        raise TaskError(f"the prompt {template!r} cannot be filled: {error}") from None


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _field(line: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in line or line[name] is None:
        raise TaskError(f"{place} has no field {name!r}; it has {', '.join(line)}")
    return line[name]


def _text(line: Mapping[str, Any], name: str, place: str) -> str:
    return _plain(_field(line, name, place))


def _schema(settings: TaskFile, base: Path) -> Mapping[str, Any] | None:
    if settings.scorer != "json_schema":
        return None
    found = settings.json_schema
    if isinstance(found, str):
        try:
            found = json.loads((base / found).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TaskError(
                f"schema {base / str(found)} of task {settings.name}: {error}"
            ) from None
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(cast("Any", found))
    except SchemaError as error:
        raise TaskError(f"json_schema of task {settings.name}: {error.message}") from None
    return cast("Mapping[str, Any]", found)


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        key = ".".join(map(str, problem["loc"][:1])) or "it"
        match problem["type"]:
            case "missing" if key == "chance":
                yield (
                    "chance is missing: state what guessing scores, such as chance = 0.25, or "
                    '"uniform" for one over the choices'
                )
            case "missing":
                yield f"{key} is missing"
            case "extra_forbidden":
                yield f"unknown key {key}; known are {', '.join(TaskFile.model_fields)}"
            case "value_error":
                yield problem["msg"].removeprefix("Value error, ")
            case _:
                yield f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"
