"""Scores in the last layer are those of a model that trains only it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_cases import N_VAL, C, D, assert_close, batch, by_a_loop, labels_for, row_weights, scores
from torch import nn
from torch.nn import functional

from densratio.training.losses import cross_entropy, multilabel, squared_error
from densratio.training.meta.gradient import MetaGradient


def with_last_layer(outputs=C, *, bias=True, seed=0, dtype=torch.float64):
    torch.default_generator.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, outputs, bias=bias)).to(dtype).train()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rates", [None, (0.3, 0.3), (0.3, 0.05)], ids=["no optimizer", "one rate", "a rate each"])
@pytest.mark.parametrize(("loss", "outputs"), [(cross_entropy, C), (multilabel, C), (squared_error, 1), (squared_error, C)])
@settings(max_examples=5)
@given(seed=st.integers(0, 1000), n=st.integers(1, 9))
def test_last_layer_scores_are_those_of_a_model_that_trains_only_it(loss, outputs, bias, rates, seed, n):
    model = with_last_layer(outputs, bias=bias, seed=seed)
    train = batch(n, seed + 1)[0], labels_for(loss, n, outputs, seed + 1)
    val = batch(N_VAL, seed + 2)[0], labels_for(loss, N_VAL, outputs, seed + 2), torch.arange(N_VAL)
    last, optimizer = list(model[2].parameters()), None
    if rates is not None:
        groups = [{"params": [*model[0].parameters(), last[0]], "lr": rates[0]}, {"params": last[1:], "lr": rates[1]}]
        optimizer = torch.optim.RMSprop(groups[: len(last)])
    weights = row_weights(n, seed)
    found, across = (
        scores(model, train, val, weights, optimizer, mode="last_layer", loss=loss, fixed_step_length=is_fixed)
        for is_fixed in (False, True)
    )
    model[0].requires_grad_(False)
    rate_of = {id(p): 1.0 if rates is None else rate for p, rate in zip(last, rates or (1.0, 1.0), strict=False)}
    assert_close(found, by_a_loop(model, train, val, lambda p: rate_of[id(p)], loss=loss))
    expected = by_a_loop(model, train, val, lambda p: rate_of[id(p)], across=weights, loss=loss)
    assert float((across - expected).abs().max()) <= 1e-10 * float(found.abs().max())


def test_last_layer_scores_of_a_bias_that_is_frozen_or_not_the_optimizers_are_without_it():
    model, train, val = with_last_layer(), batch(5, 1), batch(N_VAL, 2)
    expected = -scores(model, train, val, mode="last_layer")
    left_out = torch.optim.SGD([model[2].weight], lr=1.0)
    without = [scores(model, train, val, optimizer=left_out, mode="last_layer")]
    model[2].bias.requires_grad_(False)
    without.append(scores(model, train, val, mode="last_layer"))
    model[0].requires_grad_(False)
    expected = by_a_loop(model, train, val, lambda p: 1.0)
    for found in without:
        assert_close(found, expected)


@given(seed=st.integers(0, 1000), order=st.permutations(range(4)))
def test_a_bank_is_the_whole_validation_set_once_each_row_was_renewed(seed, order):
    model, train, val = with_last_layer(seed=seed), batch(6, seed + 1), batch(12, seed + 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    banked = MetaGradient("last_layer", optimizer, n_val=12, val_refresh=3)
    for part in order:
        # Only the first val_refresh rows of a batch are passed; here each comes with rows of no account behind it.
        rows = torch.cat([3 * part + torch.arange(3), torch.arange(2)])
        found = banked.of(banked.rows(model, *train[:2], cross_entropy), torch.ones(6), [entry[rows] for entry in val])
    assert_close(found, scores(model, train, val, optimizer=optimizer, mode="last_layer"))


@pytest.mark.parametrize("index", [[0, 1, 9], [0, -1, 2], [0, 1], None])
def test_a_bank_refuses_places_that_it_does_not_have(index):
    model, train, val = with_last_layer(), batch(6, 1), batch(3, 2)
    meta = MetaGradient("last_layer", n_val=5, val_refresh=3)
    with pytest.raises(ValueError, match="val_index"):
        meta.of(meta.rows(model, *train[:2], cross_entropy), torch.ones(6), (*val[:2], index))


@pytest.mark.parametrize("tail", [nn.Softmax(dim=1), nn.LogSoftmax(dim=1), nn.ReLU(), nn.Dropout(0.0)], ids=str)
def test_last_layer_refuses_a_model_that_goes_on_after_it(tail):
    model = nn.Sequential(nn.Linear(D, C), tail).double()
    if isinstance(tail, nn.Dropout):
        model.train()
        tail.p = 0.5
    with pytest.raises(ValueError, match=r'last_layer.*the output of its last nn\.Linear.*softmax.*mode="first_order"'):
        scores(model, batch(5, 1), batch(N_VAL, 2), mode="last_layer")


def test_last_layer_refuses_a_model_that_changes_the_output_in_place():
    model = nn.Sequential(nn.Linear(D, C), nn.ReLU(inplace=True)).double()
    with pytest.raises(ValueError, match="last_layer"):
        scores(model, batch(5, 1), batch(N_VAL, 2), mode="last_layer")


def test_last_layer_refuses_a_model_without_one():
    with pytest.raises(ValueError, match=r"last nn\.Linear"):
        scores(nn.Conv1d(D, C, 1).double(), (batch(5, 1)[0][..., None], torch.zeros(5, 1, dtype=torch.int64)),
               (batch(5, 1)[0][..., None], torch.zeros(5, 1, dtype=torch.int64), range(5)), mode="last_layer",
               loss=lambda p, y: functional.cross_entropy(p, y, reduction="none").mean(dim=1))  # fmt: skip
