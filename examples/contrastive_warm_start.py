"""Contrast to divide: contrastive pretraining without labels, then a method for wrong labels.

    python examples/contrastive_warm_start.py [--methods uniform,cmw_net_sl] [--noise 0.6] [--seeds 3] [--pretraining 30]

The pretraining draws two random copies of each image, turned, scaled and moved. A copy z_i must find its partner z_j among all
other copies of the batch: with cosine similarities s and temperature T the loss (SimCLR's NT-Xent) is

    -log( exp(s_ij / T) / sum_{k != i} exp(s_ik / T) ).

No label is used, so wrong ones are not learned. A new last layer is then trained, and the whole network with it, by each method in
turn. The validation rows of CMW-Net-SL are the training rows of each class that an average of the network finds easiest, so no
known labels are needed.
Sources: Zheltonozhskii et al. (2022), Contrast to divide; Chen et al. (2020), SimCLR; Shu et al. (2023), CMW-Net.
"""

import argparse
import copy
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, normalize
from torch.utils.data import TensorDataset

from densratio.datasets import Labelled, label_noise, load_labelled
from densratio.labels.networks import small_network
from densratio.training import ChosenRows, reweighter
from densratio.training.registry import title_of

N_TEST, BATCH, TEMPERATURE = 500, 128, 0.5


def random_copies(x: Tensor) -> Tensor:
    """Images (n, c, h, w), each turned by up to 20 degrees, scaled by up to a fifth and moved by up to an eighth of its width."""
    angle, scale = (2 * torch.rand(2, len(x)) - 1) * torch.tensor([[math.pi / 9], [0.2]])
    cos, sin = (1 + scale) * angle.cos(), (1 + scale) * angle.sin()
    moved = (2 * torch.rand(2, len(x)) - 1) / 4  # in half widths
    theta = torch.stack([torch.stack([cos, -sin, moved[0]], dim=1), torch.stack([sin, cos, moved[1]], dim=1)], dim=1)
    return grid_sample(x, affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """The loss () of features (2n, d), of which row i and row n + i are copies of one image."""
    z, n = normalize(z, dim=1), len(z) // 2
    similarity = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return cross_entropy(similarity, torch.arange(2 * n).roll(n))


def pretrained(model: nn.Sequential, x: Tensor, epochs: int) -> nn.Sequential:
    """A copy whose layers but the last were trained by the contrastive loss; that one is drawn anew."""
    model = copy.deepcopy(model)
    width = model[-1].in_features
    encoder, head = model[:-1], nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    for _ in range(epochs):
        for i in torch.randperm(len(x)).split(BATCH):
            loss = nt_xent(head(encoder(torch.cat([random_copies(x[i]), random_copies(x[i])]))), TEMPERATURE)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model[-1].reset_parameters()
    return model


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int, method: str) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = reweighter(method, len(y), y_train=y, n_classes=int(y.max()) + 1, optimizer=optimizer, epochs=epochs)
    chosen = ChosenRows(TensorDataset(x, y), y)
    for _ in range(epochs):
        if weights.uses_validation:
            chosen.choose(model)
        for i in torch.randperm(len(y)).split(BATCH):
            val = chosen.batch(model) if weights.needs_validation else None
            loss = weights.weighted_loss(model, (x[i], y[i], i), val)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def accuracies(data: Labelled, methods: list[str], seed: int, noise: float, pretraining: int, epochs: int) -> list[float]:
    """Test accuracy of each method, from random layers and from pretrained ones in turn."""
    torch.manual_seed(seed)
    test, rows = np.split(np.random.default_rng(seed).permutation(len(data.labels)), [N_TEST])
    noisy = label_noise(data.labels[rows], "symmetric", noise, random_state=seed)
    x, y = torch.as_tensor(data.inputs[rows]), torch.as_tensor(noisy.labels)
    x_test, y_test = torch.as_tensor(data.inputs[test]), torch.as_tensor(data.labels[test])
    cold = small_network(tuple(x.shape[1:]), len(data.class_names))
    starts, found = (cold, pretrained(cold, x, pretraining)), []
    for method in methods:
        for start in starts:
            model = copy.deepcopy(start)
            train(model, x, y, epochs, method)
            with torch.no_grad():
                found.append(float((model(x_test).argmax(dim=1) == y_test).float().mean()))
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits or any other images of load_labelled")
    parser.add_argument("--methods", default="uniform,cmw_net_sl", help="names of methods with one network, without clean rows")
    parser.add_argument("--noise", type=float, default=0.6, help="share of wrong labels, of any other class")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pretraining", type=int, default=30, help="epochs without labels")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(arguments)
    data, methods = load_labelled(options.data), options.methods.split(",")
    runs = [accuracies(data, methods, seed, options.noise, options.pretraining, options.epochs) for seed in range(options.seeds)]
    mean, deviation = np.mean(runs, axis=0), np.std(runs, axis=0, ddof=min(1, options.seeds - 1))
    print(f"{'':12s}random start     contrastive start")
    for name, means, deviations in zip(methods, mean.reshape(-1, 2), deviation.reshape(-1, 2), strict=True):
        cells = (f"{m:.3f} ± {d:.3f}" for m, d in zip(means, deviations, strict=True))
        print(f"{title_of(name):12s}{'    '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
