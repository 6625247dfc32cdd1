"""Label issues against cleanlab, of the same model: order, number and calibration.

    python benchmarks/label_issues.py --data /path/with/letterdata.csv --cleanlab /path/venv/lib/python3.11/site-packages

Data sets whose files are not in the folder are left out: letterdata.csv, winequality-white.csv, cifar10_jpeg.npz with
cifar10n_labels.npz. Runs in the record are not made again, nor probabilities in the folder --cache, which also holds the
embeddings that image_embeddings.py makes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from runner import RESULTS, Row, markdown
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from densratio import label_issues_from_probabilities
from densratio.datasets import ASYMMETRIC, label_noise, load_cifar10n, load_labelled
from densratio.labels.default_model import default_model
from densratio.labels.held_out import n_deals

CASES = [("digits", "symmetric", 0.2), ("digits", "symmetric", 0.4), ("digits", "asymmetric", 0.4)]
CASES += [("letters", "symmetric", 0.2), ("letters", "symmetric", 0.4), ("letters", "asymmetric", 0.4)]
CASES += [("wine", "symmetric", 0.2), ("cifar10", "aggre", 0.0), ("cifar10", "worse", 0.0)]
CASES += [("cifar10_whole", "aggre", 0.0), ("cifar10_whole", "worse", 0.0)]
CASES += [("cifar10_embedded", "aggre", 0.0), ("cifar10_embedded", "worse", 0.0)]
N_IMAGES = {"cifar10": 10_000, "cifar10_whole": 50_000, "cifar10_embedded": 50_000}
EMBEDDINGS = "cifar10_embeddings.npy"
FILES = {"letters": "letterdata.csv", "wine": "winequality-white.csv", **dict.fromkeys(N_IMAGES, "cifar10_jpeg.npz")}
N_CLEAN, N_CHECKED = (50, 200), (200, 1000)


class Problem(NamedTuple):
    """True and given labels, and probabilities (r, n, K) of the given ones by models that did not learn from them, of r deals."""

    true: np.ndarray
    given: np.ndarray
    proba: np.ndarray


def main() -> None:
    """Make the runs that are missing, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(".benchdata"), help="folder of the files named above")
    parser.add_argument("--cleanlab", default="", help="folder that cleanlab can be imported from")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="names of data sets; empty: all that are there")
    parser.add_argument("--cache", type=Path, default=Path(".benchdata"))
    parser.add_argument("--record", type=Path, default=RESULTS / "label_issues.json")
    arguments = parser.parse_args()
    if arguments.cleanlab:
        sys.path.append(arguments.cleanlab)
    arguments.cache.mkdir(exist_ok=True)
    for seed in map(int, arguments.seeds.split(",")):
        for case in CASES:
            if case[0] in arguments.only.split(",") if arguments.only else is_there(case[0], arguments.data, arguments.cache):
                run(arguments.record, case, seed, problem(case, seed, arguments.data, arguments.cache))
    table(arguments.record)


def is_there(name: str, folder: Path, cache: Path) -> bool:
    """Whether the data set comes with scikit-learn, or its files are in the folders."""
    return (name not in FILES or (folder / FILES[name]).exists()) and ("embedded" not in name or (cache / EMBEDDINGS).exists())


def problem(case: tuple[str, str, float], seed: int, folder: Path, cache: Path) -> Problem:
    """The problem of a case and a seed, from the cache or new."""
    path = cache / f"label_issues-{case[0]}-{case[1]}-{case[2]:g}-{seed}.npz"
    if not path.exists():
        X, true, given = drawn(case, seed, folder)
        if "embedded" in case[0]:
            X = np.load(cache / EMBEDDINGS)[chosen_images(case[0], seed)].astype(np.float32)
        start = time.process_time()
        model = model_of(case[0], X, given, seed)
        deals = [StratifiedKFold(5, shuffle=True, random_state=seed + deal) for deal in range(n_deals(None, len(X)))]
        proba = [cross_val_predict(model, X, given, cv=folds, method="predict_proba") for folds in deals]
        print(path.stem, model, f"{time.process_time() - start:.0f} CPU s", flush=True)
        np.savez(path, true=true, given=given, proba=proba)
    return Problem(**np.load(path))


def drawn(case: tuple[str, str, float], seed: int, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, true labels, and given ones, drawn by the seed or by people."""
    name, kind, rate = case
    if name == "wine":
        values = np.genfromtxt(folder / FILES[name], delimiter=",", skip_header=1)
        X, true = values[:, :-1], (values[:, -1] >= 6).astype(int)
    else:
        data = load_labelled(name if name == "digits" else f"{name.partition('_')[0]}:{folder / FILES[name]}")
        X, true = np.asarray(data.inputs, dtype=np.float32), np.asarray(data.labels)
    if name in N_IMAGES:
        chosen = chosen_images(name, seed)
        return X[chosen], true[chosen], load_cifar10n(folder / "cifar10n_labels.npz")[kind][chosen]
    given = label_noise(true, kind, rate, mapping=ASYMMETRIC.get(name), random_state=seed).labels
    return X.reshape(len(X), -1), true, given


def chosen_images(name: str, seed: int) -> np.ndarray:
    """Numbers of CIFAR-10's images, in the order that the seed draws."""
    return np.random.default_rng(seed).permutation(50_000)[: N_IMAGES[name]]


def model_of(name: str, X: np.ndarray, given: np.ndarray, seed: int) -> Any:
    """What find_label_issues takes by itself; for wine boosted trees."""
    if name == "wine":
        return HistGradientBoostingClassifier(max_iter=60, early_stopping=False, random_state=seed)
    return default_model(X, given, seed)


def run(record: Path, case: tuple[str, str, float], seed: int, data: Problem) -> None:
    """Figures of each method on one problem, added to the record; clean rows are drawn among those whose label is right."""
    key = {"data": case[0], "noise": f"{case[1]} {case[2]:.0%}" if case[2] else f"people, {case[1]}", "seed": seed}
    is_wrong = data.true != data.given
    right = np.random.default_rng(seed).permutation(np.flatnonzero(~is_wrong))
    methods = {"densratio": lambda: by_densratio(data, is_wrong, right[:0])}
    for n in N_CLEAN:
        methods[f"densratio, {n} clean rows"] = partial(by_densratio, data, is_wrong, right[:n], clean=right[:n])
    if len(is_wrong) >= 5 * max(N_CHECKED):
        for n in N_CHECKED:
            rows = np.random.default_rng(seed).permutation(len(is_wrong))[:n]
            methods[f"densratio, {n:,} checked rows"] = partial(by_densratio, data, is_wrong, rows, checked=(rows, data.true[rows]))
    methods["cleanlab"] = lambda: by_cleanlab(data.given, data.proba[0], is_wrong)
    if len(data.proba) > 1:
        methods["cleanlab, mean of our deals"] = lambda: by_cleanlab(data.given, data.proba.mean(axis=0), is_wrong)
    for method, found_by in methods.items():
        own = {**key, "method": method}
        if not any(own.items() <= line.items() for line in lines(record)):
            line = {**own, "wrong": float(is_wrong.mean()), **found_by()}
            with open(record, "a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


def by_densratio(
    data: Problem, is_wrong: np.ndarray, known: np.ndarray, *, clean: Any = None, checked: Any = None
) -> dict[str, float]:
    """Figures of the rows whose right label is not known."""
    issues = label_issues_from_probabilities(data.given, data.proba, clean=clean, checked=checked).sort_values("row")
    rest = np.setdiff1d(np.arange(len(is_wrong)), known)
    least, most = issues.attrs["n_issues_interval"]
    found = figures(issues.score.to_numpy()[rest], issues.is_issue.to_numpy()[rest], is_wrong[rest])
    return {**found, "least": 100.0 * (least / is_wrong.sum() - 1.0), "most": 100.0 * (most / is_wrong.sum() - 1.0)}


def by_cleanlab(given: np.ndarray, proba: np.ndarray, is_wrong: np.ndarray) -> dict[str, float]:
    """Its label quality scores, and the rows of its default filter."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    issues = find_label_issues(given, proba, n_jobs=1)
    return figures(1.0 - get_label_quality_scores(given, proba), issues, is_wrong)


def figures(score: np.ndarray, is_issue: np.ndarray, is_wrong: np.ndarray) -> dict[str, float]:
    """Order, precision and number of the rows said to be issues, and how many of those with scores of .8 to .9 are wrong."""
    between = (score >= 0.8) & (score < 0.9)
    return {
        "AUROC": roc_auc_score(is_wrong, score),
        "AUPRC": average_precision_score(is_wrong, score),
        "precision": float(is_wrong[is_issue].mean()),
        "number": 100.0 * (is_issue.sum() / is_wrong.sum() - 1.0),
        "between": int(between.sum()),
        "wrong between": int(is_wrong[between].sum()),
    }


def lines(record: Path) -> list[Row]:
    """What is in the record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def table(record: Path) -> None:
    """results/label_issues.md of all runs."""
    runs, rows = lines(record), []
    for key in dict.fromkeys((line["data"], line["noise"], line["method"]) for line in runs):
        own = [line for line in runs if (line["data"], line["noise"], line["method"]) == key]
        between, wrong = (sum(line[name] for line in own) for name in ("between", "wrong between"))
        rows.append({
            "data": key[0], "labels": key[1], "wrong %": f"{100 * own[0]['wrong']:.0f}", "method": key[2],
            **{name: told([line[name] for line in own], 3) for name in ("AUROC", "AUPRC", "precision")},
            "number, off by %": told([line["number"] for line in own], 1),
            "interval, off by %": f"{mean(own, 'least'):.0f} to {mean(own, 'most'):.0f}" if "least" in own[0] else "",
            "wrong at .8-.9": f"{wrong / between:.2f} of {between}" if between else "",
            "seeds": ", ".join(str(line["seed"]) for line in own),
        })  # fmt: skip
    rows.sort(key=lambda row: list(dict.fromkeys(case[0] for case in CASES)).index(row["data"]))
    note = (
        "All methods have the same model: that of `find_label_issues` by itself, boosted trees on wine (white wines of "
        f"quality 6 and above, against the others). On {N_IMAGES['cifar10']:,} images of CIFAR-10, or all, with labels that "
        "people gave, it is convolutions; on embeddings of all by a pretrained EfficientNet-Lite0 a logistic regression. "
        "densratio deals the rows into folds as often as by default: 4 times on digits and wine, "
        "twice on 10,000 images, once on letters and all images; cleanlab has the probabilities of one deal, "
        "and where there are several, the mean of all in a further row. Precision is that of the rows said to be issues. "
        "Clean rows and rows that were looked at, drawn at random, are left out of the figures, but for the interval "
        "`n_issues_interval`, of which the means are given; `checked_labels.md` has more draws of the latter. CIFAR-10's wrong "
        "labels lie on hard images, so that too few are found without rows that were looked at. Seed 10 was used to choose the "
        "method."
    )
    (RESULTS / "label_issues.md").write_text(f"# Label issues\n\n{note}\n\n{markdown(rows)}\n")


def mean(lines_of: list[Row], name: str) -> float:
    """The mean of a figure."""
    return statistics.mean(line[name] for line in lines_of)


def told(values: list[float], digits: int) -> str:
    """Mean, with the standard deviation of several seeds."""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


if __name__ == "__main__":
    main()
