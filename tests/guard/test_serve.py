"""The whole guard: supervisor, two workers, keeper, accounts, ledger, in processes of their own."""

import asyncio
import json
import os
import resource
import signal
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

from guard.fakeupstream import END, STREAM_HEAD, Asked, Pieces, chunked, completion, delta, whole
from guard.guarding import Guard, guarding, limbeck, until, upstream_in_a_thread
from guard.running import hello
from limbeck.ledger.reading import Reading
from limbeck.ledger.record import read_leaf
from limbeck.ledger.tables import connect_to_read

MODELS = b'{"object":"list","data":[{"id":"m","object":"model"}]}'


async def play(asked: Asked) -> Pieces:
    """Answer at once, or stream for two seconds."""
    if asked.path == "/v1/models":
        yield whole(MODELS)
    elif asked.json.get("stream"):
        yield STREAM_HEAD
        for _ in range(20):
            yield chunked(delta("a"))
            await asyncio.sleep(0.1)
        yield chunked(b"data: [DONE]\n\n") + END
    else:
        yield whole(completion())


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Generator[Guard]:
    with (
        upstream_in_a_thread(play) as fake,
        guarding(
            tmp_path_factory.mktemp("g") / "guard",
            f"http://127.0.0.1:{fake.port}",
            "alice",
            "bob",
            "carol",
            "dave",
        ) as running,
    ):
        yield running


def served(guard: Guard, name: str) -> bool:
    return guard.ask(key=guard.keys[name], body=hello())[0] == 200


def test_the_models_are_the_upstreams_and_each_key_opens(guard: Guard) -> None:
    status, body = guard.ask("/v1/models", guard.keys["alice"])
    assert (status, json.loads(body)["data"][0]["id"]) == (200, "m")
    assert guard.ask(key=guard.keys["alice"], body=hello()) == (200, completion())
    assert served(guard, "bob")
    assert guard.ask(key="lk-nobody", body=hello())[0] == 401


def test_metrics_add_up_the_workers(guard: Guard) -> None:
    def count() -> float:
        lines = guard.ask("/metrics")[1].decode().splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("limbeck_requests_total") and 'status="200"' in line
        )

    before = count()
    for _ in range(30):
        assert served(guard, "alice")
    until(lambda: count() >= before + 30)
    assert 'limbeck_part_up{part="ledger"} 1.0' in guard.ask("/metrics")[1].decode()


def test_a_revoked_key_opens_nothing_on_any_worker_soon_after(guard: Guard) -> None:
    made = json.loads(limbeck("key", "create", "carol", "--json", "--folder", str(guard.folder)))
    until(lambda: guard.ask(key=made["secret"], body=hello())[0] == 200, 5)
    limbeck("key", "revoke", made["id"], "--folder", str(guard.folder))
    time.sleep(0.6)
    assert {guard.ask(key=made["secret"], body=hello())[0] for _ in range(20)} == {401}
    assert served(guard, "carol")


def test_a_hold_that_a_person_signs_comes_into_force_and_is_lifted(guard: Guard) -> None:
    until(lambda: served(guard, "dave"))
    limbeck(
        "block",
        "create",
        "--org",
        "dave",
        "--reason",
        "test",
        "--by",
        "anna",
        "--folder",
        str(guard.folder),
    )
    refused = lambda: guard.ask(key=guard.keys["dave"], body=hello())[0] == 403  # noqa: E731
    until(lambda: all(refused() for _ in range(10)))  # by every worker
    assert b"appeal" in guard.ask(key=guard.keys["dave"], body=hello())[1]


def test_each_process_may_hold_as_many_connections_as_the_system_allows(guard: Guard) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for child in guard.children():
        assert resource.prlimit(child, resource.RLIMIT_NOFILE) == (most, most)


@pytest.mark.parametrize("which", ["keeper", "worker"])
def test_a_process_that_is_killed_is_started_again(guard: Guard, which: str) -> None:
    keeper, *workers = sorted(guard.children())
    os.kill(keeper if which == "keeper" else workers[0], signal.SIGKILL)
    until(lambda: bool([e for e in guard.events("child_died") if e["child"].startswith(which)]))
    assert any(served(guard, "alice") for _ in range(10)) or which == "worker"
    until(lambda: len(guard.children()) == 3)
    until(guard.is_ready)
    until(lambda: guard.ask("/metrics")[0] == 200)
    assert all(served(guard, "alice") for _ in range(10))


def test_a_reload_changes_new_requests_and_drops_no_stream(guard: Guard) -> None:
    stream = asyncio.run(
        during_a_stream(guard, lambda: reload(guard, '[models.n]\nupstream = "m"\n'))
    )
    assert stream.endswith(b"data: [DONE]\n\n")
    until(lambda: all(asked(guard, "m") == 404 and asked(guard, "n") == 200 for _ in range(10)), 10)
    reload(guard, "[models.n]\nfoo = 1\n")
    until(lambda: bool(guard.events("reload_refused")))
    assert asked(guard, "n") == 200
    reload(guard, "")
    until(lambda: all(asked(guard, "m") == 200 for _ in range(10)), 10)


def asked(guard: Guard, model: str) -> int:
    return guard.ask(key=guard.keys["alice"], body=hello(model=model))[0]


def reload(guard: Guard, models: str) -> None:
    path = guard.folder / "guard.toml"
    text = path.read_text().partition("[models")[0]
    path.write_text(text + models)
    guard.process.send_signal(signal.SIGHUP)


async def during_a_stream(guard: Guard, act: object) -> bytes:
    """Return a stream's body; `act` happens after its first event."""
    from guard.running import Client, request

    async with Client(guard.port) as client:
        reader, writer = await client.streams()
        writer.write(request(hello(stream=True), key=guard.keys["alice"]))
        await reader.readuntil(delta("a"))
        await asyncio.get_running_loop().run_in_executor(None, act)  # pyright: ignore[reportArgumentType]
        rest = await reader.readuntil(b"0\r\n\r\n")
        return rest.removesuffix(b"\r\n0\r\n\r\n")


def test_the_end_drains_records_and_leaves_a_ledger_that_holds(tmp_path: Path) -> None:
    folder = tmp_path / "guard"
    with (
        upstream_in_a_thread(play) as fake,
        guarding(folder, f"http://127.0.0.1:{fake.port}", "alice") as guard,
    ):
        for _ in range(5):
            assert served(guard, "alice")
        stream = asyncio.run(
            during_a_stream(guard, lambda: guard.process.send_signal(signal.SIGTERM))
        )
        assert stream.endswith(b"data: [DONE]\n\n")
        assert guard.process.wait(20) == 0
    ledger = folder / "ledger" / "ledger.db"
    assert "sound" in limbeck("ledger", "info", str(ledger), "--audit")
    with closing(connect_to_read(ledger)) as connection:
        reading = Reading(connection)
        records = [read_leaf(leaf) for leaf in reading.leaves(0, reading.size())]
    assert sum(len(one.content["requests"]) for one in records if one.kind == "sketch") == 6
    assert (folder / "watch.snapshot").exists()
    assert not (folder / "keeper.sock").exists()


def test_a_guard_without_an_upstream_or_with_a_taken_port_says_so(tmp_path: Path) -> None:
    import subprocess
    import sys

    limbeck("init", "--folder", str(tmp_path / "g"))
    for more, said in (
        (["--upstream", "ftp://x"], "http://127.0.0.1:8000"),
        ([], "the upstream must be a URL"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "limbeck", "guard", "serve", "--folder", str(tmp_path / "g"), *more], capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip
        assert done.returncode == 1
        assert said in done.stderr
