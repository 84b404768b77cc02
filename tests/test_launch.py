"""What a launch is, and whole runs through the real launchers, with two processes on the loopback interface."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fakeapi import TinyChat, serve
from limbeck.artefact import read_json
from limbeck.backends import load
from limbeck.distill.train import LOG, read_log
from limbeck.errors import RunError
from limbeck.launch import Launch, alone, join, leads, size_of
from limbeck.lock import hold

PATIENCE_S = 900
"""The machine may be busy; a launch takes ten seconds on a quiet one."""
TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


def test_a_process_that_was_started_alone_leads() -> None:
    assert size_of({}) == 1
    assert leads({})
    assert leads({"RANK": "0", "WORLD_SIZE": "1"})


def test_the_first_of_several_leads_and_the_others_follow() -> None:
    assert size_of(TORCHRUN) == 4
    assert not leads(TORCHRUN)
    assert leads(TORCHRUN | {"RANK": "0"})


def test_a_process_that_shall_not_take_part_hears_nothing_of_the_launch() -> None:
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    assert alone(TORCHRUN | kept) == kept


def test_alone_there_is_nobody_to_call_or_to_hear() -> None:
    with join() as launch:
        assert (launch.leads, launch.size) == (True, 1)
        done: list[str] = []
        with launch.called("student"):
            done.append("student")
        launch.dismiss()
        assert done == ["student"]
    assert list(Launch(rank=1, size=2).calls()) == []


def test_a_launch_for_another_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(RunError, match="asks for DeepSpeed, which Limbeck does not use"), join():
        pass


RECIPE = """
name = "tiny"
[teacher]
model = "{teacher}"
dtype = "float32"
terms = {{licence = "Apache-2.0"}}
[corpus]
template = "Say {{what}} to {{whom}}."
max_length = 96
heldout_fraction = 0.3
[corpus.slots]
what = ["hello", "thanks", "goodbye", "sorry"]
whom = ["Anna", "the baker", "a friend", "the mill", "the town"]
[generate]
max_new_tokens = 16
batch = 8
[student]
layers = 2
[train]
epochs = 20.0
row_length = 96
rows = 2
precision = "no"
checkpoint_every = 1
[evaluate]
speed_rounds = 3
speed_tokens = 4
samples = 1
documents = 8
"""
TORCHRUN_WORDS = ["torch.distributed.run", "--nproc-per-node=2"]
ACCELERATE_WORDS = [
    "accelerate.commands.launch",
    "--use_fsdp",
    "--fsdp_version=2",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
]


@pytest.fixture
def recipe(tiny_teacher_folder: Path, tmp_path: Path) -> Path:
    """A recipe that takes seconds."""
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(teacher=tiny_teacher_folder))
    return path


def _start(launcher: list[str], recipe: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = ["-m", "limbeck", "distill", str(recipe), "--out", str(out), *words]
    return subprocess.Popen(
        [sys.executable, *(["-m", *launcher] if launcher else []), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def _said(process: subprocess.Popen[str], code: int = 0) -> str:
    try:
        said = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        _kill(process)
    assert process.returncode == code, said
    return said


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a launcher with all that it started; its processes are in sessions of their own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        launcher = psutil.Process(process.pid)
        for each in [launcher, *launcher.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _losses(run: Path) -> list[float]:
    return [entry.loss for entry in read_log(run / "training" / "student" / LOG)]


@pytest.mark.slow
def test_two_launched_processes_make_the_run_of_one(recipe: Path, tmp_path: Path) -> None:
    _said(_start([], recipe, tmp_path / "one"))
    said = _said(_start(TORCHRUN_WORDS, recipe, tmp_path / "two"))
    assert said.count("train student (") == 1
    assert said.count("better than") >= 1
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4, abs=1e-5)
    one, two = (read_json(tmp_path / n / "report.json")["heldout"] for n in ("one", "two"))
    assert two["student"]["kl_mean"] == pytest.approx(one["student"]["kl_mean"], rel=0.02)
    # What is done stays done, however many look at it.
    again = _said(_start(TORCHRUN_WORDS, recipe, tmp_path / "two"))
    assert again.count("skipped, already done") == 8


@pytest.mark.slow
def test_a_launch_in_shards_that_was_killed_goes_on_in_one_process(
    recipe: Path, tmp_path: Path
) -> None:
    _said(_start([], recipe, tmp_path / "one"))
    out = tmp_path / "run"
    launch = _start(ACCELERATE_WORDS, recipe, out)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not list(out.glob("training/student/checkpoint-*/checkpoint.json")):
            assert launch.poll() is None, launch.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        _kill(launch)
        launch.communicate()
    assert not (out / "student").exists()
    said = _said(_start([], recipe, out), 1)
    assert "holds an unfinished train (training); go on with --resume" in said
    _said(_start([], recipe, out, "--resume"))
    assert _losses(out) == pytest.approx(_losses(tmp_path / "one"), rel=1e-4, abs=1e-5)
    assert (out / "manifest.json").is_file()


ON_POLICY = """
[on_policy]
fraction = 0.6
documents = 3
max_staleness = 1
batch = 3
max_new_tokens = 12
"""


@pytest.mark.slow
def test_two_launched_processes_train_on_the_text_that_one_would_write(
    recipe: Path, tmp_path: Path
) -> None:
    text = recipe.read_text(encoding="utf-8").replace("epochs = 20.0", "epochs = 2.0")
    recipe.write_text(text + ON_POLICY, encoding="utf-8")
    _said(_start([], recipe, tmp_path / "one"))
    said = _said(_start(TORCHRUN_WORDS, recipe, tmp_path / "two"))
    assert said.count("train student (") == 1
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4, abs=1e-5)
    written = [read_json(tmp_path / n / "report.json")["on_policy"] for n in ("one", "two")]
    for counts in written:
        del counts["seconds"]
    assert written[0] == written[1]
    assert written[0]["answers"] > 0


@pytest.mark.slow
def test_two_processes_train_on_what_a_teacher_with_a_prompt_said(
    recipe: Path, tmp_path: Path
) -> None:
    words = ["--set", "teacher.system=You keep the mill.", "--set", "train.epochs=2.0"]
    _check_two_are_one(recipe, tmp_path, words)


@pytest.mark.slow
def test_two_processes_train_on_what_a_teacher_behind_an_api_said(
    recipe: Path, tiny_teacher_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with serve(TinyChat(load(str(tiny_teacher_folder), dtype="float32"))) as api:
        values = [
            *("teacher.model=openai:m", f'teacher.api={{base_url="{api.url}"}}'),
            *(f'student.base="{tiny_teacher_folder}"', "loss.kind=cross_entropy"),
            "train.epochs=2.0",
        ]
        _check_two_are_one(recipe, tmp_path, [w for value in values for w in ("--set", value)])


def _check_two_are_one(recipe: Path, tmp_path: Path, words: list[str]) -> None:
    _said(_start([], recipe, tmp_path / "one", *words))
    said = _said(_start(TORCHRUN_WORDS, recipe, tmp_path / "two", *words))
    assert said.count("train student (") == 1
    assert _losses(tmp_path / "two") == pytest.approx(_losses(tmp_path / "one"), rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_launch_in_shards_cannot_train_on_own_text(recipe: Path, tmp_path: Path) -> None:
    with recipe.open("a", encoding="utf-8") as file:
        file.write(ON_POLICY)
    said = _said(_start(ACCELERATE_WORDS, recipe, tmp_path / "run"), 1)
    assert said.count("limbeck: ") == 1
    assert "a recipe with on_policy needs the whole student in every process" in said


@pytest.mark.slow
def test_a_second_launch_on_a_folder_is_told_who_has_it(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with hold(out / ".lock", str(out)):
        (out / "recipe.json").write_text("{}")
        said = _said(_start(TORCHRUN_WORDS, recipe, out), 1)
    told = [line for line in said.splitlines() if line.startswith("limbeck: ")]
    assert len(told) == 1
    assert f"another process is writing to {out} (process {os.getpid()} on " in told[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (["train.rows=1"], "2 processes cannot share a step of 1 rows"),
        (
            ["align={}", "student={init='folder', folder='{teacher}'}"],
            "a recipe with [align] trains in one process, and 2 were launched; start it alone",
        ),
    ],
    ids=["too few rows", "another tokenizer"],
)
def test_what_every_process_meets_is_said_once(
    values: list[str], sentence: str, recipe: Path, tiny_teacher_folder: Path, tmp_path: Path
) -> None:
    given = [value.replace("{teacher}", str(tiny_teacher_folder)) for value in values]
    words = [word for value in given for word in ("--set", value)]
    said = _said(_start(TORCHRUN_WORDS, recipe, tmp_path / "run", *words), 1)
    assert said.count("limbeck: ") == 1
    assert sentence in " ".join(said.split())
    assert not (tmp_path / "run" / "store").exists()
