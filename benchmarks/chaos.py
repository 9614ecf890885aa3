"""Kills and stops builds and training runs, plain and live, at random until they finish. Nothing may be lost.

    python benchmarks/chaos.py --minutes 60 [--seed 0] [--only build]

A build with two workers loses a worker, its parent or all at once, or is asked to stop (SIGTERM, Ctrl-C), at random
moments, and is run again until it finishes: every byte must be that of an undisturbed build. A training run is killed
or asked to stop at random moments and resumed until it finishes: metrics, weights and the optimizer's state must be
those of an undisturbed run, to the bit. Nothing may outlive its parent, hang, or print a traceback. Writes
benchmarks/results/chaos.json, or chaos-build.json and the like with --only; exits with 1 if anything was lost.
"""

import argparse
import collections
import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results import write_results

CLI = Path(__file__).parent.parent / "cli.py"
BUILD = [
    "--window-len",
    "64",
    "--split",
    "users:0.1",
    "--chunk-windows",
    "2",
    "--shard-windows",
    "16",
    "--packings",
    "3",
]
STEPS, VALIDATE_EVERY = 100, 20
TRAIN = [
    "--layers",
    "1",
    "--width",
    "16",
    "--batch-tokens",
    "512",
    "--steps",
    str(STEPS),
    "--patience",
    "0",
    "--validate-every",
    str(VALIDATE_EVERY),
    "--checkpoint-every",
    "7",
]
LIVE = ["--live", "--live-workers", "1"]
LIMIT_S = 240  # for one process: longer is a hang
GONE_S = 10  # for the children of a killed parent
ROUNDS = 10  # on the same events
KINDS = ("build", "train", "live train")
PR_SET_PDEATHSIG = 1


class LostError(Exception):
    """A promise was broken. The message says which."""


@dataclass(frozen=True)
class Kill:
    """What was done to a process, and what it was doing."""

    what: str  # build, train, live train
    victim: str
    signal: str
    stage: str


@dataclass
class Trial:
    """One build or run, from its start through its kills to its end."""

    what: str
    kills: list[Kill] = field(default_factory=list)
    lost: str = ""  # why, where something was


@dataclass(frozen=True)
class Whole:
    """Events, and the dataset and runs that they give without disturbance."""

    events: Path
    data: Path
    digests: dict[str, str]
    runs: dict[str, Path]  # by kind of training
    seconds: dict[str, float]  # that each took


class Process:
    """A command in a session of its own, so that all of its processes can be killed and none is left."""

    def __init__(self, log: Path, *words: str | Path) -> None:
        self._log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "CUDA_VISIBLE_DEVICES": ""}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, str(CLI), *map(str, words)],
                stdout=out,
                stderr=out,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        self.began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self._process.poll() is not None

    def children(self) -> list[int]:
        """Workers and producers, without the processes that Python starts to track its own resources."""
        with contextlib.suppress(FileNotFoundError):
            pid = self._process.pid
            listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            return [int(child) for child in listed if b"spawn_main" in _command_line(child)]
        return []

    def send(self, victim: str, number: int, rng: random.Random) -> str:
        """Which process got the signal. It is the first process if there is no child."""
        children = self.children()
        if victim == "child" and children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(children), number)
            return "child"
        if victim == "group":
            os.killpg(self._process.pid, number)
            return "group"
        self._process.send_signal(number)
        return "parent"

    def wait(self) -> int:
        """The exit code. Raises LostError for a hang, and for a child that outlives its parent."""
        try:
            code = self._process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise LostError(f"hung for {LIMIT_S} s: {self.said()[-600:]}") from None
        deadline = time.monotonic() + GONE_S
        while _session_lives(self._process.pid):
            if time.monotonic() > deadline:
                self.end()
                raise LostError(f"a child outlived its parent by {GONE_S} s")
            time.sleep(0.02)
        return code

    def end(self) -> None:
        """Kills the processes that are left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def said(self) -> str:
        """The text that it printed."""
        return self._log.read_text("utf-8", "replace")

    def wait_until_it_speaks(self) -> None:
        """Waits until the command handles Ctrl-C itself. While Python starts, Python does, with a traceback."""
        deadline = time.monotonic() + LIMIT_S
        while not self.said() and not self.is_over and time.monotonic() < deadline:
            time.sleep(0.01)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _session_lives(session: int) -> bool:
    """Whether the group has a process that is not a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, group = stat.read_text("utf-8", "replace").rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(group) == session and state not in "ZX":
            return True
    return False


def run_whole(log: Path, *words: str | Path) -> float:
    """Runs a command without disturbance; returns its seconds."""
    process = Process(log, *words)
    try:
        code = process.wait()
    finally:
        process.end()
    if code:
        raise LostError(f"{words[0]} failed undisturbed, exit {code}: {process.said()[-600:]}")
    return time.monotonic() - process.began


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a dataset, without the files of live training and locks."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.relative_to(folder).parts[0] != "live"
    }


def outcome(run: Path) -> dict[str, Any]:
    """What must be equal in two runs: metrics without times, the last checkpoint, the name of the best."""
    lines = {}
    for text in (run / "metrics.jsonl").read_bytes().splitlines():
        line = json.loads(text)
        lines[f"{line['kind']} {line['step']}"] = {
            key: value for key, value in line.items() if key not in ("tokens_per_s", "wait_share")
        }
    latest = (run / "latest").read_text().strip()
    found: dict[str, Any] = {"latest": latest, "best": (run / "best").read_text(), **lines}
    for name in ("model.safetensors", "optimizer.safetensors"):
        found[name] = hashlib.sha256((run / latest / name).read_bytes()).hexdigest()
    return found


def compare(expected: dict[str, Any], found: dict[str, Any]) -> None:
    differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    if differing:
        raise LostError(f"{len(differing)} differ from the undisturbed one: {', '.join(differing[:5])}")


def receipts(out: Path) -> list[Path]:
    """The committed receipts, the newest last."""
    with contextlib.suppress(FileNotFoundError):  # a finished build removes some
        return sorted((out / "receipts").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return []


def build_stage(out: Path) -> str:
    """The kind of the newest receipt: `window` for window-training-00000-00000.json."""
    if (out / "dataset.json").exists():
        return "after the last receipt"
    done = receipts(out)
    return f"after {re.split('[-.]', done[-1].name)[0]}" if done else "before the first receipt"


def train_stage(run: Path) -> str:
    """What a run is doing, judged by its folder."""
    with contextlib.suppress(OSError):
        if any(path.name.endswith(".tmp") for path in (run / "checkpoints").iterdir()):
            return "saving"
    step, kind = last_line(run)
    if not step:
        return "before a step"
    return "validating" if kind == "train" and step % VALIDATE_EVERY == 0 else "training"


def last_line(run: Path) -> tuple[int, str]:
    """Step and kind of the last whole line of metrics; step 0 if there is none."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0, ""
    if not lines:
        return 0, ""
    line = json.loads(lines[-1])
    return int(line["step"]), str(line["kind"])


STOPS = [("parent", "SIGTERM"), ("group", "SIGINT")]
BUILD_HURTS = [("child", "SIGKILL"), ("parent", "SIGKILL"), ("group", "SIGKILL"), *STOPS]
TRAIN_HURTS = [("parent", "SIGKILL"), *STOPS]
LIVE_HURTS = [*TRAIN_HURTS, ("child", "SIGKILL"), ("group", "SIGKILL")]


def allowed_codes(hurts: list[Kill]) -> set[int]:
    """How a process may end after it was disturbed: as asked, or with the message that its children keep dying."""
    codes = {0}
    for kill in hurts:
        if kill.victim == "child":
            codes.add(6)
        elif kill.signal == "SIGKILL":
            codes.add(-signal.SIGKILL)
        elif kill.signal == "SIGINT":
            codes.add(128 + signal.SIGINT)
        else:  # while Python starts, it handles the signal itself
            codes |= {128 + signal.SIGTERM, -signal.SIGTERM}
    return codes


def hurt_until_done(
    trial: Trial,
    start: Callable[[], Process],
    pause: Callable[[Process], None],
    stage: Callable[[], str],
    hurts: list[tuple[str, str]],
    rng: random.Random,
) -> None:
    """Starts it and kills or stops it a few times; then starts it once more without disturbance."""
    for is_last in [*(False for _ in range(rng.randint(1, 4))), True]:
        process, mine = start(), []
        try:
            if not is_last:
                victim, name = rng.choice(hurts)
                pause(process)
                if name == "SIGINT":
                    process.wait_until_it_speaks()
                if not process.is_over:
                    at = stage()
                    hurt = process.send(victim, getattr(signal, name), rng)
                    mine.append(Kill(trial.what, hurt, name, at))
            code = process.wait()
        finally:
            process.end()
        trial.kills += mine
        if code not in allowed_codes(mine) or "Traceback" in process.said():
            raise LostError(f"exit {code} after {mine}: {process.said()[-600:]}")


def build_trial(whole: Whole, folder: Path, rng: random.Random) -> Trial:
    """A build that is disturbed and then finished."""
    trial, out = Trial("build"), folder / "data"

    def start() -> Process:
        return Process(folder / "log", "build-shards", whole.events, out, "--workers", "2", *BUILD)

    def pause(process: Process) -> None:
        """Waits for a random number of receipts, and then a little longer."""
        done, total = len(receipts(out)), len(receipts(whole.data))
        number = rng.randint(done, max(done, total))  # a finished build has none of splits and partitions
        deadline = time.monotonic() + LIMIT_S
        while len(receipts(out)) < number and not process.is_over and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.random() * (0.1 if number else whole.seconds["build"] / 2))

    with noting(trial):
        hurt_until_done(trial, start, pause, lambda: build_stage(out), BUILD_HURTS, rng)
        compare(whole.digests, digests(out))
    return trial


def train_trial(kind: str, whole: Whole, folder: Path, rng: random.Random) -> Trial:
    """A training run that is disturbed and then finished."""
    trial, run = Trial(kind), folder / "run"
    is_live = kind == "live train"

    def start() -> Process:
        asked = [] if (run / "config.json").exists() else [*TRAIN, *(LIVE if is_live else [])]
        return Process(folder / "log", "train", whole.data, run, "--resume", *asked)

    def pause(process: Process) -> None:
        """Waits until the kill: one in four comes at any time, the others after a step, mostly within the next."""
        done, _ = last_line(run)
        step = 0 if rng.random() < 0.25 else rng.randint(done, STEPS)
        if rng.random() < 0.3:  # around a validation, where a checkpoint follows
            step = -(-step // VALIDATE_EVERY) * VALIDATE_EVERY
        seconds = rng.random() * (0.03 if step else whole.seconds[kind])
        deadline = time.monotonic() + LIMIT_S
        while last_line(run)[0] < step and not process.is_over and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(seconds)

    with noting(trial):
        hurt_until_done(trial, start, pause, lambda: train_stage(run), LIVE_HURTS if is_live else TRAIN_HURTS, rng)
        compare(outcome(whole.runs[kind]), outcome(run))
        compare(whole.digests, digests(whole.data))
        if is_live and (left := [path.name for path in (whole.data / "live").iterdir() if path.is_dir()]):
            raise LostError(f"live windows are left: {left}")
    return trial


@contextlib.contextmanager
def noting(trial: Trial) -> Iterator[None]:
    try:
        yield
    except LostError as error:
        trial.lost = str(error)


def make_whole(folder: Path, seed: int, kinds: Sequence[str]) -> Whole:
    """Invents events, builds and, for each kind of training that is asked for, trains, all without disturbance."""
    events, data = folder / "events.csv", folder / "whole"
    log, seconds, runs = folder / "log", {}, {}
    run_whole(log, "invent", events, "--users", "200", "--events", "10000", "--seed", str(seed))
    seconds["build"] = run_whole(log, "build-shards", events, data, "--workers", "2", *BUILD)
    for kind in set(kinds) - {"build"}:
        extra = LIVE if kind == "live train" else []
        runs[kind] = folder / kind.replace(" ", "-")
        seconds[kind] = run_whole(log, "train", data, runs[kind], *TRAIN, *extra)
    return Whole(events, data, digests(data), runs, seconds)


def trials(seed: int, deadline: float, kinds: Sequence[str]) -> Iterator[Trial]:
    """Repeats rounds with one trial of each kind until the time is over. Invents new events every few rounds."""
    rng = random.Random(seed)
    for group in itertools.count():
        with tempfile.TemporaryDirectory(prefix="streamfeat-chaos-") as name:
            whole = make_whole(Path(name), seed + group, kinds)
            for number in range(len(kinds) * ROUNDS):
                if time.monotonic() > deadline:
                    return
                folder = Path(name) / f"trial-{number}"
                folder.mkdir()
                kind = kinds[number % len(kinds)]
                yield build_trial(whole, folder, rng) if kind == "build" else train_trial(kind, whole, folder, rng)


def rows_of(done: list[Trial], seed: int, minutes: float) -> list[dict[str, Any]]:
    counts = collections.Counter(kill for trial in done for kill in trial.kills)
    survived = [trial for trial in done if not trial.lost]
    rows: list[dict[str, Any]] = [
        {"name": "seed", "value": seed, "unit": ""},
        {"name": "run for", "value": minutes, "unit": "minutes"},
        {"name": "kills survived", "value": sum(len(trial.kills) for trial in survived), "unit": "kills"},
        {"name": "kills in all", "value": counts.total(), "unit": "kills"},
        {"name": "builds and runs survived", "value": len(survived), "unit": "trials"},
        {"name": "builds and runs in all", "value": len(done), "unit": "trials"},
    ]
    for kill, count in sorted(counts.items(), key=lambda pair: tuple(vars(pair[0]).values())):
        rows.append(
            {"name": f"{kill.what}: {kill.signal} of {kill.victim}, {kill.stage}", "value": count, "unit": "kills"}
        )
    rows += [{"name": f"lost: {trial.what}", "value": trial.lost, "unit": ""} for trial in done if trial.lost]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=KINDS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that every `finally` runs
    began, done = time.monotonic(), []
    kinds = [options.only] if options.only else KINDS
    for trial in trials(options.seed, began + 60 * options.minutes, kinds):
        done.append(trial)
        kills = ", ".join(f"{kill.signal} {kill.victim} ({kill.stage})" for kill in trial.kills) or "not hurt"
        state = f"LOST: {trial.lost}" if trial.lost else "survived"
        print(f"{(time.monotonic() - began) / 60:6.1f} min  {trial.what:<10} {state}: {kills}", flush=True)
    rows = rows_of(done, options.seed, (time.monotonic() - began) / 60)
    write_results("-".join(["chaos", *(options.only or "").split()]), rows)
    values = {row["name"]: row["value"] for row in rows}
    print(
        f"survived/total: {values['kills survived']}/{values['kills in all']} kills, "
        f"{values['builds and runs survived']}/{values['builds and runs in all']} builds and runs"
    )
    sys.exit(any(trial.lost for trial in done))


if __name__ == "__main__":
    main()
