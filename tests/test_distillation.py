import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

import limbeck
from limbeck.artefact import hash_tree, read_json
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.errors import (
    LossError,
    RecipeError,
    RunError,
    StoreError,
    TeacherError,
    TermsError,
    TokenizerMismatchError,
)
from limbeck.workbench import verify_store

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


def recipe(teacher: Path, **changes: Any) -> Recipe:
    """A whole distillation that takes a second or two."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "teacher": {
            "model": str(teacher),
            "dtype": "float32",
            "terms": {"licence": "Apache-2.0"},
        },
        "corpus": {
            "template": "Say {what} to {whom}.",
            "slots": {
                "what": ["hello", "thanks", "goodbye", "sorry"],
                "whom": ["Anna", "the baker", "a friend", "the mill", "the town"],
            },
            "heldout_fraction": 0.3,
            "max_length": 96,
        },
        "generate": {"max_new_tokens": 16, "batch": 8},
        "student": {"layers": 2},
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
def finished(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read it, copy it before changing it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    limbeck.distill(recipe(tiny_teacher_folder), out=folder)
    return folder


def test_a_run_leaves_what_the_contract_names(finished: Path) -> None:
    names = {p.name for p in finished.iterdir()}
    contract = {
        "manifest.json",
        "student",
        "store",
        "report.html",
        "report.json",
        "lineage.cdx.json",
    }
    assert contract <= names


def test_a_real_report_keeps_its_schema(finished: Path) -> None:
    report = read_json(finished / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert set(report["heldout"]) >= {"teacher", "student", "undistilled", "cross_entropy"}
    assert report["tokens"]["captured"] >= report["tokens"]["trained"] / 2 > 0
    assert report["parameters"]["student"] < report["parameters"]["teacher"]


def test_the_manifest_vouches_for_every_file_of_the_run(finished: Path) -> None:
    manifest = read_json(finished / "manifest.json")
    there = hash_tree(finished)
    assert manifest["files"]
    assert {name: there[name] for name in manifest["files"]} == manifest["files"]
    assert manifest["terms"]["outputs_may_train"] == "yes"


def test_the_bill_of_materials_is_valid_and_names_no_folder(
    finished: Path, tiny_teacher_folder: Path
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (finished / "lineage.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert str(tiny_teacher_folder.parent) not in text
    assert str(tiny_teacher_folder.parent) not in (finished / "student" / "README.md").read_text()


def test_the_student_answers_without_limbeck(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(finished / "student")
    tokenizer = AutoTokenizer.from_pretrained(finished / "student")
    inputs = tokenizer("Say hello", return_tensors="pt")
    with torch.no_grad():
        written = model.generate(
            inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=4,
            do_sample=False,
            pad_token_id=0,
        )
    assert model.config.num_hidden_layers == 2
    assert written.shape[1] > inputs.input_ids.shape[1]


def test_a_second_call_does_nothing_again(finished: Path, tiny_teacher_folder: Path) -> None:
    before = hash_tree(finished)
    limbeck.distill(recipe(tiny_teacher_folder), out=finished)
    assert hash_tree(finished) == before


def test_the_same_recipe_gives_the_same_store_and_student(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    limbeck.distill(recipe(tiny_teacher_folder), out=tmp_path / "again")
    one, two = (
        read_json(finished / "manifest.json"),
        read_json(tmp_path / "again" / "manifest.json"),
    )
    same = [
        n for n in one["files"] if n.split("/")[0] in {"corpus", "store", "student", "controls"}
    ]
    assert same
    assert {n: one["files"][n] for n in same} == {n: two["files"][n] for n in same}


def test_capture_on_one_machine_and_training_on_another(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder)
    here, there = tmp_path / "here", tmp_path / "there"
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=here, only=step)
    shutil.copytree(here, there)
    limbeck.distill(made, out=there)
    assert (there / "manifest.json").is_file()
    assert not (here / "student").exists()


def test_workers_side_by_side_capture_every_document_once(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, capture__workers=2)
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=tmp_path / "run", only=step)
    one, two = (StoreReader(folder / "store") for folder in (finished, tmp_path / "run"))
    assert describe(tmp_path / "run" / "store")["parts"] == 2
    keys = [sorted(t.document.key for t in store.documents()) for store in (one, two)]
    assert keys[0] == keys[1]


def test_a_student_that_cannot_be_built_is_refused_before_capture(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    for changes in ({"student__layers": 20}, {"student": {"layers": 2, "intermediate": 4096}}):
        with pytest.raises(RecipeError, match="must be at most"):
            limbeck.distill(recipe(tiny_teacher_folder, **changes), out=tmp_path / "run")
        assert not (tmp_path / "run" / "store").exists()
        shutil.rmtree(tmp_path / "run")


def test_documents_longer_than_the_teachers_context_are_refused(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    long = recipe(tiny_teacher_folder, corpus__max_length=1024, train__row_length=1024)
    with pytest.raises(RecipeError, match=r"beyond the context of .*, 512 tokens"):
        limbeck.distill(long, out=tmp_path / "run")


def test_a_capture_that_was_killed_after_its_last_shard_is_taken_as_it_is(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    stamp = run / "steps" / "capture.json"
    inputs = read_json(stamp)["inputs_sha256"]
    stamp.unlink()
    (run / "steps" / "capture.begun.json").write_text(json.dumps({"inputs_sha256": inputs}))
    limbeck.distill(recipe(tiny_teacher_folder), out=run, resume=True)
    assert hash_tree(run / "store") == hash_tree(finished / "store")


def test_text_files_are_read_and_captured_too(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    lines = [{"prompt": f"Count to {n}.", "response": f"One to {n}, then stop."} for n in range(20)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chats = recipe(
        tiny_teacher_folder, corpus={"files": ["chats.jsonl"], "max_length": 96}, generate=None
    )
    run = limbeck.distill(chats, out=tmp_path / "run", base=tmp_path)
    counts = read_json(run.path("report.json"))["corpus"]
    assert counts["read"] == 20
    # The same run goes on where its corpus is not: what was read lies in the run's folder.
    (tmp_path / "chats.jsonl").unlink()
    limbeck.distill(chats, out=tmp_path / "run", base=tmp_path)


def test_a_budget_decides_the_store(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    sizes: list[float] = []
    for budget in (0.05, 0.5):
        made = recipe(tiny_teacher_folder, capture__max_gradient_mse=budget)
        out = tmp_path / str(budget)
        for step in ("corpus", "terms", "capture"):
            limbeck.distill(made, out=out, only=step)
        sizes.append(describe(out / "store")["bytes_per_token"])
    assert sizes[0] > sizes[1]
    with pytest.raises(StoreError, match="below what is possible"):
        limbeck.distill(
            recipe(tiny_teacher_folder, capture__bytes_per_token=0.01), out=tmp_path / "no"
        )


def test_another_recipe_does_not_touch_the_folder(
    finished: Path, tiny_teacher_folder: Path
) -> None:
    before = hash_tree(finished)
    with pytest.raises(RunError, match=r"another recipe \(train\.epochs = 2\.0 there, 3\.0 here\)"):
        limbeck.distill(recipe(tiny_teacher_folder, train__epochs=3.0), out=finished)
    assert hash_tree(finished) == before


@pytest.mark.parametrize("licence", [None, "LicenseRef-Nobody-Knows"])
def test_unknown_terms_stop_before_the_teacher_is_asked(
    tiny_teacher_folder: Path, tmp_path: Path, licence: str | None
) -> None:
    made = recipe(tiny_teacher_folder, teacher__terms={"licence": licence})
    with pytest.raises(TermsError, match=r"\[teacher\.terms\]"):
        limbeck.distill(made, out=tmp_path / "run")
    assert not (tmp_path / "run" / "store").exists()


def test_a_loss_that_sparse_targets_cannot_support_stops_before_capture(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    for changes in ({"loss__kind": "reverse_kl"}, {"loss__temperature": 2.0}):
        with pytest.raises(LossError):
            limbeck.distill(recipe(tiny_teacher_folder, **changes), out=tmp_path / "run")
        shutil.rmtree(tmp_path / "run")


def test_a_run_on_fewer_positions_says_so_in_its_report(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder,
        train__positions=0.25,
        train__position_choice="teacher_entropy",
        evaluate={"documents": 4, "speed_rounds": 3},
    )
    run = limbeck.distill(made, out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    changed, control = report["loss"]["notes"]
    assert "fraction of 0.25 of the loss positions" in changed
    assert "same positions as the student" in control
    assert changed in report["headline"]
    student, of_control = _positions(run.path("training"))
    assert student == of_control == report["tokens"]["trained"] < report["tokens"]["captured"]


def _positions(training: Path) -> list[int]:
    """Return how many positions each arm trained on."""
    return [
        sum(json.loads(line)["positions"] for line in path.read_text().splitlines())
        for path in sorted(training.glob("*/log.jsonl"))
    ]


def test_a_divergence_over_the_coarse_tail_trains(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder, loss={"kind": "jsd", "coarse_tail": True}, evaluate__controls=False
    )
    run = limbeck.distill(made, out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert "cross_entropy" not in report["heldout"]


def test_a_flipped_bit_in_a_shard_is_found_and_the_shard_named(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shard = next((run / "store").glob("*.shard"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=shard.name):
        verify_store(run / "store")
    with pytest.raises(RunError, match=f"capture, which is missing or changed .*{shard.name}"):
        limbeck.distill(recipe(tiny_teacher_folder), out=run, only="build")
    with pytest.raises(RunError, match=f"{shard.name} is damaged or gone"):
        limbeck.distill(recipe(tiny_teacher_folder), out=run)
    assert shard.read_bytes() == bytes(data)


def test_a_student_with_another_tokenizer_is_refused(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_teacher_folder, other)
    path = other / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    made = recipe(tiny_teacher_folder, student={"init": "folder", "folder": str(other)})
    with pytest.raises(TokenizerMismatchError, match="different tokens"):
        limbeck.distill(made, out=tmp_path / "run")


def test_other_weights_than_were_captured_are_refused(
    finished: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tiny_teacher_folder, teacher)
    made = recipe(teacher)
    for step in ("corpus", "terms", "capture", "filter", "build", "train"):
        limbeck.distill(made, out=run, only=step)
    weights = teacher / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(TeacherError, match="other weights here"):
        limbeck.distill(made, out=run, only="evaluate")


def test_a_recipe_whose_answers_leave_no_room_for_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"generate\.max_new_tokens \(96\) below corpus\.max_length"
    ):
        recipe(tmp_path, generate__max_new_tokens=96)
