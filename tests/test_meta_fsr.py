"""FSR against a dictionary kept in lists, and weights from gradients taken row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from small_loops import N_TRAIN, C, Network, X, Y, double, of, optimizer_of, plan, train
from torch import nn
from torch.nn import functional

from densratio.datasets import label_noise
from densratio.training import FSR


def row_gradients(model, x, y):
    """Gradients (n, p) of the losses in the last layer, row by row."""
    of_last = list(model.out.parameters())
    losses = [functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(y))]
    return torch.stack([torch.cat([g.flatten() for g in torch.autograd.grad(loss, of_last)]) for loss in losses])


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 99), k=st.sampled_from([1, 3, 40]), every=st.sampled_from([1, 2]), twice=st.booleans())
def test_dictionary_and_weights_are_those_kept_by_hand(seed, k, every, twice):
    model = Network(seed, False).double()
    optimizer = optimizer_of(model)
    fsr = FSR(N_TRAIN, C, k=k, n_drawn=10**3 * C, every=every, warmup_epochs=0.0, seed=seed).double()
    held, scores, direction, weights = [[] for _ in range(C)], {}, 0.0, torch.ones(N_TRAIN).double()
    for number, index in enumerate(plan(4, seed=seed)):
        index = torch.cat([index, index[:3]]) if twice else index
        x, y, i = double(of(index))
        own = row_gradients(model, x, y)
        gained = {row: float((own[j] * direction).sum()) for j, row in enumerate(i.tolist())}
        scores.update({row: scores.get(row, 0.0) + gain for row, gain in gained.items()})
        step = (weights[i][:, None] * own).mean(0)
        direction = 0.9 * direction + 0.1 * step if number else step
        rows = list(dict.fromkeys(reversed(i.tolist())))[::-1]
        held = [
            sorted([*(r for r in held[c] if r not in rows), *(r for r in rows if Y[r] == c)], key=lambda r: -scores[r])[:k]
            for c in range(C)
        ]
        loss = fsr.weighted_loss(model, (x, y, i))
        weights = fsr.weights_.clone()
        assert [[r for r in rows if r >= 0] for rows in fsr.rows_.tolist()] == held
        for c, rows in enumerate(held):
            torch.testing.assert_close(fsr.inputs[c, : len(rows)], X.double()[rows])
        if number % every == 0:
            present = [torch.tensor(rows) for rows in held if rows]
            # Many draws, so that their mean is nearly that of each class.
            of_val = torch.stack([row_gradients(model, X.double()[rows], Y[rows]).mean(0) for rows in present]).mean(0)
            by_hand = (own @ of_val).clamp(min=0.0)
            by_hand = by_hand / by_hand.mean()
            assert float((fsr.transform(i) - by_hand).abs().max()) < 0.15 * float(by_hand.max())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_a_drawn_batch_has_as_many_rows_of_each_class_that_has_some_and_differs_from_step_to_step():
    model = Network(0, False)
    fsr, drawn = FSR(N_TRAIN, C + 2, k=5, n_drawn=12, warmup_epochs=0.0), []
    train(fsr, model, optimizer_of(model), [torch.arange(N_TRAIN)] * 2)
    for _ in range(2):
        x, y, _ = fsr._drawn()
        assert torch.bincount(y, minlength=C + 2).tolist() == [4, 4, 4, 0, 0]
        own = {tuple(row.tolist()): int(label) for row, label in zip(X, Y, strict=True)}
        assert [own[tuple(row.tolist())] for row in x] == y.tolist()
        drawn.append(x)
        fsr.steps_seen += 1
    assert not torch.equal(*drawn)


def test_the_dictionary_follows_a_warm_up_whose_weights_are_1():
    model = Network(0, False)
    fsr = FSR(N_TRAIN, C, k=3, warmup_epochs=1.0)
    train(fsr, model, optimizer_of(model), [torch.arange(20)], val=None)
    assert torch.equal(fsr.weights_, torch.ones(N_TRAIN)) and int((fsr.rows_ >= 0).sum()) == 3 * C and bool((fsr.rows_ < 20).all())


def test_few_rows_of_the_dictionary_have_wrong_labels():
    digits = load_digits()
    x = torch.as_tensor(digits.data / 16.0, dtype=torch.float32)
    noisy = label_noise(digits.target, "symmetric", 0.4, n_classes=10, random_state=0)
    y, generator = torch.as_tensor(noisy.labels), torch.Generator().manual_seed(0)
    torch.default_generator.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    fsr, optimizer = FSR(len(x), 10, k=50, warmup_epochs=3.0), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(4):
        for index in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            fsr.weighted_loss(model, (x[index], y[index], index)).backward()
            optimizer.step()
    wrong = noisy.labels != digits.target
    assert wrong[fsr.rows_.flatten().numpy()].mean() < 0.75 * wrong.mean()
    weights = fsr.weights_.numpy()
    assert weights[wrong].mean() < 0.9 * weights[~wrong].mean() and np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (({"x": X[:3]}, Y[:3]), "must be one tensor"),
        ((X[:3], functional.one_hot(Y[:3], C).float()), r"integers; got \(3, 3\) of torch.float32. One-hot labels become y.argmax"),
        ((X[:3], torch.tensor([0, 1, C])), "n_classes=3 were declared and a label is 3"),
    ],
)
def test_rows_that_it_cannot_keep_are_refused(batch, words):
    fsr = FSR(N_TRAIN, C, warmup_epochs=1.0)
    with pytest.raises(ValueError, match=words):
        fsr.weighted_loss(Network(0), (*batch, [0, 1, 2]))
    assert fsr.inputs is None and fsr.steps_seen == 0
    train(fsr, Network(0), optimizer_of(Network(0)), [torch.arange(9)])
    with pytest.raises(ValueError, match=r"must have one shape, that of the first batch: \(4,\); got \(5,\)"):
        fsr.weighted_loss(Network(0), (torch.zeros(3, 5), Y[:3], [0, 1, 2]))


def test_a_first_batch_that_fails_fixes_no_shape():
    model, n_calls = Network(0), []

    def loss(prediction, label):
        n_calls.append(1)
        if len(n_calls) == 3:
            raise RuntimeError("no room")
        return functional.cross_entropy(prediction, label, reduction="none")

    fsr = FSR(N_TRAIN, C, warmup_epochs=0.0, loss=loss)
    with pytest.raises(RuntimeError, match="no room"):
        fsr.weighted_loss(model, of(range(9)))
    assert fsr.inputs is None and fsr.direction is None and bool((fsr.rows_ < 0).all())
    fsr.weighted_loss(model, of(range(9)))
    assert fsr.inputs.shape == (C, 50, 4)


def test_a_model_without_a_last_layer_is_refused_at_once_or_weighed_by_its_outputs():
    model = nn.Sequential(nn.Linear(4, C), nn.Softmax(dim=1))
    fsr = FSR(N_TRAIN, C, warmup_epochs=1.0)
    with pytest.raises(ValueError, match=r'mode="last_layer" needs a model whose predictions'):
        fsr.weighted_loss(model, of(range(9)))
    assert fsr.inputs is None and fsr.direction is None
    fsr = FSR(N_TRAIN, C, warmup_epochs=0.0, mode="first_order")
    assert np.isfinite(train(fsr, model, optimizer_of(model), plan(3))).all() and int((fsr.rows_ >= 0).sum()) > C


@pytest.mark.parametrize(
    ("params", "words"), [({"k": 0}, "k must be"), ({"n_drawn": 0}, "n_drawn must be"), ({"mode": "second"}, "mode must be")]
)
def test_parameters_that_cannot_be_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        FSR(N_TRAIN, C, warmup_epochs=1.0, **params)
