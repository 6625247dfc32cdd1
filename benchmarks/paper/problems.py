"""One draw of a data set under a shift: training rows, a small clean validation sample, and the test rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from densratio.datasets import Labelled, input_noise, long_tail, open_set, step_imbalance

from .settings import CLASS_PRIOR, Experiment
from .shifts import Shift, noisy_labels, shift_of

__all__ = ["Problem", "draw"]


class Problem(NamedTuple):
    """Rows and labels of the three samples; is_off (n_train,): the rows that weights should lower.

    Under label noise the flipped rows are off, else those of the majority classes.
    """

    x: np.ndarray
    y: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    is_off: np.ndarray
    n_classes: int

    def held_out(self, train: np.ndarray, val: np.ndarray) -> Problem:
        """The same with training rows `val` in the place of the validation rows, and the rows `train` to train on."""
        return self._replace(x=self.x[train], y=self.y[train], x_val=self.x[val], y_val=self.y[val], is_off=self.is_off[train])

    def on_validation(self) -> Problem:
        """The same with the validation rows to train on."""
        return self._replace(x=self.x_val, y=self.y_val, is_off=np.zeros(len(self.x_val), dtype=bool))

    def channels(self) -> tuple[list[float], list[float]] | None:
        """Mean and deviation of each channel of the training images; None for rows that are no images."""
        if self.x.ndim != 4:
            return None
        axes = (0, 2, 3)
        return self.x.mean(axis=axes, dtype=np.float64).tolist(), self.x.std(axis=axes, dtype=np.float64).tolist()


def draw(data: Labelled, experiment: Experiment, seed: int) -> Problem:
    """The problem of a seed. Raises ValueError where the data has too few rows, or lacks what the shift needs."""
    n_classes, n_val, shift = len(data.class_names), experiment.n_val, shift_of(experiment.shift)
    n_test = 0 if data.test else experiment.setting.n_test
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.labels))
    val = _balanced(data.labels, rows, n_val, n_classes) if experiment.kind == CLASS_PRIOR else rows[:n_val]
    rest = rows[~np.isin(rows, val)]
    test, train = rest[:n_test], rest[n_test:]
    if len(train) < experiment.setting.batch_size:
        raise ValueError(f"n_val and n_test take {n_val + n_test} of {len(rows)} rows: fewer than one training batch is left.")
    train, is_off = _kept(data, shift, train, seed)
    x, labels, is_off = _shifted(data, experiment.data, shift, train, is_off, seed)
    if experiment.val_in_train:
        x, labels = np.concatenate([x, data.inputs[val]]), np.concatenate([labels, data.labels[val]])
        is_off = np.concatenate([is_off, np.zeros(len(val), dtype=bool)])
    held_out = data.test if data.test else (data.inputs[test], data.labels[test])
    # Another draw than the training rows' one.
    val_labels = noisy_labels(data, experiment.data, shift, val, 1_000_000 + seed)[0] if shift.noisy_val else data.labels[val]
    return Problem(x, labels, data.inputs[val], val_labels, *held_out, is_off, n_classes)


def _kept(data: Labelled, shift: Shift, train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training rows by the sizes of their classes, and which are of a large class."""
    train = train[: max(1, round(shift.keep * len(train)))]
    is_off = np.zeros(len(train), dtype=bool)
    n_classes = len(data.class_names)
    if shift.class_prior is not None:
        kept = step_imbalance(data.labels[train], shift.class_prior, shift.minority, n_classes=n_classes, random_state=seed)
        train = train[kept.rows]
        is_off = ~kept.is_minority[data.labels[train]]
    if shift.long_tail is not None:
        kept = long_tail(data.labels[train], shift.long_tail, n_classes=n_classes, random_state=seed)
        train = train[kept.rows]
        is_off = ~kept.is_minority[data.labels[train]]
    return train, is_off


def _shifted(
    data: Labelled, name: str, shift: Shift, train: np.ndarray, is_off: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs and labels of the training rows, and which are off."""
    x = data.inputs[train]
    if not shift.has_noisy_rows:
        return x, data.labels[train], is_off
    labels, is_off = noisy_labels(data, name, shift, train, seed)
    if shift.open_set is not None:
        if data.outside is None:
            raise ValueError("open_set needs inputs of other data: give --outside.")
        x, is_replaced, _ = open_set(x, shift.open_set, data.outside, random_state=2_000_000 + seed)
        is_off = is_off | is_replaced
    if shift.inputs is not None:
        x, is_changed = input_noise(x, *shift.inputs, random_state=3_000_000 + seed)
        is_off = is_off | is_changed
    return x, labels, is_off


def _balanced(labels: np.ndarray, rows: np.ndarray, n_val: int, n_classes: int) -> np.ndarray:
    """The first n_val / n_classes rows of each class, in the order of `rows`."""
    each = n_val // n_classes
    if each < 1:
        raise ValueError(f"A balanced validation sample of {n_classes} classes has at least {n_classes} rows; got n_val={n_val}.")
    return np.concatenate([rows[labels[rows] == c][:each] for c in range(n_classes)])
