"""`docs/reliability.md` names tests that exist, and every promise on it has one."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PAGE = (HOUSE / "docs/reliability.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", PAGE, re.MULTILINE))
PROMISES = [
    (heading, " ".join(promise.split()))
    for heading, text in SECTIONS.items()
    if heading != "Not promised"
    for promise in re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", text, re.MULTILINE)
]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def defined_in(file: str) -> frozenset[str]:
    """The tests that a file defines, read without running it."""
    tree = ast.parse((HOUSE / file).read_text("utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_page_has_a_section_for_each_kind_of_promise() -> None:
    """And a few promises in each."""
    kinds = ["Build", "Store", "Stream", "Training", "Export and output", "Bad input", "Security", "Not promised"]
    assert [*SECTIONS] == kinds
    for heading in [*SECTIONS][:-1]:
        assert sum(found == heading for found, _ in PROMISES) >= 3, heading


@pytest.mark.parametrize("promise", [promise for _, promise in PROMISES], ids=lambda text: text[2:50])
def test_each_promise_is_told_in_bold_and_has_tests_that_exist(promise: str) -> None:
    """Every file and function that it names is there."""
    assert promise.startswith("**")
    named = NAMED.findall(promise)
    assert named, "a promise without a test"
    assert promise.count("::") == len(named)
    assert [
        f"{file}::{test}" for file, test in named if not (HOUSE / file).exists() or test not in defined_in(file)
    ] == []


def test_whatever_else_the_page_names_exists() -> None:
    """Tests outside of promises; the benchmark and its record."""
    named = NAMED.findall(PAGE)
    assert [f"{file}::{test}" for file, test in named if test not in defined_in(file)] == []
    for name in set(re.findall(r"benchmarks/[\w/]+\.\w+", PAGE)):
        assert (HOUSE / name).exists(), name
