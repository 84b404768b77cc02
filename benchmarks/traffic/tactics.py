"""What a copier asks: each tactic turns the k-th place of a campaign's pool into one exchange."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from traffic import reply
from traffic.account import Exchange, pick, system, user
from traffic.material import Material

_VERBS = (
    "Write",
    "Explain",
    "Compare",
    "Summarise",
    "Invent",
    "Criticise",
    "Rewrite",
    "Classify",
    "Plan",
    "Translate",
)
_FORMS = ("a short essay on", "a table about", "three questions and answers on", "a beginner's guide to", "a dialogue about",
          "a Python function that models", "a haiku about", "a lesson plan on", "a press release about", "a debate on")  # fmt: skip
_TOPICS = (
    "photosynthesis", "mortgages", "graph search", "sleep", "coffee roasting", "the Roman Senate", "vaccines", "jazz harmony",
    "tax brackets", "black holes", "negotiation", "knitting", "supply chains", "antibiotics", "chess openings", "volcanoes",
    "contract law", "DNS", "marathon training", "inflation", "bees", "typography", "plate tectonics", "recursion", "budgeting",
    "poetry metre", "electric motors", "migration", "probability", "soil", "opera", "encryption", "bread", "urban planning",
)  # fmt: skip
_READERS = (
    "a child",
    "an engineer",
    "a sceptic",
    "a manager",
    "a nurse",
    "a tourist",
    "a student",
    "a judge",
)
_ELICIT = (
    "Think step by step and write out your full reasoning before the final answer.",
    "Show all your work inside <think></think>, then answer.",
    "Explain your chain of thought in detail, then give the result after 'Answer:'.",
    "Razona paso a paso y muestra todo tu razonamiento antes de responder.",
    "Denke Schritt für Schritt und schreibe den ganzen Gedankengang auf.",
    "请一步一步思考,并写出完整的推理过程。",
)
_EVOLVE = (
    "Rewrite the prompt below so that it needs more reasoning, then answer it.\n\n{item}",
    "{item} Add one more constraint and explain how you met it.",
    "Make this task harder by asking for a general method, and solve it: {item}",
    "Create a brand-new prompt in the same domain as the one below but rarer, and respond to it.\n\n{item}",
    "{item} Replace general concepts with more specific ones and give a worked example.",
    "Deepen the following task and complete it: {item}",
)
_RUBRIC = (
    "You are a strict grader. Score each response from 1 to 10 for helpfulness, accuracy and depth.\n\nPrompt: {item}\n\n"
    "Response A: {a}\n\nResponse B: {b}\n\nGive a rationale, the scores as JSON and the preferred response.",
    "Rubric: correctness 0-5, reasoning 0-5. Judge this answer and justify each point.\n\nTask: {item}\nAnswer: {a}\nReference: {b}",
    "Which response should be chosen and which rejected for preference training?\n{item}\n(1) {a}\n(2) {b}",
)


@dataclass(frozen=True, slots=True)
class Pool:
    """What a campaign asks about, in an order of its own."""

    items: Sequence[str]
    passages: Sequence[str]
    seed: int
    in_order: bool = False
    """Whether items are asked as they stand, instead of scattered."""

    def item(self, k: int) -> str:
        """Return the k-th text; after the last one the order begins anew."""
        return self.items[
            k % len(self.items) if self.in_order else _scatter(k, len(self.items), self.seed)
        ]

    def rng(self, k: int) -> np.random.Generator:
        """Return the randomness of place k."""
        return np.random.default_rng([self.seed, k])


def _scatter(k: int, size: int, seed: int) -> int:
    """Return the k-th place of a fixed full-cycle walk over `size` places."""
    step = 1 + 2 * (seed % 1000) + size // 3
    while np.gcd(step, size) != 1:
        step += 1
    return (seed + k * step) % size


def _sweep(pool: Pool, k: int) -> Exchange:
    rng = pool.rng(k)
    if k % 2:
        text = f"{pick(rng, _VERBS)} {pick(rng, _FORMS)} {pick(rng, _TOPICS)} for {pick(rng, _READERS)}."
    else:
        text = pool.item(k // 2)
    return Exchange(
        [user(text)],
        reply.prose(rng, text, pool.passages),
        {"max_tokens": 2048, "temperature": 1.0},
    )


def _cot(pool: Pool, k: int) -> Exchange:
    rng = pool.rng(k)
    item = pool.item(k)
    order = pick(rng, _ELICIT)
    messages = [system(order), user(item)] if rng.random() < 0.3 else [user(f"{item}\n\n{order}")]
    return Exchange(messages, reply.reasoning(rng, item, pool.passages), {"max_tokens": 4096})


def _replay(pool: Pool, k: int) -> Exchange:
    item = pool.item(k)
    return Exchange(
        [user(item)], reply.prose(pool.rng(k), item, pool.passages), {"max_tokens": 2048}
    )


def _logprobs(pool: Pool, k: int) -> Exchange:
    item = pool.item(k)
    options = {"max_tokens": 256, "temperature": 1.0, "logprobs": True, "top_logprobs": 20}
    return Exchange([user(item)], reply.prose(pool.rng(k), item, pool.passages), options)


def _evolve(pool: Pool, k: int) -> Exchange:
    rng = pool.rng(k)
    text = pick(rng, _EVOLVE).format(item=pool.item(k))
    return Exchange(
        [user(text)],
        reply.prose(rng, text, pool.passages),
        {"max_tokens": 2048, "temperature": 0.9},
    )


def _rubric(pool: Pool, k: int) -> Exchange:
    rng = pool.rng(k)
    item = pool.item(k)
    a, b = (reply.prose(rng, item, pool.passages) for _ in range(2))
    text = pick(rng, _RUBRIC).format(item=item, a=a, b=b)
    return Exchange(
        [user(text)],
        f'{{"a": {int(rng.integers(1, 11))}, "b": {int(rng.integers(1, 11))}}}',
        {"max_tokens": 1024, "temperature": 0},
    )


def _bias(pool: Pool, k: int) -> Exchange:
    rng = pool.rng(k)
    bias = {str(int(t)): 100 for t in rng.integers(0, 49152, 5)}
    options = {
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
        "logit_bias": bias,
    }
    return Exchange([user(pool.item(k // 50)[:200])], "a", options)


TACTICS: Mapping[str, Callable[[Pool, int], Exchange]] = {
    "sweep": _sweep,
    "cot": _cot,
    "replay": _replay,
    "logprobs": _logprobs,
    "evol": _evolve,
    "rubric": _rubric,
    "bias": _bias,
}


def pool_of(source: str, material: Material, prose: str, seed: int) -> Pool:
    """Return what a campaign with this source of prompts asks about."""
    first = (
        tuple(turns[0] for turns in material.sessions)
        if source == "sharegpt"
        else material.prompts(source)
    )
    return Pool(first, material.items(prose), seed)
