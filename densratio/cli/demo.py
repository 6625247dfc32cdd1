"""The demo: networks trained on wrong labels, with and without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import plain_errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

__all__ = ["demo"]

_DEFAULT = ("val_only", "uniform", "random", "kmm", "kliep", "lsif", "wasserstein")


def demo(
    noise: Annotated[
        str,
        typer.Option(help="KIND:RATE of the label noise: symmetric, symmetric_inclusive, pair, asymmetric."),
    ] = "symmetric:0.5",
    methods: Annotated[str, typer.Option(help="Methods, separated by commas; or all.")] = ",".join(_DEFAULT),
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 80,
    seeds: Annotated[int, typer.Option(help="Runs of each method, with seeds 0, 1, ...")] = 3,
    data: Annotated[
        str, typer.Option(help="digits, letters:FILE, cifar10:FILE, or cifar10, cifar100, fashion_mnist:FOLDER.")
    ] = "digits",
    device: Annotated[str, typer.Option(help="cpu, cuda or mps.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("densratio-demo"),
) -> None:
    """Train on real data with wrong labels, and see the weights repair it.

    Some clean validation rows are all that the methods know of the right labels; every other training label goes through the noise.

    Prints a table and writes OUT/results.json and OUT/weights.png, and OUT/weighting.png where methods learn a weighting function.
    """
    with plain_errors():
        _demo(noise, methods, epochs, seeds, data, device, out)


def _demo(noise: str, methods: str, epochs: int, seeds: int, data: str, device: str, out: Path) -> None:
    experiment = _experiment()
    import numpy as np
    from rich.console import Console

    from ..datasets import load_labelled
    from ..demo.methods import TITLES, named
    from ..plotting import weight_histograms, weighting_functions

    names = named(methods)
    config = experiment.NoiseExperiment(data=data, noise=noise, methods=names, epochs=epochs, seeds=seeds, device=device)
    # Everything that can fail for a reason outside the training fails before it.
    weight_histograms({"check": np.ones(1)}, {"check": np.zeros(1, dtype=bool)})
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: give a folder.")
    out.mkdir(parents=True, exist_ok=True)
    labeled = load_labelled(data)
    experiment.check_fits(labeled, config)

    console = Console()
    runs: dict[str, list[Any]] = {name: [] for name in names}
    with _progress(console) as progress:
        task = progress.add_task("", total=len(names) * seeds * epochs)
        for seed in range(seeds):
            for name in names:
                progress.update(task, description=f"{TITLES[name]}, seed {seed}")
                runs[name].append(experiment.run_method(name, seed, labeled, config, on_epoch=lambda _: progress.advance(task)))
    results = {name: experiment.summarize(of_method) for name, of_method in runs.items()}
    console.print(_table({TITLES[name]: r for name, r in results.items()}, config))
    (out / "results.json").write_text(json.dumps({"config": config.as_dict(), "methods": results}, indent=2) + "\n")
    figure = weight_histograms(
        {TITLES[name]: runs[name][0].weights for name in names},
        {TITLES[name]: runs[name][0].is_flipped for name in names},
        title=f"Final weights, {config.data.partition(':')[0]}, noise {config.noise}, seed 0",
    )
    figure.savefig(out / "weights.png", dpi=120)
    written = [out / "results.json", out / "weights.png"]
    losses, curves = experiment.weighting_curves({TITLES[name]: runs[name][0] for name in names})
    if curves:
        sizes = ["small classes", "middle classes", "large classes"]
        groups = {name: sizes for name, of_method in curves.items() if len(of_method) == len(sizes)}
        drawn = weighting_functions(losses, curves, groups=groups, title="Learned weighting functions, seed 0")
        drawn.savefig(out / "weighting.png", dpi=120)
        written.append(out / "weighting.png")
    console.print(f"Wrote {', '.join(str(path) for path in written)}.", soft_wrap=True)


def _experiment() -> Any:
    try:
        from ..demo import experiment
    except ImportError as error:
        if error.name != "torch":
            raise
        raise ImportError('The demo trains networks with torch: pip install "densratio-toolkit[torch,plot,cli]"') from None
    return experiment


def _table(results: dict[str, dict[str, float | None]], config: Any) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title=f"{config.data.partition(':')[0]}, noise {config.noise}, {config.epochs} epochs, {config.seeds} seed"
        + ("s" if config.seeds > 1 else ""),
        box=SIMPLE_HEAD,
        # Eight columns fit a terminal of 80.
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"Accuracy: mean of the last {min(10, config.epochs)} epochs on clean test rows, mean ± deviation over the seeds. "
        "AUROC: the weight as a detector of flipped rows. Peak: memory that a batch takes.",
    )
    for heading in (
        "method",
        "accuracy %",
        "weight\nclean",
        "weight\nflipped",
        "AUROC",
        "s per\nepoch",
        "times\nuniform",
        "peak\nMB",
    ):
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True, vertical="bottom")
    base = results.get("Uniform", {}).get("seconds_per_epoch")
    best = max(r["accuracy_mean"] or 0.0 for r in results.values())
    for name, r in results.items():
        seconds = r["seconds_per_epoch"]
        accuracy = f"{100 * (r['accuracy_mean'] or 0.0):.1f} ± {100 * (r['accuracy_std'] or 0.0):.1f}"
        table.add_row(
            name,
            f"[bold]{accuracy}[/bold]" if r["accuracy_mean"] == best else accuracy,
            _cell(r["weight_clean"], 2),
            _cell(r["weight_flipped"], 2),
            _cell(r["auroc"], 3),
            _cell(seconds, 3),
            _cell(seconds / base if base and seconds else None, 2),
            _cell(None if r["peak_memory"] is None else r["peak_memory"] / 1e6, 1),
        )
    return table


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
