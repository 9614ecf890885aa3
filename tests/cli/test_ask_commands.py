"""`recommend`, `evaluate` and `export-features` as a user types them."""

import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

import streamfeat_cli.commands
import streamfeat_cli.evaluate
from streamfeat.builder.coordinator import build_shards
from streamfeat.errors import ConfigError
from streamfeat_cli.recommend import time_of
from train.training.loop import train_steps

GIVEN: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 128, "steps": 12, "validate_every": 6}


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run on the tiny events, their last two held out."""
    folder = tmp_path_factory.mktemp("asked")
    events = tiny_dataset.parent / "events.csv"
    build_shards([str(events)], folder / "data", window_len=32, split="last:2", chunk_windows=2, shard_windows=8)
    for _ in train_steps(folder / "data", folder / "run", GIVEN):
        pass
    return folder / "run"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(streamfeat_cli.commands.app, [str(word) for word in words])


def mine(run: Path, path: Path, *, users: int = 1) -> Path:
    """A history of a few of the run's own items, and one that it does not know."""
    items = pq.read_table(run / "dataset/items.parquet").to_pylist()
    rows = ["user,item,medium,timestamp,rating"]
    for user in range(users):
        rows += [f"me{user},{row['raw_id']},{row['medium']},{1_600_000_000 + n},3" for n, row in enumerate(items[:4])]
        rows.append(f"me{user},no such item,{items[0]['medium']},1600000009,3")
    path.write_text("\n".join(rows) + "\n")
    return path


def test_recommend_prints_a_table_per_medium_and_names_what_it_skips(run: Path, tmp_path: Path) -> None:
    """k rows, a probability and a rating each; the unknown item and the time that was taken are named."""
    done = call("recommend", run, "--history", mine(run, tmp_path / "mine.csv"), "-k", "3")
    assert done.exit_code == 0, done.output
    assert done.stdout.count("user me0") == 2
    assert "no such item" in done.output
    assert "last event" in done.output


def test_recommend_gives_one_list_per_user_as_json_from_a_pipe_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One JSON object; the same from a file and from standard input; the run's folder alone is enough."""
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    history = mine(run, tmp_path / "mine.csv", users=2)
    words = ["-k", "4", "--at", "2020-12-24", "--json"]
    done = call("recommend", alone, "--history", history, *words)
    found = json.loads(done.stdout)["recommendations"]
    assert [entry["user"] for entry in found] == ["me0", "me1"]
    assert all(len(items) == 4 for entry in found for items in entry["media"].values())
    assert all(0 < item["probability"] < 1 for entry in found for items in entry["media"].values() for item in items)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(history.read_bytes())))
    piped = CliRunner().invoke(
        streamfeat_cli.commands.app, ["recommend", str(alone), "--history", "-", *words], input=history.read_bytes()
    )
    assert json.loads(piped.stdout)["recommendations"] == found


def test_recommend_does_everyone(run: Path, tmp_path: Path) -> None:
    """A row for each user, medium and rank; the file is not written over unasked."""
    out = tmp_path / "everyone.parquet"
    done = call("recommend", run, "--all-users", out, "-k", "2", "--json")
    assert done.exit_code == 0, done.output
    table = pq.read_table(out)
    assert json.loads(done.stdout)["rows"] == len(table)
    assert len(set(table["user"].to_pylist())) == json.loads(done.stdout)["users"] == 50
    assert call("recommend", run, "--all-users", out).exception.exit_code == 2  # type: ignore[union-attr]
    assert call("recommend", run, "--all-users", out, "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "either a history"),
        (["--history", "x.csv", "--all-users", "y.parquet"], "either a history"),
        (["--all-users", "y.parquet", "--candidates", "c.txt"], "--candidates has no effect with --all-users"),
        (["--history", "x.csv", "--at", "yesterday"], "write 2026-12-24"),
        (["--history", "nowhere.csv"], "nowhere.csv"),
        (["--history", "x.csv", "--overwrite"], "--overwrite has no effect with --history"),
        (["--history", "x.csv", "--at", "20201224"], "write 2020-12-24"),
    ],
)
def test_what_recommend_cannot_do_is_refused(run: Path, words: list[str], message: str) -> None:
    """Exit 2 with the remedy."""
    error = call("recommend", run, *words).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_a_time_is_a_date_a_moment_or_seconds() -> None:
    """UTC unless it says otherwise."""
    assert time_of("1608768000") == 1608768000
    assert time_of("2020-12-24").timestamp() == 1608768000  # type: ignore[union-attr]
    assert time_of("2020-12-24T01:00+01:00").timestamp() == 1608768000  # type: ignore[union-attr]


def test_evaluate_prints_the_whole_table_with_its_protocol(run: Path) -> None:
    """Model and baselines, seen removed and kept, time given and hidden; as JSON every line holds the protocol."""
    done = call("evaluate", run, "--bootstrap", "50")
    assert done.exit_code == 0, done.output
    systems = ("model", "popularity_30_days", "markov_chain", "item_knn", "user_item_bias", "biased_svd")
    for word in (*systems, "ndcg@10", "removed", "kept", "hidden", "last:2", "depend on ties", "calibration"):
        assert word in done.stdout, word
    found = json.loads(call("evaluate", run, "--bootstrap", "50", "--json").stdout)
    assert list(found)[:2] == ["verdicts", "advice"]
    lines = [line for name in ("verdicts", "ranking", "ratings", "differences", "calibration") for line in found[name]]
    assert all(line["fingerprint"] and line["split"] == "last:2" for line in lines)


def test_evaluate_can_be_read_in_a_narrow_terminal(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns: every system's name and figures whole, the verdict first."""
    narrow = type(streamfeat_cli.evaluate.out)(width=80)
    monkeypatch.setattr(streamfeat_cli.evaluate, "out", narrow)
    shown = call("evaluate", run, "--bootstrap", "50").stdout
    assert "…" not in shown.split("protocol:")[0]
    assert re.match(r"The model ranks (better|worse|level) (than|with) \w+[ :]", shown)
    assert "\nmodel minus baselines" in shown
    assert re.search(r"popularity_30_days +│ given +│ +0\.\d{4} │", shown)


def test_a_run_whose_dataset_moved_says_how_to_name_it(run: Path, tmp_path: Path) -> None:
    """Both commands that need it."""
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    record = (alone / "config.json").read_text()
    (alone / "config.json").write_text(record.replace(str(run.parent / "data"), "/nowhere"))
    for words in (("evaluate", alone), ("recommend", alone, "--all-users", tmp_path / "x.parquet")):
        error = call(*words).exception
        assert isinstance(error, ConfigError)
        assert "--dataset" in str(error)
        assert call(*words, "--dataset", run.parent / "data").exit_code == 0


def test_export_features_writes_a_group_and_says_what(run: Path, tmp_path: Path) -> None:
    """The original's names; a second call finds it done."""
    dataset = run.parent / "data"
    words = ("export-features", dataset, tmp_path / "features", "--objective", "masked", "--workers", "1")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert {"causal", "anime", "manga", "labels_anime_item"} <= {
        path.name for path in (tmp_path / "features").iterdir()
    }
    again = call(*words, "--json")
    assert json.loads(again.stdout)["result"] == "up to date"
