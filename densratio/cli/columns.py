"""The columns of two tables to use: --columns, --drop, and names that differ between the files."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from .._names import alike, nearest
from .console import quoted
from .tables import Table, is_numeral

__all__ = ["Choice", "as_argument", "check_id", "choose", "hint_of", "known", "listed"]

_MOST_NAMED = 8  # columns in one message
_NAMELESS = re.compile(r"Unnamed: \d+")


@dataclass(frozen=True)
class Choice:
    """The columns to use, in order, and how they were chosen: `left_out` by --drop, or None if --columns named them."""

    names: tuple[str, ...]
    left_out: tuple[str, ...] | None

    def without(self, names: Sequence[str]) -> str:
        """How to leave out more columns, as the end of a sentence."""
        if self.left_out is None:
            return f"without {quoted(names)} in --columns"
        return f"with --drop {as_argument([*self.left_out, *names])}"


def check_id(id: str | None, source: Table, columns: Sequence[str] | None) -> None:
    """Raise ValueError if the source lacks the column of row names, or if --columns uses it as well."""
    if id is not None and id not in source.names:
        raise ValueError(f"--id: {source.path} has no column '{id}'. {hint_of(id, source.names)}")
    if id == "weight":
        raise ValueError("--id: the output has a column 'weight' already; rename that column of the source.")
    if id is not None and columns is not None and id in listed(columns):
        raise ValueError(f"--id {id} names the rows and describes none: leave it out of --columns.")


def choose(
    source: Table, target: Table, columns: Sequence[str] | None, drop: Sequence[str] | None, beside: Sequence[str] = ()
) -> Choice:
    """The columns to use: those of `columns`, or all but `beside` and those of `drop`. Both tables must have them.

    beside : columns that do not describe the rows, such as names or labels.

    columns, drop : arguments of names, as in `listed`. Raises ValueError for names that are in neither table,
    columns that are in only one or have no name, and if no column is left.
    """
    if columns is not None and drop is not None:
        raise ValueError("--columns says what to use and --drop what to leave out: give one of them.")
    if columns is not None:
        named = Choice(known("--columns", columns, source, target), None)
        for table in (source, target):
            if missing := [name for name in named.names if name not in table.names]:
                raise ValueError(f"{table.path} has no column {quoted(missing)}, which --columns names.")
        return named
    left_out = () if drop is None else known("--drop", drop, source, target)
    unused = (*left_out, *beside)
    kept = [[name for name in table.names if name not in unused] for table in (source, target)]
    _check_same(source, target, Choice(tuple(kept[0]), left_out), kept[1])
    if not kept[0]:
        raise ValueError(
            "No column is left to use: all are left out." if left_out else f"There is no column besides {quoted(beside)}."
        )
    choice = Choice(tuple(kept[0]), left_out)
    if nameless := [name for name in kept[0] if _NAMELESS.fullmatch(name)]:
        raise ValueError(
            f"{source.path}: column {source.names.index(nameless[0]) + 1} has no name, as the row numbers that pandas writes. "
            f"Leave it out {choice.without(nameless)}."
        )
    return choice


def listed(arguments: Sequence[str]) -> tuple[str, ...]:
    """The different names in the arguments of an option, which may be repeated; in each they are separated by commas, as in CSV."""
    names = (name.strip() for line in csv.reader(arguments, skipinitialspace=True) for name in line)
    return tuple(dict.fromkeys(name for name in names if name))


def known(option: str, arguments: Sequence[str], source: Table, target: Table) -> tuple[str, ...]:
    """The names in an option's arguments, which must be columns of either table."""
    names = listed(arguments)
    if not names:
        raise ValueError(f"{option} names no column: give names separated by commas.")
    columns = list(dict.fromkeys([*source.names, *target.names]))
    for name in names:
        if name not in columns:
            which = f"{source.path} has no" if source is target else "neither file has a"
            raise ValueError(f"{option}: {which} column '{name}'. {hint_of(name, columns)}")
    return names


def hint_of(name: str, columns: Sequence[str]) -> str:
    """The columns with names similar to an unknown one, or all columns."""
    if near := nearest(name, columns):
        return f"Did you mean {quoted(near)}?"
    # A label is often the last one.
    last = f"; the last is '{columns[-1]}'" if len(columns) > _MOST_NAMED else ""
    return f"The columns are {quoted(columns, _MOST_NAMED)}{last}."


def _check_same(source: Table, target: Table, choice: Choice, target_names: list[str]) -> None:
    only = [
        [name for name in choice.names if name not in target_names],
        [name for name in target_names if name not in choice.names],
    ]
    if not any(only):
        return
    facts = [f"only {table.path} has {quoted(names)}" for table, names in zip((source, target), only, strict=True) if names]
    facts += [f"'{name}' and '{other}' look like one column, so rename one of them" for name, other in alike(*only)]
    if len(only[0]) == len(choice.names):
        advice = "They share no column, so there is nothing to compare."
    else:
        advice = f"Leave these out {choice.without([*only[0], *only[1]])}, or name the columns to use with --columns."
    if any(is_numeral(name) for name in [*only[0], *only[1]]):
        advice = "Names that are numbers look like data: does each file begin with a line of column names? " + advice
    if any(_NAMELESS.fullmatch(name) for name in [*only[0], *only[1]]):
        advice = "A column without a name often holds the row numbers that pandas writes. " + advice
    raise ValueError(f"The files have different columns: {'; '.join(facts)}. {advice}")


def as_argument(names: Sequence[str]) -> str:
    """Names as one command-line argument that can be pasted."""
    return shlex.quote(",".join(f'"{name}"' if "," in name else name for name in names))
