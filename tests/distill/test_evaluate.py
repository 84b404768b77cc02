"""Held-out measurements, against a dense float64 reference and on planted damage."""

import copy
import math
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from limbeck.distill import evaluate
from limbeck.distill.evaluate import (
    Fidelity,
    Heldout,
    Knowledge,
    Predicted,
    Prediction,
    answer_positions,
    mean_by_document,
    measure_fidelity,
    measure_prediction,
)
from limbeck.distill.store import StoreSpec, sparsify, sparsify_known
from limbeck.distill.targets import Document, Taught
from limbeck.distill.vocabulary import Vocabulary
from limbeck.errors import CorpusError, StudentError, TeacherError, TokenizerMismatchError
from limbeck.progress import Silent

VOCABULARY = 61


@pytest.fixture(autouse=True)
def one_thread() -> Generator[None]:
    """Tiny models gain nothing from threads, and wait for them on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tiny(seed: int, vocabulary: int = VOCABULARY) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def damaged(model: LlamaForCausalLM, scale: float) -> LlamaForCausalLM:
    torch.manual_seed(99)
    worse = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in worse.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return worse


def documents(count: int = 9, longest: int = 90) -> list[Document]:
    rng = np.random.default_rng(5)
    made: list[Document] = []
    for i in range(count):
        length = int(rng.integers(12, longest))
        loss_T = np.zeros(length, np.bool_)
        loss_T[4:-1] = True
        if i % 3 == 0:
            loss_T[8:10] = False
        tokens_T = rng.integers(0, VOCABULARY, length).astype(np.int32)
        made.append(Document(tokens_T, loss_T, True, f"{i:064x}"))
    return made


def counts() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return (np.arange(VOCABULARY) ** 2).astype(np.int64)


def measure(
    teacher: LlamaForCausalLM,
    students: dict[str, LlamaForCausalLM],
    texts: list[Document],
    batch_tokens: int = 256,
    vocabulary: Vocabulary | None = None,
) -> Heldout:
    return measure_fidelity(
        teacher,
        students,
        texts,
        counts(),
        precision="no",
        batch_tokens=batch_tokens,
        progress=Silent(),
        vocabulary=vocabulary,
    )


def test_a_teacher_measured_against_itself_keeps_everything() -> None:
    teacher = tiny(0)
    heldout = measure(teacher, {"student": copy.deepcopy(teacher)}, documents())
    student = heldout.arms["student"]
    assert abs(student.kl.value) < 1e-6
    assert student.kl_tails.max < 1e-6
    assert student.top1.value == 1
    assert student.perplexity == heldout.teacher_perplexity
    assert heldout.differences == ()


def test_figures_equal_a_dense_float64_reference() -> None:
    teacher, student, texts = tiny(0), tiny(1), documents()
    heldout = measure(teacher, {"student": student}, texts)
    p_model, q_model = teacher.double(), student.double()
    kl: list[float] = []
    agrees: list[bool] = []
    nll_p: list[float] = []
    nll_q: list[float] = []
    for text in texts:
        tokens_BT = torch.as_tensor(text.tokens_T, dtype=torch.long)[None]
        with torch.no_grad():
            p_log = p_model(tokens_BT).logits[0].log_softmax(-1)
            q_log = q_model(tokens_BT).logits[0].log_softmax(-1)
        for t in np.flatnonzero(text.loss_T):
            kl.append(float((p_log[t].exp() * (p_log[t] - q_log[t])).sum()))
            agrees.append(bool(p_log[t].argmax() == q_log[t].argmax()))
            nll_p.append(-float(p_log[t, text.tokens_T[t + 1]]))
            nll_q.append(-float(q_log[t, text.tokens_T[t + 1]]))
    found = heldout.arms["student"]
    assert heldout.positions == len(kl)
    assert heldout.documents == len(texts)
    assert found.kl.value == pytest.approx(np.mean(kl), rel=1e-4)
    assert found.kl_tails.p90 == pytest.approx(np.quantile(kl, 0.9), rel=1e-3)
    assert found.kl_tails.max == pytest.approx(max(kl), rel=1e-3)
    assert found.top1.value == pytest.approx(np.mean(agrees), abs=1e-9)
    assert found.perplexity.value == pytest.approx(math.exp(np.mean(nll_q)), rel=1e-4)
    assert heldout.teacher_perplexity.value == pytest.approx(math.exp(np.mean(nll_p)), rel=1e-4)


@pytest.mark.parametrize(("batch_tokens", "tile"), [(1, 256), (200, 7), (100_000, 1)])
def test_batch_size_and_tiles_do_not_change_the_figures(
    batch_tokens: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, students, texts = tiny(0), {"student": tiny(1), "cross_entropy": tiny(2)}, documents()
    whole = measure(teacher, students, texts)
    monkeypatch.setattr(evaluate, "_HEAD_ROWS", tile)
    other = measure(teacher, students, texts, batch_tokens=batch_tokens)
    for name, arm in whole.arms.items():
        again = other.arms[name]
        assert again.kl.value == pytest.approx(arm.kl.value, rel=1e-5)
        assert again.kl.interval == pytest.approx(arm.kl.interval, rel=1e-4)
        assert again.top1.value == pytest.approx(arm.top1.value, abs=2 / whole.positions)
        assert [b.kl.value for b in again.by_frequency] == pytest.approx(
            [b.kl.value for b in arm.by_frequency], rel=1e-5
        )


def test_bfloat16_products_stay_close_to_float32() -> None:
    teacher, students, texts = tiny(0), {"student": tiny(1)}, documents()
    exact = measure(teacher, students, texts).arms["student"]
    rough = measure_fidelity(
        teacher, students, texts, counts(), precision="bf16", batch_tokens=256, progress=Silent()
    ).arms["student"]
    assert rough.kl.value != exact.kl.value
    assert rough.kl.value == pytest.approx(exact.kl.value, rel=0.05)


def test_more_damage_means_more_divergence_and_less_agreement() -> None:
    teacher = tiny(0)
    arms = {"student": damaged(teacher, 0.02), "undistilled": damaged(teacher, 0.2)}
    heldout = measure(teacher, arms, documents(20))
    slight, severe = heldout.arms["student"], heldout.arms["undistilled"]
    assert 0 < slight.kl.value < severe.kl.value
    assert severe.top1.value < slight.top1.value < 1
    (difference,) = heldout.differences
    assert difference.baseline == "undistilled"
    assert difference.kl.value == pytest.approx(slight.kl.value - severe.kl.value)
    assert difference.kl.interval is not None
    assert difference.kl.interval[1] < 0
    assert difference.top1.interval is not None
    assert difference.top1.interval[0] > 0


def test_the_first_arm_is_compared_with_every_other_at_a_shared_error_rate() -> None:
    arms = {"student": tiny(1), "undistilled": tiny(2), "cross_entropy": tiny(3)}
    heldout = measure(tiny(0), arms, documents())
    assert [d.baseline for d in heldout.differences] == ["undistilled", "cross_entropy"]
    assert {d.confidence for d in heldout.differences} == {0.975}


def test_an_arm_against_its_copy_differs_by_nothing() -> None:
    heldout = measure(tiny(0), {"student": tiny(1), "cross_entropy": tiny(1)}, documents())
    (difference,) = heldout.differences
    assert difference.kl.interval == (0, 0)
    assert difference.top1.interval == (0, 0)


def test_buckets_part_the_positions_and_average_to_the_whole() -> None:
    heldout = measure(tiny(0), {"student": tiny(1)}, documents(longest=200))
    student = heldout.arms["student"]
    assert [b.label for b in student.by_position] == ["0", "1–3", "4–15", "16–63", "64+"]
    assert len(student.by_frequency) == 4
    for buckets in (student.by_position, student.by_frequency):
        assert sum(b.positions for b in buckets) == heldout.positions
        mean = sum(b.positions * b.kl.value for b in buckets) / heldout.positions
        assert mean == pytest.approx(student.kl.value)
    assert all(b.positions > heldout.positions / 6 for b in student.by_frequency)


def test_positions_in_an_answer_start_again_with_every_answer() -> None:
    loss_T = np.array([0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0], np.bool_)
    assert answer_positions(loss_T).tolist() == [0, 1, 0, 0, 1, 2]
    assert answer_positions(np.zeros(3, np.bool_)).tolist() == []


def test_the_interval_of_equal_documents_is_that_of_their_means() -> None:
    rng = np.random.default_rng(1)
    value_DN = rng.normal(size=(12, 5))
    document_N = np.repeat(np.arange(12), 5)
    found = mean_by_document(value_DN.ravel(), document_N)
    means = value_DN.mean(1)
    half = 2.2009851600916384 * means.std(ddof=1) / math.sqrt(12)  # t(0.975, 11), printed tables
    assert found.interval == pytest.approx((means.mean() - half, means.mean() + half))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(600):
        sizes = rng.integers(1, 30, 25)
        document_N = np.repeat(np.arange(25), sizes)
        value_N = (rng.normal(size=25)[document_N] + rng.normal(size=sizes.sum())).astype(
            np.float64
        )
        interval = mean_by_document(value_N, document_N).interval
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.90 < covered / 600 < 0.98


def test_one_document_gives_figures_without_an_interval() -> None:
    heldout = measure(tiny(0), {"student": tiny(1)}, documents(1))
    assert heldout.arms["student"].kl.interval is None
    assert heldout.as_dict()["documents"] == 1


def test_equally_frequent_tokens_stay_in_one_bucket() -> None:
    flat = np.full(VOCABULARY, 4, np.int64)
    heldout = measure_fidelity(
        tiny(0),
        {"student": tiny(1)},
        documents(),
        flat,
        precision="no",
        batch_tokens=256,
        progress=Silent(),
    )
    assert [b.label for b in heldout.arms["student"].by_frequency] == ["4"]


def test_models_return_to_the_mode_they_came_in() -> None:
    teacher, student = tiny(0).eval(), tiny(1).train()
    measure(teacher, {"student": student}, documents(2))
    assert not teacher.training
    assert student.training


def test_progress_hears_of_every_document() -> None:
    seen: list[object] = []

    class Heard(Silent):
        def begin(self, step: str, total: int | None, unit: str) -> None:
            seen.append((step, total, unit))

        def advance(self, by: int = 1, note: str = "") -> None:
            seen.append(by)

    measure_fidelity(
        tiny(0),
        {"student": tiny(1)},
        documents(5),
        counts(),
        precision="no",
        batch_tokens=100,
        progress=Heard(),
    )
    begun, *steps = seen
    assert begun == ("evaluate", 5, "documents")
    assert len(steps) > 1
    assert sum(x for x in steps if isinstance(x, int)) == 5


def test_nothing_held_out_is_an_error() -> None:
    silent = Document(np.array([1, 2], np.int32), np.zeros(2, np.bool_), True, "0")
    for texts in ([], [silent]):
        with pytest.raises(CorpusError, match="no loss position"):
            measure(tiny(0), {"student": tiny(1)}, texts)


def test_no_student_is_an_error() -> None:
    with pytest.raises(StudentError, match="at least one"):
        measure(tiny(0), {}, documents())


def test_vocabularies_of_different_size_are_an_error() -> None:
    with pytest.raises(TokenizerMismatchError, match="student has a vocabulary of 64"):
        measure(tiny(0), {"student": tiny(1, 64)}, documents())


def test_broken_weights_are_an_error_that_names_whose() -> None:
    broken = tiny(1)
    with torch.no_grad():
        broken.model.embed_tokens.weight[40:] = torch.nan
    with pytest.raises(StudentError, match="student control gives logits that are not finite"):
        measure(tiny(0), {"student": tiny(2), "control": broken}, documents())
    with pytest.raises(TeacherError, match="the teacher gives logits"):
        measure(broken, {"student": tiny(2)}, documents())


def test_students_with_fewer_tokens_are_measured_over_those() -> None:
    """The divergence of `vocabulary`, in float64: the teacher's mass for the rest is granted, and reported."""
    kept = np.array(sorted({*range(0, VOCABULARY, 2), 5, 7}))
    spelling = {i: (i % 9, i % 5, i % 7) for i in range(VOCABULARY) if i not in kept}
    vocabulary = Vocabulary(kept, VOCABULARY, spelling)
    teacher, student, texts = tiny(0), tiny(1, len(kept)), documents()
    heldout = measure(teacher, {"student": student}, texts, vocabulary=vocabulary)
    kl: list[Tensor] = []
    lost: list[Tensor] = []
    nll: list[Tensor] = []
    agrees: list[Tensor] = []
    for text in texts:
        read = [vocabulary.spell(text.tokens_T[: t + 1]) for t in np.flatnonzero(text.loss_T)]
        with torch.no_grad():
            tokens_T = torch.from_numpy(text.tokens_T).long()
            p_log = teacher.double()(tokens_T[None]).logits[0].log_softmax(-1)[text.loss_T]
            q_log = torch.stack([student.double()(torch.tensor([r])).logits[0, -1] for r in read])
        q_log = q_log.log_softmax(-1)
        next_N = text.tokens_T[1:][text.loss_T[:-1]]
        agrees.append(p_log.argmax(-1) == torch.from_numpy(kept)[q_log.argmax(-1)])
        sayable = np.isin(next_N, kept)
        ids = torch.from_numpy(np.searchsorted(kept, next_N[sayable]))
        nll.append(-q_log[torch.from_numpy(sayable)].gather(-1, ids[:, None])[:, 0])
        p_log = p_log[:, kept]
        left_N = p_log.exp().sum(-1)
        kl.append((p_log.exp() * (p_log - left_N.log()[:, None] - q_log)).sum(-1))
        lost.append(1 - left_N)
    arm = heldout.arms["student"]
    assert arm.kl.value == pytest.approx(float(torch.cat(kl).mean()), rel=1e-5)
    assert arm.kl.value > 0
    assert arm.top1.value == pytest.approx(float(torch.cat(agrees).double().mean()))
    assert arm.perplexity.value == pytest.approx(float(torch.cat(nll).mean().exp()), rel=1e-5)
    assert heldout.positions == len(torch.cat(kl)) > len(torch.cat(nll))
    assert heldout.lost_mass is not None
    assert heldout.lost_mass.value == pytest.approx(float(torch.cat(lost).mean()), rel=1e-5)
    figures: dict[str, Any] = heldout.as_dict()
    assert figures["teacher"]["lost_mass"] == heldout.lost_mass.value


def test_a_text_of_trimmed_tokens_alone_is_refused() -> None:
    loss_T = np.array([True, True, False])
    text = Document(np.array([9, 9, 9], np.int32), loss_T, heldout=True, key="k")
    vocabulary = Vocabulary(np.arange(3), VOCABULARY, {9: (1, 2)})
    with pytest.raises(
        CorpusError, match=r"none of the 2 held-out positions .* student\.vocabulary"
    ):
        measure(tiny(0), {"student": tiny(1, 3)}, [text], vocabulary=vocabulary)


def test_keeping_every_token_measures_as_without_a_trim() -> None:
    teacher, student, texts = tiny(0), tiny(1), documents()
    everything = Vocabulary(np.arange(VOCABULARY), VOCABULARY)
    trimmed = measure(teacher, {"student": student}, texts, vocabulary=everything)
    plain = measure(teacher, {"student": student}, texts)
    assert trimmed.arms["student"].kl.value == pytest.approx(plain.arms["student"].kl.value)
    assert trimmed.lost_mass is not None
    assert trimmed.lost_mass.value < 1e-6
    assert plain.lost_mass is None


def test_a_student_of_another_trim_is_refused() -> None:
    with pytest.raises(TokenizerMismatchError, match="student has a vocabulary of 61, the trim 3"):
        measure(tiny(0), {"student": tiny(1)}, documents(), vocabulary=Vocabulary(np.arange(3), 61))


# Teachers that are not here.


def told(teacher: LlamaForCausalLM, texts: list[Document], entries: int) -> list[Taught]:
    """Return what an API would tell of its model: its likeliest tokens and the realised one, or text alone."""
    spec = StoreSpec(
        max_head=entries + 1, tail_samples=1, tail_weight=None, tail_floor=0.0, levels=65_535
    )
    taught: list[Taught] = []
    for text in texts:
        tokens_BT = torch.as_tensor(text.tokens_T, dtype=torch.long)[None]
        with torch.no_grad():
            probs_NV = teacher(tokens_BT).logits[0].softmax(-1)[torch.from_numpy(text.loss_T)]
        next_N = text.tokens_T[1:][text.loss_T[:-1]].astype(np.int64)
        ids: list[list[int]] = []
        for probs_V, realised in zip(probs_NV, next_N.tolist(), strict=True):
            best = set(probs_V.topk(entries).indices.tolist()) | {realised} if entries else set()
            ids.append(sorted(best, key=lambda i: -float(probs_V[i])))
        flat = [float(probs_NV[n, i]) for n, row in enumerate(ids) for i in row]
        targets = sparsify_known(
            np.array([len(row) for row in ids], dtype=np.int64),
            np.array([i for row in ids for i in row], dtype=np.int64),
            np.array(flat, dtype=np.float64),
            next_N,
            spec,
            torch.Generator().manual_seed(0),
        )
        taught.append(Taught(text, targets))
    return taught


def predict(
    students: dict[str, LlamaForCausalLM],
    taught: list[Taught],
    knowledge: Knowledge,
    *,
    own_text: bool = True,
) -> Predicted:
    return measure_prediction(
        students,
        taught,
        counts(),
        knowledge=knowledge,
        own_text=own_text,
        precision="no",
        batch_tokens=256,
        progress=Silent(),
    )


def bound(predicted: Predicted, arm: str = "student") -> Fidelity:
    found = predicted.arms[arm]
    assert isinstance(found, Fidelity)
    return found


def test_kl_over_likely_tokens_is_a_lower_bound_that_grows_with_them() -> None:
    teacher, student, texts = tiny(0), tiny(1), documents()
    full = measure(teacher, {"student": student}, texts).arms["student"].kl.value
    values = [
        bound(predict({"student": student}, told(teacher, texts, k), "likely_tokens")).kl.value
        for k in (1, 4, 16, VOCABULARY)
    ]
    assert values == sorted(values)
    assert values[0] < values[2] < full
    assert values[-1] == pytest.approx(full, rel=2e-3)


def test_everything_stated_gives_what_weights_give() -> None:
    teacher, student, texts = tiny(0), tiny(1), documents()
    here = measure(teacher, {"student": student}, texts)
    there = predict({"student": student}, told(teacher, texts, VOCABULARY), "likely_tokens")
    assert bound(there).top1 == here.arms["student"].top1
    assert bound(there).perplexity.value == pytest.approx(here.arms["student"].perplexity.value)
    assert there.teacher_perplexity is not None
    assert there.teacher_perplexity.value == pytest.approx(here.teacher_perplexity.value, rel=1e-2)


def test_a_student_equal_to_a_teacher_of_likely_tokens_has_no_divergence() -> None:
    teacher, texts = tiny(0), documents()
    same = predict({"student": copy.deepcopy(teacher)}, told(teacher, texts, 3), "likely_tokens")
    assert abs(bound(same).kl.value) < 1e-6
    assert bound(same).top1.value == 1


def test_text_alone_tells_no_kl_and_agreement_is_with_what_was_written() -> None:
    teacher, student, texts = tiny(0), tiny(1), documents()
    predicted = predict({"student": student}, told(teacher, texts, 0), "text")
    arm = predicted.arms["student"]
    assert isinstance(arm, Prediction)
    hits: list[bool] = []
    for text in texts:
        tokens_BT = torch.as_tensor(text.tokens_T, dtype=torch.long)[None]
        with torch.no_grad():
            top_T = student(tokens_BT).logits[0].argmax(-1).numpy()
        hits += (top_T[:-1] == text.tokens_T[1:])[text.loss_T[:-1]].tolist()
    assert arm.top1.value == pytest.approx(np.mean(hits))
    assert predicted.teacher_perplexity is None
    figures = arm.as_dict()
    assert figures["kl_mean"] is figures["kl_tails"] is figures["kl_by_position"] is None


def test_on_text_that_the_teacher_wrote_likelihood_tells_the_difference_in_kl() -> None:
    teacher, near = tiny(0), damaged(tiny(0), 0.02)
    far = damaged(tiny(0), 0.15)
    torch.manual_seed(4)
    tokens_BT = torch.randint(0, VOCABULARY, (400, 1))
    with torch.no_grad():
        for _ in range(24):
            drawn = torch.multinomial(teacher(tokens_BT).logits[:, -1].softmax(-1), 1)
            tokens_BT = torch.cat([tokens_BT, drawn], dim=1)
    loss_T = np.ones(25, np.bool_)
    loss_T[-1] = False
    texts = [
        Document(row.astype(np.int32), loss_T, True, f"{i:064x}")
        for i, row in enumerate(tokens_BT.numpy())
    ]
    arms = {"student": near, "other": far}
    exact = measure(teacher, arms, texts, 4096).differences[0].kl
    told_of = [
        Taught(
            t,
            sparsify(
                torch.zeros(24, VOCABULARY).log_softmax(-1), None, StoreSpec(), torch.Generator()
            ),
        )
        for t in texts
    ]
    estimate = predict(arms, told_of, "text").differences[0].kl
    assert estimate.interval is not None
    low, high = estimate.interval
    assert low < exact.value < high < 0


def test_on_given_text_differences_are_of_the_bounded_kl() -> None:
    teacher, texts = tiny(0), documents()
    arms = {"student": damaged(teacher, 0.02), "other": damaged(teacher, 0.15)}
    given = predict(arms, told(teacher, texts, 4), "likely_tokens", own_text=False)
    assert given.differences_of == "bounded_kl"
    difference = bound(given).kl.value - bound(given, "other").kl.value
    assert given.differences[0].kl.value == pytest.approx(difference)


def test_a_teacher_that_reads_more_is_compared_where_both_predict_the_same() -> None:
    teacher, texts = tiny(0), documents(4, longest=40)
    before_P = np.arange(5, 20, dtype=np.int32)
    told = [
        Document(
            np.concatenate([before_P, text.tokens_T]),
            np.concatenate([np.zeros(15, np.bool_), text.loss_T]),
            True,
            text.key,
        )
        for text in texts
    ]
    measured = measure_fidelity(
        teacher,
        {"student": tiny(1)},
        texts,
        counts(),
        precision="no",
        batch_tokens=100,
        progress=Silent(),
        readings=told,
    )
    kl: list[float] = []
    for text, reading in zip(texts, told, strict=True):
        logs: list[torch.Tensor] = []
        for model, document in ((teacher, reading), (tiny(1), text)):
            with torch.no_grad():
                logits_TV = model(torch.from_numpy(document.tokens_T).long()[None]).logits[0]
            logs.append(logits_TV.log_softmax(-1)[torch.from_numpy(document.loss_T)])
        kl += (logs[0].exp() * (logs[0] - logs[1])).sum(-1).tolist()
    assert measured.arms["student"].kl.value == pytest.approx(np.mean(kl), rel=1e-4)
