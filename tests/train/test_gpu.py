"""On CUDA: the same numbers as on a CPU, from one compiled graph."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from train.devices.launch import Launch
from train.devices.ranks import World, without_sync
from train.model.batch import to_batch
from train.training.update import Replica

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
OBJECTIVES = [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")]


@pytest.fixture(autouse=True)
def _exact_products():
    """float32 products in float32, and every test's graphs its own."""
    torch.compiler.reset()
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def invent(invented_batch, objective, policy, seed=0, mean_len=40):
    return invented_batch(
        objective=objective,
        policy=policy,
        num_windows=4,
        window_len=500,
        mean_len=mean_len,
        items=(300, 200),
        seed=seed,
    )


def batch_on(device, invented):
    return to_batch(invented.arrays, invented.rows, invented.facts.on_device(device), device)


def losses_and_gradients(model, loss_sums, batch):
    model.zero_grad()
    sums = loss_sums(batch)
    sum(sums.values()).backward()
    gradients = {name: parameter.grad.cpu().clone() for name, parameter in model.named_parameters()}
    return {task: value.detach().cpu() for task, value in sums.items()}, gradients


@pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
@pytest.mark.parametrize("mean_len", [40, 300])
def test_losses_and_gradients_on_cuda_equal_those_on_a_cpu(invented_batch, objective, policy, mean_len):
    """The kernels against attention by segments, a, b and z included; forward and backward in one graph."""
    invented = invent(invented_batch, objective, policy, mean_len=mean_len)
    model = invented.model(width=64)
    wanted, wanted_gradients = losses_and_gradients(model, model.loss_sums, batch_on(CPU, invented))
    model = model.to(CUDA)
    compiled = torch.compile(model.loss_sums, fullgraph=True)
    found, gradients = losses_and_gradients(model, compiled, batch_on(CUDA, invented))
    for task in wanted:
        torch.testing.assert_close(found[task], wanted[task], rtol=1e-4, atol=1e-3)
    for name, gradient in gradients.items():
        assert (gradient - wanted_gradients[name]).norm() <= 1e-3 * wanted_gradients[name].norm(), name


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_another_number_of_targets_does_not_compile_again(invented_batch, objective):
    """Trap 7: shapes do not follow the batch."""
    batches = [invent(invented_batch, objective, "disjoint", seed) for seed in range(4)]
    model = batches[0].model(width=64, dropout=0.1).to(CUDA)
    compiled = torch.compile(model.loss_sums, fullgraph=True)
    losses_and_gradients(model, compiled, batch_on(CUDA, batches[0]))
    with torch.compiler.set_stance("fail_on_recompile"):
        for invented in batches[1:]:
            losses_and_gradients(model, compiled, batch_on(CUDA, invented))


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.parametrize("mean_len", [40, 300])
def test_bfloat16_stays_close(invented_batch, objective, mean_len):
    """Losses and gradients under autocast, as a run does it; the softmax is float32. Several times over, since what
    races is not wrong each time."""
    invented = invent(invented_batch, objective, "disjoint", mean_len=mean_len)
    model = invented.model(width=128)
    wanted, wanted_gradients = losses_and_gradients(model, model.loss_sums, batch_on(CPU, invented))
    model = model.to(CUDA)
    compiled = torch.compile(model.loss_sums)
    for _ in range(5):
        with torch.autocast("cuda", torch.bfloat16):
            found, gradients = losses_and_gradients(model, compiled, batch_on(CUDA, invented))
        for task in wanted:
            torch.testing.assert_close(found[task], wanted[task], rtol=2e-2, atol=0)
        for name, gradient in gradients.items():
            error = (gradient - wanted_gradients[name]).norm() / wanted_gradients[name].norm()
            # Those of the bias are sums over all pairs, most of which cancel: bfloat16 on a CPU is off by .064, too.
            most = 0.15 if name.endswith(("a_H", "b_H", "z_H")) else 0.03
            assert error <= most, f"{name}: {error:.3f}"


def test_validation_losses_agree(invented_batch):
    """Not compiled as a whole, with the exact number of targets."""
    invented = invent(invented_batch, "causal", "disjoint")
    model = invented.model(width=64).eval()
    wanted = model.target_losses(batch_on(CPU, invented))
    batch = to_batch(invented.arrays, invented.rows, invented.facts.on_device(CUDA), CUDA, split="validation")
    found = model.to(CUDA).target_losses(batch)
    for task, (loss, user) in wanted.items():
        torch.testing.assert_close(found[task][0], loss, rtol=1e-3, atol=1e-3)
        assert torch.equal(found[task][1], user)


def test_a_batch_is_whole_even_if_the_stream_writes_its_buffers_again_at_once(invented_batch):
    """Copies are asynchronous, from pinned memory that is not the stream's."""
    invented = invent(invented_batch, "causal", "disjoint")
    wanted = batch_on(CPU, invented.changed(lambda arrays: None))
    torch.cuda._sleep(50_000_000)  # the device is busy, so copies wait
    batch = batch_on(CUDA, invented)
    for array in invented.arrays.values():
        array.fill(0)
    for name in ("item_BT", "value_BTC", "gap_BT", "segment_BT", "time_BT"):
        assert torch.equal(getattr(batch, name).cpu(), getattr(wanted, name))


@pytest.fixture
def nccl_group(tmp_path: Path) -> Iterator[None]:
    """NCCL with this process alone: it takes no two ranks on one GPU."""
    torch.cuda.set_device(0)
    dist.init_process_group("nccl", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("nccl_group")
def test_a_compiled_replica_under_nccl_gives_the_gradients_of_a_model_alone(invented_batch):
    """In two micro-batches, the first without an exchange: what every rank of several runs."""
    invented = invent(invented_batch, "causal", "disjoint")
    model = invented.model(width=64).to(CUDA)
    scales = dict.fromkeys(batch_on(CPU, invented).targets, 1.0)
    world = World(Launch(rank=0, world_size=2), CUDA)  # 2, so that it takes itself for one of several
    found, losses = {}, {}
    for name, replica in {"alone": Replica(model, scales, CUDA), "nccl": None}.items():
        replica = replica or world.replicated(Replica(model, scales, CUDA))
        model.zero_grad()
        sums = []
        for first in (0, 2):
            batch = to_batch(invented.arrays, slice(first, first + 2), invented.facts.on_device(CUDA), CUDA)
            with without_sync(replica) if first == 0 else torch.enable_grad():
                total, parts = replica(batch, scales)
                total.backward()
            sums.append(parts)
        losses[name] = torch.stack(sums).sum(0)
        found[name] = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    torch.testing.assert_close(losses["nccl"], losses["alone"], rtol=1e-5, atol=1e-4)
    for key, gradient in found["nccl"].items():
        assert (gradient - found["alone"][key]).norm() <= 1e-4 * found["alone"][key].norm(), key
