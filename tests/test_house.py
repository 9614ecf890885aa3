"""The documents and the layout agree with the code."""

import itertools
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import house_tree
import options_page
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


def test_every_file_that_contributing_names_exists() -> None:
    """Contributors look for these files."""
    text = (HOUSE / "CONTRIBUTING.md").read_text("utf-8")
    folders = r"tests|streamfeat|streamfeat_cli|train|docs|benchmarks|constraints|\.ci"
    places = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    assert len(places) > 30
    assert [place for place in places if not (HOUSE / place).exists()] == []


def test_the_tree_in_the_design_page_is_that_of_the_code() -> None:
    """Every folder with its first line, every file by name; `python tests/house_tree.py` writes it anew."""
    page = (HOUSE / "docs" / "design.md").read_text("utf-8")
    assert page.partition(house_tree.FIRST)[2].partition(house_tree.LAST)[0] == house_tree.tree()


def test_the_options_page_is_that_of_the_code() -> None:
    """Every option of every command; `python tests/options_page.py` writes it anew."""
    assert options_page.PAGE.read_text("utf-8") == options_page.page()


def test_the_lowest_versions_that_ci_installs_are_those_that_the_package_allows() -> None:
    """`.ci/lowest` proves the lower bounds; one that is raised in a single place proves nothing."""
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text("utf-8"))["project"]
    required = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    allowed = {tuple(re.findall(r"^([\w-]+)>=([\d.]+)", line)[0]) for line in required if ">=" in line}
    lines = (HOUSE / "constraints" / "lowest.txt").read_text("utf-8").splitlines()
    assert {tuple(line.split("==")) for line in lines if not line.startswith("#")} == allowed
    assert len(allowed) > 20


def test_the_steps_of_the_workflow_are_targets_and_scripts_that_are_there() -> None:
    """So that each can be run by hand."""
    steps = re.findall(r"- run: (\S+) ?(\S*)", (HOUSE / ".github/workflows/ci.yml").read_text("utf-8"))
    targets = re.findall(r"^([a-z-]+):", (HOUSE / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert len(steps) == 4
    for command, target in steps:
        assert target in targets if command == "make" else os.access(HOUSE / command, os.X_OK)


def test_every_file_that_the_walks_pass_exists() -> None:
    """A name without a folder is in the folder of the name before it in its line."""
    walks = (HOUSE / "docs" / "design.md").read_text("utf-8").partition("\n## Walks")[2].partition("\n## ")[0]
    missing = []
    for line in walks.splitlines():
        folder = Path()
        for name in re.findall(r"`([\w/]+\.py)`", line):
            folder = Path(name).parent if "/" in name else folder
            if name != "cli.py" and not (HOUSE / folder / Path(name).name).exists():
                missing.append(name)
    assert missing == []
    assert walks.count("\n10. ") == walks.count("\n**") == 4


def test_make_help_names_every_target() -> None:
    """Otherwise nobody would find the target."""
    done = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=HOUSE, capture_output=True, text=True, check=True
    )
    targets = re.findall(r"^\.PHONY: (.*)", (HOUSE / "Makefile").read_text("utf-8"), re.MULTILINE)[0].split()
    named = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    assert sorted(target for target, _ in named) == sorted(targets)


def test_every_file_of_the_product_has_a_docstring_and_a_sane_size() -> None:
    """A newcomer reads what a file is for in its first line; about 300 lines is where it is two things."""
    files = [path for folder in ("streamfeat", "train", "streamfeat_cli") for path in (HOUSE / folder).rglob("*.py")]
    assert len(files) > 150
    for path in files:
        text = path.read_text("utf-8")
        assert text.startswith('"""'), path
        assert text.count("\n") <= 330, path


@pytest.mark.parametrize("name", ["streamfeat", "train", "train.config"])
def test_importing_a_package_loads_nothing_heavy(name: str) -> None:
    """Numba, Zarr, DuckDB and torch load when they are first needed."""
    code = f"import sys, {name}; print(sorted({{'numba', 'zarr', 'duckdb', 'torch', 'pyarrow'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_build_workers_never_import_torch() -> None:
    """A small build waits for the start of its workers."""
    code = "import sys, streamfeat.builder.coordinator; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_build_workers_load_no_command() -> None:
    """A spawned process imports the script that was started, here `cli.py` and the console script's import."""
    code = (
        "import runpy, sys; runpy.run_path('cli.py', run_name='__mp_main__'); from streamfeat_cli import main\n"
        "print({'typer', 'rich', 'streamfeat_cli.commands'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HOUSE)
    assert done.stdout.strip() == "set()"


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
