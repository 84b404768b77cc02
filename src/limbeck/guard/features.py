"""The list of what is measured, which way each number points, and a request's part of it.

`NAMES` is the order of every feature vector. `SENSE` is +1 where more looks more like copying than like some honest class
does, and -1 where more looks more honest. Evidence may weigh a feature in this direction only, so that what it
learns is intent as these files describe it, and not the source of the texts that it was fitted on.
"""

from collections.abc import Sequence

from limbeck.guard.asked import OF_REQUEST, TOPICS, Asked
from limbeck.guard.observation import Observation
from limbeck.guard.reading import read
from limbeck.guard.signals.dialogue import dialogue
from limbeck.guard.signals.elicitation import elicitation
from limbeck.guard.signals.exam import exam
from limbeck.guard.signals.interface import interface
from limbeck.guard.signals.suite import Suite, hits
from limbeck.guard.signals.template import SAMPLE
from limbeck.guard.sketch import Sketcher, bottom, fingerprints, words_of

_LONG_WORD = 5
_LONG_PROMPT = 8192.0

OF_HISTORY = (
    ("fresh", 1), ("growth", 1), ("templated", -1), ("repeat", -1), ("harvest", 1), ("elicited", 1), ("probed", 1),
)  # fmt: skip
"""Of one request in the light of those before it; the last three need several things at once on the same request."""
OF_WHOLE = (("narrow", -1), ("flat", 1), ("fast", 1), ("even_gaps", 1))
"""Of an account or cluster as a whole."""
OF_CLUSTER = (("alike", 1), ("even_loads", 1), ("apart", 1))
"""Of several accounts."""

_ALL = (*OF_REQUEST, *OF_HISTORY, *OF_WHOLE, *OF_CLUSTER)
NAMES = tuple(name for name, _ in _ALL)
SENSE = tuple(sense for _, sense in _ALL)
KEPT = len(OF_REQUEST) + len(OF_HISTORY)
"""Features whose mean over requests is kept."""


def ask(observation: Observation, sketcher: Sketcher, suites: Sequence[Suite]) -> Asked:
    """Measure one request; reads no clock and no memory but the keyed word hashes."""
    said = read(observation)
    words = words_of(said.newest)
    shingles = sketcher.shingles(words)
    sample = bottom(shingles, SAMPLE)
    spoken = set(words)
    if said.newest.isascii():
        topical = [sketcher[word] for word in spoken if len(word) >= _LONG_WORD]
    else:
        topical = [
            sketcher[word] for word in spoken if len(word) >= _LONG_WORD or not word.isascii()
        ]
    talk = dialogue(said, words, spoken)
    whole = said.everything
    sought = elicitation(whole, spoken if whole is said.newest else set(words_of(whole)))
    use = interface(observation.request, observation.response, prefill=bool(said.prefill))
    hit = hits(fingerprints(shingles), suites) if suites else 0.0
    return Asked(
        values=(
            talk.standalone, talk.dependent, sought.reasoning, sought.rubric, sought.synthesis, sought.hidden,
            use.logprobs, use.logit_bias, use.many, use.prefill, use.saturated, use.warm, use.tools,
            use.rich, exam(said.newest), hit, min(1.0, said.characters / _LONG_PROMPT),
            min(1.0, len(said.frame) / said.characters) if said.characters else 0.0,
        ),
        sample=tuple(sample),
        topics=tuple(sorted(topical)[:TOPICS]),
        identity=sketcher.hash(said.newest),
        tokens=use.tokens,
    )  # fmt: skip
