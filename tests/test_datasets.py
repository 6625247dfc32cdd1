"""Label noise with its truth attached, and the loaders of real data with files made here."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom

from densratio.datasets import (
    ASYMMETRIC,
    NOISE_KINDS,
    label_noise,
    load_cifar10,
    load_cifar10n,
    load_digits,
    load_labelled,
    load_letters,
    transition_matrix,
)
from densratio.datasets.images import LOADERS

MAPPING = {0: 2, 2: 3, 3: 2}  # class 1 stays
rates, classes = st.floats(0.0, 1.0), st.integers(4, 12)
by_kind = pytest.mark.parametrize("kind", NOISE_KINDS)


def noisy(labels, kind, rate, **params):
    return label_noise(np.asarray(labels), kind, rate, mapping=MAPPING if kind == "asymmetric" else None, **params)


# ---------------------------------------------------------------- the transition matrix


@by_kind
@given(rate=rates, k=classes)
@settings(max_examples=30, deadline=None)
def test_the_rows_of_the_transition_matrix_are_distributions(kind, rate, k):
    transition = transition_matrix(kind, rate, k, MAPPING)
    assert transition.shape == (k, k) and transition.min() >= 0
    assert transition.sum(axis=1) == pytest.approx(np.ones(k), abs=1e-12)


@given(rate=rates, k=classes)
@settings(max_examples=30, deadline=None)
def test_the_probabilities_are_those_of_each_kind(rate, k):
    off = ~np.eye(k, dtype=bool)
    symmetric, inclusive, pair, asymmetric = (transition_matrix(kind, rate, k, MAPPING) for kind in NOISE_KINDS)
    assert np.diag(symmetric) == pytest.approx(1 - rate) and symmetric[off] == pytest.approx(rate / (k - 1))
    assert np.diag(inclusive) == pytest.approx(1 - rate + rate / k) and inclusive[off] == pytest.approx(rate / k)
    for y in range(k):
        assert pair[y, y] == pytest.approx(1 - rate) and pair[y, (y + 1) % k] == pytest.approx(rate)
        if y in MAPPING:
            assert asymmetric[y, y] == pytest.approx(1 - rate) and asymmetric[y, MAPPING[y]] == pytest.approx(rate)
        else:
            assert asymmetric[y, y] == 1.0


def test_the_asymmetric_maps_are_the_published_ones():
    assert ASYMMETRIC["cifar10"] == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


# ---------------------------------------------------------------- drawing


@by_kind
@given(rate=rates, k=classes, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_flipped_rows_are_those_whose_label_changed_and_the_labels_given_stay(kind, rate, k, seed):
    labels = np.random.default_rng(seed).integers(0, k, 50)
    given_labels = labels.copy()
    result = noisy(labels, kind, rate, n_classes=k, random_state=seed)
    assert np.array_equal(labels, given_labels) and not np.shares_memory(result.labels, labels)
    assert np.array_equal(result.is_flipped, result.labels != labels) and result.is_flipped.dtype == bool
    assert result.labels.dtype == labels.dtype and result.labels.min() >= 0 and result.labels.max() < k
    assert np.array_equal(result.transition, transition_matrix(kind, rate, k, MAPPING))
    assert (result.transition[labels, result.labels] > 0).all()


@by_kind
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_the_transitions_drawn_are_binomial_about_the_matrix(kind, rate):
    k, n = 5, 4000
    labels = np.repeat(np.arange(k), n)
    result = noisy(labels, kind, rate, random_state=1)
    counts = np.zeros((k, k), dtype=int)
    np.add.at(counts, (labels, result.labels), 1)
    low, high = binom.interval(1 - 1e-6, n, result.transition)
    possible = result.transition > 0
    assert (counts[possible] >= low[possible]).all() and (counts[possible] <= high[possible]).all()
    assert (counts[~possible] == 0).all()


@by_kind
def test_a_rate_of_zero_changes_nothing(kind):
    labels = np.arange(200) % 7
    result = noisy(labels, kind, 0.0)
    assert np.array_equal(result.labels, labels) and not result.is_flipped.any()


def test_a_rate_of_one_never_keeps_the_true_class_but_where_it_may():
    labels = np.arange(2000) % 5
    assert noisy(labels, "symmetric", 1.0).is_flipped.all()
    assert np.array_equal(noisy(labels, "pair", 1.0).labels, (labels + 1) % 5)
    assert np.array_equal(noisy(labels, "asymmetric", 1.0).labels, [MAPPING.get(y, y) for y in labels])
    assert 0 < (~noisy(labels, "symmetric_inclusive", 1.0).is_flipped).mean() < 0.5


@by_kind
def test_the_noise_follows_its_random_state_and_leaves_the_global_one_alone(kind):
    labels = np.arange(300) % 4
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (noisy(labels, kind, 0.5, random_state=seed).labels for seed in (0, 0, 1))
    by_generator = noisy(labels, kind, 0.5, random_state=np.random.default_rng(0)).labels
    assert np.array_equal(one, same) and np.array_equal(one, by_generator) and not np.array_equal(one, other)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_the_number_of_classes_is_that_of_the_labels_unless_given():
    assert label_noise(np.array([0, 2]), "pair", 0.5).transition.shape == (3, 3)
    assert label_noise(np.array([0, 2]), "pair", 0.5, n_classes=6).transition.shape == (6, 6)


@pytest.mark.parametrize(
    ("labels", "kind", "rate", "params", "words"),
    [
        ([0, 1], "symetric", 0.5, {}, r"'symetric' is not known.*'symmetric', 'symmetric_inclusive', 'pair', 'asymmetric'"),
        ([0, 1], "symmetric", -0.1, {}, r"rate must be a number in \[0, 1\]; got -0.1"),
        ([0, 1], "symmetric", 1.1, {}, r"rate must be a number in \[0, 1\]; got 1.1"),
        ([0, 1], "symmetric", float("nan"), {}, r"rate must be a number in \[0, 1\]; got nan"),
        ([0, 1], "asymmetric", 0.5, {}, r"needs a mapping of classes.*cifar10.*digits"),
        ([0.0, 1.0], "pair", 0.5, {}, r"labels must be \(n,\) integers >= 0.*float64"),
        ([[0, 1]], "pair", 0.5, {}, r"labels must be \(n,\) integers >= 0.*\(1, 2\)"),
        ([0, -1], "pair", 0.5, {}, r"labels must be \(n,\) integers >= 0"),
        (["a", "b"], "pair", 0.5, {}, r"Number classes by names, y = np.unique\(labels, return_inverse=True\)"),
        ([0, 5], "pair", 0.5, {"n_classes": 5}, r"Label 5 is out of range for n_classes=5"),
        (
            [0, 1],
            "asymmetric",
            0.5,
            {"mapping": "digits"},
            "must be a dict of classes, .*; got 'digits'",
        ),
        ([0, 1], "asymmetric", 0.5, {"mapping": {9: 1}}, "mapping.*9"),
        ([0, 1], "asymmetric", 0.5, {"mapping": {1: 9}}, "mapping.*9"),
        ([0, 1], "asymmetric", 0.5, {"mapping": {0: -1}}, "mapping.*-1"),
    ],
)
def test_noise_that_cannot_be_drawn_is_refused_in_plain_words(labels, kind, rate, params, words):
    with pytest.raises(ValueError, match=words):
        label_noise(np.array(labels), kind, rate, **params)


# ---------------------------------------------------------------- digits


def test_digits_are_images_in_the_unit_interval_with_their_labels():
    digits = load_digits()
    assert digits.inputs.shape == (1797, 1, 8, 8) and digits.inputs.dtype == np.float32
    assert digits.inputs.min() == 0.0 and digits.inputs.max() == 1.0
    assert digits.labels.dtype == np.int64 and set(digits.labels) == set(range(10))
    assert digits.class_names == [str(c) for c in range(10)] and digits.test is None
    assert np.array_equal(load_labelled("digits").inputs, digits.inputs)


# ---------------------------------------------------------------- letters

HEADER = "lettr," + ",".join(f"m{i}" for i in range(16))


def letters_file(tmp_path, text):
    path = tmp_path / "letters.csv"
    path.write_text(text)
    return path


def letter_rows(n=6):
    values = np.random.default_rng(0).integers(0, 16, (n, 16))
    values[:, 3] = 5
    return values, [f"{'TAZ'[i % 3]}," + ",".join(map(str, row)) for i, row in enumerate(values)]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_letters_are_standardized_measurements_with_labels_in_the_order_of_the_alphabet(tmp_path, end):
    values, rows = letter_rows()
    letters = load_letters(letters_file(tmp_path, "\n".join([HEADER, *rows]) + end))
    assert letters.inputs.shape == (6, 16) and letters.inputs.dtype == np.float32
    spread = values.std(axis=0)
    expected = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    assert letters.inputs == pytest.approx(expected, abs=1e-6)
    assert (letters.inputs[:, 3] == 0).all()
    assert letters.class_names == ["A", "T", "Z"] and letters.labels.tolist() == [1, 0, 2, 1, 0, 2]
    assert letters.labels.dtype == np.int64 and letters.test is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not the letters file"),
        (HEADER, "not the letters file"),
        ("letter,a,b\nT,1,2", "not the letters file.*16 columns.*3"),
        (HEADER + "\nT," + ",".join(["x"] * 16), "not a number"),
        (HEADER + "\nT," + ",".join(["1"] * 16) + "\nA,1,2", "16"),
        (HEADER + "\nT," + ",".join(["1"] * 15) + ",nan", "not a number|NaN|finite"),
    ],
    ids=["empty", "no rows", "other columns", "text", "short row", "NaN"],
)
def test_a_bad_letters_file_is_named_and_told_in_plain_words(tmp_path, text, words):
    path = letters_file(tmp_path, text)
    with pytest.raises(ValueError, match=words) as caught:
        load_letters(path)
    assert str(path) in str(caught.value)


# ---------------------------------------------------------------- CIFAR-10

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]


def jpeg(color, mode="RGB"):
    file = io.BytesIO()
    Image.new("RGB", (32, 32), color).convert(mode).save(file, "JPEG", quality=95)
    return file.getvalue()


def archive_parts():
    parts = {"class_names": np.array(["red", "green", "blue"])}
    for name, rows in (("train", [2, 0, 1]), ("test", [1])):
        files = [jpeg(COLOURS[row]) for row in rows]
        parts[f"{name}_jpeg"] = np.frombuffer(b"".join(files), dtype=np.uint8)
        parts[f"{name}_offsets"] = np.cumsum([0, *map(len, files)])
        parts[f"{name}_labels"] = np.array(rows, dtype=np.uint8)
    return parts


def archive_file(tmp_path, parts):
    path = tmp_path / "cifar10.npz"
    np.savez(path, **parts)
    return path


def test_cifar10_is_decoded_in_order_with_its_own_test_set(tmp_path):
    data = load_cifar10(archive_file(tmp_path, archive_parts()))
    assert data.inputs.shape == (3, 3, 32, 32) and data.inputs.dtype == np.float32
    assert data.labels.tolist() == [2, 0, 1] and data.labels.dtype == np.int64
    assert data.class_names == ["red", "green", "blue"]
    for image, label in zip(data.inputs, data.labels, strict=True):
        assert image.mean(axis=(1, 2)) == pytest.approx(np.array(COLOURS[label]) / 255, abs=0.03)
    inputs, labels = data.test
    assert inputs.shape == (1, 3, 32, 32) and inputs.dtype == np.float32 and labels.tolist() == [1]
    assert inputs[0].mean(axis=(1, 2)) == pytest.approx(np.array(COLOURS[1]) / 255, abs=0.03)


def test_human_labels_of_cifar10_are_those_of_its_rows(tmp_path):
    labels, path = np.arange(50_000, dtype=np.uint8) % 10, tmp_path / "labels.npz"
    np.savez(path, worse=labels, original_position=np.arange(50_000))
    read = load_cifar10n(path)
    assert list(read) == ["worse"] and read["worse"].dtype == np.int64 and np.array_equal(read["worse"], labels)
    np.savez(path, worse=labels, aggre=labels[:7])
    with pytest.raises(ValueError, match=r"50,000 rows under each name; \['aggre'\] does not"):
        load_cifar10n(path)


def test_a_grey_jpeg_becomes_three_equal_channels(tmp_path):
    parts, grey = archive_parts(), jpeg((90, 90, 90), "L")
    parts |= {"test_jpeg": np.frombuffer(grey, dtype=np.uint8), "test_offsets": np.array([0, len(grey)])}
    image = load_cifar10(archive_file(tmp_path, parts)).test[0][0]
    assert image.shape == (3, 32, 32) and np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


@pytest.mark.parametrize("key", sorted(archive_parts()))
def test_an_archive_that_lacks_a_part_is_told_which(tmp_path, key):
    parts = archive_parts()
    del parts[key]
    path = archive_file(tmp_path, parts)
    with pytest.raises(ValueError, match=f"not the CIFAR-10 archive.*{key}") as caught:
        load_cifar10(path)
    assert str(path) in str(caught.value)


def write_text(path):
    path.write_text("hello")


def write_nothing(path):
    path.write_bytes(b"")


def write_array(path):
    with open(path, "wb") as file:
        np.save(file, np.arange(3))


def write_half_an_archive(path):
    np.savez(path, **archive_parts())
    path.write_bytes(path.read_bytes()[:200])


def write_other_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")


def write_broken_image(path):
    parts = archive_parts()
    np.savez(path, **(parts | {"train_jpeg": np.zeros_like(parts["train_jpeg"])}))


def write_fewer_labels(path):
    np.savez(path, **(archive_parts() | {"train_labels": np.array([0])}))


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_nothing,
        write_array,
        write_half_an_archive,
        write_other_zip,
        write_broken_image,
        write_fewer_labels,
    ],
)
def test_a_bad_archive_is_named_and_told_in_plain_words(tmp_path, write):
    path = tmp_path / "cifar10.npz"
    write(path)
    with pytest.raises(ValueError, match=r"archive|JPEG|image|labels") as caught:
        load_cifar10(path)
    assert str(path) in str(caught.value)


# ---------------------------------------------------------------- data by name


def test_a_spec_names_the_loader_and_its_file(tmp_path):
    letters = letters_file(tmp_path, "\n".join([HEADER, *letter_rows()[1]]))
    assert load_labelled(f"letters:{letters}").class_names == ["A", "T", "Z"]
    assert load_labelled(f"cifar10:{archive_file(tmp_path, archive_parts())}").class_names == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("mnist", ValueError, "'mnist' is not known; use digits, letters:FILE, cifar10:FILE, cifar100:FOLDER"),
        ("", ValueError, "'' is not known"),
        ("Digits", ValueError, "'Digits' is not known"),
        ("digits:a.csv", ValueError, "takes no file"),
        ("letters", ValueError, "letters needs its file: letters:FILE"),
        ("letters:", ValueError, "letters needs its file: letters:FILE"),
        ("cifar10", ValueError, "cifar10 needs its file: cifar10:FILE"),
        ("letters:/nowhere/a.csv", FileNotFoundError, "no file /nowhere/a.csv"),
        ("cifar10:/", FileNotFoundError, "no file /"),
    ],
)
def test_a_spec_that_names_no_data_is_told_what_to_write(spec, error, words):
    with pytest.raises(error, match=words):
        load_labelled(spec)


def test_every_loader_is_named_in_the_words_of_an_unknown_spec():
    with pytest.raises(ValueError) as caught:
        load_labelled("mnist")
    assert all(name in str(caught.value) for name in LOADERS)
