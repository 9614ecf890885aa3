"""JSON Lines and JSON arrays: every object is one row, with ids as they stand there."""

import codecs
import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from read_all import Read, Row, read_all

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError, DataError
from streamfeat.events.event_reader import read_batches
from streamfeat.events.formats import recognise
from streamfeat.events.splits import plan_splits
from streamfeat.events.user_histories import read_histories

EVENTS = [
    {"user": f"u{i % 3}", "text": 'nice\n"place"} ]', "item": f"ï{i}", "time": 1_500_000_000 + i, "rating": i % 5 + 0.5}
    for i in range(20)
]
ROWS = [Row(event["user"], event["item"], event["time"], event["rating"]) for event in EVENTS]


def lines(rows: list[Any], end: str = "\n", **options: Any) -> bytes:
    return "".join(json.dumps(row, **options) + end for row in rows).encode()


FILES = {
    "array": json.dumps(EVENTS).encode(),
    "array as text": json.dumps(EVENTS, ensure_ascii=False, separators=(",", ":")).encode(),
    "array over lines": json.dumps(EVENTS, indent=2).replace("\n", "\r\n").encode(),
    "array after a mark": codecs.BOM_UTF8 + b"\n " + json.dumps(EVENTS, indent="\t").encode() + b"\n\n",
    "array in UTF-16": json.dumps(EVENTS, ensure_ascii=False).encode("utf-16"),
    "array in gzip": gzip.compress(json.dumps(EVENTS).encode()),
    "lines": lines(EVENTS),
    "lines as text": lines(EVENTS, ensure_ascii=False),
    "lines with CRLF": lines(EVENTS, "\r\n"),
    "lines after a mark": codecs.BOM_UTF8 + lines(EVENTS).rstrip(),
    "lines in UTF-16": lines(EVENTS).decode().encode("utf-16"),
    "lines in gzip": gzip.compress(lines(EVENTS)),
    "objects over lines": lines(EVENTS, indent=2),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_events_come_out_of_every_layout_of_json(tmp_path, name):
    """In any splits and batches; texts may hold brackets, quotes and line breaks."""
    path = tmp_path / "events.json"
    path.write_bytes(FILES[name])
    for rows_per_split, batch_rows in ((1, 1), (7, 3), (99, 99)):
        read = read_all(path, rows_per_split=rows_per_split, batch_rows=batch_rows)
        assert (read.rows, read.rejected) == (ROWS, [])
    assert read.source.format == ("json-lines" if name.startswith("lines") else "json")
    assert "times in seconds" in read.source.note
    assert read_all(path, format=read.source.format).rows == ROWS
    history = read_histories(path, BuildConfig(), medium="film")
    assert len(history.item) == 20


def read(folder: Path, rows: list[Any], **config: Any) -> Read:
    """The rows as an array; as lines they are the same."""
    (folder / "a.json").write_text(json.dumps(rows))
    (folder / "a.jsonl").write_bytes(lines(rows))
    found = read_all(folder / "a.json", **config)
    other = read_all(folder / "a.jsonl", **config)
    assert (found.rows, found.rejected) == (other.rows, other.rejected)
    return found


def test_nested_fields_have_dotted_names(tmp_path):
    """Recognised by name as others are, or named by `--columns`."""
    rows = [
        {"user": {"id": 7, "name": "Ann"}, "media": {"id": "m1", "title": {"en": "One"}}, "at": {"ts": 1_500_000_000}}
    ]
    columns = {"timestamp": "at.ts", "item": "media.title.en"}
    assert read(tmp_path, rows, columns=columns).rows == [Row("7", "One", 1_500_000_000)]
    found = read(tmp_path, rows, columns={"timestamp": "at.ts"})
    assert found.source.columns | {"timestamp": ""} == {"user": "user.id", "item": "media.id", "timestamp": ""}
    with pytest.raises(ConfigError, match=r"no column 'at.time' for timestamp.*the closest is 'at.ts'"):
        read(tmp_path, rows, columns={"timestamp": "at.time"})


@pytest.mark.parametrize("key", ["a.b", "a/b", "a~b", "it's", 'say "x"', "$oid", "ключ", "0", " "])
def test_a_key_may_have_any_name(tmp_path, key):
    """Dots, slashes and quotes are characters; a field of its own comes before a nested one of the same dotted name."""
    rows = [{key: "right", "a": {"b": "nested"}, "user": "u", "ts": 1_500_000_000}]
    assert [row.item for row in read(tmp_path, rows, columns={"item": key}).rows] == ["right"]


def test_ids_keep_every_digit(tmp_path):
    """Numbers of any length, text with zeros; a whole number that was written as a float is that number."""
    ids = [0, -7, 2**63 - 1, 2**64 + 1, 10**30, "007", "1.0", "é", True]
    rows = [{"user": value, "item": "i", "ts": 1_500_000_000} for value in ids]
    assert [row.user for row in read(tmp_path, rows).rows] == [
        "0", "-7", str(2**63 - 1), str(2**64 + 1), str(10**30), "007", "1.0", "é", "true",
    ]  # fmt: skip
    rows = [{"user": value, "item": "i", "ts": 1_500_000_000.0} for value in (1.0, 20.0, 3)]
    assert [row.user for row in read(tmp_path, rows).rows] == ["1", "20", "3"]
    rows[0]["user"] = float(2**53)
    with pytest.raises(ConfigError, match="lost digits; write the ids as integers or text"):
        read(tmp_path, rows)


def test_missing_fields_and_nulls_are_missing_values(tmp_path):
    """Objects need not have the same fields."""
    rows = [
        {"user": "u", "item": 1, "ts": 1_500_000_000},
        {"item": 2, "ts": 1_500_000_001, "user": None},
        {"ts": 1_500_000_002, "user": "v", "rating": 3, "item": 3},
        {"rating": None, "item": 4, "user": "v"},
    ]
    found = read(tmp_path, rows)
    assert found.rows == [Row("u", "1", 1_500_000_000), Row("v", "3", 1_500_000_002, 3.0)]
    assert found.reasons == [(2, "missing_user"), (4, "missing_time")]


def test_a_bad_row_costs_no_other(tmp_path):
    """No JSON, no object, bytes that are not UTF-8: each is rejected with the number of its row."""
    path = tmp_path / "a.jsonl"
    bad = [b'{"user":1,', b'["u", "i"]', b'{"user":"\xff","item":1,"ts":1}', b"", b"7", b'{"user":1}{"user":2}', b"not"]
    good = lines(EVENTS[:3]).splitlines()
    path.write_bytes(b"\n".join([good[0], *bad, good[1], b" " + good[2] + b" \t"]) + b"\n")
    for rows_per_split, batch_rows in ((1, 1), (4, 3), (99, 99)):
        found = read_all(path, rows_per_split=rows_per_split, batch_rows=batch_rows)
        assert found.rows == ROWS[:3]
        assert found.reasons == [(row, "invalid_utf8" if row == 4 else "malformed_line") for row in range(2, 9)]
    assert found.rejected[0].value == '{"user":1,'
    path.write_bytes(b'[{"user":1 "item":2}, 7, ' + good[0] + b', {"user":"\xff"}]')
    found = read_all(path)
    assert (found.rows, found.reasons) == (
        ROWS[:1],
        [(1, "malformed_line"), (2, "malformed_line"), (4, "invalid_utf8")],
    )


REFUSED = {
    "empty array": (b" [ ]\n", DataError, "an empty JSON array"),
    "values": (b'[["u", "i", 5], ["v", "j", 6]]', ConfigError, "not objects with named fields"),
    "one object": (b'{"next": 2, "data": [{"user": 1}]}', ConfigError, r"a single JSON object.*jq '\.\[\"data\"\]'"),
    "one object over lines": (b'{\n"data": [\n{"user": 1}]}', ConfigError, "a single JSON object"),
    "in parts": (
        b'{"columns": ["user"],\n "index": [0], "data": [["u"]]}',
        ConfigError,
        r"or in parts.*orient='records'",
    ),
    "by columns": (b'{"user":{"0":"u","1":"v"},"item":{"0":1,"1":2}}', ConfigError, r"by columns.*orient='records'"),
    "lists as ids": (b'[{"user": [1], "item": 2, "ts": 3}]', ConfigError, "'user' holds lists.*--columns user=NAME"),
    "no time": (b'[{"user": 1, "item": 2}]', ConfigError, "no column for timestamp"),
    "cut": (b'[{"user": 1, "item": 2, "ts": 1500000000}, {"user"', DataError, "cut short after 1 whole objects"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_json_that_is_no_list_of_events_is_refused_with_a_remedy(tmp_path, name):
    """What it holds instead is named."""
    data, error, words = REFUSED[name]
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(error, match=words):
        plan_splits([recognise(str(path), BuildConfig())])


@pytest.mark.parametrize("packed", [False, True])
def test_python_dictionaries_are_refused_with_a_command_that_converts_them(tmp_path, packed):
    """As in Amazon's reviews of 2014. The command is run as it stands in the message."""
    data = "".join(f"{event!r}\n" for event in EVENTS).encode()
    path = tmp_path / "reviews.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ConfigError, match="Python dictionaries, not JSON; convert them: ") as caught:
        recognise(str(path), BuildConfig())
    command = str(caught.value).partition("convert them: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_all(tmp_path / "events.json").rows == ROWS


def test_a_table_whose_header_has_brackets_is_no_json(tmp_path):
    """As some databases write names."""
    (tmp_path / "a.csv").write_text("[user],[item],[timestamp]\nu,i,1500000000\n")
    assert read_all(tmp_path / "a.csv").rows == [Row("u", "i", 1_500_000_000)]


def test_another_format_than_the_file_has_is_refused(tmp_path):
    """`--format json` is an array, `json-lines` an object a line."""
    (tmp_path / "a.json").write_bytes(FILES["lines"])
    with pytest.raises(ConfigError, match=r"--format json was given, but it is JSON Lines \(json-lines\)"):
        recognise(str(tmp_path / "a.json"), BuildConfig(format="json"))
    (tmp_path / "a.csv").write_text("user,item,ts\nu,i,1500000000\n")
    with pytest.raises(ConfigError, match="--format json-lines was given, but it is no JSON"):
        recognise(str(tmp_path / "a.csv"), BuildConfig(format="json-lines"))


@pytest.mark.parametrize("name", ["array", "lines"])
def test_json_that_changed_since_it_was_planned_is_an_error(tmp_path, name):
    """A shorter file, or other rows."""
    path = tmp_path / "a.json"
    path.write_bytes(FILES[name])
    (split,) = plan_splits([recognise(str(path), BuildConfig())])
    for data in (FILES[name][:300], FILES[name].replace(b"}", b" ").replace(b"{", b" ").replace(b"\n", b" ")):
        path.write_bytes(data)
        with pytest.raises(DataError, match="do not change the file"):
            list(read_batches(split, tmp_path, "item"))
