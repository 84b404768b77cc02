"""A streamed reply, sealed event by event."""

from typing import Any

import orjson

from limbeck.guard.seal.fields import Key, Scrubber, say
from limbeck.guard.seal.reply import RESPONSES
from limbeck.guard.seal.tags import Tags
from limbeck.guard.sse import DONE, Events, payload, with_payload

MOST_HELD = 64
"""Events that wait until the beginning of a mark has become one or not."""
LONGEST_COMMENT = 128


class SealedStream:
    """One stream of server-sent events, with the bytes that may leave.

    Events in which nothing is hidden leave as the very bytes that came. While text may be the beginning of
    a mark, events wait; then they leave as they came, or without what was inside the mark.
    """

    def __init__(
        self, path: str, tags: Tags, *, within: str | None = None, logprobs: bool = False
    ) -> None:
        self._responses = path == RESPONSES
        self._scrubber = Scrubber(tags, within=within, logprobs=logprobs, whole=False)
        self._events = Events()
        self._held: list[tuple[bytes, dict[str, Any] | None, bool]] = []
        self._cut_held = False
        self._model: dict[str, Any] = {}
        self.count = 0
        self.usage: dict[str, Any] | None = None
        self.cut = False
        """Whether anything has been taken out so far."""

    @property
    def late(self) -> bool:
        """Whether reasoning turned out to be reasoning only after it had left (see `ServedModel`)."""
        return self._scrubber.late

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave now; always whole events."""
        events = self._events.feed(chunk)
        if len(events) == 1:
            return self._event(events[0])
        return b"".join([self._event(event) for event in events])

    def whole(self, out: bytes) -> int:
        """Return how much of the last output ends with an event: all of it."""
        return len(out)

    def finish(self) -> bytes:
        """Return what may leave at a clean end; the beginning of an event that never came does not."""
        return self._flush()

    def _event(self, event: bytes) -> bytes:
        data = payload(event)
        if data is None:
            return self._hold(event, None, cut=len(event) > LONGEST_COMMENT)
        if data == DONE:
            return self._flush() + event
        try:
            said = orjson.loads(data)
        except ValueError:
            said = None
        if type(said) is not dict:  # nothing can be promised of what cannot be read
            self.cut = True
            return b""
        self.count += 1
        return self._scrub(event, said)

    def _scrub(self, event: bytes, said: dict[str, Any]) -> bytes:
        scrubber = self._scrubber
        if said.get("error") is not None and not self._responses:
            scrubber.error(said)
            leaves = True
        elif self._responses:
            leaves = scrubber.event(said)
            self._note_usage(said.get("response"))
        else:
            scrubber.completion(said)
            self._note_usage(said)
            leaves = not scrubber.cut or _says_something(said)
        if not (self._held or scrubber.cut or scrubber.moved):
            return event
        if not leaves:
            self.cut = self._cut_held = True
            return b"" if scrubber.waiting else self._release()
        return self._hold(event, said, cut=scrubber.cut)

    def _hold(self, event: bytes, said: dict[str, Any] | None, *, cut: bool) -> bytes:
        if said is None and not self._held:
            return b"" if cut else event
        if cut:
            self.cut = self._cut_held = True
        self._held.append((event, said, cut or self._scrubber.moved))
        if not self._scrubber.waiting:
            return self._release()
        if len(self._held) < MOST_HELD:
            return b""
        self._cut_held = True
        out = self._release()
        self._cut_held = (
            True  # what waits comes in a later event than the upstream's, so that one is rewritten
        )
        return out

    def _release(self) -> bytes:
        out = [
            event
            if said is None or not (self._cut_held and changed)
            else with_payload(event, orjson.dumps(said))
            for event, said, changed in self._held
        ]
        if self._held and self._held[-1][1] is not None:
            self._model = self._held[-1][1]
        self._held.clear()
        self._cut_held = False
        return b"".join(out)

    def _flush(self) -> bytes:
        """Return the waiting events; text that still waited was no mark."""
        rest = self._scrubber.rest()
        if rest and not self._cut_held and self._held:
            return self._release()  # the events as they came hold it
        return self._release() + b"".join(self._said_late(key, text) for key, text in rest)

    def _said_late(self, key: Key, text: str) -> bytes:
        """Return an event of our own for text whose own event has left without it."""
        if self._responses:
            kind = "response.output_text.delta"
            said: dict[str, Any] = {
                "type": kind, "item_id": key[0], "output_index": 0, "content_index": key[1], "delta": text,
            }  # fmt: skip
            return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(said) + b"\n\n"
        choice: dict[str, Any] = {"index": key[0], "finish_reason": None}
        say(choice, key, text)
        said = {name: value for name, value in self._model.items() if name != "usage"}
        said["choices"] = [choice]
        return b"data: " + orjson.dumps(said) + b"\n\n"

    def _note_usage(self, said: Any) -> None:
        if type(said) is dict and type(said.get("usage")) is dict:
            self.usage = said["usage"]


def _says_something(chunk: dict[str, Any]) -> bool:
    """Return whether a chunk that lost something still says anything."""
    choices = chunk.get("choices")
    if not choices:
        return True
    for choice in choices:
        if type(choice) is not dict:
            continue
        if choice.get("finish_reason") is not None or choice.get("text"):
            return True
        delta = choice.get("delta")
        if type(delta) is dict and any(
            delta.get(name) for name in ("role", "content", "refusal", "tool_calls")
        ):
            return True
    return chunk.get("usage") is not None
