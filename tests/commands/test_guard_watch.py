import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from limbeck.cli import app
from limbeck.errors import GuardError
from limbeck.guard.policy import DEFAULT
from limbeck.guard.traffic import from_observation
from tinytraffic import compose

RUN = CliRunner()
CSV = "account,class,campaign,family\n"


def call(*arguments: object) -> str:
    done = RUN.invoke(app, ["guard", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    traffic = compose(honest=26, seed=1)
    lines = [json.dumps(from_observation(one)) for one in traffic.observations]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    rows = [f"{name},{t.kind},{t.campaign},{t.family}\n" for name, t in traffic.truths.items()]
    (tmp_path / "truth.csv").write_text(CSV + "".join(rows))
    (tmp_path / "suite.txt").write_text(
        "Copper kettles shine on the shelf while the still is warm.\n"
    )
    return tmp_path


def test_a_log_is_fitted_replayed_and_scored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMBECK_GUARD_SECRET", raising=False)
    log, truth = folder / "log.jsonl", folder / "truth.csv"
    assert "1 items" in call("suite", "build", folder / "suite.txt", "--out", folder / "s.suite")
    said = call(
        "fit",
        log,
        "--truth",
        truth,
        "--out",
        folder / "c.json",
        "--alpha",
        0.1,
        "--suite",
        folder / "s.suite",
    )
    digest = said.split()[-1]
    text = DEFAULT.read_text(encoding="utf-8").replace(
        "alpha = 0.001", f'alpha = 0.1\ncalibration = "c.json"\ncalibration_sha256 = "{digest}"'
    )
    (folder / "p.toml").write_text('suites = ["s.suite"]\n' + text)
    said = call("replay", log, "--policy", folder / "p.toml", "--out", folder / "d.jsonl")
    assert "0 duplicates" in said
    last = json.loads(call("score", log, folder / "d.jsonl", "--truth", truth).splitlines()[-1])
    assert set(last["classes"]) == {"chat", "pipeline", "benchmark", "agent", "copier"}
    assert list(last["classes"])[-1] == "copier"
    assert {"accounts", "accused", "upper_bound"} == set(last["classes"]["chat"])
    assert any(of["caught"] and of["queries_to_detection"] > 0 for of in last["campaigns"].values())


def test_another_secret_does_not_open_a_sketch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("suite", "build", folder / "suite.txt", "--out", folder / "s.suite")
    monkeypatch.setenv("LIMBECK_GUARD_SECRET", "of production")
    (folder / "p.toml").write_text('suites = ["s.suite"]\n')
    with pytest.raises(GuardError, match="another secret"):
        call(
            "replay",
            folder / "log.jsonl",
            "--policy",
            folder / "p.toml",
            "--out",
            folder / "d.jsonl",
        )


def test_decisions_on_another_log_are_not_scored(folder: Path) -> None:
    (folder / "d.jsonl").write_text('{"account": "chat-0", "action": "allow"}\n')
    with pytest.raises(GuardError, match="do not belong together"):
        call("score", folder / "log.jsonl", folder / "d.jsonl", "--truth", folder / "truth.csv")


@pytest.mark.parametrize(
    ("arguments", "said"), [(("--alpha", 0.7), "--alpha must lie"), (("--alpha", 0.001), "lacks")]
)
def test_a_promise_that_cannot_be_kept_is_refused(
    folder: Path, arguments: tuple[object, ...], said: str
) -> None:
    with pytest.raises(GuardError, match=said):
        call(
            "fit",
            folder / "log.jsonl",
            "--truth",
            folder / "truth.csv",
            "--out",
            folder / "c.json",
            *arguments,
        )
    assert not (folder / "c.json").exists()


def test_an_unknown_action_is_named(folder: Path) -> None:
    with pytest.raises(GuardError, match="one of allow, throttle"):
        call(
            "score",
            folder / "log.jsonl",
            folder / "d",
            "--truth",
            folder / "truth.csv",
            "--accused-from",
            "shout",
        )
