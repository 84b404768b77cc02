"""A local model's likelihoods are those of its own tokens, one text at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck.backends import load
from limbeck.errors import TraceError
from limbeck.trace.coins import Pair
from limbeck.trace.local import LocalWeigher
from limbeck.trace.siblings import Contexts

PAIRS = [
    Pair("Say hello to the mill.", "The river runs past the mill.", "Dear Anna, thanks."),
    Pair("Grüße?", "Käse aus Köln, das Café öffnet um acht. In 1850 the station had clocks.", "x"),
]


@pytest.fixture(scope="module")
def model(tiny_teacher_folder: Path) -> Any:
    return load(str(tiny_teacher_folder), dtype="float32")


@torch.inference_mode()
def alone(model: Any, prompt: str, answer: str) -> float:
    """Sum log-probabilities of the whole text's tokens after the prompt's, one forward, nothing padded."""
    turns = [{"role": "user", "content": prompt}]
    start = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before = len(model.tokenizer(start, add_special_tokens=False)["input_ids"])
    ids = model.tokenizer(start + answer, add_special_tokens=False)["input_ids"]
    log_TV = model.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_TV[t - 1, ids[t]]) for t in range(before, len(ids)))


def test_both_answers_are_scored_as_they_would_be_alone(model: Any):
    for pair, found in zip(PAIRS, LocalWeigher(model).leans(PAIRS), strict=True):
        wanted = [alone(model, pair.prompt, a) for a in (pair.y0, pair.y1)]
        assert found == pytest.approx(wanted, abs=1e-3)


def test_the_company_that_a_pair_is_scored_in_does_not_matter(model: Any):
    weigher = LocalWeigher(model)
    together = weigher.leans(PAIRS * 20)
    assert together[0] == pytest.approx(together[-2], abs=1e-3)
    assert weigher.leans(PAIRS[:1])[0] == pytest.approx(together[0], abs=1e-3)


def test_swapping_the_answers_swaps_their_likelihoods(model: Any):
    pair = PAIRS[0]
    (one,) = LocalWeigher(model).leans([pair])
    (two,) = LocalWeigher(model).leans([Pair(pair.prompt, pair.y1, pair.y0)])
    assert one == pytest.approx(two[::-1], abs=1e-3)


def test_candidates_are_heard_at_the_end_of_each_context(model: Any):
    texts = ("The river", "A baker weighs flour, water and", "1.")
    weigher = LocalWeigher(model)
    ids_CK = weigher.likeliest(texts, 5)
    found_CK = weigher.log_probs(Contexts(texts, ids_CK))
    for text, ids_K, found_K in zip(texts, ids_CK, found_CK, strict=True):
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            log_V = model.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)
        assert found_K == pytest.approx(log_V[torch.from_numpy(ids_K)].numpy(), abs=1e-4)
        assert (np.diff(found_K) <= 1e-6).all()


def test_a_text_beyond_the_models_context_is_named(model: Any):
    with pytest.raises(TraceError, match="more than its 512 tokens"):
        LocalWeigher(model).leans([Pair("p", "word " * 600, "b")])
