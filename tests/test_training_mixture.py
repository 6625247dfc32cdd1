"""All divergences at once: shares that move with the gradients."""

from __future__ import annotations

import pytest
import torch
from dynamic_cases import N_TRAIN, N_VAL, Network, copied, new, rows, uniform
from torch import nn
from torch.nn import functional

from densratio.estimators import IN_LOOPS


def of_last_layer(model, x, y):
    """Gradient (n, C, h + 1) of each row's loss in the last linear layer, by autograd."""
    gradients = []
    for row, label in zip(x, y, strict=True):
        model.zero_grad()
        functional.cross_entropy(model(row[None]), label[None]).backward()
        gradients.append(torch.cat([model.out.weight.grad, model.out.bias.grad[:, None]], dim=1).clone())
    model.zero_grad()
    return torch.stack(gradients)


def test_evidence_is_the_cosine_of_weighted_training_and_validation_gradients_of_the_last_layer():
    (x, y), (x_val, y_val) = rows(20, 1), rows(N_VAL, 2)
    model, i, j = Network().eval(), torch.arange(20), torch.arange(N_VAL)
    auto, singles = new("auto"), [new(name) for name in IN_LOOPS]
    evidence = torch.zeros(len(singles))
    target = of_last_layer(model, x_val, y_val).sum(dim=0)
    each = of_last_layer(model, x, y)
    for _ in range(3):
        auto.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        for k, single in enumerate(singles):
            single.weighted_loss(model, (x, y, i), (x_val, y_val, j))
            weighted = (single.transform(i)[:, None, None] * each).sum(dim=0)
            evidence[k] = 0.99 * evidence[k] + functional.cosine_similarity(weighted.flatten(), target.flatten(), dim=0)
        torch.testing.assert_close(auto.agreement.evidence, evidence, rtol=1e-4, atol=1e-5)
    shares = dict(zip(IN_LOOPS, torch.softmax(evidence, 0).tolist(), strict=True))
    assert auto.share_ == pytest.approx(shares, rel=1e-4)


def test_the_weights_are_the_mixture_of_the_single_ones():
    auto, singles = new("auto"), [new(name) for name in IN_LOOPS]
    auto.agreement.evidence.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]))
    share = torch.softmax(auto.agreement.evidence, 0)
    for step in range(3):
        batch = uniform(30, step, scale=2.0), uniform(N_VAL, 40 + step), torch.arange(30), torch.arange(N_VAL)
        auto.partial_fit(*batch)
        parts = torch.stack([single.partial_fit(*batch).weights_ for single in singles])
    torch.testing.assert_close(auto.weights_, share @ parts)
    assert float(auto.weights_[:30].mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    "params", [{}, {"val_refresh": 4}, {"transformation": lambda p, y, losses: -losses}], ids=["", "bank", "other"]
)
def test_shares_move_with_the_gradients_and_resume_to_the_bit(params):
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)

    def go(reweighter, n_steps):
        for step in range(n_steps):
            i, j = (torch.arange(15) + 15 * step) % N_TRAIN, (torch.arange(6) + 6 * step) % N_VAL
            reweighter.weighted_loss(Network().eval(), (x[i], y[i], i), (x_val[j], y_val[j], j))
        return reweighter

    stopped = new("auto", **params)
    stopped.load_state_dict(copied(go(new("auto", **params), 4).state_dict()))
    straight = go(new("auto", **params), 4)
    for reweighter in (stopped, straight):
        go(reweighter, 2)
    assert len(set(straight.share_.values())) > 1
    assert torch.equal(stopped.weights_, straight.weights_) and stopped.share_ == straight.share_


def test_a_model_without_a_linear_layer_is_judged_by_the_slope_of_its_output():
    class Sum(nn.Module):
        def forward(self, x):
            return torch.cat([x, x.sum(dim=1, keepdim=True)], dim=1)

    auto = new("auto")
    auto.weighted_loss(Sum(), (*rows(20, 1), range(20)), (*rows(N_VAL, 2), range(N_VAL)))
    assert float(auto.agreement.evidence.abs().min()) > 0.0


def test_the_mixture_runs_where_no_value_can_be_read():
    auto = new("auto").to("meta")
    model = nn.Linear(2, 3, device="meta")
    batch = [(torch.empty(n, 2, device="meta"), torch.empty(n, dtype=torch.int64, device="meta"), range(n)) for n in (8, N_VAL)]
    assert auto.weighted_loss(model, *batch).device.type == "meta"
