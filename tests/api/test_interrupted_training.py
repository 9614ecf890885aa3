"""Ctrl-C in a script that trains: the step is finished and saved, and the script can continue the run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, streamfeat
path, run = sys.argv[1:]
options = dict(layers=1, width=16, heads=2, batch_tokens=64, patience=0, checkpoint_every=100_000)
stopped = streamfeat.train(path, run, steps=100_000, validate_every=100_000, **options)
print("steps", max(row["step"] for row in stopped.metrics), flush=True)
"""


def _steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_ctrl_c_returns_the_run_and_leaves_it_resumable(tiny_dataset: Path, tmp_path: Path) -> None:
    """A real SIGINT: `train` returns, one line says how to continue, and the steps so far are in a checkpoint."""
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tiny_dataset), str(run)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    deadline = time.monotonic() + 240
    while _steps(run) < 3:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    steps = int(out.split()[1])
    assert err.split("\n")[1] == "finishing the step and saving; once more to quit at once"
    assert (
        f"stopped after step {steps:,}; continue with "
        f"streamfeat.train({str(tiny_dataset)!r}, {str(run)!r}, resume=True)" in err.replace("\n", " ")
    )
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{steps:08d}"]


def test_a_handler_of_the_callers_is_back_afterwards(tiny_dataset: Path, tmp_path: Path) -> None:
    """After the call, Ctrl-C has the caller's handler again."""
    import streamfeat

    before = signal.getsignal(signal.SIGINT)
    streamfeat.train(tiny_dataset, tmp_path / "run", steps=1, layers=1, width=16, heads=2, batch_tokens=64)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_is_a_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C raises KeyboardInterrupt, unless it comes at almost the same time as the first."""
    from streamfeat import signals

    monkeypatch.setattr(signals, "_SAME_WISH_S", 0.05)
    with signals.stop_on_interrupt("") as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        time.sleep(0.1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
