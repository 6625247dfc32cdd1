"""DivideMix, against the published algorithm with two networks by hand, and its mixture against scikit-learn's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture as Reference
from small_loops import N_TRAIN, C, Network, X, Y, assert_same, of, optimizer_of, plan
from torch import nn
from torch.nn import functional

from densratio.training import DivideMix, ELRPlus
from densratio.training.loop import mixed_labels
from densratio.training.loop.mixed_labels import mixup_of
from densratio.training.noisy_labels.gaussian_mixture import GaussianMixture

seeds = st.integers(0, 1000)
drawn = settings(max_examples=6, deadline=None)


# ---------------------------------------------------------------- the mixture


def losses_of_two_kinds(seed, n):
    rng = np.random.default_rng(seed)
    return torch.as_tensor(np.r_[rng.gamma(1.0, 0.3, n), rng.normal(3.0, 0.8, n // 2).clip(0.0)])


def by_scikit_learn(x):
    """The same start, by k-means from both ends, and ten of scikit-learn's steps."""
    means = np.array([0.0, 1.0])
    for _ in range(10):
        nearest = np.abs(x[:, None] - means).argmin(axis=1)
        means = np.array([x[nearest == k].mean() for k in range(2)])
    start = [x[nearest == k] for k in range(2)]
    reference = Reference(
        2, max_iter=10, tol=0.0, reg_covar=5e-4, weights_init=[len(part) / len(x) for part in start],
        means_init=[[part.mean()] for part in start], precisions_init=[[[1.0 / (part.var() + 5e-4)]] for part in start],
    )  # fmt: skip
    return reference.fit(x[:, None])


@pytest.mark.filterwarnings("ignore:Best performing initialization did not converge")
@drawn
@given(seed=seeds, n=st.sampled_from([20, 200]), n_unknown=st.sampled_from([0, 7]))
def test_the_mixture_takes_the_steps_of_scikit_learn_s(seed, n, n_unknown):
    losses = losses_of_two_kinds(seed, n)
    mixture, is_known = GaussianMixture().double(), torch.ones(len(losses) + n_unknown, dtype=torch.bool)
    is_known[len(losses) :] = False
    mixture.fit(torch.cat([losses, torch.full((n_unknown,), 99.0)]), is_known)
    x = ((losses - losses.min()) / (losses.max() - losses.min())).numpy()
    reference = by_scikit_learn(x)
    torch.testing.assert_close(mixture.means.numpy(), reference.means_[:, 0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(mixture.shares.numpy(), reference.weights_, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(mixture.variances.numpy(), reference.covariances_[:, 0, 0], rtol=1e-6, atol=1e-8)
    low, high = np.sort(reference.means_[:, 0])
    expected = reference.predict_proba(x.clip(low, high)[:, None])[:, reference.means_[:, 0].argmin()]
    torch.testing.assert_close(mixture.lower(losses).numpy(), expected, rtol=1e-5, atol=1e-8)


@drawn
@given(seed=seeds, n=st.sampled_from([2, 20, 200]))
def test_a_smaller_loss_is_never_less_likely_right(seed, n):
    losses = losses_of_two_kinds(seed, n)
    mixture = GaussianMixture().double()
    mixture.fit(losses, torch.ones_like(losses, dtype=torch.bool))
    right = mixture.lower(losses.sort().values)
    assert bool((right.diff() <= 1e-12).all()) and bool(((right >= 0.0) & (right <= 1.0)).all())


@pytest.mark.parametrize("losses", [torch.full((9,), 2.0), torch.tensor([1.0]), torch.tensor([0.0, 5.0])])
def test_a_mixture_of_losses_that_show_nothing_gives_probabilities(losses):
    for is_known in (torch.ones_like(losses, dtype=torch.bool), torch.zeros_like(losses, dtype=torch.bool)):
        mixture = GaussianMixture()
        mixture.fit(losses, is_known)
        found = mixture.lower(torch.linspace(-1.0, 7.0, 50))
        assert bool(((found >= 0.0) & (found <= 1.0)).all())
        assert all(bool(torch.isfinite(value).all()) for value in mixture.state_dict().values())
    assert torch.equal(found, torch.ones(50))


# ---------------------------------------------------------------- the method


def made(seed, **params):
    """Model, its optimizer, the reweighter, and two twins of the networks with optimizers of their own."""
    networks = [Network(start, has_norm=False).train() for start in (seed, seed + 1)]
    twins = [Network(start, has_norm=False).train() for start in (seed, seed + 1)]
    optimizer = optimizer_of(networks[0])
    reweighter = DivideMix(N_TRAIN, networks[0], optimizer, peer=networks[1], seed=seed, **params)
    return networks[0], optimizer, reweighter, twins, [optimizer_of(twin) for twin in twins]


def sharpened(p, temperature):
    powers = p ** (1.0 / temperature)
    return powers / powers.sum(dim=1, keepdim=True)


def by_hand(twins, copies, y, right, mixes, settings_, weight, base):
    """The loss of each twin on the divided batch, and which rows each counts as labeled; right: of the twins' own losses.

    base: base weights of the rows.
    """
    base = torch.cat([base] * len(copies))
    seen = [torch.stack([torch.softmax(twin(copy), dim=1) for copy in copies]).mean(dim=0).detach() for twin in twins]
    losses, flags = [], []
    for k, (twin, (share, order)) in enumerate(zip(twins, mixes, strict=True)):
        w = right[1 - k][:, None]
        is_labeled = w[:, 0] >= settings_["threshold"]
        refined = w * functional.one_hot(y, C) + (1 - w) * seen[k]
        target = sharpened(torch.where(is_labeled[:, None], refined, (seen[0] + seen[1]) / 2), settings_["temperature"])
        x, target, flag = torch.cat(copies), torch.cat([target] * len(copies)), torch.cat([is_labeled] * len(copies))
        mixed, target = share * x + (1 - share) * x[order], share * target + (1 - share) * target[order]
        p = torch.softmax(twin(mixed), dim=1)
        loss = p.new_zeros(())
        if flag.any():
            loss = loss - (base * (target * p.log()).sum(dim=1))[flag].mean()
        if (~flag).any():
            loss = loss + weight * (base * ((p - target) ** 2).mean(dim=1))[~flag].mean()
        shares = (base[:, None] * p).sum(dim=0) / base.sum()
        losses.append(loss + base.mean() * settings_["prior"] * (1 / C / shares).log().mean())
        flags.append(is_labeled)
    return losses, flags


@drawn
@given(
    seed=seeds, threshold=st.sampled_from([0.2, 0.5, 0.9]), temperature=st.sampled_from([0.5, 1.0]),
    mixup=st.sampled_from([None, 0.3, 4.0]), prior=st.sampled_from([0.0, 1.0]), n_copies=st.sampled_from([1, 2]),
    has_base=st.booleans(),
)  # fmt: skip
@example(seed=0, threshold=0.2, temperature=0.5, mixup=None, prior=0.0, n_copies=2, has_base=True)
def test_two_networks_divide_the_rows_for_each_other(seed, threshold, temperature, mixup, prior, n_copies, has_base):
    own = {"threshold": threshold, "temperature": temperature, "prior": prior}
    mixes, moved = [], []

    def augment(x):
        moved.append(x + 0.1 * (1 + len(moved) % 2) * torch.ones_like(x))
        return moved[-1]

    def spied(n, *args, draw=mixed_labels._drawn):
        mixes.append(draw(n, *args))
        return mixes[-1]

    model, optimizer, reweighter, twins, theirs = made(
        seed,
        **own,
        mixup=mixup,
        unlabeled_weight=3.0,
        ramp_epochs=1.0,
        warmup_epochs=0.5,
        augment=augment if n_copies == 2 else None,
    )
    seen, base = 0, torch.ones(N_TRAIN)
    if has_base and mixup is None:
        base = torch.rand(N_TRAIN, generator=torch.Generator().manual_seed(seed))
        base = base / base.mean()
        reweighter.set_base_weights(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mixed_labels, "_drawn", spied)
        for index in plan(7, seed=seed):
            epoch, is_warm = seen / N_TRAIN, reweighter.is_warming_up
            x, y = X[index], Y[index]
            loss = reweighter.weighted_loss(model, of(index))
            if is_warm:
                losses = [(base[index] * functional.cross_entropy(twin(x), y, reduction="none")).mean() for twin in twins]
            else:
                copies = [x] if n_copies == 1 else moved[-2:]
                plain = [
                    torch.stack([functional.cross_entropy(twin(copy), y, reduction="none") for copy in copies]).mean(dim=0).detach()
                    for twin in twins
                ]
                right = [mixture.lower(own_losses) for mixture, own_losses in zip(reweighter.mixtures, plain, strict=True)]
                none = 1.0, torch.arange(len(index) * n_copies)
                weight = 3.0 * min(1.0, epoch - 0.5)
                drawn_ = mixes[-2:] if mixup else [none, none]
                losses, flags = by_hand(twins, copies, y, right, drawn_, own, weight, base[index])
                torch.testing.assert_close(reweighter.last_losses[index], torch.stack(plain, dim=1), rtol=1e-4, atol=1e-5)
                expected = flags[0] / flags[0].float().mean() if flags[0].any() else torch.zeros(len(index))
                torch.testing.assert_close(reweighter.transform(index), expected)
            torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=1e-5)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for own_loss, its_optimizer in zip(losses, theirs, strict=True):
                its_optimizer.zero_grad()
                own_loss.backward()
                its_optimizer.step()
            seen += len(index)
    for network, twin in zip((model, reweighter.peer), twins, strict=True):
        for one, other in zip(network.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_rows_of_any_form_are_taken_unmixed():
    class OfDict(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, C)

        def forward(self, inputs):
            return self.inner(inputs["x"])

    model = OfDict()
    optimizer = optimizer_of(model)
    reweighter = DivideMix(N_TRAIN, model, optimizer, warmup_epochs=0)
    reweighter.weighted_loss(model, ({"x": X[:8]}, Y[:8], torch.arange(8))).backward()
    for parameters, words in (
        ({"mixup": 4.0}, "must be one tensor of floats; got a dict: give mixup=None"),
        ({"mixup": None, "augment": copy.copy}, "must be of one tensor; got a dict: leave augment out"),
    ):
        # With the first batch, not only when the warm-up is over.
        with pytest.raises(ValueError, match=words):
            DivideMix(N_TRAIN, model, optimizer, **parameters).weighted_loss(model, ({"x": X[:8]}, Y[:8], torch.arange(8)))


@pytest.mark.parametrize("method", [DivideMix, lambda n, *given, **params: ELRPlus(n, C, *given, **params)])
def test_base_weights_of_images_that_are_mixed_are_refused_with_the_first_batch(method):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, C))
    batch = X[:8].reshape(8, 1, 2, 2), Y[:8], torch.arange(8)
    reweighter = method(N_TRAIN, model, optimizer_of(model), warmup_epochs=5.0)
    reweighter.set_base_weights(torch.arange(N_TRAIN))
    with pytest.raises(ValueError, match=r"mixes these rows, .* type mixup=None, with which each row has its own loss"):
        reweighter.weighted_loss(model, batch)
    unmixed = method(N_TRAIN, model, optimizer_of(model), warmup_epochs=5.0, mixup=None)
    unmixed.set_base_weights(torch.arange(N_TRAIN))
    base = torch.arange(8) / torch.arange(N_TRAIN).float().mean()
    expected = (base * functional.cross_entropy(model(batch[0]), batch[1], reduction="none")).mean()
    torch.testing.assert_close(unmixed.weighted_loss(model, batch), expected)


@pytest.mark.parametrize(("x", "beta"), [(torch.ones(4, 2), None), ({"x": X}, None), (torch.ones(4, 1, 2, 2), 4.0)])
def test_images_are_mixed_and_rows_of_tables_are_not(x, beta):
    assert mixup_of("auto", x, 4.0) == beta and mixup_of(None, x, 4.0) is None
    if isinstance(x, torch.Tensor):
        assert mixup_of(0.3, x, 4.0) == 0.3


def test_a_batch_that_fails_leaves_the_mixtures_as_they_were():
    """The first batch after a pass fits them."""
    model, _, reweighter, _, _ = made(0, warmup_epochs=1.0)
    for index in plan(4):
        reweighter.weighted_loss(model, of(index))
    before, pass_before = copy.deepcopy(reweighter.state_dict()), model.forward
    model.forward = lambda x: pass_before(x) * (float("nan") if torch.is_grad_enabled() else 1.0)
    with pytest.raises(ValueError, match="NaN or infinity"):
        reweighter.weighted_loss(model, of(range(8)))
    assert_same(reweighter.state_dict(), before)
    model.forward = pass_before
    reweighter.weighted_loss(model, of(range(8)))
    assert reweighter.fitted_pass == 1 and bool(reweighter.mixtures[0].is_fitted)


NET = nn.Linear(4, C)
SGD = torch.optim.SGD(NET.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DivideMix(5, NET, SGD, threshold=1.5), r"threshold must be a number in \[0, 1\]; got 1.5"),
        (lambda: DivideMix(5, NET, SGD, temperature=0), r"temperature must be a number in \(0, inf\)"),
        (lambda: DivideMix(5, NET, SGD, mixup=-1), r"mixup must be a number in \(0, inf\), .auto. or None"),
        (lambda: DivideMix(5, NET, SGD, unlabeled_weight=-1), "unlabeled_weight must be"),
        (lambda: DivideMix(5, NET, SGD, augment=2), "augment must be a function .* or None; got 2"),
        (lambda: DivideMix(5, NET, SGD, peer="resnet"), "DivideMix: peer= must be a .*Module of the same form.* got 'resnet'"),
        (lambda: DivideMix(5, NET, SGD, peer=nn.Linear(3, 3)), "peer= must be .* of the same form as the model; got Linear"),
        (lambda: DivideMix(5, Network(0), SGD), "DivideMix gives the peer a copy of the optimizer"),
        (lambda: DivideMix(5, NET, SGD, mixup=4.0).set_base_weights([1] * 5), "DivideMix mixes these rows.*type mixup=None"),
    ],
)
def test_unsuitable_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
