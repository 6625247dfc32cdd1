"""FSR: L2R whose validation rows are training rows, in each class those whose loss a training step lowers most."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._arrays import waits_for
from ..._validation import check_count
from ..loop.draws import generator_of
from ..loop.labels import advice_on_labels
from ..loop.row_batch import RowBatch
from ..loop.state import as_stored, before_loading
from ..loop.training_pass import LastLayer, TrainingPass, last_layer, weighted_gradient
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, gradient_from
from .l2r import L2R

__all__ = ["FSR"]

_MOMENTUM = 0.9


class FSR(L2R):
    """Weights of `L2R` against a dictionary of training rows, the k best of each class, in place of validation rows.

    The score of a row is the sum over its visits of <g_i, m>, the first-order decrease of its loss along the direction of training:
    g_i is its gradient in the last nn.Linear, and m the moving average of the weighted gradients of earlier batches. A wrong label
    has a gradient against those of the other rows, and so is seldom among the best of its class. Each batch draws `n_drawn` rows of
    the dictionary, equally many of each class. The meta-gradient is that of the last layer alone, whose factors the usual pass
    gives. The dictionary stores the inputs of its rows, and is updated from the first batch on, also during the warm-up; several
    ranks exchange the inputs of each batch.

    In the paper the scores come from a step of the batch with momentum. Here the batch's own gradient is left out of the step,
    because a row with a large gradient, such as one with a wrong label, lowers its own loss most.

    Parameters
    ----------
    n_train, n_classes : int
        Training rows, and classes of their labels.
    warmup_epochs : float
        Initial passes with all weights 1; 160 of 200 in the paper, until the learning rate decays. After a short warm-up, and with
        a small k, wrong labels are among the best rows, and give each other weight.
    k : int
        Rows of each class; 200 and 300 in the paper.
    n_drawn : int
        Rows that validate a batch, at least one of each class; 200 and 800 in the paper.
    gradient : MetaGradient or None
        The meta-gradient; None: MetaGradient("last_layer").
    optimizer, mode, product, every : parameters of `MetaGradient`, in place of `gradient`.
    seed : int
        Of the draws.
    loss : as in `MWNet`.

    rows_ (C, k): the training rows in the dictionary, -1 for an empty place.
    Raises ValueError for an input that is not one tensor with rows of one shape, for labels that are not integers (n,) below
    n_classes, and with mode="last_layer" for a model whose predictions are not the output of its last nn.Linear.
    Source: Zhang & Pfister (2021), Learning fast sample re-weighting without reward data.
    """

    uses_validation: ClassVar[bool] = False
    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)

    rows_: Tensor
    scores: Tensor
    inputs: Tensor | None
    direction: Tensor | None

    def __init__(
        self,
        n_train: int,
        n_classes: int,
        *,
        warmup_epochs: float,
        k: int = 50,
        n_drawn: int = 200,
        gradient: MetaGradient | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str | None = None,
        product: str | None = None,
        every: int | None = None,
        seed: int = 0,
        loss: Loss = cross_entropy,
    ):
        engine = gradient_from(gradient, optimizer, mode, product, every, usual_mode="last_layer")
        if engine.val_refresh is not None:
            raise ValueError("FSR has no validation rows to keep: leave out n_val= and val_refresh=.")
        super().__init__(n_train, gradient=engine, warmup_epochs=warmup_epochs, loss=loss)
        n_classes, k = check_count("n_classes", n_classes, more=" of the labels"), check_count("k", k, more=" of each class")
        self.n_drawn = max(check_count("n_drawn", n_drawn, more=" that validate a batch"), n_classes)
        self.seed = seed
        self.register_buffer("rows_", torch.full((n_classes, k), -1, dtype=torch.int64))
        self.register_buffer("scores", torch.zeros(n_train))
        # The shape of the input is known with the first batch.
        self.register_buffer("inputs", None)
        self.register_buffer("direction", None)
        before_loading(self, _make_buffers)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        try:
            return super().batch_weights(batch, rows, self._drawn() if self.is_due else None)
        except Exception:
            if self.steps_seen == 0:
                # The first batch that trains determines their shapes.
                self.inputs = self.direction = None
            raise

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        self._check_rows(x, y)
        batch, rows = super()._passed(model, x, y, index)
        # Other modes take models without a suitable last nn.Linear; then the gradient in the outputs alone counts.
        is_last = self.meta.mode == "last_layer"
        layer = batch.last_layer() if is_last else last_layer(batch.prediction, batch.y, batch.loss, batch.entry)
        with torch.no_grad():
            self._score(layer, rows)
            self._keep_best(batch, rows)
        return batch, rows

    def _check_rows(self, x: Any, y: Any) -> None:
        """Raise ValueError for rows that the dictionary can't store."""
        if not isinstance(x, Tensor):
            raise ValueError(
                f"FSR keeps rows of the input, which must be one tensor; got a {type(x).__name__}. Methods that keep none, such as "
                "DynamicReweighter, MWNet and L2R, take any input."
            )
        if not (isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point()):
            got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"FSR needs class labels (n,), integers; got {got}. {advice_on_labels(y)}")
        if self.inputs is not None and x.shape[1:] != self.inputs.shape[2:]:
            shapes = f"{tuple(self.inputs.shape[2:])}; got {tuple(x.shape[1:])}"
            raise ValueError(f"FSR keeps rows of the input, which must have one shape, that of the first batch: {shapes}.")
        n_classes = len(self.rows_)
        if not waits_for(y.device) and len(y) and int(y.max()) >= n_classes:
            raise ValueError(f"n_classes={n_classes} were declared and a label is {int(y.max())}: give one more than the largest.")

    def _score(self, layer: LastLayer, rows: RowBatch) -> None:
        """Add <g_i, m> to the scores of the rows, and update m."""
        total = rows.sum_of([weighted_gradient(layer, self.weights_[rows.positions].to(layer.slope.dtype))])[0]
        share = 1.0 - _MOMENTUM
        if self.direction is None:
            self.direction, share = torch.zeros_like(total), 1.0
        rows.remember(self.direction)
        decrease = (layer.slope * (layer.entry @ self.direction[:, :-1].mT + self.direction[:, -1])).sum(dim=1)
        rows.write(self.scores, self.scores[rows.positions] + decrease)
        moved = (1.0 - share) * self.direction + share * total / rows.count(total)
        self.direction.copy_(rows.accept(moved, self.direction))

    def _keep_best(self, batch: TrainingPass, rows: RowBatch) -> None:
        """Keep in the dictionary the k best rows of each class among its own and those of the batch."""
        if self.inputs is None:
            self.inputs = batch.x.new_zeros((*self.rows_.shape, *batch.x.shape[1:]))
        for stored in (self.rows_, self.inputs):
            rows.remember(stored)
        (n_classes, k), y, new = self.rows_.shape, rows.all(batch.y), rows.all_positions
        of_held, of_new = self._taken_once(new)
        everyone = torch.cat([self.rows_.flatten(), new])
        label = torch.cat([torch.arange(n_classes, device=y.device).repeat_interleave(k), y])
        # An additional class, for rows that must not be chosen.
        label = torch.where(torch.cat([of_held, of_new & (y >= 0) & (y < n_classes)]), label, n_classes)
        at, is_there = _best(label, self.scores[everyone.clamp(min=0)], n_classes, k)
        inputs = torch.cat([self.inputs.flatten(0, 1), rows.all(batch.x).to(self.inputs.dtype)])[at]
        chosen = torch.where(is_there, everyone[at], -1)
        self.rows_.copy_(rows.accept(chosen.reshape(self.rows_.shape), self.rows_))
        self.inputs.copy_(rows.accept(inputs.reshape(self.inputs.shape), self.inputs))

    def _taken_once(self, new: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows of the dictionary (C k,) are not in the batch (N,), and which of the batch do not occur again later in it."""
        number = torch.arange(len(new), device=new.device)
        last = torch.full_like(self.scores, -1, dtype=torch.int64).scatter_reduce(0, new, number, "amax")
        held = self.rows_.flatten()
        return (held >= 0) & (last[held.clamp(min=0)] < 0), last[new] == number

    def _drawn(self) -> tuple[Tensor, Tensor, None]:
        """Rows (x, y, None) of the dictionary, equally many of each class that has rows."""
        assert self.inputs is not None
        chance = torch.rand(self.n_drawn, generator=generator_of(self.seed, self.steps_seen))
        # Without non_blocking the host would wait for the copy.
        chance = chance.to(self.rows_.device, non_blocking=True)
        count = (self.rows_ >= 0).sum(dim=1)
        # Classes that have rows come first, and take turns.
        order = torch.argsort((count == 0).to(torch.int8), stable=True)
        turn = torch.arange(self.n_drawn, device=count.device)
        y = order[torch.remainder(turn, (count > 0).sum().clamp(min=1))]
        slot = (chance * count[y]).to(torch.int64).clamp(max=self.rows_.shape[1] - 1)
        return self.inputs[y, slot], y, None


def _best(label: Tensor, score: Tensor, n_classes: int, k: int) -> tuple[Tensor, Tensor]:
    """Places (C k,) of the k highest scores of each class 0..C-1, the highest first, and whether there is such a row.

    It never waits for a device. A missing row has place 0; rows with labels (N,) of C or more are never chosen.
    """
    order = torch.argsort(score, descending=True, stable=True)
    order = order[torch.argsort(label[order], stable=True)]
    of_class = (label[:, None] == torch.arange(n_classes + 1, device=label.device)).sum(dim=0)
    start = torch.cumsum(of_class, dim=0) - of_class
    number = torch.arange(k, device=label.device)
    is_there = (number < of_class[:n_classes, None]).flatten()
    at = (start[:n_classes, None] + number).flatten().clamp(max=len(label) - 1)
    return torch.where(is_there, order[at], 0), is_there


def _make_buffers(method: FSR, stored: dict[str, Tensor]) -> None:
    for name in ("inputs", "direction"):
        as_stored(method, name, stored, partial(_zeros, stored, name, method.weights_.device))


def _zeros(stored: dict[str, Tensor], name: str, device: torch.device) -> Tensor:
    return torch.zeros_like(stored[name], device=device)
