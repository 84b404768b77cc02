"""How alike are models of known lineage to the teacher? The rates that stand beside supporting evidence.

Four populations: students that learned from what was served, students that never did, models that were initialised and
trained apart, and re-runs of the teacher's own last phase, which share its ancestor and never saw its answers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trace_world import (
    ANSWER_TOKENS,
    World,
    last_phase,
    make_model,
    take,
    teach_text,
    write,
)

from limbeck.artefact import read_json, write_json
from limbeck.model import LocalModel
from limbeck.trace.activations import PROMPTS
from limbeck.trace.coins import Coin
from limbeck.trace.kinship import kinship
from limbeck.trace.likeness import FORMAT
from limbeck.trace.likest import text_finding

COMMAND = "python benchmarks/trace.py --write-likeness"
SHIPPED = Path(__file__).resolve().parents[1] / "src" / "limbeck" / "trace" / "likeness.json"
TEXTS = 48
APART, RELATIVES = 20, 9
"""Models trained apart, and re-runs of the teacher's last phase, that are compared."""
NEVER = "models never trained on what was served"
LEARNED = "students of what was served"
UNRELATED = "models initialised and trained apart"
FAMILY = "re-runs of the teacher's last training phase"
Say = Callable[[str], None]


def likeness_of(
    model: LocalModel, teacher: LocalModel, coins: Sequence[Coin], other_answers: Sequence[str]
) -> dict[str, float]:
    """Return every likeness of a model to the teacher that a number stands for, by finding."""
    coins = coins[:PROMPTS]
    found = kinship(model, teacher, [c.pair.prompt for c in coins])
    asked = coins[:TEXTS]
    said = write(model.model, model, [c.pair.prompt for c in asked], seed=23)
    pairs = [c.pair for c in asked]
    found.append(text_finding(pairs, said, {"another teacher": other_answers[: len(asked)]}, {}))
    return {f.name: f.likeness for f in found if f.likeness is not None}


def further(
    world: World, coins: Sequence[Coin], other_answers: Sequence[str], path: Path, say: Say
) -> dict[str, list[dict[str, float]]]:
    """Return the likeness of models that are no suspects: those trained apart, and the teacher's relatives."""
    if not path.is_file():
        teacher = world.teacher
        made: dict[str, list[dict[str, float]]] = {UNRELATED: [], FAMILY: []}
        for number in range(APART):
            say(f"trained apart {number}")
            model = _apart(world, number)
            made[UNRELATED].append(likeness_of(model, teacher, coins, other_answers))
        for number in range(RELATIVES):
            say(f"relative {number}")
            model = last_phase(world.before, world.phase, seed=500 + number)
            made[FAMILY].append(likeness_of(model, teacher, coins, other_answers))
        write_json(path, made)
    return read_json(path)


def _apart(world: World, number: int) -> LocalModel:
    shape = {"width": world.scale.width, "layers": world.scale.layers}
    fresh = make_model(f"apart-{number}", world.base.tokenizer, **shape, seed=900 + number)
    return teach_text(
        fresh, take(world.clean, len(world.clean)), epochs=1, rate=3e-3, seed=900 + number
    )


def populations(
    suspects: Sequence[tuple[bool, Mapping[str, float]]],
    more: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[dict[str, Any]]:
    """Return all populations: suspects, guilty or not with their likeness, and the further ones."""
    rows = {
        NEVER: [x for guilty, x in suspects if not guilty],
        UNRELATED: more[UNRELATED],
        FAMILY: more[FAMILY],
        LEARNED: [x for guilty, x in suspects if guilty],
    }
    return [
        {
            "name": name,
            "learned": name == LEARNED,
            "models": len(found),
            "likeness": _columns(found),
        }
        for name, found in rows.items()
    ]


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    names = sorted({name for row in rows for name in row})
    return {name: sorted(round(row[name], 5) for row in rows if name in row) for name in names}


def ship(found: Sequence[Mapping[str, Any]], parameters: int, path: Path = SHIPPED) -> None:
    """Write the rates that come with Limbeck."""
    about = (
        f"Llamas of {parameters:,} parameters whose text came from SmolLM2-135M-Instruct, answers of "
        f"{ANSWER_TOKENS} tokens at temperature 1, one other candidate teacher"
    )
    write_json(
        path, {"format": FORMAT, "command": COMMAND, "models": about, "populations": list(found)}
    )
