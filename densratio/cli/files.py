"""Output files, all written or none: first under temporary names in the same folders, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["check_outputs", "write_all"]

_PASSING = ".densratio-"  # start of the temporary names
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to a killed process


def check_outputs(outputs: Mapping[str, tuple[Path, tuple[str, ...]]], inputs: tuple[Path, ...]) -> None:
    """Raise ValueError for an output that could not be written, or that would overwrite an input or another output.

    outputs : option -> (path, allowed suffixes).
    """
    seen: dict[Path, str] = {}
    for option, (path, suffixes) in outputs.items():
        if not path.name.lower().endswith(suffixes):
            raise ValueError(f"{option} {path} must end in {' or '.join(suffixes)}.")
        place = _place(path, option)
        folder = place.parent
        if not folder.is_dir():
            raise ValueError(f"{option} {path}: the folder {folder if path.is_symlink() else path.parent} does not exist.")
        if place.exists() and not place.is_file():
            raise ValueError(f"{option} {path} is a folder or a device: name a file.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{option} {path}: no permission to write in the folder {folder}.")
        if any(given.exists() and (place == given.resolve() or (place.exists() and place.samefile(given))) for given in inputs):
            raise ValueError(f"{option} {path} is one of the two tables, which are never overwritten: name another file.")
        if place in seen:
            raise ValueError(f"{option} and {seen[place]} name the same file, {path}.")
        seen[place] = option


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write all files or, if anything fails, none.

    Files are renamed to their final names only after all are written, so nobody reads a partial file. Files that a killed process
    left in the same folders more than an hour ago are deleted.
    """
    places = [path.resolve() for path in contents]
    fresh = [place.with_name(f"{_PASSING}{secrets.token_hex(6)}") for place in places]
    old = [place.read_bytes() if place.exists() else None for place in places]
    placed: list[int] = []
    for left in {left for place in places for left in place.parent.glob(f"{_PASSING}*")}:
        with contextlib.suppress(OSError):  # it may be another user's, or gone
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
    try:
        for place, new, content in zip(places, fresh, contents.values(), strict=True):
            new.write_bytes(content)
            if place.exists():
                shutil.copymode(place, new)
        for i, (place, new) in enumerate(zip(places, fresh, strict=True)):
            placed.append(i)
            os.replace(new, place)
    except BaseException:
        for place, before in [(places[i], old[i]) for i in placed]:
            if before is None:
                place.unlink(missing_ok=True)
            elif place.read_bytes() != before:
                place.write_bytes(before)
        raise
    finally:
        for leftover in fresh:
            leftover.unlink(missing_ok=True)


def _place(path: Path, option: str) -> Path:
    try:
        path.stat()
    except OSError as error:
        # From Python 3.13 on resolve() raises no error for this.
        if error.errno == errno.ELOOP:
            raise ValueError(f"{option} {path} is a link that leads back to itself: name another file.") from None
    return path.resolve()
