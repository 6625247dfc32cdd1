"""What taming weights does to a weighted mean, and Pareto smoothing beside ArviZ.

Weights are the true ratio of two normal distributions of one column, with and without a heavy tail; means are those of x and x > 1.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from runner import Row, environment, limit_threads, write
from scipy.stats import norm

from densratio import tame_weights

N = 400
IN_ARVIZ = """
import sys
from importlib.metadata import version
import numpy as np
from arviz_stats.base import array_stats
weights = np.load(sys.argv[1])
logs, k = zip(*(array_stats.psislw(-np.log(row)) for row in weights))
np.savez(sys.argv[2], weights=np.exp(logs), k=k, version=version("arviz-stats"))
"""
WAYS = {
    "as they are": {"method": "flatten", "amount": 1.0},
    "pareto": {"method": "pareto"},
    "truncate": {"method": "truncate"},
    "flatten to n / 4 rows": {"method": "flatten", "effective_rows": N / 4},
    "truncate to n / 4 rows": {"method": "truncate", "effective_rows": N / 4},
    "overlap, 0.1": {"method": "overlap", "amount": 0.1},
}


def ratio(x: np.ndarray, shift: float, scale: float) -> np.ndarray:
    return np.exp(norm.logpdf(x, shift, scale) - norm.logpdf(x))


def errors(shift: float, scale: float, n_draws: int) -> list[Row]:
    means: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    rows: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(n_draws):
        x = np.random.default_rng(seed).normal(size=N)
        for way, how in WAYS.items():
            tamed = tame_weights(ratio(x, shift, scale), **how)
            means[way].append((np.average(x, weights=tamed.weights), np.average(x > 1.0, weights=tamed.weights)))
            rows[way].append(tamed.effective_rows[1])
    truth = np.array([shift, norm.sf(1.0, shift, scale)])
    table = []
    for way, found in means.items():
        off = np.array(found) - truth
        numbers = {
            f"{what} of {of}": float(value)
            for number, of in enumerate(("x", "x > 1"))
            for what, value in (("bias", off[:, number].mean()), ("RMSE", np.sqrt(np.mean(off[:, number] ** 2))))
        }
        table.append({"weights": way} | numbers | {"effective rows": float(np.mean(rows[way]))})
    return table


def beside_arviz(python: Path, n_draws: int) -> tuple[Row, str]:
    # At a square number of rows both take as many for the tail.
    weights = [np.exp(spread * np.random.default_rng(seed).normal(size=N)) for seed in range(n_draws) for spread in (0.5, 1.0, 2.0)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("in.npy", "out.npz")]
        np.save(paths[0], np.array(weights))
        subprocess.run([str(python), "-W", "ignore", "-c", IN_ARVIZ, *paths], check=True)
        theirs = dict(np.load(paths[1]))
    ours = [tame_weights(one) for one in weights]
    differences = [
        np.max(np.abs(one.weights * np.mean(other) / other - 1.0)) for one, other in zip(ours, theirs["weights"], strict=True)
    ]
    k = [abs(one.pareto_k[0] - other) for one, other in zip(ours, theirs["k"], strict=True)]
    found = {"sets of weights": len(weights), "largest relative difference": float(max(differences)), "of k-hat": float(max(k))}
    return found, str(theirs["version"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arviz", type=Path, required=True, help="an interpreter that has arviz-stats")
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    limit_threads(1)
    facts = environment(seeds=range(arguments.draws))
    row, facts["arviz-stats"] = beside_arviz(arguments.arviz, 20)
    note = f"{N} source rows N(0, 1), {arguments.draws} draws; weights are the true ratio."
    sections = [
        ("Target N(1.5, 1)", note, errors(1.5, 1.0, arguments.draws)),
        ("Target N(1, 1.3^2), whose ratio has no variance", note, errors(1.0, 1.3, arguments.draws)),
        ("Pareto smoothing beside ArviZ", f"Log-normal weights of {N} rows, which both smooth.", [row]),
    ]
    write("taming", "Tamed weights", facts, sections)


if __name__ == "__main__":
    main()
