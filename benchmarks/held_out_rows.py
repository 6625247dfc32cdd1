"""MOLERE with pretrained features and right labels: which tenth of the rows should teach the weight network?

A perceptron on embeddings of CIFAR-10, which `image_embeddings.py` makes. LRW-Hard, LRW-Random and LRW-Easy hold out a tenth by
the margins of a first training and train anew; LRW-Opt chooses its tenth during one training. Plain training has nine tenths of
the rows too: random ones, or those that LRW-Hard or LRW-Easy trains on. Each training has the same number of epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from runner import Row, environment, limit_threads, write
from torch import Tensor, nn

from densratio.datasets import load_labelled
from densratio.training import endless, reweighter
from densratio.training.registry import TRAIN_TWICE, title_of
from densratio.training.rules import margins

N_CLASSES, N_TEST, BATCH, HIDDEN, LAST = 10, 4000, 128, 128, 5


class Rows(NamedTuple):
    """Features (n, d) of unit spread, and labels (n,)."""

    x: Tensor
    y: Tensor

    def of(self, at: np.ndarray) -> Rows:
        return Rows(self.x[at], self.y[at])

    def batches(self, seed: int) -> list[Tensor]:
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(seed))
        return list(order.split(BATCH))


def trained(train: Rows, test: Rows, method: str, seed: int, epochs: int, val: Rows | None = None) -> tuple[float, nn.Module]:
    """Mean accuracy of the last five epochs in percent, and the model."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(train.x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, N_CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = reweighter(
        method, len(train.y), y_train=train.y, n_classes=N_CLASSES, model=model, optimizer=optimizer, epochs=epochs, seed=seed
    )
    val_batches = None if val is None else endless([(*val.of(at), at) for at in val.batches(seed)])
    found = []
    for epoch in range(epochs):
        for at in train.batches(1000 * seed + epoch):
            loss = weights.weighted_loss(model, (*train.of(at), at), None if val_batches is None else next(val_batches))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            found.append(100.0 * float((model(test.x).argmax(dim=1) == test.y).float().mean()))
    return float(np.mean(found[-LAST:])), model


def accuracies(all_rows: Rows, seed: int, epochs: int) -> dict[str, float]:
    """Accuracy of each method with one seed, which also draws the test rows."""
    test_at, train_at = np.split(np.random.default_rng(seed).permutation(len(all_rows.y)), [N_TEST])
    train, test = all_rows.of(train_at), all_rows.of(test_at)
    found = {}
    found["plain training, all rows"], first = trained(train, test, "uniform", seed, epochs)
    with torch.no_grad():
        first_margins = margins(first(train.x), train.y)
    for name, kind in TRAIN_TWICE.items():
        split = kind.split(first_margins, seed=seed)
        kept, held = train.of(split.train), train.of(split.val)
        found[title_of(name)] = trained(kept, test, name, seed, epochs, held)[0]
        found[f"plain training, rows of {title_of(name)}"] = trained(kept, test, "uniform", seed, epochs)[0]
    for name in ("lrw_opt", "lrw_opt_hard"):
        found[title_of(name)] = trained(train, test, name, seed, epochs)[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cifar10:FILE, the images of the embeddings")
    parser.add_argument("--embeddings", type=Path, default=Path(".benchdata/cifar10_embeddings.npy"))
    parser.add_argument("--rows", type=int, default=20_000, help="how many of the first images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    limit_threads(1)
    x = np.load(arguments.embeddings, mmap_mode="r")[: arguments.rows].astype(np.float32)
    labels = np.asarray(load_labelled(arguments.data).labels)[: len(x)].astype(np.int64)
    all_rows = Rows(torch.as_tensor((x - x.mean(axis=0)) / x.std(axis=0)), torch.as_tensor(labels))
    seeds = range(arguments.seeds)
    facts = environment(seeds=seeds)
    runs = [accuracies(all_rows, seed, arguments.epochs) for seed in seeds]
    table: list[Row] = []
    for name in runs[0]:
        of_seeds = np.array([run[name] for run in runs])
        beside = of_seeds - np.array([run[f"plain training, rows of {title_of('lrw_random')}"] for run in runs])
        row = {"method": name, "accuracy, %": of_seeds.mean(), "deviation": of_seeds.std(ddof=1)}
        table.append(row | {"above plain training on as many random rows": beside.mean(), "its deviation": beside.std(ddof=1)})
    note = f"{len(x)} images, {N_TEST} of them for the test, {arguments.epochs} epochs, mean of the last {LAST}; right labels."
    write("held_out_rows", "Rows held out for the weights, pretrained features", facts, [("Accuracy", note, table)])


if __name__ == "__main__":
    main()
