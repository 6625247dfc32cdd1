"""The demo: networks trained on wrong labels, with and without weights."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import check_installed, plain_errors, say

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["demo"]

_DEFAULT = ("val_only", "uniform", "random", "kmm", "kliep", "lsif", "wasserstein")
_HEADINGS = ("method", "accuracy %", "weight\nclean", "weight\nflipped", "AUROC", "s per\nepoch", "times\nuniform", "peak\nMB")


def demo(
    noise: Annotated[
        str, typer.Option(help="KIND:RATE of the label noise: symmetric, symmetric_inclusive, pair, asymmetric.")
    ] = "symmetric:0.5",
    methods: Annotated[str, typer.Option(help="Methods, separated by commas; or all.")] = ",".join(_DEFAULT),
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 80,
    seeds: Annotated[int, typer.Option(help="Runs of each method, with seeds 0, 1, ...")] = 3,
    data: Annotated[
        str, typer.Option(help="digits, letters:FILE, cifar10:FILE, time_series:FILE, or cifar10, cifar100, fashion_mnist:FOLDER.")
    ] = "digits",
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("densratio-demo"),
) -> None:
    """Train on real data with wrong labels, and see the weights repair it.

    The methods know the right labels of a few clean validation rows only; all other training labels go through the noise.

    Prints a table and writes OUT/results.json and OUT/weights.png, and OUT/weighting.png if a method learns a weighting function.
    """
    with plain_errors():
        _demo(noise, methods, epochs, seeds, data, device, out)


def _demo(noise: str, methods: str, epochs: int, seeds: int, data: str, device: str, out: Path) -> None:
    check_installed({"torch": "torch,plot,cli"}, "The demo trains networks with")
    import numpy as np
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..datasets import load_labelled
    from ..demo import experiment
    from ..plotting import weight_histograms
    from ..training.registry import keys_of, title_of
    from .files import write_all
    from .output import drawn

    names = keys_of(methods)
    config = experiment.NoiseExperiment(data=data, noise=noise, methods=names, epochs=epochs, seeds=seeds, device=device)
    # Everything that can fail outside the training fails before it.
    weight_histograms({"check": np.ones(1)}, {"check": np.zeros(1, dtype=bool)})
    labeled = load_labelled(data)
    experiment.split_rows(labeled, config, seed=0)
    _check_folder(out)

    runs: dict[str, list[Any]] = {name: [] for name in names}
    console = Console(stderr=True)
    columns = TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(names) * seeds * epochs)
        for number, (seed, name) in enumerate(product(range(seeds), names), start=1):
            title, start = f"{title_of(name)}, seed {seed}", time.perf_counter()
            bar.update(task, description=title)
            run = experiment.run_method(name, seed, labeled, config, on_epoch=lambda _: bar.advance(task))
            runs[name].append(run)
            if not console.is_terminal:
                seconds = time.perf_counter() - start
                typer.echo(
                    f"{number} of {len(names) * seeds}: {title}, accuracy {100.0 * run.accuracy[-1]:.1f} %, {seconds:.0f} s",
                    err=True,
                )
    results = {name: experiment.summarize(of_method) for name, of_method in runs.items()}
    console = Console()
    console.print(_table({title_of(name): r for name, r in results.items()}, config))
    text = json.dumps({"config": asdict(config), "methods": results}, indent=2) + "\n"
    pictures = _pictures({title_of(name): runs[name][0] for name in names}, config)
    contents = {out / "results.json": text.encode()} | {out / name: drawn(figure, "png") for name, figure in pictures.items()}
    write_all(contents)
    say("", f"Wrote {', '.join(map(str, contents))}.")


def _check_folder(out: Path) -> None:
    """Make the folder. Raises ValueError or OSError if results could not be written there."""
    from .files import check_outputs

    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    names = ("results.json", "weights.png", "weighting.png")
    check_outputs({f"{name} of --out:": (out / name, (Path(name).suffix,)) for name in names}, ())


def _pictures(first: dict[str, Any], config: Any) -> dict[str, Any]:
    """Figures of the first run of each method, by file name."""
    from ..demo.experiment import weighting_curves
    from ..plotting import weight_histograms, weighting_functions

    figures = {
        "weights.png": weight_histograms(
            {name: run.weights for name, run in first.items()},
            {name: run.is_flipped for name, run in first.items()},
            title=f"Final weights, {config.data.partition(':')[0]}, noise {config.noise}, seed 0",
        )
    }
    losses, curves = weighting_curves(first)
    if curves:
        sizes = ["small classes", "middle classes", "large classes"]
        groups = {name: sizes for name, of_method in curves.items() if len(of_method) == len(sizes)}
        figures["weighting.png"] = weighting_functions(losses, curves, groups=groups, title="Learned weighting functions, seed 0")
    return figures


def _table(results: dict[str, dict[str, float | None]], config: Any) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    title = f"{config.data.partition(':')[0]}, noise {config.noise}, {config.epochs} epochs"
    deviation = ", mean ± deviation over the seeds" if config.seeds > 1 else ""
    table = Table(
        title=f"{title}, {config.seeds} seeds" if config.seeds > 1 else f"{title}, 1 seed",
        box=SIMPLE_HEAD,
        # Eight columns fit a terminal of width 80.
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"Accuracy: mean of the last {min(10, config.epochs)} epochs on clean test rows{deviation}. "
        "AUROC: the weight as a detector of flipped rows. Peak: memory of a batch.",
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True, vertical="bottom")
    base = results.get("Uniform", {}).get("seconds_per_epoch")
    best = max(r["accuracy_mean"] or 0.0 for r in results.values())
    for name, r in results.items():
        accuracy = " ± ".join(_cell(r[key], 1, 100.0) for key in ("accuracy_mean", "accuracy_std") if r[key] is not None)
        cells = [_cell(r[key], digits) for key, digits in (("weight_clean", 2), ("weight_flipped", 2), ("auroc", 3))]
        cells += [_cell(r["seconds_per_epoch"], 3), _cell(r["seconds_per_epoch"] if base else None, 2, 1.0 / (base or 1.0))]
        bold = f"[bold]{accuracy}[/bold]" if r["accuracy_mean"] == best else accuracy
        table.add_row(name, bold, *cells, _cell(r["peak_memory"], 1, 1e-6))
    return table


def _cell(value: float | None, digits: int, scale: float = 1.0) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"
