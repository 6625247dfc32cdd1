"""A network whose probabilities are means over its training, before it has learned wrong labels by heart."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MeanNetwork"]

_STEPS = 1000  # the fewest steps of a training


class MeanNetwork(ClassifierMixin, BaseEstimator):
    """Train a network with AdamW under a one-cycle rate; predict_proba is the mean over the last two thirds of its epochs.

    factory(shape, n_classes) gives an nn.Module for rows of that shape, None a perceptron with two hidden layers.
    """

    def __init__(self, factory: Any = None, epochs: int = 30, batch_size: int = 128, rate: float = 2e-3, random_state: int = 0):
        self.factory = factory
        self.epochs = epochs
        self.batch_size = batch_size
        self.rate = rate
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> MeanNetwork:
        """Learn from rows X (n, ...) with labels y (n,)."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        x = np.asarray(X, dtype=np.float32)
        self.mean_ = x.mean(axis=0)
        self.spread_ = np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state)
            self._train(self._scaled(x), torch.as_tensor(codes))
        return self

    def _train(self, x: Tensor, y: Tensor) -> None:
        model = (self.factory or _perceptron)(tuple(x.shape[1:]), len(self.classes_))
        if not isinstance(model, nn.Module):
            raise ValueError(f"model must be a function (shape, n_classes) -> nn.Module; it gave {type(model).__name__}.")
        per_epoch = -(-len(x) // self.batch_size)
        epochs = max(self.epochs, -(-_STEPS // per_epoch))
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.rate, total_steps=epochs * per_epoch)
        self.states_: list[dict[str, Tensor]] = []
        for epoch in range(epochs):
            for i in torch.randperm(len(x)).split(self.batch_size):
                loss = functional.cross_entropy(model(x[i]), y[i])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            # Ten states of the last two thirds stand for all of them.
            if epoch >= epochs // 3 and (epochs - 1 - epoch) % max(1, epochs // 15) == 0:
                self.states_.append({name: value.clone() for name, value in model.state_dict().items()})
        self.model_ = model

    @torch.no_grad()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Mean probabilities (n, K)."""
        x, total = self._scaled(np.asarray(X, dtype=np.float32)), np.zeros((len(X), len(self.classes_)))
        self.model_.eval()
        for state in self.states_:
            self.model_.load_state_dict(state)
            total += torch.cat([torch.softmax(self.model_(block), dim=1) for block in x.split(2048)]).numpy()
        return total / len(self.states_)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _scaled(self, x: np.ndarray) -> Tensor:
        return torch.as_tensor((x - self.mean_) / self.spread_)


def _perceptron(shape: tuple[int, ...], n_classes: int) -> nn.Module:
    width = int(np.prod(shape))
    layers = (nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, n_classes))
    return nn.Sequential(nn.Flatten(), *layers)
