"""Write a store: shards as they fill up, the manifest last."""

import errno
import fcntl
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from limbeck.artefact import read_json, sha256_bytes, write_bytes, write_json, write_text
from limbeck.distill.store.manifest import (
    IDENTITY,
    MANIFEST,
    Identity,
    ShardRecord,
    manifest_json,
    part_name,
    read_identity,
    records_of,
    shard_name,
)
from limbeck.distill.store.shard import Prior, decode_shard, encode_shard, read_header
from limbeck.distill.store.spec import StoreSpec
from limbeck.distill.targets import Taught
from limbeck.errors import StoreError


class StoreWriter:
    """Owns one part of a store's folder and appends to it.

    Opening a folder that holds complete shards but no manifest goes on after the last of them:
    `documents` says how many documents the caller skips.
    """

    def __init__(
        self,
        folder: Path,
        spec: StoreSpec,
        *,
        vocabulary: int,
        tokenizer_sha256: str,
        teacher: Mapping[str, Any],
        part: int = 0,
        parts: int = 1,
    ) -> None:
        """Open a folder for writing, or go on in one that was interrupted.

        Args:
            folder: Made if missing; all parts of a store share it.
            spec: What the targets were made with.
            vocabulary: Ids lie below it.
            tokenizer_sha256: Hash of the teacher's tokenizer.
            teacher: What is known of the teacher, in JSON values.
            part: This process's number, from 0.
            parts: How many processes write.

        Raises:
            StoreError: The folder holds a finished store, or one of another identity, or damage.
        """
        if not 0 <= part < parts:
            raise StoreError(f"part must be 0 to {parts - 1}, got {part}")
        self._folder = folder
        self._part = part
        self._identity = Identity(spec, vocabulary, tokenizer_sha256, teacher, parts)
        self._waiting: list[Taught] = []
        self._records: list[ShardRecord] = []
        self._prior: Prior | None = None
        self._finished = False
        self._open()

    @property
    def documents(self) -> int:
        """Documents that lie in complete shards of this part."""
        return sum(r.documents for r in self._records)

    def append(self, taught: Taught) -> None:
        """Add a document; every `shard_documents` of them make a shard on disk.

        Raises:
            StoreError: Targets that do not fit their document or the store, or a full disk.
        """
        self._waiting.append(taught)
        if len(self._waiting) == self._identity.spec.shard_documents:
            self._flush()

    def finish(self) -> None:
        """Write what waits, then this part's list; the only or last part also writes the manifest.

        A second call does nothing.
        """
        if self._finished:
            return
        if self._waiting:
            self._flush()
        if not self._records and self._identity.parts == 1:
            raise StoreError(f"store {self._folder} has no documents: nothing was captured")
        with (self._folder / IDENTITY).open("rb") as gate:
            # Parts that end together must not both be the last one.
            fcntl.flock(gate, fcntl.LOCK_EX)
            _on_disk(self._folder, lambda: write_json(self._list, {"shards": self._rows()}))
            if all((self._folder / part_name(p)).is_file() for p in range(self._identity.parts)):
                merge(self._folder)
        self._finished = True

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish, unless an error is on its way."""
        if error is None:
            self.finish()

    @property
    def _list(self) -> Path:
        return self._folder / part_name(self._part)

    def _rows(self) -> list[dict[str, Any]]:
        return [asdict(r) for r in self._records]

    def _open(self) -> None:
        if (self._folder / MANIFEST).exists():
            raise StoreError(f"store {self._folder} is finished; write into another folder")
        path = self._folder / IDENTITY
        if path.exists():
            found = read_identity(self._folder)
            if found.sha256 != self._identity.sha256:
                raise StoreError(
                    f"store {self._folder} was begun with other settings, teacher or tokenizer; "
                    "use the same or another folder"
                )
        else:
            _on_disk(self._folder, lambda: write_json(path, self._identity.as_json()))
        while (self._folder / shard_name(self._part, len(self._records))).exists():
            self._take_over(shard_name(self._part, len(self._records)))

    def _take_over(self, name: str) -> None:
        """Count a shard that an earlier run completed; rebuild the prior from the first."""
        data = (self._folder / name).read_bytes()
        read_header(data, name)
        taught, model = decode_shard(
            data, name, self._identity.grid, self._identity.sha256, self._prior
        )
        # Coding again gives the same bytes, and with them the bits of each kind.
        again = encode_shard(taught, self._identity.grid, self._identity.sha256, self._prior)
        if again.data != data:
            raise StoreError(f"shard {name} was written by another version of the codec")
        self._records.append(_record(name, data, taught, again.bits, again.frame_bytes))
        if self._prior is None:
            self._prior = Prior(model, sha256_bytes(data))

    def _flush(self) -> None:
        name = shard_name(self._part, len(self._records))
        grid, identity = self._identity.grid, self._identity.sha256
        coded = encode_shard(self._waiting, grid, identity, self._prior)
        _on_disk(self._folder, lambda: write_bytes(self._folder / name, coded.data))
        self._records.append(
            _record(name, coded.data, self._waiting, coded.bits, coded.frame_bytes)
        )
        if self._prior is None:
            self._prior = Prior(coded.model, sha256_bytes(coded.data))
        self._waiting = []


def merge(folder: Path) -> None:
    """Write the manifest of a store all of whose parts are complete.

    Raises:
        StoreError: A part is missing.
    """
    identity = read_identity(folder)
    records: list[ShardRecord] = []
    for part in range(identity.parts):
        path = folder / part_name(part)
        if not path.is_file():
            raise StoreError(
                f"store {folder} is unfinished: part {part} of {identity.parts} is missing"
            )
        records += records_of(read_json(path), folder)
    manifest = _self_counting(identity, records, (folder / IDENTITY).stat().st_size)
    _on_disk(folder, lambda: write_text(folder / MANIFEST, manifest))
    for part in range(identity.parts):
        (folder / part_name(part)).unlink()


def _self_counting(identity: Identity, records: list[ShardRecord], other_bytes: int) -> str:
    """Return the manifest as text whose byte counts include its own file."""
    size = 0
    while True:
        manifest = manifest_json(identity, records, other_bytes + size)
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        missing = size - len(text.encode())
        if missing >= 0:
            # Another count can have fewer digits; empty lines make up for them.
            return text + "\n" * missing
        size -= missing


def _record(
    name: str, data: bytes, taught: list[Taught], bits: Mapping[str, float], frame_bytes: int
) -> ShardRecord:
    heads = sum(int(t.targets.is_head_E.sum()) for t in taught)
    return ShardRecord(
        name=name,
        sha256=sha256_bytes(data),
        bytes=len(data),
        documents=len(taught),
        tokens=sum(len(t.document.tokens_T) for t in taught),
        positions=sum(t.document.positions for t in taught),
        head_entries=heads,
        samples=sum(len(t.targets.ids_E) for t in taught) - heads,
        bits={kind: round(amount, 1) for kind, amount in sorted(bits.items())},
        frame_bytes=frame_bytes,
    )


def _on_disk(folder: Path, write: Callable[[], None]) -> None:
    """Write, and turn a full disk into a sentence; complete shards stay as they are."""
    try:
        write()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(
            f"the disk that holds {folder} is full; complete shards are kept: "
            "make room, then capture again with resume"
        ) from error
