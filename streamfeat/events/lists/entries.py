"""What every list becomes: entries, with words and dates as texts that the casts read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One record of a list. An empty text: the list does not say."""

    row: int  # 1-based place of the record in its file
    item: str  # the site's id, or the name where the site gives no id
    medium: str
    time: str = ""  # ISO, UTC
    title: str = ""
    rating: str = ""
    status: str = ""  # the site's word
    completion: str = ""  # 0 to 1
    user: str = ""  # empty: the account of the list


@dataclass(frozen=True)
class SiteList:
    """The entries of one file, and what is said about them."""

    what: str  # "anime list"
    entries: Sequence[Entry]
    account: str = ""  # the name of the account; empty: the file does not say
    times: str = ""  # which of the list's dates are the times: "finish date, else start date"
    left_out: tuple[str, ...] = ()  # phrases about what is in the file and not in the entries


def share(done: str, total: str) -> str:
    """`done` of `total` as a completion from 0 to 1; empty if one of them is missing or no positive number.

    More than the total is 1: of a list that counts an episode twice, or that had fewer before.
    """
    try:
        part, whole = float(done), float(total)
    except ValueError:
        return ""
    is_share = 0 < whole < math.inf and 0 <= part < math.inf
    return f"{min(part / whole, 1.0):.6g}" if is_share else ""


def rated(score: str) -> str:
    """`score` as the rating of a site where 0 means that there is none."""
    try:
        return "" if float(score) == 0 else score
    except ValueError:
        return score
