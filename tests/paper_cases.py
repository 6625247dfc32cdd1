"""Small experiments of the paper's benchmark, for its tests."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from densratio.datasets import load_digits

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.paper.methods import method_of  # noqa: E402
from benchmarks.paper.problems import draw  # noqa: E402
from benchmarks.paper.session import Session  # noqa: E402
from benchmarks.paper.settings import SETTINGS, Experiment  # noqa: E402

DIGITS = load_digits()
FEW = DIGITS._replace(inputs=DIGITS.inputs[:500], labels=DIGITS.labels[:500])
TINY = SETTINGS["digits"]._replace(epochs=3, batch_size=32, n_test=100, crop_padding=1, flip=True, schedule="quarters")


def experiment(shift="symmetric:0.4", n_val=100, layer="losses", setting=TINY, parameters="library"):
    return Experiment("digits", shift, setting, n_val, layer, parameters)


def session(method, seed=0, **options):
    """A run of 9 batches an epoch."""
    chosen = experiment(**options)
    return Session(chosen, method_of(method), seed, draw(FEW, chosen, seed), "cpu")


@cache
def finished(method):
    """A run that nothing stopped; nobody may change it."""
    whole = session(method)
    assert whole.advance(lambda: False)
    return whole
