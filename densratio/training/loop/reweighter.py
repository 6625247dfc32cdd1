"""Reweighter: the base of all methods, which share one line in a training loop."""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import FunctionType
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join, Joinable, JoinHook

from ..._arrays import waits_for
from ..._validation import check_count, check_number, check_sample_weight
from ..losses import Loss, cross_entropy
from .captured import CapturedCalls, can_capture
from .draws import is_captured
from .late_errors import LateErrors, copied_soon
from .model import eager, warn_unless_training
from .monitor import Monitor
from .ranks import n_ranks
from .row_batch import positions_of
from .row_losses import RowLosses
from .state import all_or_nothing, before_loading, check_numbers
from .told import warn

__all__ = ["Reweighter"]

_LONE = 3  # batches of one row in a row that are no accident


class Reweighter(nn.Module, Joinable, ABC):
    """One line of a training loop: `loss = reweighter.weighted_loss(model, (x, y, i), (x_val, y_val, j))`.

    weights_ (n_train,): the current weight of each training row, of mean 1 in the batch that estimated it.
    loss: per-row loss (prediction, label) -> (n,); cross entropy by default.
    warmup_epochs: initial passes over the data with all weights 1, counted in rows seen / n_train. warmup_steps: a number of
    batches in place of warmup_epochs, or None.
    set_base_weights: weights of your own, as sample_weight, that multiply those of the method.
    monitor: a `Monitor` that logs statistics of the weights, or None.
    row_losses: the mean loss of each row, by which `suspicious_rows` ranks.
    With torch.distributed each rank passes its own rows. The weights equal those of one process with the rows of all ranks, and so
    does the gradient once DistributedDataParallel has averaged it. All ranks need the same number of batches; within torch's
    Join([reweighter, model], throw_on_early_termination=True) all of them stop when the first has no more. Networks that a method
    learns start from rank 0's.
    """

    weights_: Tensor
    base_weights: Tensor | None
    uses_validation: ClassVar[bool] = True
    """Whether the method ever uses validation rows."""
    normalize: bool = False
    """Whether weights are scaled to mean 1 in each batch, so that a row alone has the weight 1 in any case."""
    no_base_weights: str = ""
    """The error message for base weights if the method does not support them."""
    captures: bool = True
    """Whether steps on a GPU may become CUDA graphs, where a method has steps that can."""
    saved: ClassVar[tuple[str, ...]] = ("rows_seen", "steps_seen")
    """Attributes in state_dict besides parameters and buffers: numbers, and objects with a state of their own."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" not in vars(cls):
            cls.__init__ = _named_after(cls, cls.__init__)  # type: ignore[method-assign]

    def __init__(self, n_train: int, loss: Loss = cross_entropy, *, warmup_epochs: float = 0.0, warmup_steps: int | None = None):
        super().__init__()
        Joinable.__init__(self)
        _check_loss(loss)
        n_train = check_count("n_train", n_train, more=", the number of training rows, as len(train_set)")
        check_number("warmup_epochs", warmup_epochs, "[0, inf]")
        if warmup_steps is not None:
            check_number("warmup_steps", warmup_steps, "[0, inf]", " or None")
        self.loss = loss
        self.n_train = n_train
        self._method = _name_of_method(type(self))  # what a state is of
        self.warmup_epochs, self.warmup_steps = warmup_epochs, warmup_steps
        self.rows_seen = self.steps_seen = 0
        self.monitor: Monitor | None = None
        self._lone_batches = 0
        self._has_one_start = self._has_looked = False
        self._named: Tensor | None = None
        self.late_errors = LateErrors()
        self._captured = CapturedCalls()
        self.row_losses = RowLosses(n_train)
        self.register_buffer("weights_", torch.ones(n_train))
        # Not in state_dict: like labels they belong to the data, and are passed again after a resume.
        self.register_buffer("base_weights", None, persistent=False)
        before_loading(self, _forget_graphs)

    @property
    def epoch(self) -> float:
        """Passes over the training rows so far."""
        return self.rows_seen / self.n_train

    @property
    def is_warming_up(self) -> bool:
        """Whether the weights are still held at 1."""
        if self.warmup_steps is not None:
            return self.steps_seen < self.warmup_steps
        return self.rows_seen < self.warmup_epochs * self.n_train

    @property
    @abstractmethod
    def needs_validation(self) -> bool:
        """Whether the next batch needs validation rows; otherwise val may be None."""

    @abstractmethod
    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        """The weighted loss () of a batch, ready for backward; train = (x, y, index), val = (x_val, y_val, val_index).

        val is ignored, and may be None, if `needs_validation` is false. Raises ValueError if it is missing, and under
        torch.no_grad() or torch.inference_mode().
        """

    def transform(self, index: Any) -> Tensor:
        """Current weights (n,) of the training rows `index` (n,), detached."""
        return self.weights_[self._positions(index)]

    def set_base_weights(self, sample_weight: Any) -> None:
        """Set weights of your own (n_train,), scaled to mean 1, that multiply those of the method in the loss; None removes them.

        The method estimates `weights_` as if there were no others.
        Raises ValueError for a weight that is negative or not finite, or if all are 0.
        """
        if sample_weight is not None and self.no_base_weights:
            raise ValueError(self.no_base_weights)
        weights = check_sample_weight(sample_weight, self.n_train)
        if weights is None:
            self.base_weights = None
            return
        if not weights.any():
            raise ValueError("sample_weight is 0 for all rows: nothing is left to train on.")
        scaled = weights / weights.max()
        self.base_weights = torch.as_tensor(scaled / scaled.mean(), dtype=self.weights_.dtype, device=self.weights_.device)

    def check(self) -> None:
        """Wait for the device, and raise the error of an earlier unusable batch: at the end of an epoch, for example."""
        self.late_errors.raise_if_seen(wait=True)

    def losses(self, prediction: Tensor, label: Tensor) -> Tensor:
        """`loss` of each row (n,). Raises ValueError if it returns another shape."""
        losses = self.loss(prediction, label)
        if losses.ndim == 2 and losses.shape[1] == 1:
            return losses[:, 0]  # of one output a row
        if losses.ndim != 1:
            met = [tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in (prediction, label)]
            raise ValueError(
                f"The loss must give one number for each row, (n,); got shape {tuple(losses.shape)} of a prediction {met[0]} and "
                f'labels {met[1]}. Give a loss with reduction="none" and average what is left of each row: '
                "densratio.training.losses has such losses for numbers, several labels, tokens and pixels."
            )
        return losses

    def get_extra_state(self) -> dict[str, Any]:
        """The name of the method and the attributes `saved`, for state_dict."""
        parts = {name: getattr(self, name) for name in self.saved}
        own = {name: part.state_dict() if hasattr(part, "state_dict") else part for name, part in parts.items()}
        return {"method": self._method, **own}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Load the attributes `saved` of a state_dict. Raises ValueError if it lacks one, or is of another method."""
        # The entries of two methods can have the same names and sizes. States of version 0.2 don't name their method.
        if (method := state.get("method", self._method)) != self._method:
            raise ValueError(f"It is of {method}, and this is {self._method}.")
        if missing := [name for name in self.saved if name not in state]:
            raise ValueError(f"It lacks {', '.join(map(repr, missing))}, which {type(self).__name__} saves.")
        for name in self.saved:
            # A copy: an optimizer would update the tensors of the state itself.
            value = copy.deepcopy(state[name])
            if hasattr(part := getattr(self, name), "load_state_dict"):
                part.load_state_dict(value)
            else:
                setattr(self, name, value)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """Continue from a state_dict; an error leaves everything as it was.

        Raises RuntimeError for the state of another method or of other sizes, ValueError for one with NaN or infinity.
        """
        check_numbers(state_dict, self.state_dict())
        message = (
            f"This checkpoint does not fit {type(self).__name__} of {self.n_train} training rows; nothing was loaded. "
            "Make the reweighter as it was made when it was saved: the same class, sizes and parameters."
        )
        with all_or_nothing(self, message):
            return super().load_state_dict(state_dict, strict=strict, assign=assign)

    @property
    def _may_capture(self) -> bool:
        """Whether a step may become a graph: what a first one makes is there, and no other rank takes part."""
        return self.captures and self.steps_seen > 0 and n_ranks() == 1 and can_capture(self.weights_.device)

    @property
    def _recorded(self) -> tuple[Tensor, ...]:
        """Tensors that every step writes. A graph is of them alone, and others may be set in their place."""
        return self.weights_, self.row_losses.total, self.row_losses.mass

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # On another device, or in another precision, the state is in other tensors than those that graphs know.
        self._captured.clear()
        return super()._apply(fn, recurse)

    def _given(self, model: Any, train: Any, val: Any) -> tuple[Any, Any, Any]:
        """(x, y, index) of the training batch.

        Raises ValueError for another form, if the validation batch is missing, or if gradients are off.
        """
        name = type(self).__name__
        if isinstance(model, type):
            raise ValueError(f"weighted_loss takes the model, not its class: give the {model.__name__}(...) that you train.")
        if not callable(model):
            raise ValueError(f"weighted_loss(model, train, val) takes the model first; got {type(model).__name__}.")
        if not hasattr(model, "parameters"):
            raise ValueError(
                f"weighted_loss takes the torch.nn.Module that you train; got a {type(model).__name__}. Make it the forward(x) of "
                "a module around the model."
            )
        if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
            off = "torch.inference_mode()" if torch.is_inference_mode_enabled() else "torch.no_grad()"
            raise ValueError(
                f"weighted_loss of {name} is the loss of a training step, which needs gradients: call it outside of {off}. The "
                "loss of rows that are not trained on is reweighter.losses(model(x), y).mean(), the weights of training rows are "
                "reweighter.transform(index)."
            )
        if val is None and self.needs_validation:
            raise ValueError(
                f"{name} needs validation rows for this batch: weighted_loss(model, (x, y, index), (x_val, y_val, val_index))."
            )
        if val is not None and self.needs_validation:
            index = x_y_index(val, "validation")[2]
            # With several ranks one may have no rows while others have some.
            if n_ranks() == 1 and _is_empty(index):
                raise ValueError("The validation batch has no rows: leave it out and give another, as endless(loader) does.")
        self._notify_join(model)
        self._take_parameters_of_rank_0()
        x, y, index = x_y_index(train, "training")
        if self.steps_seen == 0:
            warn_unless_training(model)
        self._warn_of_lone_rows(index)
        self._warn_of_other_rows()
        return x, y, index

    def _take_parameters_of_rank_0(self) -> None:
        """With several ranks, once: networks that a method learns may have been drawn from another seed on each."""
        # Where the ranks can't exchange tensors of this device, a later check says where the reweighter must be.
        if not self._has_one_start and n_ranks() > 1 and self.weights_.device.type in dist.get_backend_config():
            for parameter in self.parameters():
                dist.broadcast(parameter.detach(), 0)
            self._has_one_start = True

    def _warn_of_lone_rows(self, index: Any) -> None:
        """Warn where one batch after another has one row; the last of an epoch may."""
        is_lone = self.normalize and n_ranks() == 1 and np.shape(index) == (1,)
        self._lone_batches = self._lone_batches + 1 if is_lone else 0
        if self._lone_batches == _LONE:
            warn(
                f"Batches have one row each. {type(self).__name__} scales weights to mean 1 in each batch, so that of a single row "
                "is 1, whatever its label: give batches of several rows."
            )

    def _warn_of_other_rows(self) -> None:
        """Warn, once after two passes, where only the first rows were named, as if the index held places in the batch."""
        mass = self.row_losses.mass
        if self._has_looked or self.rows_seen < 2 * self.n_train or mass.device.type == "meta" or is_captured(mass.device):
            return
        if self._named is None:
            numbers = torch.arange(1, self.n_train + 1, device=mass.device)
            self._named = copied_soon(torch.stack([(mass > 0).sum(), torch.where(mass > 0, numbers, 0).max()]))
        n_named, last = self._named.tolist()
        if n_named < 0:
            return  # The numbers are on their way from the device.
        self._has_looked = True
        if 0 < n_named <= self.n_train // 2 and last == n_named:
            warn(
                f"In {self.epoch:.0f} passes over {self.n_train} training rows only the rows 0 to {n_named - 1} were named. The "
                "index must be the number of each row in the training set, as Indexed gives it, not its place in the batch; and "
                "n_train the number of these rows."
            )

    def _notify_join(self, model: Any) -> None:
        """Tell torch's Join, where one is on, that this rank has a batch. Raises ValueError where it lets ranks end one by one."""
        configs = [getattr(part, "_join_config", None) for part in (self, model)]
        if any(config is not None and config.enable and not config.throw_on_early_termination for config in configs):
            raise ValueError(
                "Weights are estimated from the rows of all ranks, so none can go on when another has no more batches. Type "
                "Join([reweighter, model], throw_on_early_termination=True), under which all ranks stop together."
            )
        Join.notify_join_context(self)

    def join_hook(self, divide_by_initial_world_size: bool = True) -> JoinHook:  # type: ignore[override]
        """What torch's Join does on a rank that has run out of batches: nothing. The argument is DistributedDataParallel's."""
        return JoinHook()

    @property
    def join_device(self) -> torch.device:
        """The device of the tensors that the ranks exchange."""
        return self.weights_.device

    @property
    def join_process_group(self) -> Any:
        """The group of all ranks."""
        return dist.group.WORLD

    @eager
    def _positions(self, index: Any) -> Tensor:
        shape = getattr(index, "shape", None)
        n_rows = shape[0] if shape else len(index) if isinstance(index, Sequence) else 1
        positions = positions_of(index, n_rows, "index", self.weights_.device, self.n_train)
        # On a device an index out of range raises its error later.
        return positions.clamp(0, self.n_train - 1) if waits_for(positions.device) else positions

    def _times_base(self, weights: Tensor, index: Any) -> Tensor:
        """Weights (n,), or one for all, of the rows `index` (n,) times the base weights."""
        if self.base_weights is None:
            return weights
        return weights * self.base_weights[self._positions(index)].to(weights.device)


def _forget_graphs(reweighter: Reweighter, stored: dict[str, Tensor]) -> None:
    # Also where the module that holds the reweighter is loaded.
    reweighter._captured.clear()


def x_y_index(batch: Any, kind: str) -> tuple[Any, Any, Any]:
    """x, y and index of a batch. Raises ValueError for anything else."""
    if isinstance(batch, tuple | list) and len(batch) == 3:
        x, y, index = batch
        return x, y, index
    got = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
    first = batch[0] if isinstance(batch, tuple | list) and batch else batch
    hint = f" Of items with {list(first)} name the label: Indexed({kind}_set, y_key=...)." if isinstance(first, Mapping) else ""
    raise ValueError(
        f"A {kind} batch must be (x, y, index), as densratio.training.Indexed makes it: DataLoader(Indexed({kind}_set), ...). "
        f"Got {got}.{hint}"
    )


def _is_empty(index: Any) -> bool:
    shape = getattr(index, "shape", None)
    return index is not None and (len(index) == 0 if shape is None else 0 in shape)


def _check_loss(loss: Any) -> None:
    """Raise ValueError for anything but a function that can give one loss a row."""
    if isinstance(loss, type):
        raise ValueError(f'loss is the class {loss.__name__}: type loss={loss.__name__}(reduction="none"), which makes the loss.')
    if getattr(loss, "reduction", "none") != "none":
        raise ValueError(f'loss must give one loss a row: type loss={type(loss).__name__}(reduction="none").')
    if not callable(loss):
        raise ValueError(f"loss must be a function (prediction, label) -> one loss a row; got {loss!r}.")


def _name_of_method(kind: type) -> str:
    """The name of the class, or of the method of this package that it extends, and whose states it loads."""
    package = __name__.partition(".")[0]
    own = (base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] == package and not inspect.isabstract(base))
    return next(own, kind.__name__)


def _named_after(kind: type, init: Any) -> Any:
    """The inherited `init` under the name of the class: Python says whose `__init__` lacks an argument."""
    own = FunctionType(init.__code__, init.__globals__, "__init__", init.__defaults__, init.__closure__)
    own.__doc__, own.__annotations__, own.__kwdefaults__ = init.__doc__, init.__annotations__, init.__kwdefaults__
    own.__qualname__ = f"{kind.__qualname__}.__init__"
    return own
