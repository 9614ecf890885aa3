"""Checkpoints: whole or not there, checked on reading, the last two kept, and what was the best by then."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from streamfeat.errors import DamagedError, FormatVersionError, StorageError
from streamfeat.stream.stream import StreamState
from train.config import Optimizer, TrainConfig
from train.runs.checkpoint import Checkpoint, Checkpoints, TrainState, read_checkpoint
from train.runs.standing import Figures, Standing
from train.training.optim import make_optimizer

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


class Small(nn.Module):
    """A model with a part that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 3)
        self.unused = nn.Linear(2, 2)


def new(seed: int, optimizer: Optimizer = "adamw") -> tuple[Small, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = Small()
    return model, make_optimizer(model, TrainConfig(optimizer=optimizer))


def learn(model: Small, optimizer: torch.optim.AdamW, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model.out(model.table(torch.tensor([step % 5, 1]))).square().sum().backward()
        optimizer.step()


def state(step: int, best: int | None = None) -> TrainState:
    standing = Standing() if best is None else Standing(best=Figures(step=best, loss=1.0, losses={}))
    return TrainState(
        step=step, bad_steps=0, standing=standing, config=TrainConfig(), fingerprint="f", versions={},
        stream=StreamState(
            fingerprint="f", split="training", objective="causal", mask_policy="disjoint", seed=0, batch_windows=2,
            packings=1, position=step,
        ),
    )  # fmt: skip


def saved(run: Path, *steps: int) -> Checkpoints:
    """A run with checkpoints at `steps`, each of other weights."""
    checkpoints = Checkpoints(run)
    model, optimizer = new(0)
    for step in steps:
        learn(model, optimizer, 1)
        checkpoints.save(state(step), model, optimizer)
    return checkpoints


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_restored_model_goes_on_bit_for_bit(tmp_path: Path, kind: Optimizer) -> None:
    """Weights, moments and the step counts come back, for a parameter without gradients too."""
    model, optimizer = new(0, kind)
    learn(model, optimizer, 3)
    Checkpoints(tmp_path).save(state(3), model, optimizer)
    learn(model, optimizer, 4)

    other, other_optimizer = new(1, kind)
    learn(other, other_optimizer, 2)
    checkpoint, problems = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    assert not problems
    checkpoint.restore(other, other_optimizer)
    learn(other, other_optimizer, 4)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name
    assert checkpoint.state == state(3)


@pytest.mark.parametrize(("kind", "other"), [("adamw", "muon"), ("muon", "adamw")])
def test_the_state_of_another_optimizer_is_refused(tmp_path: Path, kind: Optimizer, other: Optimizer) -> None:
    """Moments of AdamW are no momentum of Muon, and the other way round."""
    model, optimizer = new(0, kind)
    learn(model, optimizer, 1)
    Checkpoints(tmp_path).save(state(1), model, optimizer)
    checkpoint, _ = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    with pytest.raises(DamagedError, match=r"optimizer state of 'out\.weight'"):
        checkpoint.restore(*new(0, other))


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    """Safetensors and JSON only: the optimizer's entries are named by parameter."""
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints/step-00000001"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    names = set(safetensors.torch.load_file(folder / "optimizer.safetensors"))
    assert {"table.weight.exp_avg", "table.weight.exp_avg_sq", "table.weight.step"} <= names
    assert (tmp_path / "latest").read_text() == "checkpoints/step-00000001\n"


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    """Older ones go, and no temporary folder stays."""
    checkpoints = saved(tmp_path, 1, 2, 3, 4)
    assert checkpoints.steps() == [3, 4]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["delete", "truncate", "empty", "flip"])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path: Path, name: str, harm: str) -> None:
    """Any file deleted, cut or with one flipped bit: the checkpoint before is taken, and the file is named."""
    saved(tmp_path, 1, 2)
    path = tmp_path / "checkpoints/step-00000002" / name
    content = bytearray(path.read_bytes())
    if harm == "delete":
        path.unlink()
    elif harm == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: 0 if harm == "empty" else len(content) - 1])
    checkpoint, problems = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    assert checkpoint.state.step == 1
    assert len(problems) == 1
    assert str(path) in problems[0]


def test_no_flipped_bit_passes(tmp_path: Path) -> None:
    """Every byte of every file, one bit flipped: an error, or the same content as before."""
    saved(tmp_path, 1)
    folder = tmp_path / "checkpoints/step-00000001"
    before = read_checkpoint(folder)
    rng = random.Random(0)
    silent = []
    for name in FILES:
        content = (folder / name).read_bytes()
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(flipped)
            try:
                after = read_checkpoint(folder)
            except DamagedError:
                continue
            if not same(before, after):
                silent.append((name, place))
        (folder / name).write_bytes(content)
    assert silent == []


def same(a: Checkpoint, b: Checkpoint) -> bool:
    return a.state == b.state and all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
        for mine, theirs in ((a.weights, b.weights), (a.optimizer, b.optimizer))
    )


def test_damaged_checkpoints_alone_are_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    """A run never starts over silently because its checkpoints broke."""
    assert Checkpoints(tmp_path).load_newest() == (None, [])
    saved(tmp_path, 1, 2)
    for step in (1, 2):
        (tmp_path / f"checkpoints/step-0000000{step}/state.json").unlink()
    with pytest.raises(DamagedError, match="no checkpoint is complete"):
        Checkpoints(tmp_path).load_newest()


def test_a_damaged_one_never_counts_as_one_of_the_two(tmp_path: Path) -> None:
    """The one that a run resumed from stays until two later good ones are there, whatever lies between."""
    saved(tmp_path, 1, 2)
    (tmp_path / "checkpoints/step-00000002/model.safetensors").write_bytes(b"")
    checkpoints = Checkpoints(tmp_path)
    checkpoint, _ = checkpoints.load_newest()
    assert checkpoint is not None
    model, optimizer = new(0)
    checkpoints.save(state(2), model, optimizer)  # takes the damaged one's place
    assert checkpoints.steps() == [1, 2]
    assert read_checkpoint(checkpoints.path(2)).state.step == 2
    checkpoints.save(state(3), model, optimizer)
    assert checkpoints.steps() == [2, 3]


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    """An error half way: no trace of the new one, the old one is still the newest."""
    checkpoints = saved(tmp_path, 1)
    model, optimizer = new(0)
    model.register_buffer("twice", model.table.weight)  # safetensors refuses tensors that share memory
    with pytest.raises(RuntimeError):
        checkpoints.save(state(2), model, optimizer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert (tmp_path / "latest").read_text() == "checkpoints/step-00000001\n"


def test_what_a_killed_save_left_is_swept(tmp_path: Path) -> None:
    """Temporary names only; what else lies there is left alone."""
    saved(tmp_path, 1)
    leftover = tmp_path / f"checkpoints/.step-00000002.123.{'a' * 32}.tmp"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    (tmp_path / f".latest.123.{'b' * 32}.tmp").write_bytes(b"half")
    (tmp_path / "checkpoints/notes.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [1]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["notes.txt", "step-00000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "latest"]


@pytest.mark.parametrize("harm", [False, True])
def test_a_step_saved_again_survives_a_kill_between_the_two_renames(tmp_path: Path, harm: bool) -> None:
    """Old and new stand aside for a moment: one that is whole comes back, and a damaged one never does."""
    saved(tmp_path, 1, 2)
    folder = tmp_path / "checkpoints"
    (folder / "step-00000002").rename(folder / f".step-00000002.123.{'a' * 32}.tmp")
    if harm:
        (folder / f".step-00000002.123.{'a' * 32}.tmp/state.json").write_text("{}")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == ([1] if harm else [1, 2])
    checkpoint, problems = checkpoints.load_newest()
    assert checkpoint is not None
    assert (checkpoint.state.step, problems) == (1 if harm else 2, [])


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    """Upgrading is the remedy, not restoring: no fallback to the checkpoint before."""
    checkpoints = Checkpoints(tmp_path)
    model, optimizer = new(0)
    checkpoints.save(state(1), model, optimizer)
    checkpoints.save(state(2).model_copy(update={"format_version": 99}), model, optimizer)
    with pytest.raises(FormatVersionError, match="99"):
        checkpoints.load_newest()


def saved_with_bests(run: Path, bests: dict[int, int]) -> Checkpoints:
    """A run with a checkpoint at each step of `bests`, which says what the best was by then."""
    checkpoints = Checkpoints(run)
    model, optimizer = new(0)
    for step, best in bests.items():
        checkpoints.save(state(step, best), model, optimizer)
    return checkpoints


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_best_of_a_run_that_falls_back_is_still_there(tmp_path: Path) -> None:
    """A new best is damaged at once: the checkpoint before it goes on with the best that it knows."""
    assert saved_with_bests(tmp_path, {2: 2, 4: 2, 6: 2, 8: 8}).steps() == [2, 6, 8]
    flip_a_bit(tmp_path / "checkpoints/step-00000008/model.safetensors")
    checkpoints = Checkpoints(tmp_path)
    checkpoint, problems = checkpoints.load_newest()
    assert checkpoint is not None
    assert checkpoint.state.step == 6
    assert len(problems) == 1
    checkpoints.save(state(7, best=2), *new(0))
    named = (tmp_path / "best").read_text()
    assert named == "checkpoints/step-00000002\n"
    assert read_checkpoint(tmp_path / named.strip()).state.step == 2


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_best_of_each_kept_checkpoint_is_kept_and_no_other(tmp_path: Path, keep: int) -> None:
    """Bests at random, the process changed half way: the last `keep`, their bests, and one more folder at most."""
    rng = random.Random(keep)
    checkpoints, best, bests = Checkpoints(tmp_path, keep), 1, {}
    for step in range(1, 25):
        if step == 12:
            checkpoints = Checkpoints(tmp_path, keep)
            checkpoints.load_newest()
        best = bests[step] = step if rng.random() < 0.3 else best
        checkpoints.save(state(step, best), *new(0))
        last = sorted(bests)[-keep:]
        wanted = {*last, *(bests[step] for step in last)}
        assert wanted <= set(checkpoints.steps())
        if not 12 <= step < 12 + keep:  # so long a new process forgets nothing, having checked none of the others
            assert set(checkpoints.steps()) == wanted
            assert len(wanted) <= keep + 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip_a_bit, os.unlink, lambda path: shutil.rmtree(path.parent)])
def test_a_damaged_best_is_named_though_the_newest_is_whole(tmp_path: Path, name: str, harm: Any) -> None:
    """The run goes on, and says so before it ends with the name of a checkpoint that nobody can read."""
    saved_with_bests(tmp_path, {1: 1, 2: 1, 3: 1})
    assert Checkpoints(tmp_path).load_newest()[1] == []
    harm(tmp_path / "checkpoints/step-00000001" / name)
    checkpoint, problems = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    assert checkpoint.state.step == 3
    assert len(problems) == 1
    assert str(tmp_path / "checkpoints/step-00000001") in problems[0]
    assert "--checkpoint latest" in problems[0]


@pytest.mark.parametrize("name", ["best", "latest"])
@pytest.mark.parametrize("kind", ["no UTF-8", "pipe", "link"])
def test_whatever_has_the_name_of_best_or_latest_is_replaced(tmp_path: Path, name: str, kind: str) -> None:
    """It is never read, followed or waited for."""
    (tmp_path / "elsewhere").write_text("mine")
    if kind == "no UTF-8":
        (tmp_path / name).write_bytes(b"\xff\xfe")
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    saved_with_bests(tmp_path, {1: 1})
    assert (tmp_path / name).read_text() == "checkpoints/step-00000001\n"
    assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize("name", ["best", "latest"])
def test_a_folder_with_the_name_of_best_or_latest_is_refused(tmp_path: Path, name: str) -> None:
    """With the remedy; the checkpoint itself is whole."""
    (tmp_path / name).mkdir()
    with pytest.raises(DamagedError, match=rf"/{name}: .*remove it"):
        saved_with_bests(tmp_path, {1: 1})
    checkpoint, problems = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    assert (checkpoint.state.step, problems) == (1, [])


def test_a_disk_that_will_not_remove_an_old_one_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error with the remedy; what was set aside to be removed does not come back."""
    checkpoints = saved(tmp_path, 1, 2)

    def refuse(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(StorageError, match=r"checkpoints: Input/output error; .*check the disk"):
            checkpoints.save(state(3), *new(0))
    assert (tmp_path / "latest").read_text() == "checkpoints/step-00000003\n"
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [2, 3]
    checkpoint, problems = checkpoints.load_newest()
    assert checkpoint is not None
    assert (checkpoint.state.step, problems) == (3, [])
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_newest_one_that_cannot_be_read_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be whole: an error with the remedy, and no silent step back to the one before."""
    saved(tmp_path, 1, 2)

    def fail(folder: Path, name: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("train.runs.checkpoint.open_below", fail)
    with pytest.raises(StorageError, match=r"step-00000002: Input/output error; .*check the disk"):
        Checkpoints(tmp_path).load_newest()


def test_what_a_killed_save_of_a_newer_version_left_is_no_rubbish(tmp_path: Path) -> None:
    """It may be the only one of its step: upgrading brings it back."""
    saved(tmp_path, 1).save(state(2).model_copy(update={"format_version": 99}), *new(0))
    aside = tmp_path / f"checkpoints/.step-00000002.123.{'a' * 32}.tmp"
    (tmp_path / "checkpoints/step-00000002").rename(aside)
    with pytest.raises(FormatVersionError, match="99"):
        Checkpoints(tmp_path)
    assert sorted(path.name for path in aside.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("kind", ["file", "dead link"])
def test_what_stands_in_the_place_of_a_checkpoint_is_damage(tmp_path: Path, kind: str) -> None:
    """Named on resume, replaced when its step is saved, and forgotten when it is old."""
    saved(tmp_path, 2)
    for step in (1, 3):
        place = tmp_path / f"checkpoints/step-0000000{step}"
        if kind == "file":
            place.write_text("no folder")
        else:
            place.symlink_to(tmp_path / "nowhere")
    checkpoints = Checkpoints(tmp_path)
    checkpoint, problems = checkpoints.load_newest()
    assert checkpoint is not None
    assert checkpoint.state.step == 2
    assert [str(tmp_path / "checkpoints/step-00000003") in problem for problem in problems] == [True]
    checkpoints.save(state(3), *new(0))
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["step-00000002", "step-00000003"]
    assert read_checkpoint(checkpoints.path(3)).state.step == 3


KILLED = """
    import sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from test_checkpoint import Checkpoints, learn, new, state
    checkpoints = Checkpoints(Path(sys.argv[1]))
    model, optimizer = new(0)
    print("ready", flush=True)
    for step in range(1, 100_000):
        learn(model, optimizer, 1)
        checkpoints.save(state(step), model, optimizer)
"""


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 12))])
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path, seed: int) -> None:
    """A process that does nothing but save is killed: the newest checkpoint is whole and is nothing skipped."""
    script = textwrap.dedent(KILLED.format(tests=str(Path(__file__).parent)))
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 120
        while not (tmp_path / "latest").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(random.Random(seed).random() / 5)
        os.kill(child.pid, signal.SIGKILL)
    checkpoint, problems = Checkpoints(tmp_path).load_newest()
    assert checkpoint is not None
    assert problems == []
    newest = int((tmp_path / "latest").read_text().strip()[-8:])
    assert checkpoint.state.step in (newest, newest + 1)
    model, optimizer = new(0)
    for _ in range(checkpoint.state.step):
        learn(model, optimizer, 1)
    assert torch.equal(model.out.weight, checkpoint.weights["out.weight"])
