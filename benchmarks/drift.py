"""A target that drifts: which of two annotators' labels count changes during training, and a stream of validation rows tells.

A part of the training rows has the labels of a second annotator, who exchanges the classes of each pair (0 and 1, 2 and 3, ...).
The target has the second annotator's labels with a probability that rises in a straight line from 0 to 1 over the middle
half of the training, or never. In each step a few validation rows arrive, with labels of that moment, and are never seen
again. The accuracy of an epoch is the one on test rows with labels of that moment.

    python benchmarks/drift.py --data letters:/path/letterdata.csv
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from runner import Row, environment, limit_threads, write
from torch import Tensor, nn

from densratio.datasets import load_labelled
from densratio.labels.networks import small_network
from densratio.training import DynamicReweighter, Uniform

N_VAL, N_TEST, BATCH, ARRIVING = 1000, 4000, 128, 8
SECOND = 0.35  # of the training rows have the labels of the second annotator


Maker = Callable[[int, int], nn.Module]


def adiw(forget: float, val_refresh: int | None) -> Maker:
    """The Wasserstein method on losses, which does best on letters with wrong labels; of n_train rows and n_val arrivals."""
    return lambda n, m: DynamicReweighter("wasserstein", n, m, forget=forget, val_refresh=val_refresh)


METHODS: dict[str, Maker] = {"Uniform": lambda n, m: Uniform(n), "rows of the step alone": adiw(0.0, None)} | {
    f"all rows so far, forget={forget:g}": adiw(forget, ARRIVING) for forget in (0.0, 0.001, 0.01, 0.1)
}


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits or letters:FILE")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    limit_threads(1)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    sections = []
    for heading, drifts in (("Target that drifts", True), ("Target that stays", False)):
        rows = [judged(name, arguments.data, arguments.epochs, seeds, drifts) for name in METHODS]
        sections.append((heading, "Mean and standard deviation over the seeds of the accuracy, in %.", rows))
    write("drift", f"Drift of the target, {arguments.data.partition(':')[0]}", environment(seeds=seeds), sections)


def judged(name: str, data: str, epochs: int, seeds: list[int], drifts: bool) -> Row:
    """One method: mean accuracy while the target moves, and at the end."""
    curves = np.array([100.0 * accuracies(METHODS[name], data, epochs, seed, drifts) for seed in seeds])
    parts = {"over all epochs": slice(None), "while it moves": slice(epochs // 4, 3 * epochs // 4), "last five": slice(-5, None)}
    means = {part: curves[:, epochs_of].mean(axis=1) for part, epochs_of in parts.items()}
    print(name, drifts, {part: values.round(1).tolist() for part, values in means.items()}, flush=True)
    return {"method": name} | {part: f"{values.mean():.1f} ± {values.std(ddof=1):.1f}" for part, values in means.items()}


def accuracies(method: Maker, data: str, epochs: int, seed: int, drifts: bool) -> np.ndarray:
    """Accuracy after each epoch (epochs,) on test rows with the labels of that moment."""
    rows, random = load_labelled(data), np.random.default_rng(seed)
    n_test = min(N_TEST, len(rows.labels) // 4)
    order = random.permutation(len(rows.labels))
    test, val, train = np.split(order, [n_test, n_test + min(N_VAL, n_test)])
    x, y = (torch.as_tensor(part) for part in (rows.inputs, rows.labels))
    given = torch.where(torch.as_tensor(random.random(len(train)) < SECOND), exchanged(y[train]), y[train])
    torch.manual_seed(seed)
    model = small_network(tuple(x.shape[1:]), int(y.max()) + 1)
    found, step, n_steps = [], 0, epochs * -(-len(train) // BATCH)
    optimizer, reweighter = torch.optim.Adam(model.parameters(), lr=1e-3), method(len(train), n_steps * ARRIVING)
    for _ in range(epochs):
        for i in torch.randperm(len(train)).split(BATCH):
            j, arrival = val[torch.randint(len(val), (ARRIVING,))], step * ARRIVING + torch.arange(ARRIVING)
            y_val = seen_now(y[j], share(step / n_steps, drifts))
            loss = reweighter.weighted_loss(model, (x[train[i]], given[i], i), (x[j], y_val, arrival))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        now = share(step / n_steps, drifts)
        with torch.no_grad():
            guess = model(x[test]).argmax(dim=1)
        right = [float((guess == labels).double().mean()) for labels in (y[test], exchanged(y[test]))]
        found.append((1.0 - now) * right[0] + now * right[1])
    return np.array(found)


def share(moment: float, drifts: bool) -> float:
    """Of the second annotator's labels in the target, `moment` being the part of the training that is done."""
    return min(max(2.0 * moment - 0.5, 0.0), 1.0) if drifts else 0.0


def seen_now(y: Tensor, second: float) -> Tensor:
    """Labels, each the second annotator's with probability `second`."""
    return torch.where(torch.rand(len(y)) < second, exchanged(y), y)


def exchanged(y: Tensor) -> Tensor:
    """0 and 1, 2 and 3, ... in each other's place."""
    return y ^ 1


if __name__ == "__main__":
    main()
