"""Readers of published image data sets in torchvision's folder layout: CIFAR pickles and IDX arrays."""

from __future__ import annotations

import gzip
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["home_of", "read_cifar", "read_idx", "read_names"]

# The callables that unpickle numpy arrays. Others are refused, since a pickle could run arbitrary code.
_HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
_IDX_BYTES = 0x08  # the IDX code of unsigned bytes
_BROKEN = (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError)


def read_cifar(folder: Path, batches: list[str], label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) int64 of the pickled batches, concatenated.

    Raises FileNotFoundError for a missing file, ValueError for one that is not a CIFAR batch.
    """
    parts = [_cifar_batch(folder / name, label_key) for name in batches]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def read_names(path: Path, key: str) -> list[str]:
    """Class names of a CIFAR `meta` file."""
    meta = _unpickled(path)
    if key not in meta:
        raise ValueError(f"{path} is not the CIFAR file of class names: it lacks {key!r}.")
    return [str(name) for name in meta[key]]


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an IDX file, `path` itself or `path`.gz. Raises FileNotFoundError or ValueError."""
    zipped = path.with_name(path.name + ".gz")
    if not path.is_file() and not zipped.is_file():
        raise FileNotFoundError(f"There is no file {path}, nor {zipped.name} next to it.")
    try:
        content = path.read_bytes() if path.is_file() else gzip.decompress(zipped.read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{zipped} is not a gzip file: {error}") from None
    name = path if path.is_file() else zipped
    if len(content) < 4 or content[:3] != bytes([0, 0, _IDX_BYTES]):
        raise ValueError(f"{name} is not an IDX file of bytes: it begins with {content[:4].hex() or 'nothing'}.")
    head = 4 + 4 * content[3]
    if len(content) < head:
        raise ValueError(f"{name} is cut off in its first {head} bytes.")
    shape = struct.unpack(f">{content[3]}I", content[4:head])
    if len(content) - head != int(np.prod(shape)):
        raise ValueError(f"{name} should hold {shape} bytes and holds {len(content) - head}.")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)


def home_of(path: str | Path, names: tuple[str, ...], first: str) -> Path:
    """The folder with the file `first` (or first.gz): `path`, or `path` extended by some or all of the folders `names`."""
    candidates = [Path(path, *names[i:]) for i in range(len(names) + 1)]
    return next((home for home in candidates if any(home.glob(first + "*"))), candidates[0])


def _cifar_batch(path: Path, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    batch = _unpickled(path)
    missing = [key for key in ("data", label_key) if key not in batch]
    if missing:
        raise ValueError(f"{path} is not a CIFAR batch: it lacks {missing}.")
    images, labels = np.asarray(batch["data"]), np.asarray(batch[label_key], dtype=np.int64)
    if images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
        raise ValueError(f"{path} should hold 3,072 bytes for each image; got {images.dtype} of shape {images.shape}.")
    if len(images) != len(labels):
        raise ValueError(f"{path} has {len(images)} images and {len(labels)} labels.")
    return images.reshape(-1, 3, 32, 32), labels


def _unpickled(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    with open(path, "rb") as file:
        try:
            content = _ArraysOnly(file, encoding="latin1").load()
        except _BROKEN as error:
            raise ValueError(f"{path} is not a pickle of arrays: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} should hold a dict; got {type(content).__name__}.")
    # Python 2 pickles may have bytes as keys.
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, text and numpy arrays, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it calls {module}.{name}, which no array needs")
        return super().find_class(module, name)
