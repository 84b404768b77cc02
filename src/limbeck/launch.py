"""The processes that one command started together, as `torchrun` does: who leads, and what the others are called for.

The first process leads: it alone holds the run's folder and does every step. The others wait until it calls
them for a training, in which all of them share the work.
"""

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from limbeck.errors import RunError
from limbeck.placement import device

# Imported for its values alone: torch loads only where there is more than one process.

_PATIENCE = timedelta(days=30)
"""How long the others wait for a call; the leader may capture for days before it trains."""
_OVER = ""


def size_of(environment: Mapping[str, str]) -> int:
    """Return how many processes were launched together, at least 1."""
    return max(1, int(environment.get("WORLD_SIZE") or 1))


def leads(environment: Mapping[str, str]) -> bool:
    """Tell whether this process leads its launch; one that was started alone does."""
    return size_of(environment) == 1 or int(environment.get("RANK") or 0) == 0


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what a launch put there, for a process that shall not take part."""
    ours = {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
        "GROUP_WORLD_SIZE",
    }
    ours |= {"ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"}
    return {
        name: value
        for name, value in environment.items()
        if name not in ours and not name.startswith("TORCHELASTIC_")
    }


class Launch:
    """This process among those of its launch; owns the group that carries calls. Alone, it leads nobody."""

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this process is the one that the others wait for."""
        return self.rank == 0

    @contextmanager
    def called(self, word: str) -> Generator[None]:
        """Call the others for what the leader does too in this block.

        While they are at it they do not listen; after an error they never will again, and nobody waits for it.

        Raises:
            RunError: One of them is gone.
        """
        self._pass_on(word)
        group, self._group = self._group, None
        yield
        self._group = group

    def calls(self) -> Iterator[str]:
        """Yield what the leader calls for, until it dismisses this process.

        Raises:
            RunError: The leader is gone.
        """
        while word := self._pass_on(_OVER):
            yield word

    def dismiss(self) -> None:
        """Let the others end; a second time does nothing."""
        if self._group is not None:
            with suppress(RunError):  # whoever is gone needs no word
                self._pass_on(_OVER)
            self._group = None

    def _pass_on(self, word: str) -> str:
        """Return the leader's word in every process."""
        if self._group is None:
            return _OVER
        from torch import distributed

        words = [word]
        try:
            distributed.broadcast_object_list(words, src=0, group=self._group)
        except RuntimeError as error:
            raise RunError(
                f"another of the {self.size} processes that were launched together is gone "
                f"({_line(error)}); its own message says why"
            ) from error
        return words[0]


@contextmanager
def join() -> Generator[Launch]:
    """Find the other processes of this launch, for as long as the block runs; alone, there is nothing to find.

    A leader that leaves the block, however, dismisses the others.

    Raises:
        RunError: The launch is of a kind that cannot be joined.
    """
    size = size_of(os.environ)
    if size == 1:
        yield Launch()
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise RunError(
            "this launch asks for DeepSpeed, which Limbeck does not use; launch with --use_fsdp for weights "
            "in shards, or without either for a copy of them in each process"
        )
    from torch import distributed

    device()  # `accelerate` makes the process group that computes
    launch = Launch(
        distributed.get_rank(), size, distributed.new_group(backend="gloo", timeout=_PATIENCE)
    )
    try:
        yield launch
    finally:
        if launch.leads:
            launch.dismiss()
    distributed.destroy_process_group()


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
