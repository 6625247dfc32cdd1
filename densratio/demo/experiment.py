"""Training under label noise with each method on the same data, seeds and budget."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from .._arrays import to_device
from .._names import did_you_mean
from .._validation import check_count
from ..datasets import ASYMMETRIC, Labelled, label_noise, transition_matrix
from ..labels.epochs import one_thread, seeded
from ..labels.networks import small_network
from ..training.loop.reweighter import Reweighter
from ..training.loop.row_losses import RowLosses
from ..training.meta import WeightNetwork
from ..training.registry import METHODS, TRAIN_TWICE, reweighter
from ..training.rules import irreducible_losses, margins
from .peak_memory import peak_memory

__all__ = ["NoiseExperiment", "Run", "Split", "endless_batches", "run_method", "split_rows", "summarize", "weighting_curves"]


_SHORT = 256  # numbers of a row up to which a step is short


@dataclass(frozen=True)
class NoiseExperiment:
    """Everything that a result depends on. noise: "kind:rate". n_val clean validation rows, n_test test rows, the rest is noisy."""

    data: str = "digits"
    noise: str = "symmetric:0.5"
    methods: tuple[str, ...] = field(default_factory=lambda: tuple(METHODS))
    epochs: int = 80
    seeds: int = 3
    n_val: int = 100
    n_test: int = 500
    batch_size: int = 128
    learning_rate: float = 1e-3
    device: str = "cpu"

    def __post_init__(self) -> None:
        transition_matrix(*self.parsed_noise(), 2, {})
        unknown = [m for m in self.methods if m not in METHODS]
        if unknown or not self.methods:
            hint = did_you_mean(unknown[0], METHODS) if unknown else ""
            raise ValueError(f"Methods {unknown} are not known; use some of {list(METHODS)}.{hint}")
        to_device(np.zeros(1, dtype=np.float32), self.device)
        for name in ("epochs", "seeds", "n_val", "n_test", "batch_size"):
            check_count(name, getattr(self, name))
        twice = [m for m in self.methods if m in TRAIN_TWICE]
        if twice and self.epochs < 2:
            raise ValueError(f"{twice} train twice: epochs must be >= 2; got {self.epochs}.")

    def parsed_noise(self) -> tuple[str, float]:
        """(kind, rate) of the noise. Raises ValueError where the text is not kind:rate."""
        kind, _, rate = self.noise.partition(":")
        try:
            return kind, float(rate)
        except ValueError:
            raise ValueError(f"The noise must be kind:rate, such as symmetric:0.5; got {self.noise!r}.") from None


@dataclass
class Run:
    """One method with one seed: test accuracy after each epoch, final weights (n,), flipped rows (n,) bool.

    n: the training rows; for a train-twice method without those that it held out. peak_memory: bytes that a batch takes at its peak
    above the memory in use before it, None if unknown. model, reweighter: as trained.
    """

    method: str
    seed: int
    accuracy: list[float]
    weights: np.ndarray
    is_flipped: np.ndarray
    seconds_per_epoch: float
    peak_memory: int | None
    model: nn.Module
    reweighter: Reweighter


@dataclass(frozen=True)
class Split:
    """Rows and labels of one run: noisy ones to train on, clean ones to validate and to test on."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor
    is_flipped: np.ndarray
    n_classes: int

    def held_out(self, train: np.ndarray, val: np.ndarray) -> Split:
        """The same with training rows `val` in place of the validation rows."""
        x, y = self.x, self.y
        return replace(self, x=x[train], y=y[train], x_val=x[val], y_val=y[val], is_flipped=self.is_flipped[train])


def run_method(
    method: str, seed: int, data: Labelled, config: NoiseExperiment, on_epoch: Callable[[float], None] = lambda accuracy: None
) -> Run:
    """Train one network with one method. on_epoch(test accuracy) is called after each epoch.

    A train-twice method spends half of the epochs on plain training, whose margins determine the held-out rows, and the other half
    on training again.
    """
    split = split_rows(data, config, seed)
    with one_thread(split.x[0].numel() <= _SHORT):
        return _run(method, seed, split, config, on_epoch)


def _run(method: str, seed: int, split: Split, config: NoiseExperiment, on_epoch: Callable[[float], None]) -> Run:
    if method not in TRAIN_TWICE:
        return _train(method, seed, split, config, config.epochs, on_epoch)
    first = _train("uniform", seed, split, config, config.epochs // 2, on_epoch)
    own = TRAIN_TWICE[method].split(_margins(first.model, split), seed=seed)
    second = _train(method, seed, split.held_out(own.train, own.val), config, config.epochs - len(first.accuracy), on_epoch)
    return replace(second, accuracy=first.accuracy + second.accuracy)


def _train(method: str, seed: int, split: Split, config: NoiseExperiment, epochs: int, on_epoch: Callable[[float], None]) -> Run:
    model, reweighter, optimizer = _made(method, seed, split, config, epochs)
    order = torch.Generator().manual_seed(seed)
    val_batches = endless_batches(len(split.x_val), config.batch_size, torch.Generator().manual_seed(seed))

    def step(i: Tensor) -> None:
        j = next(val_batches) if reweighter.needs_validation else None
        val = None if j is None else (split.x_val[j], split.y_val[j], j)
        loss = reweighter.weighted_loss(model, (split.x[i], split.y[i], i), val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    accuracy, seconds = [], []
    for _ in range(epochs):
        batches = torch.randperm(len(split.x), generator=order).split(config.batch_size)
        start = time.perf_counter()
        model.train()
        for i in batches:
            step(i)
        if config.device.startswith("cuda"):
            torch.cuda.synchronize(config.device)
        seconds.append(time.perf_counter() - start)
        accuracy.append(_accuracy(model, split.x_test, split.y_test))
        on_epoch(accuracy[-1])
    weights = reweighter.weights_.cpu().numpy().copy()
    first = torch.arange(min(config.batch_size, len(split.x)))
    peak = _peak_of_batch(model, reweighter, lambda: step(first), config.device)
    return Run(method, seed, accuracy, weights, split.is_flipped, float(np.median(seconds)), peak, model, reweighter)


def _made(
    method: str, seed: int, split: Split, config: NoiseExperiment, epochs: int
) -> tuple[nn.Module, Reweighter, torch.optim.Optimizer]:
    """Model, reweighter and optimizer, drawn by the seed alone."""
    with seeded(torch.device(config.device), seed):
        model = small_network(tuple(split.x.shape[1:]), split.n_classes).to(config.device)
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        made = reweighter(
            method, len(split.x), len(split.x_val), y_train=split.y, n_classes=split.n_classes, model=model, optimizer=optimizer,
            epochs=epochs, irreducible=lambda: _irreducible(seed, split, config, epochs),
            first=lambda: _margins(_train("uniform", seed, split, config, max(1, epochs // 4), _ignore).model, split), seed=seed,
        )  # fmt: skip
        return model, made.to(config.device), optimizer


def _peak_of_batch(model: nn.Module, reweighter: Reweighter, step: Callable[[], None], device: str) -> int | None:
    """Peak memory of a batch; model and reweighter are restored afterwards."""
    trained = copy.deepcopy((model.state_dict(), reweighter.state_dict()))
    model.train()
    # One of the batches from one meta-gradient to the next has the peak.
    peaks = [peak_memory(step, torch.device(device)) for _ in range(getattr(reweighter, "every", 1))]
    model.load_state_dict(trained[0])
    reweighter.load_state_dict(trained[1])
    return max((size for size in peaks if size is not None), default=None)


def summarize(runs: list[Run]) -> dict[str, float | None]:
    """Means over the seeds of one method's runs, as results.json holds them.

    accuracy_mean, accuracy_std: of the mean test accuracy of the last ten epochs, the latter None with one seed. weight_clean,
    weight_flipped: mean final weights. auroc: of the weight as a score of clean rows, None if there is only one kind.
    seconds_per_epoch: median. peak_memory: most bytes that a batch takes above the memory in use before it.
    """
    last = [float(np.mean(run.accuracy[-10:])) for run in runs]
    has_both = all(0 < run.is_flipped.sum() < len(run.is_flipped) for run in runs)
    weights, is_flipped = (np.concatenate([getattr(run, name) for run in runs]) for name in ("weights", "is_flipped"))
    return {
        "accuracy_mean": float(np.mean(last)),
        "accuracy_std": float(np.std(last, ddof=1)) if len(last) > 1 else None,
        "weight_clean": _mean(weights[~is_flipped]),
        "weight_flipped": _mean(weights[is_flipped]),
        "auroc": float(np.mean([roc_auc_score(~run.is_flipped, run.weights) for run in runs])) if has_both else None,
        "seconds_per_epoch": float(np.median([run.seconds_per_epoch for run in runs])),
        "peak_memory": max((run.peak_memory for run in runs if run.peak_memory is not None), default=None),
    }


def weighting_curves(runs: Mapping[str, Run]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Losses (200,) up to the largest usual one, and the weights (K, 200) that each learned network of a loss gives them."""
    networks, tops = {}, [1.0]
    for name, run in runs.items():
        network, row_losses = getattr(run.reweighter, "network", None), getattr(run.reweighter, "row_losses", None)
        if isinstance(network, WeightNetwork) and isinstance(row_losses, RowLosses):
            networks[name] = network
            tops.append(float(np.nanquantile(row_losses.means().cpu().numpy(), 0.99)))
    losses = torch.linspace(0.0, max(tops), 200)
    return losses.numpy(), {name: network.curves(losses).cpu().numpy() for name, network in networks.items()}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def split_rows(data: Labelled, config: NoiseExperiment, seed: int) -> Split:
    """Validation rows stay clean; the test rows are the data's own test set where it has one."""
    n_held_out = config.n_val + (0 if data.test else config.n_test)
    if n_held_out >= len(data.labels):
        raise ValueError(f"n_val and n_test take {n_held_out} rows and the data has {len(data.labels)}: none is left to train on.")
    rows = np.random.default_rng(seed).permutation(len(data.labels))
    val, test, train = np.split(rows, [config.n_val, n_held_out])
    kind, rate = config.parsed_noise()
    name = config.data.partition(":")[0]
    n_classes = len(data.class_names)
    noisy = label_noise(data.labels[train], kind, rate, n_classes=n_classes, mapping=ASYMMETRIC.get(name), random_state=seed)
    held_out = data.test if data.test else (data.inputs[test], data.labels[test])
    arrays = (data.inputs[train], noisy.labels, data.inputs[val], data.labels[val], *held_out)
    x, y, x_val, y_val, x_test, y_test = (torch.as_tensor(a, device=config.device) for a in arrays)
    return Split(x, y, x_val, y_val, x_test, y_test, noisy.is_flipped, n_classes)


def endless_batches(n: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row numbers of batches without end, each pass over n rows in a new order."""
    while True:
        yield from torch.randperm(n, generator=generator).split(size)


def _irreducible(seed: int, split: Split, config: NoiseExperiment, epochs: int) -> Tensor:
    """Losses (n_train,) of the training rows under a network that learned from the validation rows alone, in fewer epochs."""
    model = _train("val_only", seed, split, config, max(1, epochs // 4), _ignore).model
    return irreducible_losses(model, _blocks(split.x, split.y))


def _ignore(accuracy: float) -> None:
    """on_epoch of a training that is not a run of its own."""


@torch.no_grad()
def _margins(model: nn.Module, split: Split) -> np.ndarray:
    """Margins (n_train,) of the training rows under a trained model."""
    model.eval()
    return torch.cat([margins(model(x), y) for x, y in _blocks(split.x, split.y)]).cpu().numpy()


@torch.no_grad()
def _accuracy(model: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    return sum(int((model(a).argmax(dim=1) == b).sum()) for a, b in _blocks(x, y)) / len(y)


def _blocks(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(2048), y.split(2048), strict=True)
