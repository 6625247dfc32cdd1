"""Wasserstein-1 matching: weights that make the source nearest to the target by transport distance, with a penalty."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.exceptions import ConvergenceWarning

from .._arrays import Array, device_of, host_numbers, put, to_host
from .._blocks import over_rows
from ..features import Features
from ..objectives.wasserstein import Transport
from ..solvers import Solution, Solver
from .density_ratio import DensityRatio, bandwidths
from .off_sample import Predictor
from .samples import Samples, weighted_sides
from .search import ParameterSearch
from .solve import Assembly, objective_of

__all__ = ["Envelope", "Wasserstein"]

_CERTAIN = 1e-5  # largest gap of a solution that counts as exact, relative to the value
_MISS = 1e-3  # largest error of the formula at the rows of the fit, relative to the largest weight, with which it is used
_CRITICS = {"critic": "densratio.training.ratio.critic_ratio"}  # modules that need torch, loaded on request


@dataclass(frozen=True, eq=False)
class Envelope:
    """r(x) = clip(f(x) / regularization, 0, upper) with f(x) = max_j (g_j - |x - v_j|), g the optimal potentials of the target.

    At source rows these are the optimality conditions of the regularized problem, so it gives their weights; f has slope at most 1.
    potentials (m,): g less `nearest` (m,), the distances of the target rows to their nearest source rows.
    """

    target: np.ndarray
    potentials: np.ndarray
    nearest: np.ndarray
    regularization: float
    upper: float

    def __call__(self, rows: Array) -> Array:
        """The ratio (n,) at rows (n, d)."""
        points = host_numbers(rows)
        height = self._on_line(points[:, 0]) if points.shape[1] == 1 else over_rows(self._height, points, len(self.target))
        return put(np.clip(height / self.regularization, 0.0, self.upper), rows)

    def to(self, like: Array) -> Envelope:
        """The same: it computes on the host in float64, whatever the rows."""
        return self

    def _height(self, points: np.ndarray) -> np.ndarray:
        return (self.potentials - (cdist(points, self.target) - self.nearest)).max(axis=1)

    def _on_line(self, points: np.ndarray) -> np.ndarray:
        # The potentials have slope at most 1 themselves, so one of the two neighbors is the largest.
        order = np.argsort(self.target[:, 0])
        line, height = self.target[order, 0], (self.potentials + self.nearest)[order]
        after = np.searchsorted(line, points).clip(max=len(line) - 1)
        return np.maximum(*(height[at] - np.abs(points - line[at]) for at in (after, np.maximum(after - 1, 0))))


class Wasserstein(DensityRatio):
    """Wasserstein-1 matching: the source weights with the least transport distance to the target, plus a penalty on their squares.

    Minimizes W + regularization |w|^2 / (2n) over 0 <= w <= max_weight of mean 1, W the least mean distance by which the weighted
    source can be moved onto the target. Exact, with a certified `gap_`: in one column by sorting, in several in time
    n m min(n, m) for each of some 20 steps and in memory for ten n x m matrices. See
    `DensityRatio` for the common parameters and attributes.

    regularization : float >= 0, in the units of the distance: how far weights follow single rows. At 0 each target row goes to
        its nearest source row, and most rows get no weight. "cv" (five values from 0.03 to 3) or a sequence: the best by
        cross-validation.
    max_weight : float or None, upper bound on each weight.
    potential : None or "critic". "critic": a network trained with a gradient penalty takes the place of the exact potentials, for
        tables of any size, also on a GPU; needs torch. It takes at most max_iter updates, and stops where the score of held-out
        rows stops rising; random_state seeds it, tol and solver are not used, and there are no coef_ beyond the weights, no gap_,
        no `update` and no `partial_fit`.

    With regularization > 0 `transform` returns the weight of a source row, and the formula of the optimality conditions at any
    other; at 0 the weight of a row of the fit, and the kernel average (kernel, gamma) of the weights near any other.

    Sources: the Wasserstein variant of the ADIW paper. Without regularization: Loog (2012), nearest-neighbor weights.
    """

    _takes_sparse = False
    _of_objective: ClassVar[tuple[str, ...]] = ("max_weight", "regularization")
    _for_tables: ClassVar[Mapping[str, str]] = {
        "potential": 'A loop has a potential of its own, and this ratio has potential="{0}": use '
        'DynamicReweighter(Wasserstein(), ..., potential="{0}").'
    }
    _search: ClassVar[ParameterSearch] = ParameterSearch(
        {"gamma": bandwidths, "regularization": lambda ratio, samples: np.logspace(-1.5, 0.5, 5).tolist()},
        most_rows=1000,  # the time of a fit grows with their cube
    )

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        max_weight: float | None = 1000.0,
        regularization: float | str | Sequence[float] = 0.3,
        potential: str | None = None,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        scale: str | None = "auto",
        device: str | None = None,
        random_state: Any = 0,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "wasserstein", kernel=kernel, gamma=gamma, n_centers=None, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, scale=scale, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
        self.regularization = regularization
        self.potential = potential

    def _fit(self, samples: Samples) -> Array:
        return super()._fit(samples) if self.potential is None else self._fit_potential(samples)

    def _fit_potential(self, samples: Samples) -> Array:
        objective: Any = objective_of(self)
        if objective.regularization == 0.0:
            raise ValueError(f"potential={self.potential!r} needs regularization > 0, which turns the potential into weights.")
        fit_ratio = _critic_room(self.potential).fit_ratio
        source, target = (part._replace(weight=part.weight / part.weight.mean()) for part in weighted_sides(samples))
        found = fit_ratio(
            source,
            target,
            regularization=objective.regularization,
            max_weight=objective.max_weight,
            max_iter=self.max_iter,
            seed=self._drawn_seed(),
            device=device_of(samples.source),
        )
        self._predictor, self._coef = found.ratio, found.ratio(samples.source)
        self._keep_weights(samples)
        self.features_, self.gamma_ = None, float("nan")
        self.objective_value_, self.gap_ = found.value, float("inf")
        self.n_iter_, self.residual_, self.converged_ = found.n_iter, float("nan"), found.converged
        return self._coef

    def _keep(self, assembly: Assembly, solution: Solution, samples: Samples) -> None:
        super()._keep(assembly, solution, samples)
        is_certified = assembly.objective.regularization > 0.0
        if is_certified and solution.converged and self.gap_ > _CERTAIN * max(1.0, abs(self.objective_value_)):
            self.converged_ = False
            warnings.warn(
                f"Wasserstein ended {self.gap_:.1e} above the optimal value at most: some rows are so far from the others that "
                "rounding of their distances outweighs the rest. Leave these rows out, or mark a sentinel as missing.",
                ConvergenceWarning,
                stacklevel=5,
            )
        weights = host_numbers(self._coef)
        formula = _formula(solution, samples, assembly.objective)
        if formula is not None and np.abs(to_host(formula(samples.source)) - weights).max() <= _MISS * weights.max():
            self._predictor = formula


def _formula(solution: Solution, samples: Samples, objective: Any) -> Predictor | None:
    """The ratio at any row from the solver's potentials; None if there are none."""
    problem: Any = solution.problem
    on_line = isinstance(problem, Transport)
    potentials = problem.potentials if on_line else getattr(solution.state.memory, "potentials", None)
    if potentials is None or objective.regularization == 0.0:
        return None
    nearest = np.zeros(samples.sizes[1]) if on_line else problem.nearest[problem.marginals.of_target]
    target = host_numbers(samples.target)
    upper = np.inf if objective.max_weight is None else float(objective.max_weight)
    return Envelope(target, potentials, nearest, objective.regularization, upper)


def _critic_room(name: Any) -> Any:
    """The module that fits a potential. ValueError for an unknown name, ImportError without torch."""
    if name not in _CRITICS:
        raise ValueError(f"potential must be None or one of {sorted(_CRITICS)}; got {name!r}.")
    try:
        return import_module(_CRITICS[name])
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f'potential="{name}" needs torch: pip install "densratio-toolkit[torch]"') from None
