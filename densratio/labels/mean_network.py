"""A network whose probabilities are means over its training, before it has memorized wrong labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor
from torch.nn import functional

from .._arrays import usable_device
from .._scale import Scale
from ..training.loop.model import device_of_model
from .epochs import drawn_order, one_epoch, one_thread, seeded
from .image_network import moved
from .networks import LINEAR_REACH, is_linear, made_network, small_network

__all__ = ["MeanNetwork"]

_STEPS = 300  # the fewest steps of a training
_AT_ONCE = 256  # rows per prediction: 2048 images of 60 x 60 pixels took 1.2 GB in the convolutions, and as much time


class MeanNetwork(ClassifierMixin, BaseEstimator):
    """Train a network with AdamW and a one-cycle learning rate; predict_proba is the mean over the last share of its epochs.

    factory(n_features or shape, n_classes) returns an nn.Module; None: `small_network`. one_unit: whether all columns share one
    scale, as pixels and embeddings do, or each has its own; images always share one. moves: "no", "shifts", or "flips", see
    `moved`. device: where the network is trained and predicts, such as "cuda", which the rows must fit in; it starts from the same
    numbers everywhere and meets the same batches, and the states of its epochs are kept on the host.
    Raises ValueError for a device that is unknown or absent.
    """

    def __init__(
        self,
        factory: Any = None,
        one_unit: bool = False,
        epochs: int = 30,
        batch_size: int = 128,
        rate: float = 2e-3,
        share: float = 2 / 3,
        moves: str = "no",
        random_state: int = 0,
        device: str = "cpu",
    ):
        self.factory = factory
        self.one_unit = one_unit
        self.epochs = epochs
        self.batch_size = batch_size
        self.rate = rate
        self.share = share
        self.moves = moves
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> MeanNetwork:
        """Learn from rows X (n, ...) with labels y (n,)."""
        device = usable_device(self.device)
        self.classes_, codes = np.unique(y, return_inverse=True)
        x = np.asarray(X, dtype=np.float32)
        # In a column that is mostly one value rare values stay small; division by its standard deviation would enlarge them.
        self.scale_ = _one_scale(x) if self.one_unit or x.ndim != 2 else Scale.of((x, None))
        with seeded(device, self.random_state), one_thread(self.factory is None and x.ndim == 2):
            self._train(self._scaled(x, device), torch.as_tensor(codes, device=device))
        return self

    def _train(self, x: Tensor, y: Tensor) -> None:
        shape, n_classes = tuple(x.shape[1:]), len(self.classes_)
        model = small_network(shape, n_classes) if self.factory is None else made_network(self.factory, x, n_classes)
        model.to(x.device)
        per_epoch = -(-len(x) // self.batch_size)
        epochs = max(self.epochs, -(-_STEPS // per_epoch))
        n_steps = epochs * per_epoch
        # Few steps at the rate of a deep network would leave a linear one near its start; the mean rate is half of the highest.
        rate = max(self.rate, 2.0 * LINEAR_REACH / n_steps) if is_linear(model) else self.rate
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=n_steps)
        self.states_: list[dict[str, Tensor]] = []

        def loss(i: Tensor) -> Tensor:
            return functional.cross_entropy(model(moved(x[i], self.moves)), y[i])

        for epoch in range(epochs):
            one_epoch(drawn_order(len(x), x.device), self.batch_size, loss, optimizer, schedule)
            # About ten states of the last two thirds represent all.
            if epoch >= int((1 - self.share) * epochs) and (epochs - 1 - epoch) % max(1, epochs // 15) == 0:
                self.states_.append({name: value.to("cpu", copy=True) for name, value in model.state_dict().items()})
        self.model_ = model

    @torch.no_grad()
    def predict_proba(self, X: Any) -> np.ndarray:
        """Mean probabilities (n, K)."""
        x = self._scaled(np.asarray(X, dtype=np.float32), device_of_model(self.model_))
        total = np.zeros((len(X), len(self.classes_)))
        self.model_.eval()
        for state in self.states_:
            self.model_.load_state_dict(state)
            total += torch.cat([torch.softmax(self.model_(block), dim=1) for block in x.split(_AT_ONCE)]).cpu().numpy()
        return total / len(self.states_)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class (n,)."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]

    def _scaled(self, x: np.ndarray, device: torch.device) -> Tensor:
        return torch.as_tensor(self.scale_(x), device=device)


def _one_scale(rows: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Scale all numbers by their common mean and standard deviation."""
    middle, spread = rows.mean(), rows.std() or 1.0
    return lambda x: (x - middle) / spread
