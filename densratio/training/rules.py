"""Weights by a rule of the row's own loss, class or margin: they need no validation rows, and nothing is learned."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import waits_for
from .._validation import check_number
from .loop.batch_reweighter import BatchReweighter
from .loop.labels import labels_to_look_up, training_labels
from .loop.model import device_of_model
from .loop.ranks import Rows
from .loop.row_batch import RowBatch
from .loop.training_pass import TrainingPass
from .loop.validation_pass import evaluation
from .losses import Loss, class_probabilities, cross_entropy, focal_factor

__all__ = [
    "ClassBalanced",
    "Focal",
    "JustTrainTwice",
    "MarginBased",
    "RHOLoss",
    "SelfPaced",
    "class_balanced_weights",
    "class_margins",
    "irreducible_losses",
    "margins",
]

FAVORS = {"hard": -1.0, "easy": 1.0}
"""Sign of the margin in the weight of `MarginBased`."""


class ClassBalanced(BatchReweighter):
    """w_i proportional to (1 - beta) / (1 - beta^n_c), n_c the size of row i's class; mean 1 over the training rows.

    y_train (n_train,) : classes of the training rows, integers >= 0.
    beta in [0, 1] : 0 weighs all rows alike, 1 by the inverse size of their class; 0.9999 as published for large data.
    Source: Cui et al. (2019), Class-balanced loss based on effective number of samples.
    """

    row_weights: Tensor

    def __init__(self, n_train: int, y_train: Any, *, beta: float = 0.9999, warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        self.register_buffer("row_weights", class_balanced_weights(n_train, y_train, beta), persistent=False)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return self.row_weights[rows.positions]


def class_balanced_weights(n_train: int, y_train: Any, beta: float) -> Tensor:
    """The weights (n_train,) of `ClassBalanced`, float32. Raises ValueError for other labels and another beta."""
    labels = training_labels(y_train, n_train, each_has_rows=False)
    check_number("beta", beta, "[0, 1]")
    sizes = np.bincount(labels)[labels].astype(np.float64)
    weights = 1.0 / sizes if beta == 1.0 else (1.0 - beta) / -np.expm1(sizes * np.log(beta)) if beta > 0 else np.ones(n_train)
    return torch.as_tensor(weights / weights.mean(), dtype=torch.float32)


class Focal(BatchReweighter):
    """w_i = (1 - p_i)^gamma, the focal loss; p_i = exp(-l_i) is the probability of the row's label under its cross entropy.

    As published, the gradient also flows through the weights. gamma >= 0; 0 is plain training. The weights lie in [0, 1] and have
    no fixed mean. Source: Lin et al. (2017), Focal loss for dense object detection.
    """

    def __init__(self, n_train: int, *, gamma: float = 2.0, warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_number("gamma", gamma, "[0, inf)")
        self.gamma = gamma

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return focal_factor(batch.losses, self.gamma)


class MarginBased(BatchReweighter):
    """w_i proportional to 1 - m_i, of mean 1 in the batch, for the probabilistic margin m_i = p_y - max_{j != y} p_j in [-1, 1].

    favors : "hard", rows of small margin, for clean labels; or "easy", 1 + m_i, which gives wrong labels small weights.
    first (n_train,) : fixed margins of all rows under a model that was trained before, as published: `margins` of its predictions.
    None: the margins of the model in training.
    Source: margin-based reweighting (MBR) as a baseline in Jain et al. (2024), Improving generalization via meta-learning on hard
    samples; the linear form is this library's.
    """

    first: Tensor | None

    def __init__(
        self, n_train: int, *, favors: str = "hard", first: Any = None, warmup_epochs: float = 0.0, loss: Loss = cross_entropy
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if favors not in FAVORS:
            raise ValueError(f"favors must be one of {sorted(FAVORS)}; got {favors!r}.")
        self.favors = favors
        if first is None:
            self.check_targets = partial(labels_to_look_up, "MarginBased")
        self.register_buffer("first", None if first is None else _first_margins(first, n_train))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        found = margins(batch.prediction, batch.y) if self.first is None else self.first[rows.positions]
        return rows.mean_one(1.0 + FAVORS[self.favors] * found)


class JustTrainTwice(BatchReweighter):
    """w_i = `upweight` for rows that a first model misclassified and 1 for the others, scaled to mean 1 over the training rows.

    It is for unknown groups of rows that plain training neglects, such as rows without a shortcut. Train a first model briefly, or
    with strong weight decay, so that it learns the shortcut but does not memorize the exceptions; then train a new model with these
    weights. The labels should be right, because the first model misclassifies wrong labels too.

    first (n_train,) : margins of all rows under the first model, `margins` of its predictions; wrong ones are negative.
    upweight > 0 : lambda; 4 to 100 in the paper. Choose it, and the length of the first training, by the accuracy of the worst
    group of validation rows.
    Source: Liu et al. (2021), Just train twice: improving group robustness without training group information.
    """

    row_weights: Tensor

    def __init__(self, n_train: int, first: Any, *, upweight: float = 5.0, warmup_epochs: float = 0.0, loss: Loss = cross_entropy):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_number("upweight", upweight, "(0, inf)")
        weights = torch.where(_first_margins(first, n_train) < 0.0, upweight, 1.0).cpu().double()
        self.register_buffer("row_weights", (weights / weights.mean()).float())

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return self.row_weights[rows.positions]


def _first_margins(first: Any, n_train: int) -> Tensor:
    """Margins (n_train,) of a first training, float32. Raises ValueError for anything else."""
    # A copy: load_state_dict writes into the buffer.
    values = torch.as_tensor(first, dtype=torch.float32).detach().clone()
    if values.shape != (n_train,) or not bool((values.abs() <= 1.0).all()):
        got = f"shape {tuple(values.shape)}"
        got += f", from {values.min():.4g} to {values.max():.4g}" if values.shape == (n_train,) else ""
        raise ValueError(f"first must be ({n_train},) margins in [-1, 1], one for each row; got {got}.")
    return values


def margins(prediction: Tensor, y: Tensor) -> Tensor:
    """p_y - max_{j != y} p_j (n,) in [-1, 1] of logits (n, C), C >= 2, and labels (n,); detached, in at least single precision.

    Raises ValueError for other shapes, and for labels of no class; on a GPU, which the host doesn't wait for, those rows are NaN.
    """
    found, y = class_margins(prediction, y), labels_to_look_up("A margin", prediction, y)
    return found.scatter(1, y[:, None], 1.0).amin(dim=1)


def class_margins(prediction: Tensor, y: Tensor) -> Tensor:
    """p_y - p_j (n, C) in [-1, 1] of logits (n, C), C >= 2, and labels (n,), for each class j; detached as `margins` are.

    Raises ValueError for other shapes, and for labels of no class; on a GPU, which the host doesn't wait for, those rows are NaN.
    """
    labels = labels_to_look_up("A margin", prediction, y)
    p = class_probabilities(prediction.detach())
    found = p.gather(1, labels[:, None]) - p
    return found.masked_fill((labels != y)[:, None], float("nan")) if waits_for(y.device) else found


class SelfPaced(BatchReweighter):
    """w_i = 1 / s for the share s of the batch with the smallest losses and 0 for the rest; s grows from `start` to `end`.

    start, end in (0, 1] : shares at first and after n_epochs epochs, linear in between. If labels are wrong, an `end` near the
    share of right labels leaves most wrong ones out. Each batch has its own threshold.
    Source: Kumar, Packer & Koller (2010), Self-paced learning for latent variable models.
    """

    def __init__(
        self,
        n_train: int,
        *,
        start: float = 0.5,
        end: float = 1.0,
        n_epochs: float = 10.0,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        check_number("start", start, "(0, 1]")
        check_number("end", end, "(0, 1]")
        check_number("n_epochs", n_epochs, "(0, inf]")
        self.start, self.end, self.n_epochs = start, end, n_epochs

    @property
    def share(self) -> float:
        """Share of the next batch that is trained on."""
        return self.start + (self.end - self.start) * min(1.0, self.epoch / self.n_epochs)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return top_share(-batch.losses.detach(), self.share, rows)


def top_share(scores: Tensor, share: float, rows: Rows) -> Tensor:
    """Weights (n,) of mean 1: equal for the round(share N) >= 1 rows with the largest scores (n,) of all N, 0 for the rest."""
    of_all = rows.all(scores)
    n_kept = max(1, round(share * len(of_all)))
    kept = torch.topk(of_all, n_kept).indices
    return rows.own(torch.zeros_like(of_all).index_fill(0, kept, len(of_all) / n_kept))


class RHOLoss(BatchReweighter):
    """w_i = 1 / s for the share s of the batch with the largest reducible losses l_i - irreducible_i, and 0 for the rest.

    irreducible (n_train,) : losses of the training rows under a model that was trained on other rows: `irreducible_losses`.
    share in (0, 1] : share of the batch that is trained on; the paper takes 0.1 of large batches.
    Source: Mindermann et al. (2022), Prioritized training on points that are learnable, worth learning, and not yet learnt.
    """

    irreducible: Tensor

    def __init__(
        self, n_train: int, irreducible: Any, *, share: float = 0.1, warmup_epochs: float = 0.0, loss: Loss = cross_entropy
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        # A copy: load_state_dict writes into the buffer.
        values = torch.as_tensor(irreducible, dtype=torch.float32).detach().clone()
        if values.shape != (n_train,) or not bool(torch.isfinite(values).all()):
            raise ValueError(f"irreducible must be ({n_train},) finite losses, one for each row; got {tuple(values.shape)}.")
        self.share = check_number("share", share, "(0, 1]")
        self.register_buffer("irreducible", values)

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return top_share(batch.losses.detach().float() - self.irreducible[rows.positions], self.share, rows)


@torch.no_grad()
def irreducible_losses(model: nn.Module, batches: Iterable[Any], loss: Loss = cross_entropy) -> Tensor:
    """Loss (n,) of each row under a trained model in eval mode, on the host; batches of (x, y) in the order of the rows."""
    device = device_of_model(model)
    with evaluation(model):
        return torch.cat([loss(model(x.to(device)), y.to(device)).float().cpu() for x, y, *_ in batches])
