"""Filters on whole runs: of a teacher behind an API, and of one that is here."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import limbeck
from fakeapi import Json, Said, message, serve
from limbeck.artefact import hash_tree, read_json
from limbeck.cli import app
from limbeck.distill.filter import Candidate
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.errors import FilterError, RecipeError, RunError, TeacherError, TermsError

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"
SAMPLES = 3


def recipe(url: str | None, base: Path, **changes: Any) -> Recipe:
    """A distillation of questions with answers; without a URL the teacher is the model in `base`."""
    teacher: Json = {"model": str(base), "dtype": "float32", "terms": {"licence": "MIT"}}
    student: Json = {"layers": 2}
    loss = "forward_kl"
    if url is not None:
        teacher |= {"model": "openai:m", "api": {"base_url": url, "limits": {"retries": 0}}}
        student, loss = student | {"base": str(base)}, "cross_entropy"
    raw: Json = {
        "name": "sifted",
        "teacher": teacher,
        "corpus": {"files": ["corpus.jsonl"], "heldout_fraction": 0.3, "max_length": 96},
        "generate": {"max_new_tokens": 12, "samples": SAMPLES},
        "student": student,
        "loss": {"kind": loss},
        "train": {"epochs": 1.0, "row_length": 96, "rows": 2, "precision": "no"},
        "evaluate": {"speed_rounds": 3, "speed_tokens": 2, "samples": 1, "documents": 8},
    }
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_recipe(raw)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with a corpus of twelve sums."""
    rows = [{"prompt": f"What is {n} + 1?", "response": f"It is {n + 1}"} for n in range(12)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def sums(body: Json, number: int) -> Json:
    """Answer a sum: right for even seeds, wrong for odd ones, and cut for every fifth."""
    asked, seed = body["messages"][-1]["content"], body["seed"]
    value = int(asked.split()[2]) + (1 if seed % 2 == 0 else 2)
    return message(f"It is {value}", finish="length" if seed % 5 == 0 else "stop")


def run_to(step: str, made: Recipe, out: Path, base: Path, **more: Any) -> None:
    for name in ("corpus", "terms", "capture", "filter", "build"):
        limbeck.distill(made, out=out, base=base, only=name, **more)
        if name == step:
            return


def test_only_right_and_finished_answers_train_and_the_counts_are_in_the_report(
    tiny_teacher_folder: Path, base: Path
) -> None:
    rules = {"finished": True, "matches_reference": True, "answer_pattern": r"(\d+)"}
    with serve(sums) as api:
        made = recipe(api.url, tiny_teacher_folder, filter=rules)
        limbeck.distill(made, out=base / "run", base=base)
    report = read_json(base / "run" / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    counts = report["filter"]
    seeds = [r["seed"] for r in api.requests]
    unfinished = sum(s % 5 == 0 for s in seeds)
    wrong = sum(s % 5 != 0 and s % 2 == 1 for s in seeds)
    assert counts["rejected"] == {"unfinished": unfinished, "reference": wrong}
    assert sum(counts["kept"].values()) == len(seeds) - unfinished - wrong
    assert report["corpus"]["answers_ignored"] == 12
    page = (base / "run" / "report.html").read_text()
    assert f"{wrong} not the corpus&#39; own response" in page


def test_a_filter_changes_without_asking_the_teacher_again(
    tiny_teacher_folder: Path, base: Path
) -> None:
    kept: list[int] = []
    stores: list[Any] = []
    with serve(sums) as api:
        for rules in (None, {"finished": True}, {"pattern": r"is \d$"}):
            made = recipe(api.url, tiny_teacher_folder, filter=rules)
            run_to("filter", made, base / "run", base)
            found = read_json(base / "run" / "filter.json")
            kept.append(len(found["kept"]) if found["kept"] else found["documents"])
            stores.append(hash_tree(base / "run" / "store"))
        assert len(api.requests) == 36
        run_to("build", made, base / "run", base)
        again = recipe(api.url, tiny_teacher_folder, filter={"finished": True})
        with pytest.raises(RunError, match=r"filter\.finished = False there, True here"):
            run_to("filter", again, base / "run", base)
    assert stores[0] == stores[1] == stores[2]
    assert kept[0] == 36
    assert 0 < kept[1] < 36
    assert 0 < kept[2] < 36
    assert kept[1] != kept[2]


def test_a_filter_that_rejects_everything_is_an_error_with_the_counts(
    tiny_teacher_folder: Path, base: Path
) -> None:
    with serve(sums) as api:
        made = recipe(api.url, tiny_teacher_folder, filter={"pattern": "^No"})
        with pytest.raises(FilterError, match=r"36 without what filter\.pattern wants"):
            limbeck.distill(made, out=base / "run", base=base)
    assert (base / "run" / "store" / "manifest.json").is_file()


def test_json_schemas_are_read_from_the_recipes_folder(
    tiny_teacher_folder: Path, base: Path
) -> None:
    def answer(body: Json, number: int) -> Json:
        return message('{"sum": 3}' if body["seed"] % 2 else "three")

    with serve(answer) as api:
        made = recipe(api.url, tiny_teacher_folder, filter={"json_schema": "schema.json"})
        with pytest.raises(FilterError, match=r"schema\.json cannot be read"):
            limbeck.distill(made, out=base / "run", base=base)
        (base / "schema.json").write_text("{")
        with pytest.raises(FilterError, match=r"schema\.json is not JSON"):
            limbeck.distill(made, out=base / "run", base=base, resume=True)
        (base / "schema.json").write_text('{"required": ["sum"]}')
        run_to("filter", made, base / "run", base, resume=True)
    counts = read_json(base / "run" / "filter.json")["counts"]
    assert counts["rejected"] == {"not_json": sum(r["seed"] % 2 == 0 for r in api.requests)}


def test_a_function_in_python_sees_prompt_answer_and_reference(
    tiny_teacher_folder: Path, base: Path
) -> None:
    seen: list[Candidate] = []

    def right(candidate: Candidate) -> bool:
        seen.append(candidate)
        return candidate.answer == candidate.reference

    with serve(sums) as api:
        run_to("filter", recipe(api.url, tiny_teacher_folder), base / "run", base, verify=right)
    assert len(seen) == 36
    assert {c.turns[-1].content for c in seen} == {f"What is {n} + 1?" for n in range(12)}
    counts = read_json(base / "run" / "filter.json")["counts"]
    assert counts["rejected"] == {"verifier": sum(r["seed"] % 2 for r in api.requests)}
    with pytest.raises(RunError, match=r"filtered with .*right and is now run with no verifier"):
        run_to("filter", recipe(api.url, tiny_teacher_folder), base / "run", base)


def test_a_verifier_without_answers_to_verify_is_refused(
    tiny_teacher_folder: Path, base: Path
) -> None:
    made = recipe(None, tiny_teacher_folder, generate=None)
    with pytest.raises(RecipeError, match=r"add \[generate\]"):
        run_to("filter", made, base / "run", base, verify=bool)


JUDGED: Json = {
    "judge": {
        "model": "openai:judge",
        "terms": {"licence": "MIT"},
        "min_score": 5,
        "api": {"base_url": ""},
    }
}


def judge_rules(url: str, **more: Any) -> Json:
    rules = json.loads(json.dumps(JUDGED))
    rules["judge"]["api"]["base_url"] = url
    return rules | more


def test_a_judges_scores_choose_and_its_other_replies_are_counted_apart(
    tiny_teacher_folder: Path, base: Path
) -> None:
    def answer(body: Json, number: int) -> Json:
        if body["model"] != "judge":
            return sums(body, number)
        asked = body["messages"][0]["content"]
        n = int(asked.split("What is ")[1].split()[0])
        if n == 3:
            return message("I would say 9.", model="judge")
        return message("9" if f"It is {n + 1}" in asked else "2", model="judge")

    with serve(answer) as api:
        made = recipe(api.url, tiny_teacher_folder, filter=judge_rules(api.url, keep="best"))
        limbeck.distill(made, out=base / "run", base=base)
        asked = len(api.requests)
        limbeck.distill(made, out=base / "run", base=base)
        assert len(api.requests) == asked
    report = read_json(base / "run" / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    terms = read_json(base / "run" / "judge_terms.json")
    assert (terms["licence"], terms["outputs_may_train"]) == ("MIT", "yes")
    rejected = report["filter"]["rejected"]
    assert rejected["judge_unparsed"] == SAMPLES
    assert rejected["judge_score"] > 0
    judged = {r["messages"][0]["content"] for r in api.requests if r["model"] == "judge"}
    assert report["judge"]["requests"] == len([r for r in api.requests if r["model"] == "judge"])
    assert len(judged) == report["judge"]["requests"]
    assert sum(report["filter"]["kept"].values()) <= 11


def test_a_judge_needs_terms_too(tiny_teacher_folder: Path, base: Path) -> None:
    with serve(sums) as api:
        rules = judge_rules(api.url)
        del rules["judge"]["terms"]
        with pytest.raises(TermsError, match="judge openai:judge"):
            limbeck.distill(
                recipe(api.url, tiny_teacher_folder, filter=rules), out=base / "run", base=base
            )
    assert not api.requests


def test_a_judge_that_refuses_stops_the_run_and_keeps_the_answers(
    tiny_teacher_folder: Path, base: Path
) -> None:
    def answer(body: Json, number: int) -> Said | Json:
        return (
            Said({"error": "no judging"}, 403) if body["model"] == "judge" else sums(body, number)
        )

    with serve(answer) as api:
        made = recipe(api.url, tiny_teacher_folder, filter=judge_rules(api.url))
        with pytest.raises(TeacherError, match="no judging"):
            limbeck.distill(made, out=base / "run", base=base)
    assert (base / "run" / "store" / "manifest.json").is_file()


def test_a_teacher_that_is_here_is_filtered_too(tiny_teacher_folder: Path, base: Path) -> None:
    rules = {"min_tokens": 12, "max_repetition": 0.5, "keep": "first"}
    made = recipe(None, tiny_teacher_folder, filter=rules)
    limbeck.distill(made, out=base / "run", base=base)
    report = read_json(base / "run" / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    counts = report["filter"]
    assert sum(counts["answers"].values()) == 36
    assert counts["rejected"]["not_chosen"] > 0
    assert counts["rejected"]["too_short"] > 0
    assert sum(counts["kept"].values()) + sum(counts["rejected"].values()) == 36
    kept = read_json(base / "run" / "filter.json")["kept"]
    assert len(kept) <= 12
    assert report["heldout"]["documents"] == counts["kept"]["heldout"]
    assert report["tokens"]["trained"] < report["tokens"]["captured"]


def test_the_command_line_runs_the_function_that_it_names(
    tiny_teacher_folder: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (base / "checks.py").write_text(
        "def right(candidate):\n    return candidate.answer == candidate.reference\n"
    )
    with serve(sums) as api:
        text = f'''
name = "cli"
[teacher]
model = "openai:m"
[teacher.api]
base_url = "{api.url}"
[teacher.terms]
licence = "MIT"
[corpus]
files = ["corpus.jsonl"]
max_length = 96
heldout_fraction = 0.3
[generate]
max_new_tokens = 12
samples = 3
[student]
layers = 2
base = {json.dumps(str(tiny_teacher_folder))}
[loss]
kind = "cross_entropy"
[train]
row_length = 96
[evaluate]
speed_rounds = 3
speed_tokens = 2
'''
        (base / "recipe.toml").write_text(text)
        monkeypatch.chdir(base)
        done = CliRunner().invoke(app, ["distill", "recipe.toml", "--verify", "checks.py:right"])
    assert done.exit_code == 0, done.output
    assert "refused by the verifier" in " ".join(done.output.split())
    stamp = read_json(base / "runs" / "cli" / "steps" / "filter.json")
    assert stamp["facts"]["verifier"]["name"] == "checks.py:right"
