"""Noise of inputs: which rows change, and each kind against pixel loops or torch's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densratio.datasets import INPUT_NOISE, input_noise

torch = pytest.importorskip("torch")
seeds = st.integers(0, 1000)


@st.composite
def pictures(draw, least=1):
    n, c = draw(st.integers(0, 5)), draw(st.sampled_from([1, 3]))
    height, width = draw(st.integers(least, 12)), draw(st.integers(least, 12))
    rng = np.random.default_rng(draw(seeds))
    return rng.random((n, c, height, width)).astype(draw(st.sampled_from([np.float32, np.float64])))


@given(images=pictures(), kind=st.sampled_from(sorted(INPUT_NOISE)), rate=st.floats(0.0, 1.0), seed=seeds)
@settings(deadline=None)
def test_the_share_of_rows_changes_and_stays_a_picture(images, kind, rate, seed):
    before = images.copy()
    noisy = input_noise(images, kind, rate, random_state=seed)
    assert np.array_equal(images, before) and noisy.inputs.dtype == images.dtype and noisy.inputs.shape == images.shape
    assert noisy.is_changed.sum() == round(rate * len(images))
    assert np.array_equal(noisy.inputs[~noisy.is_changed], images[~noisy.is_changed])
    assert noisy.inputs.size == 0 or 0.0 <= noisy.inputs.min() <= noisy.inputs.max() <= 1.0 + 1e-6


@given(images=pictures(), factor=st.floats(1.0, 20.0))
@settings(deadline=None)
def test_zoom_is_the_middle_in_torchs_bilinear_interpolation(images, factor):
    height, width = images.shape[2:]
    h, w = max(1, int(height / factor)), max(1, int(width / factor))
    middle = images[:, :, (height - h) // 2 : (height - h) // 2 + h, (width - w) // 2 : (width - w) // 2 + w]
    zoomed = input_noise(images, "zoom", 1.0, strength=factor).inputs
    if len(images):
        expected = torch.nn.functional.interpolate(torch.from_numpy(middle), (height, width), mode="bilinear").numpy()
        assert np.allclose(zoomed, expected, atol=1e-5)


@given(images=pictures(), share=st.floats(0.0, 1.0))
def test_crop_moves_the_picture_and_black_comes_in(images, share):
    moved, width = input_noise(images, "crop", 1.0, strength=share).inputs, images.shape[3]
    pixels = round(share * width)
    for column in range(width):
        expected = images[..., column - pixels] if column >= pixels else 0.0
        assert np.array_equal(moved[..., column], np.broadcast_to(expected, moved[..., column].shape))


def cartoon_by_loops(image, smooth):
    """Each pixel from the ones around it: edges of the median-filtered gray, colors by `smooth`."""
    height, width = image.shape[1:]
    gray = image[0] if len(image) == 1 else 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]

    def around(values, y, x, radius):
        return np.array(
            [[values[min(max(i, 0), height - 1), min(max(j, 0), width - 1)] for j in range(x - radius, x + radius + 1)]
             for i in range(y - radius, y + radius + 1)]
        )  # fmt: skip

    median = np.array([[np.median(around(gray, y, x, 2)) for x in range(width)] for y in range(height)])
    drawn = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if median[y, x] > around(median, y, x, 4).mean() - 9 / 255:
                drawn[:, y, x] = median[y, x] if len(image) == 1 else smooth(image, y, x)
    return drawn


def bilateral_by_loops(image, y, x):
    height, width = image.shape[1:]
    total, mass = np.zeros(3), 0.0
    for i in range(-4, 5):
        for j in range(-4, 5):
            if np.hypot(i, j) > 4:
                continue
            # A mirror whose outermost pixel is not repeated.
            row, column = (
                abs(place) if place < size else 2 * size - 2 - place for place, size in ((y + i, height), (x + j, width))
            )
            near = image[:, row, column]
            weight = np.exp(-(i * i + j * j) / (2 * 250**2) - (255 * np.abs(near - image[:, y, x]).sum()) ** 2 / (2 * 250**2))
            total, mass = total + weight * near, mass + weight
    return total / mass


@given(images=pictures(least=5))
@settings(deadline=None, max_examples=10)
def test_a_cartoon_has_black_edges_and_smooth_colors(images):
    drawn = input_noise(images.astype(np.float64), "domain", 1.0, strength=0.0).inputs
    for image, cartoon in zip(images.astype(np.float64), drawn, strict=True):
        assert np.allclose(cartoon, cartoon_by_loops(image, bilateral_by_loops), atol=1e-6)


def test_many_pictures_are_drawn_in_blocks_like_one_by_one():
    images = np.random.default_rng(0).random((1003, 1, 6, 6))
    whole = input_noise(images, "domain", 1.0, strength=0.0).inputs
    assert all(
        np.array_equal(whole[[i]], input_noise(images[[i]], "domain", 1.0, strength=0.0).inputs) for i in (0, 499, 500, 1002)
    )


@given(seed=seeds, strength=st.floats(0.05, 2.0), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_noise_is_as_large_as_it_is_told(seed, strength, scale):
    rng = np.random.default_rng(seed)
    rows = scale * rng.normal([0.0, 50.0], [1.0, 3.0], size=(2000, 2))
    noise = input_noise(rows, "covariate", 1.0, strength=strength, random_state=seed).inputs - rows
    assert noise.std(axis=0) == pytest.approx(strength * rows.std(axis=0), rel=0.1)
    # Pixels half way between black and the largest of a picture are clipped on one side alone.
    images = np.full((1, 1, 60, 60), 0.25)
    images[0, 0, 0, 0] = 0.5
    noisy = input_noise(images, "covariate", 1.0, strength=strength, random_state=seed).inputs[0, 0, 1:]
    from scipy.stats import norm

    assert (noisy == 0.0).mean() == pytest.approx(norm.cdf(-0.25 / (0.5 * strength)), abs=0.05)
    assert (noisy == 1.0).mean() == pytest.approx(norm.sf(0.75 / (0.5 * strength)), abs=0.05)


@pytest.mark.parametrize(
    ("inputs", "kind", "rate", "strength", "words"),
    [
        (np.zeros((2, 1, 4, 4)), "blur", 0.5, None, r"'blur' is not known; use one of \['covariate', 'domain', 'zoom', 'crop'\]"),
        (np.zeros((2, 1, 4, 4)), "zoom", 1.5, None, r"rate must be a number in \[0, 1\]; got 1.5"),
        (np.zeros((2, 1, 4, 4)), "zoom", 0.5, 0.5, r"strength must be a number in \[1, inf\); got 0.5"),
        (np.zeros((2, 1, 4, 4)), "crop", 0.5, 2, r"strength must be a number in \[0, 1\]; got 2"),
        (np.zeros((2, 1, 4, 4)), "covariate", 0.5, 0, r"strength must be a number in \(0, inf\)"),
        (np.zeros((2, 1, 4, 4), np.uint8), "zoom", 0.5, None, r"images \(n, c, h, w\) in \[0, 1\].*floating point; got uint8"),
        (np.full((2, 1, 4, 4), 200.0), "zoom", 0.5, None, r"Scale pixels to \[0, 1\]"),
        (np.full((2, 1, 4, 4), np.nan), "domain", 0.5, None, r"some are NaN, infinite or outside"),
        (np.full((2, 3), np.inf), "covariate", 0.5, None, r"or rows \(n, d\); some are NaN, infinite"),
        (np.zeros((2, 3)), "crop", 0.5, None, r"takes images \(n, c, h, w\) in \[0, 1\] with c 1 or 3, of floating point; got"),
        (np.zeros((2, 2, 4, 4)), "crop", 0.5, None, r"with c 1 or 3"),
    ],
)
def test_noise_that_cannot_be_drawn_is_refused(inputs, kind, rate, strength, words):
    with pytest.raises(ValueError, match=words):
        input_noise(inputs, kind, rate, strength=strength)
