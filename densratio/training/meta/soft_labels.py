"""Pseudo-labels of an averaged model, and mixup, for training rows whose labels the weights distrust."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..._validation import check_number
from ..loop.mixed_labels import MixedLabels, check_mixable
from ..loop.moving_average import MovingAverage
from ..loop.row_batch import RowBatch
from ..loop.state import as_stored, before_loading

__all__ = ["SoftLabels"]


class SoftLabels(nn.Module):
    """Pseudo-labels z, the softmax of a moving average of the classifier, and the draws of mixup.

    decay : of the moving average of the parameters.
    ensemble : alpha of a temporal ensemble z <- alpha z + (1 - alpha) p over the epochs, or None.
    mixup : Beta parameter of the shares, or None for no mixup.
    seed : int, of the draws.
    kept : (n_train, C) the ensemble, after the first batch.
    state_dict holds all state, the draws included.
    Source: Shu et al. (2023), CMW-Net-SL; Laine & Aila (2017), temporal ensembling.
    """

    kept: Tensor | None

    def __init__(self, decay: float = 0.99, ensemble: float | None = 0.9, mixup: float | None = 1.0, seed: int = 0):
        super().__init__()
        if ensemble is not None:
            check_number("ensemble", ensemble, "[0, 1)", " or None")
        if mixup is not None:
            check_number("mixup", mixup, "(0, inf)", " or None")
        self.average = MovingAverage(decay)
        self.ensemble = ensemble
        self.mixup = mixup
        self.seed = seed
        self._random = np.random.default_rng(seed)
        self.register_buffer("kept", None)
        before_loading(self, _make_kept)

    def mix(self, model: nn.Module, x: Any, y: Tensor, rows: RowBatch, n_train: int) -> MixedLabels:
        """The mixed batch of these rows of n_train. Raises ValueError for input that can't be mixed."""
        if self.mixup is not None:
            check_mixable(x, "give soft_labels=SoftLabels(mixup=None)")
        z = self._pseudo_labels(model, x, rows.positions, n_train)
        return MixedLabels.drawn(x, y, z, self.mixup, self._random)

    def _pseudo_labels(self, model: nn.Module, x: Any, positions: Tensor, n_train: int) -> Tensor:
        p = torch.softmax(self.average.predict(model, x).float(), dim=1)
        if self.ensemble is None:
            return p
        if self.kept is None:
            # Rows sum to 0 until their first visit.
            self.kept = p.new_zeros((n_train, p.shape[1]))
        # A state that was loaded before the first batch is where the checkpoint was.
        self.kept = self.kept.to(p.device)
        kept = self.kept[positions]
        return torch.where(kept.sum(dim=1, keepdim=True) > 0, self.ensemble * kept + (1.0 - self.ensemble) * p, p)

    @contextmanager
    def unchanged_on_error(self) -> Iterator[None]:
        """Inside it an error leaves the average and the draws as they were before."""
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
    as_stored(labels, "kept", stored, lambda: torch.zeros_like(stored["kept"]))
