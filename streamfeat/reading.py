"""How event files were read: what the user gave and what was recognised. A dataset and its runs record it."""

from collections.abc import Iterable

from pydantic import Field

from streamfeat.records import Frozen

MOST_READINGS = 64  # a dataset of more layouts records the first ones


class Reading(Frozen):
    """How the files of one layout were read."""

    format: str
    columns: dict[str, str]  # role → column
    column_names: tuple[str, ...]  # all columns, also those without a role
    joined: tuple[str, ...] = ()  # columns whose text follows that of the timestamp's column
    constants: dict[str, str] = Field(default_factory=dict)  # role → its value in every row
    time_unit: str
    statuses: dict[str, str] = Field(default_factory=dict)  # words and numbers beside the known ones → status
    completion_unit: str = "share"
    unrated: tuple[float, ...] = ()  # ratings that mean that there is none
    encoding: str = ""  # of text; empty: UTF-8


def distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """Each reading once, in order."""
    found: list[Reading] = []
    for reading in readings:
        if reading not in found and len(found) < MOST_READINGS:
            found.append(reading)
    return tuple(found)
