"""Attention stays inside a segment, knows distances, and learns its bias."""

import numpy as np
import pytest
import torch
from reference_attention import assert_padding_is_silent, naive_attention

from train.model.attention import SelfAttention
from train.model.cpu_attention import SegmentPlan, lay_out_segments, segment_attention

CPU = torch.device("cpu")


def plan_of(invented, heads=2):
    arrays, facts = invented.arrays, invented.facts
    layout = lay_out_segments(
        arrays["segment"],
        arrays["time"],
        arrays["time_known"],
        causal=facts.causal,
        relative=facts.relative,
        device=CPU,
    )
    return SegmentPlan.of(layout, heads)


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_attention_by_segments_equals_a_dense_matrix_of_scores(invented_batch, objective, seed):
    """Outputs, and gradients by queries, keys, values and the bias's a, b and z."""
    invented = invented_batch(objective=objective, num_windows=3, window_len=20, mean_len=5, fill=0.85, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    leaves = [torch.randn(size, generator=generator) for size in ((3, 20, 24), (2,), (2,), (2,), (3, 20, 8))]
    qkv, a, b, z, direction = leaves
    for leaf in (qkv, a, b, z):
        leaf.requires_grad_()
    arrays = {name: torch.from_numpy(invented.arrays[name]) for name in ("segment", "time", "time_known")}
    dense = naive_attention(
        qkv, a, b / 10, z, arrays["segment"], arrays["time"], arrays["time_known"], causal=objective == "causal"
    )
    by_segment = segment_attention(qkv, torch.stack((-a, -b / 10, z), 1), plan_of(invented))
    torch.testing.assert_close(by_segment, dense, atol=1e-5, rtol=1e-5)
    wanted = torch.autograd.grad((dense * direction).sum(), (qkv, a, b, z))
    found = torch.autograd.grad((by_segment * direction).sum(), (qkv, a, b, z))
    for mine, naive in zip(found, wanted, strict=True):
        assert naive.abs().max() > 1e-3
        torch.testing.assert_close(mine, naive, atol=1e-4, rtol=1e-4)


def test_padding_reads_zeros_and_makes_no_nan(invented_batch):
    """A window without any event, and a window's padded end."""
    invented = invented_batch(num_windows=4, fill=0.4)
    assert_padding_is_silent(segment_attention, plan_of(invented), invented)


def test_a_batch_of_padding_alone_passes_through(invented_batch):
    """What an empty lane delivers."""
    invented = invented_batch(fill=0.0)
    out = segment_attention(
        torch.randn(4, 32, 24, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 3), plan_of(invented)
    )
    assert out.shape == (4, 32, 8)
    assert not out.any()


def test_times_are_compared_as_integers():
    """2^30 and 2^30 + 1 seconds are the same float32, but no tie."""
    segment, known = np.zeros((1, 3), np.int32), np.ones((1, 3), np.bool_)
    time = np.array([[2**30, 2**30 + 1, 2**30 + 1]])
    layout = lay_out_segments(segment, time, known, causal=False, relative=True, device=CPU)
    tie = layout.buckets[0].terms_CX[2].view(3, 3)
    assert tie.tolist() == [[1, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_no_mask_over_a_whole_window_is_held(invented_batch):
    """What is held grows with the squares of segments, not of windows."""
    invented = invented_batch(num_windows=4, window_len=512, mean_len=12)
    held = sum(bucket.mask_X.numel() for bucket in plan_of(invented).layout.buckets)
    pairs = sum((stop - start) ** 2 for _, start, stop in invented.segments())
    assert held < 1.6 * pairs
    assert held < 4 * 512**2 / 20


def test_heads_start_between_a_wide_view_and_a_short_one():
    """a = linspace(.1, 1), b = .05, z = 0; with `relative` off there is nothing to learn."""
    attention = SelfAttention(32, 4, relative=True)
    torch.testing.assert_close(attention.a_H.data, torch.linspace(0.1, 1, 4))
    assert attention.b_H.tolist() == pytest.approx([0.05] * 4)
    assert attention.z_H.tolist() == [0] * 4
    assert [name for name, _ in SelfAttention(32, 4, relative=False).named_parameters()] == [
        "to_qkv.weight",
        "to_out.weight",
    ]
