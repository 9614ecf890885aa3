"""Tokens/s, model-flops utilisation, waiting and peak memory of `base` on one GPU, causal and masked, window 1024; and
the time of one layer's attention alone.

    python benchmarks/gpu.py [--steps 60] [--batch-tokens 65536]

At most 5 minutes. The first steps compile (40 s and more) and are left out. Writes benchmarks/results/gpu.json;
refuses without CUDA.

Model flops are counted as usual: 6 per parameter of a matrix and token (2 forward, 4 backward), the watch softmax for
its targets alone, and attention over the pairs of tokens that may see each other; nothing that is computed twice.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from results import write_results
from torch import nn

from streamfeat import WindowStream, load_manifest
from train import train_steps
from train.config import PRESETS, new_config
from train.model.transformer import EventTransformer
from train.training.dry_run import Estimate, dry_run_steps
from train.training.progress import Started, Stepped

CLI = Path(__file__).parent.parent / "cli.py"
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # bf16, dense, from the vendor's data sheet
WARM_STEPS = 10


def make_dataset(folder: Path) -> Path:
    """Invented histories of two media, 2 million events."""
    events = folder / "events.parquet"
    for command in (
        ["invent", str(events), "--users", "15000", "--events", "2000000"],
        ["build-shards", str(events), str(folder / "data")],
    ):
        subprocess.run([sys.executable, str(CLI), *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "data"


def flops_per_token(data: Path, objective: str) -> float:
    """Forward and backward flops of a token of `base`, from the model's matrices and the data's own segments."""
    manifest = load_manifest(data)
    config = new_config({"preset": "base", "objective": objective})
    targets = torch.zeros(manifest.num_items, dtype=torch.int64).numpy()
    model = EventTransformer.of(manifest, config, targets)
    matrices = {
        name: sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))
        for name, module in (("all", model), ("rating", model.rating))
    }
    stream = WindowStream(data, objective=objective, batch_windows=32)
    batch = next(iter(stream))
    tokens = (batch["segment"] >= 0).sum()
    rated = (batch["weight_rating"] > 0).sum() / tokens
    everywhere = matrices["all"] - matrices["rating"] + rated * matrices["rating"]
    media = zip(manifest.data_schema.medium_offsets, manifest.data_schema.medium_offsets[1:], strict=False)
    softmax = 0.0
    for first, last in media:
        mine = (batch["weight_item"] > 0) & (batch["target_item"] >= first) & (batch["target_item"] < last)
        softmax += mine.sum() / tokens * (last - first)
    lengths = [
        int((window == segment).sum()) for window in batch["segment"] for segment in range(int(window.max()) + 1)
    ]
    pairs = sum(n * n for n in lengths) / sum(lengths) * (0.5 if objective == "causal" else 1.0)
    layers, width = PRESETS["base"]["layers"], PRESETS["base"]["width"]
    return float(6 * everywhere + 6 * width * softmax + 12 * layers * width * pairs)


def measure(data: Path, run: Path, objective: str, steps: int, batch_tokens: int) -> list[dict[str, object]]:
    """The rows of the result for one objective."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    given = {
        "preset": "base",
        "objective": objective,
        "steps": steps,
        "batch_tokens": batch_tokens,
        "validate_every": steps,
        "checkpoint_every": steps,
        "threads": 4,
    }
    times, waits, tokens = [], [], 0
    for record in train_steps(data, run, given, overwrite=True):
        if isinstance(record, Started):
            tokens = record.batch_windows * record.window_len
        if isinstance(record, Stepped):
            torch.cuda.synchronize()
            times.append(time.perf_counter())
            waits.append(record.wait_share)
    seconds = statistics.median(b - a for a, b in zip(times[WARM_STEPS:], times[WARM_STEPS + 1 :], strict=False))
    name = torch.cuda.get_device_name()
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    flops = flops_per_token(data, objective) * tokens / seconds
    memory = torch.cuda.max_memory_reserved()
    *_, outline = dry_run_steps(data, given)
    assert isinstance(outline, Estimate)
    estimated = outline.memory.needed.total
    return [
        {"name": f"{objective}: device", "value": name, "unit": ""},
        {"name": f"{objective}: tokens per second", "value": tokens / seconds, "unit": "tokens/s"},
        {
            "name": f"{objective}: model-flops utilisation",
            "value": flops / peak if peak else None,
            "unit": "share of bf16 peak",
        },
        {"name": f"{objective}: waiting for data", "value": statistics.mean(waits[WARM_STEPS:]), "unit": "share"},
        {"name": f"{objective}: peak memory, reserved", "value": memory, "unit": "bytes"},
        {"name": f"{objective}: estimated memory", "value": estimated / memory, "unit": "of the peak"},
    ]


def measure_attention(data: Path) -> list[dict[str, object]]:
    """Medians of the kernels at the shape of a layer of `base`, on a causal batch."""
    from triton.testing import do_bench

    from train.model.cuda_attention import range_attention, range_plan

    arrays = next(iter(WindowStream(data, objective="causal", batch_windows=64)))
    columns = (torch.from_numpy(arrays[name]).cuda() for name in ("segment", "time", "time_known"))
    plan, shape = range_plan(*columns, causal=True), PRESETS["base"]
    qkv = torch.randn(*arrays["segment"].shape, 3 * shape["width"], device="cuda", dtype=torch.bfloat16)
    coefficients = torch.randn(shape["heads"], 3, device="cuda") / 5
    inputs = qkv.requires_grad_(), coefficients.requires_grad_()
    out = range_attention(*inputs, plan)
    grad = torch.randn_like(out)
    times = {
        "forward": do_bench(lambda: range_attention(*inputs, plan), return_mode="median"),
        "backward": do_bench(lambda: torch.autograd.grad(out, inputs, grad, retain_graph=True), return_mode="median"),
    }
    return [{"name": f"attention of a layer: {name}", "value": value, "unit": "ms"} for name, value in times.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="more than 20")
    parser.add_argument("--batch-tokens", type=int, default=65_536)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a CUDA device; none is here")
    with tempfile.TemporaryDirectory() as folder:
        data = make_dataset(Path(folder))
        rows = measure_attention(data)
        for objective in ("causal", "masked"):
            rows += measure(data, Path(folder, objective), objective, options.steps, options.batch_tokens)
    write_results("gpu", rows)


if __name__ == "__main__":
    main()
