"""Steps on a device without numpy's shortcut give what they give on the host, in the dtype of the batch."""

from __future__ import annotations

import pytest
import torch

from densratio import KMM, LSIF
from densratio.training import DynamicReweighter
from densratio.training.ratio import stored_step

RATIOS = {
    "kmm": lambda: KMM(gamma="target_spread", regularization=0.1),
    "kliep": lambda: "kliep",
    "lsif": lambda: "lsif",
    "wasserstein": lambda: "wasserstein",
    "uLSIF": lambda: LSIF(nonnegative=False),
    "RuLSIF": lambda: LSIF(alpha=0.5),
    "kmm through a map": lambda: KMM(kernel="random_fourier", regularization=0.1, random_state=0),
}


def weights(ratio, dtype, n, m, to_convergence):
    generator = torch.Generator().manual_seed(n)
    reweighter = DynamicReweighter(ratio, 512, 512, warmup_epochs=0, to_convergence=to_convergence)
    for _ in range(2):
        values = (torch.rand(k, generator=generator, dtype=torch.float64).to(dtype) for k in (n, m))
        reweighter.partial_fit(*values, torch.arange(n), torch.arange(m))
    return reweighter.weights_


@pytest.mark.parametrize("to_convergence", [False, True])
@pytest.mark.parametrize(("n", "m"), [(64, 128), (128, 64), (300, 20)])
@pytest.mark.parametrize("name", RATIOS)
def test_tensors_give_the_weights_of_numpy_arrays(name, n, m, to_convergence, monkeypatch):
    results = {}
    for dtype in (torch.float32, torch.float64):
        expected = weights(RATIOS[name](), dtype, n, m, to_convergence)
        with monkeypatch.context() as patch:
            patch.setattr(stored_step, "cheapest", lambda *tensors: tensors)
            results[dtype] = weights(RATIOS[name](), dtype, n, m, to_convergence)
        tolerance = 1e-6 if dtype == torch.float64 else 2e-3
        torch.testing.assert_close(results[dtype], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ratio", ["kmm", "kliep", "lsif", "wasserstein"])
def test_rows_that_are_no_numbers_are_never_out_of_the_range_of_an_index(ratio):
    # On a GPU the values are looked at after the step; an index out of range there ends the process.
    step = stored_step.StoredStep(stored_step.ratio_for_loops(ratio), 8, 8)
    source, target = torch.rand(8, 1), torch.rand(8, 1)
    source[3] = float("nan")
    update = step.ratio.update(source, target, torch.ones(8))
    assert update.weights.shape == (8,)
