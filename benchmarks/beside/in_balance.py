"""balance's weights of a table; run by an interpreter that has balance: in_balance.py SOURCE.csv TARGET.csv OUT.npy."""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
import pandas as pd
from balance import Sample

source, target = (pd.read_csv(path) for path in sys.argv[1:3])
samples = [Sample.from_frame(table.assign(id=np.arange(len(table)).astype(str)), id_column="id") for table in (source, target)]
adjusted = samples[0].set_target(samples[1]).adjust(method="ipw")
np.savez(sys.argv[3], weights=np.asarray(adjusted.weights().df.iloc[:, 0], dtype=float), version=version("balance"))
