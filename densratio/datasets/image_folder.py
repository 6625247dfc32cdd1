"""Images in folders by class, as torchvision's ImageFolder has them: FOLDER/CLASS/image.png."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["ImageFolder", "load_image_folder"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class ImageFolder(NamedTuple):
    """inputs (n, c, h, w) float32 in [0, 1], labels (n,) the names of the folders, and the files (n,)."""

    inputs: np.ndarray
    labels: np.ndarray
    files: list[Path]


def load_image_folder(folder: str | Path, size: int | None = None) -> ImageFolder:
    """Images of FOLDER/CLASS, in the order of their paths, folders within included; one channel where all are gray, else three.

    size: all are brought to (size, size); None: all must have one size. Needs Pillow.
    Raises ValueError for a folder without images in folders, a broken image, or images of several sizes.
    """
    root = Path(folder)
    files = sorted(path for path in root.glob("*/**/*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    if not files:
        raise ValueError(f"{root} has no images in folders by class, such as {root}/cat/1.png; known are {', '.join(_SUFFIXES)}.")
    images = [_read(path, size) for path in files]
    mode = "L" if all(image.mode in ("1", "L") for image in images) else "RGB"
    pixels = [np.asarray(image.convert(mode), dtype=np.float32) / 255.0 for image in images]
    odd = next((i for i, image in enumerate(pixels) if image.shape != pixels[0].shape), None)
    if odd is not None:
        first, other = (f"{files[i]} has {images[i].width} x {images[i].height} pixels" for i in (0, odd))
        raise ValueError(f"Images must be of one size: {first}, {other}. Bring all to one: size=32, or --size 32.")
    stacked = np.stack(pixels)
    inputs = stacked[:, None] if mode == "L" else stacked.transpose(0, 3, 1, 2)
    return ImageFolder(np.ascontiguousarray(inputs), np.array([path.relative_to(root).parts[0] for path in files]), files)


def _read(path: Path, size: int | None) -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('Reading images needs Pillow: pip install "densratio-toolkit[plot]"') from None
    if size is not None and size < 1:
        raise ValueError(f"size must be a number of pixels >= 1, or None; got {size}.")
    try:
        image = Image.open(path)
        image.load()
    except OSError as error:
        raise ValueError(f"{path} is not an image: {error}") from None
    return image if size is None else image.resize((size, size))
