"""`WeightedConformal` with equal weights against MAPIE on the same calibration rows: the same numbers, up to rounding."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

from densratio import WeightedConformal
from densratio.datasets import make_gaussian_shift

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from runner import Row, environment, limit_threads, write  # noqa: E402


def equal(rows: np.ndarray) -> np.ndarray:
    return np.ones(len(rows))


def calibration(model: WeightedConformal, X: np.ndarray) -> np.ndarray:
    """Which rows of X (n,) the fitted model scored: those that a clone with a memory did not learn from."""
    seen: list[np.ndarray] = []

    class Remembering(LinearRegression):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            seen.append(y)
            return super().fit(X, y)

    twin = WeightedConformal(Remembering(), equal, random_state=model.random_state)
    twin.fit(X, np.arange(float(len(X))))
    return np.setdiff1d(np.arange(len(X)), seen[0].astype(int))


def compared(seed: int, mapie: Path) -> tuple[Row, str]:
    shift = make_gaussian_shift(400, 200, n_columns=2, shift=1.0, noise=0.3, random_state=seed)
    X, y, new = shift.X_source, shift.labels_source, shift.X_target
    classes = np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))
    interval = WeightedConformal(LinearRegression(), equal, random_state=seed).fit(X, y)
    sets = WeightedConformal(LogisticRegression(), equal, random_state=seed).fit(X, classes)
    held = {"interval": calibration(interval, X)}
    line, logistic = interval.estimators_[0], sets.estimators_[0]
    # A classifier's rows are drawn class by class: those whose scores it kept.
    lac = 1.0 - logistic.predict_proba(X)[np.arange(len(X)), classes]
    held["set"] = np.flatnonzero(np.isin(np.round(lac, 12), np.round(sets.scores_, 12)))
    assert all(len(rows) == len(sets.scores_) for rows in held.values())
    with tempfile.TemporaryDirectory() as folder:
        read, written = (str(Path(folder) / name) for name in ("in.npz", "out.npz"))
        np.savez(
            read,
            calibration=line.predict(X[held["interval"]]),
            y=y[held["interval"]],
            new=line.predict(new),
            calibration_proba=logistic.predict_proba(X[held["set"]]),
            classes=classes[held["set"]],
            new_proba=logistic.predict_proba(new),
        )
        subprocess.run([str(mapie), "-P", str(HERE / "in_mapie.py"), read, written], check=True)
        theirs = dict(np.load(written))
    far = float(np.max(np.abs(interval.predict_interval(new) - theirs["interval"])))
    differ = int(np.sum(sets.predict_set(new) != theirs["set"]))
    return {"seed": seed, "largest difference of an end": far, "classes in one set alone": differ}, str(theirs["version"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mapie", type=Path, required=True, help="an interpreter that has MAPIE")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    limit_threads(1)
    facts, rows = environment(seeds=range(arguments.seeds)), []
    for seed in range(arguments.seeds):
        row, facts["MAPIE"] = compared(seed, arguments.mapie)
        rows.append(row)
    note = (
        "Split conformal prediction at 90 % of 200 new rows from the same models and 120 calibration rows: absolute residuals "
        "of a linear regression, and LAC sets of a logistic regression with three classes."
    )
    write("beside_conformal", "WeightedConformal with equal weights beside MAPIE", facts, [("Differences", note, rows)])


if __name__ == "__main__":
    main()
