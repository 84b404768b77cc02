"""What the guard reads out of one request body: its newest turn, its frame, its history, its form."""

from collections.abc import Iterable, Mapping, Sequence
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
    turns = list(_turns(request))
    frame = "\n".join(text for role, text in turns if role in {"system", "developer"})
    spoken = [turn for turn in turns if turn[0] not in {"system", "developer"}]
    prefill = spoken[-1][1] if spoken and spoken[-1][0] == "assistant" else ""
    last = _last(spoken, "user")
    before = spoken[:last] if last is not None else spoken
    replied = _last(before, "assistant")
    users = [text for role, text in spoken if role == "user"]
    return Conversation(
        newest=_clip(spoken[last][1]) if last is not None else "",
        reply=_clip(before[replied][1]) if replied is not None else "",
        earlier=_clip("\n".join(users[:-1])),
        frame=_clip(frame),
        prefill=_clip(prefill),
        user_turns=len(users),
        tool_turns=sum(role in {"tool", "function"} for role, _ in spoken),
        characters=sum(len(text) for _, text in turns),
    )


def number(request: Mapping[str, Any], *names: str) -> float | None:
    """Return the first of these fields that is a number; booleans and strings are none."""
    for name in names:
        value = request.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _turns(request: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    instructions = request.get("instructions")
    if isinstance(instructions, str):
        yield "system", instructions
    for name in ("messages", "input", "prompt"):
        value = request.get(name)
        if isinstance(value, str):
            yield "user", value
        elif isinstance(value, list):
            yield from _listed(cast("list[Any]", value))


def _listed(items: Sequence[Any]) -> Iterable[tuple[str, str]]:
    for item in items:
        if isinstance(item, str):
            yield "user", item
        elif isinstance(item, dict):
            message = cast("dict[str, Any]", item)
            yield str(message.get("role") or "user"), text_of(message.get("content"))


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


def _last(turns: Sequence[tuple[str, str]], role: str) -> int | None:
    for index in range(len(turns) - 1, -1, -1):
        if turns[index][0] == role:
            return index
    return None


def _clip(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    quarter = LONGEST_TEXT // 4
    middle = len(text) // 2
    return text[:quarter] + text[middle - quarter : middle + quarter] + text[-quarter:]
