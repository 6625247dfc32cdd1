"""Weigh the rows of a table: one weight for each row of the first of two files, with an optional report and picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import check_installed, enumerated, plain_errors, say
from .options import Columns, Decimal, Encoding, Text, Thousands, reading
from .tables import SUFFIXES, open_table, suffix_of

if TYPE_CHECKING:
    from .columns import Choice
    from .estimation import Result

__all__ = ["weights"]

_PAGES = (".html", ".htm")
_PICTURES = (".png", ".svg", ".pdf")


def _path(kind: Any, help: str) -> Any:
    # Files are checked here, with our own messages.
    return kind(help=help, readable=False)


def weights(
    source: Annotated[
        Path, _path(typer.Argument, "The table to weigh, with the training rows: CSV, TSV, Parquet, Feather, JSON, Excel.")
    ],
    target: Annotated[Path, _path(typer.Argument, "The table that the weighted rows should look like: where the model is used.")],
    method: Annotated[
        str,
        typer.Option(
            help="auto, a stack of five quick methods (or kmm, if options of kmm are given); one method (kmm, kliep, lsif, ...; an "
            "unknown name lists all); or stacked, a stack of all methods that suit, in a minute."
        ),
    ] = "auto",
    columns: Columns = None,
    drop: Annotated[list[str] | None, typer.Option(help="Columns to leave out, such as a label, separated by commas.")] = None,
    id: Annotated[
        str | None, typer.Option(help="Column that names the rows of SOURCE: kept in the output, left out of the estimation.")
    ] = None,
    encode: Annotated[
        bool, typer.Option("--encode", help="Turn each text column into columns of 0 and 1, one for each frequent value.")
    ] = False,
    text: Text = None,
    missing: Annotated[
        str | None,
        typer.Option(
            help="Missing values: drop their rows, impute the median or the most frequent value, or indicate them in columns of 0 "
            "and 1. Default: an error that names them."
        ),
    ] = None,
    scale: Annotated[
        bool,
        typer.Option("--scale/--no-scale", help="Scale the columns, whose units may differ, or leave them unscaled."),
    ] = True,
    gamma: Annotated[
        str | None,
        typer.Option(help="Kernel bandwidth: a number in 1 / (scaled units)^2, median, or cv. Default: the method's own."),
    ] = None,
    regularization: Annotated[
        str | None, typer.Option(help="For --method kmm and others: a number, or cv. Default: the method's own.")
    ] = None,
    neighbors: Annotated[str | None, typer.Option(help="For --method nearest_neighbors: a number, auto, many, or cv.")] = None,
    classifier: Annotated[
        str | None, typer.Option(help="For --method discriminator: logistic, forest, boosting, or cv to choose. Default: cv.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="For --method lsif: a relative ratio, bounded by 1 / alpha.")] = None,
    max_weight: Annotated[float | None, typer.Option(help="For --method kmm and others: an upper bound on each weight.")] = None,
    flatten: Annotated[float, typer.Option(help="Power of the ratio: 1 is the ratio itself, 0 gives equal weights.")] = 1.0,
    tame: Annotated[
        str | None, typer.Option(help="Make weights less extreme: pareto, truncate, flatten or overlap. Default: unchanged.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the method's random choices, if it has any.")] = 0,
    decimal: Decimal = ".",
    thousands: Thousands = None,
    encoding: Encoding = None,
    out: Annotated[Path, _path(typer.Option, f"File for the weights: {', '.join(SUFFIXES)}.")] = Path("weights.csv"),
    report: Annotated[Path | None, _path(typer.Option, "HTML report on the effect of the weights, with pictures.")] = None,
    plot: Annotated[Path | None, _path(typer.Option, "Picture of weights and balance: .png, .svg or .pdf.")] = None,
) -> None:
    """Weigh the rows of SOURCE so that they look like the rows of TARGET.

    Writes one weight for each row of SOURCE, in the same order, with mean 1: the density ratio, for a model's sample_weight.

    Both files need the same columns, in any order, except those left out. A label belongs in --drop.

    Existing output files are replaced. If anything fails, nothing is written.
    """
    with plain_errors():
        # Imported here, so that --help does not need numpy.
        from rich.console import Console

        from ..two_step.taming import TAMINGS
        from .codes import declare_codes
        from .columns import check_id, choose, known
        from .estimation import estimator, weigh
        from .files import check_outputs, write_all
        from .output import contents
        from .values import Treatment, cleaned

        needed = {"pandas": "cli", "pyarrow": "cli" * (suffix_of(out) == ".parquet"), "matplotlib": "plot" * (plot is not None)}
        check_installed({module: extra for module, extra in needed.items() if extra})
        gaps = _one_of("--missing", missing, ("drop", "impute", "indicate"))
        how = reading(decimal, thousands, encoding, text, id=id)
        tables = open_table(source, how), open_table(target, how)
        outputs = {"--out": (out, SUFFIXES), "--report": (report, _PAGES), "--plot": (plot, _PICTURES)}
        check_outputs({option: (path, kinds) for option, (path, kinds) in outputs.items() if path}, (source, target))
        if not 0.0 <= flatten <= 1.0:
            raise ValueError(f"--flatten must be between 0 (equal weights) and 1 (the ratio itself); got {flatten:g}.")
        _one_of("--tame", tame, TAMINGS)
        settings = {
            "gamma": gamma, "regularization": regularization, "n_neighbors": neighbors, "classifier": classifier, "alpha": alpha,
            "max_weight": max_weight,
        }  # fmt: skip
        given = {name: value for name, value in settings.items() if value is not None} | ({} if scale else {"scale": None})
        ratio = estimator(method, given, seed)
        check_id(id, tables[0], columns)
        choice = choose(*tables, columns, drop, () if id is None else (id,))
        if text is not None:
            known("--text", text, *tables)
        treatment = Treatment(encode, declare_codes(tables, choice.names), gaps)
        with Console(stderr=True).status("Estimating the weights ..."):
            frames = cleaned(*tables, choice, treatment)
            result = weigh(ratio, frames, flatten, tame, seed, keep=choice.names if choice.left_out is None else ())
            facts = _facts(source, target, result, choice)
            notes = [*tables[0].notes, *tables[1].notes, *frames.notes]
            names = tables[0].read([id]) if id else None
            made = contents(result, names, f"Weights of {source.name} for {target.name}", facts, notes, out, report, plot)
            were_there = [path for path in made if path.exists()]
            write_all(made)
        _summarize(facts, notes, result, [f"{path} (replaced)" if path in were_there else str(path) for path in made])


def _one_of(option: str, given: str | None, known: tuple[str, ...]) -> str | None:
    if given is not None and given not in known:
        raise ValueError(f"{option} is one of {', '.join(known)}; got '{given}'.")
    return given


def _facts(source: Path, target: Path, result: Result, choice: Choice) -> dict[str, str]:
    """The first facts of the summary and the report: the method, the tables, and what was done to their columns."""
    facts = {
        "method": result.method,
        "source": f"{source}, {len(result.weights):,} rows",
        "target": f"{target}, {result.report.n_target:,} rows",
        "columns": f"{len(choice.names)}: {enumerated(choice.names)}",
    }
    if choice.left_out:
        facts["left out"] = enumerated(choice.left_out)
    # Plain numbers are unchanged.
    return facts | {f"column '{use.name}'": use.treatment for use in result.columns if use.treatment != "numbers"}


def _summarize(facts: dict[str, str], notes: list[str], result: Result, written: list[str]) -> None:
    report = result.report
    facts = facts | {
        "effective sample size": f"{report.effective_sample_size:,.1f} rows, {100.0 * report.effective_share:.1f} % of the source",
        "largest weight": f"{report.largest_weight:,.2f}, {100.0 * report.largest_share:.2g} % of the total weight",
    }
    for name, value in facts.items():
        say(name, value, width=22)
    for sentence in notes:
        say("note", sentence)
    for sentence in result.warnings:
        say("warning", sentence, "bold yellow")
    say("", f"Wrote {enumerated(written)}.")
