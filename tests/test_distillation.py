import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file

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
from limbeck.workbench import open_chat, verify_store

GREEDY: dict[str, Any] = {"temperature": 0.0, "max_new_tokens": 4, "seed": 0}
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


def test_workers_side_by_side_capture_every_document_once_and_unpack_every_part(
    finished: Path,
    tiny_teacher_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, run = recipe(tiny_teacher_folder, capture={"workers": 2, "parts": 3}), tmp_path / "run"
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=run, only=step)
    one, two = (StoreReader(folder / "store") for folder in (finished, run))
    assert describe(run / "store")["parts"] == 3
    keys = [sorted(t.document.key for t in store.documents()) for store in (one, two)]
    assert keys[0] == keys[1]
    assert not list(run.glob(".capture*"))
    shutil.rmtree(run / ".unpacked")
    monkeypatch.setattr("limbeck.distillation._UNPACKED_ALONE", 0)
    limbeck.distill(made, out=run, only="filter")
    assert len(list((run / ".unpacked").glob("*/part-*"))) == 3


def test_a_disk_without_room_for_the_unpacked_targets_is_told_of(
    tiny_teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, run = recipe(tiny_teacher_folder), tmp_path / "run"
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=run, only=step)
    shutil.rmtree(run / ".unpacked")
    full = shutil.disk_usage(tmp_path)._replace(free=100)

    def usage(_: Path) -> Any:
        return full

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(
        RunError, match=r"unpacking the targets of .* and its disk has 0\.0 GB free"
    ):
        limbeck.distill(made, out=run, only="filter")


def test_the_number_of_parts_does_not_decide_what_the_teacher_says_of_a_text(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    lines = [json.dumps({"text": f"Count to {n}, then stop."}) for n in range(30)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    corpus = {"files": ["lines.jsonl"], "max_length": 96}
    texts: list[dict[str, list[int]]] = []
    for parts in (1, 3):
        made = recipe(tiny_teacher_folder, generate=None, corpus=corpus, capture={"parts": parts})
        out = tmp_path / str(parts)
        for step in ("corpus", "terms", "capture"):
            limbeck.distill(made, out=out, base=tmp_path, only=step)
        said = StoreReader(out / "store").documents()
        texts.append({t.document.key: t.targets.ids_E.tolist() for t in said})
    assert texts[0] == texts[1]


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


def test_a_capture_that_was_killed_before_it_joined_its_parts_joins_them(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made, run = recipe(tiny_teacher_folder, capture={"parts": 2}), tmp_path / "run"
    for step in ("corpus", "terms", "capture"):
        limbeck.distill(made, out=run, only=step)
    before = hash_tree(run / "store")
    shards = read_json(run / "store" / "manifest.json")["shards"]
    for part in range(2):
        mine = [s for s in shards if s["name"].startswith(f"part-{part:03d}-")]
        (run / "store" / f"part-{part:03d}.json").write_text(json.dumps({"shards": mine}))
    (run / "store" / "manifest.json").unlink()
    stamp = run / "steps" / "capture.json"
    begun = json.dumps({"inputs_sha256": read_json(stamp)["inputs_sha256"]})
    (run / "steps" / "capture.begun.json").write_text(begun)
    stamp.unlink()
    limbeck.distill(made, out=run, only="capture", resume=True)
    assert hash_tree(run / "store") == before


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


def _counting(folder: Path) -> dict[str, Any]:
    """Write gold answers into a folder, and return what a recipe changes to read them."""
    lines = [{"prompt": f"Count to {n}.", "response": f"One to {n}, then stop."} for n in range(20)]
    (folder / "gold.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return {"corpus": {"files": ["gold.jsonl"], "max_length": 96}, "generate": None}


def test_supervised_training_is_the_cross_entropy_control_without_a_teacher_that_is_asked(
    tiny_teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = _counting(tmp_path)
    taught = recipe(tiny_teacher_folder, **gold)
    for step in ("corpus", "terms", "capture", "filter", "build", "train"):
        limbeck.distill(taught, out=tmp_path / "taught", base=tmp_path, only=step)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr("limbeck.distillation.capture_documents", refuse)
    monkeypatch.setattr("limbeck.distillation.listen_densely", refuse)
    alone = recipe(tiny_teacher_folder, **gold, capture__targets="none", loss__kind="cross_entropy")
    run = limbeck.distill(alone, out=tmp_path / "alone", base=tmp_path)
    one, two = (tmp_path / "taught/controls/cross_entropy", run.path("student"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert report["loss"]["notes"][0].startswith("Supervised: the teacher was asked nothing")
    assert report["store"]["head_entries"] == report["store"]["samples"] == 0
    assert "the teacher was asked nothing" in run.path("lineage.cdx.json").read_text()
    assert "was asked nothing" in run.path("student/README.md").read_text()


def test_a_teacher_is_fine_tuned_by_starting_the_student_as_the_teacher(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(
        tiny_teacher_folder,
        **_counting(tmp_path),
        capture__targets="none",
        loss__kind="cross_entropy",
        student={"init": "folder", "folder": str(tiny_teacher_folder)},
        train__learning_rate=3e-3,
        train__epochs=6.0,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=tmp_path)
    report = read_json(run.path("report.json"))
    assert report["parameters"]["student"] == report["parameters"]["teacher"]
    heldout = report["heldout"]
    assert heldout["student"]["perplexity"] < heldout["teacher"]["perplexity"] / 4


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


def test_a_trimmed_student_goes_from_corpus_to_report(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "trimmed"
    limbeck.distill(recipe(tiny_teacher_folder, student__vocabulary=380), out=run)
    report = read_json(run / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert read_json(run / "student" / "config.json")["vocab_size"] == 380
    assert len(read_json(run / "vocabulary.json")["kept"]) == 380
    assert 0 < report["heldout"]["teacher"]["lost_mass"] < 0.2
    notes = " ".join(report["loss"]["notes"])
    assert "380 of the teacher's 400 tokens" in notes
    assert "read in pieces" in notes
    assert "vocabulary.json" in read_json(run / "manifest.json")["files"]
    assert isinstance("".join(open_chat(str(run)).answer("hello", **GREEDY)), str)


@pytest.mark.parametrize("vocabulary", [None, 380])
def test_an_adapted_student_is_saved_merged_and_apart(
    vocabulary: int | None, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    """Layers, width, vocabulary and adapters together."""
    pytest.importorskip("peft")
    student: dict[str, Any] = {"layers": 3, "intermediate": 96, "lora": {"rank": 4}}
    if vocabulary is not None:
        student["vocabulary"] = vocabulary
    run = tmp_path / "adapted"
    limbeck.distill(recipe(tiny_teacher_folder, student=student), out=run)
    record = read_json(run / "steps" / "build.json")["facts"]["record"]
    assert 0 < record["trainable_parameters"] < record["parameters"] / 3
    assert record["kept_activity"] is not None
    names = {p.name for p in (run / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} <= names
    assert not [n for n in load_file(run / "student" / "model.safetensors") if "lora" in n]
    start = load_file(run / "controls" / "undistilled" / "model.safetensors")
    end = load_file(run / "student" / "model.safetensors")
    moved = {n for n in start if not torch.equal(start[n].bfloat16(), end[n])}
    assert moved
    assert not [n for n in moved if "embed" in n or "norm" in n]
    assert str(tmp_path) not in (run / "adapter" / "adapter_config.json").read_text()


def test_a_run_with_a_validate_section_ends_validated(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    lines = [{"q": f"Say {w}", "answer": i % 2} for i, w in enumerate("abcdefghijklmnopqrst")]
    (tmp_path / "coin.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (tmp_path / "coin.toml").write_text(
        'name = "coin"\nfile = "coin.jsonl"\nscorer = "choice"\nprompt = "{q}"\n'
        'choices = [" on", " off"]\nchance = 0.5\n'
    )
    made = recipe(
        tiny_teacher_folder,
        validate={"tasks": ["coin.toml"], "margin": 0.8},
        evaluate__controls=True,
    )
    run = limbeck.distill(made, out=tmp_path / "run", base=tmp_path)
    report = read_json(run.path("validation/report.json"))
    assert report["margin"] == 0.8
    assert report["verdict"] in ("KEEPS", "LOSES", "CANT_TELL")
    assert report["controls"]["undistilled"]["state"] != "not run"
    assert report["contamination"]["checked"]
    card = run.path("student/README.md").read_text(encoding="utf-8")
    assert card.count("## Validation") == 1
    assert "validation/report.json" in read_json(run.path("manifest.json"))["files"]
    before = hash_tree(run.folder)
    limbeck.distill(made, out=tmp_path / "run", base=tmp_path)
    assert hash_tree(run.folder) == before


ON_POLICY = {"documents": 5, "max_staleness": 1, "batch": 8, "max_new_tokens": 12}


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_an_on_policy_run_says_so_and_counts_what_the_student_wrote(
    tiny_teacher_folder: Path, tmp_path: Path, fraction: float
) -> None:
    own = ON_POLICY | {"fraction": fraction}
    run = limbeck.distill(recipe(tiny_teacher_folder, on_policy=own), out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    written, train = report["on_policy"], report["corpus"]["train"]
    assert written["answers"] == int(2 * train * fraction)
    assert 0 < written["stale"] < written["answers"]
    assert 0 < written["cut"] <= written["answers"]
    assert written["tokens"] <= 12 * written["answers"]
    assert report["loss"]["kind"] == ("reverse_kl" if fraction == 1 else "forward_kl")
    objective, counts, control = report["loss"]["notes"]
    assert f"on-policy: a fraction of {fraction:g} of the texts" in objective
    assert f"{written['cut']:,} were cut at 12 tokens" in counts
    assert "teacher's answers to the same prompts" in control
    assert {objective, counts, control} <= set(report["headline"])
    assert any(
        "answers to the same prompts and for the same steps" in s for s in report["headline"]
    )
    assert "reads the teacher's answers to the same prompts" in run.path("report.html").read_text()
    steps = [
        [json.loads(line)["step"] for line in path.read_text().splitlines()]
        for path in sorted(run.path("training").glob("*/log.jsonl"))
    ]
    assert len(steps) == 2
    assert steps[0] == steps[1]


def test_an_adapted_student_trains_on_text_of_its_own(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    student: dict[str, Any] = {"layers": 2, "lora": {"rank": 4}}
    made = recipe(
        tiny_teacher_folder, student=student, on_policy=ON_POLICY, evaluate__controls=False
    )
    run = limbeck.distill(made, out=tmp_path / "run")
    assert read_json(run.path("report.json"))["on_policy"]["answers"] > 0
    assert run.path("adapter/adapter_model.safetensors").is_file()
    start, end = (
        load_file(run.path(name) / "model.safetensors")
        for name in ("controls/undistilled", "student")
    )
    assert start.keys() == end.keys()
    assert any(not torch.equal(start[n].bfloat16(), end[n]) for n in start)


def test_an_off_policy_report_counts_nothing_written(finished: Path) -> None:
    assert "on_policy" not in read_json(finished / "report.json")
    assert "the same text" in (finished / "report.html").read_text(encoding="utf-8")


def test_prompts_without_room_for_an_own_answer_are_refused_before_capture(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    made = recipe(tiny_teacher_folder, on_policy=ON_POLICY | {"max_new_tokens": 90})
    with pytest.raises(RecipeError, match=r"on_policy\.max_new_tokens = 90 after the longest"):
        limbeck.distill(made, out=tmp_path / "run")
    assert not (tmp_path / "run" / "store").exists()
    lines = [{"prompt": f"Count to {n}.", "response": f"One to {n}, then stop."} for n in range(20)]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    chats = recipe(
        tiny_teacher_folder,
        corpus={"files": ["chats.jsonl"], "max_length": 96},
        generate=None,
        on_policy=ON_POLICY | {"max_new_tokens": 90},
    )
    with pytest.raises(RecipeError, match=r"is beyond train\.row_length, 96 tokens"):
        limbeck.distill(chats, out=tmp_path / "chats", base=tmp_path)
    assert not (tmp_path / "chats" / "store").exists()


def test_a_teacher_with_other_weights_judges_no_text(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(tiny_teacher_folder, teacher)
    made = recipe(teacher, on_policy=ON_POLICY)
    for step in ("corpus", "terms", "capture", "filter", "build"):
        limbeck.distill(made, out=run, only=step)
    weights = teacher / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(TeacherError, match="other weights here"):
        limbeck.distill(made, out=run, only="train")
