"""The three parts of the benchmark: accuracy, cost, and the speeds that are named; each fills a Record."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.runner import Row

from .contenders import OURS, Contender, hoxo_grid, kliep_grid
from .environments import ROOT
from .plans import Plan
from .problems import Problem, draw
from .records import Record
from .scores import reference_rows, scores
from .workers import Crew, variables

__all__ = ["PARTS", "Bench", "accuracy", "cost", "speed"]


class Bench(NamedTuple):
    """What a part works with. `say` tells the person how far it is."""

    crew: Crew
    plan: Plan
    contenders: list[Contender]
    record: Record
    say: Callable[[str], None]


LARGE = Contender(OURS, "KMM", "KMM", "kmm")


def measure(crew: Crew, contender: Contender, problem: Problem, seed: int, **options: Any) -> Row:
    """A contender's outcome and scores on a problem. options: `limits` and `alone` of Crew.run."""
    path = crew.scratch / "problem.npz"
    if not path.exists():
        problem.save(path)
    job = {"problem": str(path), "method": contender.method, "params": contender.params, "seed": seed}
    outcome, arrays = crew.run(contender.library, contender.environment, job, **options)
    row = {key: value for key, value in outcome.items() if key != "event"}
    return {**_names(contender), **row, **(scores(problem, arrays["weights"], arrays.get("fresh")) if arrays else {})}


def accuracy(bench: Bench) -> None:
    """Every contender on every shift and seed, in an order drawn anew each time."""
    crew, plan, everyone, record, say = bench
    order = random.Random(0)
    for shift, d in plan.shifts:
        for seed in range(plan.seeds):
            problem = _drawn(crew, shift, plan.rows, plan.rows, d, seed, plan.n_fresh)
            about = {"part": "accuracy", "shift": shift, "n": plan.rows, "m": plan.rows, "d": d, "seed": seed}
            for name, row in reference_rows(problem).items():
                record.add({**about, "contender": name, "library": "reference", "family": "reference", "default": True, **row})
            for contender in order.sample(everyone, len(everyone)):
                row = measure(crew, contender, problem, seed)
                say(f"{shift} d={d} seed={seed} {_line(row)}")
                record.add({**about, **row})
            record.save()


def cost(bench: Bench) -> None:
    """Seconds and memory against n, then against d; one that passes a limit or fails isn't tried at the larger sizes."""
    crew, plan, everyone, record, say = bench
    axes = {
        "n": [(n, plan.cost_columns) for n in plan.cost_rows],
        "d": [(plan.cost_inputs_rows, d) for d in plan.cost_inputs],
    }
    order = random.Random(0)
    for axis, sizes in axes.items():
        stopped: dict[str, str] = {}
        for n, d in sizes:
            problem = _drawn(crew, "subspace", n, plan.cost_target, d, 0, plan.cost_target)
            about = {"part": "cost", "axis": axis, "shift": "subspace", "n": n, "m": plan.cost_target, "d": d, "seed": 0}
            for contender in order.sample(everyone, len(everyone)):
                if contender.name in stopped:
                    row = {**_names(contender), "status": "not run", "reason": stopped[contender.name]}
                else:
                    row = measure(crew, contender, problem, 0, alone=plan.in_fresh_processes)
                if row["status"] not in ("ok", "not run"):
                    stopped[contender.name] = f"{row['status']} at n = {n:,}, d = {d}"
                say(f"n={n} d={d} {_line(row)}")
                record.add({**about, **row})
            record.save()


def speed(bench: Bench) -> None:
    """The speeds that the project promises: two races on one grid each, KMM at size, and LSIF over a stream."""
    crew, plan, _, record, say = bench
    for race, racers in {"uLSIF over a 9 x 9 grid": hoxo_grid(), "KLIEP, 5 gammas x 5 folds": kliep_grid()}.items():
        n, m, d = plan.race
        problem = _drawn(crew, "gaussian", n, m, d, 0, m)
        order = random.Random(0)
        for number in range(plan.rounds):
            for contender in order.sample(racers, len(racers)):
                row = measure(crew, contender, problem, number)
                say(f"{race}, round {number}: {_line(row)}")
                record.add({"part": "race", "race": race, "n": n, "m": m, "d": d, "round": number, **row})
        record.save()
    n, m, d = plan.large
    problem = _drawn(crew, "subspace", n, m, d, 0, m)
    row = measure(crew, LARGE, problem, 0, limits=plan.large_limits, alone=plan.in_fresh_processes)
    say(f"n={n} d={d} {_line(row)}")
    record.add({"part": "large", "n": n, "m": m, "d": d, **row})
    row = _stream(plan, crew.threads)
    say(f"stream: {_line(row)}")
    record.add({"part": "stream", **row})
    record.save()


PARTS: dict[str, Callable[[Bench], None]] = {"accuracy": accuracy, "cost": cost, "speed": speed}


def _drawn(crew: Crew, shift: str, n: int, m: int, d: int, seed: int, n_fresh: int) -> Problem:
    (crew.scratch / "problem.npz").unlink(missing_ok=True)
    return draw(shift, n, m, d, seed, n_fresh)


def _stream(plan: Plan, threads: int) -> Row:
    sizes = [str(size) for size in (plan.stream_rows, plan.stream_block, plan.stream_columns)]
    command = [sys.executable, "-m", "benchmarks.tables.streaming", *sizes]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables("own", threads))
    names = {"contender": "ours LSIF, streamed", "library": OURS, "family": "least squares", "default": True}
    if done.returncode:
        return {**names, "status": "failed", "reason": done.stderr.strip().splitlines()[-1][:300]}
    return {**names, "status": "ok", **json.loads(done.stdout.splitlines()[-1])}


def _names(contender: Contender) -> Row:
    return {
        "contender": contender.name,
        "library": contender.library,
        "family": contender.family,
        "default": contender.is_default,
        "params": contender.params,
    }


def _line(row: Row) -> str:
    seconds = row.get("fit seconds")
    told = f"{seconds:.3g} s" if seconds is not None else row.get("reason", "")
    error = f", NMSE {row['NMSE']:.3g}" if row.get("NMSE") is not None else ""
    return f"{row['contender']}: {row['status']}, {told}{error}"
