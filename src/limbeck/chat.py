"""Chat messages, and what a model answers to them."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def as_dict(self) -> dict[str, str]:
        """Return the mapping that chat templates take."""
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Choice:
    """One token of an answer, with the likeliest tokens at its place."""

    token: bytes
    """What was written, as bytes: a token may hold a part of a character."""
    logprob: float | None
    """Natural logarithm of its probability, at most 0; None where the model does not say."""
    top: tuple[tuple[bytes, float], ...]
    """Likeliest tokens with their log-probabilities, the likeliest first."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer as it was received."""

    text: str
    """Empty where the model wrote nothing."""
    finish: str
    """Why it ended: `stop` by itself, `length` at its limit, `beyond_context` because the prompt does not fit."""
    model: str
    """The name under which the model answered."""
    prompt_tokens: int | None
    """As the server counted them; None where it does not say. So is the next."""
    completion_tokens: int | None
    choices: tuple[Choice, ...] | None = None
    """The answer's tokens; None where only text was given."""
    prompt: tuple[tuple[tuple[int, float, str], ...], ...] | None = None
    """For each token of a scored prompt after the first the likeliest ids, their log-probabilities and texts."""
