"""What dead workers leave behind: settled by whoever finds it, exactly once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.guard.state.counters import SUFFIX, charged, dead
from limbeck.guard.state.leases import LeaseStore
from limbeck.guard.state.settings import LostLease, StateSettings


def settle_dead(store: LeaseStore, folder: Path) -> list[str]:
    """End the leases of workers of this machine that died, each charged with exactly what it had charged.

    A lease without a counter was granted a moment before the death and never spent from. Ending leases and forgetting
    the worker is one transaction and the file goes last: killed in between, the next one finds nothing to end.

    Raises:
        StateError: The store cannot be reached; the files wait.
    """
    settled: list[str] = []
    for path in sorted(folder.glob("*" + SUFFIX)):
        with dead(path) as is_dead:
            if is_dead:
                worker = path.name.removesuffix(SUFFIX)
                store.leave(worker, charged(path), forgive=True)
                path.unlink()
                settled.append(worker)
    return settled


@dataclass(slots=True)
class Watch:
    """Watches the beats of all workers by its own steady clock, so that no step of any wall clock loses one."""

    store: LeaseStore
    folder: Path
    settings: StateSettings
    clock: Callable[[], float]
    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def lose_silent(self) -> list[str]:
        """Give up workers that were not heard of for `lost_seconds`; they stopped spending long before.

        What they had charged is read from their counters where those are on this machine; elsewhere
        `lost_lease` decides.
        """
        now, beats = self.clock(), self.store.beats()
        self.seen = {
            worker: self.seen[worker] if self.seen.get(worker, (-1,))[0] == beat else (beat, now)
            for worker, beat in beats.items()
        }
        limit = now - self.settings.lost_seconds
        lost = [worker for worker, (_, since) in self.seen.items() if since <= limit]
        for worker in lost:
            self._lose(worker)
        return lost

    def _lose(self, worker: str) -> None:
        path = self.folder / (worker + SUFFIX)
        here = path.is_file()
        known = charged(path) if here else {}
        forgive = here or self.settings.lost_lease is LostLease.RELEASE
        self.store.leave(worker, known, forgive=forgive)
        del self.seen[worker]
