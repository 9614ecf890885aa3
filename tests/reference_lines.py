"""Naive twins of `streamfeat.kernels.lines` and `streamfeat.kernels.records`."""

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


def fields_of(record: bytes) -> list[tuple[bytes, bool]] | None:
    """(text, whether it is quoted) of the fields of a record with commas; None if a quote is unclosed or followed by
    text."""
    fields = []
    rest = record
    while True:
        match = re.match(rb'"((?:[^"]|"")*)"(?!")', rest) if rest.startswith(b'"') else re.match(rb"([^,]*)", rest)
        if match is None:
            return None
        fields.append((match[1].replace(b'""', b'"'), rest.startswith(b'"')))
        rest = rest[match.end() :]
        if not rest:
            return fields
        if not rest.startswith(b","):
            return None
        rest = rest[1:]


def record_code(record: bytes, num_fields: int, needed: list[int]) -> int:
    """The code of a record that may be several lines; 3 if only fields that are not needed are not UTF-8. Not for
    records that are malformed and not UTF-8, too."""
    fields = fields_of(record)
    if fields is None or len(fields) != num_fields or any(b"\r" in text for text, quoted in fields if not quoted):
        return MALFORMED
    broken = [number for number, (text, _) in enumerate(fields) if not is_utf8(text)]
    return GOOD if not broken else INVALID_UTF8 if any(needed[number] for number in broken) else 3


def is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def records_of(data: bytes, num_fields: int) -> list[bytes] | None:
    """The records of a whole file with commas, without their ends, if line breaks in its quotes can be believed and
    there are any; None otherwise."""
    records = []
    place = 0
    while place < len(data):
        stop = _record_end(data, place)
        if stop is None:
            return None
        records.append(data[place:stop].removesuffix(b"\r"))
        place = stop + 1
    several = [record for record in records if b"\n" in record]
    if any(len(fields_of(record) or ()) != num_fields for record in several):
        return None
    row_like = [record for record in several if {line.count(b",") for line in record.split(b"\n")} == {num_fields - 1}]
    return records if several and 2 * len(row_like) <= len(several) else None


def _record_end(data: bytes, place: int) -> int | None:
    """Where the record that begins at `place` ends; None if one of its quoted fields does not close before a delimiter
    or the end of a line."""
    while True:
        if data[place : place + 1] == b'"':
            match = re.compile(rb'"(?:[^"]|"")*"(?!")(\r?(?=\n)|\r?\Z|(?=,))').match(data, place)
        else:
            match = re.compile(rb"[^,\n]*").match(data, place)
        if match is None:
            return None
        place = match.end()
        if data[place : place + 1] != b",":
            return place
        place += 1


def lines_of(block: bytes) -> list[bytes]:
    """The lines of `block` without their ends (LF or CRLF)."""
    lines = block.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]
