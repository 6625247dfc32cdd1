"""The shift of an experiment by name: wrong labels, sizes of classes, inputs changed or of other data; several joined by +."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from densratio.datasets import (
    ASYMMETRIC,
    INPUT_NOISE,
    NOISE_KINDS,
    PMD_TYPES,
    Labelled,
    feature_dependent_noise,
    instance_dependent_noise,
    label_noise,
    out_of_fold_posteriors,
)

from .settings import CLASS_PRIOR

__all__ = ["KNOWN", "Shift", "noisy_labels", "shift_of"]

PMD, INSTANCE = "pmd_", "instance"
KNOWN = (
    f"kind:rate with a kind in {', '.join(NOISE_KINDS)}, {', '.join(PMD + kind for kind in PMD_TYPES)}, {INSTANCE}, "
    f"{', '.join(INPUT_NOISE)} or open_set and a rate in [0, 1], human:set, {CLASS_PRIOR}:ratio or long_tail:factor of large to "
    f"small classes, >= 1, {CLASS_PRIOR}:ratio:share with the share of small classes in (0, 1), keep:share of the training rows in "
    "(0, 1], or such joined by +, and +noisy_val"
)


@dataclass(frozen=True)
class Shift:
    """What `shift_of` reads; None: there is none.

    by_features: type and rate of noise that depends on the features, after which `noise`, a kind and a rate, is drawn. human: a
    set of labels that people gave. open_set: the share of rows that get an input of other data; inputs: a kind and a rate of noise
    of inputs. class_prior, long_tail: ratios of the sizes of classes, and the share of small ones. keep: the share of the training
    rows that is kept.
    """

    noise: tuple[str, float] | None = None
    by_features: tuple[str, float] | None = None
    human: str | None = None
    open_set: float | None = None
    inputs: tuple[str, float] | None = None
    class_prior: float | None = None
    minority: float = 0.5
    long_tail: float | None = None
    keep: float = 1.0
    noisy_val: bool = False

    @property
    def has_noisy_rows(self) -> bool:
        """Whether some rows have a wrong label or a changed input."""
        return any(part is not None for part in (self.noise, self.by_features, self.human, self.open_set, self.inputs))


def shift_of(text: str) -> Shift:
    """The shift of `text`, see `KNOWN`. Raises ValueError for anything else."""
    parts: dict[str, Any] = {}
    for part in text.split("+"):
        kind, _, given = part.partition(":")
        read = READERS.get(FAMILIES.get(kind, PMD if kind.startswith(PMD) else kind))
        try:
            new = read(kind, given) if read else {}
        except ValueError:
            new = {}
        if not new or new.keys() & parts.keys():
            raise ValueError(f"The shift must be {KNOWN}; got {text!r}.")
        parts |= new
    if parts.keys() & {"noise", "by_features"} and "human" in parts:
        raise ValueError(f"Labels are those of people or drawn, not both; got {text!r}.")
    return Shift(**parts)


def noisy_labels(data: Labelled, name: str, shift: Shift, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the rows under the shift, and which are not the true ones. Raises ValueError where the data lacks them."""
    true, n_classes = data.labels[rows], len(data.class_names)
    if shift.human is not None:
        given = _human(data, shift.human)[rows]
        return given, given != true
    mapping, drawn, rng = ASYMMETRIC.get(name), true, np.random.default_rng(seed)
    if shift.by_features is not None:
        drawn = _by_features(data.inputs[rows], true, n_classes, *shift.by_features, rng, seed)
    if shift.noise is not None:
        drawn = label_noise(drawn, *shift.noise, n_classes=n_classes, mapping=mapping, random_state=rng).labels
    return drawn, drawn != true


def _by_features(
    inputs: np.ndarray, true: np.ndarray, n_classes: int, kind: str, rate: float, rng: np.random.Generator, seed: int
) -> np.ndarray:
    if kind == INSTANCE:
        return instance_dependent_noise(true, inputs, rate, n_classes=n_classes, random_state=rng).labels
    posteriors = out_of_fold_posteriors(inputs, true, n_classes=n_classes, random_state=seed)
    return feature_dependent_noise(true, posteriors, kind, rate, random_state=rng).labels


def _human(data: Labelled, name: str) -> np.ndarray:
    if name not in (data.given or {}):
        known = f"has {', '.join(data.given)}" if data.given else "has none; give --human-labels FILE"
        raise ValueError(f"human:{name} needs human labels of that name; the data {known}.")
    return data.given[name]  # type: ignore[index]


def _within(text: str, low: float, high: float) -> float:
    number = float(text)
    if not low <= number <= high:
        raise ValueError(text)
    return number


def _pmd(kind: str, given: str) -> dict[str, Any]:
    return {"by_features": (kind.removeprefix(PMD), _within(given, 0.0, 1.0))} if kind.removeprefix(PMD) in PMD_TYPES else {}


def _class_prior(kind: str, given: str) -> dict[str, Any]:
    ratio, colon, share = given.partition(":")
    own = {"class_prior": _within(ratio, 1.0, np.inf)}
    return own | {"minority": _within(share, 1e-9, 1.0 - 1e-9)} if colon else own


FAMILIES = dict.fromkeys(NOISE_KINDS, "noise") | dict.fromkeys(INPUT_NOISE, "inputs")
READERS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "noise": lambda kind, given: {"noise": (kind, _within(given, 0.0, 1.0))},
    PMD: _pmd,
    INSTANCE: lambda kind, given: {"by_features": (kind, _within(given, 0.0, 1.0))},
    "human": lambda kind, given: {"human": given} if given else {},
    "open_set": lambda kind, given: {"open_set": _within(given, 0.0, 1.0)},
    "inputs": lambda kind, given: {"inputs": (kind, _within(given, 0.0, 1.0))},
    CLASS_PRIOR: _class_prior,
    "long_tail": lambda kind, given: {"long_tail": _within(given, 1.0, np.inf)},
    "keep": lambda kind, given: {"keep": _within(given, 1e-9, 1.0)},
    "noisy_val": lambda kind, given: {} if given else {"noisy_val": True},
}
