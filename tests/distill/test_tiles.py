"""The walk over tiles with losses of the simplest kind; `test_fused` and `test_fused_dense` test it with real ones."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from limbeck.distill.tiles import TileLoss, tiled_loss

POSITIONS, VOCABULARY, WIDTH = 11, 7, 5


@dataclass(frozen=True, slots=True)
class WeightedSquares:
    """Sum of weight * z^2, with a weight of its own for every position."""

    weight_N: Tensor

    def __call__(self, z_NV: Tensor, start: int, *, gradient: bool) -> Tensor:
        weight_N1 = self.weight_N[start : start + len(z_NV), None].to(z_NV.dtype)
        loss = (weight_N1 * z_NV**2).sum()
        if gradient:
            z_NV.mul_(2 * weight_N1)
        return loss


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, list[WeightedSquares]]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    losses = [WeightedSquares(normal(POSITIONS)) for _ in range(2)]
    hidden_ND, weight_VD = normal(POSITIONS, WIDTH), normal(VOCABULARY, WIDTH)
    return hidden_ND.requires_grad_(), weight_VD.requires_grad_(), losses


def _whole(hidden_ND: Tensor, weight_VD: Tensor, losses: list[WeightedSquares]) -> Tensor:
    z_NV = hidden_ND @ weight_VD.t()
    return torch.stack([(loss.weight_N[:, None] * z_NV**2).sum() for loss in losses]).sum()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("tile", [1, 4, 11, None])
def test_losses_and_their_gradients_add_up_over_tiles(count: int, tile: int | None) -> None:
    hidden_ND, weight_VD, losses = _inputs()
    ours: list[TileLoss] = [*losses[:count]]
    total = tiled_loss(hidden_ND, weight_VD, ours, tile=tile)
    exact = _whole(hidden_ND, weight_VD, losses[:count])
    torch.testing.assert_close(total, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(total, (hidden_ND, weight_VD)),
        torch.autograd.grad(exact, (hidden_ND, weight_VD)),
        rtol=1e-11,
        atol=1e-12,
    )


def test_under_autocast_the_products_are_rough_and_the_sums_wide() -> None:
    hidden_ND, weight_VD, losses = _inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        total = tiled_loss(hidden_ND, weight_VD, [*losses], tile=3)
    exact = _whole(hidden_ND, weight_VD, losses)
    assert total.dtype == torch.float32
    assert total != exact
    torch.testing.assert_close(total, exact.float(), rtol=0.05, atol=0.05)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(total, (hidden_ND, weight_VD)))


def test_no_positions_make_no_loss_and_a_gradient_of_zeros() -> None:
    hidden_ND, weight_VD, losses = _inputs()
    total = tiled_loss(hidden_ND[:0], weight_VD, [*losses])
    assert total == 0
    (gradient_VD,) = torch.autograd.grad(total, weight_VD)
    assert not gradient_VD.any()
