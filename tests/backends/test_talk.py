"""Tests of streamed answers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck.backends import talk
from limbeck.backends.folder import load_folder
from limbeck.chat import Message
from limbeck.errors import RecipeError, TeacherError
from limbeck.model import LocalModel

HELLO = [Message("user", "The river runs")]


@pytest.fixture(scope="module")
def local(tiny_teacher_folder: Path) -> LocalModel:
    return load_folder(tiny_teacher_folder, name="tiny", dtype="float32")


def reply(local: LocalModel, *, n: int = 12, temperature: float = 0.0, seed: int = 0) -> list[str]:
    return list(
        talk.stream_reply(local, HELLO, max_new_tokens=n, temperature=temperature, seed=seed)
    )


def scripted(monkeypatch: pytest.MonkeyPatch, tokens: list[int]) -> None:
    def draw(*_args: object) -> Iterator[int]:
        yield from tokens

    monkeypatch.setattr(talk, "_draw", draw)


def test_the_greedy_answer_is_that_of_generate(local: LocalModel) -> None:
    prompt = talk.prompt_tokens(local, HELLO)
    ids_BT = torch.tensor([prompt])
    all_BT = local.model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), do_sample=False, max_new_tokens=12
    )
    expected = local.tokenizer.decode(all_BT[0, len(prompt) :], skip_special_tokens=True)
    assert "".join(reply(local)) == expected


def test_the_chat_template_forms_the_prompt(local: LocalModel) -> None:
    text = local.tokenizer.decode(talk.prompt_tokens(local, HELLO))
    assert text == "<|im_start|>user\nThe river runs<|im_end|>\n<|im_start|>assistant\n"


def test_without_a_template_the_text_is_continued(local: LocalModel) -> None:
    class Plain:
        chat_template = None

        def __call__(self, text: str) -> Any:
            return local.tokenizer(text)

    plain = replace(local, tokenizer=Plain())
    messages = [*HELLO, Message("assistant", "past")]
    tokens = talk.prompt_tokens(plain, messages)
    assert local.tokenizer.decode(tokens) == "The river runs\npast"


def test_a_character_of_several_tokens_comes_whole(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Grüße 🦊 aus 北京"
    tokens = local.tokenizer(text)["input_ids"]
    assert len(tokens) > len(text) - 4
    scripted(monkeypatch, tokens)
    pieces = reply(local)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 5


def test_a_character_cut_off_by_the_limit_is_shown_as_decoding_shows_it(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = local.tokenizer("a🦊")["input_ids"][:-1]
    scripted(monkeypatch, tokens)
    assert "".join(reply(local)) == local.tokenizer.decode(tokens)


def test_equal_seeds_give_equal_answers_and_others_do_not(local: LocalModel) -> None:
    drawn = {seed: reply(local, temperature=1.5, seed=seed) for seed in range(4)}
    assert drawn[0] == reply(local, temperature=1.5, seed=0)
    assert len({"".join(pieces) for pieces in drawn.values()}) > 1


def test_drawing_leaves_the_global_random_state_alone(local: LocalModel) -> None:
    before = torch.get_rng_state()
    reply(local, temperature=1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_answer_stops_at_an_end_token(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = _greedy_tokens(local, 6)
    monkeypatch.setattr(local.model.generation_config, "eos_token_id", [full[3]])
    assert _greedy_tokens(local, 6) == full[: full.index(full[3])]


def _greedy_tokens(local: LocalModel, n: int) -> list[int]:
    prompt = talk.prompt_tokens(local, HELLO)
    return list(talk._draw(local, prompt, n, 0.0, 0))  # pyright: ignore[reportPrivateUsage]


def test_no_more_tokens_than_allowed_are_drawn(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_ends(_local: LocalModel) -> frozenset[int]:
        return frozenset()

    monkeypatch.setattr(talk, "end_tokens", no_ends)
    assert len(_greedy_tokens(local, 40)) == 40


def test_an_answer_ends_where_the_context_is_full(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = len(talk.prompt_tokens(local, HELLO))
    monkeypatch.setattr(local.model.config, "max_position_embeddings", length + 2)
    asked: list[int] = []

    def draw(_local: object, _prompt: object, limit: int, *_rest: object) -> Iterator[int]:
        asked.append(limit)
        yield from ()

    monkeypatch.setattr(talk, "_draw", draw)
    reply(local, n=100)
    assert asked == [2]


def test_a_conversation_that_fills_the_context_is_refused(local: LocalModel) -> None:
    long = [Message("user", "river " * 600)]
    with pytest.raises(TeacherError, match="tiny reads 512 at the most"):
        talk.stream_reply(local, long, max_new_tokens=1, temperature=0, seed=0)


def test_an_error_while_drawing_reaches_the_caller(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_args: object) -> Iterator[int]:
        yield local.tokenizer("a")["input_ids"][0]
        raise RuntimeError("no memory")

    monkeypatch.setattr(talk, "_draw", draw)
    pieces = talk.stream_reply(local, HELLO, max_new_tokens=3, temperature=0, seed=0)
    assert next(pieces) == "a"
    with pytest.raises(RuntimeError, match="no memory"):
        next(pieces)


def test_no_message_is_refused(local: LocalModel) -> None:
    with pytest.raises(TeacherError, match="without a message"):
        talk.stream_reply(local, [], max_new_tokens=3, temperature=0, seed=0)


def test_roles_that_the_template_refuses_are_an_error(
    local: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    monkeypatch.setattr(local.tokenizer, "chat_template", template)
    with pytest.raises(TeacherError, match="roles must alternate"):
        talk.prompt_tokens(local, HELLO)


@pytest.mark.parametrize(("n", "temperature"), [(0, 1.0), (5, -0.1), (5, float("nan"))])
def test_numbers_out_of_range_are_refused_at_once(
    local: LocalModel, n: int, temperature: float
) -> None:
    with pytest.raises(RecipeError, match="must be"):
        talk.stream_reply(local, HELLO, max_new_tokens=n, temperature=temperature, seed=0)
