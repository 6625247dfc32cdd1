"""Wrong labels of images: the network for them, how they are moved, and the shapes they come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from densratio import NoisyLabelClassifier, find_label_issues
from densratio.labels.default_model import default_model
from densratio.labels.encoding import as_numbers
from densratio.labels.image_network import image_network, moved
from densratio.labels.mean_network import MeanNetwork

SIDE = 14
CROSS = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]], dtype=float)
SQUARE = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], dtype=float)
ARROW = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]], dtype=float)


def drawn(n: int, shapes: list[np.ndarray], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gray images (n, h, w), each with one of the shapes anywhere on noise, and which."""
    rng = np.random.default_rng(seed)
    images, which = 0.1 * rng.standard_normal((n, SIDE, SIDE)), rng.integers(len(shapes), size=n)
    for image, kind in zip(images, which, strict=True):
        top, left = rng.integers(SIDE - 4, size=2)
        image[top : top + 5, left : left + 5] += shapes[kind]
    return images, which


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_moved_image_is_a_part_of_the_mirrored_plane(channels, height, width, flips, seed):
    images = torch.as_tensor(np.random.default_rng(seed).standard_normal((6, channels, height, width)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = moved(images, "flips" if flips else "shifts").numpy()
    assert found.shape == images.shape
    up, aside = height // 12, width // 12
    for image, own in zip(images.numpy(), found, strict=True):
        plane = np.pad(image, ((0, 0), (up, up), (aside, aside)), mode="reflect")
        parts = [plane[:, i : i + height, j : j + width] for i in range(2 * up + 1) for j in range(2 * aside + 1)]
        parts += [part[:, :, ::-1] for part in parts] if flips else []
        assert any(np.array_equal(own, part) for part in parts)


def test_every_move_and_mirror_image_is_drawn():
    image = torch.arange(24.0 * 24).reshape(1, 1, 24, 24).expand(3000, 1, 24, 24)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kinds, counts = np.unique(moved(image, "flips").reshape(3000, -1).numpy(), axis=0, return_counts=True)
    # 25 moves of two images, 60 of each expected; a deviation of 7.7.
    assert len(kinds) == 50 and counts.min() > 60 - 5 * 7.7 and counts.max() < 60 + 5 * 7.7


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 150), st.integers(1, 150), st.integers(2, 5))
def test_images_of_every_size_have_logits_and_few_numbers(channels, height, width, n_classes):
    network = image_network((channels, height, width), n_classes)
    assert network(torch.zeros(2, channels, height, width)).shape == (2, n_classes)
    # All that depends on the image's size is how it is pooled.
    assert sum(p.numel() for p in network.parameters()) == sum(
        p.numel() for p in image_network((channels, 8, 8), n_classes).parameters()
    )


def test_wrong_labels_of_shapes_that_lie_anywhere_are_found(monkeypatch):
    monkeypatch.setattr("densratio.labels.mean_network._STEPS", 40)
    images, true = drawn(240, [CROSS, SQUARE], seed=0)
    labels = np.where(np.random.default_rng(1).random(240) < 0.2, 1 - true, true)
    issues = find_label_issues(images, labels, cv=2, n_repeats=1, random_state=1).sort_values("row")
    is_wrong = labels != true
    # Seeds give .955 to 1; pixels alone below .85.
    assert roc_auc_score(is_wrong, issues.score) > 0.97
    assert abs(issues.attrs["n_issues"] - is_wrong.sum()) <= 0.3 * is_wrong.sum()
    assert (issues.suggested_label[issues.is_issue] != issues.given_label[issues.is_issue]).all()


def test_images_whose_side_matters_are_not_mirrored(monkeypatch):
    monkeypatch.setattr("densratio.labels.mean_network._STEPS", 40)
    images, which = drawn(240, [ARROW, ARROW[:, ::-1]], seed=2)
    assert default_model(images[:, None], which, 0).moves == "shifts"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 3, 4]), st.integers(5, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_channels_may_come_first_or_last_and_gray_images_need_none(channels, height, width, seed):
    images = np.random.default_rng(seed).standard_normal((3, channels, height, width))
    given_as = [images, np.moveaxis(images, 1, 3)] + ([images[:, 0]] if channels == 1 else [])
    for x in given_as:
        np.testing.assert_array_equal(as_numbers(x, "auto", has_model=False, keeps_images=True), images)


def test_images_with_gaps_are_named():
    images, labels = drawn(40, [CROSS, SQUARE], seed=4)
    images[[7, 9], 3, 3] = np.nan
    with pytest.raises(ValueError, match=r"2 images hold NaN or infinite pixels, the first in row 7.*nan_to_num"):
        find_label_issues(images, labels)


def test_pixels_may_be_objects_that_are_numbers():
    images = drawn(4, [CROSS], seed=0)[0]
    np.testing.assert_array_equal(as_numbers(images.astype(object), "auto", has_model=False, keeps_images=True)[:, 0], images)
    with pytest.raises(ValueError, match="pixels are not all numbers"):
        as_numbers(np.full((4, 5, 5), "black"), "auto", has_model=False, keeps_images=True)


def test_a_classifier_sees_the_same_images_with_channels_first_or_last():
    images, which = np.random.default_rng(0).random((40, 3, 6, 7)), np.arange(40) % 2
    first, last = (NoisyLabelClassifier(max_iter=1, random_state=0).fit(x, which) for x in (images, np.moveaxis(images, 1, 3)))
    np.testing.assert_array_equal(first.predict_proba(images), last.predict_proba(np.moveaxis(images, 1, 3)))


def test_a_last_batch_of_one_row_is_left_out_of_normalization():
    x, y = np.random.default_rng(0).standard_normal((129, 3)), np.arange(129) % 2
    network = MeanNetwork(lambda d, k: torch.nn.Sequential(torch.nn.BatchNorm1d(d), torch.nn.Linear(d, k)), epochs=2)
    assert network.fit(x, y).predict_proba(x).shape == (129, 2)


def test_the_classifier_learns_shapes_that_lie_anywhere_in_spite_of_wrong_labels(monkeypatch):
    monkeypatch.setattr("densratio.labels.chosen_network._STEPS", 40)
    images, true = drawn(360, [CROSS, SQUARE], seed=5)
    labels = np.where(np.random.default_rng(6).random(160) < 0.2, 1 - true[:160], true[:160])
    model = NoisyLabelClassifier(max_iter=15).fit(images[:160], labels)
    assert (model.predict(images[160:]) == true[160:]).mean() > 0.97
    assert roc_auc_score(labels != true[:160], model.label_issues_.sort_values("row").score) > 0.97


def test_the_classifier_mirrors_no_images_whose_side_matters():
    images, which = drawn(160, [ARROW, ARROW[:, ::-1]], seed=7)
    model = NoisyLabelClassifier("uniform", max_iter=10).fit(images[:, :, :, None].repeat(3, axis=3), which)
    found = model.predict_proba(np.stack([images[:, :, ::-1]] * 3, axis=1))
    assert (found.argmax(axis=1) == 1 - which).mean() > 0.97  # the mirror images are the others
