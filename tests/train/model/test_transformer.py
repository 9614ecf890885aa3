"""The model sees what it may, and nothing else: not its neighbours, not the future, not who asks."""

import numpy as np
import pytest
import torch

from train.model.batch import to_batch

CPU = torch.device("cpu")
OBJECTIVES = [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")]


def batch_of(invented, rows=None, step=0, for_gpu=None):
    return to_batch(invented.arrays, rows or invented.rows, invented.facts, CPU, step=step, for_gpu=for_gpu)


@torch.no_grad()
def states(model, invented):
    return model.eval()(batch_of(invented))


@torch.no_grad()
def losses(model, invented):
    return model.eval().target_losses(batch_of(invented))


def learned(model):
    """The model with every parameter moved off its start, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_a_history_alone_and_packed_between_others_gives_the_same_outputs(invented_batch, objective, policy):
    """Wherever it lies in the window; also each part of a history that spans two windows."""
    invented = invented_batch(objective=objective, policy=policy, fill=0.95)
    model = learned(invented.model())
    packed = states(model, invented)
    user = invented.arrays["user"]
    spanning = [w for w in range(3) if user[w, -1] == user[w + 1, 0]]
    assert spanning
    assert len(invented.segments()) > 8
    for window, start, stop in invented.segments():
        for at in (0, 32 - (stop - start)):
            alone = states(model, invented.alone(window, start, stop, at))[0, at : at + stop - start]
            torch.testing.assert_close(alone, packed[window, start:stop], atol=1e-5, rtol=1e-5)


def in_order(loss, user):
    """Targets by user, then by loss: their order in a batch follows the times at which they are asked."""
    order = np.lexsort((loss.numpy().round(3), user.numpy()))
    return loss[order], user[order]


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_losses_of_a_history_alone_and_packed_agree(invented_batch, objective, policy):
    """Seen items too are those of the own segment only."""
    invented = invented_batch(objective=objective, policy=policy)
    model = learned(invented.model())
    whole = losses(model, invented)
    parts = [losses(model, invented.alone(*place)) for place in invented.segments()]
    for task, (loss, user) in whole.items():
        assert len(loss) > 0
        alone, user_alone = in_order(*(torch.cat([part[task][i] for part in parts]) for i in (0, 1)))
        loss, user = in_order(loss, user)
        torch.testing.assert_close(alone, loss, atol=1e-5, rtol=1e-5)
        assert torch.equal(user_alone, user)


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_another_users_events_change_nothing(invented_batch, objective, policy):
    """Bit for bit, in outputs and in losses, whatever field of the neighbour changes."""
    invented = invented_batch(objective=objective, policy=policy)
    model = learned(invented.model())
    window, start, stop = invented.segments()[1]

    def change(arrays):
        part = (window, slice(start, stop))
        events = arrays["item"][part] < invented.facts.schema.num_items
        arrays["item"][part] = np.where(events, (arrays["item"][part] + 7) % 50, arrays["item"][part])
        arrays["rating"][part] += 1
        arrays["time"][part] *= 3
        arrays["status"][part] = np.where(events, (arrays["status"][part] + 1) % 5, arrays["status"][part])
        arrays["position"][part] = 3

    other = invented.changed(change)
    before, after = states(model, invented), states(model, other)
    touched = torch.zeros(before.shape[:2], dtype=torch.bool)
    touched[window, start:stop] = True
    assert (before != after)[touched].any()
    assert torch.equal(before[~touched], after[~touched])
    own = invented.arrays["user"][window, start]
    new = losses(model, other)
    for task, (loss, user) in losses(model, invented).items():
        new_loss, new_user = new[task]
        torch.testing.assert_close(loss[user != own], new_loss[new_user != own], atol=1e-6, rtol=1e-6)


def change_last_event(invented):
    """The batch with the last event of its second segment changed, and where that event is."""
    window, start, stop = invented.segments()[1]
    assert stop - start > 3

    def change(arrays):
        arrays["item"][window, stop - 1] = (arrays["item"][window, stop - 1] + 3) % 50
        arrays["rating"][window, stop - 1] += 2
        arrays["time"][window, stop - 1] += 1000
        arrays["status"][window, stop - 1] = 4

    return invented.changed(change), window, start, stop


def test_causal_tokens_do_not_see_later_ones(invented_batch):
    """A changed last event changes its own output and no earlier one."""
    invented = invented_batch()
    model = learned(invented.model())
    other, window, start, stop = change_last_event(invented)
    before, after = states(model, invented)[window], states(model, other)[window]
    assert torch.equal(before[start : stop - 1], after[start : stop - 1])
    assert not torch.equal(before[stop - 1], after[stop - 1])


def test_masked_tokens_see_both_ways(invented_batch):
    """A changed last event changes every output of its history."""
    invented = invented_batch(objective="masked")
    other, window, start, stop = change_last_event(invented)
    model = learned(invented.model())
    changed = (states(model, invented) != states(model, other)).any(-1)
    assert changed[window, start:stop].all()


def test_a_token_is_told_the_time_of_the_next_event(invented_batch):
    """Another told time changes this token's output, and none before it; a hidden one says nothing."""
    invented = invented_batch()
    model = learned(invented.model())
    window, start, _ = next(
        (row, first, last)
        for row, first, last in invented.segments()
        if invented.arrays["told_time_known"][row, first:last].sum() > 4
    )
    token = start + 2

    def later(arrays):
        arrays["told_time"][window, token] += 5_000_000

    def hide(arrays):
        arrays["told_time_known"][window, token] = False

    told, moved = states(model, invented)[window], states(model, invented.changed(later))[window]
    assert torch.equal(told[start:token], moved[start:token])
    assert not torch.equal(told[token], moved[token])
    hidden = states(model, invented.changed(hide))[window]
    still_hidden = states(model, invented.changed(later).changed(hide))[window]
    assert torch.equal(hidden, still_hidden)
    assert not torch.equal(hidden[token], told[token])


def test_the_first_event_too_is_predicted_at_a_time(invented_batch):
    """A CLS token has no time of its own, but is told the first event's."""
    invented = invented_batch()
    model = learned(invented.model())
    window, start, _ = next(
        (row, first, last)
        for row, first, last in invented.segments()
        if invented.arrays["told_time_known"][row, first] and not invented.arrays["time_known"][row, first]
    )

    def later(arrays):
        arrays["told_time"][window, start] += 5_000_000

    assert not torch.equal(
        states(model, invented)[window, start], states(model, invented.changed(later))[window, start]
    )


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_what_is_unknown_is_a_flag_and_no_number(invented_batch, objective, policy):
    """Trap 8: whatever number stands behind a flag that is down, the model does not see it."""
    invented = invented_batch(objective=objective, policy=policy)
    model = learned(invented.model())

    def scribble(arrays):
        for name in ("rating", "completion", "time", "told_time"):
            unknown = ~arrays[f"{name}_known"]
            assert unknown.any()
            arrays[name][unknown] = 14

    assert torch.equal(states(model, invented), states(model, invented.changed(scribble)))


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_user_and_stored_position_are_no_inputs(invented_batch, objective):
    """The position wraps at the window's length, and means nothing there."""
    invented = invented_batch(objective=objective)
    model = learned(invented.model())

    def renumber(arrays):
        arrays["user"] += 17
        arrays["position"][:] = (arrays["position"] + 11) % 32

    assert torch.equal(states(model, invented), states(model, invented.changed(renumber)))


def test_the_seed_policy_sees_position_and_no_order_beside_it(invented_batch):
    """Bias and gaps are off: where two tokens swap places, their outputs do, and nothing else changes."""
    invented = invented_batch(objective="masked", policy="seed")
    model = learned(invented.model())
    assert not any(".a_H" in name or "gap" in name for name, _ in model.named_parameters())
    window, start, stop = invented.segments()[1]

    def swap(arrays):
        for array in arrays.values():
            if array.ndim == 2:
                array[window, [start + 1, stop - 1]] = array[window, [stop - 1, start + 1]]

    def move(arrays):
        arrays["position"][window, start + 1] = 31

    before, swapped = states(model, invented), states(model, invented.changed(swap))
    swapped[window, [start + 1, stop - 1]] = swapped[window, [stop - 1, start + 1]]
    torch.testing.assert_close(before, swapped, atol=1e-5, rtol=1e-5)
    assert not torch.equal(before, states(model, invented.changed(move)))


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_micro_batches_add_up_to_the_whole_batch(invented_batch, objective, policy):
    """Loss sums and gradients, with dropout on: masks hang on a window's slot."""
    invented = invented_batch(objective=objective, policy=policy, num_windows=5, mean_len=14)
    model = invented.model(dropout=0.3)

    def run(cuts):
        model.zero_grad()
        sums = {}
        for first, last in cuts:
            part = model.loss_sums(batch_of(invented, slice(first, last), step=3))
            sum(part.values()).backward()
            sums = {task: sums.get(task, 0) + value.detach() for task, value in part.items()}
        return sums, [parameter.grad.clone() for parameter in model.parameters()]

    whole, gradients = run([(0, 5)])
    parts, part_gradients = run([(0, 2), (2, 3), (3, 5)])
    for task in whole:
        torch.testing.assert_close(parts[task], whole[task], atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(part_gradients, gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)


def test_the_same_step_gives_the_same_bits_and_another_step_other_masks(invented_batch):
    """What an exact resumption rests on."""
    invented = invented_batch()
    model = learned(invented.model(dropout=0.3))
    first, again, other = (model.loss_sums(batch_of(invented, step=step)) for step in (3, 3, 4))
    assert all(torch.equal(first[task], again[task]) for task in first)
    assert all(not torch.equal(first[task], other[task]) for task in first)


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_loss_sums_are_weighted_target_losses(invented_batch, objective, policy):
    """Training and validation score the same thing."""
    invented = invented_batch(objective=objective, policy=policy)
    rng = np.random.default_rng(0)

    def weigh(arrays):
        for name in ("weight_item", "weight_rating"):
            arrays[name] *= rng.uniform(0.5, 2, arrays[name].shape).astype(np.float32)

    invented = invented.changed(weigh)
    model = learned(invented.model()).eval()
    batch = batch_of(invented)
    sums = model.loss_sums(batch)
    assert list(sums) == ["medium_0_watch", "medium_0_rating", "medium_1_watch", "medium_1_rating"]
    for task, (loss, user) in model.target_losses(batch).items():
        assert not loss.requires_grad
        assert len(loss) == len(user)
        torch.testing.assert_close((loss * batch.targets[task].weight_N).sum(), sums[task])


def test_at_the_start_the_model_predicts_popularity_and_means_of_ratings(invented_batch):
    """The item bias starts at centred log counts, ratings at the item's mean and most of the mean residual of the
    history; without a state, that is all. What is popular at the time has a say only where the time is told."""
    invented = invented_batch(exclude_seen=False).changed(lambda arrays: arrays["told_time_known"].fill(False))
    model = invented.model()
    with torch.no_grad():
        model.norm.weight.zero_()
    ratings = invented.facts.ratings
    arrays, offsets = invented.arrays, invented.facts.schema.medium_offsets
    for medium, low, high in ((0, *offsets[:2]), (1, *offsets[1:])):
        counts = invented.item_targets[low:high] + 0.5
        asked = (arrays["weight_item"] > 0) & (arrays["target_item"] >= low) & (arrays["target_item"] < high)
        rated = asked & (arrays["weight_rating"] > 0)
        nats = -np.log(counts / counts.sum())[arrays["target_item"][asked] - low]
        item = arrays["target_item"][rated]
        mean_residual = batch_of(invented).targets[f"medium_{medium}_rating"].past.known_NX[:, 1].numpy()
        deviation = ratings.sum_V[item] / (ratings.num_V[item] + 5) + 0.7 * mean_residual
        scale = invented.scales[medium]
        predicted = scale.rating_mean + scale.rating_variance**0.5 * deviation
        errors = (arrays["target_rating"][rated] - predicted) ** 2
        found = losses(model, invented)
        np.testing.assert_allclose(np.sort(found[f"medium_{medium}_watch"][0]), np.sort(nats), rtol=1e-5)
        np.testing.assert_allclose(found[f"medium_{medium}_rating"][0], errors, rtol=1e-4, atol=1e-4)


def test_every_parameter_learns(invented_batch):
    """No part of the model is cut off from the losses."""
    for objective, policy in OBJECTIVES:
        model = learned(invented_batch(objective=objective, policy=policy).model())
        sum(model.loss_sums(batch_of(invented_batch(objective=objective, policy=policy))).values()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
            assert torch.isfinite(parameter.grad).all(), name


def test_initial_weights_are_a_function_of_the_seed(invented_batch):
    """Torch's global generator has no say."""
    invented = invented_batch()
    torch.manual_seed(1)
    first = invented.model(seed=4).state_dict()
    torch.manual_seed(2)
    again, other = invented.model(seed=4).state_dict(), invented.model(seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["inputs.item.weight"], other["inputs.item.weight"])
    assert not torch.equal(first["blocks.0.attention.to_qkv.weight"], first["blocks.1.attention.to_qkv.weight"])
    assert first["inputs.item.weight"].std().item() == pytest.approx(0.05, rel=0.1)


def test_a_few_steps_learn_the_batch(invented_batch):
    """Losses fall far below their start when one batch is learned by heart."""
    invented = invented_batch()
    model = invented.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = batch_of(invented)
    history = []
    for _ in range(60):
        optimizer.zero_grad()
        sums = model.loss_sums(batch)
        sum(sums.values()).backward()
        optimizer.step()
        history.append({task: value.item() for task, value in sums.items()})
    for task in history[0]:
        assert history[-1][task] < 0.3 * history[0][task]
