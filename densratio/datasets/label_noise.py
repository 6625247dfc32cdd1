"""Label noise with a known ground truth: noisy labels, which of them are flipped, and the transition matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._validation import check_count, check_number, shown
from .checks import check_kind, generator

__all__ = [
    "ASYMMETRIC", "CIFAR100_COARSE", "NOISE_KINDS", "NoisyLabels", "class_numbers", "label_noise", "next_of_group",
    "transition_matrix",
]  # fmt: skip

CIFAR100_COARSE: dict[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Coarse class -> its five fine classes. Source: Krizhevsky (2009), Learning multiple layers of features from tiny images."""


def next_of_group(groups: Iterable[Sequence[str]]) -> dict[int, int]:
    """Map from each class to the next of its group, the last to the first. Classes are numbered alphabetically over all groups."""
    in_order = [sorted(group) for group in groups]
    number = {name: i for i, name in enumerate(sorted(name for group in in_order for name in group))}
    return {number[a]: number[b] for group in in_order for a, b in zip(group, group[1:] + group[:1], strict=True)}


ASYMMETRIC: dict[str, dict[int, int]] = {
    # Look-alike pairs: truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog.
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
    # The next fine class of the same coarse class.
    "cifar100": next_of_group(CIFAR100_COARSE.values()),
    # Letters of similar shape: B -> R, E <-> F, I <-> J, O <-> Q, H -> K, P -> F, U <-> V, C -> G.
    "letters": {1: 17, 4: 5, 5: 4, 8: 9, 9: 8, 14: 16, 16: 14, 7: 10, 15: 5, 20: 21, 21: 20, 2: 6},
    # Digits that are confused in handwriting: 7 -> 1, 2 -> 7, 5 <-> 6, 3 -> 8, as in Patrini et al. (2017) on MNIST.
    "digits": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
}
NOISE_KINDS = ("symmetric", "symmetric_inclusive", "pair", "asymmetric")


class NoisyLabels(NamedTuple):
    """labels (n,) after the noise, is_flipped (n,) bool, transition (K, K) with rows P(noisy label | true label)."""

    labels: np.ndarray
    is_flipped: np.ndarray
    transition: np.ndarray


def transition_matrix(kind: str, rate: float, n_classes: int, mapping: dict[int, int] | None = None) -> np.ndarray:
    """P(noisy label | true label) (K, K), rows sum to 1.

    symmetric: with probability `rate` another class, all equally likely. symmetric_inclusive: with probability `rate` any
    class including the true one, the convention of MW-Net and CMW-Net. pair: with probability `rate` the next class.
    asymmetric: with probability `rate` the class given by `mapping`; classes not in it keep their labels.
    Raises ValueError for an unknown kind, a rate outside [0, 1], or asymmetric noise without a mapping.
    """
    check_kind("Noise kind", kind, NOISE_KINDS)
    check_number("rate", rate, "[0, 1]")
    eye = np.eye(check_count("n_classes", n_classes))
    if kind == "symmetric":
        return (1.0 - rate) * eye + rate * (1.0 - eye) / max(n_classes - 1, 1) if n_classes > 1 else eye
    if kind == "symmetric_inclusive":
        return (1.0 - rate) * eye + rate / n_classes
    if kind == "pair":
        return (1.0 - rate) * eye + rate * np.roll(eye, 1, axis=1)
    moved = eye.copy()
    for true, noisy in _checked(mapping, n_classes).items():
        moved[true] = eye[noisy]
    return (1.0 - rate) * eye + rate * moved


def _checked(mapping: Any, n_classes: int) -> Mapping[int, int]:
    if mapping is None:
        raise ValueError(
            "Asymmetric noise needs a mapping of classes, such as {0: 6} if class 0 is mistaken for 6; "
            f"densratio.datasets.ASYMMETRIC has one for each of {sorted(ASYMMETRIC)}."
        )
    if not isinstance(mapping, Mapping):
        raise ValueError(f"The mapping must be a dict of classes, such as ASYMMETRIC['digits']; got {shown(mapping)}.")
    of_all = [c for pair in mapping.items() for c in pair]
    outside = [c for c in of_all if isinstance(c, bool) or not isinstance(c, int | np.integer) or not 0 <= c < n_classes]
    if outside:
        raise ValueError(f"The mapping names the classes {outside}; the labels have classes 0 to {n_classes - 1}.")
    return mapping


def label_noise(
    labels: np.ndarray,
    kind: str,
    rate: float,
    *,
    n_classes: int | None = None,
    mapping: dict[int, int] | None = None,
    random_state: int | np.random.Generator = 0,
) -> NoisyLabels:
    """Draw each label (n,), integers 0..K-1, from its row of `transition_matrix(kind, rate, K, mapping)`.

    K is max(labels) + 1 if `n_classes` is None. `labels` itself is not changed.
    """
    labels, n_classes = class_numbers(labels, n_classes)
    transition = transition_matrix(kind, rate, n_classes, mapping)
    draws = generator(random_state).random(len(labels))
    upper = np.cumsum(transition, axis=1)
    noisy = np.minimum((draws[:, None] >= upper[labels]).sum(axis=1), n_classes - 1).astype(labels.dtype)
    return NoisyLabels(noisy, noisy != labels, transition)


def class_numbers(labels: Any, n_classes: int | None = None) -> tuple[np.ndarray, int]:
    """labels (n,), integers 0..K-1, as an array, and K: `n_classes`, or max(labels) + 1 if that is None.

    Raises ValueError for labels that are not integers >= 0 or not below n_classes.
    """
    try:
        labels = np.asarray(labels)
    except ValueError:
        raise ValueError(f"labels must be (n,) integers >= 0; got {shown(labels)}.") from None
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or (len(labels) and labels.min() < 0):
        codes = " Number classes by names, y = np.unique(labels, return_inverse=True)." if labels.dtype.kind in "OUS" else ""
        raise ValueError(f"labels must be (n,) integers >= 0; got shape {labels.shape} and dtype {labels.dtype}.{codes}")
    if n_classes is None:
        return labels, int(labels.max(initial=0)) + 1
    check_count("n_classes", n_classes)
    if len(labels) and labels.max() >= n_classes:
        raise ValueError(f"Label {labels.max()} is out of range for n_classes={n_classes}.")
    return labels, n_classes
