"""Distillation across tokenizers end to end: byte-level teacher, SentencePiece student."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

import limbeck
from limbeck.artefact import hash_tree, read_json
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.distillation import Distillation, distil
from limbeck.errors import CorpusError, RecipeError, TeacherError, TokenizerMismatchError
from limbeck.launch import Launch
from limbeck.progress import Silent
from limbeck.run import Run

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


@pytest.fixture(scope="module")
def student_folder(tmp_path_factory: pytest.TempPathFactory, piece_tokenizer: Any) -> Path:
    config = transformers.LlamaConfig(
        vocab_size=len(piece_tokenizer) + 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=piece_tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = transformers.LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("models") / "pieces"
    model.save_pretrained(folder)
    piece_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writing_teacher(
    tiny_teacher_folder: Path, tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny teacher, kept from writing half characters: it would do nothing else."""
    folder = tmp_path_factory.mktemp("models") / "writer"
    shutil.copytree(tiny_teacher_folder, folder)
    weights = load_file(folder / "model.safetensors")
    for token, number in tiny_tokenizer.get_vocab().items():
        if not token.replace("Ġ", "").isascii() or number < 2:
            weights["model.embed_tokens.weight"][number] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def recipe(teacher: Path, pupil: Path, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "across",
        "teacher": {"model": str(teacher), "dtype": "float32", "terms": {"licence": "Apache-2.0"}},
        "corpus": {"files": ["chats.jsonl"], "heldout_fraction": 0.3, "max_length": 96},
        "align": {"method": "chunks"},
        "student": {"init": "folder", "folder": str(pupil)},
        "train": {"epochs": 2.0, "row_length": 96, "rows": 2, "precision": "no"},
        "evaluate": {"speed_rounds": 3, "speed_tokens": 4, "samples": 1, "documents": 8},
    }
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_recipe(raw)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    chats = [
        {
            "prompt": f"Who bakes {n}?",
            "response": f"The baker, 👩🏽, bakes {n} by the mill in Köln.",
        }
        for n in range(14)
    ]
    (folder / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)), encoding="utf-8")
    texts = [{"text": f"Text {n} of the river, the mill and the Käse. " * 6} for n in range(9)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(
    tiny_teacher_folder: Path,
    student_folder: Path,
    base: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "across"
    limbeck.distill(recipe(tiny_teacher_folder, student_folder), out=folder, base=base)
    return folder


def test_the_store_holds_the_students_documents(finished: Path, piece_tokenizer: Any) -> None:
    store = StoreReader(finished / "store")
    assert store.identity.vocabulary == len(piece_tokenizer) + 8 + 4
    for taught in store.documents():
        text = piece_tokenizer.decode(taught.document.tokens_T)
        assert text.startswith("<s>")
        assert "[INST] Who bakes" in text
        learned = taught.document.tokens_T[1:][taught.document.loss_T[:-1]]
        assert piece_tokenizer.decode(learned).startswith("The baker, 👩🏽, bakes")
        assert int(learned[-1]) == piece_tokenizer.eos_token_id


def test_a_real_report_keeps_its_schema_and_says_what_is_not_defined(finished: Path) -> None:
    report = read_json(finished / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    heldout, alignment = report["heldout"], report["alignment"]
    for arm in ("student", "undistilled", "cross_entropy"):
        assert heldout[arm]["kl_mean"] is None
        assert heldout[arm]["bits_per_byte"] > 0
        assert heldout[arm]["label_kl"] > 0
    assert "not defined" in heldout["across"]["undefined"]
    assert any("not defined" in sentence for sentence in report["headline"])
    counts = alignment["positions"]
    total = sum(counts.values())
    assert total == report["tokens"]["captured"]
    assert alignment["coincident_share"] == (counts["whole"] + counts["end"]) / total
    assert counts["inside"] > 0
    assert report["speed"]["bytes_per_token"]["student"] > 0
    assert set(report["verdicts"]) == {"undistilled", "cross_entropy"}
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Bits per byte" in page
    assert "None" not in page


def test_samples_give_both_sides_the_question_and_none_the_answer(finished: Path) -> None:
    (sample,) = read_json(finished / "report.json")["samples"]
    assert sample["prompt"].startswith("[INST] Who bakes")
    assert sample["prompt"].rstrip().endswith("[/INST]")


def test_training_over_labels_brings_the_student_nearer(finished: Path) -> None:
    report = read_json(finished / "report.json")
    curve = report["curves"]["student"]
    assert curve[-1]["loss"] < curve[0]["loss"]
    difference = report["heldout"]["differences"]["undistilled"]
    assert difference["label_kl"] < 0
    assert difference["bits_per_byte"] < 0


def test_the_student_is_saved_with_its_own_tokenizer(finished: Path, piece_tokenizer: Any) -> None:
    saved = transformers.AutoTokenizer.from_pretrained(finished / "student")
    assert saved("the mill")["input_ids"] == piece_tokenizer("the mill")["input_ids"]
    assert (finished / "manifest.json").is_file()
    card = (finished / "student" / "README.md").read_text(encoding="utf-8")
    assert "bits per byte" in card
    assert "top-1 agreement" not in card


def test_a_second_call_does_nothing_again(
    finished: Path, tiny_teacher_folder: Path, student_folder: Path, base: Path
) -> None:
    before = hash_tree(finished)
    limbeck.distill(recipe(tiny_teacher_folder, student_folder), out=finished, base=base)
    assert hash_tree(finished) == before


def test_answers_that_the_teacher_writes_are_paired_as_text(
    writing_teacher: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    template = {
        "template": "Say {what}.",
        "slots": {"what": [f"number {n}" for n in range(24)]},
        "heldout_fraction": 0.3,
        "max_length": 96,
    }
    made = recipe(
        writing_teacher,
        student_folder,
        corpus=template,
        generate={"max_new_tokens": 10, "batch": 4, "temperature": 0.1},
        train__row_length=192,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=base)
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    lost = report["alignment"]["unaligned_answers"]
    documents = list(StoreReader(run.path("store")).documents())
    assert len(documents) + lost == 24
    assert len(documents) > 12
    again = tmp_path / "again"
    for step in ("corpus", "terms"):
        limbeck.distill(made, out=again, base=base, only=step)
    # As if killed while writing: half of the answers, the last line torn.
    lines = run.path("answers/part-000.jsonl").read_bytes().splitlines(keepends=True)
    shutil.copy(run.path("steps/capture.json"), tmp_path / "stamp.json")
    inputs = read_json(tmp_path / "stamp.json")["inputs_sha256"]
    (again / "steps" / "capture.begun.json").write_text(json.dumps({"inputs_sha256": inputs}))
    (again / "answers").mkdir()
    (again / "answers/part-000.jsonl").write_bytes(b"".join(lines[:9]) + lines[9][:20])
    limbeck.distill(made, out=again, base=base, resume=True, only="capture")
    assert (again / "answers/part-000.jsonl").read_bytes() == b"".join(lines)
    assert hash_tree(again / "store") == hash_tree(run.path("store"))


def test_plain_text_and_a_student_from_scratch(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder,
        student_folder,
        corpus={"files": ["texts.jsonl"], "heldout_fraction": 0.3, "max_length": 64},
        student={"init": "scratch", "layers": 2, "tokenizer": str(student_folder)},
        evaluate__controls=False,
        capture__parts=2,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=base)
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert describe(run.path("store"))["parts"] == 2
    assert report["corpus"]["cut"] > 0
    assert report["alignment"]["positions"]["end"] == 0
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(run.path("student"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.path("student"))
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id


@pytest.mark.slow
def test_workers_side_by_side_capture_every_pair_once(
    finished: Path, tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, student_folder, capture__workers=2)
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=tmp_path / "run", base=base, only=step)
    keys = [
        sorted(t.document.key for t in StoreReader(folder / "store").documents())
        for folder in (finished, tmp_path / "run")
    ]
    assert keys[0] == keys[1]
    assert describe(tmp_path / "run" / "store")["parts"] == 2


def test_sorted_probabilities_train_beside_cross_entropy(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder,
        student_folder,
        align__method="uld",
        loss={"kind": "total_variation", "coarse_tail": True, "cross_entropy": 0.5},
        evaluate__controls=False,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=base)
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert report["alignment"]["method"] == "uld"
    curve = report["curves"]["student"]
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_with_the_teachers_own_tokenizer_targets_are_those_of_no_alignment(
    tiny_teacher_folder: Path, base: Path, tmp_path: Path
) -> None:
    """The identity of alignment: same tokenizer, same store but for the four ids that are never used."""
    folders = tmp_path / "aligned", tmp_path / "plain"
    student = {"init": "folder", "folder": str(tiny_teacher_folder)}
    for folder, align in zip(folders, ({"method": "chunks"}, None), strict=True):
        made = recipe(tiny_teacher_folder, tiny_teacher_folder, align=align, student=student)
        for step in ("corpus", "terms", "capture"):
            limbeck.distill(made, out=folder, base=base, only=step)
    aligned, plain = (
        {t.document.key: t for t in StoreReader(f / "store").documents()} for f in folders
    )
    assert aligned.keys() == plain.keys()
    assert (
        describe(folders[0] / "store")["positions"] == describe(folders[1] / "store")["positions"]
    )
    for key, one in aligned.items():
        assert one.document.tokens_T.tolist() == plain[key].document.tokens_T.tolist()
        np.testing.assert_array_equal(one.document.loss_T, plain[key].document.loss_T)
        np.testing.assert_allclose(
            one.targets.entropy_N, plain[key].targets.entropy_N, atol=1 / 16 + 1e-3
        )


def test_a_teacher_with_a_prompt_and_another_tokenizer(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder,
        student_folder,
        teacher__system="You keep the mill. Answer as a miller would, and never speak of clocks.",
        evaluate__controls=False,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=base)
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert report["speed"]["cost_ratio_cached_prompt"] > 0
    assert len(report["loss"]["notes"]) >= 2


def test_what_cannot_be_aligned_is_refused_before_capture(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    teacher, student = tiny_teacher_folder, student_folder
    with pytest.raises(TokenizerMismatchError, match=r'set \[align\] method = "chunks"'):
        limbeck.distill(recipe(teacher, student, align=None), out=tmp_path / "a", base=base)
    long = {"files": ["chats.jsonl"], "max_length": 400}
    made = recipe(teacher, student, corpus=long, train__row_length=400)
    with pytest.raises(RecipeError, match=r"beyond the context of student .*, 256 tokens"):
        limbeck.distill(made, out=tmp_path / "b", base=base)
    words = tmp_path / "words"
    shutil.copytree(student, words)
    content = json.loads((words / "tokenizer.json").read_text(encoding="utf-8"))
    content["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    (words / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        TokenizerMismatchError, match="neither byte-level nor of SentencePiece's kind"
    ):
        limbeck.distill(recipe(teacher, words), out=tmp_path / "c", base=base)
    none = {"init": "scratch", "layers": 2, "tokenizer": str(tmp_path)}
    with pytest.raises(TeacherError, match="holds no tokenizer"):
        limbeck.distill(recipe(teacher, student, student=none), out=tmp_path / "d", base=base)
    (tmp_path / "chats.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{n}?", "response": "A <|im_end|> B"}) for n in range(9))
    )
    with pytest.raises(CorpusError, match=r"nothing is left .*9 .*not spelt"):
        limbeck.distill(recipe(teacher, student), out=tmp_path / "e", base=tmp_path)
    assert not list(tmp_path.glob("*/store"))


def test_another_tokenizer_is_trained_in_one_process(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, student_folder)
    run = Run(tmp_path / "run", made.as_json())
    flow = Distillation(
        made, run, base, resume=False, progress=Silent(), launch=Launch(rank=0, size=2)
    )
    with pytest.raises(RecipeError, match=r"\[align\] trains in one process, and 2 were launched"):
        distil(flow, None)


def test_adapters_learn_across_tokenizers(
    tiny_teacher_folder: Path, student_folder: Path, base: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    made = recipe(
        tiny_teacher_folder,
        student_folder,
        student__lora={"rank": 2},
        train__learning_rate=2e-2,
        evaluate__controls=False,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=base)
    assert run.path("adapter").is_dir()
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    curve = report["curves"]["student"]
    assert curve[-1]["loss"] < curve[0]["loss"]
