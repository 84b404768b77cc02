"""Which fields of a reply may leave, and what of them: a scrubber that goes over one parsed reply.

What is not on a list stays behind, unless it is a number, true, false or null: a field that an engine adds
tomorrow is hidden until somebody has looked at it.
"""

import re
from typing import Any

from limbeck.guard.seal.spelling import Spelling
from limbeck.guard.seal.tags import Tags, Visible

Fields = dict[str, Any]
Key = tuple[object, ...]

_ALWAYS = frozenset(
    {"id", "object", "created", "created_at", "model", "system_fingerprint", "service_tier"}
)
_COMPLETION = _ALWAYS | {"choices", "usage"}
_CHOICE = frozenset(
    {
        "index",
        "finish_reason",
        "stop_reason",
        "matched_stop",
        "text",
        "message",
        "delta",
        "logprobs",
    }
)
_MESSAGE = frozenset({"role", "content", "refusal", "tool_calls", "function_call", "annotations"})
_CALL = frozenset({"id", "type", "index", "function"})
_FUNCTION = frozenset({"name", "arguments"})
_PART = frozenset({"type", "text", "refusal", "annotations", "logprobs"})
_OPEN_PARTS = frozenset({"text", "output_text", "refusal"})
_ITEM = frozenset({"id", "type", "status", "role", "content", "name", "arguments", "call_id"})
_OPEN_ITEMS = frozenset({"message", "function_call"})
_ECHOED = frozenset({"instructions", "tools", "tool_choice", "text", "metadata", "user"})
"""What a response repeats of its request: the caller's own words."""
_RESPONSE = _ALWAYS | _ECHOED | {
    "status", "error", "incomplete_details", "output", "usage", "reasoning", "truncation",
    "previous_response_id", "prompt_cache_key", "safety_identifier",
}  # fmt: skip
_EVENT = frozenset({"type", "item_id", "response", "item", "part", "delta", "text", "refusal", "arguments",
                    "annotation", "logprobs", "name", "call_id", "code", "message", "param", "error"})  # fmt: skip
_OPEN_EVENTS = frozenset(
    {
        *(f"response.{word}" for word in ("created", "queued", "in_progress", "completed", "incomplete", "failed")),
        *(f"response.output_item.{word}" for word in ("added", "done")),
        *(f"response.content_part.{word}" for word in ("added", "done")),
        *(f"response.output_text.{word}" for word in ("delta", "done", "annotation.added")),
        *(f"response.refusal.{word}" for word in ("delta", "done")),
        *(f"response.function_call_arguments.{word}" for word in ("delta", "done")),
        "error",
    }
)  # fmt: skip
_ERROR = frozenset(
    {"error", "object", "message", "type", "param", "code", "detail", "status", "request_id"}
)
_HIDDEN_NAME = re.compile(r"reasoning|think|thought|chain_of_thought", re.IGNORECASE)


class Scrubber:
    """Takes out of one reply, whole or event by event, what must not leave.

    It changes the parsed values in place. `cut` says whether the last value lost something, `moved` whether
    text waits for the next event because it may be the beginning of a mark.
    """

    def __init__(
        self, tags: Tags, *, within: str | None = None, logprobs: bool = False, whole: bool = True
    ) -> None:
        self._tags = tags
        self._within = within
        self._logprobs = logprobs
        self._whole = whole
        self._views: dict[Key, Visible] = {}
        self._spellings: dict[Key, Spelling] = {}
        self.cut = False
        self.moved = False
        self.late = False
        self._as_it_came = True
        """Whether the text that was cleaned last lost nothing; some of it may still wait."""

    @property
    def waiting(self) -> bool:
        """Whether any visible text waits for the next event."""
        return any(view.waiting and view.within is None for view in self._views.values())

    def rest(self) -> list[tuple[Key, str]]:
        """Return the text that was still waiting when the stream ended, by channel."""
        texts = [(key, view.finish()) for key, view in self._views.items()]
        return [(key, text) for key, text in texts if text]

    def completion(self, reply: Fields) -> None:
        """Scrub a chat completion, a text completion, or a chunk of either."""
        self._begin()
        self._keep(reply, _COMPLETION)
        self._numbers(reply, "usage")
        choices = reply.get("choices")
        if type(choices) is not list:
            self._drop(reply, "choices")
            return
        for choice in choices:
            self._choice(choice)

    def response(self, reply: Fields) -> None:
        """Scrub an object of the responses API."""
        self._begin()
        self._response(reply)

    def event(self, event: Fields) -> bool:
        """Scrub an event of the responses API; return whether anything of it may leave."""
        self._begin()
        kind = event.get("type")
        if kind not in _OPEN_EVENTS:
            self.cut = True
            return False
        self._keep(event, _EVENT)
        return self._event(event, kind)

    def error(self, reply: Fields) -> None:
        """Scrub the body of an error."""
        self._begin()
        self._keep(reply, _ERROR)
        for name in tuple(reply):
            reply[name] = self._plain(reply[name])

    def _begin(self) -> None:
        self.cut = self.moved = False

    def _choice(self, choice: Any) -> None:
        if type(choice) is not dict:
            self.cut = True
            return
        self._keep(choice, _CHOICE)
        index = choice.get("index", 0)
        for name in ("finish_reason", "stop_reason", "matched_stop"):
            if choice.get(name) is not None:
                choice[name] = self._plain(choice[name])
        self._as_it_came = True
        said = ""
        for name in ("delta", "message"):
            message = choice.get(name)
            if type(message) is dict:
                said = self._message(message, index)
            elif message is not None:
                self._drop(choice, name)
        text = choice.get("text")
        if type(text) is str:
            said = text
            choice["text"] = self._clean((index, "text"), text)
        elif text is not None:
            self._drop(choice, "text")
        if choice.get("logprobs") is not None:
            self._judge_logprobs(choice, index, said)
        if self._views and choice.get("finish_reason") is not None:
            self._finish(choice, index)

    def _finish(self, choice: Fields, index: object) -> None:
        """Give a choice that ends what of it was still waiting."""
        for key, view in self._views.items():
            if key[0] == index and view.waiting and (text := view.finish()):
                say(choice, key, text)
                self.moved = True

    def _message(self, message: Fields, index: object) -> str:
        """Scrub a message or a delta; return the text that it came with."""
        self._keep(message, _MESSAGE)
        said = ""
        if len(message) > 1 or "content" not in message:
            self._rest_of_message(message, index)
        content = message.get("content")
        if type(content) is str:
            if content:
                said = content
                message["content"] = self._clean((index, "content"), content)
        elif type(content) is list:
            said = self._parts(message, "content", (index, "content"))
        elif content is not None:
            self._drop(message, "content")
        return said

    def _rest_of_message(self, message: Fields, index: object) -> None:
        if type(message.get("refusal")) is str:
            message["refusal"] = self._clean((index, "refusal"), message["refusal"])
        if message.get("annotations") is not None:
            message["annotations"] = self._plain(message["annotations"])
        if type(message.get("role")) is str:
            message["role"] = self._plain(message["role"])
        if message.get("function_call") is not None:
            self._function(message, "function_call", (index, "function_call"))
        calls = message.get("tool_calls")
        if type(calls) is list:
            for place, call in enumerate(calls):
                self._call(call, index, place)
        elif calls is not None:
            self._drop(message, "tool_calls")

    def _call(self, call: Any, index: object, place: int) -> None:
        if type(call) is not dict:
            self.cut = True
            return
        self._keep(call, _CALL)
        for name in ("id", "type"):
            if name in call:
                call[name] = self._plain(call[name])
        if call.get("function") is not None:
            self._function(call, "function", (index, "call", call.get("index", place)))

    def _function(self, owner: Fields, name: str, key: Key) -> None:
        function = owner[name]
        if type(function) is not dict:
            self._drop(owner, name)
            return
        self._keep(function, _FUNCTION)
        for part in ("name", "arguments"):
            value = function.get(part)
            if type(value) is str:
                function[part] = self._clean((*key, part), value)
            elif value is not None:
                self._drop(function, part)

    def _parts(self, owner: Fields, name: str, key: Key) -> str:
        said: list[str] = []
        kept: list[Any] = []
        as_it_came = True
        for part in owner[name]:
            if type(part) is not dict or part.get("type") not in _OPEN_PARTS:
                self.cut, as_it_came = True, False
                continue
            said.append(self._part(part, key))
            as_it_came = as_it_came and self._as_it_came
            kept.append(part)
        owner[name] = kept
        self._as_it_came = as_it_came
        return "".join(said)

    def _part(self, part: Fields, key: Key) -> str:
        self._keep(part, _PART)
        said = ""
        for field in ("text", "refusal"):
            value = part.get(field)
            if type(value) is str:
                said = value
                part[field] = self._clean((*key, field), value)
                if part.get("logprobs") is not None:
                    self._judge_logprobs(part, key, said)
            elif value is not None:
                self._drop(part, field)
        if part.get("annotations") is not None:
            part["annotations"] = self._plain(part["annotations"])
        return said

    def _judge_logprobs(self, owner: Fields, key: object, said: str) -> None:
        """Let log-probabilities leave only where their tokens spell exactly the text that leaves.

        Those of text that waits leave with the event as it came, or not at all.
        """
        if owner["logprobs"] == []:
            return
        spelling = self._spellings.setdefault((key, "logprobs"), Spelling(self._tags))
        ends = self._whole or owner.get("finish_reason") is not None
        held = self._logprobs and spelling.holds(owner["logprobs"], said, ends=ends)
        if held and self._as_it_came and not self.moved:
            return
        owner["logprobs"] = [] if type(owner["logprobs"]) is list else None
        if not (held and self._as_it_came):
            self.cut = True

    def _response(self, reply: Fields) -> None:
        self._keep(reply, _RESPONSE)
        self._numbers(reply, "usage")
        for name in ("error", "incomplete_details", "reasoning"):
            if reply.get(name) is not None:
                reply[name] = self._plain(reply[name])
        output = reply.get("output")
        if type(output) is not list:
            if output is not None:
                self._drop(reply, "output")
            return
        kept = [item for place, item in enumerate(output) if self._item(item, place)]
        if len(kept) < len(output):
            reply["output"], self.cut = kept, True

    def _item(self, item: Any, place: object) -> bool:
        """Scrub an item of a response; return whether it may leave at all."""
        if type(item) is not dict or item.get("type") not in _OPEN_ITEMS:
            return False
        self._keep(item, _ITEM)
        if type(item.get("content")) is list:
            self._parts(item, "content", (place, "item"))
        elif item.get("content") is not None:
            self._drop(item, "content")
        for name in ("name", "arguments"):
            if type(item.get(name)) is str:
                item[name] = self._at_once((), item[name])
        return True

    def _event(self, event: Fields, kind: str) -> bool:
        streaming, self._whole = self._whole, True
        try:
            if type(event.get("response")) is dict:
                self._response(event["response"])
            if event.get("item") is not None and not self._item(event["item"], "item"):
                self.cut = True
                return False
            if event.get("part") is not None:
                part = event["part"]
                if type(part) is not dict or part.get("type") not in _OPEN_PARTS:
                    self.cut = True
                    return False
                self._part(part, ("part", "content"))
            for name in ("text", "refusal", "arguments", "message"):
                if type(event.get(name)) is str:
                    event[name] = self._at_once(("", "text") if name == "text" else (), event[name])
            for name in ("annotation", "error"):
                if event.get(name) is not None:
                    event[name] = self._plain(event[name])
        finally:
            self._whole = streaming
        self._delta(event, kind)
        return True

    def _delta(self, event: Fields, kind: str) -> None:
        delta = event.get("delta")
        key: Key = (event.get("item_id"), event.get("content_index"), _channel(kind))
        said = event.get("text") or ""
        if type(delta) is str:
            said = delta
            event["delta"] = self._clean(key, delta)
        elif delta is not None:
            self._drop(event, "delta")
        if event.get("logprobs"):
            self._judge_logprobs(event, (key, kind), said)

    def _clean(self, key: Key, text: str) -> str:
        if self._whole:
            return self._at_once(key, text)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = Visible(self._tags, self._start(key))
        shown = view.feed(text)
        self._as_it_came = not view.hid
        if view.hid:
            self.cut = True
        elif shown is not text and shown != text:
            self.moved = True
        if view.late:
            self.late = True
        return shown

    def _at_once(self, key: Key, text: str) -> str:
        """Clean a text that is there from its beginning to its end."""
        if self._within is None and not self._tags.first.search(text):
            self._as_it_came = True
            return text
        view = Visible(self._tags, self._start(key))
        shown = view.feed(text)
        shown += view.finish()
        self._as_it_came = shown == text
        if shown != text:
            self.cut = True
        return shown

    def _start(self, key: Key) -> str | None:
        """Return the mark that a channel begins inside of; only an answer's text can begin inside one."""
        return self._within if key and key[-1] in ("content", "text") else None

    def _plain(self, value: Any) -> Any:
        """Clean every string in a value, and take out what is named like reasoning."""
        match value:
            case str():
                return self._at_once((), value)
            case list():
                return [self._plain(one) for one in value]
            case dict():
                kept = {k: self._plain(v) for k, v in value.items() if not _names_reasoning(k, v)}
                self.cut = self.cut or len(kept) < len(value)
                return kept
            case _:
                return value

    def _keep(self, fields: Fields, allowed: frozenset[str]) -> None:
        if fields.keys() <= allowed:
            return
        for name in [n for n, v in fields.items() if n not in allowed and not _countable(v)]:
            self._drop(fields, name)

    def _numbers(self, fields: Fields, name: str) -> None:
        if name in fields and not _countable(fields[name]):
            self._drop(fields, name)

    def _drop(self, fields: Fields, name: str) -> None:
        if name in fields:
            del fields[name]
            self.cut = True


def say(choice: Fields, key: Key, text: str) -> None:
    """Add text to a choice of a stream, where its channel puts it."""
    if key[1] == "text":
        choice["text"] = choice.get("text", "") + text
        return
    delta = choice.setdefault("delta", {})
    match key[1:]:
        case ("call", place, part):
            delta.setdefault("tool_calls", []).append({"index": place, "function": {part: text}})
        case ("function_call", part):
            delta.setdefault("function_call", {})[part] = text
        case ("content", part):
            delta["content"] = [{"type": part, part: text}]
        case (name,):
            delta[name] = (delta.get(name) or "") + text
        case _:
            pass


def _names_reasoning(name: str, value: Any) -> bool:
    return _HIDDEN_NAME.search(name) is not None and not _countable(value)


def _countable(value: Any) -> bool:
    """Return whether a value is a number, true, false, null, or an object of such: nothing that spells text."""
    if value is None or type(value) in (int, float, bool):
        return True
    return type(value) is dict and all(map(_countable, value.values()))


def _channel(kind: str) -> str:
    return "text" if kind.startswith("response.output_text") else kind
