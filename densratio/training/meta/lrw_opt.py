"""LRWOpt: a splitter chooses which training rows validate, and a weight network learns on what it chose."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..loop.losses import Loss, cross_entropy
from ..loop.ranks import mean_one, n_ranks, of_all_ranks
from ..loop.training_pass import BatchPass
from .base import NetworkReweighter
from .gradient import Predict
from .lrw import FeatureNetwork, features_of

__all__ = ["LRWOpt"]

_LEAST = 1e-12  # below which a mass counts as this, in quotients and logarithms


class LRWOpt(NetworkReweighter):
    """The classifier trains on (1 - q_i) g(x_i), scaled to mean 1; g learns on the validation loss sum_i q_i l_i / sum_i q_i.

    q_i = P(validation | x_i, y_i) of the splitter, which wants easy rows, those that the classifier gets right, to be trained on,
    and the validation loss to be large. Every `every` batches the weight network g takes a step by the meta-gradient and the
    splitter one on

        cross entropy(1 - q, is right) - sum_i q_i l_i / sum_i q_i + KL(mean q | share) + KL of each side's classes to all classes

    with the two KL terms in each `regularize_every`-th of these. No validation rows are needed: val may be None.

    Parameters
    ----------
    n_train, n_classes : int
        Rows of the training set and its classes.
    n_features : int
        Columns of the features that both networks see.
    share : float in (0, 1)
        delta, the part of the rows that is to validate.
    backbone : nn.Module or None
        A frozen network that gives the features (n, d) of x. None: what the classifier's last nn.Linear takes in, detached.
    every : int
        Q, classifier steps for each outer step.
    warmup_epochs : float
        First passes with a random split of this share in the place of the splitter's.
    hidden, learning_rate, weight_decay : of both networks and of Adam on each. seed : of the random split.
    Other parameters as in `MetaReweighter`; mode "exact" or "first_order".

    split_ : (n_train,) the last q of each row.
    Source: Jain et al. (2024), Improving generalization via meta-learning on hard samples.
    """

    split_: Tensor
    network: FeatureNetwork

    def __init__(
        self,
        n_train: int,
        n_features: int,
        n_classes: int,
        *,
        share: float = 0.1,
        backbone: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str = "exact",
        product: str = "auto",
        every: int = 5,
        regularize_every: int = 1,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 25.0,
        seed: int = 0,
        loss: Loss = cross_entropy,
    ):
        if mode == "last_layer":
            raise ValueError('LRWOpt validates on shares of rows: use mode="exact" or mode="first_order".')
        if not 0.0 < share < 1.0 or regularize_every < 1:
            raise ValueError(f"share must be in (0, 1) and regularize_every >= 1; got {share!r} and {regularize_every!r}.")
        if not warmup_epochs >= 0 or n_classes < 2:
            raise ValueError(f"warmup_epochs must be >= 0 and n_classes >= 2; got {warmup_epochs!r} and {n_classes!r}.")
        super().__init__(n_train, optimizer=optimizer, mode=mode, product=product, every=every, loss=loss)
        self.learn_with(FeatureNetwork(n_features, hidden), learning_rate, weight_decay)
        self.share, self.n_classes, self.backbone = share, n_classes, backbone
        self.regularize_every = regularize_every
        self.splitter_warmup = warmup_epochs
        self.splitter = FeatureNetwork(n_features + n_classes, hidden)
        self.splitter_optimizer = torch.optim.Adam(self.splitter.parameters(), lr=learning_rate, weight_decay=weight_decay)
        drawn = torch.rand(n_train, generator=torch.Generator().manual_seed(seed)) < share
        self.register_buffer("split_", drawn.to(torch.float32))

    @property
    def needs_validation(self) -> bool:
        return False

    @property
    def is_split_at_random(self) -> bool:
        """Whether the splitter does not split yet."""
        return self.epoch < self.splitter_warmup

    def rows(self, model: nn.Module, x: Any, y: Any) -> BatchPass:
        return self.meta.rows(model, x, y, self.losses, hears=["last_layer"])

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        features = features_of(rows, self.backbone)
        self.network.check(features)
        if not self.is_split_at_random:
            if self.is_due:
                self._learn_split(rows, features)
            self._split(rows, features, positions)
        if self.is_due:
            q = self.split_[positions]
            weights = self.network_weights(rows, positions)
            self.learn(weights, self.meta.of_loss(rows, weights, lambda predict: self._held_out_loss(predict, rows, q)))
        with torch.no_grad():
            return self.network_weights(rows, positions)

    def network_weights(self, rows: BatchPass, positions: Tensor) -> Tensor:
        # Of a batch that is held out as a whole the weights are the network's: a mean of 0 would give no number.
        is_trained_on = (1.0 - self.split_[positions]).clamp(min=_LEAST)
        return mean_one(is_trained_on * self.network(features_of(rows, self.backbone)))

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> LRWOpt:
        super()._apply(fn, recurse)
        self.splitter_optimizer.load_state_dict(self.splitter_optimizer.state_dict())
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Counts and the state of both networks' optimisers, for state_dict."""
        return {**super().get_extra_state(), "splitter_optimizer": self.splitter_optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what a state_dict holds of these."""
        super().set_extra_state(state)
        self.splitter_optimizer.load_state_dict(copy.deepcopy(state["splitter_optimizer"]))

    def _held_out_loss(self, predict: Predict, rows: BatchPass, q: Tensor) -> Tensor:
        """sum_i q_i l_i / sum_i q_i over the rows of all ranks, as a mean over the ranks; 0 where nothing is held out."""
        losses = self.losses(predict(rows.x), rows.y)
        return n_ranks() * (q * losses).sum() / of_all_ranks(q).sum().clamp(min=_LEAST)

    @torch.no_grad()
    def _split(self, rows: BatchPass, features: Tensor, positions: Tensor) -> None:
        positions, q = of_all_ranks(positions), of_all_ranks(torch.sigmoid(self._split_logits(features, rows.y)))
        self.split_[positions] = torch.where(torch.isfinite(q), q, self.split_[positions])

    def _split_logits(self, features: Tensor, y: Tensor) -> Tensor:
        one_hot = functional.one_hot(y, self.n_classes).to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            return self.splitter.logits(torch.cat([features, one_hot], dim=1).to(self.split_.dtype))

    def _learn_split(self, rows: BatchPass, features: Tensor) -> None:
        is_right = (rows.prediction.detach().argmax(dim=1) == rows.y).to(self.split_.dtype)
        losses = rows.losses.detach().to(self.split_.dtype)
        # With the rows of all ranks each takes the step that one process would.
        features, y, is_right, losses = (of_all_ranks(part) for part in (features, rows.y, is_right, losses))
        with torch.enable_grad():
            loss = self._split_loss(self._split_logits(features, y), y, is_right, losses)
            gradients = torch.autograd.grad(loss, list(self.splitter.parameters()))
        # On a device that the host does not look at a batch may hold what is no number.
        is_usable = torch.isfinite(loss.detach())
        for parameter, gradient in zip(self.splitter.parameters(), gradients, strict=True):
            parameter.grad = torch.where(is_usable, gradient, 0.0)
        self.splitter_optimizer.step()
        self.splitter_optimizer.zero_grad(set_to_none=True)

    def _split_loss(self, logits: Tensor, y: Tensor, is_right: Tensor, losses: Tensor) -> Tensor:
        q = torch.sigmoid(logits)
        loss = functional.binary_cross_entropy_with_logits(-logits, is_right) - _mass_mean(losses, q)
        if (self.steps_seen // self.every) % self.regularize_every == 0:
            loss = loss + _bernoulli_kl(q.mean(), self.share) + self._class_kl(q, y) + self._class_kl(1.0 - q, y)
        return loss

    def _class_kl(self, mass: Tensor, y: Tensor) -> Tensor:
        """KL of the classes' shares in `mass` (n,) from their shares in the batch."""
        one_hot = functional.one_hot(y, self.n_classes).to(mass.dtype)
        part, whole = mass @ one_hot / mass.sum().clamp(min=_LEAST), one_hot.mean(dim=0)
        # 0 log 0 is 0, and so must its slope be a number.
        return (part * torch.log(part.clamp(min=_LEAST) / whole.clamp(min=_LEAST))).sum()


def _mass_mean(losses: Tensor, mass: Tensor) -> Tensor:
    """sum_i mass_i losses_i / sum_i mass_i; 0 where there is no mass."""
    return (mass * losses).sum() / mass.sum().clamp(min=_LEAST)


def _bernoulli_kl(p: Tensor, share: float) -> Tensor:
    parts = ((p, share), (1.0 - p, 1.0 - share))
    return torch.stack([part * torch.log(part.clamp(min=_LEAST) / whole) for part, whole in parts]).sum()
