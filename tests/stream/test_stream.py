"""`WindowStream` on a built dataset: its batches and their order, resumed, stopped early, and on damaged files."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from edited_manifests import edit_manifest
from numpy.typing import NDArray
from reference_objectives import Facts, Token, epoch_batches, featurize

from streamfeat import WindowStream, load_manifest
from streamfeat.errors import ConfigError, DamagedError, FormatVersionError
from streamfeat.stream.chunks import ChunkPool
from streamfeat.stream.featurize import TOKEN_ARRAYS, WINDOW_ARRAYS, Featurizer

Arrays = dict[str, NDArray[Any]]


def stream_of(dataset: Path, **options: Any) -> WindowStream:
    defaults: dict[str, Any] = {"objective": "causal", "batch_windows": 8, "seed": 3, "copy": True}
    return WindowStream(dataset, **(defaults | options))


def epochs_of(stream: WindowStream, num_epochs: int) -> list[Arrays]:
    return [batch for _ in range(num_epochs) for batch in stream]


def assert_same(first: list[Arrays], second: list[Arrays]) -> None:
    assert len(first) == len(second)
    for i, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], f"{name} of batch {i}")


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("streamfeat")]


@pytest.fixture
def damageable(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that a test may break."""
    return shutil.copytree(dataset, tmp_path / "copy")


def stored_tokens(dataset: Path, split: str, packing: int) -> list[list[Token]]:
    """The windows of a packing as zarr-python reads them, decoded."""
    schema = load_manifest(dataset).data_schema
    group = zarr.open_group(str(dataset / "windows.zarr" / split / str(packing)), mode="r")
    fields = {name: np.asarray(group[name]) for name in Token._fields}
    fields["rating"] = schema.rating.decode(fields["rating"])
    fields["completion"] = schema.completion.decode(fields["completion"])
    num_windows, window_len = fields["item"].shape
    return [
        [Token(**{name: fields[name][w, t].item() for name in Token._fields}) for t in range(window_len)]
        for w in range(num_windows)
    ]


@pytest.mark.parametrize("split", ["training", "validation"])
@pytest.mark.parametrize(("objective", "policy"), [("causal", "disjoint"), ("masked", "disjoint"), ("masked", "seed")])
def test_batches_are_the_stored_windows_in_order_under_the_objective(
    dataset: Path, objective: str, policy: str, split: str
) -> None:
    """Two epochs, every array: the twins' order, packing e in epoch e, masks of (seed, epoch, window, token).
    Validation always reads packing 0 with order and masks of epoch 0."""
    manifest = load_manifest(dataset)
    schema, counts = manifest.data_schema, manifest.splits[split]  # type: ignore[index]
    facts = Facts(schema.medium_offsets, schema.num_users, schema.window_len, schema.rating_max,
                  manifest.time_min, manifest.time_max)  # fmt: skip
    stream = stream_of(dataset, objective=objective, mask_policy=policy, split=split)
    for epoch in (0, 1):
        used = 0 if split == "validation" else epoch
        tokens = stored_tokens(dataset, split, used)
        order = epoch_batches(
            seed=3, split=split, epoch=used, num_windows=counts.windows, chunk_windows=counts.chunk_windows,
            shard_windows=counts.shard_windows, batch_windows=8,
        )  # fmt: skip
        batches = list(stream)
        assert [batch["window"].tolist() for batch in batches] == order
        for batch in batches:
            assert batch["slot"].tolist() == list(range(8))
            for row, window in enumerate(batch["window"].tolist()):
                expected = featurize(
                    [facts.pad()] * facts.window_len if window < 0 else tokens[window], facts, objective=objective,
                    policy=policy, split=split, seed=3, epoch=used, window=window,
                )  # fmt: skip
                for name, values in expected.items():
                    np.testing.assert_array_equal(batch[name][row], np.array(values, TOKEN_ARRAYS[name]), name)


def test_a_batch_has_every_array_in_its_dtype(dataset: Path) -> None:
    """Each token array (rows, window_len), each window array (rows,), C-contiguous."""
    for batch in stream_of(dataset, copy=False, world_size=2):
        assert batch.keys() == TOKEN_ARRAYS.keys() | WINDOW_ARRAYS.keys()
        for name, dtype in (TOKEN_ARRAYS | WINDOW_ARRAYS).items():
            assert batch[name].dtype == dtype
            assert batch[name].shape == ((4, 16) if name in TOKEN_ARRAYS else (4,))
            assert batch[name].flags.c_contiguous


@pytest.mark.parametrize("batch_windows", [1, 6, 64])
def test_the_batches_are_the_same_for_any_number_of_threads(dataset: Path, batch_windows: int) -> None:
    """1, 2 and 5 threads, for small batches, and for ones that span several rounds."""
    expected = epochs_of(stream_of(dataset, batch_windows=batch_windows), 2)
    for threads in (2, 5):
        assert_same(expected, epochs_of(stream_of(dataset, batch_windows=batch_windows, threads=threads), 2))


@pytest.mark.parametrize("slow", ["decode", "fill"])
def test_threads_that_fall_behind_change_no_batch(dataset: Path, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    """A chunk's memory is not reused while a batch still reads it, and a batch is not made before its chunks are
    decoded."""
    expected = epochs_of(stream_of(dataset, batch_windows=2), 1)
    place = {"decode": ChunkPool, "fill": Featurizer}[slow]
    work, calls = getattr(place, slow), count()

    def late(*args: Any) -> None:
        if next(calls) % 3 == 0:
            time.sleep(0.01)
        work(*args)

    monkeypatch.setattr(place, slow, late)
    assert_same(expected, epochs_of(stream_of(dataset, batch_windows=2, threads=4), 1))


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_ranks_together_deliver_the_same_global_batches(dataset: Path, world_size: int) -> None:
    """Every rank does the same number of steps; in their slots, the rows equal those of one rank."""
    alone = epochs_of(stream_of(dataset, objective="masked"), 2)
    ranks = [
        epochs_of(stream_of(dataset, objective="masked", rank=rank, world_size=world_size), 2)
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {len(alone)}
    for step, batch in enumerate(alone):
        slots = np.concatenate([batches[step]["slot"] for batches in ranks])
        for name, values in batch.items():
            together = np.concatenate([batches[step][name] for batches in ranks])
            np.testing.assert_array_equal(together[np.argsort(slots)], values, name)


def test_a_full_chunk_is_decoded_by_one_rank_once(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the chunks of the last round may be read by two ranks; no rank reads a chunk twice in an epoch."""
    decoded: list[int] = []
    decode = ChunkPool.decode
    monkeypatch.setattr(
        ChunkPool, "decode", lambda pool, chunk, slot: (decoded.append(chunk), decode(pool, chunk, slot))[1]
    )
    by_rank = []
    for rank in (0, 1):
        decoded.clear()
        epochs_of(stream_of(dataset, rank=rank, world_size=2), 1)
        assert len(set(decoded)) == len(decoded)
        by_rank.append(set(decoded))
    counts = load_manifest(dataset).splits["training"]
    num_chunks = -(-counts.windows // counts.chunk_windows)
    assert by_rank[0] | by_rank[1] == set(range(num_chunks))
    left_over = num_chunks - counts.windows // counts.chunk_windows // 8 * 8
    assert len(by_rank[0] & by_rank[1]) <= left_over < num_chunks / 2


@pytest.mark.parametrize("threads", [1, 3])
def test_a_resumed_stream_goes_on_after_exactly_the_batches_delivered(dataset: Path, threads: int) -> None:
    """Saved as JSON before every batch of two epochs, also at the end of an epoch. The rest is compared, with another
    number of threads, over three epochs."""
    whole = epochs_of(stream_of(dataset, objective="masked"), 3)
    saving = stream_of(dataset, objective="masked", threads=threads)
    states = [saving.state_dict()]
    for _ in range(2):
        for _batch in saving:
            states.append(saving.state_dict())
    assert [state["position"] for state in states] == list(range(len(whole) * 2 // 3 + 1))
    for position, state in enumerate(states):
        resumed = stream_of(dataset, objective="masked", threads=4 - threads)
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert resumed.position == position
        assert_same(whole[position : position + 12], list(islice(_endless(resumed), 12))[: len(whole) - position])


def _endless(stream: WindowStream) -> Iterator[Arrays]:
    while True:
        yield from stream


def test_the_batch_after_an_epochs_last_is_the_next_epochs_first(dataset: Path) -> None:
    """Whether the loop ran to its end or stopped at the last batch: no epoch is skipped or repeated."""
    expected = epochs_of(stream_of(dataset), 2)
    num_steps = len(expected) // 2
    ended, broken = stream_of(dataset), stream_of(dataset)
    assert len(list(ended)) == ended.position == ended.steps_per_epoch == num_steps
    for _ in islice(broken, num_steps):
        pass
    assert broken.position == num_steps
    assert_same(list(ended), expected[num_steps:])
    assert_same(list(broken), expected[num_steps:])


def test_an_abandoned_iteration_leaves_no_thread_and_goes_on_where_it_stopped(dataset: Path) -> None:
    """A state counts delivered batches, not prefetched ones."""
    expected = epochs_of(stream_of(dataset), 1)
    stream = stream_of(dataset, threads=3)
    for _batch in stream:
        if stream.position == 2:
            break
    assert not threads_left()
    assert stream.state_dict()["position"] == 2
    assert_same(list(stream), expected[2:])
    assert not threads_left()


def test_a_new_iteration_ends_the_one_before(dataset: Path) -> None:
    """Otherwise they would share memory and position."""
    expected = epochs_of(stream_of(dataset), 1)
    stream = stream_of(dataset)
    first = iter(stream)
    next(first)
    assert_same(list(stream), expected[1:])
    assert list(first) == []


def test_a_closed_stream_has_no_thread_and_can_be_read_again(dataset: Path) -> None:
    """`close` and the end of a `with` block end the current iteration."""
    with stream_of(dataset, threads=2) as stream:
        batches = iter(stream)
        next(batches)
        assert threads_left()
    assert not threads_left()
    assert list(batches) == []
    assert len(list(stream)) == stream.steps_per_epoch - 1


def test_batches_live_in_reused_memory_until_the_next_one(dataset: Path) -> None:
    """threads + 2 buffers in turn. A batch does not change while it is held."""
    expected = epochs_of(stream_of(dataset), 1)
    places = []
    for batch, copy in zip(stream_of(dataset, copy=False, threads=2), expected, strict=True):
        places.append(batch["item"].ctypes.data)
        assert_same([batch], [copy])
    assert len(set(places)) == 4
    assert all(one != other for one, other in pairwise(places))


def test_copies_stay_valid(dataset: Path) -> None:
    """With copy=True batches may be kept: none shares memory with another."""
    batches = epochs_of(stream_of(dataset), 1)
    assert not any(
        np.shares_memory(one["item"], other["item"]) for one in batches for other in batches if one is not other
    )


def test_batches_are_made_in_the_memory_that_the_caller_allocates(dataset: Path) -> None:
    """For instance pinned memory: every array of every batch, allocated once."""
    allocated: list[NDArray[Any]] = []

    def allocate(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        allocated.append(np.full(shape, 99, dtype))
        return allocated[-1]

    stream = stream_of(dataset, copy=False, allocate=allocate)
    for _ in range(2):
        for batch in stream:
            assert all(any(array is own for own in allocated) for array in batch.values())
    assert len(allocated) == 3 * len(TOKEN_ARRAYS | WINDOW_ARRAYS)


def test_an_epoch_reads_its_own_packing_and_a_run_keeps_the_number_it_began_with(
    dataset: Path, damageable: Path
) -> None:
    """Epoch e reads packing e modulo their number. Packings added later do not change a resumed run."""
    users = [batch["user"] for batch in epochs_of(stream_of(dataset), 3)]
    num_steps = len(users) // 3
    by_epoch = [sorted(np.concatenate(users[e * num_steps : (e + 1) * num_steps]).tolist()) for e in range(3)]
    assert by_epoch[0] == by_epoch[2] != by_epoch[1]

    edit_manifest(damageable, lambda values: values["splits"]["training"].update(packings=1))
    began = stream_of(damageable)
    state = began.state_dict()
    resumed = stream_of(dataset)
    resumed.load_state_dict(state)
    assert_same(epochs_of(resumed, 2), epochs_of(began, 2))
    state["packings"] = 3
    with pytest.raises(ConfigError, match=r"3 packings \(here 2\).*--packings 3"):
        resumed.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "other"),
    [("seed", 4), ("batch_windows", 16), ("split", "validation"), ("objective", "causal"), ("mask_policy", "seed")],
)
def test_the_state_of_another_stream_is_refused_with_both_values(dataset: Path, name: str, other: Any) -> None:
    """Each part of the identity."""
    stream = stream_of(dataset, objective="masked")
    state = stream_of(dataset, **({"objective": "masked"} | {name: other})).state_dict()
    with pytest.raises(ConfigError) as refused:
        stream.load_state_dict(state)
    assert f"{name} {other!r} (here {getattr(stream.config, name)!r})" in str(refused.value)
    assert stream.position == 0


def test_the_state_of_another_dataset_is_refused_with_both_fingerprints(dataset: Path, tiny_dataset: Path) -> None:
    """The data changed after the position was saved."""
    state = stream_of(tiny_dataset).state_dict()
    with pytest.raises(ConfigError) as refused:
        stream_of(dataset).load_state_dict(state)
    for path in (dataset, tiny_dataset):
        assert load_manifest(path).fingerprint in str(refused.value)


def test_what_is_no_stream_state_is_refused(dataset: Path) -> None:
    """Unknown keys (with the closest name), missing and impossible values."""
    stream = stream_of(dataset)
    state = stream.state_dict()
    for change, named in (({"positoin": 3}, "did you mean 'position'"), ({"position": -1}, "position"),
                          ({"format": 0}, "format")):  # fmt: skip
        with pytest.raises(ConfigError, match=named):
            stream.load_state_dict(state | change)
    with pytest.raises(FormatVersionError, match="format 2, but this streamfeat reads up to 1; upgrade"):
        stream.load_state_dict(state | {"format": 2})


def test_a_policy_counts_under_the_masked_objective_only(dataset: Path) -> None:
    """The causal objective has no masks, so a state saved with another policy fits."""
    state = stream_of(dataset, mask_policy="seed").state_dict() | {"position": 2}
    stream = stream_of(dataset)
    stream.load_state_dict(state)
    assert stream.position == 2


def test_loading_a_state_ends_the_iteration_under_way(dataset: Path) -> None:
    """Batches that were prefetched for the old position are not delivered."""
    expected = epochs_of(stream_of(dataset), 1)
    stream = stream_of(dataset)
    start = stream.state_dict()
    batches = iter(stream)
    next(batches)
    stream.load_state_dict(start)
    assert list(batches) == []
    assert_same(list(stream), expected)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
def test_damage_surfaces_in_the_consumer_and_leaves_no_thread(damageable: Path, damage: str, threads: int) -> None:
    """An absent, short or altered shard is an error that names it, never zeros; the batches before it are right."""
    expected = epochs_of(stream_of(damageable), 1)
    shard = damageable / "windows.zarr/training/0/time/c/2/0"
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        middle = len(content) // 4
        shard.write_bytes(content[:middle] + (bytes([content[middle] ^ 1]) + content[middle + 1 :])
                          * (damage == "flipped"))  # fmt: skip
    stream = stream_of(damageable, threads=threads)
    delivered: list[Arrays] = []
    with pytest.raises(DamagedError, match=r"time/c/2/0"):
        delivered.extend(stream)
    assert not threads_left()
    assert len(delivered) < len(expected)
    assert_same(delivered, expected[: len(delivered)])
    assert stream.position == len(delivered)
    stream.close()
    shard.write_bytes(content)
    assert_same(list(stream), expected[len(delivered) :])


def test_arrays_that_are_not_what_the_manifest_says_are_refused(damageable: Path) -> None:
    """Window and chunk sizes are verified when a packing is opened."""
    edit_manifest(damageable, lambda values: values["splits"]["training"].update(windows=1000))
    with pytest.raises(DamagedError, match="the manifest says"):
        list(stream_of(damageable))


def test_an_exception_of_the_consumer_ends_the_threads(dataset: Path) -> None:
    """After an error in the loop no thread is left."""

    def loop() -> None:
        for _batch in stream_of(dataset, threads=2):
            assert threads_left()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert not threads_left()


def test_a_split_without_windows_yields_nothing(damageable: Path) -> None:
    """Validation of a dataset without held-out users."""
    edit_manifest(damageable, lambda values: values["splits"]["validation"].update(windows=0))
    stream = stream_of(damageable, split="validation")
    assert stream.steps_per_epoch == 0
    assert list(stream) == []
    assert stream.position == 0


def test_waiting_for_data_is_counted(dataset: Path) -> None:
    """`wait_s` only grows, from 0."""
    stream = stream_of(dataset)
    assert stream.wait_s == 0
    waited = [stream.wait_s for _ in stream]
    assert waited == sorted(waited)
    assert waited[0] > 0


def test_wrong_arguments_are_refused_with_the_remedy(dataset: Path, tmp_path: Path) -> None:
    """Ranks that do not fit, no dataset, an unknown objective, no windows."""
    for options, named in (({"world_size": 3}, "world size of 1, 2, 4, 8"), ({"objective": "casual"}, "objective"),
                           ({"batch_windows": 0}, "batch_windows"), ({"rank": 2, "world_size": 2}, "rank"),
                           ({"threads": 0}, "threads")):  # fmt: skip
        with pytest.raises(ConfigError, match=named):
            stream_of(dataset, **options)
    with pytest.raises(ConfigError, match="no finished dataset"):
        stream_of(tmp_path)


def test_a_plain_numpy_user_needs_no_torch(dataset: Path) -> None:
    """One import, five lines."""
    lines = f"""
import sys
from streamfeat import WindowStream
for batch in WindowStream({str(dataset)!r}, objective="causal", batch_windows=8):
    assert batch["item"].shape == (8, 16)
assert "torch" not in sys.modules and "duckdb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", lines], check=True, cwd=Path(__file__).parents[2])
