"""Judges whose faults are known, served on the loopback interface behind an OpenAI-compatible chat endpoint.

    python benchmarks/planted_judges.py WORLD.json

prints one `NAME=URL` a line, as `--judge` takes it, and serves until it is stopped. WORLD.json says what the judges
know: `{"gold": {QUESTION: RIGHT ANSWER}, "favourite": {QUESTION: ANSWER OF ONE MODEL}}`, questions as the judges are
asked them. Only the oracle deserves a licence.
"""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopback import Handler, serving

from limbeck.validate.judge.ballot import Ballot, read_ballot
from limbeck.validate.judge.licence import RULES

Right = Callable[[str, str], bool]
"""(question, text) to whether the text answers it rightly."""
Voice = Callable[[Ballot], str]
"""A judge: a ballot to the text of its reply."""


@dataclass(frozen=True, slots=True)
class World:
    """What planted judges know."""

    right: Right
    favourite: Mapping[str, str]
    """By question, the answer of the model that the lineage-lover loves."""
    rival: Mapping[str, str] = field(default_factory=dict[str, str])
    """By question, the answer of the other model."""
    seed: int = 0


def planted(world: World) -> dict[str, Voice]:
    """Return every planted judge that answers at all, by name."""
    return {
        "always-a": lambda _: "[[A]]",
        "garbage": lambda b: hashlib.sha256(_bytes(world, b)).hexdigest(),
        "length-lover": lambda b: _says(len(b.answer_a), len(b.answer_b)),
        "lineage-lover": lambda b: _says(*(_loved(world, b.question, t) for t in _both(b))),
        "coin": lambda b: "[[A]]" if _draw(world, b) < 0.5 else "[[B]]",
        "oracle": lambda b: _says(*(world.right(b.question, t) for t in _both(b))),
    }


def more_planted(world: World) -> dict[str, Voice]:
    """Return subtler judges without merit, for counting false licences; they contradict nothing in plain sight."""

    def same_coin(b: Ballot) -> str:
        """Toss one coin for both orders, so that it is perfectly consistent."""
        first, heads = min(_both(b)), _pair_draw(world, b) < 0.5
        return _says(b.answer_a == first and heads, b.answer_b == first and heads)

    def fooled(b: Ballot) -> str:
        """Be right unless one answer is twice as long, then take that one."""
        a, c = (len(t) for t in _both(b))
        if max(a, c) > 2 * min(a, c):
            return _says(a, c)
        return _says(*(world.right(b.question, t) for t in _both(b)))

    def partial(b: Ballot) -> str:
        """Be right, except that a beloved answer always wins."""
        loved = [_loved(world, b.question, t) for t in _both(b)]
        if any(loved):
            return _says(*loved)
        return _says(*(world.right(b.question, t) for t in _both(b)))

    return {
        "always-tie": lambda _: "[[C]]",
        "always-b": lambda _: "[[B]]",
        "shortness-lover": lambda b: _says(-len(b.answer_a), -len(b.answer_b)),
        "consistent-coin": same_coin,
        "fooled-by-length": fooled,
        "partial-to-one": partial,
        "mumbler": lambda b: "[[A]] or [[B]]" if _draw(world, b) < 0.3 else "[[A]]",
    }


def true_at(world: World, rate: float) -> Voice:
    """Return a judge that is right on a pair, in both orders, with a given chance, and wrong in both otherwise."""

    def voice(b: Ballot) -> str:
        lucky = _pair_draw(world, b) < rate
        a, c = (world.right(b.question, t) for t in _both(b))
        return _says(a, c) if lucky else _says(c, a)

    return voice


def limits(world: World) -> dict[str, Voice]:
    """Return judges that do everything right but for one rule, whose limit they meet exactly: fit for no licence."""

    def unfair(b: Ballot) -> str:
        """Where the student alone is right, say so no more often than the rule asks to exceed."""
        rights = [world.right(b.question, t) for t in _both(b)]
        original = {*_both(b)} == {world.favourite[b.question], world.rival[b.question]}
        won_by_student = [t == world.favourite[b.question] for t in _both(b)] == rights
        if original and won_by_student and _pair_draw(world, b) >= RULES["student right"].limit:
            return _says(*(not r for r in rights))
        return _says(*rights)

    def padded(b: Ballot) -> str:
        """Prefer an answer with padding to the same without exactly as often as is too much."""
        short, long = sorted(_both(b), key=len)
        if long.startswith(short) and _pair_draw(world, b) < RULES["padded twin"].limit:
            return _says(b.answer_a == long, b.answer_b == long)
        return _says(*(world.right(b.question, t) for t in _both(b)))

    return {"limit: student right": unfair, "limit: padded twin": padded}


def knows(gold: Mapping[str, str]) -> Right:
    """Return the judgement of one who has the gold answers: their words stand in the text."""

    def right(question: str, text: str) -> bool:
        wanted = re.escape(gold[question].strip())
        return re.search(rf"(?<!\w){wanted}(?!\w)", text, re.IGNORECASE) is not None

    return right


@dataclass(frozen=True, slots=True)
class Sent:
    """An HTTP reply."""

    data: bytes
    status: int = 200
    kind: str = "application/json"


def serve(reply: Callable[[dict[str, Any]], Sent]) -> AbstractContextManager[str]:
    """Serve a chat endpoint for the length of a block; the context is its base URL."""

    class Replying(Handler):
        def do_POST(self) -> None:
            sent = reply(json.loads(self.body()))
            self.send_response(sent.status)
            self.send_header("Content-Type", sent.kind)
            self.send_header("Content-Length", str(len(sent.data)))
            self.end_headers()
            self.wfile.write(sent.data)

    return serving(Replying)


def speaking(voice: Voice) -> Callable[[dict[str, Any]], Sent]:
    """Return the endpoint of a judge that reads its ballot and answers."""

    def reply(body: dict[str, Any]) -> Sent:
        text = voice(read_ballot(body["messages"][-1]["content"]))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        told = {"object": "chat.completion", "model": body["model"], "choices": [choice]}
        return Sent(json.dumps(told).encode())

    return reply


def html(_: dict[str, Any]) -> Sent:
    """Answer as a captive portal does."""
    return Sent(b"<!doctype html><html><body>Please log in.</body></html>", kind="text/html")


def silence(end: threading.Event) -> Callable[[dict[str, Any]], Sent]:
    """Return an endpoint that takes the request and never answers."""

    def reply(_: dict[str, Any]) -> Sent:
        end.wait()
        return Sent(b"", status=503)

    return reply


@contextmanager
def serve_all(world: World) -> Iterator[dict[str, str]]:
    """Serve every planted judge, the one that sends HTML and the one that never answers; yield their URLs."""
    end = threading.Event()
    with ExitStack() as stack:
        stack.callback(end.set)
        urls = {
            name: stack.enter_context(serve(speaking(voice)))
            for name, voice in planted(world).items()
        }
        urls["html"] = stack.enter_context(serve(html))
        urls["silent"] = stack.enter_context(serve(silence(end)))
        yield urls


def _both(ballot: Ballot) -> tuple[str, str]:
    return ballot.answer_a, ballot.answer_b


def _says(a: float, b: float) -> str:
    """Return the verdict for whichever is worth more."""
    return "[[C]]" if a == b else "[[A]]" if a > b else "[[B]]"


def _loved(world: World, question: str, text: str) -> bool:
    """Say whether a text is the favourite's, whatever was done to it after: a lover knows the hand."""
    favourite = world.favourite.get(question, "")
    words, theirs = set(text.split()), set(favourite.split())
    return bool(theirs) and len(words & theirs) >= 0.8 * min(len(words), len(theirs))


def _bytes(world: World, ballot: Ballot) -> bytes:
    return json.dumps([world.seed, ballot.question, ballot.answer_a, ballot.answer_b]).encode()


def _draw(world: World, ballot: Ballot) -> float:
    """Return a number in [0, 1) that hangs on the seed and the ballot alone."""
    return int.from_bytes(hashlib.sha256(_bytes(world, ballot)).digest()[:6]) / 2**48


def _pair_draw(world: World, ballot: Ballot) -> float:
    """Return a number in [0, 1) that is the same for both orders."""
    return _draw(world, Ballot(ballot.question, *sorted(_both(ballot))))


def main() -> None:
    """Serve the judges of a world until interrupted."""
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    world = World(knows(told["gold"]), told.get("favourite", {}))
    with serve_all(world) as urls:
        for name, url in urls.items():
            print(f"{name}={url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
