"""An archive that holds lists of one site: they are one list."""

from collections.abc import Callable
from dataclasses import replace

from streamfeat.events.lists.content import Content
from streamfeat.events.lists.entries import SiteList


def read_archive(content: Content, read: Callable[[Content], SiteList | None]) -> SiteList | None:
    """The lists that `read` finds in the archive as one, in the order of their names; None if there are none.

    Rows are counted over its files. Raises DataError if the archive or a list is damaged.
    """
    found = [(name, one) for name in sorted(content.members) if (one := read(content.members[name])) is not None]
    if not found:
        return None
    entries = [entry for _, one in found for entry in one.entries]
    lists = [one for _, one in found]
    return SiteList(
        what=f"archive with {', '.join(dict.fromkeys(one.what for one in lists))}",
        entries=[replace(entry, row=number) for number, entry in enumerate(entries, start=1)],
        account=next((one.account for one in lists if one.account), ""),
        times="; ".join(dict.fromkeys(one.times for one in lists if one.times)),
        left_out=tuple(f"{name}: {phrase}" for name, one in found for phrase in one.left_out),
    )
