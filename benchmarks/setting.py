"""What is timed: sizes, precision and seed, readable from any Python environment."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["bf16", "float32"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One pair of models and its batches; `folder` holds them once `pair.make` has run.

    | in the folder | what |
    |---|---|
    | `teacher/`, `student/` | `transformers` folders, the student in float32 |
    | `tokens.safetensors` | `tokens_SBT`, the batch of every step, in the order of training |
    | `store/` | what the teacher said about them |
    """

    folder: str
    teacher: str
    """As `limbeck.backends.load` takes it."""
    layers: int
    """Layers of the student, the teacher's most important ones."""
    rows: int
    length: int
    """Tokens a row; every row is one document, so that no arm has padding."""
    steps: int
    precision: Precision
    """bf16 is autocast with float32 weights, and a teacher in bfloat16; float32 has neither."""
    frozen_head: bool
    """Whether the embeddings and the head, one tensor, stay as they are, in every arm."""
    gkd_checkpointing: bool
    """Whether GKDTrainer computes activations twice, as it does unless told otherwise."""
    seed: int
    learning_rate: float = 1e-4

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def positions(self) -> int:
        """Loss positions of a step: every token but the last of each row."""
        return self.rows * (self.length - 1)

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.rows * self.length

    def write(self) -> None:
        """Write the setting into its folder."""
        (self.path / "setting.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def read_setting(folder: Path) -> Setting:
    """Return the setting of a folder."""
    return Setting(**json.loads((folder / "setting.json").read_text(encoding="utf-8")))
