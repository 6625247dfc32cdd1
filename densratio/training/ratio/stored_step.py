"""One divergence's warm-started step on a batch, from what it stored for the rows of the batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...estimators import IN_LOOPS, DensityRatio
from ...objectives import Wasserstein1
from ..loop.row_batch import Batch, store
from .class_priors import ClassFrequencies
from .critic import Critic
from .potential import Potential
from .sliced import Sliced

__all__ = ["StoredStep", "ratio_for_loops"]

# One step a batch from the last weights regularises by itself.
_LOOP_DEFAULTS: dict[str, dict[str, float]] = {"kmm": {"regularization": 0.0}}
_POTENTIALS: dict[str, type[Potential]] = {"critic": Critic, "sliced": Sliced}
_BANK_CENTERS = 64  # validation rows that are kernel centres in a step where a bank is the target: others in the next
_LEAST_ROWS = 2  # of a class, in both samples of a batch: one row's weight is 1 whatever the others are


class StoredStep(nn.Module):
    """A ratio and what it stored: weights_ (n_train,) of KMM and Wasserstein, of mean 1 in the batch (class by class: in the
    class) they were estimated in, or coef_ (n_val,) of KLIEP and LSIF, whose kernel centres are validation rows.

    Parameters as in `DynamicReweighter`. Raises ValueError for a potential that does not suit the ratio.
    """

    def __init__(
        self,
        ratio: DensityRatio,
        n_train: int,
        n_val: int,
        *,
        forget: float = 0.0,
        to_convergence: bool = False,
        potential: str | Potential | None = None,
    ):
        super().__init__()
        self.ratio = ratio
        self.forget = forget
        self.to_convergence = to_convergence
        objective = ratio._make_objective()
        self.stores_weights = objective.anchors == "source"
        self._takes_potential = isinstance(objective, Wasserstein1)
        self.potential = None if potential is None else _potential(potential, ratio)
        self._name = "weights_" if self.stores_weights else "coef_"
        self.register_buffer(self._name, torch.ones(n_train if self.stores_weights else n_val))

    @property
    def stored(self) -> Tensor:
        """weights_ (n_train,) or coef_ (n_val,)."""
        stored = getattr(self, self._name)
        assert isinstance(stored, Tensor)
        return stored

    def check(self, batch: Batch) -> None:
        """Raise ValueError for parameters that are out of range: with the first batch, not when the warm-up is over."""
        width = 1 if self._needs_potential(batch.source) else None
        self.ratio.update(*_cheapest(batch.source[:, :width], batch.target[:, :width]))

    def meet(self, batch: Batch, classes: ClassFrequencies | None) -> None:
        """Show the batch to the potential, where one is needed: it learns in the warm-up too."""
        if not self._needs_potential(batch.source):
            return
        if self.potential is None:
            self.potential = _potential("critic", self.ratio).to(self.stored.device)
        if self.to_convergence or self.ratio.solver not in ("auto", "subgradient"):
            raise ValueError(
                "to_convergence and a solver of one's own need rows of one column with Wasserstein: more columns are "
                f"estimated anew in each batch; got {batch.source.shape[1]} columns."
            )
        labels = {} if classes is None else {"y": classes.y_train[batch.positions], "y_val": classes.y_val[batch.val_positions]}
        weights = self.stored[batch.positions].to(batch.source.dtype)
        self.potential.take_in(weights, batch.source, batch.target, **labels, is_usable=batch.is_usable)

    def weights(self, batch: Batch, turn: Tensor | None) -> Tensor:
        """Weights (n,) of mean 1 of the rows of the batch after the step; what the step left is stored.

        turn (): number of the step where the target is a whole bank, of which some rows in turn are kernel centres; else None.
        """
        return self._step(batch.source, batch.target, batch.positions, batch.val_positions, batch.is_usable, turn)

    def weights_by_class(
        self, batch: Batch, turn: Tensor | None, classes: ClassFrequencies, kept: Tensor
    ) -> tuple[Tensor, list[int]]:
        """Weights (n,) after a step in each class, times the class-prior ratio; and the classes too small for a step.

        Rows of such classes get their entry of `kept` (n,).
        """
        weights, too_small = kept.to(batch.source.dtype, copy=True), []
        y, y_val = classes.y_train[batch.positions], classes.y_val[batch.val_positions]
        for label in y[y >= 0].unique().tolist() if bool(batch.is_usable) else []:
            at, val_at = (y == label).nonzero()[:, 0], (y_val == label).nonzero()[:, 0]
            prior = classes.ratio(label)
            if prior == 0.0:
                weights[at] = 0.0
            elif prior is None or min(len(at), len(val_at)) < _LEAST_ROWS:
                too_small.append(label)
            else:
                rows = batch.source[at], batch.target[val_at], batch.positions[at], batch.val_positions[val_at]
                weights[at] = prior * self._step(*rows, True, turn, label).to(weights.dtype)
        return weights, too_small

    def _step(
        self,
        source: Tensor,
        target: Tensor,
        positions: Tensor,
        val_positions: Tensor,
        is_usable: Tensor | bool,
        turn: Tensor | None,
        label: int = 0,
    ) -> Tensor:
        centers, places = None, positions
        if not self.stores_weights:
            places = val_positions
            if turn is not None:
                chosen = _in_turn(len(target), turn)
                centers, places = target[chosen], places[chosen]
        start = self.stored[places].to(source.dtype)
        start = 1.0 + (1.0 - self.forget) * (start - 1.0) if self.forget > 0.0 else start
        if self.potential is not None and self._needs_potential(source):
            weights = self.potential.step(self.ratio._make_objective(), self.ratio.n_steps, start, source, target, label)
        else:
            arrays = _cheapest(source, target, start, *(() if centers is None else (centers,)))
            update = self.ratio.update(
                *arrays[:3], centers=None if centers is None else arrays[3], to_convergence=self.to_convergence
            )
            weights = torch.as_tensor(update.weights)
            if not self.stores_weights:
                store(self.stored, places, torch.as_tensor(update.coef), is_usable)
        if self.stores_weights:
            store(self.stored, places, weights, is_usable)
        return weights

    def _needs_potential(self, source: Tensor) -> bool:
        return self._takes_potential and source.shape[1] > 1

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A critic is made with the first batch of several columns, or here.
        if self.potential is None and prefix + "potential.n_updated" in state_dict:
            self.potential = _potential("critic", self.ratio).to(self.stored.device)
        super()._load_from_state_dict(state_dict, prefix, *args)


def ratio_for_loops(ratio: DensityRatio | str) -> DensityRatio:
    """The ratio itself, or the one that a name stands for in a training loop."""
    if isinstance(ratio, DensityRatio):
        return ratio
    name = ratio.lower() if isinstance(ratio, str) else ratio
    if not isinstance(name, str) or name not in IN_LOOPS:
        names = sorted([*IN_LOOPS, "auto"])
        raise ValueError(f"ratio must be a DensityRatio such as KLIEP() or one of {names}; got {ratio!r}.")
    return IN_LOOPS[name]().set_params(**_LOOP_DEFAULTS.get(name, {}), gamma="target_spread")


def _potential(potential: str | Potential, ratio: DensityRatio) -> Potential:
    if not isinstance(ratio._make_objective(), Wasserstein1):
        raise ValueError(
            f"potential={potential!r} estimates the Wasserstein distance, and {type(ratio).__name__} is another divergence: leave "
            'it out, or give "wasserstein".'
        )
    if isinstance(potential, Potential):
        return potential
    if not isinstance(potential, str) or potential not in _POTENTIALS:
        raise ValueError(f"potential must be one of {sorted(_POTENTIALS)}, a Critic, a Sliced or None; got {potential!r}.")
    return _POTENTIALS[potential]()


def _cheapest(*tensors: Tensor) -> tuple[Any, ...]:
    """The same memory as numpy arrays on a CPU, where an operation on a batch costs numpy half of what it costs torch."""
    return tuple(t.numpy() for t in tensors) if tensors[0].device.type == "cpu" else tensors


def _in_turn(n: int, turn: Tensor) -> Tensor:
    """At most 64 places of n, evenly spread, one further with each turn.

    Centres that never change have too much time to fit the few validation rows they are; a whole bank of them too little.
    """
    n_chosen = min(n, _BANK_CENTERS)
    first = torch.arange(n_chosen, device=turn.device) * n // n_chosen
    return torch.remainder(first + torch.remainder(turn, -(-n // n_chosen)), n)
