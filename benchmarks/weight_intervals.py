"""How often the intervals of `weight_intervals` hold the true weight of a source row, on Gaussian shifts with known ratios."""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from runner import Row, environment, limit_threads, write

from densratio import LSIF, GaussianRatio, weight_intervals
from densratio.datasets import make_gaussian_shift

N_ROWS, SHIFT = 100, {"n_columns": 2, "shift": 1.0, "scale": 0.75}
RATIOS: dict[str, Any] = {"GaussianRatio": GaussianRatio(), "uLSIF": LSIF(nonnegative=False, random_state=0)}


def shares_held(ratio: Any, seed: int, n_replicas: int) -> tuple[float, float, float]:
    """Shares of all source rows, and of the tenth with the largest true weights, that are held; the median width."""
    shift = make_gaussian_shift(N_ROWS, N_ROWS, random_state=seed, **SHIFT)
    found = weight_intervals(ratio, shift.X, shift.y, n_replicas=n_replicas, random_state=seed)
    true = shift.ratio(shift.X_source)
    held = (found.lower <= true) & (true <= found.upper)
    return float(held.mean()), float(held[true >= np.quantile(true, 0.9)].mean()), float(np.median(found.upper - found.lower))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--replicas", type=int, default=200)
    arguments = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    table: list[Row] = []
    for name, ratio in RATIOS.items():
        draws = np.array([shares_held(ratio, seed, arguments.replicas) for seed in range(arguments.draws)])
        mean, deviation = draws.mean(axis=0), draws.std(axis=0)
        row: Row = {"ratio": name, "coverage %": 100.0 * mean[0], "deviation over draws": 100.0 * deviation[0]}
        table.append(row | {"coverage % of the largest tenth": 100.0 * mean[1], "median width": mean[2]})
    shown = (
        f"Source N(0, I), target N(e_1, {SHIFT['scale']}^2 I), {SHIFT['n_columns']} columns, {N_ROWS} rows of each; "
        f"{arguments.draws} draws, {arguments.replicas} replicas each. Coverage is the share of source rows whose interval holds "
        "the true ratio; the largest tenth are the rows with the largest true ratios."
    )
    facts = environment(seeds=range(arguments.draws))
    write("weight_intervals", "Intervals of weights", facts, [("Coverage at 95 %", shown, table)])


if __name__ == "__main__":
    main()
