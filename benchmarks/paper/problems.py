"""One draw of a data set under a shift: training rows, a small clean validation sample, and the test rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from densratio.datasets import ASYMMETRIC, NOISE_KINDS, Labelled, label_noise, step_imbalance

from .settings import CLASS_PRIOR, Experiment

__all__ = ["Problem", "check_shift", "draw"]


class Problem(NamedTuple):
    """Rows and labels of the three samples; is_off (n_train,): the rows that weights should lower.

    Under label noise the flipped rows are off, under a class-prior shift those of the majority classes.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    is_off: np.ndarray
    n_classes: int

    def channels(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of each channel of the training images; None for rows that are no images."""
        if self.x.ndim != 4:
            return None
        axes = (0, 2, 3)
        return self.x.mean(axis=axes, dtype=np.float64).tolist(), self.x.std(axis=axes, dtype=np.float64).tolist()


def check_shift(shift: str) -> tuple[str, float]:
    """(kind, rate or ratio). Raises ValueError where the text is neither kind:rate of a noise nor class_prior:ratio."""
    kind, _, rate = shift.partition(":")
    try:
        number = float(rate)
    except ValueError:
        number = float("nan")
    if kind in NOISE_KINDS and 0.0 <= number <= 1.0:
        return kind, number
    if kind == CLASS_PRIOR and number >= 1.0:
        return kind, number
    raise ValueError(
        f"The shift must be kind:rate with a kind in {', '.join(NOISE_KINDS)} and a rate in [0, 1], or {CLASS_PRIOR}:ratio with "
        f"a ratio >= 1 of large to small classes; got {shift!r}."
    )


def draw(data: Labelled, experiment: Experiment, seed: int) -> Problem:
    """The problem of a seed. Raises ValueError where the data has too few rows."""
    n_classes, n_val = len(data.class_names), experiment.n_val
    n_test = 0 if data.test else experiment.setting.n_test
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.labels))
    val = _balanced(data.labels, rows, n_val, n_classes) if experiment.kind == CLASS_PRIOR else rows[:n_val]
    rest = rows[~np.isin(rows, val)]
    test, train = rest[:n_test], rest[n_test:]
    if len(train) < experiment.setting.batch_size:
        raise ValueError(f"n_val and n_test take {n_val + n_test} of {len(rows)} rows: fewer than one training batch is left.")
    train, labels, is_off = _shifted(data, experiment, train, seed)
    if experiment.val_in_train:
        train, labels = np.concatenate([train, val]), np.concatenate([labels, data.labels[val]])
        is_off = np.concatenate([is_off, np.zeros(len(val), dtype=bool)])
    held_out = data.test if data.test else (data.inputs[test], data.labels[test])
    return Problem(data.inputs[train], labels, data.inputs[val], data.labels[val], *held_out, is_off, n_classes)


def _shifted(data: Labelled, experiment: Experiment, train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, their labels, and which are off."""
    n_classes = len(data.class_names)
    kind, rate = check_shift(experiment.shift)
    if kind == CLASS_PRIOR:
        kept = step_imbalance(data.labels[train], rate, n_classes=n_classes, random_state=seed)
        train = train[kept.rows]
        return train, data.labels[train], ~kept.is_minority[data.labels[train]]
    mapping = ASYMMETRIC.get(experiment.data)
    noisy = label_noise(data.labels[train], kind, rate, n_classes=n_classes, mapping=mapping, random_state=seed)
    return train, noisy.labels, noisy.is_flipped


def _balanced(labels: np.ndarray, rows: np.ndarray, n_val: int, n_classes: int) -> np.ndarray:
    """The first n_val / n_classes rows of each class, in the order of `rows`."""
    each = n_val // n_classes
    if each < 1:
        raise ValueError(f"A balanced validation sample of {n_classes} classes has at least {n_classes} rows; got n_val={n_val}.")
    return np.concatenate([rows[labels[rows] == c][:each] for c in range(n_classes)])
