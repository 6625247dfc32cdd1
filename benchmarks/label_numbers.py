"""Wrong numbers of real regression targets: how many are said to be wrong where none, or a known share, was planted.

    python benchmarks/label_numbers.py --data /path/with/winequality-white.csv,concrete.csv --seeds 10,11

Tables whose file is not in the folder are left out.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from runner import RESULTS, Row, markdown
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.metrics import average_precision_score

from densratio import find_label_issues

PLANTED = {
    "none": lambda y, rows, rng: y[rows],
    "2 % of another row": lambda y, rows, rng: rng.permutation(y)[: len(rows)],
    "10 % of another row": lambda y, rows, rng: rng.permutation(y)[: len(rows)],
    "30 % of another row": lambda y, rows, rng: rng.permutation(y)[: len(rows)],
    "1 % out of range": lambda y, rows, rng: y.mean() + rng.choice([-1, 1], len(rows)) * rng.uniform(2, 6, len(rows)) * np.ptp(y),
    "5 % times ten": lambda y, rows, rng: 10.0 * y[rows],
}


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".benchdata"), help="folder of the files")
    parser.add_argument("--seeds", default="10,11")
    parser.add_argument("--repeats", type=int, default=1, help="deals into folds")
    arguments = parser.parse_args()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    rows = []
    for name, X, y in tables(arguments.data):
        for kind in PLANTED:
            rows.append(told(name, kind, len(y), [figures(X, y, kind, seed, arguments.repeats) for seed in seeds]))
            print(rows[-1], flush=True)
    note = (
        f"Seeds {arguments.seeds}; `find_label_issues`, deals into folds: {arguments.repeats}; `n_issues` and `n_issues_interval` "
        "of each seed. Precision is that of the rows said to be issues, AP the average precision of the scores. Targets that were "
        "wrong before are counted right. A number is rounded from a sum of scores: 1 can be many of .01, of which none is an "
        f"issue. The interval holds the number in {held(rows, 'none', 'row')} cases without wrong numbers or with those of another "
        f"row, and in {held(rows, 'range', 'ten')} with numbers out of range or times ten."
    )
    (RESULTS / "label_numbers.md").write_text(f"# Wrong numbers\n\n{note}\n\n{markdown(rows)}\n")


def held(rows: list[Row], *kinds: str) -> str:
    """In how many cases of these kinds the interval holds the number, and of how many."""
    own = [row for row in rows if str(row["planted"]).endswith(kinds)]
    return f"{sum(int(row['holds it']) for row in own)} of {sum(str(row['number']).count(',') + 1 for row in own)}"


def tables(folder: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, columns and target of each table."""
    yield "diabetes", *load_diabetes(return_X_y=True)
    yield "wine: proline", *split(load_wine().data, 12)
    yield "breast cancer: smoothness", *split(np.delete(load_breast_cancer().data, 24, axis=1), 4)
    for file, columns in (("concrete.csv", {"strength": 8}), ("winequality-white.csv", WINE)):
        if (folder / file).exists():
            values = np.genfromtxt(folder / file, delimiter=",", skip_header=1)
            for name, column in columns.items():
                yield f"{file.partition('.')[0]}: {name}", *split(values, column)


WINE = {"quality": 11, "alcohol": 10, "residual sugar": 3, "sulfur dioxide": 6}


def split(values: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    """The other columns, and this one."""
    return np.delete(values, column, axis=1), values[:, column].copy()


def figures(X: np.ndarray, y: np.ndarray, kind: str, seed: int, repeats: int) -> tuple[int, int, list[int], int, int, float]:
    """Wrong numbers, their estimate and its interval, issues, those of them that are wrong, and the average precision."""
    rng = np.random.default_rng(seed)
    share = 0 if kind == "none" else float(kind.partition(" %")[0]) / 100
    rows, given = rng.choice(len(y), round(share * len(y)), replace=False), y.copy()
    given[rows] = PLANTED[kind](y, rows, rng)
    is_wrong = given != y
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*labels can be wrong")
        issues = find_label_issues(X, given, kind="numbers", n_repeats=repeats, random_state=seed)
    found = is_wrong[issues.row]
    precision = average_precision_score(found, issues.score) if share else 0.0
    estimate, limits = issues.attrs["n_issues"], issues.attrs["n_issues_interval"]
    return int(is_wrong.sum()), estimate, limits, int(issues.is_issue.sum()), int(found[issues.is_issue].sum()), precision


def told(name: str, kind: str, n_rows: int, found: list[tuple[int, int, list[int], int, int, float]]) -> Row:
    """A line of the table."""
    wrong, estimates, limits, issues, right, precision = (list(column) for column in zip(*found, strict=True))
    return {
        "table": name,
        "rows": n_rows,
        "planted": kind,
        "wrong": round(statistics.mean(wrong)),
        "number": ", ".join(map(str, estimates)),
        "interval": ", ".join(f"{least} to {most}" for least, most in limits),
        "holds it": sum(least <= own <= most for own, (least, most) in zip(wrong, limits, strict=True)),
        "precision": f"{sum(right) / max(sum(issues), 1):.2f}" if any(wrong) else "",
        "AP": f"{statistics.mean(precision):.3f}" if any(wrong) else "",
    }


if __name__ == "__main__":
    main()
