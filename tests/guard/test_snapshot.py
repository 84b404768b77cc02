import pytest

from limbeck.errors import GuardError
from limbeck.guard.policy import load_policy
from limbeck.guard.watch import Watch
from tinytraffic import observation


def watch(secret: bytes = b"test") -> Watch:
    return Watch(load_policy(), secret=secret)


def test_a_snapshot_restores_accounts_and_clusters_in_their_order() -> None:
    one, other = watch(), watch()
    for n in range(6):
        one.observe(observation(f"a{n % 3}", float(n), f"hello {n}", payment="p", ip=f"i{n}"))
    other.restore(one.snapshot())
    assert [name for name, _ in other.accounts] == [name for name, _ in one.accounts]
    assert [c.name for _, c in other.clusters] == [c.name for _, c in one.clusters]
    assert other.snapshot() == one.snapshot()


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]\n", b"\x00\xff\n"])
def test_what_is_no_snapshot_is_refused(data: bytes) -> None:
    with pytest.raises(GuardError, match="no snapshot"):
        watch().restore(data)


def test_a_failed_restore_changes_nothing() -> None:
    one = watch()
    one.observe(observation("a", 0.0, "hello"))
    before = one.snapshot()
    with pytest.raises(GuardError, match="another secret"):
        one.restore(watch(b"other").snapshot())
    assert one.snapshot() == before
