"""Partial labels: PRODEN alone, and with a network that weights its losses, learned on a few rows with known labels.

    python examples/partial_label.py [--data letters:letterdata.csv] [--seeds 3] [--epochs 25] [--partner 0.9] [--others 0.1]

Each training row has a set of candidate labels, the true one among them: the next class with probability `partner`, each other
class with probability `others`. PRODEN minimizes sum_j t_ij l_ij, l_ij the cross entropy of row i and candidate j; the softmax,
renormalized over the candidates, gives the targets t_ij for the row's next epoch. With weights the sum is sum_j w_ij t_ij l_ij:

    rows        w_ij = V(sum_j t_ij l_ij), one weight per row
    candidates  w_ij = V_j(l_ij), one weight per candidate; V has a head for each class

In each batch V takes an Adam step along the negative meta-gradient: the derivative, by each weight, of the validation loss after
the classifier's next step. PRODEN alone does not use validation rows, so a second run of it trains on them, like the weighted runs.

The last runs train a second network on the labels that PRODEN found, plainly or weighted by CMW-Net as its paper does it: the
validation rows are then those of each class that an average of the network finds easiest, so no known labels are needed.
Sources: Lv et al. (2020), Progressive identification of true labels for partial-label learning; Shu et al. (2023), CMW-Net.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, one_hot
from torch.utils.data import TensorDataset

from densratio.datasets import Labelled, load_labelled
from densratio.labels.networks import small_network
from densratio.training import ChosenRows, reweighter
from densratio.training.meta import MetaGradient
from densratio.training.meta.weight_network import WeightNetwork

N_VAL, N_TEST, N_TRAIN, BATCH = 100, 500, 4000, 64


class Split(NamedTuple):
    """Inputs and labels (n,); candidates (n, C), 1 or 0."""

    x: Tensor
    y: Tensor
    candidates: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor


def split(data: Labelled, seed: int, partner: float, others: float) -> Split:
    """N_TRAIN training rows, or all remaining rows of the data."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(data.labels))[: N_VAL + N_TEST + N_TRAIN]
    val, test, train = np.split(rows, [N_VAL, N_VAL + N_TEST])
    y, n_classes = data.labels[train], len(data.class_names)
    candidates = rng.random((len(y), n_classes)) < others
    candidates[np.arange(len(y)), (y + 1) % n_classes] = rng.random(len(y)) < partner
    candidates[np.arange(len(y)), y] = True
    training = data.inputs[train], y, candidates.astype(np.float32)
    return Split(*map(torch.as_tensor, (*training, data.inputs[val], data.labels[val], data.inputs[test], data.labels[test])))


def losses_of_rows(prediction: Tensor, targets: Tensor) -> Tensor:
    """sum_j t_ij l_ij, (n,)."""
    return -(targets * log_softmax(prediction, dim=1)).sum(dim=1)


def losses_of_candidates(prediction: Tensor, targets: Tensor) -> Tensor:
    """C t_ij l_ij, (n C,), with the same mean as the rows' losses; 0 for labels that are not candidates."""
    return -(prediction.shape[1] * targets * log_softmax(prediction, dim=1)).flatten()


def weights_of_rows(network: WeightNetwork, prediction: Tensor, targets: Tensor) -> Tensor:
    return network(losses_of_rows(prediction, targets))


def weights_of_candidates(network: WeightNetwork, prediction: Tensor, targets: Tensor) -> Tensor:
    n, n_classes = prediction.shape
    return network(-log_softmax(prediction, dim=1).flatten(), torch.arange(n_classes).repeat(n))


class Weighting:
    """Weighted losses of a batch, after a step of the weight network."""

    def __init__(self, losses: Callable, weigh: Callable, n_heads: int, optimizer: torch.optim.Optimizer):
        self.losses, self.weigh = losses, weigh
        self.network = WeightNetwork(n_heads)
        self.network_optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.meta = MetaGradient("exact", optimizer)

    def __call__(self, model: torch.nn.Module, x: Tensor, targets: Tensor, val: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean of the weighted losses, and the prediction (n, C)."""
        rows = self.meta.rows(model, x, targets, self.losses)
        prediction = rows.prediction.detach()
        weights = self.weigh(self.network, prediction, targets)
        slope = self.meta.of_loss(rows, weights, lambda predict: cross_entropy(predict(val[0]), val[1]))
        self.network_optimizer.zero_grad()
        (slope * weights).sum().backward()
        self.network_optimizer.step()
        weights = self.weigh(self.network, prediction, targets).detach()
        return (weights * rows.losses).mean(), prediction


def train(
    sets: Split, seed: int, epochs: int, trains_on_val: bool, kind: Callable | None, second: str | None = None
) -> tuple[float, float]:
    """Test accuracy, and the share of training rows whose largest target is their label.

    kind(C, optimizer) -> Weighting. second: the method of a second network on the labels that were found.
    """
    torch.manual_seed(seed)
    n_classes = sets.candidates.shape[1]
    x, candidates = sets.x, sets.candidates
    if trains_on_val:
        x, candidates = torch.cat([x, sets.x_val]), torch.cat([candidates, one_hot(sets.y_val, n_classes)])
    targets = candidates / candidates.sum(dim=1, keepdim=True)
    model = small_network(tuple(x.shape[1:]), n_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weighting = kind and kind(n_classes, optimizer)
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(BATCH):
            if weighting is None:
                prediction = model(x[i])
                loss = losses_of_rows(prediction, targets[i]).mean()
            else:
                loss, prediction = weighting(model, x[i], targets[i], (sets.x_val, sets.y_val))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            targets[i] = prediction.detach().masked_fill(candidates[i] == 0, -torch.inf).softmax(dim=1)
    labels = targets[: len(sets.y)].argmax(dim=1)
    if second is not None:
        model = train_anew(sets, labels, seed, epochs, second)
    with torch.no_grad():
        is_right = model(sets.x_test).argmax(dim=1) == sets.y_test
    return float(is_right.float().mean()), float((labels == sets.y).float().mean())


def train_anew(sets: Split, labels: Tensor, seed: int, epochs: int, method: str) -> torch.nn.Module:
    """A network that learns these labels by a method, whose validation rows are training rows."""
    torch.manual_seed(seed)
    model = small_network(tuple(sets.x.shape[1:]), sets.candidates.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = reweighter(method, len(labels), y_train=labels, optimizer=optimizer)
    chosen = ChosenRows(TensorDataset(sets.x, labels), labels)
    for _ in range(epochs):
        chosen.choose(model)
        for i in torch.randperm(len(labels)).split(BATCH):
            loss = weights.weighted_loss(model, (sets.x[i], labels[i], i), chosen.batch(model))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


RUNS: dict[str, tuple] = {
    "PRODEN": (False, None),
    "PRODEN, validation rows too": (True, None),
    "  and weights of rows": (True, lambda n, adam: Weighting(losses_of_rows, weights_of_rows, 1, adam)),
    "  and weights of candidates": (True, lambda n, adam: Weighting(losses_of_candidates, weights_of_candidates, n, adam)),
    "PRODEN, then plain training": (False, None, "uniform"),
    "PRODEN, then CMW-Net": (False, None, "cmw_net"),
}
"""Whether to train on the validation rows, the weighting, and the method of the second network, by name."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, letters:FILE or any other data of load_labelled")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--partner", type=float, default=0.9, help="probability that the next class is a candidate")
    parser.add_argument("--others", type=float, default=0.1, help="probability of each other class")
    options = parser.parse_args(arguments)
    data = load_labelled(options.data)
    print(f"{'':30s}  test accuracy    training labels found")
    for name, run in RUNS.items():
        splits = (split(data, seed, options.partner, options.others) for seed in range(options.seeds))
        results = np.array([train(sets, seed, options.epochs, *run) for seed, sets in enumerate(splits)])
        (accuracy, labels), (of_accuracy, of_labels) = results.mean(axis=0), results.std(axis=0, ddof=min(1, options.seeds - 1))
        print(f"{name:30s}  {accuracy:.3f} ± {of_accuracy:.3f}    {labels:.3f} ± {of_labels:.3f}", flush=True)


if __name__ == "__main__":
    main()
