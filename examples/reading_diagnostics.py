"""Reading a report on real data: five situations, the report of `diagnose` on each, and the plots that show it.

    python examples/reading_diagnostics.py [--out FOLDER]

All use scikit-learn's breast cancer table (569 tumors, 30 columns, of which eight are used). With --out each situation gets an HTML
page with its report and plots. Needs the extras `plot` and `cli` (pandas).
"""

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from densratio import KLIEP, diagnose, stack_domains
from densratio.datasets import make_selection_bias
from densratio.plotting import BalanceDisplay, DiscriminatorCalibrationDisplay, RatioDisplay, WeightsDisplay

Samples = tuple[pd.DataFrame, np.ndarray]


def table() -> pd.DataFrame:
    data = load_breast_cancer(as_frame=True).data
    return data[[name for name in data if name.startswith("mean ")]].iloc[:, :8]


def selected(probabilities: tuple[float, float], column: str = "mean concavity") -> Samples:
    """Rows kept with one probability up to the column's median and with another above it; half of the table is the target."""
    shift = make_selection_bias(table(), column=column, probabilities=probabilities, random_state=0)
    return table().iloc[shift.index].reset_index(drop=True), shift.y


def cut() -> Samples:
    """Small tumors as the source, large ones as the target."""
    X = table().sort_values("mean area").reset_index(drop=True)
    return stack_domains(X.iloc[:300], X.iloc[-150:])


def kliep(gamma: float | str = "cv") -> KLIEP:
    return KLIEP(gamma=gamma, random_state=0)


def situations() -> dict[str, tuple[Samples, Any]]:
    """Samples and the ratio to fit, by name."""
    return {
        "a healthy shift": (selected((0.8, 0.2)), kliep()),
        "no shift": (selected((0.5, 0.5)), kliep()),
        "no overlap": (cut(), kliep()),
        "too narrow a kernel": (selected((0.8, 0.2)), kliep(gamma=30.0)),
        "inverted weights": (selected((0.8, 0.2)), Inverted(kliep())),
    }


class Inverted:
    """A common mistake: the two samples are swapped."""

    def __init__(self, ratio: Any):
        self.ratio = ratio

    def fit(self, X: pd.DataFrame, y: np.ndarray) -> "Inverted":
        self.ratio.fit(X, 1 - y)
        return self

    def transform(self, X: pd.DataFrame) -> np.ndarray:
        return self.ratio.transform(X)


def pictures(ratio: Any, X: pd.DataFrame, y: np.ndarray) -> dict[str, bytes]:
    """PNG of the four displays, by caption."""
    figure = Figure(figsize=(11.0, 8.5), layout="constrained")
    axes = figure.subplots(2, 2)
    WeightsDisplay.from_estimator(ratio, X, y, name="weights", ax=axes[0, 0])
    BalanceDisplay.from_estimator(ratio, X, y, ax=axes[0, 1])
    RatioDisplay.from_estimator(ratio, X, y, columns="mean concavity", ax=axes[1, 0])
    DiscriminatorCalibrationDisplay.from_estimator(ratio, X, y, n_bins=8, ax=axes[1, 1])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return {"Weights, balance, the ratio along one column, and the ratio as a discriminator": buffer.getvalue()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for an HTML page of each situation")
    options = parser.parse_args(arguments)
    for name, ((X, y), unfitted) in situations().items():
        ratio = unfitted.fit(X, y)
        report = diagnose(ratio, X, y)
        print(f"\n=== {name} ===\n{report}")
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            page = report.to_html(title=name.capitalize(), pictures=pictures(ratio, X, y))
            (options.out / f"{name.replace(' ', '_')}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
