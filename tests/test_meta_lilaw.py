"""LiLAW: three numbers, against the published formulas and steps by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import (
    N_TRAIN,
    N_VAL,
    VAL,
    X_VAL,
    Y_VAL,
    D,
    Network,
    X,
    Y,
    of,
    optimizer_of,
    plan,
    train,
)
from torch import nn

from densratio.training.losses import cross_entropy
from densratio.training.meta import LiLAW
from densratio.training.meta.lilaw import lilaw_weights

drawn = settings(max_examples=10)


@pytest.mark.parametrize(
    ("s_y", "s_max", "parts"),
    [
        (0.95, 0.95, (0.9995, 0.1301, 0.0000)),
        (0.60, 0.60, (0.9918, 0.2315, 0.0015)),
        (0.40, 0.60, (0.9526, 0.3543, 0.0889)),
        (0.05, 0.95, (0.3775, 0.6900, 0.8353)),
    ],
)
def test_lilaw_weights_at_four_points(s_y, s_max, parts):
    found = lilaw_weights(torch.tensor([s_y]), torch.tensor([s_max]), 9.0, 3.0, 7.0)
    assert [float(part) for part in (found.easy, found.hard, found.moderate)] == pytest.approx(parts, abs=6e-5)
    assert float(sum(found)) == pytest.approx(sum(parts), abs=2e-4)


softmaxes = st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=60)
@given(s=softmaxes, at=st.tuples(*[st.floats(-5.0, 15.0)] * 3))
def test_lilaw_rises_with_alpha_and_falls_with_beta(s, at):
    s_y, s_max = (torch.tensor([value], dtype=torch.float64) for value in s)
    point = torch.tensor(at, dtype=torch.float64)

    def weight(numbers):
        return sum(lilaw_weights(s_y, s_max, *numbers)).sum()

    slope = torch.autograd.functional.jacobian(weight, point)
    assert float(slope[0]) >= 0 >= float(slope[1])
    h, unit = 1e-5, torch.eye(3, dtype=torch.float64)
    by_differences = torch.stack([(weight(point + h * e) - weight(point - h * e)) / (2 * h) for e in unit])
    torch.testing.assert_close(slope, by_differences, rtol=1e-5, atol=1e-8)


def test_without_weight_decay_alpha_never_rises_and_beta_never_falls():
    model = Network(0)
    reweighter, optimizer = LiLAW(N_TRAIN, weight_decay=0.0, warmup_epochs=0, learning_rate=0.5), optimizer_of(model)
    course = [(float(reweighter.alpha.detach()), float(reweighter.beta.detach()))]
    for index in plan(15):
        train(reweighter, model, optimizer, [index])
        course.append((float(reweighter.alpha.detach()), float(reweighter.beta.detach())))
    alpha, beta = np.array(course).T
    assert (np.diff(alpha) <= 0).all() and (np.diff(beta) >= 0).all() and alpha[-1] < alpha[0] and beta[-1] > beta[0]


@drawn
@given(seed=st.integers(0, 1000), start=st.tuples(*[st.floats(-2.0, 12.0)] * 3), decay=st.sampled_from([0.0, 0.1]))
def test_a_step_of_the_three_is_the_gradient_of_the_weighted_validation_loss(seed, start, decay):
    model = Network(seed, has_norm=False).train()
    reweighter = LiLAW(
        N_TRAIN, alpha=start[0], beta=start[1], delta=start[2], learning_rate=0.3, weight_decay=decay, warmup_epochs=0,
        bounded=False,
    )  # fmt: skip
    three = [torch.tensor(value, requires_grad=True) for value in start]
    with torch.no_grad():
        s, each = torch.softmax(model(X_VAL), 1), cross_entropy(model(X_VAL), Y_VAL)
        own = s[torch.arange(N_VAL), Y_VAL]
    out = torch.softmax(model(X[:9]), 1)
    a, b, d = three
    weights = torch.sigmoid(a * own - s.amax(1)) + torch.sigmoid(s.amax(1) - b * own) + torch.exp(-((d * own - s.amax(1)) ** 2) / 2)
    gradients = torch.autograd.grad((weights * each).mean(), three)
    expected = [float((p - 0.3 * (g + decay * p)).detach()) for p, g in zip(three, gradients, strict=True)]
    loss = reweighter.weighted_loss(model, of(range(9)), VAL)
    found = [float(p.detach()) for p in (reweighter.alpha, reweighter.beta, reweighter.delta)]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    own, largest = out[torch.arange(9), Y[:9]], out.amax(1)
    easy, hard = torch.sigmoid(found[0] * own - largest), torch.sigmoid(largest - found[1] * own)
    parts = torch.stack([easy, hard, torch.exp(-((found[2] * own - largest) ** 2) / 2)], dim=1)
    torch.testing.assert_close(reweighter.weights_[:9], parts.detach().sum(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(reweighter.difficulty[:9], parts.detach(), rtol=1e-4, atol=1e-5)
    by_hand = (parts.sum(dim=1) * cross_entropy(model(X[:9]), Y[:9])).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-4)
    # The classifier descends the whole of it, the weights included; the three are left to the validation rows.
    slopes, by_autograd = (torch.autograd.grad(part, list(model.parameters()), retain_graph=True) for part in (loss, by_hand))
    torch.testing.assert_close(slopes, by_autograd, rtol=1e-3, atol=1e-5)
    loss.backward()
    assert reweighter.alpha.grad is reweighter.beta.grad is reweighter.delta.grad is None


def test_in_the_warm_up_the_three_stay_and_the_weights_are_one():
    model = Network(0)
    reweighter = LiLAW(N_TRAIN)
    train(reweighter, model, optimizer_of(model), [torch.arange(20), torch.arange(20, 40)], val=None)
    assert (float(reweighter.alpha.detach()), float(reweighter.beta.detach()), float(reweighter.delta.detach())) == (10.0, 2.0, 6.0)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and not reweighter.is_warming_up
    train(reweighter, model, optimizer_of(model), [torch.arange(20)])
    assert float(reweighter.alpha.detach()) != 10.0 and not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


@drawn
@given(
    seed=st.integers(0, 99),
    temperature=st.floats(0.3, 4.0),
    names=st.lists(st.sampled_from(["easy", "hard", "moderate"]), min_size=1, unique=True),
)
def test_the_weights_are_the_sum_of_the_parts_that_are_kept_at_the_temperature(seed, temperature, names):
    model = Network(seed, has_norm=False).train()
    reweighter = LiLAW(N_TRAIN, temperature=temperature, parts=names, learning_rate=0.0, warmup_epochs=0)
    reweighter.weighted_loss(model, of(range(9)), VAL)
    p = torch.softmax(model(X[:9]).detach() / temperature, 1)
    parts = lilaw_weights(p[torch.arange(9), Y[:9]], p.amax(1), 10.0, 2.0, 6.0)
    torch.testing.assert_close(reweighter.weights_[:9], sum(getattr(parts, name) for name in names), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kept", ["easy", "hard", "moderate"])
def test_a_part_that_is_left_out_teaches_its_number_nothing(kept):
    model = Network(1, has_norm=False).train()
    reweighter = LiLAW(N_TRAIN, parts=[kept], learning_rate=0.5, weight_decay=0.0, warmup_epochs=0, bounded=False)
    before = dict(reweighter.learned_numbers)
    before = {name: float(value) for name, value in before.items()}
    reweighter.weighted_loss(model, of(range(9)), VAL)
    moved = {name for name, value in reweighter.learned_numbers.items() if float(value) != before[name]}
    assert moved == {{"easy": "alpha", "hard": "beta", "moderate": "delta"}[kept]}


def test_the_three_stay_within_their_bounds_and_leave_them_only_where_asked():
    found = {}
    for bounded in (True, False):
        model, reweighter = Network(0, has_norm=False).train(), LiLAW(
            N_TRAIN, alpha=1.0, beta=2.0, delta=2.0, learning_rate=0.5, warmup_epochs=0, bounded=bounded
        )  # fmt: skip
        for _ in range(6):
            reweighter.weighted_loss(model, of(range(9)), VAL)
        found[bounded] = {name: float(value) for name, value in reweighter.learned_numbers.items()}
    assert found[True]["alpha"] >= 1.0 and found[True]["delta"] >= found[True]["beta"]
    assert found[False]["alpha"] < 1.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"alpha": 0.5}, "alpha must be >= 1 and delta >= beta.*bounded=False"),
        ({"delta": 1.0}, "delta >= beta"),
        ({"temperature": 0.0}, r"temperature must be a number in \(0, inf\)"),
        ({"parts": []}, "parts must be some of"),
        ({"parts": ["easy", "easy"]}, "each once"),
        ({"parts": "easy"}, "parts must be some of"),
    ],
)
def test_lilaw_says_which_option_is_out_of_range(given, words):
    with pytest.raises(ValueError, match=words):
        LiLAW(N_TRAIN, **given)


@pytest.mark.parametrize("warmup_epochs", [0, 1])
@pytest.mark.parametrize(("columns", "target"), [(1, (9,)), (1, (9, 1)), (3, (9, 3))], ids=["numbers", "a column", "soft labels"])
def test_targets_that_are_no_labels_are_refused_with_the_first_batch(columns, target, warmup_epochs):
    reweighter, x = LiLAW(N_TRAIN, warmup_epochs=warmup_epochs, loss=lambda p, y: p.sum(dim=1)), torch.randn(9, D)
    batch = (x, torch.rand(target), range(9))
    with pytest.raises(ValueError, match=r"class labels \(n,\), integers; .* use DynamicReweighter, MWNet or L2R"):
        reweighter.weighted_loss(nn.Linear(D, columns).train(), batch, batch)
    assert reweighter.steps_seen == 0 and torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


def test_weights_at_are_those_of_the_numbers_and_parts_of_now():
    own, largest = np.random.default_rng(0).uniform(size=(2, 40))
    reweighter = LiLAW(N_TRAIN, alpha=4.0, beta=1.0, delta=3.0, parts=["easy", "moderate"])
    expected = 1 / (1 + np.exp(largest - 4 * own)) + np.exp(-((3 * own - largest) ** 2) / 2)
    np.testing.assert_allclose(reweighter.weights_at(own, largest).numpy(), expected, rtol=1e-12)
