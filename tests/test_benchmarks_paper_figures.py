"""Figures of the paper's benchmark: what they show of the records."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import StepPatch
from paper_cases import experiment

from benchmarks.paper.figures import boxes, histograms
from benchmarks.paper.records import summary_of_weights


def record(method, is_off, shift):
    weights = np.linspace(0.1, 1.9, len(is_off))
    identity = {**experiment(shift).as_dict(), "method": method, "seed": 0}
    return {"identity": identity, "weights": summary_of_weights(weights, is_off)}


@pytest.mark.parametrize("n_off", [0, 2, 6])
def test_a_histogram_counts_each_row_on_its_side_and_a_side_without_rows_is_empty(n_off):
    runs = [record("kmm", np.arange(6) < n_off, "symmetric:0+keep:0.9")] * 2
    panel = histograms({"kmm": runs}).axes[0]
    on, off = (stairs.get_data().values for stairs in panel.patches if isinstance(stairs, StepPatch))
    assert (on.sum(), off.sum()) == (2 * (6 - n_off), 2 * n_off)
    assert boxes({"kmm": runs}) is not None
