"""DynamicReweighter: one warm-started step of a divergence in each batch, from weights stored for each training row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .._validation import check_index
from ..estimators import IN_LOOPS, DensityRatio

__all__ = ["DynamicReweighter", "Reweighter"]

# One step a batch from the last weights regularises by itself.
_LOOP_DEFAULTS: dict[str, dict[str, float]] = {"kmm": {"regularization": 0.0}}
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(prediction: Tensor, label: Tensor) -> Tensor:
    """Cross entropy (n,) of each row."""
    return nn.functional.cross_entropy(prediction, label, reduction="none")


class Reweighter(nn.Module, ABC):
    """One line of a training loop: `loss = reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))`.

    weights_ (n_train,): the current weight of each training row, mean 1 in each batch it was estimated in.
    loss: per-row loss (prediction, label) -> (n,); cross entropy by default.
    """

    weights_: Tensor

    def __init__(self, n_train: int, loss: Loss = cross_entropy):
        super().__init__()
        if n_train < 1:
            raise ValueError(f"n_train must be >= 1, the number of training rows; got {n_train}.")
        self.loss = loss
        self.register_buffer("weights_", torch.ones(n_train))

    @abstractmethod
    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        """Scalar ready for backward; train = (x, y, index), val = (x_val, y_val, val_index), a batch of each."""

    def transform(self, index: Any) -> Tensor:
        """Current weights (n,) of the training rows `index` (n,), detached."""
        return self.weights_[self._positions(index, len(index), "index")].clone()

    def _positions(self, index: Any, n_rows: int, name: str, n_declared: int | None = None) -> Tensor:
        checked = check_index(index, n_rows, len(self.weights_) if n_declared is None else n_declared, name)
        return torch.as_tensor(checked, dtype=torch.int64, device=self.weights_.device)


class DynamicReweighter(Reweighter):
    """Dynamic importance weighting: weights of the training rows under which their losses match the validation losses.

    Each `partial_fit` reads the stored entries of the batch, does the ratio's `n_steps` projected-gradient (KLIEP:
    expectation-maximisation) steps from them, and stores the result. KMM and Wasserstein store one weight for each
    training row; KLIEP and LSIF one coefficient for each validation row, the kernel centres of the batch.

    ratio : DensityRatio, or a name in {"kmm", "kliep", "lsif", "wasserstein"} for that method with gamma="target_spread".
    n_train, n_val : rows in the training and the validation set, over which index and val_index range.
    warmup_epochs : first passes over the data with all weights 1, counted in rows seen / n_train; the first losses say little.
    warmup_steps : the same as a number of batches, in place of warmup_epochs.
    loss : per-row loss of `weighted_loss`.

    All state, the stored vectors and the counts of the warm-up, is in state_dict: a resumed run gives the same weights.
    Source: Fang et al. (2020), DIW, and its accelerated form ADIW.
    """

    coef_: Tensor

    def __init__(
        self,
        ratio: DensityRatio | str,
        n_train: int,
        n_val: int,
        *,
        warmup_epochs: float = 1.0,
        warmup_steps: int | None = None,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss)
        if n_val < 1:
            raise ValueError(f"n_val must be >= 1, the number of validation rows; got {n_val}.")
        if not warmup_epochs >= 0 or (warmup_steps is not None and warmup_steps < 0):
            raise ValueError(f"warmup_epochs and warmup_steps must be >= 0; got {warmup_epochs!r} and {warmup_steps!r}.")
        self.ratio = _ratio(ratio)
        self.n_val = n_val
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_steps
        self.rows_seen = 0
        self.steps_seen = 0
        self._stores_weights = self.ratio._make_objective().anchors == "source"
        if not self._stores_weights:
            self.register_buffer("coef_", torch.ones(n_val))

    @property
    def is_warming_up(self) -> bool:
        """Whether the weights are still held at 1."""
        if self.warmup_steps is not None:
            return self.steps_seen < self.warmup_steps
        return self.rows_seen < self.warmup_epochs * len(self.weights_)

    @torch.no_grad()
    def partial_fit(self, train: Tensor, val: Tensor, index: Any, val_index: Any = None) -> DynamicReweighter:
        """Estimate the weights of a batch. train (n,) or (n, d): its losses or features; val (m,) or (m, d); index (n,).

        val_index (m,) names the validation rows; KLIEP and LSIF need it unless val holds all n_val rows in order.
        A row that stands in the batch more than once gets the mean of its weights. Gradients are not followed.
        Raises ValueError, before any stored entry changes, for non-finite input, lengths that differ, or an index out of range.
        """
        positions = self._positions(index, len(train), "index")
        val_positions = self._val_positions(val, val_index)
        source, target = self._rows(train, "training", positions), self._rows(val, "validation", val_positions)
        if source.shape[1] != target.shape[1]:
            raise ValueError(f"train has {source.shape[1]} columns and val has {target.shape[1]}: give the same quantity of both.")
        if self.steps_seen == 0:
            # A parameter that is out of range is told with the first batch, not when the warm-up is over.
            self.ratio.update(source, target)
        if not self.is_warming_up:
            bank, entries = (self.weights_, positions) if self._stores_weights else (self.coef_, val_positions)
            update = self.ratio.update(*_cheapest(source, target, bank[entries].to(source.dtype)))
            if not self._stores_weights:
                _scatter_mean(bank, entries, update.coef)
            _scatter_mean(self.weights_, positions, update.weights)
        self.rows_seen += len(positions)
        self.steps_seen += 1
        return self

    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        """mean(w * loss) of a training batch (x, y, index), with w estimated against a validation batch (x, y, index)."""
        (x, y, index), (x_val, y_val, val_index) = train, val
        losses = self.loss(model(x), y)
        with torch.no_grad(), frozen_statistics(model):
            val_losses = self.loss(model(x_val), y_val)
        weights = self.partial_fit(losses.detach(), val_losses, index, val_index).transform(index)
        return (weights.to(losses.device, losses.dtype) * losses).mean()

    def get_extra_state(self) -> dict[str, int]:
        """Counts of the warm-up, for state_dict."""
        return {"rows_seen": self.rows_seen, "steps_seen": self.steps_seen}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take up the counts of a state_dict."""
        self.rows_seen, self.steps_seen = state["rows_seen"], state["steps_seen"]

    def extra_repr(self) -> str:
        return f"{self.ratio}, n_train={len(self.weights_)}, n_val={self.n_val}"

    def _val_positions(self, val: Tensor, val_index: Any) -> Tensor:
        if val_index is None:
            if self._stores_weights or len(val) == self.n_val:
                val_index = range(len(val))
            else:
                raise ValueError(
                    f"val_index is needed: {type(self.ratio).__name__} stores one coefficient for each of the {self.n_val} "
                    f"validation rows and this batch has {len(val)}. Wrap the validation set in Indexed to get it."
                )
        return self._positions(list(val_index) if isinstance(val_index, range) else val_index, len(val), "val_index", self.n_val)

    def _rows(self, values: Tensor, name: str, positions: Tensor) -> Tensor:
        """(n, d) in at least float32 on the device of the stored vectors; finite."""
        values = values.detach()
        if values.ndim not in (1, 2) or len(values) == 0:
            raise ValueError(f"The {name} losses or features must be (n,) or (n, d) with n >= 1; got shape {tuple(values.shape)}.")
        dtype = torch.promote_types(values.dtype, torch.float32)
        rows = values.reshape(len(values), -1).to(self.weights_.device, dtype)
        finite = torch.isfinite(rows).all(dim=1)
        if not finite.all():
            bad = positions[~finite].tolist()
            raise ValueError(
                f"NaN or infinity in {name} rows {bad[:10]}{' ...' if len(bad) > 10 else ''} ({len(bad)} of {len(rows)}); the "
                "stored weights are unchanged. Lower the learning rate, clip gradients, or skip the batch."
            )
        return rows


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Within it normalisation layers in training mode normalise as usual, and what they record is forgotten afterwards."""
    recorded = [
        (layer, name, buffer)
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.training
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    # Stand-ins take the updates, so that the true buffers are not written to and autograd sees no change in them.
    for layer, name, buffer in recorded:
        layer._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for layer, name, buffer in recorded:
            layer._buffers[name] = buffer


def _ratio(ratio: DensityRatio | str) -> DensityRatio:
    if isinstance(ratio, DensityRatio):
        return ratio
    if not isinstance(ratio, str) or ratio not in IN_LOOPS:
        raise ValueError(f"ratio must be a DensityRatio such as KLIEP() or one of {sorted(IN_LOOPS)}; got {ratio!r}.")
    return IN_LOOPS[ratio]().set_params(**_LOOP_DEFAULTS.get(ratio, {}), gamma="target_spread")


def _cheapest(*tensors: Tensor) -> tuple[Any, ...]:
    """The same memory as numpy arrays on a CPU, where an operation on a batch costs numpy half of what it costs torch."""
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def _scatter_mean(bank: Tensor, positions: Tensor, values: Any) -> None:
    """bank[positions] = values, and their mean where a position stands more than once; no wait for the device."""
    values = torch.as_tensor(values)
    counts = bank.index_fill_(0, positions, 0.0).index_add_(0, positions, torch.ones_like(bank[positions]))[positions]
    bank.index_fill_(0, positions, 0.0).index_add_(0, positions, values.to(bank.dtype) / counts)
