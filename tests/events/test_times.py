"""A time is read in any notation; an ambiguous unit is an error that names the option for it."""

import json
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


def test_few_small_values_are_no_evidence_of_a_unit(tmp_path):
    """Up to a tenth of 0 and other small numbers among milliseconds are early milliseconds."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\nu,i,5000\n" + "u,i,0\n" * 10 + f"u,i,{INSTANT}000\n" * 100)
    assert [row.time for row in read_all(path).rows] == [5] + [0] * 10 + [INSTANT] * 100


COUNTED = {
    # Unit → (2013-04-03 22:45:08 UTC and, of some, parts of a second, the next day)
    "dotnet": (635_006_259_081_234_567, 635_007_123_080_000_000),
    "filetime": (130_095_027_081_234_567, 130_095_891_080_000_000),
    "webkit": (13_009_502_708_123_456, 13_009_589_108_000_000),
    "apple": ("386721908.25", "386808308"),
    "apple-ns": (386_721_908_000_000_000, 386_808_308_000_000_000),
}


@pytest.mark.parametrize("unit", COUNTED)
@pytest.mark.parametrize("kind", ["text", "int64", "float64"])
def test_ticks_of_other_systems_are_read_to_the_second(tmp_path, unit, kind):
    """.NET, Windows, browsers, Apple; as text, integers and floats. Numbers before 1970 are negative times."""
    values = pa.array([str(value) for value in COUNTED[unit]])
    values = values.cast(pa.float64()) if kind == "float64" else values
    values = values.cast(pa.float64()).cast(kind, safe=False) if kind == "int64" and unit == "apple" else values
    values = values.cast(kind) if kind == "int64" else values
    pq.write_table(pa.table({"user": [1, 1], "item": [1, 2], "ts": values}), tmp_path / "a.parquet")
    assert [row.time for row in read_all(tmp_path / "a.parquet", time_unit=unit).rows] == [INSTANT, INSTANT + 86400]
    pq.write_table(pa.table({"user": [1, 1], "item": [1, 2], "ts": ["-1", "99" * 11]}), tmp_path / "a.parquet")
    read = read_all(tmp_path / "a.parquet", time_unit=unit)
    assert [reason for _, reason in read.reasons] == ["negative_time", "time_out_of_range"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["130095027080000000"], "filetime"),
        (["13009502708000000"], "webkit"),
        (["874724710", "893286638"], "s"),
        (["789652009", "1574327703"], "s"),
        (["1365029108"], "s"),
        (["20130403224508123"], "yyyymmdd"),
    ],
)
def test_a_unit_is_recognised_where_the_values_allow_only_that_one(tmp_path, values, found):
    """Years that are usual for the unit and not after the file decide; Unix times as of 1997 need no other look."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i,{value}\n" for value in values))
    read = read_all(path)
    assert read.source.time_unit == found
    assert all(788_000_000 < row.time < 1_800_000_000 for row in read.rows)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["662688000.5"], r"as seconds they are 1991-01-01.*--time-unit s\).*they are 2022-01-01.*--time-unit apple\)"),
        (["637188048000000000"], r"2020-03-03.*--time-unit dotnet\), or as .*2021-03-11.*--time-unit apple-ns\)"),
        (["1.58E+12", "1.59E+12"], r"rounded numbers such as '1.58E\+12'.*export the file again.*--time-unit"),
        (["0", str(INSTANT)], r"1 of 2 times looked at are 0.*leave those rows out.*--time-unit s"),
        (["1970-01-01 00:00:00", "2013-04-03"], r"1 of 2 times.*1970-01-01 00:00:00.*--time-unit iso"),
        (["1970-01-01 01:00:00", "2013-04-03"], r"1 of 2 times.*1970-01-01 01:00:00"),
        (["01/01/1970", "30/04/2013"], r"1 of 2 times looked at are 01/01/1970.*--time-unit iso"),
        (["200301", "200302"], "write them as 2020-12-31 or as seconds since 1970"),
    ],
)
def test_times_that_stand_for_others_or_have_lost_digits_are_refused_with_the_remedy(tmp_path, values, told):
    """Two usual readings are told with the dates of each; 0 and 1970 in more than a tenth of the rows are no times."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i,{value}\n" for value in values))
    with pytest.raises(ConfigError, match=told):
        read_all(path)


def test_zeros_of_a_parquet_type_are_told_and_so_are_rounded_numbers(tmp_path):
    """Until --time-unit iso says that the dates of the type are right. C's %e leaves thousands of seconds."""
    times = pa.array([0, INSTANT], pa.timestamp("s"))
    pq.write_table(pa.table({"user": [1, 1], "item": [1, 2], "ts": times}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"1 of 2 times looked at are 1970-01-01 00:00:00.*--time-unit iso"):
        read_all(tmp_path / "a.parquet")
    assert len(read_all(tmp_path / "a.parquet", time_unit="iso").rows) == 2
    (tmp_path / "a.csv").write_text("user,item,ts\nu,i,1.365029e+09\nu,j,1.366029e+09\n")
    assert "rounded to more than a second" in read_all(tmp_path / "a.csv").source.note


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (["1", "2", "5000"], r"numbers from 1 to 5000.*as seconds.*before 1974; say with --time-unit"),
        (
            ["43831", "44196.5"],
            r"as days of a spreadsheet they are 2020-01-01 to 2020-12-31 \(--time-unit excel-days\)",
        ),
        (["18262", "18627"], r"as days since 1970 they are 2020-01-01 to 2020-12-31 \(--time-unit days\)"),
        (["17", str(INSTANT)], r"mixes 1 numbers such as 17 with 1 times such as 1365029108.*--time-unit s"),
        (
            ["2020010112", "2020123123"],
            r"dates with an hour or seconds since 1970.*--time-unit yyyymmdd or --time-unit s",
        ),
    ],
)
def test_numbers_that_are_no_usual_times_are_refused_until_it_is_said_what_they_are(tmp_path, values, told):
    """The message names the readings with usual dates, and the option for them; 1970 is never assumed."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i,{value}\n" for value in values))
    with pytest.raises(ConfigError, match=told):
        read_all(path)
    assert [row.time for row in read_all(path, time_unit="s").rows] == [int(float(value)) for value in values]


@pytest.mark.parametrize("stored", ["text", "int32", "int64", "float64"])
def test_whole_numbers_that_are_dates_are_dates(tmp_path, stored):
    """YYYYMMDD as text, whole numbers or floats, also where a few rows are no dates."""
    days = [20200131, 20200229, 20191231] * 50
    path = tmp_path / "a.parquet"
    values = pa.array([*days, 99]).cast("string" if stored == "text" else stored)
    pq.write_table(pa.table({"user": [1] * 151, "item": [1] * 151, "date": values}), path)
    read = read_all(path)
    expected = [datetime.strptime(str(day), "%Y%m%d").replace(tzinfo=UTC).timestamp() for day in days]
    assert [row.time for row in read.rows] == expected
    assert read.reasons == [(151, "unparsable_time")]
    assert "dates as whole numbers" in read.source.note


FORMS = {
    # Form of the first value → values of one file that all are of 2013-04-03 22:45:08 UTC.
    "digits": ["20130403224508", "20130403224508"],
    "digits with T": ["20130403T224508Z", "20130403T224508", "20130404T004508+02:00"],
    "day first": ["03/04/2013 22:45:08", "3.4.2013 22:45:08", "03-04-13 10:45:08 PM", "3 Apr 2013, 22:45:08"],
    "month first": [
        "04/03/2013 10:45:08 pm", "4/3/13 22:45:08", "April 3, 2013 at 10:45:08 PM", "Apr 3rd 2013 22:45:08",
    ],
    "mail": ["Wed, 03 Apr 2013 22:45:08 GMT", "Thu, 4 Apr 2013 00:45:08 +0200"],
    "web server": ["03/Apr/2013:22:45:08 +0000", "04/Apr/2013:00:45:08 +0200"],
    "ctime": ["Wed Apr 03 22:45:08 +0000 2013", "Wed Apr  3 22:45:08 2013", "Wed Apr  3 22:45:08 UTC 2013"],
    "ISO": [
        "2013-04-03 22:45:08,250", "2013-04-03 10:45:08 PM", "2013.4.3 22:45:08", "2013-04-03T22:45:08 +0000",
        "2013-04-04 07:45:08 JST", "2013-04-03T22:45:08.5+00:00[UTC]", "2013-04-04T00:45:08[Europe/Berlin]",
        "2013-04-03 20:45:08 GMT-2", "2013-04-03 17:15:08-5:30", "2013-04-03 22:45:08 gmt",
    ],
    "spaces that do not break": [
        f"Apr{space}3,{space}2013,{space}10:45:08{space}PM{space}" for space in " \u00a0\u202f\u2009"
    ],
    "words for no time": ["2013-04-03 22:45:08"] * 4 + ["NULL", "NaT", "", "\\N"],
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_dates_are_read_in_the_forms_that_people_write(tmp_path, name):
    """Day and month in the order that all dates allow; English names of months; AM and PM; offsets."""
    settling = {"day first": "30/04/2013", "month first": "04/30/2013"}.get(name)  # 30 is no month
    values = FORMS[name] + ([settling] if settling else [])
    ids = [f"id {i}" for i in range(len(values))]
    pq.write_table(pa.table({"user": ids, "item": ids, "ts": values}), tmp_path / "a.parquet")
    read = read_all(tmp_path / "a.parquet")
    times = FORMS[name]
    missing = times.index("NULL") if "NULL" in times else len(times)
    assert [row.time for row in read.rows][:missing] == [INSTANT] * missing
    assert [reason for _, reason in read.reasons] == ["missing_time"] * (len(times) - missing)


def test_dates_that_may_begin_with_the_day_or_the_month_are_refused_until_it_is_said(tmp_path):
    """A date that can be read in one way decides for the file; two-digit years may be first, too."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + "".join(f"u,i,{day:02d}/0{month}/2020\n" for day, month in ((3, 4), (5, 6))))
    with pytest.raises(ConfigError, match=r"'03/04/2020'.*the day or the month.*--time-unit dmy or mdy"):
        read_all(path)
    days = {unit: [row.time // 86400 - 18262 for row in read_all(path, time_unit=unit).rows] for unit in ("dmy", "mdy")}
    assert days == {"dmy": [31 + 29 + 31 + 2, 31 + 29 + 31 + 30 + 31 + 4], "mdy": [31 + 29 + 3, 31 + 29 + 31 + 30 + 5]}
    path.write_text("user,item,ts\nu,i,31/04/20\nu,i,12/04/20\n")
    with pytest.raises(ConfigError, match="the day or the year"):
        read_all(path)
    path.write_text("user,item,ts\nu,i,31/04/2020\nu,i,04/31/2020\n")
    with pytest.raises(ConfigError, match=r"in several orders.*2020-12-31"):
        read_all(path)


@pytest.mark.parametrize("zone", ["CST", "IST", "BST", "PST", "CET", "XYZ"])
def test_a_time_zone_with_several_meanings_is_refused_by_its_name(tmp_path, zone):
    """In the sample; a row after it is rejected. DuckDB would read CST as Chicago and BST as Dhaka."""
    path = tmp_path / "a.csv"
    path.write_text(f"user,item,ts\nu,i,2013-04-03 22:45:08 {zone}\n")
    with pytest.raises(ConfigError, match=rf"the time zone '{zone}' (has several meanings: |is not known).*\+02:00"):
        read_all(path)
    path.write_text("user,item,ts\n" + "u,i,2013-04-03 22:45:08\n" * 200 + f"u,i,2013-04-03 22:45:08 {zone}\n")
    assert read_all(path).reasons == [(202, "unclear_time_zone")]


def test_days_of_a_spreadsheet_are_read_to_the_second(tmp_path):
    """Their decimals are no whole seconds exactly, and often follow a comma."""
    path = tmp_path / "a.csv"
    moments = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=7919 * i) for i in range(200)]
    days = [repr((moment - datetime(1899, 12, 30, tzinfo=UTC)) / timedelta(days=1)) for moment in moments]
    path.write_text("user,item,ts\n" + "".join(f"u,{i},{day[:16]}\n" for i, day in enumerate(days)))
    assert [row.time for row in read_all(path, time_unit="excel-days").rows] == [int(m.timestamp()) for m in moments]
    commas = "".join(f"u;{i};{day[:16].replace('.', ',')}\n" for i, day in enumerate(days))
    path.write_text("user;item;ts\n" + commas)
    with pytest.raises(ConfigError, match="--time-unit excel-days"):
        read_all(path)
    assert [row.time for row in read_all(path, time_unit="excel-days").rows] == [int(m.timestamp()) for m in moments]
    path.write_text("user,item,ts\nu,1,18262\nu,1,18262.5\nu,1,-1\nu,1,no\nu,1,99999999\n")
    read = read_all(path, time_unit="days")
    assert [row.time for row in read.rows] == [1577836800, 1577836800 + 43200]
    assert [reason for _, reason in read.reasons] == ["negative_time", "unparsable_time", "time_out_of_range"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "missing_time"), ("soon", "unparsable_time"), ("12:30", "unparsable_time"), ("nan", "missing_time"),
        ("1_365_029", "unparsable_time"), ("0x515CB", "unparsable_time"), ("inf", "unparsable_time"),
        ("-1", "negative_time"),
        ("-0.5", "negative_time"), ("-1e400", "negative_time"), ("1e400", "time_out_of_range"),
        ("253402300800", "time_out_of_range"), ("99999999999999999999", "time_out_of_range"),
    ],
)  # fmt: skip
def test_a_bad_number_is_rejected_with_its_reason(tmp_path, value, reason):
    """Negative, after the year 9999, or not a number, even if DuckDB's casts accept it. `nan` is a missing one."""
    path = tmp_path / "a.csv"
    path.write_text("user,item,ts\n" + f"u,i,{INSTANT}\n" * 3 + f"u,i,{value}\nu,j,253402300799\n")
    read = read_all(path, time_unit="s")
    assert [(r.row, r.reason, r.value) for r in read.rejected] == [(5, reason, "" if value == "nan" else value)]
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
    path.write_text("user,item,ts\n" + "u,i,2013-04-03\n" * 10 + f"u,i,{value}\n")
    read = read_all(path)
    assert [(r.row, r.reason, r.value) for r in read.rejected] == [(12, reason, value)]


def test_iso_of_every_offset_is_what_python_reads(tmp_path):
    """The fast path for plain ISO and the slow one for zones agree with datetime."""
    path = tmp_path / "a.csv"
    start = datetime(2013, 4, 3, 22, 45, 8, tzinfo=UTC)
    zones = [timezone(timedelta(minutes=m)) for m in range(-720, 841, 45)]
    moments = [(start + timedelta(hours=7 * i)).astimezone(zone) for i, zone in enumerate(zones)]
    texts = [m.isoformat(" " if i % 2 else "T") for i, m in enumerate(moments)]
    path.write_text("user,item,ts\n" + "".join(f"u,{i},{text}\n" for i, text in enumerate(texts)))
    assert [row.time for row in read_all(path).rows] == [int(m.timestamp()) for m in moments]


JOINED = {
    "ISO": ("2013-04-03", "22:45:08"),
    "midnight": ("2013-04-03 00:00:00", "22:45:08"),
    "whole numbers": ("20130403", "224508"),
    "day first": ("30.04.2013", "10:45:08 PM"),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
@pytest.mark.parametrize("name", JOINED)
def test_date_and_time_in_two_columns_are_joined(tmp_path, kind, name):
    """`--columns timestamp=date+time`; a row without a date has no time."""
    date_text, clock = JOINED[name]
    table = {"user": ["u"] * 3, "item": ["i"] * 3, "date": [date_text, date_text, None], "time": [clock, None, clock]}
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(table), path)
    else:
        frame = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
        rows = [",".join("" if value is None else value for value in row.values()) for row in frame]
        path.write_text(json.dumps(frame) if kind == "json" else "\n".join(["user,item,date,time", *rows]) + "\n")
    read = read_all(path, columns={"timestamp": "date+time"})
    day = 27 * 86400 if name == "day first" else 0
    assert [row.time for row in read.rows] == [INSTANT + day, INSTANT // 86400 * 86400 + day]
    assert [reason for _, reason in read.reasons] == ["missing_time"]
    assert "timestamp=date+time" in read.source.note


def test_dates_and_hours_of_parquet_types_are_joined(tmp_path):
    """Dates, times of day, and hours as numbers that lost their zero."""
    instant = datetime.fromtimestamp(INSTANT, UTC)
    numbers = pa.array([20130403, 20130403])
    hours = pa.array([800, 5])
    table = pa.table({"user": [1, 1], "item": [1, 2], "date": pa.array([instant.date()] * 2),
                      "time": pa.array([instant.time()] * 2), "day": numbers, "hourmin": hours})  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    read = read_all(tmp_path / "a.parquet", columns={"timestamp": "date+time"})
    assert [row.time for row in read.rows] == [INSTANT] * 2
    read = read_all(tmp_path / "a.parquet", columns={"timestamp": "day+hourmin"})
    midnight = INSTANT // 86400 * 86400
    assert [row.time - midnight for row in read.rows] == [8 * 3600, 5 * 60]
    with pytest.raises(ConfigError, match=r"no column 'date\+hour' for timestamp"):
        read_all(tmp_path / "a.parquet", columns={"timestamp": "date+hour"})


def test_years_months_and_days_in_columns_are_joined(tmp_path):
    """With the year first, and hours, minutes and seconds if they are there."""
    path = tmp_path / "a.tsv"
    path.write_text("user\titem\tdd\tmm\tyy\thh\tmin\tss\n" + "u\ti\t03\t04\t2013\t22\t45\t8\n" * 2)
    assert [row.time for row in read_all(path, columns={"timestamp": "yy+mm+dd+hh+min+ss"}).rows] == [INSTANT] * 2
    assert [row.time for row in read_all(path, columns={"timestamp": "yy+mm+dd"}).rows] == [
        INSTANT // 86400 * 86400
    ] * 2
