"""The kernels of CUDA give what attention by segments gives: here interpreted on the CPU, in test_gpu.py on a GPU."""

import pytest
import torch
from reference_attention import assert_padding_is_silent

from train.model.batch import to_batch
from train.model.cpu_attention import SegmentPlan, lay_out_segments, segment_attention

pytest.importorskip("triton", reason="needs triton, which comes with torch's CUDA builds or the extra `interpreter`")

from train.model.cuda_attention import range_attention, range_plan

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: test_gpu.py runs the kernels on it")

CPU = torch.device("cpu")


def plans_of(invented, heads):
    """By segments and by ranges."""
    arrays, facts = invented.arrays, invented.facts
    columns = [arrays[name] for name in ("segment", "time", "time_known")]
    layout = lay_out_segments(*columns, causal=facts.causal, relative=facts.relative, device=CPU)
    ranges = range_plan(*map(torch.from_numpy, columns), causal=facts.causal)
    return SegmentPlan.of(layout, heads), ranges


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize(
    ("window_len", "mean_len", "heads", "head_width"), [(100, 12, 2, 8), (150, 400, 1, 20), (64, 30, 3, 16)]
)
def test_outputs_and_gradients_are_those_of_attention_by_segments(
    invented_batch, objective, window_len, mean_len, heads, head_width
):
    """Segments shorter and longer than a block of 64; windows that blocks do not divide; heads that are padded."""
    invented = invented_batch(
        objective=objective, num_windows=2, window_len=window_len, mean_len=mean_len, fill=0.9, seed=1
    )
    by_segment, by_range = plans_of(invented, heads)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(2, window_len, 3 * heads * head_width, generator=generator, requires_grad=True)
    coefficients = (torch.randn(heads, 3, generator=generator) / 5).requires_grad_()
    direction = torch.randn(2, window_len, heads * head_width, generator=generator)
    wanted, found = segment_attention(qkv, coefficients, by_segment), range_attention(qkv, coefficients, by_range)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    gradients = [torch.autograd.grad((out * direction).sum(), (qkv, coefficients)) for out in (wanted, found)]
    for theirs, mine in zip(*gradients, strict=True):
        assert theirs.abs().max() > 1e-3
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_half_precision_stays_close(invented_batch):
    """Where products are of 16 bits, sums are of 32."""
    invented = invented_batch(num_windows=1, window_len=150, mean_len=100)
    by_segment, by_range = plans_of(invented, 2)
    qkv = torch.randn(1, 150, 96, generator=torch.Generator().manual_seed(0)).half().requires_grad_()
    coefficients = torch.tensor([[-0.5, -0.1, 0.3], [-0.1, 0.0, 0.0]], requires_grad=True)
    wanted = segment_attention(qkv.float(), coefficients, by_segment)
    found = range_attention(qkv, coefficients, by_range)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), wanted, atol=3e-3, rtol=3e-3)
    for mine, theirs in zip(
        torch.autograd.grad(found.float().square().sum(), (qkv, coefficients)),
        torch.autograd.grad(wanted.square().sum(), (qkv, coefficients)),
        strict=True,
    ):
        assert (mine.float() - theirs.float()).norm() <= 5e-3 * theirs.float().norm()


def test_without_a_bias_there_is_none(invented_batch):
    """The `seed` policy: no coefficients."""
    invented = invented_batch(objective="masked", policy="seed", num_windows=1, window_len=70)
    by_segment, by_range = plans_of(invented, 2)
    qkv = torch.randn(1, 70, 24, generator=torch.Generator().manual_seed(0), requires_grad=True)
    none = torch.zeros(2, 0, requires_grad=True)
    wanted, found = segment_attention(qkv, none, by_segment), range_attention(qkv, none, by_range)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    (mine,), (theirs,) = (torch.autograd.grad(out.square().sum(), qkv) for out in (found, wanted))
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fill", [0.0, 0.4])
def test_padding_reads_zeros_and_makes_no_nan(invented_batch, fill):
    """A window's padded end, and windows without any event."""
    invented = invented_batch(num_windows=4, fill=fill)
    _, plan = plans_of(invented, 2)
    assert_padding_is_silent(range_attention, plan, invented)


@pytest.mark.parametrize("start", [2**30, -(2**35), 2**41 + 7])
def test_times_are_compared_as_integers(start):
    """One second apart is no tie, however large the times are; all terms as by segments."""
    segment, known = torch.zeros(1, 4, dtype=torch.int32), torch.tensor([[True, True, True, False]])
    time = torch.tensor([[start, start + 1, start + 1, start]])
    layout = lay_out_segments(
        segment.numpy(), time.numpy(), known.numpy(), causal=False, relative=True, device=CPU
    )  # fmt: skip
    plan = range_plan(segment, time, known, causal=False)
    qkv = torch.randn(1, 4, 24, generator=torch.Generator().manual_seed(0))
    for term in range(3):
        coefficients = torch.zeros(1, 3)
        coefficients[0, term] = 1.0
        wanted = segment_attention(qkv, coefficients, SegmentPlan.of(layout, 1))
        torch.testing.assert_close(range_attention(qkv, coefficients, plan), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("objective", ["causal", pytest.param("masked", marks=pytest.mark.slow)])
def test_the_gpu_s_path_is_one_graph_and_agrees(invented_batch, objective):
    """The whole model with padded targets, forward and backward through one traced graph, against the CPU's path."""
    invented = invented_batch(objective=objective, num_windows=2, window_len=80, mean_len=30)
    model = invented.model(layers=1)
    found = {}
    for name, run in {
        "cpu": model.loss_sums,
        "gpu": torch.compile(model.loss_sums, fullgraph=True, backend="aot_eager"),
    }.items():
        model.zero_grad()
        sums = run(to_batch(invented.arrays, invented.rows, invented.facts, CPU, for_gpu=name == "gpu"))
        sum(sums.values()).backward()
        found[name] = sums, {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    for task, value in found["cpu"][0].items():
        torch.testing.assert_close(found["gpu"][0][task], value, atol=1e-4, rtol=1e-5)
    for key, gradient in found["cpu"][1].items():
        assert (found["gpu"][1][key] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-6, key
