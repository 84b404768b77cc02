import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    over,
    peaks,
    root,
    shows_consistency,
    shows_inclusion,
)

# The leaves and roots of the Certificate Transparency reference tests (certificate-transparency, merkle_tree_test).
LEAVES = [bytes.fromhex(h) for h in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
PATHS = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
}
SIZES = st.integers(1, 70)


def reference(leaves: list[bytes]) -> bytes:
    """The definition, recursively, in its own words (RFC 6962, section 2.1)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + reference(leaves[:k]) + reference(leaves[k:])).digest()


def reference_path(m: int, leaves: list[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*reference_path(m, leaves[:k]), reference(leaves[k:])]
    return [*reference_path(m - k, leaves[k:]), reference(leaves[:k])]


def reference_proof(m: int, leaves: list[bytes], known: bool = True) -> list[bytes]:
    if m == len(leaves):
        return [] if known else [reference(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*reference_proof(m, leaves[:k], known), reference(leaves[k:])]
    return [*reference_proof(m - k, leaves[k:], False), reference(leaves[:k])]


def some(n: int) -> list[bytes]:
    return [f"leaf {i}".encode() for i in range(n)]


def hashed(n: int) -> list[bytes]:
    return [leaf_hash(leaf) for leaf in some(n)]


def test_the_published_roots_and_paths_come_out() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    leaves = [leaf_hash(leaf) for leaf in LEAVES]
    assert [root(leaves[:n]).hex() for n in range(1, 9)] == list(ROOTS)
    for (index, size), path in PATHS.items():
        assert [h.hex() for h in inclusion_proof(index, size, over(leaves))] == list(path)


def test_the_rfcs_example_of_seven_leaves_has_its_proofs() -> None:
    """RFC 6962, section 2.1.3: the proofs are named there by the nodes of the drawing."""
    a, b, c, d, e, f, j = hashed(7)
    g, h, i = root([a, b]), root([c, d]), root([e, f])
    k, x = root([a, b, c, d]), root([e, f, j])
    tree = over([a, b, c, d, e, f, j])
    assert inclusion_proof(0, 7, tree) == [b, h, x]
    assert inclusion_proof(3, 7, tree) == [c, g, x]
    assert inclusion_proof(4, 7, tree) == [f, j, k]
    assert inclusion_proof(6, 7, tree) == [i, k]
    assert consistency_proof(3, 7, tree) == [c, d, g, x]
    assert consistency_proof(4, 7, tree) == [x]
    assert consistency_proof(6, 7, tree) == [i, j, k]


@given(st.integers(0, 300))
def test_the_frontier_is_the_recursive_definition(n: int) -> None:
    assert root(hashed(n)) == reference(some(n))


@given(st.data(), SIZES)
def test_inclusion_proofs_are_those_of_the_definition_and_verify(
    data: st.DataObject, n: int
) -> None:
    index = data.draw(st.integers(0, n - 1))
    path = inclusion_proof(index, n, over(hashed(n)))
    assert path == reference_path(index, some(n))
    assert shows_inclusion(hashed(n)[index], index, n, path, reference(some(n)))


@given(st.data(), SIZES)
def test_consistency_proofs_are_those_of_the_definition_and_verify(
    data: st.DataObject, n: int
) -> None:
    m = data.draw(st.integers(0, n))
    path = consistency_proof(m, n, over(hashed(n)))
    if m:
        assert path == reference_proof(m, some(n))
    assert shows_consistency(m, reference(some(m)), n, reference(some(n)), path)


@given(st.data(), SIZES)
def test_no_other_leaf_place_size_or_path_verifies(data: st.DataObject, n: int) -> None:
    leaves = hashed(n)
    index = data.draw(st.integers(0, n - 1))
    path = inclusion_proof(index, n, over(leaves))
    top = root(leaves)
    other = data.draw(st.integers(0, 80).filter(lambda i: i != index))
    assert not shows_inclusion(leaves[index], other, n, path, top)
    assert not shows_inclusion(leaf_hash(b"another"), index, n, path, top)
    assert not shows_inclusion(leaves[index], index, n, [*path, top], top)
    assert not shows_inclusion(leaves[index], index, n, path, leaf_hash(b"another"))
    if path:
        assert not shows_inclusion(leaves[index], index, n, path[:-1], top)
        assert not shows_inclusion(leaves[index], index, n, path[1:], top)


@given(st.data(), SIZES)
def test_no_rewritten_beginning_is_consistent(data: st.DataObject, n: int) -> None:
    m = data.draw(st.integers(1, n))
    changed = data.draw(st.integers(0, m - 1))
    old, new = hashed(m), hashed(n)
    old[changed] = leaf_hash(b"rewritten")
    path = consistency_proof(m, n, over(new))
    assert not shows_consistency(m, root(old), n, root(new), path)
    assert not shows_consistency(m, root(new[:m]), n, leaf_hash(b"another"), path)
    if path:
        assert not shows_consistency(m, root(new[:m]), n, root(new), path[:-1])
        assert not shows_consistency(m, root(new[:m]), n, root(new), path[1:])


def test_an_empty_tree_is_the_beginning_of_every_tree_and_of_no_claim() -> None:
    assert shows_consistency(0, EMPTY_ROOT, 3, root(hashed(3)), [])
    assert not shows_consistency(0, root(hashed(1)), 3, root(hashed(3)), [])
    assert not shows_consistency(0, EMPTY_ROOT, 0, root(hashed(1)), [])


@given(st.integers(0, 600))
def test_a_frontier_goes_on_from_its_peaks(n: int) -> None:
    leaves = hashed(n)
    tree = over(leaves)
    frontier = Frontier(n, [tree(level, place) for level, place in peaks(n)])
    frontier.append(leaf_hash(b"more"))
    assert frontier.root() == root([*leaves, leaf_hash(b"more")])


def test_a_frontier_reports_every_complete_subtree_of_256_and_65536_leaves() -> None:
    frontier, kept = Frontier(), []
    leaf = leaf_hash(b"")
    for _ in range(65536 + 256):
        kept += frontier.append(leaf)
    assert [k[:2] for k in kept if k[0] == 8] == [(8, i) for i in range(257)]
    assert [k[:2] for k in kept if k[0] == 16] == [(16, 0)]
    assert kept[0][2] == root([leaf] * 256)


def test_a_copy_of_a_frontier_grows_alone() -> None:
    one = Frontier()
    one.append(leaf_hash(b"a"))
    two = one.copy()
    two.append(leaf_hash(b"b"))
    assert (one.size, two.size) == (1, 2)
    assert one.root() == root([leaf_hash(b"a")])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_a_leaf_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_proof(index, size, over(hashed(size)))
    assert not shows_inclusion(leaf_hash(b""), index, size, [], leaf_hash(b""))


def test_a_longer_tree_is_not_the_beginning_of_a_shorter_one() -> None:
    with pytest.raises(ValueError, match="cannot be the beginning"):
        consistency_proof(4, 3, over(hashed(4)))
    assert not shows_consistency(4, root(hashed(4)), 3, root(hashed(3)), [])


def test_a_frontier_with_too_few_peaks_is_refused() -> None:
    with pytest.raises(ValueError, match="a tree of 3 leaves has 2 peaks, got 1"):
        Frontier(3, [leaf_hash(b"")])
