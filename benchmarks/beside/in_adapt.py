"""adapt's weights of rows of numbers; run by an interpreter that has adapt: in_adapt.py ROWS.npz OUT.npz.

ROWS: source and target, in units of their columns' deviations.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
from adapt.instance_based import IWC, KLIEP, KMM, ULSIF
from sklearn.linear_model import LogisticRegression, Ridge

given = np.load(sys.argv[1])
source, target = given["source"], given["target"]
gammas = [0.1 / source.shape[1], 1.0 / source.shape[1], 10.0 / source.shape[1]]
common = {"Xt": target, "verbose": 0, "random_state": 0}
models = {
    "KLIEP": KLIEP(Ridge(), gamma=gammas, **common),
    "uLSIF": ULSIF(Ridge(), gamma=gammas, lambdas=[0.01, 0.1, 1.0], **common),
    "KMM": KMM(Ridge(), gamma=gammas[1], **common),
    "IWC": IWC(Ridge(), classifier=LogisticRegression(max_iter=1000), **common),
}
weights = {}
for name, model in models.items():
    model.fit(source, source[:, 0])
    weights[name] = np.asarray(model.predict_weights(), dtype=float).ravel()
np.savez(sys.argv[2], version=version("adapt"), **weights)
