"""Which models are of one family, by their names: a teacher or its kin never judges its own student.

A judge prefers what is written by itself, its kin and models trained on their output ("Preference leakage", Li et
al. 2025, arXiv:2502.01534: up to 28.7 points). Names are all that an endpoint shows of its family, so this is the
first of two defences; the second measures errors separately for teacher and student answers.
"""

import re
from collections.abc import Iterable

_FAMILIES: dict[str, tuple[str, ...]] = {
    "OpenAI": ("gpt", "chatgpt", "o1", "o3", "o4", "davinci", "codex"),
    "Claude": ("claude", "opus", "sonnet", "haiku"),
    "Google": ("gemini", "gemma", "palm"),
    "Llama": ("llama", "codellama", "vicuna", "alpaca", "tulu", "nemotron", "tinyllama"),
    "Mistral": ("mistral", "mixtral", "ministral", "codestral", "magistral", "zephyr", "pixtral"),
    "Qwen": ("qwen", "qwq", "qvq", "tongyi"),
    "DeepSeek": ("deepseek",),
    "SmolLM": ("smollm",),
    "Phi": ("phi",),
    "Grok": ("grok",),
    "GLM": ("glm", "chatglm"),
    "Kimi": ("kimi", "moonshot"),
    "OLMo": ("olmo",),
    "Falcon": ("falcon",),
    "Granite": ("granite",),
    "Yi": ("yi",),
    "Command": ("command", "aya"),
    "Hunyuan": ("hunyuan",),
    "MiniMax": ("minimax",),
}
_FAMILY_OF = {stem: family for family, stems in _FAMILIES.items() for stem in stems}
# Openers of names that say what a model is for, not what it is.
_SAYS_NOTHING = frozenset(
    {
        "model",
        "teacher",
        "student",
        "judge",
        "base",
        "chat",
        "instruct",
        "checkpoint",
        "run",
        "runs",
    }
    | {"final", "best", "latest", "tiny", "small", "medium", "large", "mini", "start", "control"}
    | {"the", "test", "local", "default", "output"}
)
_SCHEME = re.compile(r"\A(hf|packaged|openai|folder|api):")


def families(name: str) -> frozenset[str]:
    """Return the families that a model's name tells of; a distilled model may have two.

    A name without a known family counts as a family of its own by its first word, unless that word is one that
    any model may bear, such as `student`.

    Args:
        name: Such as `hf:org/Llama-3.1-8B-Instruct`, `gpt-4o` or a folder; only its last part counts.
    """
    last = _SCHEME.sub("", name.strip()).split("@")[0].rstrip("/").rsplit("/", 1)[-1].lower()
    known = {_FAMILY_OF[stem] for stem in _stems(last) if stem in _FAMILY_OF}
    if known:
        return frozenset(known)
    first = next((stem for stem in _stems(last) if stem.isalpha()), "")
    return frozenset() if len(first) < 3 or first in _SAYS_NOTHING else frozenset({first})


def kin(judge: Iterable[str], lineage: Iterable[str]) -> str | None:
    """Return why a judge is of the family of a model, as one sentence, or None where it is not.

    Args:
        judge: The names a judge goes by: the given one, and the one its endpoint states.
        lineage: Names of the teacher, the student, and what they were made from.
    """
    for model in lineage:
        for name in judge:
            if name == model:
                return f"{name} is one of the two models, and none judges itself"
            shared = sorted(families(name) & families(model))
            if shared:
                return f"{name} is of the family of {model} ({', '.join(shared)}), and kin judges no kin"
    return None


def _stems(name: str) -> list[str]:
    """Return a name's words, each also without its version: `smollm2-135m` gives smollm2, smollm, 135m."""
    found: dict[str, None] = {}
    for word in re.split(r"[^a-z0-9]+", name):
        found |= dict.fromkeys(stem for stem in (word, word.rstrip("0123456789")) if stem)
    return list(found)
