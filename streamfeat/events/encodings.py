"""Encodings of text: the one that a file has by its first bytes or by `--encoding`, and the one that it seems to be."""

import codecs
import re
import unicodedata
from collections.abc import Sequence

from streamfeat.config import AUTO_ENCODING
from streamfeat.errors import ConfigError
from streamfeat.events.source import Source

REPLACED = "\ufffd"  # stands in decoded text for bytes that are not UTF-8
_BOMS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins this one
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_UTF8 = ("utf-8", "utf-8-sig", "ascii")  # names of codecs whose text is read as it is

# Encodings of scripts whose words have no ASCII letters; the beginnings of the names of their letters; the share of
# such letters among the decoded characters outside ASCII. Japanese is mostly kanji, with kana between.
_SCRIPTS = (
    ("cp932", ("HIRAGANA", "KATAKANA"), 0.1),
    ("euc_jp", ("HIRAGANA", "KATAKANA"), 0.1),
    ("cp949", ("HANGUL",), 0.9),
    ("gb18030", ("CJK",), 0.7),
    ("cp1251", ("CYRILLIC",), 0.9),
)
_LONG_RUN = 3  # mean bytes of a run outside ASCII: accented letters stand alone, words of other scripts do not


def encoding_of(start: bytes, asked: str) -> str:
    """The encoding of a file that begins with `start`; "" for UTF-8. A byte order mark is believed before `asked`."""
    for mark, encoding in _BOMS.items():
        if start.startswith(mark):
            return encoding
    return "" if asked == AUTO_ENCODING or asked in _UTF8 or start.startswith(codecs.BOM_UTF8) else asked


def is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def refuse_zero_bytes(path: str, start: bytes) -> None:
    """Raises ConfigError if `start`, the first bytes of a file, is binary, or is UTF-16 without its mark."""
    text = start.rstrip(b"\0")
    start = text if b"\n" in text else start  # a file that was not written to its end may end with many
    num_zeros = start.count(0)
    if num_zeros <= len(start) // 5:
        return
    for name, zeros, others in (("utf-16-le", start[1::2], start[::2]), ("utf-16-be", start[::2], start[1::2])):
        if zeros.count(0) > 2 * len(zeros) // 3 and others.count(0) < len(others) // 10:
            raise ConfigError(f"{path}: every other byte is zero, as in UTF-16 text; give --encoding {name}")
    raise ConfigError(f"{path}: neither text nor Parquet (zero bytes in its first lines); convert it to one of them")


def seems_to_be(data: bytes) -> str:
    """The encoding that text seems to have which is not UTF-8. A guess for messages; no file is read by it."""
    runs = re.findall(rb"[\x80-\xff]+", data)
    in_words = sum(map(len, runs)) >= _LONG_RUN * len(runs)
    for encoding, letters, share in _SCRIPTS:
        try:
            text = [character for character in data.decode(encoding) if character > "\x7f"]
        except UnicodeDecodeError:
            continue
        found = sum(unicodedata.name(character, "").startswith(letters) for character in text)
        # The second bytes of cp932 may be ASCII, so that its words are not in one run.
        if found > share * len(text) and (in_words or encoding == "cp932"):
            return encoding
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def not_utf8(encoding: str) -> str:
    """A phrase for the user about a file with bytes that are not UTF-8; `encoding` is what it seems to be."""
    return f"some of its bytes are not UTF-8; it seems to be {encoding}: if so, give --encoding {encoding}"


def encoding_hint(sources: Sequence[Source]) -> str:
    """What to do about files with rows that are not UTF-8."""
    found = [source for source in sources if source.seems]
    if found:
        return "\n".join(f"{source.path}: {not_utf8(source.seems)}" for source in found)
    if asked := next((source for source in sources if source.encoding), None):
        return (
            f"{asked.path}: some of its bytes are not {asked.encoding}, by which it was read; it has another encoding"
        )
    return "rows are not UTF-8; if the files have another encoding, name it, for instance --encoding cp1252"
