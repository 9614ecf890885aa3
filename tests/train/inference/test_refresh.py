"""Newer events count in lists without training; nothing else changes, whatever happens meanwhile."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

import streamfeat
import streamfeat_cli.commands
from streamfeat.errors import ConfigError, DamagedError, DataError, LockedError
from streamfeat.progress import Note
from streamfeat.store.locks import locked
from streamfeat.store.manifest import load_manifest
from train.inference.queries import History
from train.inference.recommend import recommend_steps
from train.inference.refresh import Refreshed, refresh_steps
from train.inference.scorer import Scorer
from train.runs.refreshed import REFRESHED
from train.runs.standing import Mixture, Mixtures
from train.terms.popularity import SMALLEST
from train.terms.terms import TERMS
from train.training.loop import train_steps

GIVEN: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 100, "steps": 4}
HEADER = "user,item,medium,timestamp,rating,status\n"
DAY = 86_400


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    list(train_steps(tiny_dataset, path, GIVEN))
    return path


@pytest.fixture
def run(tmp_path: Path, trained: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def last(trained: Path) -> int:
    """Unix seconds of the last training event."""
    return load_manifest(trained / "dataset").time_last


@pytest.fixture
def events(tmp_path: Path, last: int) -> Callable[..., str]:
    """Writes an event file: (user, item, medium, seconds after the last training event, status)."""

    def write(*rows: tuple[str, str, str, int, str], name: str = "new.csv") -> str:
        file = tmp_path / name
        lines = [f"{user},{item},{medium},{last + after},7,{status}\n" for user, item, medium, after, status in rows]
        file.write_text(HEADER + "".join(lines))
        return str(file)

    return write


def refreshed(run: Path, *files: str) -> Refreshed:
    *_, done = refresh_steps(run, files)
    assert isinstance(done, Refreshed)
    return done


def item_of(run: Path, medium: int, place: int) -> str:
    return Scorer.of_run(run).items.raw_id[Scorer.of_run(run).manifest.data_schema.medium_offsets[medium] + place]


def counts(scorer: Scorer) -> np.ndarray:
    """Events of each item before the last edge, by the popularity and by the transitions."""
    terms = scorer._facts.terms
    *_, features = terms.popularity.features(scorer.manifest.num_items)
    np.testing.assert_allclose(np.expm1(features[-2]) * SMALLEST, terms.transitions.neighbours.num_V, rtol=1e-3)
    return terms.transitions.neighbours.num_V


def test_only_later_events_of_known_items_count(run: Path, last: int, events: Callable[..., str]) -> None:
    """The receipt tells all others; the tables of training stay as they are, to the bit."""
    of_training = (run / TERMS).read_bytes()
    known = item_of(run, 0, 3)
    file = events(
        ("new", known, "anime", 0, "completed"),
        ("new", known, "anime", DAY, "completed"),
        ("new", item_of(run, 1, 2), "manga", 2 * DAY, "dropped"),
        ("new", "nobody-knows", "anime", 2 * DAY, "completed"),
        ("new", known, "manga", 2 * DAY, "completed"),
        ("new", known, "anime", 3 * DAY, "planned"),
        ("new", known, "anime", 2 * DAY, "completed"),
        ("new", known, "anime", 2 * DAY, "completed"),
        ("", known, "anime", 2 * DAY, "completed"),
    )
    before = counts(Scorer.of_run(run))
    done = refreshed(run, file)
    assert (done.counted, done.ignored, done.unknown, done.items_unknown) == (3, 1, 2, 2)
    assert (done.planned, done.duplicates, sum(done.rejected.values())) == (1, 1, 1)
    assert done.last_counted == last + 2 * DAY
    after = counts(Scorer.of_run(run, refreshed=True))
    dense = Scorer.of_run(run).manifest.data_schema.medium_offsets[0] + 3
    assert after.sum() - before.sum() == 3
    assert after[dense] - before[dense] == 2
    assert (run / TERMS).read_bytes() == of_training
    np.testing.assert_array_equal(counts(Scorer.of_run(run)), before)


def test_a_second_refresh_builds_on_the_first(run: Path, last: int, events: Callable[..., str]) -> None:
    """The same file again counts nothing and changes nothing; several files are read together."""
    first = events(("a", item_of(run, 0, 1), "anime", DAY, "completed"), name="first.csv")
    second = events(("a", item_of(run, 0, 2), "anime", 2 * DAY, "completed"), name="second.csv")
    assert refreshed(run, first).counted == 1
    content = (run / REFRESHED).read_bytes()
    again = refreshed(run, first)
    assert (again.counted, again.ignored, again.last_counted) == (0, 1, last + DAY)
    assert (run / REFRESHED).read_bytes() == content
    done = refreshed(run, first, second)
    assert (done.counted, done.ignored, done.last_counted) == (1, 1, last + 2 * DAY)
    # What came before in the same history shows what the new event follows.
    table = Scorer.of_run(run, refreshed=True)._facts.terms.transitions.neighbours
    old = Scorer.of_run(run)._facts.terms.transitions.neighbours
    assert table.total_V[1] == pytest.approx(old.total_V[1] + 1)
    assert table.total_V.sum() == pytest.approx(old.total_V.sum() + 1)  # of the earlier item alone


def test_lists_follow_what_became_popular(run: Path, last: int, events: Callable[..., str]) -> None:
    """Told the time; hidden, whenever the history ended. Asked about a time before, answers stay."""
    item = item_of(run, 0, 5)
    file = events(*((f"user{n}", item, "anime", DAY + n, "completed") for n in range(300)))
    asked = events(("ann", item_of(run, 0, 0), "anime", 0, "completed"), name="history.csv")

    def listed() -> float:
        *_, found = recommend_steps(run, asked, k=100, at=last + 2 * DAY)
        return next(one.probability for one in found.media["anime"] if one.item == item)

    old, listed_before = Scorer.of_run(run), listed()
    refreshed(run, file)
    assert listed() > 1.1 * listed_before
    new = Scorer.of_run(run, refreshed=True)
    counts = Mixture(strength=0.0, shares=(0.0, *(0.1,) * 5), gain=0.1, error=0.01)
    for scorer in (old, new):
        scorer.mixtures = {"anime": Mixtures(told=counts, hidden=counts)}
    origin = old.manifest.data_schema.time_origin
    nan, one = np.array([np.nan], np.float32), np.array([2], np.uint8)
    of_now = History(np.array([0]), np.array([last - origin + 2 * DAY]), nan, one, np.array([1], np.float32))
    of_then = dataclasses.replace(of_now, time=np.array([last - origin - DAY]))
    for history, at, changes in (
        (of_now, last - origin + 2 * DAY, True),
        (of_now, last - origin - DAY // 2, False),
        (of_then, None, True),
    ):
        p_old, p_new = (
            scorer.log_probs(scorer.states([history], [at]), 0, [history], [at])[0] for scorer in (old, new)
        )
        if changes:
            assert p_new[5] > p_old[5] + 0.1
        else:
            np.testing.assert_array_equal(p_old.numpy(), p_new.numpy())


def test_now_is_known_again(run: Path, last: int, events: Callable[..., str]) -> None:
    """Without `refresh` the model knows nothing about now, and takes the time of the last event."""
    history = events(("ann", item_of(run, 0, 0), "anime", 0, "completed"), name="history.csv")

    def source() -> str:
        steps = list(recommend_steps(run, history))
        assert any("refresh" in step.text for step in steps if isinstance(step, Note)) == (
            steps[-1].time_source == "last event"
        )
        return steps[-1].time_source

    assert source() == "last event"
    refreshed(run, events(("bob", item_of(run, 0, 0), "anime", int(time.time()) - last - DAY, "completed")))
    assert source() == "now"


def test_a_run_that_trains_is_not_refreshed(run: Path, events: Callable[..., str]) -> None:
    """Exit code 5, and nothing changes."""
    file = events(("a", item_of(run, 0, 1), "anime", DAY, "completed"))
    with locked(run, "trains"):
        with pytest.raises(LockedError, match="trains"):
            refreshed(run, file)
        done = CliRunner().invoke(streamfeat_cli.commands.app, ["refresh", str(run), file])
        assert isinstance(done.exception, LockedError)
        assert done.exception.exit_code == 5
    assert not (run / REFRESHED).exists()


def test_a_refresh_that_is_killed_leaves_the_old_tables(run: Path, events: Callable[..., str]) -> None:
    """Killed when the new file has its temporary name; the next one removes that."""
    refreshed(run, events(("a", item_of(run, 0, 1), "anime", DAY, "completed")))
    content = (run / REFRESHED).read_bytes()
    file = events(("a", item_of(run, 0, 2), "anime", 2 * DAY, "completed"))
    code = (
        "import os, sys, signal\n"
        "os.rename = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from streamfeat_cli import main\n"
        f"sys.argv = ['cli.py', 'refresh', {str(run)!r}, {file!r}]\n"
        "main()\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (run / REFRESHED).read_bytes() == content
    assert [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    Scorer.of_run(run, refreshed=True)
    assert refreshed(run, file).counted == 1
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]


def test_tables_of_another_run_and_damaged_ones_are_refused(
    run: Path, tmp_path: Path, events: Callable[..., str]
) -> None:
    """By whoever asks the model, and by the next refresh. Without the file the model can be asked again."""
    file = events(("a", item_of(run, 0, 1), "anime", DAY, "completed"))
    refreshed(run, file)
    whole = (run / REFRESHED).read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    flipped = whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
    digest = header["__metadata__"]["terms_sha256"].encode()
    other = whole.replace(digest, b"0" * len(digest))
    for content in (flipped, other, b"", whole[:100]):
        (run / REFRESHED).write_bytes(content)
        with pytest.raises(DamagedError, match=r"refreshed\.safetensors.*refresh"):
            Scorer.of_run(run, refreshed=True)
        with pytest.raises(DamagedError, match=r"refreshed\.safetensors"):
            refreshed(run, file)
    Scorer.of_run(run)
    (run / REFRESHED).unlink()
    assert refreshed(run, file).counted == 1


def test_what_cannot_be_counted_is_refused_with_the_reason(
    run: Path, tmp_path: Path, events: Callable[..., str]
) -> None:
    """No run, no checkpoint, no event; nothing is written."""
    file = events(("a", item_of(run, 0, 1), "anime", DAY, "completed"))
    with pytest.raises(ConfigError, match="no run here"):
        refreshed(tmp_path / "nothing", file)
    nothing = events(("", "x", "anime", DAY, "completed"), name="nothing.csv")
    with pytest.raises(DataError, match="no row"):
        refreshed(run, nothing)
    with pytest.raises(ConfigError, match="matches no file"):
        refreshed(run, str(tmp_path / "*.parquet"))
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(ConfigError, match="no checkpoint yet"):
        refreshed(run, file)
    assert not (run / REFRESHED).exists()


def test_training_goes_on_as_if_nothing_was_refreshed_and_a_new_run_has_no_old_tables(
    run: Path, tiny_dataset: Path, events: Callable[..., str]
) -> None:
    """The weights of a resumed run are the same to the bit; `--overwrite` removes the file."""
    file = events(("a", item_of(run, 0, 1), "anime", DAY, "completed"))
    states = []
    for with_refresh in (False, True):
        path = run.parent / f"stopped-{with_refresh}"
        done = []
        for record in train_steps(tiny_dataset, path, GIVEN, stop=lambda done=done: len(done) > 1):
            if type(record).__name__ == "Stepped":
                done.append(record)
        if with_refresh:
            refreshed(path, file)
        list(train_steps(tiny_dataset, path, resume=True))
        states.append((path / "checkpoints" / "step-00000004" / "trained.safetensors").read_bytes())
        assert (path / REFRESHED).exists() == with_refresh
    assert states[0] == states[1]
    list(train_steps(tiny_dataset, path, GIVEN, overwrite=True))
    assert not (path / REFRESHED).exists()


def test_the_command_and_the_call_give_the_same_receipt(run: Path, last: int, events: Callable[..., str]) -> None:
    """As text, as JSON and from a table in memory."""
    rows = [("a", item_of(run, 0, 1), "anime", DAY, "completed"), ("a", "zz", "anime", 2 * DAY, "completed")]
    file = events(*rows)
    copy = Path(shutil.copytree(run, run.parent / "copy"))
    told = CliRunner().invoke(streamfeat_cli.commands.app, ["refresh", str(copy), file, "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    table = pa.table(
        {
            "user": [row[0] for row in rows],
            "item": [row[1] for row in rows],
            "medium": [row[2] for row in rows],
            "ts": [last + row[3] for row in rows],
        }
    )
    done = streamfeat.open_run(run).refresh(table, columns={"timestamp": "ts"}, progress=False)
    assert found == {**dataclasses.asdict(done), "file": str(copy / REFRESHED)}
    assert (found["counted"], found["unknown"], found["last_counted"]) == (1, 1, last + DAY)
    assert "1 events counted" in str(done)
    assert "1 events counted" not in CliRunner().invoke(streamfeat_cli.commands.app, ["refresh", str(run), file]).stdout
