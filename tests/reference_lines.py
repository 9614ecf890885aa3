"""Naive twins of `streamfeat.kernels.lines`."""

import re

GOOD, MALFORMED, INVALID_UTF8 = 0, 1, 2


def split_fields(line: str, delimiter: str, quote: str) -> list[str] | None:
    """The fields of one line; None if a quote is unclosed or followed by text."""
    fields: list[str] = []
    rest = line
    while True:
        if quote and rest.startswith(quote):
            q = re.escape(quote)
            match = re.match(f"{q}((?:[^{q}]|{q}{q})*){q}(?!{q})", rest, re.DOTALL)
            if match is None:
                return None
            fields.append(match.group(1).replace(quote * 2, quote))
            rest = rest[match.end() :]
            if not rest:
                return fields
            if not rest.startswith(delimiter):
                return None
            rest = rest[len(delimiter) :]
        else:
            field, found, rest = rest.partition(delimiter)
            fields.append(field)
            if not found:
                return fields


def line_code(line: bytes, delimiter: str, quote: str, num_fields: int) -> int:
    """Twin of `check_line`."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID_UTF8
    fields = split_fields(text, delimiter, quote)
    return GOOD if "\r" not in text and fields is not None and len(fields) == num_fields else MALFORMED


def lines_of(block: bytes) -> list[bytes]:
    """The lines of `block` without their ends (LF or CRLF)."""
    lines = block.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]
