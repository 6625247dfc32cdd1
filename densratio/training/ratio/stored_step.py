"""One warm-started step of a divergence on a batch, from the weights or coefficients stored for its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...estimators import IN_LOOPS, DensityRatio, objective_of
from ...estimators.solve import make_features
from ...objectives import KullbackLeibler, Wasserstein1
from ...solvers import PlainGradient
from ..loop.names import other_method
from ..loop.state import as_stored, before_loading
from .class_priors import ClassFrequencies
from .critic import Critic
from .potential import Potential
from .sliced import Sliced
from .two_samples import TwoSamples

__all__ = ["StoredStep", "cheapest", "ratio_for_loops"]

# One step per batch from the last weights regularizes by itself.
_LOOP_DEFAULTS: dict[str, dict[str, float]] = {name: {"regularization": 0.0} for name in ("kmm", "wasserstein")}
_POTENTIALS: dict[str, type[Potential]] = {"critic": Critic, "sliced": Sliced}
_BANK_CENTERS = 64  # validation rows of a bank that are kernel centers in a step; the next step takes others
_LEAST_ROWS = 2  # of a class in each sample of a batch: the weight of a single row is always 1


class StoredStep(nn.Module):
    """A ratio and its stored vector: weights_ (n_train,) of KMM and Wasserstein, or coef_ (n_val,) of KLIEP and LSIF.

    With `normalize` weights have mean 1 in the batch that estimated them (class by class: in the class). The kernel centers of
    coef_ are validation rows; LSIF's with `PlainGradient(of_mean=True)` belongs to the mean of a step's kernels, not to their sum.
    Parameters as in `DynamicReweighter`. Raises ValueError for a potential that does not suit the ratio.
    """

    potential: Potential | None

    def __init__(
        self,
        ratio: DensityRatio,
        n_train: int,
        n_val: int,
        *,
        forget: float = 0.0,
        to_convergence: bool = False,
        normalize: bool = True,
        potential: str | Potential | None = None,
    ):
        super().__init__()
        self.ratio = ratio
        self.forget = forget
        self.to_convergence = to_convergence
        self.normalize = normalize
        objective = objective_of(ratio)
        self.stores_weights = objective.anchors == "source"
        if not self.stores_weights:
            _check_coefficients(ratio, objective, n_train)
        self._takes_potential = isinstance(objective, Wasserstein1)
        # One column has a closed form, unless a potential is requested.
        self._closed_columns = 1 if potential is None else 0
        self._max_weight = objective.max_weight if isinstance(objective, Wasserstein1) else None
        self.register_module("potential", None if potential is None else _potential(potential, ratio))
        # KLIEP's projection sets the scale: its coefficients are of the sum of the kernels whatever the step.
        is_scaled = self.stores_weights or isinstance(objective, KullbackLeibler)
        self._is_of_mean = not is_scaled and isinstance(ratio.solver, PlainGradient) and ratio.solver.of_mean
        self._name = "weights_" if self.stores_weights else "coef_"
        self.register_buffer(self._name, torch.ones(n_train if self.stores_weights else n_val))
        before_loading(self, _make_critic)

    @property
    def stored(self) -> Tensor:
        """weights_ (n_train,) or coef_ (n_val,)."""
        stored = getattr(self, self._name)
        assert isinstance(stored, Tensor)
        return stored

    @property
    def settings(self) -> tuple[Any, ...]:
        """What the operations of a step depend on besides its tensors."""
        # What a fit of the ratio left, names with an underscore at an end, takes long to print, and no step reads it.
        parameters = (value for name, value in vars(self.ratio).items() if name == name.strip("_"))
        return self.forget, self.normalize, *map(str, parameters)

    def is_of_kernels(self, width: int) -> bool:
        """Whether a step on rows of `width` columns neither looks at a value nor trains a potential."""
        return not self.to_convergence and not (self._takes_potential and width > self._closed_columns)

    def check(self, batch: TwoSamples) -> None:
        """Raise ValueError for parameters out of range: with the first batch, not only when the warm-up is over."""
        width = 1 if self._needs_potential(batch) else None
        self.ratio.update(*cheapest(batch.source[:, :width], batch.target[:, :width]))

    def learn(self, batch: TwoSamples, classes: ClassFrequencies | None) -> None:
        """Let the potential learn from the batch if one is needed, also in the warm-up."""
        if not self._needs_potential(batch):
            return
        if self.potential is None:
            self.potential = _potential("critic", self.ratio).to(self.stored.device)
        if self.to_convergence or self.ratio.solver not in ("auto", "subgradient"):
            raise ValueError(
                "With Wasserstein to_convergence and a solver need rows of one column and no potential=: a potential is estimated "
                f"anew in each batch; got {batch.source.shape[1]} columns."
            )
        y = None if classes is None else classes.y_train[batch.rows.positions]
        y_val = None if classes is None else classes.y_val[batch.val_rows.positions]
        weights = self.stored[batch.rows.positions].to(batch.source.dtype)
        self.potential.learn(weights, batch.source, batch.target, y, y_val, batch.rows)

    def weights(self, batch: TwoSamples, turn: Tensor | None, label: int = 0) -> Tensor:
        """Weights (n,) of the rows of the batch after the step, with `normalize` of mean 1; stores the result.

        turn (): number of the step if the target is a whole bank, of which some rows in turn are kernel centers; else None.
        label: the class of all rows, if the estimate is class by class.
        """
        centers, rows = None, batch.rows if self.stores_weights else batch.val_rows
        if turn is not None and not self.stores_weights:
            chosen = _in_turn(len(batch.target), turn)
            centers, rows = batch.target[chosen], rows.take(chosen)
        start = self.stored[rows.positions].to(batch.source.dtype)
        start = 1.0 + (1.0 - self.forget) * (start - 1.0) if self.forget > 0.0 else start
        n_kernels = len(start) if self._is_of_mean else 1
        weights, coef = self._stepped(batch, start / n_kernels, centers, label)
        rows.write(self.stored, weights if self.stores_weights else coef * n_kernels)
        return weights

    def weights_by_class(
        self, batch: TwoSamples, turn: Tensor | None, classes: ClassFrequencies, kept: Tensor
    ) -> tuple[Tensor, list[int]]:
        """Weights (n,) after a step in each class, times the class-prior ratio; and the classes too small for a step.

        Rows of the latter get their entry of `kept` (n,).
        """
        weights, too_small = kept.to(batch.source.dtype, copy=True), []
        y, y_val = classes.y_train[batch.rows.positions], classes.y_val[batch.val_rows.positions]
        y = batch.rows.accept(y, torch.full_like(y, -1))
        for label in y[y >= 0].unique().tolist():
            at, val_at = (y == label).nonzero()[:, 0], (y_val == label).nonzero()[:, 0]
            prior = classes.ratio(label)
            if prior == 0.0:
                weights[at] = 0.0
            elif prior is None or min(len(at), len(val_at)) < _LEAST_ROWS:
                too_small.append(label)
            else:
                weights[at] = prior * self.weights(batch.of_class(at, val_at), turn, label).to(weights.dtype)
        return weights, too_small

    def _stepped(self, batch: TwoSamples, start: Tensor, centers: Tensor | None, label: int) -> tuple[Tensor, Tensor]:
        """Weights (n,), in the dtype of the rows, and coefficients after the step from `start`."""
        source, target = batch.source, batch.target
        if self.to_convergence:
            # A solver would try all its iterations on NaN or infinity, of a batch that only the device knows to be unusable.
            source, target = (batch.rows.accept(values, torch.zeros_like(values)) for values in (source, target))
        if self.potential is not None and self._needs_potential(batch):
            weights = self.potential.step(self._max_weight, self.ratio.n_steps, start, source, target, label)
            return weights, weights
        arrays = cheapest(source, target, start, *(() if centers is None else (centers,)))
        update = self.ratio.update(*arrays[:3], centers=None if centers is None else arrays[3], to_convergence=self.to_convergence)
        weights = update.weights if self.normalize else update.weights * update.normalization
        # LSIF sums long batches in float64, and "auto" stacks the weights of all methods.
        return torch.as_tensor(weights).to(source.dtype), torch.as_tensor(update.coef)

    def _needs_potential(self, batch: TwoSamples) -> bool:
        return self._takes_potential and batch.source.shape[1] > self._closed_columns


def _make_critic(step: StoredStep, stored: dict[str, Tensor]) -> None:
    # A critic is made with the first batch of several columns, or here.
    if step._closed_columns:
        as_stored(step, "potential", stored, lambda: _potential("critic", step.ratio).to(step.stored.device))


def ratio_for_loops(ratio: DensityRatio | str) -> DensityRatio:
    """The ratio itself, or the ratio of a name in a training loop."""
    if isinstance(ratio, DensityRatio):
        return ratio
    name = ratio.lower() if isinstance(ratio, str) else ratio
    if not isinstance(name, str) or name not in IN_LOOPS:
        names = sorted([*IN_LOOPS, "auto"])
        hint = other_method(ratio, names) if isinstance(ratio, str) else ""
        if isinstance(ratio, type) and issubclass(ratio, DensityRatio):
            hint = f" Type {ratio.__name__}(...)."
        raise ValueError(f"ratio must be a DensityRatio such as KLIEP() or one of {names}; got {ratio!r}.{hint}")
    return IN_LOOPS[name]().set_params(**_LOOP_DEFAULTS.get(name, {}), gamma="target_spread")


def _check_coefficients(ratio: DensityRatio, objective: Any, n_train: int) -> None:
    """Raise ValueError unless each validation row has one coefficient, which is stored as its entry."""
    is_split = getattr(objective, "is_split", False)
    if is_split or make_features(ratio, objective, n_train, None, 1.0).is_map:
        what = "l1_ratio > 0 with nonnegative=False" if is_split else f"kernel={ratio.kernel!r}"
        instead = "leave out l1_ratio, or give nonnegative=True" if is_split else 'give kernel="gaussian", or KMM, which takes maps'
        raise ValueError(
            f"In a loop {type(ratio).__name__} stores one coefficient for each validation row, and {what} has another number of "
            f"them: {instead}."
        )


def _potential(potential: str | Potential, ratio: DensityRatio) -> Potential:
    if not isinstance(objective_of(ratio), Wasserstein1):
        raise ValueError(
            f"potential={potential!r} estimates the Wasserstein distance, and {type(ratio).__name__} is another divergence: leave "
            'it out, or give "wasserstein".'
        )
    if isinstance(potential, Potential):
        return potential
    if not isinstance(potential, str) or potential not in _POTENTIALS:
        raise ValueError(f"potential must be one of {sorted(_POTENTIALS)}, a Critic, a Sliced or None; got {potential!r}.")
    return _POTENTIALS[potential]()


def cheapest(*tensors: Tensor) -> tuple[Any, ...]:
    """The same memory as numpy arrays on a CPU, where an operation on a batch costs numpy half as much as torch."""
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def _in_turn(n: int, turn: Tensor) -> Tensor:
    """At most 64 places of n, evenly spread, shifted by one each turn.

    Fixed centers have too much time to fit the few validation rows they are; a whole bank of centers has too little.
    """
    n_chosen = min(n, _BANK_CENTERS)
    first = torch.arange(n_chosen, device=turn.device) * n // n_chosen
    return torch.remainder(first + torch.remainder(turn, -(-n // n_chosen)), n)
