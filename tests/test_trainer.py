"""A user's own `train.py` does not hide the trainer, and the trainer does not silently hide it."""

import subprocess
import sys
from pathlib import Path

from invented_events import invent_events, write_csv

_SCRIPT = """
import streamfeat

ANSWER = 42

if __name__ == "__main__":
    from pathlib import Path

    data = streamfeat.build(["a.csv", "b.csv"], "data", window_len=16, split="users:0.2", workers=2, packings=0)
    small = {"layers": 1, "width": 16, "heads": 2}
    run = streamfeat.train(data, "run", batch_tokens=128, epochs=2, live=True, live_workers=1, **small)
    import train
    print(Path(train.__file__).parent, len(run.metrics) > 0)
"""


def _python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_script_called_train_py_builds_and_trains_live(tmp_path: Path) -> None:
    """`python train.py` puts the script's folder first in sys.path, and its workers and producers import the script."""
    for seed, name in enumerate(("a.csv", "b.csv")):  # a split each: a pool of two workers
        write_csv(tmp_path / name, invent_events(seed=seed, num_users=30, media={"anime": 20}))
    (tmp_path / "train.py").write_text(_SCRIPT)
    done = _python(tmp_path, "train.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(Path(__file__).parents[1] / "train"), "True"]


def test_python_m_streamfeat_runs_beside_a_script_called_train_py(tmp_path: Path) -> None:
    """`python -m` searches the working folder first."""
    (tmp_path / "train.py").write_text("raise SystemExit('the script ran')\n")
    done = _python(tmp_path, "-m", "streamfeat", "train", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--batch-tokens" in done.stdout


def test_a_foreign_module_called_train_is_named(tmp_path: Path) -> None:
    """A module of this name that was imported before stays, and one line says why the trainer cannot be used."""
    (tmp_path / "train.py").write_text("ANSWER = 42\n")
    code = (
        "import train; from streamfeat.errors import ConfigError; from streamfeat.trainer import load_trainer\n"
        "try: load_trainer()\n"
        "except ConfigError as error: print(error)\n"
        "print(train.ANSWER, __import__('sys').modules['train'] is train)"
    )
    lines = _python(tmp_path, "-c", code).stdout.splitlines()
    assert len(lines) == 2
    assert str(tmp_path / "train.py") in lines[0]
    assert "rename that module" in lines[0]
    assert lines[1] == "42 True"
