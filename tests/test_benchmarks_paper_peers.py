"""Methods of two networks in the paper's benchmark: their weights, and the accuracy of both together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from paper_cases import experiment, session
from torch.nn.functional import cross_entropy

from benchmarks.paper.methods import Method, Sizes
from benchmarks.paper.tables import accuracy_row
from densratio.training.registry import Ingredients


def test_both_networks_learn_from_the_cross_fitted_weights():
    torch.manual_seed(0)
    model, x, y = torch.nn.Linear(4, 3), torch.randn(30, 4), torch.randint(3, (30,))
    given = Ingredients(30, 20, y, 3, model, torch.optim.SGD(model.parameters(), lr=0.1), 2, lambda: torch.zeros(30))
    weights = np.linspace(0.0, 1.0, 30)
    two = Method("cross_fitted_two").build(
        experiment(), Sizes(given, np.zeros(20, dtype=np.int64), np.arange(30) < 10, lambda: weights, None)
    )
    share = torch.as_tensor(weights / weights.mean(), dtype=torch.float32)
    peer = {name: value.detach().clone().requires_grad_() for name, value in two.peer.named_parameters()}
    expected = (share * cross_entropy(torch.func.functional_call(two.peer, peer, (x,)), y, reduction="none")).mean()
    slopes = torch.autograd.grad(expected, list(peer.values()))
    loss = two.weighted_loss(model, (x, y, torch.arange(30)))
    torch.testing.assert_close(loss, (share * cross_entropy(model(x), y, reduction="none")).mean())
    for value, start, slope in zip(two.peer.parameters(), peer.values(), slopes, strict=True):
        torch.testing.assert_close(value, start - 0.1 * slope)


@pytest.mark.parametrize("name", ["co_teaching", "divide_mix", "elr_plus"])
def test_the_accuracy_of_both_is_that_of_their_mean_probabilities(name):
    run = session(name)
    assert run.advance(lambda: run.epoch == 1) is False
    run.model.eval()
    with torch.no_grad():
        found = [(run.model(x).softmax(1) + run.reweighter.peer.eval()(x).softmax(1)).argmax(1) == y for x, y, _ in run.test]
    assert run.history["both_accuracy"] == [torch.cat(found).double().mean().item()]


def test_the_table_has_both_where_a_method_has_two_networks():
    def record(method, seed, **history):
        run = session(method)
        return {
            "identity": {**run.identity, "seed": seed}, "is_done": True, "peak_memory": None,
            "history": {"accuracy": [0.5] * 3, "loss": [1.0] * 3, "seconds": [1.0] * 3, **history},
        }  # fmt: skip

    methods = {
        "uniform": [record("uniform", 0)],
        "co_teaching": [record("co_teaching", seed, both_accuracy=[0.0] * 5 + [0.5 + 0.1 * seed] * 10) for seed in (0, 1)],
    }
    assert accuracy_row("co_teaching", methods)["both networks, %"] == f"55.00 ({100 * 0.1 / 2**0.5:.2f})"
    assert accuracy_row("uniform", methods)["both networks, %"] is None
    assert "both networks, %" not in accuracy_row("uniform", {"uniform": methods["uniform"]})
