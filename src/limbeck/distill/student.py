"""The model that learns: pruned out of the teacher, taken from a folder or made from scratch, and saved."""

import contextlib
import copy
import difflib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from limbeck.distill import prune
from limbeck.distill.adapter import check_adapters, count_trainable
from limbeck.distill.recipe import Dtype, StudentRecipe
from limbeck.distill.targets import Document
from limbeck.distill.trim import check_trims, trim
from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import RecipeError, StudentError, TokenizerMismatchError
from limbeck.model import LocalModel
from limbeck.pretrained import save


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """How a student was built."""

    init: str
    parameters: int
    """Of the student; a tied head counts once."""
    teacher_parameters: int
    """Of the model that the student grew from: the teacher, or `stock`; so is the next of layers."""
    trainable_parameters: int
    layers: int
    teacher_layers: int
    intermediate: int | None
    """Width of the feed-forward blocks, where the configuration names one."""
    kept_layers: tuple[int, ...] | None = None
    """Teacher layers that the student took over; None unless pruned."""
    layer_importance: tuple[float, ...] | None = None
    """Block influence of every teacher layer on the calibration text; None unless pruned."""
    vocabulary: int | None = None
    """Tokens that were kept of the teacher's; None where all were."""
    kept_activity: tuple[float, ...] | None = None
    """For each kept layer the share of feed-forward activity that its kept neurons carried."""
    calibration_positions: int | None = None
    """Loss positions behind those figures."""
    stock: str | None = None
    """The model that the student grew from, where that is not its teacher."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know, one sentence each."""

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}


@dataclass(frozen=True, slots=True)
class Student:
    """A trainable model; owns its weights."""

    model: Any
    """A `transformers.PreTrainedModel` in float32 and evaluation mode."""
    tokenizer: Any
    """The teacher's tokenizer, one of some of its tokens, or the student's own with `[align]`."""
    record: BuildRecord


def build_student(
    recipe: StudentRecipe,
    teacher: LocalModel,
    calibration: Sequence[Document],
    *,
    seed: int,
    folder_model: LocalModel | None = None,
    vocabulary: Vocabulary | None = None,
    stands_in: bool = False,
    tokenizer: Any = None,
) -> Student:
    """Build the student that a recipe asks for; the teacher stays as it is.

    The same recipe, teacher, calibration and seed give the same weights. No global random state is used
    or changed.

    Args:
        recipe: The `[student]` section.
        teacher: The loaded teacher.
        calibration: Documents on which pruning measures; unused otherwise.
        seed: Seed of fresh weights.
        folder_model: The loaded `recipe.folder`, for init = "folder".
        vocabulary: The tokens to keep, of `trim.decide`; None keeps all.
        stands_in: Whether `teacher` is not the teacher but stands in for one behind an API.
        tokenizer: The student's own, with `[align]`; None means the teacher's.

    Raises:
        RecipeError: A size or a configuration key that cannot be.
        StudentError: The teacher's architecture cannot be pruned, or nothing can be measured.
        TokenizerMismatchError: The folder's tokenizer is not the teacher's.
    """
    match recipe.init:
        case "prune":
            model, facts = _pruned(recipe, teacher, calibration)
        case "folder":
            if folder_model is None:
                raise StudentError(f"student folder {recipe.folder} was not loaded")
            model, facts = _from_folder(teacher, folder_model, aligned=tokenizer is not None)
        case "scratch":
            model, facts = _from_scratch(recipe, teacher, seed, tokenizer)
    model = model.float().eval().requires_grad_(True)
    tokenizer = teacher.tokenizer if tokenizer is None else tokenizer
    if vocabulary is not None:
        tokenizer = trim(model, tokenizer, vocabulary)
        facts["vocabulary"] = len(vocabulary)
    if recipe.freeze_embeddings:
        freeze_embeddings(model)
    if recipe.lora is not None:
        facts["adapted"] = count_trainable(model, recipe.lora)
    stock = teacher.name if stands_in else None
    record = _record(recipe.init, model, teacher.model, facts, stock)
    return Student(model, tokenizer, record)


def check_student(
    recipe: StudentRecipe,
    teacher: LocalModel,
    folder_model: LocalModel | None,
    *,
    aligned: bool = False,
) -> None:
    """Refuse a student that cannot be built, before anything costly is done for it.

    With `aligned` it may have another tokenizer.

    Raises:
        RecipeError: A size or a configuration key that cannot be.
        StudentError: The teacher's architecture cannot be pruned, or its vocabulary not trimmed.
        TokenizerMismatchError: The folder's tokenizer is not the teacher's.
        MissingDependencyError: `student.lora` without peft.
    """
    match recipe.init:
        case "prune":
            have = len(prune.decoder_layers(teacher.model))
            prune.choose_layers([0.0] * have, recipe.layers or have, recipe.layer_choice)
            if recipe.intermediate is not None:
                width = teacher.model.config.intermediate_size
                prune.choose_neurons(torch.zeros(width), recipe.intermediate)
        case "folder":
            if folder_model is not None and not aligned:
                _check_tokenizer(teacher, folder_model)
        case "scratch":
            scratch_config(teacher.model.config, _overrides(recipe))
    if recipe.vocabulary is not None:
        check_trims(teacher, recipe.vocabulary)
    if recipe.lora is not None:
        check_adapters(recipe.lora, (folder_model or teacher).model)


def save_student(
    model: Any, tokenizer: Any, folder: Path, *, card: str, dtype: Dtype = "float32"
) -> None:
    """Write a student that `AutoModelForCausalLM.from_pretrained(folder)` loads, whole or not at all.

    A student that lies there already is replaced; anything else is not.

    Args:
        model: The trained model; it is not changed.
        tokenizer: Its tokenizer.
        folder: Where to write.
        card: Model card, the text of README.md.
        dtype: Number format of the weights on disk.

    Raises:
        StudentError: The folder holds something else, or cannot be written.
    """
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not empty and not (folder / "config.json").is_file():
        raise StudentError(f"{folder} holds no model, so it is not replaced by the student")
    try:
        save(model, tokenizer, folder, dtype=dtype, texts={"README.md": card})
    except OSError as error:
        raise StudentError(
            f"student cannot be written to {folder}: {error.strerror or error}"
        ) from error


def _pruned(
    recipe: StudentRecipe, teacher: LocalModel, calibration: Sequence[Document]
) -> tuple[Any, dict[str, Any]]:
    measured = prune.measure(teacher.model, calibration, neurons=recipe.intermediate is not None)
    have = len(measured.importance_S)
    kept = prune.choose_layers(measured.importance_S, recipe.layers or have, recipe.layer_choice)
    model = prune.keep_layers(teacher.model, kept)
    facts: dict[str, Any] = {
        "kept_layers": kept,
        "layer_importance": measured.importance_S,
        "calibration_positions": measured.positions,
    }
    if recipe.intermediate is not None and measured.activity_SF is not None:
        activity_SF = [measured.activity_SF[s] for s in kept]
        neurons = [prune.choose_neurons(a_F, recipe.intermediate) for a_F in activity_SF]
        prune.keep_neurons(model, neurons)
        facts["kept_activity"] = tuple(
            float(a_F[n].sum() / a_F.sum()) if a_F.sum() > 0 else 1.0
            for a_F, n in zip(activity_SF, neurons, strict=True)
        )
    return model, facts


def _from_folder(
    teacher: LocalModel, given: LocalModel, *, aligned: bool
) -> tuple[Any, dict[str, Any]]:
    model = copy.deepcopy(given.model)
    if aligned:
        return model, {}
    _check_tokenizer(teacher, given)
    rows = teacher.model.get_input_embeddings().num_embeddings
    notes = _match_rows(model, rows, tokens=len(teacher.tokenizer), name=given.name)
    return model, {"notes": notes}


def _check_tokenizer(teacher: LocalModel, given: LocalModel) -> None:
    if given.tokenizer_sha256 == teacher.tokenizer_sha256:
        return
    raise TokenizerMismatchError(
        f"student {given.name} and teacher {teacher.name} turn text into different tokens "
        f"(tokenizers {given.tokenizer_sha256[:12]} and {teacher.tokenizer_sha256[:12]}, "
        f"{len(given.tokenizer)} and {len(teacher.tokenizer)} tokens); "
        'choose a student with the teacher\'s tokenizer, or set [align] method = "chunks"'
    )


def _match_rows(model: Any, rows: int, *, tokens: int, name: str) -> tuple[str, ...]:
    """Give a model as many embedding rows as the teacher; they differ where makers pad the vocabulary.

    Rows past the tokenizer's tokens stand for no text. Those that the student lacks become copies of its
    last padding row; so a student without any is refused.
    """
    have = int(model.get_input_embeddings().num_embeddings)
    if have == rows:
        return ()
    if min(have, rows) < tokens:
        raise StudentError(
            f"student {name} has {have} embedding rows and the teacher {rows}, "
            f"but their tokenizer has {tokens} tokens"
        )
    if have == tokens:
        raise StudentError(
            f"student {name} has {have} embedding rows and the teacher {rows}: the teacher's padding "
            "rows have no counterpart to copy; pad the student's vocabulary first"
        )
    with _private_randomness(seed=0):
        model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for module in {model.get_input_embeddings(), model.get_output_embeddings()}:
            if rows > have:
                module.weight[have:] = module.weight[have - 1]
    return (f"embedding rows past the tokenizer's {tokens} tokens: {have} became {rows}",)


def _from_scratch(
    recipe: StudentRecipe, teacher: LocalModel, seed: int, tokenizer: Any
) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM, GenerationConfig

    config = scratch_config(teacher.model.config, _overrides(recipe))
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    if tokenizer is not None:
        config.vocab_size = len(tokenizer)
        for name in names:
            setattr(config, name, getattr(tokenizer, name))
    try:
        with _private_randomness(seed):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, KeyError, ZeroDivisionError) as error:
        raise RecipeError(f"student.config makes no model: {_line(error)}") from error
    if tokenizer is None:
        model.generation_config = copy.deepcopy(teacher.model.generation_config)
    else:
        model.generation_config = GenerationConfig(**{n: getattr(config, n) for n in names})
    return model, {}


def _overrides(recipe: StudentRecipe) -> dict[str, Any]:
    overrides: dict[str, Any] = dict(recipe.config)
    for key, value in (
        ("num_hidden_layers", recipe.layers),
        ("intermediate_size", recipe.intermediate),
    ):
        if value is None:
            continue
        if overrides.get(key, value) != value:
            raise RecipeError(
                f"student.config.{key} is {overrides[key]}, and student says {value}; give one of them"
            )
        overrides[key] = value
    return overrides


def scratch_config(teacher: Any, overrides: Mapping[str, Any]) -> Any:
    """Return a copy of a teacher's configuration with some values replaced.

    What follows from a replaced value follows it: lists with one entry a layer are repeated or cut, and the
    width of a head where it is the hidden width divided by the heads.

    Raises:
        RecipeError: An unknown key, a value of another type, another vocabulary, or sizes that do not fit.
    """
    values: dict[str, Any] = teacher.to_dict()
    for key, value in overrides.items():
        _check_override(values, key, value)
    changed = values | dict(overrides)
    layers, had = changed.get("num_hidden_layers"), values.get("num_hidden_layers")
    for name in prune.PER_LAYER_LISTS:
        entries = changed.get(name)
        if isinstance(entries, list) and len(entries) == had and isinstance(layers, int):
            changed[name] = [entries[s % len(entries)] for s in range(layers)]
    if "head_dim" in values and "head_dim" not in overrides:
        changed["head_dim"] = _head_dim(values, changed)
    try:
        return type(teacher).from_dict(changed)
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"student.config makes no configuration: {_line(error)}") from error


def _check_override(values: Mapping[str, Any], key: str, value: Any) -> None:
    if key not in values:
        nearest = difflib.get_close_matches(key, list(values), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise RecipeError(
            f"student.config.{key} is no key of the teacher's {values.get('model_type')} "
            f"configuration{hint}"
        )
    if key in ("vocab_size", "model_type") and value != values[key]:
        raise RecipeError(
            f"student.config.{key} must be the teacher's {values[key]!r}, got {value!r}"
        )
    if type(values[key]) is int and type(value) is not int:
        raise RecipeError(f"student.config.{key} must be a whole number, got {value!r}")


def _head_dim(before: Mapping[str, Any], after: Mapping[str, Any]) -> int | None:
    derived = before["hidden_size"] // before["num_attention_heads"]
    width, heads = after["hidden_size"], after["num_attention_heads"]
    if before["head_dim"] not in (None, derived):
        return before["head_dim"]
    if heads < 1 or width % heads:
        raise RecipeError(
            f"student.config.hidden_size must be a multiple of its {heads} attention heads, got {width}"
        )
    return width // heads


@contextlib.contextmanager
def _private_randomness(seed: int) -> Generator[None]:
    """Seed torch for a block, then put its random state back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def freeze_embeddings(model: Any) -> None:
    """Freeze the token embeddings, and with them a head that is the same tensor."""
    model.get_input_embeddings().weight.requires_grad_(False)


def _record(
    init: str, model: Any, teacher: Any, facts: Mapping[str, Any], stock: str | None
) -> BuildRecord:
    parameters, of_teacher = _count(model), _count(teacher)
    notes: tuple[str, ...] = facts.get("notes", ())
    if stock is None and parameters >= of_teacher:
        notes = (
            *notes,
            f"the student's {parameters:,} parameters are not fewer than the teacher's {of_teacher:,}",
        )
    return BuildRecord(
        init=init,
        parameters=parameters,
        teacher_parameters=of_teacher,
        trainable_parameters=facts.get("adapted", _count(model, trainable=True)),
        layers=model.config.num_hidden_layers,
        teacher_layers=teacher.config.num_hidden_layers,
        intermediate=getattr(model.config, "intermediate_size", None),
        **{k: v for k, v in facts.items() if k not in ("notes", "adapted")},
        stock=stock,
        notes=notes,
    )


def _count(model: Any, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def _line(error: BaseException) -> str:
    """Return the first line of what went wrong."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
