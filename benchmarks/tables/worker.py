"""One library's side of the benchmark: takes jobs as JSON lines on stdin, fits, and answers on stdout.

Runs as a file in any environment with numpy, so it imports nothing else than numpy and the one library. Call:
`python -P worker.py libraries/for_NAME.py`. A job names a problem (.npz of source, target, fresh), a method and its
parameters, a seed, and where the weights and ratios go (.npz). Answers: "ready" after the import, "started" where the timed
part begins, "done" with the seconds, the memory and the outcome.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np

WARM_UP_ROWS = 60
"""Rows of an untimed fit before the timed one, which pays for what libraries import and compile at first use.

Without it where the timed fit has at most twice as many, as in the quick plan, whose seconds mean nothing.
"""
STATUS = Path("/proc/self/status")


def load(path):
    """The module at `path`, whose folder stays off sys.path: a file there could hide a library."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def versions(packages):
    """Versions of the installed ones among `packages`."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def memory(field):
    """VmRSS (now) or VmHWM (largest) of this process in MiB; None where the system doesn't say."""
    try:
        line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) / 1024


def forget_peak():
    """Give freed memory back to the system, and let the largest memory start from here."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return


def warm_up(library, job, problem):
    """An untimed fit on few rows; what it raises, the timed one will raise too, or it was for want of rows."""
    try:
        few = slice(None, WARM_UP_ROWS)
        _, transform = library.fit(job["method"], job["params"], problem["source"][few], problem["target"][few], job["seed"])
        if transform is not None:
            transform(problem["fresh"][few])
    except Exception:  # any library may raise anything
        return


def timed(library, job, problem):
    """What the timed fit and transform took, after writing weights and ratios to job["output"]."""
    forget_peak()
    before = memory("VmRSS")
    start, start_cpu = time.perf_counter(), time.process_time()
    weights, transform = library.fit(job["method"], job["params"], problem["source"], problem["target"], job["seed"])
    fitted, fitted_cpu = time.perf_counter(), time.process_time()
    answers = {"weights": np.asarray(weights, dtype=float)}
    if transform is not None:
        answers["fresh"] = np.asarray(transform(problem["fresh"]), dtype=float)
    end, peak = time.perf_counter(), memory("VmHWM")
    np.savez(job["output"], **answers)
    return {
        "fit seconds": fitted - start,
        "fit CPU seconds": fitted_cpu - start_cpu,
        "transform seconds": end - fitted if transform is not None else None,
        "MiB above import": peak - before if peak is not None else None,
        "peak MiB": peak,
    }


def run(library, job, say):
    """Outcome of one job; whatever the library raises is the outcome too."""
    with np.load(job["problem"]) as file:
        problem = {name: file[name] for name in file.files}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        if len(problem["source"]) > 2 * WARM_UP_ROWS:
            warm_up(library, job, problem)
        warnings.simplefilter("default")
        say({"event": "started"})
        try:
            outcome = {"status": "ok", **timed(library, job, problem)}
        except Exception as error:
            outcome = {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    said = sorted({f"{w.category.__name__}: {w.message}"[:200] for w in caught})
    return {"event": "done", **outcome, "warnings": said[:5]}


def main():
    # Libraries print to stdout; answers go to a copy of it, and the prints to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message):
        answers.write(json.dumps(message) + "\n")

    library = load(sys.argv[1])
    say({"event": "ready", "versions": versions(library.PACKAGES)})
    for line in sys.stdin:
        say(run(library, json.loads(line), say))


if __name__ == "__main__":
    main()
