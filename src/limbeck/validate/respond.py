"""What validation asks of a model, whoever runs it: write answers, and where it can, weigh given choices."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from limbeck.chat import Message
from limbeck.errors import ScoringError
from limbeck.validate.score.choice import Likelihoods
from limbeck.validate.tasks import Ask, Item, Task

Heard = Callable[[int], None]
"""Hears how many more items are done."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt as it is put to a model."""

    item: str
    """For messages."""
    prompt: str
    ask: Ask
    """`text`: the model goes on with the prompt; `chat`: the prompt is the user's turn."""
    system: str | None = None

    def messages(self) -> list[Message]:
        """Return the prompt as a conversation."""
        opening = [] if self.system is None else [Message("system", self.system)]
        return [*opening, Message("user", self.prompt)]


class Respondent(Protocol):
    """A model under validation."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> str:
        """What it is: a hash of its weights, or the address and name of a served model."""
        ...

    def write(self, asked: Sequence[Asked], *, max_new_tokens: int, heard: Heard) -> list[str]:
        """Return the likeliest answer to each prompt."""
        ...

    def weigh(
        self, asked: Sequence[Asked], choices: Sequence[tuple[str, ...]], *, heard: Heard
    ) -> list[Likelihoods]:
        """Return the log-likelihood of every choice of every prompt.

        Raises:
            ScoringError: The model gives no log-probabilities.
        """
        ...


def asked(task: Task, item: Item) -> Asked:
    """Return an item as it is put to a model."""
    return Asked(f"{task.name}/{item.id}", item.prompt, task.ask, task.settings.system)


class ServedRespondent:
    """A model that completes chats and says nothing of likelihoods, such as one behind an API."""

    def __init__(
        self,
        name: str,
        identity: str,
        complete: Callable[[Sequence[Sequence[Message]], int], Sequence[str]],
    ) -> None:
        self.name = name
        self.identity = identity
        self._complete = complete

    def write(self, asked: Sequence[Asked], *, max_new_tokens: int, heard: Heard) -> list[str]:
        """Return an answer to each prompt; a prompt to go on with is sent as a user's turn."""
        answers = list(self._complete([a.messages() for a in asked], max_new_tokens))
        heard(len(asked))
        return answers

    def weigh(
        self, asked: Sequence[Asked], choices: Sequence[tuple[str, ...]], *, heard: Heard
    ) -> list[Likelihoods]:
        """Refuse.

        Raises:
            ScoringError: Always.
        """
        raise ScoringError(
            f"{self.name} gives no log-probabilities, which {asked[0].item} needs to weigh choices: use tasks with "
            "written answers (exact, numeric, regex, json_schema, unit_tests), or give the model's weights"
        )
