"""LRW: a network of a row's features gives its weight, learned on rows held out by difficulty: train once, split, train again."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Adam

from ..._arrays import to_host
from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..loop.validation_pass import evaluation
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, gradient_from
from .weight_network import FeatureNetwork, WeightOfInput, learned_weights

__all__ = ["HeldOut", "LRWEasy", "LRWHard", "LRWRandom", "TrainTwice", "features_of"]


class HeldOut(NamedTuple):
    """Ascending row numbers of a training set: the rows that are trained on, and the rows held out for validation."""

    train: np.ndarray
    val: np.ndarray


class TrainTwice(BatchReweighter):
    """w = g(features of x), of mean 1 in the batch, learned by the meta-gradient on the rows that `split` held out.

    The base of `LRWHard`, `LRWRandom` and `LRWEasy`, which hold out different rows.

    Train once; pass the margins of the trained model (`densratio.training.rules.margins`) to `split`; train again on the rows
    `train` of the split, with the rows `val` as the validation set.

    Parameters
    ----------
    n_train : int
        Rows that are trained on, after the split.
    n_features : int
        Columns of the features.
    backbone : nn.Module or None
        A frozen network that gives the features (n, d) of x. None: the input of the classifier's last nn.Linear, detached.
    network : nn.Module or None
        g as a network of the input, x -> (n,) or (n, 1) before the sigmoid, all of which is trained. None: a network of the
        features.
    hidden, learning_rate, weight_decay : of the weight network and its Adam.
    Other parameters as in `MWNet`.
    Source: Jain et al. (2024), Improving generalization via meta-learning on hard samples.
    """

    uses_validation: ClassVar[bool] = True
    normalize = True
    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer")

    def __init__(
        self,
        n_train: int,
        n_features: int,
        *,
        network: nn.Module | None = None,
        backbone: nn.Module | None = None,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every)
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, gradient=engine)
        self.network = WeightOfInput(network) if network is not None else FeatureNetwork(n_features, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
        self.backbone = backbone

    @classmethod
    def split(cls, margins: Any, share: float = 0.1, *, seed: int = 0) -> HeldOut:
        """Hold out a share in (0, 1) of the rows by their margins (n,); each side gets a row or more. seed: of the random split."""
        values = np.asarray(to_host(margins), dtype=np.float64)
        if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
            raise ValueError(f"margins must be (n,) finite numbers, n >= 2; got shape {values.shape}.")
        check_number("share", share, "(0, 1)")
        n_val = min(max(1, round(share * len(values))), len(values) - 1)
        order = cls._order(values, np.random.default_rng(seed))
        return HeldOut(np.sort(order[n_val:]), np.sort(order[:n_val]))

    @staticmethod
    @abstractmethod
    def _order(margins: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Row numbers (n,), those to hold out first."""

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        entry = features_of(batch, self.backbone) if isinstance(self.network, FeatureNetwork) else batch.x
        return learned_weights(
            self, lambda: rows.mean_one(self.network(entry)), lambda weights: self.meta.of(batch, weights, val), rows
        )


class LRWHard(TrainTwice):
    """`TrainTwice` that holds out the rows of the lowest margin."""

    @staticmethod
    def _order(margins: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.argsort(margins, kind="stable")


class LRWEasy(TrainTwice):
    """`TrainTwice` that holds out the rows of the highest margin."""

    @staticmethod
    def _order(margins: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return np.argsort(-margins, kind="stable")


class LRWRandom(TrainTwice):
    """`TrainTwice` that holds out rows drawn at random."""

    @staticmethod
    def _order(margins: np.ndarray, random: np.random.Generator) -> np.ndarray:
        return random.permutation(len(margins))


def features_of(batch: TrainingPass, backbone: nn.Module | None) -> Tensor:
    """Features (n, d) of a batch, detached: of a frozen backbone, or the input of the classifier's last linear layer."""
    if backbone is not None:
        if "features" not in batch.found:
            with torch.no_grad(), evaluation(backbone):
                batch.found["features"] = backbone(batch.x).flatten(1)
        return batch.found["features"]
    if batch.entry is None or batch.entry.ndim != 2:
        raise ValueError("The classifier has no final nn.Linear whose input (n, d) could be the features: give backbone=.")
    return batch.entry.detach()
