"""The steps of a distillation: corpus, terms, capture, build, train, evaluate, report."""

import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck import backends
from limbeck.aligned import Aligned, Reader, student_labels
from limbeck.artefact import read_json, sha256_file, write_json, write_text
from limbeck.distill import checkpoint
from limbeck.distill.across import measure_across, teacher_tokens
from limbeck.distill.align import Pair
from limbeck.distill.capture import (
    answer_prompts,
    capture_documents,
    capture_order,
    end_tokens,
    listen_densely,
)
from limbeck.distill.corpus import Prompt, as_prompts, read_records, tokenise, tokenise_prompts
from limbeck.distill.evaluate import measure_fidelity
from limbeck.distill.forward import check_packs, split
from limbeck.distill.grouped import Grouping
from limbeck.distill.modelcard import Origin, model_card
from limbeck.distill.objective import LossSpec, check_supported
from limbeck.distill.pairs import turn_ends
from limbeck.distill.positions import Selection, objective_notes
from limbeck.distill.prefix import check_room, read_prefix
from limbeck.distill.recipe import Recipe
from limbeck.distill.report import (
    Sample,
    Seconds,
    build_report,
    environment,
    render_html,
    training_curve,
)
from limbeck.distill.speed import Speed, measure_footprint, measure_speed
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter, choose, describe
from limbeck.distill.student import (
    BuildRecord,
    build_student,
    check_student,
    freeze_embeddings,
    save_student,
    scratch_config,
)
from limbeck.distill.targets import Document, Ids, Taught
from limbeck.distill.train import LOG, read_log, train
from limbeck.errors import RecipeError, RunError, TeacherError
from limbeck.lineage import DataPart, Lineage, ModelPart, lineage_bom
from limbeck.model import LocalModel
from limbeck.pipeline import Step, run_steps
from limbeck.pretrained import tokenizer_sha256
from limbeck.progress import Named, Progress
from limbeck.run import Run, Stamp
from limbeck.terms import Terms, check_terms
from limbeck.told import Told
from limbeck.workers import run_workers

STUDENT = "student"
UNDISTILLED = "controls/undistilled"
CROSS_ENTROPY = "controls/cross_entropy"
_CALIBRATION_DOCUMENTS = 64
_PILOT_DOCUMENTS = 8
_PART_SEED = 1_000_000_007
_TEXT_PROMPT_TOKENS = 32
_TEXT_OPENING = 2
_SAMPLE_TOKENS = 160
_METRICS = {
    False: (
        ("kl_nats", "kl_mean"),
        ("top1_agreement", "top1_agreement"),
        ("perplexity", "perplexity"),
    ),
    True: (
        ("label_kl_nats", "label_kl"),
        ("label_agreement", "label_agreement"),
        ("bits_per_byte", "bits_per_byte"),
    ),
}
"""Names in the bill of materials and keys of an arm; True across tokenizers."""
_STORE_FIGURES = (
    "documents",
    "positions",
    "tokens",
    "head_entries",
    "samples",
    "bytes",
    "bytes_per_token",
    "bytes_per_token_without_text",
)


@dataclass(frozen=True)
class Distillation:
    """One distillation under way; owns the loaded teacher."""

    recipe: Recipe
    run: Run
    base: Path
    """Folder that relative paths in the recipe start from."""
    resume: bool
    progress: Progress

    @cached_property
    def teacher(self) -> LocalModel:
        """The teacher, loaded when a step first asks for it."""
        recipe = self.recipe.teacher
        return backends.load(recipe.model, dtype=recipe.dtype, base=self.base)

    @cached_property
    def told(self) -> Told | None:
        """What the teacher reads beside the student; None where both read the same."""
        if not self.recipe.teacher.has_prefix or self.recipe.align is not None:
            return None
        return Told(self.run.folder, self.teacher)

    @cached_property
    def aligned(self) -> Aligned | None:
        """Both sides of a student with another tokenizer; None where it has the teacher's."""
        if self.recipe.align is None:
            return None
        prefix = read_prefix(self.recipe.teacher, self.base)
        return Aligned(
            self.recipe, self.recipe.align, self.run.folder, self.teacher, _reader(self), prefix
        )

    @cached_property
    def store(self) -> StoreReader:
        """What the teacher said, for reading."""
        return StoreReader(self.run.path("store"))


# corpus


def _corpus_decided_by(flow: Distillation) -> object:
    """Recipe and content of the files; files that are not on this machine count as unchanged."""
    stamp = flow.run.stamp("corpus")
    before: Mapping[str, str] = stamp.facts["files"] if stamp else {}
    return {
        "corpus": flow.recipe.corpus.model_dump(mode="json"),
        "generate": flow.recipe.generate is not None,
        "seed": flow.recipe.seed,
        "files": dict(before) | _file_hashes(flow),
        **_sides_decided_by(flow.recipe),
    }


def _sides_decided_by(recipe: Recipe) -> dict[str, Any]:
    """Return what decides how the corpus is read, where teacher and student read differently."""
    values: dict[str, Any] = {}
    if recipe.teacher.has_prefix:
        teacher = recipe.teacher.model_dump(mode="json")
        values["teacher"] = {k: teacher[k] for k in ("system", "system_file", "prefix_messages")}
    if recipe.align is not None:
        values["student"] = [recipe.student.folder, recipe.student.tokenizer]
    return values


def _file_hashes(flow: Distillation) -> dict[str, str]:
    system = flow.recipe.teacher.system_file
    names = [*(flow.recipe.corpus.files or ()), *([] if system is None else [system])]
    paths = {name: flow.base / name for name in names}
    return {name: sha256_file(path) for name, path in paths.items() if path.is_file()}


def _read_corpus(flow: Distillation) -> Mapping[str, Any]:
    recipe = flow.recipe
    flow.progress.begin("corpus", None, "")
    corpus = read_records(recipe.corpus, base=flow.base, seed=recipe.seed)
    tokenizer, longest = flow.teacher.tokenizer, recipe.corpus.max_length
    context = getattr(flow.teacher.model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise RecipeError(
            f"corpus.max_length = {longest} is beyond the context of {flow.teacher.name}, {context} tokens"
        )
    reader = None if flow.aligned is None else flow.aligned.reader
    if reader is not None and reader.context is not None and longest > reader.context:
        raise RecipeError(
            f"corpus.max_length = {longest} is beyond the context of student {reader.name}, {reader.context} tokens"
        )
    prefix = read_prefix(recipe.teacher, flow.base)
    check_room(prefix, tokenizer, context=context, max_length=longest, name=flow.teacher.name)
    if recipe.generate is not None:
        longest -= recipe.generate.max_new_tokens
        corpus = as_prompts(corpus)
    if flow.aligned is not None:
        sides = flow.aligned
        lines, counts = (sides.read if recipe.generate is None else sides.ask)(
            corpus, max_length=longest
        )
    elif flow.told is not None:
        told = flow.told.read if recipe.generate is None else flow.told.ask
        lines, counts = told(corpus, prefix, max_length=longest)
    elif recipe.generate is None:
        read = tokenise(corpus, tokenizer, max_length=longest)
        lines, counts = [_document_line(d) for d in read.documents], read.counts
    else:
        asked = tokenise_prompts(corpus, tokenizer, max_length=longest)
        counts = asked.counts
        lines = [
            {"key": p.key, "heldout": p.heldout, "tokens": p.tokens_T.tolist()}
            for p in asked.prompts
        ]
    write_text(
        flow.run.path("corpus/documents.jsonl"), "".join(json.dumps(x) + "\n" for x in lines)
    )
    write_json(flow.run.path("corpus/counts.json"), counts.as_dict())
    flow.progress.end(f"{counts.train} to train on, {counts.heldout} held out")
    return {
        "files": _file_hashes(flow),
        "sha256": corpus.sha256,
        "tokenizer_sha256": flow.teacher.tokenizer_sha256,
    }


def _document_line(document: Document) -> dict[str, Any]:
    return {
        "key": document.key,
        "heldout": document.heldout,
        "tokens": document.tokens_T.tolist(),
        "loss": np.flatnonzero(document.loss_T).tolist(),
    }


def _lines(flow: Distillation) -> Iterable[dict[str, Any]]:
    with flow.run.path("corpus/documents.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _prompts(flow: Distillation) -> list[Prompt]:
    return [
        Prompt(np.asarray(x["tokens"], dtype=np.int32), x["heldout"], x["key"])
        for x in _lines(flow)
    ]


def _documents(flow: Distillation) -> list[Document]:
    documents: list[Document] = []
    for line in _lines(flow):
        loss_T = np.zeros(len(line["tokens"]), dtype=np.bool_)
        loss_T[line["loss"]] = True
        tokens_T = np.asarray(line["tokens"], dtype=np.int32)
        documents.append(Document(tokens_T, loss_T, line["heldout"], line["key"]))
    return documents


# terms


def _check_terms(flow: Distillation) -> Mapping[str, Any]:
    teacher = flow.teacher
    terms = check_terms(
        flow.recipe.teacher.terms,
        model_licence=teacher.licence,
        teacher=teacher.name,
        today=datetime.now(UTC).date(),
    )
    write_json(flow.run.path("terms.json"), terms.as_dict())
    return {"weights_sha256": teacher.weights_sha256, "source": teacher.source}


# capture


def _store_spec(flow: Distillation) -> StoreSpec:
    """Return what to keep of each distribution; where the recipe sets a budget, a pilot decides it."""
    recipe, capture = flow.recipe, flow.recipe.capture
    spec = StoreSpec(
        head_threshold=capture.head_threshold,
        max_head=capture.max_head,
        tail_samples=capture.tail_samples,
        tail_weight=capture.tail_weight,
        bytes_per_token=capture.bytes_per_token,
        max_gradient_mse=capture.max_gradient_mse,
        temperature=capture.temperature,
        shard_documents=capture.shard_documents,
    )
    if spec.bytes_per_token is None and spec.max_gradient_mse is None:
        return spec
    if flow.aligned is not None:
        return choose(spec, flow.aligned.pilot(_PILOT_DOCUMENTS), seed=recipe.seed)
    if flow.told is not None:
        return choose(spec, _told_pilot(flow, flow.told, spec), seed=recipe.seed)
    if recipe.generate is None:
        documents = sorted(_documents(flow), key=lambda d: d.key)[:_PILOT_DOCUMENTS]
    else:
        prompts = _prompts(flow)[:_PILOT_DOCUMENTS]
        answers = answer_prompts(flow.teacher, prompts, recipe.generate, spec, seed=recipe.seed)
        documents = [t.document for t in answers]
    return choose(spec, listen_densely(flow.teacher, documents, spec.temperature), seed=recipe.seed)


def _told_pilot(
    flow: Distillation, told: Told, spec: StoreSpec
) -> list[tuple[Document, torch.Tensor]]:
    generate, temperature = flow.recipe.generate, spec.temperature
    if generate is None:
        reads = sorted(told.reads(), key=lambda r: r.student.key)[:_PILOT_DOCUMENTS]
        students, readings = [r.student for r in reads], [r.teacher for r in reads]
        return listen_densely(
            flow.teacher, students, temperature, readings=readings, beginning=told.beginning
        )
    asked = told.asked()[:_PILOT_DOCUMENTS]
    answers = answer_prompts(
        flow.teacher,
        [a.student for a in asked],
        generate,
        spec,
        seed=flow.recipe.seed,
        asked=[a.teacher_T for a in asked],
        beginning=told.beginning,
    )
    students = [t.document for t in answers]
    readings = told.whole(students, written=True)
    return listen_densely(flow.teacher, students, temperature, readings=readings)


def _capture(flow: Distillation) -> Mapping[str, Any]:
    check_supported(_loss_spec(flow.recipe), flow.recipe.capture.temperature)
    check_student(
        flow.recipe.student,
        flow.teacher,
        _student_folder(flow),
        aligned=flow.recipe.align is not None,
    )
    folder = flow.run.path("store")
    if not (folder / "manifest.json").is_file():
        _write_store(flow, _store_spec(flow))
    figures = describe(folder)
    flow.progress.end(
        f"{figures['positions']} positions, {figures['bytes_per_token']:.1f} bytes each"
    )
    facts: dict[str, Any] = {"cut_answers": _cut_answers(flow)}
    if flow.aligned is not None:
        facts["alignment"] = flow.aligned.figures()
    return facts


def _write_store(flow: Distillation, spec: StoreSpec) -> None:
    """Capture in this process, or in several that each write a part of the store."""
    with flow.run.path("corpus/documents.jsonl").open(encoding="utf-8") as file:
        total = sum(1 for _ in file)
    flow.progress.begin("capture", total, "documents")
    workers = flow.recipe.capture.workers
    if workers == 1:
        write_part(flow, spec, 0, 1)
        return
    run_workers(
        [
            [
                "limbeck.capture_worker",
                str(flow.run.folder),
                str(flow.base),
                str(part),
                json.dumps(asdict(spec)),
            ]
            for part in range(workers)
        ],
        heard=flow.progress.advance,
    )


def write_part(flow: Distillation, spec: StoreSpec, part: int, parts: int) -> None:
    """Ask the teacher about every `parts`-th document, from the `part`-th, going on after what lies there."""
    teacher = flow.teacher
    vocabulary = teacher.model.get_output_embeddings().weight.shape[0]
    tokenizer = teacher.tokenizer_sha256
    if flow.aligned is not None:
        vocabulary = flow.aligned.labels.student.size
        tokenizer = flow.aligned.reader.tokenizer_sha256
    with StoreWriter(
        flow.run.path("store"),
        spec,
        vocabulary=vocabulary,
        tokenizer_sha256=tokenizer,
        teacher={"name": teacher.name, "weights_sha256": teacher.weights_sha256},
        part=part,
        parts=parts,
    ) as writer:
        flow.progress.advance(writer.documents)
        positions, started = 0, time.perf_counter()
        for taught in _listen(flow, spec, part, parts, done=writer.documents):
            writer.append(taught)
            positions += len(taught.targets)
            rate = positions / (time.perf_counter() - started)
            flow.progress.advance(1, f"{rate:.0f} tokens/s")


def _cut_answers(flow: Distillation) -> int:
    """Count the answers that ended at their length, not with the end of the turn."""
    if flow.recipe.generate is None:
        return 0
    ends = end_tokens(flow.teacher) if flow.aligned is None else flow.aligned.reader.ends
    return sum(int(t.document.tokens_T[-1]) not in ends for t in flow.store.documents())


def _listen(
    flow: Distillation, spec: StoreSpec, part: int, parts: int, *, done: int
) -> Iterator[Taught]:
    """Return one part's documents after the first `done`, as the teacher yields them."""
    recipe, told = flow.recipe, flow.told
    if flow.aligned is not None:
        advance = flow.progress.advance
        return flow.aligned.listen(
            spec, part, parts, done=done, heard=lambda note: advance(0, note)
        )
    if recipe.generate is not None:
        asked = None if told is None else told.asked()[part::parts]
        return answer_prompts(
            flow.teacher,
            _prompts(flow)[part::parts],
            recipe.generate,
            spec,
            seed=recipe.seed + part * _PART_SEED,
            skip=done,
            asked=None if asked is None else [a.teacher_T for a in asked],
            beginning=None if told is None else told.beginning,
        )
    reads = None if told is None else told.reads()[part::parts]
    return capture_documents(
        flow.teacher,
        capture_order(_documents(flow))[part::parts]
        if reads is None
        else [r.student for r in reads],
        spec,
        batch_tokens=recipe.capture.batch_tokens,
        seed=recipe.seed,
        skip=done,
        readings=None if reads is None else [r.teacher for r in reads],
        beginning=None if told is None else told.beginning,
    )


# build


def _build(flow: Distillation) -> Mapping[str, Any]:
    recipe = flow.recipe
    flow.progress.begin("build", None, "")
    documents = sorted((t.document for t in _training(flow)), key=lambda d: d.key)
    calibration = documents[:_CALIBRATION_DOCUMENTS]
    student = build_student(
        recipe.student,
        flow.teacher,
        calibration,
        seed=recipe.seed,
        folder_model=_student_folder(flow),
        tokenizer=None if flow.aligned is None else flow.aligned.reader.tokenizer,
    )
    check_packs(split(student.model), student.model.config, recipe.train.row_length)
    card = f"The start of `{recipe.name}`, before any training: a control.\n"
    save_student(student.model, student.tokenizer, flow.run.path(UNDISTILLED), card=card)
    flow.progress.end(f"{student.record.parameters / 1e6:.1f}M parameters")
    return {"record": student.record.as_json()}


def _student_folder(flow: Distillation) -> LocalModel | None:
    folder = flow.recipe.student.folder
    return None if folder is None else backends.load(folder, dtype="float32", base=flow.base)


def _reader(flow: Distillation) -> Reader:
    """Return how a student with another tokenizer reads."""
    student, context = flow.recipe.student, "max_position_embeddings"
    given = _student_folder(flow)
    if given is not None:
        return Reader(
            given.name,
            given.tokenizer,
            given.tokenizer_sha256,
            given.model.get_output_embeddings().weight.shape[0],
            end_tokens(given) | turn_ends(given.tokenizer),
            getattr(given.model.config, context, None),
        )
    name = str(student.tokenizer)
    tokenizer = backends.load_tokenizer(flow.base / name)
    ends = {n for n in (tokenizer.eos_token_id,) if n is not None}
    return Reader(
        name,
        tokenizer,
        tokenizer_sha256(tokenizer),
        len(tokenizer),
        frozenset(ends | turn_ends(tokenizer)),
        getattr(scratch_config(flow.teacher.model.config, student.config), context, None),
    )


# train


def _loss_spec(recipe: Recipe) -> LossSpec:
    return LossSpec(**recipe.loss.model_dump())


def _training(flow: Distillation) -> Iterator[Taught]:
    return (t for t in flow.store.documents() if not t.document.heldout)


def _arms(recipe: Recipe) -> dict[str, tuple[str, LossSpec]]:
    """Return each arm that is trained, with its folder and objective; all start and go the same way."""
    arms = {"student": (STUDENT, _loss_spec(recipe))}
    if recipe.evaluate.controls and recipe.loss.kind != "cross_entropy":
        arms["cross_entropy"] = (CROSS_ENTROPY, LossSpec(kind="cross_entropy"))
    return arms


def _train(flow: Distillation) -> Mapping[str, Any]:
    recipe, taught = flow.recipe, list(_training(flow))
    facts: dict[str, Any] = {"seconds": 0.0}
    for arm, (name, spec) in _arms(recipe).items():
        log_folder = flow.run.path(f"training/{arm}")
        if not flow.run.path(name).is_dir():
            start = backends.load(str(flow.run.path(UNDISTILLED).resolve()), dtype="float32")
            if recipe.student.freeze_embeddings:
                freeze_embeddings(start.model)
            train(
                start.model,
                taught,
                recipe.train,
                spec,
                log_folder,
                seed=recipe.seed,
                resume=flow.resume,
                progress=Named(flow.progress, f"train {arm.replace('_', ' ')}"),
                grouping=_grouping(flow),
            )
            card = f"The {arm} arm of `{recipe.name}`; its card is written with the report.\n"
            save_student(
                start.model, start.tokenizer, flow.run.path(name), card=card, dtype="bfloat16"
            )
        checkpoint.forget(log_folder)
        log = read_log(log_folder / LOG)
        facts[arm] = {"steps": len(log), "positions": sum(e.positions for e in log)}
        facts["seconds"] += sum(e.seconds for e in log)
    return facts


def _grouping(flow: Distillation) -> Grouping | None:
    """Return what targets over labels are made of; None where they are over the student's own tokens."""
    align = flow.recipe.align
    return None if align is None else Grouping(student_labels(flow.run.folder), align.method)


# evaluate


def _evaluate(flow: Distillation) -> Mapping[str, Any]:
    recipe = flow.recipe
    _check_same_teacher(flow)
    arms = {arm: name for arm, (name, _) in _arms(recipe).items()}
    if recipe.evaluate.controls:
        arms["undistilled"] = UNDISTILLED
    models = {arm: _load_arm(flow, name) for arm, name in arms.items()}
    # By key, for stores hold the longest documents first: a part must be like the whole.
    heldout = sorted(
        (t.document for t in flow.store.documents() if t.document.heldout), key=lambda d: d.key
    )[: recipe.evaluate.documents]
    if flow.aligned is None:
        measured, speed = _measure(flow, models, heldout)
    else:
        measured, speed = _measure_across(flow, flow.aligned, models, heldout)
    student_folder = flow.run.path(STUDENT)
    result = {
        "heldout": measured,
        "speed": speed.as_dict(),
        "footprint": {
            "teacher": measure_footprint(flow.teacher.model, None).as_dict(),
            "student": measure_footprint(models["student"].model, student_folder).as_dict(),
        },
        "samples": [s.as_dict() for s in _samples(flow, models, heldout)],
        "environment": environment(
            device=str(flow.teacher.model.device), threads=torch.get_num_threads()
        ),
    }
    write_json(flow.run.path("evaluation.json"), result)
    return {}


def _measure(
    flow: Distillation, models: Mapping[str, LocalModel], heldout: list[Document]
) -> tuple[dict[str, object], Speed]:
    recipe, told = flow.recipe, flow.told
    readings = None
    if told is not None:
        readings = told.whole(heldout, written=recipe.generate is not None)
    fidelity = measure_fidelity(
        flow.teacher.model,
        {arm: m.model for arm, m in models.items()},
        heldout,
        _token_counts(flow),
        precision="bf16" if recipe.teacher.dtype == "bfloat16" else "no",
        batch_tokens=recipe.capture.batch_tokens,
        progress=flow.progress,
        readings=readings,
    )
    speed = measure_speed(
        flow.teacher.model,
        models["student"].model,
        [_prompt_of(d) for d in heldout],
        tokens=recipe.evaluate.speed_tokens,
        rounds=recipe.evaluate.speed_rounds,
        progress=flow.progress,
        teacher_prompts=None if readings is None else [_prompt_of(d) for d in readings],
        beginning=None if told is None else told.beginning,
    )
    return fidelity.as_dict(), speed


def _measure_across(
    flow: Distillation,
    aligned: Aligned,
    models: Mapping[str, LocalModel],
    heldout: list[Document],
) -> tuple[dict[str, object], Speed]:
    recipe = flow.recipe
    pairs = _pairs_of(aligned, heldout)
    across = measure_across(
        flow.teacher.model,
        {arm: m.model for arm, m in models.items()},
        pairs,
        aligned.labels,
        precision="bf16" if recipe.teacher.dtype == "bfloat16" else "no",
        batch_tokens=recipe.capture.batch_tokens,
        progress=flow.progress,
    )
    speed = measure_speed(
        flow.teacher.model,
        models["student"].model,
        [_prompt_of(d) for d in heldout],
        tokens=recipe.evaluate.speed_tokens,
        rounds=recipe.evaluate.speed_rounds,
        progress=flow.progress,
        teacher_prompts=[_teacher_prompt(pair) for pair in pairs],
        beginning=aligned.beginning if recipe.teacher.has_prefix else None,
    )
    size = sum(pair.content_bytes for pair in pairs)
    tokens = sum(len(teacher_tokens(pair)) for pair in pairs), across.positions
    return across.as_dict(), speed.per_byte(*(size / n for n in tokens))


def _pairs_of(aligned: Aligned, documents: list[Document]) -> list[Pair]:
    by_tokens = {pair.student.tokens_T.tobytes(): pair for pair in aligned.all_pairs()}
    return [by_tokens[d.tokens_T.tobytes()] for d in documents]


def _teacher_prompt(pair: Pair) -> list[int]:
    """Return what the teacher is given before it writes, as `_prompt_of` does for the student."""
    return _prompt(pair.teacher_T, int(pair.rows().teacher_R[0]))


def _check_same_teacher(flow: Distillation) -> None:
    captured = describe(flow.run.path("store"))["teacher"]["weights_sha256"]
    if captured != flow.teacher.weights_sha256:
        raise TeacherError(
            f"teacher {flow.teacher.name} has other weights here ({flow.teacher.weights_sha256[:12]}) than when "
            f"its targets were captured ({captured[:12]}); load the same weights, or capture again with another --out"
        )


def _load_arm(flow: Distillation, name: str) -> LocalModel:
    """Load a student from disk as a user would, in the teacher's number format."""
    return backends.load(str(flow.run.path(name).resolve()), dtype=flow.recipe.teacher.dtype)


def _token_counts(flow: Distillation) -> np.ndarray[Any, np.dtype[np.int64]]:
    vocabulary = flow.teacher.model.get_output_embeddings().weight.shape[0]
    counts_V = np.zeros(vocabulary, dtype=np.int64)
    for taught in _training(flow):
        counts_V += np.bincount(taught.document.tokens_T, minlength=vocabulary)
    return counts_V


def _prompt_of(document: Document) -> list[int]:
    """Return what a model is given before it writes: a chat's turns up to the answer, or a text's beginning."""
    return _prompt(document.tokens_T, int(np.flatnonzero(document.loss_T)[0]) + 1)


def _prompt(tokens_T: Ids, first: int) -> list[int]:
    """Return a document's tokens before its first predicted one, or the beginning of a plain text.

    At most the token that opens every text, and one that nothing predicts, stand before a plain text.
    """
    is_text = first <= _TEXT_OPENING
    length = min(_TEXT_PROMPT_TOKENS, len(tokens_T) // 2) if is_text else 0
    return tokens_T[: max(first, length)].tolist()


def _samples(
    flow: Distillation, models: Mapping[str, LocalModel], heldout: list[Document]
) -> Iterator[Sample]:
    decode = flow.teacher.tokenizer.decode
    chosen = heldout[: flow.recipe.evaluate.samples]
    told = _teacher_prompts(flow, chosen)
    flow.progress.begin("samples", len(chosen), "prompts")
    for document, asked in zip(chosen, told, strict=True):
        prompt = _prompt_of(document)
        texts = {
            arm: m.tokenizer.decode(_write(m, prompt), skip_special_tokens=True)
            for arm, m in models.items()
        }
        teacher = decode(_write(flow.teacher, asked), skip_special_tokens=True)
        flow.progress.advance()
        shown = models["student"].tokenizer.decode(prompt, skip_special_tokens=True)
        yield Sample(prompt=shown, teacher=teacher, **texts)
    flow.progress.end()


def _teacher_prompts(flow: Distillation, documents: list[Document]) -> list[list[int]]:
    """Return what the teacher is given for each document before it writes."""
    if flow.aligned is not None:
        return [_teacher_prompt(pair) for pair in _pairs_of(flow.aligned, documents)]
    if flow.told is not None:
        written = flow.recipe.generate is not None
        documents = flow.told.whole(documents, written=written)
    return [_prompt_of(d) for d in documents]


def _write(local: LocalModel, prompt: list[int]) -> list[int]:
    """Write the likeliest answer, up to the end of the turn."""
    tokens_BT = torch.tensor([prompt], device=local.model.device)
    with torch.inference_mode():
        written_BT = local.model.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=_SAMPLE_TOKENS,
            eos_token_id=sorted(end_tokens(local)) or None,
            pad_token_id=0,
        )
    return written_BT[0, len(prompt) :].tolist()


# report


def _report(flow: Distillation) -> Mapping[str, Any]:
    flow.progress.begin("report", None, "")
    run, recipe = flow.run, flow.recipe
    evaluation = read_json(run.path("evaluation.json"))
    facts = {
        name: _stamp(run, name).facts for name in ("corpus", "terms", "capture", "build", "train")
    }
    store = describe(run.path("store"))
    terms = read_json(run.path("terms.json"))
    hashes = {
        "corpus": facts["corpus"]["sha256"],
        "teacher": facts["terms"]["weights_sha256"],
        "tokenizer": facts["corpus"]["tokenizer_sha256"],
        "store": _stamp(run, "capture").sha256,
        "student": sha256_file(run.path(f"{STUDENT}/model.safetensors")),
    }
    counts = read_json(run.path("corpus/counts.json"))
    if recipe.generate is not None:
        counts["cut_answers"] = facts["capture"]["cut_answers"]
    made_at = datetime.now(UTC)
    report = build_report(
        recipe=recipe,
        created=made_at,
        terms=terms,
        corpus=counts,
        footprint=evaluation["footprint"],
        speed=evaluation["speed"],
        heldout=evaluation["heldout"],
        captured=store["positions"],
        trained=facts["train"]["student"]["positions"],
        store={k: v for k, v in store.items() if k in _STORE_FIGURES},
        seconds=_seconds(run),
        curves={
            arm: training_curve(read_log(run.path(f"training/{arm}/{LOG}")))
            for arm in _arms(recipe)
        },
        samples=[Sample(**s) for s in evaluation["samples"]],
        notes=[
            *facts["build"]["record"]["notes"],
            *_objective_notes(recipe),
            *_side_notes(recipe, evaluation["speed"], facts["capture"].get("alignment")),
        ],
        hashes=hashes,
        environment=evaluation["environment"],
        alignment=facts["capture"].get("alignment"),
    )
    write_json(run.path("report.json"), report)
    write_text(run.path("report.html"), render_html(report))
    write_text(run.path("lineage.cdx.json"), lineage_bom(_lineage(flow, report, made_at)))
    record = BuildRecord(**facts["build"]["record"])
    write_text(run.path(f"{STUDENT}/README.md"), model_card(_origin(flow, report), record, report))
    flow.progress.end()
    return {}


def _objective_notes(recipe: Recipe) -> tuple[str, ...]:
    selection = Selection(recipe.train.positions, recipe.train.position_choice)
    return objective_notes(selection, control="cross_entropy" in _arms(recipe))


def _side_notes(
    recipe: Recipe, speed: Mapping[str, Any], alignment: Mapping[str, Any] | None
) -> Iterator[str]:
    """Yield what a reader must know where teacher and student read differently, one sentence each."""
    if recipe.teacher.has_prefix:
        tokens = speed["prompt_tokens"]
        yield (
            f"The teacher reads a prompt that the student does not: {tokens['teacher']:.0f} tokens a timed request "
            f"against {tokens['student']:.0f}; reading them counts in the speed and cost ratios."
        )
    if alignment is not None:
        yield (
            f"Teacher and student have different tokenizers (align.method = {alignment['method']}): their tokens "
            f"begin at the same byte at {alignment['coincident_share']:.1%} of the loss positions."
        )


def _stamp(run: Run, step: str) -> Stamp:
    stamp = run.stamp(step)
    if stamp is None:
        raise RunError(f"{run.folder} lacks the step {step}; run the whole recipe")
    return stamp


def _seconds(run: Run) -> Seconds:
    each = {s.name: _stamp(run, s.name).seconds for s in STEPS if s.name != "report"}
    return Seconds(each["capture"], each["train"], each["evaluate"], sum(each.values()))


def _lineage(flow: Distillation, report: Mapping[str, Any], made_at: datetime) -> Lineage:
    recipe, hashes, parameters = flow.recipe, report["hashes"], report["parameters"]
    heldout, across = report["heldout"]["student"], "across" in report["heldout"]
    store = report["store"]
    counts = {k: v for k, v in report["corpus"].items() if isinstance(v, int)}
    terms = report["terms"]
    as_of = terms["as_of"]
    known = Terms(**terms | {"as_of": None if as_of is None else date.fromisoformat(as_of)})
    return Lineage(
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        version=importlib.metadata.version("limbeck"),
        made_at=made_at,
        teacher=ModelPart(
            name=_public_name(recipe),
            sha256=hashes["teacher"],
            licence=terms["licence"],
            source=_stamp(flow.run, "terms").facts["source"],
            parameters=parameters["teacher"],
        ),
        student=ModelPart(
            name=recipe.name,
            sha256=hashes["student"],
            licence=terms["licence"],
            parameters=parameters["student"],
        ),
        corpus=DataPart(
            name="corpus",
            sha256=hashes["corpus"],
            description=_data_sentence(recipe),
            counts=tuple(sorted(counts.items())),
        ),
        targets=DataPart(
            name="targets",
            sha256=hashes["store"],
            description="The teacher's distribution at every loss position, sparse.",
            counts=(("documents", store["documents"]), ("positions", store["positions"])),
        ),
        terms=known,
        metrics=tuple((f"heldout_{name}", heldout[key]) for name, key in _METRICS[across]),
    )


def _origin(flow: Distillation, report: Mapping[str, Any]) -> Origin:
    recipe, terms = flow.recipe, report["terms"]
    return Origin(
        name=recipe.name,
        teacher=_public_name(recipe),
        teacher_source=_stamp(flow.run, "terms").facts["source"],
        teacher_sha256=report["hashes"]["teacher"],
        licence=terms["licence"],
        data=_data_sentence(recipe),
        terms=terms["basis"],
        recipe_sha256=recipe.sha256,
    )


def _public_name(recipe: Recipe) -> str:
    """Return the teacher's name without the folders that lead to it, for what leaves this machine."""
    model = recipe.teacher.model
    return model if ":" in model else Path(model).name


def _data_sentence(recipe: Recipe) -> str:
    corpus = recipe.corpus
    named = (
        ", ".join(Path(f).name for f in corpus.files or ())
        or corpus.dataset
        or f"the template “{corpus.template}”"
    )
    if recipe.generate is None:
        return f"Text from {named}."
    return f"The teacher's own answers, drawn at temperature {recipe.generate.temperature:g}, to prompts from {named}."


def _dumped(*sections: str) -> Callable[[Distillation], object]:
    """Return a function that gives the named sections of the recipe as JSON values."""
    return lambda flow: {name: flow.recipe.as_json()[name] for name in (*sections, "seed")}


STEPS: tuple[Step[Distillation], ...] = (
    Step(
        name="corpus",
        needs=(),
        decided_by=_corpus_decided_by,
        outputs=("corpus",),
        partial=(),
        work=_read_corpus,
    ),
    Step(
        name="terms",
        needs=(),
        decided_by=_dumped("teacher"),
        outputs=("terms.json",),
        partial=(),
        work=_check_terms,
    ),
    Step(
        name="capture",
        needs=("corpus", "terms"),
        decided_by=_dumped("teacher", "generate", "align", "capture"),
        outputs=("store", "answers"),
        partial=("store", "answers"),
        work=_capture,
        costly=True,
    ),
    Step(
        name="build",
        needs=("capture",),
        decided_by=_dumped("student"),
        outputs=(UNDISTILLED,),
        partial=(),
        work=_build,
    ),
    Step(
        name="train",
        needs=("capture", "build"),
        decided_by=_dumped("loss", "train", "evaluate"),
        outputs=(STUDENT, "training", CROSS_ENTROPY),
        partial=("training",),
        work=_train,
    ),
    Step(
        name="evaluate",
        needs=("capture", "build", "train"),
        decided_by=_dumped("evaluate"),
        outputs=("evaluation.json",),
        partial=(),
        work=_evaluate,
    ),
    Step(
        name="report",
        needs=("corpus", "terms", "capture", "build", "train", "evaluate"),
        decided_by=_dumped("name"),
        outputs=("report.json", "report.html", "lineage.cdx.json"),
        partial=(),
        work=_report,
    ),
)


BINDING = ("capture", "build", "train", "evaluate", "report")
"""Steps after whose beginning a run's folder belongs to its recipe."""


def distil(flow: Distillation, only: str | None) -> None:
    """Run the steps; when all are done, write the manifest, last of all.

    Raises:
        LimbeckError: Anything the user can mend.
    """
    run_steps(flow, STEPS, only)
    stamps = [flow.run.stamp(step.name) for step in STEPS]
    done = [s for s in stamps if s is not None]
    if len(done) < len(STEPS):
        return
    write_json(
        flow.run.path("manifest.json"),
        {
            "limbeck": importlib.metadata.version("limbeck"),
            "name": flow.recipe.name,
            "recipe_sha256": flow.recipe.sha256,
            "terms": read_json(flow.run.path("terms.json")),
            "steps": {
                s.step: {"inputs_sha256": s.inputs_sha256, "seconds": s.seconds} for s in done
            },
            "files": {name: sha for s in done for name, sha in s.outputs.items()},
        },
    )
