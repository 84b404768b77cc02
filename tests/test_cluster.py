import importlib.util
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.cluster import Cluster, environment_of, fits, needs_of, run_on
from limbeck.errors import MissingDependencyError, RecipeError, RunError


def _found(_: str) -> object:
    return object()


def _missing(_: str) -> None:
    return None


@pytest.fixture
def ray_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that Ray is installed; nothing here imports it."""
    monkeypatch.setattr(importlib.util, "find_spec", _found)


@pytest.mark.usefixtures("ray_is_there")
def test_an_address_is_local_auto_or_a_host_with_its_port() -> None:
    for address in ("local", "auto", "10.0.0.1:6379", "head.example:6379", "::1:6379"):
        assert Cluster(address).address == address
    for address in ("", "head", "head:", ":6379", "ray://head:10001", "head:port", "localhost"):
        with pytest.raises(RecipeError, match=r"--ray must be local, auto or the head's HOST:PORT"):
            Cluster(address)
    with pytest.raises(RecipeError, match="--ray-accelerators must be at least 0, got -1"):
        Cluster("local", -1)


def test_without_ray_its_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", _missing)
    with pytest.raises(MissingDependencyError, match=r"pip install 'limbeck\[ray\]'"):
        Cluster("local")


@pytest.mark.usefixtures("ray_is_there")
def test_a_head_that_does_not_answer_is_one_sentence() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(RunError, match=f"no Ray head answers at {address}"):
        run_on(Cluster(address), ["limbeck.ray_capture"], 1, lambda _: None)


@pytest.mark.usefixtures("ray_is_there")
def test_work_that_ends_without_a_word_means_that_the_cluster_was_lost(tmp_path: Path) -> None:
    # `json.tool` stands for the program that talks to Ray: it ends with a message that is not ours.
    with pytest.raises(RunError, match=r"the Ray cluster local was lost .* go on with --resume"):
        run_on(Cluster("local"), ["json.tool", str(tmp_path / "missing")], 1, lambda _: None)


@pytest.mark.usefixtures("ray_is_there")
def test_a_cluster_of_this_machine_alone_is_bound_to_it_and_reports_to_nobody() -> None:
    local, far = (environment_of(Cluster(a), 2) for a in ("local", "10.0.0.1:6379"))
    assert local["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in far
    assert local["RAY_USAGE_STATS_ENABLED"] == far["RAY_USAGE_STATS_ENABLED"] == "0"
    assert int(local["OMP_NUM_THREADS"]) >= 1
    assert "OMP_NUM_THREADS" not in far


@given(
    cpus=st.integers(1, 512),
    gpus=st.integers(0, 64),
    workers=st.integers(1, 64),
    share=st.none() | st.floats(0, 8),
)
def test_workers_never_take_more_than_there_is(
    cpus: int, gpus: int, workers: int, share: float | None
) -> None:
    room = {"CPU": float(cpus), "GPU": float(gpus), "memory": 1e9}
    if share is not None and share > gpus:
        with pytest.raises(RunError, match=f"the Ray cluster has {gpus}"):
            needs_of(room, workers, share)
        return
    needs = needs_of(room, workers, share)
    count = fits(room, needs)
    assert all(count * need <= room[kind] * (1 + 1e-9) for kind, need in needs.items())
    if share is None:
        assert needs["GPU"] == min(1, gpus)
    if not gpus:
        assert count >= min(workers, cpus)
