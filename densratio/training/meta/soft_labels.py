"""Pseudo-labels of an averaged model and mixup, for training rows whose labels the weights distrust."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..loop.losses import cross_entropy
from ..loop.moving_average import MovingAverage
from ..loop.ranks import of_all_ranks
from ..loop.training_pass import BatchPass

__all__ = ["MixedLabels", "SoftLabels"]


class MixedLabels(NamedTuple):
    """A batch mixed with itself in another order: x = share x + (1 - share) x[order], share in [1/2, 1].

    y (n,): given labels; z (n, C): pseudo-labels; order (n,).
    """

    x: Tensor
    y: Tensor
    z: Tensor
    order: Tensor
    share: float

    @staticmethod
    def losses(prediction: Tensor, labels: Any) -> Tensor:
        """Cross entropies (4n,) against y, z, y[order] and z[order]."""
        mixed: MixedLabels = labels
        of_labels = mixed.y, mixed.z.to(prediction.dtype), mixed.y[mixed.order], mixed.z[mixed.order].to(prediction.dtype)
        return torch.cat([cross_entropy(prediction, label) for label in of_labels])

    def given_losses(self, rows: BatchPass) -> Tensor:
        """Losses (2n,) of the pass against the given labels y and y[order], detached."""
        n = len(self.y)
        losses = rows.losses.detach()
        return torch.cat([losses[:n], losses[2 * n : 3 * n]])


class SoftLabels(nn.Module):
    """z = softmax of a moving average of the classifier, and the draws of mixup.

    decay : of the moving average of the parameters.
    ensemble : alpha of a temporal ensemble z <- alpha z + (1 - alpha) p over the epochs, or None.
    mixup : the Beta parameter of the shares, or None for no mixup.
    seed : int, of the draws.
    kept : (n_train, C) the ensemble, after the first batch.
    Its state, the draws too, is in state_dict. Source: Shu et al. (2023), CMW-Net-SL; Laine & Aila (2017), temporal ensembling.
    """

    kept: Tensor | None

    def __init__(self, decay: float = 0.99, ensemble: float | None = 0.9, mixup: float | None = 1.0, seed: int = 0):
        super().__init__()
        if (ensemble is not None and not 0.0 <= ensemble < 1.0) or (mixup is not None and not mixup > 0.0):
            raise ValueError(f"ensemble must be in [0, 1) and mixup > 0, or None; got {ensemble!r} and {mixup!r}.")
        self.average = MovingAverage(decay)
        self.ensemble = ensemble
        self.mixup = mixup
        self._random = np.random.default_rng(seed)
        self.register_buffer("kept", None)

    def mix(self, model: nn.Module, x: Any, y: Tensor, positions: Tensor, n_train: int) -> MixedLabels:
        """The mixed batch of the rows `positions` (n,) of n_train. Raises ValueError for input that can't be averaged."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError("soft_labels mix rows of the input, which must be one tensor of floats; got another kind of input.")
        z = self._pseudo_labels(model, x, positions, n_train)
        n, share = len(y), 1.0
        order = torch.arange(n)
        if self.mixup is not None:
            share = self._random.beta(self.mixup, self.mixup)
            share, order = max(share, 1.0 - share), torch.as_tensor(self._random.permutation(n))
        order = order.to(x.device, non_blocking=True)
        return MixedLabels(share * x + (1.0 - share) * x[order] if share < 1.0 else x, y, z, order, float(share))

    def _pseudo_labels(self, model: nn.Module, x: Tensor, positions: Tensor, n_train: int) -> Tensor:
        p = torch.softmax(self.average.predict(model, x).float(), dim=1)
        if self.ensemble is None:
            return p
        if self.kept is None:
            # Of sum 0 until the row's first visit.
            self.kept = p.new_zeros((n_train, p.shape[1]))
        kept = self.kept[positions]
        z = torch.where(kept.sum(dim=1, keepdim=True) > 0, self.ensemble * kept + (1.0 - self.ensemble) * p, p)
        return z

    def here(self) -> tuple[Any, ...]:
        """Where the average and the draws are, for `go_back`."""
        return dict(self.average.values), self.average.n_steps, self._random.bit_generator.state

    def go_back(self, place: tuple[Any, ...]) -> None:
        """To where `here` was called, after a batch that could not be used."""
        self.average.values, self.average.n_steps, self._random.bit_generator.state = place

    def keep(self, mixed: MixedLabels, positions: Tensor, is_usable: Tensor | bool) -> None:
        """Take the pseudo-labels of a batch that can be used into the ensemble."""
        if self.kept is not None:
            of_all, z = of_all_ranks(positions), of_all_ranks(mixed.z)
            self.kept[of_all] = z if isinstance(is_usable, bool) else torch.where(is_usable, z, self.kept[of_all])

    def get_extra_state(self) -> dict[str, Any]:
        """State of the draws, for state_dict."""
        return {"random": self._random.bit_generator.state}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the draws of a state_dict."""
        self._random.bit_generator.state = state["random"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # The number of classes is known with the first batch, or here.
        stored = state_dict.get(prefix + "kept")
        if stored is not None and self.kept is None:
            self.kept = torch.zeros_like(stored)
        super()._load_from_state_dict(state_dict, prefix, *args)
