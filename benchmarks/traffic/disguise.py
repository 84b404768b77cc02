"""Rewording without a model: what a copier does to his prompts, and what the artefact control does to everybody's.

These are rules, weaker than a paraphrasing or translating model: `paraphrase` swaps common words and frames,
`translate` asks in another language and swaps the commonest words only. Whoever reports them says so.
"""

import re

import numpy as np

from traffic.account import pick

_SYNONYMS = {
    "write": ("compose", "draft", "put together"), "describe": ("portray", "give an account of"), "explain": ("clarify", "make clear"),
    "list": ("enumerate", "name"), "create": ("make", "produce"), "generate": ("produce", "come up with"), "find": ("determine", "work out"),
    "give": ("provide", "offer"), "following": ("below", "next"), "sentence": ("statement", "phrase"), "using": ("with", "by means of"),
    "example": ("instance", "sample"), "best": ("finest", "most fitting"), "many": ("numerous", "a lot of"), "make": ("build", "craft"),
    "function": ("routine", "method"), "show": ("present", "display"), "different": ("distinct", "various"), "important": ("crucial", "key"),
    "identify": ("spot", "point out"), "story": ("tale", "narrative"), "help": ("assist", "support"), "what": ("which",), "is": ("would be",),
    "how": ("in what way",), "people": ("persons", "folks"), "provide": ("supply", "give"), "answer": ("reply", "response"), "good": ("sound", "fine"),
}  # fmt: skip
_FRAMES = (
    "{text}",
    "Please {text}",
    "I would like you to do this: {text}",
    "{text} Thank you.",
    "Task: {text}",
    "hi, {text}",
)
_SPANISH = {
    "the": "el", "a": "un", "of": "de", "and": "y", "to": "a", "in": "en", "is": "es", "what": "qué", "how": "cómo", "for": "para",
    "with": "con", "write": "escribe", "list": "enumera", "describe": "describe", "explain": "explica", "that": "que", "are": "son",
    "from": "de", "this": "este", "on": "sobre", "by": "por", "an": "un", "give": "da", "create": "crea", "or": "o", "sentence": "frase",
    "following": "siguiente", "words": "palabras", "people": "personas", "between": "entre", "would": "sería", "not": "no", "it": "lo",
    "which": "cuál", "find": "encuentra", "name": "nombra", "two": "dos", "one": "uno", "make": "haz", "story": "historia", "your": "tu",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+")


def paraphrase(rng: np.random.Generator, text: str) -> str:
    """Return a text with common words swapped for others and a frame around it."""

    def swap(found: re.Match[str]) -> str:
        word = found.group()
        others = _SYNONYMS.get(word.lower())
        return pick(rng, others) if others and rng.random() < 0.8 else word

    return pick(rng, _FRAMES).format(text=_WORD.sub(swap, text).replace("{", "(").replace("}", ")"))


def translate(text: str) -> str:
    """Return a text whose commonest words are Spanish, with an order to answer in Spanish."""
    turned = _WORD.sub(lambda found: _SPANISH.get(found.group().lower(), found.group()), text)
    return f"{turned}\n\nResponde en español."


def normalise(text: str) -> str:
    """Return a text in lower case without digits, marks or layout: what a source's house style would show in."""
    return " ".join(_WORD.findall(text.lower()))
