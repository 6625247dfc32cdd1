"""Kernel mean matching to its optimum: densratio's active set against Clarabel and OSQP through cvxpy.

All solve the same program: minimize (w'Kw / 2 - kappa'w) / n over 0 <= w <= 1000, mean(w) = 1. Each solver climbs a ladder
of settings, loose to tight. The first setting is timed that reaches 1e-6: it breaks no constraint by more, and its objective, at
the feasible point nearest to its answer, is within 1e-6 (relative) of the best one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from runner import Row, environment, interleaved, limit_threads, medians, write

from densratio import KMM, stack_domains
from densratio.features import Gaussian
from densratio.objectives import MaximumMeanDiscrepancy
from densratio.solvers import ActiveSet

ACCURACY = 1e-6
SPEED_TARGETS = {2: 40.0, 5: 20.0}  # by the number of columns
SECONDS_TARGET, GIB_TARGET = 60.0, 1.5
OBJECTIVE = MaximumMeanDiscrepancy()
OURS, FIT = "densratio ActiveSet", "densratio KMM(regularization=0).fit, end to end"


class Problem(NamedTuple):
    """A covariate shift, its kernel matrix (n, n) and target features (1, n)."""

    X_source: np.ndarray
    X_target: np.ndarray
    kernel: np.ndarray
    target: np.ndarray


class Answer(NamedTuple):
    """Weights as the solver gave them, and its own seconds without modeling (cvxpy) where it says them."""

    weights: np.ndarray
    solver_seconds: float | None = None


def samples(n: int, m: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Source N(0, I) (n, d), and target N(0.5, 0.7^2 I) (m, d), which the source covers."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)), 0.5 + 0.7 * rng.standard_normal((m, d))


def problem(n: int, m: int, d: int) -> Problem:
    source, target = samples(n, m, d)
    features = Gaussian(gamma="median").fit(source, target, anchors="source")
    return Problem(source, target, features(source), features(target).mean(axis=0, keepdims=True))


# ---------------------------------------------------------------- the solvers, by name: a ladder of settings each


def active_set(p: Problem, tol: float) -> Answer:
    return Answer(ActiveSet(tol=tol).solve(OBJECTIVE.problem(p.kernel, p.target)).coef)


def with_cvxpy(p: Problem, name: str, options: dict[str, Any]) -> Answer:
    import cvxpy as cp

    n = len(p.kernel)
    w = cp.Variable(n)
    # psd_wrap: the kernel matrix is singular to working precision and cvxpy's own test would refuse it.
    value = 0.5 * cp.quad_form(w, cp.psd_wrap(p.kernel)) - (len(p.kernel) * p.target[0]) @ w
    task = cp.Problem(cp.Minimize(value / n), [w >= 0, w <= OBJECTIVE.max_weight, cp.sum(w) == n])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "solution may be inaccurate": the objective is compared instead
        task.solve(solver=name, **options)
    if w.value is None:
        raise RuntimeError(f"{name} gave no solution: {task.status}")
    return Answer(w.value, float(task.solver_stats.solve_time))


def clarabel(p: Problem, tol: float) -> Answer:
    return with_cvxpy(p, "CLARABEL", dict(tol_gap_rel=tol, tol_gap_abs=tol, tol_feas=tol))


def osqp(p: Problem, tol: float) -> Answer:
    return with_cvxpy(p, "OSQP", dict(eps_abs=tol, eps_rel=tol, max_iter=40_000, polishing=False))


LADDERS: dict[str, tuple[Callable[[Problem, float], Answer], list[float]]] = {
    OURS: (active_set, [1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]),
    "cvxpy Clarabel": (clarabel, [1e-6, 1e-7, 1e-8, 1e-10]),
    "cvxpy OSQP": (osqp, [1e-5, 1e-7, 1e-9]),
}


# ---------------------------------------------------------------- accuracy


def value_and_bound(p: Problem, weights: np.ndarray) -> tuple[float, float]:
    """Objective at the feasible point nearest to `weights`, and the certified lower bound of the optimum from there."""
    problem = OBJECTIVE.problem(p.kernel, p.target)
    feasible = problem.project(weights)
    value, grad = problem.value_and_grad(feasible)
    return float(value), float(value - problem.gap(feasible, grad))


def violation(weights: np.ndarray) -> float:
    """Largest breach of the constraints by the weights as they came."""
    return float(max(abs(weights.mean() - 1.0), -weights.min(), weights.max() - OBJECTIVE.max_weight, 0.0))


def compare(n: int, d: int, rounds: int, budget: float, clock: Callable[[], float]) -> tuple[list[Row], float]:
    """The table's rows of one problem, and how many times faster than the fastest cvxpy solver ours is."""
    p = problem(n, n // 4, d)
    best = value_and_bound(p, active_set(p, 1e-9).weights)
    chosen: dict[str, tuple[float, bool]] = {}
    answers: dict[str, Answer] = {}
    first: dict[str, float] = {}
    for name, (solve, ladder) in LADDERS.items():
        for tol in ladder:
            start = clock()
            answers[name] = solve(p, tol)
            first[name] = clock() - start
            value = value_and_bound(p, answers[name].weights)[0]
            best = min(best[0], value), best[1]
            is_reached = value - best[0] <= ACCURACY * abs(best[0]) and violation(answers[name].weights) <= ACCURACY
            chosen[name] = (tol, is_reached)
            print(f"n={n} d={d} {name} tol={tol:g}: {first[name]:.3g} s, reached={is_reached}", file=sys.stderr)
            if is_reached or first[name] > budget:
                break

    X, y = stack_domains(p.X_source, p.X_target)
    work: dict[str, Callable[[], Any]] = {}
    for name, (tol, _) in chosen.items():
        if first[name] <= budget:
            work[name] = lambda solve=LADDERS[name][0], tol=tol: solve(p, tol)
    work[FIT] = lambda: KMM(regularization=0.0, exact_up_to=None).fit(X, y)
    seconds = first | medians(interleaved(work, rounds, warm_up=0, clock=clock))
    fitted = KMM(regularization=0.0, exact_up_to=None).fit(X, y)

    rows = []
    for name in [*LADDERS, FIT]:
        weights = fitted.weights_ if name == FIT else answers[name].weights
        value = value_and_bound(p, weights)[0]
        difference = (value - best[0]) / abs(best[0])
        rows.append(
            {
                "n": n,
                "solver": name,
                "tol": KMM().tol if name == FIT else chosen[name][0],
                "seconds": seconds[name],
                "its own seconds, first run": None if name == FIT else answers[name].solver_seconds,
                "times slower than ours": seconds[name] / seconds[OURS],
                "relative excess": difference,
                "violation": violation(weights),
                "1e-6": "reached" if max(difference, violation(weights)) <= ACCURACY else "not reached",
            }
        )
    rivals = [seconds[name] for name, (_, is_reached) in chosen.items() if name != OURS and is_reached]
    print(
        f"n={n} d={d}: best value {best[0]:.12g}, certified within {(best[0] - best[1]) / abs(best[0]):.1e} relative",
        file=sys.stderr,
    )
    comparable = rivals if chosen[OURS][1] else []  # no speed is claimed for an answer that is not as accurate
    return rows, min(comparable, default=float("nan")) / seconds[OURS]


# ---------------------------------------------------------------- alone, at size


def large(n: int, m: int, d: int) -> Row:
    """KMM().fit in this process, which must have done nothing else before: seconds, peak memory, certified gap."""
    X, y = stack_domains(*samples(n, m, d))
    before = peak_gib()
    start = time.perf_counter()
    fitted = KMM(regularization=0.0, exact_up_to=None).fit(X, y)
    seconds = time.perf_counter() - start
    return {
        "n": n,
        "m": m,
        "d": d,
        "seconds": seconds,
        "peak GiB": peak_gib(),
        "of it before the fit": before,
        "kernel matrix GiB": n * n * 8 / 2**30,
        "relative gap": fitted.gap_ / abs(fitted.objective_value_),
        "steps": fitted.n_iter_,
        "converged": fitted.converged_,
    }


def peak_gib() -> float:
    """Largest resident memory of this process so far."""
    # Linux hands ru_maxrss down from the parent across fork and exec; VmHWM belongs to this program alone.
    try:
        line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[500, 1000, 2000])
    parser.add_argument("--inputs", type=int, nargs="*", default=[2, 5], help="one table for each number of columns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--budget", type=float, default=120.0, help="a solver slower than this many seconds climbs no further and is run once"
    )
    parser.add_argument("--threads", type=int, help="BLAS and OpenMP threads; the libraries' own choice by default")
    parser.add_argument("--large", type=int, default=10_000, help="rows of the run alone; 0 to leave it out")
    parser.add_argument("--alone", action="store_true", help="do the run alone in this process and print it as JSON")
    arguments = parser.parse_args()
    # Holds until exit, for every pool loaded by now; Clarabel and OSQP have none of their own that it reaches.
    limit_threads(arguments.threads)
    if arguments.alone:
        print(json.dumps(large(arguments.large, arguments.large // 4, 2)))
        return
    facts = environment()
    # Of one thread, CPU seconds: other processes of the machine change them little.
    clock, seconds = (time.process_time, "CPU seconds") if arguments.threads == 1 else (time.perf_counter, "Seconds")
    sections: list[tuple[str, str, list[Row]]] = []
    for d in arguments.inputs:
        rows: list[Row] = []
        speeds = []
        for n in arguments.sizes:
            of_size, speed = compare(n, d, arguments.rounds, arguments.budget, clock)
            rows += of_size
            speeds.append(f"n = {n}: {speed:.1f} times")
        note = (
            f"{seconds}. m = n / 4, Gaussian kernel, gamma = median. Kernel building outside the timing, except for KMM().fit. "
            "cvxpy's seconds hold its modeling; the solver's own, of its first run and by the clock, stand beside. A solver slower "
            f"than {arguments.budget:.0f} s climbs no further. Ours against the fastest cvxpy solver that reached 1e-6: "
            f"{'; '.join(speeds)}." + (f" Target at n = 2000: {SPEED_TARGETS[d]:.0f} times." if d in SPEED_TARGETS else "")
        )
        sections.append((f"d = {d}", note, rows))
    if arguments.large:
        command = [sys.executable, __file__, "--alone", "--large", str(arguments.large)]
        command += ["--threads", str(arguments.threads)] if arguments.threads else []
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        note = f"KMM().fit end to end, alone in its process. Targets: under {SECONDS_TARGET:.0f} s and {GIB_TARGET} GiB."
        sections.append(("At size", note, [json.loads(out.splitlines()[-1])]))
    write("kmm_fit", "Kernel mean matching to its optimum", facts, sections)


if __name__ == "__main__":
    main()
