"""The command: make the environments, run the benchmark, write its tables and figures. See README.md."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.runner import RESULTS, environment, limit_threads

from .contenders import contenders
from .environments import FOLDER, create, interpreters
from .figures import draw_figures
from .measure import PARTS, Bench
from .plans import FULL, QUICK, Plan
from .records import Record
from .tables import write_tables
from .workers import Crew, Limits


def main() -> None:
    """Read the command line and do what it says."""
    arguments = parser().parse_args()
    if arguments.command == "setup":
        create(FOLDER)
        return
    folder = arguments.output or (FOLDER / "quick" if arguments.quick else RESULTS / "tables")
    parts = [arguments.only] if arguments.only else list(PARTS)
    if arguments.command == "run":
        run(arguments, plan_of(arguments), parts, folder)
    for part in parts:
        write_tables(folder, part)
        draw_figures(folder, part)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument(
        "command", nargs="?", choices=["run", "setup", "report"], default="run",
        help="run: measure and write; setup: make the environments in .benchdata; report: write again from the record of a run",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="everything tiny, in under a minute")
    parser.add_argument("--only", choices=list(PARTS), help="this part alone")
    parser.add_argument("--contenders", help="those whose name contains this, for accuracy and cost")
    parser.add_argument("--data", help="data sets of the accuracy part whose name, as in `gaussian, d = 2`, contains this")
    parser.add_argument("--others", type=Path, help="the virtual environment with adapt and skada")
    parser.add_argument("--hoxo", type=Path, help="the virtual environment with hoxo-m's densratio")
    parser.add_argument("--threads", type=int, default=2, help="threads of every library")
    parser.add_argument("--seeds", type=int, help="seeds of each data set of the accuracy part")
    parser.add_argument("--seconds", type=float, help="time limit of one fit and transform")
    parser.add_argument("--gib", type=float, help="memory limit of one process")
    parser.add_argument("--output", type=Path, help="folder of the results")
    return parser


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan with what the command line changes of it."""
    plan = QUICK if arguments.quick else FULL
    limits = Limits(arguments.seconds or plan.limits.seconds, arguments.gib or plan.limits.gib, plan.limits.start_seconds)
    names = {f"{shift}, d = {d}": (shift, d) for shift, d in plan.shifts}
    shifts = tuple(shift for name, shift in names.items() if arguments.data is None or arguments.data in name)
    if not shifts:
        raise ValueError(f"No data set's name contains {arguments.data!r}; they are {'; '.join(names)}.")
    return plan._replace(seeds=arguments.seeds or plan.seeds, limits=limits, shifts=shifts)


def run(arguments: argparse.Namespace, plan: Plan, parts: list[str], folder: Path) -> None:
    """WeightedRows the parts one after another; each leaves PART_runs.json in `folder`."""
    limit_threads(arguments.threads)
    everyone, start = contenders(arguments.contenders), time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - start:8.1f} s  {line}", file=sys.stderr, flush=True)

    homes = interpreters(arguments.others, arguments.hoxo)
    for name in (name for name, python in homes.items() if python is None):
        say(f"No environment {name!r}: its libraries are left out. `python -m benchmarks.tables setup` makes it.")
    with Crew(homes, arguments.threads, plan.limits) as crew:
        for part in parts:
            # All parts but this one draw their data once.
            seeds = range(plan.seeds) if part == "accuracy" else (0,)
            facts = environment(seeds=seeds) | {"threads": f"{arguments.threads} in every library", "plan": plan.name}
            record = Record(folder / f"{part}_runs.json", facts)
            PARTS[part](Bench(crew, plan, everyone, record, say))
            facts |= {f"in the process of {name}": _listed(found) for name, found in sorted(crew.versions.items())}
            record.save()


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


if __name__ == "__main__":
    main()
