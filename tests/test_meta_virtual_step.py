"""The virtual step: the optimizer's own, which it leaves alone, and its slope."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_cases import arrangements, cases, network, prepared, settings_of_optimizers, stepped, warmed
from small_loops import assert_same

from densratio.training.losses import cross_entropy
from densratio.training.meta.virtual_step import OPTIMIZERS, learning_rates, virtual_step


@settings(max_examples=60)
@given(**cases)
def test_the_virtual_step_is_the_optimizers_and_leaves_it_alone(how, arrangement, n_steps, n, seed):
    model, optimizer, train, _, weights = prepared("plain", how, arrangement, n_steps, n, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    (weights * cross_entropy(model(train[0]), train[1])).mean().backward()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in parameters]))
    n_states = len(optimizer.state)
    found = virtual_step(optimizer, parameters, [p.grad for p in parameters])
    after = model.state_dict(), optimizer.state_dict(), [p.grad for p in parameters]
    assert len(optimizer.state) == n_states
    assert_same(before, after)
    optimizer.step()
    for p, moved in zip(parameters, found.parameters, strict=True):
        torch.testing.assert_close(moved, p.detach(), rtol=1e-12, atol=1e-15)


@settings(max_examples=40)
@given(how=settings_of_optimizers, arrangement=arrangements, n_steps=st.integers(0, 3), seed=st.integers(0, 1000))
def test_its_slope_is_the_derivative_of_the_step_in_the_gradient(how, arrangement, n_steps, seed):
    model, optimizer, *_ = prepared("plain", how, arrangement, n_steps, 4, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(p.shape, generator=generator, dtype=p.dtype).requires_grad_() for p in parameters]
    moved = sum((p + 0.0 * g).sum() for p, g in zip(stepped(optimizer, parameters, gradients), gradients, strict=True))
    expected = torch.autograd.grad(moved, gradients)
    for found, slope in zip(virtual_step(optimizer, parameters, gradients).slope, expected, strict=True):
        torch.testing.assert_close(found, -slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "params", [{"lr": torch.tensor(0.1, dtype=torch.float64)}, {"lr": 0.1, "fused": True}, {"lr": 0.1, "foreach": True}],
    ids=["a tensor", "fused", "foreach"],
)  # fmt: skip
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_step_is_the_same_for_a_rate_that_is_a_tensor_and_for_other_kernels(kind, params):
    model = network("plain")
    optimizer = kind(model.parameters(), weight_decay=0.1, **params)
    warmed(model, optimizer, 2)
    gradients = [torch.full_like(p, 0.3) for p in model.parameters()]
    found = virtual_step(optimizer, list(model.parameters()), gradients)
    for p, g in zip(model.parameters(), gradients, strict=True):
        p.grad = g
    optimizer.step()
    for p, moved in zip(model.parameters(), found.parameters, strict=True):
        torch.testing.assert_close(moved, p.detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_wrappers_of_frameworks_are_looked_into(kind):
    class Wrapper(torch.optim.Optimizer):
        """As accelerate has it."""

        def __init__(self, optimizer):
            self.optimizer = optimizer

        @property
        def param_groups(self):
            return self.optimizer.param_groups

    model = network("plain")
    optimizer, parameters = kind(model.parameters(), lr=0.1), list(model.parameters())
    gradients = [torch.ones_like(p) for p in parameters]
    assert_same(virtual_step(Wrapper(optimizer), parameters, gradients), virtual_step(optimizer, parameters, gradients))
    assert learning_rates(Wrapper(optimizer), parameters) == [0.1] * len(parameters)


def test_a_wrapper_that_takes_the_class_of_what_it_wraps_is_looked_into():
    class Wrapper:
        """As Lightning has it: the object becomes of a class that inherits from the wrapped one's."""

        def __init__(self, optimizer):
            self._optimizer = optimizer
            self.__class__ = type("Lightning" + type(optimizer).__name__, (Wrapper, type(optimizer)), {})

        @property
        def optimizer(self):
            return self._optimizer

        def __getattr__(self, name):
            return getattr(self._optimizer, name)

    model = network("plain")
    optimizer, parameters = torch.optim.SGD(model.parameters(), lr=0.1), list(model.parameters())
    gradients = [torch.ones_like(p) for p in parameters]
    assert_same(virtual_step(Wrapper(optimizer), parameters, gradients), virtual_step(optimizer, parameters, gradients))
