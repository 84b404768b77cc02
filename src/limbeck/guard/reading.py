"""What the guard reads out of one request body: its newest turn, its frame, its history, its form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from limbeck.guard.observation import Observation

LONGEST_TEXT = 65_536
"""Characters of a role that are read; of a longer text both ends and stretches in between."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request body as roles and text; parts that are not text are left out.

    `newest` is what the user said last, `reply` what the model had said before that, `earlier` the user's
    turns before, `frame` the system or developer message, `prefill` an assistant text at the very end.
    """

    newest: str
    reply: str
    earlier: str
    frame: str
    prefill: str
    user_turns: int
    tool_turns: int
    characters: int

    @property
    def everything(self) -> str:
        """All roles and all chunks joined, so that nothing hides in another one."""
        if not (self.frame or self.earlier or self.reply or self.prefill):
            return self.newest
        return "\n".join(
            part
            for part in (self.frame, self.earlier, self.reply, self.newest, self.prefill)
            if part
        )


def read(observation: Observation) -> Conversation:
    """Return the conversation of a chat, completion or responses body; a foreign body reads as empty."""
    request = observation.request
    frames: list[str] = []
    users: list[str] = []
    newest = reply = answered = prefill = ""
    tools = characters = 0
    for role, text in _turns(request):
        characters += len(text)
        if role in {"system", "developer"}:
            frames.append(text)
            continue
        prefill = ""
        if role == "user":
            users.append(text)
            newest, reply = text, answered
        elif role == "assistant":
            answered = prefill = text
        elif role in {"tool", "function"}:
            tools += 1
    return Conversation(
        newest=_clip(newest),
        reply=_clip(reply if users else answered),
        earlier=_clip("\n".join(users[:-1])) if len(users) > 1 else "",
        frame=_clip("\n".join(frames)) if frames else "",
        prefill=_clip(prefill),
        user_turns=len(users),
        tool_turns=tools,
        characters=characters,
    )


def number(request: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these fields that is a number; booleans and strings are none."""
    for name in names:
        value = request.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _turns(request: Mapping[str, Any]) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    instructions = request.get("instructions")
    if isinstance(instructions, str):
        turns.append(("system", instructions))
    for name in ("messages", "input", "prompt"):
        value = request.get(name)
        if isinstance(value, str):
            turns.append(("user", value))
        elif isinstance(value, list):
            _add_listed(cast("list[Any]", value), turns)
    return turns


def _add_listed(items: Sequence[Any], turns: list[tuple[str, str]]) -> None:
    for item in items:
        if isinstance(item, str):
            turns.append(("user", item))
        elif isinstance(item, dict):
            message = cast("dict[str, Any]", item)
            content = message.get("content")
            text = content if isinstance(content, str) else text_of(content)
            turns.append((str(message.get("role") or "user"), text))


def text_of(content: object) -> str:
    """Return the text of a message's content: a string, or the text parts of a list, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (
        part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        for part in cast("list[Any]", content)
    )
    return "".join(part for part in parts if isinstance(part, str))


def _clip(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    quarter = LONGEST_TEXT // 4
    middle = len(text) // 2
    return text[:quarter] + text[middle - quarter : middle + quarter] + text[-quarter:]
