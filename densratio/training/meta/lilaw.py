"""LiLAW: three learned numbers weight easy, moderate and hard rows by the softmax of their labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..._arrays import waits_for
from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.labels import labels_to_look_up
from ..loop.ranks import Rows
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..loop.validation_pass import validation_pass
from ..losses import Loss, cross_entropy

__all__ = ["Difficulty", "LiLAW", "lilaw_weights"]

_log = logging.getLogger("densratio")


class Difficulty(NamedTuple):
    """The three parts (n,) of LiLAW's weights; a weight is their sum.

    easy: sigmoid(alpha s_y - s_max); hard: sigmoid(-(beta s_y - s_max)); moderate: exp(-(delta s_y - s_max)^2 / 2).
    """

    easy: Tensor
    hard: Tensor
    moderate: Tensor


def lilaw_weights(s_y: Tensor, s_max: Tensor, alpha: Any, beta: Any, delta: Any) -> Difficulty:
    """Parts of the weights from the softmax of the label (n,) and the largest softmax (n,)."""
    return Difficulty(
        torch.sigmoid(alpha * s_y - s_max), torch.sigmoid(-(beta * s_y - s_max)), torch.exp(-((delta * s_y - s_max) ** 2) / 2.0)
    )


class LiLAW(BatchReweighter):
    """w_i = easy_i + hard_i + moderate_i of `Difficulty`, with alpha, beta and delta learned on the validation batch.

    The classifier minimizes mean(w l), and backward also follows the weights, which are functions of its softmax: as constants they
    would drive it toward wrong labels more than toward right ones. In each batch alpha, beta and delta take one plain gradient step
    on mean(w l) of the validation rows. The paper takes it after the classifier's step, this class at the beginning of the next
    batch. The validation rows may be noisy like the others.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    alpha, beta, delta : float
        Initial values.
    learning_rate, weight_decay : float
        Of their steps.
    bounded : bool
        Whether each step is followed by the paper's constraints alpha >= 1 and delta >= beta. The initial values must satisfy them
        too.
    temperature : float > 0
        Of the softmax in the weights.
    parts : names among "easy", "hard", "moderate"
        The parts that are summed; the number of a part that is left out only decays.
    warmup_epochs : float
        Initial passes with all weights 1, in which the three numbers stay.
    loss : per-row loss of class labels, such as `densratio.training.losses.focal`.

    alpha, beta and delta are parameters of the module and in state_dict. difficulty (n_train, 3): the parts of each row's weight
    when it was last in a batch, in the order of `Difficulty`; in the first epochs the easy part ranks wrong labels best.
    The weights are not scaled to mean 1.
    Source: Moturu, Goldenberg & Taati (2025), LiLAW: lightweight learnable adaptive weighting.
    """

    uses_validation: ClassVar[bool] = True
    check_targets = staticmethod(partial(labels_to_look_up, "LiLAW"))

    difficulty: Tensor

    def __init__(
        self,
        n_train: int,
        *,
        alpha: float = 10.0,
        beta: float = 2.0,
        delta: float = 6.0,
        learning_rate: float = 0.005,
        weight_decay: float = 1e-4,
        bounded: bool = True,
        temperature: float = 1.0,
        parts: Sequence[str] = Difficulty._fields,
        warmup_epochs: float = 1.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if bounded and not (alpha >= 1.0 and delta >= beta):
            raise ValueError(
                f"alpha must be >= 1 and delta >= beta; got alpha={alpha!r}, beta={beta!r}, delta={delta!r}. "
                "bounded=False takes any."
            )
        check_number("temperature", temperature, "(0, inf)")
        if isinstance(parts, str) or not parts or len(set(parts)) < len(parts) or not set(parts) <= set(Difficulty._fields):
            raise ValueError(f"parts must be some of {list(Difficulty._fields)}, each once; got {parts!r}.")
        self.bounded, self.temperature, self.parts = bounded, float(temperature), tuple(parts)
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.beta = nn.Parameter(torch.tensor(float(beta)))
        self.delta = nn.Parameter(torch.tensor(float(delta)))
        self.learning_rate = check_number("learning_rate", learning_rate, "[0, inf)")
        self.weight_decay = check_number("weight_decay", weight_decay, "[0, inf)")
        self.register_buffer("difficulty", torch.zeros(n_train, 3))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        s_y, s_max = _softmax(batch.prediction / self.temperature, batch.y)
        self._learn(batch.model, val)
        # Copies: several losses may wait for one backward, and the next batch changes the numbers.
        parts = lilaw_weights(s_y, s_max, *(number.clone() for number in self.learned_numbers.values()))
        rows.write(self.difficulty, torch.stack(parts, dim=1))
        return self._sum(parts)

    @torch.no_grad()
    def weights_at(self, s_y: Any, s_max: Any) -> Tensor:
        """Present weights (n,) for the softmax of the label (n,) and the largest softmax (n,)."""
        s_y, s_max = (torch.as_tensor(part, device=self.alpha.device) for part in (s_y, s_max))
        return self._sum(lilaw_weights(s_y, s_max, self.alpha, self.beta, self.delta))

    @property
    def learned_numbers(self) -> dict[str, Tensor]:
        """alpha, beta and delta by name, for a `Monitor`."""
        return {"alpha": self.alpha.detach(), "beta": self.beta.detach(), "delta": self.delta.detach()}

    def _sum(self, difficulty: Difficulty) -> Tensor:
        return torch.stack([getattr(difficulty, part) for part in self.parts]).sum(dim=0)

    def _learn(self, model: nn.Module, val: Any) -> None:
        with validation_pass(model):
            prediction: Tensor = model(val[0])
            losses = self.losses(prediction, val[1]).float()
        rows, parameters = Rows(len(losses)), [self.alpha, self.beta, self.delta]
        with torch.enable_grad():
            softmax = _softmax(prediction.detach() / self.temperature, val[1])
            loss = rows.mean(self._sum(lilaw_weights(*softmax, *parameters)) * losses)
            found = torch.autograd.grad(loss, parameters, materialize_grads=True)
            gradient = torch.stack(rows.gradient(found))
        if not waits_for(gradient.device) and not bool(torch.isfinite(gradient).all()):
            _log.warning("LiLAW: the validation losses of batch %d are not finite, and nothing is learned.", self.steps_seen)
        with torch.no_grad():
            rate = torch.where(torch.isfinite(gradient).all(), self.learning_rate, 0.0)
            for parameter, own in zip(parameters, gradient.nan_to_num(), strict=True):
                parameter.sub_(rate * (own + self.weight_decay * parameter))
            if self.bounded:
                self.alpha.clamp_(min=1.0)
                self.delta.copy_(torch.maximum(self.delta, self.beta))


def _softmax(prediction: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax of the label (n,) and the largest (n,) of logits (n, C). Raises ValueError for others."""
    y = labels_to_look_up("LiLAW", prediction, y)
    softmax = torch.softmax(prediction.float(), dim=1)
    return softmax.gather(1, y[:, None])[:, 0], softmax.amax(dim=1)
