"""Kills, old files, full disks, ended runs: none of them changes a batch, and no process waits without end."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dying_producers import die_before_the_receipt, die_between_two_files, spawned, train_and_die
from invented_events import invent_events, write_csv
from live_runs import (
    BATCH,
    SEED,
    assert_same,
    await_freed,
    committed,
    disk_usage,
    read_built,
    read_live,
    started,
    steps_of,
)

from streamfeat import load_manifest
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError, DamagedError, StorageError
from streamfeat.live import folder as live_folder
from streamfeat.live import producer
from streamfeat.live.folder import RunWatch, living_runs, read_run, start_run
from streamfeat.live.live_source import LiveSource
from streamfeat.live.positions import Positions, RankRecord, publish
from streamfeat.live.producer import Held, Produced, produce
from streamfeat.live.producer_processes import Producers
from streamfeat.live.schedule import least_disk_bytes
from streamfeat.live.serve import Served, serve
from streamfeat.progress import Note, Progress


@pytest.mark.parametrize("die", [die_before_the_receipt, pytest.param(die_between_two_files, marks=pytest.mark.slow)])
def test_a_shard_whose_producer_was_killed_is_written_by_another(
    built: Path, root: Path, die: Callable[..., None]
) -> None:
    """SIGKILL after some files, or after all but the receipt: the lock becomes free, and the left files are ignored
    and take no additional space."""
    with started(root) as folder:
        dying = spawned(die, root, folder, 2)
        dying.join()
        assert dying.exitcode == -signal.SIGKILL
        assert committed(folder) == 2
        shards = list((folder / "windows.zarr/0/item/c").iterdir())
        assert len(shards) == 3
        bound = read_run(folder).disk_bytes

        def watch() -> None:
            assert disk_usage(root / "live") <= bound

        live = read_live(root, folder, watch=watch)
        assert not list(folder.rglob("*.tmp"))
    assert_same(live[0], read_built(built))


def test_a_killed_producer_is_named_and_replaced(root: Path) -> None:
    """The note has the signal and the process, and another one continues. After several deaths without a shard it is
    an error."""
    with started(root) as folder, Producers(root, folder, 1) as producers:
        notes = poll_until(producers, lambda: producers.shards > 2)
        first = producers._producers[0].child.process
        os.kill(first.pid or 0, signal.SIGKILL)
        notes = poll_until(producers, lambda: producers._producers[0].child.process is not first)
        assert any(f"producer {first.pid} was killed by signal 9" in note.text and note.warning for note in notes)
        with LiveSource(root, folder, load_manifest(root), 0) as source:
            before = producers.shards
            source.advance(steps_of(root), lambda packing, shard: None)
            poll_until(producers, lambda: producers.shards > before)
        pid = producers._producers[0].child.process.pid or 0
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def poll_until(producers: Producers, reached: Callable[[], bool]) -> list[Any]:
    notes = []
    deadline = time.monotonic() + 180
    while not reached():
        assert time.monotonic() < deadline
        notes += producers.poll()
        time.sleep(0.01)
    return notes


@pytest.mark.slow
def test_producers_that_die_again_and_again_are_given_up_with_the_last_reason(root: Path) -> None:
    """Their histories are damaged: each one reports it, and the fourth death ends the run."""
    for file in (root / "histories.zarr/item/c").rglob("*"):
        if file.is_file():
            file.unlink()
    with (
        started(root) as folder,
        Producers(root, folder, 2) as producers,
        pytest.raises(StorageError, match=r"4 producers in a row died(.|\n)*histories.zarr/item(.|\n)*--resume"),
    ):
        poll_until(producers, lambda: False)


def test_the_folder_of_a_killed_trainer_is_dead_at_once_and_the_next_start_removes_it(built: Path, root: Path) -> None:
    """Its positions, and a partly created folder, are ignored; the new run reads the same batches."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    trainer = spawned(train_and_die, root, theirs)
    dead = Path(ours.recv())
    trainer.join()
    publish(dead, 0, RankRecord(run_id=dead.name, position=29, freed=29))
    half_made = root / "live" / f".{dead.name}.new"
    half_made.mkdir()
    assert committed(dead) == 2
    assert living_runs(root) == []
    assert list(produce(root, dead)) == []
    with started(root, start=5) as folder:
        assert not dead.exists()
        assert not half_made.exists()
        assert [path for path, _ in living_runs(root)] == [folder]
        live = read_live(root, folder, start=5)
    assert_same(live[0], read_built(built, start=5))


def test_two_runs_on_one_dataset_leave_each_other_alone(built: Path, root: Path) -> None:
    """A start removes only dead runs; the newest run is the last in the list."""
    with started(root, epochs=1) as one, started(root, epochs=1) as other:
        assert [path for path, _ in living_runs(root)] == [one, other]
        for folder in (other, one):
            assert_same(read_live(root, folder, epochs=1)[0], read_built(built, epochs=1))


def test_a_run_of_another_host_ends_by_silence_and_by_no_clock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock may not be visible here. It is alive while its files change, for any times of the files."""
    now = [1000.0]
    monkeypatch.setattr(live_folder.time, "monotonic", lambda: now[0])
    with started(root, timeout_s=60) as folder:
        run = read_run(folder).model_copy(update={"host": "elsewhere"})
        (folder / ".lock").unlink()
        watch = RunWatch(folder, run)
        for position in range(5):
            now[0] += 50
            publish(folder, 0, RankRecord(run_id=run.run_id, position=position))
            os.utime(folder / "rank-0.json", (-position * 10**5, -position * 10**5))
            assert watch.ended() is None
        now[0] += 61
        assert watch.ended() == "no rank has given a sign of life for 60 s"


def test_a_silent_run_of_another_host_is_cleaned_by_the_next_start_and_never_joined(root: Path) -> None:
    """A replaced machine has another name: its lock means nothing here, but the times of its files do."""
    with started(root, timeout_s=60) as old:
        run = read_run(old).model_copy(update={"host": "elsewhere"})
        (old / "run.json").write_text(run.model_dump_json())
        (old / ".lock").unlink()
        assert [folder for folder, _ in living_runs(root)] == [old]
        with started(root):
            assert old.exists()
        for file in (old / "run.json", *old.glob("rank-*.json")):
            os.utime(file, (time.time() - 61, time.time() - 61))
        assert living_runs(root) == []
        with started(root):
            assert not old.exists()


@pytest.mark.slow
def test_deaths_of_producers_that_are_far_enough_ahead_end_no_run(root: Path) -> None:
    """No shard is missing, so the run does not give up and replaces each one."""
    with started(root) as folder, Producers(root, folder, 1) as producers:
        poll_until(producers, lambda: producers._producers[0].held == "ahead")
        for _ in range(6):
            victim = producers._producers[0].child.process
            os.kill(victim.pid or 0, signal.SIGKILL)
            poll_until(producers, lambda victim=victim: producers._producers[0].child.process is not victim)
            poll_until(producers, lambda: producers._producers[0].held == "ahead")


def test_a_trial_is_served_by_no_one_apart(root: Path) -> None:
    """A dry run starts its own producers. Separate producers must wait for the real run."""
    manifest = load_manifest(root)
    with start_run(
        root, manifest, seed=SEED, batch_windows=BATCH, world_size=1, start=0, stop=1,
        disk_bytes=least_disk_bytes(manifest, BATCH, 1), producers=1, trial=True,
    ):  # fmt: skip
        assert next(serve(root, 1)) == Note(f"waiting for a run: start `train {root} --live`")


def test_live_shards_in_each_others_place_are_noticed(root: Path) -> None:
    """Both are sound and have the right size; only their receipts show it. No data of them is delivered."""
    with started(root, disk_bytes=10**8) as folder:
        for event in produce(root, folder):
            if isinstance(event, Held):
                break
        shards = sorted((folder / "windows.zarr/0/time/c").glob("*/0"))
        assert len(shards) == 13
        contents = [shard.read_bytes() for shard in shards]
        for shard, content in zip(shards, contents[1:] + contents[:1], strict=True):
            shard.write_bytes(content)
        with pytest.raises(DamagedError, match=r"time/c/\d+/0.*not the committed ones.*\n.*--live and --resume"):
            read_live(root, folder, epochs=1)


def test_stale_repeated_and_foreign_rank_files_change_nothing(root: Path) -> None:
    """Positions never decrease. Files of another run, or without JSON, are ignored."""
    with started(root, world_size=2) as folder:
        run = read_run(folder)
        positions = Positions(folder, run)
        expected = [(0, 0), (0, 0), (4, 3), (4, 3), (4, 3), (4, 3), (6, 3)]
        files = [
            (0, RankRecord(run_id=run.run_id, position=9)),
            (1, RankRecord(run_id="another", position=8)),
            (1, RankRecord(run_id=run.run_id, position=4)),
            (1, RankRecord(run_id=run.run_id, position=4)),
            (1, RankRecord(run_id=run.run_id, position=2)),
            (0, RankRecord(run_id=run.run_id, position=1)),
            (1, RankRecord(run_id=run.run_id, position=6)),
        ]
        for i, ((rank, record), (least, freed)) in enumerate(zip(files, expected, strict=True)):
            publish(folder, rank, record)
            if i == 2:
                publish(folder, 0, RankRecord(run_id=run.run_id, position=9, freed=3))
            positions.refresh()
            assert (positions.least, positions.freed) == (least, freed)
        (folder / "rank-0.json").write_text("{half")
        positions.refresh()
        assert (positions.least, positions.freed) == (6, 3)


def test_a_full_disk_is_waited_out(built: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every second shard the disk is full: the producer reports it, removes the partial shard and
    continues later."""
    commit, calls = producer.commit_window, []

    def full(*args: Any) -> Any:
        calls.append(args)
        if len(calls) % 2:
            raise StorageError("/x: the disk is full") from OSError(errno.ENOSPC, "No space left on device")
        return commit(*args)

    monkeypatch.setattr(producer, "commit_window", full)
    monkeypatch.setattr(producer, "DISK_FULL_PAUSE_S", 0.01)
    with started(root) as folder:
        held = next(produce(root, folder))
        assert held == Held("full", "/x: the disk is full")
        assert not list((folder / "windows.zarr/0/item").glob("c/*"))
        live = read_live(root, folder, epochs=1, watch=lambda: time.sleep(0.002))
    assert_same(live[0], read_built(built, epochs=1))


def test_a_producer_says_how_far_ahead_it_is_and_goes_on_when_there_is_room(root: Path) -> None:
    """At the limit it reports the number of shards and megabytes; at the end, that all shards are written."""
    with started(root, epochs=3) as folder, LiveSource(root, folder, load_manifest(root), 0) as source:
        maker = produce(root, folder)
        assert isinstance(next(maker), Produced)
        while isinstance(last := next(maker), Produced):
            pass
        assert isinstance(last, Held)
        assert last.kind == "ahead"
        used, bound = last.reason.partition(" shards ahead, ")[2].removesuffix(" MB in use").split(" of ")
        assert 0 < float(used) <= float(bound)
        assert source.ahead() == committed(folder) - sum(
            need.first_position == 0 for need in map(source._schedule.at, range(9)) if need is not None
        )
        for epoch in (1, 2):
            source.advance(epoch * steps_of(root), lambda packing, shard: None)
            await_freed(folder, epoch * steps_of(root))
            while isinstance(event := next(maker), Produced):
                pass
            assert isinstance(event, Held)
            assert event.kind == ("ahead" if epoch == 1 else "done")


def test_a_cap_that_is_too_small_is_refused_with_the_one_that_fits(root: Path) -> None:
    """No folder is left."""
    manifest = load_manifest(root)
    least = least_disk_bytes(manifest, 8, 2)
    options: dict[str, Any] = {"seed": 3, "batch_windows": 8, "world_size": 1, "start": 0, "stop": 9, "producers": 2}
    with (
        pytest.raises(ConfigError, match=f"give --live-disk {least} or more"),
        start_run(root, manifest, disk_bytes=least - 1, **options),
    ):
        pass
    with start_run(root, manifest, disk_bytes=least, **options) as folder:
        assert folder.exists()
    assert living_runs(root) == []


def test_serving_waits_for_a_run_joins_it_and_ends_with_it(built: Path, root: Path) -> None:
    """Producers started before the trainer. Runs on other data are named and ignored."""
    events = serve(root, 1)
    assert next(events) == Note(f"waiting for a run: start `train {root} --live`")
    with started(root, epochs=1, disk_bytes=10**9) as folder:
        assert next(events) == Note(f"writing for run {folder.name}")
        served = next(event for event in events if isinstance(event, Progress) and event.done >= 13)
        assert served == Progress("live", 13, None, "shards")
        live = read_live(root, folder, epochs=1, producers=0)
    assert list(events)[-1] == Served(folder.name, 13)
    assert_same(live[0], read_built(built, epochs=1))


def test_a_run_on_other_data_is_named_and_left_alone(root: Path) -> None:
    """The note has both fingerprints."""
    with started(root) as folder:
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "fingerprint": "other"}))
        note = next(serve(root, 1))
        assert "trains on other data (other, here" in note.text
        with pytest.raises(ConfigError, match="trains on the dataset other"):
            next(produce(root, folder))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another dataset of the same shape."""
    folder = tmp_path_factory.mktemp("other")
    events = invent_events(seed=10, num_users=150, media={"anime": 30, "manga": 20}, mean_events=12)
    options = {"window_len": 16, "split": "users:0.2", "chunk_windows": 2, "shard_windows": 8, "packings": 0}
    build_shards([str(write_csv(folder / "events.csv", events))], folder / "data", **options)
    return folder / "data"


@pytest.mark.parametrize("receipts", ["its own", "none", "the other's"])
def test_histories_of_another_dataset_are_refused(root: Path, other: Path, receipts: str) -> None:
    """The manifest identifies them; the receipts next to it are not enough."""
    shutil.rmtree(root / "histories.zarr")
    shutil.copytree(other / "histories.zarr", root / "histories.zarr")
    if receipts != "its own":
        shutil.rmtree(root / "receipts")
    if receipts == "the other's":
        shutil.copytree(other / "receipts", root / "receipts")
    with started(root) as folder, pytest.raises(DamagedError):
        next(produce(root, folder))


def test_users_of_another_dataset_are_refused(root: Path, other: Path) -> None:
    """They determine the windows."""
    shutil.copy(other / "users.parquet", root)
    with started(root) as folder, pytest.raises(DamagedError, match=r"users\.parquet: is not as it was built"):
        next(produce(root, folder))
