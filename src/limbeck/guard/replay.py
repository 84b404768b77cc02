"""A traffic log run through the very watch that the gateway calls, one decision a line."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from limbeck.errors import GuardError
from limbeck.guard.decision import Decision
from limbeck.guard.observation import Observation
from limbeck.guard.traffic import Intake, read_log, write_clock
from limbeck.guard.watch import Watch


@dataclass(slots=True)
class Replayed:
    """What a replay went through."""

    intake: Intake
    actions: Counter[str] = field(default_factory=Counter[str])


def decide(observations: Iterable[Observation], watch: Watch) -> Iterator[Decision]:
    """Yield the decision on each observation, in order."""
    return map(watch.observe, observations)


def replay(log: Path, watch: Watch, out: Path, *, skip_unreadable: bool = False) -> Replayed:
    """Write the decisions on a log to `out`; docs/traffic-format.md has their format.

    The file appears under its name when it is whole.

    Raises:
        GuardError: The log cannot be read, `out` cannot be written, or it would be a part of the log.
    """
    if out.resolve() == log.resolve() or out.resolve().parent == log.resolve():
        raise GuardError(f"decisions {out} would be written over, or into, the log {log}")
    done = Replayed(Intake())
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for decision in decide(
                read_log(log, done.intake, skip_unreadable=skip_unreadable), watch
            ):
                done.actions[decision.action.name.lower()] += 1
                file.write(orjson.dumps(as_line(decision), option=orjson.OPT_APPEND_NEWLINE))
        partial.replace(out)
    except OSError as error:
        raise GuardError(f"decisions {out} cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return done


def as_line(decision: Decision) -> dict[str, Any]:
    """Return a decision as the values of one output line."""
    return {
        "ts": write_clock(decision.ts),
        "account": decision.account,
        "action": decision.action.name.lower(),
        "because": [
            {"code": reason.code, "value": reason.value}
            | ({"detail": reason.detail} if reason.detail else {})
            for reason in decision.because
        ],
        "e_value": decision.e_value,
        "cluster": decision.cluster,
        "clause": decision.clause,
    }
