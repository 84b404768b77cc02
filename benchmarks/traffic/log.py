"""Writes a traffic log: every account's requests merged by time, one JSON object a line, and the truth beside it."""

import csv
import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from limbeck.guard.observation import Observation
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
    streams = (requests_of(account, campaign, material) for account, campaign in accounts(plan))
    return heapq.merge(*streams, key=lambda one: (one.ts, one.account))


def as_line(one: Observation) -> dict[str, Any]:
    """Return the line of a traffic log that says it."""
    line: dict[str, Any] = {
        "ts": datetime.fromtimestamp(round(one.ts, 3), UTC).isoformat(timespec="milliseconds"),
        "account": one.account, "org": one.org, "ip": one.ip, "asn": one.asn, "user_agent": one.user_agent,
        "payment": one.payment, "model": one.model, "endpoint": one.endpoint, "request": one.request,
    }  # fmt: skip
    if one.response is not None:
        line["response"] = {
            "text": one.response.text,
            "prompt_tokens": one.response.prompt_tokens,
            "completion_tokens": one.response.completion_tokens,
        }
    return line if one.declared_use is None else line | {"declared_use": one.declared_use}


def write(plan: Plan, material: Material, log: Path, truth: Path) -> int:
    """Write a log and its truth, and return the number of lines."""
    with truth.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(TRUTH)
        table.writerows((a.name, a.kind, a.campaign, a.family) for a, _ in accounts(plan))
    lines = 0
    with log.open("w", encoding="utf-8") as file:
        for one in merged(plan, material):
            file.write(json.dumps(as_line(one), ensure_ascii=False) + "\n")
            lines += 1
    return lines
