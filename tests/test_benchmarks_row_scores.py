"""Scores of rows from recorded logits: each against its definition, epoch by epoch and row by row."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not installed
torch = pytest.importorskip("torch")

from benchmarks import row_scores  # noqa: E402


@st.composite
def trainings(draw):
    """Logits (T, n, K), labels (n,) and features (T, n, d) in double precision."""
    epochs, n, k, d = (draw(st.integers(low, 6)) for low in (1, 1, 2, 1))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    scale = draw(st.sampled_from([0.1, 3.0]))
    logits = scale * torch.randn(epochs, n, k, generator=generator, dtype=torch.float64)
    features = torch.randn(epochs, n, d, generator=generator, dtype=torch.float64)
    return logits, torch.randint(k, (n,), generator=generator), features


def probabilities(logits, labels, row):
    """The label's, after each epoch."""
    found = []
    for epoch in logits.tolist():
        powers = [math.exp(value) for value in epoch[row]]
        found.append(powers[int(labels[row])] / sum(powers))
    return found


def mean(values):
    return sum(values) / len(values)


def margins(logits, labels, row):
    for epoch in logits.tolist():
        own = int(labels[row])
        yield epoch[row][own] - max(value for k, value in enumerate(epoch[row]) if k != own)


def by_hand_forgetting(logits, labels, row):
    is_right = [max(range(len(e[row])), key=e[row].__getitem__) == int(labels[row]) for e in logits.tolist()]
    return sum(a and not b for a, b in itertools.pairwise(is_right)) if any(is_right) else math.inf


BY_HAND = {
    "aum": lambda *at: -mean(list(margins(*at))),
    "confidence": lambda *at: 1 - mean(probabilities(*at)),
    "variability": lambda *at: math.sqrt(mean([(p - mean(probabilities(*at))) ** 2 for p in probabilities(*at)])),
    "uncertainty": lambda *at: mean([p * (1 - p) for p in probabilities(*at)]),
    "data_iq": lambda *at: mean([(1 - p) ** 2 for p in probabilities(*at)]),
    "cnlcu_soft": lambda *at: mean([math.log(1 - math.log(p) + math.log(p) ** 2 / 2) for p in probabilities(*at)]),
    "forgetting": by_hand_forgetting,
}


def test_every_score_is_compared():
    assert {*BY_HAND, "el2n", "grand"} == set(row_scores.__all__)


@pytest.mark.parametrize("name", BY_HAND)
@given(training=trainings())
def test_a_score_is_its_definition(name, training):
    logits, labels, _ = training
    expected = [BY_HAND[name](logits, labels, row) for row in range(len(labels))]
    # A deviation is the root of a difference: rounding of 1e-16 becomes 1e-8.
    assert getattr(row_scores, name)(logits, labels).tolist() == pytest.approx(expected, abs=1e-7)


@given(training=trainings())
def test_gradients_are_those_of_autograd(training):
    _, labels, features = training
    layers = [torch.nn.Linear(features.shape[2], int(labels.max()) + 2, dtype=torch.float64) for _ in features]
    logits = torch.stack([layer(rows) for layer, rows in zip(layers, features, strict=True)])
    for row, label in enumerate(labels):
        norms = []
        for layer, rows in zip(layers, features, strict=True):
            out = layer(rows[row])
            loss = torch.nn.functional.cross_entropy(out[None], label[None])
            norms.append([sum(g.square().sum() for g in torch.autograd.grad(loss, part, retain_graph=True)).sqrt().item()
                          for part in ([*layer.parameters()], [out])])  # fmt: skip
        assert row_scores.grand(logits, labels, features)[row].item() == pytest.approx(mean([whole for whole, _ in norms]))
        assert row_scores.el2n(logits, labels)[row].item() == pytest.approx(norms[-1][1])
