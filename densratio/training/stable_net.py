"""StableNet: weights of a batch that make random functions of different features uncorrelated; it needs no validation rows."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._validation import check_count, check_number
from .loop.batch_reweighter import BatchReweighter
from .loop.draws import generator_of
from .loop.row_batch import RowBatch
from .loop.training_pass import TrainingPass
from .losses import Loss, cross_entropy

__all__ = ["StableNet"]

_MOMENTUM = 0.9


class StableNet(BatchReweighter):
    """w = n softmax(a) (n,), where a few gradient steps from a = 1 in each batch reduce D(w) / D(1) + penalty mean(w^2).

    D sums the squared weighted covariances of sqrt(2) cos(omega z_i + phi) and sqrt(2) cos(omega' z_j + phi') over all pairs of
    features i != j. The features are the inputs of the classifier's last nn.Linear, divided by their standard deviations. Each step
    draws omega (standard normal) and phi (uniform on [0, 2 pi]). The covariances also count `n_saved` saved rows with weights of
    their
    own: saved row k is the moving average of the k-th rows of the batches so far. The weights have mean 1.

    If a shortcut feature reveals the class and is correlated with another feature in the training rows, the weights decorrelate the
    two, so that the classifier can rely on the one that also holds in other data. The weights say nothing about wrong labels.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    n_features : int
        Inputs of the last nn.Linear.
    n_functions : int
        Functions of each feature: 1 in the authors' program, 5 in the paper; time and memory grow with the square.
    n_saved : int >= 0
        Saved rows.
    decay : float in [0, 1)
        Of the moving averages; in the first batches they are plain means.
    n_steps, learning_rate : int, float
        Gradient steps with momentum 0.9. The gradient is n times the slope, of root mean square at most 1; the second half of the
        steps uses a tenth of the rate.
    penalty : float >= 0
        Penalty on unequal weights; a larger one keeps them closer to 1.
    seed : int
        Of the draws.
    warmup_epochs, loss : as in `MWNet`.

    Raises ValueError for a model without a last nn.Linear of inputs (n, n_features).
    Source: Zhang et al. (2021), Deep stable learning for out-of-distribution generalization.
    """

    keeps: ClassVar[tuple[str, ...]] = ("last_layer",)

    saved_features: Tensor
    saved_scores: Tensor
    visits: Tensor

    def __init__(
        self,
        n_train: int,
        n_features: int,
        *,
        n_functions: int = 1,
        n_saved: int = 128,
        decay: float = 0.9,
        n_steps: int = 20,
        learning_rate: float = 0.1,
        penalty: float = 1.0,
        seed: int = 0,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        self.n_features = check_count("n_features", n_features, more=", the columns of the input of the last nn.Linear")
        self.n_functions = check_count("n_functions", n_functions, more=" of each feature")
        self.n_steps = check_count("n_steps", n_steps, more=" of each batch")
        if n_saved != 0:
            check_count("n_saved", n_saved, more=", or 0")
        check_number("decay", decay, "[0, 1)")
        check_number("learning_rate", learning_rate, "(0, inf)")
        check_number("penalty", penalty, "[0, inf)")
        self.decay, self.learning_rate, self.penalty, self.seed = decay, learning_rate, penalty, seed
        self.register_buffer("saved_features", torch.zeros(n_saved, n_features))
        self.register_buffer("saved_scores", torch.ones(n_saved))
        self.register_buffer("visits", torch.zeros(n_saved))

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        # Every rank weights the rows of all ranks, so that it saves the same rows as one process.
        features = rows.all(batch.features("StableNet", self.n_features).to(self.saved_features.dtype))
        with torch.autocast(features.device.type, enabled=False):
            scores = self._descended(features)
            self._save(features, scores, rows)
        return rows.own(len(scores) * scores.softmax(dim=0))

    def _descended(self, features: Tensor) -> Tensor:
        """a (n,) after the steps."""
        known = torch.cat([features, self.saved_features])
        is_known = torch.cat([torch.ones_like(features[:, 0]), (self.visits > 0).to(features.dtype)])
        even = is_known / is_known.sum()
        saved_scores = torch.where(self.visits > 0, self.saved_scores, -float("inf"))
        known, scores, velocity = _scaled(known, even), torch.ones_like(features[:, 0]), torch.zeros_like(features[:, 0])
        for step, (omega, phi) in enumerate(self._draws(features)):
            # (N, d f), with the functions of one feature side by side.
            functions = (sqrt(2.0) * torch.cos(known[:, :, None] * omega + phi)).flatten(1)
            velocity = _MOMENTUM * velocity + self._slope(scores, saved_scores, functions, even)
            rate = self.learning_rate if 2 * step < self.n_steps else 0.1 * self.learning_rate
            scores = scores - rate * velocity
        return scores

    def _draws(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Frequencies and phases (d, f) for each step, drawn on the host: the same on every rank and after a resume."""
        generator = generator_of(self.seed, self.steps_seen)
        shape = self.n_steps, self.n_features, self.n_functions
        omega = torch.randn(shape, generator=generator)
        phi = 2.0 * pi * torch.rand(shape, generator=generator)
        return zip(*(drawn.to(like.device, like.dtype, non_blocking=True) for drawn in (omega, phi)), strict=True)

    def _slope(self, scores: Tensor, saved_scores: Tensor, functions: Tensor, even: Tensor) -> Tensor:
        """n times the slope (n,) of the objective in a, of root mean square 1 at most."""
        # Covariances of functions of size 1 are rounded to about eps.
        n, rounding = len(scores), functions.shape[1] * 10.0 * torch.finfo(functions.dtype).eps
        base = self._dependence(functions, even).clamp(min=rounding**2)
        with torch.enable_grad():
            scores = scores.detach().requires_grad_()
            weights = torch.cat([scores, saved_scores]).softmax(dim=0)
            dependence = self._dependence(functions, weights) / base
            value = dependence + self.penalty * n * scores.softmax(dim=0).square().sum()
            slope = n * torch.autograd.grad(value, scores)[0]
        # If one weight outgrows all others both terms are steep, and too long a step would not return.
        return slope / slope.square().mean().sqrt().clamp(min=1.0)

    def _dependence(self, functions: Tensor, weights: Tensor) -> Tensor:
        """D () under weights (N,) of sum 1."""
        mean = weights @ functions
        covariance = (functions * weights[:, None]).mT @ functions - torch.outer(mean, mean)
        feature = torch.arange(self.n_features, device=weights.device).repeat_interleave(self.n_functions)
        return torch.where(feature[:, None] == feature, 0.0, covariance).square().sum()

    def _save(self, features: Tensor, scores: Tensor, rows: RowBatch) -> None:
        """Move the saved rows toward those of the batch, unless a value of the batch is not finite."""
        n, is_sound = min(len(features), len(self.visits)), torch.isfinite(features).all() & torch.isfinite(scores).all()
        visits = self.visits[:n]
        share = (1.0 / (visits + 1.0)).clamp(min=1.0 - self.decay)
        for stored, new in (
            (self.saved_features[:n], torch.lerp(self.saved_features[:n], features[:n], share[:, None])),
            (self.saved_scores[:n], torch.lerp(self.saved_scores[:n], scores[:n], share)),
            (visits, visits + 1.0),
        ):
            stored.copy_(rows.accept(torch.where(is_sound, new, stored), stored))


def _scaled(values: Tensor, even: Tensor) -> Tensor:
    """Columns (N, d) of mean 0 and standard deviation 1 under the weights (N,); of 0 where they are constant but for rounding."""
    centered = values - even @ values
    spread = (even @ centered.square()).sqrt()
    is_constant = spread <= 10.0 * torch.finfo(spread.dtype).eps * values.abs().amax(dim=0)
    return torch.where(is_constant, 0.0, centered / torch.where(is_constant, 1.0, spread))
