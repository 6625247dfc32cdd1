"""Wrong labels of many classes from given probabilities: seconds, number and precision beside cleanlab's find_label_issues.

    python benchmarks/many_classes.py --cleanlab /path/to/python

Rows whose true class is drawn from softmax logits, 20 % of labels replaced by another class at random; the probabilities are those
of the labels. Without an interpreter that has cleanlab its columns are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from runner import RESULTS, Row, environment, limit_threads, write
from sklearn.metrics import roc_auc_score

from densratio import label_issues_from_probabilities

SIZES = (5_000, 20, 7.0), (20_000, 100, 8.0), (50_000, 100, 8.0), (20_000, 1000, 10.0)  # rows, classes, logit of the likely class
WRONG, SEEDS = 0.2, (0, 1, 2)
CLEANLAB = """
import json, sys, time
import numpy as np
from cleanlab.filter import find_label_issues
given = np.load(sys.argv[1])
begin = time.perf_counter()
found = find_label_issues(given["labels"], given["proba"], n_jobs=1)
print(json.dumps([time.perf_counter() - begin, np.flatnonzero(found).tolist()]))
"""


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleanlab", help="an interpreter that has cleanlab")
    arguments = parser.parse_args()
    limit_threads(1)
    rows = []
    for n, n_classes, logit in SIZES:
        rows.append(told(n, n_classes, [figures(*drawn(n, n_classes, logit, seed), arguments.cleanlab) for seed in SEEDS]))
        print(rows[-1], flush=True)
    section = "20 % of the labels, at random", "", rows
    write(str(RESULTS / "many_classes"), "Wrong labels of many classes", environment(seeds=SEEDS), [section])


def drawn(n: int, n_classes: int, logit: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels (n,), probabilities of labels (n, K), and which labels are wrong."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(n, n_classes))
    likely = draw.integers(n_classes, size=n)
    logits[np.arange(n), likely] += logit
    logits[np.arange(n), (likely ^ 1) % n_classes] += 0.4 * logit
    q = np.exp(logits)
    q /= q.sum(axis=1, keepdims=True)
    true = (q.cumsum(axis=1) > draw.random((n, 1))).argmax(axis=1)
    is_wrong = draw.random(n) < WRONG
    labels = np.where(is_wrong, (true + draw.integers(1, n_classes, n)) % n_classes, true)
    return labels, (1.0 - WRONG) * q + WRONG * (1.0 - q) / (n_classes - 1), is_wrong


def figures(labels: np.ndarray, proba: np.ndarray, is_wrong: np.ndarray, cleanlab: str | None) -> dict[str, tuple[float, ...]]:
    """Seconds, listed rows against wrong ones and their precision, and AUROC, of either."""
    begin = time.perf_counter()
    issues = label_issues_from_probabilities(labels, proba).sort_values("row")
    listed = issues.is_issue.to_numpy()
    seconds, auroc = time.perf_counter() - begin, roc_auc_score(is_wrong, issues.score)
    found = {"densratio": (seconds, listed.sum() / is_wrong.sum() - 1.0, is_wrong[listed].mean(), auroc)}
    if cleanlab:
        with tempfile.TemporaryDirectory() as folder:
            np.savez(path := Path(folder) / "given.npz", labels=labels, proba=proba)
            answer = subprocess.run([cleanlab, "-c", CLEANLAB, str(path)], capture_output=True, text=True, check=True)
        seconds, numbers = json.loads(answer.stdout.splitlines()[-1])
        auroc = roc_auc_score(is_wrong, 1.0 - proba[np.arange(len(labels)), labels])
        found["cleanlab"] = (seconds, len(numbers) / is_wrong.sum() - 1.0, is_wrong[numbers].mean(), auroc)
    return found


def told(n: int, n_classes: int, seeds: list[dict[str, tuple[float, ...]]]) -> Row:
    """A row of the table, means and deviations over the seeds."""
    row: Row = {"rows": f"{n:,}", "classes": f"{n_classes:,}"}
    for name in seeds[0]:
        seconds, number, precision, auroc = np.array([found[name] for found in seeds]).T
        row[f"{name}: seconds"] = f"{seconds.mean():.1f}"
        row[f"{name}: number"] = f"{100 * number.mean():+.1f} ± {100 * number.std(ddof=1):.1f} %"
        row[f"{name}: precision"] = f"{precision.mean():.3f} ± {precision.std(ddof=1):.3f}"
        row[f"{name}: AUROC"] = f"{auroc.mean():.4f}"
    return row


if __name__ == "__main__":
    main()
