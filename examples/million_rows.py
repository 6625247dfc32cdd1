"""Large tables: KMM on a million rows with an approximate kernel, and LSIF over a stream that is never held in memory.

    python examples/million_rows.py [--rows 1000000] [--columns 10]

The data are simulated, so the true ratio is known. Memory is the peak resident size of the process so far.
"""

import argparse
import resource
import sys
import time

import numpy as np

from densratio import KMM, LSIF
from densratio.datasets import Shift, make_mixture_shift
from densratio.diagnostics import effective_sample_size

N_TARGET = 1000


def draw(n_rows: int, n_columns: int, seed: int) -> Shift:
    return make_mixture_shift(n_rows, N_TARGET, n_columns, random_state=seed)


def accuracy(weights: np.ndarray, shift: Shift) -> str:
    truth = shift.ratio(shift.X_source)
    error, equal = (np.mean((w / w.mean() - truth / truth.mean()) ** 2) for w in (weights, np.ones(len(truth))))
    rows = effective_sample_size(weights)
    return f"NMSE {error:.3f} (equal weights: {equal:.3f}), effective rows {rows:,.0f} of {len(weights):,}"


def memory() -> str:
    # Linux reports KiB, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:,.0f} MiB"


def kmm(n_rows: int, n_columns: int) -> None:
    """Above exact_up_to rows KMM keeps all rows and approximates the kernel; `approximation_error_` is the error."""
    shift = draw(n_rows, n_columns, seed=0)
    start = time.perf_counter()
    ratio = KMM(random_state=0).fit(shift.X, shift.y)
    print(f"KMM on {n_rows:,} rows: {time.perf_counter() - start:.1f} s, memory {memory()}")
    print(f"  kernel: {ratio.approximation_}, relative error of its objective {ratio.approximation_error_:.1e}")
    print(f"  {accuracy(ratio.weights_, shift)}")


def lsif(n_rows: int, n_columns: int, n_blocks: int = 10) -> None:
    """LSIF keeps sums over the rows instead of rows: after each block the fit equals that of all rows so far."""
    # The closed form (uLSIF); its parameters are chosen on the first block, by leave-one-out.
    ratio = LSIF(nonnegative=False, gamma="cv", regularization="cv", random_state=0)
    start = time.perf_counter()
    for block in range(n_blocks):
        # In practice this would be the next file, or the next rows of a query.
        rows = draw(n_rows // n_blocks, n_columns, seed=1 + block)
        ratio.partial_fit(rows.X, rows.y)
        if block in (0, n_blocks - 1):
            seen = (block + 1) * (n_rows // n_blocks)
            print(f"LSIF after {seen:,} rows: {time.perf_counter() - start:.1f} s, memory {memory()}")
    unseen = draw(10_000, n_columns, seed=99)
    print(f"  at unseen rows: {accuracy(ratio.transform(unseen.X_source), unseen)}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="source rows")
    parser.add_argument("--columns", type=int, default=10)
    options = parser.parse_args(arguments)
    # The stream comes first, since the peak of the memory counts.
    lsif(options.rows, options.columns)
    kmm(options.rows, options.columns)


if __name__ == "__main__":
    main()
