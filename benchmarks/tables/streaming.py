"""LSIF over a stream: blocks of rows drawn one after another and forgotten, with the memory on the way.

Call: `python -m benchmarks.tables.streaming ROWS BLOCK COLUMNS`; prints one JSON line. Each block of BLOCK source rows comes with
BLOCK / 10 target rows. Only `partial_fit` is timed, not the drawing of rows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.runner import Row
from densratio import LSIF
from densratio.datasets.covariate_shift import make_gaussian_shift

from .scores import nmse

__all__ = ["stream"]

STATUS = Path("/proc/self/status")


def stream(rows: int, block: int, columns: int) -> Row:
    """Seconds of all `partial_fit`, resident MiB after each block, and the error of the ratio at the end on rows not seen."""
    ratio, seconds, trace = LSIF(random_state=0), 0.0, []
    for number in range(rows // block):
        shift = make_gaussian_shift(block, max(1, block // 10), columns, random_state=number + 1)
        start = time.perf_counter()
        ratio.partial_fit(shift.X, shift.y)
        seconds += time.perf_counter() - start
        trace.append([(number + 1) * block, memory("VmRSS")])
    fresh = make_gaussian_shift(block, 1, columns, random_state=0)
    return {
        "rows": rows // block * block,
        "block": block,
        "d": columns,
        "fit seconds": seconds,
        "rows per second": rows // block * block / seconds,
        "peak MiB": memory("VmHWM"),
        "MiB after the first block": trace[0][1],
        "MiB after the last block": trace[-1][1],
        "fresh NMSE": nmse(ratio.transform(fresh.X_source), fresh.ratio(fresh.X_source)),
        "trace": trace,
    }


def memory(field: str) -> float | None:
    """VmRSS (now) or VmHWM (largest) of this process in MiB; None where the system doesn't say."""
    try:
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    print(json.dumps(stream(*(int(size) for size in sys.argv[1:4]))))
