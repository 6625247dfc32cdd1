"""A model that a framework has wrapped, for several ranks, for a compiler or for half precision, trains as the model itself."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from small_loops import IRREDUCIBLE, N_TRAIN, N_VAL, VAL, C, Network, Y, assert_same, of, optimizer_of, plan
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from densratio.training import MWNet, reweighter
from densratio.training.integrations.state import Prediction
from densratio.training.registry import METHODS

# Their rows are one tensor, and a framework gives a dict of columns.
OF_TENSORS = {"fsr", "cmw_net_sl", "cmw_net_sl_no_mixup"}


class Logits(nn.Module):
    """A network of columns, with outputs as models of a library have them: no loss, hidden states, and logits among others."""

    def __init__(self):
        super().__init__()
        self.network = Network(0, has_norm=False)

    def forward(self, x):
        hidden = self.network.hidden(x)
        logits = self.network.out(hidden)
        return {"loss": None, "states": hidden, "x": x, "logits": logits, "probabilities": logits.softmax(dim=1)}


class Halved(nn.Module):
    """As accelerate wraps a model: it computes in half precision, and its outputs are single again."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return {"logits": self.module(x)["logits"].float()}


@pytest.fixture(scope="module", autouse=True)
def one_rank():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS = {
    "ranks": DistributedDataParallel,
    "ranks, unused parameters": lambda model: DistributedDataParallel(model, find_unused_parameters=True),
    "compiler": lambda model: torch.compile(model, backend="eager"),
    "compiler of ranks": lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
}


COMPILED = ["kmm", "mw_net", "co_teaching", "meta_cleaner"]
CASES = [
    (name, wrapper)
    for wrapper in WRAPPERS
    for name in METHODS
    if name not in OF_TENSORS and ("compiler" not in wrapper or name in COMPILED)
]


def trained(make, wrap, n_steps=3, output="logits"):
    model = Logits().train()
    optimizer = optimizer_of(model)
    torch.manual_seed(1)
    method, wrapped = make(model, optimizer), wrap(model)
    columns = [({"x": x}, y, index) for x, y, index in [*map(of, plan(n_steps)), VAL]]
    for batch in columns[:-1]:
        predicting = Prediction(wrapped, lambda module, x: module(**x), lambda outputs: outputs[output])
        loss = method.weighted_loss(predicting, batch, columns[-1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()], method


def by_name(name):
    def make(model, optimizer):
        return reweighter(
            name, N_TRAIN, N_VAL, y_train=Y, n_classes=C, model=model, optimizer=optimizer, epochs=0.5, irreducible=IRREDUCIBLE,
            first=2.0 * IRREDUCIBLE - 1.0,
        )  # fmt: skip

    return make


def assert_alike(make, wrap):
    (found, method), (expected, other) = trained(make, wrap), trained(make, lambda model: model)
    assert_same([*found, method.weights_], [*expected, other.weights_])


@pytest.mark.parametrize(("name", "wrapper"), CASES)
def test_a_wrapped_model_trains_as_the_model_itself(name, wrapper):
    assert_alike(by_name(name), WRAPPERS[wrapper])


def of_last_layer(model, optimizer):
    return MWNet(N_TRAIN, mode="last_layer", optimizer=optimizer)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_the_last_layer_is_found_through_a_wrapper(wrapper):
    assert_alike(of_last_layer, WRAPPERS[wrapper])


@pytest.mark.parametrize("make", [of_last_layer, by_name("meta_cleaner")])
def test_the_last_layer_is_found_where_its_output_was_made_single_again(make):
    assert_near(make)


# Rounded losses have another order, or make another of the steep steps.
@pytest.mark.parametrize("name", [name for name in METHODS if name not in OF_TENSORS | {"auto", "diw", "wasserstein"}])
def test_a_model_with_autocast_inside_trains_nearly_as_in_single_precision(name):
    method = assert_near(by_name(name))
    if isinstance(method, MWNet):
        assert method.meta.product_ == ("forward" if name == "gdw" else "layers")


def assert_near(make):
    (found, method), (expected, other) = trained(make, Halved, 1), trained(make, lambda model: model, 1)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert float((method.weights_ - other.weights_).abs().mean()) < 0.05
    return method


class Doubled(Halved):
    """It changes the output, so that this is no longer that of the last layer."""

    def forward(self, x):
        return {"logits": (2.0 * self.module(x)["logits"]).clone()}


@pytest.mark.parametrize(
    ("wrap", "output"), [(Doubled, "logits"), *[(wrap, "probabilities") for wrap in (lambda model: model, *WRAPPERS.values())]]
)
@pytest.mark.parametrize("make", [of_last_layer, by_name("meta_cleaner")])
def test_another_output_is_not_that_of_the_last_layer(make, wrap, output):
    with pytest.raises(ValueError, match=r"the output of its last nn\.Linear, with nothing after it"):
        trained(make, wrap, output=output)
