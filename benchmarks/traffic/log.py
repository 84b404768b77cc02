"""Writes a traffic log: every account's requests merged by time, one JSON object a line, and the truth beside it."""

import csv
import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from limbeck.guard.observation import Observation
from limbeck.guard.traffic import from_observation
from traffic.account import Account, Class
from traffic.agent import agent
from traffic.bench import benchmark
from traffic.census import Plan, accounts
from traffic.chat import chat, resell
from traffic.copier import Campaign, copy
from traffic.material import Material
from traffic.pipeline import pipeline
from traffic.redteam import redteam

TRUTH = ("account", "class", "campaign", "family")
_MAKERS: Mapping[Class, Callable[[Account, Material], Iterator[Observation]]] = {
    "chat": chat,
    "office": chat,
    "reseller": resell,
    "pipeline": pipeline,
    "benchmark": benchmark,
    "agent": agent,
    "redteam": redteam,
}


def requests_of(
    account: Account, campaign: Campaign | None, material: Material
) -> Iterator[Observation]:
    """Return an account's requests in the order of time."""
    return (
        _MAKERS[account.kind](account, material)
        if campaign is None
        else copy(account, campaign, material)
    )


def merged(plan: Plan, material: Material) -> Iterator[Observation]:
    """Yield all requests of a log in the order of time; memory grows with the accounts, not with their requests."""
    return by_time(requests_of(account, campaign, material) for account, campaign in accounts(plan))


def by_time(streams: Iterable[Iterator[Observation]]) -> Iterator[Observation]:
    """Merge streams that are each in the order of time."""
    return heapq.merge(*streams, key=lambda one: (one.ts, one.account))


def rewritten(
    observations: Iterator[Observation], rewrite: Callable[[str], str] | None
) -> Iterator[Observation]:
    """Yield observations with the text of every user turn and system prompt rewritten; None leaves them."""
    if rewrite is None:
        yield from observations
        return
    for one in observations:
        messages = [
            m | {"content": rewrite(str(m["content"]))} if m["role"] in ("user", "system") else m
            for m in one.request["messages"]
        ]
        yield replace(one, request={**one.request, "messages": messages})


def write(
    plan: Plan,
    material: Material,
    log: Path,
    truth: Path,
    rewrite: Callable[[str], str] | None = None,
) -> int:
    """Write a log and its truth, and return the number of lines."""
    with truth.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(TRUTH)
        table.writerows((a.name, a.kind, a.campaign, a.family) for a, _ in accounts(plan))
    lines = 0
    with log.open("w", encoding="utf-8") as file:
        for one in rewritten(merged(plan, material), rewrite):
            file.write(json.dumps(from_observation(one), ensure_ascii=False) + "\n")
            lines += 1
    return lines
