"""The ten traps of the original: each test states what it did, does it again beside ours, and sees the difference.

In every test the same check is made twice: ours passes it, the original's behaviour, written out small, does not.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from invented_events import invent_events, write_csv
from numpy.typing import NDArray
from torch import nn

from streamfeat import Manifest, WindowStream, load_manifest
from streamfeat.builder.coordinator import build_shards
from streamfeat.config import StreamConfig
from streamfeat.schema import PLANNED, FloatCode
from streamfeat.store.reader import ArrayReader
from streamfeat.store.tables import read_items
from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.featurize import TOKEN_ARRAYS, Featurizer, allocate_buffers
from streamfeat.stream.order import EpochOrder, steps_per_epoch
from train.config import ModelConfig, TrainConfig
from train.model.batch import Batch, BatchFacts, to_batch
from train.model.heads import FactorTable
from train.model.targets import find_targets, weight_sums
from train.model.transformer import EventTransformer
from train.runs.checkpoint import Checkpoint, Checkpoints
from train.runs.metrics import read_metrics
from train.terms.terms import build_terms
from train.training.loop import train_steps
from train.training.optim import make_optimizer
from train.training.progress import Stepped, TrainingReport

Arrays = dict[str, NDArray[Any]]

CPU = torch.device("cpu")
OBJECTIVES = [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")]
every_objective = pytest.mark.parametrize(("objective", "policy"), OBJECTIVES)
SMALL = ModelConfig(layers=1, width=16, heads=2, dropout=0.0)


@pytest.fixture(autouse=True)
def _on_one_cpu_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Bits are compared, also where a GPU is; sums of floats hang on the number of threads."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(folder: Path, *, num_users: int, mean_events: int = 12, **options: Any) -> Path:
    """A dataset of invented events below `folder`."""
    folder.mkdir(exist_ok=True)
    invented = invent_events(seed=3, num_users=num_users, media={"anime": 30, "manga": 20}, mean_events=mean_events)
    events = write_csv(folder / "events.csv", invented)
    build_shards([str(events)], folder / "data", **({"split": "users:0.2"} | options))
    return folder / "data"


@pytest.fixture(scope="module")
def many_windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 75 training windows of 16 tokens, a chunk each, in shards of 8, the last one short; crops, some without
    their CLS."""
    return build(
        tmp_path_factory.mktemp("many"), num_users=150, window_len=16, max_document_len=12, chunk_windows=2,
        shard_windows=8,
    )  # fmt: skip


def stream_of(dataset: Path, objective: str = "causal", policy: str = "disjoint", **options: Any) -> WindowStream:
    return WindowStream(
        dataset, objective=objective, mask_policy=policy, copy=True, **({"batch_windows": 8, "seed": 3} | options)
    )  # type: ignore[arg-type]


def epochs_of(stream: WindowStream, num_epochs: int = 1) -> list[Arrays]:
    return [batch for _ in range(num_epochs) for batch in stream]


def stored_windows(dataset: Path, split: str = "training", packing: int = 0) -> Arrays:
    """Field → (windows, window_len) of a packing as it lies on disk."""
    stored = {}
    for field in load_manifest(dataset).data_schema.token_fields():
        with ArrayReader(dataset, f"windows.zarr/{split}/{packing}/{field.name}") as reader:
            stored[field.name] = reader.read_rows(0, reader.shape[0])
    return stored


def windows_of(batch: Arrays, stored: Arrays, manifest: Manifest) -> Arrays:
    """What is stored of a batch's windows, row by row, numbers decoded; an empty window is all PAD."""
    rows = {}
    for field in manifest.data_schema.token_fields():
        values = np.concatenate([stored[field.name], np.full((1, stored[field.name].shape[1]), field.pad)])
        rows[field.name] = values[batch["window"]]  # -1: the row added
    for name in ("rating", "completion"):
        rows[name] = getattr(manifest.data_schema, name).decode(rows[name])
    return rows


def small_model(dataset: Path, objective: str = "causal", policy: str = "disjoint") -> tuple[EventTransformer, Any]:
    """A model of the dataset with every parameter off its start, and the facts that its batches are made under."""
    manifest = load_manifest(dataset)
    config = TrainConfig(objective=objective, mask_policy=policy, model=SMALL)  # type: ignore[arg-type]
    terms = build_terms(dataset, manifest)
    model = EventTransformer.of(manifest, config, read_items(dataset).targets, terms)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, BatchFacts.of(manifest, config, terms).on_device(CPU)


def all_rows(arrays: Arrays) -> slice:
    return slice(0, len(arrays["window"]))


# 1


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A gloo group of this process alone."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = dist.TCPStore("127.0.0.1", 0, 1, is_master=True)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def decayed_embeddings(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """The embeddings of `model` that weight decay reaches; factors of ratings have a decay of their own."""
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and not isinstance(module, FactorTable) and id(module.weight) in decayed
    ]


def grouped_by_name(model: nn.Module) -> torch.optim.Optimizer:
    """As the original did: what begins with the embeddings' prefix does not decay."""
    is_embedding = {name: name.startswith("inputs.") for name, _ in model.named_parameters()}
    return torch.optim.AdamW([
        {"params": [p for name, p in model.named_parameters() if not is_embedding[name]], "weight_decay": 0.5},
        {"params": [p for name, p in model.named_parameters() if is_embedding[name]], "weight_decay": 0.0},
    ])  # fmt: skip


@pytest.mark.usefixtures("group_of_one")
def test_weight_decay_never_reaches_embeddings_under_ddp(tiny_dataset: Path) -> None:
    """Original: parameters were grouped by a prefix of their names; DDP puts `module.` before it, and embeddings
    decayed. Here groups go by the type of the owning module."""
    model, _ = small_model(tiny_dataset)
    config = TrainConfig(weight_decay=0.5)
    wrapped = nn.parallel.DistributedDataParallel(model)
    assert len([m for m in wrapped.modules() if isinstance(m, nn.Embedding)]) >= 4
    for wanted in (model, wrapped):
        groups = make_optimizer(wanted, config).param_groups
        assert decayed_embeddings(make_optimizer(wanted, config), wanted) == []
        matrices = {id(m.weight) for m in wanted.modules() if isinstance(m, nn.Linear | FactorTable)}
        assert {id(p) for group in groups if group["weight_decay"] for p in group["params"]} == matrices
        assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))

    assert decayed_embeddings(grouped_by_name(model), model) == []
    assert "module.inputs.item" in decayed_embeddings(grouped_by_name(wrapped), wrapped)


@pytest.mark.usefixtures("group_of_one")
def test_an_update_under_ddp_shrinks_matrices_and_no_embedding(tiny_dataset: Path) -> None:
    """Original: with a gradient of zero, an embedding under DDP still moved towards zero at every step."""
    moved = {}
    for name, make in (("ours", make_optimizer), ("original", lambda model, _: grouped_by_name(model))):
        model, _ = small_model(tiny_dataset)
        wrapped = nn.parallel.DistributedDataParallel(model)
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        make(wrapped, TrainConfig(weight_decay=0.5)).step()
        moved[name] = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert "inputs.item.weight" not in moved["ours"]
    assert "inputs.values.weight" in moved["ours"]
    assert "inputs.item.weight" in moved["original"]


# 2


def shards_written_by_shares(num_users: int, num_shards: int) -> set[int]:
    """As the original did: the users are divided among the shards, ceil(users / shards) to each."""
    share = -(-num_users // num_shards)
    return set(range(len(range(0, num_users, share))))


@pytest.mark.parametrize("num_users", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 8))])
def test_every_shard_that_a_reader_waits_for_is_written_with_fewer_users_than_shards(
    tmp_path: Path, num_users: int
) -> None:
    """Original: 24 shards shared the users out, so that with 13 users 13 shards were written, and the reader waited
    for the 14th for ever. Here shards follow from the windows, and one user fills many."""
    dataset = build(
        tmp_path / "few", num_users=num_users, window_len=4, chunk_windows=1, shard_windows=1, mean_events=40
    )
    manifest = load_manifest(dataset)
    counts = manifest.splits["training"]
    num_shards = -(-counts.windows // counts.shard_windows)
    assert num_shards > counts.users
    for field in manifest.data_schema.token_fields():
        folder = dataset / "windows.zarr/training/0" / field.name / "c"
        assert {int(path.name) for path in folder.iterdir()} == set(range(num_shards))
    for batch_windows in (1, 24):
        batches = epochs_of(stream_of(dataset, batch_windows=batch_windows), 2)
        windows = Counter(w for batch in batches for w in batch["window"].tolist() if w >= 0)
        assert windows == dict.fromkeys(range(counts.windows), 2)
        num_tokens = sum(int((batch["segment"] >= 0).sum()) for batch in batches)
        assert num_tokens == 2 * counts.tokens == 2 * (counts.users + counts.events)

    assert shards_written_by_shares(counts.users, num_shards) != set(range(num_shards))


# 3

GIVEN: dict[str, Any] = {
    "layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 12, "validate_every": 12,
    "checkpoint_every": 100,
}  # fmt: skip


def steps_made(records: Iterator[TrainingReport], stop_after: int = 0, asked: list[bool] | None = None) -> list[int]:
    """Drain a run, asking it to stop after a step; the steps that it made."""
    steps = []
    for record in records:
        if isinstance(record, Stepped):
            steps.append(record.step)
            if record.step == stop_after and asked is not None:
                asked.append(True)
    return steps


def outcome(run: Path) -> tuple[list[tuple[float, float]], dict[str, torch.Tensor]]:
    """Loss and learning rate of every step, and the last checkpoint: weights, and the optimizer's moments."""
    checkpoint, _ = Checkpoints(run).load_newest()
    assert checkpoint is not None
    lines = [(line["loss"], line["lr"]) for line in read_metrics(run) if line["kind"] == "train"]
    return lines, {
        **{f"average of {name}": weight for name, weight in checkpoint.weights.items()},
        **checkpoint.trained,
        **checkpoint.optimizer,
    }


def same(run: Path, other: Path) -> bool:
    """Bit for bit."""
    (lines, tensors), (other_lines, other_tensors) = outcome(run), outcome(other)
    return lines == other_lines and all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        run = tmp_path_factory.mktemp("undisturbed") / "run"
        assert steps_made(train_steps(tiny_dataset, run, GIVEN)) == list(range(1, 13))
        torch.set_num_threads(before)
    return run


def restarted(dataset: Path, run: Path, step: int) -> Path:
    """A run stopped after `step` and taken up again."""
    asked: list[bool] = []
    assert steps_made(train_steps(dataset, run, GIVEN, stop=lambda: bool(asked)), step, asked)[-1] == step
    assert steps_made(train_steps(dataset, run, resume=True)) == list(range(step + 1, 13))
    return run


def lose_the_optimizer(patch: pytest.MonkeyPatch, step: int) -> None:
    def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: object, average: nn.Module) -> None:
        model.load_state_dict(checkpoint.trained)
        average.load_state_dict(checkpoint.weights)

    patch.setattr(Checkpoint, "restore", restore)


def lose_the_average(patch: pytest.MonkeyPatch, step: int) -> None:
    restore = Checkpoint.restore
    patch.setattr(
        Checkpoint, "restore", lambda found, model, optimizer, average: restore(found, model, optimizer, None)
    )


def lose_the_schedule(patch: pytest.MonkeyPatch, step: int) -> None:
    import train.training.update

    rate = train.training.update.learning_rate
    patch.setattr(
        train.training.update, "learning_rate", lambda config, schedule, now: rate(config, schedule, max(now - step, 0))
    )


def lose_the_position(patch: pytest.MonkeyPatch, step: int) -> None:
    patch.setattr(WindowStream, "load_state_dict", lambda stream, state: None)


@pytest.mark.parametrize("step", [4, 6])
def test_a_restart_brings_optimizer_schedule_and_position_back(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, step: int
) -> None:
    """Original: a restart loaded weights alone; moments, learning rate and place in the data began anew. Inside an
    epoch (step 4), and exactly at its end (step 6)."""
    assert steps_per_epoch(load_manifest(tiny_dataset).splits["training"].windows, 3) == 6
    assert same(restarted(tiny_dataset, tmp_path / "run", step), undisturbed)


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize("lose", [lose_the_optimizer, lose_the_average, lose_the_schedule, lose_the_position])
def test_a_restart_that_loses_one_of_them_is_seen(
    tmp_path: Path, tiny_dataset: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, step: int, lose: Any
) -> None:
    """The comparison above notices each of the original's three losses by itself."""
    asked: list[bool] = []
    steps_made(train_steps(tiny_dataset, tmp_path / "run", GIVEN, stop=lambda: bool(asked)), step, asked)
    lose(monkeypatch, step)
    steps_made(train_steps(tiny_dataset, tmp_path / "run", resume=True))
    assert not same(tmp_path / "run", undisturbed)


# 4


def order_of(dataset: Path, batch_windows: int) -> EpochOrder:
    counts = load_manifest(dataset).splits["training"]
    return EpochOrder(
        seed=3, split="training", epoch=0, num_windows=counts.windows, chunk_windows=counts.chunk_windows,
        shard_windows=counts.shard_windows, batch_windows=batch_windows,
    )  # fmt: skip


def decoded_too_often(decodes: list[list[int]], order: EpochOrder) -> list[int]:
    """Chunks that were decoded more than once, by all ranks together; those of the incomplete last round may be, once
    by each rank."""
    in_rounds = set(order.chunks[: order.num_rounds * order.num_lanes].tolist())
    of_all = Counter(chunk for chunks in decodes for chunk in chunks)
    by_rank = [Counter(chunks) for chunks in decodes]
    return [
        chunk
        for chunk, times in of_all.items()
        if (chunk in in_rounds and times > 1) or max(counts[chunk] for counts in by_rank) > 1
    ]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_chunk_is_decoded_by_one_reader_once_an_epoch(
    many_windows: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, threads: int
) -> None:
    """Original: every rank and every loader worker read every shard whole and kept its 1/N of the rows."""
    decoded: list[int] = []
    decode = ChunkPool.decode

    def counting(pool: ChunkPool, chunk: int, *rest: Any) -> None:
        decoded.append(chunk)
        decode(pool, chunk, *rest)

    monkeypatch.setattr(ChunkPool, "decode", counting)

    def decodes_of(rank: int, size: int) -> list[int]:
        decoded.clear()
        epochs_of(stream_of(many_windows, batch_windows=6, rank=rank, world_size=size, threads=threads))
        return list(decoded)

    order = order_of(many_windows, 6)
    assert order.num_rounds >= 10
    ours = [decodes_of(rank, world_size) for rank in range(world_size)]
    assert {chunk for chunks in ours for chunk in chunks} == set(order.chunks.tolist())
    assert decoded_too_often(ours, order) == []

    whole = [decodes_of(0, 1) for _ in range(max(world_size, 2))]  # each of two readers takes all and keeps its part
    assert len(decoded_too_often(whole, order)) == order.num_rounds * order.num_lanes


# 5


def steps_by_shards(num_windows: int, shard_windows: int, batch_windows: int, world_size: int) -> list[int]:
    """As the original did: rank r reads the shards r, r + W, …, and makes the batches that they hold."""
    sizes = [min(shard_windows, num_windows - first) for first in range(0, num_windows, shard_windows)]
    per_rank = batch_windows // world_size
    return [-(-sum(sizes[rank::world_size]) // per_rank) for rank in range(world_size)]


@pytest.mark.parametrize(("batch_windows", "world_size"), [(2, 2), (6, 2), (6, 3)])
@pytest.mark.parametrize("num_users", [7, 150])
def test_every_rank_makes_the_same_number_of_steps_whatever_the_shards_hold(
    tmp_path: Path, many_windows: Path, num_users: int, batch_windows: int, world_size: int
) -> None:
    """Original: a rank made the batches of its own shards; the ranks that had more waited in all-reduce for ever.
    Seven users, and shards of which the last is short."""
    dataset = many_windows
    if num_users == 7:
        dataset = build(tmp_path / "seven", num_users=7, window_len=8, chunk_windows=2, shard_windows=8)
    counts = load_manifest(dataset).splits["training"]
    ranks = [
        epochs_of(stream_of(dataset, batch_windows=batch_windows, rank=rank, world_size=world_size), 2)
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {2 * steps_per_epoch(counts.windows, batch_windows)}
    windows = Counter(w for batches in ranks for batch in batches for w in batch["window"].tolist() if w >= 0)
    assert windows == dict.fromkeys(range(counts.windows), 2)
    assert {len(batch["window"]) for batches in ranks for batch in batches} == {batch_windows // world_size}

    assert len(set(steps_by_shards(counts.windows, counts.shard_windows, batch_windows, world_size))) > 1


# 6


def bytes_held(value: Any) -> int:
    """Bytes of all tensors and arrays in a batch, a layout, a plan."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(bytes_held, value.values()))
    if isinstance(value, tuple | list):
        return sum(map(bytes_held, value))
    if dataclasses.is_dataclass(value):
        return sum(bytes_held(getattr(value, field.name)) for field in dataclasses.fields(value))
    return 0


def masks_of_pairs(arrays: Arrays) -> NDArray[np.bool_]:
    """As the original did: whether two tokens of a window are of one user, for all pairs."""
    segment = arrays["segment"]
    same_user: NDArray[np.bool_] = segment[:, :, None] == segment[:, None, :]
    return same_user


@pytest.fixture(scope="module")
def by_window_len(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Arrays]]:
    """The same histories in windows of 128 and of 1024 tokens, and 2048 tokens of them in one batch."""
    found = {}
    for window_len in (128, 1024):
        folder = tmp_path_factory.mktemp("long")
        dataset = build(folder, num_users=600, window_len=window_len, split="users:0.01")
        batch = epochs_of(stream_of(dataset, batch_windows=2048 // window_len))[0]
        assert (batch["segment"] >= 0).mean() > 0.9
        found[window_len] = (dataset, batch)
    return found


@every_objective
@pytest.mark.parametrize("for_gpu", [False, True])
def test_what_a_batch_holds_does_not_grow_with_the_windows_square(
    by_window_len: dict[int, tuple[Path, Arrays]], objective: str, policy: str, for_gpu: bool
) -> None:
    """Original: a boolean mask of window_len × window_len for every window, twelve times the data itself. Here the
    same tokens in windows eight times as long take the same memory."""
    held, masks = {}, {}
    for window_len, (dataset, arrays) in by_window_len.items():
        config = TrainConfig(objective=objective, mask_policy=policy)  # type: ignore[arg-type]
        facts = BatchFacts.of(load_manifest(dataset), config)
        held[window_len] = bytes_held(to_batch(arrays, all_rows(arrays), facts, CPU, for_gpu=for_gpu))
        masks[window_len] = masks_of_pairs(arrays).nbytes
    assert held[1024] < 1.3 * held[128]
    assert masks[1024] > 7 * masks[128]
    assert masks[1024] > 4 * held[1024] or not for_gpu


def test_attention_off_cuda_holds_pairs_inside_segments_alone(by_window_len: dict[int, tuple[Path, Arrays]]) -> None:
    """Original: all pairs of a window. Here those of a segment, padded by half at most in each direction."""
    dataset, arrays = by_window_len[1024]
    batch = to_batch(arrays, all_rows(arrays), BatchFacts.of(load_manifest(dataset), TrainConfig()), CPU)
    assert batch.layout is not None
    num_pairs = sum(bucket.mask_X.numel() for bucket in batch.layout.buckets)
    lengths = [np.bincount(row[row >= 0]) for row in arrays["segment"]]
    needed = sum(int((np.maximum(of_window, 8) ** 2).sum()) for of_window in lengths)
    assert num_pairs <= 1.5**2 * needed
    assert masks_of_pairs(arrays).size > 5 * 1.5**2 * needed


def test_attention_on_cuda_is_told_ranges_alone(by_window_len: dict[int, tuple[Path, Arrays]]) -> None:
    """Original: a mask of all pairs. The kernels get the run of keys that each token sees."""
    pytest.importorskip("triton")
    from train.model.cuda_attention import range_plan

    _, arrays = by_window_len[1024]
    segment, time, known = (torch.from_numpy(arrays[name]) for name in ("segment", "time", "time_known"))
    plan = range_plan(segment, time, known, causal=True)
    assert 0 < bytes_held((plan.range_4BT, plan.time_3BT)) < masks_of_pairs(arrays).nbytes / 30


# 7


def sizes_of(gathered: list[dict[str, int]]) -> dict[str, int]:
    """Task → how many different sizes its targets had."""
    return {task: len({sizes[task] for sizes in gathered}) for task in gathered[0]}


@every_objective
def test_no_target_is_dropped_though_shapes_hardly_vary(
    by_window_len: dict[int, tuple[Path, Arrays]], objective: str, policy: str
) -> None:
    """Original: as many gathered targets as a batch happened to have, so that each was compiled anew; a fixed number
    in its place drops what is above it. Here a few sizes hold them all."""
    dataset, _ = by_window_len[128]
    manifest = load_manifest(dataset)
    facts = BatchFacts.of(manifest, TrainConfig(objective=objective, mask_policy=policy))  # type: ignore[arg-type]
    ours, plain = [], []
    for arrays in epochs_of(stream_of(dataset, objective, policy, batch_windows=8), 2):
        batch = to_batch(arrays, all_rows(arrays), facts, CPU, for_gpu=True)
        expected = find_targets(arrays, manifest.data_schema)
        sums = weight_sums(arrays, manifest.data_schema)
        assert (
            sum(len(tokens) for task, tokens in expected.items() if task.endswith("_watch"))
            == (arrays["weight_item"] > 0).sum()
        )
        for task, targets in batch.targets.items():
            num = len(targets.user)
            assert targets.token_N[:num].tolist() == expected[task].tolist()
            assert targets.weight_N.double().sum().item() == pytest.approx(sums[task], rel=1e-6)
            assert not targets.weight_N[num:].any()
        ours.append({task: len(targets.token_N) for task, targets in batch.targets.items()})
        plain.append({task: len(tokens) for task, tokens in expected.items()})
    assert max(sizes_of(ours).values()) <= 3
    assert min(sizes_of(plain).values()) >= 5
    fixed = {task: int(np.mean([sizes[task] for sizes in plain])) for task in plain[0]}
    assert all(any(sizes[task] > fixed[task] for sizes in plain) for task in fixed), "a fixed number drops some"


# 8


def sentinels(values_BTC: NDArray[np.float32], known: NDArray[np.bool_]) -> int:
    """Numbers other than 0 that stand for an unknown value; values come first, then their flags."""
    num_values = known.shape[-1]
    assert (values_BTC[..., num_values:] == known).all()
    return int((values_BTC[..., :num_values] != 0)[~known].sum())


def values_with_sentinels(arrays: Arrays, facts: Any) -> NDArray[np.float32]:
    """As the original did: a masked or missing number is one above the largest, here with flags beside it."""
    names = ("rating", "completion", "time", "told_time")[: facts.num_values]
    above = {"rating": facts.schema.rating_max + 4, "completion": 5.0, "time": 5.0, "told_time": 5.0}
    values = [np.where(arrays[f"{name}_known"], arrays[name], above[name]) for name in names]
    return np.stack([*values, *(arrays[f"{name}_known"] for name in names)], -1).astype(np.float32)


@every_objective
@pytest.mark.parametrize("split", ["training", "validation"])
def test_no_number_stands_for_a_missing_or_masked_value(
    many_windows: Path, objective: str, policy: str, split: str
) -> None:
    """Original: a masked rating was 14.0, a missing one 15.0, in the input of a linear layer. Here it is 0 beside a
    flag that is 0."""
    _, facts = small_model(many_windows, objective, policy)
    names = ("rating", "completion", "time", "told_time")[: facts.num_values]
    for arrays in epochs_of(stream_of(many_windows, objective, policy, split=split)):
        known = np.stack([arrays[f"{name}_known"] for name in names], -1)
        assert not known.all()
        values = to_batch(arrays, all_rows(arrays), facts, CPU).value_BTC.numpy()
        assert sentinels(values, known) == 0
        assert np.abs(values).max() < 10
        assert sentinels(values_with_sentinels(arrays, facts), known) == (~known).sum()


@every_objective
def test_what_stands_in_the_place_of_an_unknown_value_changes_no_output(
    many_windows: Path, objective: str, policy: str
) -> None:
    """Original: another sentinel was another input. Here states and losses are the same to the bit, whatever number
    lies under a flag that is 0."""
    model, facts = small_model(many_windows, objective, policy)
    model.eval()
    arrays = epochs_of(stream_of(many_windows, objective, policy))[0]
    other = {name: array.copy() for name, array in arrays.items()}
    for name, sentinel in (("rating", 14.0), ("completion", np.nan), ("time", 10**9), ("told_time", -1)):
        other[name][~arrays[f"{name}_known"]] = sentinel
    batches = [to_batch(each, all_rows(each), facts, CPU) for each in (arrays, other)]
    assert torch.equal(*(model(batch) for batch in batches))
    losses = [model.target_losses(batch) for batch in batches]
    assert all(torch.equal(losses[0][task][0], losses[1][task][0]) for task in losses[0])

    def state_with(sentinel: float) -> torch.Tensor:
        values = torch.from_numpy(values_with_sentinels(arrays, facts))
        values[..., 0][torch.from_numpy(~arrays["rating_known"])] = sentinel
        changed: Batch = dataclasses.replace(batches[0], value_BTC=values)
        return model(changed)

    assert not torch.equal(state_with(14.0), state_with(15.0))


@every_objective
def test_the_stored_code_of_a_missing_value_reaches_no_batch(many_windows: Path, objective: str, policy: str) -> None:
    """Original: the number in the file was the number in the layer. Stored as bytes (missing: 255) and as float32
    (missing: NaN), the same windows give the same batch."""
    manifest, stored = load_manifest(many_windows), stored_windows(many_windows)
    assert manifest.data_schema.rating.dtype == manifest.data_schema.completion.dtype == "uint8"
    as_floats = stored | {
        name: getattr(manifest.data_schema, name).decode(stored[name]) for name in ("rating", "completion")
    }
    floats = {"rating": FloatCode(dtype="float32"), "completion": FloatCode(dtype="float32")}
    number = np.arange(len(stored["item"]))
    made = []
    for fields, code in ((stored, {}), (as_floats, floats)):
        schema = manifest.data_schema.model_copy(update=code)
        config = StreamConfig(objective=objective, mask_policy=policy, batch_windows=1)  # type: ignore[arg-type]
        out = allocate_buffers(len(number), schema.window_len)
        Featurizer(manifest.model_copy(update={"data_schema": schema}), config).fill(
            fields, number, number, number, 0, out
        )
        made.append(out.arrays)
    assert (stored["rating"] == 255).any()
    for name in TOKEN_ARRAYS:
        np.testing.assert_array_equal(made[0][name], made[1][name], name)


# 9


def invented_ratings(batch: Arrays, shown: Arrays) -> NDArray[np.float32]:
    """Known ratings that are not those of the file."""
    found: NDArray[np.float32] = batch["rating"][batch["rating_known"] & (batch["rating"] != shown["rating"])]
    return found


@pytest.mark.parametrize("split", ["training", "validation"])
def test_only_the_seed_policy_invents_ratings_and_only_in_training(many_windows: Path, split: str) -> None:
    """Original: one masked rating in ten became a number of [0, 11), such as 10.7, which no user gives. Kept for
    `seed`, whose ratings are the check's proof; `disjoint` and the causal objective show no number but the file's."""
    manifest, stored = load_manifest(many_windows), stored_windows(many_windows, split)
    given = set(np.unique(manifest.data_schema.rating.decode(stored["rating"])).tolist())
    for objective, policy in OBJECTIVES:
        found = []
        stream = stream_of(many_windows, objective, policy, split=split)
        for batch in epochs_of(stream, 6):
            shown = windows_of(batch, stored, manifest)
            found += invented_ratings(batch, shown).tolist()
            asked = batch["weight_rating"] > 0
            assert set(batch["target_rating"][asked].tolist()) <= given, "a target is always a rating that was given"
        if policy == "seed" and split == "training":
            assert len(found) > 20
            assert 0 <= min(found) <= max(found) < manifest.data_schema.rating_max + 1
            assert not set(found) <= given
        else:
            assert found == []


# 10


def wrong_targets(asked: Arrays, shown: Arrays, manifest: Manifest, *, causal: bool) -> dict[str, int]:
    """How many targets are special tokens, another user's events, planned, or about another item than the event's;
    `asked` are the batch's arrays, `shown` the stored tokens."""
    about, at = shown, (asked["weight_item"] > 0) | (asked["weight_rating"] > 0)
    if causal:
        about = {name: np.roll(values, -1, axis=1) for name, values in shown.items()}
        about["user"][:, -1] = -1  # nothing follows in the window
    is_event = about["item"] < manifest.num_items
    return {
        "special": int((at & ~is_event).sum()),
        "of another user": int((at & (about["user"] != shown["user"])).sum()),
        "planned": int((at & is_event & (about["status"] == PLANNED)).sum()),
        "unrated": int(((asked["weight_rating"] > 0) & np.isnan(about["rating"])).sum()),
        "of another item": int((at & (asked["target_item"] != about["item"])).sum()),
    }


def careless_targets(batch: Arrays, shown: Arrays, *, causal: bool) -> Arrays:
    """As the original did at one time or another: whatever token follows, or is picked, is a label; a rating is one
    whatever its status."""
    about = {name: np.roll(values, -1, axis=1) for name, values in shown.items()} if causal else shown
    return {
        "weight_item": np.ones_like(batch["weight_item"]),
        "weight_rating": (~np.isnan(about["rating"])).astype(np.float32),
        "target_item": about["item"],
    }


@every_objective
@pytest.mark.parametrize("split", ["training", "validation"])
def test_targets_are_events_of_the_same_user_that_are_not_planned(
    many_windows: Path, objective: str, policy: str, split: str
) -> None:
    """Original: special tokens were taken as labels, planned events as targets, rated planned ones failed. Each was
    a bug once."""
    manifest, causal = load_manifest(many_windows), objective == "causal"
    stored = stored_windows(many_windows, split)
    careless: Counter[str] = Counter()
    num_items = num_ratings = 0
    for batch in epochs_of(stream_of(many_windows, objective, policy, split=split)):
        shown = windows_of(batch, stored, manifest)
        assert not any(wrong_targets(batch, shown, manifest, causal=causal).values())
        careless.update(wrong_targets(careless_targets(batch, shown, causal=causal), shown, manifest, causal=causal))
        num_items += (batch["weight_item"] > 0).sum()
        num_ratings += (batch["weight_rating"] > 0).sum()
    assert num_items > 10
    assert num_ratings > 10
    assert careless["special"] > 0
    assert careless["planned"] > 0
    assert (careless["of another user"] > 0) is causal


def watch_loss(model: EventTransformer, batch: Batch) -> float:
    return sum(float(loss) for task, loss in model.loss_sums(batch).items() if task.endswith("_watch"))


def loss_of_positives(model: EventTransformer, batch: Batch) -> float:
    """As a loss that knows the label 1 alone: the binary cross entropy of each target's own score."""
    state_ND, total = model(batch).flatten(0, 1), 0.0
    for task, targets in batch.targets.items():
        if task.endswith("_watch"):
            low = model.watch.medium_offsets[model.media.index(task.removesuffix("_watch"))]
            item = targets.item_N + low
            score = (state_ND[targets.token_N] * model.inputs.item.weight[item]).sum(-1) + model.watch.bias_V[item]
            total += float(nn.functional.softplus(-score).sum())
    return total


@every_objective
def test_saying_yes_to_every_item_gains_nothing(many_windows: Path, objective: str, policy: str) -> None:
    """Original: a task whose labels were all 1 was learned by scoring everything high. Here every other item of the
    medium counts against the target."""
    model, facts = small_model(many_windows, objective, policy)
    model.eval()
    arrays = epochs_of(stream_of(many_windows, objective, policy))[0]
    batch = to_batch(arrays, all_rows(arrays), facts, CPU)
    with torch.no_grad():
        before, positives_before = watch_loss(model, batch), loss_of_positives(model, batch)
        model.watch.bias_V += 30
        assert watch_loss(model, batch) == pytest.approx(before, rel=1e-4)
        assert loss_of_positives(model, batch) < 1e-3 * positives_before


def test_a_rating_of_zero_is_a_label_and_a_missing_one_is_none(tmp_path: Path) -> None:
    """Original: labels are 0 where there is no target, so that a rating of 0 looks like none. Here the weight says
    which is which."""
    lines = ["user,item,timestamp,rating"]
    ratings = ["0", "", "7", "0", "", "3"]
    for user in range(20):
        lines += [f"u{user},i{item},{1_300_000_000 + item},{rating}" for item, rating in enumerate(ratings)]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n", "utf-8")
    build_shards([str(tmp_path / "events.csv")], tmp_path / "data", window_len=7)
    users = load_manifest(tmp_path / "data").splits["training"].users
    labels = [
        batch["target_rating"][batch["weight_rating"] > 0].tolist() for batch in epochs_of(stream_of(tmp_path / "data"))
    ]
    assert Counter(label for of_batch in labels for label in of_batch) == {0.0: 2 * users, 7.0: users, 3.0: users}
