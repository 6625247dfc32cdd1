"""The meta-gradient against double backward through a step written anew, finite differences through torch's own step, and loops."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_loops import assert_same
from torch import nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from densratio.training.losses import cross_entropy, multilabel, squared_error
from densratio.training.meta.gradient import MODES, MetaGradient
from densratio.training.meta.products import PRODUCTS
from densratio.training.meta.virtual_step import OPTIMIZERS, learning_rates, virtual_step

D, C, N_VAL = 8, 3, 7
# What each product promises, relative to the largest score.
PRECISION = {"forward": 1e-10, "double_backward": 1e-10, "finite_differences": 1e-6}
few = settings(max_examples=6)


# ---------------------------------------------------------------- models, optimisers, batches


class Attention(nn.Module):
    def __init__(self, dropout=0.0):
        super().__init__()
        self.embed, self.norm = nn.Linear(2, 4), nn.LayerNorm(4)
        self.attention, self.out = nn.MultiheadAttention(4, 2, dropout=dropout, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        tokens = self.norm(self.embed(x.view(len(x), -1, 2)))
        return self.out((tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(dim=1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(2, 4), nn.Linear(4, C)
        self.layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=5, dropout=0.2, activation="gelu", batch_first=True)

    def forward(self, x):
        return self.out(self.layer(self.embed(x.view(len(x), -1, 2))).mean(dim=1))


class Tied(nn.Module):
    """One matrix in two layers, under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, C)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))


def stack(*between):
    return nn.Sequential(nn.Linear(D, 5), *between, nn.Tanh(), nn.Linear(5, C))


MODELS = {
    "plain": stack,
    "batch norm": lambda: stack(nn.BatchNorm1d(5)),
    "dropout": lambda: stack(nn.Dropout(0.4)),
    "batch norm and dropout": lambda: stack(nn.BatchNorm1d(5), nn.Dropout(0.3)),
    "layer norm and attention": Attention,
    "attention with dropout": lambda: Attention(0.3),
    "encoder": Encoder,
    "tied": Tied,
}
every_model = pytest.mark.parametrize("kind", MODELS)

rates = st.floats(0.01, 0.3)
decays = st.sampled_from([0.0, 0.1])
sgd = st.builds(
    lambda lr, momentum, dampening, nesterov, weight_decay: (
        torch.optim.SGD,
        {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov and momentum > 0,
            "dampening": 0.0 if nesterov else dampening,
            "weight_decay": weight_decay,
        },
    ),
    rates, st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 0.3]), st.booleans(), decays,
)  # fmt: skip
adam = st.builds(
    lambda kind, lr, betas, eps, weight_decay, amsgrad: (
        kind,
        {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad},
    ),
    st.sampled_from([torch.optim.Adam, torch.optim.AdamW]), rates, st.sampled_from([(0.9, 0.999), (0.5, 0.7)]),
    st.sampled_from([1e-2, 1e-4]), decays, st.booleans(),
)  # fmt: skip
settings_of_optimizers = st.one_of(sgd, adam)
arrangements = st.sampled_from(["all", "groups", "frozen", "left out"])
cases = {
    "how": settings_of_optimizers, "arrangement": arrangements, "n_steps": st.integers(0, 3), "n": st.integers(4, 8),
    "seed": st.integers(0, 1000),
}  # fmt: skip


def batch(n, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(C, (n,), generator=generator), torch.arange(n)


def row_weights(n, seed, dtype=torch.float64):
    return 0.1 + torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def network(kind, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    model = MODELS[kind]() if isinstance(kind, str) else kind()
    return model.to(dtype).train()


def optimizer_of(model, how, arrangement="all"):
    """The optimiser with all parameters in one group, two groups, some of them frozen, or some of them not in it."""
    kind, params = how
    parameters = list(model.parameters())
    if arrangement == "frozen":
        parameters[0].requires_grad_(False)
    if arrangement == "groups":
        own = {"params": parameters[:2], "lr": 0.5 * params["lr"], "weight_decay": 0.01}
        return kind([own, {"params": parameters[2:]}], **params)
    return kind(parameters[2:] if arrangement == "left out" else parameters, **params)


def warmed(model, optimizer, n_steps, seed=0, *, n=6, dtype=torch.float64):
    """The optimiser after some steps of plain training, so that it has a state."""
    for step in range(n_steps):
        x, y, _ = batch(n, 5000 + 17 * seed + step, dtype)
        optimizer.zero_grad()
        cross_entropy(model(x), y).mean().backward()
        optimizer.step()
    optimizer.zero_grad()


def prepared(kind, how, arrangement, n_steps, n, seed):
    model = network(kind, seed)
    optimizer = optimizer_of(model, how, arrangement)
    warmed(model, optimizer, n_steps, seed)
    return model, optimizer, batch(n, seed + 1), batch(N_VAL, seed + 2), row_weights(n, seed + 3)


def scores(model, train, val, weights=None, optimizer=None, *, mode="exact", loss=cross_entropy, seed=0, **params):
    torch.manual_seed(seed)
    meta = MetaGradient(mode, optimizer, **params)
    rows = meta.rows(model, *train[:2], loss)
    return meta.of(rows, torch.ones(len(train[0]), dtype=train[0].dtype) if weights is None else weights, val)


def assert_close(found, expected, precision=1e-10):
    assert found.shape == expected.shape and not found.requires_grad
    assert float((found - expected).abs().max()) <= precision * float(expected.abs().max()), (found, expected)


# ---------------------------------------------------------------- the step written anew, and torch's own


def stepped(optimizer, parameters, gradients):
    """Parameters after the step as torch documents it, with the graph to the gradients."""
    groups, moved = {id(p): group for group in optimizer.param_groups for p in group["params"]}, []
    for p, g in zip(parameters, gradients, strict=True):
        if id(p) not in groups:
            moved.append(p)
        elif isinstance(optimizer, torch.optim.SGD):
            moved.append(after_sgd(p, g, groups[id(p)], optimizer.state.get(p, {}).get("momentum_buffer")))
        else:
            decoupled = isinstance(optimizer, torch.optim.AdamW)
            moved.append(after_adam(p, g, groups[id(p)], optimizer.state.get(p, {}), decoupled))
    return moved


def after_sgd(p, g, group, buffer):
    g, mu = g + group["weight_decay"] * p, group["momentum"]
    if mu:
        b = g if buffer is None else mu * buffer + (1 - group["dampening"]) * g
        g = g + mu * b if group["nesterov"] else b
    return p - group["lr"] * g


def after_adam(p, g, group, state, decoupled):
    b1, b2 = group["betas"]
    t = float(state["step"]) + 1 if state else 1.0
    if decoupled:
        p = p - group["lr"] * group["weight_decay"] * p
    else:
        g = g + group["weight_decay"] * p
    m = (1 - b1) * g + (b1 * state["exp_avg"] if state else 0.0)
    v = (1 - b2) * g * g + (b2 * state["exp_avg_sq"] if state else 0.0)
    if group["amsgrad"] and state:
        v = torch.where(v > state["max_exp_avg_sq"], v, state["max_exp_avg_sq"])
    # The root has no slope at 0, where a gradient of 0 is all there was.
    root = torch.where(v > 0, v / (1 - b2**t), 1.0).sqrt() * (v > 0)
    return p - group["lr"] * (m / (1 - b1**t)) / (root + group["eps"])


def by_double_backward(model, train, val, weights, optimizer, *, loss=cross_entropy, seed=0):
    """dL_val / dw by autograd, through the gradient of the training loss and the step."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [dict(model.named_parameters())[name] for name in names]
    w, untouched = weights.clone().requires_grad_(), copy.deepcopy(model.state_dict())
    torch.manual_seed(seed)
    with sdpa_kernel(SDPBackend.MATH):
        objective = (w * loss(model(train[0]), train[1])).mean()
        gradients = torch.autograd.grad(objective, parameters, create_graph=True)
        after = dict(zip(names, stepped(optimizer, parameters, gradients), strict=True))
        found = torch.autograd.grad(loss(functional_call(model, after, (val[0],)), val[1]).mean(), w)[0]
    model.load_state_dict(untouched)
    return found


def flat(parts, parameters):
    return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(parameters, parts, strict=True)])


def turned(gradient, step):
    """What of the gradient is left when its least-squares fit by the step is taken away."""
    return gradient - step * torch.linalg.lstsq(step[:, None], gradient[:, None], driver="gelsd").solution[0]


def by_double_backward_across(model, train, val, weights, optimizer, *, seed=0):
    """`by_double_backward` without the part by which all weights together lengthen or shorten the step."""
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    parameters = [dict(model.named_parameters())[name] for name in names]
    untouched = copy.deepcopy(model.state_dict())

    def after(w):
        torch.manual_seed(seed)
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


def by_differences(model, train, val, weights, optimizer, *, seed=0, h=1e-4):
    """The same by central differences through copies of the model and of torch's own optimiser."""

    def value(w):
        twin, its_optimizer = copy.deepcopy((model, optimizer))
        its_optimizer.zero_grad()
        torch.manual_seed(seed)
        (w * cross_entropy(twin(train[0]), train[1])).mean().backward()
        its_optimizer.step()
        return float(cross_entropy(twin(val[0]), val[1]).mean().detach())

    unit = torch.eye(len(weights), dtype=weights.dtype)
    # Fourth order, so that neither the step nor rounding is seen at six digits.
    slopes = [(8 * (value(weights + h * e) - value(weights - h * e)) - value(weights + 2 * h * e) + value(weights - 2 * h * e))
              / (12 * h) for e in unit]  # fmt: skip
    return torch.tensor(slopes, dtype=weights.dtype)


@pytest.mark.parametrize("product", PRODUCTS)
@every_model
@few
@given(**cases)
def test_exact_scores_are_those_of_double_backward_through_the_step(kind, product, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    expected = by_double_backward(model, train, val, weights, optimizer, seed=seed)
    assert_close(scores(model, train, val, weights, optimizer, product=product, seed=seed), expected, PRECISION[product])


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
def test_exact_scores_are_differences_through_the_optimisers_own_step(kind, how, arrangement, n_steps, n, seed):
    # The first step of Adam turns within eps of a gradient of 0, too fast for differences where eps is small.
    how = how[0], {**how[1], **({"eps": 1e-2} if "eps" in how[1] else {})}
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    expected = by_differences(model, train, val, weights, optimizer, seed=seed)
    assert_close(scores(model, train, val, weights, optimizer, seed=seed), expected, 2e-6)


@pytest.mark.parametrize("how", [(torch.optim.Adam, {"lr": 0.1}), (torch.optim.AdamW, {"lr": 0.1, "amsgrad": True})], ids=str)
@pytest.mark.parametrize("n_steps", [1, 2, 5])
def test_with_the_optimisers_usual_settings_too(how, n_steps):
    model, optimizer, train, val, weights = prepared("batch norm", how, "all", n_steps, 6, 3)
    assert_close(scores(model, train, val, weights, optimizer), by_double_backward(model, train, val, weights, optimizer), 1e-9)


@pytest.mark.parametrize("loss", [squared_error, multilabel])
def test_any_loss_of_rows_will_do(loss):
    labels = labels_for(loss, 6, C, 4)
    model, optimizer, train, _, weights = prepared("plain", (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "all", 2, 6, 0)
    train, val = (train[0], labels.double()), (batch(6, 9)[0], 0.5 * labels.double(), torch.arange(6))
    expected = by_double_backward(model, train, val, weights, optimizer, loss=loss)
    assert_close(scores(model, train, val, weights, optimizer, loss=loss), expected)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.recurrent, self.out = kind(2, 4, batch_first=True), nn.Linear(4, C)

    def forward(self, x):
        return self.out(self.recurrent(x.view(len(x), -1, 2))[0][:, -1])


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Sequential(nn.Linear(D, 5), nn.Dropout(0.3), nn.Tanh()), nn.Linear(5, C)

    def forward(self, x):
        return self.out(checkpoint(self.first, x, use_reentrant=False))


def of_tokens():
    layers = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(3 * D, C))
    layers.register_forward_pre_hook(lambda module, args: (args[0].mul(2).round().clamp(-3, 2).long() + 3,))
    return layers


IMAGE = nn.Unflatten(1, (1, 2, D // 2))
LAYERS = {
    "convolution": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, C)
    ),
    "group norm": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, C)
    ),
    "instance norm": lambda: nn.Sequential(
        IMAGE, nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Softplus(),
        nn.Flatten(), nn.Linear(32, C),
    ),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "tokens": of_tokens,
    "checkpointing": Checkpointed,
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(D, 5)), nn.Tanh(), nn.Linear(5, C)),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["exact", "first_order"])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_all_sorts_are_differentiated(kind, mode):
    how = torch.optim.SGD, {"lr": 0.2, "momentum": 0.9, "nesterov": True}
    model, optimizer, train, val, weights = prepared(LAYERS[kind], how, "groups", 2, 6, 0)
    if mode == "exact":
        expected = by_double_backward(model, train, val, weights, optimizer)
    else:
        rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        expected = by_a_loop(model, train, val, lambda p: rates[id(p)])
    assert_close(scores(model, train, val, weights, optimizer, mode=mode), expected, 1e-9)


def test_an_encoder_in_eval_mode_whose_fused_kernel_has_no_derivative():
    model, optimizer, train, val, weights = prepared("encoder", (torch.optim.SGD, {"lr": 0.1}), "all", 2, 6, 0)
    model.eval()
    assert_close(scores(model, train, val, weights, optimizer), by_double_backward(model, train, val, weights, optimizer))


def test_parameters_that_the_training_batch_does_not_use_stay_as_torch_leaves_them():
    """torch steps over a parameter without a gradient, weight decay and momentum too."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.out, self.other = nn.Linear(D, 4), nn.Linear(4, C), nn.Linear(4, C)

        def forward(self, x):
            hidden = torch.tanh(self.shared(x))
            # Rows of the validation batch go through both heads.
            return self.out(hidden) + self.other(hidden) if len(x) == N_VAL else self.out(hidden)

    model = network(Branches)
    optimizer = optimizer_of(model, (torch.optim.SGD, {"lr": 0.3, "weight_decay": 0.5}))
    train, val, weights = batch(5, 1), batch(N_VAL, 2), row_weights(5, 3)
    assert_close(scores(model, train, val, weights, optimizer), by_differences(model, train, val, weights, optimizer), 2e-6)


# ---------------------------------------------------------------- the virtual step alone


@settings(max_examples=60)
@given(**cases)
def test_the_virtual_step_is_the_optimisers_and_leaves_it_alone(how, arrangement, n_steps, n, seed):
    model, optimizer, train, _, weights = prepared("plain", how, arrangement, n_steps, n, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    (weights * cross_entropy(model(train[0]), train[1])).mean().backward()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in parameters]))
    n_states = len(optimizer.state)
    found = virtual_step(optimizer, parameters, [p.grad for p in parameters])
    after = model.state_dict(), optimizer.state_dict(), [p.grad for p in parameters]
    assert len(optimizer.state) == n_states
    assert_same(before, after)
    optimizer.step()
    for p, moved in zip(parameters, found.parameters, strict=True):
        torch.testing.assert_close(moved, p.detach(), rtol=1e-12, atol=1e-15)


@settings(max_examples=40)
@given(how=settings_of_optimizers, arrangement=arrangements, n_steps=st.integers(0, 3), seed=st.integers(0, 1000))
def test_its_slope_is_the_derivative_of_the_step_in_the_gradient(how, arrangement, n_steps, seed):
    model, optimizer, *_ = prepared("plain", how, arrangement, n_steps, 4, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(seed)
    gradients = [torch.randn(p.shape, generator=generator, dtype=p.dtype).requires_grad_() for p in parameters]
    moved = sum((p + 0.0 * g).sum() for p, g in zip(stepped(optimizer, parameters, gradients), gradients, strict=True))
    expected = torch.autograd.grad(moved, gradients)
    for found, slope in zip(virtual_step(optimizer, parameters, gradients).slope, expected, strict=True):
        torch.testing.assert_close(found, -slope, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "params", [{"lr": torch.tensor(0.1, dtype=torch.float64)}, {"lr": 0.1, "fused": True}, {"lr": 0.1, "foreach": True}],
    ids=["a tensor", "fused", "foreach"],
)  # fmt: skip
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_step_is_the_same_for_a_rate_that_is_a_tensor_and_for_other_kernels(kind, params):
    model = network("plain")
    optimizer = kind(model.parameters(), weight_decay=0.1, **params)
    warmed(model, optimizer, 2)
    gradients = [torch.full_like(p, 0.3) for p in model.parameters()]
    found = virtual_step(optimizer, list(model.parameters()), gradients)
    for p, g in zip(model.parameters(), gradients, strict=True):
        p.grad = g
    optimizer.step()
    for p, moved in zip(model.parameters(), found.parameters, strict=True):
        torch.testing.assert_close(moved, p.detach(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_wrappers_of_frameworks_are_looked_into(kind):
    class Wrapper(torch.optim.Optimizer):
        """As accelerate has it."""

        def __init__(self, optimizer):
            self.optimizer = optimizer

        @property
        def param_groups(self):
            return self.optimizer.param_groups

    model = network("plain")
    optimizer, parameters = kind(model.parameters(), lr=0.1), list(model.parameters())
    gradients = [torch.ones_like(p) for p in parameters]
    assert_same(virtual_step(Wrapper(optimizer), parameters, gradients), virtual_step(optimizer, parameters, gradients))
    assert learning_rates(Wrapper(optimizer), parameters) == [0.1] * len(parameters)


def test_a_wrapper_that_takes_the_class_of_what_it_wraps_is_looked_into():
    class Wrapper:
        """As Lightning has it: the object becomes of a class that inherits from the wrapped one's."""

        def __init__(self, optimizer):
            self._optimizer = optimizer
            self.__class__ = type("Lightning" + type(optimizer).__name__, (Wrapper, type(optimizer)), {})

        @property
        def optimizer(self):
            return self._optimizer

        def __getattr__(self, name):
            return getattr(self._optimizer, name)

    model = network("plain")
    optimizer, parameters = torch.optim.SGD(model.parameters(), lr=0.1), list(model.parameters())
    gradients = [torch.ones_like(p) for p in parameters]
    assert_same(virtual_step(Wrapper(optimizer), parameters, gradients), virtual_step(optimizer, parameters, gradients))


# ---------------------------------------------------------------- first order


def by_a_loop(model, train, val, rate_of, *, across=None, loss=cross_entropy, seed=0):
    """-(1/n) sum_p lr_p <g_val, g_i>, a backward pass a row. across: weights (n,) of the step whose length is fixed."""
    parameters, untouched = [p for p in model.parameters() if p.requires_grad], copy.deepcopy(model.state_dict())
    torch.manual_seed(seed)
    losses = loss(model(train[0]), train[1])
    target = torch.autograd.grad(loss(model(val[0]), val[1]).mean(), parameters, allow_unused=True)
    of_rows = [torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True) for value in losses]
    model.load_state_dict(untouched)
    moves = torch.stack([flat([None if g is None else rate_of(p) * g for p, g in zip(parameters, own, strict=True)], parameters)
                         for own in of_rows])  # fmt: skip
    target = flat(target, parameters)
    if across is not None:
        target = turned(target, across @ moves)
    return -(moves @ target) / len(losses)


@pytest.mark.parametrize("product", PRODUCTS)
@every_model
@settings(max_examples=4)
@given(**cases)
def test_first_order_scores_are_products_of_gradients(kind, product, how, arrangement, n_steps, n, seed):
    model, optimizer, train, val, weights = prepared(kind, how, arrangement, n_steps, n, seed)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), seed=seed)
    found = scores(model, train, val, weights, optimizer, mode="first_order", product=product, seed=seed)
    assert_close(found, expected, PRECISION[product])
    across = by_a_loop(model, train, val, lambda p: rates.get(id(p), 0.0), across=weights, seed=seed)
    found = scores(model, train, val, weights, optimizer, mode="first_order", product=product, fixed_step_length=True, seed=seed)
    assert float((found - across).abs().max()) <= PRECISION[product] * float(expected.abs().max())


def test_without_an_optimiser_the_rate_is_one():
    model, train, val = network("plain"), batch(5, 1), batch(N_VAL, 2)
    expected = by_a_loop(model, train, val, lambda p: 1.0)
    assert_close(scores(model, train, val, mode="first_order"), expected)


@given(seed=st.integers(0, 1000), lr=rates)
def test_exact_scores_tend_to_those_of_first_order_for_small_rates(seed, lr):
    model, train, val, weights = network("plain", seed), batch(5, seed + 1), batch(N_VAL, seed + 2), row_weights(5, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr * 1e-8)
    exact, first = (scores(model, train, val, weights, optimizer, mode=mode) for mode in ("exact", "first_order"))
    assert_close(exact, first, 1e-5)


# ---------------------------------------------------------------- last layer


def with_last_layer(outputs=C, *, bias=True, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(D, 5), nn.Tanh(), nn.Linear(5, outputs, bias=bias)).to(dtype).train()


def labels_for(loss, n, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    if loss is cross_entropy:
        return torch.randint(outputs, (n,), generator=generator)
    if loss is multilabel:
        return torch.randint(2, (n, outputs), generator=generator)
    return torch.randn((n,) if outputs == 1 else (n, outputs), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rates", [None, (0.3, 0.3), (0.3, 0.05)], ids=["no optimiser", "one rate", "a rate each"])
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


def test_last_layer_scores_of_a_bias_that_is_frozen_or_not_the_optimisers_are_without_it():
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
    with pytest.raises(ValueError, match=r'last_layer.*what its last nn\.Linear gives.*softmax.*mode="first_order"'):
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
    torch.manual_seed(4)
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
    torch.manual_seed(0)
    rows = meta.rows(model, *train[:2], cross_entropy)
    meta.of(rows, torch.ones(6), val)
    rows.losses.mean().backward()
    torch.manual_seed(0)
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


# ---------------------------------------------------------------- layers that lack a way of differentiation


NO_FORWARD = "forward AD|jvp"  # in what torch says of it


class NoForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, slope):
        return slope * (1.0 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Neither(NoForward):
    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return slope * (1.0 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Opaque(NoForward):
    """A kernel of one's own, whose backward autograd does not see."""

    @staticmethod
    def backward(ctx, slope):
        return slope.detach() * (1.0 - torch.tanh(ctx.saved_tensors[0].detach()) ** 2)


class Torch:
    apply = staticmethod(torch.tanh)


class Through(nn.Module):
    """The plain network, its tanh a function of one's own; with a parameter that belongs to no layer, or without."""

    def __init__(self, function, has_scale=True):
        super().__init__()
        self.function, self.first, self.out = function, nn.Linear(D, 5), nn.Linear(5, C)
        self.scale = nn.Parameter(torch.ones(())) if has_scale else 1.0

    def forward(self, x):
        return self.out(self.scale * self.function.apply(self.first(x)))


@pytest.mark.parametrize(
    ("function", "product"),
    [
        pytest.param(Torch, "forward", id="torch's own"),
        pytest.param(NoForward, "double_backward", id="no forward mode"),
        pytest.param(Neither, "finite_differences", id="once differentiable"),
        pytest.param(Opaque, "finite_differences", id="a kernel of one's own"),
    ],
)
def test_the_first_product_that_the_layers_can_do_is_taken_and_kept(function, product):
    model, plain = network(lambda: Through(function)), network(lambda: Through(Torch))
    plain.load_state_dict(model.state_dict())
    train, val = batch(6, 1), batch(N_VAL, 2)
    hows = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
    meta = MetaGradient("exact", hows[0])
    assert meta.product_ is None
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), torch.ones(6, dtype=torch.float64), val)
        assert_close(found, scores(plain, train, val, optimizer=hows[1], product="forward"), PRECISION[product])
        assert meta.product_ == product


@pytest.mark.parametrize("function", [Torch, NoForward, Neither, Opaque])
def test_where_layers_hold_all_parameters_their_products_are_taken_whatever_lies_between(function):
    model, plain = network(lambda: Through(function, has_scale=False)), network(lambda: Through(Torch, has_scale=False))
    plain.load_state_dict(model.state_dict())
    train, val = batch(6, 1), batch(N_VAL, 2)
    hows = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
    meta = MetaGradient("exact", hows[0])
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), torch.ones(6, dtype=torch.float64), val)
        assert meta.product_ == "layers"
        assert_close(found, scores(plain, train, val, optimizer=hows[1], product="forward"), 1e-10)


class Mixing(nn.Module):
    """Rows meet where no layer shows it."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(D, 5), nn.Linear(5, C)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.out(hidden - hidden.mean(dim=0))


class InPlace(Mixing):
    def forward(self, x):
        return self.out(self.first(x).tanh_())


@pytest.mark.parametrize("make", [Mixing, InPlace])
@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_layers_are_not_taken_where_their_products_are_others(make, mode):
    model, train, val = network(make), batch(6, 1), batch(N_VAL, 2)
    meta = MetaGradient(mode, torch.optim.SGD(model.parameters(), lr=0.1))
    ones = torch.ones(6, dtype=torch.float64)
    for _ in range(2):
        found = meta.of(meta.rows(model, *train[:2], cross_entropy), ones, val)
        assert meta.product_ == "forward"
        assert_close(found, scores(model, train, val, optimizer=meta.optimizer, mode=mode, product="double_backward"), 1e-10)


def test_a_product_that_is_asked_for_is_not_replaced():
    model = network(lambda: Through(NoForward))
    with pytest.raises(RuntimeError, match=NO_FORWARD):
        scores(model, batch(6, 1), batch(N_VAL, 2), mode="first_order", product="forward")


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
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), "maximises"),
        (lambda model: None, r'mode="exact".*optimizer=.*mode="first_order"'),
    ],
)
def test_exact_refuses_an_optimiser_whose_step_it_does_not_know(optimizer_for, message):
    model = network("plain")
    with pytest.raises(ValueError, match=message):
        scores(model, batch(5, 1), batch(N_VAL, 2), optimizer=optimizer_for(model))


@pytest.mark.parametrize("mode", ["first_order", "last_layer"])
def test_the_other_modes_work_with_any_optimiser(mode):
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
