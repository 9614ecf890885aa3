"""If a signal's SystemExit would be lost or harmful, it is raised a moment later; real signals in real processes."""

import subprocess
import sys
from pathlib import Path

import pytest

_START = """
import ctypes, signal, sys, time
from streamfeat.signals import exit_by
signal.signal(signal.SIGTERM, lambda number, frame: exit_by(number, frame, 7))

def waits():
    for _ in range(100):
        time.sleep(0.1)
    print("lost")
"""
_DURING = {
    "an import": "import module",
    "a callback from C": "@ctypes.CFUNCTYPE(None)\ndef call(): signal.raise_signal(15)\ncall()",
    "__del__": "class A:\n  def __del__(self): signal.raise_signal(15)\na = A()\ndel a",
    "ordinary code": "try: signal.raise_signal(15)\nfinally: print('cleaned')",
}


@pytest.mark.parametrize("during", list(_DURING))
def test_a_signal_ends_a_process_wherever_it_is(tmp_path: Path, during: str) -> None:
    """Without output on standard error, and with the given exit code."""
    (tmp_path / "module.py").write_text("import signal\nsignal.raise_signal(15)\nprint('imported')\n")
    code = f"{_START}sys.path.insert(0, {str(tmp_path)!r})\n{_DURING[during]}\nwaits()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    shown = {"an import": "imported\n", "ordinary code": "cleaned\n"}.get(during, "")
    assert (done.returncode, done.stdout, done.stderr) == (7, shown, "")


def test_a_signal_during_an_import_interrupts_the_call_that_waits_afterwards(tmp_path: Path) -> None:
    """A read or write that blocks: it returns only if the signal that is sent again reaches the main thread."""
    (tmp_path / "module.py").write_text("import signal\nsignal.raise_signal(15)\n")
    waits = "import os\nreading, _ = os.pipe()\nos.read(reading, 1)"
    code = f"{_START}sys.path.insert(0, {str(tmp_path)!r})\nimport module\n{waits}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (7, "")


def test_what_else_nobody_can_catch_is_still_shown() -> None:
    """Only the SystemExit of a signal is not printed."""
    code = (
        "try: signal.raise_signal(15)\nexcept SystemExit: pass\n"
        "class A:\n  def __del__(self): raise ValueError('seen')\na = A()\ndel a"
    )
    done = subprocess.run([sys.executable, "-c", _START + code], capture_output=True, text=True, check=True, timeout=60)
    assert "ValueError: seen" in done.stderr
