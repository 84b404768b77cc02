from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.guard.reading import LONGEST_TEXT, number, read
from tinytraffic import observation

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def said(*turns: tuple[str, Any], **body: Any) -> Any:
    messages = [{"role": role, "content": content} for role, content in turns]
    return read(observation("a", 0.0, "", request={"messages": messages, **body}))


def test_roles_are_told_apart() -> None:
    found = said(
        ("system", "F"), ("user", "one"), ("assistant", "R"), ("user", "two"), ("assistant", "P")
    )
    assert (found.frame, found.earlier, found.reply, found.newest, found.prefill) == (
        "F",
        "one",
        "R",
        "two",
        "P",
    )
    assert found.user_turns == 2
    assert {"F", "one", "R", "two", "P"} == set(found.everything.split("\n"))


def test_chunks_of_a_message_are_joined_so_that_nothing_hides_between_them() -> None:
    found = said(
        (
            "user",
            [
                {"type": "text", "text": "step by "},
                {"type": "image_url"},
                {"type": "text", "text": "step"},
            ],
        )
    )
    assert found.newest == "step by step"


def test_completions_and_responses_bodies_are_read_too() -> None:
    assert (
        read(observation("a", 0.0, "", request={"messages": None, "prompt": "hi"})).newest == "hi"
    )
    body = {"messages": None, "instructions": "F", "input": [{"role": "user", "content": "hi"}]}
    found = read(observation("a", 0.0, "", request=body))
    assert (found.frame, found.newest) == ("F", "hi")


def test_tool_turns_are_counted_and_long_texts_clipped_at_both_ends() -> None:
    found = said(("user", "begin " + "x" * 10 * LONGEST_TEXT + " end"), ("tool", "t"))
    assert found.tool_turns == 1
    assert len(found.newest) == LONGEST_TEXT
    assert found.newest.startswith("begin")
    assert found.newest.endswith("end")


@settings(deadline=None)  # the machine may be busy
@given(st.dictionaries(st.sampled_from(["messages", "prompt", "input", "instructions"]), JSON))
def test_a_foreign_body_is_read_without_an_error(body: dict[str, Any]) -> None:
    assert read(observation("a", 0.0, "", request={"messages": [], **body})).characters >= 0


def test_a_boolean_is_no_number() -> None:
    assert number({"n": True, "best_of": 3}, "n", "best_of") == 3.0
    assert number({"n": "3"}, "n") is None
