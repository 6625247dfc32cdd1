"""How often `target_performance`'s intervals hold the true metric of the target, and `WeightedConformal`'s its labels.

Drawn Gaussian shifts with known outcomes. The true metric is that of 50,000 more target rows.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from runner import Row, environment, limit_threads, write
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, mean_squared_error

from densratio import KLIEP, KMM, LSIF, GaussianRatio, WeightedConformal, target_performance
from densratio.datasets import make_gaussian_shift
from densratio.datasets.covariate_shift import Shift

SHIFT = {"n_columns": 2, "shift": 1.0, "scale": 0.75, "noise": 0.3}
LABELED, CONFIDENCE = 200, 0.95
RATIOS: dict[str, Callable[[Shift], Any]] = {
    "true ratio": lambda shift: shift.ratio,
    "KLIEP": lambda shift: KLIEP().fit(shift.X, shift.y),
    "KMM": lambda shift: KMM().fit(shift.X, shift.y),
    "uLSIF": lambda shift: LSIF(nonnegative=False, random_state=0).fit(shift.X, shift.y),
    "GaussianRatio": lambda shift: GaussianRatio().fit(shift.X, shift.y),
}


def unweighted(rows: np.ndarray) -> np.ndarray:
    return np.ones(len(rows))


def classes(outcomes: np.ndarray) -> np.ndarray:
    return (outcomes > 0.5).astype(int)


def performance(metric: str, n_draws: int) -> list[Row]:
    """A row for each ratio and method, and one for the plain source."""
    prepare, model, true = {
        "accuracy": (classes, LogisticRegression(), accuracy_score),
        "mean_squared_error": (np.asarray, LinearRegression(), mean_squared_error),
    }[metric]
    known = make_gaussian_shift(20_000, 50_000, random_state=10_000, **SHIFT)
    model.fit(known.X_source, prepare(known.labels_source))
    truth = true(prepare(known.labels_target), model.predict(known.X_target))
    found: dict[tuple[str, str], list[Any]] = {}
    for seed in range(n_draws):
        shift = make_gaussian_shift(LABELED, LABELED, random_state=seed, **SHIFT)
        rows = (shift.X_source, prepare(shift.labels_source), shift.X_target)
        for name, fit in RATIOS.items():
            ratio = fit(shift)
            for method in ("iw", "dr"):
                one = target_performance(model, ratio, *rows, metric=metric, method=method, confidence=CONFIDENCE)
                found.setdefault((name, method), []).append(one)
        found.setdefault(("none: source rows", ""), []).append(
            target_performance(model, unweighted, *rows, metric=metric, method="iw")
        )
    return [summary(metric, *key, draws, truth) for key, draws in found.items()]


def summary(metric: str, ratio: str, method: str, draws: list[Any], truth: float) -> Row:
    ends = np.array([one.interval for one in draws])
    estimates = np.array([one.estimate for one in draws])
    return {
        "metric": metric,
        "ratio": ratio,
        "method": method,
        "coverage %": 100.0 * float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1]))),
        "true value": float(truth),
        "bias": float(np.mean(estimates) - truth),
        "deviation": float(np.std(estimates)),
        "median length": float(np.median(ends[:, 1] - ends[:, 0])),
        "warnings %": 100.0 * float(np.mean([one.warning is not None for one in draws])),
    }


def conformal(n_draws: int) -> list[Row]:
    """A row for each score and method: coverage of the target with the true ratio, an estimated one, and none."""
    cases: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray], dict[str, Any]]] = {
        "regression, absolute, split": (LinearRegression(), np.asarray, {}),
        "regression, absolute, cross": (LinearRegression(), np.asarray, {"method": "cross"}),
        "classes, lac, split": (LogisticRegression(), thirds, {}),
        "classes, aps, split": (LogisticRegression(), thirds, {"conformity_score": "aps"}),
        "classes, lac, cross": (LogisticRegression(), thirds, {"method": "cross"}),
    }
    table: list[Row] = []
    for name, (estimator, prepare, params) in cases.items():
        held: dict[str, list[float]] = {"true ratio": [], "KLIEP": [], "unweighted": []}
        for seed in range(n_draws):
            shift = make_gaussian_shift(1000, 500, random_state=seed, **(SHIFT | {"shift": 1.2}))
            for kind, ratio in (("true ratio", shift.ratio), ("KLIEP", RATIOS["KLIEP"](shift)), ("unweighted", unweighted)):
                model = WeightedConformal(estimator, ratio, **params).fit(shift.X_source, prepare(shift.labels_source))
                held[kind].append(covered(model, shift.X_target, prepare(shift.labels_target)))
        table.append({"": name} | {f"{kind}, coverage %": 100.0 * float(np.mean(shares)) for kind, shares in held.items()})
    return table


def thirds(outcomes: np.ndarray) -> np.ndarray:
    return np.digitize(outcomes, [-0.5, 0.5])


def covered(model: WeightedConformal, X: np.ndarray, y: np.ndarray) -> float:
    if hasattr(model, "predict_set"):
        return float(np.mean(model.predict_set(X)[np.arange(len(y)), y]))
    lower, upper = model.predict_interval(X).T
    return float(np.mean((lower <= y) & (y <= upper)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--conformal-draws", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    warnings.simplefilter("ignore")
    facts = environment(seeds=range(arguments.draws))
    metrics = [row for metric in ("accuracy", "mean_squared_error") for row in performance(metric, arguments.draws)]
    shown = f"Source N(0, I), target N(e_1, {SHIFT['scale']}^2 I), {SHIFT['n_columns']} columns"
    sections = [
        (
            "A model's metric on the target, 95 % intervals",
            f"{shown}; {LABELED} labeled source rows, {LABELED} target rows, {arguments.draws} draws; ratios with default "
            "parameters, fitted on these rows; a model fitted on 20,000 others. Deviation is that of the estimates over the "
            "draws. The standard error of a coverage of 95 % is 1.5 points.",
            metrics,
        ),
        (
            "Conformal prediction, 90 % of the labels",
            f"As above with the mean shifted by 1.2 e_1; 1000 source rows, 500 target rows, {arguments.conformal_draws} draws. "
            "Coverage is the mean over the target rows of all draws.",
            conformal(arguments.conformal_draws),
        ),
    ]
    write("target_coverage", "Coverage on the target", facts, sections)


if __name__ == "__main__":
    main()
