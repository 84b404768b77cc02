"""A budget of bytes or of error picks what is kept, or says what the least is."""

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.distill.store import StoreSpec, choose, gradient_mse, sparsify
from limbeck.distill.targets import Document
from limbeck.errors import StoreError


@pytest.fixture(scope="module")
def pilot() -> list[tuple[Document, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    made: list[tuple[Document, Tensor]] = []
    for i in range(3):
        log_probs_NV = (3 * torch.randn(99, 500, generator=generator)).log_softmax(-1)
        tokens_T = torch.randint(0, 500, (100,), generator=generator).numpy().astype(np.int32)
        made.append((Document(tokens_T, np.arange(100) < 99, False, str(i)), log_probs_NV))
    return made


def _error(spec: StoreSpec, pilot: list[tuple[Document, Tensor]]) -> float:
    generator = torch.Generator().manual_seed(9)
    errors = [gradient_mse(sparsify(l_NV, None, spec, generator), l_NV) for _, l_NV in pilot]
    return float(torch.cat(errors).mean())


def test_more_bytes_buy_less_error(pilot: list[tuple[Document, Tensor]]) -> None:
    small, large = (choose(StoreSpec(bytes_per_token=b), pilot) for b in (9.0, 14.0))
    assert large.head_threshold < small.head_threshold
    assert _error(large, pilot) < _error(small, pilot)


def test_an_error_budget_is_kept(pilot: list[tuple[Document, Tensor]]) -> None:
    chosen = choose(StoreSpec(max_gradient_mse=0.05), pilot)
    assert _error(chosen, pilot) < 0.05 * 1.15
    assert _error(choose(StoreSpec(max_gradient_mse=0.2), pilot), pilot) > 0.05


def test_a_budget_below_what_is_possible_says_what_is_possible(
    pilot: list[tuple[Document, Tensor]],
) -> None:
    with pytest.raises(
        StoreError, match=r"bytes_per_token of 1\.0 is below what is possible here: \d"
    ):
        choose(StoreSpec(bytes_per_token=1.0), pilot)
    with pytest.raises(StoreError, match="max_gradient_mse"):
        choose(StoreSpec(max_gradient_mse=1e-9), pilot)
    with pytest.raises(StoreError, match="pilot"):
        choose(StoreSpec(bytes_per_token=9.0), [])


def test_without_a_budget_nothing_changes(pilot: list[tuple[Document, Tensor]]) -> None:
    assert choose(StoreSpec(), pilot) == StoreSpec()


def test_the_error_of_a_perfect_estimate_is_zero(pilot: list[tuple[Document, Tensor]]) -> None:
    spec = StoreSpec(levels=65_535, max_head=500, top_k=500)
    targets = sparsify(pilot[0][1], None, spec, torch.Generator().manual_seed(0))
    assert float(gradient_mse(targets, pilot[0][1]).max()) < 1e-6
