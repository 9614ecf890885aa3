"""`read_back`: whatever is no sound record of its format is refused, with the file, what is wrong and what to do."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, RootModel

from streamfeat.errors import ConfigError, DamagedError, FormatVersionError
from streamfeat.records import Frozen, read_back, validated
from streamfeat.store.files import read_below


class Point(Frozen):
    kind: Literal["point"] = "point"
    height: int = 0


class Area(Frozen):
    kind: Literal["area"] = "area"
    width: float = 0.0
    corners: tuple[Point, ...] = ()


class Saved(Frozen):
    known_format = ("format", 3)

    format: int
    place: Point = Point()
    spare: Point | None = None
    named: dict[str, Area] = {}  # noqa: RUF012  pydantic copies it
    shapes: tuple[Annotated[Point | Area, Field(discriminator="kind")], ...] = ()
    either: Point | Area = Point()
    stored_as: int = Field(default=0, alias="schema")


class Holder(Frozen):
    """Of another record, which says its own format."""

    saved: Saved


class File(RootModel[Annotated[Point | Area, Field(discriminator="kind")]]):
    pass


REMEDY = "restore it"


def read(text: str | bytes, model: Any = Saved) -> Any:
    data = text.encode() if isinstance(text, str) else text
    return read_back(model, data, "a/file.json", REMEDY)


def test_a_record_comes_back_typed() -> None:
    """Nested records, unions and aliases too; equal to the one that was written."""
    saved = Saved(
        format=3, named={"a": Area(corners=(Point(height=2),))}, shapes=(Area(width=0.1), Point()), schema=5
    )  # fmt: skip
    assert read(saved.model_dump_json(by_alias=True)) == saved


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff{}", b'{"format": 1e5000', b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\x00",
     b'{"format": "\\ud800"}', '{"format": 1}'.encode("utf-16")],
)  # fmt: skip
def test_what_is_no_json_is_damage(data: bytes) -> None:
    """Other encodings, deep nesting, numbers without end, half a surrogate pair."""
    with pytest.raises(DamagedError, match=rf"^a/file\.json: not readable as JSON \((?s:.*)\); {REMEDY}$"):
        read(data)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"format"', "true"])
def test_what_is_no_object_is_damage(text: str) -> None:
    """JSON, but no record."""
    with pytest.raises(DamagedError, match=rf"^a/file\.json: not readable: does not hold a JSON object; {REMEDY}$"):
        read(text)


def test_what_is_too_large_is_not_read(tmp_path: Path) -> None:
    """The bound is the reader's: `read_below` gives the bytes of no larger file."""
    (tmp_path / "file.json").write_bytes(b'{"format": 3}' + b" " * 100)
    assert read(read_below(tmp_path, "file.json", 113)) == Saved(format=3)
    with pytest.raises(DamagedError, match=r"file\.json"):
        read_below(tmp_path, "file.json", 112)
    os.truncate(tmp_path / "file.json", 2**40)  # takes no room on disk
    with pytest.raises(DamagedError, match=r"file\.json"):
        read_below(tmp_path, "file.json", 112)


@pytest.mark.parametrize(
    ("text", "model", "where"),
    [('{"format": 4, "new": 1}', Saved, "a/file.json"),
     ('{"saved": {"format": 4, "new": 1}}', Holder, "a/file.json: saved")],
)  # fmt: skip
def test_a_newer_format_is_named_before_its_keys(text: str, model: Any, where: str) -> None:
    """No damage: the remedy is another streamfeat. Also where the record lies inside another one."""
    with pytest.raises(FormatVersionError) as caught:
        read(text, model)
    assert str(caught.value) == f"{where}: written in format 4, but this streamfeat reads up to 3; upgrade streamfeat"


@pytest.mark.parametrize(
    ("text", "model", "said"),
    [('{"format": 3, "plaice": {}}', Saved, "unknown key 'plaice'; did you mean 'place'?"),
     ('{"format": 3, "shema": 1}', Saved, "unknown key 'shema'; did you mean 'schema'?"),
     ('{"format": 3, "xyz": 1}', Saved,
      "unknown key 'xyz'; known: either, format, named, place, schema, shapes, spare"),
     ('{"format": 3, "place": {"heigth": 1}}', Saved, "unknown key 'place.heigth'; did you mean 'height'?"),
     ('{"format": 3, "spare": {"heigth": 1}}', Saved, "unknown key 'spare.heigth'; did you mean 'height'?"),
     ('{"format": 3, "place": {"format": 1}}', Saved, "unknown key 'place.format'; known: height, kind"),
     ('{"format": 3, "named": {"a": {"widht": 1}}}', Saved, "unknown key 'named.a.widht'; did you mean 'width'?"),
     ('{"format": 3, "named": {"a": {"corners": [{}, {"hight": 1}]}}}', Saved,
      "unknown key 'named.a.corners.1.hight'; did you mean 'height'?"),
     ('{"format": 3, "shapes": [{"kind": "area", "heigth": 1}]}', Saved,
      "unknown key 'shapes.0.area.heigth'; known: corners, kind, width"),
     ('{"format": 3, "shapes": [{"kind": "point", "heigth": 1}]}', Saved,
      "unknown key 'shapes.0.point.heigth'; did you mean 'height'?"),
     ('{"format": 3, "either": {"kind": "area", "widht": 1}}', Saved,
      "unknown key 'either.Area.widht'; did you mean 'width'?"),
     ('{"kind": "area", "widht": 1}', File, "unknown key 'area.widht'; did you mean 'width'?"),
     ('{"kind": "area", "corners": [{"hight": 1}]}', File,
      "unknown key 'area.corners.0.hight'; did you mean 'height'?")],
)  # fmt: skip
def test_an_unknown_key_is_answered_with_the_closest_one_of_its_own_record(text: str, model: Any, said: str) -> None:
    """Not of the outermost record, and not of another member of a union."""
    with pytest.raises(DamagedError) as caught:
        read(text, model)
    assert f"a/file.json: {said}" in str(caught.value).removesuffix(f"; {REMEDY}").split("\n")


def test_a_value_of_another_type_is_named_with_what_stands_there() -> None:
    """Each of several; the remedy once, at the end."""
    with pytest.raises(DamagedError) as caught:
        read('{"format": 3, "place": {"height": "tall"}, "shapes": [{"kind": "round"}]}')
    first, second = str(caught.value).split("\n")
    assert first.startswith("a/file.json: place.height: ")
    assert first.endswith("(got 'tall')")
    assert second.startswith("a/file.json: shapes.0: ")
    assert second.endswith(f"; {REMEDY}")
    assert str(caught.value).count(REMEDY) == 1


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_is_endless(constant: str) -> None:
    """Python's JSON takes them; none of ours has them."""
    with pytest.raises(DamagedError, match=r"shapes\.0\.area\.width: .*finite"):
        read(f'{{"format": 3, "shapes": [{{"kind": "area", "width": {constant}}}]}}')


def test_a_record_is_checked_as_it_stands_before_it_is_read() -> None:
    """`check` sees what a checksum is over, takes it away, and has the last word before the keys have."""
    seen: list[dict[str, Any]] = []

    def check(values: dict[str, Any]) -> None:
        seen.append(dict(values))
        if values.pop("checksum", None) != "right":
            raise DamagedError("altered")

    assert read_back(Saved, b'{"format": 3, "checksum": "right"}', "f", REMEDY, check) == Saved(format=3)
    assert seen == [{"format": 3, "checksum": "right"}]
    with pytest.raises(DamagedError, match=r"^altered$"):
        read_back(Saved, b'{"format": 3, "checksum": "wrong", "unknown": 1}', "f", REMEDY, check)
    with pytest.raises(FormatVersionError):
        read_back(Saved, b'{"format": 4, "checksum": "wrong"}', "f", REMEDY, check)


def test_what_a_caller_gives_is_a_wrong_use_and_no_damage() -> None:
    """The same complaints, without a remedy for files."""
    with pytest.raises(ConfigError, match=r"^here: unknown key 'place\.heigth'; did you mean 'height'\?$"):
        validated(Saved, {"format": 3, "place": {"heigth": 1}}, "here")
