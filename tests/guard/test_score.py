from pathlib import Path

import pytest

from limbeck.errors import GuardError
from limbeck.guard.decision import Action
from limbeck.guard.score import Truth, read_decisions, read_truth, tally
from limbeck.stats.proportion import clopper_pearson

TRUTHS = {
    "a": Truth("chat", "", "x"),
    "b": Truth("chat", "", "y"),
    "p": Truth("pipeline", "", "z"),
    "c1": Truth("copier", "camp", "w"),
    "c2": Truth("copier", "camp", "w"),
    "c3": Truth("copier", "", "w"),
}


def test_accusations_are_counted_by_class_and_the_worst_honest_class_comes_first() -> None:
    rows = [("p", Action.ALLOW), ("a", Action.HOLD), ("b", Action.REDUCE), ("c1", Action.HOLD)]
    found = tally(rows, TRUTHS)
    assert list(found.classes) == ["chat", "pipeline", "copier"]
    chat = found.classes["chat"]
    assert (chat.accounts, chat.accused) == (2, 1)
    assert chat.upper_bound == clopper_pearson(1, 2).high
    assert chat.families == {"x": (1, 1), "y": (0, 1)}


def test_a_campaigns_requests_are_counted_over_all_its_accounts_until_the_first_accusation() -> (
    None
):
    rows = [("c1", Action.ALLOW), ("a", Action.ALLOW), ("c2", Action.ALLOW), ("c2", Action.CHALLENGE), ("c1", Action.HOLD)]  # fmt: skip
    camp = tally(rows, TRUTHS).campaigns["camp"]
    assert (camp.caught, camp.queries_to_detection, camp.queries_to_half) == (True, 3, 3)
    assert (camp.accounts, camp.requests, camp.accused) == (2, 4, 2)


def test_a_campaign_that_is_never_accused_has_no_number() -> None:
    found = tally([("c1", Action.REDUCE), ("c3", Action.ALLOW)], TRUTHS)
    assert found.as_json()["campaigns"]["camp"]["queries_to_detection"] is None
    assert "account c3" in found.campaigns


def test_where_an_accusation_begins_can_be_moved() -> None:
    rows = [("a", Action.REDUCE)]
    assert tally(rows, TRUTHS).classes["chat"].accused == 0
    assert tally(rows, TRUTHS, accused_from=Action.REDUCE).classes["chat"].accused == 1


def test_an_account_without_truth_or_no_decision_is_an_error() -> None:
    with pytest.raises(GuardError, match="'q' is not in the truth"):
        tally([("q", Action.ALLOW)], TRUTHS)
    with pytest.raises(GuardError, match="no decisions"):
        tally([], TRUTHS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("account,class\n", "lacks the column campaign"),
        ("account,class,campaign,family\n", "names no account"),
        ("account,class,campaign,family\na,,,f\n", "line 2: `account` and `class`"),
        (
            "account,class,campaign,family\na,chat,,f\na,chat,,f\n",
            "line 3: account 'a' is named twice",
        ),
        ("account,class,campaign,family\na,chat,c,f\n", "honest class 'chat'"),
    ],
)
def test_a_truth_table_says_what_is_wrong_with_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(GuardError, match=said):
        read_truth(path)


def test_decisions_that_are_none_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"account": "a", "action": "allow"}\n{"account": "a", "action": "shout"}\n')
    with pytest.raises(GuardError, match="line 2"):
        list(read_decisions(path))
    with pytest.raises(GuardError, match="cannot be read"):
        list(read_decisions(tmp_path / "none"))
