"""The elements of JSON: the kernel against Python's parser, for any cut into blocks."""

import itertools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamfeat.errors import ConfigError, DataError
from streamfeat.events import json_elements
from streamfeat.events.source import Source
from streamfeat.kernels.lines import LINE_GOOD, LINE_INVALID_UTF8, LINE_MALFORMED, MAX_LINE_LEN

texts = st.text(st.sampled_from('ab"\\{}[],: \n\ré😀'), max_size=6)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), texts)
nested = st.recursive(
    scalars, lambda at: st.lists(at, max_size=3) | st.dictionaries(texts, at, max_size=3), max_leaves=6
)


def source_of(path: Path) -> Source:
    return Source(path=str(path), format="json", columns={}, column_names=(), time_unit="s", note="")


def in_blocks(text: bytes, block_bytes: int) -> list[tuple[str, int]]:
    """(text, code) of the elements, read in blocks."""
    found, carry = [], b""
    for place in range(0, len(text), block_bytes):
        is_last = place + block_bytes >= len(text)
        block, lines, unfinished = json_elements.elements_of(carry + text[place : place + block_bytes], is_last=is_last)
        places = zip(lines.starts.tolist(), lines.stops.tolist(), strict=True)
        found += [(block[a:b].tobytes(), code) for (a, b), code in zip(places, lines.codes.tolist(), strict=True)]
        carry = block[unfinished:].tobytes()
    return found


@settings(max_examples=200, deadline=None)
@given(
    st.lists(nested, max_size=6), st.sampled_from([None, 0, 2]), st.booleans(), st.integers(1, 60), st.integers(1, 4)
)
@example([{"a": '}"\\'}, [[], {}], "x,]", 5], 2, False, 1, 1)
def test_the_elements_of_an_array_are_those_of_a_parser(rows, indent, ascii_only, block_bytes, every):
    """Brackets and commas in texts are text; whatever the layout and the blocks."""
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode()
    found = in_blocks(json_elements.without_opening(text), block_bytes)
    assert [json.loads(element) for element, _ in found] == rows
    assert {code for _, code in found} <= {LINE_GOOD}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_bytes(b"\xef\xbb\xbf \n" + text + b"\n")
        was = json_elements._BLOCK_BYTES
        json_elements._BLOCK_BYTES = max(block_bytes, 6)  # the mark and the bracket are in the first block
        try:
            count = json_elements.count_elements(source_of(path), every)
        finally:
            json_elements._BLOCK_BYTES = was
        data = path.read_bytes()
    assert count.num_rows == len(rows)
    ends = [*count.starts, count.content_end]
    parts = [in_blocks(data[a:b], block_bytes) for a, b in itertools.pairwise(ends)]
    assert [[json.loads(element) for element, _ in part] for part in parts] == [
        rows[i : i + every] for i in range(0, len(rows), every)
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.dictionaries(texts, nested, max_size=3), min_size=1, max_size=5), st.integers(1, 60))
def test_objects_one_after_the_other_are_elements_too(rows, block_bytes):
    """As programs print them, without a comma between."""
    text = "\n".join(json.dumps(row, indent=1) for row in rows).encode()
    assert [json.loads(element) for element, _ in in_blocks(text, block_bytes)] == rows


def test_bad_elements_are_marked_and_cost_no_other():
    """Bytes that are not UTF-8, one that is too long, one that the end cuts off."""
    text = b'{"a":"\xff"},{"b":"' + b"x" * MAX_LINE_LEN + b'"},{"c":1},{"d":'
    codes = [code for _, code in in_blocks(text, 1 << 22)]
    assert codes == [LINE_INVALID_UTF8, LINE_MALFORMED, LINE_GOOD, LINE_MALFORMED]


@pytest.mark.parametrize("cut", [1, 2, 8])
def test_an_array_without_its_end_is_refused(tmp_path, cut):
    """Rows may be missing. So is one with an object that no event can be."""
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"a":1},{"b":2}]'[:-cut])
    with pytest.raises(DataError, match=r"cut short after [12] whole objects"):
        json_elements.count_elements(source_of(path), 9)
    path.write_bytes(b'[{"a":1},{"b":"' + b"x" * MAX_LINE_LEN + b'"}]')
    with pytest.raises(ConfigError, match="longer than"):
        json_elements.count_elements(source_of(path), 9)
