"""A training step of the learned methods against plain training, and against Meta-Weight-Net as published.

Published: a virtual step that keeps its graph (create_graph), the validation loss after it, backward through both, and a new pass
for the classifier's own step; written here with torch.func.functional_call on the same network, without rebuilding a model, and
for a plain SGD virtual step, as its authors have it. All methods take the same batches; the validation batch is as large as the
training batch but where a bank is named.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from networks import lenet5, resnet18
from runner import RESULTS, Row, environment, interleaved, limit_threads, medians, synchronizer, write
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from densratio.demo.peak_memory import peak_memory
from densratio.labels.networks import small_network
from densratio.training import DynamicReweighter, Reweighter, Uniform
from densratio.training.meta import L2R, CMWNet, CMWNetSL, LiLAW, MWNet, WeightNetwork

N_TRAIN, N_VAL, N_CLASSES = 4096, 1000, 10
NETWORKS = {
    "lenet5": (lenet5, (3, 32, 32)), "resnet18": (resnet18, (3, 32, 32)), "small": (small_network, (3, 32, 32)),
}  # fmt: skip
PUBLISHED = "MW-Net, double backward as published"
Step = Callable[[], Any]


class Published:
    """Meta-Weight-Net's step by double backward through the virtual step."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self.network = WeightNetwork().to(next(model.parameters()).device)
        self.network_optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, weight_decay=1e-4)

    def step(self, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> None:
        parameters = dict(self.model.named_parameters())
        losses = cross_entropy(functional_call(self.model, parameters, (x,)), y, reduction="none")
        loss = (self.network(losses.detach()) * losses).mean()
        gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        moved = {name: p - 1e-3 * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
        val_loss = cross_entropy(functional_call(self.model, moved, (x_val,)), y_val)
        self.network_optimizer.zero_grad()
        val_loss.backward(inputs=list(self.network.parameters()))
        self.network_optimizer.step()
        losses = cross_entropy(self.model(x), y, reduction="none")
        with torch.no_grad():
            weights = self.network(losses)
        self.optimizer.zero_grad(set_to_none=True)
        (weights * losses).mean().backward()
        self.optimizer.step()


def main() -> None:
    """Time all methods in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), default="lenet5")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    steps = candidates(arguments.network, arguments.device, arguments.batch_size)
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    synchronize = synchronizer(arguments.device)
    # every=5 means a cycle of five batches, and all candidates take as many in a round.
    repeats = dict.fromkeys(steps, 5)
    seconds = interleaved(steps, arguments.rounds // 5, synchronize=synchronize, repeats=repeats, clock=clock)
    memory = {name: peak_memory(step, torch.device(arguments.device)) for name, step in steps.items()}
    rows = table(seconds, memory)
    about = f"{arguments.network}, batch {arguments.batch_size}, images of 32 x 32, Adam"
    note = (
        "Medians over rounds of five batches each, all methods in turn; times: medians of each round's ratio. On a CPU seconds are "
        "those of the process. The aims: exact at most 4 times Uniform and 0.65 of the published way, every=5 at most 1.7, last "
        "layer with a bank at most 1.2; published costs are 7 to 27 times Uniform."
    )
    path = RESULTS / f"meta_gradient_{arguments.network}_{arguments.device}"
    write(str(path), "Cost of learned reweighting", environment(arguments.device), [(about, note, rows)])


def candidates(network: str, device: str, batch_size: int) -> dict[str, Step]:
    """One training step of each method, each with a network of its own."""
    make, shape = NETWORKS[network]
    generator = torch.Generator().manual_seed(0)
    x, x_val = (torch.randn(n, *shape, generator=generator).to(device) for n in (N_TRAIN, N_VAL))
    y, y_val = (torch.randint(N_CLASSES, (n,), generator=generator).to(device) for n in (N_TRAIN, N_VAL))

    def batches(size: int) -> tuple[Any, Any]:
        i = torch.randint(N_TRAIN, (batch_size,), generator=generator).to(device)
        j = torch.randint(N_VAL, (size,), generator=generator).to(device)
        return (x[i], y[i], i), (x_val[j], y_val[j], j)

    def model() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        made = make(shape, N_CLASSES).to(device)
        return made, torch.optim.Adam(made.parameters(), lr=1e-3)

    def of(build: Callable[[torch.optim.Optimizer], Reweighter], val_size: int = batch_size) -> Step:
        net, optimizer = model()
        reweighter = build(optimizer).to(device)

        def step() -> None:
            train, val = batches(val_size)
            loss = reweighter.weighted_loss(net, train, val)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    def published() -> Step:
        own = Published(*model())

        def step() -> None:
            (a, b, _), (c, d, _) = batches(batch_size)
            own.step(a, b, c, d)

        return step

    n, labels = N_TRAIN, y.cpu()
    return {
        "Uniform": of(lambda o: Uniform(n)),
        PUBLISHED: published(),
        "MW-Net, exact": of(lambda o: MWNet(n, optimizer=o)),
        "MW-Net, exact, fixed step length": of(lambda o: MWNet(n, optimizer=o, fixed_step_length=True)),
        "MW-Net, exact, every=5": of(lambda o: MWNet(n, optimizer=o, every=5)),
        "MW-Net, first order": of(lambda o: MWNet(n, optimizer=o, mode="first_order")),
        "MW-Net, last layer": of(lambda o: MWNet(n, optimizer=o, mode="last_layer")),
        "MW-Net, last layer, bank 8": of(lambda o: MWNet(n, optimizer=o, mode="last_layer", n_val=N_VAL, val_refresh=8), 8),
        "MW-Net, last layer, bank 32": of(lambda o: MWNet(n, optimizer=o, mode="last_layer", n_val=N_VAL, val_refresh=32), 32),
        "CMW-Net, exact": of(lambda o: CMWNet(n, labels, optimizer=o)),
        "CMW-Net-SL": of(lambda o: CMWNetSL(n, labels, optimizer=o)),
        "L2R, first order": of(lambda o: L2R(n)),
        "L2R, last layer, bank 8": of(lambda o: L2R(n, mode="last_layer", n_val=N_VAL, val_refresh=8), 8),
        "LiLAW": of(lambda o: LiLAW(n, warmup_epochs=0.0)),
        "ADIW-LS, bank 8": of(lambda o: DynamicReweighter("lsif", n, N_VAL, val_refresh=8, warmup_epochs=0.0), 8),
    }


def table(seconds: dict[str, list[float]], memory: dict[str, int | None]) -> list[Row]:
    """A row for each method."""
    typical = medians(seconds)

    def times(name: str, base: str) -> float:
        return sorted(a / b for a, b in zip(seconds[name], seconds[base], strict=True))[len(seconds[name]) // 2]

    return [
        {
            "method": name,
            "ms a batch": 1e3 * value,
            "times Uniform": times(name, "Uniform"),
            "times the published way": times(name, PUBLISHED),
            "peak MB": None if memory[name] is None else memory[name] / 1e6,  # type: ignore[operator]
        }
        for name, value in typical.items()
    ]


if __name__ == "__main__":
    main()
