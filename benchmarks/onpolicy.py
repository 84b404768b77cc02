"""On-policy steps beside TRL's DistillationTrainer, and off-policy beside on-policy after the same steps.

    python benchmarks/onpolicy.py [--quick] [--seed N] [--part speed|kl|both] [--baselines PYTHON]

**Speed.** The same student start, teacher, prompts, length of answers, reverse KL at temperature 1, optimiser
and clipping in every arm; the arms are processes that take turns, a step at a time, and a step is everything:
writing, judging, learning. `ours` writes for one step at a time, as the trainer does; `ahead` writes the answers
to several steps at once. Tokens are those of the answers, which differ by arm where a student ends some. Ratios
are medians over rounds; those of `ahead` are over whole chunks of rounds.

**KL.** `onpolicy_kl.py`: from one start and for the same steps, on the teacher's answers (forward KL from the
store), on the student's own (reverse KL from the teacher's whole distribution), and on half of each.

Prints two tables, then one JSON object as the last line.
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from onpolicy_kl import FRACTIONS, Comparison, compare, listen
from onpolicy_setting import OnPolicySetting
from rich.console import Console
from rich.table import Table
from turns import Arm, Facts, Turn, extra, interleave, ratio

from limbeck.backends import load
from limbeck.distill.corpus import Prompt, as_prompts, read_records, tokenise_prompts
from limbeck.distill.mixing import Mixing, mixed
from limbeck.distill.recipe import CorpusRecipe, StudentRecipe, load_recipe
from limbeck.distill.student import build_student
from limbeck.distill.targets import Document
from limbeck.pretrained import save

_ROOT = Path(__file__).resolve().parents[1]
_BASELINES = _ROOT / ".venv-baselines" / "bin" / "python"
_RECIPE = _ROOT / "recipes" / "quickstart.toml"
_ARM = Path(__file__).with_name("onpolicy_arm.py")
_MISSING = "no environment with TRL: run `make baselines`, or give --baselines PYTHON"
_NAMES = {"ours": "ours", "ahead": "ours, writing ahead", "trl": "TRL DistillationTrainer"}
_CALIBRATION = 8
_HELDOUT = 0.1
_TEMPLATE = "Write a {tone} two-sentence product description of a {quality} {product} for {reader}."
_TONES = {"tone": ("friendly", "formal", "warm", "matter-of-fact")}
_SAME_LOSS = 0.3
"""Relative difference of two first losses that other draws of one student's text explain."""


def main() -> None:
    """Measure, print the tables and the JSON line."""
    options = _options()
    result: dict[str, Any] = {"quick": options.quick, "seed": options.seed}
    with tempfile.TemporaryDirectory(prefix="limbeck-onpolicy-") as folder:
        setting = _setting(options, folder)
        prompts, sizes = make(setting, options)
        if options.part != "kl":
            result |= _speed(setting, options)
            _print_speed(setting, result)
        if options.part != "speed":
            result |= _kl(setting, prompts, options)
            _print_kl(result)
    print(json.dumps(result | sizes | _versions()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes; figures are rough")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=("speed", "kl", "both"), default="both")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--teacher", default="packaged:smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=10, help="layers of the student")
    parser.add_argument("--prompts", type=int, help="prompts a step; 16, or 4 with --quick")
    parser.add_argument("--max-new-tokens", type=int, help="of an answer; 64, or 16 with --quick")
    parser.add_argument("--staleness", type=int, help="steps written ahead; 3, or 1 with --quick")
    parser.add_argument("--rounds", type=int, help="chunks of steps that count; 2, or 1")
    parser.add_argument(
        "--trl-checkpointing", action="store_true", help="leave TRL's checkpointing on, its default"
    )
    parser.add_argument("--steps", type=int, help="steps of the KL part; 60, or 4 with --quick")
    parser.add_argument("--warm-steps", type=int, help="off-policy steps before; 60, or 2")
    parser.add_argument("--train-prompts", type=int, help="of the KL part; 960, or 16 with --quick")
    parser.add_argument("--kind", default="reverse_kl", help="divergence on the student's own text")
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of the KL part")
    parser.add_argument("--baselines", type=Path, default=_BASELINES, help="Python that has TRL")
    options = parser.parse_args()
    defaults = {
        "prompts": (16, 4),
        "max_new_tokens": (64, 16),
        "staleness": (3, 1),
        "rounds": (2, 1),
        "steps": (60, 4),
        "warm_steps": (60, 2),
        "train_prompts": (960, 16),
    }
    for name, (whole, quick) in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else whole)
        least = 0 if name in {"staleness", "warm_steps"} else 1
        if getattr(options, name) < least:
            flag = name.replace("_", "-")
            parser.error(f"--{flag} must be at least {least}, got {getattr(options, name)}")
    options.chunk = options.staleness + 1
    return options


def _setting(options: argparse.Namespace, folder: str) -> OnPolicySetting:
    return OnPolicySetting(
        folder=folder,
        teacher=options.teacher,
        layers=options.layers,
        prompts=options.prompts,
        max_new_tokens=options.max_new_tokens,
        steps=options.chunk * (1 + options.rounds),
        precision=options.precision,
        staleness=options.staleness,
        checkpointing=options.trl_checkpointing,
        seed=options.seed,
    )


def make(
    setting: OnPolicySetting, options: argparse.Namespace
) -> tuple[list[Prompt], dict[str, int]]:
    """Fill the setting's folder; return the prompts of the KL part, and the sizes of both models."""
    teacher = load(setting.teacher, dtype="bfloat16" if setting.precision == "bf16" else "float32")
    slots = load_recipe(_RECIPE).corpus.slots
    everything = CorpusRecipe(
        template=_TEMPLATE, slots=dict(slots) | _TONES, heldout_fraction=_HELDOUT
    )
    records = as_prompts(read_records(everything, base=_ROOT, seed=setting.seed))
    prompts = tokenise_prompts(records, teacher.tokenizer, max_length=512).prompts
    needed = options.train_prompts + options.warm_steps * options.prompts
    training = [p for p in prompts if not p.heldout][:needed]
    kept = [p for p in prompts if p.heldout][: max(4, options.train_prompts // 8)]
    timed = setting.steps * setting.prompts
    if len(prompts) < timed or len(training) < needed:
        raise SystemExit(
            f"the template makes {len(prompts)} prompts, {len(training)} of them to train on; "
            f"{timed} are to be timed and {needed} to be trained on"
        )
    _write_prompts(setting, records, prompts)
    examples = [_as_text(prompt) for prompt in prompts[:_CALIBRATION]]
    how = StudentRecipe(init="prune", layers=setting.layers, layer_choice="importance")
    student = build_student(how, teacher, examples, seed=setting.seed)
    save(teacher.model, teacher.tokenizer, setting.path / "teacher")
    save(student.model, student.tokenizer, setting.path / "student", dtype="float32")
    setting.write()
    return [*training, *kept], {
        "teacher_parameters": student.record.teacher_parameters,
        "student_parameters": student.record.parameters,
    }


def _as_text(prompt: Prompt) -> Document:
    loss_T = np.arange(len(prompt.tokens_T)) < len(prompt.tokens_T) - 1
    return Document(prompt.tokens_T, loss_T, False, prompt.key)


def _write_prompts(setting: OnPolicySetting, records: Any, prompts: Sequence[Prompt]) -> None:
    """Write the prompts of the timed steps, and the order in which Limbeck's loop asks them."""
    count = setting.steps * setting.prompts
    mixing = Mixing(count, setting.prompts, 1.0, setting.seed)
    order = [i for step in range(1, setting.steps + 1) for i in mixed(mixing, step).own]
    asked = [
        {"message": record.content[-1].content, "tokens": prompt.tokens_T.tolist()}
        for record, prompt in zip(records.records[:count], prompts[:count], strict=True)
    ]
    found = json.dumps({"prompts": asked, "order": order})
    (setting.path / "prompts.json").write_text(found, encoding="utf-8")


# Speed


def _speed(setting: OnPolicySetting, options: argparse.Namespace) -> dict[str, Any]:
    arms: dict[str, str | None] = {"ours": None, "ahead": None}
    if options.baselines.is_file():
        arms["trl"] = str(options.baselines)
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                Arm(name, setting, python, _ARM) if python else Arm(name, setting, script=_ARM)
            )
            for name, python in arms.items()
        ]
        rounds = options.chunk * options.rounds
        turns = interleave(running, warm_up=options.chunk, rounds=rounds)
        facts = {arm.name: arm.facts for arm in running}
    return _figures(setting, facts, turns, options)


def _figures(
    setting: OnPolicySetting,
    facts: Mapping[str, Facts],
    turns: Mapping[str, Sequence[Turn]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    _check_same_work(turns)
    counted = {name: taken[options.chunk :] for name, taken in turns.items()}
    arms = {name: _arm(facts[name], turns[name], taken) for name, taken in counted.items()}

    def over_trl(name: str, stride: int) -> tuple[float, float, float] | None:
        if "trl" not in counted:
            return None
        return ratio(_rates(counted[name], stride), _rates(counted["trl"], stride))

    strict, ahead = over_trl("ours", 1), over_trl("ahead", options.chunk)
    return {
        "tokens_per_s_over_trl": strict and strict[0],
        "tokens_per_s_over_trl_range": strict and strict[1:],
        "ahead_tokens_per_s_over_trl": ahead and ahead[0],
        "ahead_tokens_per_s_over_trl_range": ahead and ahead[1:],
        "trl_missing": None if strict else _MISSING,
        "arms": arms,
        "prompts": setting.prompts,
        "max_new_tokens": setting.max_new_tokens,
        "staleness": setting.staleness,
        "steps": options.chunk * options.rounds,
        "precision": setting.precision,
        "trl_checkpointing": setting.checkpointing,
        "threads": facts["ours"].threads,
    }


def _rates(turns: Sequence[Turn], stride: int) -> list[float]:
    """Return tokens per second of each run of `stride` steps."""
    runs = [turns[at : at + stride] for at in range(0, len(turns), stride)]
    return [sum(t.positions or 0 for t in run) / sum(t.seconds for t in run) for run in runs]


def _arm(facts: Facts, turns: Sequence[Turn], counted: Sequence[Turn]) -> dict[str, Any]:
    (rate,) = _rates(counted, len(counted))
    more = extra(facts, turns)
    return {
        "tokens_per_s": rate,
        "tokens_per_step": sum(t.positions or 0 for t in counted) / len(counted),
        "seconds_per_step": sum(t.seconds for t in counted) / len(counted),
        "seconds_range": (min(t.seconds for t in counted), max(t.seconds for t in counted)),
        "extra_peak_bytes": more,
        "extra_peak_bytes_without_teacher": None if more is None else more - facts.teacher_bytes,
        "first_loss": turns[0].loss,
    }


def _check_same_work(turns: Mapping[str, Sequence[Turn]]) -> None:
    """Check that all arms minimise one loss: reverse KL per token of one student's text."""
    first = {name: taken[0].loss for name, taken in turns.items()}
    middle = median(loss for loss in first.values() if loss is not None)
    for name, loss in first.items():
        if loss is None or abs(loss - middle) > _SAME_LOSS * abs(middle):
            raise SystemExit(f"first losses {first}: arm {name} does not take the same step")


# KL


def _kl(
    setting: OnPolicySetting, prompts: Sequence[Prompt], options: argparse.Namespace
) -> dict[str, Any]:
    plan = Comparison(
        prompts=setting.prompts,
        steps=options.steps,
        warm_steps=options.warm_steps,
        max_new_tokens=setting.max_new_tokens,
        staleness=setting.staleness,
        kind=options.kind,
        learning_rate=options.learning_rate,
        precision=setting.precision,
        seed=setting.seed,
    )
    dtype = "bfloat16" if setting.precision == "bf16" else "float32"
    teacher = load(str(setting.path / "teacher"), dtype=dtype)
    texts = listen(plan, teacher, prompts)
    found = compare(plan, setting.path, teacher, texts)
    return {
        "kl_off": found["heldout"]["off"][0],
        "kl_on": found["heldout"]["on"][0],
        "kl": found,
        "kl_steps": plan.steps,
        "kl_warm_steps": plan.warm_steps,
        "kl_kind": plan.kind,
        "kl_learning_rate": plan.learning_rate,
    }


# Tables


def _print_speed(setting: OnPolicySetting, result: Mapping[str, Any]) -> None:
    title = (
        f"{setting.prompts} prompts a step, {setting.max_new_tokens} tokens each, {setting.precision}, "
        f"{result['threads']} threads, {result['steps']} steps" + _rough(result)
    )
    table = Table("arm", title=title)
    for heading in ("tokens/s", "s/step", "tokens/step", "extra peak MB", "first loss"):
        table.add_column(heading, justify="right")
    for name, arm in result["arms"].items():
        peak = arm["extra_peak_bytes"]
        table.add_row(
            _NAMES[name],
            f"{arm['tokens_per_s']:.0f}",
            f"{arm['seconds_per_step']:.2f}",
            f"{arm['tokens_per_step']:.0f}",
            "unknown" if peak is None else f"{peak / 1e6:.0f}",
            f"{arm['first_loss']:.3f}",
        )
    Console(width=110).print(table)
    if result["tokens_per_s_over_trl"] is None:
        print(_MISSING)
        return
    for key, what in (("", "ours"), ("ahead_", "writing ahead")):
        low, high = result[f"{key}tokens_per_s_over_trl_range"]
        middle = result[f"{key}tokens_per_s_over_trl"]
        print(f"{what}: {middle:.2f}x DistillationTrainer's tokens/s ({low:.2f}-{high:.2f})")


def _print_kl(result: Mapping[str, Any]) -> None:
    found = result["kl"]
    title = (
        f"nats a position after {result['kl_steps']} steps from one start of {result['kl_warm_steps']} "
        f"off-policy steps, {found['heldout_prompts']} held-out prompts, 95% intervals"
        + _rough(result)
    )
    table = Table("arm", title=title)
    for heading in (
        "KL(t || s), teacher's answers",
        "on minus this",
        "KL(s || t), own answers",
        "s",
    ):
        table.add_column(heading, justify="right")
    for name in (*FRACTIONS, "start"):
        training = found["training"].get(name)
        table.add_row(
            name,
            _interval(found["heldout"][name]),
            _interval(found["on_minus"][name]) if name in found["on_minus"] else "",
            _interval(found["own_text"][name]["reverse_kl"]),
            "" if training is None else f"{training['seconds']:.0f}",
        )
    Console(width=130).print(table)


def _interval(three: Sequence[float]) -> str:
    mean, low, high = three
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _rough(result: Mapping[str, Any]) -> str:
    return " (quick: rough)" if result["quick"] else ""


def _versions() -> dict[str, Any]:
    names = {name: version(name) for name in ("torch", "transformers")}
    return {"versions": names | {"python": platform.python_version()}}


if __name__ == "__main__":
    main()
