"""Speed and footprint of models, measured on planted and on tiny real ones."""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.distill.beginning import Beginning
from limbeck.distill.speed import measure_alone, measure_footprint, measure_speed, write_greedily
from limbeck.errors import RunError
from limbeck.progress import Silent


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    """Tiny models gain nothing from threads, and wait for them on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Clock:
    """Time that only passes when a model works."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed(nn.Module):
    """Takes `seconds` a forward, and `first` more the first time it is used."""

    def __init__(self, clock: Clock, seconds: float, first: float = 0.0, name: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.clock, self.seconds, self.first, self.name = clock, seconds, first, name
        self.log: list[str] = []

    def forward(self, inputs_BT: Tensor, *, past_key_values: object, **_: object) -> object:
        self.clock.now += self.seconds + self.first
        self.first = 0.0
        if past_key_values is None:
            self.log.append(self.name)
        logits = torch.zeros(1, inputs_BT.shape[1], 7)
        logits[..., 3] = 1
        return SimpleNamespace(past_key_values=object(), logits=logits[:, -1:])


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def test_a_model_planted_twice_as_fast_is_found_twice_as_fast() -> None:
    clock = Clock()
    speed = measure_speed(
        Timed(clock, 0.02),
        Timed(clock, 0.01),
        [[1, 2], [3]],
        tokens=6,
        rounds=5,
        progress=Silent(),
        clock=clock,
    )
    assert speed.ratio.median == pytest.approx(2, rel=0.05)
    assert speed.teacher.median == pytest.approx(50)
    assert speed.student.median == pytest.approx(100)
    assert speed.cost_ratio == pytest.approx(0.5, rel=0.05)


def test_each_model_reads_its_own_prompt_and_the_saving_counts() -> None:
    model = tiny()
    prompts, told = [[1, 2], [3]], [[*range(40), 1, 2], [*range(40), 3]]
    beginning = Beginning(model, np.arange(40, dtype=np.int32))
    speed = measure_speed(
        model,
        model,
        prompts,
        tokens=2,
        rounds=4,
        progress=Silent(),
        teacher_prompts=told,
        beginning=beginning,
    )
    assert speed.prompt_tokens == (41.5, 1.5)
    assert speed.cached_ratio is not None
    values = speed.as_dict()
    assert values["prompt_tokens"] == {"teacher": 41.5, "student": 1.5}
    assert values["cost_ratio_cached_prompt"] == 1 / speed.cached_ratio.median
    assert "cost_ratio_cached_prompt" not in replace(speed, cached_ratio=None).as_dict()


def test_a_cached_beginning_changes_nothing_that_is_written() -> None:
    model = tiny()
    beginning = Beginning(model, np.array([5, 9, 2], dtype=np.int32))
    whole = write_greedily(model, [5, 9, 2, 7, 1], 6)
    assert write_greedily(model, [7, 1], 6, beginning.cache(1)) == whole


def test_between_tokenizers_ratios_count_text() -> None:
    clock = Clock()
    speed = measure_speed(
        Timed(clock, 0.02),
        Timed(clock, 0.01),
        [[1]],
        tokens=4,
        rounds=3,
        progress=Silent(),
        clock=clock,
    )
    text = speed.per_byte(4.0, 2.0)
    assert text.ratio.median == pytest.approx(speed.ratio.median / 2)
    assert text.cost_ratio == pytest.approx(2 * speed.cost_ratio)
    assert text.as_dict()["bytes_per_token"] == {"teacher": 4.0, "student": 2.0}


def test_the_warm_up_is_not_counted() -> None:
    clock = Clock()
    slow_start = Timed(clock, 0.01, first=60)
    speed = measure_speed(
        Timed(clock, 0.02), slow_start, [[1]], tokens=4, rounds=3, progress=Silent(), clock=clock
    )
    assert speed.student.low == pytest.approx(100)


def test_low_and_high_are_the_extreme_rounds() -> None:
    clock = Clock()
    teacher = Timed(clock, 0.02)
    rounds_done: list[int] = []

    class Slowing(Silent):
        def advance(self, by: int = 1, note: str = "") -> None:
            rounds_done.append(by)
            teacher.seconds = 0.02 * (1 + len(rounds_done))

    student = Timed(clock, 0.01)
    speed = measure_speed(
        teacher, student, [[1]], tokens=3, rounds=3, clock=clock, progress=Slowing()
    )
    assert rounds_done == [1, 1, 1]
    assert (speed.ratio.low, speed.ratio.median, speed.ratio.high) == pytest.approx((2, 4, 6))


def test_who_goes_first_alternates() -> None:
    clock = Clock()
    teacher, student = Timed(clock, 1, name="T"), Timed(clock, 1, name="S")
    student.log = teacher.log
    measure_speed(teacher, student, [[1]], tokens=2, rounds=4, progress=Silent(), clock=clock)
    assert "".join(teacher.log) == "TS" + "TSSTTSST"


def test_greedy_writing_with_a_cache_is_what_the_model_says_without_one() -> None:
    model = tiny()
    text = [5, 6, 7]
    for token in write_greedily(model, text, 12):
        with torch.inference_mode():
            assert token == int(model(torch.tensor([text])).logits[0, -1].argmax())
        text = [*text, token]
    assert len(text) == 15


def test_exactly_the_asked_tokens_are_written_past_an_end_token() -> None:
    model = tiny()
    first = write_greedily(model, [5], 1)[0]
    model.config.eos_token_id = first
    assert len(write_greedily(model, [5], 20)) == 20


def test_a_smaller_real_model_is_timed_at_positive_rates() -> None:
    speed = measure_speed(tiny(), tiny(), [[1, 2, 3]], tokens=4, rounds=3, progress=Silent())
    assert 0 < speed.ratio.low <= speed.ratio.median <= speed.ratio.high


def test_the_footprint_counts_shared_weights_once_and_measures_the_cache(tmp_path: Path) -> None:
    model = tiny()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"12345")
    (tmp_path / "b").write_bytes(b"12")
    found = measure_footprint(model, tmp_path)
    layer = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert found.parameters == 97 * 32 + 2 * layer + 32
    buffers = sum(b.nbytes for b in model.buffers())
    assert found.weight_bytes == 4 * found.parameters + buffers
    assert found.cache_bytes_per_token == 2 * 2 * (2 * 8) * 4
    assert found.disk_bytes == 7
    assert measure_footprint(model, None).disk_bytes is None


@pytest.mark.parametrize("prompts", [[], [[]], [[1], []]])
def test_timing_without_a_prompt_is_an_error(prompts: list[list[int]]) -> None:
    with pytest.raises(RunError, match="prompt"):
        measure_speed(tiny(), tiny(), prompts, tokens=1, rounds=1, progress=Silent())


def test_timing_nothing_is_an_error() -> None:
    with pytest.raises(RunError, match="got 0 and 3"):
        measure_speed(tiny(), tiny(), [[1]], tokens=0, rounds=3, progress=Silent())


def test_a_model_alone_is_timed_without_its_first_use() -> None:
    clock = Clock()
    model = Timed(clock, seconds=0.5, first=100.0)
    spread = measure_alone(model, [[1, 2]], tokens=4, rounds=3, clock=clock, progress=Silent())
    assert (spread.low, spread.median, spread.high) == (2.0, 2.0, 2.0)
    with pytest.raises(RunError, match="needs a prompt"):
        measure_alone(model, [[]], tokens=4, rounds=3, clock=clock, progress=Silent())
