"""The optimizer decays matrices only, warms up, cools down and clips."""

import pytest
import torch
from torch import nn

from train.config import TrainConfig
from train.training.optim import clip_gradients, learning_rate, make_optimizer, set_learning_rate


class Wrapped(nn.Module):
    """Adds a prefix to every name, as DistributedDataParallel does."""

    def __init__(self, module):
        super().__init__()
        self.module = module


@pytest.mark.parametrize("wrap", [False, True])
def test_only_weights_of_linear_layers_decay_whatever_their_names(invented_batch, wrap):
    """Trap 1: embeddings, norms, biases and the attention bias never decay; no parameter is in two groups or none."""
    model = invented_batch().model()
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    assert any(isinstance(m, nn.Embedding) for m in model.modules())
    groups = make_optimizer(Wrapped(model) if wrap else model, TrainConfig(weight_decay=0.25)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay) == len(list(model.parameters()))
    for parameter in model.parameters():
        assert decay[id(parameter)] == (0.25 if id(parameter) in linear else 0)


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


@pytest.mark.parametrize(("num_steps", "warm_up"), [(5, 0), (100, 10), (600, 60), (5000, 60)])
def test_the_rate_rises_stays_and_falls_to_its_share(num_steps, warm_up):
    """Warm-up of min(60, steps / 10), the peak, and over the last share of the steps down to the very last one."""
    config = TrainConfig(learning_rate=2e-3, final_learning_rate=0.02, decay_share=0.3)
    rates = [learning_rate(config, step, num_steps) for step in range(num_steps)]
    first = num_steps - round(0.3 * num_steps)
    assert rates[:warm_up] == sorted(rates[:warm_up])
    assert min(rates) > 0
    assert rates[warm_up : first + 1] == [pytest.approx(2e-3)] * (first + 1 - warm_up)
    assert rates[first:] == sorted(rates[first:], reverse=True)
    assert len(set(rates[first:])) == num_steps - first
    assert rates[-1] == pytest.approx(4e-5)


@pytest.mark.parametrize(("share", "constant"), [(0.0, 90), (1.0, 1)])
def test_the_decay_may_take_all_steps_after_the_warm_up_or_none(share, constant):
    """A share of 1 is a cosine from the peak on; 0 stays there."""
    config = TrainConfig(learning_rate=2e-3, decay_share=share)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates.count(2e-3) == constant
    assert rates.index(2e-3) == 10


def test_a_single_step_has_the_full_rate():
    """Nothing is divided by zero."""
    assert learning_rate(TrainConfig(learning_rate=2e-3), 0, 1) == 2e-3


def test_setting_the_rate_reaches_every_group(invented_batch):
    """The matrices' and the others'."""
    optimizer = make_optimizer(invented_batch().model(), TrainConfig())
    set_learning_rate(optimizer, 1.5)
    assert [group["lr"] for group in optimizer.param_groups] == [1.5, 1.5]


def test_clipping_scales_down_to_the_norm_and_tells_it():
    """A norm of 5 becomes 1; a smaller one stays."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    assert clip_gradients(layer, 1.0).item() == pytest.approx(5)
    assert layer.weight.grad.norm().item() == pytest.approx(1, abs=1e-4)
    layer.weight.grad = torch.tensor([[0.3, 0.4]])
    clip_gradients(layer, 1.0)
    assert layer.weight.grad.norm().item() == pytest.approx(0.5)
