"""Whole distillations of a teacher behind an API: a real server on the loopback interface, a tiny real model."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import limbeck
from fakeapi import Answer, FakeApi, Json, Said, TinyChat, message, serve
from limbeck.artefact import read_json
from limbeck.backends import load
from limbeck.distill.recipe import Recipe, parse_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.errors import (
    BudgetError,
    RefusedError,
    TeacherError,
    TermsError,
    TokenizerMismatchError,
)
from limbeck.model import LocalModel
from limbeck.workbench import verify_store

SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"
KEY = "sk-test-4711-0815-secret"
LIMBECK = str(Path(sys.executable).with_name("limbeck"))
PROMPTS = 12
STEPS_TO_STORE = ("corpus", "terms", "capture")


@pytest.fixture(scope="module")
def tiny(tiny_teacher_folder: Path) -> LocalModel:
    """The tiny teacher, to be put behind a server."""
    return load(str(tiny_teacher_folder), dtype="float32")


def raw_recipe(url: str, base: Path) -> Json:
    """A whole distillation that takes a second or two."""
    return {
        "name": "remote",
        "teacher": {
            "model": "openai:m",
            "dtype": "float32",
            "api": {"base_url": url, "limits": {"concurrency": 2, "retries": 1}},
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
        "generate": {"max_new_tokens": 8},
        "student": {"layers": 2, "base": str(base)},
        "loss": {"kind": "cross_entropy"},
        "train": {"epochs": 1.0, "row_length": 96, "rows": 2, "precision": "no"},
        "evaluate": {"speed_rounds": 3, "speed_tokens": 2, "samples": 1, "documents": 8},
    }


def recipe(url: str, base: Path, **changes: Any) -> Recipe:
    raw = raw_recipe(url, base)
    for dotted, value in changes.items():
        *sections, last = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[last] = value
    return parse_recipe(raw)


def checked_report(folder: Path) -> Json:
    report = read_json(folder / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    verify_store(folder / "store")
    return report


def capture(made: Recipe, out: Path, **more: Any) -> None:
    for step in STEPS_TO_STORE:
        limbeck.distill(made, out=out, only=step, **more)


@pytest.fixture(scope="module")
def finished(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, FakeApi]:
    """A finished run on text alone, two answers to each prompt, and what the server was asked."""
    folder = tmp_path_factory.mktemp("remote") / "run"
    with pytest.MonkeyPatch.context() as patch, serve(TinyChat(tiny)) as api:
        patch.setenv("OPENAI_API_KEY", KEY)
        made = recipe(
            api.url,
            tiny_teacher_folder,
            generate__samples=2,
            teacher__api__limits__prompt_price=0.5,
            teacher__api__limits__completion_price=1.5,
        )
        limbeck.distill(made, out=folder)
    return folder, api


def test_a_teacher_of_text_alone_is_distilled_and_the_report_says_what_is_not_known(
    finished: tuple[Path, FakeApi],
) -> None:
    report = checked_report(finished[0])
    heldout = report["heldout"]
    assert heldout["knowledge"] == "text"
    assert heldout["student"]["kl_mean"] is None
    assert heldout["student"]["perplexity"] > 1
    assert heldout["differences"]["undistilled"]["kl_interval"] is not None
    assert report["parameters"]["teacher"] is report["memory"]["teacher"] is None
    assert report["speed_ratio"] is None
    assert set(report["unmeasured"]) >= {"parameters.teacher", "speed_ratio", "heldout.*.kl_mean"}
    assert "teacher" not in report["hashes"]
    page = (finished[0] / "report.html").read_text()
    assert "is not measured: the API gives text alone" in page
    assert "None" not in page.replace("NoneType", "")


def test_every_answer_is_asked_once_with_a_seed_of_its_own(
    finished: tuple[Path, FakeApi],
) -> None:
    requests = finished[1].requests
    assert len(requests) == PROMPTS * 2
    assert len({r["seed"] for r in requests}) == PROMPTS * 2
    report = read_json(finished[0] / "report.json")
    assert report["api"]["requests"] == PROMPTS * 2
    tokens = report["api"]
    cost = (0.5 * tokens["prompt_tokens"] + 1.5 * tokens["completion_tokens"]) / 1e6
    assert tokens["cost"] == pytest.approx(cost)
    assert finished[1].most_at_once <= 2


def test_the_key_goes_to_the_server_and_nowhere_else(finished: tuple[Path, FakeApi]) -> None:
    folder, api = finished
    assert {h["authorization"] for h in api.headers} == {f"Bearer {KEY}"}
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) > 20
    assert not [p for p in files if KEY.encode() in p.read_bytes()]


def test_lineage_and_card_name_the_teacher_without_weights(
    finished: tuple[Path, FakeApi],
) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (finished[0] / "lineage.cdx.json").read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    teacher = next(c for c in json.loads(text)["components"] if c["bom-ref"] == "teacher")
    assert teacher["name"] == "openai:m"
    assert not teacher["hashes"]
    card = (finished[0] / "student" / "README.md").read_text()
    assert "its weights are behind an API and not known" in card
    assert "from which it grew" in card


def test_the_store_says_that_it_holds_text(finished: tuple[Path, FakeApi]) -> None:
    said = describe(finished[0] / "store")
    assert said["teacher"]["knowledge"] == "text"
    assert said["head_entries"] == 0


def test_a_second_call_asks_nothing(
    finished: tuple[Path, FakeApi], tiny_teacher_folder: Path
) -> None:
    folder, api = finished
    made = parse_recipe(read_json(folder / "recipe.json"))
    limbeck.distill(made, out=folder)
    assert len(api.requests) == PROMPTS * 2


def test_likely_tokens_are_distilled_with_forward_kl(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    with serve(TinyChat(tiny)) as api:
        made = recipe(
            api.url,
            tiny_teacher_folder,
            loss__kind="forward_kl",
            teacher__api__top_logprobs=5,
        )
        limbeck.distill(made, out=tmp_path / "run")
    report = checked_report(tmp_path / "run")
    heldout = report["heldout"]
    assert heldout["knowledge"] == "likely_tokens"
    assert heldout["differences_of"] == "likelihood"
    assert heldout["student"]["kl_mean"] > 0
    assert set(heldout["differences"]) == {"cross_entropy", "undistilled"}
    assert any("at least" in sentence for sentence in report["headline"])
    assert report["store"]["head_entries"] >= 5 * report["tokens"]["captured"]


def test_given_text_is_scored_by_vllms_extension(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    texts = [f"The river number {n} runs past the mill and the bridge." for n in range(14)]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    with serve(TinyChat(tiny)) as api:
        made = recipe(
            api.url,
            tiny_teacher_folder,
            loss__kind="forward_kl",
            teacher__api__prompt_logprobs=5,
            generate=None,
            corpus={"files": ["texts.jsonl"], "max_length": 96, "heldout_fraction": 0.3},
        )
        limbeck.distill(made, out=tmp_path / "run", base=tmp_path)
    report = checked_report(tmp_path / "run")
    assert report["heldout"]["differences_of"] == "bounded_kl"
    assert report["heldout"]["teacher"]["perplexity"] is not None
    assert {r["path"] for r in api.requests} == {"/v1/completions"}


def test_a_student_from_a_folder_and_one_from_scratch_need_no_teacher_here(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    students: dict[str, Json] = {
        "folder": {"init": "folder", "folder": str(tiny_teacher_folder)},
        "scratch": {"init": "scratch", "layers": 1, "base": str(tiny_teacher_folder)},
    }
    with serve(TinyChat(tiny)) as api:
        for name, student in students.items():
            made = recipe(api.url, tiny_teacher_folder, student=student)
            capture(made, tmp_path / name)
            limbeck.distill(made, out=tmp_path / name, only="filter")
            limbeck.distill(made, out=tmp_path / name, only="build")
    assert (
        read_json(tmp_path / "scratch" / "steps" / "build.json")["facts"]["record"]["layers"] == 1
    )


# What stops a run.


def test_nothing_is_sent_before_the_terms_are_known(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    with serve(lambda body, n: message("Hi")) as api:
        made = recipe(api.url, tiny_teacher_folder, teacher__terms={})
        with pytest.raises(TermsError, match=r"\[teacher\.terms\]"):
            limbeck.distill(made, out=tmp_path / "run")
        terms = {"licence": "OpenAI Terms of Use"}
        with pytest.raises(TermsError, match="does not allow"):
            limbeck.distill(
                recipe(api.url, tiny_teacher_folder, teacher__terms=terms), out=tmp_path / "two"
            )
    assert not api.requests


def no_logprobs(body: Json, number: int) -> Json:
    return message("Hello Anna")


def foreign_tokens(body: Json, number: int) -> Json:
    value = message("zebra crossing")
    entry = {"token": "zebra crossing", "bytes": None, "logprob": -0.1, "top_logprobs": []}
    value["choices"][0]["logprobs"] = {"content": [entry]}
    return value


def always(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    """Return answers that are all the same."""

    def answer(asked: Json, number: int) -> Said:
        return Said(body, status, headers or {})

    return answer


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (no_logprobs, TeacherError, "top_logprobs and model m gives none"),
        (foreign_tokens, TokenizerMismatchError, "'zebra crossing', which the student's"),
        (always(message("Hi", model="cheap")), TeacherError, "answered as model cheap"),
        (
            always(b"<html>Please log in</html>", headers={"Content-Type": "text/html"}),
            TeacherError,
            "a page, not JSON: Please log in",
        ),
        (always({"error": {"message": "Pay first"}}, 402), RefusedError, "Pay first"),
        (
            always({"error": {"message": "Training on outputs is not allowed"}}, 403),
            RefusedError,
            "Training on outputs is not allowed",
        ),
        (
            always({"error": {"code": "insufficient_quota", "message": "Used up"}}, 429),
            RefusedError,
            "Used up",
        ),
        (
            always({"error": "slow"}, 429, {"Retry-After": "4000"}),
            TeacherError,
            "asks to wait 4000 s",
        ),
        (
            always({"error": {"code": "context_length_exceeded"}}, 400),
            TeacherError,
            "in 12 the prompt did not fit",
        ),
        (always(message("")), TeacherError, "of 12 answers .* 12 were empty"),
        (always(message("x") | {"choices": []}), TeacherError, "12 were empty"),
    ],
    ids=[
        "no logprobs",
        "foreign tokens",
        "another model",
        "a page",
        "402",
        "403",
        "quota",
        "a long pause",
        "beyond the context",
        "empty text",
        "empty choices",
    ],
)
def test_bad_replies_stop_the_run_with_the_reason(
    tiny_teacher_folder: Path,
    tmp_path: Path,
    answer: Answer,
    kind: type[TeacherError],
    says: str,
) -> None:
    with serve(answer) as api:
        made = recipe(
            api.url,
            tiny_teacher_folder,
            loss__kind="forward_kl",
            teacher__api__top_logprobs=3,
        )
        with pytest.raises(kind, match=says):
            limbeck.distill(made, out=tmp_path / "run")
    assert not (tmp_path / "run" / "store").exists()


def test_some_prompts_beyond_the_context_are_counted_not_lost(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    def answer(body: Json, number: int) -> Said | Json:
        if "mill" in body["messages"][-1]["content"]:
            return Said({"error": {"message": "maximum context length is 4"}}, 400)
        return message("" if "goodbye to Anna" in body["messages"][-1]["content"] else "Hello.")

    with serve(answer) as api:
        capture(recipe(api.url, tiny_teacher_folder), tmp_path / "run")
    facts = read_json(tmp_path / "run" / "steps" / "capture.json")["facts"]
    assert (facts["beyond_context"], facts["empty_answers"]) == (3, 1)
    assert facts["equal_answers"] == 0
    assert len(StoreReader(tmp_path / "run" / "store")) == PROMPTS - 4


def test_a_server_that_does_not_sample_is_shown_by_equal_answers(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    with serve(lambda body, n: message("Hello.")) as api:
        made = recipe(api.url, tiny_teacher_folder, generate__samples=3)
        capture(made, tmp_path / "run")
    facts = read_json(tmp_path / "run" / "steps" / "capture.json")["facts"]
    assert facts["equal_answers"] == PROMPTS * 2


def test_half_a_response_is_asked_again(tiny_teacher_folder: Path, tmp_path: Path) -> None:
    def answer(body: Json, number: int) -> Said | Json:
        return Said(message("Hello."), cut=40) if number == 0 else message("Hello.")

    with serve(answer) as api:
        capture(recipe(api.url, tiny_teacher_folder), tmp_path / "run")
    assert len(api.requests) == PROMPTS + 1


# Going on.


def switched(first: Answer, enough: int) -> tuple[Answer, Callable[[], None]]:
    """Return answers that say no after so many, until the switch is turned."""
    turned: list[bool] = []

    def answer(body: Json, number: int) -> Said | Json:
        if number >= enough and not turned:
            return Said({"error": {"message": "not now, not you"}}, 403)
        return first(body, number)

    return answer, lambda: turned.append(True)


def test_a_stopped_run_goes_on_after_its_last_answer_to_the_same_store(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    chat = TinyChat(tiny)
    answer, turn = switched(chat, 5)
    with serve(answer) as api:
        made = recipe(api.url, tiny_teacher_folder)
        with pytest.raises(RefusedError, match="not now, not you"):
            capture(made, tmp_path / "run")
        refused = len(api.requests)
        turn()
        capture(made, tmp_path / "run", resume=True)
        assert len(api.requests) - refused == PROMPTS - 5
        capture(made, tmp_path / "whole")
    one, two = ((tmp_path / name / "store") for name in ("run", "whole"))
    shards = sorted(p.name for p in one.glob("*.shard"))
    assert shards
    assert [(one / s).read_bytes() for s in shards] == [(two / s).read_bytes() for s in shards]


def test_max_cost_stops_the_run_and_may_be_raised(
    tiny: LocalModel, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    def priced(max_cost: float) -> Recipe:
        limits = {"completion_price": 1000.0, "max_cost": max_cost, "concurrency": 2}
        return recipe(api.url, tiny_teacher_folder, teacher__api__limits=limits)

    with serve(lambda body, n: message("Hello Anna.")) as api:
        with pytest.raises(BudgetError, match=r"max_cost = 0\.02.*--resume"):
            capture(priced(0.02), tmp_path / "run")
        asked = len(api.requests)
        assert 0 < asked < PROMPTS
        capture(priced(1.0), tmp_path / "run", resume=True)
        assert len(api.requests) == PROMPTS
    usage = read_json(tmp_path / "run" / "steps" / "capture.json")["facts"]["api"]
    assert usage["cost"] == pytest.approx(usage["completion_tokens"] * 1000 / 1e6)


def test_a_run_killed_outright_repeats_no_answer_that_it_had(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    def slow(body: Json, number: int) -> Json:
        time.sleep(0.1 if number < PROMPTS else 0)
        return message("Hello Anna.")

    with serve(slow) as api:
        raw = raw_recipe(api.url, tiny_teacher_folder)
        raw["name"] = "killed"
        path = tmp_path / "recipe.toml"
        path.write_text(toml(raw))
        command = [LIMBECK, "distill", str(path), "--out", str(tmp_path / "run")]
        capture(parse_recipe(raw), tmp_path / "warm")  # so that the first answers below count alone
        before = len(api.requests)
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        answers = tmp_path / "run" / "answers" / "teacher.jsonl"
        end = time.monotonic() + 600
        while not (answers.is_file() and answers.read_bytes().count(b"\n") >= 3):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = answers.read_bytes().count(b"\n")
        asked = len(api.requests) - before
        assert kept < PROMPTS
        capture(parse_recipe(raw), tmp_path / "run", resume=True)
        assert len(api.requests) - before - asked == PROMPTS - kept


def toml(value: Json, path: str = "") -> str:
    """Write nested values as TOML."""
    plain = {k: v for k, v in value.items() if not isinstance(v, dict)}
    lines = [f"[{path}]"] if path and plain else []
    lines += [f"{k} = {json.dumps(v)}" for k, v in plain.items()]
    below = [toml(v, f"{path}.{k}" if path else k) for k, v in value.items() if isinstance(v, dict)]
    return "\n".join([*lines, *below])


def test_it_works_where_an_event_loop_runs_already(
    tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    async def notebook() -> None:
        capture(recipe(api.url, tiny_teacher_folder), tmp_path / "run")

    with serve(lambda body, n: message("Hello.")) as api:
        asyncio.run(notebook())
    assert len(api.requests) == PROMPTS
