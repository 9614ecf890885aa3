"""The memory of a run: estimated before it takes any, refused where it cannot fit, told what to lower."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from streamfeat.errors import ConfigError
from streamfeat.events.synthetic import write_synthetic
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import new_config
from train.devices.available import available_bytes
from train.devices.launch import Launch
from train.devices.memory import check_memory, estimate, num_parameters, remedy
from train.devices.ranks import World
from train.model.transformer import EventTransformer
from train.training.dry_run import Estimate, dry_run_steps
from train.training.loop import train_steps
from train.training.progress import Stepped

ROOT = Path(__file__).parents[3]
ALONE = World(Launch(), torch.device("cpu"))
SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 2}

# Steps in a process of their own: its peak, less what it held before it made the model; on CUDA, of the GPU.
MEASURE = """
import json, sys, torch
from pathlib import Path
torch.set_num_threads(1)
def status(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
from streamfeat import WindowStream
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import new_config
from train.devices.ranks import World
from train.devices.launch import Launch
from train.devices.memory import estimate
from train.model.transformer import EventTransformer
from train.training.update import Updater
dataset, given, device = sys.argv[1], json.loads(sys.argv[2]), torch.device(sys.argv[3])
manifest, config = load_manifest(dataset), new_config(given)
before = status("VmRSS")
model = EventTransformer.of(manifest, config, read_items(dataset).targets).to(device)
updater = Updater(model, manifest, config, 10, World(Launch(), device))
windows = config.batch_windows(manifest.data_schema.window_len)
stream = WindowStream(dataset, objective=config.objective, mask_policy=config.mask_policy, batch_windows=windows)
for step, arrays in zip(range(3), stream):
    assert updater.apply(updater.prepare(arrays, step)).finite
peak = torch.cuda.max_memory_reserved() if device.type == "cuda" else status("VmHWM") - before
print(json.dumps([peak, estimate(manifest, config, 1, device.type).total]))
"""


# Window length, users, events, items of a medium: short histories in short windows; long ones in long windows; as
# many items as matter; more.
DATASETS = {
    "short": (256, 1500, 60_000, 500),
    "long": (1024, 300, 90_000, 500),
    "wide": (128, 900, 60_000, 20_000),
    "many": (256, 4000, 400_000, 100_000),
}


@pytest.fixture(scope="module")
def dataset_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Builds a dataset by its name, once."""
    from streamfeat.builder.coordinator import build_shards

    @functools.cache
    def made(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        window_len, users, events, items = DATASETS[name]
        write_synthetic(folder / "e.parquet", num_users=users, num_events=events, items_per_medium=items, seed=1)
        build_shards([str(folder / "e.parquet")], folder / "data", window_len=window_len, split="users:0.1")
        return folder / "data"

    return made


SHAPES = [
    ("short", {"batch_tokens": 16384, "width": 128, "layers": 4}),
    ("long", {"batch_tokens": 8192, "objective": "masked"}),
    (
        "wide",
        {"batch_tokens": 2048, "micro_batch_tokens": 512, "width": 256, "mask_policy": "seed", "objective": "masked"},
    ),
]

GPU_SHAPES = [
    ("short", {"preset": "small", "batch_tokens": 65536}),
    ("long", {"preset": "base", "batch_tokens": 65536}),
    ("long", {"preset": "base", "batch_tokens": 65536, "micro_batch_tokens": 16384, "objective": "masked"}),
    ("wide", {"batch_tokens": 131072, "micro_batch_tokens": 65536}),
    ("many", {"batch_tokens": 32768, "width": 128}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given"), SHAPES)
def test_the_estimate_is_within_a_factor_of_two_of_the_measured_peak(
    dataset_of: Callable[[str], Path], name: str, given: dict[str, Any]
) -> None:
    """Three steps in a process of their own, off CUDA."""
    measured, expected = measured_and_expected(dataset_of(name), given, "cpu")
    assert measured / 2 < expected < 2 * measured


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "given"), GPU_SHAPES)
def test_the_estimate_of_a_gpu_s_memory_is_within_a_factor_of_two(
    dataset_of: Callable[[str], Path], name: str, given: dict[str, Any]
) -> None:
    """The same on CUDA, compilation included."""
    measured, expected = measured_and_expected(dataset_of(name), given, "cuda")
    print(f"{name} {given}: {measured / 1e6:,.0f} MB, estimated {expected / 1e6:,.0f} MB: {expected / measured:.2f}")
    assert measured / 2 < expected < 2 * measured


def measured_and_expected(dataset: Path, given: dict[str, Any], device: str) -> tuple[int, int]:
    """Bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    command = [sys.executable, "-c", MEASURE, str(dataset), json.dumps(given), device]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    measured, expected = json.loads(done.stdout)
    return measured, expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"objective": "masked", "mask_policy": "seed", "layers": 3, "width": 48, "heads": 3, "feed_forward": 2.5},
        {"objective": "masked", "preset": "small"},
    ],
)
def test_parameters_are_counted_without_a_model(tiny_dataset: Path, given: dict[str, Any]) -> None:
    """The same number as the model that is made."""
    manifest, config = load_manifest(tiny_dataset), new_config(given)
    model = EventTransformer.of(manifest, config, read_items(tiny_dataset).targets)
    assert num_parameters(manifest, config) == sum(parameter.numel() for parameter in model.parameters())
    needed = estimate(manifest, config, 1, "cpu")
    assert needed.weights == needed.gradients == needed.optimizer / 2 == 4 * num_parameters(manifest, config)


def test_smaller_passes_need_less_and_only_for_the_pass(tiny_dataset: Path) -> None:
    """Weights, gradients and the optimizer stay as they are; two ranks share the batch."""
    manifest = load_manifest(tiny_dataset)
    whole, half = (
        estimate(manifest, new_config({"batch_tokens": 2**20, "micro_batch_tokens": tokens}), 1, "cpu")
        for tokens in (0, 2**19)
    )
    assert half.activations == pytest.approx(whole.activations / 2, rel=1e-3)
    assert (half.weights, half.optimizer) == (whole.weights, whole.optimizer)
    shared = estimate(manifest, new_config({"batch_tokens": 2**20}), 2, "cpu")
    assert shared.activations == pytest.approx(half.activations, rel=1e-3)


def remedy_of(dataset: Path, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The refusal's message, and the options that it says would fit."""
    with pytest.raises(ConfigError, match=r"needs about .* (GB|MB) \(weights .*the machine has .*--force") as error:
        check_memory(load_manifest(dataset), new_config(given), ALONE)
    found = re.findall(r"--(width|batch-tokens|micro-batch-tokens) to (\d+)", str(error.value))
    return str(error.value), {name.replace("-", "_"): int(value) for name, value in found}


@pytest.mark.parametrize(
    ("given", "lowered"),
    [
        ({"batch_tokens": 2**22, "layers": 1, "width": 1024}, {"micro_batch_tokens"}),
        ({"batch_tokens": 2**40}, {"batch_tokens", "micro_batch_tokens"}),
        ({"width": 2**16, "heads": 4, "layers": 8}, {"width", "micro_batch_tokens"}),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_numbers_that_would(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], lowered: set[str]
) -> None:
    """What is said to fit is not refused."""
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 16 * 10**9)  # of this machine it changes
    _, options = remedy_of(tiny_dataset, given)
    assert options.keys() == lowered
    assert check_memory(load_manifest(tiny_dataset), new_config({**given, **options}), ALONE).fits
    assert not check_memory(load_manifest(tiny_dataset), new_config(given), ALONE, force=True).fits


def test_a_batch_that_ranks_cannot_share_is_no_remedy(tiny_dataset: Path) -> None:
    """Half of 12 windows, and a quarter, are not for 4 ranks. A run that goes on would have to start anew."""
    manifest, config = load_manifest(tiny_dataset), new_config({**SMALL, "batch_tokens": 12 * 32})
    four = World(Launch(0, 4, 0), torch.device("cpu"))
    least = estimate(manifest, config.model_copy(update={"micro_batch_tokens": 32}), 4, "cpu").total - 1
    assert "lower --width to" in remedy(manifest, config, four, least)
    given = {"batch_tokens": 2**40}
    with pytest.raises(ConfigError, match="start anew and lower --batch-tokens to"):
        check_memory(manifest, new_config(given), ALONE, resumed=True)


@pytest.mark.parametrize(
    "where", ["train.training.session.EventTransformer.of", "streamfeat.stream.chunks.ChunkPool.decode"]
)
def test_lack_of_memory_outside_a_step_says_what_to_lower_too(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where the model is made, where batches are read."""

    def lack(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(where, lack)
    with pytest.raises(ConfigError, match=r"out of memory, with 3 windows .*--micro-batch-tokens \(now 96\) to 32"):
        list(train_steps(tiny_dataset, tmp_path / "run", SMALL))


def test_force_starts_what_seems_not_to_fit(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left where it is refused; with `force`, a warning with the numbers, and it trains."""
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 10**6)
    with pytest.raises(ConfigError, match="--force"):
        list(train_steps(tiny_dataset, tmp_path / "run", SMALL))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    records = list(train_steps(tiny_dataset, tmp_path / "run", SMALL, force=True))
    assert any(isinstance(r, Note) and r.warning and "going on, as --force says" in r.text for r in records)
    assert sum(isinstance(record, Stepped) for record in records) == 2


def test_a_dry_run_tells_the_estimate_beside_what_it_measured(tiny_dataset: Path) -> None:
    """Of the same run: weights, gradients and the optimizer's moments are the tensors' own sizes."""
    measured = list(dry_run_steps(tiny_dataset, SMALL))[-1]
    assert isinstance(measured, Estimate)
    needed = measured.memory.needed
    assert measured.memory.fits
    assert (needed.weights, needed.gradients) == (measured.weight_bytes, measured.gradient_bytes)
    # The system's two counters lag by some pages of each thread.
    assert 10**7 < measured.memory.held < measured.peak_bytes + 2**25  # counters of each CPU lag behind
    assert needed.optimizer == pytest.approx(measured.optimizer_bytes, rel=0.05)


def test_memory_is_what_machine_and_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of MemAvailable and every cgroup's limit above the process, of both versions; shared by ranks."""
    files = {
        "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n",
        "proc/self/cgroup": "4:cpu,memory:/outer/inner\n3:cpu:/x\n0::/pod\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
        "sys/fs/cgroup/pod/memory.max": "max\n",
        "sys/fs/cgroup/pod/memory.current": "1\n",
        "sys/fs/cgroup/pod/memory.stat": "inactive_file 0\n",
    }

    def write(**more: str) -> None:
        for name, text in {**files, **more}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write()
    cpu = torch.device("cpu")
    assert available_bytes(cpu, tmp_path) == 8000 * 1024
    outer = "sys/fs/cgroup/memory/outer/memory"
    write(
        **{
            f"{outer}.limit_in_bytes": "5000",
            f"{outer}.usage_in_bytes": "3000",
            f"{outer}.stat": "total_inactive_file 500\n",
        }
    )
    assert available_bytes(cpu, tmp_path) == 2500
    write(**{"sys/fs/cgroup/pod/memory.max": "1200", "sys/fs/cgroup/pod/memory.current": "200"})
    assert available_bytes(cpu, tmp_path) == 1000
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert available_bytes(cpu, tmp_path) == 250
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert 10**6 < available_bytes(cpu) < 2**50


# A real limit of the process: what the system refuses is what torch and numpy make of it.
STARVED = """
import resource, sys, torch
torch.set_num_threads(1)
from train.training.loop import train_steps
from train.training.progress import Stepped
from streamfeat.errors import StreamfeatError
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
given = {"layers": 2, "width": 512, "batch_tokens": 4096, "steps": 3}
records = train_steps(sys.argv[1], sys.argv[2], given, force=True)
try:
    for record in records:
        if type(record).__name__ == "Started":
            used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
            resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 10**6, resource.RLIM_INFINITY))
except StreamfeatError as error:
    print(error.exit_code, error)
"""


@pytest.mark.slow
def test_running_out_of_memory_says_what_to_lower_and_by_how_much(tmp_path: Path, tiny_dataset: Path) -> None:
    """The process may take 150 MB more once it has started: the first pass takes more than that."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STARVED, str(tiny_dataset), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"2 out of memory, with 128 windows of 32 tokens.*2 layers × 512", done.stdout)
    assert "lower --micro-batch-tokens (now 4096) to 2048, which changes no batch" in done.stdout
