"""`inspect FILE` says how a file would be read, before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from streamfeat.builder.coordinator import build_shards, build_steps
from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, StreamfeatError
from streamfeat.events.file_report import EventsReport, report_steps
from streamfeat.progress import Note
from streamfeat_cli.commands import app

ROWS = [
    "a,x,2013-04-03T22:45:08.750Z,5,completed",
    "a,y,2013-04-03T22:45:08.250Z,,planned",
    "a,y,2013-04-03T22:45:08.250Z,,planned",
    "b,x,2013-05-03T22:45:08.000Z,,",
    ",x,2013-05-03T22:45:08.000Z,3,",
    "b,z,soon,3,",
]


def report(path: Path, **config: Any) -> EventsReport:
    *_, last = report_steps([str(path)], BuildConfig(**config))
    assert isinstance(last, EventsReport)
    return last


def test_the_report_tells_roles_times_and_what_a_build_would_count(tmp_path: Path) -> None:
    """Five samples of each role, times in UTC; the counts are those of the dataset."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts,rating,status,note\n" + "".join(f"{row},n\n" for row in ROWS))
    found = report(path)
    (file,) = found.files
    roles = {role.role: role for role in file.roles}
    assert list(roles) == ["user", "item", "timestamp", "rating", "status"]
    assert roles["timestamp"].column == "ts"
    assert roles["user"].samples == ("a", "a", "a", "b", "b")
    assert roles["timestamp"].samples[0] == "2013-04-03T22:45:08.750Z"
    assert roles["timestamp"].times[0] == "2013-04-03 22:45:08 UTC"
    assert file.left == ("note",)
    assert (found.rows, found.events, found.users, found.items) == (6, 3, 2, {"item": 2})
    assert (found.first, found.last) == ("2013-04-03 22:45:08 UTC", "2013-05-03 22:45:08 UTC")
    assert (found.unrated, found.planned, found.tied, found.duplicates) == (2, 1, 2, 1)
    assert found.rejected == {"missing_user": 1, "unparsable_time": 1}
    assert [reject.row for reject in found.rejected_rows] == [6, 7]
    manifest = build_shards([str(path)], tmp_path / "data", window_len=8, max_rejected=1)
    assert (manifest.num_events, manifest.num_users, manifest.num_items) == (found.events, found.users, 2)
    assert (manifest.tied_events, manifest.cleaning["duplicates"]) == (found.tied, found.duplicates)


def test_options_of_reading_decide_what_the_report_says(tmp_path: Path) -> None:
    """Also on the command line; a file that a build would refuse is refused with the same remedy."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,day,hour\n" + "u,i,43831,8\n" * 3)
    with pytest.raises(ConfigError, match="--time-unit excel-days"):
        report(path, columns={"timestamp": "day"})
    told = CliRunner().invoke(
        app, ["inspect", str(path), "--columns=timestamp=day", "--time-unit=excel-days", "--json"]
    )
    assert told.exit_code == 0, told.output
    values = json.loads(told.stdout)
    assert values["first"] == "2020-01-01 00:00:00 UTC"
    assert values["files"][0]["roles"][2]["times"] == ["2020-01-01 00:00:00 UTC"] * 3
    assert values["duplicates"] == 2
    plain = CliRunner().invoke(app, ["inspect", str(path), "--columns=timestamp=day", "--time-unit=excel-days"])
    for word in ("43831", "2020-01-01 00:00:00 UTC", "hour", "unrated"):
        assert word in plain.stdout


def test_files_of_a_glob_or_a_folder_are_one_report(tmp_path: Path) -> None:
    """A user's events may lie in any of them; empty ones are left out with a note."""
    for part, item in enumerate("xy"):
        (tmp_path / f"part-{part}.csv").write_text(f"user,item,ts\nu,{item},150000000{part}\n")
    (tmp_path / "part-2.csv").write_text("")
    steps = list(report_steps([str(tmp_path / "part-*.csv")], BuildConfig()))
    assert isinstance(steps[-1], EventsReport)
    assert (steps[-1].users, steps[-1].events, len(steps[-1].files)) == (1, 2, 2)
    assert any(isinstance(step, Note) and "empty" in step.text for step in steps)
    told = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert json.loads(told.stdout)["events"] == 2
    (tmp_path / "part-1.csv").write_text("a,b\n1,2\n")
    told = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert "neither a finished dataset" in str(told.exception)
    assert "no column for user" in str(told.exception)


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        (
            "user,item,time",
            "u{i},{i},2500-01-01",
            "would stop: 40 of 40 events are later than their file was last changed",
        ),
        ("user,item,time", "u{i},{i},1980-01-01", "would stop: 40 of 40 events are from before 1990"),
        ("user,item,time,status", "u{i},{i},2020-01-01,Seen all", "--status 'Seen all=completed'"),
        ("user,item,time", "u{i},{i},2020-01-01\nu{i},,2020-01-01", "40 of 80 rows are bad (40 missing_item)"),
        ("user,item,time,rating", "u{i},{i},2020-01-01,{i}", "1 of 40 ratings (2.5%) are 0, apart from the others"),
        ("user,item,time", "u{i},{i},2020-01-01\nx,{i},2020-01-01\nx,x{i},2020-01-01", "user 'x' has 80 of 120 events"),
    ],
)
def test_the_report_tells_why_a_build_would_stop_and_what_it_would_warn_about(
    tmp_path: Path, header: str, row: str, told: str
) -> None:
    """A build of the same file says the same."""
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n" + "".join(row.format(i=i) + "\n" for i in range(40)))
    notes = [step.text for step in report_steps([str(path)], BuildConfig()) if isinstance(step, Note) and step.warning]
    assert any(told in note for note in notes), notes
    said = []
    try:
        said += [str(step) for step in build_steps([str(path)], tmp_path / "data", BuildConfig())]
    except StreamfeatError as error:
        said.append(str(error))
    assert any(told.removeprefix("would stop: ") in text for text in said)
