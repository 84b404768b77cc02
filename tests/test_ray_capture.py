"""Capture on a real Ray, of this machine alone; every test starts one of its own."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import limbeck
from limbeck.artefact import hash_tree
from limbeck.distill.recipe import Recipe, load_recipe
from limbeck.distill.store import StoreReader, describe
from limbeck.workbench import verify_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]

RECIPE = """
name = "tiny"
[teacher]
model = "{teacher}"
dtype = "float32"
terms = {{licence = "Apache-2.0"}}
[corpus]
template = "Say {{what}} to {{whom}}, number {{n}}."
max_length = 96
[corpus.slots]
what = ["hello", "thanks", "goodbye", "sorry"]
whom = ["Anna", "the baker", "a friend"]
n = {numbers}
[generate]
max_new_tokens = 48
batch = 2
[capture]
workers = 2
parts = 4
shard_documents = 4
[student]
layers = 2
[train]
row_length = 96
"""
DEADLINE_SECONDS = 400
RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "8",  # a minute by itself
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""For a head of the test's own; that a local cluster stays on the loopback interface is Limbeck's to see to."""


@pytest.fixture
def path(tiny_teacher_folder: Path, tmp_path: Path) -> Path:
    """A recipe whose capture takes long enough to be disturbed."""
    made = tmp_path / "tiny.toml"
    numbers = json.dumps([str(n) for n in range(20)])
    made.write_text(RECIPE.format(teacher=tiny_teacher_folder, numbers=numbers))
    return made


@pytest.fixture
def run(path: Path, tmp_path: Path) -> Path:
    """A run that is ready for capture."""
    return _ready(load_recipe(path), tmp_path / "run")


def _ready(recipe: Recipe, run: Path) -> Path:
    for step in ("corpus", "terms"):
        limbeck.distill(recipe, out=run, only=step)
    return run


def _start(path: Path, run: Path, address: str, *words: str) -> subprocess.Popen[str]:
    command = ["limbeck", "distill", str(path), "--out", str(run), "--only", "capture"]
    return subprocess.Popen(
        [sys.executable, "-m", *command, "--ray", address, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | RAY | ({} if address == "local" else LOOPBACK),
    )


def _said(process: subprocess.Popen[str], code: int) -> str:
    try:
        said = process.communicate(timeout=DEADLINE_SECONDS)[0]
    finally:
        process.kill()
    assert process.returncode == code, said
    return said


def _until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes in which parts are written; Ray names them so."""
    found: list[psutil.Process] = []
    for each in _family(process):
        with contextlib.suppress(psutil.Error):
            if "MapWorker" in " ".join(each.cmdline()):
                found.append(each)
    return found


def _listening(process: subprocess.Popen[str]) -> set[str]:
    addresses: set[str] = set()
    for each in _family(process):
        with contextlib.suppress(psutil.Error):
            for connection in each.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    addresses.add(connection.laddr.ip)
    return addresses


def _shards(run: Path) -> list[Path]:
    return sorted((run / "store").glob("part-*.shard"))


def _assert_every_document_once(run: Path) -> None:
    lines = (run / "corpus" / "documents.jsonl").read_text().splitlines()
    asked = sorted(json.loads(line)["key"] for line in lines)
    reader = StoreReader(run / "store")
    assert sorted(t.document.key for t in reader.documents()) == asked
    assert describe(run / "store")["parts"] == 4
    verify_store(run / "store")
    assert not list(run.glob(".capture-*"))


def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(
    path: Path, run: Path, tmp_path: Path
) -> None:
    capture = _start(path, run, "local")
    try:
        _until(lambda: len({shard.name[:8] for shard in _shards(run)}) == 2, capture)
        assert len(_workers(capture)) == 2
        assert {a.removeprefix("::ffff:") for a in _listening(capture)} == {"127.0.0.1"}
        before = {shard.name for shard in _shards(run)}
        _workers(capture)[0].send_signal(signal.SIGKILL)
        assert not (run / "store" / "manifest.json").exists()
    finally:
        said = _said(capture, 0)
    assert "capture: done" in said
    assert before
    _assert_every_document_once(run)
    # A run that nobody disturbed has the same store to the bit: no shard was written by two.
    quiet = _ready(load_recipe(path), tmp_path / "quiet")
    limbeck.distill(load_recipe(path), out=quiet, only="capture")
    assert hash_tree(quiet / "store") == hash_tree(run / "store")


@pytest.fixture
def head() -> Iterator[tuple[str, psutil.Process]]:
    """The head of a cluster on the loopback interface: its address and its central process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    ray = subprocess.Popen(
        [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *words, "--block"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | RAY | LOOPBACK,
    )
    family: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 600
        while not (found := [p for p in _kin(ray) if "gcs_server" in p.name()]) or not _open(port):
            assert ray.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        family = _kin(ray)
        yield f"127.0.0.1:{port}", found[0]
    finally:
        for each in [*family, *_kin(ray)]:
            with contextlib.suppress(psutil.Error):
                each.kill()
        ray.kill()
        ray.wait()


def _kin(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_lost_head_is_one_sentence_and_resume_goes_on(
    path: Path, run: Path, head: tuple[str, psutil.Process]
) -> None:
    address, central = head
    capture = _start(path, run, address)
    _until(lambda: len(_shards(run)) >= 2, capture)
    central.kill()
    said = _said(capture, 1)
    told = [line for line in said.splitlines() if line.startswith("limbeck: ")]
    assert len(told) == 1, said
    assert re.search(rf"the Ray cluster {address} was lost .* go on with --resume", told[0])
    assert _shards(run)
    assert not (run / "store" / "manifest.json").exists()

    refused = _said(_start(path, run, "local"), 1)
    assert "holds an unfinished capture (store); go on with --resume" in refused
    _said(_start(path, run, "local", "--resume"), 0)
    _assert_every_document_once(run)
