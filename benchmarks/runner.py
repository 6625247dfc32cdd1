"""What every benchmark shares: interleaved timing, the environment it ran in, tables as Markdown and JSON, and small figures."""

from __future__ import annotations

import datetime
import importlib.metadata
import io
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ["numpy", "scipy", "scikit-learn", "torch", "cvxpy", "clarabel", "osqp", "cvxopt"]

Row = dict[str, Any]


def interleaved(
    calls: dict[str, Callable[[], Any]],
    rounds: int,
    *,
    warm_up: int = 3,
    repeats: dict[str, int] | None = None,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each call in each round: every round runs all calls, so that drift of the machine hits all alike.

    repeats: how often a call is made in a round, whose mean then counts (once where not named): a short call between long
    ones would else be a measure of how they left the caches. clock: seconds that pass, or those of this process alone.

    The order is drawn anew in each round, so that none always follows the call that empties the caches.
    """
    wait, order = synchronize or (lambda: None), random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_up, rounds):
        for name in order.sample(list(calls), len(calls)):
            call, n_calls = calls[name], (repeats or {}).get(name, 1)
            wait()
            start = clock()
            for _ in range(n_calls):
                call()
            wait()
            if number >= 0:
                seconds[name].append((clock() - start) / n_calls)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median seconds of each name."""
    return {name: statistics.median(times) for name, times in seconds.items()}


def ratios(times: dict[str, float], baseline: str) -> dict[str, float]:
    """How many times faster than `baseline` each name is."""
    return {name: times[baseline] / value for name, value in times.items()}


def limit_threads(threads: int | None) -> None:
    """At most `threads` threads from here on, in every BLAS and OpenMP pool that is loaded by now and in torch."""
    if not threads:
        return
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def synchronizer(device: str) -> Callable[[], Any] | None:
    """Waits for the device; None where there is nothing to wait for."""
    if device != "cuda":
        return None
    import torch

    return torch.cuda.synchronize


def environment(device: str = "cpu", seeds: Iterable[int] = (0,)) -> dict[str, str]:
    """What the numbers depend on besides the code."""
    facts = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "device": _device_name(device),
        "CPU": f"{_cpu_name()}, {os.cpu_count()} logical cores",
        "load average at the start": f"{os.getloadavg()[0]:.1f}",
        "threads": _threads(),
        "seeds": as_ranges(seeds),
        "python": platform.python_version(),
        "densratio": _densratio_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "absent"
    return facts


def as_ranges(numbers: Iterable[int]) -> str:
    """Whole numbers as text, those in a row as one range: "0 to 4, 12"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def markdown(rows: list[Row]) -> str:
    """A GitHub table; the keys of the first row are the columns, and numbers stand to the right."""
    columns = list(rows[0])
    is_number = [all(isinstance(row[c], int | float) or row[c] in ("", None) for row in rows) for c in columns]
    lines = [columns, ["---:" if number else "---" for number in is_number]]
    lines += [[_cell(row[c]) for c in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, title: str, facts: dict[str, str], sections: list[tuple[str, str, list[Row]]]) -> None:
    """results/NAME.md and results/NAME.json from (heading, note, rows) sections, and the Markdown on the screen."""
    header = "; ".join(f"{key} {value}" for key, value in facts.items())
    parts = [f"# {title}", header] + [f"## {heading}\n\n{note}\n\n{markdown(rows)}" for heading, note, rows in sections]
    text = "\n\n".join(parts) + "\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
    record = {"title": title, "environment": facts, "sections": [dict(heading=h, note=n, rows=r) for h, n, r in sections]}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(text)


def save_figure(figure: Any, path: Path, dpi: int) -> None:
    """The figure as a PNG of at most 64 colors: lines and bars need no more, and the file is a third as large."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight")
    Image.open(buffer).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _device_name(device: str) -> str:
    if device != "cuda":
        return "CPU"
    import torch

    return torch.cuda.get_device_name()


def _threads() -> str:
    from threadpoolctl import threadpool_info

    pools = {f"{pool['internal_api']} {pool['num_threads']}" for pool in threadpool_info()}
    return ", ".join(sorted(pools)) or "unknown"


def _densratio_version() -> str:
    from densratio import __version__

    return __version__
