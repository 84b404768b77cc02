from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.accounts import CLUSTER_BYTES, Cluster, Resident
from limbeck.guard.features import ask
from limbeck.guard.memory import PACKED_BYTES as MEMORY_BYTES
from limbeck.guard.memory import Memory
from limbeck.guard.sketch import Sketcher
from tinytraffic import observation


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8))
def test_a_table_holds_the_entries_that_were_seen_last(names: list[int], limit: int) -> None:
    table: Resident[int] = Resident(limit, keeps=lambda _: False)
    order: list[int] = []
    for name in names:
        if table.get(name) is None:
            table.put(name, name)
        order = [*(n for n in order if n != name), name][-limit:]
        assert [n for n, _ in table] == order


def test_kept_entries_leave_only_when_there_is_nobody_else() -> None:
    table: Resident[str] = Resident(3, keeps=lambda one: one.startswith("kept"))
    for name in ("kept 1", "x", "y", "z"):
        table.put(name, name)
    assert [n for n, _ in table] == ["kept 1", "y", "z"]
    for name in ("kept 2", "kept 3", "kept 4"):
        table.put(name, name)
    assert [n for n, _ in table] == ["kept 2", "kept 3", "kept 4"]
    assert table.evicted == 4


def test_a_cluster_is_a_name_until_it_has_two_accounts() -> None:
    cluster = Cluster("payment:p", "a", 2)
    assert len(cluster.pack()) == CLUSTER_BYTES
    first = Memory()
    first.step(ask(observation("a", 0.0, "hello there"), Sketcher(b"k"), ()), 0.0)
    begun = cluster.begin(first)
    assert begun.requests == first.requests == 1
    assert begun.shard.accounts == 1
    assert len(cluster.pack()) == CLUSTER_BYTES + MEMORY_BYTES
    again = Cluster("payment:p", "a", 2)
    again.restore(cluster.pack())
    assert again.pack() == cluster.pack()
