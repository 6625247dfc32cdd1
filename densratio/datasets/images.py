"""Loaders of real labeled data: digits of scikit-learn, UCI letters in a CSV file, images in archives and folders, time series."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._names import did_you_mean
from .folders import home_of, read_cifar, read_idx, read_names

__all__ = [
    "LOADERS",
    "ImageFolder",
    "Labelled",
    "load_cifar10",
    "load_cifar10n",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_image_folder",
    "load_labelled",
    "load_letters",
    "load_time_series",
]

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


class Labelled(NamedTuple):
    """inputs (n, ...) float32, images as (n, channels, height, width); labels (n,) int64; class names (K,).

    test: inputs and labels of the data set's own test split, None if it has none.
    outside: inputs (m, ...) of classes that are not among the labels, None if there are none.
    given: other labels (n,) that people gave to the same rows, by the name of the set; None if there are none.
    """

    inputs: np.ndarray
    labels: np.ndarray
    class_names: list[str]
    test: tuple[np.ndarray, np.ndarray] | None = None
    given: dict[str, np.ndarray] | None = None
    outside: np.ndarray | None = None


def load_digits() -> Labelled:
    """1,797 handwritten digits (1, 8, 8) in [0, 1], bundled with scikit-learn."""
    from sklearn.datasets import load_digits as load

    data = load()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    return Labelled(images, data.target.astype(np.int64), [str(c) for c in data.target_names])


def load_letters(path: str | Path) -> Labelled:
    """UCI letter recognition: a CSV with a header, the letter and 16 measurements, scaled to mean 0 and standard deviation 1."""
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
    """CIFAR-10 from a folder with cifar-10-batches-py, or from an .npz of JPEG bytes; images (3, 32, 32) in [0, 1].

    The archive has {train,test}_{jpeg,offsets,labels} and class_names: `*_jpeg` (bytes,) uint8 holds the concatenated files and
    `*_offsets` (n + 1,) the start of each.
    """
    if Path(path).is_dir():
        home = home_of(path, ("cifar-10-batches-py",), "data_batch_1")
        return _cifar(home, [f"data_batch_{i}" for i in range(1, 6)], "test_batch", "labels", ("batches.meta", "label_names"))
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


def load_cifar10n(path: str | Path) -> dict[str, np.ndarray]:
    """Human labels (50000,) int64 of CIFAR-10's training rows by name, "worse" or "aggre" among them, from an .npz of arrays.

    Raises ValueError if an array does not hold labels of these rows. Source: Wei et al. (2022), Learning with noisy labels
    revisited.
    """
    with np.load(path) as archive:
        sets = {name: archive[name] for name in archive.files if name != "original_position"}
    wrong = [name for name, labels in sets.items() if labels.shape != (50_000,) or not np.isin(labels, range(10)).all()]
    if wrong or not sets:
        raise ValueError(f"{path} must hold labels 0 to 9 of 50,000 rows under each name; {wrong or 'it holds none'} does not.")
    return {name: labels.astype(np.int64) for name, labels in sets.items()}


def load_cifar100(path: str | Path) -> Labelled:
    """CIFAR-100 with its fine classes from a folder with cifar-100-python; images (3, 32, 32) in [0, 1]."""
    home = home_of(path, ("cifar-100-python",), "train")
    return _cifar(home, ["train"], "test", "fine_labels", ("meta", "fine_label_names"))


def load_fashion_mnist(path: str | Path) -> Labelled:
    """Fashion-MNIST from a folder with FashionMNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped or not.

    Images (1, 28, 28) in [0, 1].
    """
    home = home_of(path, ("FashionMNIST", "raw"), "train-images-idx3-ubyte")
    parts = [
        (
            _scaled(read_idx(home / f"{part}-images-idx3-ubyte")[:, None]),
            read_idx(home / f"{part}-labels-idx1-ubyte").astype(np.int64),
        )
        for part in ("train", "t10k")
    ]
    wrong = [(len(images), len(labels)) for images, labels in parts if len(images) != len(labels)]
    if wrong:
        raise ValueError(f"{home} has {wrong[0][0]} images and {wrong[0][1]} labels in one part.")
    return Labelled(*parts[0], list(_FASHION), parts[1])


def load_time_series(path: str | Path) -> Labelled:
    """Series (n, length) and their classes from a .ts file of one variable and one length.

    NAME_TEST.ts in the same folder as NAME_TRAIN.ts becomes the test split. Raises ValueError if a line is not a series with a
    label, or if the files differ in length or classes. Source of such files: timeseriesclassification.com.
    """
    names, inputs, labels = _series_in(Path(path))
    beside = Path(path).with_name(Path(path).name.replace("_TRAIN", "_TEST"))
    if beside == Path(path) or not beside.exists():
        return Labelled(inputs, labels, names)
    test_names, *test = _series_in(beside)
    if test_names != names or test[0].shape[1] != inputs.shape[1]:
        raise ValueError(f"{beside} has other classes than {path}, or series of another length.")
    return Labelled(inputs, labels, names, (test[0], test[1]))


def _series_in(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Class names (K,), series (n, length) and labels (n,)."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    series = [line.rpartition(":") for line in lines if line and not line.startswith(("#", "@"))]
    try:
        values = np.array([list(map(float, row.split(","))) for row, _, _ in series], dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold in each line the same number of numbers, separated by commas, then a colon and the class: {error}"
        ) from None
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{path} must hold finite numbers; it holds {'gaps or infinite ones' if values.size else 'no series'}.")
    names, labels = np.unique([label for _, _, label in series], return_inverse=True)
    return names.tolist(), values, labels.astype(np.int64)


LOADERS: dict[str, Callable[..., Labelled]] = {
    "digits": load_digits,
    "letters": load_letters,
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion_mnist": load_fashion_mnist,
    "time_series": load_time_series,
}
_PATH_KINDS = {"letters": "FILE", "cifar10": "FILE", "cifar100": "FOLDER", "fashion_mnist": "FOLDER", "time_series": "FILE"}
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")


def load_labelled(spec: str) -> Labelled:
    """Data by name: digits, letters:FILE, cifar10:FILE, cifar10:FOLDER, cifar100:FOLDER, fashion_mnist:FOLDER or time_series:FILE.

    Folders have torchvision's layout. Raises ValueError or FileNotFoundError.
    """
    name, _, path = spec.partition(":")
    if name not in LOADERS:
        known = ", ".join(f"{data}:{kind}" for data, kind in _PATH_KINDS.items())
        hint = did_you_mean(name, LOADERS)
        raise ValueError(f"Data {spec!r} is not known; use digits, {known} (cifar10 takes a FOLDER too).{hint}")
    if name == "digits":
        if path:
            raise ValueError("digits comes with scikit-learn and takes no file.")
        return load_digits()
    kind = _PATH_KINDS[name]
    if not path:
        raise ValueError(f"{name} needs its {kind.lower()}: {name}:{kind}.")
    if not Path(path).exists() or (name in ("letters", "time_series") and Path(path).is_dir()):
        raise FileNotFoundError(f"There is no {kind.lower()} {path}.")
    return LOADERS[name](path)


def _cifar(home: Path, train: list[str], test: str, label_key: str, names: tuple[str, str]) -> Labelled:
    parts = [read_cifar(home, batches, label_key) for batches in (train, [test])]
    (x, y), (x_test, y_test) = ((_scaled(images), labels) for images, labels in parts)
    return Labelled(x, y, read_names(home / names[0], names[1]), (x_test, y_test))


def _scaled(images: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [0, 1]."""
    return images.astype(np.float32) / np.float32(255.0)


def _images_and_labels(archive: Any, part: str, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    labels, buffer = archive[f"{part}_labels"].astype(np.int64), archive[f"{part}_jpeg"].tobytes()
    try:
        decoded = [_pillow().open(io.BytesIO(buffer[a:b])).convert("RGB") for a, b in pairwise(archive[f"{part}_offsets"])]
        images = _scaled(np.stack(list(map(np.asarray, decoded))).transpose(0, 3, 1, 2))
    except OSError as error:
        raise ValueError(f"{path}: a {part} image is not a JPEG file: {error}") from None
    if len(images) != len(labels):
        raise ValueError(f"{path} has {len(images)} {part} images and {len(labels)} labels.")
    return images, labels


class ImageFolder(NamedTuple):
    """inputs (n, c, h, w) float32 in [0, 1], labels (n,) the names of the folders, and the files (n,)."""

    inputs: np.ndarray
    labels: np.ndarray
    files: list[Path]


def load_image_folder(folder: str | Path, size: int | None = None) -> ImageFolder:
    """Images of FOLDER/CLASS and its subfolders, in the order of their paths; one channel if all are gray, else three.

    size: all images are resized to (size, size); None: all must have one size. Needs Pillow.
    Raises ValueError for a folder without images in folders, a broken image, or images of several sizes.
    """
    root = Path(folder)
    files = sorted(path for path in root.glob("*/**/*") if path.suffix.lower() in _IMAGES and path.is_file())
    if not files:
        raise ValueError(f"{root} has no images in folders by class, such as {root}/cat/1.png; known are {', '.join(_IMAGES)}.")
    images = [_image(path, size) for path in files]
    mode = "L" if all(image.mode in ("1", "L") for image in images) else "RGB"
    pixels = [np.asarray(image.convert(mode), dtype=np.float32) / 255.0 for image in images]
    odd = next((i for i, image in enumerate(pixels) if image.shape != pixels[0].shape), None)
    if odd is not None:
        first, other = (f"{files[i]} has {images[i].width} x {images[i].height} pixels" for i in (0, odd))
        raise ValueError(f"Images must be of one size: {first}, {other}. Bring all to one: size=32, or --size 32.")
    stacked = np.stack(pixels)
    inputs = stacked[:, None] if mode == "L" else stacked.transpose(0, 3, 1, 2)
    return ImageFolder(np.ascontiguousarray(inputs), np.array([path.relative_to(root).parts[0] for path in files]), files)


def _image(path: Path, size: int | None) -> Any:
    if size is not None and size < 1:
        raise ValueError(f"size must be a number of pixels >= 1, or None; got {size}.")
    try:
        image = _pillow().open(path)
        image.load()
    except OSError as error:
        raise ValueError(f"{path} is not an image: {error}") from None
    return image if size is None else image.resize((size, size))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('Reading images needs Pillow: pip install "densratio-toolkit[plot]"') from None
    return Image
