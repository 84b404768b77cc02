import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import unpack_worker
from limbeck.distill.store import StoreReader, StoreSpec, StoreWriter
from limbeck.distill.store.unpacked import Unpacked, part_folder, unpack_part, unpacked_bytes
from limbeck.distill.targets import Taught
from limbeck.errors import StoreError

MakeTaught = Callable[[int, StoreSpec], list[Taught]]
SPEC = StoreSpec(shard_documents=4)
PARTS = 4
"""One of them stays without documents."""


@pytest.fixture
def reader(tmp_path: Path, make_taught: MakeTaught) -> StoreReader:
    """A store of several parts, shards and lengths."""
    taught = make_taught(19, SPEC)
    for part in range(PARTS):
        with StoreWriter(
            tmp_path / "store",
            SPEC,
            vocabulary=601,
            tokenizer_sha256="ab" * 32,
            teacher={},
            part=part,
            parts=PARTS,
        ) as writer:
            for one in taught[part :: PARTS - 1] if part < PARTS - 1 else []:
                writer.append(one)
    return StoreReader(tmp_path / "store")


def _unpack(reader: StoreReader, folder: Path) -> Unpacked:
    for part in range(PARTS):
        unpack_part(reader, folder, part)
    return Unpacked(folder, PARTS)


def _assert_same(one: Sequence[Taught], two: Sequence[Taught]) -> None:
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        for side in ("document", "targets"):
            for name in getattr(a, side).__slots__:
                left, right = getattr(getattr(a, side), name), getattr(getattr(b, side), name)
                np.testing.assert_array_equal(left, right)
                if isinstance(left, np.ndarray):
                    assert left.dtype == right.dtype, name


def test_unpacked_documents_are_those_of_the_store_to_the_bit(
    reader: StoreReader, tmp_path: Path
) -> None:
    unpacked, whole = _unpack(reader, tmp_path / "un"), list(reader.documents())
    _assert_same(list(unpacked), whole)
    _assert_same([unpacked[n] for n in range(len(unpacked))], whole)
    _assert_same(unpacked[3:17:2], whole[3:17:2])
    _assert_same([unpacked[-1]], whole[-1:])


def test_documents_that_are_held_out_are_told_from_the_others(
    reader: StoreReader, tmp_path: Path
) -> None:
    unpacked, whole = _unpack(reader, tmp_path / "un"), list(reader.documents())
    for flag in (True, False):
        _assert_same(
            list(unpacked.split(heldout=flag)), [t for t in whole if t.document.heldout == flag]
        )


def test_torch_takes_the_arrays_as_they_are(reader: StoreReader, tmp_path: Path) -> None:
    one = _unpack(reader, tmp_path / "un")[0]
    assert torch.from_numpy(one.document.tokens_T).tolist() == one.document.tokens_T.tolist()
    assert torch.from_numpy(one.targets.weights_E).dtype == torch.float32


def test_the_size_is_known_beforehand(reader: StoreReader, tmp_path: Path) -> None:
    _unpack(reader, tmp_path / "un")
    files = [f for f in (tmp_path / "un").rglob("*") if f.name not in {"index", "keys.txt"}]
    assert sum(f.stat().st_size for f in files if f.is_file()) == unpacked_bytes(reader)


def test_what_a_killed_process_left_is_no_part(reader: StoreReader, tmp_path: Path) -> None:
    whole = _unpack(reader, tmp_path / "un")
    shutil.move(part_folder(tmp_path / "un", 1), tmp_path / "un" / ".part-001.7.partial")
    with pytest.raises(StoreError, match="lacks part 1 of 4"):
        Unpacked(tmp_path / "un", PARTS)
    _assert_same(list(_unpack(reader, tmp_path / "un")), list(whole))


def test_a_damaged_shard_is_named_and_leaves_no_part(reader: StoreReader, tmp_path: Path) -> None:
    shard = reader.folder / "part-001-00001.shard"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(StoreError, match=shard.name):
        unpack_part(reader, tmp_path / "un", 1)
    assert not list((tmp_path / "un").iterdir())


def test_workers_unpack_every_part_between_them(reader: StoreReader, tmp_path: Path) -> None:
    for worker in range(3):
        unpack_worker.main([str(reader.folder), str(tmp_path / "un"), str(worker), "3"])
    _assert_same(list(Unpacked(tmp_path / "un", PARTS)), list(reader.documents()))
