from pathlib import Path

import pytest

from limbeck.backends import load
from limbeck.errors import ScoringError
from limbeck.model import LocalModel
from limbeck.validate.respond import Asked
from limbeck.validate.timing import measure_timing
from limbeck.validate.writers.local import LocalWriter


@pytest.fixture(scope="module")
def local(tiny_teacher_folder: Path) -> LocalModel:
    return load(str(tiny_teacher_folder), dtype="float32")


def test_a_local_model_writes_what_it_is_allowed_and_is_heard_at_every_token(
    local: LocalModel,
) -> None:
    pieces: list[int] = []
    usage = LocalWriter(local, max_new_tokens=12).write(
        Asked("t/1", "The river", "text"), lambda: pieces.append(1)
    )
    assert 1 <= usage.written <= 12
    assert len(pieces) == usage.written
    assert usage.prompt == len(local.tokenizer("The river")["input_ids"])


def test_a_chat_goes_through_the_template(local: LocalModel) -> None:
    def prompt(asked: Asked) -> int:
        return LocalWriter(local, max_new_tokens=1).write(asked, lambda: None).prompt

    plain = prompt(Asked("t/1", "The river", "text"))
    chat = prompt(Asked("t/1", "The river", "chat"))
    system = prompt(Asked("t/1", "The river", "chat", system="Be brief."))
    assert plain < chat < system


def test_a_prompt_that_leaves_no_room_is_refused(local: LocalModel) -> None:
    writer = LocalWriter(local, max_new_tokens=500)
    with pytest.raises(ScoringError, match=r"t/9 has .* reads 512 at the most"):
        writer.write(Asked("t/9", "The river runs past the mill. " * 3, "text"), lambda: None)


def test_two_real_models_are_timed(local: LocalModel) -> None:
    prompts = [Asked(f"t/{i}", text, "text") for i, text in enumerate(("The river", "A baker"))]
    long, short = (LocalWriter(local, max_new_tokens=n) for n in (16, 2))
    timing = measure_timing(prompts, long, short, blocks=6)
    assert timing.seconds_ratio[0] < 1
    assert timing.teacher.first_s < timing.teacher.seconds_per_answer[0]
