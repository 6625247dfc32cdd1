"""DynamicReweighter beyond one batch of losses: layers, devices that nobody waits for, and real training loops."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from dynamic_cases import N_TRAIN, N_VAL, Network, by_name, classes, copied, new, rows, uniform
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from densratio import KMM, LSIF
from densratio.training import DIW, Indexed, endless
from densratio.training.loop.late_errors import LateErrors
from densratio.training.losses import multilabel, pixel_cross_entropy, rows_mean, squared_error, token_cross_entropy

# ---------------------------------------------------------------- nothing waits for the device


@pytest.mark.parametrize("bank", [None, 3])
@pytest.mark.parametrize("index", ["on the host", "on the device"])
@by_name
def test_a_whole_partial_fit_runs_where_no_value_can_be_read(name, index, bank):
    reweighter = new(name, val_refresh=bank, forget=0.1).to("meta")
    train, val = torch.empty(8, device="meta"), torch.empty(3, device="meta")
    i, j = (
        ([*range(8)], [*range(3)]) if index == "on the host" else (torch.empty(n, dtype=torch.int64, device="meta") for n in (8, 3))
    )
    for _ in range(2):
        weights = reweighter.partial_fit(train, val, i, j).transform(i)
    assert weights.device.type == "meta" and weights.shape == (8,)
    assert reweighter.rows_seen == 16


def watched(source, target, positions=None, val_positions=None, sizes=(N_TRAIN, N_VAL)):
    watch = LateErrors()
    source, target = (torch.tensor(x)[:, None] for x in (source, target))
    places = [torch.arange(len(x)) if i is None else torch.tensor(i) for x, i in ((source, positions), (target, val_positions))]
    return watch, bool(watch.usable(*zip((source, target), places, sizes, strict=True)))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (([1.0, float("nan"), 2.0], [1.0], [7, 5, 3]), r"training rows \[5\]"),
        (([float("inf")] * 12, [1.0]), r"training rows \[0, 1, 2, 3, 4, 5, 6, 7, 8, 9\] \.\.\."),
        (([1.0], [1.0, -float("inf")], None, [2, 8]), r"validation rows \[8\]"),
        (([1.0], [1.0], [N_TRAIN]), "out of range"),
        (([1.0], [1.0], None, [-1]), "out of range"),
    ],
)
def test_what_a_device_finds_wrong_is_told_later_and_once(batch, message):
    watch, is_usable = watched(*batch)
    assert not is_usable
    with pytest.raises(ValueError, match=message):
        watch.raise_if_seen(wait=True)
    watch.raise_if_seen(wait=True)


def test_the_first_unusable_batch_is_the_one_that_is_told():
    watch, _ = watched([float("nan")], [1.0], [4])
    val = torch.ones(1, 1), torch.tensor([0]), N_VAL
    assert not watch.usable((torch.tensor([[float("nan")]]), torch.tensor([9]), N_TRAIN), val)
    assert watch.usable((torch.ones(1, 1), torch.tensor([9]), N_TRAIN), val)
    with pytest.raises(ValueError, match=r"\[4\]"):
        watch.raise_if_seen(wait=True)


def test_a_usable_batch_raises_nothing():
    watch, is_usable = watched([1.0, 2.0], [0.0])
    watch.raise_if_seen(wait=True)
    assert is_usable


# ---------------------------------------------------------------- odd batches


@by_name
def test_a_validation_batch_of_one_row_gives_finite_weights_of_mean_one(name):
    reweighter = new(name)
    for step in range(3):
        w = reweighter.partial_fit(uniform(10, step, scale=2.0), uniform(1, step), torch.arange(10), [3]).transform(
            torch.arange(10)
        )
        assert bool(torch.isfinite(w).all()) and float(w.min()) >= 0.0 and float(w.mean()) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif"])
def test_features_that_require_a_gradient_are_detached(name):
    features, plain = uniform(10, 0, d=3).requires_grad_(), uniform(10, 0, d=3)
    batch = uniform(N_VAL, 1, d=3), torch.arange(10), torch.arange(N_VAL)
    followed = new(name).partial_fit(features * 1.0, *batch).weights_
    assert not followed.requires_grad and torch.equal(followed, new(name).partial_fit(plain, *batch).weights_)


# ---------------------------------------------------------------- what is compared


def test_a_layer_is_compared_class_by_class_as_by_hand():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    i, j = torch.arange(30), torch.arange(N_VAL)
    by_layer, by_hand = new("lsif", layer="hidden"), new("lsif")
    model = Network().eval()
    loss = by_layer.weighted_loss(model, (x, y, i), (x_val, y_val, j))
    weights = by_hand.partial_fit(model.hidden(x), model.hidden(x_val), i, j, y, y_val).transform(i)
    assert torch.equal(by_layer.weights_, by_hand.weights_) and not weights.requires_grad
    expected = (weights * functional.cross_entropy(model(x), y, reduction="none")).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_a_transformation_of_ones_own_is_compared():
    def margin(prediction, label, losses):
        return prediction.gather(1, label[:, None])[:, 0] - prediction.mean(dim=1)

    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    i, j, model = torch.arange(30), torch.arange(N_VAL), Network().eval()
    reweighter, by_hand = new("kmm", transformation=margin), new("kmm")
    reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))
    by_hand.partial_fit(margin(model(x), y, None), margin(model(x_val), y_val, None), i, j)
    assert torch.equal(reweighter.weights_, by_hand.weights_)


def test_an_unknown_layer_is_refused_with_the_names_of_those_there_are():
    with pytest.raises(ValueError, match=r"no layer 'fc'; its layers are \['hidden', 'hidden.0'"):
        new("kmm", layer="fc").weighted_loss(Network(), (*rows(5, 0), range(5)), (*rows(N_VAL, 1), range(N_VAL)))


def test_a_loss_that_is_not_one_number_a_row_is_refused():
    reweighter = new("kmm", loss=functional.cross_entropy)
    with pytest.raises(ValueError, match=r'one number for each row.*reduction="none"'):
        reweighter.weighted_loss(Network(), (*rows(5, 0), range(5)), (*rows(N_VAL, 1), range(N_VAL)))


def test_losses_of_tokens_and_pixels_are_means_over_what_has_a_label():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(4, 5, 3, generator=generator), torch.randint(3, (4, 5), generator=generator)
    label[0, 2:] = -100
    label[1] = -100
    each = [[-functional.log_softmax(logits[r, t], 0)[label[r, t]] for t in range(5) if label[r, t] >= 0] for r in range(4)]
    expected = torch.tensor([float(sum(row) / len(row)) if row else 0.0 for row in each])
    torch.testing.assert_close(token_cross_entropy(logits, label), expected)
    torch.testing.assert_close(pixel_cross_entropy(logits.movedim(2, 1)[..., None], label[..., None]), expected)


def test_losses_of_several_labels_and_numbers_are_means_over_the_row():
    generator = torch.Generator().manual_seed(0)
    logits, label = torch.randn(4, 3, generator=generator), torch.randint(2, (4, 3), generator=generator)
    probability = torch.sigmoid(logits)
    expected = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean(dim=1)
    torch.testing.assert_close(multilabel(logits, label), expected)
    torch.testing.assert_close(multilabel(logits[:, :1], label[:, 0]), multilabel(logits[:, :1], label[:, :1]))
    with pytest.raises(ValueError, match="must be the same"):
        multilabel(logits, label.T)  # as many numbers in another shape
    torch.testing.assert_close(squared_error(logits, label), ((logits - label) ** 2).mean(dim=1))
    torch.testing.assert_close(squared_error(logits[:, :1], label[:, 0]), (logits[:, 0] - label[:, 0]) ** 2)


def test_a_masked_infinity_is_not_in_the_mean():
    values = torch.tensor([[1.0, float("inf")], [2.0, 4.0]])
    assert rows_mean(values, torch.tensor([[True, False], [True, True]])).tolist() == [1.0, 3.0]


# ---------------------------------------------------------------- real training loops


def test_a_validation_pass_leaves_statistics_and_random_draws_where_they_were():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    model, twin = Network().train(), Network().train()
    torch.default_generator.manual_seed(3)
    new("kmm").weighted_loss(model, (x, y, range(30)), (x_val, y_val, range(N_VAL)))
    after = torch.rand(1)
    torch.default_generator.manual_seed(3)
    twin(x)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(model.hidden[1].running_mean, twin.hidden[1].running_mean)


def test_a_model_left_in_eval_mode_is_told_once():
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    reweighter, batch = new("kmm"), ((x, y, range(30)), (x_val, y_val, range(N_VAL)))
    with pytest.warns(UserWarning, match=r"eval mode.*model\.train\(\)"):
        reweighter.weighted_loss(Network().eval(), *batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reweighter.weighted_loss(Network().eval(), *batch)
        new("kmm").weighted_loss(Network().train(), *batch)
        new("kmm").weighted_loss(nn.Linear(2, 3).eval(), *batch)


@by_name
def test_inside_autocast_the_estimate_is_in_single_precision(name):
    (x, y), (x_val, y_val) = rows(30, 1), rows(N_VAL, 2)
    model, i, j = Network().eval(), torch.arange(30), torch.arange(N_VAL)
    inside, outside = new(name), new(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = inside.weighted_loss(model, (x, y, i), (x_val, y_val, j))
        rows_of = [functional.cross_entropy(model(a), b, reduction="none").detach() for a, b in ((x, y), (x_val, y_val))]
    outside.partial_fit(*rows_of, i, j)
    assert torch.equal(inside.weights_, outside.weights_) and loss.dtype == torch.float32


def train(reweighter, steps, *, seed=0, accumulate=1, clip=None, compiled=False, scaler=None):
    """A loop as people write it: shuffled loaders with a smaller last batch, a schedule, and what the arguments ask for."""
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)
    model = Network(seed).eval()
    callee = torch.compile(model, backend="aot_eager") if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    shuffled = torch.Generator().manual_seed(seed)
    loader = DataLoader(Indexed(TensorDataset(x, y)), batch_size=12, shuffle=True, generator=shuffled)
    val = endless(DataLoader(Indexed(TensorDataset(x_val, y_val)), batch_size=5))
    batches = endless(loader)
    for step in range(steps):
        loss = reweighter.weighted_loss(callee, next(batches), next(val)) / accumulate
        (loss if scaler is None else scaler.scale(loss)).backward()
        if (step + 1) % accumulate == 0:
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step() if scaler is None else (scaler.step(optimizer), scaler.update())
            optimizer.zero_grad()
            schedule.step()
    return reweighter.weights_.clone(), model


@by_name
def test_a_compiled_model_gives_the_weights_of_the_plain_one(name):
    plain, compiled = train(new(name), 9)[0], train(new(name), 9, compiled=True)[0]
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_a_layer_of_a_compiled_model_is_listened_to():
    torch.compiler.reset()
    plain, compiled = (train(new("lsif", layer="hidden"), 6, compiled=c)[0] for c in (False, True))
    assert not torch.equal(plain, torch.ones(N_TRAIN))
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", [{"accumulate": 2}, {"clip": 0.1}, {"scaler": True}], ids=str)
@by_name
def test_accumulation_clipping_and_scaling_leave_weights_finite_of_mean_one(name, how):
    how = {**how, "scaler": torch.amp.GradScaler("cpu")} if "scaler" in how else how
    reweighter = new(name)
    weights, model = train(reweighter, 12, **how)
    assert bool(torch.isfinite(weights).all()) and float(weights.min()) >= 0.0 and not torch.equal(weights, torch.ones(N_TRAIN))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_a_scaled_loss_gives_the_weights_of_the_plain_loss():
    scaled = train(new("kmm"), 8, scaler=torch.amp.GradScaler("cpu", init_scale=2.0**6))[0]
    torch.testing.assert_close(scaled, train(new("kmm"), 8)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "params",
    [
        {"val_refresh": 4},
        {"val_refresh": 4, "val_every": 3},
        {"y_train": True},
        {"layer": "hidden", "val_refresh": 5, "forget": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["kmm", "lsif"])
@pytest.mark.parametrize("stop", [1, 5])
def test_banks_and_classes_resume_to_the_bit(name, params, stop):
    (x, y), (x_val, y_val) = rows(N_TRAIN, 1), rows(N_VAL, 2)
    params = {**params, **({"y_train": y, "y_val": y_val} if "y_train" in params else {}), "warmup_steps": 2}
    plan = [torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(s))[:15] for s in range(9)]

    def go(reweighter, parts):
        for step, i in parts:
            j = (torch.arange(6) + 6 * step) % N_VAL
            reweighter.weighted_loss(Network().eval(), (x[i], y[i], i), (x_val[j], y_val[j], j))
        return reweighter

    straight = go(new(name, **params), enumerate(plan))
    before = go(new(name, **params), list(enumerate(plan))[:stop])
    after = new(name, **params)
    after.load_state_dict(copied(before.state_dict()))
    go(after, list(enumerate(plan))[stop:])
    one, other = straight.state_dict(), after.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) if isinstance(one[key], torch.Tensor) else one[key] == other[key] for key in one)


def test_classes_told_with_the_batches_are_known_to_a_resumed_run():
    first = new("kmm")
    whole = uniform(N_TRAIN, 0), uniform(N_VAL, 1), torch.arange(N_TRAIN), torch.arange(N_VAL)
    first.partial_fit(*whole, y=classes(N_TRAIN, 1), y_val=classes(N_VAL, 2))
    second = new("kmm")
    second.load_state_dict(copied(first.state_dict()))
    assert second.classes.ratio(2) == first.classes.ratio(2)


# ---------------------------------------------------------------- solved to convergence


@pytest.mark.parametrize("solver", ["auto", "cvxpy"])
def test_diw_solves_the_published_program(solver):
    cvxpy = pytest.importorskip("cvxpy")
    n, m, gamma = 24, N_VAL, 2.0
    train, val = uniform(n, 0, scale=2.0), uniform(m, 1)
    reweighter = DIW(n, m, gamma=gamma, solver=solver, warmup_epochs=0)
    update = reweighter.ratio.update(train[:, None].double().numpy(), val[:, None].double().numpy(), to_convergence=True)
    x, v = train.double().numpy()[:, None], val.double().numpy()
    kernel = np.exp(-gamma * (x - x.T) ** 2) + 1e-5 * np.eye(n)
    kappa = np.exp(-gamma * (x - v) ** 2).sum(axis=1) * n / m
    w, eps = cvxpy.Variable(n), (n**0.5 - 1) / n**0.5
    problem = cvxpy.Problem(
        cvxpy.Minimize((0.5 * cvxpy.quad_form(w, cvxpy.psd_wrap(kernel)) - kappa @ w) / n),
        [w >= 0, w <= 50.0, cvxpy.abs(cvxpy.sum(w) / n - 1) <= eps],
    )
    optimum = problem.solve(solver="CLARABEL")
    coef = np.asarray(update.coef, dtype=np.float64)
    assert (0.5 * coef @ kernel @ coef - kappa @ coef) / n == pytest.approx(optimum, rel=1e-6)
    assert coef.min() >= -1e-9 and abs(coef.mean() - 1) <= eps + 1e-9
    weights = reweighter.partial_fit(train, val, range(n), range(m)).weights_
    assert float(weights.mean()) == pytest.approx(1.0, rel=1e-5)


def test_solved_to_convergence_the_stored_weights_do_not_matter():
    train, val = uniform(N_TRAIN, 0, scale=2.0), uniform(N_VAL, 1)
    solved = []
    for stored in (uniform(N_TRAIN, 5), torch.ones(N_TRAIN)):
        reweighter = new(KMM(gamma=1.0, regularization=0.1, tol=1e-8), to_convergence=True)
        reweighter.steps[0].stored.copy_(stored)
        solved.append(reweighter.partial_fit(train.double(), val.double(), range(N_TRAIN), range(N_VAL)).weights_)
    torch.testing.assert_close(*solved, rtol=1e-4, atol=1e-4)
    assert isinstance(new(LSIF(gamma=1.0), to_convergence=True).ratio, LSIF)
