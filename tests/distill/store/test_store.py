"""A store gives back what was put in, survives a kill, and names what is wrong with it."""

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from limbeck import artefact
from limbeck.artefact import hash_tree
from limbeck.distill.store import (
    StoreReader,
    StoreSpec,
    StoreWriter,
    describe,
    export_parquet,
    merge,
    sparsify,
)
from limbeck.distill.targets import Document, Taught
from limbeck.errors import StoreError

MakeTaught = Callable[[int, StoreSpec], list[Taught]]
SPEC = StoreSpec(shard_documents=4)
TOKENIZER = "ab" * 32
VOCABULARY = 601


def _writer(
    folder: Path,
    spec: StoreSpec = SPEC,
    *,
    part: int = 0,
    parts: int = 1,
    tokenizer: str = TOKENIZER,
) -> StoreWriter:
    return StoreWriter(
        folder,
        spec,
        vocabulary=VOCABULARY,
        tokenizer_sha256=tokenizer,
        teacher={"name": "made up"},
        part=part,
        parts=parts,
    )


def _write(folder: Path, taught: list[Taught], spec: StoreSpec = SPEC) -> None:
    with _writer(folder, spec) as writer:
        for one in taught:
            writer.append(one)


def _same(first: Taught, second: Taught) -> None:
    a, b = first.document, second.document
    assert (a.key, a.heldout) == (b.key, b.heldout)
    assert a.tokens_T.dtype == b.tokens_T.dtype
    np.testing.assert_array_equal(a.tokens_T, b.tokens_T)
    np.testing.assert_array_equal(a.loss_T, b.loss_T)
    for name in ("offsets_N1", "ids_E", "weights_E", "is_head_E", "tail_N", "entropy_N"):
        left, right = getattr(first.targets, name), getattr(second.targets, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        StoreSpec(shard_documents=4, tail_weight=None, tail_samples=3, levels=1000),
        StoreSpec(shard_documents=4, tail_samples=0),
        StoreSpec(shard_documents=4, top_k=5, levels=4096),
        StoreSpec(shard_documents=4, levels=2, head_threshold=0.9),
    ],
)
def test_a_store_gives_back_every_document_to_the_bit(
    tmp_path: Path, make_taught: MakeTaught, spec: StoreSpec
) -> None:
    taught = make_taught(11, spec)
    _write(tmp_path, taught, spec)
    reader = StoreReader(tmp_path, tokenizer_sha256=TOKENIZER, vocabulary=VOCABULARY)
    found = list(reader.documents())
    assert len(found) == len(reader) == 11
    for one, other in zip(taught, found, strict=True):
        _same(one, other)
    reader.verify()


def test_odd_documents_survive(tmp_path: Path) -> None:
    """No loss position at all, a single token, loss from the first token on, a key that is no hash."""
    spec = StoreSpec(shard_documents=8)
    generator = torch.Generator().manual_seed(0)

    def make(loss: list[bool], key: str) -> Taught:
        tokens_T = np.arange(len(loss), dtype=np.int32)
        log_probs_NV = torch.randn(sum(loss), VOCABULARY, generator=generator).log_softmax(-1)
        document = Document(tokens_T, np.array(loss, dtype=np.bool_), True, key)
        return Taught(document, sparsify(log_probs_NV, None, spec, generator))

    taught = [
        make([False], "lonely"),
        make([False] * 5, ""),
        make([True, True, False], "Ünïcode"),
        make([True, False, True, True, False, False], "0f" * 8),
    ]
    _write(tmp_path, taught, spec)
    for one, other in zip(taught, StoreReader(tmp_path).documents(), strict=True):
        _same(one, other)


def test_any_shard_can_be_read_alone(tmp_path: Path, make_taught: MakeTaught) -> None:
    taught = make_taught(10, SPEC)
    _write(tmp_path, taught)
    last = StoreReader(tmp_path).read(2)
    assert len(last) == 2
    _same(last[1], taught[9])


def test_the_same_documents_make_the_same_bytes(tmp_path: Path, make_taught: MakeTaught) -> None:
    _write(tmp_path / "a", make_taught(9, SPEC))
    _write(tmp_path / "b", make_taught(9, SPEC))
    assert hash_tree(tmp_path / "a") == hash_tree(tmp_path / "b")


def test_every_byte_of_the_folder_is_counted(tmp_path: Path, make_taught: MakeTaught) -> None:
    taught = make_taught(9, SPEC)
    _write(tmp_path, taught)
    found = describe(tmp_path)
    assert found["finished"] is True
    assert found["bytes"] == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert found["positions"] == sum(t.document.positions for t in taught)
    parts = sum(found["bytes_per_token_by_kind"].values())
    assert parts == pytest.approx(found["bytes_per_token"])
    assert found["bytes_per_token"] == pytest.approx(found["bytes"] / found["positions"])


def test_an_interrupted_capture_goes_on_and_ends_with_the_same_store(
    tmp_path: Path, make_taught: MakeTaught
) -> None:
    taught = make_taught(14, SPEC)
    _write(tmp_path / "whole", taught)
    for stop in (2, 6, 11):
        interrupted = _writer(tmp_path / "cut")
        for one in taught[interrupted.documents : stop]:
            interrupted.append(one)
    again = _writer(tmp_path / "cut")
    assert again.documents == 8
    for one in taught[again.documents :]:
        again.append(one)
    again.finish()
    assert hash_tree(tmp_path / "cut") == hash_tree(tmp_path / "whole")


_CAPTURE = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from conftest import taught
from limbeck.distill.store import StoreSpec, StoreWriter

spec = StoreSpec(shard_documents=4)
writer = StoreWriter(
    Path({folder!r}), spec, vocabulary=601, tokenizer_sha256={tokenizer!r}, teacher={{"name": "made up"}}
)
for i in range(writer.documents, 40):
    writer.append(taught(20 + 7 * (i % 5), i, spec))
    print(i, flush=True)
    time.sleep(0.01)
writer.finish()
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_store_that_can_be_finished(
    tmp_path: Path, make_taught: MakeTaught
) -> None:
    _write(tmp_path / "whole", make_taught(40, SPEC))
    cut = tmp_path / "cut"
    script = textwrap.dedent(_CAPTURE).format(
        tests=str(Path(__file__).parent), folder=str(cut), tokenizer=TOKENIZER
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 18:
                os.kill(process.pid, signal.SIGKILL)
                break
    assert not (cut / "manifest.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shards = {n: h for n, h in hash_tree(cut).items() if not n.startswith(".")}
    assert shards == hash_tree(tmp_path / "whole")


def test_several_parts_make_one_store(tmp_path: Path, make_taught: MakeTaught) -> None:
    taught = make_taught(12, SPEC)
    first, second = (_writer(tmp_path, part=p, parts=2) for p in (0, 1))
    for one in taught[:6]:
        first.append(one)
    for one in taught[6:]:
        second.append(one)
    second.finish()
    with pytest.raises(StoreError, match="unfinished"):
        StoreReader(tmp_path)
    with pytest.raises(StoreError, match="part 0 of 2 is missing"):
        merge(tmp_path)
    first.finish()
    for one, other in zip(taught, StoreReader(tmp_path).documents(), strict=True):
        _same(one, other)


@pytest.mark.parametrize("attempt", range(8))
def test_parts_that_end_together_are_merged_once(
    tmp_path: Path, make_taught: MakeTaught, attempt: int
) -> None:
    parts = 8
    together = threading.Barrier(parts)
    writers = [_writer(tmp_path, part=p, parts=parts) for p in range(parts)]
    for writer, one in zip(writers, make_taught(parts, SPEC), strict=True):
        writer.append(one)

    def finish(writer: StoreWriter) -> None:
        together.wait()
        writer.finish()

    with ThreadPoolExecutor(parts) as pool:
        list(pool.map(finish, writers))
    assert len(StoreReader(tmp_path)) == parts
    assert not list(tmp_path.glob("part-*.json"))


def test_a_full_disk_is_a_sentence_and_keeps_what_is_complete(
    tmp_path: Path, make_taught: MakeTaught, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = make_taught(12, SPEC)
    _write(tmp_path / "whole", taught)
    folder = tmp_path / "full"
    writer = _writer(folder)
    for one in taught[:7]:
        writer.append(one)

    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artefact.os, "fsync", no_space)
        with pytest.raises(
            StoreError, match=r"disk that holds .* is full; complete shards are kept"
        ):
            writer.append(taught[7])
    assert [p.name for p in folder.glob("*.shard")] == ["part-000-00000.shard"]
    again = _writer(folder)
    assert again.documents == 4
    for one in taught[4:]:
        again.append(one)
    again.finish()
    assert hash_tree(folder) == hash_tree(tmp_path / "whole")


@pytest.mark.parametrize("where", [0.02, 0.3, 0.7, 0.999])
def test_a_flipped_bit_names_its_shard(
    tmp_path: Path, make_taught: MakeTaught, where: float
) -> None:
    _write(tmp_path, make_taught(10, SPEC))
    path = tmp_path / "part-000-00001.shard"
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 4
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"shard part-000-00001\.shard is damaged"):
        StoreReader(tmp_path).verify()
    # While capture is not finished there is no manifest to tell: the shard's own checksum does.
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"shard part-000-00001\.shard"):
        _writer(tmp_path)


def test_a_shard_that_was_cut_off_or_lost_is_named(tmp_path: Path, make_taught: MakeTaught) -> None:
    _write(tmp_path, make_taught(10, SPEC))
    path = tmp_path / "part-000-00002.shard"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StoreError, match=r"part-000-00002\.shard .* cut off"):
        StoreReader(tmp_path).verify()
    path.unlink()
    with pytest.raises(StoreError, match=r"part-000-00002\.shard is missing"):
        StoreReader(tmp_path).verify()


def _edit(folder: Path, change: Callable[[dict[str, object]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_store_that_does_not_fit_is_refused(tmp_path: Path, make_taught: MakeTaught) -> None:
    _write(tmp_path, make_taught(10, SPEC))
    with pytest.raises(StoreError, match="captured with tokenizer abababababab"):
        StoreReader(tmp_path, tokenizer_sha256="cd" * 32)
    with pytest.raises(StoreError, match="vocabulary of 601, but this model has 600"):
        StoreReader(tmp_path, vocabulary=600)
    with pytest.raises(StoreError, match="finished; write into another folder"):
        _writer(tmp_path)
    _edit(tmp_path, lambda m: m.update(vocabulary=602))
    with pytest.raises(StoreError, match="identity does not match"):
        StoreReader(tmp_path)
    _edit(tmp_path, lambda m: m.update(codec_version=2))
    with pytest.raises(StoreError, match="codec version 2; this version of Limbeck reads 1"):
        StoreReader(tmp_path)


def test_a_prior_with_another_checksum_is_refused(tmp_path: Path, make_taught: MakeTaught) -> None:
    taught = make_taught(10, SPEC)
    _write(tmp_path / "a", taught)
    _write(tmp_path / "b", taught[::-1])
    _edit(tmp_path / "a", lambda m: m.update(priors={"0": "00" * 32}))
    with pytest.raises(StoreError, match="prior for part 0"):
        list(StoreReader(tmp_path / "a").documents())
    foreign = (tmp_path / "b" / "part-000-00000.shard").read_bytes()
    (tmp_path / "a" / "part-000-00000.shard").write_bytes(foreign)
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"part-000-00001\.shard was coded with prior"):
        _writer(tmp_path / "a")


def test_a_shard_of_another_version_is_refused(tmp_path: Path, make_taught: MakeTaught) -> None:
    writer = _writer(tmp_path)
    for one in make_taught(4, SPEC):
        writer.append(one)
    path = tmp_path / "part-000-00000.shard"
    data = bytearray(path.read_bytes())
    data[4] = 9
    path.write_bytes(data)
    with pytest.raises(StoreError, match="format version 9; this reader knows 1"):
        _writer(tmp_path)


def test_resuming_with_other_settings_is_refused(tmp_path: Path, make_taught: MakeTaught) -> None:
    writer = _writer(tmp_path)
    writer.append(make_taught(1, SPEC)[0])
    with pytest.raises(StoreError, match="begun with other settings, teacher or tokenizer"):
        _writer(tmp_path, tokenizer="cd" * 32)


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unfinished"):
        StoreReader(tmp_path)
    with pytest.raises(StoreError, match="not a target store"):
        describe(tmp_path)
    with pytest.raises(StoreError, match="nothing was captured"):
        _writer(tmp_path).finish()
    assert describe(tmp_path)["finished"] is False


def test_targets_that_do_not_belong_are_refused(tmp_path: Path, make_taught: MakeTaught) -> None:
    spec = StoreSpec(shard_documents=1)
    short, long = make_taught(2, spec)
    with pytest.raises(StoreError, match="loss positions, but targets for"):
        _writer(tmp_path, spec).append(Taught(short.document, long.targets))
    finer = make_taught(1, StoreSpec(levels=1000))[0]
    with pytest.raises(StoreError, match="off the grid of 1/128"):
        _writer(tmp_path, spec).append(finer)
    wide = short.document.tokens_T.copy()
    wide[0] = 601
    foreign = Document(wide, short.document.loss_T, False, "k")
    with pytest.raises(StoreError, match="outside the store's vocabulary of 601"):
        _writer(tmp_path, spec).append(Taught(foreign, short.targets))


def test_parquet_holds_the_head_of_every_position(tmp_path: Path, make_taught: MakeTaught) -> None:
    taught = make_taught(6, SPEC)
    _write(tmp_path / "store", taught)
    rows = export_parquet(StoreReader(tmp_path / "store"), tmp_path / "top.parquet", 2)
    table = pq.read_table(tmp_path / "top.parquet").to_pylist()
    assert rows == len(table) == sum(t.document.positions for t in taught)
    last = taught[-1]
    start = last.targets.offsets_N1[-2]
    head = last.targets.is_head_E[start:]
    assert table[-1]["ids"] == last.targets.ids_E[start:][head][:2].tolist()
    assert table[-1]["next_token"] == last.document.tokens_T[-1]
    for row in table:
        assert len(row["ids"]) == len(row["log_probs"]) <= 2
        assert np.exp(row["log_probs"]).sum() + row["tail"] <= 1 + 1e-5
