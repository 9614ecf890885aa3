"""JSON documents as they come back from disk, where anything may stand in them by now."""

import json
from typing import Any

from streamfeat.errors import DamagedError


def parse_object(data: bytes, where: str, remedy: str) -> dict[str, Any]:
    """The JSON object that `data` holds as UTF-8.

    Raises DamagedError, with `where` and `remedy`, for all else: other encodings, other JSON, deeper nesting and longer
    numbers than Python takes, half a surrogate pair (which no text file and no terminal can hold).
    """
    try:
        values = json.loads(data.decode("utf-8"))
        if b"\\u" in data:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where}: not readable as JSON ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise DamagedError(f"{where}: not readable: holds no JSON object; {remedy}")
    return values
