"""QuaPy's class shares of the target by EMQ; run by an interpreter that has QuaPy: in_quapy.py IN.npz OUT.npz."""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
from quapy.method.aggregative import EMQ
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

given = np.load(sys.argv[1])
method = EMQ(make_pipeline(StandardScaler(), SVC(probability=True, random_state=0)))
method.fit(given["X"], given["y"])
np.savez(sys.argv[2], shares=method.predict(given["X_target"]), version=version("quapy"))
