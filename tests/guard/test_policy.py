from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import GuardError
from limbeck.guard.decision import Action
from limbeck.guard.policy import Clause, Finding, Policy, decide, load_policy

SHIPPED = load_policy()
E_VALUE = st.floats(0, 1e9)
SPENT = st.floats(0, 10)


def test_the_shipped_policy_never_accuses_below_its_limit() -> None:
    assert SHIPPED.evidence.alpha == 0.001
    action, _ = decide(SHIPPED, Finding(999.0, 10.0))
    assert action < Action.CHALLENGE
    assert decide(SHIPPED, Finding(1000.0, 0.0)) == (Action.CHALLENGE, "accusation")
    assert decide(SHIPPED, Finding(1000.0, 0.2))[0] == Action.HOLD


@settings(deadline=None)  # the machine may be busy
@given(E_VALUE, E_VALUE, SPENT, SPENT)
def test_more_evidence_and_more_yield_never_soften_a_decision(
    e1: float, e2: float, s1: float, s2: float
) -> None:
    low = decide(SHIPPED, Finding(min(e1, e2), min(s1, s2)))[0]
    assert decide(SHIPPED, Finding(max(e1, e2), max(s1, s2)))[0] >= low


@settings(deadline=None)  # the machine may be busy
@given(SPENT)
def test_yield_alone_does_nothing(spent: float) -> None:
    assert decide(SHIPPED, Finding(1.0, spent)) == (Action.ALLOW, "")


@settings(deadline=None)  # the machine may be busy
@given(E_VALUE, SPENT)
def test_no_policy_blocks_by_itself(e_value: float, spent: float) -> None:
    assert decide(SHIPPED, Finding(e_value, spent))[0] < Action.BLOCK
    with pytest.raises(ValueError, match="sign-off"):
        Clause.model_validate({"name": "b", "action": "block", "accuse": True})


def test_an_accusation_without_the_promise_is_refused() -> None:
    with pytest.raises(ValueError, match="accuse = true"):
        Clause.model_validate({"name": "c", "action": "challenge", "e_value": 5})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[evidence]\nalfa = 0.1\n", "evidence.alfa"),
        ("[evidence]\nalpha = 2\n", "evidence.alpha"),
        ("nonsense", "not TOML"),
        ('[[clauses]]\nname = "x"\naction = "shout"\n', "one of allow"),
        (
            '[[clauses]]\nname = "x"\naction = "reduce"\n[[clauses]]\nname = "x"\naction = "reduce"\n',
            "two clauses",
        ),
    ],
)
def test_a_wrong_policy_is_named_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(GuardError, match=said):
        load_policy(path)


def test_a_policy_without_clauses_allows() -> None:
    assert decide(Policy(), Finding(1e9, 9.0)) == (Action.ALLOW, "")
