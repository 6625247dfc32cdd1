"""skada's label shift, and what its MMDTarS makes of it; run by an interpreter that has skada: in_skada.py SEED OUT.npz."""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
from skada import MMDTarSReweightAdapter, make_da_pipeline
from skada.datasets import make_shifted_datasets
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

SHIFT = {"n_samples_source": 100, "n_samples_target": 100, "shift": "target_shift", "noise": 0.8, "ratio": 0.9}


def drawn(seed: int) -> dict[str, np.ndarray]:
    X, y, domain = make_shifted_datasets(random_state=seed, **SHIFT)
    return {"X": X[domain > 0], "y": y[domain > 0], "X_target": X[domain < 0], "y_target": y[domain < 0]}


seed, out = int(sys.argv[1]), sys.argv[2]
rows, fresh = drawn(seed), drawn(seed + 1000)
X, domain = np.concatenate([rows["X"], rows["X_target"]]), np.repeat([1, -2], [len(rows["X"]), len(rows["X_target"])])
masked = np.concatenate([rows["y"], np.full(len(rows["X_target"]), -1)])
model = make_da_pipeline(StandardScaler(), MMDTarSReweightAdapter(gamma=1.0), SVC().set_fit_request(sample_weight=True))
model.fit(X, masked, sample_domain=domain)
accuracy = np.mean(model.predict(fresh["X_target"], sample_domain=np.full(len(fresh["X_target"]), -2)) == fresh["y_target"])
fresh = {"X_test": fresh["X_target"], "y_test": fresh["y_target"]}
np.savez(out, mmdtars=accuracy, version=version("skada"), **rows, **fresh)
