"""Seal, train, audit: the whole way with a real, tiny teacher, and through the command line."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fakeapi import Json, message, serve
from limbeck.backends import load
from limbeck.chat import Message
from limbeck.cli import app
from limbeck.distill.corpus import Prompt, Record, answered, prompt_ids
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.supervised import untaught
from limbeck.distill.train import train
from limbeck.errors import CorpusError, TraceError
from limbeck.pretrained import save
from limbeck.progress import Silent
from limbeck.trace.coins import Coin
from limbeck.trace.sealing import read_sealed
from limbeck.tracing import read_prompts
from limbeck.workbench import commit_coins, seal_coins, trace, trace_tables

COINS = 64
RARELY = 0.001
"""Keys are fresh at every run, so that an innocent account is accused with this chance, and the test fails with it."""


@pytest.fixture(scope="module")
def coins(tmp_path_factory: pytest.TempPathFactory, tiny_teacher_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("coins")
    lines = [json.dumps({"prompt": f"Say {i}.", "account": "ab"[i % 2]}) for i in range(COINS)]
    (folder / "prompts.jsonl").write_text("\n".join([*lines, lines[3]]))
    commit_coins(
        folder / "prompts.jsonl",
        teacher=str(tiny_teacher_folder),
        out=folder / "coins",
        max_new_tokens=12,
    )
    later = datetime.now(UTC) + timedelta(seconds=1)
    seal_coins(folder / "coins", beacon="round 9", beacon_time=later)
    return folder / "coins"


def student(teacher: Path, coins: Sequence[Coin], out: Path) -> Path:
    """Train the teacher's own weights on what the coins served, with Limbeck's loop."""
    local: Any = load(str(teacher), dtype="float32")
    documents = []
    for number, coin in enumerate(coins):
        record = Record((Message("user", coin.pair.prompt),), "", False, "")
        prompt = Prompt(prompt_ids(record, local.tokenizer), False, str(number))
        ids = local.tokenizer(coin.served, add_special_tokens=False)["input_ids"]
        documents.append(answered(prompt, ids))
    recipe = TrainRecipe(epochs=10.0, learning_rate=3e-3, rows=2, row_length=96, precision="no")
    local.model.requires_grad_(True)
    spec = LossSpec(kind="cross_entropy")
    taught = list(untaught(documents))
    train(local.model, taught, recipe, spec, out, seed=0, resume=False, progress=Silent())
    save(local.model, local.tokenizer, out / "model")
    return out / "model"


@pytest.fixture(scope="module")
def guilty(
    coins: Path, tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    found = read_sealed(coins).coins
    return student(tiny_teacher_folder, found, tmp_path_factory.mktemp("guilty"))


@pytest.fixture(scope="module")
def partial(
    coins: Path, tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    found = read_sealed(coins).of(["a"])
    return student(tiny_teacher_folder, found, tmp_path_factory.mktemp("partial"))


def run(*command: str) -> str:
    done = CliRunner().invoke(app, ["trace", *command], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_finds_a_student_of_the_served_answers(
    coins: Path, guilty: Path, tmp_path: Path
):
    out = str(tmp_path / "report")
    said = run("audit", "--coins", str(coins), "--suspect", str(guilty), "--json", "--out", out)
    report = json.loads(said)
    assert report["verdict"] == "distilled"
    assert report["alpha"] == 1e-3
    assert report["e_value"] >= 1000
    assert 10 <= report["coins_used"] < COINS
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Trained on these answers" in page
    assert "<script" not in page
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report


def test_the_teacher_itself_never_learned_from_what_it_served(
    coins: Path, guilty: Path, tiny_teacher_folder: Path
):
    """It wrote both answers alike; and a reference that did learn would show on the other side."""
    report = trace(coins=coins, suspect=tiny_teacher_folder, references=[guilty])
    assert report["verdict"] != "distilled"
    assert report["e_value"] < 1


def test_which_account_leaked_is_found_with_its_own_error_control(coins: Path, partial: Path):
    report = trace(coins=coins, suspect=partial, by_account=True, alpha=RARELY, kinship=True)
    assert report["accounts"]["found"] == ["a"]
    assert [row["name"] for row in report["accounts"]["tested"]] == ["a", "b"]
    alone = trace(coins=coins, suspect=partial, accounts=["b"], alpha=RARELY)
    assert alone["verdict"] != "distilled"
    assert {row["name"] for row in report["supporting"]} >= {"tokenizer", "architecture"}
    assert list(trace_tables(report))


def test_fewer_coins_than_a_verdict_needs_are_said_to_be_too_few(coins: Path, guilty: Path):
    report = trace(coins=coins, suspect=guilty, most=5)
    assert report["verdict"] == "undecided"
    assert "5 coins are fewer than the 10" in report["because"]


def test_text_alone_gives_a_verdict_with_a_corrected_p_value(coins: Path, guilty: Path):
    report = trace(coins=coins, suspect=guilty, text_only=True, alpha=0.05)
    assert {row["feature"] for row in report["features"]} == {
        "opening",
        "content",
        "order",
        "example",
    }
    best = min(row["adjusted_p_value"] for row in report["features"])
    assert (report["verdict"] == "distilled") == (best <= 0.05)
    assert best > 0


def test_sealing_counts_repeats_and_tells_the_teacher_by_its_hash(coins: Path):
    sealed = read_sealed(coins)
    assert len(sealed.coins) + sum(sealed.committed.skipped.values()) == COINS + 1
    assert sealed.committed.skipped["duplicate"] == 1
    assert len(sealed.committed.teacher["weights_sha256"]) == 64
    assert {c.pair.account for c in sealed.coins} == {"a", "b"}


def test_the_command_seals_in_one_go_and_in_two(tiny_teacher_folder: Path, tmp_path: Path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Say one.\n\nSay two.\nSay three.\n")
    start = [str(prompts), "--teacher", str(tiny_teacher_folder), "--max-new-tokens", "8"]
    assert "3 coins" in run("seal", *start, "--out", str(tmp_path / "one"))
    two = str(tmp_path / "two")
    assert "committed to" in run("seal", *start, "--out", two, "--commit")
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    run("seal", "--out", two, "--beacon", f"{later}=7f3a")
    assert read_sealed(Path(two)).beacon.value == "7f3a"
    assert read_sealed(tmp_path / "one").beacon.value == ""


def test_a_beacon_without_a_zone_or_from_too_early_is_refused(
    tiny_teacher_folder: Path, tmp_path: Path
):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Say one.\nSay two.\n")
    out = str(tmp_path / "coins")
    run(
        "seal", str(prompts), "--teacher", str(tiny_teacher_folder), "--out", out, "--commit",
        "--max-new-tokens", "8",
    )  # fmt: skip
    for beacon, said in (
        ("2026-11-24T10:00:00=aa", "with its zone"),
        ("2020-01-01T00:00:00Z=aa", "public before the commitment"),
    ):
        with pytest.raises(TraceError, match=said):
            run("seal", "--out", out, "--beacon", beacon)


def test_a_teacher_behind_an_api_is_asked_twice_with_other_seeds(tmp_path: Path):
    def answer(body: Json, number: int) -> Json:
        return message(f"{body['seed']}: {body['messages'][0]['content']}")

    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Say one.\nSay two.\n")
    with serve(answer) as api:
        teacher = f"openai:m@{api.url}"
        commit_coins(prompts, teacher=teacher, out=tmp_path / "coins", temperature=0.7)
        sealed = seal_coins(tmp_path / "coins")
        assert {r["temperature"] for r in api.requests} == {0.7}
    assert [(c.pair.y0, c.pair.y1) for c in sealed.coins] == [
        ("0: Say one.", "1: Say one."),
        ("0: Say two.", "1: Say two."),
    ]
    assert sealed.committed.teacher["name"] == teacher


def test_a_suspect_is_no_reference_for_itself(coins: Path, tiny_teacher_folder: Path):
    with pytest.raises(TraceError, match="is the suspect itself"):
        trace(coins=coins, suspect=tiny_teacher_folder)


def test_a_folder_without_coins_and_an_unknown_account_are_named(
    coins: Path, guilty: Path, tmp_path: Path
):
    with pytest.raises(TraceError, match=r"has no commitment\.json"):
        trace(coins=tmp_path, suspect=guilty)
    with pytest.raises(TraceError, match="account 'zoe' has no coin"):
        trace(coins=coins, suspect=guilty, accounts=["zoe"])


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0])
def test_an_alpha_that_is_none_is_refused_before_a_model_is_loaded(alpha: float):
    with pytest.raises(TraceError, match="alpha must lie between 0 and 1"):
        trace(coins="nowhere", suspect="nothing", alpha=alpha)


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "line 1 is not JSON"), ("[]", "must be an object"), ('{"prompt": ""}', "needs text")],
)
def test_a_malformed_prompt_is_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(CorpusError, match=said):
        read_prompts(tmp_path / "p.jsonl")


def test_a_prompt_file_that_is_no_text_is_named_and_line_separators_within_a_prompt_are_kept(
    tmp_path: Path,
):
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CorpusError, match="is not text in UTF-8"):
        read_prompts(path)
    row = json.dumps({"prompt": "one\u2028two"}, ensure_ascii=False)
    path.write_text(f"{row}\n{row}\n", encoding="utf-8")
    assert read_prompts(path) == [("one\u2028two", "")] * 2


def test_sealing_what_was_never_committed_to_makes_no_keys(tmp_path: Path):
    with pytest.raises(TraceError, match=r"has no commitment\.json"):
        seal_coins(tmp_path / "coins", beacon="x")
    assert not (tmp_path / "coins").exists()


def test_an_empty_or_missing_prompt_file_is_named(tmp_path: Path):
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(CorpusError, match="holds no prompts"):
        read_prompts(tmp_path / "p.txt")
    with pytest.raises(CorpusError, match="does not exist"):
        read_prompts(tmp_path / "q.txt")


def test_the_command_ranks_a_teacher_among_its_siblings(
    coins: Path, guilty: Path, partial: Path, tiny_teacher_folder: Path, tmp_path: Path
):
    """Two trainings from one start are siblings; a copy of the first ranks it first, and two cannot reach 0.01."""
    contexts = tmp_path / "contexts.txt"
    contexts.write_text("".join(f"Say {i} and then\n" for i in range(20)))
    said = run(
        "siblings", str(contexts), "--suspect", str(guilty), "--teacher", str(guilty),
        "--before", str(tiny_teacher_folder), "--sibling", str(partial), "--json",
    )  # fmt: skip
    found = json.loads(said)
    assert (found["rank"], found["siblings"], found["contexts"]) == (1, 1, 20)
    assert found["p_value"] == 0.5
    assert found["verdict"] == "undecided"
    assert "fewer than the 99" in found["because"]
