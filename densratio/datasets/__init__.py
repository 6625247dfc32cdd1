"""Shifts with their truth attached, and the real data that examples and benchmarks use."""

from .class_imbalance import Imbalance, step_imbalance
from .covariate_shift import Shift, make_gaussian_shift, make_heavy_tails, make_mixture_shift, make_subspace_shift
from .images import (
    Labelled,
    load_cifar10,
    load_cifar100,
    load_digits,
    load_fashion_mnist,
    load_labelled,
    load_letters,
)
from .label_noise import ASYMMETRIC, NOISE_KINDS, NoisyLabels, label_noise, transition_matrix
from .selection_bias import SELECTION_KINDS, make_selection_bias

__all__ = [
    "ASYMMETRIC",
    "NOISE_KINDS",
    "SELECTION_KINDS",
    "Imbalance",
    "Labelled",
    "NoisyLabels",
    "Shift",
    "label_noise",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_labelled",
    "load_letters",
    "make_gaussian_shift",
    "make_heavy_tails",
    "make_mixture_shift",
    "make_selection_bias",
    "make_subspace_shift",
    "step_imbalance",
    "transition_matrix",
]
