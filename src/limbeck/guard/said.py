"""What an answer says: its text for the signals, its tokens for the budgets."""

from collections.abc import Mapping
from typing import Any


def text_of(reply: Mapping[str, Any]) -> str | None:
    """Return the text of a reply's first answer, or None where it has none, as embeddings have not."""
    choices = reply.get("choices")
    if type(choices) is list and choices:
        first = choices[0]
        if type(first) is not dict:
            return None
        message = first.get("message")
        said = message.get("content") if type(message) is dict else first.get("text")
        return said if type(said) is str else None
    output = reply.get("output")
    if type(output) is not list:
        return None
    parts = [
        part["text"]
        for item in output
        if type(item) is dict and type(item.get("content")) is list
        for part in item["content"]
        if type(part) is dict and type(part.get("text")) is str
    ]
    return "".join(parts) if parts else None


def tokens_of(usage: Any) -> tuple[int | None, int | None]:
    """Return the tokens of prompt and answer, None where the upstream does not say."""
    if type(usage) is not dict:
        return None, None
    return (
        _count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        _count(usage.get("completion_tokens", usage.get("output_tokens"))),
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
