"""What a finished store says of itself: counts, bytes and checksums."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from limbeck.artefact import read_json, sha256_json
from limbeck.distill.store.codec import Grid
from limbeck.distill.store.select import grid_of
from limbeck.distill.store.shard import VERSION
from limbeck.distill.store.spec import StoreSpec
from limbeck.errors import StoreError

MANIFEST = "manifest.json"
IDENTITY = "identity.json"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Identity:
    """What every shard of a store has in common; its hash is in each shard's header."""

    spec: StoreSpec
    vocabulary: int
    tokenizer_sha256: str
    teacher: Mapping[str, Any]
    """What is known of the teacher: name, hashes, terms; JSON values."""
    parts: int = 1
    """Processes that capture side by side, each writing shards of its own."""

    @property
    def grid(self) -> Grid:
        """What the codec has to know."""
        return grid_of(self.spec, self.vocabulary)

    @property
    def sha256(self) -> str:
        """Hash of the canonical JSON."""
        return sha256_json(self.as_json())

    def as_json(self) -> Json:
        """Return the identity as JSON values."""
        return {
            "codec_version": VERSION,
            "spec": asdict(self.spec),
            "vocabulary": self.vocabulary,
            "tokenizer_sha256": self.tokenizer_sha256,
            "teacher": dict(self.teacher),
            "parts": self.parts,
        }


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One line of the manifest's list of shards."""

    name: str
    sha256: str
    bytes: int
    documents: int
    tokens: int
    positions: int
    head_entries: int
    samples: int
    bits: Mapping[str, float]
    """Ideal bits of the entropy-coded part, per kind."""
    frame_bytes: int
    """Header, document table and checksum."""


def shard_name(part: int, number: int) -> str:
    """Return the file name of a part's shard."""
    return f"part-{part:03d}-{number:05d}.shard"


def part_of(name: str) -> int:
    """Return the part that a shard's file name belongs to."""
    return int(name.split("-")[1])


def part_name(part: int) -> str:
    """Return the file name of a finished part's list of shards."""
    return f"part-{part:03d}.json"


def read_identity(folder: Path) -> Identity:
    """Read a store's identity.

    Raises:
        StoreError: No store there, or one of another version.
    """
    path = folder / IDENTITY
    if not path.is_file():
        raise StoreError(f"{folder} is not a target store: it has no {IDENTITY}")
    return identity_of(_json(path), folder)


def identity_of(value: Json, folder: Path) -> Identity:
    """Rebuild an identity from its JSON."""
    version = value.get("codec_version")
    if version != VERSION:
        raise StoreError(
            f"store {folder} has codec version {version}; this version of Limbeck reads {VERSION}"
        )
    try:
        return Identity(
            StoreSpec(**value["spec"]),
            int(value["vocabulary"]),
            str(value["tokenizer_sha256"]),
            value["teacher"],
            int(value["parts"]),
        )
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"store {folder} has a damaged {IDENTITY} or {MANIFEST}: {error}"
        ) from error


def read_manifest(folder: Path) -> Json:
    """Read a finished store's manifest.

    Raises:
        StoreError: No manifest, so the store is unfinished.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise StoreError(
            f"store {folder} is unfinished: it has no {MANIFEST}; capture again with resume"
        )
    return _json(path)


def records_of(value: Json, folder: Path) -> list[ShardRecord]:
    """Rebuild the list of shards from a manifest or a part's list."""
    try:
        return [ShardRecord(**record) for record in value["shards"]]
    except (KeyError, TypeError) as error:
        raise StoreError(f"store {folder} has a damaged list of shards: {error}") from error


def part_documents(folder: Path, part: int) -> int | None:
    """Return how many documents a finished part of a store holds, or None while it is unfinished."""
    for name in (part_name(part), MANIFEST):
        # The part's list gives way to the manifest, maybe at this moment.
        with suppress(FileNotFoundError):
            records = records_of(_json(folder / name), folder)
            return sum(r.documents for r in records if part_of(r.name) == part)
    return None


def accounting(records: list[ShardRecord], other_bytes: int) -> Json:
    """Return where the bytes of a store go.

    Args:
        records: Every shard.
        other_bytes: Files beside the shards: identity and lists.
    """
    positions = sum(r.positions for r in records)
    tokens = sum(r.tokens for r in records)
    total = sum(r.bytes for r in records) + other_bytes
    kinds: dict[str, float] = {}
    for record in records:
        for kind, bits in record.bits.items():
            kinds[kind] = kinds.get(kind, 0.0) + bits / 8
    kinds["frame"] = float(sum(r.frame_bytes for r in records) + other_bytes)
    kinds["rounding"] = total - sum(kinds.values())
    each = max(positions, 1)
    return {
        "bytes": total,
        "bytes_per_token": total / each,
        "bytes_per_token_without_text": (total - kinds.get("tokens", 0.0)) / each,
        "text_bytes_per_document_token": kinds.get("tokens", 0.0) / max(tokens, 1),
        "bytes_per_token_by_kind": {k: v / each for k, v in sorted(kinds.items())},
    }


def manifest_json(identity: Identity, records: list[ShardRecord], other_bytes: int) -> Json:
    """Return the manifest: identity, counts, accounting, priors and shards."""
    priors = {
        str(part): r.sha256
        for part in range(identity.parts)
        for r in records
        if r.name == shard_name(part, 0)
    }
    return {
        **identity.as_json(),
        "identity_sha256": identity.sha256,
        "documents": sum(r.documents for r in records),
        "tokens": sum(r.tokens for r in records),
        "positions": sum(r.positions for r in records),
        "head_entries": sum(r.head_entries for r in records),
        "samples": sum(r.samples for r in records),
        **accounting(records, other_bytes),
        "priors": priors,
        "shards": [asdict(r) for r in records],
    }


def _json(path: Path) -> Json:
    try:
        value = read_json(path)
    except ValueError as error:
        raise StoreError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} must hold a JSON object")
    return value
