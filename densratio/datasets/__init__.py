"""Shifts with their truth attached, and the real data that examples and benchmarks use."""

from .images import Labelled, load_cifar10, load_digits, load_labelled, load_letters
from .label_noise import ASYMMETRIC, NOISE_KINDS, NoisyLabels, label_noise, transition_matrix

__all__ = [
    "ASYMMETRIC",
    "NOISE_KINDS",
    "Labelled",
    "NoisyLabels",
    "label_noise",
    "load_cifar10",
    "load_digits",
    "load_labelled",
    "load_letters",
    "transition_matrix",
]
