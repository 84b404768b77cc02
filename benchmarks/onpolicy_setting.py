"""What is timed on-policy: sizes, precision and seed, readable from any Python environment."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["bf16", "float32"]


@dataclass(frozen=True, slots=True)
class OnPolicySetting:
    """One pair of models and its prompts; `folder` holds them once `onpolicy.make` has run.

    | in the folder | what |
    |---|---|
    | `teacher/`, `student/` | `transformers` folders, the student in float32 |
    | `prompts.json` | `prompts`, each with its `message` and `tokens`, and the `order` in which training asks them |
    """

    folder: str
    teacher: str
    """As `limbeck.backends.load` takes it."""
    layers: int
    """Layers of the student, evenly chosen."""
    prompts: int
    """Prompts a step, one answer each."""
    max_new_tokens: int
    steps: int
    precision: Precision
    """bf16 trains under autocast with float32 weights, and has a teacher in bfloat16."""
    staleness: int
    """Of the arm that writes ahead."""
    checkpointing: bool
    """Whether DistillationTrainer computes activations twice, as it does unless told otherwise."""
    seed: int
    learning_rate: float = 1e-4

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    def write(self) -> None:
        """Write the setting into its folder."""
        (self.path / "onpolicy.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_setting(folder: Path) -> OnPolicySetting:
    """Return the setting of a folder."""
    text = (folder / "onpolicy.json").read_text(encoding="utf-8")
    return OnPolicySetting(**json.loads(text))
