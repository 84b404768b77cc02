"""The steps of a distillation: corpus, terms, capture, build, train, evaluate, report."""

import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck import backends, remote
from limbeck.aligned import Aligned, Reader, student_labels
from limbeck.artefact import read_json, sha256_file, sha256_json, write_json, write_text
from limbeck.chat import Message
from limbeck.cluster import Cluster, run_on
from limbeck.distill import checkpoint
from limbeck.distill.across import Across, measure_across, teacher_tokens
from limbeck.distill.adapter import add_adapters, merge_adapters, save_adapters
from limbeck.distill.align import Pair
from limbeck.distill.apart import apart
from limbeck.distill.capture import (
    answer_prompts,
    capture_documents,
    capture_order,
    end_tokens,
    listen_densely,
)
from limbeck.distill.compiled import check_compiles
from limbeck.distill.corpus import Prompt, as_prompts, read_records, tokenise, tokenise_prompts
from limbeck.distill.evaluate import Heldout, Predicted, measure_fidelity, measure_prediction
from limbeck.distill.forward import check_packs, split
from limbeck.distill.grouped import Grouping
from limbeck.distill.modelcard import Origin, model_card
from limbeck.distill.objective import LossSpec, check_supported
from limbeck.distill.on_policy import MixedSpec, check_whole, train_on_policy
from limbeck.distill.own_text import (
    check_room,
    on_policy_notes,
    prompts_with_room,
    read_writing,
    total,
)
from limbeck.distill.pairs import turn_ends
from limbeck.distill.positions import Selection, objective_notes
from limbeck.distill.prefix import check_room as check_prefix_room
from limbeck.distill.prefix import read_prefix
from limbeck.distill.recipe import LIMITS, FilterRecipe, JudgeRecipe, Recipe
from limbeck.distill.report import (
    Sample,
    Seconds,
    build_report,
    environment,
    render_html,
    training_curve,
)
from limbeck.distill.speed import measure_alone, measure_footprint, measure_speed
from limbeck.distill.spread import wants_shards
from limbeck.distill.store import (
    StoreReader,
    StoreSpec,
    StoreWriter,
    choose,
    describe,
    merge,
    part_documents,
)
from limbeck.distill.store.unpacked import Unpacked, part_folder, unpack_part, unpacked_bytes
from limbeck.distill.student import (
    BuildRecord,
    build_student,
    check_student,
    freeze_embeddings,
    save_student,
    scratch_config,
)
from limbeck.distill.supervised import NOTE, silent, untaught
from limbeck.distill.targets import Document, Ids, Taught
from limbeck.distill.train import LOG, check_share, read_log, train
from limbeck.distill.trim import decide
from limbeck.distill.vocabulary import (
    Vocabulary,
    coverage,
    lessons,
    read_vocabulary,
    trim_notes,
    write_vocabulary,
)
from limbeck.errors import RecipeError, RunError, StudentError, TeacherError
from limbeck.launch import Launch
from limbeck.lineage import DataPart, Lineage, ModelPart, lineage_bom
from limbeck.lock import hold
from limbeck.model import LocalModel, RemoteModel
from limbeck.pipeline import Step, run_steps
from limbeck.placement import device, place, take_back
from limbeck.pretrained import tokenizer_sha256
from limbeck.progress import Named, Progress
from limbeck.run import Run, Stamp, open_run
from limbeck.sifting import candidates, read_schema, sift, sifted_json
from limbeck.terms import Terms, check_terms
from limbeck.told import Told
from limbeck.validation import BINDING as VALIDATION_BINDING
from limbeck.validation import Request, Validation, validate_models
from limbeck.verifier import NamedVerifier
from limbeck.workers import run_workers

STUDENT = "student"
UNDISTILLED = "controls/undistilled"
CROSS_ENTROPY = "controls/cross_entropy"
VOCABULARY = "vocabulary.json"
ADAPTER = "adapter"
UNPACKED = ".unpacked"
_UNPACKED_ALONE = 1 << 28
"""Bytes of unpacked targets that one process makes by itself; for more, others are started."""
_FILTERED = "filter.json"
_JUDGE_TERMS = "judge_terms.json"
_CALIBRATION_DOCUMENTS = 64
_PILOT_DOCUMENTS = 8
_PART_SEED = 1_000_000_007
_PART_LOCK = ".capture-{}.lock"
_PART_PATIENCE = 120.0
"""Seconds to wait for a process that writes a part and should be gone, as after the loss of a cluster's head."""
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
    launch: Launch = field(default_factory=Launch)
    """The processes that train together; only the first runs steps."""
    worker: int = 0
    """Number of this process among those that capture side by side on one machine."""
    cluster: Cluster | None = None
    """Where to capture; None means on this machine."""
    verifier: NamedVerifier | None = None
    """The user's own judgement of answers."""

    @cached_property
    def documents(self) -> list[Document]:
        """The corpus' documents in the order of capture; for a corpus that the teacher reads."""
        return capture_order(_documents(self))

    @cached_property
    def prompts(self) -> list[Prompt]:
        """The corpus' prompts, each as often as the teacher answers it; for a corpus that it answers."""
        generate = self.recipe.generate
        samples = 1 if generate is None else generate.samples
        return [prompt for prompt in _prompts(self) for _ in range(samples)]

    @cached_property
    def teacher(self) -> LocalModel:
        """The teacher, loaded when a step first asks for it; one behind an API cannot be."""
        recipe = self.recipe.teacher
        loaded = backends.load(recipe.model, dtype=recipe.dtype, base=self.base)
        place(loaded.model, device(self.worker))
        return loaded

    def release_teacher(self) -> None:
        """Leave the accelerator to others; a step that asks for the teacher again loads it again."""
        if "teacher" in self.__dict__ and self.teacher.model.device.type != "cpu":
            for holds_it in ("teacher", "named_teacher", "base_model", "told", "aligned"):
                self.__dict__.pop(holds_it, None)
            torch.accelerator.empty_cache()

    @cached_property
    def store(self) -> Unpacked:
        """What the teacher said, document by document; unpacked when a step first asks for it."""
        return _unpack(self)

    @cached_property
    def named_teacher(self) -> LocalModel | RemoteModel:
        """What is known of the teacher, wherever it is."""
        return remote.remote_model(self.recipe) or self.teacher

    @cached_property
    def base_model(self) -> LocalModel:
        """Whose tokenizer and shape the student has: the teacher, or for one behind an API a model that is here."""
        student = self.recipe.student
        place = student.folder if student.init == "folder" else student.base
        if not self.recipe.teacher.is_remote or place is None:
            return self.teacher
        return backends.load(place, dtype="float32", base=self.base)

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
    tokenizer, longest = flow.base_model.tokenizer, recipe.corpus.max_length
    context = getattr(flow.base_model.model.config, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise RecipeError(
            f"corpus.max_length = {longest} is beyond the context of {flow.base_model.name}, {context} tokens"
        )
    reader = None if flow.aligned is None else flow.aligned.reader
    if reader is not None and reader.context is not None and longest > reader.context:
        raise RecipeError(
            f"corpus.max_length = {longest} is beyond the context of student {reader.name}, {reader.context} tokens"
        )
    prefix, name = read_prefix(recipe.teacher, flow.base), flow.base_model.name
    check_prefix_room(prefix, tokenizer, context=context, max_length=longest, name=name)
    if recipe.generate is not None:
        longest -= recipe.generate.max_new_tokens
        corpus = as_prompts(corpus)
    lines: Iterable[dict[str, Any]]
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
        lines, counts = (_document_line(d) for d in read.documents), read.counts
    else:
        asked = tokenise_prompts(corpus, tokenizer, max_length=longest)
        lines, counts = (_prompt_line(p) for p in asked.prompts), asked.counts
    write_text(
        flow.run.path("corpus/documents.jsonl"), "".join(json.dumps(x) + "\n" for x in lines)
    )
    write_json(flow.run.path("corpus/counts.json"), counts.as_dict())
    flow.progress.end(f"{counts.train} to train on, {counts.heldout} held out")
    return {
        "files": _file_hashes(flow),
        "sha256": corpus.sha256,
        "tokenizer_sha256": flow.base_model.tokenizer_sha256,
    }


def _prompt_line(prompt: Prompt) -> dict[str, Any]:
    return {
        "key": prompt.key,
        "heldout": prompt.heldout,
        "tokens": prompt.tokens_T.tolist(),
        "turns": [turn.as_dict() for turn in prompt.turns],
        "reference": prompt.reference,
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
        Prompt(
            np.asarray(x["tokens"], dtype=np.int32),
            x["heldout"],
            x["key"],
            tuple(Message(**turn) for turn in x["turns"]),
            x["reference"],
        )
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
    teacher = flow.named_teacher
    terms = check_terms(
        flow.recipe.teacher.terms,
        model_licence=teacher.licence,
        teacher=teacher.name,
        today=datetime.now(UTC).date(),
    )
    judge = None if flow.recipe.filter is None else flow.recipe.filter.judge
    if judge is not None:  # refused now rather than after capture
        _judge_terms(judge)
    write_json(flow.run.path("terms.json"), terms.as_dict())
    return {"weights_sha256": teacher.weights_sha256, "source": teacher.source}


def _judge_terms(judge: JudgeRecipe) -> Terms:
    """Return under which terms a judge's outputs may decide what trains the student, or refuse."""
    today, name = datetime.now(UTC).date(), f"judge {judge.model}"
    return check_terms(judge.terms, model_licence=None, teacher=name, today=today)


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
    if capture.targets == "none":
        return silent(spec)
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
        flow.base_model,
        _student_folder(flow),
        aligned=flow.recipe.align is not None,
    )
    if flow.recipe.teacher.is_remote:
        return _capture_remotely(flow)
    _check_room(flow)
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


def _check_room(flow: Distillation) -> None:
    """Refuse prompts that leave the student no room for its own answer, before the teacher is asked."""
    recipe, own = flow.recipe, flow.recipe.on_policy
    if own is None or not own.fraction:
        return
    if recipe.generate is None:
        documents = [d for d in _documents(flow) if not d.heldout]
        prompts_with_room(documents, own, recipe.train.row_length, flow.teacher)
        return
    prompts = [p for p in _prompts(flow) if not p.heldout]
    check_room(prompts, own, recipe.train.row_length, flow.teacher)


def _write_store(flow: Distillation, spec: StoreSpec) -> None:
    """Capture in this process, in several on this machine, or on a cluster; each writes parts of the store."""
    with flow.run.path("corpus/documents.jsonl").open(encoding="utf-8") as file:
        total = sum(1 for _ in file)
    if flow.recipe.generate is not None:
        total *= flow.recipe.generate.samples
    flow.progress.begin("capture", total, "documents")
    words = [str(flow.run.folder.resolve()), str(flow.base.resolve()), json.dumps(asdict(spec))]
    capture = flow.recipe.capture
    if flow.cluster is not None:
        run_on(
            flow.cluster, ["limbeck.ray_capture", *words], capture.workers, flow.progress.advance
        )
    elif capture.workers > 1:
        each = [[*words, str(worker)] for worker in range(capture.workers)]
        run_workers([["limbeck.capture_worker", *w] for w in each], heard=flow.progress.advance)
    else:
        for part in range(capture.store_parts):
            write_part(flow, spec, part)
    if not flow.run.path("store/manifest.json").is_file():
        merge(flow.run.path("store"))  # whoever finished the last part was stopped before it could
    for lock in flow.run.folder.glob(_PART_LOCK.format("*")):
        lock.unlink()


def write_part(flow: Distillation, spec: StoreSpec, part: int) -> None:
    """Ask the teacher about one part of the documents, going on after what lies there of it.

    Part p of P holds every P-th document from the p-th. A part that is finished stays as it is. One process
    at a time writes it: one that lost touch with who started it is waited for.

    Raises:
        RunError: Another process writes this part still.
        StoreError: The store was begun with other settings, is damaged, or the disk is full.
    """
    folder, parts = flow.run.path("store"), flow.recipe.capture.store_parts
    lock = flow.run.path(_PART_LOCK.format(f"{part:03d}"))
    with hold(lock, f"part {part} of {folder}", patience=_PART_PATIENCE):
        finished = part_documents(folder, part)
        if finished is not None:
            flow.progress.advance(finished)
            return
        teacher, aligned = flow.teacher, flow.aligned
        with StoreWriter(
            folder,
            spec,
            vocabulary=teacher.model.get_output_embeddings().weight.shape[0]
            if aligned is None
            else aligned.labels.student.size,
            tokenizer_sha256=teacher.tokenizer_sha256
            if aligned is None
            else aligned.reader.tokenizer_sha256,
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


def _capture_remotely(flow: Distillation) -> Mapping[str, Any]:
    """Ask the API everything, then write the store from the answers, which are kept."""
    recipe, api = flow.recipe, flow.recipe.teacher.api
    if api is None:
        raise TeacherError(f"{recipe.teacher.model} is not behind an API")
    asked = (
        remote.score_asks(_documents(flow), recipe, api)
        if recipe.generate is None
        else remote.answer_asks(_prompts(flow), recipe, api, recipe.generate)
    )
    flow.progress.begin("capture", len(asked), "answers")
    path = flow.run.path(remote.ANSWERS)
    usage = remote.ask_everything(
        [ask for _, ask in asked],
        recipe.teacher.model,
        api,
        path,
        seed=recipe.seed,
        progress=flow.progress,
    )
    heard = remote.write_store(
        asked, path, flow.run.path("store"), recipe, api, reader=flow.base_model
    )
    flow.progress.end(f"{usage['completion_tokens']} tokens in {usage['requests']} answers")
    return {**heard.as_dict(), "api": dict(usage)}


def _cut_answers(flow: Distillation) -> int:
    """Count the answers that ended at their length, not with the end of the turn."""
    if flow.recipe.generate is None:
        return 0
    ends = end_tokens(flow.teacher) if flow.aligned is None else flow.aligned.reader.ends
    return sum(int(t.document.tokens_T[-1]) not in ends for t in flow.store)


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
        each = range(recipe.generate.samples)
        asked = None if told is None else [a for a in told.asked() for _ in each][part::parts]
        return answer_prompts(
            flow.teacher,
            flow.prompts[part::parts] if asked is None else [a.student for a in asked],
            recipe.generate,
            spec,
            seed=recipe.seed + part * _PART_SEED,
            skip=done,
            asked=None if asked is None else [a.teacher_T for a in asked],
            beginning=None if told is None else told.beginning,
        )
    reads = None if told is None else told.reads()[part::parts]
    documents = flow.documents[part::parts] if reads is None else [r.student for r in reads]
    if recipe.capture.targets == "none":
        return untaught(documents, skip=done)
    return capture_documents(
        flow.teacher,
        documents,
        spec,
        batch_tokens=recipe.capture.batch_tokens,
        seed=recipe.seed,
        skip=done,
        readings=None if reads is None else [r.teacher for r in reads],
        beginning=None if told is None else told.beginning,
    )


def _unpack(flow: Distillation) -> Unpacked:
    """Map the store's documents, decoded; what is not decoded yet is decoded now, a large store on all cores.

    Raises:
        RunError: The disk has not room for it.
        StoreError: A shard is missing, foreign or damaged.
    """
    reader = StoreReader(flow.run.path("store"))
    parts, size = reader.identity.parts, unpacked_bytes(reader)
    folder = flow.run.path(UNPACKED) / sha256_json(reader.manifest)[:16]
    left = [part for part in range(parts) if not part_folder(folder, part).is_dir()]
    free = shutil.disk_usage(flow.run.folder).free
    if left and free < size * len(left) / parts:
        raise RunError(
            f"unpacking the targets of {flow.run.folder} takes {size / 1e9:.1f} GB and its disk has "
            f"{free / 1e9:.1f} GB free; make room and go on with --resume"
        )
    workers = min(len(left), os.cpu_count() or 1) if size > _UNPACKED_ALONE else 1
    if workers > 1:
        flow.progress.begin("unpack", parts, "parts")
        words = ["limbeck.unpack_worker", str(reader.folder), str(folder)]
        each = [[*words, str(worker), str(workers)] for worker in range(workers)]
        run_workers(each, heard=flow.progress.advance)
        flow.progress.end(f"{size / 1e9:.1f} GB")
    else:
        for part in left:
            unpack_part(reader, folder, part)
    return Unpacked(folder, parts)


# filter


def _filter_decided_by(flow: Distillation) -> object:
    recipe, verifier = flow.recipe.filter, flow.verifier
    stamp = flow.run.stamp("filter")
    ours = None if verifier is None else verifier.identity
    if stamp is not None and stamp.facts["verifier"] != ours:
        theirs = (stamp.facts["verifier"] or {"name": "no verifier"})["name"]
        raise RunError(
            f"{flow.run.folder} was filtered with {theirs} and is now run with "
            f"{'no verifier' if verifier is None else verifier.name}, or with other code of that name; give the same, "
            "or choose another --out"
        )
    schema = None if recipe is None else recipe.json_schema
    return {
        "filter": None if recipe is None else _deciding(recipe.model_dump(mode="json")),
        "verifier": ours,
        "schema": None if schema is None else read_schema(flow.base / schema),
        "seed": flow.recipe.seed,
    }


def _filter(flow: Distillation) -> Mapping[str, Any]:
    recipe, verifier = flow.recipe, flow.verifier
    rules = recipe.filter or (FilterRecipe() if verifier is not None else None)
    if verifier is not None and recipe.generate is None:
        raise RecipeError(
            f"verifier {verifier.name} is for answers that the teacher writes; add [generate] to the recipe"
        )
    documents = (t.document for t in flow.store)
    sifted, judge = None, None
    flow.progress.begin("filter", None, "")
    if rules is not None:
        if rules.judge is not None:
            write_json(flow.run.path(_JUDGE_TERMS), _judge_terms(rules.judge).as_dict())
        found = candidates(documents, _prompts(flow), flow.base_model.tokenizer, _ends(flow))
        sifted, judge = sift(
            rules,
            found,
            schema=rules.json_schema and read_schema(flow.base / rules.json_schema),
            verifier=verifier,
            judgements=flow.run.path(remote.JUDGEMENTS),
            seed=recipe.seed,
            progress=flow.progress,
        )
    write_json(flow.run.path(_FILTERED), sifted_json(sifted, len(flow.store), judge))
    kept = len(flow.store) if sifted is None else len(sifted.kept)
    flow.progress.end(f"{kept} of {len(flow.store)} kept")
    return {"verifier": None if verifier is None else verifier.identity}


def _ends(flow: Distillation) -> frozenset[int]:
    return end_tokens(flow.base_model) | remote.ends_of(flow.base_model)


def _kept(flow: Distillation) -> Unpacked:
    """Return the store's documents that the filter kept."""
    kept = read_json(flow.run.path(_FILTERED))["kept"]
    return flow.store if kept is None else flow.store.only(kept)


# build


def _build(flow: Distillation) -> Mapping[str, Any]:
    recipe = flow.recipe
    taught = _training(flow)
    flow.progress.begin("build", None, "")
    documents = sorted((t.document for t in taught), key=lambda d: d.key)
    calibration = documents[:_CALIBRATION_DOCUMENTS]
    vocabulary = None
    if recipe.student.vocabulary is not None:
        vocabulary = decide(flow.teacher, taught, recipe.student.vocabulary)
        write_vocabulary(flow.run.path(VOCABULARY), vocabulary)
    take_back(flow.base_model.model)  # what is pruned out of it must be an ordinary model
    student = build_student(
        recipe.student,
        flow.base_model,
        calibration,
        seed=recipe.seed,
        folder_model=_student_folder(flow),
        tokenizer=None if flow.aligned is None else flow.aligned.reader.tokenizer,
        vocabulary=vocabulary,
        stands_in=recipe.teacher.is_remote,
    )
    check_packs(split(student.model), student.model.config, recipe.train.row_length)
    card = f"The start of `{recipe.name}`, before any training: a control.\n"
    save_student(student.model, student.tokenizer, flow.run.path(UNDISTILLED), card=card)
    flow.progress.end(f"{student.record.parameters / 1e6:.1f}M parameters")
    return {"record": student.record.as_json(), "licence": flow.base_model.licence}


def _student_folder(flow: Distillation) -> LocalModel | None:
    folder = flow.recipe.student.folder
    if folder is not None and flow.recipe.teacher.is_remote:
        return flow.base_model
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


def _training(flow: Distillation) -> Sequence[Taught]:
    return _kept(flow).split(heldout=False)


def _lessons(flow: Distillation) -> Sequence[Taught]:
    """Return what the student is trained on, in its own tokens."""
    vocabulary = read_vocabulary(flow.run.path(VOCABULARY))
    if vocabulary is None:
        return _training(flow)
    row_length = flow.recipe.train.row_length
    taught = list(lessons(_training(flow), vocabulary, row_length=row_length))
    if not taught:
        raise StudentError(
            f"student.vocabulary = {len(vocabulary)} spells every training document longer than "
            f"train.row_length = {row_length}; keep more tokens, or make rows longer"
        )
    return taught


def _arms(recipe: Recipe) -> dict[str, tuple[str, LossSpec]]:
    """Return each arm that is trained, with its folder and objective; all start and go the same way."""
    arms = {"student": (STUDENT, _loss_spec(recipe))}
    if recipe.evaluate.controls and recipe.loss.kind != "cross_entropy":
        arms["cross_entropy"] = (CROSS_ENTROPY, LossSpec(kind="cross_entropy"))
    return arms


def _train(flow: Distillation) -> Mapping[str, Any]:
    if flow.recipe.on_policy is None:
        flow.release_teacher()
    taught = _lessons(flow)
    facts: dict[str, Any] = {"seconds": 0.0}
    for arm, (name, _) in _arms(flow.recipe).items():
        log_folder = flow.run.path(f"training/{arm}")
        if not flow.run.path(name).is_dir():
            with flow.launch.called(arm):
                _train_arm(flow, arm, taught)
        checkpoint.forget(log_folder)
        log = read_log(log_folder / LOG)
        facts[arm] = {"steps": len(log), "positions": sum(e.positions for e in log)}
        facts["seconds"] += sum(e.seconds for e in log)
    flow.launch.dismiss()
    if flow.recipe.on_policy is not None:
        written = total(read_writing(flow.run.path("training/student")))
        facts["on_policy"] = {k: v for k, v in asdict(written).items() if k != "step"}
    return facts


def _grouping(flow: Distillation) -> Grouping | None:
    """Return what targets over labels are made of; None where they are over the student's own tokens."""
    align = flow.recipe.align
    return None if align is None else Grouping(student_labels(flow.run.folder), align.method)


def _train_arm(flow: Distillation, arm: str, taught: Sequence[Taught]) -> None:
    """Train one arm together with the other processes of the launch; the leader saves it."""
    recipe = flow.recipe
    name, spec = _arms(recipe)[arm]
    start = backends.load(str(flow.run.path(UNDISTILLED).resolve()), dtype="float32")
    if recipe.student.freeze_embeddings:
        freeze_embeddings(start.model)
    adapters = None
    if recipe.student.lora is not None:
        adapters = add_adapters(start.model, recipe.student.lora, seed=recipe.seed)
    _fit(flow, arm, start, taught, spec)
    if adapters is not None:
        if flow.launch.leads and arm == "student":
            save_adapters(adapters, flow.run.path(ADAPTER), base=UNDISTILLED)
        merge_adapters(adapters)
    if flow.launch.leads:
        card = f"The {arm} arm of `{recipe.name}`; its card is written with the report.\n"
        save_student(start.model, start.tokenizer, flow.run.path(name), card=card, dtype="bfloat16")


def _fit(
    flow: Distillation, arm: str, start: LocalModel, taught: Sequence[Taught], spec: LossSpec
) -> None:
    """Train one arm in place: from the store, or, the student alone, on text of its own too."""
    recipe, folder = flow.recipe, flow.run.path(f"training/{arm}")
    progress = Named(flow.progress, f"train {arm.replace('_', ' ')}")
    how: dict[str, Any] = {"seed": recipe.seed, "resume": flow.resume, "progress": progress}
    own = recipe.on_policy
    if own is None:
        train(start.model, taught, recipe.train, spec, folder, grouping=_grouping(flow), **how)
        return
    _check_same_teacher(flow)
    if arm != "student":
        own = own.model_copy(update={"fraction": 0.0})
    mixed = MixedSpec(own=LossSpec(**own.loss.model_dump()), read=spec)
    train_on_policy(start, flow.teacher, taught, recipe.train, own, mixed, folder, **how)


# evaluate


def _evaluate(flow: Distillation) -> Mapping[str, Any]:
    recipe = flow.recipe
    teacher = None if recipe.teacher.is_remote else flow.teacher
    if teacher is not None:
        _check_same_teacher(flow)
    arms = {arm: name for arm, (name, _) in _arms(recipe).items()}
    if recipe.evaluate.controls:
        arms["undistilled"] = UNDISTILLED
    models = {arm: _load_arm(flow, name) for arm, name in arms.items()}
    # By key, for stores hold the longest documents first: a part must be like the whole.
    taught = sorted(_kept(flow).split(heldout=True), key=lambda t: t.document.key)
    taught = taught[: recipe.evaluate.documents]
    heldout = [t.document for t in taught]
    vocabulary, covered = read_vocabulary(flow.run.path(VOCABULARY)), None
    if vocabulary is not None:
        covered = coverage(heldout, vocabulary, row_length=recipe.train.row_length)
    fidelity, speed = _compare(flow, teacher, models, taught, vocabulary)
    student = models["student"].model
    result = {
        "heldout": fidelity.as_dict(),
        "speed": speed,
        "footprint": {
            "teacher": None
            if teacher is None
            else measure_footprint(teacher.model, None).as_dict(),
            "student": measure_footprint(student, flow.run.path(STUDENT)).as_dict(),
        },
        "samples": [s.as_dict() for s in _samples(flow, models, heldout, vocabulary)],
        "environment": environment(device=str(student.device), threads=torch.get_num_threads()),
    }
    write_json(flow.run.path("evaluation.json"), result)
    if (
        vocabulary is None
        or covered is None
        or not isinstance(fidelity, Heldout)
        or fidelity.lost_mass is None
    ):
        return {}
    trained = coverage(
        [t.document for t in _training(flow)], vocabulary, row_length=recipe.train.row_length
    )
    return {"notes": trim_notes(vocabulary, trained, covered, fidelity.lost_mass.value)}


def _compare(
    flow: Distillation,
    teacher: LocalModel | None,
    models: Mapping[str, LocalModel],
    taught: list[Taught],
    vocabulary: Vocabulary | None,
) -> tuple[Heldout | Predicted | Across, Mapping[str, Any]]:
    """Compare the arms with the teacher, and the student's speed with its."""
    heldout = [t.document for t in taught]
    if flow.aligned is not None:
        return _compare_across(flow, flow.aligned, models, heldout)
    readings = None
    if flow.told is not None:
        readings = flow.told.whole(heldout, written=flow.recipe.generate is not None)
    fidelity = _measure(flow, teacher, models, taught, vocabulary, readings)
    student = models["student"].model
    return fidelity, _speed(flow, teacher, student, heldout, vocabulary, readings)


def _measure(
    flow: Distillation,
    teacher: LocalModel | None,
    models: Mapping[str, LocalModel],
    taught: list[Taught],
    vocabulary: Vocabulary | None,
    readings: list[Document] | None,
) -> Heldout | Predicted:
    """Compare the arms with the teacher, or with what it said where it is behind an API."""
    recipe, students = flow.recipe, {arm: m.model for arm, m in models.items()}
    how, counts_V = _measuring(flow), _token_counts(flow)
    if teacher is not None:
        return measure_fidelity(
            teacher.model,
            students,
            [t.document for t in taught],
            counts_V,
            vocabulary=vocabulary,
            readings=readings,
            **how,
        )
    api = recipe.teacher.api
    knowledge = "text" if api is None else remote.knowledge_of(api)
    own_text = recipe.generate is not None
    return measure_prediction(
        students, taught, counts_V, knowledge=knowledge, own_text=own_text, **how
    )


def _measuring(flow: Distillation) -> dict[str, Any]:
    return {
        "precision": "bf16" if flow.recipe.teacher.dtype == "bfloat16" else "no",
        "batch_tokens": flow.recipe.capture.batch_tokens,
        "progress": flow.progress,
    }


def _timing(flow: Distillation) -> dict[str, Any]:
    return {
        "tokens": flow.recipe.evaluate.speed_tokens,
        "rounds": flow.recipe.evaluate.speed_rounds,
        "progress": flow.progress,
    }


def _speed(
    flow: Distillation,
    teacher: LocalModel | None,
    student: Any,
    heldout: list[Document],
    vocabulary: Vocabulary | None,
    readings: list[Document] | None,
) -> Mapping[str, Any]:
    prompts, asked = [_prompt_of(d) for d in heldout], _timing(flow)
    if teacher is not None:
        timed = measure_speed(
            teacher.model,
            student,
            prompts,
            vocabulary=vocabulary,
            teacher_prompts=None if readings is None else [_prompt_of(d) for d in readings],
            beginning=None if flow.told is None else flow.told.beginning,
            **asked,
        )
        return timed.as_dict()
    alone = measure_alone(student, prompts, **asked)
    return {
        "ratio": None,
        "teacher_tokens_per_s": None,
        "student_tokens_per_s": alone.as_dict(),
        "rounds": flow.recipe.evaluate.speed_rounds,
        "tokens_per_round": flow.recipe.evaluate.speed_tokens,
        "cost_ratio": None,
    }


def _compare_across(
    flow: Distillation,
    aligned: Aligned,
    models: Mapping[str, LocalModel],
    heldout: list[Document],
) -> tuple[Across, Mapping[str, Any]]:
    pairs = _pairs_of(aligned, heldout)
    students = {arm: m.model for arm, m in models.items()}
    across = measure_across(flow.teacher.model, students, pairs, aligned.labels, **_measuring(flow))
    speed = measure_speed(
        flow.teacher.model,
        models["student"].model,
        [_prompt_of(d) for d in heldout],
        teacher_prompts=[_teacher_prompt(pair) for pair in pairs],
        beginning=aligned.beginning if flow.recipe.teacher.has_prefix else None,
        **_timing(flow),
    )
    size = sum(pair.content_bytes for pair in pairs)
    tokens = sum(len(teacher_tokens(pair)) for pair in pairs), across.positions
    return across, speed.per_byte(*(size / n for n in tokens)).as_dict()


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
    loaded = backends.load(str(flow.run.path(name).resolve()), dtype=flow.recipe.teacher.dtype)
    place(loaded.model, device())
    return loaded


def _token_counts(flow: Distillation) -> np.ndarray[Any, np.dtype[np.int64]]:
    vocabulary = flow.base_model.model.get_output_embeddings().weight.shape[0]
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
    flow: Distillation,
    models: Mapping[str, LocalModel],
    heldout: list[Document],
    vocabulary: Vocabulary | None,
) -> Iterator[Sample]:
    decode = flow.base_model.tokenizer.decode
    chosen = heldout[: flow.recipe.evaluate.samples]
    told = _teacher_prompts(flow, chosen)
    flow.progress.begin("samples", len(chosen), "prompts")
    for document, asked in zip(chosen, told, strict=True):
        prompt = _prompt_of(document)
        theirs = prompt if vocabulary is None else vocabulary.spell(prompt)
        texts = {
            arm: m.tokenizer.decode(_write(m, theirs, flow.recipe), skip_special_tokens=True)
            for arm, m in models.items()
        }
        # A teacher behind an API is not asked again, and paid again, for what it has said.
        answer = (
            document.tokens_T[len(prompt) :].tolist()
            if flow.recipe.teacher.is_remote
            else _write(flow.teacher, asked, flow.recipe)
        )
        teacher = decode(answer, skip_special_tokens=True)
        flow.progress.advance()
        shown = models["student"].tokenizer.decode(theirs, skip_special_tokens=True)
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


def _write(local: LocalModel, prompt: list[int], recipe: Recipe) -> list[int]:
    """Write an answer up to the end of the turn: drawn as the run's own text was, else the likeliest one."""
    generate = recipe.generate
    temperature = generate.temperature if generate else None
    longest = min(_SAMPLE_TOKENS, generate.max_new_tokens) if generate else _SAMPLE_TOKENS
    tokens_BT = torch.tensor([prompt], device=local.model.device)
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        written_BT = local.model.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            do_sample=temperature is not None,
            temperature=temperature,
            top_p=None,
            top_k=0 if temperature is not None else None,
            max_new_tokens=longest,
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
    sifted = read_json(run.path(_FILTERED))
    store = describe(run.path("store"))
    terms = read_json(run.path("terms.json"))
    hashes = {
        "corpus": facts["corpus"]["sha256"],
        "teacher": facts["terms"]["weights_sha256"],
        "tokenizer": facts["corpus"]["tokenizer_sha256"],
        "store": _stamp(run, "capture").sha256,
        "student": sha256_file(run.path(f"{STUDENT}/model.safetensors")),
    }
    if hashes["teacher"] is None:
        del hashes["teacher"]  # the weights of a teacher behind an API are not known
    counts = read_json(run.path("corpus/counts.json"))
    if recipe.generate is not None:
        counts |= {k: v for k, v in facts["capture"].items() if isinstance(v, int)}
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
            *_objective_notes(recipe, facts["train"].get("on_policy")),
            *_side_notes(recipe, evaluation["speed"], facts["capture"].get("alignment")),
            *_stamp(run, "evaluate").facts.get("notes", ()),
        ],
        on_policy=facts["train"].get("on_policy"),
        hashes=hashes,
        environment=evaluation["environment"],
        api=facts["capture"].get("api"),
        sifted=sifted.get("counts"),
        judge=sifted.get("judge"),
        alignment=facts["capture"].get("alignment"),
    )
    write_json(run.path("report.json"), report)
    write_text(run.path("report.html"), render_html(report))
    write_text(run.path("lineage.cdx.json"), lineage_bom(_lineage(flow, report, made_at)))
    record = BuildRecord(**facts["build"]["record"])
    write_text(run.path(f"{STUDENT}/README.md"), model_card(_origin(flow, report), record, report))
    run.clear(UNPACKED)
    flow.progress.end()
    return {}


def _objective_notes(recipe: Recipe, written: Mapping[str, Any] | None) -> tuple[str, ...]:
    control = "cross_entropy" in _arms(recipe)
    if recipe.on_policy is not None and written is not None:
        return on_policy_notes(recipe.on_policy, written, recipe.loss.kind, control=control)
    selection = Selection(recipe.train.positions, recipe.train.position_choice)
    notes = objective_notes(selection, control=control)
    return notes if recipe.capture.targets == "teacher" else (NOTE, *notes)


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
            sha256=hashes.get("teacher"),
            licence=terms["licence"],
            source=_stamp(flow.run, "terms").facts["source"],
            parameters=parameters["teacher"],
        ),
        student=ModelPart(
            name=recipe.name,
            sha256=hashes["student"],
            licence=_student_licence(flow, terms["licence"]),
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
            description=_targets_sentence(recipe),
            counts=(("documents", store["documents"]), ("positions", store["positions"])),
        ),
        terms=known,
        metrics=tuple(
            (f"heldout_{name}", heldout[key])
            for name, key in _METRICS[across]
            if heldout[key] is not None
        ),
    )


def _origin(flow: Distillation, report: Mapping[str, Any]) -> Origin:
    recipe, terms = flow.recipe, report["terms"]
    return Origin(
        name=recipe.name,
        teacher=_public_name(recipe),
        teacher_source=_stamp(flow.run, "terms").facts["source"],
        teacher_sha256=report["hashes"].get("teacher"),
        licence=_student_licence(flow, terms["licence"]),
        teacher_licence=terms["licence"],
        data=_data_sentence(recipe),
        terms=terms["basis"],
        recipe_sha256=recipe.sha256,
        is_taught=recipe.capture.targets == "teacher",
    )


def _student_licence(flow: Distillation, teacher: str | None) -> str | None:
    """Return the licence of the weights that the student grew from."""
    if not flow.recipe.teacher.is_remote or flow.recipe.student.init == "scratch":
        return teacher
    return _stamp(flow.run, "build").facts["licence"]


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
    said = (
        f"Text from {named}."
        if recipe.generate is None
        else f"The teacher's own answers, drawn at temperature {recipe.generate.temperature:g}, to prompts from {named}."
    )
    own = recipe.on_policy
    if own is None or not own.fraction:
        return said
    return f"{said} A fraction of {own.fraction:.4g} of the texts trained on was written anew by the student."


def _targets_sentence(recipe: Recipe) -> str:
    if recipe.capture.targets == "none":
        return "None: the answers that stand in the corpus; the teacher was asked nothing."
    api = recipe.teacher.api
    if api is None:
        return "The teacher's distribution at every loss position, sparse."
    if remote.knowledge_of(api) == "text":
        return "The teacher's text alone; none of its probabilities are known."
    return "The teacher's likeliest tokens at every loss position, and the mass of the rest."


# validate


def _validate(flow: Distillation) -> Mapping[str, Any]:
    asked = flow.recipe.validation
    if asked is None:
        raise RecipeError("the recipe has no [validate] section")
    request = Request(
        teacher=flow.recipe.teacher.model,
        student=str(flow.run.folder.resolve()),
        tasks=asked.tasks or Request.tasks,
        margin=asked.margin,
        limit=asked.limit,
        sequential=asked.sequential,
        judges=asked.judges,
        seed=flow.recipe.seed,
    )
    with open_run(
        flow.run.path("validation"), request.as_json(), binding=VALIDATION_BINDING
    ) as run:
        validate_models(Validation(request, run, flow.base, flow.resume, flow.progress))
    return {}


def _dumped(*sections: str) -> Callable[[Distillation], object]:
    """Return a function that gives the named sections of the recipe as JSON values, less what decides nothing."""
    return lambda flow: {
        name: _deciding(flow.recipe.as_json()[name]) for name in (*sections, "seed")
    }


def _deciding(value: Any) -> Any:
    """Return JSON values of a recipe without the sections that say how fast and for how much an API is asked."""
    if not isinstance(value, Mapping):
        return value
    return {k: _deciding(v) for k, v in value.items() if k != LIMITS}


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
        decided_by=_dumped("teacher", "filter"),
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
        name="filter",
        needs=("corpus", "terms", "capture"),
        decided_by=_filter_decided_by,
        outputs=(_FILTERED, _JUDGE_TERMS),
        partial=(),
        work=_filter,
    ),
    Step(
        name="build",
        needs=("capture", "filter"),
        decided_by=_dumped("student"),
        outputs=(UNDISTILLED, VOCABULARY),
        partial=(),
        work=_build,
    ),
    Step(
        name="train",
        needs=("capture", "filter", "build"),
        decided_by=_dumped("loss", "train", "on_policy", "evaluate"),
        outputs=(STUDENT, "training", CROSS_ENTROPY, ADAPTER),
        partial=("training",),
        work=_train,
    ),
    Step(
        name="evaluate",
        needs=("capture", "filter", "build", "train"),
        decided_by=_dumped("evaluate"),
        outputs=("evaluation.json",),
        partial=(),
        work=_evaluate,
    ),
    Step(
        name="report",
        needs=("corpus", "terms", "capture", "filter", "build", "train", "evaluate"),
        decided_by=_dumped("name"),
        outputs=("report.json", "report.html", "lineage.cdx.json"),
        partial=(),
        work=_report,
    ),
)


VALIDATE = Step(
    name="validate",
    needs=("report",),
    decided_by=_dumped("validate"),
    outputs=("validation",),
    partial=("validation",),
    work=_validate,
)
"""The last step, where the recipe asks for it."""


def _steps(recipe: Recipe) -> tuple[Step[Distillation], ...]:
    return STEPS if recipe.validation is None else (*STEPS, VALIDATE)


BINDING = ("capture", "filter", "build", "train", "evaluate", "report")
"""Steps after whose beginning a run's folder belongs to its recipe."""
FREE = {LIMITS: (), "filter": ("build", "train", "evaluate", "report")}
"""Sections that bind only once one of these steps has begun; limits never do."""


def follow(flow: Distillation, calls: Iterable[str]) -> None:
    """Join in the trainings that the leader of this launch calls for, until it dismisses this process.

    Raises:
        LimbeckError: Anything the user can mend.
    """
    for arm in calls:
        _train_arm(flow, arm, _lessons(flow))


def _check_started(flow: Distillation) -> None:
    """Refuse to be started in a way that the recipe does not go with."""
    recipe, why = flow.recipe, apart(flow.recipe)
    if flow.cluster is not None and (recipe.teacher.is_remote or why is not None):
        raise RecipeError(
            f"a Ray cluster captures for a teacher that is here and reads what its student reads; leave --ray out of "
            f"a run with {why or 'a teacher behind an API'}"
        )
    if recipe.train.compile:
        check_compiles(flow.launch.size)
    if recipe.align is not None and flow.launch.size > 1:
        raise RecipeError(
            f"a recipe with [align] trains in one process, and {flow.launch.size} were launched; start it alone"
        )
    if flow.verifier is not None and why is not None:
        raise RecipeError(
            f"verifier {flow.verifier.name} judges answers that student and teacher read alike, and the recipe has "
            f"{why}; leave one out"
        )


def distil(flow: Distillation, only: str | None) -> None:
    """Run the steps; when all are done, write the manifest, last of all.

    Raises:
        LimbeckError: Anything the user can mend.
    """
    if flow.recipe.on_policy is None:
        check_share(flow.recipe.train, flow.launch.size)
    else:
        check_whole(shards=flow.launch.size > 1 and wants_shards(os.environ))
    _check_started(flow)
    steps = _steps(flow.recipe)
    run_steps(flow, steps, only)
    stamps = [flow.run.stamp(step.name) for step in steps]
    done = [s for s in stamps if s is not None]
    if len(done) < len(steps):
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
