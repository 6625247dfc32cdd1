"""Real labelled data by name: scikit-learn's digits, UCI letters from a CSV file, CIFAR-10 from an archive of JPEG bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

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
        header, *rows = list(csv.reader(file))
    if len(header) != 17 or not rows:
        raise ValueError(f"{path} is not the letters file: expected the letter and 16 columns; the header has {len(header)}.")
    names = sorted({row[0] for row in rows})
    try:
        values = np.array([row[1:] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path} holds something that is not a number among the measurements: {error}") from None
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
    except ValueError as error:
        raise ValueError(f"{path} is not an .npz archive: {error}") from None
    with archive:
        missing = [
            f"{part}_{key}" for part in ("train", "test") for key in ("jpeg", "offsets", "labels") if f"{part}_{key}" not in archive
        ]
        if missing:
            raise ValueError(f"{path} is not the CIFAR-10 archive: it lacks {missing}.")
        train, test = (
            (_decode(archive[f"{part}_jpeg"], archive[f"{part}_offsets"]), archive[f"{part}_labels"].astype(np.int64))
            for part in ("train", "test")
        )
        names = [str(name) for name in archive["class_names"]]
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


def _decode(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('Reading JPEG images needs Pillow: pip install "densratio-toolkit[plot]"') from None
    buffer = data.tobytes()
    images = [np.asarray(Image.open(io.BytesIO(buffer[start:stop])).convert("RGB")) for start, stop in pairwise(offsets)]
    return np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255.0
