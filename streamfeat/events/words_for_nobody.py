"""Words that the usual tools write where there is no value, such as NULL: as an id they mean that there is none.

In delimited text a word in quotes is an id: R, SQL and pandas write these words without quotes, also where they quote
all text. DuckDB does not tell what was quoted, so such words get a mark before it reads them.
"""

import re
from collections.abc import Collection

from streamfeat.events.column_values import NOBODY
from streamfeat.events.source import REQUIRED_ROLES

_MARK = "\x02\x03"
_QUOTED = re.compile(('"(' + "|".join(map(re.escape, NOBODY)) + ')"').encode())
_MARKED = f'"{_MARK}'.encode() + rb'\1"'
_LONGEST = max(map(len, NOBODY))
_WORDS = ", ".join(f"'{word}'" for word in NOBODY)


def with_marks(data: bytes | memoryview) -> bytes | None:
    """`data`, rows of delimited text, with a mark in each quoted word; None if there is none."""
    return _QUOTED.sub(_MARKED, bytes(data)) if _QUOTED.search(data) else None


def without_words(relation: str, roles: Collection[str]) -> str:
    """SQL of `relation` with its text columns `roles`; ids and times that are words for nobody are null."""
    # A look at the first character spares most ids and times the words, of which none begins with a digit.
    ids = [
        f'CASE WHEN "{role}" BETWEEN \'0\' AND \':\' OR strlen("{role}") > {_LONGEST} OR "{role}" NOT IN ({_WORDS}) '
        f'THEN "{role}" END AS "{role}"'
        for role in REQUIRED_ROLES
        if role in roles
    ]
    return f"SELECT * REPLACE ({', '.join(ids)}) FROM ({relation})" if ids else relation


def without_marks(relation: str, roles: Collection[str]) -> str:
    """SQL of `relation`, whose text columns `roles` may have marks, without them."""
    texts = [f"replace(\"{role}\", '{_MARK}', '') AS \"{role}\"" for role in roles]
    return f"SELECT * REPLACE ({', '.join(texts)}) FROM ({relation})"
