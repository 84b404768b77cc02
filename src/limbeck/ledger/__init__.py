"""An append-only record whose every rewriting shows: Merkle tree, signed checkpoints, bundles."""
