"""How many labels of small tables are said to be wrong, where none is, and where 15 % or 30 % are; beside cleanlab.

python benchmarks/label_number.py --data /path/with/concrete.csv --cleanlab /path/venv/lib/python3.11/site-packages
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from runner import RESULTS, Row, markdown
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from densratio import find_label_issues as find_issues
from densratio.datasets import label_noise
from densratio.labels.default_model import default_model
from densratio.labels.encoding import as_numbers

RATES = (0.0, 0.15, 0.3)
NOTE = (
    "`find_label_issues` at its defaults, and cleanlab on one cross-fit of the same model; numbers of each seed {seeds}. Ages: "
    "1500 rows of 8 columns, of which one tells the class with an error; noise: eight columns that tell nothing. Halves: the "
    "target is above its median. Precision is that of the rows said to be issues."
)


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".benchdata"), help="folder of concrete.csv")
    parser.add_argument("--cleanlab", default="", help="folder that cleanlab can be imported from")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    sys.path.append(arguments.cleanlab)
    warnings.simplefilter("ignore", UserWarning)  # the interval is in the table
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    rows = []
    for name in ("noise", "ages", "diabetes, halves", "concrete, halves", "breast cancer"):
        for rate in RATES if name != "noise" else RATES[:1]:
            rows.append(told(name, rate, [figures(name, rate, seed, arguments.data) for seed in seeds]))
            print(rows[-1], flush=True)
    text = f"# Number of wrong labels\n\n{NOTE.format(seeds=arguments.seeds)}\n\n{markdown(rows)}\n"
    (RESULTS / "label_number.md").write_text(text)


def table(name: str, rng: np.random.Generator, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Columns and true classes."""
    if name == "breast cancer":
        return load_breast_cancer(return_X_y=True)
    if name in ("noise", "ages"):
        X = rng.normal(40.0, 10.0, (1500, 8))
        return X, (X[:, 0] + rng.normal(0.0, 8.0, 1500) > 45.0).astype(int) if name == "ages" else rng.integers(0, 2, 1500)
    values = np.genfromtxt(folder / "concrete.csv", delimiter=",", skip_header=1)
    X, y = load_diabetes(return_X_y=True) if name.startswith("diabetes") else (values[:, :-1], values[:, -1])
    return X, (y > np.median(y)).astype(int)


def figures(name: str, rate: float, seed: int, folder: Path) -> Iterator[float]:
    """Wrong labels; issues and those of them that are wrong, of both tools; and the interval."""
    from cleanlab.filter import find_label_issues

    rng = np.random.default_rng(seed)
    X, true = table(name, rng, folder)
    given = label_noise(true, "symmetric", rate, random_state=seed).labels if rate else true
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    rows = as_numbers(X, "auto", has_model=False)
    proba = cross_val_predict(default_model(rows, given, seed), rows, given, cv=folds, method="predict_proba")
    issues, is_wrong = find_issues(X, given, random_state=seed), given != true
    ours, theirs = issues.row[issues.is_issue], find_label_issues(given, proba, n_jobs=1)
    own = [len(ours), is_wrong[ours].sum(), theirs.sum(), is_wrong[theirs].sum()]
    return map(int, [is_wrong.sum(), *own, *issues.attrs["n_issues_interval"]])


def told(name: str, rate: float, found: list[Iterator[float]]) -> Row:
    """A line of the table."""
    wrong, issues, right, theirs, their_right, least, most = (list(column) for column in zip(*found, strict=True))
    return {
        "table": name,
        "drawn at random %": f"{100 * rate:.0f}",
        "wrong": round(statistics.mean(wrong)),
        "issues": ", ".join(map(str, issues)),
        "interval": ", ".join(f"{low} to {high}" for low, high in zip(least, most, strict=True)),
        "precision": f"{sum(right) / max(sum(issues), 1):.2f}" if rate else "",
        "cleanlab's issues": ", ".join(map(str, theirs)),
        "its precision": f"{sum(their_right) / max(sum(theirs), 1):.2f}" if rate else "",
    }


if __name__ == "__main__":
    main()
