"""Whether a turn grows out of the reply before it, or stands alone.

Honest pipelines and benchmark runs stand alone as well; only against the chat rival does it weigh. A copier who
stuffs unrelated turns before a question gets no credit: what counts is that the new turn uses the reply.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from limbeck.guard.reading import Conversation
from limbeck.guard.sketch import words_of

SHORT = 8
"""Words up to which a turn after a reply is taken as a follow-up: `now in French`, `make it shorter`."""
ENOUGH = 0.25
"""Share of a turn's longer words that were the reply's, from which it depends on it in full."""
_POINTING = frozenset(
    [
        "it",
        "this",
        "that",
        "these",
        "those",
        "they",
        "them",
        "above",
        "previous",
        "your",
        "you",
        "again",
        "more",
        "also",
        "instead",
        "same",
        "das",
        "dies",
        "diese",
        "oben",
        "nochmal",
        "ça",
        "cela",
        "eso",
        "esto",
        "isso",
        "questo",
    ]
)
_LONG = 4
_LEAD = 2000


@dataclass(frozen=True, slots=True)
class Dialogue:
    """`standalone` is 1 for a first turn, `dependent` the degree to which a later one uses the reply."""

    standalone: float
    dependent: float


def dialogue(
    conversation: Conversation, words: Sequence[str], spoken: AbstractSet[str]
) -> Dialogue:
    """Return how a turn stands to what was said before it.

    Args:
        conversation: The request.
        words: The words of its newest turn, folded.
        spoken: The same words, each once.
    """
    if not conversation.reply:
        return Dialogue(float(conversation.tool_turns == 0), 0.0)
    longer = {word for word in spoken if len(word) >= _LONG}
    heard = set(words_of(conversation.reply[:_LEAD])) - set(words_of(conversation.earlier[-_LEAD:]))
    shared = len(longer & heard) / len(longer) if longer else 0.0
    dependent = min(1.0, shared / ENOUGH)
    if len(words) <= SHORT or len(_POINTING & spoken) >= 2:
        dependent = max(dependent, 0.5)
    return Dialogue(0.0, dependent)
