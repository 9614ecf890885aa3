"""A list that is damaged or made to do harm gives rejected rows or an error with a remedy, and never a crash."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_all import read_all
from site_samples import SAMPLES

from streamfeat.errors import StreamfeatError

VALUES = [
    None,
    True,
    "",
    "x",
    "-1",
    "nan",
    "inf",
    "0000-00-00",
    -1,
    0,
    1.5,
    10**30,
    1e308,
    [],
    {},
    [[]],
    [{}],
    {"a": 1},
]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_one_sound_list(tmp_path, name):
    """Otherwise the tests below would show nothing."""
    path = tmp_path / name
    path.write_bytes(SAMPLES[name])
    read = read_all(path)
    assert read.source.list_user
    assert read.source.format == name.partition(".")[0].partition("_")[0]
    assert len(read.rows) >= 1
    assert read.rejected == []


def read_mutant(name: str, data: bytes) -> None:
    """Reads `data`; every error must be one for the user."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        try:
            read_all(path)
        except StreamfeatError as error:
            assert ";" in str(error), "an error without a remedy"  # noqa: PT017


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.endswith(".json")])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_value_may_stand_anywhere_in_json(name, data):
    """Numbers for texts, lists for objects, missing keys."""
    value = copy.deepcopy(json.loads(SAMPLES[name]))
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(value) or [([0], 0)]))
        if data.draw(st.booleans()):
            container[key] = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
        else:
            del container[key]
    read_mutant(name, json.dumps(value).encode())


@pytest.mark.parametrize("name", SAMPLES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_bytes_may_be_damaged(name, data):
    """Cut off, overwritten, or with others put in."""
    whole = SAMPLES[name]
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    read_mutant(name, whole[:first] + data.draw(st.binary(max_size=6)) + whole[last:])
