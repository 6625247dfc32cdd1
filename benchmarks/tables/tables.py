"""The record of the runs as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.runner import Row, write

from .records import read

__all__ = ["Section", "ordered", "values", "write_tables"]

Section = tuple[str, str, list[Row]]
REFERENCES = {"no weights", "true ratio"}


def write_tables(folder: Path, part: str) -> None:
    """PART.md and PART.json in `folder` from its PART_runs.json."""
    facts, rows = read(folder / f"{part}_runs.json")
    sections = [section for section in SECTIONS[part](rows) if section[2]]
    write(str((folder / part).resolve()), TITLES[part], facts, sections)


# ---------------------------------------------------------------- accuracy


def accuracy_sections(rows: list[Row]) -> list[Section]:
    """Who is best where, then each score by shift, then how the contenders behave over all of them."""
    spread = "Median over the seeds (smallest to largest)."
    sections: list[Section] = [
        ("Best of ours against the best of the others", BEST_NOTE, best(rows)),
        ("The same, family by family", FAMILY_NOTE, best_of_families(rows)),
    ]
    for score, note in SCORES.items():
        for shift in unique(row["shift"] for row in rows):
            of_shift = [row for row in rows if row["shift"] == shift]
            columns = {f"d = {d}": [row for row in of_shift if row["d"] == d] for d in unique(row["d"] for row in of_shift)}
            sections.append((f"{score}, {shift}", f"{note} {spread}", matrix(columns, score, with_spread)))
    return [*sections, ("Behaviour over all data", BEHAVIOUR_NOTE, behavior(rows))]


def best(rows: list[Row]) -> list[Row]:
    """For each data set the smallest median NMSE among the others, among our defaults, and among all of ours."""
    table = []
    for shift, d in unique((row["shift"], row["d"]) for row in rows):
        here = [row for row in rows if (row["shift"], row["d"]) == (shift, d) and row["contender"] not in REFERENCES]
        ours = [row for row in here if row["library"] == "densratio"]
        theirs = lowest([row for row in here if row["library"] != "densratio"], "NMSE")
        default, setting = lowest([row for row in ours if row["default"]], "NMSE"), lowest(ours, "NMSE")
        table.append(
            {
                "data": f"{shift}, d = {d}",
                "best of the others": theirs[0],
                "its NMSE": theirs[1],
                "our best default": default[0],
                "NMSE": default[1],
                "others / ours": theirs[1] / default[1] if theirs[1] and default[1] else None,
                "our best of all settings": setting[0],
                "NMSE of it": setting[1],
            }
        )
    return table


def best_of_families(rows: list[Row]) -> list[Row]:
    """For each family with both, and each data set, the smallest median NMSE among the others and among ours, all settings."""
    table = []
    for family, shift, d in sorted(unique((row["family"], row["shift"], row["d"]) for row in rows)):
        here = [row for row in rows if (row["family"], row["shift"], row["d"]) == (family, shift, d)]
        ours = lowest([row for row in here if row["library"] == "densratio"], "NMSE")
        theirs = lowest([row for row in here if row["library"] != "densratio"], "NMSE")
        if ours[1] and theirs[1]:
            pair = {"best of the others": theirs[0], "its NMSE": theirs[1], "our best": ours[0], "NMSE": ours[1]}
            table.append({"family": family, "data": f"{shift}, d = {d}", **pair, "others / ours": theirs[1] / ours[1]})
    return table


def behavior(rows: list[Row]) -> list[Row]:
    """Of each contender over all data sets: what failed, seconds, memory, the ratio's mean, the order of its weights."""
    table = []
    for name in ordered(rows):
        runs = [row for row in rows if row["contender"] == name]
        means, ranks = values(runs, "fresh mean"), values(runs, "rank correlation")
        problems = unique(row.get("reason") or row["status"] for row in runs if row["status"] != "ok")
        table.append(
            {
                "contender": name,
                "runs that gave weights": f"{sum(row['status'] == 'ok' for row in runs)} of {len(runs)}",
                "fit seconds": median(runs, "fit seconds"),
                "transform seconds": median(runs, "transform seconds"),
                "MiB above import": median(runs, "MiB above import"),
                "mean ratio, fresh source rows": f"{min(means):.3g} to {max(means):.3g}" if means else None,
                "lowest rank correlation": min(ranks, default=None),
                "most negative weights": max(values(runs, "negative weights"), default=None),
                "first problem": problems[0].replace("|", "/").replace("\n", " ")[:120] if problems else "",
            }
        )
    return table


# ---------------------------------------------------------------- cost


def cost_sections(rows: list[Row]) -> list[Section]:
    """Seconds of fit and transform and memory, against n and against d."""
    sections: list[Section] = []
    for axis in unique(row["axis"] for row in rows):
        here = [row for row in rows if row["axis"] == axis]
        columns = {f"{axis} = {size:,}": [row for row in here if row[axis] == size] for size in unique(row[axis] for row in here)}
        other = "d" if axis == "n" else "n"
        fixed = f"{other} = {here[0][other]:,}, m = {here[0]['m']:,}. {COST_NOTE}"
        for score in ("fit seconds", "transform seconds", "MiB above import"):
            sections.append((f"{score} against {axis}", fixed, matrix(columns, score, or_status)))
    return sections


# ---------------------------------------------------------------- named speeds


def speed_sections(rows: list[Row]) -> list[Section]:
    """The races with their factors, KMM at size, and LSIF over a stream."""
    sections: list[Section] = []
    for race in unique(row["race"] for row in rows if row["part"] == "race"):
        runs = [row for row in rows if row.get("race") == race]
        note = f"n = {runs[0]['n']:,}, m = {runs[0]['m']:,}, d = {runs[0]['d']}. {RACE_NOTE}"
        sections.append((race, note, race_table(runs)))
    hidden = {"part", "library", "family", "default", "params", "warnings", "trace", "negative weights"}
    for part, (heading, note) in ALONE.items():
        runs = [{key: value for key, value in row.items() if key not in hidden} for row in rows if row["part"] == part]
        sections += [(heading, note, runs)] if runs else []
    return sections


def race_table(runs: list[Row]) -> list[Row]:
    """Each racer's seconds over the rounds, and how many times ours goes into the smallest of its rounds."""
    table = []
    ours = min((x for row in runs if row["library"] == "densratio" for x in values([row], "fit seconds")), default=None)
    for name in ordered(runs):
        mine = [row for row in runs if row["contender"] == name]
        seconds = values(mine, "fit seconds")
        table.append(
            {
                "contender": name,
                "seconds, smallest": min(seconds, default=None),
                "seconds, median": median(mine, "fit seconds"),
                "times slower than ours": min(seconds) / ours if seconds and ours else None,
                "NMSE": median(mine, "NMSE"),
                "status": mine[0]["status"] if mine[0]["status"] == "ok" else mine[0].get("reason") or mine[0]["status"],
            }
        )
    return table


# ---------------------------------------------------------------- parts


def ordered(rows: Iterable[Row]) -> list[str]:
    """Contenders: references, then ours, then the others, each library's in alphabetical order."""
    rank = {"reference": 0, "densratio": 1}
    named = {row["contender"]: rank.get(row["library"], 2) for row in rows}
    return sorted(named, key=lambda name: (named[name], name.lower()))


def matrix(columns: dict[str, list[Row]], score: str, cell: Callable[[list[Row], str], Any]) -> list[Row]:
    """A line for each contender, a column for each group of runs; contenders without any cell are left out."""
    names = ordered(row for runs in columns.values() for row in runs)
    table = []
    for name in names:
        cells = {head: cell([row for row in runs if row["contender"] == name], score) for head, runs in columns.items()}
        if any(value is not None for value in cells.values()):
            table.append({"contender": name, **cells})
    return table


def with_spread(runs: list[Row], score: str) -> str | None:
    """ "median (smallest to largest)", and how many runs gave none."""
    found = values(runs, score)
    if not found:
        return None
    missing = f", {len(runs) - len(found)} of {len(runs)} without" if len(found) < len(runs) else ""
    return f"{statistics.median(found):.3g} ({min(found):.3g} to {max(found):.3g}{missing})"


def or_status(runs: list[Row], score: str) -> Any:
    """The number, or why there is none: at the first size that has none its reason, none after."""
    found = values(runs, score)
    if found:
        return statistics.median(found)
    status = runs[0]["status"] if runs else None
    return None if status in (None, "ok", "not run", "absent") else status


def values(runs: Iterable[Row], score: str) -> list[float]:
    """The finite numbers under `score`."""
    return [row[score] for row in runs if isinstance(row.get(score), int | float)]


def median(runs: list[Row], score: str) -> float | None:
    """Median of the finite numbers under `score`; None where there are none."""
    found = values(runs, score)
    return statistics.median(found) if found else None


def lowest(rows: list[Row], score: str) -> tuple[str, float | None]:
    """The contender with the smallest median among those with a number in every run, and it."""
    names = unique(row["contender"] for row in rows)
    groups = {name: [row for row in rows if row["contender"] == name] for name in names}
    medians = {name: median(runs, score) for name, runs in groups.items() if len(values(runs, score)) == len(runs)}
    known = {name: value for name, value in medians.items() if value is not None}
    return min(known.items(), key=lambda item: item[1], default=("", None))


def unique(items: Iterable[Any]) -> list[Any]:
    """Each once, in the order in which they came."""
    return list(dict.fromkeys(items))


TITLES = {
    "accuracy": "Accuracy of density ratios on tables",
    "cost": "Cost of density ratios on tables",
    "speed": "Named speeds",
}
SECTIONS: dict[str, Callable[[list[Row]], list[Section]]] = {
    "accuracy": accuracy_sections,
    "cost": cost_sections,
    "speed": speed_sections,
}
BEST_NOTE = (
    "Median NMSE of the source rows' weights over the seeds, the smallest of each group. The others take part with their defaults "
    "and with cross-validation over a grid. The best of many is a lucky one on both sides: the tables below have all of them."
)
FAMILY_NOTE = "The smallest median NMSE of all settings, where both sides have the family and a number in every run."
SCORES = {
    "NMSE": "Of the weights of the source rows against the true ratio, both scaled to mean 1; even weights are `no weights`.",
    "fresh NMSE": "Of the ratio at source rows not fitted on; methods that weigh their own rows alone have none.",
    "target MSE": "Squared error on fresh target rows of a linear regression (misspecified) fitted to the weighted source rows.",
}
BEHAVIOUR_NOTE = (
    "Medians over all data and seeds. A rank correlation with the true ratio of -1 is weights upside down. A true ratio has mean 1 "
    "over the source; the mean is of the ratio as the library gives it."
)
COST_NOTE = (
    "Shift in two directions, one seed, each run in a process of its own (kept in the quick plan) after a fit on 60 rows. "
    "`over`: ended at that limit, not tried at larger sizes. Memory: largest resident during fit and transform above what "
    "import and data hold."
)
RACE_NOTE = (
    "The same data and grid for all, in interleaved rounds; fit includes the source rows' weights. Smallest of the rounds against "
    "smallest. The project's aim: the others take at least 10 times as long."
)
ALONE = {
    "large": ("KMM at size", "Defaults, alone in its process. Aim on two cores: under 120 s and 4 GiB (`peak MiB` 4096)."),
    "stream": (
        "LSIF over a stream",
        "Rows drawn in blocks and forgotten; memory after the first and the last block. Aim: constant memory.",
    ),
}
