"""One frozen value per run, read from TOML; flags override it by the same name."""

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limbeck.artefact import sha256_json
from limbeck.errors import RecipeError

Dtype = Literal["float32", "bfloat16"]
LossKind = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "skew_forward_kl",
    "skew_reverse_kl",
    "total_variation",
    "cross_entropy",
]
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class TermsRecipe(_Section):
    """Under which terms the teacher's outputs may train another model."""

    licence: str | None = None
    """SPDX identifier or the licence's own name; None takes what Limbeck knows of a packaged teacher."""
    outputs_may_train: bool | None = None
    """Whether the terms allow training another model on outputs; None looks the licence up."""
    source: str | None = None
    """Where that is written: an address, or a document's name."""
    as_of: date | None = None
    """The day on which the source was read."""
    permission: str | None = None
    """Reference of a permission given to you, where the terms alone do not allow it."""


class MessageRecipe(_Section):
    """A turn that the teacher reads before every conversation and the student never sees."""

    role: Literal["user", "assistant"]
    """Who speaks; a system turn is `teacher.system`."""
    content: Annotated[str, Field(min_length=1)]
    """What is said."""


class TeacherRecipe(_Section):
    """The larger model."""

    model: Annotated[str, Field(min_length=1)]
    """A folder, `hf:org/name`, or `packaged:smollm2-135m-instruct`."""
    dtype: Dtype = "bfloat16"
    """Number format of the teacher's weights while it is asked."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """A system prompt that the teacher reads and the student never sees (prompt distillation)."""
    system_file: str | None = None
    """The same from a text file, relative to the recipe's folder."""
    prefix_messages: tuple[MessageRecipe, ...] = ()
    """Example turns for the teacher alone, ending with an answer; they follow the system prompt."""
    terms: TermsRecipe = TermsRecipe()

    @property
    def has_prefix(self) -> bool:
        """Whether the teacher reads something that the student does not."""
        return bool(self.system or self.system_file or self.prefix_messages)

    @model_validator(mode="after")
    def _one_prefix(self) -> "TeacherRecipe":
        if self.system is not None and self.system_file is not None:
            raise ValueError("has system and system_file; give one of them")
        roles = [m.role for m in self.prefix_messages]
        if roles and roles[-1] != "assistant":
            raise ValueError(
                f"has prefix_messages that end with a turn of the {roles[-1]}; examples end with an answer"
            )
        return self


class CorpusRecipe(_Section):
    """What the teacher reads or answers: exactly one of `files`, `dataset` and `template`."""

    files: tuple[str, ...] | None = None
    """JSONL, text, Parquet or CSV files (`.gz` too), relative to the recipe's folder."""
    dataset: str | None = None
    """A name or folder for `datasets.load_dataset`."""
    dataset_split: str = "train"
    template: str | None = None
    """A prompt with `{slot}` places; every combination of `slots` makes one prompt."""
    slots: dict[str, tuple[str, ...]] = {}
    """Slot name to its values."""
    limit: Positive | None = None
    """At most this many documents, drawn by seed after de-duplication."""
    heldout_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the documents kept out of training, chosen by content hash."""
    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens a document; longer text is cut into pieces, longer chats are dropped and counted."""

    @model_validator(mode="after")
    def _one_source(self) -> "CorpusRecipe":
        given = [n for n in ("files", "dataset", "template") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"needs exactly one of files, dataset and template, got {given or 'none'}"
            )
        if self.slots and self.template is None:
            raise ValueError("has slots, which go with template")
        return self


class GenerateRecipe(_Section):
    """Self-made text: the teacher answers the corpus' prompts, captured while it writes."""

    temperature: Annotated[float, Field(gt=0, le=5)] = 1.0
    """Sampling temperature of the answers; the targets have `capture.temperature`."""
    max_new_tokens: Positive = 128
    """Tokens an answer at the most; a cut answer is kept and counted."""
    batch: Positive = 128
    """Prompts answered at once."""


class AlignRecipe(_Section):
    """How a student with another tokenizer learns; absent, teacher and student must share one."""

    method: Literal["chunks", "uld"] = "chunks"
    """`chunks` compares probabilities of the byte strings that both vocabularies hold, aligned by bytes;
    `uld` compares sorted probabilities where spans coincide, and does not see which token is meant."""


class CaptureRecipe(_Section):
    """How much of the teacher's distribution is kept."""

    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Temperature of the stored distribution."""
    batch_tokens: Positive = 4096
    """Tokens a teacher forward."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that ask the teacher side by side, each with its share of the cores and a part of the store."""
    head_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Tokens at least this likely are kept with their own probability."""
    max_head: Annotated[int, Field(ge=1, le=65_535)] = 16
    """Entries in a head at the most."""
    tail_samples: Annotated[int, Field(ge=0, le=255)] = 8
    """Unbiased samples of the tail at a position at the most; 0 keeps the tail's mass only."""
    tail_weight: Annotated[float, Field(gt=0, lt=1)] | None = 0.133
    """Tail mass that one sample stands for; without it every position draws `tail_samples`."""
    bytes_per_token: Annotated[float, Field(gt=0)] | None = None
    """Most bytes a loss position may take, everything counted; a pilot then picks the four keys above."""
    max_gradient_mse: Annotated[float, Field(gt=0)] | None = None
    """Most squared error of the gradient a position may have; a pilot then picks the keys above."""
    shard_documents: Positive = 64
    """Documents a shard; a crash loses one shard at the most."""


class StudentRecipe(_Section):
    """The smaller model: pruned out of the teacher, from a folder, or from scratch."""

    init: Literal["prune", "folder", "scratch"] = "prune"
    folder: str | None = None
    """A `transformers` folder, for init = "folder"."""
    tokenizer: str | None = None
    """A folder with another tokenizer, for init = "scratch" with `[align]`."""
    layers: Positive | None = None
    """Layers to keep (prune) or to make (scratch)."""
    layer_choice: Literal["importance", "even"] = "importance"
    """Which layers pruning keeps: those that change the hidden state most on the corpus, or evenly spaced ones."""
    intermediate: Positive | None = None
    """Width of the feed-forward blocks; pruning keeps the neurons with the largest measured activity."""
    config: dict[str, int | float | str | bool] = {}
    """Overrides of the teacher's configuration, for init = "scratch"."""
    freeze_embeddings: bool = False
    """Leave token embeddings and the tied head as they are."""

    @model_validator(mode="after")
    def _fits_init(self) -> "StudentRecipe":
        if self.init == "folder" and self.folder is None:
            raise ValueError('with init = "folder" needs folder')
        if self.init != "folder" and self.folder is not None:
            raise ValueError(f'has folder, which goes with init = "folder", not "{self.init}"')
        if self.tokenizer is not None and self.init != "scratch":
            raise ValueError(f'tokenizer goes with init = "scratch", got init = "{self.init}"')
        if self.init == "prune" and self.layers is None and self.intermediate is None:
            raise ValueError('init = "prune" needs layers, intermediate or both')
        if self.config and self.init != "scratch":
            raise ValueError(f'config goes with init = "scratch", got init = "{self.init}"')
        return self


class LossRecipe(_Section):
    """What the student minimises."""

    kind: LossKind = "forward_kl"
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Softens both distributions; the loss is multiplied by its square, so gradients keep their size."""
    skew: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share mixed into the other distribution, for the skew divergences."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Weight of the teacher in the mixture, for the generalised Jensen-Shannon divergence."""
    cross_entropy: Fraction = 0.0
    """Share of plain cross-entropy on the realised token."""
    coarse_tail: bool = False
    """Let a divergence that needs the dense tail treat it as one bucket."""


class TrainRecipe(_Section):
    """The training loop."""

    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the training rows; fractions end early."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-4
    """Peak learning rate."""
    warmup: Fraction = 0.05
    """Share of the steps over which the rate rises."""
    final_rate: Fraction = 0.05
    """Rate of the last step, as a share of the peak; linear decay."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    row_length: Annotated[int, Field(ge=16)] = 512
    """Tokens a packed row."""
    rows: Positive = 4
    """Rows a micro-batch."""
    accumulate: Positive = 1
    """Micro-batches a step."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient."""
    precision: Literal["no", "bf16"] = "bf16"
    """Mixed precision of matrix products; weights and optimiser stay float32."""
    checkpoint_every: Positive = 50
    """Steps between checkpoints."""
    positions: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the loss positions that is trained on; below 1 the objective changes, and the report says so."""
    position_choice: Literal["student_entropy", "teacher_entropy", "random"] = "student_entropy"
    """Which positions those are: of largest entropy (the student's costs a pass through its head, the
    teacher's nothing), or any."""


class EvaluateRecipe(_Section):
    """Held-out measurements."""

    controls: bool = True
    """Train and measure the cross-entropy control and measure the undistilled start."""
    documents: Positive = 200
    """Held-out documents at the most."""
    speed_rounds: Annotated[int, Field(ge=3)] = 5
    """Interleaved generations of teacher and student."""
    speed_tokens: Positive = 64
    """Tokens a timed generation."""
    samples: Positive = 3
    """Side-by-side samples in the report."""


class Recipe(_Section):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    teacher: TeacherRecipe
    corpus: CorpusRecipe
    generate: GenerateRecipe | None = None
    align: AlignRecipe | None = None
    capture: CaptureRecipe = CaptureRecipe()
    student: StudentRecipe
    loss: LossRecipe = LossRecipe()
    train: TrainRecipe = TrainRecipe()
    evaluate: EvaluateRecipe = EvaluateRecipe()

    @model_validator(mode="after")
    def _room_to_answer(self) -> "Recipe":
        if self.generate is not None and self.generate.max_new_tokens >= self.corpus.max_length:
            raise ValueError(
                f"needs generate.max_new_tokens ({self.generate.max_new_tokens}) below "
                f"corpus.max_length ({self.corpus.max_length}), which holds prompt and answer"
            )
        if self.corpus.max_length > self.train.row_length:
            raise ValueError(
                f"needs train.row_length ({self.train.row_length}) to hold corpus.max_length "
                f"({self.corpus.max_length})"
            )
        return self

    @model_validator(mode="after")
    def _can_align(self) -> "Recipe":
        if self.align is None:
            if self.student.tokenizer is not None:
                raise ValueError('has student.tokenizer, which needs [align] method = "chunks"')
            return self
        needed: dict[str, tuple[object, object]] = {
            "capture.temperature": (self.capture.temperature, 1.0),
            "loss.temperature": (self.loss.temperature, 1.0),
            "train.positions": (self.train.positions, 1.0),
        }
        if self.align.method == "uld":
            needed |= {
                "loss.kind": (self.loss.kind, "total_variation"),
                "loss.coarse_tail": (self.loss.coarse_tail, True),
            }
        for key, (have, need) in needed.items():
            if have != need:
                raise ValueError(f"needs {key} = {_toml(need)} with [align], got {_toml(have)}")
        if self.align.method == "uld" and self.loss.cross_entropy == 0:
            raise ValueError(
                "needs loss.cross_entropy above 0 with align.method = uld, for sorted probabilities do not "
                "say which token is meant"
            )
        if self.student.init == "prune":
            raise ValueError(
                'has [align] and student.init = "prune", which keeps the teacher\'s tokenizer; '
                'use init = "folder", or "scratch" with student.tokenizer'
            )
        if self.student.init == "scratch" and self.student.tokenizer is None:
            raise ValueError('needs student.tokenizer for [align] with student.init = "scratch"')
        return self

    def as_json(self) -> dict[str, Any]:
        """Return the recipe as JSON values, defaults written out."""
        return self.model_dump(mode="json")

    @property
    def sha256(self) -> str:
        """Hash of the recipe with its defaults written out."""
        return sha256_json(self.as_json())


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `key=value` overrides.

    Relative paths in it stay as written, so that a recipe has one hash on every machine; whoever opens
    them resolves them against the recipe's folder.

    Args:
        path: A TOML file.
        overrides: `section.key=value`, the value in TOML notation; a bare word counts as a string.

    Raises:
        RecipeError: The file is missing or no TOML, or a key, type or range is wrong.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"recipe {path} does not exist") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} is not TOML: {error}") from None
    except OSError as error:
        raise RecipeError(f"recipe {path} cannot be read: {error.strerror}") from None
    for override in overrides:
        _override(raw, override)
    return parse_recipe(raw)


def parse_recipe(raw: Mapping[str, Any]) -> Recipe:
    """Check a mapping of recipe values, nested as `tomllib` returns it, and return the recipe.

    Raises:
        RecipeError: One sentence for each wrong key, type or range.
    """
    try:
        return Recipe.model_validate(_tuples(raw), strict=True)
    except ValidationError as error:
        raise RecipeError("; ".join(_sentences(error))) from None


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {override!r} must have the form section.key=value")
    *sections, last = [part.strip() for part in key.split(".")]
    target = raw
    for section in sections:
        below = target.setdefault(section, {})
        if not isinstance(below, dict):
            raise RecipeError(f"--set {override!r}: {section} is a value, not a section")
        target = below
    target[last] = _toml_value(text.strip())


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _tuples(value: Any) -> Any:
    """Turn TOML arrays into the tuples that frozen sections hold."""
    if isinstance(value, Mapping):
        return {k: _tuples(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return value


def _sentences(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        loc = ".".join(str(part) for part in problem["loc"]) or "recipe"
        match problem["type"]:
            case "extra_forbidden":
                yield _unknown_key(problem["loc"])
            case "missing":
                yield f"recipe key {loc} is missing"
            case "value_error":
                yield f"recipe section {loc} {problem['msg'].removeprefix('Value error, ')}"
            case "model_type":
                yield f"recipe key {loc} must be a section ([{loc}]), got {problem['input']!r}"
            case _:
                what = problem["msg"][0].lower() + problem["msg"][1:]
                yield f"recipe key {loc}: {what}, got {problem['input']!r}"


def _unknown_key(loc: tuple[int | str, ...]) -> str:
    section: type[BaseModel] = Recipe
    for part in loc[:-1]:
        section = _section_type(section, str(part))
    known = list(section.model_fields)
    nearest = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown recipe key {'.'.join(map(str, loc))}: {hint}known here: {', '.join(known)}"


def _section_type(section: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = section.model_fields[name].annotation
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
