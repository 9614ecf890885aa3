"""The memory of a run: estimated before it takes any, refused where it cannot fit, told what to lower."""

import contextlib
import functools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from streamfeat import WindowStream
from streamfeat.errors import ConfigError
from streamfeat.events.synthetic import write_synthetic
from streamfeat.progress import Note
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from train.config import new_config
from train.devices.available import available_bytes
from train.devices.device import exact_arithmetic
from train.devices.launch import Launch
from train.devices.memory import Memory, check_lasting_needs, lasting_needs, smaller_run
from train.devices.ranks import World
from train.model.batch import BatchFacts
from train.model.targets import find_targets
from train.model.transformer import EventTransformer
from train.runs.folder import open_run_together
from train.training.dry_run import Estimate, dry_run_steps
from train.training.loop import train_steps
from train.training.progress import Stepped
from train.training.rehearsal import crowded_windows
from train.training.session import Session, open_session

ROOT = Path(__file__).parents[3]
ALONE = World(Launch(), torch.device("cpu"))
SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 2}

# A dry run in a process of its own: how much it grew, of the GPU the peak; and what was expected before the first step.
MEASURE = """
import json, sys, torch
torch.set_num_threads(1)
from train.training.dry_run import dry_run_steps
*_, outline = dry_run_steps(sys.argv[1], json.loads(sys.argv[2]), force=True)
on_gpu = outline.device == "cuda"
peak = torch.cuda.max_memory_reserved() if on_gpu else outline.peak_bytes - outline.memory.held
print(json.dumps([peak, outline.memory.needed.total]))
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
    """Thirteen steps in a process of their own, off CUDA."""
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
def test_what_a_model_takes_is_known_without_making_one(tiny_dataset: Path, given: dict[str, Any]) -> None:
    """The same bytes as those of the model that is made."""
    manifest, config = load_manifest(tiny_dataset), new_config(given)
    model = EventTransformer.of(manifest, config, read_items(tiny_dataset).targets)
    needed = lasting_needs(manifest, config, ALONE)
    assert needed.weights == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert needed.weights == needed.gradients
    is_turned = config.optimizer == "muon"
    turned = sum(is_turned * of.weight.numel() for of in model.modules() if isinstance(of, torch.nn.Linear))
    assert needed.optimizer == 2 * needed.weights - 4 * turned


def test_the_producers_of_a_live_run_are_counted(tiny_dataset: Path) -> None:
    """Those that the run starts itself; a producer's own memory was measured at 120 MB."""
    manifest, live = load_manifest(tiny_dataset), {"live": True, "live_workers": 3}
    assert lasting_needs(manifest, new_config(SMALL), ALONE).producers == 0
    assert 3 * 10**8 < lasting_needs(manifest, new_config({**SMALL, **live}), ALONE).producers < 10**9
    assert lasting_needs(manifest, new_config({**SMALL, **live, "live_workers": 0}), ALONE).producers == 0


@contextlib.contextmanager
def session_of(dataset: Path, given: dict[str, Any], **options: Any) -> Iterator[Session]:
    """A trial that could make its first step."""
    with (
        tempfile.TemporaryDirectory() as folder,
        exact_arithmetic(),
        open_run_together(ALONE, dataset, f"{folder}/run", given) as run,
        open_session(replace(run, trial=True), ALONE, stop=lambda: False, **options) as session,
    ):
        yield session


def test_smaller_passes_need_less_and_only_for_the_pass(tiny_dataset: Path) -> None:
    """Weights, gradients and the optimizer stay as they are."""
    needed = []
    for tokens in (0, 2**13):
        given = {**SMALL, "width": 64, "batch_tokens": 2**15, "micro_batch_tokens": tokens}
        with session_of(tiny_dataset, given) as session:
            needed.append(session.memory.needed)
    whole, quarter = needed
    assert quarter.activations < whole.activations / 2
    assert quarter.lasting == whole.lasting


def remedy_of(dataset: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The options that the refusal says would fit."""
    with (
        pytest.raises(ConfigError, match=r"needs about .* (GB|MB) \(weights .*the machine has .*--force") as error,
        session_of(dataset, given),
    ):
        pass
    found = re.findall(r"--(width|batch-tokens|micro-batch-tokens) to (\d+)", str(error.value))
    return {name.replace("-", "_"): int(value) for name, value in found}


@pytest.mark.parametrize(
    ("given", "lowered"),
    [
        ({"batch_tokens": 2**17, "layers": 2}, {"micro_batch_tokens"}),
        ({"batch_tokens": 2**40}, {"batch_tokens", "micro_batch_tokens"}),
        ({"width": 2**16, "heads": 4, "layers": 8}, {"width", "micro_batch_tokens"}),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_numbers_that_would(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], lowered: set[str]
) -> None:
    """What is said to fit is not refused. The first case is noticed by its pass, which fails within the limit."""
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 4 * 10**8)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    options = remedy_of(tiny_dataset, given)
    assert options.keys() == lowered
    with session_of(tiny_dataset, {**given, **options}) as session:
        assert session.memory.fits
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_passes_a_little_too_large_are_refused_with_the_largest_that_fit(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the measured number, where no allocation fails."""
    taken = {6: 10**9, 3: 6 * 10**8, 2: 5 * 10**8}
    monkeypatch.setattr(
        "train.training.rehearsal._bytes_of_pass", lambda updater, arrays, memory, limit: taken[len(arrays["window"])]
    )
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 55 * 10**7)
    given = {**SMALL, "batch_tokens": 6 * 32}
    said = r"activations 1.0 GB.*lower --micro-batch-tokens to 64 \(now 192\)"
    with pytest.raises(ConfigError, match=said), session_of(tiny_dataset, given):
        pass
    with session_of(tiny_dataset, given, force=True) as session:
        assert not session.memory.fits


def test_a_pass_that_small_ones_show_to_be_hopeless_is_not_tried(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Off CUDA it would take minutes to fail; what is named as fitting was tried all the same."""
    tried = []

    def taken(updater: object, arrays: dict[str, NDArray[Any]], memory: Memory, limit: int | None) -> int:
        tried.append(len(arrays["window"]))
        return 10**7 + 10**6 * tried[-1]

    monkeypatch.setattr("train.training.rehearsal._bytes_of_pass", taken)
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 10**9)
    said = r"activations 4\.1 GB.*lower --micro-batch-tokens to 16384 \(now 131072\)"
    with pytest.raises(ConfigError, match=said), session_of(tiny_dataset, {**SMALL, "batch_tokens": 2**17}):
        pass
    assert tried == [128, 256, 512]


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"live": True, "live_workers": 64}, {"live_workers": 8}),
        ({"threads": 1000, "batch_tokens": 2**16}, {"threads": 1}),
    ],
)
def test_where_processes_or_threads_take_the_most_their_number_is_to_be_lowered(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], remedy: dict[str, int]
) -> None:
    """No narrower model would help."""
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 2 * 10**9)
    manifest, config = load_manifest(tiny_dataset), new_config({**SMALL, **given})
    ((name, value),) = remedy.items()
    with pytest.raises(ConfigError, match=f"lower --{name.replace('_', '-')} to {value} "):
        check_lasting_needs(manifest, config, ALONE)
    assert check_lasting_needs(manifest, new_config({**SMALL, **given, **remedy}), ALONE).fits


def test_a_batch_that_ranks_cannot_share_is_no_remedy(tiny_dataset: Path) -> None:
    """Half of 12 windows, and a quarter, are not for 4 ranks. A run that goes on would have to start anew."""
    manifest, config = load_manifest(tiny_dataset), new_config({**SMALL, "batch_tokens": 12 * 32})
    four = World(Launch(0, 4, 0), torch.device("cpu"))
    needed = lasting_needs(manifest, config, four)
    assert "lower --width to" in smaller_run(manifest, config, four, Memory(needed, 2 * needed.total - 1, 0))
    with pytest.raises(ConfigError, match="start anew and lower --batch-tokens to"):
        check_lasting_needs(manifest, new_config({"batch_tokens": 2**40}), ALONE, resumed=True)


@pytest.mark.parametrize("objective", ["causal", "masked"])
@pytest.mark.usefixtures("one_thread")
def test_the_pass_that_is_measured_changes_no_bit_of_the_run(
    tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    """Weights, the optimizer's state and torch's generator are those of a run without it."""
    given = {**SMALL, "objective": objective, "micro_batch_tokens": 32}
    generators = []
    for run in ("with", "without"):
        if run == "without":
            monkeypatch.setattr("train.training.session.check_pass", lambda run, world, updater, memory, force: memory)
        torch.manual_seed(0)
        list(train_steps(tiny_dataset, tmp_path / run, given))
        generators.append(torch.get_rng_state())
    assert torch.equal(*generators)
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, other = (tmp_path / run / "checkpoints/step-00000002" / name for run in ("with", "without"))
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("objective", ["causal", "masked"])
def test_the_windows_of_the_measured_pass_are_the_most_crowded(tiny_dataset: Path, objective: Any) -> None:
    """No batch of the stream has more pairs of tokens in segments, and each task has about its average of targets."""
    manifest, config = load_manifest(tiny_dataset), new_config({**SMALL, "objective": objective})
    facts, schema = BatchFacts.of(manifest, config), manifest.data_schema
    crowded = crowded_windows(manifest, facts, 32, 3)
    stream = list(WindowStream(tiny_dataset, objective=objective, batch_windows=3, copy=True))
    assert num_pairs(crowded["segment"]) >= max(num_pairs(batch["segment"]) for batch in stream)
    assert crowded.keys() == stream[0].keys()
    for task, tokens in find_targets(crowded, schema).items():
        expected = np.mean([len(find_targets(batch, schema)[task]) for batch in stream])
        assert len(tokens) >= 0.7 * expected, task


def num_pairs(segment: NDArray[np.int32]) -> int:
    return sum(int((np.unique(row[row >= 0], return_counts=True)[1] ** 2).sum()) for row in segment)


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
    monkeypatch.setattr("train.devices.memory.available_bytes", lambda device: 10**4)
    with pytest.raises(ConfigError, match="--force"):
        list(train_steps(tiny_dataset, tmp_path / "run", SMALL))
    assert not (tmp_path / "run").exists()
    records = list(train_steps(tiny_dataset, tmp_path / "run", SMALL, force=True))
    assert any(isinstance(r, Note) and r.warning and "continuing because of --force" in r.text for r in records)
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


# The limit holds from the start, and nothing tells the run of it: the measured pass is what fails.
LIMITED = """
import resource, sys, torch
torch.set_num_threads(1)
from train.training.loop import train_steps
from streamfeat.errors import StreamfeatError
given = {"layers": 2, "width": 128, "batch_tokens": 2**16, "steps": 1}
if len(sys.argv) > 3:
    given["micro_batch_tokens"] = int(sys.argv[3])
list(train_steps(sys.argv[1], sys.argv[2] + "-warm", {"layers": 1, "width": 16, "batch_tokens": 32, "steps": 1}))
used = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 10**6, resource.RLIM_INFINITY))
try:
    for record in train_steps(sys.argv[1], sys.argv[2], given):
        print(type(record).__name__)
except StreamfeatError as error:
    print(error.exit_code, error)
"""


@pytest.mark.slow
def test_a_pass_that_the_system_refuses_is_refused_before_step_0_and_what_is_said_to_fit_fits(
    tmp_path: Path, tiny_dataset: Path
) -> None:
    """The process may take 400 MB more. The run that the error names ends as finished under the same limit."""

    def run(name: str, *words: str) -> str:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", LIMITED, str(tiny_dataset), str(tmp_path / name), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("first")
    assert said.startswith("2 the run needs about"), said
    lower = re.search(r"lower --micro-batch-tokens to (\d+) \(now 65536\)", said)
    assert lower is not None, said
    assert "Finished" in run("second", lower[1])
