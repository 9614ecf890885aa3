"""Dropout is a function of (seed, step, slot, place), and of nothing else."""

import numpy as np
import pytest
import torch

from train.model.dropout import Dropout, dropout_keys

SLOTS = np.array([5, 0, 3, 8, 2])


def ones(keys, share=0.3, place=4, shape=(10, 13)):
    return Dropout(share, place)(torch.ones(len(keys), *shape), keys)


def test_a_windows_mask_hangs_on_its_slot_and_not_on_its_neighbours():
    """So that micro-batches and ranks change no number."""
    keys = dropout_keys(1, 7, SLOTS)
    whole = ones(keys)
    parts = torch.cat([ones(dropout_keys(1, 7, SLOTS[:2])), ones(dropout_keys(1, 7, SLOTS[2:]))])
    assert torch.equal(whole, parts)
    again = ones(dropout_keys(1, 7, SLOTS[[3, 1, 4, 0, 2]]))
    assert torch.equal(again, whole[[3, 1, 4, 0, 2]])


def test_torchs_global_generator_is_not_used():
    """Another state of it, the same masks; and it is left alone."""
    keys = dropout_keys(1, 7, SLOTS)
    torch.manual_seed(1)
    first, state = ones(keys), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(ones(keys), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("seed", "step", "slots", "place"), [(2, 7, SLOTS, 4), (1, 8, SLOTS, 4), (1, 7, SLOTS + 1, 4), (1, 7, SLOTS, 5)]
)
def test_seed_step_slot_and_place_each_change_the_mask(seed, step, slots, place):
    """About 42% of values differ between independent masks of share .3."""
    one, other = ones(dropout_keys(1, 7, SLOTS)), ones(dropout_keys(seed, step, slots), place=place)
    assert 0.3 < (one != other).float().mean() < 0.55


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_the_share_is_met_and_the_mean_kept(share):
    """To 1/512 of the share, and exactly in expectation."""
    dropped = ones(dropout_keys(0, 0, np.arange(40)), share=share, shape=(100, 64))
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=1 / 512 + 0.003)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)


def test_gradients_pass_where_values_did():
    """The mask of the backward pass is that of the forward pass."""
    x = torch.ones(5, 10, 13, requires_grad=True)
    y = Dropout(0.3, 0)(x, dropout_keys(1, 7, SLOTS))
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_evaluation_and_a_share_of_zero_change_nothing():
    """The very same tensor comes back."""
    x = torch.randn(5, 10, 13, generator=torch.Generator().manual_seed(0))
    keys = dropout_keys(1, 7, SLOTS)
    assert Dropout(0.3, 0).eval()(x, keys) is x
    assert Dropout(0.0, 0)(x, keys) is x


def test_no_windows_have_no_keys():
    """An empty micro-batch is none to fail on."""
    assert dropout_keys(1, 7, SLOTS[:0]).shape == (0,)
