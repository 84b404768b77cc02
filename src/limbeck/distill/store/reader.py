"""Read a finished store: in order, or any shard by itself."""

from collections.abc import Iterator
from pathlib import Path

from limbeck.artefact import sha256_bytes
from limbeck.distill.store.manifest import (
    Identity,
    Json,
    ShardRecord,
    identity_of,
    read_manifest,
    records_of,
    shard_name,
)
from limbeck.distill.store.shard import Prior, decode_shard
from limbeck.distill.targets import Taught
from limbeck.errors import StoreError


class StoreReader:
    """Owns a finished store's folder for reading; keeps each part's prior in memory once it is needed."""

    def __init__(
        self, folder: Path, *, tokenizer_sha256: str | None = None, vocabulary: int | None = None
    ) -> None:
        """Open a store, and check that it fits where the caller says what it must fit.

        Raises:
            StoreError: Unfinished, of another version, tokenizer or vocabulary, or an inconsistent
                manifest.
        """
        self.folder = folder
        self.manifest: Json = read_manifest(folder)
        self.identity: Identity = identity_of(self.manifest, folder)
        self.shards: list[ShardRecord] = records_of(self.manifest, folder)
        self._priors: dict[int, Prior] = {}
        if self.manifest.get("identity_sha256") != self.identity.sha256:
            raise StoreError(
                f"store {folder} has a manifest whose identity does not match its hash"
            )
        found = self.identity.tokenizer_sha256
        if tokenizer_sha256 is not None and tokenizer_sha256 != found:
            raise StoreError(
                f"store {folder} was captured with tokenizer {found[:12]}, "
                f"but this model reads with tokenizer {tokenizer_sha256[:12]}"
            )
        if vocabulary is not None and vocabulary != self.identity.vocabulary:
            raise StoreError(
                f"store {folder} has a vocabulary of {self.identity.vocabulary}, "
                f"but this model has {vocabulary}"
            )

    def __len__(self) -> int:
        """Return the number of documents."""
        return sum(r.documents for r in self.shards)

    def documents(self) -> Iterator[Taught]:
        """Yield every document, in the order in which it was written, part after part."""
        for index in range(len(self.shards)):
            yield from self.read(index)

    def read(self, index: int) -> list[Taught]:
        """Return the documents of one shard.

        Raises:
            StoreError: A missing, truncated, altered or foreign shard; names it.
        """
        record = self.shards[index]
        part = int(record.name.split("-")[1])
        first = record.name == shard_name(part, 0)
        prior = None if first else self._prior(part)
        return self._decode(record, prior)[0]

    def verify(self) -> None:
        """Read everything and check it against the manifest.

        Raises:
            StoreError: The first difference; names the shard.
        """
        for index, record in enumerate(self.shards):
            taught = self.read(index)
            counts = (
                len(taught),
                sum(len(t.document.tokens_T) for t in taught),
                sum(t.document.positions for t in taught),
            )
            if counts != (record.documents, record.tokens, record.positions):
                raise StoreError(f"shard {record.name} holds other counts than the manifest says")

    def _prior(self, part: int) -> Prior:
        if part not in self._priors:
            name = shard_name(part, 0)
            record = next((r for r in self.shards if r.name == name), None)
            stated = self.manifest.get("priors", {}).get(str(part))
            if record is None or stated != record.sha256:
                raise StoreError(
                    f"store {self.folder} has no prior for part {part}: the manifest states {stated}"
                )
            _, prior = self._decode(record, None)
            self._priors[part] = prior
        return self._priors[part]

    def _decode(self, record: ShardRecord, prior: Prior | None) -> tuple[list[Taught], Prior]:
        path = self.folder / record.name
        if not path.is_file():
            raise StoreError(f"shard {record.name} is missing from {self.folder}")
        data = path.read_bytes()
        if len(data) != record.bytes:
            raise StoreError(
                f"shard {record.name} has {len(data)} bytes instead of {record.bytes}: it was cut off"
            )
        digest = sha256_bytes(data)
        if digest != record.sha256:
            raise StoreError(
                f"shard {record.name} is damaged: its SHA-256 differs from the manifest's"
            )
        taught, model = decode_shard(
            data, record.name, self.identity.grid, self.identity.sha256, prior
        )
        return taught, Prior(model, digest)
