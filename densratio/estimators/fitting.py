"""How a density ratio over an objective is solved and kept: to convergence on a table, or by some steps on a batch."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import NamedTuple

from sklearn.exceptions import ConvergenceWarning

from .._arrays import Array, is_sparse, is_tensor, namespace, put, to_host
from ..features import Features
from ..objectives import Objective, StatisticObjective, Statistics
from ..solvers import Solver, State
from .assembly import AssembledRatio
from .contract import Samples, mean_one
from .explicit_map import MapAverage, mapped
from .parts import FEATURE_BLOCK, inputs_of, place, ratio_of_source
from .witness import Witness

__all__ = ["SolvedRatio", "Update"]


class Update(NamedTuple):
    """What some steps on one batch give: the coefficients, the source rows' weights (n_s,) of mean 1, and the solver's state."""

    coef: Array
    weights: Array
    state: State
    features: Features | None
    normalization: Array


class SolvedRatio(AssembledRatio):
    """Base of `DensityRatio`: solves for the coefficients and gives the ratio of any row from them."""

    n_iter_: int

    def update(
        self,
        source: Array,
        target: Array,
        coef: Array | None = None,
        *,
        features: Features | None = None,
        centers: Array | None = None,
        to_convergence: bool = False,
    ) -> Update:
        """`n_steps` steps on one batch from the stored `coef`: a pure function of its arguments that never waits for a GPU.

        source (n_s, d), target (n_t, d): arrays of one library, unchecked. coef (p,): None for a cold start. features:
        fitted ones to keep; None fits them to the batch with every anchor row a centre where `coef` was given. centers (p, d):
        rows in the place of the target's as the centres of KLIEP and LSIF. to_convergence: solve the batch, as `fit` does, in
        place of the steps, and wait for it.
        """
        self._check_is_plain()
        objective = self._make_objective()
        if features is None and objective.takes == "features":
            n_centers = self.n_centers if coef is None or objective.anchors == "source" else None
            features = self._make_features(objective, n_centers, self._chosen("gamma")).fit(
                source, target, anchors=objective.anchors
            )
            if centers is not None and objective.anchors == "target" and not features.is_map:
                features = replace(features, parameters_=(centers,))
        inputs = inputs_of(objective, features, source, target)
        compact = objective.summarise(*inputs)
        solver = self._make_solver(objective, inputs[0], to_convergence=to_convergence)
        state = solver.init(objective, *compact, coef=coef)
        if to_convergence:
            state = solver.run(objective, state, *compact)
        else:
            for _ in range(self.n_steps):
                state = solver.step(objective, state, *compact)
        weights, normalization = mean_one(ratio_of_source(objective, state.coef, inputs[0]))
        return Update(state.coef, weights, state, features, normalization)

    def _fit(self, samples: Samples) -> Array:
        objective = self._make_objective()
        features = self._fitted_features(objective, samples, self._chosen("gamma"))
        if isinstance(objective, StatisticObjective):
            raw = self._solve_statistics(objective, features, self._statistics(objective, features, samples), samples)
        else:
            raw = self._solve_rows(objective, features, samples)
        self._warn_unless_converged()
        return raw

    def _warn_unless_converged(self) -> None:
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} steps with optimality residual {self.residual_:.1e} > "
                f"tol={self.tol:.1e}. The weights are usable; raise max_iter or tol, or scale the columns.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _solve_rows(self, objective: Objective, features: Features, samples: Samples) -> Array:
        if samples.source_weight is not None:
            objective = objective.weighted(samples.source_weight, samples.target_weight)
        source, compact = self._inputs_to_solve(objective, features, samples)
        solver = self._make_solver(objective, source, to_convergence=True)
        state = solver.run(objective, solver.init(objective, *compact), *compact)
        self._store(objective, solver, features, source, compact, state, samples.source)
        return ratio_of_source(objective, state.coef, source)

    def _inputs_to_solve(self, objective: Objective, features: Features, samples: Samples) -> tuple[Array, tuple[Array, ...]]:
        """What the objective takes of the source rows, and of both samples, summarised."""
        inputs = inputs_of(objective, features, samples.source, samples.target)
        return inputs[0], objective.summarise(*inputs)

    def _solve_statistics(
        self, objective: StatisticObjective, features: Features, statistics: Statistics, samples: Samples
    ) -> Array:
        like = features(samples.source[:1])
        equal, *compact = objective.problem(statistics, like)
        solver = self._make_solver(equal, compact[0], to_convergence=True)
        state = solver.run(equal, solver.init(equal, *compact), *compact)
        self._store(equal, solver, features, compact[0], tuple(compact), state, samples.source)
        self._seen = self._bounded(statistics)
        return self._ratio(samples.source)

    def _bounded(self, statistics: Statistics) -> Statistics:
        """The statistics that are kept for a stream; those that grow with its length are thinned."""
        return statistics

    def _store(
        self,
        objective: Objective,
        solver: Solver,
        features: Features,
        source_features: Array,
        compact: tuple[Array, ...],
        state: State,
        source: Array,
    ) -> None:
        value, grad = objective.value_and_grad(state.coef, *compact)
        self.features_, self._coef = features, state.coef
        self._counts = getattr(objective, "source_weight", None)
        # What gives the ratio of any row where that is no function of coef_ and a row's features alone.
        self._off_sample: MapAverage | Witness | None = None
        if objective.anchors == "source" and features.is_map:
            of_source = source_features if objective.takes == "features" else mapped(features, source)
            self._off_sample = MapAverage.of(features, source, of_source, state.coef, self._counts)
        self.coef_ = state.coef
        self.centers_ = source if objective.anchors == "source" else features.centers_
        self.gamma_ = float(features.gamma_)
        self.objective_value_ = float(value)
        self.gap_ = float(objective.gap(state.coef, grad, *compact))
        self.n_iter_ = state.n_iter
        self.residual_ = float(state.residual)
        self.converged_ = solver.has_converged(state)

    def _ratio(self, rows: Array) -> Array:
        if is_sparse(rows) and is_tensor(self._coef):
            rows = rows.toarray()
        is_here = is_sparse(rows) or place(rows) == place(self._coef)
        if self._off_sample is not None:
            return (self._off_sample if is_here else self._off_sample.to(rows))(rows)
        fitted = (self.features_, self._coef, self._counts)
        if not is_here:
            counts = None if self._counts is None else put(to_host(self._counts), rows)
            fitted = (self.features_.to(rows), put(to_host(self._coef), rows), counts)
        block = max(1, FEATURE_BLOCK // max(1, self._coef.shape[0]))
        parts = [self._block_ratio(rows[i : i + block, :], *fitted) for i in range(0, rows.shape[0], block)]
        return namespace(parts[0]).concat(parts)

    def _block_ratio(self, rows: Array, fitted: Features, coef: Array, counts: Array | None) -> Array:
        objective = self._make_objective()
        return (objective if counts is None else objective.weighted(counts, None)).ratio(coef, fitted(rows))

    def _agreement(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        return self._make_objective().score(source_ratio, target_ratio, source_weight, target_weight)
