"""The gateways that are compared, each started with two workers in front of the same mock model server."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
BASELINES = HERE.parent / ".venv-baselines"
WORKERS = 2
MASTER = "sk-limbeck-benchmark"
CONFIG = """\
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
litellm_settings: {{num_retries: 0, request_timeout: 60, telemetry: false}}
"""


@dataclass(frozen=True, slots=True)
class Arm:
    """A gateway that runs: where, and which keys open it."""

    name: str
    port: int
    pid: int
    keys: Path


def free_port() -> int:
    """Return a port that nobody listens on, with a free one after it."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, path: str = "/", env: dict[str, str] | None = None
) -> Generator[int]:
    """Run a server until the block ends; wait until it answers anything under `path`."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | (env or {}), start_new_session=True
        )
        try:
            _await(port, path, process, log)
            yield process.pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await(port: int, path: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended: {log.read_text(encoding='utf-8')[-2000:]}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2)
            return
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{process.args} did not answer: {log.read_text(encoding='utf-8')[-2000:]}")


@contextmanager
def mock(place: Path) -> Generator[str]:
    """Run the model server; yield its URL."""
    port = free_port()
    command = [sys.executable, str(HERE / "mockserver.py"), str(port)]
    with running(command, port, place / "mock.log", "/v1/models"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ours(place: Path, upstream: str, accounts: int = 100) -> Generator[Arm]:
    """Run the guard with everything on: accounts in SQLite, budgets, sealing, signals, ledger, metrics."""
    folder, port = place / f"guard-{accounts}", free_port()
    keys = place / f"keys-{accounts}"
    keys.write_text("\n".join(make_accounts(folder, accounts)) + "\n")
    command = [
        sys.executable, "-m", "limbeck", "guard", "serve", "--folder", str(folder), "--upstream", upstream,
        "--port", str(port), "--workers", str(WORKERS),
    ]  # fmt: skip
    with running(command, port, place / "guard.log", "/readyz") as pid:
        yield Arm("limbeck guard", port, pid, keys)


def make_accounts(folder: Path, count: int) -> list[str]:
    """Make a guard's folder with accounts, each with budgets and one key; return the keys."""
    from limbeck.guard.account import Budget, Measure, Plan, Window
    from limbeck.guard.state.home import init_state
    from limbeck.guard.state.keys import create_key
    from limbeck.guard.state.organisations import create_organisation
    from limbeck.guard.state.plans import write_plan
    from limbeck.guard.state.register import open_account

    state = init_state(folder)
    budgets = (
        Budget(Measure.REQUESTS, Window.MINUTE, 10**9),
        Budget(Measure.TOKENS, Window.DAY, 10**15),
    )
    keys: list[str] = []
    with state.change("benchmark") as change:
        write_plan(change, Plan("p", budgets=budgets))
        create_organisation(change, "o")
        for number in range(count):
            open_account(change, org="o", plan_id="p", id=f"a{number}")
            keys.append(create_key(change, state.pepper, f"a{number}").secret)
    state.close()
    return keys


@contextmanager
def bare(place: Path, upstream: str) -> Generator[Arm]:
    """Run the pass-through on the same stack."""
    port = free_port()
    command = [sys.executable, str(HERE / "barepass.py"), str(port), upstream, str(WORKERS)]
    with running(command, port, place / "bare.log", "/v1/models") as pid:
        yield Arm("bare pass-through", port, pid, _one_key(place))


@contextmanager
def vllm_router(place: Path, upstream: str) -> Generator[Arm]:
    """Run vllm-router, which has no workers but threads."""
    port, metrics = free_port(), free_port()
    command = [
        str(BASELINES / "vllm-router" / "bin" / "vllm-router"), "--worker-urls", upstream, "--host", "127.0.0.1",
        "--port", str(port), "--prometheus-port", str(metrics), "--policy", "round_robin", "--log-level", "error",
    ]  # fmt: skip
    with running(command, port, place / "router.log", "/liveness") as pid:
        yield Arm("vllm-router", port, pid, _one_key(place))


@contextmanager
def litellm(place: Path, upstream: str) -> Generator[Arm]:
    """Run the LiteLLM proxy without a database: it checks one master key."""
    port, config = free_port(), place / "litellm.yaml"
    config.write_text(CONFIG.format(upstream=upstream, key=MASTER))
    command = [
        str(BASELINES / "litellm" / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1",
        "--port", str(port), "--num_workers", str(WORKERS),
    ]  # fmt: skip
    quiet = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
    }
    with running(command, port, place / "litellm.log", "/health/liveliness", quiet) as pid:
        yield Arm("LiteLLM", port, pid, _one_key(place))


def _one_key(place: Path) -> Path:
    keys = place / "key"
    keys.write_text(MASTER + "\n")
    return keys
