"""How a text file is laid out: its delimiter, its quotes, the names of its columns, and the column of each role."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamfeat.config import BuildConfig
from streamfeat.errors import ConfigError
from streamfeat.events.first_line import is_data
from streamfeat.events.layouts import is_movielens_csv, known_layout, numbered, unnamed_columns
from streamfeat.events.no_tables import why_no_table
from streamfeat.events.roles import Roles, Table, find_roles
from streamfeat.events.row_counts import spans_lines
from streamfeat.events.sample import TextSample, sampled_rows, split_line
from streamfeat.events.source import REQUIRED_ROLES, Format

DELIMITERS = {
    "\t": "tab",
    "::": "'::'",
    "; ": "semicolon and space",
    ";": "semicolon",
    "| ": "pipe and space",
    "|": "pipe",
    ", ": "comma and space",
    ",": "comma",
    " ": "space",
}
_HEADERLESS: dict[str, tuple[Format, str, str]] = {
    "movielens-100k": ("movielens-100k", "\t", "MovieLens u.data"),
    "movielens-dat": ("movielens-dat", "::", "MovieLens ratings.dat"),
    "movietweetings": ("movietweetings", "::", "MovieTweetings ratings.dat"),
}
_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
_MOVIELENS_NAMES = ["userId", "movieId", "rating", "timestamp"]
_JUDGED_ROWS = 1000
_SPACED = re.compile(r"[\w.:+-]+( [\w.:+-]+)+")
_TYPED = re.compile(r"(?P<name>[^:\t]+):(token|float|token_seq|float_seq)")


@dataclass(frozen=True)
class TextLayout:
    """The layout of a text file."""

    format: Format
    what: str  # for the user
    delimiter: str
    quote: str  # empty: quotes are ordinary characters
    header: bool  # whether the first line names the columns
    names: list[str]
    rows: list[list[str]]  # the fields of the sampled lines, without the first one if it names the columns
    roles: Roles


def find_layout(path: str, sample: TextSample, config: BuildConfig) -> TextLayout:
    """The layout of the text file of which `sample` was taken.

    Raises ConfigError if a required role has no column or the file does not have the format that `config` asks for.
    """
    asked = None if config.format == "auto" else config.format
    first = sample.head[0]
    if asked in _HEADERLESS:
        form, delimiter, what = _HEADERLESS[asked]
        if len(first.split(delimiter)) != len(_RATING_COLUMNS):
            raise ConfigError(
                f"{path}: {what} has 4 fields separated by {DELIMITERS[delimiter]}; its first line reads "
                f"{first[:60]!r}; leave out --format"
            )
        return _unnamed(path, sample, config, delimiter, form, what, _RATING_COLUMNS)
    typed = [_TYPED.fullmatch(field) for field in first.split("\t")]
    if asked in (None, "recbole") and all(typed):
        names = [match["name"] for match in typed if match]
        rows = sampled_rows(sample, "\t", "", len(names))[1:]
        roles = find_roles(_table(path, names, rows, "\t"), config.columns, config.constant)
        return TextLayout("recbole", "RecBole .inter", "\t", "", True, names, rows, roles)
    if asked == "recbole":
        raise ConfigError(f"{path}: a RecBole file starts with typed names such as user_id:token; got {first[:60]!r}")
    found = _delimited(path, sample, config)
    is_movielens = found.header and found.names == _MOVIELENS_NAMES
    if asked == "movielens-csv" and not is_movielens:
        raise ConfigError(f"{path}: MovieLens ratings.csv starts with {','.join(_MOVIELENS_NAMES)}; got {first[:60]!r}")
    if is_movielens and (asked == "movielens-csv" or (asked is None and is_movielens_csv(found.rows))):
        return TextLayout(**vars(found) | {"format": "movielens-csv", "what": "MovieLens ratings.csv", "quote": ""})
    return found


def _delimited(path: str, sample: TextSample, config: BuildConfig) -> TextLayout:
    """The layout with that delimiter which gives most columns, among those with which the first line names a column for
    every required role. If there is none, the first line may be data: then a known layout, or columns by place."""
    named: list[TextLayout] = []
    unnamed: list[tuple[int, str, str]] = []
    errors: list[tuple[int, ConfigError]] = []
    first = sample.head[0]
    if re.fullmatch(r"\d+:", first.strip()):
        raise ConfigError(
            f"{path}: lines such as {first.strip()!r} name the item of the lines below, as in the Netflix Prize; "
            f"convert it: (echo item,user,rating,date; awk -F: 'NF==2{{m=$1;next}}{{print m\",\"$0}}' '{path}') > "
            "events.csv"
        )
    if sample.separator and sample.separator not in DELIMITERS:
        raise ConfigError(
            f"{path}: its first line names {sample.separator!r} as separator; write the file with one of "
            f"{', '.join(DELIMITERS.values())}"
        )
    for delimiter in [sample.separator] if sample.separator else DELIMITERS:
        if delimiter == " " and (named or unnamed or not _SPACED.fullmatch(first)):  # other text holds spaces, too
            break
        if delimiter[1:] == " " and not _is_spaced(delimiter, sample):
            continue
        quote = _quote(delimiter, sample)
        names = [name.strip() for name in split_line(first, delimiter, quote)]
        rows = sampled_rows(sample, delimiter, quote, len(names))[1:] if len(names) > 1 else []
        if is_data(names, rows):
            unnamed.append((len(names), delimiter, quote))
            continue
        try:
            roles = find_roles(_table(path, names, rows, delimiter), config.columns, config.constant)
            named.append(TextLayout("csv", "delimited text", delimiter, quote, True, names, rows, roles))
        except ConfigError as error:
            errors.append((len(names), error))
    if not named and (why := why_no_table(path, sample.head, [each for each in DELIMITERS if each != " "])):
        raise ConfigError(why)
    if named:
        return max(named, key=lambda layout: len(layout.names))
    if unnamed:
        _, delimiter, quote = max(unnamed, key=lambda each: each[0])
        return _by_place(path, sample, config, delimiter, quote)
    raise max(errors, key=lambda e: e[0])[1]


def _by_place(path: str, sample: TextSample, config: BuildConfig, delimiter: str, quote: str) -> TextLayout:
    """The layout of a file whose first line is data: a known one, or the one that the user gives by place."""
    num_fields = len(split_line(sample.head[0], delimiter, quote))
    rows = sampled_rows(sample, delimiter, quote, num_fields)
    known = known_layout(delimiter, rows[:: max(1, len(rows) // _JUDGED_ROWS)])
    if known is not None and config.format in ("auto", known.format):
        return _unnamed(path, sample, config, delimiter, known.format, known.name, known.names)
    names = numbered(num_fields)
    if not any(config.columns.get(role) for role in REQUIRED_ROLES):
        raise unnamed_columns(_table(path, names, rows, delimiter), sample.head[0], config.constant)
    roles = find_roles(_table(path, names, rows, delimiter), config.columns, config.constant)
    return TextLayout("csv", "delimited text without names", delimiter, quote, False, names, rows, roles)


def _unnamed(
    path: str,
    sample: TextSample,
    config: BuildConfig,
    delimiter: str,
    form: Format,
    what: str,
    names: Sequence[str],
) -> TextLayout:
    rows = sampled_rows(sample, delimiter, "", len(names))
    roles = find_roles(_table(path, names, rows, delimiter), config.columns, config.constant)
    return TextLayout(form, what, delimiter, "", False, list(names), rows, roles)


def _table(path: str, names: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str) -> Table:
    whole = [row for row in rows if len(row) == len(names)]
    place = {name: place for place, name in reversed(list(enumerate(names)))}
    return Table(path, names, lambda name: [row[place[name]] for row in whole], delimiter)


def _is_spaced(delimiter: str, sample: TextSample) -> bool:
    """Whether every sampled line has this delimiter of a character and a space, and never the character alone. With
    quotes, the space belongs to the fields."""
    mark = delimiter[0]
    lines = [*sample.head, *sample.rest]
    return all(0 < line.count(mark) == line.count(delimiter) and '"' not in line for line in lines)


def _quote(delimiter: str, sample: TextSample) -> str:
    """The quote character. Comma, semicolon and pipe files have quoted fields as in CSV; tab-separated files only if a
    sampled line has one."""
    if delimiter == "::" or delimiter.endswith(" "):
        return ""
    if delimiter != "\t":
        return '"'
    fields = (field for line in sample.head for field in line.split("\t"))
    if any(len(field) > 1 and field[0] == field[-1] == '"' for field in fields):
        return '"'
    return '"' if spans_lines("\n".join(sample.head).encode(), "\t", sample.head[0].count("\t") + 1) else ""
