import random

from limbeck.guard.signals.breadth import Breadth
from limbeck.guard.signals.shard import PACKED_BYTES, Shard, Signature
from tinytraffic import dice


def play(topics_of: list[list[list[int]]], known: float = 0.0) -> Shard:
    """Accounts' requests as topic words, taken in turns."""
    shard, cluster = Shard(), Breadth()
    accounts = [Breadth() for _ in topics_of]
    shard.begin(0, Breadth())
    for _ in topics_of[1:]:
        shard.join(0)
    for n in range(max(map(len, topics_of))):
        for account, requests in zip(accounts, topics_of, strict=True):
            if n < len(requests):
                shard.step(requests[n], account, cluster, n)
                shard.share(known)
                account.step(requests[n])
                cluster.step(requests[n])
    return shard


def dealt(rng: random.Random, accounts: int, requests: int) -> list[list[list[int]]]:
    return [
        [[rng.randrange(300) for _ in range(4)] for _ in range(requests)] for _ in range(accounts)
    ]


def different(rng: random.Random, accounts: int, requests: int) -> list[list[list[int]]]:
    return [
        [[7 * a + rng.randrange(6) for _ in range(4)] for _ in range(requests)]
        for a in range(accounts)
    ]


def test_shards_of_one_pool_are_alike_and_neighbours_are_not() -> None:
    rng = dice(0)
    pool, office = play(dealt(rng, 20, 8)).signature(), play(different(rng, 20, 8)).signature()
    assert pool.alike > 0.85
    assert office.alike < 0.4


def test_even_loads_are_even_and_a_heavy_user_shows() -> None:
    rng = dice(1)
    even = play(dealt(rng, 10, 10)).signature()
    uneven = play([*dealt(rng, 1, 200), *dealt(rng, 9, 3)]).signature()
    assert even.even == 1.0
    assert uneven.even < 0.05


def test_accounts_that_repeat_each_other_are_not_apart() -> None:
    rng = dice(2)
    assert play(dealt(rng, 5, 10), known=0.0).signature().apart == 1.0
    assert play(dealt(rng, 5, 10), known=0.9).signature().apart < 0.2


def test_one_account_says_nothing_and_the_state_packs_to_a_fixed_size() -> None:
    assert Shard().signature() == Signature(0.5, 0.5, 0.5)
    packed = play(dealt(dice(3), 3, 5)).pack()
    assert len(packed) == PACKED_BYTES
    assert Shard.unpack(packed).pack() == packed
