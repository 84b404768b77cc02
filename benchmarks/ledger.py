"""What the ledger costs: hashing into the tree, appending in batches, proving, exporting and verifying an account.

    python benchmarks/ledger.py [--folder FOLDER] [--records 20000] [--accounts 5000]

FOLDER should lie on the disk that a ledger would lie on: every batch waits for it once. The last line is JSON.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from limbeck.ledger.bundle import export_account
from limbeck.ledger.keys import new_keys
from limbeck.ledger.log import Log, open_log
from limbeck.ledger.merkle import Frontier, leaf_hash
from limbeck.ledger.record import Entry
from limbeck.ledger.verify import verify_account

BATCHES = (1, 16, 64, 256)
ROUNDS = 5
DECISION = {
    "action": "allow",
    "because": [{"code": "new_ground_rate", "detail": "", "value": 0.93}],
    "clause": "default",
    "cluster": "",
    "e_value": 1.25,
    "ts": 1764000000.123,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--folder", type=Path, help="where the ledger is made [default: a temporary one]"
    )
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--accounts", type=int, default=5_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        figures = measure(Path(folder), asked.records, asked.accounts)
    for name, value in figures.items():
        print(f"{name:<28}{value}")
    print(json.dumps(figures))


def measure(folder: Path, records: int, accounts: int) -> dict[str, float]:
    figures = {"merkle_append_us": merkle(records)}
    keys = new_keys("example.org/guard")
    path = folder / "log.db"
    with open_log(path, keys, pin_ms=None) as log:
        figures |= appending(log, records, accounts)
        figures["pin_ms"] = 1e3 * timed(lambda: log.pin())[0]
        made = export_account(log.reading, keys, "account 1", folder / "bundle.zip")
        out = folder / "again.zip"
        figures["export_ms"] = (
            1e3 * timed(lambda: export_account(log.reading, keys, "account 1", out))[0]
        )
        figures["bytes_per_record"] = path.stat().st_size / log.reading.size()
        figures["records"] = log.reading.size()
    figures["verify_ms"] = 1e3 * timed(lambda: verify_account(out))[0]
    figures["bundle_records"] = made.records
    figures["bundle_bytes"] = out.stat().st_size
    figures["open_ms"] = 1e3 * timed(lambda: opened(path, keys))[0]
    return {name: round(value, 2) for name, value in figures.items()}


def merkle(records: int) -> float:
    frontier = Frontier()
    leaves = [b"x" * 400 + str(n).encode() for n in range(records)]

    def grow() -> None:
        for leaf in leaves:
            frontier.append(leaf_hash(leaf))

    return 1e6 * statistics.median(timed(grow)[0] for _ in range(ROUNDS)) / records


def appending(log: Log, records: int, accounts: int) -> dict[str, float]:
    """Batches of every size in turn, several rounds, the median of the rounds."""
    costs: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCHES}
    n = 0
    for _ in range(ROUNDS):
        for size in BATCHES:
            count = max(1, min(records // len(BATCHES) // ROUNDS, 400 * size) // size)
            batches = [
                [
                    Entry("decision", f"account {(n + i + j * size) % accounts}", DECISION)
                    for i in range(size)
                ]
                for j in range(count)
            ]
            n += size * count
            wall, cpu = timed(lambda batches=batches: [log.append(batch) for batch in batches])
            costs[size].append((1e6 * wall / size / count, 1e6 * cpu / size / count))
    found: dict[str, float] = {}
    for size, rounds in costs.items():
        found[f"append_us_batch_{size}"] = statistics.median(wall for wall, _ in rounds)
        found[f"append_cpu_us_batch_{size}"] = statistics.median(cpu for _, cpu in rounds)
    return found


def opened(path: Path, keys: object) -> None:
    with open_log(path, keys):  # pyright: ignore[reportArgumentType]
        pass


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor time in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
