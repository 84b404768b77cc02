from limbeck.guard.reading import Conversation
from limbeck.guard.signals.dialogue import Dialogue, dialogue
from limbeck.guard.sketch import words_of


def turn(newest: str, reply: str = "", earlier: str = "", tools: int = 0) -> Dialogue:
    words = words_of(newest)
    said = Conversation(newest, reply, earlier, "", "", 1, tools, 0)
    return dialogue(said, words, set(words))


REPLY = "The limbeck distils spirit from mash in copper vessels over a gentle flame."


def test_a_first_turn_stands_alone_and_a_tools_result_does_not() -> None:
    assert turn("What is a limbeck?") == Dialogue(1.0, 0.0)
    assert turn("What is a limbeck?", tools=1) == Dialogue(0.0, 0.0)


def test_a_turn_that_uses_the_reply_depends_on_it() -> None:
    asked = "Why are the copper vessels heated over a gentle flame and not on coals or gas?"
    assert turn(asked, REPLY).dependent == 1.0


def test_a_stuffed_conversation_gets_no_credit() -> None:
    asked = (
        "Compare mortgage contracts between Denmark and Portugal, listing fees and notice periods."
    )
    assert turn(asked, REPLY) == Dialogue(0.0, 0.0)


def test_words_that_the_user_had_said_first_are_not_the_replys() -> None:
    asked = "Now compare mortgage contracts between Denmark and Portugal once more please"
    assert turn(asked, f"Sure: {asked}", earlier=asked).dependent <= 0.5


def test_short_follow_ups_depend_by_half() -> None:
    assert turn("now in French", REPLY).dependent == 0.5
