"""Muon turns the updates of matrices, and AdamW makes all others."""

import pytest
import torch
from torch import nn

from train.config import TrainConfig
from train.training.muon import Muon, orthogonal
from train.training.optim import make_optimizer


@pytest.mark.parametrize("shape", [(4, 4), (6, 48), (48, 6), (1, 5), (5, 1)])
def test_an_update_keeps_its_directions_and_loses_their_sizes(shape: tuple[int, int]) -> None:
    """Singular vectors stay, and singular values that differ by a factor of 20 come close to 1."""
    torch.manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.linspace(20, 1, min(shape))
    inside = left.T @ orthogonal(left @ sizes.diag() @ right) @ right.T
    assert (inside.diagonal() - 0.9).abs().max() < 0.35
    torch.testing.assert_close(inside, inside.diagonal().diag(), rtol=0, atol=1e-4)


def test_a_gradient_of_zero_gives_an_update_of_zero() -> None:
    """And not NaN."""
    assert not orthogonal(torch.zeros(3, 2)).any()


def test_matrices_alone_are_turned_and_all_else_moves_as_with_adamw() -> None:
    """An embedding and a norm get the very weights that AdamW gives them; a matrix a step of its usual size."""
    models, kinds = [], ("adamw", "muon")
    for kind in kinds:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(6, 8), nn.RMSNorm(8), nn.Linear(8, 8, bias=False))
        optimizer = make_optimizer(model, TrainConfig(optimizer=kind, learning_rate=0.01, weight_decay=0))
        assert isinstance(optimizer, Muon) == (kind == "muon")
        before = model[2].weight.detach().clone()
        torch.manual_seed(1)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        models.append(model)
        step = (model[2].weight - before).square().mean().sqrt()
        assert 0.001 < step < 0.011
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    assert torch.equal(models[0][1].weight, models[1][1].weight)
    assert not torch.equal(models[0][2].weight, models[1][2].weight)
