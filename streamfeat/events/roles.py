"""Chooses the column for each role: the one that `--columns` gives, or the best of those whose name and values fit.

docs/reading.md states the rules, with examples.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from streamfeat.errors import ConfigError
from streamfeat.events.column_values import ColumnValues, is_clock, share
from streamfeat.events.id_remarks import id_remarks
from streamfeat.events.role_names import NAMES, TIMES, is_like_progress, is_like_rating, is_like_total, plain
from streamfeat.events.source import ID_ROLES, REQUIRED_ROLES, ROLES

MAX_COLUMNS = 4096  # in a file: the search for similar names among more columns takes minutes

_HEAD_ROWS, _REST_ROWS = 500, 1000  # all 6,000 sampled rows of a text file would take a quarter of a second
_CLOSE = 0.75  # the similarity from which on a name may be a slip of the pen
_PLACE = re.compile(r"#(\d{1,4})")
_PARTS = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True)
class Table:
    """The columns of a file, and sampled values of each."""

    path: str
    names: Sequence[str]
    sample: Callable[[str], Sequence[str]]  # column → its sampled values as text, empty where missing; rows in order
    delimiter: str = ""  # of text
    _sampled: dict[str, ColumnValues] = field(default_factory=dict, repr=False)

    def values(self, name: str) -> ColumnValues:
        """The sampled values of a column, sampled once: those of the first rows, and of some of all others."""
        if name not in self._sampled:
            rows = self.sample(name)
            rest = rows[_HEAD_ROWS:]
            self._sampled[name] = ColumnValues([*rows[:_HEAD_ROWS], *rest[:: max(1, len(rest) // _REST_ROWS)]])
        return self._sampled[name]


@dataclass(frozen=True)
class Roles:
    """The column of each role, and what is said about them."""

    columns: dict[str, str]  # role → column
    float_ids: tuple[str, ...]  # roles of ids that are all written as 7.0
    note: str
    joined: tuple[str, ...] = ()  # columns whose text follows that of the timestamp's column


def check_roles(overrides: Mapping[str, str], constants: Mapping[str, str]) -> None:
    """Raises ConfigError if `--columns` or `--constant` names an unknown role, or both name one."""
    for option, form, given in (("columns", "column", overrides), ("constant", "value", constants)):
        for role in given:
            if role not in ROLES:
                close = difflib.get_close_matches(role, ROLES, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"roles: {', '.join(ROLES)}"
                raise ConfigError(f"{option}: unknown role {role!r}; {hint}; a role is given as role={form}")
    if "timestamp" in constants:
        raise ConfigError("constant: timestamp: events of one time have no order; name their column of times")
    for role in constants.keys() & {role for role, column in overrides.items() if column}:
        raise ConfigError(f"constant: {role} is given a column, too, with --columns; leave one of them out")


def find_roles(table: Table, overrides: Mapping[str, str], constants: Mapping[str, str]) -> Roles:
    """The column for each role. An override with an empty column means that the role has none; a role of `constants`
    needs none.

    Raises ConfigError, with the columns found and those that could serve, if a required role has no column, an override
    names a missing column, a name occurs twice or one column has two roles.
    """
    check_roles(overrides, constants)
    names = table.names
    if len(names) > MAX_COLUMNS:
        raise ConfigError(
            f"{table.path}: has {len(names):,} columns, more than {MAX_COLUMNS:,}; write a file with only the needed "
            "columns"
        )
    columns = {role: _named(table, role, column) for role, column in overrides.items() if column}
    joined: tuple[str, ...] = ()
    if "timestamp" in columns:
        columns["timestamp"], *others = columns_of_time(columns["timestamp"], names)
        joined = tuple(others)
    left: dict[str, list[str]] = {}
    unfit: dict[str, str] = {}
    for role in ROLES:
        if role in overrides or role in constants:
            continue
        candidates = [name for name in candidates_of(role, names) if name not in (*columns.values(), *joined)]
        fit = [name for name in candidates if table.values(name).fits(role)]
        if role == "title" and "item" in columns:
            fit = [name for name in fit if table.values(name).follows(table.values(columns["item"]))]
        if fit:
            columns[role] = _best(table, role, fit)
            left[role] = [name for name in fit if name != columns[role]]
        elif candidates and role in REQUIRED_ROLES:
            columns[role] = candidates[0]
        elif candidates and role != "title":
            unfit[candidates[0]] = role
    if "timestamp" in columns and "timestamp" not in overrides:
        joined = _clock_beside(table, columns)
    columns = {role: columns[role] for role in ROLES if role in columns}
    for role in REQUIRED_ROLES:
        if role not in columns and role not in constants:
            raise ConfigError(_no_column(table, role, columns))
    _check_distinct(table, columns, joined)
    float_ids = tuple(role for role in ID_ROLES if role in columns and _are_floats(table, role, columns[role]))
    note = _note(table, columns, joined, constants, left, unfit)
    ids = {role: columns[role] for role in ID_ROLES if role in columns}
    remarks = id_remarks(ids, {role: table.values(column) for role, column in ids.items()}, names)
    if "timestamp" in columns and (times := table.values(columns["timestamp"])).has_gaps:
        remarks.append(
            f"{columns['timestamp']!r} is empty in {times.missing_share:.0%} of the sampled rows: these are rejected"
        )
    return Roles(columns, float_ids, "; ".join([note, *remarks]), joined)


def _are_floats(table: Table, role: str, column: str) -> bool:
    """Whether all sampled ids of the column are floats without a fraction, as those of a column of numbers with a
    missing one. Raises ConfigError if they are so large that digits are missing."""
    values = table.values(column)
    if values.lost_digits:
        raise ConfigError(
            f"{table.path}: the column {column!r} holds {values.lost_digits!r} as {role}: ids that were written as "
            f"floats of this size have lost digits; write them again as integers or text, or name another column "
            f"with --columns {role}=NAME"
        )
    return values.are_floats


def candidates_of(role: str, names: Sequence[str]) -> list[str]:
    """The columns of `names` that are called like the role, in the order in which names are taken."""
    by_plain_name: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_plain_name.setdefault(plain(name), []).append(name)
    return [name for known in NAMES[role] for name in by_plain_name.get(known, ())]


def _best(table: Table, role: str, fit: Sequence[str]) -> str:
    """The column that is taken of several that fit."""
    if role == "item":  # of an order, item_id may be the number of the line
        return min(fit, key=lambda name: table.values(name).counts_rows)
    if role == "user" and table.values(fit[0]).differs_in_rows:  # of reviews, uid may be the number of the review
        return next((name for name in fit if table.values(name).names_few), fit[0])
    if role != "timestamp" or len(fit) == 1:
        return fit[0]
    values = {name: table.values(name) for name in fit}
    rank = {name: (values[name].has_gaps, not values[name].surely_times, _rank(name)) for name in fit}
    # `fit` is in the order of names, and `min` takes the first of equals.
    first = min(fit, key=lambda name: rank[name])
    for name in fit:
        related = rank[name] == rank[first] or values[name].same_days(values[first])
        if related and rank[name][:2] == rank[first][:2] and values[name].finer_than(values[first]):
            first = name
    return first


def _rank(name: str) -> int:
    """How nearly the name of a time says when the user acted; 0 is best."""
    return next(rank for rank, names in enumerate(TIMES) if plain(name) in names)


def _clock_beside(table: Table, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The column of times of day that belongs to the column of times, if that has dates alone and there is only one."""
    clocks = _clocks(table, columns.values())
    return tuple(clocks) if len(clocks) == 1 and table.values(columns["timestamp"]).are_dates else ()


def _clocks(table: Table, taken: Collection[str]) -> list[str]:
    """The columns called like a time that hold times of day without a date, and have no role yet."""
    names = [name for name in candidates_of("timestamp", table.names) if name not in taken]
    return [name for name in names if (given := table.values(name).given) and share(given, is_clock) > 0.5]


def columns_of_time(given: str, names: Sequence[str]) -> list[str]:
    """The columns that `--columns timestamp=` names: one, or several with "+" between them."""
    parts = [part.strip() for part in given.split("+")]
    return parts if given not in names and all(part in names for part in parts) else [given]


def _named(table: Table, role: str, column: str) -> str:
    """The column that the user gives, by its name or by its place (`#1` is the first)."""
    names = table.names
    if column in names or (role == "timestamp" and len(columns_of_time(column, names)) > 1):
        return column
    if place := _PLACE.fullmatch(column):
        if 1 <= int(place[1]) <= len(names):
            return names[int(place[1]) - 1]
        raise ConfigError(f"{table.path}: no column {column} for {role}; there are {len(names)}: {_listed(names)}")
    close = difflib.get_close_matches(column, list(names), n=1, cutoff=0.4)
    hint = f"; the closest is {close[0]!r}" if close else ""
    raise ConfigError(f"{table.path}: no column {column!r} for {role}; found {_listed(names)}{hint}")


def _no_column(table: Table, role: str, columns: Mapping[str, str]) -> str:
    """The error for a required role without a column. It names only columns whose values could play the role."""
    path, names = table.path, table.names
    if not names:
        return f"{path}: no column for {role}: the file has no columns at all; write it again with its columns"
    taken = {name for other, name in columns.items() if (role, other) != ("item", "title")}  # a title may name items
    free = [name for name in names if name not in taken and table.values(name).fits(role)]
    if role == "timestamp":
        free = [name for name in free if table.values(name).surely_times or not table.values(name).rows]
    if role in ID_ROLES:  # a number of its own in each row is the row's
        free = [name for name in free if not table.values(name).differs_in_rows] or free
    others = {
        name
        for other in ROLES
        if other != role and (role, other) != ("item", "title")
        for name in candidates_of(other, names)
    }
    by_plain_name = {plain(name): name for name in free if name not in others}
    best = ("", _CLOSE)
    for candidate in NAMES[role]:
        for close in difflib.get_close_matches(candidate, list(by_plain_name), n=1, cutoff=best[1]):
            best = (by_plain_name[close], difflib.SequenceMatcher(None, candidate, close).ratio())
    if best[0]:
        advice = f"the closest is {best[0]!r}; name it with --columns {role}={quoted(best[0])}"
    elif role == "timestamp" and free:
        advice = f"times are in {_listed(free)}; name one with --columns timestamp={quoted(free[0])}"
    elif role == "timestamp":
        advice = without_time(table)
    else:
        could = [name for name in free if name not in others] if len(names) > 1 else []
        advice = f"it may be {_listed(could)}; " if 0 < len(could) < len(names) else ""
        advice += f"name it with --columns {role}={quoted(could[0]) if len(could) == 1 else 'NAME'}"
        advice += ", or, if all events are of one user, give --constant user=me" if role == "user" else ""
    return f"{path}: no column for {role}; found {_listed(names)}; {advice}"


def without_time(table: Table) -> str:
    """What to do with a file in which no column holds times."""
    parts = {end: name for name in table.names for end in _PARTS if plain(name).endswith(end)}
    if {"year", "month", "day"} <= parts.keys():
        joined = "+".join(parts[part] for part in _PARTS if part in parts)
        return f"the date is in several columns; join them with --columns timestamp={quoted(joined)}"
    separator = {"\t": "\\t", "| ": "[|] "}.get(table.delimiter, table.delimiter)
    awk = f"awk -F'{separator}' -v OFS='{separator}' '{{sub(/\\r$/,\"\")}}"
    name = 'NR==1{print $0,"timestamp";next} ' if not _is_place(table.names[0]) else ""
    remedy = f"{awk} {name}{{print $0,1000000000+NR}}' '{table.path}'"
    what = "no column holds times; if the rows are in order of time, number them"
    return f"{what}: {remedy} > with_times.txt" if table.delimiter else f"{what} in a column called timestamp"


def _is_place(name: str) -> bool:
    return bool(_PLACE.fullmatch(name))


def quoted(name: str) -> str:
    """`name` as it is typed in a shell."""
    return name if re.fullmatch(r"[\w.#+:-]+", name) and not name.startswith("#") else f"'{name}'"


def _check_distinct(table: Table, columns: Mapping[str, str], joined: Sequence[str]) -> None:
    role_of: dict[str, str] = {}
    for role, column in [*columns.items(), *(("timestamp", column) for column in joined)]:
        if list(table.names).count(column) > 1:
            raise ConfigError(f"{table.path}: two columns are called {column!r}; rename one of them")
        if column in role_of:
            raise ConfigError(
                f"{table.path}: column {column!r} is given as {role_of[column]} and as {role}; name another for one"
            )
        role_of[column] = role


def _note(
    table: Table,
    columns: Mapping[str, str],
    joined: Sequence[str],
    constants: Mapping[str, str],
    left: Mapping[str, Sequence[str]],
    unfit: Mapping[str, str],
) -> str:
    """What was taken and what was left, for the user."""
    taken = {*columns.values(), *joined}
    parts = []
    for role, column in columns.items():
        others = [name for name in left.get(role, ()) if name not in taken]
        if role == "timestamp" and joined:
            column = "+".join([column, *joined])
        parts.append((f"{role}={column}" if role != column else role) + (f" (not {_listed(others)})" if others else ""))
    parts += [f"{role} is always {value!r}" for role, value in constants.items()]
    said = {name for names in left.values() for name in names}
    other = [
        f"{name!r} does not hold a {role}" for name, role in unfit.items() if name not in taken and name not in said
    ]
    said |= unfit.keys() | taken
    ratings = [name for name in table.names if name not in said and is_like_rating(name)]
    ratings = [name for name in ratings if table.values(name).is_numeric]
    if ratings:
        take = "" if "rating" in columns else f" (--columns rating={quoted(ratings[0])} takes it)"
        have = "holds numbers and has" if len(ratings) == 1 else "hold numbers and have"
        other.append(f"{_listed(ratings)} {have} no role{take}")
    if "completion" not in columns and (part := _progress(table, {*taken, *said})):
        other.append(part)
    clocks = _clocks(table, taken)
    if clocks and "timestamp" in columns:
        both = quoted(f"{columns['timestamp']}+{clocks[0]}")
        join = f" (--columns timestamp={both} joins both)" if table.values(columns["timestamp"]).are_dates else ""
        other.append(f"{_listed(clocks)} holds times of day without a date{join}")
    return ", ".join(parts) + (f"; left out: {'; '.join(other)}" if other else "")


def _progress(table: Table, taken: Collection[str]) -> str:
    """What is said about a column that is called like a progress and has no role."""
    names = [name for name in table.names if name not in taken and (is_like_progress(name) or is_like_total(name))]
    names = [name for name in names if table.values(name).is_amount]
    parts = [name for name in names if is_like_progress(name)]
    if not parts:
        return ""
    total = next((name for name in names if name != parts[0] and is_like_total(name)), "")
    take = f"completion={quoted(parts[0])}" + (f",total={quoted(total)}" if total else "")
    return f"{parts[0]!r} holds numbers and has no role (--columns {take} takes it)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name if len(name) <= 40 else name[:39] + "…") for name in names[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")
