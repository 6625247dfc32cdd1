"""Statistics of the weights while training, every so many steps, to TensorBoard or any callable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..._arrays import to_host
from ..._validation import check_count
from ...diagnostics import effective_sample_size

__all__ = ["Monitor"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_ROUNDING = 1e-5  # relative tolerance for a weight at its bound in single precision


class Monitor:
    """Logs statistics of a reweighter's weights every `every` steps: `reweighter.monitor = Monitor(log)`.

    log : TensorBoard SummaryWriter, or anything with add_scalar(tag, value, step); or a callable (name, value, step).
    every : int >= 1. Steps in between are only counted; at a log the weights come to the host, which waits for the device.
    labels (n_train,) : classes of the training rows, for the mean weight of each; None: those that the reweighter knows, if any.

    Names, for all stored weights unless the name says batch:

    - weights/effective_share, weights/batch_effective_share : (sum w)^2 / (n sum w^2), Kish's effective sample size over n
    - weights/quantile_05, _25, _50, _75, _95
    - weights/share_at_zero
    - weights/share_at_bound : share at the ratio's max_weight (class by class: times the class-prior ratio), if it has one
    - weights/drift : mean absolute change since the last log, from the second log on
    - weights/total_change : sum over the logs so far of |w - w of the last log|_1; with every=1 the sum over all steps
    - weights/class_Y : mean weight of class Y
    - weights/share_METHOD : share of a method in the mixture of "auto"
    - parameters/NAME : for methods with a few learned numbers, such as LiLAW's alpha, beta and delta

    `gradient(model)`, called after backward, logs of the gradient of the batch

    - gradient/norm : its norm
    - gradient/mean_square : the mean so far of the products <g_t, g_t-1> of consecutive gradients. It estimates the mean squared
      norm of the gradient over all data, because the noise of two batches is independent, while the square of one gradient contains
      its variance. The remaining error is a step times the curvature; the estimate can be negative.
    - gradient/mean_square_times_root : that mean times sqrt(T), T the number of products. Theorems of convergence to a stationary
      point at the rate 1 / sqrt(T) say that it stays bounded if the steps are 1 / sqrt(T) too

    Methods with a weight network log the same for the network's gradient, as meta_gradient/norm and so on, every `every` of its
    steps.

    The step is the reweighter's `steps_seen`, which continues after a resume, or else the number of steps since the monitor was
    assigned. With several ranks assign it on one of them. The monitor is not in state_dict; it is copied and pickled with the
    reweighter if its log can be.
    Raises ValueError for a wrong `every`, and in the first step if there is not one label for each row; TypeError for `log`.
    """

    def __init__(self, log: Any, every: int = 100, labels: Any = None):
        if not callable(log) and not callable(getattr(log, "add_scalar", None)):
            raise TypeError(f"log must have add_scalar(tag, value, step), or be a callable (name, value, step); got {log!r}.")
        self.log = log
        self.every = check_count("every", every, more=", the steps from one log to the next")
        self.labels = None if labels is None else np.asarray(to_host(labels))
        self.steps = 0
        self.total_change = 0.0
        self._tracks: dict[str, _Gradients] = {}
        self._last: np.ndarray | None = None

    def step(self, reweighter: Any, index: Any) -> None:
        """Count a step of the reweighter on the training rows `index` (n,), and log if one is due."""
        self.steps = getattr(reweighter, "steps_seen", self.steps + 1)
        n_train = len(reweighter.weights_)
        if self.labels is not None and self.labels.shape != (n_train,):
            raise ValueError(f"labels must be ({n_train},), the class of each training row; got shape {self.labels.shape}.")
        if self.steps % self.every == 0:
            write: Callable[[str, float, int], Any] = getattr(self.log, "add_scalar", self.log)
            for name, value in self._statistics(reweighter, index):
                write(f"weights/{name}", value, self.steps)
            for name, parameter in getattr(reweighter, "learned_numbers", {}).items():
                write(f"parameters/{name}", float(parameter), self.steps)

    def gradient(self, model: Any) -> None:
        """Record the gradients of the model's parameters, after backward and before the step, and log them every `every` calls.

        Calls in between do not wait for the device. Raises ValueError if no parameter has a gradient.
        """
        parts = [p.grad for p in model.parameters() if p.grad is not None]
        if not parts:
            raise ValueError("No parameter of the model has a gradient: call gradient(model) after loss.backward().")
        self.take("gradient", parts)

    def take(self, title: str, gradients: Sequence[Any]) -> None:
        """Record the given gradients, and log them as title/norm and so on."""
        track = self._tracks.setdefault(title, _Gradients())
        track.add([gradient.detach().clone().float() for gradient in gradients])
        if track.n % self.every == 0:
            write: Callable[[str, float, int], Any] = getattr(self.log, "add_scalar", self.log)
            for name, value in track.statistics():
                write(f"{title}/{name}", value, track.n)

    def _statistics(self, reweighter: Any, index: Any) -> Iterator[tuple[str, float]]:
        weights = _on_host(reweighter.weights_)
        yield "effective_share", _effective_share(weights)
        yield "batch_effective_share", _effective_share(_on_host(reweighter.transform(index)))
        for q, value in zip(_QUANTILES, np.quantile(weights, _QUANTILES), strict=True):
            yield f"quantile_{round(100 * q):02d}", float(value)
        yield "share_at_zero", float(np.mean(weights == 0.0))
        classes: Any = getattr(reweighter, "classes", None)
        # -1 if the reweighter does not know the label.
        labels = None if classes is None else np.asarray(to_host(classes.y_train))
        if (bound := _bound(reweighter, labels)) is not None:
            yield "share_at_bound", float(np.mean(weights >= bound * (1.0 - _ROUNDING)))
        if self._last is not None and len(self._last) == len(weights):
            change = np.abs(weights - self._last)
            self.total_change += float(np.sum(change))
            yield "drift", float(np.mean(change))
            yield "total_change", self.total_change
        self._last = weights
        own = labels if self.labels is None else self.labels
        for label in [] if own is None else np.unique(own):
            if not (isinstance(label, np.integer) and label < 0):
                yield f"class_{label}", float(np.mean(weights[own == label]))
        shares = getattr(reweighter, "share_", {})
        yield from ((f"share_{name}", share) for name, share in shares.items() if len(shares) > 1)


class _Gradients:
    """Gradients call by call: the last one, and the sum of the products of each with the one before."""

    def __init__(self) -> None:
        self.n = self.n_products = 0
        self.last: list[Any] = []
        self.products: Any = 0.0

    def add(self, parts: list[Any]) -> None:
        """Take the parts of the next gradient, which may be of other parameters than the last one's."""
        if [part.shape for part in parts] == [part.shape for part in self.last]:
            self.products = self.products + sum((a * b).sum() for a, b in zip(parts, self.last, strict=True))
            self.n_products += 1
        self.n += 1
        self.last = parts

    def statistics(self) -> Iterator[tuple[str, float]]:
        """The norm, and from the second gradient on the mean square."""
        yield "norm", float(sum(part.square().sum() for part in self.last)) ** 0.5
        if self.n_products:
            mean = float(self.products) / self.n_products
            yield "mean_square", mean
            yield "mean_square_times_root", mean * self.n_products**0.5


def _on_host(weights: Any) -> np.ndarray:
    return np.array(to_host(weights), dtype=np.float64)


def _effective_share(weights: np.ndarray) -> float:
    return effective_sample_size(weights) / len(weights) if weights.any() else 0.0


def _bound(reweighter: Any, labels: np.ndarray | None) -> float | np.ndarray | None:
    """Largest weight that a row can have, one for all or (n_train,); None where none is known."""
    upper = getattr(getattr(reweighter, "ratio", None), "max_weight", None)
    if upper is None or getattr(reweighter, "agreement", None) is not None:
        return None
    if labels is None:
        return float(upper)
    known = np.unique(labels)
    # A class of ratio 0 has weight 0, which is not saturation.
    prior = [reweighter.classes.ratio(int(label)) or np.inf if label >= 0 else np.inf for label in known]
    return float(upper) * np.array(prior)[np.searchsorted(known, labels)]
