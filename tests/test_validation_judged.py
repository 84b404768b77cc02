"""Whole validations of served models, judged by served judges and timed, all on loopback."""

import json
import re
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import limbeck
from limbeck.artefact import read_json
from limbeck.cli import app
from limbeck.errors import JudgeError
from limbeck.validate.judge import paper
from limbeck.validate.judge.ballot import read_ballot

SCHEMA = Path(__file__).parents[1] / "docs" / "validate-report.schema.json"
ITEMS = 300
Speak = Callable[[str], str]


def _serve(speak: Speak) -> tuple[ThreadingHTTPServer, str]:
    """Serve a chat endpoint that streams word by word where it is asked to."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = speak(body["messages"][-1]["content"])
            if body.get("stream"):
                deltas = [{"choices": [{"delta": {"content": w}}]} for w in text.split()]
                usage = {"prompt_tokens": 9, "completion_tokens": len(deltas)}
                lines = [*map(json.dumps, [*deltas, {"choices": [], "usage": usage}]), "[DONE]"]
                kind, data = "text/event-stream", "".join(f"data: {x}\n\n" for x in lines).encode()
            else:
                reply = {"choices": [{"message": {"content": text}}]}
                kind, data = "application/json", json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/v1"


def _sum_of(prompt: str) -> tuple[int, int]:
    a, b = re.findall(r"\d+", prompt)
    return int(a), int(b)


def _teacher(prompt: str) -> str:
    a, b = _sum_of(prompt)
    return f"Adding {a} and {b} gives {a + b + 7 * (a % 10 >= 8)}"


def _student(prompt: str) -> str:
    a, b = _sum_of(prompt)
    return f"It is {a + b + 5 * (a % 10 < 3 or a % 10 == 8)}"


def _oracle(prompt: str) -> str:
    ballot = read_ballot(prompt)
    gold = str(sum(_sum_of(ballot.question)))
    right = [re.findall(r"\d+", t)[-1:] == [gold] for t in (ballot.answer_a, ballot.answer_b)]
    return "[[C]]" if right[0] == right[1] else "[[A]]" if right[0] else "[[B]]"


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    voices: dict[str, Speak] = {
        "teacher": _teacher,
        "student": _student,
        "oracle": _oracle,
        "always-a": lambda _: "[[A]]",
    }
    served = {name: _serve(voice) for name, voice in voices.items()}
    yield {name: url for name, (_, url) in served.items()}
    for server, _ in served.values():
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    rows = [{"q": f"{10 + i} + {3 * i + 11}", "answer": str(4 * i + 21)} for i in range(ITEMS)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "sums.jsonl").write_text(lines, encoding="utf-8")
    toml = 'name = "sums"\nfile = "sums.jsonl"\nscorer = "numeric"\nprompt = "{q}"\nchance = 0.0\n'
    (folder / "sums.toml").write_text(toml, encoding="utf-8")
    return folder / "sums.toml"


@pytest.fixture(autouse=True)
def _short_examinations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "DAMAGED", 12)
    monkeypatch.setattr(paper, "KNOWN", 20)


def test_a_judged_and_timed_validation_says_so_in_its_sentence(
    urls: dict[str, str], task: Path, tmp_path: Path
) -> None:
    arguments = [
        *("validate", "--teacher", f"openai:t@{urls['teacher']}"),
        *("--student", f"openai:s@{urls['student']}", "--tasks", str(task)),
        *("--out", str(tmp_path / "v"), "--judge", f"always-a={urls['always-a']}"),
        *("--judge", f"oracle={urls['oracle']}"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    report = read_json(tmp_path / "v" / "report.json")
    Draft202012Validator(read_json(SCHEMA)).validate(report)
    assert {j["name"]: j["licensed"] for j in report["judges"]} == {
        "always-a": False,
        "oracle": True,
    }
    judged = report["ledgers"]["judged"]
    assert judged["win_rate"][1] <= 0.4 <= judged["win_rate"][2]
    assert judged["effective_votes"] == 1
    assert report["speed_ratio"] is not None
    assert report["cost_ratio"][1] <= report["cost_ratio"][0] <= report["cost_ratio"][2]
    assert report["timing"]["blocks"] == 8
    assert "judged part: wins 4" in report["sentence"]
    page = (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
    assert "Seconds an accepted answer" in page
    assert "abstains" in page


def test_kin_by_name_is_refused_in_a_whole_validation(
    urls: dict[str, str], task: Path, tmp_path: Path
) -> None:
    limbeck.validate(
        teacher=f"openai:gpt-teacher@{urls['teacher']}",
        student=f"openai:s@{urls['student']}",
        tasks=[task],
        out=tmp_path / "v",
        judges=[f"gpt-judge={urls['oracle']}"],
        timed_blocks=None,
    )
    report = read_json(tmp_path / "v" / "report.json")
    assert not report["judges"][0]["licensed"]
    assert "kin" in report["judges"][0]["reasons"][0]
    assert "judged part: NOT CLAIMED (no judge qualified)" in report["sentence"]
    assert "speed not timed" in report["sentence"]
    assert report["timing"]["reason"] == "no timing was asked for"


@pytest.mark.parametrize(
    ("judges", "precision", "message"),
    [
        (["oracle"], None, "NAME=URL"),
        (["a=http://127.0.0.1:1", "a=http://127.0.0.1:2"], None, "a name of its own"),
        (["a=http://127.0.0.1:1"], 0.7, "precision"),
    ],
    ids=["form", "names", "precision"],
)
def test_judges_that_cannot_be_are_refused_before_anything_is_asked(
    task: Path, tmp_path: Path, judges: list[str], precision: float | None, message: str
) -> None:
    with pytest.raises(JudgeError, match=message):
        limbeck.validate(
            teacher="openai:t@http://127.0.0.1:9/v1",
            student="openai:s@http://127.0.0.1:9/v1",
            tasks=[task],
            out=tmp_path / "v",
            judges=judges,
            judge_precision=precision,
        )
