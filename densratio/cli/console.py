"""Shared by all commands: errors in one plain line, names as a phrase, and text without control characters."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import typer

__all__ = ["check_installed", "enumerated", "plain_errors", "printable", "quoted", "say"]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Report mistakes in the input as one line on standard error with exit status 2, not as a traceback.

    A request to stop (SIGTERM, a closed terminal) raises an exception, so that no partial output is left.
    """
    handlers = {number: signal.signal(number, _stop) for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))}
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, ImportError, OSError, MemoryError) as error:
        say("error", _words(error), "bold red", stderr=True)
        raise typer.Exit(2) from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_installed(needed: Mapping[str, str], this: str = "This needs") -> None:
    """Raise ImportError for a missing module. needed: module -> the extras that install it. this: the start of the message."""
    for module, extras in needed.items():
        if find_spec(module) is None:
            raise ImportError(f'{this} {module}: pip install "densratio-toolkit[{extras}]"')


def say(label: str, text: str, style: str = "bold", *, width: int = 0, stderr: bool = False) -> None:
    """Print one line without wrapping: a label in a style, and a text without markup."""
    from rich.console import Console
    from rich.text import Text

    colon = "" if width else ":"
    line = Text.assemble((f"{label:<{width}}{colon}" if label else "", style), " " if label else "", printable(text))
    Console(stderr=stderr).print(line, highlight=False, soft_wrap=True)


def printable(text: str) -> str:
    r"""Text with control characters written out: an escape character as \x1b."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def enumerated(things: Sequence[object], limit: int = 8) -> str:
    """Things as one phrase: 3, 8 and 12; above `limit` of them the rest is counted."""
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
    message = re.sub(r'\bdevice="(.*?)"', r"--device \1", " ".join(str(error).splitlines()))
    return message or f"{type(error).__name__}."


def _stop(number: int, _: Any) -> None:
    raise SystemExit(128 + number)
