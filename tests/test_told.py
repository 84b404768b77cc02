"""Prompt distillation end to end, with a tiny teacher."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

import limbeck
from limbeck.artefact import hash_tree, read_json
from limbeck.cluster import Cluster
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.errors import CorpusError, RecipeError

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"
SYSTEM = "You keep the mill. Answer as a miller would, and never speak of clocks."


def recipe(teacher: Path, **changes: Any) -> Recipe:
    raw: dict[str, Any] = {
        "name": "told",
        "teacher": {
            "model": str(teacher),
            "dtype": "float32",
            "system": SYSTEM,
            "prefix_messages": [
                {"role": "user", "content": "Good morning?"},
                {"role": "assistant", "content": "Flour is a penny."},
            ],
            "terms": {"licence": "Apache-2.0"},
        },
        "corpus": {
            "template": "Say {what} to {whom}.",
            "slots": {
                "what": ["hello", "thanks", "goodbye"],
                "whom": ["Anna", "the baker", "a friend", "the mill"],
            },
            "heldout_fraction": 0.3,
            "max_length": 96,
        },
        "generate": {"max_new_tokens": 12, "batch": 8},
        "student": {"init": "folder", "folder": str(teacher)},
        "train": {"epochs": 1.0, "row_length": 96, "rows": 2, "precision": "no"},
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
def finished(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "told"
    limbeck.distill(recipe(tiny_teacher_folder), out=folder)
    return folder


def test_the_store_holds_what_the_student_sees(finished: Path, tiny_tokenizer: Any) -> None:
    documents = [t.document for t in StoreReader(finished / "store").documents()]
    assert documents
    for document in documents:
        text = tiny_tokenizer.decode(document.tokens_T)
        assert text.startswith("<|im_start|>user\nSay ")
        assert "mill. Answer" not in text
        assert "penny" not in text


def test_targets_are_the_teachers_after_its_prompt(
    finished: Path, tiny_teacher_folder: Path, tiny_tokenizer: Any
) -> None:
    """Token by token: a direct forward over prompt and answer, from the messages alone."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(tiny_teacher_folder, dtype=torch.float32)
    compared = 0
    for taught in StoreReader(finished / "store").documents():
        document = taught.document
        start = int(np.flatnonzero(document.loss_T)[0]) + 1
        asked = tiny_tokenizer.decode(document.tokens_T[:start]).split("user\n")[1].split("<|im")[0]
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": "Good morning?"},
            {"role": "assistant", "content": "Flour is a penny."},
            {"role": "user", "content": asked},
        ]
        told = tiny_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        whole = torch.tensor([[*told, *document.tokens_T[start:].tolist()]])
        with torch.no_grad():
            log_TV = model(whole).logits[0, len(told) - 1 : -1].log_softmax(-1)
        entropy_N = -(log_TV.exp() * log_TV).sum(-1).numpy()
        np.testing.assert_allclose(taught.targets.entropy_N, entropy_N, atol=1 / 32 + 1e-3)
        compared += len(entropy_N)
    assert compared > 100


def test_the_report_counts_the_prompt_that_is_saved(finished: Path) -> None:
    report = read_json(finished / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    tokens = report["speed"]["prompt_tokens"]
    assert tokens["teacher"] > tokens["student"] + 40
    assert report["speed"]["cost_ratio"] == pytest.approx(1 / report["speed_ratio"]["median"])
    assert report["speed"]["cost_ratio_cached_prompt"] > 0
    (note,) = [n for n in report["loss"]["notes"] if "the student does not" in n]
    assert note in report["headline"]
    assert report["heldout"]["undistilled"]["kl_mean"] > 0.001
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "Prompt tokens of the timed requests" in page


def test_given_answers_are_captured_under_the_prompt_too(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    lines = [{"prompt": f"Count to {n}.", "response": f"One to {n}, then stop."} for n in range(12)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "system.txt").write_text(SYSTEM, encoding="utf-8")
    changes: dict[str, Any] = {
        "corpus": {"files": ["chats.jsonl"], "max_length": 96, "heldout_fraction": 0.3},
        "generate": None,
        "teacher__system": None,
        "teacher__system_file": "system.txt",
        "evaluate__controls": False,
    }
    made = recipe(tiny_teacher_folder, **changes)
    run = limbeck.distill(made, out=tmp_path / "run", base=tmp_path)
    (tmp_path / "system.txt").write_text("Another prompt.", encoding="utf-8")
    before = hash_tree(run.folder)
    limbeck.distill(made, out=run.folder, base=tmp_path)
    assert hash_tree(run.folder) != before, "another system prompt must capture again"


@pytest.mark.slow
def test_workers_side_by_side_capture_every_document_once(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, capture__workers=2)
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=tmp_path / "run", only=step)
    keys = [
        sorted(t.document.key for t in StoreReader(folder / "store").documents())
        for folder in (finished, tmp_path / "run")
    ]
    assert keys[0] == keys[1]
    assert describe(tmp_path / "run" / "store")["parts"] == 2


def test_a_budget_listens_under_the_prompt(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_teacher_folder, capture__max_gradient_mse=0.3)
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=tmp_path / "run", only=step)
    assert describe(tmp_path / "run" / "store")["finished"]


def test_a_prompt_longer_than_the_context_stops_before_anything_is_captured(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    long = recipe(tiny_teacher_folder, teacher__system=SYSTEM * 12)
    with pytest.raises(RecipeError, match=r"the teacher's prompt adds \d+ tokens .*512 tokens"):
        limbeck.distill(long, out=tmp_path / "run")
    assert not (tmp_path / "run" / "store").exists()


def test_plain_text_has_no_place_for_a_prompt(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps({"text": f"Text {n}."}) for n in range(9))
    )
    made = recipe(
        tiny_teacher_folder, corpus={"files": ["a.jsonl"], "max_length": 96}, generate=None
    )
    with pytest.raises(CorpusError, match="is plain text, before which no teacher"):
        limbeck.distill(made, out=tmp_path / "run", base=tmp_path)


def test_several_answers_to_a_prompt_are_told_the_same(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, generate__samples=2, evaluate__controls=False)
    run = limbeck.distill(made, out=tmp_path / "run")
    once, twice = (describe(folder / "store")["documents"] for folder in (finished, run.folder))
    assert twice == 2 * once
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    tokens = report["speed"]["prompt_tokens"]
    assert tokens["teacher"] > tokens["student"]


def test_adapters_learn_from_a_teacher_with_a_prompt(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    made = recipe(tiny_teacher_folder, student__lora={"rank": 2}, evaluate__controls=False)
    run = limbeck.distill(made, out=tmp_path / "run")
    assert run.path("adapter").is_dir()
    Draft202012Validator(read_json(SCHEMA)).validate(read_json(run.path("report.json")))


def test_what_starts_a_run_must_go_with_a_prompt(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    made = recipe(tiny_teacher_folder)
    with pytest.raises(RecipeError, match=r"verifier .* a prompt for the teacher alone; leave one"):
        limbeck.distill(made, out=tmp_path / "run", verify=lambda _: True)
    with pytest.raises(
        RecipeError, match=r"leave --ray out of a run with a prompt for the teacher"
    ):
        limbeck.distill(made, out=tmp_path / "run", cluster=Cluster("local", None))
    assert not (tmp_path / "run" / "store").exists()
