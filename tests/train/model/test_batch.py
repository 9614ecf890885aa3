"""A batch holds the stream's targets, all of them, in shapes that do not follow their number."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from streamfeat.schema import PLANNED
from train.model.batch import UNKNOWN_GAP, _pooled_ratings, gap_buckets, to_batch
from train.model.past_ratings import Evidence
from train.model.targets import find_targets, gather_targets, task_names, weight_sums

CPU = torch.device("cpu")
OBJECTIVES = [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")]


def batch_of(invented, **options):
    return to_batch(invented.arrays, invented.rows, invented.facts, CPU, **options)


def naive_seen(invented, token, low, high):
    """Ids inside the medium that the softmax of the target at flat `token` leaves out, its own item aside."""
    arrays, window_len = invented.arrays, invented.arrays["item"].shape[1]
    row, own = divmod(token, window_len)
    seen = set()
    for place in range(window_len):
        item = arrays["item"][row, place]
        if arrays["segment"][row, place] != arrays["segment"][row, own] or not low <= item < high:
            continue
        if arrays["status"][row, place] == PLANNED:
            continue
        if invented.facts.causal and place > own:
            continue
        if not invented.facts.causal and arrays["weight_item"][row, place] > 0:
            continue
        seen.add(int(item) - low)
    return seen


@pytest.mark.parametrize("for_gpu", [False, True])
@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_seen_items_are_those_of_events_that_the_token_can_see(invented_batch, objective, policy, for_gpu):
    """Of the own segment and medium; a planned event leaves nothing out, nor does one that is asked for."""
    invented = invented_batch(objective=objective, policy=policy, num_windows=8, mean_len=14)
    batch = batch_of(invented, for_gpu=for_gpu)
    for medium, (low, high) in enumerate([(0, 30), (30, 50)]):
        targets = batch.targets[f"medium_{medium}_watch"]
        seen = targets.seen
        columns = seen.columns(slice(None), targets.item_N[:, None])
        sizes = set()
        for n in range(len(targets.user)):
            left_out = naive_seen(invented, int(targets.token_N[n]), low, high)
            own = int(targets.item_N[n])
            assert set(columns[n].tolist()) - {own} == left_out - {own}
            sizes.add(len(left_out))
        assert len(sizes) > 3


def test_seen_items_stay_where_repeats_are_common(invented_batch):
    """Then nothing is left out of the softmax."""
    batch = batch_of(invented_batch(exclude_seen=False))
    assert all(targets.seen is None for targets in batch.targets.values())


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_targets_are_exactly_the_weighted_tokens(invented_batch, objective, policy):
    """Each once, in its medium's task, with its item, rating, weight and user."""
    invented = invented_batch(objective=objective, policy=policy)
    arrays, flat = invented.arrays, {name: a.reshape(-1) for name, a in invented.arrays.items()}
    batch = batch_of(invented)
    for task, weight in (("watch", "weight_item"), ("rating", "weight_rating")):
        found = [batch.targets[f"medium_{m}_{task}"] for m in range(2)]
        tokens = np.concatenate([targets.token_N.numpy() for targets in found])
        assert sorted(tokens.tolist()) == np.flatnonzero(flat[weight] > 0).tolist()
        for medium, targets in enumerate(found):
            token = targets.token_N.numpy()
            asked = np.where(arrays["weight_item"] > 0, arrays["target_item"], arrays["item"]).reshape(-1)[token]
            assert (np.searchsorted([30, 50], asked, side="right") == medium).all()
            np.testing.assert_array_equal(targets.item_N, asked - 30 * medium)
            np.testing.assert_array_equal(targets.weight_N, flat[weight][token])
            np.testing.assert_array_equal(targets.user, flat["user"][token])
            if task == "rating":
                np.testing.assert_array_equal(targets.rating_N, flat["target_rating"][token])


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_no_special_token_and_no_planned_event_is_a_target(invented_batch, objective, policy):
    """Trap 10: what is asked for is an item of the medium, in reach of its table."""
    invented = invented_batch(objective=objective, policy=policy)
    specials = invented.arrays["item"] >= 50
    planned = invented.arrays["status"] == PLANNED
    assert specials.any()
    assert planned.any()
    for task, targets in batch_of(invented).targets.items():
        assert 0 <= targets.item_N.min() <= targets.item_N.max() < (30 if "0" in task else 20)
        if objective == "masked":
            assert not planned.reshape(-1)[targets.token_N].any()


@pytest.mark.parametrize("num", [1, 40, 128, 129, 255, 256, 400, 1000])
def test_no_target_is_dropped_whatever_its_number(invented_batch, num):
    """Trap 7: sizes come from a short list, the last of which holds a target for every token."""
    invented = invented_batch(objective="masked", num_windows=32, items=(50,), mean_len=20, fill=1.0)

    def ask(arrays):
        arrays["weight_item"][:] = 0
        events = np.flatnonzero(arrays["item"].reshape(-1) < 50)[:num]
        arrays["weight_item"].reshape(-1)[events] = 1
        arrays["target_item"].reshape(-1)[events] = 3

    if num == 1000:
        invented = invented.changed(lambda arrays: arrays["item"].__setitem__(..., 3))
    arrays = invented.changed(ask).arrays
    evidence = Evidence.of(arrays, invented.facts.ratings, np.zeros(arrays["item"].shape, np.bool_), 99, causal=False)
    targets = gather_targets(
        arrays,
        invented.facts.schema,
        evidence,
        causal=False,
        exclude_seen=True,
        expected=dict.fromkeys(task_names(("medium_0",)), 0.1),
    )["medium_0_watch"]
    expected_size = 128 if num <= 128 else 256 if num <= 256 else 1024
    assert targets.token_N.shape == targets.weight_N.shape == targets.seen.start_N.shape == (expected_size,)
    assert len(targets.user) == num
    assert (targets.weight_N > 0).sum() == num
    assert targets.seen.item_E.shape == (1024 + 32,)


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
def test_padded_targets_give_the_same_losses(invented_batch, objective, policy):
    """The capacity is a matter of shape alone."""
    invented = invented_batch(objective=objective, policy=policy)
    model = invented.model().eval()
    batch = batch_of(invented)
    facts = invented.facts
    in_table = np.ones(invented.arrays["item"].shape, np.bool_)
    padded = gather_targets(
        invented.arrays,
        facts.schema,
        Evidence.of(invented.arrays, facts.ratings, in_table, facts.schema.status_tokens.mask, causal=facts.causal),
        causal=facts.causal,
        exclude_seen=True,
        expected=facts.target_shares,
        popularity=facts.popularity,
    )
    assert any(len(padded[task].token_N) > len(padded[task].user) for task in padded)
    plain = model.loss_sums(batch)
    batch.targets.update(padded)
    for task, loss in model.loss_sums(batch).items():
        torch.testing.assert_close(loss, plain[task])


def test_weight_sums_of_parts_add_up(invented_batch):
    """The divisors of a global batch are those of its micro-batches, added."""
    invented = invented_batch()
    schema = invented.facts.schema
    whole = weight_sums(invented.arrays, schema)
    parts = [
        weight_sums({n: a[rows] for n, a in invented.arrays.items()}, schema) for rows in (slice(0, 1), slice(1, 4))
    ]
    assert list(whole) == list(find_targets(invented.arrays, schema)) == list(task_names(schema.media))
    for task, total in whole.items():
        assert total == parts[0][task] + parts[1][task] > 0


def test_gaps_fall_in_buckets_of_doubling_seconds():
    """0 for a tie, 1 + floor(log2 seconds), one for what is unknown; no gap is beyond the table."""
    seconds = np.array([0, 1, 2, 3, 4, 1023, 1024, 2**33 - 1, 2**33, 2**62, -5, 7])
    known = np.ones(12, np.bool_)
    known[-1] = False
    assert gap_buckets(seconds, known).tolist() == [0, 1, 2, 2, 3, 10, 11, 33, 34, 40, 0, UNKNOWN_GAP]


def test_the_first_event_of_a_segment_has_no_gap_before_it(invented_batch):
    """Nor has CLS; every other event has the time since its neighbour, never across segments."""
    invented = invented_batch()
    arrays, gaps = invented.arrays, batch_of(invented).gap_BT.numpy()
    for window, start, stop in invented.segments():
        assert gaps[window, start] == UNKNOWN_GAP
        for token in range(start + 1, stop):
            if not arrays["time_known"][window, token - 1]:
                assert gaps[window, token] == UNKNOWN_GAP
            else:
                between = int(arrays["time"][window, token] - arrays["time"][window, token - 1])
                assert gaps[window, token] == between.bit_length()
    assert (gaps[arrays["segment"] < 0] == UNKNOWN_GAP).all()


def test_times_are_shares_of_the_training_range_and_ratings_standardised(invented_batch):
    """Not clipped outside; a range of zero gives 0; flags follow the values."""
    invented = invented_batch()
    facts, arrays = invented.facts, invented.arrays
    values = batch_of(invented.with_facts(time_min=1000, time_max=5000)).value_BTC.numpy()
    known = arrays["time_known"]
    np.testing.assert_allclose(values[..., 2][known], (arrays["time"][known] - 1000) / 4000, rtol=1e-6)
    assert values[..., 2].max() > 1
    rated = arrays["rating_known"]
    np.testing.assert_allclose(values[..., 0][rated], (arrays["rating"][rated] - 6) / 2, rtol=1e-6)
    for column, name in enumerate(("rating", "completion", "time", "told_time")):
        np.testing.assert_array_equal(values[..., 4 + column], arrays[f"{name}_known"])
        assert not values[..., column][~arrays[f"{name}_known"]].any()
    flat = batch_of(invented.with_facts(time_min=1000, time_max=1000)).value_BTC
    assert not flat[..., 2:4].any()
    assert facts.num_values == 4


def test_told_times_are_no_input_of_the_masked_objective(invented_batch):
    """Three values and three flags."""
    assert batch_of(invented_batch(objective="masked")).value_BTC.shape[-1] == 6


def test_pooled_ratings_are_mean_and_deviation_over_all_media():
    """As if the ratings of all media lay in one list; 0 and 1 without any, 1 without spread."""
    lists = [np.array([1.0, 2.0, 5.0]), np.array([7.0, 9.0])]

    def manifest(lists):
        scales = [
            SimpleNamespace(
                ratings=len(r), rating_mean=r.mean() if len(r) else 0, rating_variance=r.var() if len(r) else 0
            )
            for r in lists
        ]
        return SimpleNamespace(scales=scales)

    joined = np.concatenate(lists)
    assert _pooled_ratings(manifest(lists)) == pytest.approx((joined.mean(), joined.std()))
    assert _pooled_ratings(manifest([np.empty(0)])) == (0, 1)
    assert _pooled_ratings(manifest([np.array([3.0, 3.0])])) == (3, 1)
