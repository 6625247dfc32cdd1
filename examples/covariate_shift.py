"""Covariate shift on real data, end to end: where weights help, where the model needs none, and where they cannot help.

    python examples/covariate_shift.py [--seeds 20] [--out FOLDER]
    python examples/covariate_shift.py --data concrete.csv       # or winequality-white.csv; both are in the UCI repository

Half of the rows are the target. The others become source (training) rows with a probability that depends on one column, so the true
ratio is known. Models are trained on the source without weights, with estimated weights and with the true ratio, and evaluated on
the target. Needs the extras `plot` and `cli` (pandas).
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from densratio import KLIEP, diagnose, stack_domains
from densratio.datasets import make_selection_bias
from densratio.plotting import BalanceDisplay, WeightsDisplay

KEPT = (0.95, 0.05)  # probability that a row is kept, up to the median of the selecting column and above it
SELECTING = {"strength": "age", "quality": "free sulfur dioxide"}  # by the outcome, the last column of the two files


@dataclass(frozen=True)
class Study:
    """A table, its outcome and the column of the selection; the columns of a linear model that is too simple; and a model that
    needs no weights, with its columns."""

    table: pd.DataFrame
    outcome: np.ndarray
    selects: str
    few: list[str]
    enough: Any
    columns: list[str]


@dataclass(frozen=True)
class Samples:
    """Source and target rows with their outcomes, and the true ratio at the source rows, or None if it is unknown."""

    source: pd.DataFrame
    target: pd.DataFrame
    source_outcome: np.ndarray
    target_outcome: np.ndarray
    true_ratio: np.ndarray | None


def load(path: Path | None) -> Study:
    """scikit-learn's diabetes table, or one of the two UCI files."""
    if path is None:
        data = load_diabetes(as_frame=True, scaled=False)
        # With the selecting column among its three columns, a linear model is approximately correct.
        return Study(data.data, data.target.to_numpy(), "s5", ["bmi", "bp"], LinearRegression(), ["bmi", "bp", "s5"])
    table = pd.read_csv(path)
    outcome = table.columns[-1]
    if outcome not in SELECTING:
        raise SystemExit(f"{path} is neither concrete.csv nor winequality-white.csv: its last column is {outcome!r}.")
    columns = table.drop(columns=outcome).astype(float)
    trees = HistGradientBoostingRegressor(random_state=0)
    return Study(columns, table[outcome].to_numpy(float), SELECTING[outcome], list(columns), trees, list(columns))


def selected(study: Study, seed: int, kept: tuple[float, float] = KEPT) -> Samples:
    """Sufficient overlap: what is common in the target is rare in the source, but not absent."""
    shift = make_selection_bias(study.table, study.outcome, column=study.selects, probabilities=kept, random_state=seed)
    rows = [study.table.iloc[shift.index[shift.y == domain]] for domain in (0, 1)]
    return Samples(*rows, shift.labels_source, shift.labels_target, shift.ratio(shift.X_source))


def not_selected(study: Study, seed: int) -> Samples:
    """No shift: the same probability for all rows."""
    return selected(study, seed, kept=(0.5, 0.5))


def cut(study: Study, seed: int) -> Samples:
    """No overlap: the source is below the median of the selecting column, the target in its upper quarter."""
    column, rng = study.table[study.selects].to_numpy(), np.random.default_rng(seed)
    sides = np.flatnonzero(column <= np.median(column)), np.flatnonzero(column > np.quantile(column, 0.75))
    source, target = (rng.choice(side, int(0.8 * len(side)), replace=False) for side in sides)
    rows = study.table.iloc[source], study.table.iloc[target]
    return Samples(*rows, study.outcome[source], study.outcome[target], None)


def fit_ratio(samples: Samples) -> KLIEP:
    """The ratio, on columns of different units; cross-validation chooses the bandwidth."""
    return KLIEP(gamma="cv", random_state=0).fit(*stack_domains(samples.source, samples.target))


def errors(samples: Samples, model: Any, columns: list[str]) -> dict[str, float]:
    """Root mean squared error on the target, for each kind of weights that the model is trained with."""
    X, outcome, X_target = samples.source[columns], samples.source_outcome, samples.target[columns]

    def error(weights: np.ndarray | None) -> float:
        predicted = clone(model).fit(X, outcome, sample_weight=weights).predict(X_target)
        return float(np.sqrt(np.mean((predicted - samples.target_outcome) ** 2)))

    found = {"no weights": error(None), "KLIEP": error(fit_ratio(samples).weights_)}
    return found if samples.true_ratio is None else found | {"true ratio": error(samples.true_ratio)}


def draw_figure(samples: Samples) -> Figure:
    """The weights, and the balance of the columns before and after."""
    X, y = stack_domains(samples.source, samples.target)
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratio = fit_ratio(samples)
    WeightsDisplay.from_estimator(ratio, X, y, name="KLIEP", ax=left)
    BalanceDisplay.from_estimator(ratio, X, y, ax=right)
    return figure


def show(name: str, runs: list[dict[str, float]], samples: Samples) -> None:
    """Errors over the seeds, and the warnings of the report for the first."""
    print(f"\n{name}")
    for weights in runs[0]:
        of_runs = np.array([run[weights] for run in runs])
        n_better = sum(run[weights] < run["no weights"] * (1.0 - 1e-9) for run in runs)
        better = "" if weights == "no weights" else f"   lower than without weights in {n_better} of {len(runs)}"
        print(f"  {weights:12s} {of_runs.mean():8.3f} ± {of_runs.std():.3f}{better}")
    warnings = diagnose(fit_ratio(samples), *stack_domains(samples.source, samples.target)).warnings
    for line in [f"! {warning}" for warning in warnings] or ["No warnings."]:
        print(f"  {line}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="concrete.csv or winequality-white.csv; default: scikit-learn's diabetes table")
    parser.add_argument("--seeds", type=int, default=20, help="random selections")
    parser.add_argument("--out", type=Path, help="folder for one figure per case")
    options = parser.parse_args(arguments)
    study = load(options.data)
    cases: dict[str, tuple[Callable[[Study, int], Samples], Any, list[str]]] = {
        "Too simple a model, enough overlap": (selected, LinearRegression(), study.few),
        "A model that needs no weights, enough overlap": (selected, study.enough, study.columns),
        "Too simple a model, no overlap": (cut, LinearRegression(), study.few),
        "Too simple a model, no shift": (not_selected, LinearRegression(), study.few),
    }
    print(f"{study.table.shape[0]} rows, {study.table.shape[1]} columns, selected by {study.selects!r}.")
    print(f"Error on the target, mean ± standard deviation over {options.seeds} selections:")
    for name, (draw, model, columns) in cases.items():
        show(name, [errors(draw(study, seed), model, columns) for seed in range(options.seeds)], draw(study, 0))
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            file = name.lower().replace(", ", "-").replace(" ", "_")
            draw_figure(draw(study, 0)).savefig(options.out / f"{file}.png", dpi=120)


if __name__ == "__main__":
    main()
