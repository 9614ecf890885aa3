"""Measures the memory of one pass before the first step, on windows that need the most of it.

The pass leaves no trace: it changes no weight, keeps no gradient, and the random state is restored afterwards.
"""

import math
from collections.abc import Callable

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
    there = max(held_bytes(world.device) - memory.held - memory.needed.weights, 0)
    limit = data_limit(world.device, memory.room + memory.needed.gradients - there)

    def measure(num_windows: int) -> int | None:
        arrays = crowded_windows(manifest, updater.facts, longest, num_windows)
        taken = _bytes_of_pass(updater, arrays, memory, limit)
        of_ranks = world.concatenated(np.array([-1 if taken is None else taken], np.int64))
        return None if of_ranks.min() < 0 else int(of_ranks.max())

    expected = _line(measure, now, window_len) if world.device.type != "cuda" else None
    taken = None
    if expected is None or expected(now) < _HOPELESS * memory.room:
        taken = measure(now)
    if taken is not None and memory.with_activations(taken).fits:
        return memory.with_activations(taken)
    # The message names only a size that was tried. Without an expectation the first guess is proportional to what was
    # measured, or a half if nothing was.
    fitting, tried, found = 0, now, taken
    for num_windows in smaller_passes(run.config, window_len, world.size):
        if expected is not None:
            guess: float | None = expected(num_windows)
        else:
            guess = None if found is None else found * num_windows // tried
        if num_windows > tried // 2 if guess is None else guess > memory.room:
            continue
        tried, found = num_windows, measure(num_windows)
        if found is not None and memory.with_activations(found).fits:
            fitting = num_windows
            break
    if taken is None and expected is not None:
        taken = round(expected(now))
    if taken is None:  # proportional; if no pass succeeded, one byte more than there is
        taken = max(memory.room, 0) + 1 if found is None else found * now // tried
    needed = memory.with_activations(taken)
    if force:
        return needed
    if fitting:
        lower = f"lower --micro-batch-tokens to {fitting * window_len} (now {now * window_len}), which changes no batch"
    else:
        of_one = memory.with_activations(found or 0)
        lower = smaller_run(manifest, run.config, world, of_one, resumed=run.resumed)
    raise too_large(needed, world, lower)


def _line(measure: Callable[[int], int | None], now: int, window_len: int) -> Callable[[int], float] | None:
    """A function from a number of windows to the expected bytes of a pass, from two small passes.

    None if the real pass is small itself, or if even the small ones do not fit.
    """
    few = max(1, _SMALL_PASS_TOKENS // window_len)
    if now <= 4 * few:
        return None
    low, high = measure(few), measure(2 * few)
    if low is None or high is None:
        return None
    slope = max(high - low, 0) / few
    return lambda num_windows: low + slope * (num_windows - few)


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
    taken = max(peak_bytes(device) - memory.held - 2 * memory.needed.weights, 0)
    return taken if device.type == "cuda" else round(_KEPT_BY_ALLOCATOR * taken)
