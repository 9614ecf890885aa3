"""What a user sees of bad input: an exit code, a message that says what to do, never a traceback.

Rows are those of the table of faults: 39 malformed rows, 40 quotes, 41 encodings and headers, 44 ratings, 45 ids,
48 texts, 51 nothing left, 52 and 53 times, 50 a long history, 38 damaged documents, 57 and 58 bombs.
"""

import gzip
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from edited_manifests import edit_manifest

import streamfeat_cli
from train.training.loop import train_steps

HEADER = b"user,item,timestamp,rating\n"
GOOD = b"".join(b"u%d,i%d,%d,%d\n" % (i % 7, i % 5, 1_300_000_000 + i * 86_400, i % 5) for i in range(60))
HUGE = "1" + "0" * 30

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process: its exit code, stdout and stderr. Errors without a message are raised."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            streamfeat_cli.main()
        except SystemExit as exit_:
            code = exit_.code or 0
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(code), shown.out, shown.err

    return run


def expect(answer: tuple[int, str, str], code: int, message: str) -> None:
    assert answer[0] == code, answer[2]
    assert re.search(message, answer[2].replace("\n", " ")), answer[2]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    """A run of two steps."""
    path = tmp_path_factory.mktemp("bad-input") / "run"
    for _ in train_steps(tiny_dataset, path, {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 2}):
        pass
    return path


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.csv"
    path.write_text("user,item,medium,timestamp\nann,a1,anime,1300000000\nann,a2,anime,1300000100\n")
    return path


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    sound = {"user": ["a", "b"], "item": [1, 2], "timestamp": [1_300_000_000, 1_300_000_001]}
    pq.write_table(pa.table({**sound, **columns}), buffer)
    return buffer.getvalue()


# Row and form → content of the event file, options, exit code, message.
FILES: dict[str, tuple[bytes, list[str], int, str]] = {
    "39 too few fields": (HEADER + GOOD + b"u,i,1300000000\n" * 9, [], 3, r"9 of 69 rows are bad \(9 malformed_line\)"),
    "39 too many fields": (HEADER + GOOD + b"u,i,1300000000,3,4\n" * 9, [], 3, r"9 malformed_line"),
    "39 a lone carriage return": (HEADER + GOOD + b"u\ri,i,1300000000,3\n" * 9, [], 3, r"9 malformed_line"),
    "39 no UTF-8": (HEADER + GOOD + b"u\xff,i,1300000000,3\n" * 9, [], 3, r"9 invalid_utf8.*u\\\\xff"),
    "39 a date in words": (HEADER + GOOD + b"u,i,soon,3\n" * 9, [], 3, r"9 unparsable_time.*'soon'"),
    "39 no user": (HEADER + GOOD + b",i,1300000000,3\n" * 9, [], 3, r"9 missing_user"),
    "39 no item": (HEADER + GOOD + b"u, ,1300000000,3\n" * 9, [], 3, r"9 missing_item"),
    "39 a rating in words": (HEADER + GOOD + b"u,i,1300000000,good\n" * 9, [], 3, r"9 unparsable_rating.*--max-"),
    "39 .dat with too few": (b"1::2::3::1300000000\n" * 60 + b"1::2\n" * 9, [], 3, r"9 malformed_line"),
    "39 an unknown status": (b"user,item,timestamp,status\nu,i,1300000000,lost\n", [], 3, r"unknown_status: 'lost'"),
    "39 a medium of markup": (b"user,item,timestamp,medium\nu,i,1300000000,[bold]\n", [], 3, r"bad_medium: '\[bold\]'"),
    "39 completion above 1": (
        b"user,item,timestamp,completion\nu,i,1300000000,1.5\nu,j,1300000000,0.5\n", [], 3, r"bad_completion: '1.5'",
    ),
    "40 an open quote": (HEADER + GOOD + b'"u,i,1300000000,3\n' * 9, [], 3, r"9 of 69 rows are bad"),
    "40 text behind a quote": (HEADER + GOOD + b'"u"x,i,1300000000,3\n' * 9, [], 3, r"9 malformed_line"),
    "41 UTF-16 without its mark": ((HEADER + GOOD).decode().encode("utf-16-le"), [], 2, r"give --encoding utf-16-le"),
    "41 two delimiters": (HEADER + GOOD.replace(b",", b";"), [], 2, r"no line has the 4 fields of its first line"),
    "41 line ends of CR alone": ((HEADER + GOOD).replace(b"\n", b"\r"), [], 2, r"end with CR only; convert them"),
    "41 no header": (GOOD, [], 2, r"no column for user: .*looks like data.*--columns user=#1,item=#2,timestamp=#3"),
    "41 a header with a slip": (b"user,itm,timestamp\n" + GOOD, [], 2, r"no column for item.*closest is 'itm'"),
    "41 a column twice": (b"user,item,item,timestamp\n" + GOOD, [], 2, r"two columns are called 'item'"),
    "41 a cut gzip": (gzip.compress(HEADER + GOOD)[:-9], [], 3, r"gzip file is damaged or cut short"),
    "41 a gzip of another sum": (gzip.compress(HEADER + GOOD)[:-8] + bytes(8), [], 3, r"gzip file is damaged"),
    "41 a gzip in a gzip": (gzip.compress(gzip.compress(HEADER + GOOD)), [], 2, r"gzip file inside gzip"),
    "41 a Parquet in a gzip": (gzip.compress(parquet()), [], 2, r"Parquet file inside gzip"),
    "41 zstd": (b"(\xb5/\xfd" + bytes(99), [], 2, r"compressed with zstd; decompress it"),
    "41 a cut zip": (b"PK\x03\x04" + bytes(99), [], 3, r"the archive is damaged .*export it again"),
    "41 a picture": (b"\x89PNG" + bytes(99), [], 2, r"neither text nor Parquet"),
    "41 a cut Parquet": (parquet()[:-5], [], 3, r"a Parquet file without its end"),
    "41 a Parquet with another footer": (parquet()[:-60] + bytes(52) + parquet()[-8:], [], 3, r"Parquet file cannot"),
    "41 a Parquet column of lists": (parquet(user=[[1], [2]]), [], 2, r"of type list.*--columns user=NAME"),
    "41 a Parquet medium of structs": (parquet(medium=[{"a": 1}, {"a": 2}]), [], 2, r"cannot be read as medium"),
    "44 infinity": (HEADER + GOOD + b"u,i,1300000000,infinity\n" * 9, [], 3, r"9 non_finite_rating"),
    "44 1e400": (HEADER + GOOD + b"u,i,1300000000,1e400\n" * 9, [], 3, r"9 non_finite_rating.*'1e400'"),
    "44 -inf in Parquet": (parquet(rating=[float("-inf"), 1.0]), [], 3, r"1 non_finite_rating"),
    "48 a value that steers a terminal": (HEADER + GOOD + b"u,i,1300000000,\x1b[31m\n" * 9, [], 3, r"\\x1b\[31m"),
    "51 no byte": (b"", [], 3, r"the file is empty \(0 bytes\)"),
    "51 blank lines": (b"\n\n\n", [], 3, r"has no lines"),
    "51 a byte order mark alone": (b"\xef\xbb\xbf", [], 3, r"has no lines"),
    "51 a header alone": (HEADER, [], 3, r"no rows; give a file that has events"),
    "51 a Parquet without rows": (parquet(user=[], item=[], timestamp=[]), [], 3, r"no rows"),
    "51 all filtered": (HEADER + GOOD, ["--min-item-events", "9999"], 3, r"0 users left: 5 items had fewer than"),
    "51 all planned, left out": (b"user,item,timestamp,status\nu,i,1300000000,planned\n", ["--no-planned"], 3,
                                 r"0 of 1 events are left \(1 left out planned\)"),
    "52 seconds and milliseconds": (HEADER + GOOD + b"u,i,1300000000000,3\n" * 60, [], 2, r"mixes magnitudes.*--time"),
    "52 no time at all": (HEADER + b"u,i,yesterday,3\n", [], 2, r"neither a number nor an ISO time"),
    "53 before 1970": (HEADER + GOOD + b"u,i,-5,3\n" * 9, [], 3, r"9 negative_time.*'-5'"),
    "53 after the year 9999": (HEADER + GOOD + b"u,i,253402300800,3\n" * 9, ["--time-unit", "s"], 3, r"9 time_out"),
    "58 more columns than a table has": (",".join(f"c{i}" for i in range(9000)).encode() + b"\n" + GOOD, [], 2,
                                         r"9,000 columns, more than 4,096"),
    "58 a first line without an end": (b"user,item,timestamp," + b"x" * 300_000 + b"\n" + GOOD, [], 2,
                                       r"first line is longer than 262,144 bytes"),
}  # fmt: skip


# Refused by a worker, which takes a second to start: one form of each row is enough for every day.
ROW_BY_ROW = ("39 ", "40 ", "44 ", "53 ")
EVERY_DAY = {next(name for name in FILES if name.startswith(row)) for row in ROW_BY_ROW}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name.startswith(ROW_BY_ROW) and name not in EVERY_DAY))
     for name in FILES],
)  # fmt: skip
def test_a_bad_event_file_is_refused_with_the_remedy(tmp_path: Path, call: Call, name: str) -> None:
    """No folder that looks like a dataset is left."""
    content, options, code, message = FILES[name]
    events = tmp_path / "events.csv"
    events.write_bytes(content)
    expect(call("build-shards", events, tmp_path / "out", "--workers", "1", *options), code, message)
    assert not (tmp_path / "out/dataset.json").exists()


KEPT: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "45 ids at every border": (
        HEADER + b"".join(
            b"%s,%s,1300000000,3\n" % (name, name)
            for name in (b"2147483648", b"-2147483649", b"9007199254740993", b"9007199254740992",
                         b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"1.0", b"1", b"007",
                         b"7")
        ), {"users": 11, "items": {"item": 11}}, "",
    ),
    "48 texts of all kinds": (
        HEADER + b"".join(b"%s,%s,1300000000,3\n" % (text, text) for text in (
            "Ä".encode(), "A\u0308".encode(), b"x" * 10_000, b"\x1b[31m", b"[bold]", b"\x00", "\u202e".encode(),
            b"NULLS")),
        {"users": 8, "items": {"item": 8}}, "",
    ),
    "42 duplicates": (HEADER + GOOD + b"".join(GOOD.splitlines(True)[:9]), {"events": 60}, ""),
    "53 the year 2096": (HEADER + GOOD + b"u,i,4000000000,3\n", {"odd_times": {"after_the_file": 1}}, "warning: 1"),
    "53 the year 1970": (HEADER + GOOD + b"u,i,5,3\n", {"odd_times": {"before_1990": 1}}, "check --time-unit"),
    "49 one event": (HEADER + b"u,i,1300000000,3\n", {"users": 1, "events": 1}, ""),
    "41 everything unusual at once": (
        b"\xef\xbb\xbf" + (HEADER + GOOD).replace(b",", b";").replace(b"\n", b"\r\n"), {"events": 60}, "semicolon",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (not name.startswith(("45", "48", "53")))) for name in KEPT]
)
def test_odd_events_are_kept_and_counted(tmp_path: Path, call: Call, name: str) -> None:
    """Unusual events without errors; ids are kept as they were."""
    content, facts, said = KEPT[name]
    events = tmp_path / "events.csv"
    events.write_bytes(content)
    code, out, err = call("build-shards", events, tmp_path / "out", "--workers", "1", "--window-len", "16", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert {key: summary[key] for key in facts} == facts
    assert said in err
    if name.startswith(("45", "48")):
        raw = pq.read_table(tmp_path / "out/users.parquet")["raw_id"].to_pylist()
        lines = content.decode().removeprefix(HEADER.decode()).split("\n")[:-1]
        assert sorted(raw) == sorted(line.split(",")[0] for line in lines)


# Words with {data}, {run}, {history}, {tmp} → exit code, message.
OPTIONS: dict[str, tuple[str, int, str]] = {
    "inspect nothing": ("inspect nope", 2, r"nope: no such folder; give event files, or the folder of a dataset"),
    "inspect a window of a file": ("inspect {history} --window 0", 2, r"is a file; --window belongs to a dataset"),
    "inspect something else": ("inspect {run}/checkpoints", 2, r"neither a finished dataset .* nor a run"),
    "inspect a window of a run": ("inspect {run} --window 0", 2, r"--window belongs to a dataset"),
    "inspect a far window": (f"inspect {{data}} --window {HUGE}", 2, r"has windows 0 to"),
    "inspect a far epoch": (f"inspect {{data}} --window 0 --epoch {HUGE}", 2, r"--epoch"),
    "inspect another objective": ("inspect {data} --window 0 --objective x", 2, r"'causal' or 'masked' \(got 'x'\)"),
    "inspect a broken link": ("inspect {broken}", 6, r"broken: is a symbolic link to .*mount its disk"),
    "verify a broken link": ("verify {broken}", 6, r"broken: is a symbolic link to .*mount its disk"),
    "verify a file": ("verify {history}", 2, r"no finished dataset here \(it is a file, not a folder\)"),
    "build into a broken link": ("build-shards {history} {broken}", 6, r"broken: is a symbolic link to .*mount its"),
    "evaluate a broken link": ("evaluate {broken}", 6, r"broken: is a symbolic link to .*mount its disk"),
    "evaluate a file": ("evaluate {history}", 2, r"no run here \(it is a file, not a folder\)"),
    "train on a broken link": ("train {broken} {tmp}/r", 6, r"broken: is a symbolic link to .*mount its disk"),
    "train in a broken link": ("train {data} {broken}", 6, r"broken: is a symbolic link to .*mount its disk"),
    "verify nothing": ("verify nope", 2, r"there is no such folder"),
    "invent no users": ("invent {tmp}/a.csv --users -1", 2, r"every user needs at least one"),
    "invent more than there can be": (f"invent {{tmp}}/a.csv --events {HUGE}", 2, r"--events"),
    "invent with a negative seed": ("invent {tmp}/a.csv --seed -1", 2, r"--seed"),
    "invent below a file": ("invent {history}/a.csv", 6, r"cannot be written"),
    "build one path": ("build-shards {history}", 2, r"EVENTS.*OUT.*Missing argument"),
    "build nothing": ("build-shards nope.csv {tmp}/o", 2, r"nope\.csv: no such file"),
    "build a folder": ("build-shards {data} {tmp}/o", 2, r"not a folder of events; give the event files themselves"),
    "build an empty glob": ("build-shards {tmp}/*.none {tmp}/o", 2, r"matches no file"),
    "build into a file": ("build-shards {history} {history}", 2, r"is a file"),
    "build with live and packings": ("build-shards {history} {tmp}/o --live --packings 2", 2, r"give one"),
    "build a role twice": ("build-shards {history} {tmp}/o --columns user=item,item=item", 2, r"as user and as item"),
    "build with NaN rejected": ("build-shards {history} {tmp}/o --max-rejected nan", 2, r"--max-rejected"),
    "build a seed too large": (f"build-shards {{history}} {{tmp}}/o --seed {HUGE}", 2, r"seed.*less than"),
    "build documents too long": (f"build-shards {{history}} {{tmp}}/o --max-document-len {HUGE}", 2, r"_len.*2 to 28"),
    "build chunks too long": (f"build-shards {{history}} {{tmp}}/o --chunk-windows {HUGE}", 2, r"-chunk-windows.*less"),
    "build shards too long": (f"build-shards {{history}} {{tmp}}/o --shard-windows {HUGE}", 2, r"-shard-windows.*less"),
    "build items too frequent": (f"build-shards {{history}} {{tmp}}/o --min-item-events {HUGE}", 2, r"min-item-events"),
    "build users too busy": (f"build-shards {{history}} {{tmp}}/o --min-user-events {HUGE}", 2, r"min-user-events"),
    "build packings without end": (f"build-shards {{history}} {{tmp}}/o --packings {2**63}", 2, r"packings.*100000"),
    "build windows too long": ("build-shards {history} {tmp}/o --window-len 9999999", 2, r"--window-len.*1048576"),
    "build into a name of other bytes": ("build-shards {history} {tmp}/\udcff", 2, r"not UTF-8; give another one"),
    "build by a crowd": (f"build-shards {{history}} {{tmp}}/o --workers {HUGE}", 2, r"give 1 to 1,024"),
    "build a medium twice": ("build-shards {history} {tmp}/o --media anime,anime", 2, r"names one twice"),
    "build from a name of other bytes": ("build-shards {tmp}/\udcff.csv {tmp}/o", 2, r"not UTF-8 cannot be recorded"),
    "recommend to nobody": ("recommend {run}", 2, r"needs either a history"),
    "recommend from nothing": ("recommend nope --history {history}", 2, r"no run here .*give the folder of a run"),
    "recommend at no time": ("recommend {run} --history {history} --at --5", 2, r"write 2026-12-24"),
    "recommend at 5000 digits": (f"recommend {{run}} --history {{history}} --at {'9' * 5000}", 2, r"write 2026"),
    "recommend beyond time": (f"recommend {{run}} --history {{history}} --at {HUGE}", 2, r"in the years 1970 to 9999"),
    "recommend before time": ("recommend {run} --history {history} --at=-5", 2, r"in the years 1970 to 9999"),
    "recommend no items": ("recommend {run} --history {history} -k 0", 2, r"must be at least 1"),
    "recommend from elsewhere": ("recommend {run} --history {history} --checkpoint ../../x", 2, r"is neither best"),
    "recommend from no checkpoint": ("recommend {run} --history {history} --checkpoint step-99999999", 2, r"no such"),
    "recommend no candidates": ("recommend {run} --history {history} --candidates nope", 2, r"no such file"),
    "recommend over a file": ("recommend {run} --all-users {history}", 2, r"exists already; "),
    "recommend into no folder": ("recommend {run} --all-users {tmp}/a/b.parquet", 2, r"folder does not exist"),
    "evaluate nothing": ("evaluate nope", 2, r"no run here"),
    "evaluate on nothing": ("evaluate {run} --dataset nope", 2, r"no such folder"),
    "evaluate with a negative seed": ("evaluate {run} --seed -1", 2, r"--seed"),
    "evaluate too often": ("evaluate {run} --bootstrap 1000000000000", 2, r"--bootstrap"),
    "evaluate never": ("evaluate {run} --bootstrap 0", 2, r"--bootstrap"),
    "export a far epoch": (f"export-features {{data}} {{tmp}}/x --objective causal --epoch {HUGE}", 2, r"--epoch"),
    "export by a crowd": ("export-features {data} {tmp}/x --objective causal --workers 1025", 2, r"give 1 to 1,024"),
    "export into the dataset": ("export-features {data} {data}/x --objective causal", 2, r"inside the dataset"),
    "export onto a file": ("export-features {data} {history} --objective causal", 2, r"is a file"),
    "train on nothing": ("train nope {tmp}/r", 2, r"no such folder"),
    "train nowhere": ("train {data}", 2, r"train DATA RUN"),
    "train onto a file": ("train {data} {history}", 2, r"is a file; give a folder for the run"),
    "train among others": ("train {data} {tmp}", 2, r"is not empty and does not hold a run"),
    "train again and anew": ("train {data} {tmp}/r --resume --overwrite", 2, r"give one of them"),
    "train steps and epochs": ("train {data} {tmp}/r --steps 1 --epochs 2", 2, r"contradict: give one of them"),
    "train with odd heads": ("train {data} {tmp}/r --width 16 --heads 3", 2, r"multiple of heads"),
    "train at no rate": ("train {data} {tmp}/r --learning-rate nan", 2, r"finite number"),
    "train wider than memory": ("train {data} {tmp}/r --feed-forward 1e300", 2, r"--feed-forward.*64"),
    "train more tokens than there are": (f"train {{data}} {{tmp}}/r --batch-tokens {HUGE}", 2, r"--batch-tokens"),
    "train watching nothing": ("train {data} {tmp}/r --monitor x --steps 1", 2, r"known: watch, loss, anime_watch"),
    "train live things that are not": ("train {data} {tmp}/r --live-disk 5GB", 2, r"add --live"),
    "train in no unit": ("train {data} {tmp}/r --live --live-disk 20", 2, r"for instance 20GB"),
    "train below a device": ("train {data} /dev/null/x", 2, r"cannot make this folder"),
    "train from an endless file": ("train {data} {tmp}/r --config /dev/zero", 2, r"longer than 1,048,576 bytes"),
    "train from no file": ("train {data} {tmp}/r --config nope", 2, r"cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_a_bad_option_is_refused_with_the_remedy(
    tmp_path: Path, call: Call, tiny_dataset: Path, small_run: Path, history: Path, name: str
) -> None:
    """Out of range, in conflict, or with an unknown name."""
    words, code, message = OPTIONS[name]
    places = {"data": tiny_dataset, "run": small_run, "history": history, "tmp": tmp_path}
    if "{broken}" in words:
        places["broken"] = tmp_path / "broken"
        places["broken"].symlink_to(tmp_path / "away")
    expect(call(*(word.format(**places) for word in words.split())), code, message)


DEEP = b'{"a":' + b"[" * 100_000
# File of a run → content, command, exit code, message.
HARMED: dict[str, tuple[str, bytes | None, str, int, str]] = {
    "an empty record": ("config.json", b"", "recommend", 4, r"config\.json: not readable.*--overwrite"),
    "a record without an end": ("config.json", DEEP, "inspect", 4, r"config\.json: not readable"),
    "a record that is a list": ("config.json", b"[]", "resume", 4, r"config\.json: not readable"),
    "a newer record": ("config.json", b'{"format_version": 99}', "evaluate", 7, r"upgrade streamfeat"),
    "a record that is a folder": ("config.json", None, "recommend", 4, r"config\.json"),
    "no manifest": ("dataset/dataset.json", b"", "recommend", 4, r"dataset\.json: not readable"),
    "a manifest of 5000 digits": ("dataset/dataset.json", b'{"a": ' + b"9" * 5000 + b"}", "evaluate", 4, r"not read"),
    "half a surrogate pair": ("dataset/dataset.json", b'{"a": "\\ud800"}', "recommend", 4, r"dataset\.json: not"),
    "no items": ("dataset/items.parquet", b"", "recommend", 4, r"items\.parquet: is not as it was built"),
    "items of another table": ("dataset/items.parquet", parquet(), "recommend", 4, r"items\.parquet: is not as it was"),
    "items that are a folder": ("dataset/items.parquet", None, "recommend", 4, r"items\.parquet"),
    "metrics of infinite steps": ("metrics.jsonl", b'{"kind":"train","step":1e999}\n', "inspect", 4, r"line 1 is no"),
    "metrics that are a folder": ("metrics.jsonl", None, "inspect", 4, r"metrics\.jsonl"),
    "a best one elsewhere": ("best", b"../../etc\n", "recommend", 4, r"does not name a checkpoint"),
    "a state of a pickle": ("{checkpoint}/state.json", b"\x80\x04.", "recommend", 4, r"is not as it was written"),
    "a manifest of brackets": ("{checkpoint}/manifest.json", DEEP, "resume", 4, r"manifest\.json: not readable"),
    "no weights": ("{checkpoint}/model.safetensors", b"", "resume", 4, r"not as it was.*no checkpoint is complete"),
}  # fmt: skip


@pytest.mark.parametrize("name", HARMED)
def test_a_damaged_run_is_an_error_that_names_the_file(
    tmp_path: Path, call: Call, tiny_dataset: Path, small_run: Path, history: Path, name: str
) -> None:
    """For every command that reads it."""
    file, content, command, code, message = HARMED[name]
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    path = run / file.format(checkpoint="checkpoints/step-00000002")
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    words = {"recommend": ["recommend", run, "--history", history], "inspect": ["inspect", run],
             "evaluate": ["evaluate", run], "resume": ["train", tiny_dataset, run, "--resume"]}  # fmt: skip
    expect(call(*words[command]), code, message)


def put(*path: Any) -> Callable[[dict[str, Any]], None]:
    """An edit: the last of `path` under the keys before it."""

    def edit(values: dict[str, Any]) -> None:
        place: Any = values
        for key in path[:-2]:
            place = place[key]
        place[path[-2]] = path[-1]

    return edit


FORGED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "windows without end": (put("splits", "training", "windows", 2**40), r"far beyond what its receipts hold"),
    "packings without end": (put("splits", "training", "packings", 2**40), r"far beyond what its receipts hold"),
    "chunks of nothing": (put("splits", "training", "chunk_windows", 0), r"chunk_windows"),
    "events without end": (put("num_events", 2**40), r"counts 1099511627776 events"),
    "fewer than no events": (put("num_events", -1), r"num_events"),
    "users that differ": (put("num_users", 2**40), r"users and"),
    "items without order": (put("schema", "medium_offsets", [0, 60, 48]), r"medium_offsets"),
    "no scales": (put("scales", []), r"scales"),
    "no splits": (put("splits", {}), r"has the splits \[\]"),
    "a time beyond time": (put("schema", "time_origin", 2**62), r"after the year 9999"),
    "windows of no size": (put("schema", "window_len", 2**40), r"a window cannot have"),
    "a number that is none": (put("time_min", "soon"), r"time_min"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_manifest_that_cannot_be_is_refused_behind_a_checksum_that_fits(
    tmp_path: Path, call: Call, tiny_dataset: Path, name: str
) -> None:
    """By training, before it allocates memory for it."""
    edit, message = FORGED[name]
    shutil.copytree(tiny_dataset, tmp_path / "data")
    edit_manifest(tmp_path / "data", edit)
    expect(call("train", tmp_path / "data", tmp_path / "run", "--steps", "1"), 4, rf"dataset\.json.*{message}")


@pytest.mark.parametrize("text", ["a=", "seed = " + "9" * 5000, "a = " + "[" * 100_000, "widht = 3", "seed = true",
                                  "seed = 1\nseed = 2", "width = 16\n[model]\nwidth = 16", "run = 'x'",
                                  "model = 3"])  # fmt: skip
def test_a_bad_toml_is_refused_by_name(tmp_path: Path, call: Call, tiny_dataset: Path, text: str) -> None:
    """Syntax, unknown keys, other types, keys twice."""
    (tmp_path / "c.toml").write_text(text)
    expect(call("train", tiny_dataset, tmp_path / "r", "--config", tmp_path / "c.toml"), 2, r"c\.toml: ")


@pytest.mark.slow
def test_a_user_with_a_million_events_costs_no_more_than_its_rows(tmp_path: Path, call: Call) -> None:
    """One history longer than a thousand windows is built and shown in the memory of one partition."""
    events = tmp_path / "events.csv"
    with events.open("wb") as file:
        file.write(HEADER)
        for i in range(1_000_000):
            file.write(b"one,i%d,%d,%d\n" % (i * 7919 % 5003, 1_300_000_000 + i * 60, i % 10))
        file.write(b"two,i1,1300000000,5\n")
    code, out, err = call("build-shards", events, tmp_path / "out", "--workers", "1", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["events"] == 1_000_001
    assert summary["peak_memory_bytes"] < 1.5e9
    assert call("inspect", tmp_path / "out", "--window", "3")[0] == 0


def test_there_are_sixty_cases_and_more() -> None:
    """Each row of the table of faults about events has several cases."""
    assert len(FILES) + len(KEPT) + len(OPTIONS) + len(HARMED) + len(FORGED) >= 120
