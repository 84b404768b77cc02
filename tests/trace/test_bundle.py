import json
from dataclasses import replace
from pathlib import Path

import pytest

from limbeck.errors import TraceError
from limbeck.ledger.container import read_container
from limbeck.ledger.keys import new_keys
from limbeck.trace.bundle import environment, record_run, register, teacher_of, trace_records
from limbeck.trace.sealing import KEY
from smalltrace import PLAN, TEACHER, Case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_bundle_holds_everything_and_a_page_that_prints(case: Case) -> None:
    files = read_container(case.honest())
    assert {"coins.jsonl", "coin.key", "ledger.zip", "run-1.json", "run-1.html"} <= files.keys()
    page = files["run-1.html"].decode()
    assert "@media print" in page
    assert "Trained on these answers" in page
    assert "test beacon, round 7" in files["README.txt"].decode()
    assert json.loads(files["environment.json"]) == environment()


def test_a_bundle_may_be_a_folder(case: Case) -> None:
    case.commit()
    case.register()
    case.seal()
    out = case.export(case.audit(), out="folder")
    assert (out / "manifest.json").is_file()


def test_registration_and_runs_stand_in_the_ledger_in_order(case: Case) -> None:
    case.honest()
    found = case.log(lambda log: trace_records(log, case.keys))
    assert [r.kind for r in found] == ["coin", "registration", "run"]
    assert found[2].content["number"] == 1


def test_the_same_report_is_one_run_and_another_is_the_next(case: Case) -> None:
    case.commit()
    case.register()
    case.seal()
    one, two = (json.loads(case.audit(g).read_text()) for g in (0.0, 6.0))
    numbers = case.log(lambda log: [record_run(log, case.keys, "note", r) for r in (one, two, one)])
    assert numbers == [1, 2, 1]


def test_the_teacher_is_named_by_the_commitment(case: Case) -> None:
    case.commit()
    assert teacher_of(case.coins) == TEACHER


def test_a_plan_is_not_changed(case: Case) -> None:
    case.commit()
    case.register()
    with pytest.raises(TraceError, match="is registered already; a plan is not changed"):
        case.register(replace(PLAN, alpha=0.5))


def test_coins_of_another_key_are_not_registered(case: Case, tmp_path: Path) -> None:
    case.commit()
    other = Case(tmp_path / "other", new_keys("example.org/owner"), case.clock)
    other.folder.mkdir()
    with pytest.raises(TraceError, match=r"was committed to by .*, not with this ledger's key"):
        other.log(lambda log: register(case.coins, PLAN, log, other.keys))


def test_without_the_key_of_the_coins_there_is_no_bundle(case: Case) -> None:
    case.commit()
    case.register()
    case.seal()
    report = case.audit()
    (case.coins / KEY).unlink()
    with pytest.raises(TraceError, match="without it nobody can check a bit"):
        case.export(report)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is no report of an audit"),
        ('{"features": []}', "is no report"),
    ],
)
def test_what_is_no_report_is_refused(text: str, words: str, case: Case, tmp_path: Path) -> None:
    case.commit()
    case.register()
    case.seal()
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(TraceError, match=words):
        case.export(tmp_path / "report.json")


def test_a_bundle_needs_a_run(case: Case, tmp_path: Path) -> None:
    case.commit()
    case.register()
    case.seal()
    with pytest.raises(TraceError, match="needs the report of at least one run"):
        case.export()
    with pytest.raises(TraceError, match="is missing; `limbeck trace audit"):
        case.export(tmp_path / "none")


def test_a_folder_without_coins_is_named(case: Case) -> None:
    case.coins.mkdir()
    with pytest.raises(TraceError, match="has no commitment"):
        case.register()
