"""The speeds that the project promises: each against its aim, and in the same run against the library that it is an aim over.

CPU seconds of one thread, the smallest of some rounds: other processes of the machine change them little. Only kernel mean
matching of 10^6 rows is timed by the clock, on two threads. KMM against cvxpy's solvers is kmm_fit.py. From the repository root:

    python -m benchmarks.tables setup       the other libraries, in environments of their own
    python -m benchmarks.speed [--others FOLDER] [--hoxo FOLDER]
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.runner import Row, environment, write
from benchmarks.tables.contenders import OURS, Contender, hoxo_grid, kliep_grid
from benchmarks.tables.environments import interpreters
from benchmarks.tables.measure import measure
from benchmarks.tables.problems import Problem, draw
from benchmarks.tables.workers import Crew, Limits, variables

SECONDS, GIB = 25.0, 2.0  # KMM of 10^6 rows, by the clock on two threads
LIMITS = Limits(600.0, 8.0)
SEARCH = Contender(OURS, "KMM, gamma and regularization by CV", "KMM", "kmm", {"gamma": "cv", "regularization": "cv"})
KMM = Contender(OURS, "KMM", "KMM", "kmm")


class Race(NamedTuple):
    """Our setting and the other library's, on (n, m, d) source rows, target rows and columns, and how many times faster to be."""

    ours: Contender
    rival: Contender
    rows: tuple[int, int, int]
    times: float


RACES = [
    Race(hoxo_grid()[0], hoxo_grid()[1], (5000, 1000, 5), 15.0),
    Race(kliep_grid()[0], kliep_grid()[2], (5000, 1000, 5), 1.0),
]


def race(crew: Crew, one: Race, rounds: int) -> Row:
    """Both in an order drawn anew in each round, which is also the seed of their centers."""
    problem, order = drawn(crew, *one.rows), random.Random(0)
    runs: dict[str, list[Row]] = {one.ours.name: [], one.rival.name: []}
    for number in range(rounds):
        for contender in order.sample([one.ours, one.rival], 2):
            runs[contender.name].append(told(measure(crew, contender, problem, number)))
    (ours, error), (theirs, their_error) = (smallest(runs[contender.name]) for contender in (one.ours, one.rival))
    return {
        "what": size(one.ours, *one.rows),
        "CPU seconds": ours,
        "the other": one.rival.name,
        "its CPU seconds": theirs,
        "times faster": theirs / ours if theirs and ours else None,
        "aim": f"{one.times:g} times",
        "met": theirs / ours >= one.times if theirs and ours else None,
        "NMSE": error,
        "its NMSE": their_error,
    }


def search(crew: Crew, rounds: int) -> Row:
    """Our cross-validation of kernel mean matching, which the others do not have."""
    problem = drawn(crew, 2400, 1920, 2)
    seconds, error = smallest([told(measure(crew, SEARCH, problem, seed)) for seed in range(rounds)])
    return {
        "what": size(SEARCH, 2400, 1920, 2),
        "CPU seconds": seconds,
        "aim": "5",
        "met": seconds and seconds <= 5.0,
        "NMSE": error,
    }


def start_up(rounds: int) -> Row:
    """The command line's help, in a process of its own."""
    seconds = min(cpu_seconds([sys.executable, "-m", "densratio", "--help"]) for _ in range(rounds))
    return {"what": "densratio --help", "CPU seconds": seconds, "aim": "0.6", "met": seconds <= 0.6, "NMSE": None}


def cpu_seconds(command: list[str]) -> float:
    """Of a child process, with those that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=variables("own", 1))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def large(n: int, m: int, d: int, homes: dict[str, Path | None]) -> Row:
    """Kernel mean matching by default, alone in its process."""
    with Crew(homes, 2, LIMITS) as crew:
        row = told(measure(crew, KMM, draw("subspace", n, m, d, 0, m), 0, alone=True))
    seconds, gib = row["fit seconds"], row["peak MiB"] / 1024
    return {
        "n": n,
        "m": m,
        "d": d,
        "seconds": seconds,
        "CPU seconds of both threads": row["fit CPU seconds"],
        "peak GiB": gib,
        "met": seconds <= SECONDS and gib <= GIB,
        "NMSE": row["NMSE"],
    }


def drawn(crew: Crew, n: int, m: int, d: int) -> Problem:
    # Contenders read a problem from this file, and `measure` writes it where there is none.
    (crew.scratch / "problem.npz").unlink(missing_ok=True)
    return draw("gaussian", n, m, d, 0, m)


def told(row: Row) -> Row:
    """The row, after a line of it on the screen."""
    seconds = row.get("fit CPU seconds")
    line = row.get("reason", row["status"]) if seconds is None else f"{seconds:.3g} CPU s, NMSE {row['NMSE']:.3g}"
    print(f"{row['contender']}: {line}", file=sys.stderr, flush=True)
    return row


def smallest(runs: list[Row]) -> tuple[float | None, float | None]:
    """The fewest CPU seconds, and the median NMSE; nothing where the library is not installed."""
    done = [row for row in runs if row["status"] == "ok"]
    if not done:
        return None, None
    return min(row["fit CPU seconds"] for row in done), statistics.median(row["NMSE"] for row in done)


def size(contender: Contender, n: int, m: int, d: int) -> str:
    return f"{contender.setting}; n = {n:,}, m = {m:,}, d = {d}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, help="folder of a virtual environment with skada")
    parser.add_argument("--hoxo", type=Path, help="folder of a virtual environment with hoxo-m's densratio")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large", type=int, default=1_000_000, help="source rows of the last run; 0 to leave it out")
    arguments = parser.parse_args()
    homes = interpreters(arguments.others, arguments.hoxo)
    facts = environment(seeds=range(arguments.rounds)) | {"threads": "1 in every library"}
    for name in (name for name, python in homes.items() if python is None):
        print(f"No environment {name!r}: its library is left out. `python -m benchmarks.tables setup` makes it.", file=sys.stderr)
    with Crew(homes, 1, LIMITS) as crew:
        races = [race(crew, one, arguments.rounds) for one in RACES]
        alone = [search(crew, 3), start_up(arguments.rounds)]
        facts |= {f"in the process of {name}": _listed(found) for name, found in sorted(crew.versions.items())}
    note = "CPU seconds of one thread, the smallest of the rounds, in which the two take turns. NMSE: the median of the rounds."
    sections = [("Against others", note, races), ("Alone", "Likewise, and aims in seconds.", alone)]
    if arguments.large:
        aim = f"By default, alone in its process, on two threads. Aim: {SECONDS:g} s by the clock, peak {GIB:g} GiB."
        sections.append(("KMM at size", aim, [large(arguments.large, arguments.large // 10, 10, homes)]))
    write("speed", "Speeds that are promised", facts, sections)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


if __name__ == "__main__":
    main()
