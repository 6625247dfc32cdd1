"""Pseudo-labels of an averaged model and mixup, for training rows whose labels the weights distrust."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..loop.moving_average import MovingAverage
from ..loop.ranks import n_ranks, rank_here
from ..loop.row_batch import RowBatch
from ..loop.state import before_loading
from ..loop.training_pass import TrainingPass
from ..losses import cross_entropy

__all__ = ["MixedLabels", "SoftLabels", "check_mixable"]


class MixedLabels(NamedTuple):
    """A batch mixed with itself in another order: x = share x + (1 - share) x[order], share in [1/2, 1].

    y (n,): given labels; z (n, C): pseudo-labels; order (n,).
    """

    x: Tensor
    y: Tensor
    z: Tensor
    order: Tensor
    share: float

    @classmethod
    def drawn(cls, x: Tensor, y: Tensor, z: Tensor, mixup: float | None, random: np.random.Generator) -> MixedLabels:
        """The batch with a share of Beta(mixup, mixup) and an order drawn at random, or as it is where mixup is None.

        Every rank mixes its own rows in an order of its own; the draws left in the generator are the same on all.
        """
        share, order = 1.0, torch.arange(len(y))
        if mixup is not None:
            share = random.beta(mixup, mixup)
            # As many numbers are drawn on every rank, whatever rows it has.
            own = np.random.default_rng(random.integers(2**63, size=n_ranks())[rank_here()])
            share, order = max(share, 1.0 - share), torch.as_tensor(own.permutation(len(y)))
        order = order.to(x.device, non_blocking=True)
        return cls(share * x + (1.0 - share) * x[order] if share < 1.0 else x, y, z, order, float(share))

    def shared(self, v: Tensor, v_of_order: Tensor) -> Tensor:
        """Weights (4n,) of the four losses of each row, for shares v (n,) of the given label in rows and in rows[order].

        They are scaled so that their mean with the losses is the mean over rows.
        """
        parts = zip((self.share, 1.0 - self.share), (v, v_of_order), strict=True)
        return 4.0 * torch.cat([part for a, b in parts for part in (a * b, a * (1.0 - b))])

    @property
    def weight_scale(self) -> float:
        """What the first n of these weights are multiplied by to be v."""
        return 1.0 / (4.0 * self.share)

    @staticmethod
    def losses(prediction: Tensor, labels: Any) -> Tensor:
        """Cross entropies (4n,) against y, z, y[order] and z[order]."""
        mixed: MixedLabels = labels
        of_labels = mixed.y, mixed.z.to(prediction.dtype), mixed.y[mixed.order], mixed.z[mixed.order].to(prediction.dtype)
        return torch.cat([cross_entropy(prediction, label) for label in of_labels])

    def given_losses(self, rows: TrainingPass) -> Tensor:
        """Losses (2n,) of the pass against the given labels y and y[order], detached."""
        n = len(self.y)
        losses = rows.losses.detach()
        return torch.cat([losses[:n], losses[2 * n : 3 * n]])


def check_mixable(x: Any) -> None:
    """Raise ValueError for input that can't be averaged."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise ValueError("Soft labels and mixup need input of one tensor of floats; got another kind of input.")


class SoftLabels(nn.Module):
    """z = softmax of a moving average of the classifier, and the draws of mixup.

    decay : of the moving average of the parameters.
    ensemble : alpha of a temporal ensemble z <- alpha z + (1 - alpha) p over the epochs, or None.
    mixup : the Beta parameter of the shares, or None for no mixup.
    seed : int, of the draws.
    kept : (n_train, C) the ensemble, after the first batch.
    Its state, with that of the draws, is in state_dict.
    Source: Shu et al. (2023), CMW-Net-SL; Laine & Aila (2017), temporal ensembling.
    """

    kept: Tensor | None

    def __init__(self, decay: float = 0.99, ensemble: float | None = 0.9, mixup: float | None = 1.0, seed: int = 0):
        super().__init__()
        if (ensemble is not None and not 0.0 <= ensemble < 1.0) or (mixup is not None and not mixup > 0.0):
            raise ValueError(f"ensemble must be in [0, 1) and mixup > 0, or None; got {ensemble!r} and {mixup!r}.")
        self.average = MovingAverage(decay)
        self.ensemble = ensemble
        self.mixup = mixup
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self.register_buffer("kept", None)
        before_loading(self, _make_kept)

    def mix(self, model: nn.Module, x: Any, y: Tensor, rows: RowBatch, n_train: int) -> MixedLabels:
        """The mixed batch of these rows of n_train. Raises ValueError for input that can't be averaged."""
        check_mixable(x)
        z = self._pseudo_labels(model, x, rows.positions, n_train)
        return MixedLabels.drawn(x, y, z, self.mixup, self._random)

    def _pseudo_labels(self, model: nn.Module, x: Tensor, positions: Tensor, n_train: int) -> Tensor:
        p = torch.softmax(self.average.predict(model, x).float(), dim=1)
        if self.ensemble is None:
            return p
        if self.kept is None:
            # Of sum 0 until the row's first visit.
            self.kept = p.new_zeros((n_train, p.shape[1]))
        kept = self.kept[positions]
        return torch.where(kept.sum(dim=1, keepdim=True) > 0, self.ensemble * kept + (1.0 - self.ensemble) * p, p)

    @contextmanager
    def unchanged_on_error(self) -> Iterator[None]:
        """Within it an error leaves the average and the draws as they were."""
        average, draws, kept = (dict(self.average.values), self.average.n_steps), self._random.bit_generator.state, self.kept
        try:
            yield
        except Exception:
            (self.average.values, self.average.n_steps), self._random.bit_generator.state, self.kept = average, draws, kept
            raise

    def keep(self, mixed: MixedLabels, rows: RowBatch) -> None:
        """Store the pseudo-labels of a batch in the ensemble."""
        if self.kept is not None:
            rows.write(self.kept, mixed.z)

    def get_extra_state(self) -> dict[str, Any]:
        """State of the draws, for state_dict."""
        return {"random": self._random.bit_generator.state}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the state of the draws."""
        self._random.bit_generator.state = state["random"]


def _make_kept(labels: SoftLabels, stored: dict[str, Tensor]) -> None:
    # The number of classes is known with the first batch, or here.
    if "kept" in stored and labels.kept is None:
        labels.kept = torch.zeros_like(stored["kept"])
