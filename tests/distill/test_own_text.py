"""What a student writes, how it is recorded, and what the report says of it."""

import copy
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck.backends import load
from limbeck.distill.adapter import add_adapters, merge_adapters
from limbeck.distill.capture import end_tokens
from limbeck.distill.corpus import Prompt
from limbeck.distill.own_text import (
    LOG,
    Writer,
    Writing,
    cut_writing,
    on_policy_notes,
    read_writing,
    total,
)
from limbeck.distill.recipe import LoraRecipe, OnPolicyRecipe, OwnLossRecipe
from limbeck.distill.spread import Team
from limbeck.model import LocalModel

OWN = OnPolicyRecipe(batch=4, max_new_tokens=9)
ENTRY = Writing(step=1, answers=8, cut=3, stale=4, tokens=60, seconds=0.5)


@pytest.fixture
def student(tiny_teacher_folder: Path) -> LocalModel:
    """A student that ends some of its answers."""
    student = load(str(tiny_teacher_folder), dtype="float32")
    student.model.generation_config.eos_token_id = list(range(0, 400, 9))
    return student


def _prompts(count: int) -> list[Prompt]:
    rng = np.random.default_rng(2)
    lengths = rng.integers(2, 9, count).tolist()
    return [
        Prompt(rng.integers(3, 400, n).astype(np.int32), False, f"{i:064x}")
        for i, n in enumerate(lengths)
    ]


def _writer(student: LocalModel, folder: Path, precision: str = "no") -> Writer:
    return Writer(student, OWN, precision, Team(torch.device("cpu")), 7, folder)


def test_every_prompt_is_answered_for_its_step_and_counted(
    student: LocalModel, tmp_path: Path
) -> None:
    prompts = _prompts(11)
    wanted = {5: prompts[:4], 6: [], 7: prompts[4:]}
    fresh = _writer(student, tmp_path).write(wanted)
    ends = end_tokens(student)
    answers: list[list[int]] = []
    for step, asked in wanted.items():
        documents = {d.key: d for d in fresh[step]}
        assert len(documents) == len(fresh[step]) == len(asked)
        for prompt in asked:
            document, start = documents[prompt.key], len(prompt.tokens_T)
            assert document.tokens_T[:start].tolist() == prompt.tokens_T.tolist()
            answers.append(document.tokens_T[start:].tolist())
            assert document.positions == len(answers[-1])
    (entry,) = read_writing(tmp_path)
    assert replace(entry, seconds=0.0) == Writing(
        step=5,
        answers=11,
        cut=sum(a[-1] not in ends for a in answers),
        stale=7,
        tokens=sum(map(len, answers)),
        seconds=0.0,
    )
    assert 0 < entry.cut < 11


def test_text_depends_on_seed_and_step(student: LocalModel, tmp_path: Path) -> None:
    prompts = _prompts(6)
    first = _writer(student, tmp_path)
    texts = [
        [d.tokens_T.tolist() for d in writer.write({step: prompts})[step]]
        for writer, step in ((first, 1), (first, 1), (first, 2), (replace(first, seed=8), 1))
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    assert texts[0] != texts[3]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_writing_leaves_the_student_as_it_was(
    student: LocalModel, tmp_path: Path, precision: str
) -> None:
    student.model.train()
    before = copy.deepcopy(student.model.state_dict())
    _writer(student, tmp_path, precision).write({1: _prompts(3)})
    assert student.model.training
    after = student.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in student.model.parameters())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_an_adapted_student_writes_as_the_merged_one_will(
    student: LocalModel, tmp_path: Path, precision: str
) -> None:
    pytest.importorskip("peft")

    def text() -> list[list[int]]:
        fresh = _writer(student, tmp_path, precision).write({1: _prompts(6)})
        return [d.tokens_T.tolist() for d in fresh[1]]

    plain = text()
    adapters = add_adapters(student.model, LoraRecipe(rank=4), seed=0)
    assert text() == plain
    with torch.no_grad():
        generator = torch.Generator().manual_seed(5)
        for name, parameter in student.model.named_parameters():
            if "lora_B" in name:
                parameter += torch.randn(parameter.shape, generator=generator)
    adapted = text()
    assert adapted != plain
    if precision == "no":  # rounding to bfloat16 before or after the merge is not the same
        merge_adapters(adapters)
        assert text() == adapted


def test_nothing_to_write_leaves_no_line(student: LocalModel, tmp_path: Path) -> None:
    assert _writer(student, tmp_path).write({3: [], 4: []}) == {3: [], 4: []}
    assert not (tmp_path / LOG).exists()
    assert read_writing(tmp_path) == []


def test_the_record_is_cut_back_to_a_checkpoint_and_survives_half_a_line(
    student: LocalModel, tmp_path: Path
) -> None:
    writer = _writer(student, tmp_path)
    for step in (1, 3, 5):
        writer.write({step: _prompts(2), step + 1: []})
    with (tmp_path / LOG).open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "answ')
    assert [e.step for e in read_writing(tmp_path)] == [1, 3, 5]
    cut_writing(tmp_path, 4)
    assert [e.step for e in read_writing(tmp_path)] == [1, 3]


def test_the_total_adds_every_count_up() -> None:
    both = total([ENTRY, replace(ENTRY, step=3, answers=2)])
    assert both == Writing(step=1, answers=10, cut=6, stale=8, tokens=120, seconds=1.0)
    assert total([]).answers == 0


@pytest.mark.parametrize("control", [False, True])
def test_the_notes_say_what_was_written_and_what_was_minimised(control: bool) -> None:
    own = OnPolicyRecipe(fraction=0.25, max_staleness=2, loss=OwnLossRecipe(kind="jsd"))
    objective, counts, *rest = on_policy_notes(own, asdict(ENTRY), "forward_kl", control=control)
    assert "on-policy: a fraction of 0.25" in objective
    assert "8 answers of 60 tokens" in objective
    assert "minimised jsd" in objective
    assert objective.endswith("from the store, forward_kl.")
    assert "3 were cut at 128 tokens" in counts
    assert "4 were stale when they were trained on, by at most 2 steps" in counts
    assert len(rest) == control
    assert on_policy_notes(OnPolicyRecipe(fraction=0.0), asdict(ENTRY), "jsd", control=True) == ()
