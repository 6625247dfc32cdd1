"""Label correction: a class that the model has long preferred replaces a row's label, by a likelihood-ratio test."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..._validation import check_count, check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import labels_to_look_up
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, class_probabilities, cross_entropy

__all__ = ["LabelCorrection"]

RULES = ("lrt", "plc")
_FIRST_OF_PLC, _STEP_OF_PLC, _LAST_OF_PLC = 0.3, 0.1, 0.9
_FEW = 1e-3  # share of all rows: after a pass with fewer corrections PLC raises its threshold
_FIRST_OF_LRT, _STEP_OF_LRT = 1.2, 0.02  # of the inverse ratio
_RETROACTIVE_PASSES = 40  # passes of correction after which the earlier predictions are recorded anew


class LabelCorrection(BatchReweighter):
    """y_i becomes k = argmax_k q_ik if q_iy / q_ik < threshold, for the row's averaged softmax q_i and its present label y_i.

    The model trains on the present labels. A label changes at most once in a pass over the data, when the row is in a batch, by the
    average of its predictions before that batch: q_i <- decay q_i + (1 - decay) p_i.

    n_train : int, rows of the training set.
    n_classes : int, K. averages (n_train, K): the q_i. They do not sum to 1 at first, which does not affect the ratios.
    rule : "plc": the threshold starts at 0.3 and rises by 0.1, to at most 0.9, after each pass that corrected fewer than 0.1 % of
        the rows. "lrt": 1 / (1.2 + 0.02 t) in pass t = 1, 2, ... of correction.
    decay : in [0, 1); 0.8 averages about the last five predictions, like PLC's window; LRT's has ten.
    retroactive : >= 0; LRT's retroactive loss times this factor is added from the warm-up's end on; 1 as published. It is the
        cross entropy -sum_k r_ik log p_ik with the row's prediction r_i in the last pass of the warm-up, renewed in each 40th pass
        of correction: `earlier` (n_train, K). It keeps the model at what it knew before it memorizes wrong labels, which helps if
        these are spread over all classes; if all wrong labels of a class are the same one, r_i has learned it too.
    warmup_epochs : initial passes on the given labels; 8 as published for PLC, 20 to 25 for LRT.
    loss : per-row loss of logits (n, K) and class labels (n,).

    corrected (n_train,): the present label of each corrected row, -1 if the given label stands. weights_ is 1 if it stands, else 0.
    threshold: a tensor ().
    Raises ValueError with the first batch for other predictions or labels.
    Source: Zheng et al. (2020), Error-bounded correction of noisy labels; Zhang et al. (2021), Learning with feature-dependent
    label noise: a progressive approach.
    """

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "n_passes", "last_pass")

    averages: Tensor
    earlier: Tensor | None
    corrected: Tensor
    threshold: Tensor
    n_corrected: Tensor

    def __init__(
        self,
        n_train: int,
        n_classes: int,
        *,
        rule: str = "plc",
        decay: float = 0.8,
        retroactive: float = 0.0,
        warmup_epochs: float = 8.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_count("n_classes", n_classes)
        self.check_targets = partial(labels_to_look_up, "LabelCorrection", n_classes=n_classes)
        if rule not in RULES:
            raise ValueError(f"rule must be one of {list(RULES)}; got {rule!r}.")
        check_number("decay", decay, "[0, 1)")
        check_number("retroactive", retroactive, "[0, inf)")
        self.n_classes, self.rule, self.decay, self.retroactive = n_classes, rule, decay, retroactive
        # Number of passes that corrected labels, and the number of the last such pass.
        self.n_passes, self.last_pass = 0, -1
        self.register_buffer("averages", torch.zeros(n_train, n_classes))
        # Without the loss a checkpoint has no entry of it.
        self.register_buffer("earlier", torch.zeros(n_train, n_classes) if retroactive else None)
        self.register_buffer("corrected", torch.full((n_train,), -1))
        self.register_buffer("threshold", torch.tensor(1.0 / _FIRST_OF_LRT if rule == "lrt" else _FIRST_OF_PLC))
        self.register_buffer("n_corrected", torch.zeros(()))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        if begins := self._begins:
            self._begin_pass(rows)
        q, standing = batch.found["averages"], self.corrected[rows.positions]
        present = torch.where(standing < 0, batch.y, standing)
        largest = q.max(dim=1)
        is_wrong = q.gather(1, present[:, None])[:, 0] < self.threshold.to(q.dtype) * largest.values
        now = torch.where(is_wrong, largest.indices, present)
        stands = now == batch.y
        rows.remember(self.n_corrected)
        self.n_corrected += rows.accept(rows.all(is_wrong).sum(), torch.zeros_like(self.n_corrected))
        rows.write(self.corrected, torch.where(stands, -1, now))
        added = torch.where(stands, 0.0, self.losses(batch.prediction, now))
        if self.earlier is not None:
            added = added + self.retroactive * _cross_entropy(batch.found["earlier"], batch.prediction)
        batch.found["added"] = added
        if begins:
            # Last, because a number can't be taken back.
            self.n_passes, self.last_pass = self.n_passes + 1, int(self.epoch)
        return stands.to(batch.losses.dtype)

    @property
    def _begins(self) -> bool:
        """Whether this is the first batch of a pass that corrects labels."""
        return self.last_pass != int(self.epoch)

    @property
    def _pass(self) -> int:
        """Number of this pass of correction: 1, 2, ..."""
        return self.n_passes + self._begins

    def _begin_pass(self, rows: RowBatch) -> None:
        """Set the threshold of this pass from the number of corrections in the last one."""
        for stored in (self.threshold, self.n_corrected):
            rows.remember(stored)
        if self.rule == "lrt":
            self.threshold.fill_(1.0 / (_FIRST_OF_LRT + _STEP_OF_LRT * self._pass))
        elif self.n_passes > 0:
            raised = (self.threshold + _STEP_OF_PLC).clamp(max=_LAST_OF_PLC)
            self.threshold.copy_(torch.where(self.n_corrected < _FEW * self.n_train, raised, self.threshold))
        self.n_corrected.zero_()

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """Store the averages before and after the batch, also in a warm-up: the first corrections rest on several predictions."""
        p = class_probabilities(batch.prediction.detach())
        batch.found["averages"] = self.averages[rows.positions].to(p.dtype)
        rows.write(self.averages, torch.lerp(p, batch.found["averages"], self.decay))
        if self.earlier is not None:
            batch.found["earlier"] = self.earlier[rows.positions].to(p.dtype)
            if self.is_warming_up or self._pass % _RETROACTIVE_PASSES == 0:
                rows.write(self.earlier, p)


def _cross_entropy(target: Tensor, prediction: Tensor) -> Tensor:
    """-sum_k t_ik log p_ik (n,) of targets t (n, K) and the softmax p of logits (n, K)."""
    log_p = torch.log_softmax(prediction.to(target.dtype), dim=1)
    # A logit of -inf, for an excluded class, has a target of 0.
    return -(target * log_p.clamp(min=torch.finfo(log_p.dtype).min)).sum(dim=1)
