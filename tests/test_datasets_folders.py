"""Image data sets from folders as torchvision lays them out, with tiny files made here."""

from __future__ import annotations

import gzip
import os
import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from densratio.datasets import load_cifar10, load_cifar100, load_fashion_mnist, load_image_folder, load_labelled

RNG = np.random.default_rng(0)


def cifar_images(n):
    return RNG.integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)


def write_pickle(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_cifar10(folder):
    """Five batches of two images and a test batch of three; the images and labels in order."""
    home = folder / "cifar-10-batches-py"
    parts = {f"data_batch_{i}": (cifar_images(2), [i % 3, (i + 1) % 3]) for i in range(1, 6)}
    parts["test_batch"] = cifar_images(3), [2, 1, 0]
    for name, (images, labels) in parts.items():
        write_pickle(home / name, {"data": images, "labels": labels, "batch_label": name})
    write_pickle(home / "batches.meta", {"label_names": ["cat", "dog", "ship"], "num_vis": 3072})
    return parts


def write_cifar100(folder):
    home = folder / "cifar-100-python"
    parts = {"train": (cifar_images(4), [3, 1, 0, 2]), "test": (cifar_images(2), [1, 1])}
    for name, (images, labels) in parts.items():
        # As Python 2 wrote them, keys are bytes for some readers.
        write_pickle(home / name, {b"data": images, b"fine_labels": labels, b"coarse_labels": [0] * len(labels)})
    write_pickle(home / "meta", {"fine_label_names": list("abcd"), "coarse_label_names": ["z"]})
    return parts


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_fashion(folder, *, zipped=False):
    home = folder / "FashionMNIST" / "raw"
    home.mkdir(parents=True, exist_ok=True)
    parts = {}
    for name, n in (("train", 5), ("t10k", 2)):
        parts[name] = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8), RNG.integers(0, 10, n, dtype=np.uint8)
        for kind, array in zip(("images-idx3", "labels-idx1"), parts[name], strict=True):
            content = idx(array)
            path = home / f"{name}-{kind}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return parts


def same_images(loaded, flat, shape):
    return loaded.dtype == np.float32 and np.array_equal(loaded, flat.reshape(-1, *shape).astype(np.float32) / np.float32(255.0))


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_cifar10_is_the_five_batches_in_order_and_the_test_batch(tmp_path, inside):
    parts = write_cifar10(tmp_path)
    data = load_cifar10(tmp_path / inside)
    train = [parts[f"data_batch_{i}"] for i in range(1, 6)]
    assert same_images(data.inputs, np.concatenate([images for images, _ in train]), (3, 32, 32))
    assert data.labels.tolist() == [label for _, labels in train for label in labels] and data.labels.dtype == np.int64
    assert data.class_names == ["cat", "dog", "ship"]
    assert same_images(data.test[0], parts["test_batch"][0], (3, 32, 32)) and data.test[1].tolist() == [2, 1, 0]


@pytest.mark.parametrize("inside", ["", "cifar-100-python"])
def test_cifar100_has_its_fine_classes(tmp_path, inside):
    parts = write_cifar100(tmp_path)
    data = load_cifar100(tmp_path / inside)
    assert same_images(data.inputs, parts["train"][0], (3, 32, 32)) and data.labels.tolist() == parts["train"][1]
    assert data.class_names == list("abcd") and data.test[1].tolist() == [1, 1]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("inside", ["", "FashionMNIST", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_zipped_or_not(tmp_path, zipped, inside):
    parts = write_fashion(tmp_path, zipped=zipped)
    data = load_fashion_mnist(tmp_path / inside)
    assert same_images(data.inputs, parts["train"][0], (1, 28, 28)) and data.labels.tolist() == parts["train"][1].tolist()
    assert same_images(data.test[0], parts["t10k"][0], (1, 28, 28)) and data.test[1].tolist() == parts["t10k"][1].tolist()
    assert data.labels.dtype == np.int64 and len(data.class_names) == 10


def test_a_spec_names_the_folder(tmp_path):
    write_cifar10(tmp_path)
    write_cifar100(tmp_path)
    write_fashion(tmp_path)
    sizes = {name: len(load_labelled(f"{name}:{tmp_path}").labels) for name in ("cifar10", "cifar100", "fashion_mnist")}
    assert sizes == {"cifar10": 10, "cifar100": 4, "fashion_mnist": 5}


# ---------------------------------------------------------------- what is wrong with it


class Calls:
    """Unpickles by calling a function, as a pickle may."""

    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps({"data": Calls()}), "system"),
        (b"hello", "not a pickle of arrays"),
        (b"", "not a pickle of arrays"),
        (pickle.dumps([1, 2]), "should hold a dict; got list"),
        (pickle.dumps({"labels": [1]}, protocol=2), r"lacks \['data'\]"),
        (pickle.dumps({"data": cifar_images(1)}, protocol=2), r"lacks \['labels'\]"),
        (pickle.dumps({"data": cifar_images(1)[:, :9], "labels": [1]}, protocol=2), r"3,072 bytes.*\(1, 9\)"),
        (pickle.dumps({"data": cifar_images(2).astype(float), "labels": [1, 2]}, protocol=2), "float64"),
        (pickle.dumps({"data": cifar_images(2), "labels": [1]}, protocol=2), "2 images and 1 labels"),
    ],
)
def test_a_bad_batch_is_named_and_nothing_in_it_is_run(tmp_path, content, words):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        load_cifar10(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / name
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"There is no file .*{name}"):
        load_cifar10(tmp_path)


def test_class_names_that_are_not_there_are_told(tmp_path):
    write_cifar100(tmp_path)
    write_pickle(tmp_path / "cifar-100-python" / "meta", {"names": []})
    with pytest.raises(ValueError, match="meta is not the CIFAR file of class names: it lacks 'fine_label_names'"):
        load_cifar100(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an IDX file.*begins with nothing"),
        (b"hello", "not an IDX file.*68656c6c"),
        (idx(np.zeros((2, 2), dtype=np.uint8))[:6], "cut off in its first 12 bytes"),
        (idx(np.zeros((5, 28, 28), dtype=np.uint8))[:-1], r"should hold \(5, 28, 28\) bytes and holds 3919"),
        (b"\0\0\x0d" + idx(np.zeros(3, dtype=np.uint8))[3:], "not an IDX file of bytes"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_a_bad_idx_file_is_named_and_told_in_plain_words(tmp_path, content, words, zipped):
    write_fashion(tmp_path, zipped=zipped)
    path = tmp_path / "FashionMNIST" / "raw" / f"train-images-idx3-ubyte{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(ValueError, match=words) as caught:
        load_fashion_mnist(tmp_path)
    assert str(path) in str(caught.value)


def test_a_broken_gzip_file_is_named(tmp_path):
    write_fashion(tmp_path, zipped=True)
    path = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    for broken in (b"no gzip", path.read_bytes()[:12]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz is not a gzip file"):
            load_fashion_mnist(tmp_path)


def test_a_folder_without_the_files_and_parts_that_do_not_fit_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*FashionMNIST.raw.train-images-idx3-ubyte, nor"):
        load_labelled(f"fashion_mnist:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="There is no folder /nowhere"):
        load_labelled("cifar100:/nowhere")
    with pytest.raises(ValueError, match="fashion_mnist needs its folder: fashion_mnist:FOLDER"):
        load_labelled("fashion_mnist")
    write_fashion(tmp_path)
    (tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(4, dtype=np.uint8)))
    with pytest.raises(ValueError, match="5 images and 4 labels"):
        load_fashion_mnist(tmp_path)


def saved(path, pixels, mode):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)
    return path


def test_images_of_a_folder_by_class_are_read_as_they_were_saved(tmp_path):
    rng = np.random.default_rng(0)
    gray = [rng.integers(256, size=(5, 4), dtype=np.uint8) for _ in range(3)]
    places = [tmp_path / "b" / "1.png", tmp_path / "a" / "deep" / "2.PNG", tmp_path / "a" / "3.bmp"]
    for path, pixels in zip(places, gray, strict=True):
        saved(path, pixels, "L")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    found = load_image_folder(tmp_path)
    assert found.files == [places[2], places[1], places[0]] and found.labels.tolist() == ["a", "a", "b"]
    np.testing.assert_allclose(255 * found.inputs[:, 0], np.stack(gray[::-1]), atol=1e-4)
    color = rng.integers(256, size=(5, 4, 3), dtype=np.uint8)
    saved(tmp_path / "c" / "4.png", color, "RGB")
    mixed = load_image_folder(tmp_path)
    assert mixed.inputs.shape == (4, 3, 5, 4) and (mixed.inputs[0, 0] == mixed.inputs[0, 2]).all()
    np.testing.assert_allclose(255 * mixed.inputs[3], color.transpose(2, 0, 1), atol=1e-4)
    assert load_image_folder(tmp_path, size=8).inputs.shape == (4, 3, 8, 8)


def test_a_folder_of_images_that_can_not_be_read_is_told(tmp_path):
    with pytest.raises(ValueError, match="has no images in folders by class, such as"):
        load_image_folder(tmp_path)
    first = saved(tmp_path / "a" / "1.png", np.zeros((4, 4), np.uint8), "L")
    saved(tmp_path / "b" / "2.png", np.zeros((6, 4), np.uint8), "L")
    with pytest.raises(ValueError, match=r"1.png has 4 x 4 pixels, .*2.png has 4 x 6 pixels. Bring all to one: size=32"):
        load_image_folder(tmp_path)
    with pytest.raises(ValueError, match="size must be a number of pixels >= 1"):
        load_image_folder(tmp_path, size=0)
    first.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1.png is not an image"):
        load_image_folder(tmp_path)
