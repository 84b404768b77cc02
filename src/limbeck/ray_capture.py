"""Capture on a Ray cluster: `python -m limbeck.ray_capture RUN BASE SPEC ADDRESS ACCELERATORS WORKERS`.

Every worker writes whole parts of the store into the run's folder, which all machines must see. A part goes on
after its last complete shard whoever writes it, so a lost worker costs one shard and doubles nothing.
"""

import json
import socket
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from limbeck.cluster import each_part, joined
from limbeck.distill.recipe import Recipe
from limbeck.distill.store import StoreSpec, part_documents
from limbeck.distillation import Distillation, write_part
from limbeck.errors import LimbeckError, RunError
from limbeck.progress import Silent
from limbeck.run import read_run
from limbeck.workers import DONE, SENTENCE

_LOOK_SECONDS = 2.0


class PartWriter:
    """A worker's captures; owns the teacher from the first part on."""

    def __init__(self, folder: str, base: str, spec: str) -> None:
        self._folder = Path(folder)
        self._base = Path(base)
        self._spec = StoreSpec(**json.loads(spec))

    @cached_property
    def _flow(self) -> Distillation:
        run = read_run(self._folder)
        recipe = Recipe.model_validate_json(json.dumps(run.recipe))
        return Distillation(recipe, run, self._base, resume=True, progress=Silent())

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Write the one part of a batch, and say what went wrong with it."""
        part, wrong = int(batch["part"][0]), ""
        try:
            write_part(self._flow, self._spec, part)
        except (LimbeckError, OSError) as error:
            wrong = f"part {part} on {socket.gethostname()}: {error}"
        return {"part": [part], "wrong": [wrong]}


def main(arguments: list[str]) -> None:
    """Capture what is left of a run's store on a cluster.

    Raises:
        RunError: The cluster has no room or failed, or a part could not be written.
    """
    folder, base, spec, address, accelerators, workers = arguments
    recipe = Recipe.model_validate_json(json.dumps(read_run(Path(folder)).recipe))
    store, parts = Path(folder) / "store", recipe.capture.store_parts
    left = [p for p in range(parts) if part_documents(store, p) is None]
    if not left:
        return
    share = float(accelerators) if accelerators else None
    work = {"folder": folder, "base": base, "spec": spec}
    with _counting(store, recipe.capture.shard_documents), joined(address):
        for done in each_part(PartWriter, work, left, int(workers), share):
            if done["wrong"]:
                raise RunError(str(done["wrong"]))


@contextmanager
def _counting(store: Path, shard_documents: int) -> Generator[None]:
    """Say now and then how many documents have come, counted by their shards."""
    over = threading.Event()
    said = 0

    def look() -> None:
        nonlocal said
        now = len(list(store.glob("part-*.shard"))) * shard_documents
        if now > said:
            sys.stdout.write(f"{DONE} {now - said}\n")
            sys.stdout.flush()
            said = now

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


if __name__ == "__main__":
    # Ray finds a class by its module's name, which must not be __main__.
    from limbeck import ray_capture

    try:
        ray_capture.main(sys.argv[1:])
    except LimbeckError as error:
        sys.exit(f"{SENTENCE}{error}")
    except BrokenPipeError:
        sys.exit(f"{SENTENCE}the run that started this work is gone")
