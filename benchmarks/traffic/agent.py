"""Agents: a task, then tool call after tool call, the whole history sent every time."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from limbeck.guard.observation import Observation
from traffic import clock
from traffic.account import Account, Exchange, observe, pick, rounds, system, user
from traffic.material import Material, words_of

_HISTORY = 24
"""Messages that an agent keeps at the most."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of agent: where its tasks and its tools' results come from."""

    tasks: str
    """Items of `Material.items`, or a source of BIG-bench after `bigbench:`."""
    results: str
    tools: tuple[str, ...]
    told: str


KINDS = {
    "support": Kind("clinc150", "e2e", ("get_account", "search_help", "create_ticket"),
        "You are a support agent. Think step by step, call tools, then answer."),
    "research": Kind("wiki", "c4", ("web_search", "open_page", "take_note"),
        "You research claims. Use the tools. Explain your reasoning before each call."),
    "sql": Kind("bigbench:bigbench/semantic_parsing_spider", "atis", ("run_sql", "list_tables"),
        "You are a data analyst with a read-only database."),
    "travel": Kind("atis", "banking77", ("search_flights", "hold_seat", "get_fare_rules"),
        "You book travel. Plan first, then act."),
    "files": Kind("trec", "state_union", ("read_file", "grep", "write_file"),
        "You are an autonomous assistant working in a folder of documents."),
}  # fmt: skip


def tasks_of(kind: Kind, material: Material) -> tuple[str, ...]:
    """Return the tasks of a kind of agent."""
    family, colon, source = kind.tasks.partition(":")
    return material.sources(family)[source] if colon else material.items(family)


def agent(account: Account, material: Material) -> Iterator[Observation]:
    """Yield the requests of one agent: episodes of up to 20 steps, whenever they are started."""
    rng = np.random.default_rng(account.seed)
    kind = KINDS[account.family.partition("/")[2]]
    told = f"{kind.told} Workspace {int(rng.integers(1000))}, owner {account.links.org}."
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
        for name in kind.tools
    ]
    options: dict[str, object] = {"tools": tools, "max_tokens": 1024}
    tasks = rounds(rng, tasks_of(kind, material))
    lengths = list[int]()
    while sum(lengths) < account.requests:
        lengths.append(int(rng.integers(2, 20)))
    when = clock.daily(rng, account.start, account.days, len(lengths))
    ts, left = account.start, account.requests
    for begin, length in zip(when, lengths, strict=True):
        ts = max(float(begin), ts)
        for exchange in _episode(
            rng, told, next(tasks), min(length, left), kind, options, material
        ):
            yield observe(account, ts, exchange)
            ts += float(rng.exponential(6.0))
        left -= length


def _episode(
    rng: np.random.Generator,
    told: str,
    task: str,
    length: int,
    kind: Kind,
    options: dict[str, object],
    material: Material,
) -> Iterator[Exchange]:
    head: list[dict[str, Any]] = [system(told), user(task)]
    steps: list[dict[str, Any]] = []
    for step in range(length):
        found = pick(rng, material.items(kind.results))
        tool = pick(rng, kind.tools)
        said = f"I will use {tool} for {' '.join(list(words_of(task))[:4])}."
        yield Exchange([*head, *steps[-_HISTORY:]], said, options)
        call = {
            "id": f"call_{step}",
            "type": "function",
            "function": {"name": tool, "arguments": json.dumps({"q": said[:60]})},
        }
        steps += [
            {"role": "assistant", "content": said, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call_{step}", "content": found[:800]},
        ]
