"""How much memory a run needs, and which option to lower if there is too little.

Weights, gradients and the optimizer's state are counted on a model on torch's `meta` device, which takes no
memory. The memory of a forward and backward pass is measured (`train/training/rehearsal.py`).
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from streamfeat.errors import ConfigError, RankError
from streamfeat.store.manifest import Manifest
from streamfeat.stream.featurize import TOKEN_ARRAYS
from streamfeat.stream.order import lanes_of_rank, num_lanes
from train.config import ModelConfig, TrainConfig, divisors
from train.devices.available import available_bytes, local_ranks
from train.devices.peak import give_back, held_bytes
from train.devices.ranks import World
from train.model.batch import BatchFacts
from train.model.matrices import linear_weights
from train.model.popularity import table_bytes
from train.model.transformer import EventTransformer
from train.terms.terms import Terms

# Memory of a producer process without its shard and without what processes share. RssAnon after the first shard was
# 118 to 119 MB on three invented datasets; the peak (VmHWM), with the code of libraries, was 254 MB.
_PRODUCER_BYTES = 120 * 10**6


@dataclass(frozen=True)
class MemoryNeeded:
    """Bytes that one rank needs at its peak, by purpose."""

    weights: int
    average: int  # of the weights over the steps
    gradients: int  # including the buffers in which ranks exchange them
    optimizer: int  # the two moments of AdamW; of matrices that Muon turns, one
    tables: int  # what is popular at each time
    batches: int  # off CUDA: the stream's arrays and the decoded chunks
    producers: int  # off CUDA: the processes that a live run starts
    saving: int  # a checkpoint's bytes; never at the same time as a pass
    activations: int = 0  # everything else that a pass needs; 0 before it is measured

    @property
    def total(self) -> int:
        """Bytes at the peak."""
        return self.lasting + max(self.activations, self.saving)

    @property
    def lasting(self) -> int:
        """Bytes that are held from the first step to the last."""
        parts = (self.weights, self.average, self.gradients, self.optimizer, self.tables, self.batches, self.producers)
        return sum(parts)


@dataclass(frozen=True)
class Memory:
    """What a rank needs and what is available, in bytes."""

    needed: MemoryNeeded
    available: int  # on the rank that has the least
    held: int  # by the process before the run allocates anything

    @property
    def fits(self) -> bool:
        return self.needed.total <= self.available

    @property
    def room(self) -> int:
        """Bytes that remain for a pass."""
        return self.available - self.needed.lasting

    def with_activations(self, num_bytes: int) -> "Memory":
        """A copy in which a pass needs `num_bytes`."""
        return replace(self, needed=replace(self.needed, activations=num_bytes))


def lasting_needs(manifest: Manifest, config: TrainConfig, world: World, terms: Terms | None = None) -> MemoryNeeded:
    """Bytes that a rank holds all the time, and those of saving; not those of a pass. Allocates nothing large."""
    with torch.device("meta"):
        model = EventTransformer.of(manifest, config, np.zeros(manifest.num_items, np.int64), terms)
    knows_popularity = BatchFacts.of(manifest, config, terms).knows_popularity
    weights = num_bytes(model.parameters())
    of_optimizer = 2 * weights - (num_bytes(linear_weights(model)) if config.optimizer == "muon" else 0)
    on_gpu = world.device.type == "cuda"
    return MemoryNeeded(
        weights=weights,
        average=weights if config.ema else 0,
        gradients=weights * (1 if world.size == 1 else 2),
        optimizer=of_optimizer,
        tables=table_bytes(terms, manifest.num_items, world.device) if knows_popularity else 0,
        batches=0 if on_gpu else _batch_bytes(manifest, config, world),
        producers=0 if on_gpu or not config.live else _producer_bytes(manifest, config),
        saving=0 if on_gpu else 2 * of_optimizer,  # the optimizer's state, as a copy and as the bytes of a file
    )


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the elements of `tensors`."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _batch_bytes(manifest: Manifest, config: TrainConfig, world: World) -> int:
    """Bytes of a rank's batches and chunks: the trainer holds one batch, one is ready, each thread fills one, and each
    lane holds two decoded chunks."""
    schema, batch_windows = manifest.data_schema, config.batch_windows(manifest.data_schema.window_len)
    in_batches = (config.threads + 2) * batch_windows // world.size
    of_batches = sum(np.dtype(dtype).itemsize for dtype in TOKEN_ARRAYS.values())
    lanes = len(lanes_of_rank(batch_windows, world.rank, world.size))
    in_chunks = 2 * lanes * manifest.splits["training"].chunk_windows
    return schema.window_len * (in_batches * of_batches + in_chunks * _stored_token_bytes(manifest))


def _producer_bytes(manifest: Manifest, config: TrainConfig) -> int:
    """A rank's share of all producers. Each holds a shard twice: as arrays and encoded."""
    shard_tokens = manifest.splits["training"].shard_windows * manifest.data_schema.window_len
    each = _PRODUCER_BYTES + 2 * shard_tokens * _stored_token_bytes(manifest)
    return config.num_producers() * each // local_ranks()


def _stored_token_bytes(manifest: Manifest) -> int:
    return sum(field.dtype.itemsize for field in manifest.data_schema.token_fields())


def check_lasting_needs(
    manifest: Manifest,
    config: TrainConfig,
    world: World,
    terms: Terms | None = None,
    *,
    resumed: bool = False,
    force: bool = False,
) -> Memory:
    """What a rank needs without a pass, and what is available on the rank with the least. All ranks must call it.

    Raises ConfigError if that is too little, unless `force` is set; the message has the numbers and what would fit.
    """
    give_back(world.device)
    held = held_bytes(world.device)
    available = int(world.concatenated(np.array([available_bytes(world.device)], np.int64)).min())
    memory = Memory(lasting_needs(manifest, config, world, terms), available, held)
    if not memory.fits and not force:
        raise too_large(memory, world, smaller_run(manifest, config, world, memory, terms, resumed=resumed))
    return memory


def too_large(memory: Memory, world: World, fitting: str) -> ConfigError:
    """The error for a run that needs more memory than there is. `fitting` says what to lower."""
    return ConfigError(f"{shortage(memory, world)}; {fitting}, or try it anyway with --force")


def shortage(memory: Memory, world: World) -> str:
    """The part of a message that says how much is needed, for what, and how much is available."""
    parts = {name: value for name, value in vars(memory.needed).items() if value}
    listed = ", ".join(f"{name} {_size(value)}" for name, value in parts.items())
    where = "the GPU" if world.device.type == "cuda" else "the machine"
    each = "the run" if world.size == 1 else "each rank"
    return f"{each} needs about {_size(memory.needed.total)} ({listed}), {where} has {_size(memory.available)} for it"


def smaller_run(
    manifest: Manifest,
    config: TrainConfig,
    world: World,
    memory: Memory,
    terms: Terms | None = None,
    *,
    resumed: bool = False,
) -> str:
    """What would fit with passes of one window, for a message: fewer processes, a smaller batch or a narrower model.

    `memory.needed.activations` must be those of one window. A narrower model is taken to need proportionally less. If
    they are 0, half of the available memory is left for them.
    """
    window_len, shape = manifest.data_schema.window_len, config.model
    lower = "start anew and lower" if resumed else "lower"  # a resumed run keeps its batches and its model
    activations, micro = memory.needed.activations, f"--micro-batch-tokens to {window_len}"

    def fits(width: int, **changes: object) -> bool:
        needed = lasting_needs(manifest, config.model_copy(update=changes), world, terms)
        of_pass = activations * width // shape.width if activations else memory.available // 2
        return replace(needed, activations=of_pass).total <= memory.available

    if memory.needed.producers > memory.needed.lasting // 2:
        workers = config.num_producers() // 2
        while workers >= 1:
            if fits(shape.width, live_workers=workers):
                return f"lower --live-workers to {workers} (now {config.num_producers()})"
            workers //= 2
    if memory.needed.batches > memory.needed.lasting // 2 and config.threads > 1 and fits(shape.width, threads=1):
        return f"lower --threads to 1 (now {config.threads})"
    tokens = config.batch_windows(window_len) * window_len // 2
    while tokens >= window_len * world.size:
        windows = config.model_copy(update={"batch_tokens": tokens}).batch_windows(window_len)
        if num_lanes(windows) % world.size == 0 and fits(shape.width, batch_tokens=tokens):
            return f"{lower} --batch-tokens to {tokens} (now {config.batch_tokens}) and {micro}"
        tokens //= 2
    for width in _narrower(shape):
        if fits(width, model=shape.model_copy(update={"width": width})):
            return f"{lower} --width to {width} (now {shape.width}) and {micro}"
    return "no width makes it fit: leave out rare items (build-shards --min-item-events) or take a larger machine"


def _narrower(shape: ModelConfig) -> Iterator[int]:
    """About a half of the width, a quarter, and so on; each is a multiple of the heads."""
    width = shape.width // 2 // shape.heads * shape.heads
    while width >= max(8, shape.heads):
        yield width
        width = width // 2 // shape.heads * shape.heads


@contextlib.contextmanager
def told_what_to_lower(config: TrainConfig, window_len: int, world: World) -> Iterator[None]:
    """Turns a failed allocation, on the device or the host, into an error that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        now, shape = config.micro_batch_windows(window_len, world.size), config.model
        smaller = next(iter(n for n in smaller_passes(config, window_len, world.size) if n <= now / 2), 0)
        what = (
            f"lower --micro-batch-tokens (now {now * window_len}) to {smaller * window_len}, which changes no batch; "
            "a saved run continues with --resume and that option"
            if smaller
            else f"passes are a single window already: start anew with a smaller --width (now {shape.width}; "
            f"{max(8, shape.width // 2)} halves it) or fewer --layers (now {shape.layers})"
        )
        message = (
            f"out of memory, with {now} windows of {window_len} tokens in a forward pass of {shape.layers} layers × "
            f"{shape.width}; {what}"
        )
        # The command line prints a ConfigError of rank 0 only. This error may come from any single rank.
        raise (ConfigError if world.is_first else RankError)(message) from error


def smaller_passes(config: TrainConfig, window_len: int, world_size: int) -> list[int]:
    """Windows of a pass below the present number, largest first; each divides a rank's share."""
    now, share = config.micro_batch_windows(window_len, world_size), config.batch_windows(window_len) // world_size
    return [n for n in reversed(divisors(share)) if n < now]


def is_lack_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or the host."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in said for words in ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
