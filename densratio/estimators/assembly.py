"""How a density ratio over an objective is put together: objective, features, solver, statistics, and the search over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone

from .._arrays import Array, is_sparse, to_device
from ..features import FEATURES, Features, distinct_rows
from ..model_selection import Fold, are_partition
from ..objectives import OBJECTIVES, MaximumMeanDiscrepancy, Objective, StatisticObjective, Statistics
from ..objectives.base import is_number
from ..solvers import SOLVERS, Solver
from .contract import RatioEstimator, Samples
from .parts import FEATURE_BLOCK, auto_solvers, from_registry, seed_of

__all__ = ["AssembledRatio"]

_GRID = np.logspace(-1.5, 1.5, 9)  # bandwidths that "cv" tries, as multiples of the median rule's


class AssembledRatio(RatioEstimator):
    """Base of `DensityRatio`: makes the parts that its parameters name, and scores candidates on rows held out."""

    _on_host: ClassVar[bool] = False
    _choosable: ClassVar[tuple[str, ...]] = ("gamma",)

    objective: str | Objective
    kernel: str | Features
    gamma: Any
    n_centers: int | None
    solver: str | Solver
    n_steps: int
    tol: float
    max_iter: int
    device: str | None
    random_state: Any
    cv: Any
    n_jobs: int | None

    def _select(self, samples: Samples) -> None:
        # One draw of centres serves every candidate and the fit.
        self._seed = seed_of(self.random_state)
        super()._select(samples)

    def _drawn_seed(self) -> int:
        return self._seed if hasattr(self, "_seed") else seed_of(self.random_state)

    def _make_objective(self) -> Objective:
        if isinstance(self.objective, Objective):
            return self.objective
        made = from_registry("objective", self.objective, OBJECTIVES)()
        if isinstance(made, MaximumMeanDiscrepancy):
            kind: Any = self.kernel if isinstance(self.kernel, Features) else from_registry("kernel", self.kernel, FEATURES)
            return replace(made, is_factored=kind.is_map)
        return made

    def _make_features(self, objective: Objective, n_centers: int | None, gamma: Any = None) -> Features:
        """The features, not fitted. gamma: the value to use in place of the parameter's."""
        if n_centers is not None and not (isinstance(n_centers, Integral) and n_centers >= 1):
            raise ValueError(f"n_centers must be an int >= 1 or None; got {n_centers!r}.")
        features = self.kernel
        if not isinstance(features, Features):
            kind = from_registry("kernel", features, FEATURES)
            if objective.anchors == "source" and not kind.is_map:
                n_centers = None
            draws = kind.is_map or n_centers is not None
            gamma = self.gamma if gamma is None else gamma
            features = kind(gamma=gamma, n_centers=n_centers, random_state=self._drawn_seed() if draws else 0)
        elif (self.gamma if gamma is None else gamma) != "median":
            features = replace(features, gamma=self.gamma if gamma is None else gamma)
        if objective.needs_nonnegative_features and not features.is_nonnegative:
            fits = sorted(name for name, kind in FEATURES.items() if kind.is_nonnegative)
            raise ValueError(
                f"{type(self).__name__} needs features >= 0, which kernel={self.kernel!r} does not give; use one of {fits}."
            )
        return features

    def _fitted_features(self, objective: Objective, samples: Samples, gamma: Any) -> Features:
        """The features, fitted on samples whose copied rows make one centre."""
        features = self._make_features(objective, self.n_centers, gamma)
        width = features.bandwidth(*samples.weighted_rows)
        target = samples.target
        if objective.anchors == "target" and not features.is_map:
            target = distinct_rows(target, features.n_centers, features.random_state)
        fitted = replace(features, gamma=float(width)).fit(samples.source, target, anchors=objective.anchors)
        return replace(fitted, gamma=features.gamma)

    def _make_solver(self, objective: Objective, source: Array, *, to_convergence: bool) -> Solver:
        if isinstance(self.solver, Solver):
            return self.solver
        name = auto_solvers(objective, source)[0 if to_convergence else 1] if self.solver == "auto" else self.solver
        if not (is_number(self.tol) and self.tol > 0.0):
            raise ValueError(f"tol must be > 0; got {self.tol!r}.")
        if not self.max_iter >= 1 or not self.n_steps >= 1:
            raise ValueError(f"max_iter and n_steps must be >= 1; got {self.max_iter!r} and {self.n_steps!r}.")
        return from_registry("solver", name, SOLVERS, also=("auto",))(tol=self.tol, max_iter=self.max_iter)

    def _statistics(self, objective: StatisticObjective, features: Features, samples: Samples) -> Statistics:
        """Statistics of all rows, taken in blocks of both samples so that no block of features is large."""
        n_blocks = 1 + max(samples.sizes) * features.n_columns // FEATURE_BLOCK
        bounds = [np.linspace(0, rows.shape[0], n_blocks + 1, dtype=int) for rows in (samples.source, samples.target)]
        total = None
        for block in range(n_blocks):
            s, t = (slice(b[block], b[block + 1]) for b in bounds)
            weights = [None if w is None else w[at] for w, at in ((samples.source_weight, s), (samples.target_weight, t))]
            part = objective.statistics(features(samples.source[s, :]), features(samples.target[t, :]), *weights)
            total = part if total is None else total.plus(part)
        assert total is not None
        return total

    def _placed(self, rows: Array) -> Array:
        return rows if self.device is None or is_sparse(rows) else to_device(rows, self.device)

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        kind: Any = FEATURES.get(self.kernel) if isinstance(self.kernel, str) else self.kernel
        return bool(getattr(kind, "takes_sparse", False))

    def _check_is_plain(self) -> None:
        for name in self._choosable:
            value = self._chosen(name)
            if (isinstance(value, str) and value == "cv") or isinstance(value, list | tuple | np.ndarray):
                raise ValueError(
                    f"{name}={value!r} asks for cross-validation, which needs a table: in a training loop give a number or a "
                    "rule, or call fit on a table first."
                )

    def _grid(self, name: str, samples: Samples) -> list[float]:
        features = self.kernel if isinstance(self.kernel, Features) else from_registry("kernel", self.kernel, FEATURES)()
        width = float(replace(features, gamma="median").bandwidth(*samples.weighted_rows))
        return [float(width * factor) for factor in _GRID]

    def _objectives_for(self, candidates: list[dict[str, Any]]) -> list[Objective]:
        """The objective with each candidate's parameters, of which the bandwidth is none."""
        made: dict[tuple, Objective] = {}
        for candidate in candidates:
            others = {name: value for name, value in candidate.items() if name != "gamma"}
            if tuple(others.items()) not in made:
                made[tuple(others.items())] = clone(self).set_params(**candidate)._make_objective()
        return [made[tuple((n, v) for n, v in candidate.items() if n != "gamma")] for candidate in candidates]

    def _scores(self, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
        objectives = self._objectives_for(candidates)
        if not all(isinstance(objective, StatisticObjective) for objective in objectives):
            return super()._scores(candidates, samples)
        # One task a bandwidth: its features serve every other parameter.
        members: dict[Any, list[int]] = {}
        for i, candidate in enumerate(candidates):
            members.setdefault(candidate.get("gamma", self.gamma), []).append(i)
        folds = self._folds(samples)
        tasks = (delayed(self._scores_at)(gamma, [objectives[i] for i in of], samples, folds) for gamma, of in members.items())
        parts = Parallel(n_jobs=self.n_jobs)(tasks)
        scores = np.empty((len(candidates), parts[0].shape[1]))
        for of, part in zip(members.values(), parts, strict=True):
            scores[of] = part
        return scores

    def _scores_at(self, gamma: Any, objectives: Sequence[Any], samples: Samples, folds: list[Fold]) -> np.ndarray:
        """Held-out scores (len(objectives), n_folds) at one bandwidth, from statistics with and without each fold."""
        with np.errstate(all="ignore"):
            # A candidate whose numbers overflow has a score that is not finite, and is passed over.
            return self._scores_of_folds(self._fitted_features(objectives[0], samples, gamma), objectives, samples, folds)

    def _scores_of_folds(self, features: Features, objectives: Sequence[Any], samples: Samples, folds: list[Fold]) -> np.ndarray:
        like = features(samples.source[:1, :])
        parts = [self._statistics(objectives[0], features, samples.taking(*fold)) for fold in folds]
        if are_partition(folds, *samples.sizes):
            rest = [reduce(lambda a, b: a.plus(b), parts[:k] + parts[k + 1 :]) for k in range(len(parts))]
        else:
            rest = [self._statistics(objectives[0], features, samples.taking(*fold.rest(*samples.sizes))) for fold in folds]
        pairs = list(zip(rest, parts, strict=True))
        return np.array([[self._held_out_score(objective, *pair, like) for pair in pairs] for objective in objectives])

    def _held_out_score(self, objective: StatisticObjective, kept: Statistics, held_out: Statistics, like: Array) -> float:
        equal, *compact = objective.problem(kept, like)
        solver = self._make_solver(equal, compact[0], to_convergence=True)
        coef = solver.run(equal, solver.init(equal, *compact), *compact).coef
        return float(objective.held_out_score(coef, kept, held_out))
