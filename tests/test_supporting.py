"""The drawer beside an audit: everything that was asked for, counted, and nothing of it in the verdict."""

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from fakeapi import Json, message, serve
from limbeck.backends import load
from limbeck.errors import TraceError
from limbeck.pretrained import save
from limbeck.supporting import parse_candidates
from limbeck.trace.likeness import REFERENCES
from limbeck.trace.report import render_html
from limbeck.workbench import commit_coins, seal_coins, trace, trace_tables

Made = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def made(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Models like the teacher with other weights."""
    place = tmp_path_factory.mktemp("models")

    def make(name: str, seed: int) -> Path:
        model: Any = load(str(tiny_teacher_folder), dtype="float32")
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.model.parameters():
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
        save(model.model, model.tokenizer, place / name)
        return place / name

    return make


@pytest.fixture(scope="module")
def coins(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coins")
    (folder / "prompts.txt").write_text("".join(f"Say the number {i}.\n" for i in range(14)))
    commit_coins(
        folder / "prompts.txt",
        teacher=str(tiny_teacher_folder),
        out=folder / "coins",
        max_new_tokens=8,
    )
    seal_coins(folder / "coins", beacon="b", beacon_time=datetime.now(UTC) + timedelta(seconds=1))
    return folder / "coins"


def named(report: dict[str, Any]) -> dict[str, Any]:
    return {row["name"]: row for row in report["supporting"]}


def test_every_likeness_has_a_count_of_this_audits_references_and_of_known_lineages(
    coins: Path, made: Made, tiny_teacher_folder: Path
):
    asked: dict[str, Any] = {
        "coins": coins,
        "suspect": made("suspect", 1),
        "references": [tiny_teacher_folder, made("base", 2)],
    }
    plain = trace(**asked)
    report = trace(**asked, kinship=True, candidates=[f"other={made('other', 3)}"])
    found = named(report)
    assert set(found) == {
        "tokenizer", "architecture", "weights, cosine", "weights, order of hidden units",
        "activations, CKA", "text, overlap of word pairs",
    }  # fmt: skip
    for row in found.values():
        rates = {rate["among"]: rate for rate in row["measured"]}
        # The teacher is a reference of the audit; beside itself it is no null.
        assert rates[REFERENCES]["of"] == 1
        assert len(rates) == 5
        assert all(0 <= r["low"] <= r["alike"] / r["of"] <= r["high"] <= 1 for r in rates.values())
    assert found["weights, order of hidden units"]["likeness"] < 0.999
    assert found["text, overlap of word pairs"]["value"].count("other") == 1
    same = ("verdict", "e_value", "path", "coins_used", "strength", "because")
    assert {k: report[k] for k in same} == {k: plain[k] for k in same}
    assert plain["supporting"] == []
    page = render_html(report)
    assert "Supporting evidence, no part of the verdict" in page
    assert "which did learn from them" in page
    assert list(trace_tables(report))
    assert json.loads(json.dumps(report["supporting"])) == report["supporting"]


def test_a_descendant_of_the_teachers_weights_is_found_and_so_are_all_its_innocent_relatives(
    coins: Path, tiny_teacher_folder: Path, made: Made, tmp_path: Path
):
    model: Any = load(str(tiny_teacher_folder), dtype="float32")
    with torch.no_grad():
        for weight in model.model.parameters():
            weight.mul_(1.001)
    save(model.model, model.tokenizer, tmp_path / "tuned")
    report = trace(
        coins=coins, suspect=tmp_path / "tuned", references=[made("start", 4)], kinship=True
    )
    row = named(report)["weights, order of hidden units"]
    assert "p = 0.001" in row["value"]
    counts = {rate["among"]: (rate["alike"], rate["of"]) for rate in row["measured"]}
    assert counts["models initialised and trained apart"][0] == 0
    assert counts["re-runs of the teacher's last training phase"] == (9, 9)


def test_a_suspect_behind_an_api_is_compared_by_its_text_alone(
    coins: Path, tiny_teacher_folder: Path, made: Made
):
    def answer(body: Json, number: int) -> Json:
        return message(f"number {body['messages'][0]['content']}")

    with serve(answer) as api:
        report = trace(
            coins=coins,
            suspect=f"openai:m@{api.url}",
            references=[made("base", 2)],
            text_only=True,
            kinship=True,
            candidates=[f"other={made('other', 3)}"],
        )
    found = named(report)
    assert "behind an API" in found["weights and activations"]["means"]
    assert found["weights and activations"]["measured"] == []
    assert "among 1 references" in found["text, overlap of word pairs"]["value"]


def test_a_teacher_that_is_no_longer_here_is_said_not_to_be(made: Made, tmp_path: Path):
    teacher = made("gone", 5)
    (tmp_path / "prompts.txt").write_text("".join(f"Say {i}.\n" for i in range(12)))
    commit_coins(
        tmp_path / "prompts.txt", teacher=str(teacher), out=tmp_path / "coins", max_new_tokens=4
    )
    seal_coins(tmp_path / "coins")
    shutil.rmtree(teacher)
    report = trace(
        coins=tmp_path / "coins",
        suspect=made("suspect", 1),
        references=[made("base", 2)],
        kinship=True,
    )
    (row,) = report["supporting"]
    assert row["value"] == "not compared"
    assert "the teacher cannot be loaded here" in row["means"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["mill"], "NAME=MODEL"),
        (["=mill"], "NAME=MODEL"),
        (["a=x", "a=y"], "'a' is named twice"),
        (["teacher=x"], "always among the candidates"),
    ],
)
def test_a_candidate_that_is_none_is_refused_before_a_model_is_loaded(given: list[str], said: str):
    with pytest.raises(TraceError, match=said):
        parse_candidates(given)
    with pytest.raises(TraceError, match=said):
        trace(coins="nowhere", suspect="nothing", candidates=given)
