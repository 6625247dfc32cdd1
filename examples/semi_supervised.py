"""Few labels: FixMatch with its confidence threshold, and with weights for the pseudo-labels learned on the labeled rows.

    python examples/semi_supervised.py [--data letters:letterdata.csv] [--labels 8] [--outside 4] [--seeds 3] [--epochs 25]

Each unlabeled row gets a pseudo-label, the prediction on a weakly augmented copy (images shifted by a pixel), and a strongly
augmented copy (additional noise and a hole) is trained on it. FixMatch uses only rows with a confidence p of at least 0.95. Here
each row gets the weight w_i = V(-log p_i) instead, with mean 1 in the batch. In each batch V takes an Adam step along the negative
meta-gradient: the derivative, by each weight, of the loss of the labeled rows after the classifier's next step. No further labels
are needed.
The last run learns, as CMW-Net's paper does, V(l_i) of the loss l_i of the strong copy, which the weight multiplies.
With --outside that many classes occur only among the unlabeled rows and are neither labeled nor tested.
All runs train only on the labeled rows for the first 5 epochs, since pseudo-labels are unreliable before.
Sources: Sohn et al. (2020), FixMatch; Shu et al. (2019), Meta-Weight-Net; Shu et al. (2023), CMW-Net.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from densratio.datasets import Labelled, load_labelled
from densratio.labels.networks import small_network
from densratio.training.meta import MetaGradient
from densratio.training.meta.weight_network import WeightNetwork

N_TEST, N_ROWS, BATCH, WARMUP = 400, 5000, 128, 5


class Split(NamedTuple):
    """Labeled, unlabeled and test rows."""

    x: Tensor
    y: Tensor
    x_unlabeled: Tensor
    x_test: Tensor
    y_test: Tensor


def split(data: Labelled, seed: int, n_labels: int, n_outside: int) -> Split:
    """n_labels labeled rows of each class except the last n_outside."""
    rows = np.random.default_rng(seed).permutation(len(data.labels))[:N_ROWS]
    n_inside = len(data.class_names) - n_outside
    inside = rows[data.labels[rows] < n_inside]
    test, rest = inside[:N_TEST], inside[N_TEST:]
    labeled = np.concatenate([rest[data.labels[rest] == label][:n_labels] for label in range(n_inside)])
    unlabeled = np.setdiff1d(rows, np.concatenate([test, labeled]))
    arrays = data.inputs[labeled], data.labels[labeled], data.inputs[unlabeled], data.inputs[test], data.labels[test]
    return Split(*map(torch.as_tensor, arrays))


def weak(x: Tensor) -> Tensor:
    """Weak augmentation: images shifted by up to a pixel; a little noise for rows that are not images."""
    if x.ndim == 2:
        return x + 0.1 * torch.randn_like(x)
    n, channels, height, width = x.shape
    down, right = torch.randint(0, 3, (2, n, 1, 1, 1))
    row, column = down + torch.arange(height)[:, None], right + torch.arange(width)
    return pad(x, (1, 1, 1, 1))[torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None], row, column]


def strong(x: Tensor) -> Tensor:
    """Strong augmentation: shifted images with noise and a 3 x 3 hole; other rows get noise and a fifth of their columns 0."""
    if x.ndim == 2:
        return (x + 0.3 * torch.randn_like(x)) * (torch.rand_like(x) > 0.2)
    n, _, height, width = x.shape
    top, left = torch.randint(0, height, (n, 1, 1, 1)), torch.randint(0, width, (n, 1, 1, 1))
    is_hole = ((torch.arange(height)[:, None] - top).abs() <= 1) & ((torch.arange(width) - left).abs() <= 1)
    return (weak(x) + 0.2 * torch.randn_like(x)).masked_fill(is_hole, 0.0)


class Batch(NamedTuple):
    """Rows (n, ...), labeled ones first, with their labels or pseudo-labels (n,); surprise: -log p of the pseudo-labels."""

    x: Tensor
    y: Tensor
    surprise: Tensor
    n_labeled: int

    def losses(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Losses (n,), scaled so that their mean is the mean of the labeled rows plus that of the others."""
        n, n_labeled = len(y), self.n_labeled
        scale = torch.full((n,), n / (n - n_labeled))
        scale[:n_labeled] = n / n_labeled
        return scale * cross_entropy(prediction, y, reduction="none")

    def weights(self, of_others: Tensor) -> Tensor:
        """1 for the labeled rows, and the weights of the others."""
        return torch.cat([torch.ones(self.n_labeled), of_others])


class Learned:
    """Weights from a network of the surprise, or of the loss that it weights, after its step in a batch."""

    def __init__(self, optimizer: torch.optim.Optimizer, of_losses: bool = False):
        self.of_losses = of_losses
        self.network = WeightNetwork()
        self.network_optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.meta = MetaGradient("exact", optimizer)

    def __call__(self, model: torch.nn.Module, batch: Batch, sets: Split) -> Tensor:
        x, rows = weak(sets.x), self.meta.rows(model, batch.x, batch.y, batch.losses)
        others = rows.prediction.detach()[batch.n_labeled :], batch.y[batch.n_labeled :]
        seen = cross_entropy(*others, reduction="none") if self.of_losses else batch.surprise
        weights = batch.weights(self.of(seen))
        slope = self.meta.of_loss(rows, weights, lambda predict: cross_entropy(predict(x), sets.y))
        self.network_optimizer.zero_grad()
        (slope * weights).sum().backward()
        self.network_optimizer.step()
        return (batch.weights(self.of(seen)).detach() * rows.losses).mean()

    def of(self, seen: Tensor) -> Tensor:
        weights = self.network(seen)
        return weights / weights.mean()


class Fixed:
    """Weights that are a known function of the surprise."""

    def __init__(self, of: Callable[[Tensor], Tensor]):
        self.of = of

    def __call__(self, model: torch.nn.Module, batch: Batch, sets: Split) -> Tensor:
        return (batch.weights(self.of(batch.surprise)) * batch.losses(model(batch.x), batch.y)).mean()


RUNS: dict[str, Callable] = {
    "labeled rows alone": lambda optimizer: Fixed(torch.zeros_like),
    "every pseudo-label": lambda optimizer: Fixed(torch.ones_like),
    "FixMatch, threshold 0.95": lambda optimizer: Fixed(lambda surprise: (surprise <= -np.log(0.95)).float()),
    "FixMatch, learned weights": Learned,
    "  of the strong copy": lambda optimizer: Learned(optimizer, of_losses=True),
}


def train(sets: Split, seed: int, epochs: int, run: Callable) -> float:
    """Test accuracy. run(optimizer) -> (model, batch, split) -> loss."""
    torch.manual_seed(seed)
    model = small_network(tuple(sets.x.shape[1:]), int(sets.y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    warmup, loss_of = Fixed(torch.zeros_like), run(optimizer)
    for epoch in range(epochs):
        for i in torch.randperm(len(sets.x_unlabeled)).split(BATCH):
            x = sets.x_unlabeled[i]
            with torch.no_grad():
                surprise, pseudo = (-model(weak(x)).log_softmax(dim=1)).min(dim=1)
            batch = Batch(torch.cat([weak(sets.x), strong(x)]), torch.cat([sets.y, pseudo]), surprise, len(sets.y))
            loss = (warmup if epoch < WARMUP else loss_of)(model, batch, sets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float((model(sets.x_test).argmax(dim=1) == sets.y_test).float().mean())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, letters:FILE or any other data of load_labelled")
    parser.add_argument("--labels", type=int, default=8, help="labeled rows of each class")
    parser.add_argument("--outside", type=int, default=0, help="number of classes that occur only among the unlabeled rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args(arguments)
    data = load_labelled(options.data)
    print(f"{'':26s}  test accuracy")
    for name, run in RUNS.items():
        splits = (split(data, seed, options.labels, options.outside) for seed in range(options.seeds))
        accuracy = [train(sets, seed, options.epochs, run) for seed, sets in enumerate(splits)]
        print(f"{name:26s}  {np.mean(accuracy):.3f} ± {np.std(accuracy, ddof=min(1, options.seeds - 1)):.3f}", flush=True)


if __name__ == "__main__":
    main()
