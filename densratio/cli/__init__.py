"""The command line: arguments, tables, a progress bar and files around the library; one file per command."""

from __future__ import annotations

from typing import Annotated

import typer

from .._version import __version__
from . import demo, labels, train, weights

__all__ = ["app"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Density ratios and importance weights."
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def densratio(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Density ratios and importance weights."""


app.command()(demo.demo)
app.command()(weights.weights)
app.command()(labels.labels)
app.command()(train.train)
