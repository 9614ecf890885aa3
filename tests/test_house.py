"""The documents and the layout of the house tell the truth."""

import re
import subprocess
import sys
from pathlib import Path

import house_tree
import pytest

HOUSE = Path(__file__).parents[1]
README = (HOUSE / "README.md").read_text("utf-8")


def test_every_place_that_the_readme_names_exists() -> None:
    """The 'Where is …?' table, and every link to a file."""
    table = README.partition("## Where is …?")[2].partition("\n## ")[0]
    places = re.findall(r"`([^`]+)`", table)
    assert len(places) >= 20
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert [place for place in [*places, *links] if place != "WindowStream" and not (HOUSE / place).exists()] == []


def test_the_tree_in_the_design_page_is_that_of_the_code() -> None:
    """Every folder with its first line, every file by name; `python tests/house_tree.py` writes it anew."""
    page = (HOUSE / "docs" / "design.md").read_text("utf-8")
    assert page.partition(house_tree.FIRST)[2].partition(house_tree.LAST)[0] == house_tree.tree()


def test_every_file_of_the_library_has_a_docstring_and_a_sane_size() -> None:
    """A newcomer reads what a file is for in its first line; about 300 lines is where it is two things."""
    files = [path for folder in ("streamfeat", "train") for path in (HOUSE / folder).rglob("*.py")]
    assert len(files) > 40
    for path in files:
        text = path.read_text("utf-8")
        assert not text or text.startswith('"""'), path
        assert text.count("\n") < 350, path


def test_importing_streamfeat_loads_nothing_heavy() -> None:
    """Numba, Zarr, DuckDB and torch load when they are first needed."""
    code = "import sys, streamfeat; print(sorted({'numba', 'zarr', 'duckdb', 'torch', 'pyarrow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_build_workers_never_import_torch() -> None:
    """Start-up of a worker is what a small build waits for."""
    code = "import sys, streamfeat.builder.coordinator; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_executable_is_ever_loaded() -> None:
    """No pickle, no eval, no torch.load anywhere in the product."""
    for path in [
        *(path for name in ("streamfeat", "train", "streamfeat_cli") for path in (HOUSE / name).rglob("*.py")),
        HOUSE / "cli.py",
    ]:
        assert not re.search(
            r"\bimport pickle|\bpickle\.load|(?<!safetensors\.)\btorch\.load\(|[^.\w]eval\(", path.read_text("utf-8")
        ), path


def test_every_test_file_is_collected(request: pytest.FixtureRequest) -> None:
    """pytest leaves some folder names out by default, `build` among them."""
    if len(request.config.args) != 1 or not str(request.config.args[0]).endswith("tests"):
        pytest.skip("only a part of the tests was asked for")
    collected = {Path(item.path) for item in request.session.items}
    assert {path for path in (HOUSE / "tests").rglob("test_*.py") if path not in collected} == set()
