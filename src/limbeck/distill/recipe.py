"""One frozen value per run, read from TOML; flags override it by the same name."""

import difflib
import re
import string
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limbeck.address import check_address
from limbeck.artefact import sha256_json
from limbeck.distill.apart import check_apart
from limbeck.distill.reach import check_extra, check_reached, check_remote
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
_TRIMMED_LOSSES = ("forward_kl", "cross_entropy")
Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


LIMITS = "limits"
"""Sections of this name decide no output, so they may change while a run is unfinished."""

Price = Annotated[float, Field(ge=0)]


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


class LimitsRecipe(_Section):
    """How fast, how often and for how much an API may be asked; may be changed while a run is unfinished."""

    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    """Requests under way at once."""
    retries: Annotated[int, Field(ge=0, le=100)] = 6
    """Further tries of a request that a busy server or a broken line left without an answer."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """Patience with one answer."""
    longest_wait_s: Annotated[float, Field(gt=0)] = 120.0
    """A server that asks for a longer pause stops the run, to be gone on with later."""
    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Prompts and answers together, as the server counts them."""
    prompt_price: Price | None = None
    """For a million prompt tokens, in any currency."""
    completion_price: Price | None = None
    """For a million tokens of answers, in the same currency."""
    max_cost: Price | None = None
    """Most that the run may cost at this API, resumed tries included; stops before a request that could pass it."""

    @model_validator(mode="after")
    def _priced(self) -> "LimitsRecipe":
        if self.max_cost is not None and self.prompt_price is self.completion_price is None:
            raise ValueError("has max_cost, which needs prompt_price, completion_price or both")
        return self


class ApiRecipe(_Section):
    """An OpenAI-compatible API; needed for a model named `openai:NAME`."""

    base_url: Annotated[str, Field(min_length=1)]
    """Such as `https://api.example.com/v1`; no default, so that nothing is sent anywhere unasked."""
    key_variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; the key itself stands in no file."""
    served_as: str | None = None
    """Name under which the server answers, where that is neither the model's nor a dated snapshot of it."""
    top_logprobs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Ask for that many of the likeliest tokens at every place of an answer; absent, text alone."""
    prompt_logprobs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Score the corpus' own text instead of letting the teacher write (vLLM's extension)."""
    send_seed: bool = True
    """Send a seed with every request; some servers refuse the field."""
    length_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the longest answer."""
    extra: dict[str, str | int | float | bool] = {}
    """Further fields of every request, for a server that wants them."""
    limits: LimitsRecipe = LimitsRecipe()

    @model_validator(mode="after")
    def _plain_address(self) -> "ApiRecipe":
        check_address(self.base_url)
        check_extra(self.extra)
        return self


class MessageRecipe(_Section):
    """A turn that the teacher reads before every conversation and the student never sees."""

    role: Literal["user", "assistant"]
    """Who speaks; a system turn is `teacher.system`."""
    content: Annotated[str, Field(min_length=1)]
    """What is said."""


class TeacherRecipe(_Section):
    """The larger model."""

    model: Annotated[str, Field(min_length=1)]
    """A folder, `hf:org/name`, `packaged:smollm2-135m-instruct`, or `openai:NAME` behind an API."""
    dtype: Dtype = "bfloat16"
    """Number format of the teacher's weights while it is asked."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """A system prompt that the teacher reads and the student never sees (prompt distillation)."""
    system_file: str | None = None
    """The same from a text file, relative to the recipe's folder."""
    prefix_messages: tuple[MessageRecipe, ...] = ()
    """Example turns for the teacher alone, ending with an answer; they follow the system prompt."""
    terms: TermsRecipe = TermsRecipe()
    api: ApiRecipe | None = None

    @model_validator(mode="after")
    def _reached(self) -> "TeacherRecipe":
        check_reached(self.model, self.api)
        return self

    @property
    def is_remote(self) -> bool:
        """Whether the teacher is behind an API, so that its weights are not here."""
        return self.api is not None

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
    """Prompts answered at once; an API has `teacher.api.limits.concurrency` instead."""
    samples: Positive = 1
    """Answers to each prompt."""


class JudgeRecipe(_Section):
    """A model behind an API that scores answers; its terms must allow that use."""

    model: Annotated[str, Field(pattern=r"^openai:.+$")]
    """`openai:NAME`."""
    api: ApiRecipe
    terms: TermsRecipe = TermsRecipe()
    question: str = (
        "Rate how well the answer below does what was asked, from {lowest} (useless) to {highest} (could not be "
        "better). Reply with the number alone.\n\n[Asked]\n{prompt}\n\n[Answer]\n{answer}"
    )
    """What the judge is asked; `{prompt}`, `{answer}`, `{reference}`, `{lowest}` and `{highest}` are filled in."""
    lowest: int = 1
    highest: int = 10
    min_score: float
    """Answers with a lower score are rejected."""
    max_new_tokens: Positive = 16
    """A reply is the score and nothing else, or it does not count."""

    @model_validator(mode="after")
    def _scores_fit(self) -> "JudgeRecipe":
        if not self.lowest <= self.min_score <= self.highest:
            raise ValueError(
                f"needs lowest ({self.lowest}) <= min_score ({self.min_score}) <= highest ({self.highest})"
            )
        _check_slots(self.question)
        if self.api.top_logprobs is not None or self.api.prompt_logprobs is not None:
            raise ValueError("has logprobs in its api section, which go with a teacher")
        check_reached(self.model, self.api)
        return self


class FilterRecipe(_Section):
    """Which answers of the teacher are kept, for training and for evaluation alike."""

    finished: bool = False
    """Reject answers that were cut at their length."""
    min_tokens: Positive | None = None
    """Shortest answer, in the student's tokens, the end of the turn left out."""
    max_tokens: Positive | None = None
    """Longest answer, likewise."""
    max_repetition: Fraction | None = None
    """Largest share of repeated n-grams among the answer's tokens: 1 - distinct / all."""
    repetition_n: Positive = 4
    """The n of those n-grams."""
    pattern: str | None = None
    """Regular expression that must be found in the answer."""
    forbidden: str | None = None
    """Regular expression that must not be found in it."""
    json_schema: str | None = None
    """A JSON Schema file, relative to the recipe's folder: the whole answer must be JSON that it allows."""
    matches_reference: bool = False
    """The answer must equal the corpus' own response to the prompt, white space at both ends aside."""
    answer_pattern: str | None = None
    """Regular expression whose first group is what `matches_reference` compares, in answer and reference."""
    judge: JudgeRecipe | None = None
    distinct: bool = False
    """Of equal answers to one prompt keep the first; without it, frequent answers weigh more."""
    keep: Literal["all", "first", "best"] = "all"
    """Of a prompt's accepted answers: all, the first, or the one with the highest judge's score."""

    @model_validator(mode="after")
    def _fits_together(self) -> "FilterRecipe":
        if self.keep == "best" and self.judge is None:
            raise ValueError(
                'has keep = "best", which goes by the score of a judge; add [filter.judge]'
            )
        if self.answer_pattern is not None and not self.matches_reference:
            raise ValueError("has answer_pattern, which goes with matches_reference = true")
        for name in ("pattern", "forbidden", "answer_pattern"):
            _check_pattern(name, getattr(self, name))
        if self.answer_pattern is not None and not re.compile(self.answer_pattern).groups:
            raise ValueError(f"answer_pattern {self.answer_pattern!r} needs a group in brackets")
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"needs min_tokens ({self.min_tokens}) <= max_tokens ({self.max_tokens})"
            )
        return self


class AlignRecipe(_Section):
    """How a student with another tokenizer learns; absent, teacher and student must share one."""

    method: Literal["chunks", "uld"] = "chunks"
    """`chunks` compares probabilities of the byte strings that both vocabularies hold, aligned by bytes;
    `uld` compares sorted probabilities where spans coincide, and does not see which token is meant."""


class CaptureRecipe(_Section):
    """How much of the teacher's distribution is kept."""

    targets: Literal["teacher", "none"] = "teacher"
    """Whom the student learns from: `teacher` asks it for its distribution; `none` asks it nothing, and the student
    learns the corpus' own answers with loss.kind = "cross_entropy"."""
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Temperature of the stored distribution."""
    batch_tokens: Positive = 4096
    """Tokens a teacher forward."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that ask the teacher side by side, each with its share of the cores."""
    parts: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Parts of the store; one process at a time writes a part. None makes one for each worker. More of them
    share the work more evenly, and a worker that takes over from a lost one reads less again."""
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

    @model_validator(mode="after")
    def _a_part_each(self) -> "CaptureRecipe":
        if self.parts is not None and self.parts < self.workers:
            raise ValueError(f"needs parts ({self.parts}) for each of its {self.workers} workers")
        return self

    @property
    def store_parts(self) -> int:
        """Parts of the store."""
        return self.parts or self.workers


class LoraRecipe(_Section):
    """Low-rank adapters on a frozen student, merged into it when they are trained."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of each update; its two factors hold rank x (inputs + outputs) parameters."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The update is scaled by alpha / rank."""
    targets: tuple[Annotated[str, Field(min_length=1)], ...] = ("all-linear",)
    """Names of the linear layers that get adapters, such as `q_proj`; `all-linear` means all but the head."""
    dora: bool = False
    """Train each row's length apart from its direction (DoRA); slower, often nearer to full training."""


class StudentRecipe(_Section):
    """The smaller model: pruned out of the teacher, from a folder, or from scratch."""

    init: Literal["prune", "folder", "scratch"] = "prune"
    folder: str | None = None
    """The model to start from, for init = "folder": a `transformers` folder, or any other name that
    `teacher.model` takes; the teacher's own name fine-tunes the teacher."""
    tokenizer: str | None = None
    """A folder with another tokenizer, for init = "scratch" with `[align]`."""
    layers: Positive | None = None
    """Layers to keep (prune) or to make (scratch)."""
    layer_choice: Literal["importance", "even"] = "importance"
    """Which layers pruning keeps: those that change the hidden state most on the corpus, or evenly spaced ones."""
    intermediate: Positive | None = None
    """Width of the feed-forward blocks; pruning keeps the neurons with the largest measured activity."""
    base: str | None = None
    """Where the teacher is behind an API: the model here whose tokenizer, shape and weights `prune` and `scratch` use."""
    config: dict[str, int | float | str | bool] = {}
    """Overrides of the teacher's configuration, for init = "scratch"."""
    freeze_embeddings: bool = False
    """Leave token embeddings and the tied head as they are."""
    vocabulary: Positive | Literal["corpus"] | None = None
    """Tokens to keep of the teacher's: so many, those the training text needs (`corpus`), or all (absent)."""
    lora: LoraRecipe | None = None

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
        if self.lora is not None and self.init == "scratch":
            raise ValueError('has lora, which adapts given weights, and init = "scratch" has none')
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
    compile: bool = False
    """Compile the student's layers with `torch.compile`: a minute before the first step, then faster steps. Needs a
    C++ compiler on a CPU, and one process."""
    checkpoint_every: Positive = 50
    """Steps between checkpoints."""
    positions: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the loss positions that is trained on; below 1 the objective changes, and the report says so."""
    position_choice: Literal["student_entropy", "teacher_entropy", "random"] = "student_entropy"
    """Which positions those are: of largest entropy (the student's costs a pass through its head, the
    teacher's nothing), or any."""


class OwnLossRecipe(_Section):
    """What the student minimises on its own text; the teacher answers with its whole distribution."""

    kind: Literal[
        "reverse_kl", "jsd", "forward_kl", "skew_forward_kl", "skew_reverse_kl", "total_variation"
    ] = "reverse_kl"
    temperature: Annotated[float, Field(gt=0, le=20)] = 1.0
    """Softens both distributions; the loss is multiplied by its square, so gradients keep their size."""
    skew: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share mixed into the other distribution, for the skew divergences."""
    beta: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Weight of the teacher in the mixture, for the generalised Jensen-Shannon divergence."""


class OnPolicyRecipe(_Section):
    """On-policy training: the student answers training prompts, and the teacher judges every token."""

    fraction: Fraction = 1.0
    """Share of the documents that the student writes anew; the others come from the store, under `[loss]`.
    0 writes none: the same steps off-policy, to compare with."""
    documents: Positive = 16
    """Documents a step, written and read; `train.rows` still limits a micro-batch."""
    max_staleness: Annotated[int, Field(ge=0)] = 3
    """Most steps between writing an answer and training on it; answers to one step more are written at once."""
    batch: Positive = 64
    """Prompts answered at once."""
    temperature: Annotated[float, Field(gt=0, le=5)] = 1.0
    """Sampling temperature of the student; at 1 the text is truly its own."""
    max_new_tokens: Positive = 128
    """Tokens an answer at the most; a cut answer is kept and counted."""
    prompt_tokens: Positive = 32
    """Tokens of a plain text that the student goes on from, at most half of it; a chat is answered anew."""
    loss: OwnLossRecipe = OwnLossRecipe()


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


class ValidateRecipe(_Section):
    """A validation as a run's last step: what the student kept, against a margin fixed beforehand."""

    tasks: tuple[str, ...] = ()
    """Built-in tasks, or task files in TOML relative to the recipe's folder; none takes the quick built-in set."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the teacher's above-chance quality that KEEPS must exceed."""
    limit: Positive | None = None
    """Items a task at the most."""
    sequential: bool = False
    """Stop scoring as soon as the evidence suffices."""
    judges: tuple[str, ...] = ()
    """Models that compare written answers, as `NAME=URL`; only those that pass an examination are heard."""


class Recipe(_Section):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    teacher: TeacherRecipe
    corpus: CorpusRecipe
    generate: GenerateRecipe | None = None
    filter: FilterRecipe | None = None
    align: AlignRecipe | None = None
    capture: CaptureRecipe = CaptureRecipe()
    student: StudentRecipe
    loss: LossRecipe = LossRecipe()
    train: TrainRecipe = TrainRecipe()
    on_policy: OnPolicyRecipe | None = None
    evaluate: EvaluateRecipe = EvaluateRecipe()
    # Called `validate` in TOML; pydantic's models have a method of that name.
    validation: Annotated[ValidateRecipe | None, Field(alias="validate")] = None

    @model_validator(mode="after")
    def _reads_apart(self) -> "Recipe":
        check_apart(self)
        return self

    @model_validator(mode="after")
    def _trimmed_loss(self) -> "Recipe":
        if self.student.vocabulary is not None and self.loss.kind not in _TRIMMED_LOSSES:
            raise ValueError(
                f"has student.vocabulary, which goes with loss.kind {' or '.join(_TRIMMED_LOSSES)}: other "
                f"divergences need the mass of the trimmed tokens in full, got {self.loss.kind}"
            )
        return self

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
    def _someone_to_learn_from(self) -> "Recipe":
        if self.capture.targets == "teacher":
            return self
        if self.loss.kind != "cross_entropy":
            raise ValueError(
                'with capture.targets = "none" needs loss.kind = "cross_entropy", which reads no teacher, '
                f'got "{self.loss.kind}"'
            )
        if self.generate is not None:
            raise ValueError(
                'has [generate], where the teacher writes the answers, and capture.targets = "none", '
                "where it is asked nothing; leave one out"
            )
        if self.train.positions < 1 and self.train.position_choice == "teacher_entropy":
            raise ValueError(
                'has train.position_choice = "teacher_entropy", but with capture.targets = "none" the '
                "teacher's entropy is not known"
            )
        return self

    @model_validator(mode="after")
    def _filters_answers(self) -> "Recipe":
        if self.filter is not None and self.generate is None:
            raise ValueError(
                "has [filter], which is for answers that the teacher writes; add [generate]"
            )
        return self

    @model_validator(mode="after")
    def _fits_on_policy(self) -> "Recipe":
        own, train = self.on_policy, self.train
        if own is None:
            return self
        if self.student.vocabulary is not None or self.capture.targets == "none":
            other = "student.vocabulary" if self.student.vocabulary else 'capture.targets = "none"'
            raise ValueError(
                f"has on_policy, where the teacher judges every token that the student writes, and {other}; "
                "leave one out"
            )
        if train.accumulate != 1:
            raise ValueError(
                "has on_policy, where on_policy.documents says how large a step is; "
                f"leave train.accumulate = 1, got {train.accumulate}"
            )
        if train.positions < 1:
            raise ValueError(
                "has on_policy, which trains on every position; "
                f"leave train.positions = 1, got {train.positions}"
            )
        if train.compile:
            raise ValueError(
                "has on_policy, whose steps differ in length, and train.compile; leave one out"
            )
        if own.max_new_tokens >= train.row_length:
            raise ValueError(
                f"needs on_policy.max_new_tokens ({own.max_new_tokens}) below train.row_length "
                f"({train.row_length}), which holds prompt and answer"
            )
        if own.fraction == 1 and self.loss != LossRecipe():
            raise ValueError(
                "has a [loss] that nothing reads: at on_policy.fraction = 1 every text is the student's own, "
                "and its loss is [on_policy.loss]"
            )
        return self

    @model_validator(mode="after")
    def _suits_an_api(self) -> "Recipe":
        check_remote(self)
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
        return self.model_dump(mode="json", by_alias=True)

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


_SLOTS = ("prompt", "answer", "reference", "lowest", "highest")


def _check_slots(question: str) -> None:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(question) if name is not None]
    except ValueError as error:
        raise ValueError(f"question is malformed: {error}; write {{{{ for a brace") from None
    if unknown := [name for name in names if name not in _SLOTS]:
        raise ValueError(
            f"question has {{{unknown[0]}}}; known are {', '.join(_SLOTS)}; write {{{{ for a brace"
        )
    if "answer" not in names:
        raise ValueError("question lacks {answer}, so the judge would not see what it scores")


def _check_pattern(name: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"{name} {pattern!r} is no regular expression: {error}") from None


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
    known = [field.alias or name for name, field in section.model_fields.items()]
    nearest = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown recipe key {'.'.join(map(str, loc))}: {hint}known here: {', '.join(known)}"


def _section_type(section: type[BaseModel], name: str) -> type[BaseModel]:
    annotation = next(
        field.annotation
        for key, field in section.model_fields.items()
        if name == (field.alias or key)
    )
    candidates = [annotation, *get_args(annotation)]
    return next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
