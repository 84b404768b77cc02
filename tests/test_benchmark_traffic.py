"""Composed traffic: deterministic, whole families on one side, the truth complete, days and nights told apart."""

import csv
import importlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import CorpusError
from limbeck.guard.traffic import read_log
from trafficdata import make

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
REAL = Path(__file__).parents[2] / "shared" / "data"
HOUR_S = 3600.0


@pytest.fixture(scope="module", autouse=True)
def _siblings() -> Iterator[None]:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"traffic.{name}")


@pytest.fixture(scope="module")
def material(_siblings: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return _module("material").Material(make(tmp_path_factory.mktemp("data")))


def _plan(fold: str, seed: int = 0, accounts: int = 3, campaigns: int = 3) -> Any:
    of = _module("folds").FOLDS[fold]
    honest = dict.fromkeys(_module("account").HONEST, accounts)
    return _module("census").Plan(
        of, seed, honest, _module("campaigns").training(of, campaigns, seed)
    )


def _written(material: Any, folder: Path, plan: Any) -> tuple[bytes, bytes]:
    log, truth = folder / "log.jsonl", folder / "truth.csv"
    _module("log").write(plan, material, log, truth)
    return log.read_bytes(), truth.read_bytes()


def _texts(observations: Iterator[Any]) -> set[str]:
    return {
        str(message["content"])
        for one in observations
        for message in one.request["messages"]
        if message["role"] == "user"
    }


def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(
    material: Any, tmp_path: Path
) -> None:
    first = _written(material, tmp_path, _plan("a"))
    assert _written(material, tmp_path, _plan("a")) == first
    assert _written(material, tmp_path, _plan("a", seed=1))[0] != first[0]


@pytest.mark.parametrize("fold", ["a", "b"])
def test_a_log_is_read_by_the_guard_in_the_order_of_time_and_every_account_is_in_the_truth(
    material: Any, tmp_path: Path, fold: str
) -> None:
    log, truth = tmp_path / "log.jsonl", tmp_path / "truth.csv"
    plan = _plan(fold)
    lines = _module("log").write(plan, material, log, truth)
    seen = list(read_log(log))
    assert len(seen) == lines
    assert all(a.ts <= b.ts for a, b in pairwise(seen))
    with truth.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    named = {row["account"]: row for row in rows}
    assert len(named) == len(rows)
    assert {one.account for one in seen} == set(named)
    assert {row["class"] for row in rows} == {*_module("account").HONEST, "copier"}
    assert all(bool(row["campaign"]) == (row["class"] == "copier") for row in rows)


def test_folds_share_no_family_no_source_and_no_tactic_but_replay(material: Any) -> None:
    a, b = (_module("folds").FOLDS[name] for name in "ab")
    for kind in a.families:
        assert not set(a.families[kind]) & set(b.families[kind])
    assert {tactic for tactic, _ in a.tactics} & {tactic for tactic, _ in b.tactics} == {"replay"}
    assert not {source for _, source in a.tactics} & {source for _, source in b.tactics}
    assert a.prose != b.prose


def test_no_text_of_a_held_out_family_is_in_the_log_that_is_fitted_on(material: Any) -> None:
    merged = _module("log").merged
    seen = {
        fold: "\n".join(_texts(merged(_plan(fold, accounts=12, campaigns=8), material)))
        for fold in "ab"
    }
    own = {
        "a": ("sharegpt", "mmlu", "boolq", "arc-easy", "arc-challenge", "winogrande", "alpaca", "flan_cot", "snips.train",
              "clinc", "sentence_polarity", "e2e.dev", "c4"),
        "b": ("instructionwild", "awesome_prompts", "gsm8k", "mathqa", "piqa", "social", "openbookqa", "bigbench tense",
              "codealpaca", "self_instruct", "glaive_toolcall_en_demo", "atis.train", "banking77.train", "subjectivity",
              "trec.train", "wikitext2.valid", "state_union"),
    }  # fmt: skip
    for fold, other in (("a", "b"), ("b", "a")):
        missing = [family for family in own[fold] if f"{family} item" not in seen[fold]]
        # BIG-bench's tasks are drawn a few at a time; all else must be there.
        assert [family for family in missing if not family.startswith("bigbench")] == []
        for family in own[fold]:
            assert f" {family} item" not in f" {seen[other]}".replace("\n", " "), family


def test_people_sleep_and_pipelines_do_not() -> None:
    clock = _module("clock")
    rng = np.random.default_rng(0)
    quietest: list[float] = []
    for _ in range(40):
        hour_N = (clock.daily(rng, 0.0, 14.0, 500) // HOUR_S % 24).astype(int)
        count_H = np.bincount(hour_N, minlength=24)
        # The six quietest hours in a row, wherever the person lives.
        quietest.append(min(np.roll(count_H, -h)[:6].sum() for h in range(24)) / 500)
    assert max(quietest) < 0.1
    hour_N = (clock.steady(rng, 0.0, 14.0, 2000) // HOUR_S % 24).astype(int)
    count_H = np.bincount(hour_N, minlength=24)
    assert min(np.roll(count_H, -h)[:6].sum() for h in range(24)) / 2000 > 0.2


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 2**32))
def test_clocks_give_as_many_moments_as_asked_in_order_and_within_their_days(
    count: int, days: int, seed: int
) -> None:
    clock = _module("clock")
    rng = np.random.default_rng(seed)
    for moment_N in (clock.daily(rng, 0.0, days, count), clock.steady(rng, 0.0, days, count)):
        assert len(moment_N) == count
        assert (np.diff(moment_N) >= 0).all()
        assert moment_N[0] >= 0
        assert moment_N[-1] <= days * clock.DAY_S
    runs = clock.bursts(rng, 0.0, days, count, runs=3, gap_s=1.0)
    assert len(runs) == count
    assert (np.diff(runs) >= 0).all()


@settings(max_examples=25)
@given(st.integers(1, 60), st.sampled_from([0.05, 0.25, 1.0]), st.integers(1, 400))
def test_a_campaign_splits_its_requests_and_never_asks_a_place_twice(
    accounts: int, mix: float, queries: int
) -> None:
    fold = _module("folds").FOLDS["a"]
    copier = _module("copier")
    made = _module("campaigns").campaign(
        fold, 0, accounts=accounts, mix=mix, queries=queries, seed=5
    )
    shares = copier.shares(made)
    assert sum(shares) == made.queries
    assert max(shares) - min(shares) <= 1
    census = _module("census")
    places: Counter[int] = Counter()
    for account, of in census.accounts(census.Plan(fold, 0, {}, (made,))):
        copies = int(copier.marks(account, of).sum())
        places.update(account.shard + n * accounts for n in range(copies))
        assert mix < 1 or copies == account.requests
    assert not places or max(places.values()) == 1


@given(st.integers(1, 500), st.integers(0, 10**6))
def test_a_pool_asks_every_item_once_before_it_repeats(size: int, seed: int) -> None:
    pool = _module("tactics").Pool([str(n) for n in range(size)], ["prose"], seed)
    assert {pool.item(k) for k in range(size)} == set(pool.items)


def test_every_tactic_copies_its_source_and_cover_is_a_chat_of_the_same_fold(material: Any) -> None:
    census, copier, log = _module("census"), _module("copier"), _module("log")
    for name, fold in _module("folds").FOLDS.items():
        for place, (tactic, source) in enumerate(fold.tactics):
            made = _module("campaigns").campaign(
                fold, place, accounts=2, mix=0.5, queries=60, seed=place
            )
            census_of = census.Plan(fold, 0, {}, (made,))
            for account, of in census.accounts(census_of):
                sent = list(log.requests_of(account, of, material))
                for one, copies in zip(sent, copier.marks(account, of), strict=True):
                    text = one.request["messages"][-1]["content"]
                    if not copies:
                        assert one.request.get("logit_bias") is None
                        assert source not in text or source in fold.families["chat"]
                    elif tactic != "sweep":
                        assert any(
                            f"{source} item" in str(m["content"]) for m in one.request["messages"]
                        ), (name, tactic)


def test_a_pivoting_campaign_moves_to_the_new_model_on_the_day_of_its_release(
    material: Any,
) -> None:
    fold = _module("folds").FOLDS["a"]
    made = replace(
        _module("campaigns").campaign(fold, 0, accounts=4, mix=1.0, queries=200, seed=1),
        tempo="pivot",
    )
    census = _module("census")
    seen = list(_module("log").merged(census.Plan(fold, 0, {}, (made,)), material))
    release = census.START + 4 * 86_400
    assert {one.model for one in seen if one.ts < release} == {"alembic-large"}
    assert {one.model for one in seen if one.ts >= release} == {"alembic-large-2"}
    late = [one for one in seen if one.ts >= release]
    assert len(late) > 0.8 * len(seen)
    assert max(one.ts for one in late) <= release + 86_400


def test_an_office_shares_its_links_and_a_batch_of_copiers_its_cards(material: Any) -> None:
    census = _module("census")
    plan = _plan("a", accounts=40, campaigns=0)
    offices: dict[str, set[tuple[str, str, str]]] = {}
    for account, _ in census.accounts(plan):
        if account.kind == "office":
            links = account.links
            offices.setdefault(links.org, set()).add((links.asn, links.ip, links.payment))
    assert all(len(links) == 1 for links in offices.values())
    fold = plan.fold
    made = _module("campaigns").campaign(fold, 0, accounts=50, mix=1.0, queries=50, seed=1)
    cards = Counter(a.links.payment for a, _ in census.accounts(census.Plan(fold, 0, {}, (made,))))
    assert set(cards.values()) == {10}
    loose = replace(made, linked="loose")
    cards = Counter(a.links.payment for a, _ in census.accounts(census.Plan(fold, 0, {}, (loose,))))
    assert set(cards.values()) == {1}


@given(st.text(max_size=200))
def test_normalising_twice_is_normalising_once_and_braces_do_no_harm(text: str) -> None:
    disguise = _module("disguise")
    once = disguise.normalise(text)
    assert disguise.normalise(once) == once
    assert disguise.paraphrase(np.random.default_rng(0), text) is not None


def test_a_folder_without_prompts_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"holds no traffic/prompts\.jsonl\.gz; give its folder as --data"
    ):
        _module("material").Material(tmp_path)


def test_the_command_writes_a_log_of_the_real_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (REAL / "traffic" / "prompts.jsonl.gz").is_file():
        pytest.skip(f"{REAL} is not here; it holds sets that may not be shipped")
    make_traffic = importlib.import_module("make_traffic")
    options = [
        "--out",
        str(tmp_path),
        "--accounts",
        "2",
        "--campaigns",
        "2",
        "--fold",
        "b",
        "--data",
        str(REAL),
    ]
    monkeypatch.setattr("sys.argv", ["make_traffic.py", *options])
    make_traffic.main()
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert capsys.readouterr().out.startswith(f"{len(lines)} lines")
    assert all(json.loads(line)["request"]["messages"] for line in lines)
