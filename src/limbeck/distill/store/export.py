"""Give a store's head entries to other tools, as Parquet."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from limbeck.distill.store.reader import StoreReader
from limbeck.distill.targets import Taught


def export_parquet(reader: StoreReader, path: Path, k: int) -> int:
    """Write one row per loss position with its k most likely tokens of the head; return the rows.

    Columns: `key`, `heldout`, `position` (index into `tokens` of the document), `token` (there),
    `next_token`, `ids` and `log_probs` (lists, most likely first, at most k), `tail` (the mass outside the
    *whole* head; what a k below the head's size leaves out is 1 - tail - sum), `entropy` (nats). The file
    gets its name when it is whole.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    rows = 0
    try:
        with pq.ParquetWriter(partial, _SCHEMA) as writer:
            for index in range(len(reader.shards)):
                for taught in reader.read(index):
                    table = pa.table(_columns(taught, k), schema=_SCHEMA)
                    rows += table.num_rows
                    writer.write_table(table)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("heldout", pa.bool_()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("next_token", pa.int32()),
        ("ids", pa.list_(pa.int32())),
        ("log_probs", pa.list_(pa.float32())),
        ("tail", pa.float32()),
        ("entropy", pa.float32()),
    ]
)


def _columns(taught: Taught, k: int) -> list[object]:
    document, targets = taught.document, taught.targets
    at_N = np.flatnonzero(document.loss_T).astype(np.int32)
    owner_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    rank_E = np.arange(len(owner_E)) - targets.offsets_N1[owner_E]
    kept_E = targets.is_head_E & (rank_E < k) & (targets.weights_E > 0)
    counts_N = np.bincount(owner_E[kept_E], minlength=len(targets))
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int32))
    ids = pa.ListArray.from_arrays(offsets, pa.array(targets.ids_E[kept_E]))
    logs = pa.ListArray.from_arrays(offsets, pa.array(np.log(targets.weights_E[kept_E])))
    return [
        pa.array([document.key] * len(at_N), pa.string()),
        pa.array([document.heldout] * len(at_N), pa.bool_()),
        pa.array(at_N),
        pa.array(document.tokens_T[at_N]),
        pa.array(document.tokens_T[at_N + 1]),
        ids,
        logs,
        pa.array(targets.tail_N),
        pa.array(targets.entropy_N),
    ]
