"""What is said about the chosen columns of users and items where a wrong history would look like a right one."""

from collections.abc import Mapping, Sequence

from streamfeat.events.column_values import ColumnValues
from streamfeat.events.role_names import plain
from streamfeat.events.source import ID_ROLES

# Names of works that several makers use, and the columns that name the makers.
_WORKS = (
    "track", "trackname", "tracktitle", "song", "songname", "songtitle", "album", "albumname", "book", "booktitle",
    "recipe", "title", "name",
)  # fmt: skip
_MAKERS = (
    "artist", "artistname", "artists", "albumartist", "trackartist", "author", "authors", "authorname", "bookauthor",
    "creator", "band", "composer", "singer",
)  # fmt: skip


def id_remarks(columns: Mapping[str, str], values: Mapping[str, ColumnValues], names: Sequence[str]) -> list[str]:
    """Phrases for the user. `columns` and `values` are those of the roles of ids, `names` all columns of the file."""
    remarks = [_spaces(role, values[role]) for role in ID_ROLES if role in columns]
    if "user" in columns and values["user"].counts_rows:
        remarks.append(
            f"{columns['user']!r} numbers the rows, so that each has a user of its own (--columns user=NAME names "
            "another)"
        )
    maker = next((name for name in names if plain(name) in _MAKERS and name not in columns.values()), "")
    if maker and plain(columns.get("item", "")) in _WORKS:
        item = columns["item"]
        remarks.append(
            f"items are named by {item!r} alone, so those of one name with another {maker!r} are one item (write both "
            "into one column, and name it with --columns item=NAME)"
        )
    return [remark for remark in remarks if remark]


def _spaces(role: str, values: ColumnValues) -> str:
    """What is said about ids that begin or end with spaces."""
    ids = set(values.given)
    padded = {value for value in ids if value != value.strip()}
    if not padded:
        return ""
    twins = len(ids) - len({value.strip() for value in ids})
    differ = f", and {twins:,} differ from another by nothing else" if twins else ""
    return (
        f"{len(padded):,} of {len(ids):,} sampled ids of {role} begin or end with spaces{differ}: ids are kept as "
        "they are (where the spaces mean nothing, write the file again without them)"
    )
