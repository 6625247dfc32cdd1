"""What every command shares: errors in one plain line, and names as a phrase."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

__all__ = ["enumerated", "plain_errors", "quoted"]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Mistakes in the input end in one line on standard error and exit status 2, not in a traceback."""
    try:
        yield
    except (ValueError, ImportError, OSError, MemoryError) as error:
        from rich.console import Console
        from rich.markup import escape

        # A list of names, or an extra in brackets such as [cli], is no markup.
        text = escape(" ".join(_words(error).splitlines()))
        Console(stderr=True).print(f"[bold red]error:[/bold red] {text}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None


def enumerated(things: Sequence[object], limit: int = 8) -> str:
    """Things as one phrase: 3, 8 and 12; past `limit` of them the rest is counted."""
    words = [str(thing) for thing in things[:limit]]
    if len(things) > limit:
        words.append(f"{len(things) - limit} more")
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def quoted(names: Sequence[str], limit: int = 8) -> str:
    """Names as one phrase: 'a', 'b' and 3 more."""
    return enumerated([f"'{name}'" for name in names], limit)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}."
    return str(error) or f"{type(error).__name__}."
