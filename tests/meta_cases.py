"""Models, optimizers and batches for the tests of the meta-gradient."""

from __future__ import annotations

import copy

import torch
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from densratio.training.losses import cross_entropy, multilabel
from densratio.training.meta.gradient import MetaGradient

D, C, N_VAL = 8, 3, 7
# What each product promises, relative to the largest score.
PRECISION = {"forward": 1e-10, "double_backward": 1e-10, "finite_differences": 1e-6}


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
    torch.default_generator.manual_seed(seed)
    model = MODELS[kind]() if isinstance(kind, str) else kind()
    return model.to(dtype).train()


def optimizer_of(model, how, arrangement="all"):
    """The optimizer with all parameters in one group, two groups, some of them frozen, or some of them not in it."""
    kind, params = how
    parameters = list(model.parameters())
    if arrangement == "frozen":
        parameters[0].requires_grad_(False)
    if arrangement == "groups":
        own = {"params": parameters[:2], "lr": 0.5 * params["lr"], "weight_decay": 0.01}
        return kind([own, {"params": parameters[2:]}], **params)
    return kind(parameters[2:] if arrangement == "left out" else parameters, **params)


def warmed(model, optimizer, n_steps, seed=0, *, n=6, dtype=torch.float64):
    """The optimizer after some steps of plain training, so that it has a state."""
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
    torch.default_generator.manual_seed(seed)
    meta = MetaGradient(mode, optimizer, **params)
    rows = meta.rows(model, *train[:2], loss)
    return meta.of(rows, torch.ones(len(train[0]), dtype=train[0].dtype) if weights is None else weights, val)


def assert_close(found, expected, precision=1e-10):
    assert found.shape == expected.shape and not found.requires_grad
    assert float((found - expected).abs().max()) <= precision * float(expected.abs().max()), (found, expected)


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
    torch.default_generator.manual_seed(seed)
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


def by_differences(model, train, val, weights, optimizer, *, seed=0, h=1e-4):
    """The same by central differences through a copy of the model and of torch's own optimizer."""
    twin, its_optimizer = copy.deepcopy((model, optimizer))

    def value(w):
        twin.load_state_dict(model.state_dict())
        # An optimizer keeps the tensors that it is given.
        its_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        its_optimizer.zero_grad()
        torch.default_generator.manual_seed(seed)
        (w * cross_entropy(twin(train[0]), train[1])).mean().backward()
        its_optimizer.step()
        return float(cross_entropy(twin(val[0]), val[1]).mean().detach())

    unit = torch.eye(len(weights), dtype=weights.dtype)
    # Fourth order, so that neither the step nor rounding is seen at six digits.
    slopes = [(8 * (value(weights + h * e) - value(weights - h * e)) - value(weights + 2 * h * e) + value(weights - 2 * h * e))
              / (12 * h) for e in unit]  # fmt: skip
    return torch.tensor(slopes, dtype=weights.dtype)


def by_a_loop(model, train, val, rate_of, *, across=None, loss=cross_entropy, seed=0):
    """-(1/n) sum_p lr_p <g_val, g_i>, a backward pass a row. across: weights (n,) of the step whose length is fixed."""
    parameters, untouched = [p for p in model.parameters() if p.requires_grad], copy.deepcopy(model.state_dict())
    torch.default_generator.manual_seed(seed)
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


def labels_for(loss, n, outputs, seed):
    generator = torch.Generator().manual_seed(seed)
    if loss is cross_entropy:
        return torch.randint(outputs, (n,), generator=generator)
    if loss is multilabel:
        return torch.randint(2, (n, outputs), generator=generator)
    return torch.randn((n,) if outputs == 1 else (n, outputs), generator=generator, dtype=torch.float64)


NO_FORWARD = "forward AD|jvp"  # in what torch says of it


class NoForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, slope):
        return slope * (1.0 - torch.tanh(ctx.saved_tensors[0]) ** 2)


class Through(nn.Module):
    """The plain network, its tanh a function of one's own; with a parameter that belongs to no layer, or without."""

    def __init__(self, function, has_scale=True):
        super().__init__()
        self.function, self.first, self.out = function, nn.Linear(D, 5), nn.Linear(5, C)
        self.scale = nn.Parameter(torch.ones(())) if has_scale else 1.0

    def forward(self, x):
        return self.out(self.scale * self.function.apply(self.first(x)))
