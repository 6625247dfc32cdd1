"""Model selection on real data with a known ratio: ways to choose parameters, and the error of the resulting weights.

    python examples/model_selection.py [--seeds 10] [--out FOLDER]

Half of scikit-learn's diabetes table is the target; the source is selected from the rest by a blood value, so the true ratio is
known. NMSE is the mean squared difference between the weights and the true ratio at the source rows, both scaled to mean 1; without
weights it is the variance of the true ratio. Needs the extra `cli` (pandas), and `plot` for the figure.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from densratio import KLIEP, LSIF, SpectralRatio
from densratio.datasets import Shift, make_selection_bias

COLUMNS = ("bmi", "bp", "s5")


def shift_of(seed: int) -> Shift:
    """A selection by s5, on three scaled columns."""
    data = load_diabetes(as_frame=True, scaled=False)
    X = StandardScaler().fit_transform(data.data[list(COLUMNS)])
    return make_selection_bias(X, column=COLUMNS.index("s5"), probabilities=(0.8, 0.2), random_state=seed)


def ways() -> dict[str, Any]:
    """Ways to choose: a rule, cross-validation inside the estimator, your own values, and scikit-learn's search."""
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    grid = {"gamma": [0.01, 0.1, 1.0], "n_centers": [30, 100]}
    return {
        "KLIEP, the median rule": KLIEP(random_state=0),
        "KLIEP, gamma='cv'": KLIEP(gamma="cv", random_state=0),
        "KLIEP, gamma of a list": KLIEP(gamma=[0.01, 0.1, 1.0, "median"], random_state=0),
        "KLIEP, GridSearchCV": GridSearchCV(KLIEP(random_state=0), grid, cv=folds),
        "LSIF, 5 folds": LSIF(gamma="cv", regularization="cv", random_state=0),
        "uLSIF, leave-one-out": LSIF(nonnegative=False, gamma="cv", regularization="cv", random_state=0),
        "SpectralRatio, 5 folds": SpectralRatio(gamma="cv", random_state=0),
    }


def nmse(weights: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((weights / weights.mean() - truth / truth.mean()) ** 2))


def compare(n_seeds: int) -> None:
    """NMSE of each way, mean and standard deviation over the seeds, and the parameters chosen for the first seed."""
    shifts = [shift_of(seed) for seed in range(n_seeds)]
    truths = [shift.ratio(shift.X_source) for shift in shifts]
    equal = [nmse(np.ones(len(truth)), truth) for truth in truths]
    print(f"{'':24s} NMSE, {n_seeds} selections   chosen on the first")
    print(f"{'no weights':24s} {np.mean(equal):.3f} ± {np.std(equal):.3f}")
    for name, ratio in ways().items():
        weights = [ratio.fit(shift.X, shift.y).transform(shift.X_source) for shift in shifts]
        found = [nmse(*pair) for pair in zip(weights, truths, strict=True)]
        chosen = getattr(ratio.fit(shifts[0].X, shifts[0].y), "best_params_", {"gamma": getattr(ratio, "gamma_", None)})
        words = ", ".join(f"{key} {value if isinstance(value, str) else format(value, '.3g')}" for key, value in chosen.items())
        print(f"{name:24s} {np.mean(found):.3f} ± {np.std(found):.3f}        {words}")


def draw_figure(path: Path) -> None:
    """Left: the score and the truth along gamma for KLIEP. Right: uLSIF's leave-one-out score over its whole grid."""
    from matplotlib.figure import Figure

    shift = shift_of(0)
    truth = shift.ratio(shift.X_source)
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)

    results = KLIEP(gamma="cv", random_state=0).fit(shift.X, shift.y).cv_results_
    gammas = np.array(results["param_gamma"], dtype=float)
    errors = [nmse(KLIEP(gamma=g, random_state=0).fit(shift.X, shift.y).weights_, truth) for g in gammas]
    score = results["mean_test_score"]
    left.errorbar(gammas, score, results["std_test_score"] / np.sqrt(5), marker="o", label="held-out score ± standard error")
    left.axvline(gammas[np.argmin(errors)], color="0.5", linestyle="--", label="lowest NMSE")
    left.set(xscale="log", xlabel="gamma", ylabel="score", title="KLIEP")
    # Narrow kernels score so low that the others would be indistinguishable.
    left.set_ylim(score.max() - 4.0 * (score.max() - np.median(score)), score.max() + 2.0 * (score.max() - np.median(score)))
    left.legend(frameon=False, loc="upper left")

    results = LSIF(nonnegative=False, gamma="cv", regularization="cv", random_state=0).fit(shift.X, shift.y).cv_results_
    gammas, strengths = (np.unique(np.array(results[f"param_{name}"], dtype=float)) for name in ("gamma", "regularization"))
    scores = np.reshape(results["mean_test_score"], (len(gammas), len(strengths)))
    colors = right.pcolormesh(strengths, gammas, scores, shading="nearest", vmin=np.quantile(scores, 0.2))
    best = np.unravel_index(np.argmax(scores), scores.shape)
    right.plot(strengths[best[1]], gammas[best[0]], "*", color="white", markeredgecolor="black", markersize=14)
    right.set(xscale="log", yscale="log", xlabel="regularization", ylabel="gamma", title="uLSIF, leave-one-out score")
    figure.colorbar(colors, ax=right, extend="min")
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="random selections")
    parser.add_argument("--out", type=Path, help="folder for a figure of the scores")
    options = parser.parse_args(arguments)
    compare(options.seeds)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        draw_figure(options.out / "scores.png")


if __name__ == "__main__":
    main()
