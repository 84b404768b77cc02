"""Targets on disk: entropy-coded shards that stand by themselves, with the manifest written last."""

from limbeck.distill.store.budget import choose, gradient_mse
from limbeck.distill.store.describe import describe
from limbeck.distill.store.export import export_parquet
from limbeck.distill.store.manifest import part_documents
from limbeck.distill.store.reader import StoreReader
from limbeck.distill.store.select import sparsify, sparsify_known
from limbeck.distill.store.spec import StoreSpec
from limbeck.distill.store.writer import StoreWriter, merge

__all__ = [
    "StoreReader",
    "StoreSpec",
    "StoreWriter",
    "choose",
    "describe",
    "export_parquet",
    "gradient_mse",
    "merge",
    "part_documents",
    "sparsify",
    "sparsify_known",
]
