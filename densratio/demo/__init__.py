"""Demonstrations: networks trained on wrong labels with every method, on the same data, seeds and budget."""

from .experiment import NoiseExperiment, Run, run_method, summarize

__all__ = ["NoiseExperiment", "Run", "run_method", "summarize"]
