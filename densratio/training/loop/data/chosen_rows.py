"""Validation batches without a clean validation set: the easiest training rows of each class, or random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate

from ...._validation import check_count, check_number
from ...losses import Loss, cross_entropy
from ..labels import training_labels
from ..model import device_of_model
from ..moving_average import MovingAverage
from ..state import all_or_nothing
from .indexed import Indexed, map_style

__all__ = ["ChosenRows", "rows_at"]


class ChosenRows(nn.Module):
    """Validation batches (x, y, index) of k training rows per class: those easiest for an averaged model, or random ones.

    Call `choose(model)` at the start of each epoch and `batch(model)` in each step: it returns what `weighted_loss` takes as val.
    A class with fewer than k rows gives all of them, some more than once.

    Parameters
    ----------
    dataset : map-style data set of (x, y) or (x, y, index)
        The training rows.
    labels : (n_train,) int
        Their given labels, 0..C-1.
    k : int
        Rows of each class.
    by : "loss" or "chance"
        "loss": the rows of the least loss, for wrong labels. "chance": rows drawn anew in each choice, for unequal classes with
        right labels; k is then the size of the smallest class, as published.
    batch_size : int
        Rows of a batch, at most n_val.
    mixup : float, None or "auto"
        Beta parameter of the share in which each row is mixed with another of its batch; labels are then probabilities (m, C).
        None: rows and labels stay as they are. "auto", as published: 1 with by="loss", None with by="chance".
    decay : float in [0, 1)
        Of the moving average of the model.
    seed : int
        Of the draws, the order of the rows and mixup.
    loss : per-row loss that ranks the rows.

    n_val : k C. rows_ (n_val,): the training rows chosen last. All state is in state_dict.
    Source: Shu et al. (2023), CMW-Net, where the meta data are chosen this way.
    """

    rows_: Tensor

    def __init__(
        self,
        dataset: Dataset[Any],
        labels: Any,
        *,
        k: int = 10,
        by: str = "loss",
        batch_size: int = 128,
        mixup: float | str | None = "auto",
        decay: float = 0.99,
        seed: int = 0,
        loss: Loss = cross_entropy,
    ):
        super().__init__()
        self.dataset, self.loss = map_style(dataset, "dataset"), loss
        self.labels = training_labels(labels, len(dataset), "labels")  # type: ignore[arg-type]
        if by not in ("loss", "chance"):
            raise ValueError(f'by must be "loss" or "chance"; got {by!r}.')
        if mixup == "auto":
            mixup = 1.0 if by == "loss" else None
        self.mixup = None if mixup is None else check_number("mixup", mixup, "(0, inf)", ', None or "auto"')
        self.k, self.by, self.batch_size = check_count("k", k, more=" of each class"), by, check_count("batch_size", batch_size)
        self.n_classes = int(self.labels.max()) + 1
        self.average = MovingAverage(decay)
        self._random = np.random.default_rng(seed)
        self._order = np.arange(0)
        self.register_buffer("rows_", torch.full((self.n_val,), -1, dtype=torch.int64))

    @property
    def n_val(self) -> int:
        """Number of validation rows, k of each class."""
        return self.k * self.n_classes

    @torch.no_grad()
    def choose(self, model: nn.Module) -> None:
        """Choose the rows, class by class; with by="loss" this takes one pass over all training rows."""
        order = self._random.permutation(len(self.labels)) if self.by == "chance" else self._by_loss(model)
        chosen = [np.resize(order[self.labels[order] == c][: self.k], self.k) for c in range(self.n_classes)]
        self.rows_.copy_(torch.as_tensor(np.concatenate(chosen)))

    def _by_loss(self, model: nn.Module) -> np.ndarray:
        """All rows (n_train,), those of the least loss first."""
        device, parts, size = device_of_model(model), [], max(512, self.batch_size)
        for start in range(0, len(self.labels), size):
            x, y = rows_at(self.dataset, np.arange(start, min(start + size, len(self.labels))))
            parts.append(self.loss(self.average.predict(model, x.to(device)), y.to(device)).float())
        losses = torch.cat(parts).cpu().numpy()
        if not np.isfinite(losses).any():
            raise ValueError(
                "The model's losses are NaN or infinite on all rows, and none is the least: load a state from before that."
            )
        return np.argsort(losses, kind="stable")

    def batch(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Move the average toward the model's present parameters, and return the next batch (x, y, index) on the model's device."""
        average, drawn = (dict(self.average.values), self.average.n_steps), (self._random.bit_generator.state, self._order)
        rows = self.rows_.clone()
        try:
            return self._next(model)
        except Exception:
            (self.average.values, self.average.n_steps), (self._random.bit_generator.state, self._order) = average, drawn
            self.rows_.copy_(rows)
            raise

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Continue from a state_dict. Raises RuntimeError, and changes nothing, where it does not fit."""
        with all_or_nothing(self, f"This state does not fit ChosenRows of {self.n_val} rows; nothing was loaded."):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def _next(self, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        self.average.follow(model)
        if bool((self.rows_ < 0).any()):
            self.choose(model)
        if len(self._order) < min(self.batch_size, self.n_val):
            self._order = self._random.permutation(self.n_val)
        index, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        x, y = rows_at(self.dataset, self.rows_.cpu().numpy()[index])
        y = y.reshape(len(x)).long()
        if self.mixup is not None:
            x, y = self._mixed(x, y, self.mixup)
        device = device_of_model(model)
        # Without non_blocking the host would wait for the copies.
        return x.to(device, non_blocking=True), y.to(device, non_blocking=True), torch.as_tensor(index)

    def get_extra_state(self) -> dict[str, Any]:
        """State of the draws, for state_dict."""
        return {"random": self._random.bit_generator.state, "order": torch.as_tensor(self._order)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the state of the draws."""
        self._random.bit_generator.state, self._order = state["random"], state["order"].cpu().numpy()

    def _mixed(self, x: Tensor, y: Tensor, mixup: float) -> tuple[Tensor, Tensor]:
        if not x.is_floating_point():
            raise ValueError("mixup averages inputs, which must be floats; give mixup=None for these.")
        n = len(x)
        share = torch.as_tensor(self._random.beta(mixup, mixup, n), dtype=x.dtype)
        other, one_hot = torch.as_tensor(self._random.permutation(n)), functional.one_hot(y, self.n_classes).to(x.dtype)
        of_x = share.reshape(-1, *([1] * (x.ndim - 1)))
        return of_x * x + (1 - of_x) * x[other], share[:, None] * one_hot + (1 - share[:, None]) * one_hot[other]


def rows_at(dataset: Any, rows: np.ndarray) -> tuple[Any, Any]:
    """x and y of these rows (m,) of a data set: at once where they are rows of tensors, otherwise collated as by a loader."""
    # Classes of their own may change what these give.
    while type(dataset) is Subset or (type(dataset) is Indexed and dataset.y_key is None):
        rows = np.asarray(dataset.indices)[rows] if isinstance(dataset, Subset) else rows
        dataset = dataset.dataset
    if type(dataset) is TensorDataset:
        at = torch.as_tensor(rows)
        x, y = (part[at.to(part.device)] for part in dataset.tensors[:2])
        return x, y
    several = getattr(dataset, "__getitems__", None)
    items = [dataset[row] for row in rows.tolist()] if several is None else several(rows.tolist())
    x, y = default_collate([tuple(item[:2]) for item in items])
    return x, y
