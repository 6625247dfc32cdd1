"""DivideMix: two networks, each of which says which labels the other one may learn; the other rows have guessed ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._validation import check_number
from ..loop.draws import Draws
from ..loop.labels import labels_to_look_up
from ..loop.mixed_labels import check_mixup, mixed, mixup_of
from ..loop.ranks import Rows
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..loop.validation_pass import validation_pass
from ..losses import class_probabilities, cross_entropy
from .even_classes import distance_from_even
from .gaussian_mixture import GaussianMixture
from .peer import Both, WithPeer

__all__ = ["DivideMix"]

_MIXUP = 4.0  # published
_COPIES = 2  # of each row, where they are drawn by augment
_OWN, _PEER = 0, 1


class _Divided(NamedTuple):
    """A batch for one of the networks: rows x (m, ...) mixed, their targets (m, K), and which rows count as labeled (m,)."""

    x: Tensor
    targets: Tensor
    is_labeled: Tensor


class DivideMix(WithPeer):
    """Semi-supervised learning by two networks, each of which divides the rows into labeled and unlabeled ones for the other.

    At the start of each pass over the data a mixture of two Gaussians is fitted to the losses that the rows had in their last batch
    under each network; w_i = P(label right | loss) under the other network. Of a batch the rows with w_i >= threshold are labeled,
    with w_i y_i + (1 - w_i) p_i as target, p_i the network's own softmax; the target of the others is the mean softmax of both
    networks. Targets are sharpened, t_k^(1/temperature) / sum, and all rows are mixed with others of the batch. The loss is

        mean over labeled rows of the cross entropy + lambda mean over the others of (1/K) |p - t|^2
            + prior sum_k (1/K) log((1/K) / mean_i p_ik)

    with lambda from 0 to `unlabeled_weight` over `ramp_epochs`. The peer takes its own step on such a loss within `weighted_loss`.

    Parameters
    ----------
    n_train, model, optimizer, peer : as in `CoTeaching`.
    threshold : float in [0, 1], of w_i; 0.5 as published.
    temperature : float > 0; 0.5 as published.
    mixup : float > 0, "auto" or None
        Beta parameter of the mixing, or None for none. "auto": 4 as published for images and other rows (n, c, ...), none for
        rows (n, d), where it costs accuracy, and for input of several tensors.
    unlabeled_weight : float >= 0; published from 0 (20 % wrong labels, or 40 % asymmetric) over 25 to 150 (80 % of CIFAR-100).
    ramp_epochs : float >= 0; 16 as published.
    prior : float >= 0; 1 as published.
    augment : callable (n, ...) -> (n, ...) or None
        Random copies of the rows: as published two of each are passed and trained on. None: each row once, as the loop gives it.
    warmup_epochs : float
        Initial passes with the plain loss; 10 as published for CIFAR-10.
    seed : int, of the draws of the mixing.

    weights_ holds n / n_labeled for a labeled row of the batch and 0 for another, and last_losses (n_train, 2) the losses under
    both networks. `peer` and its optimizer are in state_dict. To be mixed the input must be one tensor of floats. Base weights
    multiply the terms of rows that are not mixed, and weigh the mean prediction; which rows are labeled does not depend on them. As
    published the sum of both networks' logits predicts. A step costs about three of plain training.
    It differs from the published program in that both networks learn in every batch, where theirs take turns by epoch; labeled and
    unlabeled rows come in the numbers of the batch, where theirs are drawn apart in equal numbers; the mixture is fitted to the
    losses of each row's last batch and gives w_i from that of the present one, where theirs are of a pass over all rows; and losses
    and guesses are of networks in training mode, where theirs are in eval mode but for a network's own guesses.
    Raises ValueError with the first batch for other predictions or labels.
    Source: Li, Socher & Hoi (2020), DivideMix: learning with noisy labels as semi-supervised learning.
    """

    saved: ClassVar[tuple[str, ...]] = (*WithPeer.saved, "fitted_pass", "draws")

    check_targets = staticmethod(partial(labels_to_look_up, "DivideMix"))
    last_losses: Tensor

    def __init__(
        self,
        n_train: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        peer: nn.Module | None = None,
        threshold: float = 0.5,
        temperature: float = 0.5,
        mixup: float | str | None = "auto",
        unlabeled_weight: float = 25.0,
        ramp_epochs: float = 16.0,
        prior: float = 1.0,
        augment: Callable[[Tensor], Tensor] | None = None,
        warmup_epochs: float = 10.0,
        seed: int = 0,
    ):
        super().__init__(n_train, model, optimizer, peer, cross_entropy, warmup_epochs=warmup_epochs)
        self.threshold = check_number("threshold", threshold, "[0, 1]")
        self.temperature = check_number("temperature", temperature, "(0, inf)")
        self.mixup = check_mixup(mixup)
        self.unlabeled_weight = check_number("unlabeled_weight", unlabeled_weight, "[0, inf)")
        self.ramp_epochs = check_number("ramp_epochs", ramp_epochs, "[0, inf)")
        self.prior = check_number("prior", prior, "[0, inf)")
        self.refuse_base_weights_of(mixup)
        if augment is not None and not callable(augment):
            raise ValueError(f"augment must be a function that gives a random copy of the rows x, or None; got {augment!r}.")
        self.augment = augment
        self.fitted_pass = -1
        self.draws = Draws(seed)
        self.mixtures = nn.ModuleList(GaussianMixture() for _ in (_OWN, _PEER))
        self.register_buffer("last_losses", torch.zeros(n_train, 2))

    def _mixture(self, network: int) -> GaussianMixture:
        return self.mixtures[network]  # type: ignore[return-value]

    @property
    def present_weight(self) -> float:
        """lambda of the next batch."""
        passed = self.epoch - self.warmup_epochs
        share = min(1.0, max(0.0, passed) / self.ramp_epochs) if self.ramp_epochs > 0 else 1.0
        return self.unlabeled_weight * share

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        batch.found["added"] = self._added(batch.prediction, batch.y.own, rows)
        return _mean_one(batch.y.own.is_labeled, batch.losses, rows)

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """The losses of both networks, and the peer's step."""
        self.remember_peer(rows)
        with self.as_peer():
            if isinstance(batch.y, Both):
                losses, loss = batch.y.losses, self._peer_loss(batch.model, batch.y.peer, rows)
            else:
                of_peer = self.losses(self.peer_prediction(batch.model, batch.x), batch.y)
                losses, loss = torch.stack([batch.losses.detach(), of_peer.detach()], dim=1), of_peer
                loss = rows.mean(self.base_of(rows, loss) * loss)
        batch.found["plain_losses"] = losses[:, _OWN]
        rows.write(self.last_losses, losses)
        self.step_peer(loss, rows)

    # ------------------------------------------------------------ a divided batch

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        self.mixing(self.mixup, x, _MIXUP)  # what can't be mixed is told with the first batch
        if self.augment is not None and not isinstance(x, Tensor):
            raise ValueError(f"The copies that augment gives must be of one tensor; got a {type(x).__name__}: leave augment out.")
        if self.is_warming_up:
            return super()._passed(model, x, y, index)
        copies = [x] if self.augment is None else [self.augment(x) for _ in range(_COPIES)]
        losses, p, y = self._seen(model, copies, y)
        rows = self._rows(index, len(y))
        rows.check(losses, self.n_train, self.late_errors)
        rows.undo(self.draws.restorer())
        try:
            if self.fitted_pass != int(self.epoch):
                self._fit(rows)
            own, peer = (self._divided(network, copies, y, losses, p) for network in (_OWN, _PEER))
            batch = TrainingPass.of(model, own.x, Both(own, peer, losses), Both.cross_entropies)
            rows.check(batch.losses.detach().reshape(len(copies), -1).T, self.n_train, self.late_errors)
        except Exception:
            rows.take_back()
            raise
        return batch, rows

    def _fit(self, rows: RowBatch) -> None:
        """Fit the mixtures, once in a pass over the data."""
        rows.undo(partial(setattr, self, "fitted_pass", self.fitted_pass))
        for buffer in self.mixtures.buffers():
            rows.remember(buffer)
        for network in (_OWN, _PEER):
            self._mixture(network).fit(self.last_losses[:, network], self.row_losses.mass > 0)
        self.fitted_pass = int(self.epoch)

    def _seen(self, model: nn.Module, copies: list[Tensor], y: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Losses (n, 2) and probabilities (2, n, K) of the rows under both networks, means over the copies, and their labels (n,).

        It leaves no trace.
        """
        losses, probabilities = [], []
        for predict in (model, partial(self.peer_prediction, model, leaves_trace=False)):
            with validation_pass(model):
                predictions = [predict(copy) for copy in copies]
            labels = self.check_targets(predictions[0], y)
            found = torch.stack([self.losses(prediction, y) for prediction in predictions]).mean(dim=0)
            losses.append(self._marked(found, y, labels))
            probabilities.append(torch.stack([class_probabilities(prediction) for prediction in predictions]).mean(dim=0))
        return torch.stack(losses, dim=1), torch.stack(probabilities), labels

    def _divided(self, network: int, copies: list[Tensor], y: Tensor, losses: Tensor, p: Tensor) -> _Divided:
        """The batch for one of the networks, divided by the losses (n, 2) under the other; p (2, n, K): probabilities of both."""
        other = 1 - network
        right = self._mixture(other).lower(losses[:, other]).to(p.dtype)[:, None]
        refined = right * functional.one_hot(y, p.shape[2]) + (1.0 - right) * p[network]
        is_labeled = right[:, 0] >= self.threshold
        target = torch.where(is_labeled[:, None], refined, p.mean(dim=0)).clamp(min=torch.finfo(p.dtype).tiny)
        target = torch.softmax(target.log() / self.temperature, dim=1).repeat(len(copies), 1)
        x, is_labeled = copies[0] if len(copies) == 1 else torch.cat(copies), is_labeled.repeat(len(copies))
        x, target = mixed((x, target), mixup_of(self.mixup, x, _MIXUP), self.draws)
        return _Divided(x, target, is_labeled)

    def _peer_loss(self, model: nn.Module, divided: _Divided, rows: RowBatch) -> Tensor:
        prediction = self.peer_prediction(model, divided.x)
        losses = cross_entropy(prediction, divided.targets.to(prediction.dtype))
        terms = _mean_one(divided.is_labeled, losses, rows) * losses + self._added(prediction, divided, rows)
        return rows.mean(self.base_of(rows, losses) * terms)

    def _added(self, prediction: Tensor, divided: _Divided, rows: RowBatch) -> Tensor:
        """The terms (m,) of the unlabeled rows and of the mean prediction."""
        p = class_probabilities(prediction)
        squares = ((p - divided.targets.to(p.dtype)) ** 2).mean(dim=1)
        unlabeled = self.present_weight * _mean_one(~divided.is_labeled, squares, rows) * squares
        base = None if self.base_weights is None else self.base_of(rows, squares)
        return unlabeled + self.prior * distance_from_even(p, Rows(len(p)), base)


def _mean_one(is_chosen: Tensor, like: Tensor, rows: RowBatch) -> Tensor:
    """Weights (m,) of mean 1 of the chosen rows, in the dtype of `like`; 0 if none is chosen."""
    weights = is_chosen.to(like.dtype)
    return weights / rows.mean(weights).clamp(min=torch.finfo(like.dtype).tiny)
