"""Options: declared once, typed, read from TOML, printed."""

import os
import platform
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

import streamfeat_cli.commands
from streamfeat.errors import ConfigError
from streamfeat_cli.declaration import COMMANDS, program

HOUSE = Path(__file__).parents[2]
NAMES = list(COMMANDS)
GIVEN: dict[str, dict[str, Any]] = {
    "build-shards": {"window_len": 64, "columns": {"user": "u"}, "media": ("anime",), "keep_planned": False},
    "inspect": {"window": 3, "objective": "masked"},
    "train": {"epochs": 3, "width": 32, "live": True, "live_disk": 5 * 10**9, "learning_rate": 1e-3},
    "evaluate": {"dataset": Path("/a b/data"), "bootstrap": 7},
    "recommend": {"history": "mine.csv", "k": 3, "seen": True, "time_unit": "ms", "candidates": Path("c.txt")},
    "refresh": {"columns": {"user": "u"}, "time_unit": "ms"},
    "verify": {"repair": True},
    "export-features": {"objective": "causal", "hdf5": True},
    "invent": {"users": 60, "events": 2000},
}
TYPED = {
    "build-shards": ["--window-len", "64", "--columns", "user=u", "--media", "anime", "--no-planned"],
    "inspect": ["--window", "3", "--objective", "masked"],
    "train": ["--epochs", "3", "--width", "32", "--live", "--live-disk", "5GB", "--learning-rate", "1e-3"],
    "evaluate": ["--dataset", "/a b/data", "--bootstrap", "7"],
    "recommend": ["--history", "mine.csv", "-k", "3", "--seen", "--time-unit", "ms", "--candidates", "c.txt"],
    "refresh": ["--columns", "user=u", "--time-unit", "ms"],
    "verify": ["--repair"],
    "export-features": ["--objective", "causal", "--hdf5"],
    "invent": ["--users", "60", "--events", "2000"],
}


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(streamfeat_cli.commands.app, [str(word) for word in words])


def given_by(text: str, command: str, folder: Path) -> dict[str, Any]:
    """What a file that holds `text` gives to a command."""
    file = folder / "options.toml"
    file.write_text(text, "utf-8")
    return COMMANDS[command].given(file, {})


def test_every_command_is_tried_here() -> None:
    """A new one has its options, its file and its help tested."""
    assert GIVEN.keys() == TYPED.keys() == set(NAMES)


@pytest.mark.parametrize("name", [*NAMES, "print-config"])
def test_help_ends_with_three_examples_of_the_command(name: str) -> None:
    """Whoever reads no more than the end knows how to start; `-h` is `--help`."""
    done = call(name, "-h")
    assert done.exit_code == 0
    assert done.stdout == call(name, "--help").stdout
    assert done.stdout.partition("Examples:")[2].count(f" {name} ") >= 3


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_every_option_and_reads_none_of_its_text_as_markup(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the description, the default and the bounds of its field; rich would swallow what stands in brackets."""
    monkeypatch.setenv("COLUMNS", "400")
    shown = call(name, "--help").stdout
    for field, info in COMMANDS[name].options.fields.items():
        assert info.description
        assert "[" not in info.description
        assert info.description in shown, field
    assert "<bool>" not in shown.partition("--help")[0]  # that flag is typer's own
    assert "--seed" not in shown or re.search(r"--seed.*\(default \d+; at least 0\)", shown)


def test_help_loads_nothing_heavy() -> None:
    """It is there at once."""
    code = (
        "import sys, streamfeat_cli.commands\n"
        f"for name in {['', *NAMES, 'print-config']!r}:\n"
        "    try: streamfeat_cli.commands.app([*([name] if name else []), '--help'])\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(sorted({'numba', 'zarr', 'duckdb', 'torch', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert done.stderr.strip() == "[]"


def test_the_options_of_train_stand_in_panels_in_the_order_of_use() -> None:
    """What a model is, how and how long it is trained; last what few need."""
    shown = call("train", "--help").stdout
    panels = re.findall(r"─ (\w[\w ]*\w) ─", shown)
    assert panels == ["Arguments", "Options", "Model", "Optimisation", "Length of the run", "Data", "Live training"]
    first = [re.search(r"--[\w-]+", shown.partition(f"─ {panel} ─")[2]) for panel in panels[2:]]
    assert [found and found[0] for found in first] == ["--preset", "--optimizer", "--epochs", "--seed", "--live"]


@pytest.mark.parametrize("name", NAMES)
def test_the_dataset_has_one_name(name: str) -> None:
    """It is DATA, and OUT where it is made, in the usage line of each command."""
    usage = call(name, "--help").stdout.partition("Usage:")[2].partition("\n")[0]
    assert ("DATA" in usage) == (name in ("train", "verify", "export-features"))
    assert ("OUT" in usage) == (name == "build-shards")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("table", [True, False])
def test_a_file_gives_what_typing_gives(name: str, table: bool, tmp_path: Path) -> None:
    """Each command reads its own table, or keys above all tables; the tables of others are theirs."""
    printed = call("print-config", name, *TYPED[name])
    assert printed.exit_code == 0, printed.output
    lines = [line for line in printed.stdout.splitlines() if line and not line.startswith("#")]
    assert lines[0] == f"[{name}]"
    assert len(lines) == 1 + len(GIVEN[name])
    others = "".join(f"[{other}]\nx = 1\n" for other in NAMES if other != name)
    text = "\n".join(lines[0 if table else 1 :]) + f"\n{others}"
    assert given_by(text, name, tmp_path) == GIVEN[name]


@pytest.mark.parametrize("name", NAMES)
def test_what_print_config_prints_is_the_configuration_in_force(name: str, tmp_path: Path) -> None:
    """As it stands, and with every comment made a line of its own: the true defaults and the preset's values."""
    printed = call("print-config", name, *TYPED[name]).stdout
    options = COMMANDS[name].options
    expected = options.in_force(GIVEN[name], name)
    assert options.in_force(given_by(printed, name, tmp_path), name) == expected
    assignments = re.findall(r"^(?:# )?([a-z_0-9]+ = .+)$", printed, re.MULTILINE)
    excluded = ("steps",)  # its default, 0, says nothing beside epochs
    text = "\n".join([f"[{name}]", *(line for line in assignments if not line.startswith(excluded))])
    assert options.in_force(given_by(text, name, tmp_path), name) == expected


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_key_is_answered_with_the_nearest_one(name: str, tmp_path: Path) -> None:
    """Above all tables, and in the command's own."""
    key = max(COMMANDS[name].options.fields, key=len)
    for text in (f"{key}s = 1", f"[{name}]\n{key}s = 1"):
        with pytest.raises(ConfigError, match=rf"options\.toml: unknown key '.*{key}s'; did you mean '{key}'\?"):
            given_by(text, name, tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if "seed" in COMMANDS[name].options.fields])
def test_what_is_typed_wins_over_the_file(name: str, tmp_path: Path) -> None:
    """Also where the file gives the same option."""
    file = tmp_path / "options.toml"
    file.write_text(call("print-config", name, *TYPED[name], "--seed", "4").stdout)
    assert COMMANDS[name].given(file, {}) == {**GIVEN[name], "seed": 4}
    assert COMMANDS[name].given(file, {"seed": "5"}) == {**GIVEN[name], "seed": 5}


def test_an_error_names_an_option_as_it_was_given(tmp_path: Path) -> None:
    """Typed: `--window-len`; in a file: `window_len`; the command or the file comes first."""
    done = call("build-shards", "a.csv", "data", "--window-len", "x")
    assert str(done.exception).startswith("build-shards: --window-len: ")
    with pytest.raises(ConfigError, match=r"options\.toml: window_len: "):
        given_by("window_len = 1", "build-shards", tmp_path)


@pytest.mark.parametrize("key", ["overwrite = true", "json = true", 'config = "x"', 'out = "x"'])
def test_what_is_done_once_stands_in_no_file(key: str, tmp_path: Path) -> None:
    """A file that replaces a dataset each time it is used would be a trap."""
    typed = key.partition(" ")[0]
    with pytest.raises(ConfigError, match=rf"'{typed}' says what to do this once, so it is typed: (--{typed}|OUT)"):
        given_by(key, "build-shards", tmp_path)


def test_a_command_does_what_its_file_says(tmp_path: Path) -> None:
    """From the file to the result."""
    (tmp_path / "all.toml").write_text("[invent]\nusers = 60\nevents = 2000\n[build-shards]\nwindow_len = 64\n")
    assert call("invent", tmp_path / "events.csv", "--config", tmp_path / "all.toml").exit_code == 0
    assert len((tmp_path / "events.csv").read_text().splitlines()) > 1500
    built = call(
        "build-shards", tmp_path / "events.csv", tmp_path / "data", "--config", tmp_path / "all.toml", "--json"
    )
    assert '"window_len": 64' in built.stdout


@pytest.mark.parametrize("spelling", ["--run", "--run-folder"])
def test_the_older_spellings_of_the_run_still_work(spelling: str, tmp_path: Path, tiny_dataset: Path) -> None:
    """They are not shown; two different names are refused."""
    asked = ["--layers", "1", "--width", "16", "--batch-tokens", "96", "--steps", "2", "--json"]
    done = call("train", tiny_dataset, spelling, tmp_path / "run", *asked)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run/config.json").exists()
    assert spelling not in call("train", "--help").stdout
    twice = call("train", tiny_dataset, tmp_path / "one", spelling, tmp_path / "other")
    assert "the run is named twice" in str(twice.exception)


def test_version_says_what_runs_and_where() -> None:
    """What a report of a fault needs."""
    shown = call("--version").stdout
    for part in ("streamfeat 0.", f"Python {platform.python_version()}", f"torch {torch.__version__}", "device: "):
        assert part in shown
    assert re.search(r"compiled kernels: /", shown)


def stderr_of(words: list[str | Path], *, terminal: bool) -> str:
    """What a command says on standard error, where that is a terminal or a file."""
    reading, writing = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, str(HOUSE / "cli.py"), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=writing, check=False)
    os.close(writing)
    found = b""
    try:
        while part := os.read(reading, 4096):
            found += part
    except OSError:  # the end of a terminal
        pass
    os.close(reading)
    assert done.returncode == 0
    return found.decode()


def test_a_person_reads_what_to_type_next_and_a_script_does_not(tmp_path: Path) -> None:
    """The line stands on standard error, where that is a terminal."""
    words: list[str | Path] = ["invent", tmp_path / "a b.csv", "--users", "60", "--events", "2000"]
    expected = f"next: python {HOUSE / 'cli.py'} build-shards '{tmp_path}/a b.csv' OUT"
    assert expected in stderr_of(words, terminal=True).replace("\r\n", "\n")
    assert stderr_of(words, terminal=False) == ""


@pytest.mark.parametrize(
    ("started", "ranks", "typed"),
    [
        ("cli.py", 1, "python cli.py"),
        ("/usr/bin/streamfeat", 1, "streamfeat"),
        ("/lib/streamfeat/__main__.py", 1, "python -m streamfeat"),
        ("my folder/cli.py", 2, "torchrun --nproc-per-node 2 'my folder/cli.py'"),
        ("/lib/streamfeat/__main__.py", 2, "torchrun --nproc-per-node 2 -m streamfeat"),
    ],
)
def test_a_printed_command_starts_the_program_as_it_was_started(
    started: str, ranks: int, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it can be typed as it stands."""
    monkeypatch.setattr(sys, "argv", [started])
    assert program(ranks) == typed


def test_an_option_is_declared_in_one_place() -> None:
    """No command of ours gives typer a default, a type or a help text of an option that a field describes."""
    app = typer.main.get_command(streamfeat_cli.commands.app)
    for name, command in COMMANDS.items():
        shown = {param.name: param for param in app.commands[name].params}  # type: ignore[attr-defined]
        assert command.options.fields.keys() <= shown.keys()
        assert all(shown[field].default is None for field in command.options.fields)
