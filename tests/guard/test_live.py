"""Live and replay: a guard in processes decides about its traffic; replaying its traffic log decides the same, to the bit."""

import asyncio
import json
import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guard.fakeupstream import END, STREAM_HEAD, Asked, Pieces, chunked, completion, delta, whole
from guard.guarding import Guard, guarding, limbeck, until, upstream_in_a_thread
from guard.running import Client
from limbeck.cli import app
from limbeck.guard.evidence.calibration import save
from limbeck.guard.fit import Plan, calibrate, record
from limbeck.guard.journal import Journal
from limbeck.guard.policy import DEFAULT
from limbeck.guard.traffic import parse_clock
from limbeck.ledger.keys import read_keys
from limbeck.ledger.pseudonym import opening, pseudonym
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import read_leaf
from limbeck.ledger.tables import connect_to_read
from tinytraffic import compose, dice, words

ALPHA = 0.1
HONEST, COPYING = ("ann", "ben"), ("eve", "fay", "guy")
FLOOD = "hal"
CONFIG = """
[models.m]
upstream = "m"
[server]
client_ip_header = "x-client"
[watch]
policy = "policy.toml"
burst = 60
per_s = 1
[traffic]
folder = "traffic"
[[traffic.texts]]
account = "eve"
reason = "appeal 12"
days = 7
"""


async def play(asked: Asked) -> Pieces:
    """Answer whole without counting tokens, whole, or in a stream; now and then, fail."""
    if asked.json.get("stream"):
        yield STREAM_HEAD
        for word in ("It", " is", " so", "."):
            yield chunked(delta(word))
        yield chunked(b"data: [DONE]\n\n") + END
    elif asked.json["temperature"] == 0.125:
        yield whole(b'{"error":{"message":"no"}}', status="500 Internal Server Error")
    elif asked.json["temperature"] == 0.25:
        yield whole(completion("Is it so, é? " * 40, usage=None))
    else:
        yield whole(completion())


def bodies(name: str, count: int) -> Iterator[bytes]:
    """What an account asks: of its own kind, in every form that the gateway knows."""
    rng = dice(name)
    told = [{"role": "system", "content": " ".join(words(rng, 12, 7))}]
    for n in range(count):
        if name in COPYING:
            turns = [
                {
                    "role": "user",
                    "content": " ".join(words(rng, 16)) + " Explain your reasoning in detail.",
                }
            ]
        elif n % 3:
            turns = [*told, {"role": "user", "content": " ".join(words(rng, 6, 3))}]
        else:
            turns = [
                {"role": "user", "content": [{"type": "text", "text": " ".join(words(rng, 9, 2))}]},
                {"role": "assistant", "content": " ".join(words(rng, 9, 2))},
                {"role": "user", "content": "Make it shorter, ça va? 一步一步"},
            ]
        body: dict[str, Any] = {
            "model": "m",
            "messages": turns,
            "temperature": rng.choice([0.0, 0.125, 0.25, 1]),
        }
        if name in COPYING:
            body["max_tokens"] = 4096
        if n % 4 == 1:
            body["stream"] = True
        if n % 7 == 2:
            body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        if n % 9 == 5:
            body["logprobs"] = True  # refused, and heard of by the watch
        yield json.dumps(body, indent=n % 2 or None, ensure_ascii=bool(n % 5)).encode()


async def ask_all(guard: Guard) -> dict[int, int]:
    """Send everything, each account over a connection of its own, at the same time; return statuses, counted."""
    statuses: dict[int, int] = defaultdict(int)

    async def one(name: str, count: int) -> None:
        async with Client(guard.port) as client:
            place = "10.0.0.9" if name in COPYING else f"10.0.1.{len(name) + ord(name[0])}"
            for body in bodies(name, count):
                got = await client.post(body, key=guard.keys[name], x_client=place)
                statuses[got.status] += 1

    counts = {**dict.fromkeys((*HONEST, *COPYING), 40), FLOOD: 160}
    await asyncio.gather(*(one(name, count) for name, count in counts.items()))
    return dict(statuses)


def seen(guard: Guard) -> float:
    text = guard.ask("/metrics")[1].decode()
    return next(
        float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("limbeck_observed_total")
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a guard that was asked by several accounts at once, and stopped."""
    folder = tmp_path_factory.mktemp("live") / "guard"
    limbeck("init", "--folder", str(folder))
    traffic, plan = compose(honest=26, seed=1), Plan(alpha=ALPHA, least=10)
    histories, labels = record(
        lambda: traffic.observations, traffic.truths, plan, secret=b"of another log"
    )
    save(calibrate(histories, labels, plan), folder / "c.json")
    shipped = DEFAULT.read_text(encoding="utf-8")
    fitted = shipped.replace("alpha = 0.001", f'alpha = {ALPHA}\ncalibration = "c.json"')
    (folder / "policy.toml").write_text(fitted)
    with (
        upstream_in_a_thread(play) as fake,
        guarding(
            folder, f"http://127.0.0.1:{fake.port}", *HONEST, *COPYING, FLOOD, config=CONFIG
        ) as guard,
    ):
        statuses = asyncio.run(ask_all(guard))
        assert statuses.keys() == {200, 403, 500}
        before = -1.0
        while before != (before := seen(guard)):
            until(lambda: True)
        assert guard.stop() == 0
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted((folder / "traffic").iterdir())
        for line in path.read_bytes().splitlines()
    ]


def recorded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The ledger's decision records, by account."""
    secret = read_keys(folder / "ledger").secret
    names = {pseudonym(name, opening(secret, name)): name for name in (*HONEST, *COPYING, FLOOD)}
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with closing(connect_to_read(folder / "ledger" / "ledger.db")) as connection:
        reading = Reading(connection)
        for leaf in reading.leaves(0, reading.size()):
            one = read_leaf(leaf)
            if one.kind == "decision":
                found[names[one.account]].append(dict(one.content))
    return found


def changes(decisions: Path) -> dict[str, list[dict[str, Any]]]:
    """What replay decided, where an account's action changed: that is what a ledger records."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    standing: dict[str, str] = {}
    for line in decisions.read_bytes().splitlines():
        one = json.loads(line)
        account = one["account"]
        if one["action"] != standing.get(account, "allow"):
            found[account].append(one)
        standing[account] = one["action"]
    return found


def replayed(folder: Path, log: Path, out: Path) -> dict[str, list[dict[str, Any]]]:
    done = CliRunner().invoke(
        app, ["guard", "replay", str(log), "--folder", str(folder), "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    assert "0 duplicates dropped" in done.output
    return changes(out)


def test_replay_of_the_traffic_log_decides_as_the_guard_did_to_the_bit(
    ended: Path, tmp_path: Path
) -> None:
    again, ledger = replayed(ended, ended / "traffic", tmp_path / "d.jsonl"), recorded(ended)
    assert {name for name, made in ledger.items() if made[-1]["action"] in {"challenge", "hold"}}
    assert again.keys() == ledger.keys()
    for name, made in ledger.items():
        assert len(made) == len(again[name])
        for live, replay in zip(made, again[name], strict=True):
            assert parse_clock(replay["ts"]) == live["ts"]
            assert float(replay["e_value"]).hex() == float(live["e_value"]).hex()
            for part in ("action", "clause", "cluster"):
                assert replay[part] == live[part]
            assert [{"detail": "", **one} for one in replay["because"]] == live["because"]


def test_the_log_holds_no_text_but_of_the_account_that_the_operator_named(ended: Path) -> None:
    found = lines(ended)
    assert {one["account"] for one in found if "request" in one} == {"eve"}
    assert all(
        one["attributes"]["text_because"] == "appeal 12" for one in found if "request" in one
    )
    others = json.dumps([one for one in found if one["account"] != "eve"])
    for text in (
        "reasoning in detail",
        "Make it shorter",
        "Is it so",
        " ".join(words(dice("ann"), 12, 7)),
    ):
        assert text not in others
    assert {path.stat().st_mode & 0o777 for path in (ended / "traffic").iterdir()} == {0o600}


def test_of_a_flood_the_log_holds_what_the_watch_saw(ended: Path) -> None:
    kept = sum(one["account"] == FLOOD for one in lines(ended))
    assert 30 <= kept < 160  # a worker looks at its half of the burst
    assert len({one["id"] for one in lines(ended)}) == len(lines(ended))


def test_once_texts_are_gone_a_replay_still_decides_the_same(ended: Path, tmp_path: Path) -> None:
    folder = tmp_path / "traffic"
    folder.mkdir()
    for path in (ended / "traffic").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = replayed(ended, folder, tmp_path / "before.jsonl")
    Journal(folder, days=100, clock=lambda: time.time() + 8 * 86_400).tidy()
    assert not any(
        "request" in json.loads(line)
        for path in folder.iterdir()
        for line in path.read_bytes().splitlines()
    )
    assert replayed(ended, folder, tmp_path / "after.jsonl") == before


def test_what_a_person_takes_back_stays_so_though_the_keeper_is_killed_at_once(
    ended: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "guard"
    shutil.copytree(ended, folder)
    before = recorded(folder)
    accused = [name for name in COPYING if before[name][-1]["action"] in {"challenge", "hold"}]
    lifted, other = accused[:2]
    with (
        upstream_in_a_thread(play) as fake,
        guarding(folder, f"http://127.0.0.1:{fake.port}") as guard,
    ):
        limbeck("standing", "restore", lifted, "--by", "Ada Lovelace", "--folder", str(folder))
        until(lambda: len(guard.events("lifted")) == 1)
        os.kill(min(guard.children()), signal.SIGKILL)  # the snapshot is older than the lift
        until(lambda: len(guard.events("lifted")) == 2)
        until(guard.is_ready)
        for name in (lifted, other):
            made = limbeck("key", "create", name, "--json", "--folder", str(folder))
            key = json.loads(made)["secret"]
            body = next(bodies("ann", 1))
            until(lambda key=key, body=body: guard.ask(key=key, body=body)[0] in {200, 500}, 5)
        until(lambda: seen(guard) >= 2)
        assert guard.stop() == 0
    after = recorded(folder)
    assert after[lifted] == before[lifted]
    assert after[other][-1]["action"] in {"challenge", "hold"}
    assert len(after[other]) == len(before[other]) + 1
