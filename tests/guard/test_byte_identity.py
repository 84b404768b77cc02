"""What policy does not touch passes untouched: thousands of replies, byte by byte."""

import asyncio

import pytest

from guard.fakeupstream import drawn
from guard.running import KEY, Client, Got, hello, running
from limbeck.guard.account import Plan
from limbeck.guard.heads import HOP_BY_HOP
from limbeck.guard.memory import holder_of

HOPS = {name.decode() for name in HOP_BY_HOP}
REPLIES = 2_000


def shape(got: Got) -> tuple[int, list[tuple[str, str]], bytes, bool]:
    """What must be the same: the status, the headers in their order, the body, and that it is whole.

    Names of headers are compared without their case, as HTTP has it; how the body is framed is the hop's.
    """
    framing = HOPS | {"content-length"}
    headers = [(name.lower(), value) for name, value in got.headers if name.lower() not in framing]
    return got.status, headers, got.body, got.whole


@pytest.mark.parametrize(
    "capabilities",
    [[], ["reasoning"], ["reasoning", "logprobs", "n"]],
    ids=["sealed", "reasoning", "more"],
)
def test_thousands_of_replies_are_the_upstreams_own(capabilities: list[str]) -> None:
    async def compare() -> int:
        holders = {KEY: holder_of("a", Plan("p", capabilities=frozenset(capabilities)))}
        async with (
            running(drawn, holders=holders) as run,
            Client(run.port) as ours,
            Client(run.fake.port) as own,
        ):
            for number in range(REPLIES // 3):
                body = hello(user=str(number), stream=number % 2 == 0)
                through, direct = await asyncio.gather(ours.post(body), own.post(body))
                assert shape(through) == shape(direct), body
                if direct.header("content-length") is not None and "stream" not in (
                    direct.header("content-type") or ""
                ):
                    assert through.header("content-length") == direct.header("content-length")
        sent = [asked.body for asked in run.fake.asked]
        assert len(sent) == 2 * (REPLIES // 3)
        assert sent[0::2] == sent[1::2]
        return len(sent)

    assert asyncio.run(compare()) > 1_000
