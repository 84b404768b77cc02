"""Say what lies in a store's folder, finished or not."""

from pathlib import Path

from limbeck.distill.store.manifest import MANIFEST, Json, read_identity, read_manifest


def describe(folder: Path) -> Json:
    """Return a store's manifest without its list of shards, or what is there of an unfinished one.

    The key `finished` tells which. Reads no shard.

    Raises:
        StoreError: No store there, or one of another version.
    """
    if not (folder / MANIFEST).is_file():
        identity = read_identity(folder)
        shards = sorted(folder.glob("part-*.shard"))
        return {
            "finished": False,
            **identity.as_json(),
            "shards": len(shards),
            "bytes": sum(p.stat().st_size for p in shards),
        }
    manifest = read_manifest(folder)
    return {"finished": True, **manifest, "shards": len(manifest["shards"])}
