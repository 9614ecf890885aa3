"""The examples run unchanged: newcomers copy them first."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
# What may be absent: JAX weighs more than the rest of the development tools together.
OPTIONAL = {"jax": "pip install jax", "polars": "pip install -e '.[dev]'"}


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_says_a_little(example: Path, tmp_path: Path) -> None:
    """`python examples/x.py` from any folder: some lines, no warning, and no files left."""
    for library, remedy in OPTIONAL.items():
        needed = re.search(rf"^import {library}\b", example.read_text("utf-8"), re.MULTILINE)
        if needed and importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: {remedy}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, env=environment, capture_output=True, text=True,
                          timeout=300, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert 3 <= len(done.stdout.splitlines()) <= 40
    assert [path for path in tmp_path.iterdir() if "torchinductor" not in path.name] == []  # torch's own cache


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    """One screen, and plain PyTorch in fewer than 40 lines."""
    lines = [line for line in example.read_text("utf-8").splitlines() if line]
    assert lines[0].startswith('"""')
    assert len(lines) < (40 if example.stem == "plain_pytorch" else 50)
