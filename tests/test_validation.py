"""Whole validations of tiny models, from Python and from the command line."""

import itertools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

import limbeck
from limbeck.artefact import read_json, sha256_json
from limbeck.backends import load
from limbeck.errors import LimbeckError, RunError, ScoringError, TaskError
from limbeck.validate.local import LocalRespondent
from limbeck.validate.respond import Asked

SCHEMA = Path(__file__).parents[1] / "docs" / "validate-report.schema.json"
ITEMS = 240
LETTERS = tuple("abcdefghiklmnoprstuw")
WORDS = ["mill", "river", "clock", "kettle", "bridge", "letter", "baker", "station"]


def noisy(folder: Path, target: Path, strength: float) -> Path:
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    changed = {
        k: v + strength * v.std() * torch.randn(v.shape, generator=generator) if v.dim() > 1 else v
        for k, v in weights.items()
    }
    save_file(changed, target / "model.safetensors", metadata={"format": "pt"})
    return target


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    values = {"name": name, "file": f"{name}.jsonl", **settings}
    toml = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(toml) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def place(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good and a bad student, and a task whose gold is what the teacher itself says, mostly."""
    folder = tmp_path_factory.mktemp("validation")
    noisy(tiny_teacher_folder, folder / "good", 0.01)
    noisy(tiny_teacher_folder, folder / "bad", 1.0)
    local = LocalRespondent(load(str(tiny_teacher_folder), dtype="float32"))
    rng = np.random.default_rng(3)
    prompts = [" ".join(rng.choice(WORDS, 6)) for _ in range(700)]
    said = local.weigh(
        [Asked(str(i), p, "text") for i, p in enumerate(prompts)],
        [LETTERS] * len(prompts),
        heard=lambda _: None,
    )
    # Two answers of which the teacher prefers now one, now the other: then a model with one answer for
    # everything is at chance.
    log_IC = np.array([s.log_C for s in said])
    pairs = list(itertools.combinations(range(len(LETTERS)), 2))
    left, right = min(pairs, key=lambda p: abs(np.mean(log_IC[:, p[0]] > log_IC[:, p[1]]) - 0.5))
    best = (log_IC[:, right] > log_IC[:, left]).astype(int).tolist()
    each = [[i for i, b in enumerate(best) if b == c][: ITEMS // 2] for c in range(2)]
    assert {len(e) for e in each} == {ITEMS // 2}
    rows = [
        {"q": prompts[i], "answer": 1 - best[i] if n % 6 == 0 else best[i]}
        for n, i in enumerate(i for two in zip(*each, strict=True) for i in two)
    ]
    write_task(
        folder,
        "clocks",
        rows,
        scorer="choice",
        prompt="{q}",
        choices=[LETTERS[left], LETTERS[right]],
        chance=0.5,
    )
    return folder


@pytest.fixture(scope="module")
def finished(place: Path, tiny_teacher_folder: Path) -> Path:
    """A finished validation of the good student; read it."""
    limbeck.validate(
        teacher=tiny_teacher_folder,
        student=place / "good",
        undistilled=place / "bad",
        tasks=[place / "clocks.toml"],
        out=place / "good-run",
    )
    return place / "good-run"


def test_a_faithful_student_keeps_and_the_report_keeps_its_schema(finished: Path) -> None:
    report = read_json(finished / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert report["verdict"] == "KEEPS", report["sentence"]
    assert report["sentence"].startswith("KEEPS ")
    assert "(margin 90%: PASS)" in report["sentence"]
    assert "judged part: NOT CLAIMED (no judge given)" in report["sentence"]
    assert {c: v["state"] for c, v in report["controls"].items()} == {
        "teacher again": "as expected",
        "undistilled": "as expected",
        "damaged": "as expected",
    }


def test_a_ruined_student_loses(place: Path, tiny_teacher_folder: Path) -> None:
    run = limbeck.validate(
        teacher=tiny_teacher_folder,
        student=place / "bad",
        tasks=[place / "clocks.toml"],
        out=place / "bad-run",
    )
    report = read_json(run.path("report.json"))
    assert report["verdict"] == "LOSES", report["sentence"]
    assert report["controls"]["undistilled"]["state"] == "not run"
    assert report["contamination"] == {
        "checked": False,
        "reason": report["contamination"]["reason"],
    }


def test_the_margin_hash_can_be_computed_again_from_the_promise(finished: Path) -> None:
    report = read_json(finished / "report.json")
    assert sha256_json(report["promise"]) == report["margin_hash"]
    assert read_json(finished / "promise.json")["sha256"] == report["margin_hash"]


def test_the_margin_cannot_be_moved_once_scoring_has_begun(
    finished: Path, place: Path, tiny_teacher_folder: Path
) -> None:
    with pytest.raises(RunError, match=r"margin = 0.9 there, 0.5 here"):
        limbeck.validate(
            teacher=tiny_teacher_folder,
            student=place / "good",
            undistilled=place / "bad",
            tasks=[place / "clocks.toml"],
            margin=0.5,
            out=finished,
        )


def test_the_page_stands_alone_and_the_card_has_a_section(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'src="' not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "KEEPS" in page
    card = (finished / "model-card.md").read_text(encoding="utf-8")
    assert "| clocks | choice by likelihood | 240 |" in card


def test_a_second_call_scores_nothing_again(
    finished: Path, place: Path, tiny_teacher_folder: Path
) -> None:
    before = (finished / "scores" / "teacher" / "clocks.jsonl").stat().st_mtime_ns
    limbeck.validate(
        teacher=tiny_teacher_folder,
        student=place / "good",
        undistilled=place / "bad",
        tasks=[place / "clocks.toml"],
        out=finished,
    )
    assert (finished / "scores" / "teacher" / "clocks.jsonl").stat().st_mtime_ns == before


def test_contamination_by_named_training_text_is_reported_with_the_clean_part(
    place: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    seen = [json.loads(x)["q"] for x in (place / "clocks.jsonl").read_text().splitlines()[:9]]
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"Once: {q}."}) + "\n" for q in seen)
    )
    run = limbeck.validate(
        teacher=tiny_teacher_folder,
        student=place / "good",
        tasks=[place / "clocks.toml"],
        training=[tmp_path / "train.jsonl"],
        out=tmp_path / "run",
    )
    found = read_json(run.path("report.json"))["contamination"]
    assert found["checked"]
    assert found["tasks"]["clocks"]["exact"] == 9
    assert found["clean"]["items"] <= ITEMS - 9
    assert found["clean"]["retention"] is not None


def test_a_sequential_validation_stops_early_and_its_verdict_is_the_same(
    place: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    run = limbeck.validate(
        teacher=tiny_teacher_folder,
        student=place / "bad",
        tasks=[place / "clocks.toml"],
        sequential=True,
        out=tmp_path / "run",
    )
    report = read_json(run.path("report.json"))
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert report["retention_method"] == "betting"
    assert report["verdict"] == "LOSES"
    assert report["stopped"]["items_scored"] < ITEMS == report["stopped"]["items_there"]


def test_teacher_and_student_that_are_one_model_are_refused(
    place: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ScoringError, match="are the same model"):
        limbeck.validate(
            teacher=tiny_teacher_folder,
            student=shutil.copytree(tiny_teacher_folder, tmp_path / "copy"),
            tasks=[place / "clocks.toml"],
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "scores").exists()


def test_a_teacher_at_chance_gets_no_claim(
    place: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    rows = [{"q": f"Clock {i}", "answer": i % 2} for i in range(60)]
    task = write_task(
        tmp_path, "coin", rows, scorer="choice", prompt="{q}", choices=[" on", " off"], chance=0.5
    )
    run = limbeck.validate(
        teacher=tiny_teacher_folder, student=place / "good", tasks=[task], out=tmp_path / "run"
    )
    report = read_json(run.path("report.json"))
    assert report["verdict"] == "CANT_TELL"
    assert report["retention"] is None
    assert "cannot be told from chance" in report["retention_reason"]


@pytest.mark.parametrize("name", ["nothing", "missing.toml"])
def test_an_unknown_task_is_refused_before_anything_is_scored(
    name: str, place: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=name):
        limbeck.validate(
            teacher=tiny_teacher_folder, student=place / "good", tasks=[name], out=tmp_path / "run"
        )
    assert not (tmp_path / "run" / "scores").exists()


def test_logs_alone_are_enough_for_a_verdict_without_controls(tmp_path: Path) -> None:
    for who, share in (("teacher", 10), ("student", 2)):
        samples = [
            {"id": str(i), "epoch": 1, "scores": {"m": {"value": "C" if i % 10 < share else "I"}}}
            for i in range(200)
        ]
        log = {"status": "success", "eval": {"task": "g"}, "samples": samples}
        (tmp_path / f"{who}.json").write_text(json.dumps(log), encoding="utf-8")
    (tmp_path / "g.toml").write_text(
        'name = "g"\nscorer = "inspect"\nchance = 0.0\nteacher_log = "teacher.json"\n'
        'student_log = "student.json"\n',
        encoding="utf-8",
    )
    run = limbeck.validate(
        teacher="big", student="small", tasks=[tmp_path / "g.toml"], out=tmp_path / "run"
    )
    report = read_json(run.path("report.json"))
    assert report["verdict"] == "LOSES"
    assert {c["state"] for c in report["controls"].values()} == {"not run"}


class Server(BaseHTTPRequestHandler):
    reply: bytes = b""
    status: int = 200

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        asked = json.loads(self.rfile.read(length))["messages"][-1]["content"]
        body = (
            self.reply
            or json.dumps({"choices": [{"message": {"content": asked.split()[-1]}}]}).encode()
        )
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def server() -> Iterator[str]:
    class Here(Server):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"openai:echo@http://127.0.0.1:{made.server_port}/v1"
        made.shutdown()
        thread.join()


@pytest.mark.enable_socket
def test_a_served_teacher_writes_answers_and_cannot_weigh_choices(
    server: str, place: Path, tmp_path: Path
) -> None:
    rows = [{"q": f"{i}: say {w}", "answer": w} for i, w in enumerate(WORDS * 16)]
    task = write_task(
        tmp_path, "echo", rows, scorer="exact", prompt="{q}", chance=0.0, max_new_tokens=4
    )
    run = limbeck.validate(
        teacher=server, student=place / "good", tasks=[task], out=tmp_path / "run"
    )
    report = read_json(run.path("report.json"))
    assert report["ledgers"]["verified"]["tasks"][0]["teacher"] == 1
    assert report["verdict"] == "LOSES"
    assert "served model" in report["ledgers"]["fidelity"]["divergence_reason"]
    with pytest.raises(ScoringError, match="gives no log-probabilities"):
        limbeck.validate(
            teacher=server,
            student=place / "good",
            tasks=[place / "clocks.toml"],
            out=tmp_path / "other",
        )


@pytest.mark.enable_socket
def test_a_served_student_is_damaged_by_mixing_up_its_answers(
    server: str, place: Path, tmp_path: Path
) -> None:
    rows = [{"q": f"{i}: say {w}", "answer": w} for i, w in enumerate(WORDS * 16)]
    task = write_task(
        tmp_path, "echo", rows, scorer="exact", prompt="{q}", chance=0.0, max_new_tokens=4
    )
    teacher = server.replace("echo@", "teacher@")
    run = limbeck.validate(teacher=teacher, student=server, tasks=[task], out=tmp_path / "run")
    report = read_json(run.path("report.json"))
    assert report["verdict"] == "KEEPS"
    assert report["controls"]["damaged"]["state"] == "as expected"
    assert "answer to another" in report["controls"]["damaged"]["because"]


@pytest.mark.enable_socket
@pytest.mark.parametrize(
    ("status", "reply", "says"),
    [
        (200, b"<html>busy</html>", "no chat completion"),
        (403, b"not for you", "HTTP 403"),
        (200, b'{"choices": []}', "no chat completion"),
    ],
)
def test_a_server_that_does_not_answer_is_named(
    status: int,
    reply: bytes,
    says: str,
    server: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Server, "status", status)
    monkeypatch.setattr(Server, "reply", reply)
    task = write_task(
        tmp_path, "e", [{"q": "a", "answer": "b"}], scorer="exact", prompt="{q}", chance=0.0
    )
    with pytest.raises(LimbeckError, match=says):
        limbeck.validate(teacher=server, student=place / "good", tasks=[task], out=tmp_path / "run")


def test_a_student_of_no_run_needs_its_teacher_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="name it with --teacher"):
        limbeck.validate(student=place / "good", out=tmp_path / "run")
