"""`import streamfeat` in Python: calls do their work and return objects that print well."""

import inspect
import json
import os
import pydoc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from invented_events import invent_events, write_csv

import streamfeat
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from train.config import ModelConfig, TrainConfig

SMALL: dict[str, Any] = {"layers": 1, "width": 16, "heads": 2, "batch_tokens": 256}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An event file, a dataset `data` built from it, and a run `run` on it; the working folder."""
    folder, before = tmp_path_factory.mktemp("python"), Path.cwd()
    write_csv(folder / "ratings.csv", invent_events(seed=3, num_users=40, media={"anime": 20, "manga": 10}))
    os.chdir(folder)
    data = streamfeat.build("ratings.csv", "data", window_len=32, split="last:2")
    streamfeat.train(data, "run", preset="tiny", epochs=2, **SMALL)
    yield folder
    os.chdir(before)


def test_a_dataset_says_what_is_in_it(folder: Path) -> None:
    """Items, users and histories are rows with raw ids, the history that of the event file."""
    data = streamfeat.open("data")
    assert str(data).splitlines()[1] == (
        f"  40 users, {data.manifest.num_events} events, items: anime {data.manifest.scales[0].items}, manga 10"
    )
    assert (len(data.items), len(data.users)) == (data.manifest.num_items, data.manifest.num_users)
    assert str(data.items).splitlines()[1].split() == ["id", "medium", "raw_id", "events", "targets"]
    events = [event for event in invent_events(seed=3, num_users=40, media={"anime": 20, "manga": 10})
              if event.user == "user4"]  # fmt: skip
    history = data.history("user4")
    assert len({(row["item"], row["timestamp"]) for row in history}) == len(history)
    assert {(row["item"], int(row["timestamp"].timestamp())) for row in history} == {(e.item, e.time) for e in events}
    assert data.history("user4").to_dict().keys() == {
        "item", "medium", "title", "timestamp", "rating", "status", "completion",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"no user '42'; ids are those of the event files, such as 'user\d"):
        data.history(42)


def test_rows_are_taken_by_number(folder: Path) -> None:
    """As from a list of dicts, whether they stand in memory (items) or are read from a file when asked for (users)."""
    data = streamfeat.open("data")
    for rows in (data.items, data.users):
        every = list(rows)
        assert rows.columns == list(every[0]) == rows.to_arrow().column_names
        assert (rows[0], rows[-1], rows[3:7], rows[8:2:-3]) == (every[0], every[-1], every[3:7], every[8:2:-3])
        assert rows[5:5] == []
        with pytest.raises(IndexError):
            rows[len(rows)]


def test_a_stream_feeds_a_loop_of_ones_own(folder: Path) -> None:
    """`stream` has a default batch size, and its repr describes it."""
    stream = streamfeat.open("data").stream(objective="causal")
    assert [batch["item"].shape for batch in stream] == [(32, 32)] * stream.steps_per_epoch
    assert repr(stream).startswith(f"WindowStream({str(Path('data').absolute())!r}, causal, training: ")
    for call in (streamfeat.Dataset.stream, streamfeat.Dataset.export):
        assert {"objective", "mask_policy", "split", "seed"} < set(inspect.signature(call).parameters)
    with pytest.raises(ConfigError, match="stream: unknown key 'spilt'; did you mean 'split'"):
        streamfeat.open("data").stream(objective="causal", spilt=3)
    with pytest.raises(ConfigError, match="export: unknown key 'epocs'; did you mean 'epoch'"):
        streamfeat.open("data").export("features", objective="causal", epocs=3)
    with pytest.raises(ConfigError, match="build: unknown key 'worker'; did you mean 'workers'"):
        streamfeat.build("ratings.csv", "data", worker=3)


def test_building_again_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same call again is up to date; another window length is an error."""
    before = Path("data/dataset.json").read_bytes()
    assert streamfeat.build("ratings.csv", "data", window_len=32, split="last:2").manifest.num_users == 40
    assert Path("data/dataset.json").read_bytes() == before
    with pytest.raises(ConfigError, match="window_len: there 32, now 16"):
        streamfeat.build("ratings.csv", "data", window_len=16, split="last:2")
    with pytest.raises(ConfigError, match="did you mean 'window_len'"):
        streamfeat.build("ratings.csv", "data", window_length=16)
    assert capsys.readouterr() == ("", "")  # stderr is no terminal here


def test_a_run_has_its_figures(folder: Path) -> None:
    """The last and the best validation next to the baselines, and the metrics of every step."""
    run = streamfeat.open_run("run")
    figures = run.figures.to_dict()
    assert [row["task"] for row in run.figures] == [
        "watch",
        "loss",
        "anime_watch",
        "anime_rating",
        "manga_watch",
        "manga_rating",
    ]
    assert figures["last"]["losses"].keys() == figures["baselines"].keys() == figures["best"]["losses"].keys()
    assert figures["best"]["watch"] <= figures["last"]["watch"]
    steps = [row["step"] for row in run.metrics if row["kind"] == "train"]
    assert steps == list(range(1, len(steps) + 1))
    assert f"{len(steps)} steps" in str(run)
    assert run.config.width == 16 if hasattr(run.config, "width") else run.config.model.width == 16
    assert run.dataset.manifest.fingerprint == streamfeat.open("data").manifest.fingerprint
    with pytest.raises(ConfigError, match="unknown key 'layer'; did you mean 'layers'"):
        streamfeat.train("data", "run2", layer=2)


def test_an_evaluation_is_a_frame_and_json(folder: Path) -> None:
    """Every figure of every system in a row, the JSON that `--json` prints."""
    pytest.importorskip("pandas", reason="pip install -e '.[dev]'")
    found = streamfeat.open_run("run").evaluate(num_bootstrap=20)
    frame = found.to_frame()
    model = frame[(frame.system == "model") & (frame.medium == "all") & (frame.figure == "ndcg@10")]
    assert len(model) == 4  # seen items removed or kept, time given or hidden
    assert (model.low <= model.value).all()
    assert (model.value <= model.high).all()
    assert {"rmse", "mae", "mrr", "hr@1"} <= set(frame.figure)
    values = json.loads(json.dumps(found.to_dict()))
    assert values.keys() >= {"verdicts", "advice", "ranking", "ratings", "differences", "calibration", "baselines"}
    assert [verdict["text"] for verdict in values["verdicts"]] == [verdict.text for verdict in found.verdicts]
    assert {verdict.standing for verdict in found.verdicts} <= {"better", "worse", "level"}
    assert all(verdict.text in repr(found) for verdict in found.verdicts)
    assert {"model", "popularity"} <= {line.split()[0] for line in str(found).splitlines()}


def test_a_known_user_is_recommended_what_everyone_is(folder: Path, tmp_path: Path) -> None:
    """`user=` takes the whole history from the dataset, so the lists equal those of `recommend_all`."""
    pq = pytest.importorskip("pyarrow.parquet")
    run = streamfeat.open_run("run")
    found = run.recommend(user="user4", k=3, at=1_400_000_000)
    written = run.recommend_all(tmp_path / "all.parquet", k=3, at=1_400_000_000)
    assert written.users == 40
    assert repr(written) == f"Recommendations '{tmp_path}/all.parquet': 40 users, {written.rows} rows"
    everyone = pq.read_table(tmp_path / "all.parquet").to_pylist()
    expected = [row for row in everyone if row["user"] == "user4"]
    rows = list(found)
    assert [(r["medium"], r["rank"], r["item"], r["at"]) for r in rows] == [
        (r["medium"], r["rank"], r["item"], r["at"]) for r in expected
    ]
    for name in ("probability", "rating"):
        assert [r[name] for r in rows] == pytest.approx([r[name] for r in expected], rel=1e-4)
    (told,) = found.to_dict()["recommendations"]
    assert (told["user"], told["skipped"], len(told["media"]["anime"])) == ("user4", 0, 3)
    assert found.to_frame().columns.tolist()[0] == "user"


def test_a_history_may_be_a_table_rows_or_a_path(folder: Path, tmp_path: Path) -> None:
    """The same events in any form give the same recommendations."""
    pl = pytest.importorskip("polars", reason="pip install -e '.[dev]'")
    rows = [{"item": "a1", "medium": "anime", "timestamp": 1_400_000_000, "rating": 8},
            {"item": "m2", "medium": "manga", "timestamp": 1_400_000_500}]  # fmt: skip
    path = tmp_path / "mine.csv"
    path.write_text("user,item,medium,timestamp,rating\nme,a1,anime,1400000000,8\nme,m2,manga,1400000500,\n")
    run = streamfeat.open_run("run")
    data = streamfeat.open("data")
    expected = [(r["item"], r["probability"]) for r in run.recommend(history=path, k=2)]
    assert [(r["item"], r["probability"]) for r in run.recommend(history=rows, k=2)] == expected
    assert [(r["item"], r["probability"]) for r in run.recommend(history=iter(rows), k=2)] == expected
    assert [(r["item"], r["probability"]) for r in run.recommend(history=pl.DataFrame(rows), k=2)] == expected
    assert len(run.recommend(history=data.history("user4"), k=2)) == 4  # rows of ours are a table, too
    with pytest.raises(ConfigError, match=r"history: row 0 is \('a1',\); give \(item, timestamp\)"):
        run.recommend(history=[("a1",)])
    with pytest.raises(ConfigError, match="history: is empty"):
        run.recommend(history=[])
    with pytest.raises(ConfigError, match=r"^history: no column for medium"):
        run.recommend(history=[("a1", 1_400_000_000)])
    with pytest.raises(ConfigError, match="give one of user="):
        run.recommend(k=3)


def test_tuples_are_enough_where_there_is_one_medium(tmp_path: Path) -> None:
    """(item, timestamp) and (item, timestamp, rating), with datetimes and with seconds."""
    from datetime import UTC, datetime

    events = write_csv(tmp_path / "e.csv", invent_events(seed=5, num_users=30, media={"anime": 20}))
    data = streamfeat.build(events, tmp_path / "data", window_len=16, split="users:0.2")
    run = streamfeat.train(data, tmp_path / "run", steps=2, **SMALL)
    seconds = list(run.recommend(history=[("a1", 1_400_000_000), ("a2", 1_400_000_001, 7)], k=3))
    moments = [
        ("a1", datetime.fromtimestamp(1_400_000_000, UTC)),
        ("a2", datetime.fromtimestamp(1_400_000_001, UTC), 7),
    ]
    assert list(run.recommend(history=moments, k=3)) == seconds
    assert {row["user"] for row in seconds} == {"you"}


def test_a_known_user_and_a_history_of_ours_are_asked_where_no_file_names_a_medium(tmp_path: Path) -> None:
    """Then the only medium is called `item`, which event files must not use; a history that we print is accepted."""
    events = tmp_path / "e.csv"
    events.write_text("user,item,timestamp\n" + "".join(f"u{n % 9},i{n % 7},{1_400_000_000 + n}\n" for n in range(90)))
    data = streamfeat.build(events, tmp_path / "data", window_len=16, split="users:0.2")
    run = streamfeat.train(data, tmp_path / "run", steps=2, **SMALL)
    known = [(row["item"], row["probability"]) for row in run.recommend(user="u3", k=3, seen=True)]
    history = data.history("u3")
    assert {row["medium"] for row in history} == {"item"}
    assert len(known) == 3
    for given in (history, history.to_arrow(), list(history)):
        assert [(row["item"], row["probability"]) for row in run.recommend(history=given, k=3, seen=True)] == known
    only_mine = tmp_path / "mine.csv"
    only_mine.write_text(
        "\n".join(line for line in events.read_text().splitlines() if line[:3] in ("use", "u3,")) + "\n"
    )
    assert [(row["item"], row["probability"]) for row in run.recommend(history=only_mine, k=3, seen=True)] == known


def test_verify_repair_and_export_act(folder: Path, tmp_path: Path) -> None:
    """A damaged window is listed, written again, and sound in the next check."""
    data = streamfeat.open("data")
    assert len(data.verify()) == 0
    shard = next(path for path in Path("data/windows.zarr/validation/0").rglob("c/*/*") if path.is_file())
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    assert {row["kind"] for row in data.verify()} == {"truncated"}
    assert [row["file"] for row in data.repair()] == [shard.relative_to("data").as_posix()]
    assert shard.read_bytes() == whole
    features = data.export(tmp_path / "<features>", objective="causal", split="validation")
    assert features.num_windows > 0
    assert repr(features).startswith(f"Features '{tmp_path}/<features>': exported\n  {features.num_windows} windows, ")
    assert features._repr_html_().startswith(f"<pre>Features &#x27;{tmp_path}/&lt;features&gt;&#x27;: exported\n")
    assert repr(data.manifest).startswith("Manifest(format_version=")
    assert len(repr(data.manifest)) < 200


def test_progress_is_shown_when_asked_for_and_warnings_always(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed on standard output; without a terminal no bar is drawn."""
    streamfeat.build("ratings.csv", tmp_path / "data", window_len=32, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    assert "windows" in said.err
    assert "ratings.csv: delimited text" in said.err
    run = streamfeat.open_run("run")
    rows = [{"item": "unheard", "medium": "anime", "timestamp": 1_400_000_000}]
    run.recommend(history=rows, progress=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("warning: items unknown to the run: 1")
    assert str(tmp_path.anchor + "tmp") not in said.err  # no names of temporary files


def test_html_is_escaped(folder: Path, tmp_path: Path) -> None:
    """Ids and titles come from files, and a notebook would run unescaped HTML."""
    (tmp_path / "e.csv").write_text(
        "user,item,timestamp,title\n"
        + "".join(
            f"<b>u{n % 5},<script>i{n % 7},{1_400_000_000 + n},\"<img src=x onerror=alert('1')>\"\n" for n in range(60)
        )
    )
    data = streamfeat.build(tmp_path / "e.csv", tmp_path / "<i>data", window_len=16)
    shown = data.items._repr_html_() + data.users._repr_html_() + data.history("<b>u1")._repr_html_()
    shown += data._repr_html_()
    assert "&lt;script&gt;" in shown
    assert "&lt;img src=x onerror=alert(&#x27;1&#x27;)&gt;" in shown
    for text in ("<script", "<img", "<b>", "<i>"):
        assert text not in shown
    (tmp_path / "f.csv").write_text(
        "user,item,timestamp\n" + "".join(f"u,\x1b[31mi{n},{1_400_000_000 + n}\n" for n in range(9))
    )
    assert "\x1b" not in str(streamfeat.build(tmp_path / "f.csv", tmp_path / "f", window_len=16).items)


def test_the_public_names_are_all_there_is_to_see() -> None:
    """`dir` and completion show only them; each can be imported and has a docstring. A star import leaves out `open`,
    `torch` and the two records: in most scripts `open` and `torch` are something else."""
    code = (
        "import sys, streamfeat\n"
        "heavy = {'numba', 'zarr', 'duckdb', 'torch', 'pyarrow', 'pydantic', 'rich', 'numpy'} & set(sys.modules)\n"
        "print(sorted(heavy), sorted(set(dir(streamfeat)) - set(streamfeat.__all__)), streamfeat.__version__)\n"
        "from builtins import open as before\n"
        "from streamfeat import *\n"
        "print(open is before, 'torch' in globals(), streamfeat.testing.tiny_dataset.__name__)\n"
        "print(streamfeat.torch.WindowDataset.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, *more = done.stdout.splitlines()
    assert first.startswith("[] ['BuildConfig', 'Manifest', 'open', 'testing', 'torch'] 0.1.")
    assert more == ["True False tiny_dataset", "WindowDataset"]
    for name in dir(streamfeat):
        value = getattr(streamfeat, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'build_shards'"):
        streamfeat.build_shards  # noqa: B018


def test_help_is_about_streamfeat() -> None:
    """A few screens: no validators, nothing that is pydantic's; what it leaves out is named in its first lines."""
    text = pydoc.plain(pydoc.render_doc(streamfeat))
    assert text.count("\n") < 560
    for foreign in ("pydantic", "Annotated", "Validator", "<function parse"):
        assert foreign not in text
    for name in ("`open`", "streamfeat.torch", "streamfeat.testing"):
        assert name in text


def test_help_names_every_option_of_a_build_and_of_a_training() -> None:
    """With its default. The model's options are listed with the trainer's."""
    build, train = (inspect.signature(call).parameters for call in (streamfeat.build, streamfeat.train))
    assert set(BuildConfig.model_fields) < set(build)
    assert build["window_len"].default == BuildConfig().window_len
    assert {*TrainConfig.model_fields, *ModelConfig.model_fields} - {"model"} < set(train)
    assert "model" not in train
    assert {parameter.kind for parameter in train.values()} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }


def test_without_pandas_a_frame_names_it(folder: Path) -> None:
    """All other calls work without pandas."""
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import streamfeat; data = streamfeat.open('data'); print(len(data.items.to_dict()['id']))\n"
        "try: data.items.to_frame()\n"
        "except streamfeat.StreamfeatError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install" in done.stdout.splitlines()[1]
    assert "[pandas]" in done.stdout.splitlines()[1]
