"""Partial labels: PRODEN alone, and with a network that weighs its losses, learned on a few rows whose label is known.

    python examples/partial_label.py [--data letters:letterdata.csv] [--seeds 3] [--epochs 40] [--partner 0.9] [--others 0.1]

Each training row has a set of candidate labels, the true one among them: the next class with probability `partner`, each other class
with probability `others`. PRODEN minimises sum_j t_ij l_ij, l_ij the cross entropy of row i and candidate j, and renormalises the
softmax over the candidates to be the targets t_ij of the row's next visit. Here the sum becomes sum_j w_ij t_ij l_ij:

    rows        w_ij = V(sum_j t_ij l_ij), one weight a row
    candidates  w_ij = V_j(l_ij), one weight a candidate, V with a head for each class

V takes an Adam step against the meta-gradient in each batch: how the loss of the validation rows after the classifier's next step
moves with each weight. As the validation rows are labels that PRODEN alone does without, a third run trains on them as well.
Needs torch. Sources: Lv et al. (2020), Progressive identification of true labels for partial-label learning; Shu et al. (2023), CMW-Net.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax, one_hot

from densratio.datasets import Labelled, load_labelled
from densratio.training.meta import MetaGradient
from densratio.training.meta.weight_network import WeightNetwork
from densratio.training.models import small_network

N_VAL, N_TEST, N_TRAIN, BATCH = 100, 500, 4000, 64
RUNS = ("PRODEN", "PRODEN, validation rows too", "PRODEN, weights of rows", "PRODEN, weights of candidates")


class Split(NamedTuple):
    """Images, and labels or candidates (n, C), a row of ones and zeros."""

    x: Tensor
    candidates: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor


def split(data: Labelled, seed: int, partner: float, others: float) -> Split:
    rng = np.random.default_rng(seed)
    val, test, train = np.split(rng.permutation(len(data.labels))[: N_VAL + N_TEST + N_TRAIN], [N_VAL, N_VAL + N_TEST])
    y, n_classes = data.labels[train], len(data.class_names)
    is_candidate = rng.random((len(y), n_classes)) < others
    rows = np.arange(len(y))
    is_candidate[rows, (y + 1) % n_classes] = rng.random(len(y)) < partner
    is_candidate[rows, y] = True
    arrays = (data.inputs[train], is_candidate.astype(np.float32), data.inputs[val], data.labels[val], data.inputs[test], data.labels[test])
    return Split(*map(torch.as_tensor, arrays))


def losses_of_rows(prediction: Tensor, targets: Tensor) -> Tensor:
    """sum_j t_ij l_ij, (n,)."""
    return -(targets * log_softmax(prediction, dim=1)).sum(dim=1)


def losses_of_candidates(prediction: Tensor, targets: Tensor) -> Tensor:
    """C t_ij l_ij, (n C,), whose mean is that of the rows' losses; 0 for what is no candidate."""
    return -(prediction.shape[1] * targets * log_softmax(prediction, dim=1)).flatten()


def weigh_rows(network: WeightNetwork, prediction: Tensor, targets: Tensor) -> Tensor:
    return network(losses_of_rows(prediction, targets))


def weigh_candidates(network: WeightNetwork, prediction: Tensor, targets: Tensor) -> Tensor:
    n, n_classes = prediction.shape
    return network(-log_softmax(prediction, dim=1).flatten(), torch.arange(n_classes).repeat(n))


class Weights:
    """The network V, and its step. Call with a batch: weighted loss."""

    def __init__(self, losses: Callable, weigh: Callable, n_heads: int, optimizer: torch.optim.Optimizer):
        self.losses, self.weigh = losses, weigh
        self.network = WeightNetwork(n_heads)
        self.steps = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.meta = MetaGradient("exact", optimizer)

    def __call__(self, model: torch.nn.Module, x: Tensor, targets: Tensor, x_val: Tensor, y_val: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.meta.rows(model, x, targets, self.losses)
        prediction = rows.prediction.detach()
        weights = self.weigh(self.network, prediction, targets)
        slope = self.meta.of_loss(rows, weights, lambda predict: torch.nn.functional.cross_entropy(predict(x_val), y_val))
        self.steps.zero_grad()
        (slope * weights).sum().backward()
        self.steps.step()
        with torch.no_grad():
            weights = self.weigh(self.network, prediction, targets)
        return (weights * rows.losses).mean(), prediction


def train(name: str, s: Split, seed: int, epochs: int) -> tuple[float, float]:
    """Test accuracy, and the share of training rows whose largest target is..."""
    torch.manual_seed(seed)
    n_classes = s.candidates.shape[1]
    x, candidates = s.x, s.candidates
    if "validation" in name:
        x, candidates = torch.cat([x, s.x_val]), torch.cat([candidates, one_hot(s.y_val, n_classes).float()])
    targets = candidates / candidates.sum(dim=1, keepdim=True)
    model = small_network(tuple(x.shape[1:]), n_classes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = None
    if "rows" in name.split("weights")[-1] and "weights" in name:
        weights = Weights(losses_of_rows, weigh_rows, 1, optimizer)
    if name.endswith("candidates"):
        weights = Weights(losses_of_candidates, weigh_candidates, n_classes, optimizer)
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(BATCH):
            if weights is None:
                prediction = model(x[i])
                loss = losses_of_rows(prediction, targets[i]).mean()
            else:
                loss, prediction = weights(model, x[i], targets[i], s.x_val, s.y_val)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            p = candidates[i] * prediction.detach().softmax(dim=1)
            targets[i] = p / p.sum(dim=1, keepdim=True).clamp(min=1e-12)
    with torch.no_grad():
        return float((model(s.x_test).argmax(dim=1) == s.y_test).float().mean())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--partner", type=float, default=0.9)
    parser.add_argument("--others", type=float, default=0.1)
    parser.add_argument("--val", type=int, default=100)
    options = parser.parse_args(arguments)
    global N_VAL
    N_VAL = options.val
    import time
    data = load_labelled(options.data)
    for name in RUNS:
        start = time.time()
        acc = [train(name, split(data, seed, options.partner, options.others), seed, options.epochs) for seed in range(options.first, options.first + options.seeds)]
        print(f"{name:32s} {np.mean(acc):.3f} ± {np.std(acc, ddof=1) if len(acc) > 1 else 0:.3f}  {time.time() - start:.0f}s", np.round(acc, 3), flush=True)


if __name__ == "__main__":
    main()
