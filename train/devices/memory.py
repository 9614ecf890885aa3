"""The memory that a run needs, known before it takes any; and what to lower, by how much, where there is too little.

The formulas follow the model's tensors; tests/train/devices/test_memory.py holds them to measured peaks.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from streamfeat.errors import ConfigError, RankError
from streamfeat.store.manifest import Manifest
from streamfeat.stream.order import lanes_of_rank, num_lanes
from train.config import TrainConfig, divisors
from train.devices.available import available_bytes, held_bytes
from train.devices.ranks import World
from train.model.batch import NUM_GAPS, BatchFacts
from train.model.inputs import num_tokens_of
from train.model.loss import rows_at_a_time

# Code, caches of kernels and threads that the first step brings in, off CUDA: 130-150 MB measured with torch 2.13.
_RUNTIME_BYTES = 150 * 10**6
# glibc keeps freed blocks: peaks were 1.3 times those with every block given back (MALLOC_MMAP_THRESHOLD_=65536).
_KEPT_BY_ALLOCATOR = 1.3
_SLOTS_PER_TOKEN = 1.15  # segments padded to buckets of similar length
_BATCH_TOKEN_BYTES = 68  # of the stream's arrays, over all fields
_CHUNK_TOKEN_BYTES = 25  # of a decoded chunk


@dataclass(frozen=True)
class MemoryNeeded:
    """Bytes that one rank takes at its largest, by purpose."""

    weights: int
    gradients: int  # with what ranks exchange them in
    optimizer: int
    activations: int  # of one forward pass, and what its backward pass holds beside them
    logits: int  # rows of logits in work, and gradients of the item table
    batches: int  # micro-batches as tensors, and off CUDA the stream's arrays
    saving: int  # a checkpoint's bytes; not at the same time as a pass
    runtime: int

    @property
    def total(self) -> int:
        """At the largest moment."""
        state = self.weights + self.gradients + self.optimizer + self.runtime
        return state + max(self.activations + self.logits + self.batches, self.saving + self.batches)


@dataclass(frozen=True)
class Memory:
    """What a rank needs and what it can have, in bytes."""

    needed: MemoryNeeded
    available: int
    held: int  # already, before any of it

    @property
    def fits(self) -> bool:
        return self.needed.total <= self.available


def estimate(manifest: Manifest, config: TrainConfig, world_size: int, device_type: str) -> MemoryNeeded:
    """What a rank needs on a device of that type, `cuda` or `cpu`."""
    on_gpu, num_weights = device_type == "cuda", num_parameters(manifest, config)
    of_passes = _on_gpu if on_gpu else _on_cpu
    activations, logits, batches = of_passes(manifest, config, world_size)
    return MemoryNeeded(
        weights=4 * num_weights,
        gradients=4 * num_weights * (1 if world_size == 1 else 2),
        optimizer=8 * num_weights,
        activations=round(activations),
        logits=round(logits),
        batches=round(batches),
        saving=0 if on_gpu else 16 * num_weights,
        runtime=0 if on_gpu else _RUNTIME_BYTES,
    )


def _on_gpu(manifest: Manifest, config: TrainConfig, world_size: int) -> tuple[float, float, float]:
    """Bytes of activations, logits and batches; what the stream holds is the host's. Compiled, under autocast;
    held to five peaks of torch 2.11 on an H200, taken before attention had kernels of its own."""
    facts, shape = BatchFacts.of(manifest, config), config.model
    width, hidden = shape.width, round(shape.feed_forward * shape.width)
    micro = config.micro_batch_windows(facts.schema.window_len, world_size) * facts.schema.window_len
    watches, ratings = _targets_of(facts, micro)
    # The stream in float32, before attention and after; norms, queries, keys, values and what comes of them in
    # bfloat16; dropout's masks in bytes.
    layer = 24 * width + 7 * hidden + 4 * shape.heads
    activations = micro * (shape.layers * layer + 12 * width) + width * (8 * watches + 20 * ratings)
    # The compiler gives the softmax, its gradients and what is scattered into them buffers of their own: 8.5 to 11.6
    # were measured.
    logits = 10 * 4 * _largest_logits(facts, "cuda") + 4 * facts.schema.num_items * width
    return activations, logits, 2 * micro * (64 + 8 * facts.num_values)


def _on_cpu(manifest: Manifest, config: TrainConfig, world_size: int) -> tuple[float, float, float]:
    """Bytes of activations, logits and batches."""
    facts, shape = BatchFacts.of(manifest, config), config.model
    window_len, width, heads = facts.schema.window_len, shape.width, shape.heads
    hidden = round(shape.feed_forward * width)
    share = config.batch_windows(window_len) // world_size
    micro = config.micro_batch_windows(window_len, world_size) * window_len
    watches, ratings = _targets_of(facts, micro)
    pairs, terms = _pairs_per_token(manifest), 3 if facts.relative else 0
    # Values of 4 bytes that the backward pass reads: norms, masks and residuals; queries, keys and values; SwiGLU.
    layer = 10 * width + 3 * _SLOTS_PER_TOKEN * width + 5 * hidden + heads * pairs
    # The backward pass of a layer holds gradients of its own beside all that was kept.
    backward = 3 * hidden + 4 * _SLOTS_PER_TOKEN * width + heads * pairs
    outside = 6 * width + 2 * facts.num_values
    activations = micro * (shape.layers * layer + backward + outside) + width * (2 * watches + 10 * ratings)
    logits = _largest_logits(facts, "cpu") + 4 * facts.schema.num_items * width
    batches = (config.threads + 2) * share * window_len * _BATCH_TOKEN_BYTES
    lanes = len(lanes_of_rank(config.batch_windows(window_len), 0, world_size))
    batches += 2 * lanes * manifest.splits["training"].chunk_windows * window_len * _CHUNK_TOKEN_BYTES
    # Of a micro-batch: its fields, indices of 8 bytes, the bias terms of pairs and how they are made.
    indices = 8 * heads * (3 * _SLOTS_PER_TOKEN + 4) + 24
    of_pass = micro * (64 + 8 * facts.num_values + indices + pairs * (4 + 4 * terms + 13))
    return (
        _KEPT_BY_ALLOCATOR * 4 * activations,
        _KEPT_BY_ALLOCATOR * 4 * logits,
        _KEPT_BY_ALLOCATOR * (batches + of_pass),
    )


def _targets_of(facts: BatchFacts, tokens: int) -> tuple[float, float]:
    """About how many watch and rating targets that many tokens have."""
    shares = facts.target_shares.items()
    return (
        sum(tokens * share for task, share in shares if task.endswith("_watch")),
        sum(tokens * share for task, share in shares if task.endswith("_rating")),
    )


def _largest_logits(facts: BatchFacts, device_type: str) -> int:
    """Logits that are held at once, of the medium with the most."""
    sizes: list[int] = np.diff(facts.schema.medium_offsets).tolist()
    return max(rows_at_a_time(device_type, size) * size for size in sizes)


def num_parameters(manifest: Manifest, config: TrainConfig) -> int:
    """Numbers that `EventTransformer` learns, without making one."""
    facts, shape, schema = BatchFacts.of(manifest, config), config.model, manifest.data_schema
    width, hidden = shape.width, round(shape.feed_forward * shape.width)
    rows = num_tokens_of(schema.num_items) + num_tokens_of(len(schema.media)) + schema.status_tokens.empty + 1
    rows += NUM_GAPS if facts.relative else num_tokens_of(schema.window_len)
    rows += 2 * facts.num_values + (NUM_GAPS if facts.causal else 0)
    layer = 2 * width + 4 * width**2 + 3 * width * hidden + (3 * shape.heads if facts.relative else 0)
    heads = 2 * schema.num_items + 4 * width**2 + width
    return rows * width + shape.layers * layer + width + heads


def check_memory(
    manifest: Manifest, config: TrainConfig, world: World, *, resumed: bool = False, force: bool = False
) -> Memory:
    """What a rank needs, and what the rank with the least can have. Called by all ranks alike.

    Raises ConfigError, with the numbers and what would fit, where it is too little, unless `force` is set.
    """
    needed = estimate(manifest, config, world.size, world.device.type)
    available = int(world.concatenated(np.array([available_bytes(world.device)], np.int64)).min())
    memory = Memory(needed, available, held_bytes(world.device))
    if not memory.fits and not force:
        fitting = remedy(manifest, config, world, available, resumed=resumed)
        raise ConfigError(f"{shortage(memory, world)}; {fitting}, or try all the same with --force")
    return memory


def shortage(memory: Memory, world: World) -> str:
    """The numbers, in words."""
    parts = {name: value for name, value in vars(memory.needed).items() if value}
    listed = ", ".join(f"{name} {_size(value)}" for name, value in parts.items())
    where = "the GPU" if world.device.type == "cuda" else "the machine"
    each = "the run" if world.size == 1 else "each rank"
    return f"{each} needs about {_size(memory.needed.total)} ({listed}), {where} has {_size(memory.available)} for it"


def remedy(manifest: Manifest, config: TrainConfig, world: World, available: int, *, resumed: bool = False) -> str:
    """What would fit: smaller passes, which change no batch, else a smaller batch, else a narrower model."""
    window_len, shape = manifest.data_schema.window_len, config.model
    lower = "start anew and lower" if resumed else "lower"  # a run that goes on keeps its batches and its model

    def fits(**changes: object) -> bool:
        return estimate(manifest, config.model_copy(update=changes), world.size, world.device.type).total <= available

    now = config.micro_batch_windows(window_len, world.size)
    for windows in _smaller_passes(config, window_len, world.size):
        if fits(micro_batch_tokens=windows * window_len):
            return (
                f"lower --micro-batch-tokens to {windows * window_len} (now {now * window_len}), which changes no batch"
            )
    tokens = config.batch_windows(window_len) * window_len // 2
    while tokens >= window_len * world.size:
        windows = config.model_copy(update={"batch_tokens": tokens}).batch_windows(window_len)
        is_shared = num_lanes(windows) % world.size == 0
        if is_shared and fits(batch_tokens=tokens, micro_batch_tokens=window_len):
            micro = f"--micro-batch-tokens to {window_len}"
            return f"{lower} --batch-tokens to {tokens} (now {config.batch_tokens}) and {micro}"
        tokens //= 2
    width = shape.width // 2 // shape.heads * shape.heads
    while width >= max(8, shape.heads):
        if fits(model=shape.model_copy(update={"width": width}), micro_batch_tokens=window_len):
            return f"{lower} --width to {width} (now {shape.width}) and --micro-batch-tokens to {window_len}"
        width = width // 2 // shape.heads * shape.heads
    return "no width makes it fit: leave out rare items (build-shards --min-item-events) or take a larger machine"


@contextlib.contextmanager
def told_what_to_lower(config: TrainConfig, window_len: int, world: World) -> Iterator[None]:
    """Turn an allocation that failed, on the device or the host, into an error that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_of_memory(error):
            raise
        now, shape = config.micro_batch_windows(window_len, world.size), config.model
        smaller = next(iter(n for n in _smaller_passes(config, window_len, world.size) if n <= now / 2), 0)
        what = (
            f"lower --micro-batch-tokens (now {now * window_len}) to {smaller * window_len}, which changes no batch; "
            "a run that was saved goes on with --resume and that option"
            if smaller
            else f"passes are a single window already: start anew with a smaller --width (now {shape.width}; "
            f"{max(8, shape.width // 2)} halves it) or fewer --layers (now {shape.layers})"
        )
        message = (
            f"out of memory, with {now} windows of {window_len} tokens in a forward pass of {shape.layers} layers × "
            f"{shape.width}; {what}"
        )
        # Of errors that all ranks may make alike, the command line prints rank 0's alone; this one is not such.
        raise (ConfigError if world.is_first else RankError)(message) from error


def _smaller_passes(config: TrainConfig, window_len: int, world_size: int) -> list[int]:
    """Windows of a pass below the present number, largest first; each divides a rank's share."""
    now, share = config.micro_batch_windows(window_len, world_size), config.batch_windows(window_len) // world_size
    return [n for n in reversed(divisors(share)) if n < now]


def _pairs_per_token(manifest: Manifest) -> float:
    """Tokens that a token's segment holds, on average over tokens, padding included.

    Twice the mean history, as if lengths were spread exponentially, less what windows cut off; on invented
    histories of mean 61 and 376 in windows of 256 and 1024, 98 and 550 where 110 and 440 were measured.
    """
    training, window_len = manifest.splits["training"], manifest.data_schema.window_len
    mean = training.tokens / max(1, training.users)
    return min(window_len, 2 * mean * window_len / (window_len + mean))


def _is_of_memory(error: BaseException) -> bool:
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in said for words in ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    )


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.0f} MB"
