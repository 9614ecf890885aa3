"""The chunked cross entropy is torch's, with items left out."""

import pytest
import torch
from torch.nn import functional as F

from train.model.loss import SeenItems, WatchLogits, watch_logits, watch_loss_sum, watch_losses
from train.model.popularity import TermOfTargets


def problem(num_targets, num_items=70, width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(num_targets, width, generator=generator, requires_grad=True)
    table = torch.randn(num_items, width, generator=generator, requires_grad=True)
    bias = torch.randn(num_items, generator=generator, requires_grad=True)
    item = torch.randint(num_items, (num_targets,), generator=generator)
    weight = torch.rand(num_targets, generator=generator)
    return state, table, bias, item, weight


def seen_of(num_targets, num_items, longest=9, seed=1):
    """Runs of a common list, of 0 to `longest` items; some hold the target, some an item twice."""
    generator = torch.Generator().manual_seed(seed)
    listed = torch.randint(num_items, (3 * longest + longest,), generator=generator)
    start = torch.randint(2 * longest, (num_targets,), generator=generator)
    stop = start + torch.randint(longest + 1, (num_targets,), generator=generator)
    return SeenItems(listed, start, stop, torch.arange(longest))


def masked_logits(state, table, bias, item, seen):
    logits = state @ table.T + bias
    left_out = torch.zeros(logits.shape, dtype=torch.bool)
    for row in range(len(item)):
        left_out[row, seen.item_E[seen.start_N[row] : seen.stop_N[row]]] = True
        left_out[row, item[row]] = False
    return logits.masked_fill(left_out, float("-inf"))


@pytest.mark.parametrize("num_targets", [1, 127, 128, 300])
@pytest.mark.parametrize("exclude", [False, True])
def test_loss_and_gradients_equal_cross_entropy(num_targets, exclude):
    """For chunks that are full, short and single, by state, table and bias; the target is never left out."""
    state, table, bias, item, weight = problem(num_targets)
    seen = seen_of(num_targets, 70) if exclude else None
    logits = masked_logits(state, table, bias, item, seen) if exclude else state @ table.T + bias
    wanted_losses = F.cross_entropy(logits, item, reduction="none")
    wanted = (wanted_losses * weight).sum()
    found = watch_loss_sum(WatchLogits(state, table, bias), item, weight, seen)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        watch_losses(WatchLogits(state, table, bias), item, seen), wanted_losses, atol=1e-5, rtol=1e-5
    )
    for mine, theirs in zip(
        torch.autograd.grad(3 * found, (state, table, bias)),
        torch.autograd.grad(3 * wanted, (state, table, bias)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_seen_items_get_no_probability():
    """A table's row of an item that all targets have seen has no gradient."""
    state, table, bias, item, weight = problem(40)
    item.clamp_(min=1)
    seen = SeenItems(torch.zeros(2, dtype=torch.int64), torch.zeros_like(item), torch.ones_like(item), torch.arange(1))
    watch_loss_sum(WatchLogits(state, table, bias), item, weight, seen).backward()
    assert not table.grad[0].any()
    assert bias.grad[0] == 0
    assert table.grad[1:].any(1).all()


def test_large_logits_do_not_overflow():
    """Losses far above 100 nats are still finite and exact."""
    state, table, bias, item, _ = problem(50)
    state = 200 * state.detach()
    wanted = F.cross_entropy(state @ table.T + bias, item, reduction="none")
    assert wanted.max() > 500
    torch.testing.assert_close(watch_losses(WatchLogits(state, table, bias), item, None), wanted)


def test_no_targets_give_zero_and_zero_gradients():
    """A task that a micro-batch does not ask."""
    state, table, bias, item, weight = problem(0)
    loss = watch_loss_sum(WatchLogits(state, table, bias), item, weight, None)
    loss.backward()
    assert loss.item() == 0
    assert not table.grad.any()
    assert state.grad.shape == (0, 8)


def test_padding_of_weight_zero_adds_nothing():
    """Trap 7: targets may be padded to a fixed capacity."""
    state, table, bias, item, weight = problem(200)
    weight[150:] = 0
    padded = watch_loss_sum(WatchLogits(state, table, bias), item, weight, None)
    plain = watch_loss_sum(WatchLogits(state[:150], table, bias), item[:150], weight[:150], None)
    torch.testing.assert_close(padded, plain)
    torch.testing.assert_close(torch.autograd.grad(padded, table)[0], torch.autograd.grad(plain, table)[0])


def test_under_bfloat16_autocast_the_softmax_is_float32():
    """Only products are rounded; the loss and its gradients stay close and float32."""
    state, table, bias, item, weight = problem(300)
    plain = watch_loss_sum(WatchLogits(state, table, bias), item, weight, None)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = watch_loss_sum(WatchLogits(state, table, bias), item, weight, None)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, plain, rtol=1e-2, atol=0)
    for mine, exact in zip(
        torch.autograd.grad(rounded, (state, table, bias)),
        torch.autograd.grad(plain, (state, table, bias)),
        strict=True,
    ):
        assert mine.dtype == torch.float32
        assert (mine - exact).norm() < 0.02 * exact.norm()


def with_term(num_targets, num_rows=6, num_items=70, num_features=6, on_host=True):
    """A problem with a term of popularity, and its logits as one expression."""
    state, table, bias, item, weight = problem(num_targets)
    generator = torch.Generator().manual_seed(9)
    coefficients = torch.randn(num_targets, num_features, generator=generator, requires_grad=True)
    features = torch.rand(num_features, num_rows, num_items, generator=generator).half()
    row = torch.randint(num_rows, (num_targets,), generator=generator).sort().values
    term = TermOfTargets(coefficients, row, features, row.numpy() if on_host else None)
    logits = state @ table.T + bias + torch.einsum("nf,fnv->nv", coefficients, features[:, row].float())
    return WatchLogits(state, table, bias, term), item, weight, logits


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("num_targets", [0, 1, 128, 300])
def test_the_term_of_popularity_is_part_of_the_logits(num_targets, on_host):
    """Its value and its gradients, for targets of one row in several chunks and of several rows in one; on a GPU the
    host does not know the rows."""
    of, item, weight, logits = with_term(num_targets, on_host=on_host)
    torch.testing.assert_close(watch_logits(of), logits, atol=1e-4, rtol=1e-5)
    wanted = (F.cross_entropy(logits, item, reduction="none") * weight).sum()
    found = watch_loss_sum(of, item, weight, None)
    torch.testing.assert_close(found, wanted)
    leaves = (*of[:3], of.term.coefficients_NF)
    for mine, theirs in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_loss_and_its_gradients_compile_into_one_graph():
    """No host sync and no shape that hangs on a value: `fullgraph` refuses both."""
    state, table, bias, item, weight = problem(300)
    seen = seen_of(300, 70)
    compiled = torch.compile(watch_loss_sum, fullgraph=True, backend="aot_eager")
    found = compiled(WatchLogits(state, table, bias), item, weight, seen)
    wanted = watch_loss_sum(WatchLogits(state, table, bias), item, weight, seen)
    torch.testing.assert_close(found, wanted)
    for mine, eager in zip(
        torch.autograd.grad(found, (state, table, bias)), torch.autograd.grad(wanted, (state, table, bias)), strict=True
    ):
        torch.testing.assert_close(mine, eager)
