"""Hypothesis draws the same problems in every run, so that a red test is red for everyone.

`python -m pytest --hypothesis-profile=thorough` draws new ones, and 300 in place of 10, where a test does not say how many.
"""

import gc
import os

import pytest
from threadpoolctl import threadpool_limits

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for a taken one make small operations many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=10,
    # Explaining a failure traces every line of the fits that it repeats.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", settings.get_profile("ci"), derandomize=False, max_examples=300)
settings.load_profile("ci")

pytest.register_assert_rewrite(
    "cli_cases",
    "shift_cases",
    "dask_cases",
    "diagnostics_cases",
    "dynamic_cases",
    "integration_cases",
    "meta_cases",
    "monitor_cases",
    "potential_cases",
    "zoo_cases",
    "sklearn_cases",
    "spectral_cases",
    "split_cases",
    "training_cases",
    "two_step_cases",
    "small_loops",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Nothing is garbage of the modules and tests that a collection makes; looking for it takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish():
    """Libraries of workers get one thread each, and what is loaded by now is left out of garbage collection, which takes long."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        # The variable above comes too late for libraries that plugins have loaded.
        threadpool_limits(1)
    gc.collect()
    gc.freeze()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with source.csv and target.csv of the tests of the command line."""
    from cli_cases import samples

    monkeypatch.chdir(tmp_path)
    for frame, name in zip(samples(), ("source", "target"), strict=True):
        frame.to_csv(f"{name}.csv", index=False)
    return tmp_path


@pytest.fixture
def routing():
    from sklearn import config_context

    with config_context(enable_metadata_routing=True):
        yield
