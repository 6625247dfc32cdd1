"""Joint optimization against its loss and its labels written out row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import N_TRAIN, C, Network, X, Y, of, optimizer_of

from densratio.training import JointOptimization

drawn = settings(max_examples=12, deadline=None)


def published(model, index, labels, alpha, beta, prior):
    """The loss of a batch with soft labels (n, C), less the entropy of the prior."""
    log_p = torch.log_softmax(model(X[index]), dim=1)
    p = log_p.exp()
    of_labels = sum(-(label * row).sum() for label, row in zip(labels, log_p, strict=True)) / len(index)
    of_mean = sum(q * torch.log(q / mean) for q, mean in zip(prior, p.mean(dim=0), strict=True) if q > 0)
    of_entropy = sum(-(row.exp() * row).sum() for row in log_p) / len(index)
    return of_labels + alpha * of_mean + beta * of_entropy, p.detach()


@drawn
@given(
    seed=st.integers(0, 999), hard=st.booleans(), window=st.integers(1, 4), warmup=st.sampled_from([0.0, 1.0, 2.0]),
    alpha=st.sampled_from([0.0, 1.2]), beta=st.sampled_from([0.0, 0.8]), prior=st.sampled_from([None, [1, 2, 1], [0.5, 0.5, 0.0]]),
)  # fmt: skip
def test_labels_are_means_of_the_last_predictions_and_the_loss_is_its_formula(seed, hard, window, warmup, alpha, beta, prior):
    model = Network(seed, has_norm=False).train()
    optimizer, order = optimizer_of(model), torch.Generator().manual_seed(seed)
    reweighter = JointOptimization(
        N_TRAIN, C, alpha=alpha, beta=beta, hard=hard, prior=prior, window=window, warmup_epochs=warmup
    )  # fmt: skip
    past = [[] for _ in range(N_TRAIN)]
    q = np.ones(C) / C if prior is None else np.array(prior) / sum(prior)
    for epoch in range(5):
        for index in torch.randperm(N_TRAIN, generator=order).split(15):
            labels = torch.nn.functional.one_hot(Y[index], C).float()
            for at, row in enumerate(index.tolist()):
                if epoch >= warmup and past[row]:
                    mean = torch.stack(past[row][-window:]).mean(dim=0)
                    labels[at] = torch.eye(C)[mean.argmax()] if hard else mean
            expected, p = published(model, index, labels, alpha, beta, q.tolist())
            for row, own in zip(index.tolist(), p, strict=True):
                past[row].append(own)
            slopes = torch.autograd.grad(expected, list(model.parameters()))
            loss = reweighter.weighted_loss(model, of(index))
            torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                reweighter.transform(index), labels[torch.arange(len(index)), Y[index]], rtol=1e-4, atol=1e-5
            )
            optimizer.zero_grad()
            loss.backward()
            for parameter, slope in zip(model.parameters(), slopes, strict=True):
                torch.testing.assert_close(parameter.grad, slope, rtol=1e-3, atol=1e-5)
            optimizer.step()
    torch.testing.assert_close(reweighter.labels, torch.stack([torch.stack(own[-window:]).mean(dim=0) for own in past]))


def test_a_row_that_was_in_no_batch_has_no_label_and_trains_on_the_given_one():
    model = Network(0, has_norm=False).train()
    reweighter = JointOptimization(N_TRAIN, C, alpha=0.0, beta=0.0, warmup_epochs=0.0)
    for _ in range(2):
        reweighter.weighted_loss(model, of(range(10)))
    assert torch.equal(reweighter.labels[10:], torch.zeros(N_TRAIN - 10, C)) and reweighter.transform(range(10)).max() < 1.0
    torch.testing.assert_close(reweighter.labels[:10].sum(dim=1), torch.ones(10))
    loss = reweighter.weighted_loss(model, of(range(10, 20)))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model(X[10:20]), Y[10:20]))


def test_base_weights_multiply_a_row_s_whole_loss():
    model, base = Network(0, has_norm=False).train(), np.random.default_rng(0).exponential(size=N_TRAIN)
    reweighter = JointOptimization(N_TRAIN, C, alpha=0.0, warmup_epochs=0.0)
    reweighter.weighted_loss(model, of(range(12)))
    label = reweighter.labels[:12]
    reweighter.set_base_weights(base)
    log_p = torch.log_softmax(model(X[:12]), dim=1)
    each = -(label * log_p).sum(dim=1) - 0.8 * (log_p.exp() * log_p).sum(dim=1)
    expected = (torch.as_tensor(base / base.mean(), dtype=torch.float32)[:12] * each).mean()
    torch.testing.assert_close(reweighter.weighted_loss(model, of(range(12))), expected)


def test_predictions_that_are_certain_give_a_finite_loss_and_slope():
    layer = torch.nn.Linear(1, C, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [300.0], [0.0]]))
    reweighter = JointOptimization(3, C, warmup_epochs=0.0)
    for _ in range(2):
        loss = reweighter.weighted_loss(layer, (torch.ones(3, 1), torch.tensor([0, 1, 2]), range(3)))
        loss.backward()
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(layer.weight.grad).all())


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"alpha": -1.0}, r"alpha must be a number in \[0, inf\); got -1.0"),
        ({"beta": float("nan")}, r"beta must be a number in \[0, inf\)"),
        ({"window": 0}, "window must be an int >= 1, the predictions that are kept"),
        ({"prior": [0.5, 0.5]}, r"prior must be \(3,\) finite shares >= 0"),
        ({"prior": [0.5, 0.5, "rest"]}, r"prior must be \(3,\) finite shares >= 0.*got 'rest'"),
        ({"prior": [0.0, 0.0, 0.0]}, "not all 0"),
        ({"prior": [1.0, -1.0, 1.0]}, "shares >= 0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        JointOptimization(5, C, **params)


def test_another_number_of_classes_is_refused_in_a_warm_up_already():
    with pytest.raises(ValueError, match=r"JointOptimization needs logits \(n, 4\).*got \(9, 3\)"):
        JointOptimization(N_TRAIN, C + 1).weighted_loss(Network(0, has_norm=False).train(), of(range(9)))


@drawn
@given(seed=st.integers(0, 99), counts=st.lists(st.integers(0, 3), min_size=8, max_size=8).filter(any))
def test_a_base_weight_of_k_is_k_copies_in_the_mean_prediction_too(seed, counts):
    model, base = Network(seed, has_norm=False).train(), torch.zeros(N_TRAIN)
    base[:8] = torch.tensor(counts, dtype=torch.float32)
    based, plain = (JointOptimization(N_TRAIN, C, warmup_epochs=1.0) for _ in range(2))
    based.set_base_weights(base)
    expected = plain.weighted_loss(model, of(torch.arange(8).repeat_interleave(torch.tensor(counts))))
    expected = expected * (base[:8].mean() / base.mean())
    loss = based.weighted_loss(model, of(range(8)))
    torch.testing.assert_close(loss, expected)
    slopes = [torch.autograd.grad(each, list(model.parameters())) for each in (loss, expected)]
    for own, other in zip(*slopes, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_a_class_whose_logit_is_minus_infinity_has_no_part_in_the_loss():
    logits = torch.randn(6, C)
    logits[:, 2] = -float("inf")
    model = torch.nn.Embedding.from_pretrained(logits, freeze=False)
    reweighter = JointOptimization(6, C, alpha=0.0, warmup_epochs=0.0)
    for _ in range(2):
        loss = reweighter.weighted_loss(model, (torch.arange(6), torch.arange(6) % 2, range(6)))
    log_p = torch.log_softmax(logits[:, :2], dim=1)
    own = log_p.exp()
    torch.testing.assert_close(loss.detach(), -(1.8 * own * log_p).sum(dim=1).mean())
    (slope,) = torch.autograd.grad(loss, [model.weight])
    assert bool(torch.isfinite(slope).all())
