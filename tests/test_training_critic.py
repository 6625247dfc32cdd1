"""The critic against known distances and against Adam on the written loss."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from potential_cases import BOUNDS, even, new, normal, of, tensors
from torch import nn

from densratio.training import Critic
from densratio.training.ratio.critic_network import CriticBatch, units_of

drawn = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def trained():
    """A critic that has met 300 batches of two Gaussians, 2 apart, and the rows of a large fresh sample."""
    critic = Critic(widths=(32, 32), learning_rate=1e-3, n_pretraining=20)
    for k in range(300):
        critic.learn(even(128), normal(128, 2, 2 * k), normal(128, 2, 2 * k + 1, [2.0, 0.0]))
    return critic, normal(2000, 2, 10_001), normal(2000, 2, 10_002, [2.0, 0.0])


def test_the_critics_value_nears_the_true_distance_of_shifted_gaussians(trained):
    critic, x, v = trained
    unit = float(critic._units[1])
    # A slope s costs 10 (s - 1)^2 and gains s W, so that it comes to rest at 1 + W / 20 in the critic's units.
    expected = 2.0 * (1.0 + 2.0 / unit / 20.0)
    assert float(critic.between(x, v)(even(2000)).value) == pytest.approx(expected, rel=0.1)


def test_the_slope_has_the_sign_of_the_shift_and_steps_lower_the_distance(trained):
    critic, x, v = trained
    estimate = critic.between(x, v)
    value, grad, _ = estimate(even(2000))
    # Rows on the target's side are to weigh more: the slope of W in their weights is lower.
    assert float(np.corrcoef(grad, x[:, 0])[0, 1]) < -0.95
    w = critic.step(BOUNDS, 1, even(2000), x, v)
    assert float(np.corrcoef(w, x[:, 0])[0, 1]) > 0.8
    assert float(estimate(w).value) < 0.8 * float(value)


def test_the_slope_is_the_values_slope_and_changes_sign_with_the_gap(trained):
    critic, x, v = trained
    estimate = critic.between(x[:50].double(), v[:50].double())
    rng = np.random.default_rng(0)
    too_far = 50.0 * nn.functional.one_hot(x[:50, 0].argmax(), 50).double()
    grads = []
    for w in (even(50, torch.float64), too_far):
        value, grad, _ = estimate(w)
        step = 1e-3 * torch.as_tensor(rng.normal(size=50))
        assert float(estimate(w + step).value - value) == pytest.approx(float(grad @ step), abs=1e-9)
        grads.append(grad)
    assert torch.equal(grads[0], -grads[1])


@pytest.mark.parametrize("is_pretraining", [True, False])
def test_the_critic_learns_as_torchs_adam_does_on_the_written_loss(is_pretraining):
    # A linear f has the slope |a| everywhere, so that the penalty is known whatever is drawn.
    network = nn.Linear(2, 1, bias=False)
    twin = copy.deepcopy(network)
    critic = Critic(network, n_pretraining=10 if is_pretraining else 0, learning_rate=0.01)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.01)
    for seed in range(5):
        x, v, w = normal(12, 2, seed, 1.0), normal(8, 2, 100 + seed), torch.rand(12, generator=torch.Generator().manual_seed(seed))
        critic.learn(w, x, v)
        center, unit = units_of(x, v)
        for _ in range(3):
            optimizer.zero_grad()
            f_x, f_v = (twin((rows - center) / unit)[:, 0] for rows in (x, v))
            penalty = 0.0 if is_pretraining else 10.0 * (twin.weight.norm() - 1.0) ** 2
            (penalty - f_v.mean() + (w * f_x).sum() / w.sum()).backward()
            optimizer.step()
    assert torch.allclose(network.weight, twin.weight, rtol=1e-5, atol=1e-6)
    assert int(critic.n_updated) == 15


def test_points_of_the_penalty_lie_between_a_target_row_and_a_source_row_of_its_class_drawn_by_weight():
    # Source rows at their number on the second axis; the target's are at 10 on the first axis.
    x = torch.stack([torch.zeros(4), torch.arange(4.0)], dim=1)
    v, y, y_val = torch.tensor([[10.0, 0.0]]).expand(6000, 2), torch.tensor([0, 1, 0, 1]), torch.arange(6000) % 2
    batch = CriticBatch.of(torch.tensor([1.0, 0.0, 3.0, 2.0]), x, v, y, y_val, 2)
    points = batch.points_between(torch.Generator().manual_seed(0))
    share = points[:, 0] / 10.0  # of the target row
    row = points[:, 1] / (1.0 - share)
    assert bool(((share >= 0.0) & (share < 1.0)).all()) and float(share.mean()) == pytest.approx(0.5, abs=0.02)
    is_clear = share < 0.99
    assert torch.allclose(row[is_clear], row[is_clear].round(), atol=1e-3)
    first, second = (row[is_clear & (y_val == label)].round().long().bincount(minlength=4) for label in (0, 1))
    # Of class 0 row 2 weighs three times as much as row 0; of class 1 row 1 weighs nothing.
    assert float(first[2] / first.sum()) == pytest.approx(0.75, abs=0.03) and int(first[1] + first[3]) == 0
    assert int(second[3]) == int(second.sum())


@given(seed=st.integers(0, 10**6), n_classes=st.integers(1, 4))
@drawn
def test_each_class_has_the_same_mass_of_both_samples_and_its_share_of_the_target(seed, n_classes):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(1, 12, 2)
    y, y_val = (torch.as_tensor(rng.integers(0, n_classes, size)) for size in (n, m))
    w = torch.as_tensor(rng.uniform(0, 2, n) * (rng.random(n) < 0.8))
    batch = CriticBatch.of(w, torch.zeros(n, 2, dtype=torch.float64), torch.zeros(m, 2, dtype=torch.float64), y, y_val, n_classes)
    for label in range(n_classes):
        total = float(batch.signed_mass[: batch.n][y == label].sum()), float(batch.target_mass[y_val == label].sum())
        is_in_both = bool((y_val == label).any()) and float(w[y == label].sum()) > 0.0
        share = float((y_val == label).double().mean()) if is_in_both else 0.0
        assert total == pytest.approx((-share, share), abs=1e-12)


def test_pre_training_and_warm_up_teach_the_critic_and_leave_the_weights_at_one():
    reweighter = new(Critic(widths=(8,), n_pretraining=6), warmup_steps=4)
    before, networks = torch.ones(40), []
    for seed in range(8):
        reweighter.partial_fit(normal(40, 2, seed, 1.0), normal(30, 2, 50 + seed), torch.arange(40))
        networks.append(tensors(of(reweighter)))
        assert torch.equal(reweighter.weights_, before) == (seed < 6)
    assert of(reweighter).n_batches == 8 and int(of(reweighter).n_updated) == 24
    assert not torch.equal(networks[0]["network.0.weight"], networks[1]["network.0.weight"])
