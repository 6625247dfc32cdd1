"""Hypothesis draws the same problems in every run, so that a red test is red for everyone; `thorough` draws more."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: threads that wait for a taken one make small operations many times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    max_examples=20,
    # Explaining a failure traces every line of the fits that it repeats.
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", settings.get_profile("ci"), derandomize=False, max_examples=300)
settings.load_profile("ci")
