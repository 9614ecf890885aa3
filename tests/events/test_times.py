"""A time is read in any notation; an ambiguous unit is an error that names the option for it."""

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_all import read_all

from streamfeat.errors import ConfigError

INSTANT = 1_365_029_108  # 2013-04-03T22:45:08Z

WRITTEN = {
    "seconds": ["1365029108"],
    "decimal seconds": ["1365029108.999", "1365029108.0", "1365029108."],
    "exponent": ["1.365029108e9"],
    "padded": [" 1365029108 ", "+1365029108", "01365029108"],
    "milliseconds": ["1365029108999"],
    "microseconds": ["1365029108999999"],
    "nanoseconds": ["1365029108999999999"],
    "ISO, naive": ["2013-04-03T22:45:08", "2013-04-03 22:45:08.999999999", "2013-4-03 22:45:08", "2013/04/03 22:45:08"],
    "ISO, UTC": ["2013-04-03T22:45:08Z", "2013-04-03 22:45:08 UTC", " 2013-04-03 22:45:08.5Z"],
    "ISO, zones": ["2013-04-04T00:45:08+02:00", "2013-04-03T17:45:08.5-05", "2013-04-04 00:45:08 Europe/Berlin"],
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_one_instant_is_one_second_however_it_is_written(tmp_path, name):
    """Rounded down to whole seconds; with its time zone, or UTC without one."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i,{value}\n" for value in WRITTEN[name]))
    read = read_all(path)
    assert [row.time for row in read.rows] == [INSTANT] * len(WRITTEN[name])
    assert ("UTC assumed" in read.source.note) == (name == "ISO, naive")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "+02:00"])
def test_parquet_timestamps_need_no_telling(tmp_path, unit, zone):
    """Their type has unit and zone; nulls are missing times."""
    instant = datetime.fromtimestamp(INSTANT, UTC)
    array = pa.array([instant.replace(tzinfo=None), None]).cast(pa.timestamp(unit))
    table = pa.table({"user": [1, 1], "item": [1, 2], "time": array.view(pa.timestamp(unit, zone))})
    pq.write_table(table, tmp_path / "a.parquet", version="2.6")
    read = read_all(tmp_path / "a.parquet")
    assert [row.time for row in read.rows] == [INSTANT]
    assert read.reasons == [(2, "missing_time")]
    assert ("UTC assumed" in read.source.note) == (zone is None)


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (pa.array([INSTANT * 1000 + 999], pa.int64()), [INSTANT]),
        (pa.array([INSTANT], pa.uint32()), [INSTANT]),
        (pa.array([INSTANT + 0.75]), [INSTANT]),
        (pa.array([float(INSTANT * 1000)]), [INSTANT]),
        (pa.array([date(2013, 4, 3)]), [INSTANT // 86400 * 86400]),
        (pa.array(["2013-04-04T00:45:08+02:00"]), [INSTANT]),
        (pa.array([str(INSTANT)]), [INSTANT]),
        (pa.array(["2013-04-03 22:45:08"]).dictionary_encode(), [INSTANT]),
    ],
)
def test_parquet_times_of_other_types_are_read(tmp_path, values, times):
    """Numbers of every unit, dates and text."""
    pq.write_table(pa.table({"user": [1], "item": [1], "time": values}), tmp_path / "a.parquet")
    assert [row.time for row in read_all(tmp_path / "a.parquet").rows] == times


def test_mixed_magnitudes_are_refused_until_the_unit_is_said(tmp_path):
    """Half seconds, half milliseconds: only the user can know the unit. If 1% have another unit, those are bad rows."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + f"u,i,{INSTANT}\nu,i,{INSTANT}000\n" * 10)
    with pytest.raises(ConfigError, match=r"10 of 20 look like milliseconds.*--time-unit"):
        read_all(path)
    read = read_all(path, time_unit="s")
    assert [row.time for row in read.rows] == [INSTANT] * 10
    assert read.reasons == [(row, "time_out_of_range") for row in range(3, 22, 2)]
    path.write_text("user,item,ts\n" + f"u,i,{INSTANT}\n" * 200 + f"u,i,{INSTANT}000\n")
    assert read_all(path).reasons == [(202, "time_out_of_range")]


def test_the_middle_and_end_of_a_file_are_looked_at_too(tmp_path):
    """A log whose unit changed halfway is ambiguous, although its head is not."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + f"u,i,{INSTANT}\n" * 60_000 + f"u,i,{INSTANT}000\n" * 60_000)
    with pytest.raises(ConfigError, match="mixes magnitudes"):
        read_all(path)


def test_small_values_are_no_evidence_of_a_unit(tmp_path):
    """0 and other small numbers among milliseconds are early milliseconds; without others they are seconds."""
    path = tmp_path / "a.csv"
    path.write_text(f"user,item,ts\nu,i,0\nu,i,5000\nu,i,{INSTANT}000\n")
    assert [row.time for row in read_all(path).rows] == [0, 5, INSTANT]
    path.write_text("user,item,ts\nu,i,0\nu,i,5000\n")
    assert [row.time for row in read_all(path).rows] == [0, 5000]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "missing_time"), ("soon", "unparsable_time"), ("12:30", "unparsable_time"), ("nan", "unparsable_time"),
        ("1_365_029", "unparsable_time"), ("0x515CB", "unparsable_time"), ("inf", "unparsable_time"),
        ("-1", "negative_time"),
        ("-0.5", "negative_time"), ("-1e400", "negative_time"), ("1e400", "time_out_of_range"),
        ("253402300800", "time_out_of_range"), ("99999999999999999999", "time_out_of_range"),
    ],
)  # fmt: skip
def test_a_bad_number_is_rejected_with_its_reason(tmp_path, value, reason):
    """Negative, after the year 9999, or not a number, even if DuckDB's casts accept it."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + f"u,i,{INSTANT}\n" * 3 + f"u,i,{value}\nu,j,253402300799\n")
    read = read_all(path, time_unit="s")
    assert [(r.row, r.reason, r.value) for r in read.rejected] == [(5, reason, value)]
    assert [row.time for row in read.rows] == [INSTANT] * 3 + [253402300799]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2013-13-01 00:00:00", "unparsable_time"), ("2013-02-30", "unparsable_time"), ("infinity", "unparsable_time"),
        ("2013-04-03T25:00:00Z", "unparsable_time"), ("1365029108", "unparsable_time"),
        ("1969-12-31 23:59:59", "negative_time"), ("1969-12-31T23:59:59.5Z", "negative_time"),
        ("1970-01-01T00:30:00+01:00", "negative_time"), ("12013-04-03 00:00:00", "time_out_of_range"),
    ],
)  # fmt: skip
def test_a_bad_iso_time_is_rejected_with_its_reason(tmp_path, value, reason):
    """The date must exist, and the time zone is applied before the sign is checked."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "u,i,2013-04-03\n" * 3 + f"u,i,{value}\n")
    read = read_all(path)
    assert [(r.row, r.reason, r.value) for r in read.rejected] == [(5, reason, value)]


def test_iso_of_every_offset_is_what_python_reads(tmp_path):
    """The fast path for plain ISO and the slow one for zones agree with datetime."""
    path = tmp_path / "a.csv"
    start = datetime(2013, 4, 3, 22, 45, 8, tzinfo=UTC)
    zones = [timezone(timedelta(minutes=m)) for m in range(-720, 841, 45)]
    moments = [(start + timedelta(hours=7 * i)).astimezone(zone) for i, zone in enumerate(zones)]
    texts = [m.isoformat(" " if i % 2 else "T") for i, m in enumerate(moments)]
    path.write_text("user,item,ts\n" + "".join(f"u,{i},{text}\n" for i, text in enumerate(texts)))
    assert [row.time for row in read_all(path).rows] == [int(m.timestamp()) for m in moments]
