import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.signals.exam import exam


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Which one?\nA. red\nB. blue\nAnswer:", 1.0),
        ("Is it so?\nOptions:\n- yes\n- no", 1.0),
        ("Is the following statement true or false? Snow is warm.", 0.5),
        ("Tell me about snow.", 0.0),
    ],
)
def test_the_form_of_a_test_item_is_seen(text: str, value: float) -> None:
    assert exam(text) == value


def test_the_form_is_seen_behind_many_examples() -> None:
    assert exam("x " * 100_000 + "\nA) one\nB) two\nAnswer:") == 1.0


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_it_is_a_share(text: str) -> None:
    assert exam(text) in {0.0, 0.5, 1.0}
