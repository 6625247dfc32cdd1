"""Slices against the closed form of one column."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from potential_cases import POTENTIALS, by_potential, even, normal
from scipy.stats import wasserstein_distance

from densratio.objectives import Wasserstein1
from densratio.training import Sliced

drawn = settings(max_examples=15, deadline=None)


@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 4),
    decimals=st.sampled_from([0, 1, 12]),
    seed=st.integers(0, 10**6),
)
@drawn
def test_value_and_slope_of_the_slices_are_the_mean_of_the_closed_forms_of_their_directions(n, m, d, decimals, seed):
    rng = np.random.default_rng(seed)
    # Rounded rows share their projections, and some weights are 0.
    x, v = (np.round(rng.normal(size=(size, d)), decimals) for size in (n, m))
    w = np.clip(rng.normal(0.7, size=n), 0.0, None) + (n == 1)
    sliced = Sliced(7, seed=seed)
    value, grad, _ = sliced.between(torch.as_tensor(x), torch.as_tensor(v))(torch.as_tensor(w / w.mean()))
    lines = sliced.directions(torch.as_tensor(x)).numpy()
    each = [Wasserstein1().problem(x @ u[:, None], v @ u[:, None]).value_and_grad(w / w.mean()) for u in lines.T]
    assert float(value) == pytest.approx(np.mean([float(one[0]) for one in each]), rel=1e-10, abs=1e-13)
    np.testing.assert_allclose(grad.numpy(), np.mean([one[1] for one in each], axis=0), rtol=1e-10, atol=1e-13)


@given(n=st.integers(2, 10), m=st.integers(1, 10), seed=st.integers(0, 10**6))
@drawn
def test_the_value_of_the_slices_is_scipys_mean_and_their_slope_is_automatic_differentiations(n, m, seed):
    rng = np.random.default_rng(seed)
    x, v, w = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.5, rng.uniform(0.2, 1.8, n)
    sliced = Sliced(5, seed=seed)
    lines = sliced.directions(torch.as_tensor(x))
    value, grad, _ = sliced.between(torch.as_tensor(x), torch.as_tensor(v))(torch.as_tensor(w / w.mean()))
    expected = np.mean([wasserstein_distance(x @ u, v @ u, w, None) for u in lines.numpy().T])
    assert float(value) == pytest.approx(expected, rel=1e-9)

    leaf = torch.as_tensor(w / w.mean()).requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for u in lines.T:
        points = torch.cat([torch.as_tensor(x) @ u, torch.as_tensor(v) @ u])
        order = points.argsort()
        excess = torch.cat([leaf / n, torch.full((m,), -1.0 / m, dtype=torch.float64)])[order].cumsum(0)[:-1]
        total = total + (excess.abs() * points[order].diff()).sum() / 5
    total.backward()
    # The closed form has taken the part along the plane of mean 1 from another constant: the weights cannot tell.
    np.testing.assert_allclose(grad - grad.mean(), leaf.grad - leaf.grad.mean(), atol=1e-10)


def test_of_one_column_every_slice_is_the_distance_itself():
    x, v, w = normal(9, 1, 0).double(), normal(7, 1, 1).double(), torch.linspace(0.2, 1.8, 9, dtype=torch.float64)
    value, grad, _ = Sliced(3).between(x, v)(w)
    expected = Wasserstein1().problem(x.numpy(), v.numpy()).value_and_grad(w.numpy())
    assert float(value) == pytest.approx(float(expected[0]), rel=1e-12)
    mirrored = Wasserstein1().problem(-x.numpy(), -v.numpy()).value_and_grad(w.numpy())[1]
    # Along -1 the same function of the weights has its slope taken from the other end: they differ by a constant.
    np.testing.assert_allclose(grad - grad.mean(), expected[1] - expected[1].mean(), atol=1e-12)
    np.testing.assert_allclose(mirrored - mirrored.mean(), expected[1] - expected[1].mean(), atol=1e-12)


def test_directions_are_unit_vectors_drawn_anew_for_each_batch_by_the_seed():
    x, w = normal(4, 3, 0), even(4)
    sliced, twin, other = Sliced(50, seed=1), Sliced(50, seed=1), Sliced(50, seed=2)
    seen = []
    for _ in range(3):
        for one in (sliced, twin, other):
            one.learn(w, x, x)
        seen.append(sliced.directions(x))
        assert torch.allclose(torch.linalg.vector_norm(seen[-1], dim=0), even(50), atol=1e-6)
        assert torch.equal(seen[-1], twin.directions(x)) and torch.equal(seen[-1], sliced.directions(x))
        assert not torch.equal(seen[-1], other.directions(x))
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_the_directions_are_even_on_the_sphere():
    lines = Sliced(20_000).directions(normal(1, 3, 0))
    assert torch.allclose(lines.mean(1), torch.zeros(3), atol=0.02)
    assert torch.allclose(lines @ lines.T / 20_000, torch.eye(3) / 3, atol=0.02)


@pytest.mark.parametrize("shape", ["even", "uneven"])
@by_potential
def test_chance_is_the_mean_distance_of_two_samples_of_one_distribution(name, shape):
    n, m, w = 60, 40, even(60) if shape == "even" else torch.linspace(0.0, 2.0, 60)
    potential = POTENTIALS[name]()
    potential.learn(even(200), normal(200, 3, 0), normal(200, 3, 1))
    estimates = [potential.between(normal(n, 3, 2 * k), normal(m, 3, 2 * k + 1))(w) for k in range(200)]
    value, chance = (torch.stack([getattr(one, part) for one in estimates]).mean().item() for part in ("value", "chance"))
    # The target's own distribution function ends at its last rows; and 200 draws of one gap know its mean to 5 %.
    assert value == pytest.approx(chance, rel=0.15 if name == "critic" else 0.1)
