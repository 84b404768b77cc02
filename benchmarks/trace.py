"""Ground truth for tracing: students whose lineage is known, because Limbeck made them.

    python benchmarks/trace.py [--quick] [--large] [--write-likeness] [--work DIR] [--coins N] [--siblings R] [--negatives N]

SmolLM2-135M writes the text of a small world (`trace_world.py`): a teacher, its siblings, an unrelated teacher and a base
model, about half a million parameters each. Students of many kinds are trained with Limbeck's own loop and audited on
sealed coins, with the teacher and the public base model as references. False alarms are counted on models that were
really trained, and on fresh bits for every model. Rivals get the same prompts. `--large` adds students that are pruned
out of SmolLM2-135M itself (`trace_large.py`). `--write-likeness` counts how alike all these models are to the teacher
(`trace_kinship.py`) and puts the rates where audits take them from. What is done is kept in the work folder and not done again. Prints progress, tables, and one JSON object as the last line.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from trace_kinship import further, likeness_of, populations, ship
from trace_large import measure_large
from trace_rivals import Marked, likest, membership, paired_t, radioactivity, stamp
from trace_world import (
    Example,
    Scale,
    World,
    copy_of,
    further_prompts,
    last_phase,
    make_model,
    make_tokenizer,
    make_world,
    paraphrase,
    pruned,
    quantised,
    take,
    teach_logits,
    teach_text,
    write,
)

from limbeck.artefact import read_json, sha256_json, write_json
from limbeck.errors import LimbeckError
from limbeck.model import LocalModel
from limbeck.stats.proportion import clopper_pearson
from limbeck.trace.audit import Item, judge
from limbeck.trace.coins import Coin, Pair, deal, usable
from limbeck.trace.local import LocalWeigher
from limbeck.trace.many import discover
from limbeck.trace.siblings import Contexts, rank_siblings
from limbeck.trace.text_only import audit_texts, fresh_keys

_ROOT = Path(__file__).resolve().parents[1]
_KEY = bytes(range(32))
ALPHA, LOOSE = 1e-3, 0.05
BUDGETS = (50, 150, 300)
_SHUFFLES = 200
_FRESH = 20
"""Fresh sets of bits for each suspect."""
_CONTEXTS, _CANDIDATES = 400, 32
_RATE = 2e-3
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A model whose lineage is known, with what it says of the coins."""

    kind: str
    seed: int
    guilty: bool
    lean: tuple[tuple[float, float], ...]
    """Log-likelihoods of y0 and y1, coin by coin."""
    texts: tuple[str, ...]
    """Its own answers to the right account's prompts."""
    log_probs: tuple[tuple[float, ...], ...] | None
    """At the contexts of the sibling test."""
    likeness: Mapping[str, float]
    """To the teacher, by finding: supporting evidence."""


@dataclass(frozen=True, slots=True)
class Case:
    """The coins, and what everybody says of them."""

    world: World
    coins: tuple[Coin, ...]
    """The right account's first, then those of others."""
    right: int
    other_answers: tuple[str, ...]
    """The unrelated teacher's, to the same prompts."""
    sibling_answers: tuple[str, ...]
    unseen: tuple[str, ...]
    """The teacher's own third answers."""
    further: tuple[Example, ...]
    """Other data: the unrelated teacher's answers to other prompts, and clean text."""
    contexts: Contexts
    references: tuple[tuple[tuple[float, float], ...], ...]

    @property
    def mine(self) -> tuple[Coin, ...]:
        """The right account's coins."""
        return self.coins[: self.right]

    @property
    def served(self) -> list[Example]:
        """What the right account received."""
        return [Example(c.pair.prompt, c.served) for c in self.mine]

    def items(self, suspect: Suspect, coins: Sequence[Coin]) -> list[Item]:
        """Return the scored coins of a suspect, from the front."""
        rows = zip(coins, suspect.lean, *self.references, strict=False)
        return [
            Item(c.pair.hash.hex(), c.pair.account, c.bit, tuple(mine), tuple(map(tuple, refs)))
            for c, mine, *refs in rows
        ]


# Making


def make_case(world: World) -> Case:
    """Draw the answers, toss the coins, and score the references."""
    scale = world.scale
    path = scale.work / f"answers-{_models_of(world)}-{scale.coins}.json"
    if not path.is_file():
        write_json(path, _answers(world))
    said: dict[str, Any] = read_json(path)
    coins = tuple(deal([Pair(*row) for row in said["pairs"]], _KEY, "benchmark"))
    texts = contexts_of(world)
    return Case(
        world=world,
        coins=coins,
        right=sum(c.pair.account == "right" for c in coins),
        other_answers=tuple(said["other"]),
        sibling_answers=tuple(said["sibling"]),
        unseen=tuple(said["unseen"]),
        further=(*world.clean, *(Example(*row) for row in said["further"])),
        contexts=Contexts(texts, LocalWeigher(world.before).likeliest(texts, _CANDIDATES)),
        references=tuple(tuple(map(tuple, rows)) for rows in said["references"]),
    )


def _answers(world: World) -> dict[str, Any]:
    """Let every model answer that the case needs, once."""
    scale, teacher, other = world.scale, world.teacher, world.other
    prompts = further_prompts()
    asked, rest = prompts[: 2 * scale.coins], prompts[2 * scale.coins :]
    first, second = (write(teacher.model, teacher, asked, seed=s) for s in (1, 2))
    names = ["right", *(f"other {i}" for i in range(1, 10))]
    account = ["right"] * scale.coins + [names[1 + i % 9] for i in range(scale.coins)]
    pairs = usable(Pair(*row) for row in zip(asked, first, second, account, strict=True)).pairs
    right = [p.prompt for p in pairs if p.account == "right"]
    sibling = last_phase(world.before, world.phase, seed=1)
    spread = (rest or asked) if scale.coins < 100 else [*rest, *prompts]
    more = [write(other.model, other, spread, seed=s) for s in (5, 6)]
    return {
        "pairs": [[p.prompt, p.y0, p.y1, p.account] for p in pairs],
        "other": write(other.model, other, right, seed=3),
        "sibling": write(sibling.model, sibling, right, seed=4),
        "unseen": write(teacher.model, teacher, right, seed=7),
        "further": [[p, a] for row in more for p, a in zip(spread, row, strict=True)],
        "references": [LocalWeigher(m).leans(pairs) for m in (teacher, world.base)],
    }


def _models_of(world: World) -> str:
    """Return a hash of the models that answer."""
    models = (world.teacher, world.before, world.other, world.base)
    return sha256_json([m.weights_sha256 for m in models])[:10]


def contexts_of(world: World) -> tuple[str, ...]:
    """Return places in clean text at which models are compared, fixed by a seed."""
    rng = np.random.default_rng(17)
    texts: list[str] = []
    while len(texts) < min(_CONTEXTS, 8 * len(world.clean)):
        example = world.clean[int(rng.integers(len(world.clean)))]
        words = example.answer.split(" ")
        cut = " ".join(words[: int(rng.integers(1, max(2, len(words))))])
        start = f"<|im_start|>user\n{example.prompt}<|im_end|>\n<|im_start|>assistant\n"
        texts.append(start + cut)
    return tuple(texts)


def recipes(case: Case) -> Mapping[str, Callable[[int], LocalModel]]:
    """Return how each kind of suspect is made, from a seed; guilty ones first, then the innocent."""
    world, served = case.world, case.served
    count = len(served)

    def from_text(examples: Sequence[Example], epochs: float, seed: int) -> LocalModel:
        student = copy_of(world.base, "student")
        return teach_text(student, examples, epochs=epochs, rate=_RATE, seed=seed)

    def same_prompts(answers: Sequence[str]) -> list[Example]:
        return [Example(e.prompt, a) for e, a in zip(served, answers, strict=True)]

    def sequence(seed: int) -> LocalModel:
        return from_text(served, 3, seed)

    def other_tokenizer(seed: int) -> LocalModel:
        texts = [t for e in world.clean for t in (e.prompt, e.answer)]
        shape = {"width": world.scale.width, "layers": world.scale.layers}
        fresh = make_model("student", make_tokenizer(texts, 600), **shape, seed=seed)
        base = teach_text(
            fresh, world.clean, epochs=world.scale.teacher_epochs, rate=3e-3, seed=seed
        )
        return teach_text(base, served, epochs=3, rate=_RATE, seed=seed)

    def logit(teacher: LocalModel, seed: int) -> LocalModel:
        student = copy_of(world.base, "student")
        heard = take(case.further, 2 * count)
        return teach_logits(student, teacher, heard, epochs=3, rate=_RATE, seed=seed)

    def sibling() -> LocalModel:
        return last_phase(world.before, world.phase, seed=1)

    few = max(1, count // 10)
    return {
        "sequence, 1 epoch": lambda s: from_text(served, 1, s),
        "sequence, 3 epochs": sequence,
        "mixed 50%": lambda s: from_text([*served, *case.further[:count]], 3, s),
        "mixed 10%": lambda s: from_text([*served, *take(case.further, 9 * count)], 3, s),
        "mixed 1%": lambda s: from_text([*served[:few], *take(case.further, 99 * few)], 3, s),
        "paraphrased by rule": lambda s: from_text(
            [Example(e.prompt, paraphrase(e.answer, s)) for e in served], 3, s
        ),
        "another tokenizer": other_tokenizer,
        "two teachers": lambda s: from_text([*served, *same_prompts(case.other_answers)], 3, s),
        "then fine-tuned clean": lambda s: teach_text(
            sequence(s), take(world.clean, count), epochs=1, rate=_RATE, seed=s
        ),
        "then quantised, 4 bits": lambda s: quantised(sequence(s), 4),
        "then pruned, 30%": lambda s: pruned(sequence(s), 0.3),
        "logits, other text": lambda s: logit(world.teacher, s),
        "logits of a sibling": lambda s: logit(sibling(), s),
        "no teacher": lambda s: from_text(take(case.further, count), 3, s),
        "another teacher": lambda s: from_text(same_prompts(case.other_answers), 3, s),
        "unseen coins": lambda s: from_text(same_prompts(case.unseen), 3, s),
        "a sibling's student": lambda s: from_text(same_prompts(case.sibling_answers), 3, s),
    }


INNOCENT = (
    "no teacher",
    "another teacher",
    "unseen coins",
    "a sibling's student",
    "logits of a sibling",
)
"""Never trained on the teacher's served answers nor on its probabilities."""
_LISTENED = ("sequence, 3 epochs", "logits, other text", "logits of a sibling", "no teacher")
"""Kinds whose probabilities are compared with the siblings'."""


def make_suspect(case: Case, kind: str, seed: int) -> Suspect:
    """Train one suspect and ask it everything, or read what it said before."""
    path = (
        case.world.scale.work
        / "suspects"
        / f"{_decided(case)}-{re.sub('[^a-z0-9]+', '-', kind)}-{seed}.json"
    )
    if not path.is_file() or "likeness" not in read_json(path):
        model = recipes(case)[kind](seed)
        weigher = LocalWeigher(model)
        prompts = [c.pair.prompt for c in case.mine]
        heard = weigher.log_probs(case.contexts).tolist() if kind in _LISTENED else None
        write_json(
            path,
            {
                "lean": weigher.leans([c.pair for c in case.coins]),
                "texts": write(model.model, model, prompts, seed=21, temperature=0.3),
                "log_probs": heard,
                "likeness": likeness_of(model, case.world.teacher, case.mine, case.other_answers),
            },
        )
    said = read_json(path)
    return Suspect(
        kind,
        seed,
        kind not in INNOCENT,
        tuple(map(tuple, said["lean"])),
        tuple(said["texts"]),
        said["log_probs"],
        said["likeness"],
    )


def _decided(case: Case) -> str:
    return sha256_json([[c.pair.hash.hex(), c.bit] for c in case.coins])[:10]


# Weighing


def audit_kind(case: Case, suspect: Suspect) -> dict[str, Any]:
    """Return a suspect's audit on the right account, on all accounts, and power at fixed budgets."""
    items = case.items(suspect, case.mine)
    alone = judge(items, "suspect", ("teacher", "base"), alpha=ALPHA)
    pooled = judge(case.items(suspect, case.coins), "suspect", ("teacher", "base"), alpha=ALPHA)
    plain = judge(_with_first_reference(items), "suspect", ("teacher",), alpha=ALPHA, weights="one")
    path = alone.path
    return {
        "coins_to_1000": alone.crossing,
        "log_e": {b: round(path[min(b, len(path)) - 1], 2) for b in BUDGETS},
        "power": power(items),
        "agreement": round(alone.agreement.value, 3),
        "coins_to_1000_pooled": pooled.crossing,
        "coins_to_1000_plain_teacher": plain.crossing,
        "account_found": account_found(case, suspect),
    }


def _with_first_reference(items: Sequence[Item]) -> list[Item]:
    return [Item(i.hash, i.account, i.bit, i.suspect, i.references[:1]) for i in items]


def power(items: Sequence[Item]) -> dict[str, float]:
    """Return how often e reaches 1,000 within each budget, over orders of the coins that a seed draws."""
    rng = np.random.default_rng(5)
    stops: list[int] = []
    for _ in range(_SHUFFLES):
        order = rng.permutation(len(items))
        done = judge([items[i] for i in order], "suspect", (), alpha=ALPHA)
        stops.append(done.crossing or 10**9)
    return {str(b): float(np.mean(np.array(stops) <= b)) for b in BUDGETS}


def account_found(case: Case, suspect: Suspect) -> list[str]:
    """Return the accounts that e-BH finds at a false discovery rate of 0.01."""
    found: dict[str, list[Item]] = {}
    for item in case.items(suspect, case.coins):
        found.setdefault(item.account, []).append(item)
    e_values = {
        name: float(np.exp(min(700.0, judge(mine, "suspect", (), alpha=ALPHA).log_e)))
        for name, mine in found.items()
    }
    return list(discover(e_values, 0.01).found)


def false_alarms(case: Case, suspects: Sequence[Suspect], seed: int) -> dict[str, Any]:
    """Count alarms on the innocent, and on everybody with fresh bits, which nobody can have learned."""
    rng = np.random.default_rng(seed)
    innocent = [s for s in suspects if not s.guilty]
    trained = [judge(case.items(s, case.mine), s.kind, (), alpha=LOOSE) for s in innocent]
    found: dict[str, Any] = {
        "trained": _rate([t.crossing is not None for t in trained]),
        "trained_by_kind": {
            kind: _rate([t.crossing is not None for t in trained if t.suspect == kind])
            for kind in INNOCENT
        },
    }
    alarms: dict[float, list[bool]] = {LOOSE: [], 0.01: []}
    means: list[float] = []
    for suspect in suspects:
        items = case.items(suspect, case.mine)
        for _ in range(_FRESH):
            bits = rng.integers(0, 2, len(items))
            fresh = [
                Item(i.hash, i.account, int(b), i.suspect, i.references)
                for i, b in zip(items, bits, strict=True)
            ]
            done = judge(fresh, suspect.kind, (), alpha=LOOSE)
            means.append(float(np.exp(min(done.log_e, 50))))
            peak = max(done.path)
            for alpha, seen in alarms.items():
                seen.append(peak >= -np.log(alpha))
    return found | {
        "fresh_bits": {str(alpha): _rate(seen) for alpha, seen in alarms.items()},
        "fresh_bits_mean_e": round(float(np.mean(means)), 3),
    }


def _rate(alarms: Sequence[bool]) -> list[float | int]:
    """Return [rate, upper end of the two-sided 95% interval, count]."""
    if not alarms:
        return [0.0, 1.0, 0]
    found = clopper_pearson(sum(alarms), len(alarms))
    return [round(found.value, 4), round(found.high, 4), len(alarms)]


def texts_alone(case: Case, suspect: Suspect) -> dict[str, float]:
    """Return the p-value of each choice that a text shows, uncorrected."""
    keys = fresh_keys(999, seed=3)
    return {
        t.feature: t.p_value for t in audit_texts(case.mine, suspect.texts, "benchmark", keys=keys)
    }


def sibling_tests(
    case: Case, suspects: Sequence[Suspect], say: Say
) -> dict[str, list[dict[str, Any]]]:
    """Rank the teacher among its siblings for every suspect that was listened to."""
    heard = [s for s in suspects if s.log_probs is not None]
    siblings = [
        sibling_log_probs(case, number, say) for number in range(2, 2 + case.world.scale.siblings)
    ]
    if not siblings:
        return {}
    before, teacher = (
        LocalWeigher(m).log_probs(case.contexts) for m in (case.world.before, case.world.teacher)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for suspect in heard:
        test = rank_siblings(np.array(suspect.log_probs), before, teacher, siblings)
        row = {"rank": test.rank, "of": test.siblings + 1, "p": test.p_value, "e": test.e_value}
        found.setdefault(suspect.kind, []).append(row)
    return found


def sibling_log_probs(case: Case, number: int, say: Say) -> np.ndarray:
    """Re-run the teacher's last phase with a fresh seed and listen to it, or read what was heard before."""
    folder = case.world.scale.work / "siblings"
    path = folder / f"{_decided(case)}-{number}.json"
    if not path.is_file():
        say(f"sibling {number}")
        sibling = last_phase(case.world.before, case.world.phase, seed=number)
        write_json(path, LocalWeigher(sibling).log_probs(case.contexts).tolist())
    return np.array(read_json(path))


def rivals(case: Case, suspects: Sequence[Suspect], say: Say) -> dict[str, Any]:
    """Return for every rival what share of each kind it accuses at the loose level."""
    marked = marked_texts(case, say)
    teacher = case.world.teacher
    candidates = {
        "teacher": [c.pair.y0 for c in case.mine],
        "another teacher": case.other_answers,
        "a sibling": case.sibling_answers,
    }
    accused: dict[str, dict[str, list[bool]]] = {}
    for suspect in suspects:
        lean = suspect.lean[: case.right]
        bits = [c.bit for c in case.mine]
        sizes = [(len(c.pair.y0.encode()), len(c.pair.y1.encode())) for c in case.mine]
        d = judge(case.items(suspect, case.mine), "suspect", (), alpha=ALPHA).d
        gain = [
            mine[c.bit] - ref[c.bit]
            for c, mine, ref in zip(case.mine, lean, case.references[1], strict=False)
        ]
        others = case.coins[case.right :]
        other = [
            mine[c.bit] - ref[c.bit]
            for c, mine, ref in zip(
                others, suspect.lean[case.right :], case.references[1][case.right :], strict=True
            )
        ]
        votes = {
            "green lists, unmarked": radioactivity(suspect.texts, teacher) <= LOOSE,
            "membership inference": membership(gain, other) <= LOOSE,
            "STAMP": stamp(lean, sizes, bits) <= LOOSE,
            "paired t-test on our d": paired_t(d, bits) <= LOOSE,
            "likeness of text": likest(suspect.texts, candidates) == "teacher",
        }
        for rival, vote in votes.items():
            accused.setdefault(rival, {}).setdefault(suspect.kind, []).append(vote)
    shares = {r: {k: float(np.mean(v)) for k, v in kinds.items()} for r, kinds in accused.items()}
    return {
        "accused": shares,
        "green lists, marked student p": radioactivity(marked["student"], teacher),
        "green lists, served text p": radioactivity(marked["served"], teacher),
    }


def marked_texts(case: Case, say: Say) -> dict[str, list[str]]:
    """Return what a teacher with green lists served, and what a student that learned from it writes."""
    path = case.world.scale.work / f"marked-{_decided(case)}.json"
    if not path.is_file():
        say("green lists")
        teacher = case.world.teacher
        prompts = [c.pair.prompt for c in case.mine]
        served = write(Marked(teacher.model), teacher, prompts, seed=31)
        examples = [Example(p, a) for p, a in zip(prompts, served, strict=True)]
        student = teach_text(
            copy_of(case.world.base, "student"), examples, epochs=3, rate=_RATE, seed=0
        )
        said = write(student.model, student, prompts, seed=22)
        write_json(path, {"served": served, "student": said})
    return read_json(path)


def supporting(case: Case, suspects: Sequence[Suspect], say: Say) -> list[dict[str, Any]]:
    """Return how alike the models of each population are to the teacher, finding by finding."""
    path = case.world.scale.work / f"likeness-{_decided(case)}.json"
    more = further(case.world, case.mine, case.other_answers, path, say)
    return populations([(s.guilty, s.likeness) for s in suspects], more)


def attacks() -> list[str]:
    """Return the attacks on a bundle that the verifier rejects: the tests of that name that pass."""
    tests = _ROOT / "tests" / "trace" / "test_verify.py"
    if not tests.is_file():
        return []
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", str(tests)]
    shown = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False).stdout
    found = re.findall(r"^PASSED \S+::test_(\w*reject\w*(?:\[[\w ,-]+\])?)", shown, re.MULTILINE)
    return sorted(set(found))


# Telling


def measure(scale: Scale, say: Say, *, verify: bool, large: bool) -> dict[str, Any]:
    """Make what is missing and return every figure."""
    began, used = time.perf_counter(), time.process_time()
    torch.set_num_threads(1)
    case = make_case(make_world(scale, say))
    kinds = list(recipes(case))
    plan = [(k, 0) for k in kinds] + [
        (k, s) for s in range(1, scale.negatives) for k in (*INNOCENT[:4], "sequence, 3 epochs")
    ]
    suspects: list[Suspect] = []
    for kind, seed in plan:
        say(f"{kind}, seed {seed}")
        suspects.append(make_suspect(case, kind, seed))
    first = {s.kind: s for s in suspects if s.seed == 0}
    found: dict[str, Any] = {
        "coins": case.right,
        "parameters": sum(p.numel() for p in case.world.teacher.model.parameters()),
        "kinds": {
            k: audit_kind(case, s) | {"texts_p": texts_alone(case, s)} for k, s in first.items()
        },
        "repeats": {
            k: [audit_kind(case, s)["coins_to_1000"] for s in suspects if s.kind == k]
            for k in ("sequence, 3 epochs",)
        },
        "false_alarms": false_alarms(case, suspects, scale.seed),
        "rivals": rivals(case, suspects, say),
        "siblings": sibling_tests(case, suspects, say),
        "supporting": supporting(case, suspects, say),
        "attacks_rejected": attacks() if verify else [],
        "large": measure_large(scale, say, epochs=1, alpha=ALPHA) if large else None,
    }
    for kind, row in found["kinds"].items():
        row["sibling_p"] = found["siblings"].get(kind, [{"p": None}])[0]["p"]
        row["false_alarms"] = found["false_alarms"]["trained_by_kind"].get(kind)
    return found | {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
    }


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Return the figures for reading."""
    shown = Table(
        "suspect",
        title=f"{found['coins']} coins of the right account, references: teacher and base",
    )
    for head in (
        "coins to 1,000",
        "all accounts",
        "plain",
        *(f"power {b}" for b in BUDGETS),
        "log e",
        "agrees",
        "accounts found",
        "text p",
        "sibling p",
    ):
        shown.add_column(head, justify="right")
    for kind, row in found["kinds"].items():
        shown.add_row(
            kind,
            *(
                _count(row[k])
                for k in ("coins_to_1000", "coins_to_1000_pooled", "coins_to_1000_plain_teacher")
            ),
            *(f"{row['power'][str(b)]:.2f}" for b in BUDGETS),
            f"{list(row['log_e'].values())[-1]:.1f}",
            f"{row['agreement']:.0%}",
            ", ".join(row["account_found"]),
            f"{row['texts_p']['content']:.3f}",
            "" if row["sibling_p"] is None else f"{row['sibling_p']:.2f}",
        )
    rival = Table("rival, at 0.05", title="share of each kind that is accused")
    kinds = list(found["kinds"])
    for kind in kinds:
        rival.add_column(kind, justify="right")
    for name, row in found["rivals"]["accused"].items():
        rival.add_row(name, *(f"{row[k]:.2f}" for k in kinds))
    return [shown, rival, _likeness(found["supporting"])]


def _likeness(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("likeness to the teacher", title="supporting evidence: least, median, largest")
    for row in rows:
        table.add_column(f"{row['name']}, {row['models']}", justify="right")
    for name in dict.fromkeys(n for row in rows for n in row["likeness"]):
        values = [row["likeness"].get(name) for row in rows]
        table.add_row(name, *("" if v is None else _spread(v) for v in values))
    return table


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.3f} {np.median(values):.3f} {max(values):.3f}"


def _count(value: int | None) -> str:
    return "not found" if value is None else str(value)


def main() -> None:
    """Run what is not done yet, print the tables and the JSON line."""
    scale, verify, large, write_likeness = _options()
    console = Console(width=200)
    try:
        found = measure(
            scale,
            lambda what: print(f"{time.strftime('%H:%M:%S')} {what}", flush=True),
            verify=verify,
            large=large,
        )
    except LimbeckError as error:
        raise SystemExit(f"trace.py: {error}") from None
    if write_likeness:
        ship(found["supporting"], found["parameters"])
    for shown in tables(found):
        console.print(shown)
    print(json.dumps(found["false_alarms"]))
    print(json.dumps(found))


def _options() -> tuple[Scale, bool, bool, bool]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller world; figures are rough")
    parser.add_argument("--large", action="store_true", help="students out of SmolLM2 too, minutes")
    parser.add_argument("--work", type=Path, default=_ROOT / "runs" / "trace")
    parser.add_argument("--coins", type=int, help="of the right account [default: 300, quick 60]")
    parser.add_argument("--siblings", type=int, help="[default: 99, quick 9]")
    parser.add_argument("--negatives", type=int, help="trained, of each kind [default: 5, quick 1]")
    parser.add_argument("--no-attacks", action="store_true", help="do not run the verifier's tests")
    parser.add_argument(
        "--write-likeness", action="store_true", help="ship the rates of supporting evidence"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    quick = given.quick
    if quick and given.write_likeness:
        parser.error("--write-likeness ships figures for users: make them without --quick")

    def chosen(value: int | None, normal: int, small: int) -> int:
        return value if value is not None else small if quick else normal

    scale = Scale(
        source_prompts=64 if quick else 640,
        teacher_epochs=2 if quick else 4,
        width=64 if quick else 96,
        layers=2 if quick else 3,
        coins=chosen(given.coins, 300, 60),
        siblings=chosen(given.siblings, 99, 9),
        negatives=chosen(given.negatives, 5, 1),
        work=given.work / ("quick" if quick else "full"),
        seed=given.seed,
    )
    return scale, not (given.no_attacks or quick), given.large, given.write_likeness


if __name__ == "__main__":
    main()
