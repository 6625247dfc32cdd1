"""Demonstrations: networks trained on wrong labels with every method, on the same data, seeds and budget. Imports torch."""

from .experiment import NoiseExperiment, Run, run_method, summarize
from .methods import METHODS, TITLES, Setup, build

__all__ = ["METHODS", "TITLES", "NoiseExperiment", "Run", "Setup", "build", "run_method", "summarize"]
