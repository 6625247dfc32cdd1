"""DynamicReweighter: one warm-started step of a divergence in each batch, from weights stored for each training row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..estimators import IN_LOOPS, DensityRatio, Update
from .batch import Batch, collect
from .class_wise import ClassFrequencies
from .losses import Loss, cross_entropy
from .passes import LayerOutputs, first_rows, validation_pass
from .reweighter import Reweighter, mean_of_all_ranks
from .validation_bank import ValidationBank
from .watch import Watch, waits_for

__all__ = ["DynamicReweighter"]

# One step a batch from the last weights regularises by itself.
_LOOP_DEFAULTS: dict[str, dict[str, float]] = {"kmm": {"regularization": 0.0}}
_BANK_CENTERS = 256  # validation rows that are kernel centres where all of them are the target
_LEAST_ROWS = 2  # of a class, in both samples of a batch: one row's weight is 1 whatever the others are

Transformation = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, label, losses (n,)) -> what is compared, (n,) or (n, d)."""


class DynamicReweighter(Reweighter):
    """Dynamic importance weighting: weights of the training rows under which their losses match the validation losses.

    Each `partial_fit` reads the stored entries of the batch, does the ratio's `n_steps` projected-gradient (KLIEP:
    expectation-maximisation) steps from them, and stores the result. KMM and Wasserstein store one weight for each
    training row; KLIEP and LSIF one coefficient for each validation row, the kernel centres of the batch.

    Parameters
    ----------
    ratio : DensityRatio, or a name in {"kmm", "kliep", "lsif", "wasserstein"} for that method with gamma="target_spread".
    n_train, n_val : int
        Rows in the training and the validation set, over which index and val_index range.
    layer : str or None
        Name of a module of the model, as in `model.named_modules()`, whose output (flattened, detached) `weighted_loss`
        compares in place of the losses, class by class.
    transformation : callable (prediction, label, losses) -> (n,) or (n, d), or None
        What `weighted_loss` compares in place of the losses.
    y_train, y_val : (n_train,), (n_val,) int, or None
        Classes of all rows. The estimate is then class by class in every batch, times the class-prior ratio
        (n_val,y / n_val) / (n_train,y / n_train). Without them the classes told with the batches so far give that ratio.
    val_refresh : int or None
        Keep the last known value of every validation row, renew this many rows a step (`weighted_loss` passes on only as many
        of the validation batch), and compare with all. None: compare with the validation batch.
    forget : float in [0, 1)
        For a target that drifts: stored weights and coefficients move this share of the way to 1 before each step, and of the
        kept validation values only those of the last 1 / forget steps count.
    to_convergence : bool
        Solve each batch to the ratio's tolerance in place of the steps.
    warmup_epochs : float
        First passes over the data with all weights 1, counted in rows seen / n_train; the first losses say little.
    warmup_steps : int or None
        The same as a number of batches, in place of warmup_epochs.
    loss : per-row loss of `weighted_loss`.

    Attributes
    ----------
    weights_ : (n_train,) current weights. coef_ : (n_val,) coefficients of KLIEP and LSIF.
    too_small_ : dict, class -> batches in which it had fewer than two rows in either sample and kept its stored weights.

    All state, the stored vectors and the counts of the warm-up, is in state_dict: a resumed run gives the same weights, with
    another number of ranks too.
    On a GPU no step waits for the device, except one class by class: a batch that can't be used (NaN, infinity, an index out of
    range) changes nothing, and its error comes with the next batch.
    Source: Fang et al. (2020), DIW, and its accelerated form ADIW.
    """

    coef_: Tensor

    def __init__(
        self,
        ratio: DensityRatio | str,
        n_train: int,
        n_val: int,
        *,
        layer: str | None = None,
        transformation: Transformation | None = None,
        y_train: Any = None,
        y_val: Any = None,
        val_refresh: int | None = None,
        forget: float = 0.0,
        to_convergence: bool = False,
        warmup_epochs: float = 1.0,
        warmup_steps: int | None = None,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss)
        _check(n_val, layer, transformation, y_train, y_val, val_refresh, forget, warmup_epochs, warmup_steps)
        self.ratio = _ratio(ratio)
        self.n_val = n_val
        self.layer = layer
        self.transformation = transformation
        self.val_refresh = val_refresh
        self.forget = forget
        self.to_convergence = to_convergence
        self.warmup_epochs = warmup_epochs
        self.warmup_steps = warmup_steps
        self.rows_seen = 0
        self.steps_seen = 0
        self.too_small_: dict[int, int] = {}
        self._stores_weights = self.ratio._make_objective().anchors == "source"
        if not self._stores_weights:
            self.register_buffer("coef_", torch.ones(n_val))
        self.classes: ClassFrequencies | None = None
        if y_train is not None:
            self.classes = ClassFrequencies.declared(y_train, y_val, n_train, n_val)
        elif layer is not None:
            self.classes = ClassFrequencies.unknown(n_train, n_val)
        self.bank = None if val_refresh is None else ValidationBank(n_val, forget)
        self.watch = Watch()
        self._outputs = LayerOutputs(layer)

    @property
    def is_warming_up(self) -> bool:
        """Whether the weights are still held at 1."""
        if self.warmup_steps is not None:
            return self.steps_seen < self.warmup_steps
        return self.rows_seen < self.warmup_epochs * len(self.weights_)

    @torch.no_grad()
    def partial_fit(
        self, train: Tensor, val: Tensor, index: Any, val_index: Any = None, y: Any = None, y_val: Any = None
    ) -> DynamicReweighter:
        """Estimate the weights of a batch. train (n,) or (n, d): its losses or features; val (m,) or (m, d); index (n,).

        val_index (m,) names the validation rows; KLIEP and LSIF need it unless val holds all n_val rows in order, as do
        val_refresh and an estimate class by class. y (n,), y_val (m,): the classes; with them (or where they were declared) the
        estimate is class by class, and a class of fewer than two rows in either sample keeps its stored weights.
        A row that stands in the batch more than once gets the mean of its weights. Gradients are not followed.
        Raises ValueError, before any stored entry changes, for non-finite input, lengths that differ, or an index out of range.
        """
        self.watch.raise_if_seen()
        with _single_precision(self.weights_.device):
            labels = self._labels(y, y_val)
            val_index = self._val_index(val, val_index, by_class=labels[0] is not None or self.classes is not None)
            batch = collect(train, val, index, val_index, labels, (len(self.weights_), self.n_val), self.watch)
            if self.steps_seen == 0:
                # A parameter that is out of range is told with the first batch, not when the warm-up is over.
                self.ratio.update(*_cheapest(batch.source, batch.target))
            target, val_positions = self._target(batch)
            if self.classes is not None and batch.y is not None and batch.y_val is not None:
                self.classes.record(batch.y, batch.positions, batch.y_val, batch.val_positions)
            if not self.is_warming_up:
                self._estimate(batch, target, val_positions)
        self.rows_seen += len(batch.positions)
        self.steps_seen += 1
        return self

    def weighted_loss(self, model: nn.Module, train: Any, val: Any) -> Tensor:
        """mean(w * loss) of a training batch (x, y, index), with w estimated against a validation batch (x, y, index).

        The validation rows pass through the model in the mode it is in, and leave neither gradients nor a trace in the running
        statistics and the random generators. Call it inside autocast or not: the estimate is in single precision.
        """
        (x, y, index), (x_val, y_val, val_index) = train, val
        if self.val_refresh is not None:
            x_val, y_val, val_index = (first_rows(part, self.val_refresh) for part in (x_val, y_val, val_index))
        losses, compared = self._pass(model, x, y)
        with validation_pass(model):
            val_compared = self._pass(model, x_val, y_val)[1]
        labels = (y, y_val) if self.classes is not None else (None, None)
        weights = self.partial_fit(compared, val_compared, index, val_index, *labels).transform(index)
        return mean_of_all_ranks(weights.to(losses.device, losses.dtype) * losses)

    def check(self) -> None:
        """Raise the error of a batch that could not be used, and wait for the device to tell: at the end of an epoch, say."""
        self.watch.raise_if_seen(wait=True)

    def get_extra_state(self) -> dict[str, Any]:
        """Counts, for state_dict."""
        return {"rows_seen": self.rows_seen, "steps_seen": self.steps_seen, "too_small": dict(self.too_small_)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up the counts of a state_dict."""
        self.rows_seen, self.steps_seen = state["rows_seen"], state["steps_seen"]
        self.too_small_ = dict(state.get("too_small", {}))

    def extra_repr(self) -> str:
        return f"{self.ratio}, n_train={len(self.weights_)}, n_val={self.n_val}"

    # ------------------------------------------------------------ what a step takes

    def _pass(self, model: nn.Module, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Losses (n,) of the rows, and what is compared of them."""
        with self._outputs.of(model):
            prediction = model(x)
        losses = self.losses(prediction, y)
        if self.layer is not None:
            return losses, self._outputs.last(len(losses))
        return losses, losses if self.transformation is None else self.transformation(prediction, y, losses)

    def _labels(self, y: Any, y_val: Any) -> tuple[Any, Any]:
        if (y is None) != (y_val is None):
            raise ValueError("Give both y and y_val, the classes of the training and of the validation rows, or neither.")
        if y is not None and self.classes is None:
            self.classes = ClassFrequencies.unknown(len(self.weights_), self.n_val).to(self.weights_.device)
        return y, y_val

    def _val_index(self, val: Tensor, val_index: Any, *, by_class: bool) -> Any:
        if val_index is not None:
            return val_index
        if len(val) == self.n_val or (self._stores_weights and self.bank is None and not by_class):
            return range(len(val))
        reason = (
            "with val_refresh the value of each validation row is kept" if self.bank is not None
            else "class by class the class of each validation row is kept" if by_class
            else f"{type(self.ratio).__name__} stores one coefficient for each of the {self.n_val} validation rows"
        )  # fmt: skip
        raise ValueError(
            f"val_index is needed: {reason} and this batch has {len(val)}. Wrap the validation set in Indexed to get it."
        )

    def _target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The rows that the training rows are compared with, and their places."""
        if self.bank is None:
            return batch.target, batch.val_positions
        self.bank.refresh(batch.target, batch.val_positions, batch.is_usable)
        return self.bank.known(), torch.arange(self.n_val, device=batch.target.device)

    # ------------------------------------------------------------ the step

    def _estimate(self, batch: Batch, target: Tensor, val_positions: Tensor) -> None:
        if self.classes is None:
            weights = self._step(batch.source, target, batch.positions, val_positions, self.weights_, batch.is_usable)
        else:
            weights = self._step_by_class(self.classes, batch, target, val_positions)
        _store(self.weights_, batch.positions, weights, batch.is_usable)

    def _step(
        self,
        source: Tensor,
        target: Tensor,
        positions: Tensor,
        val_positions: Tensor,
        stored: Tensor,
        is_usable: Tensor | bool = True,
    ) -> Tensor:
        """Weights (n,) of the source rows after the step from the stored entries; coefficients are stored, weights are not."""
        centers = None
        if self._stores_weights:
            start = stored[positions]
        else:
            if self.bank is not None:
                chosen = _spread(target)
                centers, val_positions = target[chosen], val_positions[chosen]
            start = self.coef_[val_positions]
        start = 1.0 + (1.0 - self.forget) * (start - 1.0) if self.forget > 0.0 else start
        update = self._update(source, target, start.to(source.dtype), centers)
        if not self._stores_weights:
            _store(self.coef_, val_positions, torch.as_tensor(update.coef), is_usable)
        return torch.as_tensor(update.weights)

    def _update(self, source: Tensor, target: Tensor, start: Tensor, centers: Tensor | None) -> Update:
        arrays = _cheapest(source, target, start, *(() if centers is None else (centers,)))
        return self.ratio.update(*arrays[:3], centers=arrays[3] if len(arrays) > 3 else None, to_convergence=self.to_convergence)

    def _step_by_class(self, classes: ClassFrequencies, batch: Batch, target: Tensor, val_positions: Tensor) -> Tensor:
        y = classes.y_train[batch.positions]
        y_val = classes.y_val[val_positions]
        weights = self.weights_[batch.positions].to(batch.source.dtype)
        if not bool(batch.is_usable):
            return weights
        for label in y[y >= 0].unique().tolist():
            at, val_at = (y == label).nonzero()[:, 0], (y_val == label).nonzero()[:, 0]
            prior = classes.ratio(label)
            if prior == 0.0:
                weights[at] = 0.0
            elif prior is None or min(len(at), len(val_at)) < _LEAST_ROWS:
                self.too_small_[label] = self.too_small_.get(label, 0) + 1
            else:
                places = batch.positions[at], val_positions[val_at]
                within = self._step(batch.source[at], target[val_at], *places, classes.within)
                _store(classes.within, places[0], within, True)
                weights[at] = prior * within.to(weights.dtype)
        return weights

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Classes that were told with the batches are known to a resumed run before its first batch.
        if self.classes is None and prefix + "classes.y_train" in state_dict:
            self.classes = ClassFrequencies.unknown(len(self.weights_), self.n_val).to(self.weights_.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _check(
    n_val: int,
    layer: Any,
    transformation: Any,
    y_train: Any,
    y_val: Any,
    val_refresh: int | None,
    forget: float,
    warmup_epochs: float,
    warmup_steps: int | None,
) -> None:
    if n_val < 1:
        raise ValueError(f"n_val must be >= 1, the number of validation rows; got {n_val}.")
    if not warmup_epochs >= 0 or (warmup_steps is not None and warmup_steps < 0):
        raise ValueError(f"warmup_epochs and warmup_steps must be >= 0; got {warmup_epochs!r} and {warmup_steps!r}.")
    if layer is not None and transformation is not None:
        raise ValueError("layer and transformation both say what is compared: give one of them.")
    if (y_train is None) != (y_val is None):
        raise ValueError("Give both y_train and y_val, the classes of all training and validation rows, or neither.")
    if val_refresh is not None and (isinstance(val_refresh, bool) or not isinstance(val_refresh, int) or val_refresh < 1):
        raise ValueError(f"val_refresh must be an int >= 1, the validation rows renewed in a step, or None; got {val_refresh!r}.")
    if not 0.0 <= forget < 1.0:
        raise ValueError(f"forget must be a number in [0, 1); got {forget!r}.")


def _ratio(ratio: DensityRatio | str) -> DensityRatio:
    if isinstance(ratio, DensityRatio):
        return ratio
    if not isinstance(ratio, str) or ratio not in IN_LOOPS:
        raise ValueError(f"ratio must be a DensityRatio such as KLIEP() or one of {sorted(IN_LOOPS)}; got {ratio!r}.")
    return IN_LOOPS[ratio]().set_params(**_LOOP_DEFAULTS.get(ratio, {}), gamma="target_spread")


@contextmanager
def _single_precision(device: torch.device) -> Iterator[None]:
    """Autocast of the loop around does not reach the estimate."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


def _cheapest(*tensors: Tensor) -> tuple[Any, ...]:
    """The same memory as numpy arrays on a CPU, where an operation on a batch costs numpy half of what it costs torch."""
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def _spread(rows: Tensor) -> Tensor:
    """At most 256 places in the rows, evenly spread."""
    n = len(rows)
    return torch.linspace(0, n - 1, min(n, _BANK_CENTERS), dtype=torch.float64, device=rows.device).round().to(torch.int64)


def _store(stored: Tensor, positions: Tensor, values: Tensor, is_usable: Tensor | bool) -> None:
    """stored[positions] = values, and their mean where a position stands more than once; no wait for the device."""
    if waits_for(stored.device):
        values = torch.where(torch.as_tensor(is_usable, device=stored.device), values.to(stored.dtype), stored[positions])
    counts = stored.index_fill_(0, positions, 0.0).index_add_(0, positions, torch.ones_like(stored[positions]))[positions]
    stored.index_fill_(0, positions, 0.0).index_add_(0, positions, values.to(stored.dtype) / counts)
