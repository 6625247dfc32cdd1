"""The weights of a table's rows: two files in, one weight a row of the first out, with a report and a picture if wanted."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import enumerated, plain_errors
from .tables import SUFFIXES, open_table, suffix_of

if TYPE_CHECKING:
    from .estimation import Result

__all__ = ["weights"]

_PAGES = (".html", ".htm")
_PICTURES = (".png", ".svg", ".pdf")


def _path(kind: Any, help: str) -> Any:
    # The checks of files are ours, and their words too.
    return kind(help=help, readable=False)


def weights(
    source: Annotated[Path, _path(typer.Argument, "The table to weigh, the training rows: CSV, TSV (also .gz) or Parquet.")],
    target: Annotated[Path, _path(typer.Argument, "The table that the weighted rows should look like: where the model is used.")],
    method: Annotated[str, typer.Option(help="The estimator: kmm, kliep, lsif, ...; a wrong name lists all.")] = "kmm",
    columns: Annotated[str | None, typer.Option(help="Columns to use, separated by commas. Default: all.")] = None,
    drop: Annotated[str | None, typer.Option(help="Columns to leave out, such as a label, separated by commas.")] = None,
    encode: Annotated[
        bool, typer.Option("--encode", help="Turn each text column into columns of 0 and 1, one for each value (up to 100).")
    ] = False,
    scale: Annotated[
        bool,
        typer.Option(
            "--scale/--no-scale",
            help="Bring each column to mean 0 and deviation 1 over both files, since units differ; the 0 and 1 of --encode stay.",
        ),
    ] = True,
    gamma: Annotated[
        str | None,
        typer.Option(help="Kernel bandwidth: a number in 1 / (scaled units)^2, median, or cv. Default: the method's own."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the method's random choices, where it has any.")] = 0,
    decimal: Annotated[str, typer.Option(help="Character before the decimals in CSV files: . or ,")] = ".",
    out: Annotated[Path, _path(typer.Option, f"File for the weights: {', '.join(SUFFIXES)}.")] = Path("weights.csv"),
    report: Annotated[Path | None, _path(typer.Option, "HTML page on what the weights do, with the picture of --plot.")] = None,
    plot: Annotated[Path | None, _path(typer.Option, "Picture of weights and balance: .png, .svg or .pdf.")] = None,
) -> None:
    """Weigh the rows of SOURCE so that they look like the rows of TARGET.

    Writes one weight for each row of SOURCE, in its order, of mean 1: the density ratio, for a model's sample_weight.

    Both files need the same columns, in any order, save those left out. A label belongs in --drop.

    Output files that are there already are replaced. If anything fails, nothing is written.
    """
    with plain_errors():
        # What only a run needs is loaded here: --help answers without numpy.
        from rich.console import Console

        from .columns import choose
        from .estimation import estimator, weigh
        from .files import check_outputs, write_all
        from .values import numbers

        _check_extras(out, plot)
        tables = open_table(source, decimal=_decimal(decimal)), open_table(target, decimal=decimal)
        outputs = {"--out": (out, SUFFIXES), "--report": (report, _PAGES), "--plot": (plot, _PICTURES)}
        check_outputs({option: (path, kinds) for option, (path, kinds) in outputs.items() if path}, (source, target))
        ratio = estimator(method, gamma, seed)
        choice = choose(*tables, columns, drop)
        with Console(stderr=True).status("Estimating the weights ..."):
            result = weigh(ratio, *numbers(*tables, choice, encode=encode), scales=scale)
            writers = _writers(result, f"Weights of {source.name} for {target.name}", out, report, plot)
            were_there = [path for path in writers if path.exists()]
            write_all(writers)
        facts = {
            "method": " ".join([method, *(f"{name}={_short(value)}" for name, value in result.found.items())]),
            "source": f"{source}, {result.report.n_source:,} rows",
            "target": f"{target}, {result.report.n_target:,} rows",
            "columns": f"{len(choice.names)}: {enumerated(choice.names)}",
        }
        _summarize(facts, result, [f"{path} (replaced)" if path in were_there else str(path) for path in writers])


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _decimal(text: str) -> str:
    if text not in (".", ","):
        raise ValueError(f"--decimal is . or , and not '{text}'.")
    return text


def _check_extras(out: Path, plot: Path | None) -> None:
    """What is not installed is known before the estimation."""
    needed = {"pandas": "cli"}
    if suffix_of(out) == ".parquet":
        needed["pyarrow"] = "cli"
    if plot is not None:
        needed["matplotlib"] = "plot"
    for module, extra in needed.items():
        if find_spec(module) is None:
            raise ImportError(f'This needs {module}: pip install "densratio-toolkit[{extra}]"')


def _writers(result: Result, title: str, out: Path, report: Path | None, plot: Path | None) -> dict[Path, Callable[[Path], None]]:
    writers: dict[Path, Callable[[Path], None]] = {out: partial(_write_weights, result)}
    pictures = {}
    if plot is not None:
        figure = _figure(result)
        pictures["Weights, and balance of the columns"] = _png(figure)
        writers[plot] = partial(figure.savefig, dpi=120)
    if report is not None:
        writers[report] = partial(_write_text, result.report.to_html(title=title, pictures=pictures))
    return writers


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def _write_weights(result: Result, path: Path) -> None:
    from pandas import DataFrame

    frame = DataFrame({"weight": result.weights})
    suffix = suffix_of(path) or ""
    if suffix == ".parquet":
        frame.to_parquet(path, index=False)
        return
    # No date in the compressed file: the same tables give the same bytes.
    compression: Any = {"method": "gzip", "mtime": 0} if suffix.endswith(".gz") else None
    frame.to_csv(path, index=False, sep="\t" if suffix.startswith(".tsv") else ",", compression=compression)


def _figure(result: Result) -> Any:
    from matplotlib.figure import Figure

    from ..plotting import BalanceDisplay, WeightsDisplay

    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    WeightsDisplay.from_predictions(result.weights, ax=left)
    BalanceDisplay.from_report(result.report, ax=right)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _summarize(facts: dict[str, str], result: Result, written: list[str]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console, report = Console(), result.report
    facts = facts | {
        "effective sample size": f"{report.effective_sample_size:,.1f} rows, {report.effective_share:.1%} of the source",
        "largest weight": f"{report.largest_weight:,.2f}, {100.0 * report.largest_share:.2g}% of the total weight",
    }
    for name, value in facts.items():
        console.print(f"[bold]{name:<22}[/bold] {escape(value)}", soft_wrap=True, highlight=False)
    for sentence in result.warnings:
        console.print(f"[bold yellow]warning:[/bold yellow] {escape(sentence)}", soft_wrap=True, highlight=False)
    console.print(f"Wrote {escape(enumerated(written))}.", soft_wrap=True, highlight=False)
