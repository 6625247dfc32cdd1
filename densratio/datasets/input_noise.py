"""Input noise: some rows get normal noise, become a cartoon, or are zoomed or shifted; they keep their label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._validation import check_number
from .checks import check_kind, generator, numbers

__all__ = ["INPUT_NOISE", "NoisyInputs", "input_noise"]


class NoisyInputs(NamedTuple):
    """inputs (n, ...) with the noise, and is_changed (n,) bool: the rows that have it."""

    inputs: np.ndarray
    is_changed: np.ndarray


def input_noise(
    inputs: Any, kind: str, rate: float, *, strength: float | None = None, random_state: int | np.random.Generator = 0
) -> NoisyInputs:
    """Change the inputs of round(rate * n) rows, drawn at random; the labels do not change.

    inputs: images (n, c, h, w), c 1 or 3, of floating point in [0, 1]; for "covariate" also rows (n, d).
    kind, and its `strength`, by default that of `INPUT_NOISE`:
    "covariate": normal noise of `strength` times the largest pixel of the image, clipped to [0, 1]; in rows, of `strength` times
    the standard deviation of the column, not clipped. Published with 0.5 and, in distribution, with 0.1.
    "domain": the same noise in images, then a cartoon of them: smooth colors and black edges.
    "zoom": the middle of the image, 1 / `strength` of its height and width, resized to the size of the image (bilinear).
    "crop": the image shifted to the right by `strength` of its width; the left is filled with black.
    Raises ValueError for an unknown kind, a rate outside [0, 1], a strength that does not fit, or other inputs.
    Source: Seedat, Imrie & van der Schaar (2024), Dissecting sample hardness (H-CAT), whose "crop" is 10 of 32 pixels.
    """
    default, allowed, change = INPUT_NOISE[check_kind("Noise of inputs of kind", kind, INPUT_NOISE)]
    check_number("rate", rate, "[0, 1]")
    strength = default if strength is None else check_number("strength", strength, allowed)
    inputs = _checked(inputs, kind)
    rng = generator(random_state)
    is_changed, changed = np.zeros(len(inputs), dtype=bool), inputs.copy()
    is_changed[rng.permutation(len(inputs))[: round(rate * len(inputs))]] = True
    if is_changed.any():
        if inputs.ndim == 2:
            strength = strength * inputs.std(axis=0)
        changed[is_changed] = change(inputs[is_changed], strength, rng)
    return NoisyInputs(changed, is_changed)


def _checked(inputs: Any, kind: str) -> np.ndarray:
    inputs = np.asarray(inputs) if hasattr(inputs, "dtype") else numbers("inputs", inputs)
    is_image = inputs.ndim == 4 and inputs.shape[1] in (1, 3)
    fits = is_image or (inputs.ndim == 2 and kind == "covariate")
    wanted = "images (n, c, h, w) in [0, 1] with c 1 or 3" + (", or rows (n, d)" if kind == "covariate" else "")
    if not fits or not np.issubdtype(inputs.dtype, np.floating):
        raise ValueError(f"Noise of kind {kind!r} takes {wanted}, of floating point; got {inputs.dtype} {inputs.shape}.")
    # NaN fails this condition.
    if inputs.size and not (inputs.min() >= 0.0 and inputs.max() <= 1.0 if is_image else np.isfinite(inputs).all()):
        raise ValueError(f"Noise of kind {kind!r} takes {wanted}; some are NaN, infinite or outside. Scale pixels to [0, 1].")
    return inputs


def _noisy(inputs: np.ndarray, strength: Any, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(inputs.shape).astype(inputs.dtype)
    if inputs.ndim == 2:
        return inputs + noise * strength
    return np.clip(inputs + noise * strength * inputs.max(axis=(1, 2, 3), keepdims=True), 0.0, 1.0)


def _zoomed(images: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    for axis in (2, 3):
        size = images.shape[axis]
        part = max(1, int(size / factor))
        # Values are at pixel centers, and constant beyond the outermost centers.
        places = (np.arange(size) + 0.5) * part / size - 0.5
        mixed = np.stack([np.interp(places, np.arange(part), one) for one in np.eye(part)]).astype(images.dtype)
        middle = images.take(np.arange(part) + (size - part) // 2, axis=axis)
        images = np.moveaxis(np.moveaxis(middle, axis, -1) @ mixed, -1, axis)
    return images


def _moved(images: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    moved, pixels = np.zeros_like(images), round(share * images.shape[3])
    moved[..., pixels:] = images[..., : images.shape[3] - pixels]
    return moved


def _cartoon(images: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Black where a pixel of the median-filtered gray image is 9 of 255 below the mean around it; smoothed colors elsewhere.

    Color images are smoothed by a bilateral filter, gray ones by the median.
    """
    from scipy.ndimage import median_filter, uniform_filter

    done = np.empty_like(images)
    # One block at a time: the filters need several copies of their input.
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        noisy = _noisy(images[block], strength, rng)
        gray = noisy if noisy.shape[1] == 1 else np.tensordot(noisy, _LUMA, (1, 0))[:, None]
        gray = median_filter(gray, size=(1, 1, 5, 5), mode="nearest")
        is_edge = gray <= uniform_filter(gray, size=(1, 1, 9, 9), mode="nearest") - 9.0 / 255.0
        done[block] = np.where(is_edge, 0.0, gray if noisy.shape[1] == 1 else _bilateral(noisy))
    return done


def _bilateral(images: np.ndarray, radius: int = 4, width: float = 250.0, color_width: float = 250.0 / 255.0) -> np.ndarray:
    """Mean of the pixels within the radius, weighted by Gaussians of their distance and of the sum of the channels' differences."""
    height, breadth = images.shape[2:]
    padded = np.pad(images, ((0, 0), (0, 0), (radius, radius), (radius, radius)), mode="reflect")
    total, mass = np.zeros_like(images), np.zeros_like(images[:, :1])
    steps = range(-radius, radius + 1)
    for down, right in ((i, j) for i in steps for j in steps if i * i + j * j <= radius * radius):
        near = padded[:, :, radius + down : radius + down + height, radius + right : radius + right + breadth]
        differs = np.abs(near - images).sum(axis=1, keepdims=True)
        weight = np.exp(-(down**2 + right**2) / (2.0 * width**2) - differs**2 / (2.0 * color_width**2))
        total, mass = total + weight * near, mass + weight
    return total / mass


_BLOCK = 500
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

INPUT_NOISE: dict[str, tuple[float, str, Callable[..., np.ndarray]]] = {
    "covariate": (0.5, "(0, inf)", _noisy),
    "domain": (0.5, "[0, inf)", _cartoon),
    "zoom": (1.75, "[1, inf)", _zoomed),
    "crop": (10.0 / 32.0, "[0, 1]", _moved),
}
"""By kind: the published strength, which strengths are allowed, and the change of inputs by a strength and a generator."""
