"""The optimizer decays matrices only, and clips."""

import pytest
import torch
from torch import nn

from train.config import TrainConfig
from train.model.heads import FactorTable
from train.training.optim import clip_gradients, make_optimizer, set_learning_rate


class Wrapped(nn.Module):
    """Adds a prefix to every name, as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [False, True])
def test_only_weights_of_linear_layers_decay_whatever_their_names(invented_batch, wrap):
    """Trap 1: embeddings, norms, biases and the attention bias never decay, the factors of ratings by a decay of their
    own; no parameter is in two groups or none."""
    model = invented_batch().model()
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    assert any(isinstance(m, nn.Embedding) for m in model.modules())
    groups = make_optimizer(Wrapped(model) if wrap else model, TrainConfig(weight_decay=0.25)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay) == len(list(model.parameters()))
    of_ratings = {
        id(m.weight): 0.04 / TrainConfig().learning_rate for m in model.modules() if isinstance(m, FactorTable)
    }
    assert len(of_ratings) == 3, "few ratings: decayed as much as is safe"
    for parameter in model.parameters():
        assert decay[id(parameter)] == of_ratings.get(id(parameter), 0.25 if id(parameter) in linear else 0)


def test_an_update_without_gradient_shrinks_matrices_and_leaves_embeddings(invented_batch):
    """What the groups are for."""
    model = invented_batch().model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig(weight_decay=0.5, learning_rate=0.1))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(model.inputs.item.weight, before["inputs.item.weight"])
    torch.testing.assert_close(model.inputs.values.weight.data, 0.95 * before["inputs.values.weight"])


def test_setting_the_rate_reaches_every_group(invented_batch):
    """The matrices', the factors' and the others'."""
    optimizer = make_optimizer(invented_batch().model(), TrainConfig())
    set_learning_rate(optimizer, 1.5)
    assert [group["lr"] for group in optimizer.param_groups] == [1.5] * 5


def test_clipping_scales_down_to_the_norm_and_tells_it():
    """A norm of 5 becomes 1; a smaller one stays."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(layer, None, 1.0).item() == pytest.approx(5)
    assert layer.weight.grad.norm().item() == pytest.approx(1, abs=1e-4)
    layer.weight.grad = torch.tensor([[0.3, 0.4]])
    clip_gradients(layer, None, 1.0)
    assert layer.weight.grad.norm().item() == pytest.approx(0.5)


def test_two_parts_are_clipped_by_norms_of_their_own():
    """A head whose gradient explodes changes no gradient of the rest; the norm that is told is that of both."""
    model = nn.ModuleDict({"trunk": nn.Linear(2, 1, bias=False), "head": nn.Linear(2, 1, bias=False)})
    model["trunk"].weight.grad = torch.tensor([[0.3, 0.4]])
    model["head"].weight.grad = torch.tensor([[30.0, 40.0]])
    assert clip_gradients(model, model["head"], 1.0).item() == pytest.approx((0.5**2 + 50**2) ** 0.5)
    assert torch.equal(model["trunk"].weight.grad, torch.tensor([[0.3, 0.4]]))
    assert model["head"].weight.grad.norm().item() == pytest.approx(1, abs=1e-4)
