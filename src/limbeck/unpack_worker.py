"""One of several processes that unpack a store side by side: `python -m limbeck.unpack_worker STORE FOLDER WORKER WORKERS`."""

import sys
from pathlib import Path

from limbeck.distill.store import StoreReader
from limbeck.distill.store.unpacked import unpack_part
from limbeck.errors import LimbeckError
from limbeck.workers import DONE, SENTENCE


def main(arguments: list[str]) -> None:
    """Unpack every part of a store that falls to one worker, and count aloud."""
    store, folder, worker, workers = arguments
    reader = StoreReader(Path(store))
    for part in range(int(worker), reader.identity.parts, int(workers)):
        unpack_part(reader, Path(folder), part)
        sys.stdout.write(f"{DONE} 1\n")
        sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (LimbeckError, OSError) as error:
        sys.exit(f"{SENTENCE}{error}")
