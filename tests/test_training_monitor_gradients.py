"""Norms of gradients that a monitor logs, and its estimate of the gradient over all data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from monitor_cases import Log
from torch.nn.functional import mse_loss
from torch.nn.utils import parameters_to_vector

from densratio.training import Monitor, MWNet


@pytest.mark.parametrize("every", [1, 3])
def test_the_products_of_consecutive_gradients_are_averaged_over_all_calls(every):
    log, model, gradients = Log(), torch.nn.Linear(3, 2), []
    monitor = Monitor(log, every=every)
    for k in range(1, 7):
        model.zero_grad(set_to_none=k % 2 == 0)  # the last gradient is kept where a loop overwrites it
        model(torch.full((4, 3), float(k))).square().mean().backward()
        gradients.append(parameters_to_vector([p.grad for p in model.parameters()]).numpy().copy())
        monitor.gradient(model)
    mean = np.mean([np.dot(a, b) for a, b in pairwise(gradients)])
    assert [number for name, _, number in log if name == "gradient/norm"] == list(range(every, 7, every))
    assert log.last["gradient/norm"] == pytest.approx(np.linalg.norm(gradients[-1]), rel=1e-5)
    assert log.last["gradient/mean_square"] == pytest.approx(mean, rel=1e-5)
    assert log.last["gradient/mean_square_times_root"] == pytest.approx(mean * 5**0.5, rel=1e-5)


def test_gradients_of_other_parameters_than_before_make_no_product():
    log, model = Log(), torch.nn.Linear(3, 2)
    monitor = Monitor(log, every=1)
    for trains_bias in (True, False, False):
        model.bias.requires_grad_(trains_bias)
        model.zero_grad()
        model(torch.ones(4, 3)).square().mean().backward()
        monitor.gradient(model)
    assert [number for name, _, number in log if name == "gradient/mean_square"] == [3]


def regression(n_steps, seed):
    """The mean square of the gradient over all data, times the root of the steps: the true one, the logged one, that of batches."""
    draws, log = torch.Generator().manual_seed(seed), Log()
    x = torch.randn(2000, 5, generator=draws)
    y = x.sum(dim=1, keepdim=True) + 2.0 * torch.randn(2000, 1, generator=draws)
    model, monitor, true, of_batches = torch.nn.Linear(5, 1, bias=False), Monitor(log, every=n_steps), 0.0, 0.0
    torch.nn.init.zeros_(model.weight)
    for _ in range(n_steps):
        i = torch.randint(0, 2000, (8,), generator=draws)
        true += float(torch.autograd.grad(mse_loss(model(x), y), model.weight)[0].square().sum())
        model.zero_grad()
        mse_loss(model(x[i]), y[i]).backward()
        of_batches += float(model.weight.grad.square().sum())
        monitor.gradient(model)
        with torch.no_grad():
            model.weight -= 0.25 / n_steps**0.5 * model.weight.grad
    return true / n_steps**0.5, log.last["gradient/mean_square_times_root"], of_batches / n_steps**0.5


@pytest.mark.parametrize("n_steps", [100, 1600])
def test_the_estimate_is_near_the_square_of_the_gradient_over_all_data_and_stays_bounded(n_steps):
    true, logged, of_batches = np.mean([regression(n_steps, seed) for seed in range(5)], axis=0)
    assert abs(logged - true) < 0.5 * true < 0.1 * of_batches


def test_a_model_without_gradients_is_told_where_the_call_belongs():
    with pytest.raises(ValueError, match="after loss"):
        Monitor(Log()).gradient(torch.nn.Linear(2, 2))


def test_the_gradient_of_a_weight_network_is_logged_in_each_of_its_steps():
    model, log, norms = torch.nn.Linear(2, 3), Log(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    reweighter = MWNet(8, optimizer=optimizer, every=2)
    reweighter.monitor = Monitor(log, every=1)
    network = reweighter.network_optimizer
    taken = [p for group in network.param_groups for p in group["params"]]
    network.register_step_pre_hook(lambda *_: norms.append(float(parameters_to_vector([p.grad for p in taken]).norm())))
    x, y = torch.randn(8, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3
    for _ in range(4):
        reweighter.weighted_loss(model, (x, y, torch.arange(8)), (x[:5], y[:5], torch.arange(5)))
    logged = [value for name, value, _ in log if name == "meta_gradient/norm"]
    assert len(logged) == 2 and logged == pytest.approx(norms, rel=1e-5)
