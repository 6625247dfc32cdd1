"""NannyML's CBPE of the accuracy in chunks; run by an interpreter that has NannyML: in_nannyml.py REFERENCE.csv ROWS.csv OUT.npz.

Both have the columns proba, predicted and label; ROWS has a chunk, and its labels are not used.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import nannyml
import numpy as np
import pandas as pd

reference, rows = (pd.read_csv(path) for path in sys.argv[1:3])
estimates = []
for _, chunk in rows.groupby("chunk", sort=True):
    estimator = nannyml.CBPE(
        problem_type="classification_binary", y_pred_proba="proba", y_pred="predicted", y_true="label", metrics=["accuracy"],
        chunk_size=len(chunk),
    )  # fmt: skip
    estimator.fit(reference)
    found = estimator.estimate(chunk.drop(columns=["label", "chunk"])).filter(period="analysis").to_df()
    estimates.append(float(found[("accuracy", "value")].iloc[0]))
np.savez(sys.argv[3], estimates=estimates, version=version("nannyml"))
