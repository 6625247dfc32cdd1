"""LSIF and KLIEP on Dask arrays and dataframes larger than memory, from sums over their partitions.

    from densratio.dask import DaskRatio, stack_domains

    X, y = stack_domains(X_source, X_target)      # Dask arrays, or Dask dataframes with the same columns
    model = DaskRatio(LSIF()).fit(X, y)           # on the current Dask scheduler, or a cluster if a Client is open
    model.weights_                                # lazy: weights of the source rows in their order, mean 1
    model.transform(X_new)                        # lazy: the ratio at any rows, partition by partition
    model.ratio_                                  # the fitted LSIF, which no longer needs Dask

`transform(ratio, X)` evaluates any fitted density ratio, KMM included, at the rows of a Dask collection.
"""

import importlib.util

if importlib.util.find_spec("dask") is None:
    raise ImportError('densratio.dask needs Dask: pip install "densratio-toolkit[dask]"')

from .blockwise import transform
from .ratio import DaskRatio
from .stacking import stack_domains

__all__ = ["DaskRatio", "stack_domains", "transform"]
