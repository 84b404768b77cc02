"""One of several processes that capture side by side: `python -m limbeck.capture_worker RUN BASE SPEC WORKER`."""

import json
import sys
from pathlib import Path

from limbeck.distill.recipe import Recipe
from limbeck.distill.store import StoreSpec
from limbeck.distillation import Distillation, write_part
from limbeck.errors import LimbeckError
from limbeck.progress import Silent
from limbeck.run import read_run
from limbeck.workers import DONE


class _Aloud(Silent):
    """Counts on standard output; a reader that is gone ends the worker."""

    def advance(self, by: int = 1, note: str = "") -> None:
        """Print what is done."""
        sys.stdout.write(f"{DONE} {by}\n")
        sys.stdout.flush()


def main(arguments: list[str]) -> None:
    """Capture every part of a run's store that falls to one worker."""
    folder, base, spec, worker = arguments
    run = read_run(Path(folder))
    recipe = Recipe.model_validate_json(json.dumps(run.recipe))
    flow = Distillation(recipe, run, Path(base), True, _Aloud(), worker=int(worker))
    for part in range(int(worker), recipe.capture.store_parts, recipe.capture.workers):
        write_part(flow, StoreSpec(**json.loads(spec)), part)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LimbeckError as error:
        sys.exit(f"limbeck: {error}")
    except BrokenPipeError:
        sys.exit("limbeck: the run that started this worker is gone")
