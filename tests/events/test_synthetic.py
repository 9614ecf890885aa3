"""Invented histories: the requested number, always the same, and with the promised structure."""

from collections import Counter

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from read_all import read_all

from streamfeat.errors import ConfigError
from streamfeat.events.synthetic import write_synthetic


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "events.parquet"
    write_synthetic(path, num_users=600, num_events=30_000, seed=3)
    return pq.read_table(path).to_pandas()


def test_counts_are_exact_and_every_row_is_an_event(tmp_path):
    """As many events and users as asked for, none rejected; CSV and Parquet hold the same."""
    reads = []
    for name in ("a.csv", "a.parquet"):
        write_synthetic(tmp_path / name, num_users=50, num_events=1234, seed=1, media=("film", "book", "game"))
        reads.append(read_all(tmp_path / name))
    assert reads[0].rows == reads[1].rows
    assert reads[0].rejected == []
    assert len(reads[0].rows) == 1234
    assert len({row.user for row in reads[0].rows}) == 50
    assert {row.medium for row in reads[0].rows} == {"film", "book", "game"}


@pytest.mark.parametrize(("num_users", "num_events"), [(1, 1), (1, 500), (7, 7), (3, 4)])
def test_any_number_of_users_and_events_will_do(tmp_path, num_users, num_events):
    """Including users with one event and users with more events than there are items."""
    write_synthetic(tmp_path / "a.csv", num_users=num_users, num_events=num_events, seed=1, items_per_medium=20)
    rows = read_all(tmp_path / "a.csv").rows
    assert (len({row.user for row in rows}), len(rows)) == (num_users, num_events)


def test_a_seed_decides_the_bytes(tmp_path):
    """The same seed gives the same file, another one another."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_synthetic(tmp_path / f"{name}.csv", num_users=50, num_events=500, seed=seed)
    first, again, other = ((tmp_path / f"{name}.csv").read_bytes() for name in "abc")
    assert first == again != other


def test_what_cannot_be_written_is_refused(tmp_path):
    """Fewer events than users, or an unknown suffix."""
    with pytest.raises(ConfigError, match="raise num_events"):
        write_synthetic(tmp_path / "a.csv", num_users=5, num_events=4, seed=1)
    with pytest.raises(ConfigError, match="suffixes"):
        write_synthetic(tmp_path / "a.json", num_users=5, num_events=5, seed=1)


def test_users_lie_interleaved_in_time_order(events):
    """As in a real log: sorted by time, and neighbours are mostly of different users."""
    assert (np.diff(events["timestamp"]) >= 0).all()
    assert (events["user"].to_numpy()[1:] != events["user"].to_numpy()[:-1]).mean() > 0.5


def test_an_item_is_rarely_watched_twice(events):
    """Less than 1%, so a softmax leaves out seen items."""
    watched = events[events["status"] != "planned"]
    assert watched.duplicated(["user", "medium", "item"]).mean() < 0.01


def test_the_next_item_is_often_the_sequel(events):
    """The most frequent successor of an item is far more likely than its popularity says."""
    watched = events[events["status"] != "planned"].sort_values(["user", "timestamp"], kind="stable")
    key = list(zip(watched["medium"], watched["item"], strict=True))
    user = watched["user"].to_numpy()
    pairs = [(key[i], key[i + 1]) for i in range(len(key) - 1) if user[i] == user[i + 1]]
    best: dict[object, Counter] = {}
    for one, two in pairs:
        best.setdefault(one, Counter())[two] += 1
    hits = sum(counter.most_common(1)[0][1] for counter in best.values())
    assert hits / len(pairs) > 0.2
    assert Counter(key).most_common(1)[0][1] / len(key) < 0.05


def test_ratings_depend_on_user_item_and_status(events):
    """1 to 10, some missing; means differ by user and item; dropped items are rated lower, planned ones not at all."""
    rated = events[events["rating"].notna()]
    assert set(rated["rating"]) <= set(range(1, 11))
    assert 0.5 < len(rated) / len(events) < 0.9
    assert rated.groupby("user")["rating"].mean().std() > 0.5
    assert rated.groupby(["medium", "item"], observed=True)["rating"].mean().std() > 0.5
    by_status = rated.groupby("status", observed=True)["rating"].mean()
    assert by_status["dropped"] < by_status["completed"] - 2
    assert "planned" not in by_status
    assert 0.05 < (events["status"] == "planned").mean() < 0.1


def test_planned_events_come_before_the_watch(events):
    """An item is planned at least a day before it is watched."""
    key = ["user", "medium", "item"]
    planned = events[events["status"] == "planned"].set_index(key)["timestamp"]
    watched = events[events["status"] != "planned"].groupby(key, observed=True)["timestamp"].max()
    both = planned.to_frame("planned").join(watched.rename("watched"), how="inner")
    assert len(both) == len(planned)
    assert (both["watched"] - both["planned"] >= 86_400).all()


def test_times_come_in_evening_sessions(events):
    """Most gaps inside a history are under an hour or over half a day."""
    watched = events[events["status"] != "planned"].sort_values(["user", "timestamp"])
    gaps = watched.groupby("user")["timestamp"].diff().dropna()
    assert (gaps < 3600).mean() > 0.4
    assert (gaps > 43_200).mean() > 0.3


def test_a_large_csv_has_a_plain_header(tmp_path):
    """Readable by anything: no quotes, names first."""
    write_synthetic(tmp_path / "a.csv", num_users=5, num_events=50, seed=1)
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "user,item,medium,timestamp,rating,status,completion"
    assert pyarrow.csv.read_csv(tmp_path / "a.csv").num_rows == 50


@pytest.mark.parametrize("name", ["a:b.parquet", "s3:x.csv", "n\udcff.csv", "n\udcff.parquet"])
def test_any_name_is_a_file_name(tmp_path, name):
    """Arrow reads a name with a colon as a URI, and accepts only UTF-8."""
    write_synthetic(tmp_path / name, num_users=5, num_events=50, seed=0)
    write_synthetic(tmp_path / f"plain{name[-4:]}".replace("quet", ".parquet"), num_users=5, num_events=50, seed=0)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert len(list(tmp_path.iterdir())) == 2
