"""GDW against its step taken by hand, and what its weights of classes promise."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import MOMENTUM, N_TRAIN, RATE, VAL, C, Network, Y, double, of, optimizer_of, plan, train
from torch.func import functional_call
from torch.nn import functional

from densratio.training import GDW, MetaGradient, MWNet

STEPS = {"step": st.floats(0.01, 3.0), "clip": st.floats(0.05, 2.0)}


def by_hand(reweighter, network, its_optimizer, model, optimizer, batch, val):
    """One published step: V, the slope of each class weight, V's step, the step of the weights, the classifier's step."""
    (x, y, _), parameters, n = batch, list(model.parameters()), len(batch[1])
    z = model(x)
    losses, p, one_hot = functional.cross_entropy(z, y, reduction="none"), z.softmax(1).detach(), functional.one_hot(y, C)
    w = network(losses.detach())
    w = w / w.mean() if reweighter.normalize else w
    v = w.detach()[:, None].repeat(1, C).requires_grad_()
    gradients = torch.autograd.grad(z, parameters, v * (p - one_hot) / n, create_graph=True)
    buffers = [optimizer.state[q]["momentum_buffer"] if optimizer.state else torch.zeros_like(q) for q in parameters]
    names = [name for name, _ in model.named_parameters()]
    after = {m: q - RATE * (MOMENTUM * b + g) for m, q, b, g in zip(names, parameters, buffers, gradients, strict=True)}
    slope = torch.autograd.grad(functional.cross_entropy(functional_call(model, after, (val[0],)), val[1]), v)[0]
    its_optimizer.zero_grad()
    (slope * w[:, None]).sum().backward()
    its_optimizer.step()
    v = (v - (reweighter.step * slope / slope.abs().mean()).clamp(-reweighter.clip, reweighter.clip)).detach().clamp(min=1e-6)
    own = ((v * p * (1 - one_hot)).sum(1) / (1 - p.gather(1, y[:, None])[:, 0]))[:, None]
    v = torch.where(one_hot > 0, own, v)
    v, own = (v / own.mean(), own / own.mean()) if reweighter.normalize else (v, own)
    for q, g in zip(parameters, torch.autograd.grad(model(x), parameters, v * (p - one_hot) / n), strict=True):
        q.grad = g
    optimizer.step()
    return own[:, 0], (own[:, 0] * losses).mean().detach()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 99), normalize=st.booleans(), rate=st.sampled_from([0.001, 0.1]), **STEPS)
def test_steps_are_the_published_ones(seed, normalize, rate, step, clip):
    model = Network(seed, False).double()
    optimizer = optimizer_of(model)
    gdw = GDW(N_TRAIN, optimizer=optimizer, step=step, clip=clip, normalize=normalize, learning_rate=rate).double()
    other, network = copy.deepcopy(model), copy.deepcopy(gdw.network)
    its = optimizer_of(other), torch.optim.Adam(network.parameters(), rate, weight_decay=1e-4)
    for index in plan(3, seed=seed):
        batch, val = double(of(index)), double(VAL)
        weights, value = by_hand(gdw, network, its[1], other, its[0], batch, val)
        loss = gdw.weighted_loss(model, batch, val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        torch.testing.assert_close(loss.detach(), value)
        torch.testing.assert_close(gdw.weights_[index], weights, rtol=1e-6, atol=1e-9)
        for parts in ((model, other), (gdw.network, network)):
            for one, hand in zip(*(part.parameters() for part in parts), strict=True):
                torch.testing.assert_close(one, hand, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("product", ["forward", "double_backward", "finite_differences"])
def test_every_product_gives_the_same_weights(product):
    found = []
    for engine in (MetaGradient(), MetaGradient(product=product)):
        model = Network(0, False).double()
        engine.optimizer = optimizer_of(model)
        torch.default_generator.manual_seed(1)
        gdw = GDW(N_TRAIN, gradient=engine).double()
        gdw.weighted_loss(model, double(of(range(20))), double(VAL))
        found.append(gdw.weights_)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-7)


class Logits(torch.nn.Module):
    """The logits themselves as parameters, so that their gradient can be read."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, x):
        return self.logits[x]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 99), scale=st.sampled_from([0.1, 3.0, 1e3, 1e30]), **STEPS)
def test_logits_of_a_row_have_gradients_of_sum_0_and_the_right_signs(seed, scale, step, clip):
    """Also of rows that are known by heart, and of those that are as wrong as can be."""
    generator = torch.Generator().manual_seed(seed)
    model = Logits(scale * torch.randn(N_TRAIN, C, generator=generator))
    gdw = GDW(N_TRAIN, optimizer=optimizer_of(model), step=step, clip=clip)
    rows = torch.arange(20)
    gdw.weighted_loss(model, (rows, Y[rows], rows), (torch.arange(25), Y[:25], None)).backward()
    gradient = model.logits.grad[:20]
    assert bool(torch.isfinite(gradient).all()) and bool(torch.isfinite(gdw.weights_).all())
    assert float(gradient.sum(1).abs().max()) < 1e-6
    is_label = functional.one_hot(Y[:20], C) > 0
    assert float(gradient[is_label].max()) <= 1e-7 and float(gradient[~is_label].min()) >= -1e-7
    assert float(gdw.weights_.min()) > 0.0


def test_batches_that_are_not_due_have_the_weights_of_the_network():
    model = Network(0, False)
    optimizer = optimizer_of(model)
    gdw = GDW(N_TRAIN, optimizer=optimizer, every=2)
    train(gdw, model, optimizer, plan(1))
    plain = MWNet(N_TRAIN, optimizer=optimizer, every=2)
    state = gdw.state_dict()
    del state["_extra_state"]["method"]  # MWNet refuses the states of another method
    plain.load_state_dict(state)
    losses = [reweighter.weighted_loss(copy.deepcopy(model), of(range(9))) for reweighter in (gdw, plain)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(gdw.weights_, plain.weights_)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"mode": "last_layer"}, 'use mode="exact" or mode="first_order"'),
        ({"product": "layers"}, 'leave out product="layers"'),
        ({"step": 0.0}, "step must be"),
        ({"clip": -1.0}, "clip must be"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(params, words):
    with pytest.raises(ValueError, match=words):
        GDW(N_TRAIN, **params)


def test_labels_that_are_no_classes_are_refused():
    model = Network(0)
    gdw = GDW(N_TRAIN, optimizer=optimizer_of(model))
    x, y, index = of(range(9))
    with pytest.raises(ValueError, match=r"GDW needs logits \(n, C\) and class labels \(n,\)"):
        gdw.weighted_loss(model, (x, functional.one_hot(y, C).float(), index), VAL)
