"""Baselines with the same interface: equal weights, random weights, validation rows alone, and DIW."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._arrays import waits_for
from ..estimators import KMM
from .loop.batch_reweighter import BatchReweighter
from .loop.model import eager
from .loop.ranks import errors_of_all_ranks, mean_of_rows, on_all_ranks
from .loop.row_batch import RowBatch, check_finite, positions_of
from .loop.training_pass import TrainingPass
from .loop.validation_pass import validation_pass
from .losses import Loss, cross_entropy
from .ratio.dynamic import DynamicReweighter
from .ratio.two_samples import Transformation

__all__ = ["DIW", "RandomWeights", "Uniform", "ValidationOnly"]


class Uniform(BatchReweighter):
    """Every weight 1: plain training."""

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return torch.ones_like(batch.losses.detach())


class RandomWeights(BatchReweighter):
    """Rectified standard normal weights, drawn anew in each batch and scaled to mean 1. seed: int."""

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "generator")

    def __init__(self, n_train: int, loss: Loss = cross_entropy, *, seed: int = 0):
        super().__init__(n_train, loss)
        self._generator = torch.Generator().manual_seed(seed)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        # Every rank draws for the rows of all ranks, so that its generator equals that of one process.
        drawn = torch.randn(len(rows.all_positions), generator=self._generator).clamp(min=0.0)
        # A batch without a positive draw trains with equal weights.
        weights = drawn / drawn.mean() if drawn.sum() > 0 else torch.ones_like(drawn)
        return rows.own(weights.to(batch.losses.device, non_blocking=True))

    @property
    def generator(self) -> Tensor:
        """The state of the random generator."""
        return self._generator.get_state()

    @generator.setter
    def generator(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())


class ValidationOnly(BatchReweighter):
    """Training on the validation batch alone; the training rows have weight 0, and pass through the model only for their losses."""

    uses_validation: ClassVar[bool] = True

    def __init__(self, n_train: int, loss: Loss = cross_entropy):
        super().__init__(n_train, loss)
        self.weights_.zero_()

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return torch.zeros_like(batch.losses.detach())

    @eager
    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        with errors_of_all_ranks():
            x, y, index = self._given(model, train, val)
            self._check_model(model)
            with validation_pass(model):
                batch, rows = self._passed(model, x, y, index)
        self._check_validation_labels(batch.prediction, *val)
        x_val, y_val, val_index = val
        losses = self.losses(model(x_val), y_val)
        self._check_validation_losses(losses.detach(), val_index)
        self._store(batch, self.batch_weights(batch, rows, val), rows)
        return mean_of_rows(losses)

    def _check_validation_losses(self, losses: Tensor, index: Any) -> None:
        """Raise ValueError, on every rank, for losses (m,) that are not finite; on a device note their rows for later."""

        def checked() -> Tensor:
            named = range(len(losses)) if index is None else index
            places = positions_of(named, len(losses), "val_index", losses.device)
            if not waits_for(losses.device):
                check_finite(losses[:, None], places, "validation")
            return places

        places = on_all_ranks(checked)
        if waits_for(losses.device):
            self.late_errors.note_losses(~torch.isfinite(losses), places)


class DIW(DynamicReweighter):
    """Dynamic importance weighting as first published: kernel mean matching solved to convergence in every batch.

    minimize (w'(K + 1e-5 I)w / 2 - kappa'w) / n  over  0 <= w <= max_weight, |mean(w) - 1| <= (sqrt(n) - 1) / sqrt(n);
    the weights are then scaled to mean 1, unless normalize=False.

    gamma : float or rule of the Gaussian kernel, as in `KMM`. max_weight : B, the published 50.
    solver : "auto" for the solvers of this library, on the device of the losses; "cvxpy" for the program as published, on the
        host; or a name in `densratio.solvers.SOLVERS`. All other parameters are those of `DynamicReweighter`.
    Source: Fang, Lu, Niu & Sugiyama (2020), Rethinking importance weighting for deep learning under distribution shift.
    """

    def __init__(
        self,
        n_train: int,
        n_val: int,
        *,
        gamma: float | str = "target_spread",
        max_weight: float = 50.0,
        solver: str = "auto",
        normalize: bool = True,
        layer: str | None = None,
        transformation: Transformation | None = None,
        y_train: Any = None,
        y_val: Any = None,
        val_refresh: int | None = None,
        val_every: int = 1,
        warmup_epochs: float = 1.0,
        warmup_steps: int | None = None,
        loss: Loss = cross_entropy,
    ):
        name = "reference" if solver == "cvxpy" else solver
        ratio = KMM(gamma=gamma, max_weight=max_weight, mean_tol="diw", regularization=1e-5, solver=name)
        super().__init__(
            ratio, n_train, n_val, layer=layer, transformation=transformation, y_train=y_train, y_val=y_val,
            val_refresh=val_refresh, val_every=val_every, to_convergence=True, normalize=normalize,
            warmup_epochs=warmup_epochs, warmup_steps=warmup_steps, loss=loss,
        )  # fmt: skip
