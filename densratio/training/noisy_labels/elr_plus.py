"""ELR+: ELR with two networks, moving averages of both, and mixed rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._validation import check_count, check_number
from ..loop.draws import Draws
from ..loop.labels import labels_to_look_up
from ..loop.mixed_labels import check_mixup, mixed, mixup_of
from ..loop.model import device_of_model, unwrapped
from ..loop.moving_average import MovingAverage
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..loop.validation_pass import evaluation, validation_pass
from ..losses import class_probabilities, cross_entropy
from .elr import agreement_term, normalized
from .peer import Both, WithPeer

__all__ = ["ELRPlus"]

_MIXUP = 1.0  # published


class _Mixed(NamedTuple):
    """A batch for one of the networks: rows x mixed, with labels (n, K) as targets and averages t (n, K)."""

    x: Any
    targets: Tensor
    t: Tensor


class ELRPlus(WithPeer):
    """`ELR` with two networks, each of which is kept near what the average of the other one has predicted.

    loss_i = l(z_i) + strength log(1 - <p_i, t_i>) of mixed rows, z mixed labels and t mixed averages. The average of a row is
    t <- decay t + (1 - decay) p', p' the softmax of the unmixed row under the moving average of the other network's parameters.
    The peer takes its own step on such a loss within `weighted_loss`.

    Parameters
    ----------
    n_train, n_classes, strength, decay, warmup_epochs : as in `ELR`. model, optimizer, peer : as in `CoTeaching`.
    parameter_decay : float in [0, 1), of the moving averages of the parameters; 0.997 as published.
    mixup : float > 0, "auto" or None
        Beta parameter of the mixing, or None for none. "auto": 1 as published for images and other rows (n, c, ...), none for
        rows (n, d), where it costs accuracy, and for input of several tensors.
    seed : int, of the draws of the mixing.

    All weights are 1; `suspicious_rows` ranks by the losses under the model's average. targets, peer_targets (n_train, K): the
    averages t of both networks. average, peer_average: the moving averages of their parameters. All are in state_dict. To be mixed
    the input must be one tensor of floats; base weights multiply the losses of rows that are not mixed. The averages predict in
    eval mode. A step costs about three of plain training.
    It differs from the published program in that both networks learn in every batch, where theirs take turns by epoch; averaged
    networks have averaged running statistics and predict in eval mode, where theirs stay in training mode; and the averages t stay
    0 in a warm-up. What the program does for CIFAR-100 alone, a strength that rises and labels times t, is left out.
    Raises ValueError with the first batch for other predictions or labels.
    Source: Liu et al. (2020), Early-learning regularization prevents memorization of noisy labels.
    """

    saved: ClassVar[tuple[str, ...]] = (*WithPeer.saved, "draws")

    targets: Tensor
    peer_targets: Tensor

    def __init__(
        self,
        n_train: int,
        n_classes: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        peer: nn.Module | None = None,
        strength: float = 3.0,
        decay: float = 0.7,
        parameter_decay: float = 0.997,
        mixup: float | str | None = "auto",
        warmup_epochs: float = 0.0,
        seed: int = 0,
    ):
        super().__init__(n_train, model, optimizer, peer, cross_entropy, warmup_epochs=warmup_epochs)
        check_count("n_classes", n_classes)
        self.check_targets = partial(labels_to_look_up, "ELRPlus", n_classes=n_classes)
        self.n_classes = n_classes
        self.strength = check_number("strength", strength, "[0, inf)")
        self.decay = check_number("decay", decay, "[0, 1)")
        self.mixup = check_mixup(mixup)
        self.refuse_base_weights_of(mixup)
        self.draws = Draws(seed)
        self.average, self.peer_average = MovingAverage(parameter_decay), MovingAverage(parameter_decay)
        for name in ("targets", "peer_targets"):
            self.register_buffer(name, torch.zeros(n_train, n_classes))

    def _restorer(self) -> Callable[[], None]:
        """A function that restores the averages and the draws of now."""
        averages, restore_draws = (self.average, self.peer_average), self.draws.restorer()
        held = [(average.values.copy(), average.n_steps) for average in averages]

        def restore() -> None:
            for average, (values, n_steps) in zip(averages, held, strict=True):
                average.values, average.n_steps = values, n_steps
            restore_draws()

        return restore

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        batch.found["added"] = self.strength * agreement_term(batch.prediction, batch.y.own.t)
        return torch.ones_like(batch.losses.detach())

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """The peer's step, also in a warm-up."""
        self.remember_peer(rows)
        with self.as_peer():
            if isinstance(batch.y, Both):
                batch.found["plain_losses"], peer = batch.y.losses, batch.y.peer
                prediction = self.peer_prediction(batch.model, peer.x)
                loss = cross_entropy(prediction, peer.targets.to(prediction.dtype))
                loss = loss + self.strength * agreement_term(prediction, peer.t)
            else:
                loss = self.losses(self.peer_prediction(batch.model, batch.x), batch.y)
            self.step_peer(rows.mean(self.base_of(rows, loss) * loss), rows)

    # ------------------------------------------------------------ a mixed batch

    def _passed(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        self.mixing(self.mixup, x, _MIXUP)  # what can't be mixed is told with the first batch
        restore = self._restorer()
        self.average.follow(model)
        self.peer_average.follow(self.peer)
        try:
            batch, rows = super()._passed(model, x, y, index) if self.is_warming_up else self._of_both(model, x, y, index)
        except Exception:
            restore()
            raise
        rows.undo(restore)
        return batch, rows

    def _of_both(self, model: nn.Module, x: Any, y: Any, index: Any) -> tuple[TrainingPass, RowBatch]:
        averaged = [self.average.predict(model, x), self._averaged_peer(model, x)]
        labels = self.check_targets(averaged[0], y)
        losses, y = self._marked(self.losses(averaged[0], y), y, labels), labels
        rows = self._rows(index, len(y))
        rows.check(losses[:, None], self.n_train, self.late_errors)
        try:
            own, peer = (self._mixed(x, y, self._renewed(stored, averaged[1 - k], rows)) for k, stored in enumerate(self._stored))
            batch = TrainingPass.of(model, own.x, Both(own, peer, losses), Both.cross_entropies)
            rows.check(batch.losses.detach()[:, None], self.n_train, self.late_errors)
        except Exception:
            rows.take_back()
            raise
        return batch, rows

    @property
    def _stored(self) -> tuple[Tensor, Tensor]:
        return self.targets, self.peer_targets

    def _renewed(self, stored: Tensor, prediction: Tensor, rows: RowBatch) -> Tensor:
        """The averages (n, K) of the rows after their renewal by a prediction."""
        fresh = normalized(class_probabilities(prediction))
        rows.write(stored, torch.lerp(fresh, stored[rows.positions].to(fresh.dtype), self.decay))
        return stored[rows.positions]

    def _averaged_peer(self, model: nn.Module, x: Any) -> Tensor:
        values = self.peer_average.values_on(device_of_model(self.peer))
        with validation_pass(model), evaluation(unwrapped(model)):
            return self.peer_prediction(model, x, leaves_trace=False, tensors=values)

    def _mixed(self, x: Any, y: Tensor, t: Tensor) -> _Mixed:
        z = functional.one_hot(y, self.n_classes).to(t.dtype)
        return _Mixed(*mixed((x, z, t), mixup_of(self.mixup, x, _MIXUP), self.draws))
