"""One shard: documents and their targets as bytes, complete in itself but for its part's prior."""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from limbeck.distill.store.codec import ENTROPY_STEPS, Block, Grid, Model, code_block
from limbeck.distill.store.coder import Decoder, Encoder, Numbers
from limbeck.distill.store.select import join
from limbeck.distill.targets import Document, SparseTargets, Taught, select
from limbeck.errors import StoreError

MAGIC = b"LBKS"
VERSION = 1
NO_PRIOR = bytes(32)
_HEADER = struct.Struct("<4sHHIIII32s32sII")
_DIGEST_BYTES = 32
_FIRST_BLOCK = 256
_LAST_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class Prior:
    """The models as they stand after a part's first shard, which all its other shards begin with."""

    model: Model
    sha256: str
    """SHA-256 of that first shard's bytes."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A shard's bytes and what they hold."""

    data: bytes
    model: Model
    """The state after the last document."""
    bits: dict[str, float]
    """Ideal bits of the entropy-coded part, per kind."""
    frame_bytes: int
    """Header, document table and checksum."""


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed part at the start of a shard."""

    levels: int
    vocabulary: int
    documents: int
    tokens: int
    positions: int
    identity: bytes
    prior: bytes
    table_bytes: int
    words: int


def encode_shard(
    taught: Sequence[Taught], grid: Grid, identity: str, prior: Prior | None
) -> Encoded:
    """Return the bytes of a shard.

    Args:
        taught: At least one document.
        grid: The store's grid.
        identity: SHA-256, in hexadecimal, of the store's identity.
        prior: The part's first shard, or None for that first shard.

    Raises:
        StoreError: Targets that do not belong to their document, or that the format cannot hold.
    """
    model = Model(grid) if prior is None else deepcopy(prior.model)
    encoder = Encoder()
    for first, last in _blocks([t.document for t in taught]):
        block = _block_of(taught[first:last], first, grid)
        code_block(encoder, model, block, block)
    words = encoder.finish()
    table = zlib.compress(_document_table([t.document for t in taught]), 9)
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        grid.levels,
        grid.vocabulary,
        len(taught),
        sum(len(t.document.tokens_T) for t in taught),
        sum(t.document.positions for t in taught),
        bytes.fromhex(identity),
        NO_PRIOR if prior is None else bytes.fromhex(prior.sha256),
        len(table),
        len(words),
    )
    body = header + table + words.astype("<u4").tobytes()
    data = body + hashlib.sha256(body).digest()
    return Encoded(data, model, encoder.bits, len(data) - 4 * len(words))


def read_header(data: bytes, name: str) -> Header:
    """Return a shard's header after checking its checksum, so that damage is named before it is read."""
    if len(data) < _HEADER.size + _DIGEST_BYTES or data[:4] != MAGIC:
        raise StoreError(f"shard {name} is not a shard, or was cut off in its header")
    version = int.from_bytes(data[4:6], "little")
    if version != VERSION:
        raise StoreError(f"shard {name} has format version {version}; this reader knows {VERSION}")
    body = data[:-_DIGEST_BYTES]
    if hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
        raise StoreError(f"shard {name} is damaged: its checksum does not match its bytes")
    _, _, levels, *rest = _HEADER.unpack_from(data)
    header = Header(levels, *rest)
    if len(body) != _HEADER.size + header.table_bytes + 4 * header.words:
        raise StoreError(f"shard {name} has {len(data)} bytes, which its header contradicts")
    return header


def decode_shard(
    data: bytes, name: str, grid: Grid, identity: str, prior: Prior | None
) -> tuple[list[Taught], Model]:
    """Return a shard's documents, and the models after the last.

    Raises:
        StoreError: Damage, another version, another store, or another prior; names the shard.
    """
    header = read_header(data, name)
    if header.identity.hex() != identity:
        raise StoreError(f"shard {name} belongs to another store: its identity differs")
    wanted = NO_PRIOR if prior is None else bytes.fromhex(prior.sha256)
    if header.prior != wanted:
        raise StoreError(
            f"shard {name} was coded with prior {header.prior.hex()[:12]}, "
            f"but the part's first shard is {wanted.hex()[:12]}"
        )
    table = zlib.decompress(data[_HEADER.size : _HEADER.size + header.table_bytes])
    frames = _read_document_table(table, header.documents)
    start = _HEADER.size + header.table_bytes
    words = np.frombuffer(data, dtype="<u4", count=header.words, offset=start).astype(np.uint32)
    model = Model(grid) if prior is None else deepcopy(prior.model)
    decoder = Decoder(words)
    taught: list[Taught] = []
    for first, last in _blocks(frames):
        block = code_block(decoder, model, _shape_of(frames[first:last], first), None)
        taught.extend(_taught_of(block, frames[first:last], grid.levels))
    decoder.finish()
    return taught, model


def _blocks(documents: Sequence[Document]) -> list[tuple[int, int]]:
    """Cut documents into blocks of at least 256, 384, 576, ... 2048 tokens."""
    cuts: list[tuple[int, int]] = []
    first, tokens, wanted = 0, 0, _FIRST_BLOCK
    for number, document in enumerate(documents, start=1):
        tokens += len(document.tokens_T)
        if tokens >= wanted or number == len(documents):
            cuts.append((first, number))
            first, tokens, wanted = number, 0, min(wanted * 3 // 2, _LAST_BLOCK)
    return cuts


def _shape_of(documents: Sequence[Document], first: int) -> Block:
    """Return a block that knows its documents' lengths and loss positions, and nothing else."""
    lengths = np.array([len(d.tokens_T) for d in documents], dtype=np.int64)
    none = np.zeros(0, dtype=np.int64)
    return Block(
        tokens_L=none,
        document_L=np.repeat(np.arange(first, first + len(documents)), lengths),
        at_N=np.flatnonzero(np.concatenate([d.loss_T for d in documents])).astype(np.int64),
        heads_N=none,
        tail_N=none,
        head_ids_H=none,
        head_mass_H=none,
        samples_N=none,
        sample_ids_S=none,
        entropy_N=none,
    )


def _block_of(taught: Sequence[Taught], first: int, grid: Grid) -> Block:
    """Return the integers of a block, checked against what the format can hold."""
    shape = _shape_of([t.document for t in taught], first)
    tokens = np.concatenate([t.document.tokens_T for t in taught]).astype(np.int64)
    parts = [_integers_of(t, grid) for t in taught]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Block(tokens, shape.document_L, shape.at_N, *columns)


def _integers_of(taught: Taught, grid: Grid) -> tuple[Numbers, ...]:
    document, targets = taught.document, taught.targets
    _check(document, targets, grid)
    targets = _sorted(targets)
    owner_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    head_E = targets.is_head_E
    heads_N = np.bincount(owner_E[head_E], minlength=len(targets))
    samples_N = np.bincount(owner_E[~head_E], minlength=len(targets))
    mass_H = np.rint(targets.weights_E[head_E].astype(np.float64) * grid.levels).astype(np.int64)
    head_N = np.bincount(owner_E[head_E], weights=mass_H, minlength=len(targets)).astype(np.int64)
    tail_N = grid.levels - head_N
    wanted_N = targets.tail_N.astype(np.float64) * grid.levels
    if (np.abs(tail_N - wanted_N) > 0.01).any():
        raise StoreError(
            f"document {document.key} has masses off the grid of 1/{grid.levels}: "
            "make targets with `sparsify` and the store's own spec"
        )
    if ((tail_N == 0) & (samples_N > 0)).any():
        raise StoreError(f"document {document.key} has tail samples where it has no tail")
    entropy_N = np.rint(targets.entropy_N.astype(np.float64) * ENTROPY_STEPS).astype(np.int64)
    return (
        heads_N,
        tail_N,
        targets.ids_E[head_E].astype(np.int64),
        mass_H,
        samples_N,
        targets.ids_E[~head_E].astype(np.int64),
        entropy_N,
    )


def _check(document: Document, targets: SparseTargets, grid: Grid) -> None:
    if len(targets) != document.positions:
        raise StoreError(
            f"document {document.key} has {document.positions} loss positions, "
            f"but targets for {len(targets)}"
        )
    if document.loss_T[-1:].any():
        raise StoreError(f"document {document.key} has a loss position with no next token")
    for ids in (document.tokens_T, targets.ids_E):
        if len(ids) and not 0 <= ids.min() <= ids.max() < grid.vocabulary:
            raise StoreError(
                f"document {document.key} has token ids {ids.min()} to {ids.max()}, "
                f"outside the store's vocabulary of {grid.vocabulary}"
            )


def _sorted(targets: SparseTargets) -> SparseTargets:
    """Put samples of each position in order of id; heads stay as they are."""
    owner_E = np.repeat(np.arange(len(targets)), np.diff(targets.offsets_N1))
    within_E = np.where(targets.is_head_E, np.arange(len(owner_E)), targets.ids_E)
    order = np.lexsort((within_E, ~targets.is_head_E, owner_E))
    return SparseTargets(
        targets.offsets_N1,
        targets.ids_E[order],
        targets.weights_E[order],
        targets.is_head_E[order],
        targets.tail_N,
        targets.entropy_N,
    )


def _taught_of(block: Block, documents: Sequence[Document], levels: int) -> list[Taught]:
    targets = join(
        block.heads_N,
        block.head_ids_H,
        block.head_mass_H,
        block.samples_N,
        block.sample_ids_S,
        block.tail_N,
        block.entropy_N,
        levels,
    )
    tokens = block.tokens_L.astype(np.int32)
    taught: list[Taught] = []
    token, position = 0, 0
    for frame in documents:
        end, last = token + len(frame.tokens_T), position + frame.positions
        document = Document(tokens[token:end], frame.loss_T, frame.heldout, frame.key)
        taught.append(Taught(document, select(targets, np.arange(position, last))))
        token, position = end, last
    return taught


def _document_table(documents: Sequence[Document]) -> bytes:
    """Return lengths, held-out flags and runs of the loss mask as varints, then the keys."""
    numbers: list[int] = []
    keys = bytearray()
    for document in documents:
        edges = np.flatnonzero(np.diff(document.loss_T)) + 1
        runs = np.diff(np.concatenate([[0], edges, [len(document.loss_T)]])).tolist()
        starts_true = bool(len(document.loss_T)) and bool(document.loss_T[0])
        runs = [0, *runs] if starts_true else runs
        packed, length = _pack_key(document.key)
        numbers += [len(document.tokens_T), int(document.heldout), length, len(runs), *runs]
        keys += packed
    return b"".join(map(_varint, numbers)) + bytes(keys)


def _pack_key(key: str) -> tuple[bytes, int]:
    """Return a key's bytes, and twice their number; plus 1 where the bytes are its hexadecimal digits."""
    if len(key) % 2 == 0 and set(key) <= set("0123456789abcdef"):
        packed = bytes.fromhex(key)
        return packed, 2 * len(packed) + 1
    packed = key.encode()
    return packed, 2 * len(packed)


def _read_document_table(table: bytes, count: int) -> list[Document]:
    """Return documents with their lengths, masks, flags and keys; the tokens are zeros."""
    at = 0
    frames: list[tuple[int, bool, int, np.ndarray]] = []
    for _ in range(count):
        numbers: list[int] = []
        for _ in range(4):
            number, at = _read_varint(table, at)
            numbers.append(number)
        tokens, heldout, key, runs = numbers
        lengths: list[int] = []
        for _ in range(runs):
            length, at = _read_varint(table, at)
            lengths.append(length)
        mask = np.repeat(np.arange(runs) % 2 == 1, lengths)
        frames.append((tokens, bool(heldout), key, mask))
    documents: list[Document] = []
    for tokens, heldout, key, mask in frames:
        raw = table[at : at + key // 2]
        at += key // 2
        text = raw.hex() if key % 2 else raw.decode()
        documents.append(Document(np.zeros(tokens, dtype=np.int32), mask, heldout, text))
    return documents


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while data[at] & 0x80:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return number | data[at] << shift, at + 1
