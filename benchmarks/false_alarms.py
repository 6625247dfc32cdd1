"""How often `StreamMonitor`, `differences` and `RatioOutlierDetector` give an alarm where nothing changed, and where something did.

Rows of numbers, gaps and categories, drawn from one distribution for both samples, or with a shift of the number.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import pandas as pd
from runner import Row, environment, limit_threads, write

from densratio import GaussianRatio, RatioOutlierDetector, StreamMonitor, differences

LEVELS = (0.05, 0.2)


def draw(n: int, rng: np.random.Generator, shift: float = 0.0) -> pd.DataFrame:
    number = rng.normal(shift, 1.0, n)
    return pd.DataFrame(
        {
            "a": np.where(rng.random(n) < 0.2, np.nan, number),
            "b": number + rng.normal(0.0, 0.5, n),
            "kind": rng.choice(["x", "y", "z"], n, p=[0.5, 0.4, 0.1]),
        }
    )


def stream(n_rows: int, shift: float, n_draws: int) -> np.ndarray:
    """The p value of a chunk of each draw."""
    found = []
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        monitor = StreamMonitor(draw(200, rng), level=0.05, n_permutations=199, random_state=seed)
        found.append(monitor.update(draw(n_rows, rng, shift)).p_value)
    return np.array(found)


def columns(shift: float, n_draws: int) -> np.ndarray:
    """The smallest p value of the columns of each draw."""
    found = []
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        samples = draw(100, rng), draw(80, rng, shift)
        result = differences(*samples, method=GaussianRatio(), n_permutations=199, random_state=seed)
        found.append(min(column.p_value for column in result.columns))
    return np.array(found)


def outliers(knows_new: bool, shift: float, n_draws: int) -> np.ndarray:
    """The p values of 100 rows of each draw."""
    found = []
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        clean, rows = rng.normal(size=(200, 3)), rng.normal(shift, 1.0, (100, 3))
        detector = RatioOutlierDetector().fit(clean, new=rows if knows_new else None)
        found.append(detector.p_values(rows))
    return np.concatenate(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=500)
    arguments = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    n = arguments.draws
    cases = {
        "StreamMonitor, chunks of 5 rows": lambda shift: stream(5, shift, n),
        "StreamMonitor, chunks of 50 rows": lambda shift: stream(50, shift, n),
        "differences, smallest of 3 columns": lambda shift: columns(shift, n),
        "RatioOutlierDetector": lambda shift: outliers(False, shift, n // 5),
        "RatioOutlierDetector, new=": lambda shift: outliers(True, shift, n // 5),
    }
    facts, rows = environment(seeds=range(n)), []
    for name, p_values in cases.items():
        row: Row = {"": name}
        for shift in (0.0, 0.7):
            p = p_values(shift)
            row |= {f"shift {shift:g}, p <= {level:g}, %": 100.0 * float(np.mean(p <= level)) for level in LEVELS}
        rows.append(row)
        print(row, flush=True)
    note = (
        f"{n} draws, of the outlier detector {n // 5} with 100 rows each; references of 200, 100 and 200 rows. Without a shift "
        f"the share should be at most the level; its standard error at 5 % is {100 * (0.05 * 0.95 / n) ** 0.5:.2g} points, at 20 % "
        f"{100 * (0.2 * 0.8 / n) ** 0.5:.2g}."
    )
    write("false_alarms", "False alarms", facts, [("Share of p values below a level", note, rows)])


if __name__ == "__main__":
    main()
