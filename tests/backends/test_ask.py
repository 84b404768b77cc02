from hypothesis import given
from hypothesis import strategies as st

from limbeck.backends.ask import chat_ask, score_ask
from limbeck.chat import Message

TURNS = (Message("system", "Be brief."), Message("user", "Grüße?"))


def test_a_request_holds_what_every_server_takes_and_no_more() -> None:
    ask = chat_ask("m", TURNS, max_tokens=7, temperature=0.5)
    assert ask.path == "chat/completions"
    assert ask.body == {
        "model": "m",
        "messages": [t.as_dict() for t in TURNS],
        "max_tokens": 7,
        "temperature": 0.5,
    }


def test_options_are_sent_where_they_are_asked_for() -> None:
    ask = chat_ask(
        "m",
        TURNS,
        max_tokens=7,
        temperature=1,
        seed=3,
        top_logprobs=5,
        length_key="max_completion_tokens",
        extra={"reasoning_effort": "low"},
    )
    assert ask.body["reasoning_effort"] == "low"
    assert (ask.body["seed"], ask.body["logprobs"], ask.body["top_logprobs"]) == (3, True, 5)
    assert ask.body["max_completion_tokens"] == 7
    assert "max_tokens" not in ask.body
    assert ask.most_completion_tokens == 7


def test_anything_that_changes_the_answer_changes_the_hash() -> None:
    first = chat_ask("m", TURNS, max_tokens=7, temperature=0.5)
    others = [
        chat_ask("n", TURNS, max_tokens=7, temperature=0.5),
        chat_ask("m", TURNS[1:], max_tokens=7, temperature=0.5),
        chat_ask("m", TURNS, max_tokens=8, temperature=0.5),
        chat_ask("m", TURNS, max_tokens=7, temperature=0.6),
        chat_ask("m", TURNS, max_tokens=7, temperature=0.5, seed=1),
        chat_ask("m", TURNS, max_tokens=7, temperature=0.5, sample=1),
        chat_ask("m", TURNS, max_tokens=7, temperature=0.5, top_logprobs=1),
    ]
    assert len({a.sha256 for a in (first, *others)}) == len(others) + 1
    assert first.sha256 == chat_ask("m", TURNS, max_tokens=7, temperature=0.5).sha256


@given(text=st.text(max_size=200))
def test_the_bound_of_a_prompts_tokens_is_at_least_its_bytes(text: str) -> None:
    ask = chat_ask("m", (Message("user", text),), max_tokens=1, temperature=1)
    assert ask.most_prompt_tokens >= len(text.encode())


def test_scoring_sends_the_tokens_themselves() -> None:
    ask = score_ask("m", [5, 6, 7], prompt_logprobs=4)
    assert ask.path == "completions"
    assert (ask.body["prompt"], ask.body["prompt_logprobs"]) == ([5, 6, 7], 4)
    assert ask.most_prompt_tokens == 3
