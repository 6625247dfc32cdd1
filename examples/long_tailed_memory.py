"""Open long-tailed recognition (OLTR): a memory of class centroids lends the classes with few rows what the others have learned.

    python examples/long_tailed_memory.py [--data digits] [--factor 50] [--seeds 3] [--epochs 40]

The features v of an image, after modulated attention over its pixels, are joined with the class centroids c_k:

    (v + tanh(S v) * sum_k softmax(H v)_k c_k) * 10 / min_k |v - c_k|      the meta-embedding; S, H learned, products by entries
    16 |e| / (1 + |e|) cos(e, w_k)                                         the logits of an embedding e

A first training without attention, memory and cosines gives the features and, as their means in each class, the first centroids.
The second one learns all, with a hundredth of a loss that draws features to the centroid of their class and holds the others off.
Either is weighted by CMW-Net in turn, whose validation rows are as many random training rows of each class as the smallest has.
Sources: Liu et al. (2019), Large-scale long-tailed recognition in an open world; Shu et al. (2023), CMW-Net.
"""

import argparse
import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import TensorDataset

from densratio.datasets import Labelled, load_labelled, long_tail
from densratio.training import ChosenRows, reweighter

N_TEST, BATCH, CHANNELS, WIDTH = 500, 64, 32, 64


class Attention(nn.Module):
    """x + a(x) self_attention(x): images (n, c, h, w); the weights a (n, 1, h, w) of the pixels have sum 1."""

    def __init__(self, channels: int, n_pixels: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, channels // 2, 1) for _ in range(3))
        self.out, self.pixels = nn.Conv2d(channels // 2, channels, 1, bias=False), nn.Linear(channels * n_pixels, n_pixels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part(x).flatten(2) for part in (self.query, self.key, self.value))
        attended = value @ (query.mT @ key).softmax(dim=2).mT
        weights = self.pixels(x.flatten(1)).softmax(dim=1).view(len(x), 1, *x.shape[2:])
        return x + weights * self.out(attended.view(len(x), -1, *x.shape[2:]))


class Network(nn.Module):
    """Logits (n, C) of images: a linear layer of the features at first, and with `centroids` (C, WIDTH) the whole of OLTR."""

    def __init__(self, shape: tuple[int, ...], n_classes: int):
        super().__init__()
        n_pixels = shape[1] // 2 * (shape[2] // 2)
        first, second = nn.Conv2d(shape[0], CHANNELS // 2, 3, padding=1), nn.Conv2d(CHANNELS // 2, CHANNELS, 3, padding=1)
        self.convolutions = nn.Sequential(first, nn.ReLU(), second, nn.MaxPool2d(2), nn.ReLU())
        self.attention, self.to_features = Attention(CHANNELS, n_pixels), nn.Linear(CHANNELS * n_pixels, WIDTH)
        self.linear, self.selector = nn.Linear(WIDTH, n_classes), nn.Linear(WIDTH, WIDTH)
        self.memory, self.cosine = nn.Linear(WIDTH, n_classes), nn.Linear(WIDTH, n_classes, bias=False)
        self.centroids: nn.Parameter | None = None

    def features(self, x: Tensor) -> Tensor:
        found = self.convolutions(x)
        return self.to_features((found if self.centroids is None else self.attention(found)).flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        v = self.features(x)
        if self.centroids is None:
            return self.linear(v)
        embedding = v + self.selector(v).tanh() * (self.memory(v).softmax(dim=1) @ self.centroids)
        embedding = embedding * 10.0 / torch.cdist(v, self.centroids).amin(dim=1, keepdim=True).clamp(min=1e-3)
        size = embedding.norm(dim=1, keepdim=True)
        return 16.0 * size / (1.0 + size) * normalize(embedding, dim=1) @ normalize(self.cosine.weight, dim=1).T

    def centroid_loss(self, x: Tensor, y: Tensor) -> Tensor:
        squares = torch.cdist(self.features(x), self.centroids) ** 2
        is_own = torch.nn.functional.one_hot(y, squares.shape[1]).bool()
        return squares[is_own].mean() / 2.0 + 0.01 * (10.0 - squares.masked_fill(is_own, 0.0).mean()).clamp(min=0.0)


def train(model: Network, x: Tensor, y: Tensor, epochs: int, method: str) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = reweighter(method, len(y), y_train=y, optimizer=optimizer)
    chosen = ChosenRows(TensorDataset(x, y), y, k=int(y.bincount().min()), by="chance")
    for _ in range(epochs):
        chosen.choose(model)
        # The second training of OLTR draws rows of all classes equally often.
        chances = torch.ones(len(y)) if model.centroids is None else 1.0 / y.bincount()[y]
        for i in torch.multinomial(chances, len(y), replacement=model.centroids is not None).split(BATCH):
            loss = weights.weighted_loss(model, (x[i], y[i], i), chosen.batch(model) if weights.needs_validation else None)
            if model.centroids is not None:
                loss = loss + 0.01 * model.centroid_loss(x[i], y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def with_memory(model: Network, x: Tensor, y: Tensor) -> Network:
    """A copy with centroids, the means of the features of each class."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        v = model.features(x)
        model.centroids = nn.Parameter(torch.stack([v[y == c].mean(dim=0) for c in range(int(y.max()) + 1)]))
        model.memory.load_state_dict(model.linear.state_dict())
    return model


def accuracies(data: Labelled, seed: int, factor: float, epochs: int) -> np.ndarray:
    """(4, 2): mean over the classes, and over those with fewer than 20 training rows, of each run."""
    torch.manual_seed(seed)
    test, rest = np.split(np.random.default_rng(seed).permutation(len(data.labels)), [N_TEST])
    kept = rest[long_tail(data.labels[rest], factor, random_state=seed).rows]
    x, y, x_test, y_test = map(torch.as_tensor, (data.inputs[kept], data.labels[kept], data.inputs[test], data.labels[test]))
    is_small, found = y.bincount() < 20, []
    start = Network(tuple(x.shape[1:]), len(data.class_names))
    for method in ("uniform", "cmw_net"):
        for is_oltr in (False, True):
            model = copy.deepcopy(start)
            # Equal numbers of epochs: those of OLTR are shared between its two trainings.
            train(model, x, y, epochs // (1 + is_oltr), "uniform" if is_oltr else method)
            if is_oltr:
                model = with_memory(model, x, y)
                train(model, x, y, epochs - epochs // 2, method)
            with torch.no_grad():
                is_right = (model(x_test).argmax(dim=1) == y_test).float()
            of_classes = torch.stack([is_right[y_test == c].mean() for c in range(len(data.class_names))])
            found.append([float(of_classes.mean()), float(of_classes[is_small].mean())])
    return np.array(found)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits or any other images of load_labelled")
    parser.add_argument("--factor", type=float, default=50.0, help="size of the largest class over that of the smallest")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args(arguments)
    data = load_labelled(options.data)
    runs = np.array([accuracies(data, seed, options.factor, options.epochs) for seed in range(options.seeds)])
    mean, deviation = runs.mean(axis=0), runs.std(axis=0, ddof=min(1, options.seeds - 1))
    print(f"{'':18s}all classes      classes under 20 rows")
    for name, means, deviations in zip(("plain training", "OLTR", "CMW-Net", "OLTR, CMW-Net"), mean, deviation, strict=True):
        print(f"{name:18s}{means[0]:.3f} ± {deviations[0]:.3f}    {means[1]:.3f} ± {deviations[1]:.3f}", flush=True)


if __name__ == "__main__":
    main()
