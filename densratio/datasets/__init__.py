"""Shifts with a known ground truth, and the real data sets of the examples and benchmarks."""

from .class_imbalance import Imbalance, long_tail, step_imbalance
from .covariate_shift import Shift, make_gaussian_shift, make_heavy_tails, make_mixture_shift, make_subspace_shift
from .feature_noise import PMD_TYPES, feature_dependent_noise, flip_probabilities, instance_dependent_noise, out_of_fold_posteriors
from .images import (
    ImageFolder,
    Labelled,
    load_cifar10,
    load_cifar10n,
    load_cifar100,
    load_digits,
    load_fashion_mnist,
    load_image_folder,
    load_labelled,
    load_letters,
    load_time_series,
)
from .input_noise import INPUT_NOISE, NoisyInputs, input_noise
from .label_noise import ASYMMETRIC, NOISE_KINDS, NoisyLabels, label_noise, transition_matrix
from .open_set import OpenSet, open_set, open_set_rows
from .selection_bias import SELECTION_KINDS, make_selection_bias

__all__ = [
    "ASYMMETRIC",
    "INPUT_NOISE",
    "NOISE_KINDS",
    "PMD_TYPES",
    "SELECTION_KINDS",
    "ImageFolder",
    "Imbalance",
    "Labelled",
    "NoisyInputs",
    "NoisyLabels",
    "OpenSet",
    "Shift",
    "feature_dependent_noise",
    "flip_probabilities",
    "input_noise",
    "instance_dependent_noise",
    "label_noise",
    "load_cifar10",
    "load_cifar10n",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_image_folder",
    "load_labelled",
    "load_letters",
    "load_time_series",
    "long_tail",
    "make_gaussian_shift",
    "make_heavy_tails",
    "make_mixture_shift",
    "make_selection_bias",
    "make_subspace_shift",
    "open_set",
    "open_set_rows",
    "out_of_fold_posteriors",
    "step_imbalance",
    "transition_matrix",
]
