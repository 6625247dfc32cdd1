"""Selective classification: SelectiveNet on rows with wrong labels, alone and with learned weights for its auxiliary loss.

    python examples/selective_classification.py [--data letters:letterdata.csv] [--noise symmetric:0.4] [--seeds 3] [--epochs 40]

SelectiveNet predicts only where it is confident. One body has three heads: the prediction f, the selection g in (0, 1) and an
auxiliary prediction h, which is dropped after training. The loss is

    1/2 [ sum_i g_i l(f_i, y_i) / sum_i g_i + 32 max(0, 0.8 - mean g)^2 ] + 1/2 mean_i w_i l(h_i, y_i),    w = 1.

With weights, w_i = V(l(h_i, y_i)): in each batch V takes an Adam step along the negative meta-gradient, the derivative by each w_i
of the first half of the loss on clean validation rows after the network's next step. SelectiveNet alone does not use validation
rows, so a second run trains on them, like the weighted run. The table has the test error of the rows with the largest g, by their
share (coverage).
Sources: Geifman & El-Yaniv (2019), SelectiveNet; Shu et al. (2019), Meta-Weight-Net; Shu et al. (2023), CMW-Net.
"""

import argparse
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from densratio.datasets import Labelled, label_noise, load_labelled
from densratio.labels.networks import small_network
from densratio.training.meta import MetaGradient
from densratio.training.meta.weight_network import WeightNetwork

N_VAL, N_TEST, N_TRAIN, BATCH, TARGET = 100, 500, 4000, 64, 0.8
COVERAGES = (1.0, 0.9, 0.8, 0.6)
RUNS = {"SelectiveNet": (False, False), "  validation rows too": (True, False), "  and learned weights": (True, True)}
"""Whether to train on the validation rows, and whether to learn weights, by name."""


class Split(NamedTuple):
    """Only training rows have wrong labels."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor


def split(data: Labelled, seed: int, kind: str, rate: float) -> Split:
    """N_TRAIN training rows, or all remaining rows of the data."""
    rows = np.random.default_rng(seed).permutation(len(data.labels))[: N_VAL + N_TEST + N_TRAIN]
    val, test, train = np.split(rows, [N_VAL, N_VAL + N_TEST])
    noisy = label_noise(data.labels[train], kind, rate, n_classes=len(data.class_names), random_state=seed)
    arrays = data.inputs[train], noisy.labels, data.inputs[val], data.labels[val], data.inputs[test], data.labels[test]
    return Split(*map(torch.as_tensor, arrays))


class Heads(NamedTuple):
    """Prediction and auxiliary prediction (n, C), selection (n,)."""

    prediction: Tensor
    auxiliary: Tensor
    selection: Tensor

    @classmethod
    def of(cls, output: Tensor) -> "Heads":
        """From the network's output (n, 2 C + 1)."""
        n_classes = output.shape[1] // 2
        return cls(output[:, :n_classes], output[:, n_classes:-1], output[:, -1].sigmoid())


def selective_loss(output: Tensor, y: Tensor) -> Tensor:
    """Risk of the selected rows plus the penalty of a coverage below TARGET; a scalar."""
    heads = Heads.of(output)
    risk = (heads.selection * cross_entropy(heads.prediction, y, reduction="none")).sum() / heads.selection.sum()
    return risk + 32.0 * (TARGET - heads.selection.mean()).clamp(min=0.0) ** 2


def losses(output: Tensor, y: Tensor) -> Tensor:
    """Auxiliary loss of each row and the selective loss of the batch, (n + 1,): their mean is SelectiveNet's loss."""
    n = len(y)
    auxiliary = cross_entropy(Heads.of(output).auxiliary, y, reduction="none")
    return (n + 1) / 2 * torch.cat([auxiliary / n, selective_loss(output, y)[None]])


class Weighting:
    """Weights from a network of the auxiliary losses, after its step in a batch."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.network = WeightNetwork()
        self.network_optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.meta = MetaGradient("exact", optimizer)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, val: tuple[Tensor, Tensor]) -> Tensor:
        rows = self.meta.rows(model, x, y, losses)
        auxiliary = cross_entropy(Heads.of(rows.prediction.detach()).auxiliary, y, reduction="none")
        weights = self.of(auxiliary)
        slope = self.meta.of_loss(rows, weights, lambda predict: selective_loss(predict(val[0]), val[1]))
        self.network_optimizer.zero_grad()
        (slope * weights).sum().backward()
        self.network_optimizer.step()
        return (self.of(auxiliary).detach() * rows.losses).mean()

    def of(self, auxiliary: Tensor) -> Tensor:
        """Weights (n + 1,) of the entries of `losses`; the selective loss has weight 1."""
        return torch.cat([self.network(auxiliary), torch.ones(1)])


def train(sets: Split, seed: int, epochs: int, n_classes: int, trains_on_val: bool, is_weighted: bool) -> nn.Module:
    torch.manual_seed(seed)
    x, y, val = sets.x, sets.y, (sets.x_val, sets.y_val)
    if trains_on_val:
        x, y = torch.cat([x, val[0]]), torch.cat([y, val[1]])
    model = small_network(tuple(x.shape[1:]), 2 * n_classes + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weighting = Weighting(optimizer) if is_weighted else None
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(BATCH):
            loss = weighting(model, x[i], y[i], val) if weighting else losses(model(x[i]), y[i]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


@torch.no_grad()
def risks(model: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """Error among the rows with the largest selection, at each coverage."""
    heads = Heads.of(model(x))
    is_wrong = (heads.prediction.argmax(dim=1) != y).float()[heads.selection.argsort(descending=True)]
    return [float(is_wrong[: round(coverage * len(y))].mean()) for coverage in COVERAGES]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, letters:FILE or any other data of load_labelled")
    parser.add_argument("--noise", default="symmetric:0.4", help="KIND:RATE of the wrong labels")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    data, (kind, rate) = load_labelled(options.data), options.noise.split(":")
    print(f"{'test error at coverage':24s}" + "".join(f"{coverage:>16.0%}" for coverage in COVERAGES))
    for name, run in RUNS.items():
        splits = [split(data, seed, kind, float(rate)) for seed in range(options.seeds)]
        models = [train(sets, seed, options.epochs, len(data.class_names), *run) for seed, sets in enumerate(splits)]
        found_risks = np.array([risks(model, sets.x_test, sets.y_test) for model, sets in zip(models, splits, strict=True)])
        columns = zip(found_risks.mean(axis=0), found_risks.std(axis=0, ddof=min(1, options.seeds - 1)), strict=True)
        print(f"{name:24s}" + "".join(f"   {mean:.3f} ± {deviation:.3f}" for mean, deviation in columns), flush=True)


if __name__ == "__main__":
    main()
