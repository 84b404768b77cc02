from collections import Counter

from limbeck.guard.evidence.units import SIZES, composed, natural_groups, train_units
from limbeck.guard.score import Truth
from tinytraffic import compose, observation


def test_any_link_joins_and_links_join_on() -> None:
    log = [
        observation("a", 0, "", org="x"),
        observation("b", 0, "", org="x", payment="p"),
        observation("c", 0, "", payment="p"),
        observation("d", 0, ""),
    ]
    group = natural_groups(log)
    assert group["a"] == group["b"] == group["c"] != group["d"]


def test_a_group_is_learned_from_or_calibrated_with_and_never_both() -> None:
    traffic = compose(honest=20)
    group = natural_groups(traffic.observations)
    trained = train_units(group, traffic.truths, share=0.2, least=4, seed=0)
    honest = [name for name, truth in traffic.truths.items() if not truth.guilty]
    share = Counter(traffic.truths[name].kind for name in honest if group[name] in trained)
    assert set(share.values()) == {4}
    assert not any(traffic.truths[n].guilty for n in group if group[n] in trained)


def test_composed_clusters_are_of_one_family_and_hold_no_copier_nor_linked_account() -> None:
    traffic = compose(honest=30)
    group = natural_groups(traffic.observations)
    trained = train_units(group, traffic.truths, share=0.2, least=4, seed=0)
    found = composed(group, traffic.truths, trained, seed=0)
    members: dict[str, list[str]] = {}
    for account, cluster in found.items():
        members.setdefault(cluster, []).append(account)
    assert members
    for accounts in members.values():
        assert (
            len(
                {
                    (traffic.truths[a].kind, traffic.truths[a].family, group[a] in trained)
                    for a in accounts
                }
            )
            == 1
        )
        assert len(accounts) <= SIZES[-1]
        assert len(accounts) >= SIZES[0]
    assert not any(traffic.truths[a].guilty for a in found)


def test_the_seed_decides() -> None:
    truths = {f"a{n}": Truth("chat", "", "f") for n in range(40)}
    group = {name: n for n, name in enumerate(truths)}
    assert composed(group, truths, set(), seed=1) == composed(group, truths, set(), seed=1)
    assert composed(group, truths, set(), seed=1) != composed(group, truths, set(), seed=2)
