"""A store decoded once into flat files, which every process of a machine maps: any document at once, none in memory.

Decoding takes a core's time for every position, and training reads each document once an epoch in an order of its
own. So a store's parts are decoded side by side, once, and what training needs lies in files of numbers that
the system pages in and shares. They are made anew from the store at any time and vouched for by nothing.
"""

import os
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from limbeck.distill.store.manifest import part_of
from limbeck.distill.store.reader import StoreReader
from limbeck.distill.targets import Document, SparseTargets, Taught
from limbeck.errors import StoreError

_FILES = {
    "tokens": np.dtype("<i4"),
    "loss": np.dtype("?"),
    "entries": np.dtype("<u4"),
    "tail": np.dtype("<f4"),
    "entropy": np.dtype("<f4"),
    "ids": np.dtype("<i4"),
    "weights": np.dtype("<f4"),
    "head": np.dtype("?"),
}
"""One file each: of tokens, of positions (their number of entries, tail and entropy), of entries."""
_INDEX = np.dtype([("tokens", "<i8"), ("positions", "<i8"), ("entries", "<i8"), ("heldout", "?")])
_KEYS = "keys.txt"
POSITION_BYTES = 12
ENTRY_BYTES = 9
TOKEN_BYTES = 5


def unpacked_bytes(reader: StoreReader) -> int:
    """Return about how many bytes a store takes unpacked."""
    held = reader.manifest
    entries = held["head_entries"] + held["samples"]
    return POSITION_BYTES * held["positions"] + ENTRY_BYTES * entries + TOKEN_BYTES * held["tokens"]


def part_folder(folder: Path, part: int) -> Path:
    """Return where a part lies; a folder that is there is whole."""
    return folder / f"part-{part:03d}"


def unpack_part(reader: StoreReader, folder: Path, part: int) -> None:
    """Decode one part of a store into files, unless they are there.

    Raises:
        StoreError: A shard is missing, foreign or damaged.
        OSError: The disk is full.
    """
    final = part_folder(folder, part)
    if final.is_dir():
        return
    partial = folder / f".part-{part:03d}.{os.getpid()}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for index, record in enumerate(reader.shards):
            if part_of(record.name) == part:
                _append(partial, reader.read(index))
        if final.is_dir():
            return  # another process was faster with the same content
        partial.rename(final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _append(folder: Path, taught: Sequence[Taught]) -> None:
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _FILES}
    index_D = np.zeros(len(taught), dtype=_INDEX)
    for number, one in enumerate(taught):
        document, targets = one.document, one.targets
        index_D[number] = (
            len(document.tokens_T),
            len(targets),
            len(targets.ids_E),
            document.heldout,
        )
        for name, values in (
            ("tokens", document.tokens_T),
            ("loss", document.loss_T),
            ("entries", np.diff(targets.offsets_N1)),
            ("tail", targets.tail_N),
            ("entropy", targets.entropy_N),
            ("ids", targets.ids_E),
            ("weights", targets.weights_E),
            ("head", targets.is_head_E),
        ):
            columns[name].append(values)
    for name, values in columns.items():
        _add(folder / name, np.concatenate(values).astype(_FILES[name], copy=False))
    _add(folder / "index", index_D)
    with (folder / _KEYS).open("a", encoding="utf-8") as file:
        file.writelines(f"{one.document.key}\n" for one in taught)


def _add(path: Path, values: npt.NDArray[Any]) -> None:
    with path.open("ab") as file:
        values.tofile(file)


class _Part:
    """One part's files, mapped."""

    def __init__(self, folder: Path) -> None:
        self.index_D = np.fromfile(folder / "index", dtype=_INDEX)
        self.keys = (folder / _KEYS).read_text(encoding="utf-8").splitlines()
        # Copies on write, for torch wants arrays that could be written; nobody writes.
        self.files = {name: _mapped(folder / name, kind) for name, kind in _FILES.items()}
        self.starts = {
            of: np.concatenate([[0], np.cumsum(self.index_D[of])])
            for of in ("tokens", "positions", "entries")
        }

    def read(self, number: int) -> Taught:
        tokens, positions, entries = (
            slice(int(starts[number]), int(starts[number + 1])) for starts in self.starts.values()
        )
        counts_N = self.files["entries"][positions]
        document = Document(
            self.files["tokens"][tokens],
            self.files["loss"][tokens],
            bool(self.index_D["heldout"][number]),
            self.keys[number],
        )
        targets = SparseTargets(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_N, dtype=np.int64)]),
            self.files["ids"][entries],
            self.files["weights"][entries],
            self.files["head"][entries],
            self.files["tail"][positions],
            self.files["entropy"][positions],
        )
        return Taught(document, targets)


def _mapped(path: Path, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=kind)  # what is empty cannot be mapped
    return np.asarray(np.memmap(path, dtype=kind, mode="c"))


class Unpacked(Sequence[Taught]):
    """The documents of a store that was unpacked, or some of them; each is read when it is asked for."""

    def __init__(self, folder: Path, parts: int) -> None:
        """Map all parts.

        Raises:
            StoreError: A part is not unpacked.
        """
        self._parts: list[_Part] = []
        for part in range(parts):
            there = part_folder(folder, part)
            if not (there / "index").is_file():
                if there.is_dir():
                    continue  # a part without documents
                raise StoreError(f"{folder} lacks part {part} of {parts}; unpack it first")
            self._parts.append(_Part(there))
        sizes = [len(part.keys) for part in self._parts]
        self._ends = np.cumsum(sizes).tolist()
        heldout = [np.zeros(0, np.bool_), *(part.index_D["heldout"] for part in self._parts)]
        self._heldout_D = np.concatenate(heldout)
        self._chosen: npt.NDArray[np.int64] = np.arange(len(self._heldout_D))

    def split(self, *, heldout: bool) -> "Unpacked":
        """Return the documents that are held out, or those that are not, in the same order."""
        return self._some(self._chosen[self._heldout_D[self._chosen] == heldout])

    def only(self, numbers: Sequence[int]) -> "Unpacked":
        """Return the documents of these numbers, counted from 0 in the order of iteration."""
        return self._some(self._chosen[np.asarray(numbers, dtype=np.int64)])

    def _some(self, chosen: npt.NDArray[np.int64]) -> "Unpacked":
        some = Unpacked.__new__(Unpacked)
        some._parts, some._ends, some._heldout_D = self._parts, self._ends, self._heldout_D
        some._chosen = chosen
        return some

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> Taught: ...
    @overload
    def __getitem__(self, index: slice) -> list[Taught]: ...
    def __getitem__(self, index: int | slice) -> Taught | list[Taught]:
        """Return one document, or a list of several, in the order of the store."""
        if isinstance(index, slice):
            return [self._read(int(number)) for number in self._chosen[index]]
        return self._read(int(self._chosen[index]))

    def __iter__(self) -> Iterator[Taught]:
        """Yield every document."""
        return (self._read(int(number)) for number in self._chosen)

    def _read(self, number: int) -> Taught:
        part = bisect_right(self._ends, number)
        return self._parts[part].read(number - (self._ends[part - 1] if part else 0))
