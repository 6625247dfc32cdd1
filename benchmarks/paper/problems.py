"""One draw of a data set under a shift: training rows, a small clean validation sample, and the test rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from densratio.datasets import ASYMMETRIC, NOISE_KINDS, Labelled, label_noise, long_tail, step_imbalance

from .settings import CLASS_PRIOR, Experiment

__all__ = ["Problem", "Shift", "draw", "shift_of"]

LONG_TAIL, NOISY_VAL, HUMAN, KEEP = "long_tail", "noisy_val", "human", "keep"


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


@dataclass(frozen=True)
class Shift:
    """Noise of the labels (kind, rate) or the name of a set of human labels, sizes of classes, share of small ones, the share of
    the training rows that is kept, and whether validation labels are noisy too.
    """

    noise: tuple[str, float] | None = None
    human: str | None = None
    class_prior: float | None = None
    minority: float = 0.5
    long_tail: float | None = None
    keep: float = 1.0
    noisy_val: bool = False


def shift_of(text: str) -> Shift:
    """The shift of "kind:rate", "human:set", "class_prior:ratio[:share]", "long_tail:factor", "keep:share", or several
    joined by +, with +noisy_val too.

    Raises ValueError for anything else.
    """
    parts: dict[str, object] = {}
    for part in text.split("+"):
        kind, _, given = part.partition(":")
        rate, _, share = given.partition(":")
        number = _number(rate)
        if share:
            if kind != CLASS_PRIOR or not 0.0 < _number(share) < 1.0:
                raise _unknown(text)
            parts["minority"] = _number(share)
        if kind in NOISE_KINDS and 0.0 <= number <= 1.0 and not parts.keys() & {"noise", HUMAN}:
            parts["noise"] = kind, number
        elif kind == HUMAN and rate and not parts.keys() & {"noise", HUMAN}:
            parts[HUMAN] = rate
        elif kind in (CLASS_PRIOR, LONG_TAIL) and number >= 1.0 and kind not in parts:
            parts[kind] = number
        elif kind == KEEP and 0.0 < number <= 1.0 and KEEP not in parts:
            parts[KEEP] = number
        elif part == NOISY_VAL:
            parts[NOISY_VAL] = True
        else:
            raise _unknown(text)
    return Shift(**parts)  # type: ignore[arg-type]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _unknown(text: str) -> ValueError:
    return ValueError(
        f"The shift must be kind:rate with a kind in {', '.join(NOISE_KINDS)} and a rate in [0, 1], {HUMAN}:set, "
        f"{KEEP}:share of the training rows in (0, 1], {CLASS_PRIOR}:ratio or "
        f"{LONG_TAIL}:factor of large to small classes, >= 1, {CLASS_PRIOR}:ratio:share with the share of small classes in (0, 1), "
        f"or such joined by +, and +{NOISY_VAL}; got {text!r}."
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
    # Another draw than the training rows' one.
    val_labels = _noisy(data, experiment, val, 1_000_000 + seed)[0] if shift_of(experiment.shift).noisy_val else data.labels[val]
    return Problem(data.inputs[train], labels, data.inputs[val], val_labels, *held_out, is_off, n_classes)


def _shifted(data: Labelled, experiment: Experiment, train: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, their labels, and which are off."""
    shift, n_classes = shift_of(experiment.shift), len(data.class_names)
    train = train[: max(1, round(shift.keep * len(train)))]
    is_off = np.zeros(len(train), dtype=bool)
    if shift.class_prior is not None:
        kept = step_imbalance(data.labels[train], shift.class_prior, shift.minority, n_classes=n_classes, random_state=seed)
        train = train[kept.rows]
        is_off = ~kept.is_minority[data.labels[train]]
    if shift.long_tail is not None:
        kept = long_tail(data.labels[train], shift.long_tail, n_classes=n_classes, random_state=seed)
        train = train[kept.rows]
        is_off = ~kept.is_minority[data.labels[train]]
    if shift.noise is None and shift.human is None:
        return train, data.labels[train], is_off
    return train, *_noisy(data, experiment, train, seed)


def _noisy(data: Labelled, experiment: Experiment, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy labels of the rows, and which were flipped; the labels as they are where the shift has no noise."""
    shift, true = shift_of(experiment.shift), data.labels[rows]
    if shift.human is not None:
        given = _human(data, shift.human)[rows]
        return given, given != true
    if shift.noise is None:
        return true, np.zeros(len(rows), dtype=bool)
    mapping = ASYMMETRIC.get(experiment.data)
    noisy = label_noise(true, *shift.noise, n_classes=len(data.class_names), mapping=mapping, random_state=seed)
    return noisy.labels, noisy.is_flipped


def _human(data: Labelled, name: str) -> np.ndarray:
    """The human labels (n,) of that name. Raises ValueError where the data has none."""
    if name not in (data.given or {}):
        known = f"has {', '.join(data.given)}" if data.given else "has none; give --human-labels FILE"
        raise ValueError(f"{HUMAN}:{name} needs human labels of that name; the data {known}.")
    return data.given[name]  # type: ignore[index]


def _balanced(labels: np.ndarray, rows: np.ndarray, n_val: int, n_classes: int) -> np.ndarray:
    """The first n_val / n_classes rows of each class, in the order of `rows`."""
    each = n_val // n_classes
    if each < 1:
        raise ValueError(f"A balanced validation sample of {n_classes} classes has at least {n_classes} rows; got n_val={n_val}.")
    return np.concatenate([rows[labels[rows] == c][:each] for c in range(n_classes)])
