"""Output files, written all or none: first beside their places under passing names, then renamed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["check_outputs", "write_all"]


def check_outputs(outputs: Mapping[str, tuple[Path, tuple[str, ...]]], inputs: tuple[Path, ...]) -> None:
    """Raises ValueError for an output that could not be written, or that would overwrite an input or another output.

    outputs : option -> (path, the suffixes that it may have).
    """
    seen: dict[Path, str] = {}
    for option, (path, suffixes) in outputs.items():
        if not path.name.lower().endswith(suffixes):
            raise ValueError(f"{option} {path} must end in {' or '.join(suffixes)}.")
        folder = path.parent
        if not folder.is_dir():
            raise ValueError(f"{option} {path}: the folder {folder} does not exist.")
        if path.exists() and not path.is_file():
            raise ValueError(f"{option} {path} is a folder or a device: name a file.")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{option} {path}: no permission to write in the folder {folder}.")
        if any(_is_same_file(path, given) for given in inputs):
            raise ValueError(f"{option} {path} is one of the two tables, which are never overwritten: name another file.")
        place = path.resolve()
        if place in seen:
            raise ValueError(f"{option} and {seen[place]} name the same file, {path}.")
        seen[place] = option


def write_all(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Call each writer with a path beside its own and, once all have succeeded, put the files in their places.

    Whatever fails, the folders are as they were: new files are removed and replaced ones come back.
    """
    token = secrets.token_hex(4)
    # A link stays one: the file behind it is replaced.
    places = [path.resolve() for path in writers]
    fresh = [_beside(place, f"{token}-{i}") for i, place in enumerate(places)]
    kept = [_beside(place, f"{token}-{i}-old") for i, place in enumerate(places)]
    placed: list[int] = []
    try:
        for place, new, old, write in zip(places, fresh, kept, writers.values(), strict=True):
            write(new)
            if place.exists():
                shutil.copymode(place, new)
                shutil.copy2(place, old)
        for i, (place, new) in enumerate(zip(places, fresh, strict=True)):
            os.replace(new, place)
            placed.append(i)
    except BaseException:
        for i in placed:
            if kept[i].exists():
                os.replace(kept[i], places[i])
            else:
                places[i].unlink()
        raise
    finally:
        for leftover in (*fresh, *kept):
            with suppress(FileNotFoundError):
                leftover.unlink()


def _beside(place: Path, token: str) -> Path:
    # Writers tell the format from the suffix; the name itself may be too long to be lengthened.
    return place.with_name(f".densratio-{token}{''.join(place.suffixes[-2:])}")


def _is_same_file(one: Path, other: Path) -> bool:
    return (one.exists() and other.exists() and one.samefile(other)) or one.resolve() == other.resolve()
