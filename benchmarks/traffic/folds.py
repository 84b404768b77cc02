"""The two folds: which families of which class are seen together, and never with the others."""

from collections.abc import Mapping
from dataclasses import dataclass

from traffic.account import Class


@dataclass(frozen=True, slots=True)
class Fold:
    """Half of the families of every class."""

    name: str
    families: Mapping[Class, tuple[str, ...]]
    """Honest class to the sources or kinds of its families."""
    tactics: tuple[tuple[str, str], ...]
    """(tactic, source) of its copiers."""
    prose: str
    """Where the composed replies take their sentences."""


def _people(*sources: str) -> dict[Class, tuple[str, ...]]:
    return {"chat": sources, "office": sources, "reseller": sources}


FOLDS = {
    "a": Fold(
        "a",
        _people("sharegpt")
        | {
            "pipeline": ("extract-snips", "classify-clinc", "classify-polarity", "write-e2e", "translate-wiki", "grade-c4"),
            "benchmark": ("mmlu", "boolq", "arc-easy", "arc-challenge", "winogrande"),
            "agent": ("support", "research"),
            "redteam": ("persona", "encoding"),
        },
        (("sweep", "alpaca"), ("cot", "flan_cot"), ("logprobs", "alpaca"), ("replay", "sharegpt")),
        "wiki",
    ),
    "b": Fold(
        "b",
        _people("instructionwild", "awesome_prompts")
        | {
            "pipeline": (
                "extract-atis", "classify-banking", "classify-subjectivity", "classify-trec", "rag-wikitext", "summarise-union",
            ),
            "benchmark": ("gsm8k", "mathqa", "piqa", "social", "openbookqa", "bigbench"),
            "agent": ("sql", "travel", "files"),
            "redteam": ("suffix", "escalation", "ethics"),
        },
        (("evol", "codealpaca"), ("rubric", "self_instruct"), ("bias", "glaive_toolcall_en_demo"), ("replay", "instructionwild")),
        "wikitext",
    ),
}  # fmt: skip
"""Replay stands in both, with other texts: an attacker who reuses honest prompts has no text of his own."""
