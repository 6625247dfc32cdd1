"""Demonstrations: networks trained on wrong labels with every method, on the same data, seeds and budget. Imports torch."""

from .experiment import NoiseExperiment, Run, check_fits, run_method, summarize, weighting_curves
from .methods import LEARNED, METHODS, TITLES, TRAIN_TWICE, Setup, all_methods, build, named
from .models import lenet5, resnet18, small_network
from .peak_memory import peak_memory

__all__ = [
    "LEARNED",
    "METHODS",
    "TITLES",
    "TRAIN_TWICE",
    "NoiseExperiment",
    "Run",
    "Setup",
    "all_methods",
    "build",
    "check_fits",
    "lenet5",
    "named",
    "peak_memory",
    "resnet18",
    "run_method",
    "small_network",
    "summarize",
    "weighting_curves",
]
