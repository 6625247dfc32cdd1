"""The ADIW paper's recipes against transcriptions of its updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from torch import nn

from densratio import KMM, LSIF
from densratio.solvers import PlainGradient
from densratio.training import DIW, DynamicReweighter, published
from densratio.training.ratio.published import RECIPES

N, M, BATCHES = 32, 24, 3
drawn = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 10**6)


def losses(seed):
    rng = np.random.default_rng(seed)
    train = np.abs(rng.normal(1.0, 1.0, N))
    train[:12] += 3.0
    return train, np.abs(rng.normal(0.8, 0.6, M))


def kernel(x, y, gamma):
    return np.exp(-gamma * np.subtract.outer(x, y) ** 2)


def after(reweighter, train, val):
    for _ in range(BATCHES):
        reweighter.partial_fit(torch.tensor(train), torch.tensor(val), index=range(N), val_index=range(M))
    return reweighter.weights_.numpy()


def within(w, upper, slack):
    """The nearest point of {0 <= w <= upper, |mean w - 1| <= slack}, by a root finder."""
    inside = np.clip(w, 0.0, upper)
    total = np.clip(inside.sum(), N * (1 - slack), N * (1 + slack))
    if np.isclose(inside.sum(), total, rtol=1e-14):
        return inside
    shift = brentq(lambda tau: np.clip(w - tau, 0.0, upper).sum() - total, w.min() - upper - 1.0, w.max() + 1.0, xtol=1e-14)
    return np.clip(w - shift, 0.0, upper)


def on_simplex(a, b):
    """The nearest point of {a >= 0, b'a = 1}, by a root finder."""
    tau = brentq(lambda t: b @ np.maximum(a - t * b, 0.0) - 1.0, -1e6, (a / b).max(), xtol=1e-13)
    return np.maximum(a - tau * b, 0.0)


@pytest.mark.parametrize("n_steps", [1, 3])
@given(seed=seeds, rate=st.sampled_from([1e-4, 0.1, 0.5, 5.0]))
@drawn
def test_kernel_mean_matching_takes_j_plain_steps_and_keeps_its_mean(n_steps, seed, rate):
    train, val = losses(seed)
    k, kappa = kernel(train, train, 0.01), N / M * kernel(train, val, 0.01).sum(axis=1)
    w = np.ones(N)
    for _ in range(BATCHES * n_steps):
        w = within(w - rate * (k @ w - kappa) / N, 50.0, (N**0.5 - 1.0) / N**0.5)
    ratio = published("adiw-km", data="cifar10").ratio.set_params(n_steps=n_steps, solver=PlainGradient(step_size=rate))
    own = DynamicReweighter(ratio, N, M, normalize=False, warmup_epochs=0)
    np.testing.assert_allclose(after(own, train, val), w, atol=2e-5)
    assert rate < 5.0 or abs(w.mean() - 1.0) > 1e-6  # the mean is free to move


def kliep_step(theta, train, val, gamma, rate):
    """theta after a step up the mean log of the ratio, the mean of k kernels; the gradient is that in theta / k."""
    k = len(val)
    a_jl, b, a = kernel(val, val, gamma), kernel(train, val, gamma).mean(axis=0), theta / k
    a = on_simplex(a, b)  # of a stored point of another batch
    return k * on_simplex(a + rate / k * a_jl.T @ (1.0 / (a_jl @ a)) / k, b)


def lsif_step(theta, train, val, gamma, rate, penalty):
    """theta after a step down the squared distance of the mean of k kernels, with the penalty of the sum of theta / k."""
    k = len(val)
    phi, linear = kernel(train, val, gamma) / k, kernel(val, val, gamma).mean(axis=0) / k
    return np.maximum(theta - rate * k * (phi.T @ (phi @ theta) / len(train) - linear + penalty / k), 0.0)


@given(seed=seeds)
@drawn
def test_kliep_takes_a_plain_step_up_the_mean_log_of_the_mean_of_the_kernels(seed):
    train, val = losses(seed)
    theta = np.full(M, float(M))
    for _ in range(BATCHES):
        theta = kliep_step(theta, train, val, 0.5, 0.5)
    own = published("adiw-kl", data="fashion_mnist").reweighter(N, M, warmup_epochs=0)
    np.testing.assert_allclose(after(own, train, val), kernel(train, val, 0.5) @ theta / M, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(own.coef_, theta / M, rtol=1e-3, atol=1e-3)


@given(seed=seeds)
@drawn
def test_lsif_steps_on_the_mean_of_the_kernels_with_its_l1_penalty_and_its_ratio_is_not_scaled(seed):
    train, val = losses(seed)
    theta = np.ones(M)
    for _ in range(BATCHES):
        theta = lsif_step(theta, train, val, 0.01, 0.01, 1e-5)
    own = published("adiw-ls", data="fashion_mnist").reweighter(N, M, warmup_epochs=0)
    weights = after(own, train, val)
    np.testing.assert_allclose(weights, kernel(train, val, 0.01) @ theta / M, rtol=2e-5)
    assert abs(weights.mean() - 1.0) > 1e-3


@pytest.mark.parametrize("shift", ["label_noise", "class_prior"])
@given(seed=seeds)
@drawn
def test_the_first_weights_are_mean_kernels_whatever_the_number_of_validation_rows(shift, seed):
    train, val = losses(seed)
    recipe = published("adiw-ls", data="fashion_mnist", shift=shift)
    own = recipe.reweighter(N, M, warmup_epochs=0)
    own.ratio.set_params(solver=PlainGradient(step_size=1e-9, of_mean=True))
    own.partial_fit(torch.tensor(train), torch.tensor(val), index=range(N), val_index=range(M))
    np.testing.assert_allclose(own.weights_, kernel(train, val, recipe.ratio.gamma).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("method", ["adiw-kl", "adiw-ls"])
@given(seed=seeds)
@drawn
def test_class_by_class_the_kernels_of_a_step_are_the_validation_rows_of_the_class(method, seed):
    train, val = losses(seed)
    y, y_val = np.arange(N) % 3, np.sort(np.arange(M) % 4 % 3)  # classes of 12, 6 and 6 validation rows
    recipe = published(method, data="cifar10", compares="hidden")
    own = recipe.reweighter(N, M, layer="hidden", warmup_epochs=0)
    own.partial_fit(torch.tensor(train), torch.tensor(val), range(N), range(M), y=torch.tensor(y), y_val=torch.tensor(y_val))
    for label in range(3):
        one, other = train[y == label], val[y_val == label]
        step = kliep_step if method == "adiw-kl" else lambda *given: lsif_step(*given, 1e-3)
        start = np.ones(len(other)) * (len(other) if method == "adiw-kl" else 1.0)
        theta = step(start, one, other, 0.3, 0.1)
        prior = (len(other) / M) / (len(one) / N)
        np.testing.assert_allclose(own.weights_[y == label], prior * kernel(one, other, 0.3) @ theta / len(other), rtol=2e-4)


def test_scaled_weights_are_the_unscaled_ones_divided_by_their_mean():
    train, val = losses(0)
    ratio = LSIF(gamma=0.5, solver=PlainGradient(step_size=0.1))
    scaled, raw = (after(DynamicReweighter(ratio, N, M, normalize=flag, warmup_epochs=0), train, val) for flag in (True, False))
    np.testing.assert_allclose(scaled, raw / raw.mean(), rtol=1e-5)


def test_the_recipe_of_diw_is_diws_program_without_the_scaling():
    train, val = losses(3)
    found = after(published("diw", data="cifar10").reweighter(N, M, warmup_epochs=0), train, val)
    np.testing.assert_array_equal(found, after(DIW(N, M, gamma=0.01, normalize=False, warmup_epochs=0), train, val))


@pytest.mark.parametrize(("data", "shift", "compares"), RECIPES)
def test_every_recipe_trains_a_classifier(data, shift, compares):
    training = RECIPES[data, shift, compares][0]
    for method in ("adiw-km", "adiw-kl", "adiw-ls", "adiw-wa", "diw"):
        recipe = published(method, data=data, shift=shift, compares=compares)
        model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
        layer = {"layer": "1"} if compares == "hidden" else {}
        reweighter = recipe.reweighter(N, M, warmup_epochs=0, **layer)
        optimizer = recipe.optimizer(model.parameters())
        schedule = recipe.schedule(optimizer)
        x, y = torch.randn(N, 2, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 2
        reweighter.weighted_loss(model, (x, y, range(N)), (x[:M], y[:M], range(M))).backward()
        for _ in range(100):
            optimizer.step()
            schedule.step()
        group = optimizer.param_groups[0]
        assert group["weight_decay"] == training.weight_decay
        assert group["lr"] == pytest.approx(0.1 * training.learning_rate)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"method": "adiw-kl", "data": "mnist"}, 'Nothing is published for data="mnist".*use one of: data="fashion_mnist"'),
        ({"method": "adiw-kl", "data": "imagenet", "compares": "hidden"}, 'compares="hidden"; use one of'),
        ({"method": "kliep", "data": "cifar10"}, r"method must be one of \['adiw-km'.*'diw'\]; got 'kliep'"),
    ],
)
def test_what_is_not_published_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        published(**given)


def test_a_hidden_layer_must_be_named():
    with pytest.raises(ValueError, match="needs layer="):
        published("adiw-kl", data="cifar10", compares="hidden").reweighter(N, M)


@pytest.mark.parametrize("step_size", [0.0, -1.0, float("nan"), float("inf"), True, "long"])
def test_a_step_size_that_is_no_positive_number_is_refused(step_size):
    with pytest.raises(ValueError, match=r"step_size must be a number in \(0, inf\), or None"):
        KMM(solver=PlainGradient(step_size=step_size))
