"""One request to a model behind an API: what is sent, and the hash under which its answer is kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from limbeck.artefact import sha256_json
from limbeck.chat import Message

_MESSAGE_OVERHEAD = 16
"""Most tokens that a chat template puts around a turn; those of well-known templates take 4 to 8."""
_BYTES_PER_TOKEN = 3
"""A low guess at text's bytes a token, for pacing alone."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request; equal ones have equal answers as far as the cache is concerned."""

    path: str
    """Below the base address: `chat/completions` or `completions`."""
    body: Mapping[str, Any]
    """JSON values."""
    sample: int = 0
    """Number of this answer among those to the same prompt."""

    @property
    def sha256(self) -> str:
        """Hash of everything above; address and key do not enter it."""
        return sha256_json({"path": self.path, "body": dict(self.body), "sample": self.sample})

    @property
    def prompt_sha256(self) -> str:
        """Hash of what is asked, whatever the sample: equal for answers to one prompt."""
        return sha256_json(self.body.get("messages", self.body.get("prompt")))

    @property
    def model(self) -> str:
        """The model's name at the server."""
        return str(self.body["model"])

    @property
    def most_prompt_tokens(self) -> int:
        """An upper bound of the prompt's tokens: no token stands for less than a byte of text."""
        if "messages" in self.body:
            turns = self.body["messages"]
            return sum(len(t["content"].encode()) + _MESSAGE_OVERHEAD for t in turns)
        return len(self.body["prompt"])

    @property
    def most_completion_tokens(self) -> int:
        """Tokens of the answer at the most."""
        return int(self.body.get("max_tokens", self.body.get("max_completion_tokens", 0)))

    @property
    def likely_tokens(self) -> int:
        """A guess at the tokens that the server will count against a rate."""
        prompt = self.most_prompt_tokens
        if "messages" in self.body:
            prompt = math.ceil(prompt / _BYTES_PER_TOKEN)
        return prompt + self.most_completion_tokens


def chat_ask(
    model: str,
    turns: Sequence[Message],
    *,
    max_tokens: int,
    temperature: float,
    sample: int = 0,
    seed: int | None = None,
    top_logprobs: int | None = None,
    length_key: str = "max_tokens",
    extra: Mapping[str, Any] | None = None,
) -> Ask:
    """Return the request for an answer to a conversation.

    Args:
        model: Its name at the server.
        turns: The conversation, the last turn the user's.
        max_tokens: Tokens of the answer at the most.
        temperature: Of sampling; 0 takes the likeliest token.
        sample: Number among the answers to this prompt.
        seed: Sent where it is given; servers may heed it or not.
        top_logprobs: Ask for that many of the likeliest tokens at every place; None for text alone.
        length_key: What the server calls `max_tokens`.
        extra: Further fields.
    """
    body: dict[str, Any] = {
        **(extra or {}),
        "model": model,
        "messages": [turn.as_dict() for turn in turns],
        length_key: max_tokens,
        "temperature": temperature,
    }
    if seed is not None:
        body["seed"] = seed
    if top_logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    return Ask("chat/completions", body, sample)


def score_ask(
    model: str,
    tokens: Sequence[int],
    *,
    prompt_logprobs: int,
    extra: Mapping[str, Any] | None = None,
) -> Ask:
    """Return the request, in vLLM's extension of the protocol, that scores given tokens.

    The server writes one token more, for it must write one; that is thrown away.
    """
    body: dict[str, Any] = {
        **(extra or {}),
        "model": model,
        "prompt": list(tokens),
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": prompt_logprobs,
    }
    return Ask("completions", body)
