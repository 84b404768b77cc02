import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import LimbeckError
from limbeck.ledger.encoding import canonical
from limbeck.ledger.note import PublicKey
from limbeck.trace.coins import Coin
from limbeck.trace.registration import Registration, read_registration, read_statement
from limbeck.trace.rerun import Facts, rerun
from limbeck.trace.sealing import read_sealed
from smalltrace import PLAN, Case

UNCHECKED = {
    # Prose and forecasts, which `limbeck.trace.restate` writes anew:
    "because", "limits", "more_coins", "propositions", "strength", "supporting", "warnings",
    # What the notes and the ledger say, or nobody can compute again:
    "created", "format", "coins.committed_at", "coins.beacon", "coins.beacon_time", "coins.bits_checked",
    "coins.skipped", "statistic.stopping", "agreement.interval", "agreement.confidence", "agreement.method",
    "references.name", "suspect.name", "suspect.identity", "items.account",
}  # fmt: skip


@dataclass
class Honest:
    report: dict[str, Any]
    plan: Registration
    coins: tuple[Coin, ...]
    facts: Facts

    def rerun(self, report: Any) -> None:
        rerun(report, 1, self.plan, self.coins, self.facts)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    case = Case(tmp_path_factory.mktemp("trace"))
    case.commit(count=40)
    case.register(PLAN)
    case.seal()
    key: PublicKey = case.keys.signer.public
    sealed = read_sealed(case.coins)
    commitment = json.loads((case.coins / "commitment.json").read_text())
    committed = read_statement(commitment["committed"], key, "limbeck coins, committed")
    plan = read_registration((case.coins / "registration.note").read_text(), key)
    report = json.loads(case.audit(1.0, stop_early=False).read_text())
    return Honest(report, plan, sealed.coins, Facts(sealed.root, key, committed))


def test_an_honest_report_comes_out_again(honest: Honest) -> None:
    honest.rerun(honest.report)


@settings(max_examples=150)
@given(st.data())
def test_any_figure_changed_is_refused_with_a_sentence(honest: Honest, data: st.DataObject) -> None:
    """Whatever JSON an insider puts in the place of a figure: a deliberate error, never a crash, never a pass."""
    report = copy.deepcopy(honest.report)
    path = data.draw(st.sampled_from(_paths(report)))
    holder: Any = report
    for step in path[:-1]:
        holder = holder[step]
    old = holder[path[-1]]
    simple = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
    floats = st.floats(allow_nan=False, allow_infinity=False)
    other = simple | floats | st.lists(simple, max_size=2) | st.dictionaries(st.text(max_size=2), simple, max_size=2)  # fmt: skip
    new = data.draw(other.filter(lambda value: not _alike(value, old)))
    holder[path[-1]] = new
    with pytest.raises(LimbeckError):
        honest.rerun(report)


def test_a_report_without_one_of_its_figures_is_refused(honest: Honest) -> None:
    needed = honest.report.keys() - UNCHECKED - {"accounts"}
    for name in needed:
        with pytest.raises(LimbeckError):
            honest.rerun({k: v for k, v in honest.report.items() if k != name})
    for other in (None, [], "report", 3):
        with pytest.raises(LimbeckError):
            honest.rerun(other)


def _alike(new: Any, old: Any) -> bool:
    """Say whether two values are the same figure: 3 is 3.0, and the last digits of another machine are forgiven."""
    number = int | float
    if isinstance(new, number) and isinstance(old, number) and not isinstance(new, bool):
        return abs(new - old) <= 2e-3 * max(1.0, abs(old))
    return canonical(new) == canonical(old)


def _paths(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [path for path in _below(report, ()) if path and _name(path) not in UNCHECKED]


def _below(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    if path and (_name(path) in UNCHECKED or path[0] in UNCHECKED):
        return []
    found = [path]
    if isinstance(value, dict):
        found += [p for key in value for p in _below(value[key], (*path, key))]
    elif isinstance(value, list):
        found += [p for place in range(len(value)) for p in _below(value[place], (*path, place))]
    return found


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(step for step in path if isinstance(step, str))
