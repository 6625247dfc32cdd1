"""Questions to learned reweighting: which rows to hold out, whether a learned weighting moves to other data, and shortcuts.

train twice: a network weighs the rows by their features and learns on a tenth of the clean training rows, those of the lowest, of
random, or of the highest margin; one half of the epochs goes into the training that gives the margins. transfer: CMW-Net learns on
the first half of the classes under label noise; on the other half, noisy too, its network is used frozen, without validation rows.
shortcut: a mark agrees with the class, even or odd, in 90 % of the training rows and in 10 % of the test rows; StableNet, and
just train twice after a first training of a tenth of the epochs, are to rely on it less than plain training.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from runner import RESULTS, Row, environment, limit_threads, write

from densratio.datasets import Labelled, label_noise, load_labelled
from densratio.demo.experiment import NoiseExperiment, run_method
from densratio.labels.networks import small_network
from densratio.training import JustTrainTwice, Reweighter, StableNet, Uniform, margins
from densratio.training.meta import CMWNet

TWICE = ("uniform", "lrw_hard", "lrw_random", "lrw_easy")
LAST = 10  # epochs whose mean is a run's accuracy
N_VAL, N_TEST, BATCH = 500, 2000, 128
HIDDEN = 256  # inputs of the last layer of small_network


def main() -> None:
    """Run both and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="letters:FILE")
    parser.add_argument("--noise", default="symmetric:0.4", help="of transfer")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parts", nargs="+", choices=["twice", "transfer", "shortcut"], default=["twice", "transfer"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    data = load_labelled(arguments.data)
    limit_threads(arguments.threads)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    name = arguments.data.partition(":")[0]
    about = f"{name}, {arguments.epochs} epochs in all, seeds {seeds[0]} to {seeds[-1]}; accuracy of the last {LAST} epochs."
    facts = environment(seeds=seeds)
    if "twice" in arguments.parts:
        rows = train_twice(data, name, arguments.epochs, list(seeds))
        write(str(RESULTS / f"train_twice_{name}"), "Train twice, clean labels", facts, [("Splits", about, rows)])
    if "transfer" in arguments.parts:
        rows = transfer(data, arguments.noise, arguments.epochs, list(seeds))
        write(
            str(RESULTS / f"transfer_{name}"),
            f"Transfer, {arguments.noise}",
            facts,
            [("Other classes", about, rows)],
        )
    if "shortcut" in arguments.parts:
        rows = shortcut(data, arguments.epochs, list(seeds))
        write(str(RESULTS / f"shortcut_{name}"), "A shortcut that turns around", facts, [("Even or odd", about, rows)])


def train_twice(data: Labelled, name: str, epochs: int, seeds: list[int]) -> list[Row]:
    """Rows for plain training and the three splits."""
    config = NoiseExperiment(name, "symmetric:0.0", TWICE, epochs, len(seeds), n_val=1, n_test=4000, batch_size=BATCH)
    runs = {method: [run_method(method, seed, data, config) for seed in seeds] for method in TWICE}
    return [row(method, [last(run.accuracy) for run in of_method]) for method, of_method in runs.items()]


def transfer(data: Labelled, noise: str, epochs: int, seeds: list[int]) -> list[Row]:
    """Rows for plain training on the second half of the classes, and for the network that was learned on the first half."""
    scores: dict[str, list[float]] = {"uniform": [], "CMW-Net, learned on other classes, frozen": [], "CMW-Net, learned here": []}
    half = len(data.class_names) // 2
    for seed in seeds:
        first, second = (part_of(data, classes, noise, seed) for classes in (range(half), range(half, 2 * half)))
        _, teacher, _ = fit(first, seed, epochs, lambda n, y, optimizer: CMWNet(n, y, optimizer=optimizer))
        makers: list[Callable[..., Reweighter]] = [
            lambda n, y, optimizer: Uniform(n),
            lambda n, y, optimizer, teacher=teacher: teacher.transfer(n, y),
            lambda n, y, optimizer: CMWNet(n, y, optimizer=optimizer),
        ]
        for of_method, make in zip(scores.values(), makers, strict=True):
            of_method.append(fit(second, seed, epochs, make)[0])
    return above_uniform(scores)


def shortcut(data: Labelled, epochs: int, seeds: list[int]) -> list[Row]:
    """Rows for plain training and two methods, tested on rows whose mark agrees with the class in 10 % of them."""
    makers: dict[str, Callable[..., Reweighter]] = {
        "uniform": lambda n, first: Uniform(n),
        "StableNet": lambda n, first: StableNet(n, HIDDEN),
        "JustTrainTwice": lambda n, first: JustTrainTwice(n, first),
        "JustTrainTwice(upweight=20)": lambda n, first: JustTrainTwice(n, first, upweight=20.0),
    }
    scores: dict[str, list[float]] = {name: [] for name in makers}
    for seed in seeds:
        random = np.random.default_rng(seed)
        order = random.permutation(len(data.labels))
        test, train = (marked(data, rows, share, random) for rows, share in ((order[:600], 0.1), (order[600:], 0.9)))
        part = train, train, test
        short = fit(part, seed, max(1, epochs // 10), lambda n, y, optimizer: Uniform(n))[2]
        with torch.no_grad():
            first = margins(short(train[0]), train[1])
        for name, make in makers.items():
            scores[name].append(fit(part, seed, epochs, lambda n, y, optimizer, make=make, first=first: make(n, first))[0])
    return above_uniform(scores)


def marked(data: Labelled, rows: np.ndarray, share: float, random: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy inputs (n, d + 2) with a mark of two columns, which agrees with y, odd or even, in this share of the rows."""
    y = data.labels[rows] % 2
    mark = np.where(random.random(len(rows)) < share, y, 1 - y)
    x = np.asarray(data.inputs[rows], dtype=np.float64).reshape(len(rows), -1)
    x = np.hstack([x + random.normal(0.0, 0.25, x.shape), np.eye(2)[mark]])
    return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y)


def above_uniform(scores: dict[str, list[float]]) -> list[Row]:
    """A row for each method, with the seeds in which it is above plain training."""
    return [
        {**row(name, values), "seeds above uniform": sum(a > b for a, b in zip(values, scores["uniform"], strict=True))}
        for name, values in scores.items()
    ]


Part = tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def part_of(data: Labelled, classes: range, noise: str, seed: int) -> Part:
    """Training rows with noisy labels, clean validation rows and test rows of some classes, numbered from 0."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(np.isin(data.labels, list(classes))))
    labels = (data.labels[rows] - classes[0]).astype(np.int64)
    kind, _, rate = noise.partition(":")
    n_held_out = N_VAL + N_TEST
    labels[n_held_out:] = label_noise(labels[n_held_out:], kind, float(rate), n_classes=len(classes), random_state=seed).labels
    x, y = torch.as_tensor(data.inputs[rows]), torch.as_tensor(labels)
    return (x[n_held_out:], y[n_held_out:]), (x[:N_VAL], y[:N_VAL]), (x[N_VAL:n_held_out], y[N_VAL:n_held_out])


def fit(part: Part, seed: int, epochs: int, make: Callable[..., Reweighter]) -> tuple[float, Reweighter, torch.nn.Module]:
    """Accuracy of the last epochs, the reweighter and the model."""
    (x, y), (x_val, y_val), (x_test, y_test) = part
    torch.manual_seed(seed)
    model = small_network(tuple(x.shape[1:]), int(y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    reweighter = make(len(x), y, optimizer)
    draws, accuracy = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        for i in torch.randperm(len(x), generator=draws).split(BATCH):
            j = torch.randint(len(x_val), (BATCH,), generator=draws)
            loss = reweighter.weighted_loss(model, (x[i], y[i], i), (x_val[j], y_val[j], j))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy.append(float((model(x_test).argmax(dim=1) == y_test).float().mean()))
    return last(accuracy), reweighter, model


def last(accuracy: list[float]) -> float:
    """Mean of the last epochs, in per cent."""
    return 100.0 * statistics.mean(accuracy[-LAST:])


def row(method: str, scores: list[float]) -> Row:
    """Mean and deviation over the seeds."""
    deviation = statistics.stdev(scores) if len(scores) > 1 else None
    return {"method": method, "accuracy, %": f"{statistics.mean(scores):.2f}", "deviation": deviation, "seeds": len(scores)}


if __name__ == "__main__":
    main()
