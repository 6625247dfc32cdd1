"""LRWOpt: a splitter chooses which training rows validate, and a weight network learns on its choice."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from ..._validation import check_count, check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import labels_to_look_up
from ..loop.optimizer_step import step_with
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from .gradient import MetaGradient, Predict, gradient_from
from .lrw import features_of
from .weight_network import FeatureNetwork, WeightOfInput, learned_weights

__all__ = ["LRWOpt"]

_HALF = 0.5  # threshold of the splitter
_LEAST_HELD = 0.5  # part of `share` that a hard split always holds out, so that batches have validation rows
_LEAST = 1e-12  # least mass in quotients and logarithms


class LRWOpt(BatchReweighter):
    """The classifier trains on (1 - q_i) g(x_i), scaled to mean 1; g learns on the validation loss sum_i q_i l_i / sum_i q_i.

    q_i = P(validation | x_i, y_i) comes from the splitter, which wants to train on easy rows, those that the classifier gets right,
    and wants a large validation loss. Every `every` batches the weight network g takes a step by the meta-gradient, and the
    splitter takes one on

        cross entropy(1 - q, is right) - sum_i q_i l_i / sum_i q_i + KL(mean q | share) + KL of each side's classes to all classes

    with the two KL terms in each `regularize_every`-th of these steps. No validation rows are needed: val may be None, and is
    ignored.

    With hard_split=True, as published, each row is on one side for a whole pass over the data. A row is held out, with weight 0, if
    1 - q_i <= threshold when the pass begins. If this holds for more than a `share` of all rows, only those with the largest q_i
    are held out; if for fewer than half of that share, the next ones are held out too, so that batches have validation rows.
    g then learns on the held-out rows of the batch, or on `val` if the loop passes one. It rests during splitter_warmup, in which
    the classifier trains alone on a random split.

    Parameters
    ----------
    n_train, n_classes : int
        Rows of the training set and its classes.
    n_features : int
        Columns of the features that both networks see.
    share : float in (0, 1)
        delta, the share of the rows that should validate; with a hard split the largest share.
    backbone : nn.Module or None
        A frozen network that gives the features (n, d) of x. None: the input of the classifier's last nn.Linear, detached.
    gradient : MetaGradient or None
        The meta-gradient, "exact" or "first_order"; None: MetaGradient(every=5). `every` is Q, the classifier's steps for each
        outer step.
    optimizer, mode, product, every : parameters of `MetaGradient`, in place of `gradient`.
    hard_split : bool
        Whether each row is on one side. False: each row counts with mass q on one side and 1 - q on the other, which every batch
        updates.
    threshold : float in (0, 1)
        Of a hard split: a row is held out up to this probability of training, 1 - q; a smaller one holds out only the hardest rows.
    splitter_warmup : float
        Initial passes over the data with a random split of this share; afterwards the splitter learns and splits.
    warmup_epochs : the old name of splitter_warmup; raises an error that says so.
    network : nn.Module or None
        g as a network of the input, x -> (n,) or (n, 1) before the sigmoid, all of which is trained. None: a network of the
        features.
    hidden, learning_rate, weight_decay : of both networks and their Adams. seed : of the random split.

    split_ : (n_train,) the last q of each row. held_out_ : (k,) the rows held out in this pass, with hard_split=True.
    gap_ : mean loss of the held-out rows minus that of the others, over the last whole pass with a learned split.
    should_stop : whether that gap was smaller than in the pass before (or than 0 in the first): the published early stopping.
    Source: Jain et al. (2024), Improving generalization via meta-learning on hard samples.
    """

    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)
    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "network_optimizer", "splitter_optimizer")

    split_: Tensor
    is_held_out: Tensor
    sides: Tensor
    gaps: Tensor

    def __init__(
        self,
        n_train: int,
        n_features: int,
        n_classes: int,
        *,
        share: float = 0.1,
        hard_split: bool = False,
        threshold: float = _HALF,
        network: nn.Module | None = None,
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
        gradient = gradient_from(gradient, optimizer, mode, product, every, usual_every=5)
        if warmup_epochs is not None:
            raise ValueError(
                f"warmup_epochs= of LRWOpt, the first epochs with a random split, is now splitter_warmup={warmup_epochs!r}: "
                "elsewhere warmup_epochs holds all weights at 1."
            )
        if gradient.mode == "last_layer":
            raise ValueError('LRWOpt validates on shares of rows: use mode="exact" or mode="first_order".')
        check_number("share", share, "(0, 1)")
        check_count("regularize_every", regularize_every)
        check_number("threshold", threshold, "(0, 1)", ", the probability of training up to which a hard split holds a row out")
        if threshold != _HALF and not hard_split:
            raise ValueError(f"threshold={threshold!r} is of a hard split: give hard_split=True too, or leave it out.")
        check_number("splitter_warmup", splitter_warmup, "[0, inf]")
        check_count("n_classes", n_classes, 2)
        super().__init__(n_train, loss, gradient=gradient)
        self.check_targets = partial(labels_to_look_up, "LRWOpt", n_classes=n_classes)
        self.network = WeightOfInput(network) if network is not None else FeatureNetwork(n_features, hidden)
        self.splitter = FeatureNetwork(n_features + n_classes, hidden)
        self.network_optimizer = Adam(self.network.parameters(), learning_rate, weight_decay=weight_decay)
        self.splitter_optimizer = Adam(self.splitter.parameters(), learning_rate, weight_decay=weight_decay)
        self.share, self.n_classes, self.backbone = share, n_classes, backbone
        self.regularize_every = regularize_every
        self.hard_split = hard_split
        self.threshold = threshold
        self.splitter_warmup = splitter_warmup
        drawn = torch.rand(n_train, generator=torch.Generator().manual_seed(seed)) < share
        self.register_buffer("split_", drawn.to(self.weights_.dtype))
        self.register_buffer("is_held_out", self.split_.clone())
        self.register_buffer("sides", torch.zeros(2, 2))  # losses and rows of the held-out side and of the other, in this pass
        self.register_buffer("gaps", torch.zeros(2))  # of the last pass and the one before

    @property
    def held_out_(self) -> Tensor:
        """Rows (k,) that validate in this pass. Raises RuntimeError without hard_split=True."""
        if not self.hard_split:
            raise RuntimeError("LRWOpt holds out a mass of every row, split_; with hard_split=True it holds out rows.")
        return self.is_held_out.nonzero()[:, 0]

    @property
    def gap_(self) -> float:
        """Mean held-out loss minus mean training loss, of the last whole pass with a learned split; waits for the device."""
        return float(self.gaps[0])

    @property
    def should_stop(self) -> bool:
        """Whether the gap fell in the last whole pass; waits for the device."""
        return bool(self.gaps[0] < self.gaps[1])

    @property
    def is_split_at_random(self) -> bool:
        """Whether the split is still the random one of the warm-up."""
        return self.epoch < self.splitter_warmup

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        weights = self._learned(batch, rows, val)
        if self.hard_split:
            self._count_sides(batch, rows)
        return weights

    def _learned(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        features = features_of(batch, self.backbone)
        if isinstance(self.network, FeatureNetwork):
            self.network.check(features)
        if not self.is_split_at_random:
            if self.is_due:
                self._learn_split(batch, features, rows)
            with torch.no_grad():
                rows.write(self.split_, torch.sigmoid(self._split_logits(features, batch.y)))
        q = (self.is_held_out if self.hard_split else self.split_)[rows.positions]
        # If a whole batch is held out its rows are weighted as usual: a mean of 0 would give NaN.
        mass = (1.0 - q).clamp(min=_LEAST)
        if self.hard_split and self.is_split_at_random:
            return rows.mean_one(mass)
        entry = features if isinstance(self.network, FeatureNetwork) else batch.x

        def weights_now() -> Tensor:
            return rows.mean_one(mass * self.network(entry))

        def held_out_loss(predict: Predict) -> Tensor:
            """sum_i q_i l_i / sum_i q_i; 0 where nothing is held out."""
            losses = self.losses(predict(batch.x), batch.y)
            return rows.sum(q * losses) / rows.sum(q).clamp(min=_LEAST)

        def slope_of(weights: Tensor) -> Tensor:
            if self.hard_split and val is not None:
                return self.meta.of(batch, weights, val)
            return self.meta.of_loss(batch, weights, held_out_loss)

        return learned_weights(self, weights_now, slope_of, rows)

    @torch.no_grad()
    def _count_sides(self, batch: TrainingPass, rows: RowBatch) -> None:
        """Add the losses of both sides; with the last batch of a pass, store the gap and make the next split."""
        q, losses = self.is_held_out[rows.positions], batch.losses.detach().to(self.sides.dtype)
        sums = [rows.sum(side * part) for side in (q, 1.0 - q) for part in (losses, torch.ones_like(losses))]
        self.sides.copy_(rows.accept(self.sides + torch.stack(sums).reshape(2, 2), self.sides))
        if int((self.rows_seen + len(rows.all_positions)) / self.n_train) == int(self.epoch):
            return
        (held, n_held), (left, n_left) = self.sides
        if not self.is_split_at_random:
            gap = held / n_held.clamp(min=1.0) - left / n_left.clamp(min=1.0)
            self.gaps.copy_(torch.stack([gap, self.gaps[0]]))
            self.is_held_out.copy_(self._new_split())
        self.sides.zero_()

    def _new_split(self) -> Tensor:
        """1 for the rows (n_train,) that the next pass holds out, those with the largest q."""
        most = max(1, int(self.share * self.n_train))
        least = max(1, int(_LEAST_HELD * most))
        n_held = (1.0 - self.split_ <= self.threshold).sum().clamp(least, most)
        places = self.split_.argsort(descending=True, stable=True).argsort()
        return (places < n_held).to(self.is_held_out.dtype)

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
        step_with(self.splitter_optimizer, parameters, [torch.where(is_finite, gradient, 0.0) for gradient in gradients])

    def _split_loss(self, logits: Tensor, y: Tensor, is_right: Tensor, losses: Tensor) -> Tensor:
        q = torch.sigmoid(logits)
        loss = functional.binary_cross_entropy_with_logits(-logits, is_right) - (q * losses).sum() / q.sum().clamp(min=_LEAST)
        if (self.steps_seen // self.every) % self.regularize_every == 0:
            loss = loss + _bernoulli_kl(q.mean(), self.share) + self._class_kl(q, y) + self._class_kl(1.0 - q, y)
        return loss

    def _class_kl(self, mass: Tensor, y: Tensor) -> Tensor:
        """KL divergence of the classes' shares in `mass` (n,) from their shares in the batch."""
        one_hot = functional.one_hot(y, self.n_classes).to(mass.dtype)
        part, whole = mass @ one_hot / mass.sum().clamp(min=_LEAST), one_hot.mean(dim=0)
        # 0 log 0 is 0, with a finite slope.
        return (part * torch.log(part.clamp(min=_LEAST) / whole.clamp(min=_LEAST))).sum()


def _bernoulli_kl(p: Tensor, share: float) -> Tensor:
    parts = ((p, share), (1.0 - p, 1.0 - share))
    return torch.stack([part * torch.log(part.clamp(min=_LEAST) / whole) for part, whole in parts]).sum()
