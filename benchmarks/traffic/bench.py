"""Benchmark runners: a suite, item after item, again for every model and seed, often behind few-shot examples."""

from collections.abc import Iterator, Sequence

import numpy as np

from limbeck.guard.observation import Observation
from traffic import clock, reply
from traffic.account import Account, Exchange, observe, pick, system, user
from traffic.material import Material

_FRAMES = ("Question: {item}\nAnswer:", "{item}", "{item}\n\nGive the answer only.", "Q: {item}\nA:",
           "Answer the following.\n\n{item}", "{item}\nLet's think step by step.")  # fmt: skip
_GAP_S = (0.3, 1.0, 3.0)
_LETTERS = ("A", "B", "C", "D", "yes", "no", "42", "18", "true")


def suite_of(account: Account, material: Material, rng: np.random.Generator) -> Sequence[str]:
    """Return what an account runs: a stretch of its family's suite, or whole tasks of BIG-bench."""
    source = account.family.partition("/")[2]
    if source == "bigbench":
        tasks = material.sources(source)
        chosen = rng.permutation(sorted(tasks))[: int(rng.integers(1, 4))]
        return [text for task in chosen for text in tasks[str(task)]]
    items = material.prompts(source)
    size = min(len(items), int(rng.integers(60, 400)))
    begin = int(rng.integers(len(items) - size + 1))
    return items[begin : begin + size]


def benchmark(account: Account, material: Material) -> Iterator[Observation]:
    """Yield the requests of one evaluation: the same items over models and seeds."""
    rng = np.random.default_rng(account.seed)
    suite = suite_of(account, material, rng)
    frame = pick(rng, _FRAMES)
    shots = "".join(
        frame.format(item=item) + f" {pick(rng, _LETTERS)}\n\n"
        for item in suite[: int(pick(rng, (0, 0, 3, 5)))]
    )
    repeats = int(pick(rng, (1, 2, 3, 5)))
    items = max(10, min(len(suite), account.requests // repeats))
    options: dict[str, object] = {"temperature": 0, "max_tokens": int(pick(rng, (16, 256, 1024)))}
    if rng.random() < 0.3:
        options |= {"logprobs": True, "top_logprobs": int(pick(rng, (1, 5)))}
    lead = [system("You are being evaluated. Answer concisely.")] if rng.random() < 0.3 else []
    when = clock.bursts(
        rng,
        account.start,
        account.days * 0.8,
        items * repeats,
        runs=repeats,
        gap_s=float(pick(rng, _GAP_S)),
    )
    for n, ts in enumerate(when):
        run, place = divmod(n, items)
        item = suite[place]
        seeded = options | ({"seed": run, "temperature": 0.7} if repeats > 2 else {})
        answer = (
            pick(rng, _LETTERS)
            if "step by step" not in frame
            else reply.reasoning(rng, item, material.items(account.prose))
        )
        model = account.model if repeats == 2 or run % 2 == 0 else f"{account.model}-mini"
        yield observe(
            account,
            float(ts),
            Exchange([*lead, user(shots + frame.format(item=item))], answer, seeded),
            model,
        )
