"""Real labelled data by name: scikit-learn's digits, UCI letters from a CSV file, CIFAR-10 from an archive of JPEG bytes."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LOADERS", "Labelled", "load_cifar10", "load_digits", "load_labelled", "load_letters"]


class Labelled(NamedTuple):
    """inputs (n, ...) float32, images as (n, channels, height, width); labels (n,) int64; class names (K,).

    test: inputs and labels of the data's own test set, None where it has none.
    """

    inputs: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    test: tuple[np.ndarray, np.ndarray] | None = None


def load_digits() -> Labelled:
    """1,797 handwritten digits (1, 8, 8) in [0, 1], bundled with scikit-learn."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    return Labelled(images, data.target.astype(np.int64), [str(c) for c in data.target_names])


def load_letters(path: str | Path) -> Labelled:
    """UCI letter recognition: a CSV with a header, the letter and then 16 measurements, here scaled to mean 0 and deviation 1."""
    with open(path, newline="") as file:
        header, *rows = [row for row in csv.reader(file) if row] or [[]]
    wrong = [n for n, row in enumerate(rows, start=2) if len(row) != 17]
    if len(header) != 17 or not rows or wrong:
        where = f"row {wrong[0]} has {len(rows[wrong[0] - 2])}" if wrong else f"the header has {len(header)}"
        raise ValueError(f"{path} is not the letters file: expected the letter and 16 columns in every row; {where}.")
    names = sorted({row[0] for row in rows})
    try:
        values = np.array([row[1:] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path} holds something that is not a number among the measurements: {error}") from None
    if not np.all(np.isfinite(values)):
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise ValueError(
            f"{path} holds {values[row, column]}, not a finite number, in row {row + 2}, column {header[column + 1]!r}."
        )
    spread = values.std(axis=0)
    values = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    labels = np.searchsorted(names, [row[0] for row in rows])
    return Labelled(values.astype(np.float32), labels.astype(np.int64), names)


def load_cifar10(path: str | Path) -> Labelled:
    """CIFAR-10 from an .npz of JPEG bytes: {train,test}_{jpeg,offsets,labels} and class_names; images (3, 32, 32) in [0, 1].

    `*_jpeg` (bytes,) uint8 holds the files end to end and `*_offsets` (n + 1,) where each starts.
    """
    try:
        archive = np.load(path)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an .npz archive: {error}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"{path} holds one array; expected an .npz archive of several.")
    with archive:
        wanted = ["class_names", *(f"{part}_{key}" for part in ("train", "test") for key in ("jpeg", "offsets", "labels"))]
        missing = [key for key in wanted if key not in archive]
        if missing:
            raise ValueError(f"{path} is not the CIFAR-10 archive: it lacks {missing}.")
        names = [str(name) for name in archive["class_names"]]
        train, test = (_images_and_labels(archive, part, path) for part in ("train", "test"))
    return Labelled(*train, names, test)


LOADERS: dict[str, Callable[..., Labelled]] = {"digits": load_digits, "letters": load_letters, "cifar10": load_cifar10}


def load_labelled(spec: str) -> Labelled:
    """Data named digits, letters:FILE or cifar10:FILE. Raises ValueError or FileNotFoundError in plain words."""
    name, _, path = spec.partition(":")
    if name not in LOADERS:
        raise ValueError(f"Data {spec!r} is not known; use digits, letters:FILE or cifar10:FILE.")
    if name == "digits":
        if path:
            raise ValueError("digits comes with scikit-learn and takes no file.")
        return load_digits()
    if not path:
        raise ValueError(f"{name} needs its file: {name}:FILE.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    return LOADERS[name](path)


def _images_and_labels(archive: Any, part: str, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    labels = archive[f"{part}_labels"].astype(np.int64)
    try:
        images = _decode(archive[f"{part}_jpeg"], archive[f"{part}_offsets"])
    except OSError as error:
        raise ValueError(f"{path}: a {part} image is not a JPEG file: {error}") from None
    if len(images) != len(labels):
        raise ValueError(f"{path} has {len(images)} {part} images and {len(labels)} labels.")
    return images, labels


def _decode(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Images (n, 3, height, width) float32 in [0, 1] of JPEG files end to end."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('Reading JPEG images needs Pillow: pip install "densratio-toolkit[plot]"') from None
    buffer = data.tobytes()
    images = [np.asarray(Image.open(io.BytesIO(buffer[a:b])).convert("RGB")) for a, b in pairwise(offsets)]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
