"""The records as Markdown: accuracy of each experiment, what the weights say, what the aims say, and the cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from benchmarks.runner import Row, as_ranges, write

from .methods import ADIW, METHODS, method_of, title
from .published import ACCURACY, SECONDS, STAGE_SECONDS
from .records import Record, read_runs

__all__ = ["LAST", "group_title", "grouped", "last_epochs", "write_profile", "write_tables"]

MANY, FEW = 100, 20  # training rows of a class
LEVEL = 0.01  # of the paired t-tests
LAST = 10  # epochs whose mean is a run's accuracy
GROUP = ("data", "network", "shift", "n_val", "layer", "parameters", "batch_size")
Section = tuple[str, str, list[Row]]


def write_tables(folder: Path) -> bool:
    """accuracy.md and accuracy.json in `folder` from its records; False where no run has come through an epoch."""
    runs = read_runs(folder)
    groups = grouped(runs)
    if not groups:
        return False
    aims = [row for found in groups.values() for row in aims_of(found)]
    sections = [("Aims", AIMS_NOTE, aims), *(section for key, found in groups.items() for section in of_group(key, found))]
    sections = [section for section in sections if section[2]]
    write(str((folder / "accuracy").resolve()), "The ADIW paper's experiments", _facts(runs), sections)
    return True


def write_profile(path: Path, facts: dict[str, str], data: str, rows: list[Row]) -> None:
    """`path`.md and `path`.json of the rows that `stages.profile` gave, beside the paper's."""
    whole = [{key: row[key] for key in ("method", "ms a batch", "times Uniform")} for row in rows]
    stages = [{key: row[key] for key in row if key not in ("ms a batch", "times Uniform")} for row in rows]
    paper = [
        {"data": name, "shift": shift, **{title(method): value / cost["uniform"] for method, value in cost.items()}}
        for (name, shift, _), cost in SECONDS.items()
        if "uniform" in cost
    ]
    stages_there = [
        {"data": name, "variant": variant, "on": unit, **seconds, "in all": sum(seconds.values())}
        for name, variants in STAGE_SECONDS.items()
        for variant, columns in variants.items()
        for unit, seconds in zip(("CPU", "CUDA"), columns, strict=True)
    ]
    sections = [
        (f"Seconds of a batch, {data}", WHOLE_NOTE, whole),
        (f"Stages, {data}", STAGES_NOTE, stages),
        ("The paper's epochs, times Uniform", "On its own machines and networks: its Table IX.", paper),
        ("The paper's stages", "Seconds of ten batches, 0.4 symmetric: its Tables IV and VII.", stages_there),
    ]
    write(str(path.resolve()), "Cost of dynamic importance weighting", facts, sections)


# ---------------------------------------------------------------- accuracy


def of_group(key: tuple[Any, ...], methods: dict[str, list[Record]]) -> list[Section]:
    """A table of accuracy and cost, and one of the weights."""
    accuracy = [accuracy_row(name, methods) for name in methods]
    weights = [weights_row(name, runs) for name, runs in methods.items() if "on" in runs[0]["weights"]]
    by_class = [row for name, runs in methods.items() if (row := class_row(name, runs)) is not None]
    return [
        (group_title(key), ACCURACY_NOTE, accuracy),
        (f"Classes, {group_title(key)}", CLASSES_NOTE, by_class),
        (f"Weights, {group_title(key)}", WEIGHTS_NOTE, weights),
    ]


def accuracy_row(name: str, methods: dict[str, list[Record]]) -> Row:
    """Mean and deviation over the seeds of the last epochs' mean accuracy, and the cost of an epoch."""
    runs = methods[name]
    identity = runs[0]["identity"]
    scores, base = last_epochs(runs), last_epochs(methods.get("uniform", []))
    seconds, base_seconds = _seconds(runs), _seconds(methods.get("uniform", []))
    layer = identity["layer"]
    data, shift, method = identity["data"], identity["shift"], identity["method"].partition("@")[0]
    figure = ACCURACY.get((data, shift, identity["n_val"], layer, method))
    epochs = [len(run["history"]["accuracy"]) for run in runs]
    return {
        "method": title(name, identity["layer"]),
        "accuracy, %": f"{_mean(scores):.2f}",
        "deviation": f"{statistics.stdev(scores):.2f}" if len(scores) > 1 else None,
        "mean over classes, %": _class_accuracy(runs),
        **({"both networks, %": _of_both(runs)} if any(map(_are_two, methods.values())) else {}),
        "above Uniform, points": f"{_mean(scores) - _mean(base):+.2f}" if base and scores else None,
        "the paper's, %": None if figure is None else str(figure),
        "as good as the best": _is_best(runs, methods),
        "stopped early, %": _stopped_early(runs),
        "best epoch, %": f"{_mean([100 * max(run['history']['accuracy']) for run in runs]):.2f}",
        "s an epoch": seconds,
        "times Uniform": seconds / base_seconds if seconds and base_seconds else None,
        "the paper's s an epoch": None if figure is None else SECONDS.get((data, shift, layer), {}).get(method),
        "peak MB": _peak(runs),
        "epochs": f"{min(epochs)} of {identity['epochs']}",
        "seeds": len(runs),
    }


def _of_both(runs: list[Record]) -> str | None:
    """Mean and deviation of `last_epochs` for the mean of both networks' probabilities; None for methods of one network."""
    return _with_spread([100.0 * _mean(run["history"]["both_accuracy"][-LAST:]) for run in runs]) if _are_two(runs) else None


def _are_two(runs: list[Record]) -> bool:
    return all("both_accuracy" in run["history"] for run in runs)


def class_row(name: str, runs: list[Record]) -> Row | None:
    """The pair of classes confused most often, and where some class is small the accuracy by the size of classes; None for runs
    that are not done."""
    if not all(run.get("confusion") for run in runs):
        return None
    is_any_small = min(min(run["class_sizes"]) for run in runs) <= MANY
    row: Row = {"method": title(name, runs[0]["identity"]["layer"]), **(_by_size(runs) if is_any_small else {})}
    wrong = np.sum([run["confusion"] for run in runs], axis=0)
    np.fill_diagonal(wrong, 0)
    true, taken_for = np.unravel_index(wrong.argmax(), wrong.shape)
    row["most often"] = f"class {true} taken for {taken_for}: {wrong.max() / len(runs):.0f} rows"
    return row


def _by_size(runs: list[Record]) -> Row:
    """Final accuracy over the test rows of classes with many, medium and few training rows."""
    row: Row = {}
    bounds = {f"many, > {MANY}": (MANY, np.inf), f"medium, {FEW} to {MANY}": (FEW - 1, MANY), f"few, < {FEW}": (-1, FEW - 1)}
    for words, (low, high) in bounds.items():
        shares = [100.0 * share for run in runs if (share := _right_among(run, low, high)) is not None]
        row[words] = f"{_mean(shares):.2f}" if shares else None
    return row


def _right_among(run: Record, low: float, high: float) -> float | None:
    """Share of the test rows that are right, of classes with more than `low` and at most `high` training rows."""
    counts, sizes = np.array(run["confusion"]), np.array(run["class_sizes"])
    chosen = (sizes > low) & (sizes <= high)
    return float(counts.diagonal()[chosen].sum() / counts[chosen].sum()) if chosen.any() else None


def _is_best(runs: list[Record], methods: dict[str, list[Record]]) -> str | None:
    """Whether a paired t-test at 1 % leaves open that the method is as good as the best of those with the same seeds."""
    seeds = sorted(run["identity"]["seed"] for run in runs)
    rivals = [own for own in methods.values() if sorted(run["identity"]["seed"] for run in own) == seeds]
    best = max(rivals, key=lambda own: _mean(last_epochs(own)))
    if len(seeds) < 2:
        return None
    mine, theirs = (np.array(last_epochs(sorted(own, key=lambda run: run["identity"]["seed"]))) for own in (runs, best))
    apart = theirs - mine
    if np.ptp(apart) == 0.0:
        return "yes" if apart[0] == 0.0 else "no"
    return "yes" if ttest_rel(theirs, mine).pvalue >= LEVEL else "no"


def weights_row(name: str, runs: list[Record]) -> Row:
    """What the final weights of rows to keep and of rows that are off look like, means over the seeds."""
    parts = [run["weights"] for run in runs]
    off = [part["off"]["mean"] for part in parts if "off" in part]
    aurocs = [part["auroc"] for part in parts if part["auroc"] is not None]
    shares = [part["effective_share"] for part in parts if part["effective_share"] is not None]
    return {
        "method": title(name, runs[0]["identity"]["layer"]),
        "mean weight, to keep": _mean([part["on"]["mean"] for part in parts]),
        "mean weight, off": _mean(off) if off else None,
        "AUROC": _mean(aurocs) if aurocs else None,
        "effective share of the rows": _mean(shares) if shares else None,
    }


# ---------------------------------------------------------------- aims


def aims_of(methods: dict[str, list[Record]]) -> list[Row]:
    """What the project asks of one experiment, and whether it is so."""
    if "uniform" not in methods or not any(name in methods for name in ADIW):
        return []
    identity = methods["uniform"][0]["identity"]
    scores = {name: _mean(last_epochs(runs)) for name, runs in methods.items() if last_epochs(runs)}
    base = scores["uniform"]
    full = {name: scores[name] - base for name in ADIW if name in scores}
    best, worst = max(full, key=lambda name: full[name]), min(full, key=lambda name: full[name])
    where = {"experiment": group_title(tuple(identity[key] for key in GROUP))}
    layer = identity["layer"]
    rows = [
        {**where, "aim": "each ADIW method above Uniform", **_verdict(full[worst], title(worst, layer), full[worst] > 0)},
        {**where, "aim": "the best by at least 2.5 points", **_verdict(full[best], title(best, layer), full[best] >= 2.5)},
    ]
    for name in scores:
        method, _, refresh = name.partition("@")
        if refresh and method in full:
            change = scores[name] - scores[method]
            aim = f"bank of {refresh.replace('per', ' per ')} at most 0.5 points below the full batch"
            rows.append({**where, "aim": aim, **_verdict(change, title(name, layer), change >= -0.5)})
    return rows


def _peak(runs: list[Record]) -> float | None:
    """Largest memory of a batch, in 1e6 bytes."""
    known = [run["peak_memory"] for run in runs if run.get("peak_memory") is not None]
    return max(known) / 1e6 if known else None


def _stopped_early(runs: list[Record]) -> str | None:
    """Mean and deviation of the accuracy at the first epoch that is best on the validation rows, where all records have that."""
    if not all(run["history"].get("val_accuracy") for run in runs):
        return None
    scores = [100 * run["history"]["accuracy"][int(np.argmax(run["history"]["val_accuracy"]))] for run in runs]
    return _with_spread(scores)


def _with_spread(scores: list[float]) -> str:
    return f"{_mean(scores):.2f}" + (f" ({statistics.stdev(scores):.2f})" if len(scores) > 1 else "")


def _class_accuracy(runs: list[Record]) -> str | None:
    """Mean over the seeds and the last epochs of the mean of the classes' accuracies."""
    if not all(run["history"].get("class_accuracy") for run in runs):
        return None
    return f"{_mean([100 * _mean(run['history']['class_accuracy'][-LAST:]) for run in runs]):.2f}"


def _verdict(points: float, method: str, is_met: bool) -> Row:
    return {"method": method, "points": f"{points:+.2f}", "is met": "yes" if is_met else "NO"}


# ---------------------------------------------------------------- parts


def grouped(runs: Iterable[Record]) -> dict[tuple[Any, ...], dict[str, list[Record]]]:
    """Runs with at least one epoch by experiment, then by method in the order of METHODS, banks after full batches."""
    groups: dict[tuple[Any, ...], dict[str, list[Record]]] = {}
    order = list(METHODS)

    def place(run: Record) -> tuple[Any, ...]:
        method = method_of(run["identity"]["method"])
        return method.val_refresh or 0, method.val_every, order.index(method.name), run["identity"]["seed"]

    for run in sorted((run for run in runs if run["history"]["accuracy"]), key=place):
        key = tuple(run["identity"][name] for name in GROUP)
        groups.setdefault(key, {}).setdefault(run["identity"]["method"], []).append(run)
    return dict(sorted(groups.items(), key=lambda item: str(item[0])))


def group_title(key: tuple[Any, ...]) -> str:
    """The experiment in words."""
    data, network, shift, n_val, layer, parameters, batch_size = key
    compared = "losses (-L)" if layer == "losses" else f"layer {layer} (-F)"
    return f"{data}, {network}, {shift}, {n_val} validation rows, {compared}, batch {batch_size}, {parameters} parameters"


def last_epochs(runs: list[Record]) -> list[float]:
    """Mean accuracy in percent of the last ten epochs of each run."""
    return [100.0 * _mean(run["history"]["accuracy"][-LAST:]) for run in runs]


def _seconds(runs: list[Record]) -> float | None:
    return statistics.median(s for run in runs for s in run["history"]["seconds"]) if runs else None


def _mean(values: list[float]) -> float:
    return statistics.fmean(values)


def _facts(runs: list[Record]) -> dict[str, str]:
    """The environments of all runs; where they differ, each that was met."""
    facts: dict[str, list[str]] = {}
    for run in runs:
        for key, value in run["environment"].items():
            facts.setdefault(key, [])
            facts[key] += [value] if value not in facts[key] else []
    shown: dict[str, Callable[[list[str]], str]] = {"date": lambda met: " to ".join(sorted({min(met), max(met)}))}
    # A run's own seed, not those of the command that trained it beside others.
    seeds = {"seeds": as_ranges(run["identity"]["seed"] for run in runs)}
    return {key: shown.get(key, " / ".join)(met) for key, met in facts.items() if key != "load average at the start"} | seeds


AIMS_NOTE = "The project's aims of each experiment that has Uniform and an ADIW method; differences of means over the seeds."
ACCURACY_NOTE = (
    f"Mean of the last {LAST} epochs' accuracy on clean test rows, mean and deviation over the seeds: the same seed on another "
    "machine may differ by a point. As good as the best: a paired t-test over the seeds, two-sided at 1 %, does not tell them "
    "apart; with three seeds it seldom does. The paper's: mean and deviation over three trials of 400 epochs, and seconds of an "
    "epoch on its machine. Stopped early: at the epoch that is best on the validation rows. Seconds are medians over epochs of "
    "runs one after another: the cost table compares them in turn."
)
CLASSES_NOTE = (
    "After the last epoch: test rows of classes with so many training rows, where some class has few; and the classes confused "
    "most often."
)
WEIGHTS_NOTE = (
    "Final weights. Off: flipped rows under label noise, rows of large classes under a class-prior shift. AUROC: the weight as a "
    "score of the rows to keep. Effective share: (sum w)^2 / (n sum w^2)."
)
WHOLE_NOTE = (
    "Medians over rounds in each of which all methods take batches in turn, in an order drawn anew; times Uniform: the median of "
    "each round's ratio. On a CPU seconds are those of the process alone. The project's aims: at most 1.10 with the bank, DIW at "
    "least 2."
)
STAGES_NOTE = (
    "Mean milliseconds, one batch a round, with a wait for the device around each stage; so the sum is more than the above."
)
