"""learn_weights where a shortcut turns around: logistic regression on digits with a column that agrees with the label.

The label is whether the digit is 5 or more, wrong in a quarter of all rows. A column agrees with it in 90 % of the training rows of
one environment and in 80 % of the other. In the test rows it agrees in 10 %, or in 50 % where validation rows show it.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
from runner import Row, environment, limit_threads, write
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from densratio import importance_weights
from densratio.two_step import learn_weights

N_TRAIN, N_VAL = 1000, 100
Samples = tuple[np.ndarray, np.ndarray]


class Problem(NamedTuple):
    """Rows (n, 65), the shortcut last, and labels of three samples; the environment of each training row."""

    train: Samples
    val: Samples
    test: Samples
    groups: np.ndarray


def draw(seed: int, agreement: float) -> Problem:
    rng = np.random.default_rng(seed)
    X, digits = load_digits(return_X_y=True)
    rows = rng.permutation(len(X))
    y = (digits[rows] >= 5) ^ (rng.random(len(rows)) < 0.25)
    groups = rng.integers(2, size=N_TRAIN)
    agrees = rng.random(len(rows)) < np.concatenate([np.array([0.9, 0.8])[groups], np.full(len(rows) - N_TRAIN, agreement)])
    Z = np.column_stack([X[rows] / 16.0, np.where(agrees, y, ~y) * 4.0 - 2.0])
    parts = np.split(np.arange(len(rows)), [N_TRAIN, N_TRAIN + N_VAL])
    return Problem(*((Z[at], y[at].astype(int)) for at in parts), groups)


def model() -> LogisticRegression:
    return LogisticRegression(solver="newton-cholesky")


def trained(problem: Problem, weights: Any = None) -> float:
    return 100.0 * model().fit(*problem.train, sample_weight=weights).score(*problem.test)


def with_validation_rows(seed: int) -> dict[str, float]:
    problem = draw(seed, 0.5)
    (X, y), (X_val, y_val) = problem.train, problem.val
    both = np.concatenate([X, X_val]), np.concatenate([y, y_val])
    learned = learn_weights(model(), X, y, X_val=X_val, y_val=y_val, random_state=seed).weights
    joint = importance_weights(np.column_stack([X, y]), np.column_stack([X_val, y_val])).weights
    return {
        "no weights": trained(problem),
        "the validation rows alone": trained(problem._replace(train=problem.val)),
        "both samples, no weights": trained(problem._replace(train=both)),
        "importance_weights of rows and labels": trained(problem, joint),
        'learn_weights, risk="mean"': trained(problem, learned),
        "  and the validation rows with weight 1": trained(problem._replace(train=both), np.concatenate([learned, np.ones(N_VAL)])),
        "no shortcut": without_shortcut(problem),
    }


def with_environments(seed: int) -> dict[str, float]:
    problem = draw(seed, 0.1)
    X, y = problem.train
    found = {"no weights": trained(problem)}
    for risk in ("worst", "rex", "irm"):
        weights = learn_weights(model(), X, y, groups=problem.groups, risk=risk, random_state=seed).weights
        found[f'learn_weights, risk="{risk}"'] = trained(problem, weights)
    # Groups by the shortcut and the label, as where the shortcut is known.
    weights = learn_weights(model(), X, y, groups=2 * (X[:, -1] > 0) + y, risk="worst", random_state=seed).weights
    found['learn_weights, risk="worst" of shortcut and label'] = trained(problem, weights)
    return found | {"no shortcut": without_shortcut(problem)}


def without_shortcut(problem: Problem) -> float:
    train, test = ((X[:, :-1], y) for X, y in (problem.train, problem.test))
    return trained(problem._replace(train=train, test=test))


def table(runs: list[dict[str, float]]) -> list[Row]:
    rows = []
    for name in runs[0]:
        found = np.array([run[name] for run in runs])
        above = sum(run[name] > run["no weights"] for run in runs)
        rows.append({"weights": name, "accuracy, %": found.mean(), "deviation": found.std(ddof=1), "seeds above none": above})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    limit_threads(1)
    seeds = range(arguments.seeds)
    facts = environment(seeds=seeds)
    note = f"{N_TRAIN} training rows, 1,000 trainings for each."
    sections = [
        ("Validation rows that show a shortcut to say nothing", note, table([with_validation_rows(seed) for seed in seeds])),
        ("A shortcut that turns around", note, table([with_environments(seed) for seed in seeds])),
    ]
    write("learned_weights", "Learned weights", facts, sections)


if __name__ == "__main__":
    main()
