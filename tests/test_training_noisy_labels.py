"""Methods for wrong labels, against their published steps written out row by row."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_loops import N_TRAIN, C, Network, X, Y, assert_same, of, optimizer_of, plan
from torch import nn
from torch.nn import functional

from densratio.training import ELR, LabelCorrection, MCorrection, Uniform
from densratio.training.loop.mixed_labels import MixedLabels
from densratio.training.losses import squared_error, symmetric_cross_entropy
from densratio.training.noisy_labels import label_correction
from densratio.training.noisy_labels.beta_mixture import BetaMixture

drawn = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 1000)


def step_as_expected(model, optimizer, loss, expected):
    """A step of the optimizer on a loss whose value and gradient are those expected."""
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    slopes = torch.autograd.grad(expected, list(model.parameters()))
    optimizer.zero_grad()
    loss.backward()
    for parameter, slope in zip(model.parameters(), slopes, strict=True):
        torch.testing.assert_close(parameter.grad, slope, rtol=1e-4, atol=1e-6)
    optimizer.step()


# ---------------------------------------------------------------- early-learning regularization


@drawn
@given(seed=seeds, strength=st.floats(0.0, 7.0), decay=st.floats(0.0, 0.95))
def test_elr_is_its_formula_with_targets_kept_for_each_row(seed, strength, decay):
    model = Network(seed, has_norm=False).train()
    optimizer = optimizer_of(model)
    reweighter, targets = ELR(N_TRAIN, C, strength=strength, decay=decay), np.zeros((N_TRAIN, C))
    base = np.random.default_rng(seed).exponential(size=N_TRAIN)
    reweighter.set_base_weights(base)
    for index in plan(4, seed=seed):
        logits = model(X[index])
        terms = []
        for row, number in zip(logits, index.tolist(), strict=True):
            p = torch.softmax(row, 0)
            targets[number] = decay * targets[number] + (1 - decay) * p.detach().numpy()
            term = -p[Y[number]].log() + strength * torch.log(1 - (p * torch.as_tensor(targets[number])).sum())
            terms.append(float(base[number] / base.mean()) * term)
        by_hand = torch.stack(terms).mean()
        expected = torch.autograd.grad(by_hand, list(model.parameters()))
        loss = reweighter.weighted_loss(model, of(index))
        optimizer.zero_grad()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-3, abs=1e-4)
        for p, slope in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, slope.to(p.dtype), rtol=2e-3, atol=2e-4)
        optimizer.step()
    torch.testing.assert_close(reweighter.targets, torch.as_tensor(targets).float(), rtol=1e-3, atol=2e-4)


def test_elr_of_no_strength_is_plain_training_and_of_a_certain_row_finite():
    model = nn.Linear(1, C, bias=False)
    nn.init.constant_(model.weight, 0.0)
    with torch.no_grad():
        model.weight[1] = 200.0
    batch = torch.ones(3, 1), torch.tensor([1, 1, 0]), torch.arange(3)
    plain = Uniform(3).weighted_loss(model, batch)
    assert torch.equal(ELR(3, C, strength=0.0).weighted_loss(model, batch), plain)
    reweighter = ELR(3, C)
    for _ in range(50):
        loss = reweighter.weighted_loss(model, batch)
    loss.backward()
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(model.weight.grad).all())


def test_elr_turns_the_slope_of_a_wrong_label_that_the_row_s_past_contradicts():
    """Where targets are sure of another class than the label, a strong term outweighs the cross entropy, as published."""
    slopes = {}
    for strength in (0.0, 10.0):
        logits = torch.tensor([[0.0, 3.0, 0.0]])
        reweighter, layer = ELR(1, 3, strength=strength), nn.Linear(1, 3, bias=False)
        with torch.no_grad():
            layer.weight.copy_(logits.T)
        for _ in range(20):
            layer.zero_grad()
            reweighter.weighted_loss(layer, (torch.ones(1, 1), torch.tensor([0]), [0])).backward()
        slopes[strength] = layer.weight.grad[:, 0]
    # Descent moves against the slope: with plain training away from class 1, with the term towards it.
    assert float(slopes[0.0][1]) > 0.5 and float(slopes[10.0][1]) < 0.0


# ---------------------------------------------------------------- the beta mixture


def drawn_losses(seed, n=3000, share=0.6):
    """Losses of two kinds, scaled and shifted, and which are of the lower one."""
    rng = np.random.default_rng(seed)
    is_lower = rng.random(n) < share
    values = np.where(is_lower, rng.beta(1.5, 9.0, n), rng.beta(8.0, 3.0, n))
    return torch.as_tensor(2.0 + 3.0 * values), torch.as_tensor(is_lower)


def fitted(losses, is_known=None):
    mixture = BetaMixture().double()
    mixture.fit(losses, torch.ones_like(losses, dtype=torch.bool) if is_known is None else is_known)
    return mixture


@drawn
@given(seed=seeds, share=st.floats(0.2, 0.8))
def test_the_mixture_is_the_expectation_maximization_by_hand(seed, share):
    losses, _ = drawn_losses(seed, 400, share)
    mixture = fitted(losses)
    low, high = mixture.ends.tolist()
    assert [low, high] == pytest.approx(np.quantile(losses, [0.05, 0.95]), abs=0.1)
    kept = losses.numpy()[(losses.numpy() >= low) & (losses.numpy() <= high)]
    x = np.clip((kept - low) / (high - low), 1e-3, 1 - 1e-3)
    a, b, weight = np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([0.5, 0.5])
    for _ in range(10):
        joint = np.stack([weight[k] * stats.beta.pdf(x, a[k], b[k]) for k in range(2)])
        each = joint / joint.sum(axis=0)
        for k in range(2):
            mean = np.average(x, weights=each[k])
            spread = np.average((x - mean) ** 2, weights=each[k])
            a[k] = mean * (mean * (1 - mean) / spread - 1)
            b[k] = a[k] * (1 - mean) / mean
            weight[k] = each[k].mean()
    torch.testing.assert_close(mixture.shapes, torch.as_tensor(np.stack([a, b], axis=1)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixture.shares, torch.as_tensor(weight), rtol=1e-5, atol=1e-6)


@drawn
@given(seed=seeds, share=st.floats(0.3, 0.8))
def test_the_mixture_tells_two_kinds_of_losses_apart(seed, share):
    losses, is_lower = drawn_losses(seed, share=share)
    found = fitted(losses).lower(losses)
    assert float(((found > 0.5) == is_lower).double().mean()) > 0.9


@drawn
@given(seed=seeds, unit=st.floats(0.01, 100.0), shift=st.floats(-5.0, 5.0))
def test_the_unit_of_the_losses_does_not_count_and_rows_that_are_not_known_neither(seed, unit, shift):
    losses, _ = drawn_losses(seed, 400)
    whole = fitted(losses).lower(losses)
    moved = unit * losses + shift
    # A loss at the border of two cells may go to the next.
    assert float((fitted(moved).lower(moved) - whole).abs().median()) < 1e-6
    mixed = torch.stack([losses, torch.full_like(losses, 77.0)], dim=1).flatten()
    is_known = torch.tensor([True, False]).repeat(len(losses))
    torch.testing.assert_close(fitted(mixed, is_known).lower(losses), whole)


@drawn
@given(seed=seeds, n=st.sampled_from([16, 64, 300]), shape=st.floats(0.5, 8.0))
def test_the_least_losses_are_right_where_any_are(seed, n, shape):
    """Also of losses of one kind, which a narrow and a wide component share."""
    losses = torch.as_tensor(np.random.default_rng(seed).gamma(shape, size=n))
    mixture = fitted(losses)
    table, means = mixture.table, mixture.shapes[:, 0] / mixture.shapes.sum(dim=1)
    below = table[: 1 + int(100 * means.min())]
    assert float(below.min()) >= float(mixture.lower(mixture.ends[:1] + means.min() * (mixture.ends[1] - mixture.ends[0]))) - 0.05
    assert float(table.max()) > 0.4


@pytest.mark.parametrize("losses", [torch.full((9,), 2.0), torch.tensor([1.0]), torch.tensor([0.0, 5.0])])
def test_a_mixture_of_losses_that_show_nothing_gives_probabilities(losses):
    for is_known in (None, torch.zeros_like(losses, dtype=torch.bool)):
        mixture = fitted(losses.double(), is_known)
        found = mixture.lower(torch.linspace(-1.0, 7.0, 50, dtype=torch.float64))
        assert bool(((found >= 0.0) & (found <= 1.0)).all())
        assert all(bool(torch.isfinite(value).all()) for value in mixture.state_dict().values())
    assert torch.equal(found, torch.ones(50, dtype=torch.float64))


# ---------------------------------------------------------------- m-correction


def losses_of(logits, y):
    return functional.cross_entropy(logits, y, reduction="none")


@drawn
@given(seed=seeds, hard=st.booleans(), prior=st.sampled_from([0.0, 0.5, 1.0]))
def test_m_correction_shares_the_loss_between_the_label_and_the_predicted_class(seed, hard, prior):
    model = Network(seed, has_norm=False).train()
    optimizer = optimizer_of(model)
    reweighter, last = MCorrection(N_TRAIN, hard=hard, prior=prior, warmup_epochs=1.0), torch.zeros(N_TRAIN)
    for step, index in enumerate(plan(9, seed=seed)):
        logits = model(X[index])
        p, own = torch.softmax(logits, dim=1), losses_of(logits, Y[index])
        is_warm, last[index] = reweighter.is_warming_up, own.detach()
        loss = reweighter.weighted_loss(model, of(index))
        if is_warm:
            expected = own.mean()
            assert step < 4 and torch.equal(reweighter.weights_, torch.ones(N_TRAIN))
        else:
            right = reweighter.mixture.lower(own.detach())
            taken = p.argmax(dim=1) if hard else p.detach()
            expected = (right * own + (1 - right) * losses_of(logits, taken)).mean()
            expected = expected + prior * sum(torch.log(1 / C / share) / C for share in p.mean(dim=0))
            torch.testing.assert_close(reweighter.transform(index), right)
        step_as_expected(model, optimizer, loss, expected)
    torch.testing.assert_close(reweighter.last_losses, last)


@drawn
@given(seed=seeds, hard=st.booleans(), prior=st.sampled_from([0.0, 1.0]), mixup=st.sampled_from([0.3, 32.0]))
def test_mixed_rows_have_the_shared_losses_of_both(seed, hard, prior, mixup):
    model, made = Network(seed, has_norm=False).train(), []
    optimizer = optimizer_of(model)
    reweighter = MCorrection(N_TRAIN, hard=hard, prior=prior, mixup=mixup, seed=seed, warmup_epochs=1.0)
    drawn_batch = MixedLabels.drawn

    def spied(*args):
        made.append(drawn_batch(*args))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixedLabels, "drawn", spied)
        for index in plan(8, seed=seed):
            is_warm, plain = reweighter.is_warming_up, model(X[index])
            own, p = losses_of(plain, Y[index]).detach(), torch.softmax(plain, dim=1).detach()
            loss = reweighter.weighted_loss(model, of(index))
            if is_warm:
                torch.testing.assert_close(loss, losses_of(plain, Y[index]).mean())
            else:
                share, order = made[-1].share, made[-1].order
                logits = model(share * X[index] + (1 - share) * X[index][order])
                right, labels = reweighter.mixture.lower(own), functional.one_hot(Y[index], C).float()
                taken = functional.one_hot(p.argmax(dim=1), C).float() if hard else p
                target = right[:, None] * labels + (1 - right[:, None]) * taken
                target = share * target + (1 - share) * target[order]
                expected = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
                expected = expected + prior * (1 / C / torch.softmax(logits, dim=1).mean(dim=0)).log().mean()
                torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(reweighter.transform(index), right)
                torch.testing.assert_close(reweighter.last_losses[index], own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert len(made) > 3


def test_mixed_rows_take_no_base_weights_and_no_loss_but_cross_entropy():
    reweighter = MCorrection(N_TRAIN, mixup=1.0)
    with pytest.raises(ValueError, match=r"MCorrection\(mixup=...\) mixes rows, which have no base weights"):
        reweighter.set_base_weights(torch.ones(N_TRAIN))
    with pytest.raises(ValueError, match="leave out loss=, or mixup="):
        MCorrection(N_TRAIN, mixup=1.0, loss=squared_error)
    # A loss of one label may take probabilities for something else.
    with pytest.raises(ValueError, match="hard=False have cross entropies of several classes"):
        MCorrection(N_TRAIN, hard=False, loss=symmetric_cross_entropy)
    MCorrection(N_TRAIN).set_base_weights(torch.ones(N_TRAIN))


def test_the_mixture_is_fitted_at_the_head_of_each_pass_to_the_last_losses(monkeypatch):
    model, given_losses, fit = Network(0, has_norm=False).train(), [], BetaMixture.fit
    monkeypatch.setattr(BetaMixture, "fit", lambda *args: (given_losses.append(args[1:]), fit(*args)))
    reweighter = MCorrection(N_TRAIN, warmup_epochs=0.0)
    for index in torch.arange(N_TRAIN).repeat(3).split(20):
        reweighter.weighted_loss(model, of(index))
    losses = losses_of(model(X), Y).detach()
    assert [int(is_known.sum()) for _, is_known in given_losses] == [0, N_TRAIN, N_TRAIN]
    torch.testing.assert_close(given_losses[1][0], losses)


# ---------------------------------------------------------------- label correction


@drawn
@given(seed=seeds, rule=st.sampled_from(["lrt", "plc"]), decay=st.sampled_from([0.0, 0.5, 0.8]), warmup=st.sampled_from([0.0, 1.0]))
def test_labels_are_corrected_by_the_likelihood_ratio_row_by_row(seed, rule, decay, warmup):
    model = Network(seed, has_norm=False).train()
    optimizer = optimizer_of(model)
    reweighter = LabelCorrection(N_TRAIN, C, rule=rule, decay=decay, warmup_epochs=warmup)
    averages, labels, threshold, changes = torch.zeros(N_TRAIN, C), Y.clone(), 0.3, None
    order = torch.Generator().manual_seed(seed)
    for epoch in range(8):
        if epoch >= warmup:
            if rule == "lrt":
                threshold = 1.0 / (1.2 + 0.02 * (epoch + 1 - warmup))
            elif changes == 0:
                threshold = min(0.9, threshold + 0.1)
            changes = 0
        for index in torch.randperm(N_TRAIN, generator=order).split(20):
            logits = model(X[index])
            for row, p in zip(index.tolist(), torch.softmax(logits.detach(), dim=1), strict=True):
                q = averages[row]
                best = int(q.argmax())
                if epoch >= warmup and float(q[labels[row]]) < threshold * float(q[best]):
                    labels[row] = best
                    changes += 1
                averages[row] = decay * q + (1 - decay) * p
            loss = reweighter.weighted_loss(model, of(index))
            torch.testing.assert_close(loss, losses_of(logits, labels[index]).mean())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert torch.equal(reweighter.corrected, torch.where(labels == Y, -1, labels))
        assert torch.equal(reweighter.weights_, (labels == Y).float())
        assert float(reweighter.threshold) == pytest.approx(threshold if epoch >= warmup else (1 / 1.2 if rule == "lrt" else 0.3))
    torch.testing.assert_close(reweighter.averages, averages)


def test_a_batch_of_corrected_rows_alone_trains_on_their_new_labels_without_a_warning(caplog):
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [5.0]]))
    reweighter, batch = LabelCorrection(4, 2, warmup_epochs=0.0), (torch.ones(4, 1), torch.zeros(4, dtype=torch.int64), range(4))
    first, second = (float(reweighter.weighted_loss(model, batch).detach()) for _ in range(2))
    assert first == pytest.approx(5.0, abs=0.01) and second == pytest.approx(0.0067, abs=1e-4)
    assert reweighter.corrected.tolist() == [1] * 4 and not reweighter.weights_.any()
    assert reweighter.vanished_ == 0 and not caplog.records


class Failing:
    """Cross entropy whose call number `at` fails."""

    at = 0

    def __call__(self, prediction, label):
        self.at -= 1
        if self.at == 0:
            raise RuntimeError("no room")
        return functional.cross_entropy(prediction, label, reduction="none")


@drawn
@given(seed=seeds, strength=st.floats(0.1, 3.0), every=st.integers(2, 4), warmup=st.sampled_from([0.0, 2.0]))
def test_the_retroactive_loss_is_the_cross_entropy_with_the_predictions_of_an_earlier_pass(seed, strength, every, warmup):
    """The labels are those of a likelihood-ratio test that was given the same predictions."""
    model = Network(seed, has_norm=False).train()
    optimizer = optimizer_of(model)
    reweighter = LabelCorrection(N_TRAIN, C, rule="lrt", retroactive=strength, warmup_epochs=warmup)
    earlier, order = torch.zeros(N_TRAIN, C), torch.Generator().manual_seed(seed)
    base = torch.rand(N_TRAIN, generator=order) + 0.5
    reweighter.set_base_weights(base)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_correction, "_RETROACTIVE_PASSES", every)
        for epoch in range(9):
            made = torch.zeros(N_TRAIN, C)
            for index in torch.randperm(N_TRAIN, generator=order).split(20):
                logits = model(X[index])
                loss = reweighter.weighted_loss(model, of(index))
                standing = reweighter.corrected[index]
                losses = losses_of(logits, torch.where(standing < 0, Y[index], standing))
                if epoch >= warmup:
                    losses = losses - strength * (earlier[index] * torch.log_softmax(logits, dim=1)).sum(dim=1)
                expected = (base[index] / base.mean() * losses).mean()
                step_as_expected(model, optimizer, loss, expected)
                made[index] = torch.softmax(logits.detach(), dim=1)
            if epoch + 1 <= warmup or (epoch + 1 - warmup) % every == 0:
                earlier = made
            torch.testing.assert_close(reweighter.earlier, earlier)
    assert bool(earlier.any())


@pytest.mark.parametrize("rule", ["plc", "lrt"])
def test_predictions_for_the_retroactive_loss_are_in_checkpoints_with_it_alone(rule):
    """So those of earlier versions, which had no such loss, still load."""
    plain, retroactive = (LabelCorrection(N_TRAIN, C, rule=rule, retroactive=factor) for factor in (0.0, 1.0))
    assert {*retroactive.state_dict()} - {*plain.state_dict()} == {"earlier"}
    retroactive.weighted_loss(Network(0).train(), of([0, 1, 2]))
    resumed = LabelCorrection(N_TRAIN, C, rule=rule, retroactive=1.0)
    resumed.load_state_dict(retroactive.state_dict())
    assert bool(resumed.earlier[:3].all()) and torch.equal(resumed.earlier, retroactive.earlier)


def test_the_retroactive_loss_of_an_excluded_class_is_finite():
    model = nn.Linear(1, 3)
    with torch.no_grad():
        model.weight.zero_()
        # So near to each other that no label is corrected.
        model.bias.copy_(torch.tensor([0.1, 0.0, -torch.inf]))
    reweighter = LabelCorrection(3, 3, rule="lrt", retroactive=1.0, warmup_epochs=1.0)
    batch = torch.ones(3, 1), torch.tensor([0, 1, 0]), torch.arange(3)
    losses = [reweighter.weighted_loss(model, batch) for _ in range(2)]
    p = torch.softmax(model(batch[0]).detach(), dim=1)[:, :2]
    torch.testing.assert_close(losses[1], losses[0] - (p * p.log()).sum(dim=1).mean())


@pytest.mark.parametrize("n_steps", [0, 4])
@pytest.mark.parametrize("rule", ["lrt", "plc"])
def test_a_pass_whose_first_batch_fails_has_not_begun(rule, n_steps):
    """That is the number of the pass too, by which the threshold moves."""
    model, loss = Network(0, has_norm=False).train(), Failing()
    reweighter = LabelCorrection(N_TRAIN, C, rule=rule, retroactive=1.0, warmup_epochs=0.0, loss=loss)
    for index in torch.arange(N_TRAIN).split(N_TRAIN // 4)[:n_steps]:
        reweighter.weighted_loss(model, of(index))
    before, loss.at = copy.deepcopy(reweighter.state_dict()), 2
    with pytest.raises(RuntimeError, match="no room"):
        reweighter.weighted_loss(model, of(range(9)))
    assert_same(reweighter.state_dict(), before)


# ---------------------------------------------------------------- what they refuse


@pytest.mark.parametrize("make", [ELR, LabelCorrection])
def test_another_number_of_classes_is_refused(make):
    model = Network(0, has_norm=False).train()
    with pytest.raises(ValueError, match=rf"{make.__name__} needs logits \(n, {C + 1}\).*got \(9, {C}\)"):
        make(N_TRAIN, C + 1).weighted_loss(model, of(range(9)))


METHODS = {
    "ELR": lambda: ELR(N_TRAIN, C, warmup_epochs=1.0, loss=squared_error),
    "LabelCorrection": lambda: LabelCorrection(N_TRAIN, C, loss=squared_error),
    "MCorrection": lambda: MCorrection(N_TRAIN, loss=squared_error),
}


@pytest.mark.parametrize("name", METHODS)
def test_numbers_are_no_class_labels_in_a_warm_up_already(name):
    reweighter, one_hot = METHODS[name](), functional.one_hot(Y[:9], C).float()
    before = copy.deepcopy(reweighter.state_dict())
    words = rf"{name} needs logits .* class labels \(n,\), integers; got \(9, 3\) and \(9, 3\) of torch.float32"
    with pytest.raises(ValueError, match=words):
        reweighter.weighted_loss(Network(0, has_norm=False), (X[:9], one_hot, range(9)))
    assert_same(reweighter.state_dict(), before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ELR(5, 0), "n_classes must be an int >= 1; got 0"),
        (lambda: ELR(5, 2, strength=-1.0), r"strength must be a number in \[0, inf\); got -1.0"),
        (lambda: MCorrection(5, mixup=0.0), r"mixup must be a number in \(0, inf\) or None; got 0.0"),
        (lambda: MCorrection(5, prior=-1.0), r"prior must be a number in \[0, inf\); got -1.0"),
        (lambda: LabelCorrection(5, 2, rule="map"), r"rule must be one of \['lrt', 'plc'\]; got 'map'"),
        (lambda: LabelCorrection(5, 2, retroactive=-1.0), r"retroactive must be a number in \[0, inf\); got -1.0"),
        (lambda: LabelCorrection(5, 2, decay=1.0), r"decay must be a number in"),
        (lambda: ELR(5, 2, decay=1.0), r"decay must be a number in \[0, 1\); got 1.0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
