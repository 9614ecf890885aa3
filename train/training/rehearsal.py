"""Measures the memory of one pass before the first step, on windows that need the most of it.

The pass leaves no trace: it changes no weight, keeps no gradient, and the random state is restored afterwards.
"""

import math
from collections.abc import Sequence

import numpy as np

from streamfeat.errors import DamagedError
from streamfeat.schema import PLANNED
from streamfeat.store.manifest import Manifest
from streamfeat.store.tables import read_user_columns
from streamfeat.stream.featurize import Arrays, allocate_buffers
from train.devices.memory import Memory, is_lack_of_memory, smaller_passes, smaller_run, too_large
from train.devices.peak import data_limit, give_back, held_bytes, peak_bytes, start_peak, within
from train.devices.ranks import World
from train.model.batch import BatchFacts
from train.runs.folder import Run
from train.training.update import Updater

# Lists of targets are padded by this factor (`train/model/targets.py`). With as many here, CUDA compiles the same graph
# that steps run.
_TARGET_ROOM = 1.2

# Off CUDA one pass is multiplied by this. glibc keeps freed blocks: over 30 steps the process grew to 1.05 to 1.56
# times what was expected without it, on six shapes (docs/design.md).
_KEPT_BY_ALLOCATOR = 1.3

# Off CUDA a pass of millions of tokens takes minutes before it fails. Two passes of these many tokens and twice as many
# show what to expect. The real pass is not tried if it needs this many times the memory that is there.
_SMALL_PASS_TOKENS = 4096
_HOPELESS = 2


def check_pass(run: Run, world: World, updater: Updater, memory: Memory, *, force: bool) -> Memory:
    """`memory` with the bytes of a pass, on the rank where it takes the most. All ranks must call it.

    Raises ConfigError if that is too much, unless `force` is set. The message names the option to lower.
    """
    manifest, now = run.manifest, updater.micro_windows
    window_len = manifest.data_schema.window_len
    longest = _longest_segment(run)
    # The model is allocated already; the gradients are allocated by the pass.
    there = max(held_bytes(world.device) - memory.held - memory.needed.weights - memory.needed.average, 0)
    limit = data_limit(world.device, memory.room + memory.needed.gradients - there)

    known: list[tuple[int, int]] = []  # windows and bytes of each pass that succeeded

    def measure(num_windows: int) -> int | None:
        arrays = crowded_windows(manifest, updater.facts, longest, num_windows)
        taken = _bytes_of_pass(updater, arrays, memory, limit)
        of_ranks = world.concatenated(np.array([-1 if taken is None else taken], np.int64))
        if of_ranks.min() < 0:
            return None
        known.append((num_windows, int(of_ranks.max())))
        return known[-1][1]

    few = max(1, _SMALL_PASS_TOKENS // window_len)
    if world.device.type != "cuda" and now > 4 * few and measure(few) is not None:
        measure(2 * few)
    hopeless = len(known) == 2 and _expected(known, now) >= _HOPELESS * memory.room
    taken = None if hopeless else measure(now)
    if taken is not None and memory.with_activations(taken).fits:
        return memory.with_activations(taken)
    # The message names only a size that was tried. If no pass succeeded, the next one has at most half the windows.
    fitting, tried, found = 0, now, taken
    for num_windows in smaller_passes(run.config, window_len, world.size):
        if _expected(known, num_windows) > memory.room if known else num_windows > tried // 2:
            continue
        tried, found = num_windows, measure(num_windows)
        if found is not None and memory.with_activations(found).fits:
            fitting = num_windows
            break
    if taken is None:  # if no pass succeeded, one byte more than there is
        taken = _expected(known, now) if known else max(memory.room, 0) + 1
    needed = memory.with_activations(taken)
    if force:
        return needed
    if fitting:
        lower = f"lower --micro-batch-tokens to {fitting * window_len} (now {now * window_len}), which changes no batch"
    else:
        of_one = memory.with_activations(found or 0)
        lower = smaller_run(manifest, run.config, world, of_one, updater.facts.terms, resumed=run.resumed)
    raise too_large(needed, world, lower)


def _expected(known: Sequence[tuple[int, int]], num_windows: int) -> int:
    """Bytes of a pass of `num_windows`, from the `known` passes (windows, bytes): in proportion to a single one, or on
    the line through the smallest and the largest."""
    (low, low_bytes), (high, high_bytes) = min(known), max(known)
    if low == high:
        return low_bytes * num_windows // low
    return low_bytes + max(high_bytes - low_bytes, 0) * (num_windows - low) // (high - low)


def crowded_windows(manifest: Manifest, facts: BatchFacts, longest: int, num_windows: int) -> Arrays:
    """A batch in which every segment is as long as the longest of training, because pairs of tokens grow with the
    square of a segment's length. Each task has about as many targets as in a real batch."""
    schema = manifest.data_schema
    place = np.arange(schema.window_len)
    arrays = allocate_buffers(num_windows, schema.window_len, np.zeros).arrays
    arrays["segment"][:] = place // longest
    arrays["position"][:] = np.minimum(place % longest, schema.window_len - 1)
    arrays["status"][:] = PLANNED + 1
    arrays["time"][:] = arrays["told_time"][:] = manifest.time_min + place
    for name in ("time_known", "told_time_known", "rating_known", "completion_known"):
        arrays[name][:] = True
    arrays["slot"][:] = arrays["window"][:] = np.arange(num_windows)
    shares = [(facts.target_shares[f"{name}_watch"], facts.target_shares[f"{name}_rating"]) for name in schema.media]
    room = min(_TARGET_ROOM, 1 / max(sum(max(pair) for pair in shares), 1e-9))
    names = ("medium", "item", "target_item", "weight_item", "weight_rating")
    flat = {name: arrays[name].reshape(-1) for name in names}
    first = 0
    for medium, (watch, rating) in enumerate(shares):
        low, high = schema.medium_offsets[medium : medium + 2]
        watches, ratings = (math.ceil(room * share * flat["item"].size) for share in (watch, rating))
        tokens = slice(first, first + max(watches, ratings))
        flat["medium"][tokens] = medium
        items = flat["item"][tokens]
        items[:] = flat["target_item"][tokens] = low + np.arange(len(items)) % max(high - low, 1)
        flat["weight_item"][first : first + watches] = 1
        flat["weight_rating"][first : first + ratings] = 1
        first = tokens.stop
    return arrays


def _longest_segment(run: Run) -> int:
    """Tokens of the longest segment in any training window."""
    config = run.manifest.config
    most = min(config.max_crop_len, config.window_len)
    try:
        events = read_user_columns(run.dataset, ["training_events"])["training_events"].to_numpy()
    except DamagedError:  # training itself does not read the users
        return most
    return min(int(events.max(initial=1)) + 1, most)  # and CLS


def _bytes_of_pass(updater: Updater, arrays: Arrays, memory: Memory, limit: int | None) -> int | None:
    """Bytes of a pass without weights, gradients and the optimizer's state; None if memory is too small."""
    device = updater.device
    give_back(device)
    start_peak(device)
    try:
        with within(limit):
            updater.rehearse(arrays)
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        return None
    taken = max(peak_bytes(device) - memory.held - 2 * memory.needed.weights - memory.needed.average, 0)
    return taken if device.type == "cuda" else round(_KEPT_BY_ALLOCATOR * taken)
