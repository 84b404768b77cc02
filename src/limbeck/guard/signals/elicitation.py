"""Requests for what a student learns from: reasoning, graded answers, new tasks, hidden thought; in any role.

Honest accounts show it too: benchmark runners ask for steps before an answer, tutoring chats for explanations,
judge pipelines grade by rubric all day, and teams write synthetic test data. What they lack is the rest of the pattern.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

PHRASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "reasoning": {
        "step": (
            "step by step",
            "step-by-step",
            "each step",
            "every step",
            "reasoning steps",
            "numbered steps",
        ),
        "steps": ("all steps", "reasoning steps", "intermediate steps", "numbered steps"),
        "reasoning": (
            "your reasoning",
            "full reasoning",
            "reasoning in detail",
            "reasoning before",
            "the reasoning",
        ),
        "think": ("think aloud", "think out loud", "think it through", "think carefully"),
        "chain": ("chain of thought", "chain-of-thought"),
        "rationale": ("rationale",),
        "derivation": ("derivation",),
        "working": ("show your working", "show all working"),
        "work": ("show your work", "show all work", "show all your work"),
        "thought": ("thought process", "<thought>", "chain of thought", "chain-of-thought"),
        "explain": (
            "explain your",
            "explain how you",
            "explain why you",
            "explain each",
            "explain the logic",
        ),
        "schritt": ("schritt für schritt", "schritt fuer schritt"),
        "gedankengang": ("gedankengang",),
        "étape": ("étape par étape",),
        "raisonnement": ("raisonnement",),
        "paso": ("paso a paso",),
        "razonamiento": ("razonamiento",),
        "passo": ("passo a passo", "passo dopo passo"),
        "raciocínio": ("raciocínio",),
        "ragionamento": ("ragionamento",),
        "шаг": ("шаг за шагом",),
        "рассуждения": ("рассуждения",),
        "adım": ("adım adım",),
        "stap": ("stap voor stap",),
        "krok": ("krok po kroku",),
    },
    "rubric": {
        "rubric": ("rubric",),
        "scale": ("on a scale of", "scale from"),
        "grade": ("grade the", "grade this", "grade each", "grade it"),
        "score": (
            "score the",
            "score this",
            "score each",
            "score from",
            "a score between",
            "overall score",
        ),
        "rate": ("rate the", "rate this", "rate each"),
        "criteria": ("criteria",),
        "better": ("which response is better", "which answer is better", "which one is better"),
        "judge": ("impartial judge", "act as a judge", "judge the quality"),
        "evaluate": (
            "evaluate the response",
            "evaluate the answer",
            "evaluate this answer",
            "evaluate the quality",
        ),
        "critique": ("critique",),
        "preferred": ("preferred response", "preferred answer"),
        "bewerte": ("bewerte",),
        "bewertung": ("bewertung",),
        "évalue": ("évalue",),
        "évaluez": ("évaluez",),
        "evalúa": ("evalúa",),
        "calificación": ("calificación",),
        "avalie": ("avalie",),
        "valuta": ("valuta la",),
        "оцени": ("оцени",),
    },
    "synthesis": {
        "instructions": (
            "instructions for",
            "diverse instructions",
            "new instructions",
            "task instructions",
        ),
        "prompts": ("new prompts", "more prompts", "diverse prompts"),
        "prompt": (
            "given prompt",
            "rewritten prompt",
            "rewrite the prompt",
            "rewrite this prompt",
            "new prompt",
            "created prompt",
        ),
        "tasks": ("diverse tasks", "new tasks", "list of tasks", "come up with"),
        "dataset": ("dataset of", "training dataset", "for a dataset", "for the dataset"),
        "training": ("training data", "training example", "training set", "fine-tun"),
        "pairs": (
            "question-answer pairs",
            "question answer pairs",
            "instruction-response pairs",
            "qa pairs",
        ),
        "examples": ("generate examples", "diverse examples", "few-shot examples"),
        "complex": ("more complex", "complex version", "complicated version"),
        "harder": ("a bit harder", "make it harder"),
        "constraints": ("add one more constraint", "adding constraints"),
        "variations": ("variations of",),
        "paraphrases": ("paraphrases of",),
        "anweisungen": ("neue anweisungen",),
        "trainingsdaten": ("trainingsdaten",),
        "datensatz": ("datensatz",),
        "instrucciones": ("nuevas instrucciones",),
        "entrenamiento": ("datos de entrenamiento",),
        "entraînement": ("données d'entraînement",),
    },
    "hidden": {
        "system": ("system prompt", "system message"),
        "hidden": ("hidden reasoning", "hidden thoughts", "hidden instructions"),
        "internal": (
            "internal reasoning",
            "internal monologue",
            "internal thoughts",
            "internal chain",
        ),
        "scratchpad": ("scratchpad",),
        "verbatim": ("verbatim",),
        "systemprompt": ("systemprompt",),
    },
}
"""Kind to {a word that must occur: phrases}; the word makes the search cheap, the phrase decides."""

UNSPACED: Mapping[str, tuple[str, ...]] = {
    "reasoning": (
        "一步一步",
        "一步步",
        "逐步",
        "推理过程",
        "思考过程",
        "思维链",
        "ステップバイステップ",
        "推論過程",
        "思考過程",
        "단계별",
        "추론 과정",
    ),
    "rubric": ("评分", "打分", "評価基準", "採点", "점수", "평가 기준"),
    "synthesis": ("训练数据", "生成指令", "改写", "学習データ", "指示文を", "학습 데이터"),
    "hidden": ("系统提示", "システムプロンプト", "시스템 프롬프트"),
}
"""Writing whose words are not set apart by spaces."""

_WEAK = frozenset(
    [
        "reason",
        "reasons",
        "reasoning",
        "justify",
        "justification",
        "deduce",
        "derive",
        "rationale",
        "logic",
        "logically",
        "steps",
        "explain",
        "explanation",
        "thinking",
        "thoughts",
        "begründe",
        "begründung",
        "erkläre",
        "explique",
        "justifie",
        "explica",
        "justifica",
        "объясни",
    ]
)
KINDS = tuple(PHRASES)
_WORDS = {kind: frozenset(of) for kind, of in PHRASES.items()}
_ANY_WORD = frozenset[str]().union(*_WORDS.values())
"""Most requests have none of them: one look for all kinds."""


@dataclass(frozen=True, slots=True)
class Elicitation:
    """How clearly each kind is asked for: 1 by a phrase, 0.5 for reasoning by two words of it, else 0."""

    reasoning: float = 0.0
    rubric: float = 0.0
    synthesis: float = 0.0
    hidden: float = 0.0


def elicitation(text: str, known: AbstractSet[str]) -> Elicitation:
    """Return what a text asks for.

    Args:
        text: All roles and chunks of the request, joined.
        known: Its words, folded, or more than them.
    """
    folded = ""
    found: dict[str, float] = {}
    for kind in KINDS if not known.isdisjoint(_ANY_WORD) else ():
        if hits := _WORDS[kind] & known:
            folded = folded or " ".join(text.casefold().split())
            if any(phrase in folded for word in hits for phrase in PHRASES[kind][word]):
                found[kind] = 1.0
    if not text.isascii():
        found.update(
            {k: 1.0 for k, phrases in UNSPACED.items() if any(phrase in text for phrase in phrases)}
        )
    if "reasoning" not in found and len(_WEAK & known) >= 2:
        found["reasoning"] = 0.5
    return Elicitation(**found)
