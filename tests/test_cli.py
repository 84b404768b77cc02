import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from limbeck.artefact import hash_tree
from limbeck.cli import main

LIMBECK = Path(sys.executable).with_name("limbeck")
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
HEAVY = {"torch", "transformers", "pydantic", "numpy", "pyarrow", "jinja2", "matplotlib"}
PATIENCE_S = 600

RECIPE = """\
name = "tiny"

[teacher]
model = "teacher"
dtype = "float32"
terms = { licence = "Apache-2.0" }

[corpus]
template = "Say {what} to {whom}."
heldout_fraction = 0.3
max_length = 96

[corpus.slots]
what = ["hello", "thanks", "goodbye", "grüß dich"]
whom = ["Anna", "the baker", "a friend", "the mill", "the town"]

[generate]
max_new_tokens = 24
batch = 4

[capture]
shard_documents = 4

[student]
layers = 2

[train]
epochs = 12.0
row_length = 96
rows = 1
precision = "no"
checkpoint_every = 10

[evaluate]
controls = false
documents = 4
speed_rounds = 3
speed_tokens = 4
samples = 1
"""


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str


def limbeck(*arguments: str | Path, cwd: Path, stdin: str = "") -> Answer:
    """Run the command line in this process, which has imported the heavy parts already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "argv", ["limbeck", *map(str, arguments)])
        for name, stream in (("stdin", io.StringIO(stdin)), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, stream)
        code = _left_with(main)
    return Answer(code, out.getvalue(), err.getvalue())


def _left_with(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def process(*arguments: str | Path, cwd: Path) -> Answer:
    """Run the command line in a process of its own, as a user does."""
    done = subprocess.run(
        [LIMBECK, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def sentence(answer: Answer) -> str:
    """Return the one sentence that a command stopped with; progress may stand before it."""
    assert answer.code != 0, answer.err
    assert "Traceback" not in answer.err, answer.err
    lines = answer.err.splitlines()
    said = [n for n, line in enumerate(lines) if line.startswith("limbeck: ")]
    assert said == [len(lines) - 1], answer.err
    return lines[-1].removeprefix("limbeck: ")


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not there():
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < end, "it never came that far"
        time.sleep(0.005)


def start(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    # A shell's background jobs ignore Ctrl-C, and what they start inherits that: CI may be one.
    hearing = ["env", "--default-signal=INT"] if sys.platform == "linux" else []
    return subprocess.Popen(
        [*hearing, LIMBECK, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def place(tiny_teacher_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its teacher and a finished run; read them, copy before changing."""
    folder = tmp_path_factory.mktemp("cli")
    shutil.copytree(tiny_teacher_folder, folder / "teacher")
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    answer = process("distill", "recipe.toml", "--out", "run", cwd=folder)
    assert answer.code == 0, answer.err
    (folder / "said.txt").write_text(answer.out, encoding="utf-8")
    return folder


@pytest.fixture
def fresh(tiny_teacher_folder: Path, tmp_path: Path) -> Path:
    """A folder of the test's own with the recipe and its teacher."""
    shutil.copytree(tiny_teacher_folder, tmp_path / "teacher")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


# Help.


def test_help_takes_less_than_half_a_second_of_work(tmp_path: Path) -> None:
    # Time on the processor, not on the wall: a busy machine must not fail it.
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "distill" in process("--help", cwd=tmp_path).out
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("command", ["", "distill", "store", "chat", "export", "validate", "tasks"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    words = [sys.executable, "-X", "importtime", LIMBECK, *command.split(), "--help"]
    done = subprocess.run(
        words, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "limbeck.cli" in imported
    # typer itself looks for pydantic when it reads a command's arguments.
    assert not (HEAVY - {"pydantic"} if command else HEAVY) & imported


# Bad input. Everything stops with one sentence.


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ("train.lernrate=1", "unknown recipe key train.lernrate.*did you mean learning_rate"),
        ("trian.epochs=1", "unknown recipe key trian.*did you mean train"),
        ("teacher.terms.license=MIT", "teacher.terms.license.*did you mean licence"),
        ("train.epochs=many", "train.epochs.*number.*'many'"),
        ("train.learning_rate=7", "train.learning_rate.*less than 1.*7"),
        ("train.learning_rate=nan", "train.learning_rate.*finite"),
        ("train.epochs", "--set 'train.epochs' must have the form section.key=value"),
        ("train=5", r"train must be a section \(\[train\]\), got 5"),
        ("corpus.max_length=8", "max_new_tokens.*below.*max_length"),
    ],
)
def test_a_wrong_recipe_key_is_named_and_leaves_no_folder(
    changes: str, says: str, fresh: Path
) -> None:
    answer = limbeck("distill", "recipe.toml", "--out", "run", "--set", changes, cwd=fresh)
    assert re.search(says, sentence(answer)), answer.err
    assert answer.code == 2
    assert not (fresh / "run").exists()


def test_a_recipe_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("name = \n", encoding="utf-8")
    assert "nowhere.toml does not exist" in sentence(
        limbeck("distill", "nowhere.toml", cwd=tmp_path)
    )
    assert "bad.toml is not TOML" in sentence(limbeck("distill", "bad.toml", cwd=tmp_path))


def test_an_unknown_step_is_refused_with_the_known_ones(fresh: Path) -> None:
    answer = limbeck("distill", "recipe.toml", "--only", "training", cwd=fresh)
    assert "corpus, terms, capture, filter, build, train, evaluate, report" in sentence(answer)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "corpus.jsonl does not exist"),
        ("", "corpus.jsonl holds no records"),
        ('{"text": "one"}\n{"text": \n', "corpus.jsonl line 2 is not JSON"),
    ],
)
def test_a_corpus_that_is_missing_empty_or_malformed_is_named_with_its_line(
    content: str | None, says: str, fresh: Path
) -> None:
    over_file = re.sub(
        r"template = .*?(?=heldout)|\[corpus.slots\].*?(?=\[capture\])", "", RECIPE, flags=re.DOTALL
    ).replace("[corpus]", '[corpus]\nfiles = ["corpus.jsonl"]')
    (fresh / "recipe.toml").write_text(over_file, encoding="utf-8")
    if content is not None:
        (fresh / "corpus.jsonl").write_text(content, encoding="utf-8")
    assert says in sentence(limbeck("distill", "recipe.toml", "--out", "run", cwd=fresh))


def test_a_teacher_without_weights_is_named(fresh: Path) -> None:
    (fresh / "teacher" / "model.safetensors").unlink()
    assert "teacher has no weights" in sentence(
        limbeck("distill", "recipe.toml", "--out", "run", cwd=fresh)
    )


def test_unknown_terms_stop_the_run_with_what_to_write_and_then_let_it_go_on(fresh: Path) -> None:
    unsaid = RECIPE.replace('terms = { licence = "Apache-2.0" }\n', "")
    (fresh / "recipe.toml").write_text(unsaid, encoding="utf-8")
    refused = limbeck("distill", "recipe.toml", "--out", "run", cwd=fresh)
    assert refused.code == 3
    assert "Traceback" not in refused.err
    assert "limbeck: nothing says under which licence teacher is" in refused.err
    assert "[teacher.terms]" in refused.err
    assert not (fresh / "run" / "store").exists()
    (fresh / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    answer = limbeck("distill", "recipe.toml", "--out", "run", "--only", "corpus", cwd=fresh)
    assert answer.code == 0, answer.err


@pytest.mark.slow
def test_a_student_with_another_tokenizer_is_refused(fresh: Path) -> None:
    other = shutil.copytree(fresh / "teacher", fresh / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (fresh / "recipe.toml").write_text(
        RECIPE.replace("layers = 2", 'init = "folder"\nfolder = "other"'), encoding="utf-8"
    )
    answer = limbeck("distill", "recipe.toml", "--out", "run", cwd=fresh)
    assert "turn text into different tokens" in sentence(answer)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_step_and_documents(fresh: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = shutil.copytree(fresh / "teacher", fresh / "broken") / "model.safetensors"
    tensors = {name: tensor * float("nan") for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    (fresh / "recipe.toml").write_text(
        RECIPE.replace("layers = 2", 'init = "folder"\nfolder = "broken"'), encoding="utf-8"
    )
    answer = limbeck("distill", "recipe.toml", "--out", "run", cwd=fresh)
    assert re.search(r"at step 1 \(documents [0-9a-f]{12}.*is not finite", sentence(answer))


def test_a_run_of_another_recipe_is_left_as_it_is(place: Path) -> None:
    before = hash_tree(place / "run")
    answer = limbeck("distill", "recipe.toml", "--out", "run", "--set", "seed=3", cwd=place)
    assert "holds the run of another recipe (seed = 0 there, 3 here)" in sentence(answer)
    assert hash_tree(place / "run") == before


@pytest.mark.parametrize("out", ["recipe.toml", "teacher"])
def test_a_place_that_cannot_hold_a_run_is_named(out: str, fresh: Path) -> None:
    before = hash_tree(fresh)
    assert out in sentence(limbeck("distill", "recipe.toml", "--out", out, cwd=fresh))
    assert hash_tree(fresh) == before


@pytest.mark.parametrize("damage", ["cut off", "flipped"])
def test_a_damaged_shard_is_named_and_not_exported(
    damage: str, place: Path, tmp_path: Path
) -> None:
    store = shutil.copytree(place / "run" / "store", tmp_path / "store")
    shard = store / "part-000-00001.shard"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content[:-10] if damage == "cut off" else content)
    assert shard.name in sentence(limbeck("store", "verify", store, cwd=tmp_path))
    exported = tmp_path / "top.parquet"
    assert shard.name in sentence(limbeck("store", "export", store, exported, cwd=tmp_path))
    assert not exported.exists()


def test_a_place_that_cannot_be_exported_to_is_named(place: Path) -> None:
    answer = limbeck("store", "export", "run/store", "nowhere/top.parquet", cwd=place)
    assert "nowhere" in sentence(answer)


@pytest.mark.parametrize(
    "words",
    [
        ("report", "teacher"),
        ("report", "nowhere"),
        ("chat", "nowhere", "--prompt", "hi"),
        ("store", "info", "teacher"),
        ("store", "verify", "nowhere"),
    ],
)
def test_a_folder_that_is_no_run_model_or_store_is_named(
    words: tuple[str, ...], place: Path
) -> None:
    named = next(word for word in words if word in {"teacher", "nowhere"})
    assert named in sentence(limbeck(*words, cwd=place))


@pytest.mark.parametrize("words", [("--nonsense",), ("distill",), ("chat", "run", "--seed", "x")])
def test_a_wrong_command_line_shows_its_usage(words: tuple[str, ...], place: Path) -> None:
    answer = limbeck(*words, cwd=place)
    assert answer.code == 2
    assert "Usage" in answer.err
    assert "Traceback" not in answer.err


# A full disk. The tmpfs lives in a mount namespace of its own and goes with the command.

_ON_SMALL_DISK = """\
small() { mount -t tmpfs -o "$1" tmpfs "$disk" || exit 77; }
go() { "$limbeck" distill recipe.toml --out "$disk/run" --set train.epochs=2 --resume >/dev/null; }
disk=$1 limbeck=$2
small size=64k; go; echo "code $?" >&2
small remount,size=900k; go; echo "code $?" >&2
small remount,size=50m; go; echo "code $?" >&2
"""


@pytest.mark.slow
def test_a_full_disk_is_said_and_resume_goes_on_when_there_is_room(fresh: Path) -> None:
    apart = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    disk = fresh / "disk"
    disk.mkdir()
    try:
        done = subprocess.run(
            [*apart, "sh", "-c", _ON_SMALL_DISK, "sh", disk, LIMBECK],
            cwd=fresh,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("this machine has no unshare, so no small disk of its own")
    if done.returncode == 77 or "unshare: " in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    capturing, training, rest, _ = re.split(r"^code \d+\n", done.stderr, flags=re.MULTILINE)
    assert re.search("store.*(is full|No space left)", sentence(Answer(1, "", capturing)))
    assert re.search("training.*(is full|No space left)", sentence(Answer(1, "", training)))
    assert done.stderr.endswith("code 0\n"), rest


# Stopping and going on.


@pytest.mark.slow
def test_a_run_killed_in_capture_and_interrupted_in_training_ends_as_if_it_had_not_been(
    place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("distill", "recipe.toml", "--out", run)
    process = start(*words, cwd=place)
    wait_for((run / "store" / "part-000-00000.shard").is_file, process)
    process.kill()
    process.communicate()
    assert not (run / "store" / "manifest.json").exists()

    assert "go on with --resume" in sentence(limbeck(*words, cwd=place))

    process = start(*words, "--resume", cwd=place)
    wait_for(lambda: any(run.glob("training/student/checkpoint-*/checkpoint.json")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert not (run / "student").exists()
    assert "--resume" in sentence(Answer(process.returncode, "", err))

    answer = limbeck(*words, "--resume", cwd=place)
    assert answer.code == 0, answer.err
    for folder in ("store", "student"):
        ours, theirs = (hash_tree(r / folder) for r in (run, place / "run"))
        assert {n: h for n, h in ours.items() if n != "README.md"} == {
            n: h for n, h in theirs.items() if n != "README.md"
        }
    assert not list(run.glob("training/student/checkpoint-*"))


def test_a_second_process_is_kept_out_of_a_run(place: Path, tmp_path: Path) -> None:
    import fcntl

    run = shutil.copytree(place / "run", tmp_path / "run")
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = limbeck("distill", "recipe.toml", "--out", run, cwd=place)
    assert "another process is writing" in sentence(answer)


def test_a_finished_run_is_not_done_again(place: Path) -> None:
    before = hash_tree(place / "run")
    answer = limbeck("distill", "recipe.toml", "--out", "run", cwd=place)
    assert answer.code == 0, answer.err
    assert answer.err.count("skipped, already done") == 8
    assert hash_tree(place / "run") == before


# Commands that read.


def test_distill_ends_with_the_figures_that_report_prints_again(place: Path) -> None:
    answer = limbeck("report", "run", cwd=place)
    assert answer.code == 0, answer.err
    assert answer.out == (place / "said.txt").read_text(encoding="utf-8")
    assert "top-1 agreement" in answer.out
    assert str(Path("run") / "report.html") in answer.out


def test_a_folder_with_brackets_in_its_name_is_printed_as_it_is(
    place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "[red]grün[" / "run"
    shutil.copytree(place / "run", run)
    answer = limbeck("report", run, cwd=place)
    assert answer.code == 0, answer.err
    assert str(run / "report.html") in answer.out


def test_a_reader_that_goes_away_ends_a_command_in_silence(place: Path) -> None:
    process = subprocess.Popen(
        [LIMBECK, "chat", "run", "--prompt", "hello", "--max-new-tokens", "200"],
        cwd=place,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(PATIENCE_S) == 1


def test_chat_answers_one_prompt_on_standard_output_alone(place: Path) -> None:
    words = ("chat", "run", "--prompt", "Grüße 你好", "--max-new-tokens", "8", "--temperature", "1")
    answer = limbeck(*words, cwd=place)
    assert answer.code == 0, answer.err
    assert answer.out.strip()
    assert answer.err == ""


def test_a_runs_student_is_exported_and_a_second_time_refused(place: Path) -> None:
    words = ("export", "run", "--to", "gguf", "--quantise", "q8_0", "--out", "gguf")
    answer = limbeck(*words, cwd=place)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("gguf: gguf, ")
    assert answer.err == ""
    assert {p.name for p in (place / "gguf").iterdir()} == {
        "model.gguf",
        "README.md",
        "exported.json",
    }
    assert "gguf is there already" in sentence(limbeck(*words, cwd=place))
    assert "nowhere" in sentence(
        limbeck("export", "nowhere", "--to", "onnx", "--out", "x", cwd=place)
    )
    assert "got q9" in sentence(
        limbeck("export", "run", "--to", "gguf", "--quantise", "q9", "--out", "x", cwd=place)
    )


def test_chat_talks_until_the_input_ends(place: Path) -> None:
    answer = limbeck("chat", "teacher", "--max-new-tokens", "4", cwd=place, stdin="hello\nagain\n")
    assert answer.code == 0, answer.err
    assert answer.out.count("> ") == 3


def test_doctor_lists_what_is_there(tmp_path: Path) -> None:
    answer = limbeck("doctor", cwd=tmp_path)
    assert answer.code == 0, answer.out
    for name in ("python", "torch", "transformers", "cpu", "memory", "disk"):
        assert name in answer.out


def test_the_store_is_described_checked_and_exported(place: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    described = limbeck("store", "info", "run/store", cwd=place)
    assert described.code == 0, described.err
    rows = re.search(r"^positions +(\d+) *$", described.out, re.MULTILINE)
    assert rows is not None
    verified = limbeck("store", "verify", "run/store", cwd=place)
    assert "20 documents, every checksum right" in verified.out
    exported = limbeck(
        "store", "export", "run/store", tmp_path / "top.parquet", "--k", "3", cwd=place
    )
    assert f"{rows[1]} rows" in exported.out
    table = pq.read_table(tmp_path / "top.parquet")
    assert table.num_rows == int(rows[1])
    assert max(map(len, table["ids"].to_pylist())) <= 3


def test_the_built_in_tasks_are_listed_and_shown(tmp_path: Path) -> None:
    listed = limbeck("tasks", "list", cwd=tmp_path)
    assert listed.code == 0, listed.err
    for name in ("capitals *", "agreement *", "records", "functions"):
        assert name in listed.out
    shown = limbeck("tasks", "show", "capitals", "--items", "1", cwd=tmp_path)
    assert "The capital of Algeria is" in shown.out
    assert "* ' Algiers'" in shown.out
    assert "no task 'capitols'" in sentence(limbeck("tasks", "show", "capitols", cwd=tmp_path))


def test_a_run_is_validated_from_the_command_line_and_its_report_read_again(
    place: Path, tmp_path: Path
) -> None:
    words = ("--student", "run", "--teacher", "teacher", "--tasks", "kinds", "--limit", "12")
    answer = limbeck("validate", *words, "--out", tmp_path / "v", cwd=place)
    assert answer.code == 0, answer.err
    assert re.match(r"(KEEPS|LOSES|CAN'T TELL)", answer.out)
    assert "judged part: NOT CLAIMED (no judge given)" in " ".join(answer.out.split())
    assert limbeck("report", tmp_path / "v", cwd=place).out == answer.out
    moved = limbeck("validate", *words, "--margin", "0.5", "--out", tmp_path / "v", cwd=place)
    assert "margin = 0.9 there, 0.5 here" in sentence(moved)
    wrong = limbeck("validate", *words, "--margin", "90", "--out", tmp_path / "w", cwd=place)
    assert "margin must be above 0 and at most 1" in sentence(wrong)
