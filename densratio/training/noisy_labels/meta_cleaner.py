"""MetaCleaner: a few rows with the same given label train as one representation, in which a network gives each row its share."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from ..._validation import check_count
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import check_classes
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from ..meta.weight_network import learned_weights

__all__ = ["MetaCleaner"]


class MetaCleaner(BatchReweighter):
    """loss = mean_i l(sum_j a_j W f_j + b, y_i) over the rows j of i's group, a = softmax of a network's scores in the group.

    The rows of a batch with the same given label form groups of k, in their order; the remaining rows form a smaller group. The
    score of row i is network(f_i, mean of the others' f), f the input of the classifier's last nn.Linear, so a row is compared with
    rows that should be alike. That layer classifies the group's representation sum_j a_j f_j, and the network learns from the same
    loss by Adam. A wrong label with a share near 0 is hardly learned. Predictions treat each row as a group of one.

    In the paper k feature vectors side by side enter a network with k scores, and its gradient also flows into the features. Here
    the network has one score, so that groups may have any size, and the features are fixed for it.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    n_features : int
        Inputs of the last nn.Linear, whose output must be the predictions.
    k : int >= 1
        Rows of a group. A batch should have several times as many rows as there are classes; otherwise most groups have one row,
        which trains plainly. k = 1 is plain training.
    hidden, learning_rate, weight_decay : of the network and its Adam.
    warmup_epochs : float
        Initial passes of plain training, in place of the paper's pretrained model. Without them the network may learn to choose the
        wrong rows, which an untrained model can fit equally well.
    loss : per-row loss of logits (n, C) and class labels (n,).

    weights_ holds a_i times the size of the group, of mean 1 in each group. With several ranks the groups are those of all rows.
    Raises ValueError for base weights, with the first batch for predictions other than logits (n, C) of the last nn.Linear with
    n_features inputs, and for labels that are not integers (n,).
    Source: Zhang, Wang & Qiao (2019), MetaCleaner: learning to hallucinate clean representations for noisy-labeled visual
    recognition.
    """

    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer")
    no_base_weights: str = "MetaCleaner trains on sums of rows, in which rows have learned shares: leave base weights out."

    check_targets = staticmethod(partial(check_classes, "MetaCleaner"))

    def __init__(
        self,
        n_train: int,
        n_features: int,
        *,
        k: int = 5,
        hidden: int = 100,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        warmup_epochs: float = 1.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        self.n_features = check_count("n_features", n_features, more=", the inputs of the last nn.Linear")
        self.k = check_count("k", k, more=", the rows of a group")
        # A bias of the scores would not change the softmax.
        self.network = nn.Sequential(nn.Linear(2 * n_features, hidden), nn.ReLU(), nn.Linear(hidden, 1, bias=False))
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        # Every rank groups the rows of all ranks.
        features, y = rows.all(batch.found["features"]), rows.all(batch.y)
        is_mate, logits = _groups(y, self.k), batch.prediction.to(torch.promote_types(batch.prediction.dtype, torch.float32))
        even = is_mate.to(logits.dtype) / is_mate.sum(dim=1, keepdim=True)
        with torch.autocast(features.device.type, enabled=False):
            seen = self._seen(features.to(next(self.network.parameters()).dtype), is_mate)

            def weights_now() -> Tensor:
                scores = torch.where(is_mate, self.network(seen)[:, 0], -float("inf"))
                return rows.own(is_mate.sum(dim=1) * scores.softmax(dim=1).diagonal())

            def slope_of(weights: Tensor) -> Tensor:
                with torch.enable_grad():
                    of_all = rows.all(weights.detach()).to(logits.dtype).requires_grad_()
                    loss = self.losses((even * of_all) @ rows.all(logits.detach()), y).mean()
                    return rows.own(torch.autograd.grad(loss, of_all)[0])

            # Before the weights choose what is summed: features too large for the network give no shares.
            weights = self._or_even(learned_weights(self, weights_now, slope_of, rows), rows)
            # The layer is affine and shares sum to 1: the logits of the sum of features are the sum of the logits.
            mine = rows.own(even) * weights.to(logits.dtype)[:, None]
            batch.found["weighted"] = rows.own(self.losses(rows.total(mine.mT @ logits), y))
        return weights

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """Keep the features (n, d). Raises ValueError, also in a warm-up, for a model whose rows can't be summed."""
        batch.found["features"] = batch.features("MetaCleaner", self.n_features)
        if not batch.ends_in_last_layer:
            raise ValueError(
                "MetaCleaner classifies sums of features, which needs a model whose predictions (n, C) are the output of its last "
                "nn.Linear, with nothing after it, such as a softmax."
            )

    def _seen(self, features: Tensor, is_mate: Tensor) -> Tensor:
        """Input of the network for each row (N, 2 n_features): its features, and the mean of its mates' (without mates its own)."""
        mates = is_mate.to(features.dtype)
        others = (mates @ features - features) / (mates.sum(dim=1, keepdim=True) - 1.0).clamp(min=1.0)
        has_mates = is_mate.sum(dim=1, keepdim=True) > 1
        return torch.cat([features, torch.where(has_mates, others, features)], dim=1)


def _groups(y: Tensor, k: int) -> Tensor:
    """Whether two rows are in one group (N, N), from their labels (N,): groups are the rows of a label, k by k in their order."""
    is_alike = y[:, None] == y
    group = (is_alike.tril().sum(dim=1) - 1) // k
    return is_alike & (group[:, None] == group)
