"""LRWOpt: a splitter chooses which training rows validate, and a weight network learns on what it chose."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from ..loop.batch_reweighter import BatchReweighter
from ..loop.losses import Loss, cross_entropy
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from .gradient import MetaGradient, Predict, gradient_from
from .learning import learned_weights, move
from .lrw import FeatureNetwork, features_of

__all__ = ["LRWOpt"]

_LEAST = 1e-12  # below which a mass counts as this, in quotients and logarithms


class LRWOpt(BatchReweighter):
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
        A frozen network that gives the features (n, d) of x. None: the input of the classifier's last nn.Linear, detached.
    gradient : MetaGradient or None
        The engine, "exact" or "first_order"; None: MetaGradient(every=5), `every` being Q, the classifier's steps for each outer
        step.
    optimizer, mode, product, every : those of `MetaGradient`, in place of `gradient`.
    splitter_warmup : float
        First passes over the data with a random split of this share; the splitter learns and splits after them.
    warmup_epochs : not of this method, whose weights are never held at 1: the old name of splitter_warmup, which says so.
    hidden, learning_rate, weight_decay : of both networks and of Adam on each. seed : of the random split.

    split_ : (n_train,) the last q of each row.
    Source: Jain et al. (2024), Improving generalization via meta-learning on hard samples.
    """

    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer", "splitter_optimizer")

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
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        regularize_every: int = 1,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        splitter_warmup: float = 25.0,
        warmup_epochs: float | None = None,
        seed: int = 0,
        loss: Loss = cross_entropy,
    ):
        beside = {"optimizer": optimizer, "mode": mode, "product": product, "every": every}
        gradient = gradient_from(gradient, beside, every=5)
        _check(gradient, share, regularize_every, n_classes, splitter_warmup, warmup_epochs)
        super().__init__(n_train, loss, gradient=gradient)
        self.network, self.splitter = FeatureNetwork(n_features, hidden), FeatureNetwork(n_features + n_classes, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
        self.splitter_optimizer = Adam(self.splitter.parameters(), learning_rate, weight_decay=weight_decay)
        self.share, self.n_classes, self.backbone = share, n_classes, backbone
        self.regularize_every = regularize_every
        self.splitter_warmup = splitter_warmup
        drawn = torch.rand(n_train, generator=torch.Generator().manual_seed(seed)) < share
        self.register_buffer("split_", drawn.to(torch.float32))

    @property
    def is_split_at_random(self) -> bool:
        """Whether the splitter does not split yet."""
        return self.epoch < self.splitter_warmup

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        features = features_of(batch, self.backbone)
        self.network.check(features)
        if not self.is_split_at_random:
            if self.is_due:
                self._learn_split(batch, features, rows)
            self._split(batch, features, rows)
        q = self.split_[rows.positions]

        def weights_now() -> Tensor:
            # Of a batch that is held out as a whole the weights are the network's: a mean of 0 would give NaN.
            return rows.mean_one((1.0 - q).clamp(min=_LEAST) * self.network(features))

        def held_out_loss(predict: Predict) -> Tensor:
            """sum_i q_i l_i / sum_i q_i; 0 where nothing is held out."""
            losses = self.losses(predict(batch.x), batch.y)
            return rows.sum(q * losses) / rows.sum(q).clamp(min=_LEAST)

        return learned_weights(self, weights_now, lambda w: self.meta.of_loss(batch, w, held_out_loss), rows)

    @torch.no_grad()
    def _split(self, batch: TrainingPass, features: Tensor, rows: RowBatch) -> None:
        rows.write(self.split_, torch.sigmoid(self._split_logits(features, batch.y)))

    def _split_logits(self, features: Tensor, y: Tensor) -> Tensor:
        one_hot = functional.one_hot(y, self.n_classes).to(features.dtype)
        with torch.autocast(features.device.type, enabled=False):
            return self.splitter.logits(torch.cat([features, one_hot], dim=1).to(self.split_.dtype))

    def _learn_split(self, batch: TrainingPass, features: Tensor, rows: RowBatch) -> None:
        is_right = (batch.prediction.detach().argmax(dim=1) == batch.y).to(self.split_.dtype)
        losses = batch.losses.detach().to(self.split_.dtype)
        features, y, is_right, losses = (rows.all(part) for part in (features, batch.y, is_right, losses))
        parameters = list(self.splitter.parameters())
        with torch.enable_grad():
            loss = self._split_loss(self._split_logits(features, y), y, is_right, losses)
            gradients = torch.autograd.grad(loss, parameters)
        # A batch that a device found unusable may hold NaN.
        is_finite = torch.isfinite(loss.detach())
        move(self.splitter_optimizer, parameters, [torch.where(is_finite, gradient, 0.0) for gradient in gradients])

    def _split_loss(self, logits: Tensor, y: Tensor, is_right: Tensor, losses: Tensor) -> Tensor:
        q = torch.sigmoid(logits)
        loss = functional.binary_cross_entropy_with_logits(-logits, is_right) - (q * losses).sum() / q.sum().clamp(min=_LEAST)
        if (self.steps_seen // self.every) % self.regularize_every == 0:
            loss = loss + _bernoulli_kl(q.mean(), self.share) + self._class_kl(q, y) + self._class_kl(1.0 - q, y)
        return loss

    def _class_kl(self, mass: Tensor, y: Tensor) -> Tensor:
        """KL of the classes' shares in `mass` (n,) from their shares in the batch."""
        one_hot = functional.one_hot(y, self.n_classes).to(mass.dtype)
        part, whole = mass @ one_hot / mass.sum().clamp(min=_LEAST), one_hot.mean(dim=0)
        # 0 log 0 is 0, with a finite slope.
        return (part * torch.log(part.clamp(min=_LEAST) / whole.clamp(min=_LEAST))).sum()


def _check(
    gradient: MetaGradient, share: float, regularize_every: int, n_classes: int, splitter_warmup: float, warmup_epochs: Any
) -> None:
    if warmup_epochs is not None:
        raise ValueError(
            f"warmup_epochs= of LRWOpt, the first epochs with a random split, is now splitter_warmup={warmup_epochs!r}: elsewhere "
            "warmup_epochs holds all weights at 1."
        )
    if gradient.mode == "last_layer":
        raise ValueError('LRWOpt validates on shares of rows: use mode="exact" or mode="first_order".')
    if not 0.0 < share < 1.0 or regularize_every < 1:
        raise ValueError(f"share must be in (0, 1) and regularize_every >= 1; got {share!r} and {regularize_every!r}.")
    if not splitter_warmup >= 0 or n_classes < 2:
        raise ValueError(f"splitter_warmup must be >= 0 and n_classes >= 2; got {splitter_warmup!r} and {n_classes!r}.")


def _bernoulli_kl(p: Tensor, share: float) -> Tensor:
    parts = ((p, share), (1.0 - p, 1.0 - share))
    return torch.stack([part * torch.log(part.clamp(min=_LEAST) / whole) for part, whole in parts]).sum()
