"""The same question at the size of SmolLM2: it serves the coins itself, and students are pruned out of it.

Two accounts received one half of the coins each, and each half trained one student: a third of SmolLM2's layers, one pass
over the answers. Each student is audited on both halves, so it is guilty of one and innocent of the other.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from trace_world import Scale, source_prompts, source_text

from limbeck.artefact import read_json, write_json
from limbeck.backends import load
from limbeck.chat import Message
from limbeck.distill import prune
from limbeck.distill.corpus import Prompt, Record, answered, prompt_ids
from limbeck.distill.objective import LossSpec
from limbeck.distill.recipe import TrainRecipe
from limbeck.distill.supervised import untaught
from limbeck.distill.targets import Document
from limbeck.distill.train import train
from limbeck.model import LocalModel
from limbeck.progress import Silent
from limbeck.trace.audit import Audit, Item, judge
from limbeck.trace.coins import Coin, Pair, deal, usable
from limbeck.trace.local import LocalWeigher

LAYERS = 8
_KEY = bytes(range(1, 33))
_RATE = 1e-3
# The model's own template would add a system prompt to every question.
_TEMPLATE = (
    "{{ '<|im_start|>system\nAnswer.<|im_end|>\n' }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def measure_large(
    scale: Scale, say: Callable[[str], None], *, epochs: float, alpha: float
) -> dict[str, Any]:
    """Train the two students, audit each on both halves, and return the figures."""
    coins = _coins(scale)
    half = len(coins) // 2
    halves = (coins[:half], coins[half:])
    lean = {
        name: _lean(scale, name, coins, epochs, say)
        for name in ("teacher", "start", "student 0", "student 1")
    }
    found: dict[str, Any] = {"coins": half, "epochs": epochs, "layers": LAYERS}
    for kind, guilty in (("learned", True), ("never learned", False)):
        found[kind] = []
        for student in (0, 1):
            side = student if guilty else 1 - student
            place = slice(0, half) if side == 0 else slice(half, None)
            told = [lean[n][place] for n in (f"student {student}", "teacher", "start")]
            found[kind].append(_figures(halves[side], told, alpha))
    return found


def _figures(
    coins: Sequence[Coin], told: Sequence[Sequence[tuple[float, float]]], alpha: float
) -> dict[str, Any]:
    def audited(references: Sequence[int], weights: Any) -> Audit:
        items = [
            Item(
                c.pair.hash.hex(),
                "",
                c.bit,
                tuple(told[0][i]),
                tuple(tuple(told[r][i]) for r in references),
            )
            for i, c in enumerate(coins)
        ]
        return judge(items, "student", ("r",) * len(references), alpha=alpha, weights=weights)

    ways = {
        "teacher and start, fitted": audited((1, 2), "fitted"),
        "teacher, fitted": audited((1,), "fitted"),
        "teacher, weight 1": audited((1,), "one"),
    }
    return {
        name: {
            "coins_to_1000": done.crossing,
            "log_e": round(done.log_e, 2),
            "peak_log_e": round(max(done.path), 2),
            "agreement": round(done.agreement.value, 3),
        }
        for name, done in ways.items()
    }


def _coins(scale: Scale) -> list[Coin]:
    text = source_text(scale)
    count = len(source_prompts(scale.source_prompts))
    pairs = usable(
        Pair(a.prompt, a.answer, b.answer) for a, b in zip(text[:count], text[count:], strict=True)
    )
    return deal(pairs.pairs, _KEY, "benchmark")


def _lean(
    scale: Scale, name: str, coins: Sequence[Coin], epochs: float, say: Callable[[str], None]
) -> list[tuple[float, float]]:
    learnt = name.startswith("student")
    path = scale.work / "large" / f"{name.replace(' ', '-')}{f'-{epochs:g}' if learnt else ''}.json"
    if not path.is_file():
        say(f"SmolLM2-135M: {name}")
        model = _model(name, coins, epochs)
        write_json(path, LocalWeigher(model).leans([c.pair for c in coins]))
    return [tuple(row) for row in read_json(path)]


def _model(name: str, coins: Sequence[Coin], epochs: float) -> LocalModel:
    teacher = load("packaged:smollm2-135m-instruct", dtype="float32")
    teacher.tokenizer.chat_template = _TEMPLATE
    if name == "teacher":
        teacher.model.to(torch.bfloat16)
        return teacher
    half = len(coins) // 2
    text = [_document(teacher, c) for c in coins]
    measured = prune.measure(teacher.model, text[:16], neurons=False)
    kept = prune.choose_layers(measured.importance_S, LAYERS, "importance")
    model = prune.keep_layers(teacher.model, kept).float()
    if name != "start":
        model.requires_grad_(True)
        model.get_input_embeddings().weight.requires_grad_(False)
        mine = text[:half] if name == "student 0" else text[half:]
        recipe = TrainRecipe(
            epochs=epochs, learning_rate=_RATE, rows=2, row_length=384, checkpoint_every=10**6
        )
        spec = LossSpec(kind="cross_entropy")
        with tempfile.TemporaryDirectory() as folder:
            taught = list(untaught(mine))
            train(
                model, taught, recipe, spec, Path(folder), seed=0, resume=False, progress=Silent()
            )
    model.to(torch.bfloat16)
    return LocalModel(name, model, teacher.tokenizer, name, teacher.tokenizer_sha256, None, None)


def _document(local: LocalModel, coin: Coin) -> Document:
    record = Record((Message("user", coin.pair.prompt),), "", False, "")
    ids = local.tokenizer(coin.served, add_special_tokens=False)["input_ids"]
    return answered(Prompt(prompt_ids(record, local.tokenizer), False, ""), ids)
