"""Malicious files: they cannot run code, fill memory, lead outside, or control a terminal."""

import gzip
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from edited_manifests import edit_manifest

import streamfeat_cli
from streamfeat import WindowStream
from streamfeat.builder.coordinator import build_shards
from streamfeat.builder.repair import repair_steps
from streamfeat.errors import DamagedError, StreamfeatError
from streamfeat.events.batches import no_formula
from streamfeat.store.histories import HistoryReader
from streamfeat.store.manifest import load_manifest
from streamfeat.store.tables import read_items
from streamfeat.store.verify import Problem, verify_steps
from streamfeat.store.writer import is_committed, read_receipt
from train.inference.scorer import Scorer
from train.runs.checkpoint import read_checkpoint
from train.training.loop import train_steps

TINY: dict[str, Any] = {"layers": 1, "width": 8, "heads": 1, "batch_tokens": 64, "steps": 2}

# Ids and titles that mean something to a terminal, to rich, or to both.
RED, BOLD, CLOSING, EMOJI, BACK, BELL = "\x1b[31mred", "[bold]x", "[/italic]", ":fire:", "\u202etxt.exe", "a\x07\x9b2J"


class Evil:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch '{self.mark}'",)


def answer(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    """The exit code of a command in this process; errors without a message are raised."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["cli.py", *map(str, words)])
    try:
        streamfeat_cli.main()
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory, tiny_dataset: Path) -> Path:
    path = tmp_path_factory.mktemp("security") / "run"
    for _ in train_steps(tiny_dataset, path, TINY):
        pass
    return path


def test_no_pickle_in_any_file_of_a_run_or_a_dataset_is_ever_loaded(
    tmp_path: Path, tiny_dataset: Path, small_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of each file in turn, plain and as torch saves it; a control shows that the pickle works."""
    history = tmp_path / "history.csv"
    history.write_text("user,item,medium,timestamp\nann,a1,anime,1300000000\n")
    mark = tmp_path / "mark"
    torch.save(Evil(mark), tmp_path / "saved")
    payloads = (pickle.dumps(Evil(mark)), (tmp_path / "saved").read_bytes())
    pickle.loads(payloads[0])
    assert mark.exists()
    mark.unlink()
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_dataset, data)
    shutil.copytree(small_run, run)
    places = [*run.rglob("*"), data / "dataset.json", data / "items.parquet", data / "users.parquet",
              data / "windows.zarr/training/0/item/zarr.json", data / "windows.zarr/training/0/item/c/0/0",
              data / "receipts/window-training-00000-00000.json"]  # fmt: skip
    for place in places:
        if not place.is_file() or place.name == ".lock":
            continue
        sound = place.read_bytes()
        for payload in payloads:
            place.write_bytes(payload)
            if place.is_relative_to(run):
                answer(monkeypatch, "recommend", run, "--history", history)
                answer(monkeypatch, "inspect", run)
            else:
                answer(monkeypatch, "verify", data)
                answer(monkeypatch, "inspect", data, "--window", "0")
            assert not mark.exists(), place
        place.write_bytes(sound)


@pytest.mark.parametrize("payload", ["pickle", "header", "size", "dtype", "shape", "nothing"])
def test_forged_weights_are_refused_though_their_manifest_fits(tmp_path: Path, small_run: Path, payload: str) -> None:
    """A person who can write a checkpoint can also write its checksums."""
    forged = tmp_path / "step-00000002"
    shutil.copytree(small_run / "checkpoints/step-00000002", forged)
    size = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    dtype = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    (forged / "model.safetensors").write_bytes({
        "pickle": pickle.dumps(Evil(tmp_path / "mark")),
        "header": (2**40).to_bytes(8, "little") + b"{}",
        "size": len(size).to_bytes(8, "little") + size,
        "dtype": len(dtype).to_bytes(8, "little") + dtype + b"\0",
        "shape": safetensors.torch.save({"inputs.item.weight": torch.zeros(2)}),
        "nothing": safetensors.torch.save({}),
    }[payload])  # fmt: skip
    records = [
        {"path": name, "size": (forged / name).stat().st_size,
         "sha256": hashlib.sha256((forged / name).read_bytes()).hexdigest()}
        for name in ("model.safetensors", "optimizer.safetensors", "state.json")
    ]  # fmt: skip
    (forged / "manifest.json").write_text(json.dumps({"files": records}))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(DamagedError, match="step-00000002"):
        read_checkpoint(forged).restore(model, torch.optim.AdamW(model.parameters()))
    assert not (tmp_path / "mark").exists()


BOMB_SCRIPT = """
import re, sys
from pathlib import Path
from streamfeat.config import BuildConfig
from streamfeat.errors import DataError
from streamfeat.events.formats import recognise
from streamfeat.events.user_histories import read_histories
from streamfeat.events.item_lists import read_item_list
from streamfeat.events.splits import plan_splits
path = sys.argv[1]
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])  # KiB
before = peak()
for read in (lambda: plan_splits([recognise(path, BuildConfig())]),
             lambda: read_histories(path, BuildConfig(), medium="item"), lambda: read_item_list(path, [])):
    try:
        read()
    except DataError as error:
        print(error)
    else:
        sys.exit("read a bomb")
assert peak() - before < 300_000, f"took {peak() - before} KiB"
"""


@pytest.mark.parametrize(
    "line", [b"a,b,1300000000\n", *(pytest.param(line, marks=pytest.mark.slow) for line in (b"\n", b"x" * 4096))]
)
def test_a_gzip_bomb_is_refused_in_bounded_memory(tmp_path: Path, line: bytes) -> None:
    """Rows, blank lines or one endless line: 100 MB from 100 KB."""
    with gzip.open(tmp_path / "bomb.csv.gz", "wb", compresslevel=6) as file:
        file.write(b"user,item,timestamp\na,b,1300000000\n")
        for _ in range(24):
            file.write(line * ((1 << 22) // len(line)))
    done = subprocess.run([sys.executable, "-c", BOMB_SCRIPT, tmp_path / "bomb.csv.gz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("over 100 times as much") == 3


NAMES = ("../outside", "/etc/hostname", "a/../../outside", "./x", "a//b", "A", "x\ny", "CON\0", "", "..", "é")


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_manifest_or_receipt_never_leads_outside(tmp_path: Path, tiny_dataset: Path, name: str) -> None:
    """Not even to a file with exactly the recorded bytes. `verify` reports it, a build rejects it."""
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    (tmp_path / "outside").write_bytes(b"secret")
    record = {"path": name, "size": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    edit_manifest(data, lambda values: values["receipts"][0]["files"].append(record))
    problems = [step for step in verify_steps(data) if isinstance(step, Problem) and step.file == name]
    assert [problem.kind for problem in problems] == ["altered"]
    task = load_manifest(data).receipts[0].task
    file = data / f"receipts/{task}.json"
    receipt = json.loads(file.read_text())
    file.write_text(json.dumps({**receipt, "files": [record]}))
    found = read_receipt(data, task)
    assert found is not None
    assert not is_committed(data, found)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "a/b", ""])
def test_a_task_never_names_a_receipt_outside(tmp_path: Path, name: str) -> None:
    """Task names come from manifests too."""
    (tmp_path / "receipts").mkdir()
    assert read_receipt(tmp_path, name) is None


LINKED = (".lock", "items.parquet", "users.parquet", "receipts", "receipts/tables.json", "histories.zarr/item",
          "histories.zarr/item/c/0", "windows.zarr/training/0/item/c", "windows.zarr/training")  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_a_dataset_is_named_and_not_followed(tmp_path: Path, tiny_dataset: Path, name: str) -> None:
    """Even if it leads to the right file."""
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    (data / name).rename(tmp_path / "elsewhere")
    (data / name).symlink_to(tmp_path / "elsewhere")
    problems = [str(step) for step in verify_steps(data) if isinstance(step, Problem) and step.kind != "foreign"]
    assert any("link" in problem or name in problem for problem in problems), problems
    if name == "items.parquet":
        with pytest.raises(DamagedError, match="link"):
            read_items(data)
    if name.startswith("receipts"):
        assert read_receipt(data, "tables") is None
    if name.startswith("histories"):
        with pytest.raises(DamagedError, match="link"), HistoryReader(data, load_manifest(data)) as reader:
            reader.read(0, 1)
    if name.startswith("windows"):
        with (
            pytest.raises(DamagedError, match="link"),
            WindowStream(data, objective="causal", batch_windows=1) as stream,
        ):
            list(stream)


PLANTED = [(name, kind) for name in (".lock", "dataset.json", "live/.lock") for kind in ("link", "pipe")]
PLANTED.append(("live", "pipe"))  # a link to a folder is the user's own


@pytest.mark.parametrize(("name", "kind"), PLANTED)
def test_what_stands_in_place_of_a_lock_a_manifest_or_a_live_folder_is_refused(
    tmp_path: Path, tiny_dataset: Path, name: str, kind: str
) -> None:
    """Before it is written, waited for or read; `verify` reports a link."""
    data, victim = tmp_path / "data", tmp_path / "victim"
    shutil.copytree(tiny_dataset, data)
    (data / name).parent.mkdir(exist_ok=True)
    (data / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(data / name)
    else:
        victim.mkdir()
        shutil.copy(tiny_dataset / "dataset.json", victim / ".lock")
        (data / name).symlink_to(victim / ".lock")
    if name == ".lock" and kind == "link":
        assert [step.file for step in verify_steps(data) if isinstance(step, Problem)] == [name]
    steps = (
        train_steps(data, tmp_path / "run", {**TINY, "live": True}) if name.startswith("live") else repair_steps(data)
    )
    with pytest.raises(DamagedError, match=r"a symbolic link|not an ordinary file"):
        list(steps)
    if kind == "link":
        assert [file.name for file in victim.iterdir()] == [".lock"]
        assert (victim / ".lock").read_bytes() == (tiny_dataset / "dataset.json").read_bytes()


def test_a_link_in_a_checkpoint_is_not_followed(tmp_path: Path, small_run: Path) -> None:
    """And a pipe is not waited for."""
    folder = tmp_path / "step-00000002"
    shutil.copytree(small_run / "checkpoints/step-00000002", folder)
    for name in ("model.safetensors", "state.json", "manifest.json"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        with pytest.raises(DamagedError, match="link"):
            read_checkpoint(folder)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(StreamfeatError):
            read_checkpoint(folder)
        (folder / name).unlink()
        (tmp_path / name).rename(folder / name)


def test_a_link_in_place_of_a_checkpoint_is_not_followed(tmp_path: Path, tiny_dataset: Path, small_run: Path) -> None:
    """It is neither read nor written through: the file behind it stays as it was."""
    name, run, elsewhere = "checkpoints/step-00000002", tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(small_run, run)
    (run / name).rename(elsewhere)
    (run / name).symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(DamagedError, match="is a symbolic link, which is not followed"):
        read_checkpoint(run / "checkpoints/step-00000002")
    with pytest.raises(DamagedError, match="is a symbolic link, which is not followed"):
        list(train_steps(tiny_dataset, run, {"threads": 2}, resume=True))
    assert sorted(elsewhere.rglob("*")) == before


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a run whose users, items and titles contain control sequences of terminals."""
    folder = tmp_path_factory.mktemp("strange")
    names = (RED, BOLD, CLOSING, EMOJI, BACK, BELL)
    lines = ["user,item,timestamp,title"]
    lines += [f"{user},{item},{1_300_000_000 + 60 * i},{item}"
              for i, (user, item) in enumerate((user, item) for user in names for item in names * 3)]  # fmt: skip
    (folder / "events.csv").write_text("\n".join(lines) + "\n")
    build_shards([str(folder / "events.csv")], folder / "data", window_len=16, split="users:0.2")
    for _ in train_steps(folder / "data", folder / "run", TINY):
        pass
    return folder


def is_harmless(text: str) -> bool:
    """Whether the text contains nothing that controls a terminal, except rich's own styles."""
    return not any(character in text for character in ("\x1b", "\x07", "\x9b", "\u202e"))


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("command", ["recommend", "inspect", "inspect run", "summary", "unknown", "rejected"])
def test_ids_and_titles_are_shown_as_they_are_and_steer_nothing(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: str, as_json: list[str],
) -> None:  # fmt: skip
    """Markup and emoji codes are shown as text, control characters as escapes, in results and in messages."""
    history = tmp_path / "history.csv"
    history.write_text(f"user,item,timestamp\n{RED},{BOLD},1300000000\n{RED},{RED}{CLOSING},1300000000\n")
    bad = tmp_path / "bad.csv"
    bad.write_text(f"user,item,timestamp,rating\nu,i,1300000000,{RED}{BELL}\n")
    words: dict[str, list[str | Path]] = {
        "recommend": ["recommend", strange / "run", "--history", history, "--seen"],
        "inspect": ["inspect", strange / "data", "--window", "0"],
        "inspect run": ["inspect", strange / "run"],
        "summary": ["inspect", strange / "data"],
        "unknown": ["recommend", strange / "run", "--history", history, "--candidates", history],
        "rejected": ["build-shards", bad, tmp_path / "out", "--workers", "1"],
    }
    assert answer(monkeypatch, *words[command], *as_json) == (3 if command == "rejected" else 0)
    shown = capsys.readouterr()
    assert is_harmless(shown.out + shown.err)
    if as_json and shown.out:
        text = json.dumps(json.loads(shown.out), ensure_ascii=False)
        assert command not in ("recommend", "inspect") or BOLD in text
    elif command in ("recommend", "inspect"):
        for name in (BOLD, CLOSING, EMOJI, r"\x1b[31mred", r"\u202etxt.exe", r"a\x07\x9b2J"):
            assert name in shown.out, name


def test_rejected_rows_hold_no_formula(tmp_path: Path) -> None:
    """rejected.csv may be opened in a spreadsheet: a value that would be a formula there has an apostrophe in front."""
    events = tmp_path / "events.csv"
    good = "".join(f"u{i % 3},i{i % 5},{1_300_000_000 + i},3\n" for i in range(300))
    events.write_text("user,item,timestamp,rating\n" + good + "u,i,1300000000,=1+1\nu,i,-5,3\n@SUM(A1),i\n")
    build_shards([str(events)], tmp_path / "out", max_rejected=0.5, window_len=16)
    rows = (tmp_path / "out/rejected.csv").read_text().splitlines()[1:]
    assert [row.split(",", 3)[3] for row in rows] == ["'=1+1", "-5", '"\'@SUM(A1),i"']
    assert [no_formula(text) for text in ("", "x", "-5", "+1e3", "-5+2", "\t=1", "1=")] == [
        "", "x", "-5", "+1e3", "'-5+2", "'\t=1", "1=",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("name", ["config.json", "best", "dataset/dataset.json", "dataset/items.parquet", "dataset"])
def test_what_stands_in_place_of_a_file_of_a_run_is_neither_waited_for_nor_followed(
    tmp_path: Path, small_run: Path, name: str, kind: str
) -> None:
    """By the commands that use the run's model. A pipe without a writer would block them."""
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "best").write_bytes((run / "latest").read_bytes())
    (run / name).rename(tmp_path / "elsewhere")
    if kind == "link":
        (run / name).symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(run / name)
    with pytest.raises(DamagedError, match=r"symbolic link|not an ordinary file|is missing"):
        Scorer.of_run(run)


def test_a_pipe_in_place_of_a_manifest_holds_up_no_build(tmp_path: Path, tiny_dataset: Path) -> None:
    """And one in place of the items does not block a training run."""
    data = tmp_path / "data"
    shutil.copytree(tiny_dataset, data)
    for name, call in (
        ("items.parquet", lambda: list(train_steps(data, tmp_path / "run", TINY))),
        ("dataset.json", lambda: build_shards([str(tiny_dataset.parent / "events.csv")], data, window_len=32)),
    ):
        (data / name).unlink()
        os.mkfifo(data / name)
        with pytest.raises(StreamfeatError, match=r"not an ordinary file|is not empty and does not hold a dataset"):
            call()
