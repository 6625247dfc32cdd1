"""The meta-gradient against double backward through a step written anew, and finite differences through torch's own step."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from meta_cases import (
    MODELS,
    N_VAL,
    NO_FORWARD,
    C,
    D,
    NoForward,
    Through,
    assert_close,
    batch,
    by_a_loop,
    by_differences,
    by_double_backward,
    cases,
    flat,
    labels_for,
    network,
    prepared,
    rates,
    row_weights,
    scores,
    stepped,
    turned,
    warmed,
)
from small_loops import assert_same
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from densratio.training.losses import cross_entropy, multilabel, squared_error
from densratio.training.meta.gradient import MODES, MetaGradient
from densratio.training.meta.products import PRODUCTS

few = settings(max_examples=6)
every_model = pytest.mark.parametrize("kind", MODELS)
DERIVATIVES = [product for product in PRODUCTS if product != "finite_differences"]

# ---------------------------------------------------------------- the step written anew, and torch's own


def by_double_backward_across(model, train, val, weights, optimizer, *, seed=0):
    """`by_double_backward` without the part by which all weights together lengthen or shorten the step."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [dict(model.named_parameters())[name] for name in names]
    untouched = copy.deepcopy(model.state_dict())

    def after(w):
        torch.default_generator.manual_seed(seed)
        objective = (w * cross_entropy(model(train[0]), train[1])).mean()
        gradients = torch.autograd.grad(objective, parameters, create_graph=True)
        return tuple(stepped(optimizer, parameters, gradients))

    with sdpa_kernel(SDPBackend.MATH):
        moved, along = torch.autograd.functional.jvp(after, weights, weights)
        at = [p.detach().requires_grad_() for p in moved]
        value = cross_entropy(functional_call(model, dict(zip(names, at, strict=True)), (val[0],)), val[1]).mean()
        gradient = turned(flat(torch.autograd.grad(value, at), at), flat(along, at))
        found = torch.autograd.functional.vjp(lambda w: flat(after(w), parameters), weights, gradient)[1]
    model.load_state_dict(untouched)
    return found


@pytest.mark.parametrize("product", DERIVATIVES)
@every_model
@few
@given(**cases)
def test_exact_scores_are_those_of_double_backward_through_the_step(kind, product, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    expected = by_double_backward(model, train, val, weights, optimizer, seed=seed)
    assert_close(scores(model, train, val, weights, optimizer, product=product, seed=seed), expected)


@every_model
@settings(max_examples=4)
@given(**cases)
def test_at_a_fixed_step_length_the_validation_gradient_counts_where_it_turns_the_step(kind, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    expected = by_double_backward_across(model, train, val, weights, optimizer, seed=seed)
    found = scores(model, train, val, weights, optimizer, fixed_step_length=True, seed=seed)
    whole = scores(model, train, val, weights, optimizer, seed=seed)
    # Of what was taken away rounding is left.
    assert float((found - expected).abs().max()) <= 1e-10 * float(whole.abs().max())
    assert abs(float(weights @ found)) <= 1e-10 * float((weights * whole).abs().sum())


@pytest.mark.parametrize("mode", MODES)
def test_a_step_of_length_zero_leaves_the_scores_as_they_are(mode):
    model, train, val = network("plain"), batch(5, 1), batch(N_VAL, 2)
    optimizer, nothing = torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(5, dtype=torch.float64)
    plain, fixed = (
        scores(model, train, val, nothing, optimizer, mode=mode, product="forward", fixed_step_length=is_fixed)
        for is_fixed in (False, True)
    )
    assert float(plain.abs().max()) > 0
    assert torch.equal(fixed, plain)


@every_model
@settings(max_examples=4)
@given(**cases)
def test_exact_scores_are_differences_through_the_optimizers_own_step(kind, how, arrangement, n_steps, n, seed):
    # The first step of Adam turns within eps of a gradient of 0, too fast for differences where eps is small.
    how = how[0], {**how[1], **({"eps": 1e-2} if "eps" in how[1] else {})}
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    expected = by_differences(model, train, val, weights, optimizer, seed=seed)
    assert_close(scores(model, train, val, weights, optimizer, seed=seed), expected, 2e-6)


@pytest.mark.parametrize("how", [(torch.optim.Adam, {"lr": 0.1}), (torch.optim.AdamW, {"lr": 0.1, "amsgrad": True})], ids=str)
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_with_the_optimizers_usual_settings_too(how, n_steps):
    model, optimizer, train, val, weights = prepared("batch norm", how, "all", n_steps, 6, 3)
    assert_close(scores(model, train, val, weights, optimizer), by_double_backward(model, train, val, weights, optimizer), 1e-9)


@pytest.mark.parametrize("loss", [squared_error, multilabel])
def test_any_loss_of_rows_will_do(loss):
    labels = labels_for(loss, 6, C, 4)
    model, optimizer, train, _, weights = prepared("plain", (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "all", 2, 6, 0)
    train, val = (train[0], labels.double()), (batch(6, 9)[0], 0.5 * labels.double(), torch.arange(6))
    expected = by_double_backward(model, train, val, weights, optimizer, loss=loss)
    assert_close(scores(model, train, val, weights, optimizer, loss=loss), expected)


# ---------------------------------------------------------------- first order


@pytest.mark.parametrize("product", DERIVATIVES)
@every_model
@settings(max_examples=4)
@given(**cases)
def test_first_order_scores_are_products_of_gradients(kind, product, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), seed=seed)
    found = scores(model, train, val, weights, optimizer, mode="first_order", product=product, seed=seed)
    assert_close(found, expected)
    across = by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), across=weights, seed=seed)
    found = scores(model, train, val, weights, optimizer, mode="first_order", product=product, fixed_step_length=True, seed=seed)
    assert float((found - across).abs().max()) <= 1e-10 * float(expected.abs().max())


# The error of a difference is the losses' third derivative, which a network drawn at random may have as large as it likes.
@pytest.mark.parametrize(
    ("how", "arrangement", "n_steps", "n", "seed"),
    [
        ((torch.optim.SGD, {"lr": 0.2, "momentum": 0.9, "weight_decay": 0.1}), "all", 2, 7, 1),
        ((torch.optim.Adam, {"lr": 0.05, "eps": 1e-2}), "groups", 1, 5, 2),
        ((torch.optim.AdamW, {"lr": 0.1, "eps": 1e-2, "amsgrad": True}), "frozen", 3, 8, 3),
        ((torch.optim.SGD, {"lr": 0.3, "momentum": 0.5, "nesterov": True}), "left out", 0, 4, 4),
    ],
)
@every_model
def test_differences_along_the_tangent_give_seven_digits_of_the_scores(kind, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        "exact": by_double_backward(model, train, val, weights, optimizer, seed=seed),
        "first_order": by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), seed=seed),
    }
    for mode, values in expected.items():
        found = scores(model, train, val, weights, optimizer, mode=mode, product="finite_differences", seed=seed)
        assert_close(found, values, 1e-7)
    across = by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), across=weights, seed=seed)
    found = scores(
        model, train, val, weights, optimizer, mode="first_order", product="finite_differences", fixed_step_length=True, seed=seed
    )
    assert float((found - across).abs().max()) <= 1e-7 * float(expected["first_order"].abs().max())


def test_without_an_optimizer_the_rate_is_one():
    model, train, val = network("plain"), batch(5, 1), batch(N_VAL, 2)
    expected = by_a_loop(model, train, val, lambda p: 1.0)
    assert_close(scores(model, train, val, mode="first_order"), expected)


@given(seed=st.integers(0, 1000), lr=rates)
def test_exact_scores_tend_to_those_of_first_order_for_small_rates(seed, lr):
    model, train, val, weights = network("plain", seed), batch(5, seed + 1), batch(N_VAL, seed + 2), row_weights(5, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * 1e-8)
    exact, first = (scores(model, train, val, weights, optimizer, mode=mode) for mode in ("exact", "first_order"))
    assert_close(exact, first, 1e-5)


# ---------------------------------------------------------------- no trace


def trace(model):
    """All that a pass can leave in a model, and the random state."""
    parameters = [(p.detach().clone(), p.grad, p.requires_grad) for p in model.parameters()]
    return {
        "parameters": [(value, None if grad is None else grad.clone(), needs) for value, grad, needs in parameters],
        "buffers": {name: buffer.clone() for name, buffer in model.named_buffers()},
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_hooks) for module in model.modules()],
        "random": torch.get_rng_state(),
    }


@pytest.mark.parametrize("has_gradients", [False, True])
@pytest.mark.parametrize(("mode", "product"), [*[(mode, p) for mode in MODES[:2] for p in PRODUCTS], ("last_layer", "auto")])
@pytest.mark.parametrize("kind", ["batch norm and dropout", "layer norm and attention"])
def test_what_is_left_behind_is_what_one_training_pass_leaves(kind, mode, product, has_gradients):
    model = network(kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    warmed(model, optimizer, 2)
    next(model.parameters()).requires_grad_(False)
    # A layer that is kept in eval mode, as in fine-tuning.
    (model[1] if isinstance(model, nn.Sequential) else model.norm).eval()
    twin, train, val = copy.deepcopy(model), batch(6, 1), batch(N_VAL, 2)
    if has_gradients:
        for p in (*model.parameters(), *twin.parameters()):
            p.grad = torch.full_like(p, 0.5)
    buffers = [id(buffer) for buffer in model.buffers()]
    torch.default_generator.manual_seed(4)
    twin(train[0])
    expected = trace(twin)
    scores(model, train, val, optimizer=optimizer, mode=mode, product=product, seed=4)
    assert_same(trace(model), expected)
    assert [id(buffer) for buffer in model.buffers()] == buffers


def test_running_statistics_move_once_a_batch():
    model, train, val = network("batch norm"), batch(6, 1), batch(N_VAL, 2)
    scores(model, train, val, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert int(model[1].num_batches_tracked) == 1


@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_buffers_of_other_layers_move_once_a_batch_too(mode):
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(D, C)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return super().forward(x)

    model = network(Counting)
    scores(model, batch(6, 1), batch(N_VAL, 2), optimizer=torch.optim.SGD(model.parameters(), lr=0.1), mode=mode)
    assert int(model.count) == 1


def test_a_product_that_fails_leaves_no_trace_either():
    model, train, val = network(lambda: Through(NoForward)), batch(6, 1), batch(N_VAL, 2)
    meta = MetaGradient("first_order", product="forward")
    rows, before = meta.rows(model, *train[:2], cross_entropy), trace(model)
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        meta.of(rows, torch.ones(6), val)
    assert_same(trace(model), before)


def test_the_loss_can_still_be_followed_backward():
    model, twin = (network("batch norm and dropout") for _ in range(2))
    train, val = batch(6, 1), batch(N_VAL, 2)
    meta = MetaGradient("exact", torch.optim.SGD(model.parameters(), lr=0.1))
    torch.default_generator.manual_seed(0)
    rows = meta.rows(model, *train[:2], cross_entropy)
    meta.of(rows, torch.ones(6), val)
    rows.losses.mean().backward()
    torch.default_generator.manual_seed(0)
    cross_entropy(twin(train[0]), train[1]).mean().backward()
    assert_same([p.grad for p in model.parameters()], [p.grad for p in twin.parameters()])


# ---------------------------------------------------------------- wrapped models


@pytest.mark.parametrize(
    ("mode", "sizes"),
    [*[(mode, (6, 6, 6)) for mode in MODES], ("exact", (6, 4)), ("last_layer", (6, 4))],
)
def test_a_compiled_model_has_the_scores_of_the_plain_one_in_each_batch(mode, sizes):
    torch.compiler.reset()
    model = network("batch norm")
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain, meta = (MetaGradient(mode, optimizer) for _ in range(2))
    for step, n in enumerate(sizes):
        train, val, ones = batch(n, 10 + step), batch(N_VAL, 20 + step), torch.ones(n, dtype=torch.float64)
        expected = plain.of(plain.rows(model, *train[:2], cross_entropy), ones, val)
        rows = meta.rows(compiled, *train[:2], cross_entropy)
        assert_close(meta.of(rows, ones, val), expected)
        optimizer.zero_grad()
        rows.losses.mean().backward()
        optimizer.step()


@pytest.fixture
def one_rank(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("mode", MODES)
def test_a_model_of_ddp_has_the_scores_of_the_plain_one(mode, one_rank):
    model, train, val = network("batch norm and dropout"), batch(6, 1), batch(N_VAL, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    wrapped = nn.parallel.DistributedDataParallel(model)
    expected, found = (scores(m, train, val, optimizer=optimizer, mode=mode) for m in (model, wrapped))
    assert_close(found, expected, 1e-12)


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize("product", ["auto", *PRODUCTS])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["plain", "batch norm", "layer norm and attention"])
def test_in_half_precision_the_scores_point_the_same_way(kind, mode, product):
    model, train, val = network(kind, dtype=torch.float32), batch(32, 1, torch.float32), batch(32, 2, torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    warmed(model, optimizer, 2, dtype=torch.float32)
    expected = scores(model, train, val, optimizer=optimizer, mode=mode)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scores(model, train, val, optimizer=optimizer, mode=mode, product=product)
    assert bool(torch.isfinite(found).all())
    assert float(functional.cosine_similarity(found.float(), expected, dim=0)) > 0.95


# ---------------------------------------------------------------- bad input


def rprop(model):
    return torch.optim.RMSprop(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("optimizer_for", "message"),
    [
        (rprop, r'knows the steps of Adam, AdamW, SGD; got RMSprop.*mode="first_order" or mode="last_layer"'),
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), "maximizes"),
        (lambda model: None, r'mode="exact".*optimizer=.*mode="first_order"'),
    ],
)
def test_exact_refuses_an_optimizer_whose_step_it_does_not_know(optimizer_for, message):
    model = network("plain")
    with pytest.raises(ValueError, match=message):
        scores(model, batch(5, 1), batch(N_VAL, 2), optimizer=optimizer_for(model))


@pytest.mark.parametrize("mode", ["first_order", "last_layer"])
def test_the_other_modes_work_with_any_optimizer(mode):
    model, train, val = network("plain"), batch(5, 1), batch(N_VAL, 2)
    known = scores(model, train, val, optimizer=torch.optim.SGD(model.parameters(), lr=0.1), mode=mode)
    assert_close(scores(model, train, val, optimizer=rprop(model), mode=mode), known, 1e-14)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mode": "second_order"}, r"mode must be one of \['exact', 'first_order', 'last_layer'\]; got 'second_order'"),
        (
            {"product": "backward"},
            r"product must be one of \['auto', 'layers', 'forward', 'double_backward', 'finite_differences'\]; got 'backward'",
        ),
        ({"mode": "exact", "n_val": 9, "val_refresh": 3}, r'val_refresh.*mode="last_layer".*got mode=\'exact\''),
        ({"mode": "last_layer", "val_refresh": 3}, r"n_val=.*n_val=None"),
        ({"mode": "last_layer", "n_val": 9, "val_refresh": 0}, r"val_refresh=0"),
    ],
)
def test_parameters_that_cannot_be_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        MetaGradient(**params)
