"""M-correction: each row's loss is divided between its label and the model's own class, by a beta mixture of all losses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.draws import Draws
from ..loop.labels import check_classes
from ..loop.mixed_labels import MixedLabels, check_mixable
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..loop.validation_pass import validation_pass
from ..losses import Loss, class_probabilities, cross_entropy
from .beta_mixture import BetaMixture
from .even_classes import distance_from_even

__all__ = ["MCorrection"]


class MCorrection(BatchReweighter):
    """loss_i = v_i l(y_i) + (1 - v_i) l(z_i), z_i the predicted class, v_i = P(label right | l_i) from a mixture of all losses.

    At the start of each pass over the data a mixture of two beta distributions is fitted to the losses that the rows had in their
    last batch; v_i is the probability for the row's present loss. With prior > 0 a term
    prior sum_k (1/K) log((1/K) / mean_i p_ik) keeps the predictions of a batch from collapsing to few classes.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    hard : bool
        True: z_i is the most probable class. False: all classes by their softmax, without a gradient.
    mixup : float > 0 or None
        Beta parameter of mixup, 32 as published, or None for none; on rows of measurements mixup may cost accuracy. A mixed row has
        the divided losses of both its rows; their v_i and z_i come from a pass of the unmixed rows without a gradient, so a step
        costs 1.6 times as much. The input must be one tensor of floats, the loss cross entropy, and base weights are not supported.
    prior : float >= 0
        Weight of that term; 1 as published. It assumes classes of equal sizes; use 0 for others.
    warmup_epochs : float
        Initial passes on the given labels alone, unmixed, after which losses must still separate right from wrong labels. The paper
        takes 105 of 300 at a large learning rate; a small network memorizes wrong labels within tens.
    seed : int
        Of the draws of mixup.
    loss : per-row loss of logits (n, K) and class labels (n,); cross entropy with hard=False or mixup.

    weights_ holds v_i. last_losses (n_train,): the losses of each row's last batch. mixture: the `BetaMixture`.
    Raises ValueError with the first batch for other predictions or labels.
    Source: Arazo et al. (2019), Unsupervised label noise modeling and loss correction.
    """

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "fitted_pass", "draws")

    check_targets = staticmethod(partial(check_classes, "MCorrection"))
    last_losses: Tensor

    def __init__(
        self,
        n_train: int,
        *,
        hard: bool = True,
        mixup: float | None = None,
        prior: float = 1.0,
        warmup_epochs: float = 10.0,
        seed: int = 0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_number("prior", prior, "[0, inf)")
        if mixup is not None:
            check_number("mixup", mixup, "(0, inf)", " or None")
            self.no_base_weights = "MCorrection(mixup=...) mixes rows, which have no base weights: leave one of the two out."
        if loss is not cross_entropy and (mixup is not None or not hard):
            raise ValueError(
                "Mixed rows and hard=False have cross entropies of several classes: leave out loss=, or mixup= and hard=."
            )
        self.hard, self.mixup, self.prior = hard, mixup, prior
        self.fitted_pass = -1
        self.draws = Draws(seed)
        self.mixture = BetaMixture()
        self.register_buffer("last_losses", torch.zeros(n_train))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        mixed = batch.y if isinstance(batch.y, MixedLabels) else None
        p = class_probabilities(batch.prediction)
        own = None if mixed is not None else self.losses(batch.prediction, self._own_class(p))
        if self.fitted_pass != int(self.epoch):
            self.mixture.fit(self.last_losses, self.row_losses.mass > 0)
            self.fitted_pass = int(self.epoch)
        right = self.mixture.lower(batch.found["plain_losses"])
        added = p.new_zeros(()) if own is None else (1.0 - right) * own
        if self.prior > 0:
            base = None if self.base_weights is None else self.base_weights[rows.positions]
            added = added + self.prior * distance_from_even(p, rows, base)
        batch.found["added"] = added
        return right if mixed is None else mixed.shared(right, right[mixed.order])

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        if self.mixup is not None:
            check_mixable(x, "give mixup=None")
        if self.mixup is None or self.is_warming_up:
            batch, rows = super()._passed(model, x, y, index)
            batch.found["plain_losses"] = batch.losses.detach()
        else:
            batch, rows = self._mixed(model, x, y, index)
        rows.write(self.last_losses, batch.found["plain_losses"])
        return batch, rows

    def _mixed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        """The pass of the mixed batch, after a pass of the unmixed rows that leaves no trace."""
        with validation_pass(model):
            plain = TrainingPass.of(model, x, y, self.losses)
        self.check_targets(plain.prediction, y)
        rows = self._rows(index, len(plain.losses))
        rows.check(plain.losses[:, None], self.n_train, self.late_errors)
        p = class_probabilities(plain.prediction)
        z = functional.one_hot(self._own_class(p), p.shape[1]) if self.hard else p
        rows.undo(self.draws.restorer())
        try:
            mixed = MixedLabels.drawn(x, y, z, self.mixup, self.draws.random)
            batch = TrainingPass.of(model, mixed.x, mixed, MixedLabels.losses)
            rows.check(batch.losses.detach().reshape(4, -1).T, self.n_train, self.late_errors)
        except Exception:
            rows.take_back()
            raise
        batch.found["plain_losses"] = plain.losses
        return replace(batch, weight_scale=mixed.weight_scale), rows

    def _own_class(self, p: Tensor) -> Tensor:
        return p.detach().argmax(dim=1) if self.hard else p.detach()
