"""DensityRatio, the scikit-learn estimator over an objective, a solver and features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from .._arrays import Array, has_float64, is_sparse, is_tensor, namespace, put, to_device, to_host
from .._validation import check_index
from ..features import FEATURES, Features, distinct_rows
from ..model_selection import are_partition
from ..objectives import (
    OBJECTIVES,
    KullbackLeibler,
    MaximumMeanDiscrepancy,
    Objective,
    SquaredDistance,
    Statistics,
    Wasserstein1,
)
from ..solvers import SOLVERS, Solver, State
from .contract import RatioEstimator, Samples, mean_one
from .explicit_map import MapAverage, mapped
from .witness import Witness

__all__ = ["DensityRatio", "Update", "from_registry"]

T = TypeVar("T")
_DENSE_SOLVE = 1000  # beyond as many centres a factorisation costs more than it saves
_BLOCK = 2**24  # entries of a feature block
_GRID = np.logspace(-1.5, 1.5, 9)  # bandwidths that "cv" tries, as multiples of the median rule's


class Update(NamedTuple):
    """What some steps on one batch give: the coefficients, the source rows' weights (n_s,) of mean 1, and the solver's state."""

    coef: Array
    weights: Array
    state: State
    features: Features | None
    normalization: Array


class DensityRatio(RatioEstimator):
    """Density ratio p_target(x) / p_source(x) by minimising a divergence between the weighted source and the target.

    Parameters
    ----------
    objective : str or Objective
        A name in `densratio.objectives.OBJECTIVES` or an instance, your own included.
    kernel : {"gaussian", "laplacian", "random_fourier", "nystroem"} or Features
        Features of the rows. The last two approximate the Gaussian kernel and may be negative: KLIEP does not take them.
    gamma : float, {"median", "target_spread", "cv"} or a sequence of these
        Bandwidth, in 1 / (data units)^2 for the Gaussian kernel exp(-gamma |x - y|^2) and in 1 / (data units) for the
        Laplacian. "median": 1 / (2 median squared distance) of the pooled rows. "target_spread": 1 / (squared distance
        between the 10 % and 90 % quantiles of the target), the better rule in training loops. "cv": the best of nine values
        around the median rule, from 1/32 to 32 times it, under cross-validation; a sequence: the best of these.
    n_centers : int or None
        Target rows that serve as kernel centres (None: all), or columns of an explicit map (None: 200).
    solver : str or Solver
        A name in `densratio.solvers.SOLVERS`, an instance, or "auto": the one that suits the objective.
    n_steps : int
        Steps of each `update`, and of each `partial_fit` where that steps.
    tol, max_iter : float, int
        `fit` stops when the optimality residual is at most tol, or warns after max_iter steps.
    device : str or None
        "cuda", "cpu", "mps": compute there in torch and give numpy back. None: where the input is.
    random_state : int, RandomState or None
        Choice of centres and random features.
    cv : int, scikit-learn splitter, iterable of (train, test), or None
        Folds of the cross-validation that "cv" and sequences ask for; of an iterable the rows of `test` are held out and all
        others fitted. None: five folds of each domain, or the closed-form leave-one-out score where there is one (uLSIF).
    n_jobs : int or None
        joblib processes of that search.

    Attributes
    ----------
    weights_ : (n_source,) weights of the source rows in their order, mean 1.
    coef_ : (p,) coefficients: one for each centre, or the weights themselves (KMM, Wasserstein).
    centers_, gamma_ : the rows that coef_ belongs to (p, d), and the bandwidth.
    objective_value_, gap_ : value at coef_, and an upper bound on its distance to the optimum (infinite if none is known).
    residual_, converged_, n_iter_ : optimality residual, whether it reached tol, and steps taken.
    normalization_ : mean of the raw ratio over the source rows, which `transform` divides by.
    best_params_, cv_results_ : what cross-validation chose, and all it tried, in the form of GridSearchCV's cv_results_.
    n_features_in_, feature_names_in_ : columns seen in fit.
    """

    _on_host: ClassVar[bool] = False
    _choosable: ClassVar[tuple[str, ...]] = ("gamma",)
    _returns: ClassVar[tuple[str, ...]] = ("coef_", "centers_")

    n_iter_: int

    def __init__(
        self,
        objective: str | Objective = "kliep",
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = 100,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        self.objective = objective
        self.kernel = kernel
        self.gamma = gamma
        self.n_centers = n_centers
        self.solver = solver
        self.n_steps = n_steps
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.cv = cv
        self.n_jobs = n_jobs

    # ------------------------------------------------------------ the contract

    def partial_fit(self, X: Any, y: Any = None, index: Any = None, sample_weight: Any = None) -> DensityRatio:
        """Take in one batch. X (n, d); y (n,) and sample_weight (n,) as in `fit`.

        KLIEP and LSIF add the batch to the statistics of all batches before it, and solve: a stream gives what `fit` gives on
        all its rows, with the centres and bandwidth of the first batch, where "cv" chooses too; weights_ are those of this
        batch's source rows. Where coef_ belongs to source rows (KMM, Wasserstein) it is `n_steps` steps from the stored
        weights: `index` (n_source of the batch,) names the source rows, and weights_ grows to the largest index seen, 1 for
        rows not seen yet; without `index` each batch must hold the same source rows.
        """
        is_first = not hasattr(self, "coef_")
        samples, like = self._samples(X, y, sample_weight, reset=is_first)
        if is_first:
            self._select(samples.counted())
        objective = self._make_objective()
        if objective.anchors == "source":
            return self._step_rows(objective, samples, like, index, is_first)
        if index is not None:
            raise ValueError(f"index names stored weights of source rows; {type(self).__name__} stores one coefficient per centre.")
        if objective.has_statistics:
            return self._stream(objective, samples, like, is_first)
        return self._step_centers(objective, samples, like, is_first)

    # ------------------------------------------------------------ for training loops

    def update(self, source: Array, target: Array, coef: Array | None = None, *, features: Features | None = None) -> Update:
        """`n_steps` steps on one batch from the stored `coef`: a pure function of its arguments that never waits for a GPU.

        source (n_s, d), target (n_t, d): arrays of one library, unchecked. coef (p,): None for a cold start. features:
        fitted ones to keep; None fits them to the batch with every anchor row a centre where `coef` was given.
        """
        self._check_is_plain()
        objective = self._make_objective()
        if features is None and objective.takes == "features":
            n_centers = self.n_centers if coef is None or objective.anchors == "source" else None
            features = self._make_features(objective, n_centers).fit(source, target, anchors=objective.anchors)
        inputs = _inputs(objective, features, source, target)
        compact = objective.summarise(*inputs)
        solver = self._make_solver(objective, inputs[0], to_convergence=False)
        state = solver.init(objective, *compact, coef=coef)
        for _ in range(self.n_steps):
            state = solver.step(objective, state, *compact)
        weights, normalization = mean_one(_of_source(objective, state.coef, inputs[0]))
        return Update(state.coef, weights, state, features, normalization)

    # ------------------------------------------------------------ parts

    def _fit(self, samples: Samples) -> Array:
        objective = self._make_objective()
        features = self._fitted_features(objective, samples, self._chosen("gamma"))
        if objective.has_statistics:
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
        return _of_source(objective, state.coef, source)

    def _inputs_to_solve(self, objective: Objective, features: Features, samples: Samples) -> tuple[Array, tuple[Array, ...]]:
        """What the objective takes of the source rows, and of both samples, summarised."""
        inputs = _inputs(objective, features, samples.source, samples.target)
        return inputs[0], objective.summarise(*inputs)

    def _solve_statistics(self, objective: Objective, features: Features, statistics: Statistics, samples: Samples) -> Array:
        like = features(samples.source[:1])
        equal, *compact = objective.problem(statistics, like)
        solver = self._make_solver(equal, compact[0], to_convergence=True)
        state = solver.run(equal, solver.init(equal, *compact), *compact)
        self._store(equal, solver, features, compact[0], tuple(compact), state, samples.source)
        self._seen = statistics
        return self._ratio(samples.source)

    def _statistics(self, objective: Objective, features: Features, samples: Samples) -> Statistics:
        """Statistics of all rows, taken in blocks of both samples so that no block of features is large."""
        n_blocks = 1 + max(samples.sizes) * features.n_columns // _BLOCK
        bounds = [np.linspace(0, rows.shape[0], n_blocks + 1, dtype=int) for rows in (samples.source, samples.target)]
        total = None
        for block in range(n_blocks):
            s, t = (slice(b[block], b[block + 1]) for b in bounds)
            weights = [None if w is None else w[at] for w, at in ((samples.source_weight, s), (samples.target_weight, t))]
            part = objective.statistics(features(samples.source[s, :]), features(samples.target[t, :]), *weights)
            total = part if total is None else total.plus(part)
        assert total is not None
        return total

    def _stream(self, objective: Objective, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
        counted = samples.counted()
        features = self._fitted_features(objective, counted, self._chosen("gamma")) if is_first else self.features_
        batch = self._statistics(objective, features, counted)
        seen = batch if is_first else self._seen.plus(batch)
        steps = 0 if is_first else self.n_iter_
        raw = self._solve_statistics(objective, features, self._bounded(seen), counted)
        self.n_iter_ += steps
        self._store_weights(raw, samples, counted, like)
        # The mean over all source rows, this batch's or not: exact but for what clipping at 0 adds, which this batch tells.
        means = [float(namespace(self._coef).sum(objective.signed(self._coef) * part.mean_source)) for part in (self._seen, batch)]
        mean = means[0] + (self.normalization_ - means[1])
        self.normalization_ = mean if mean > 0.0 else self.normalization_
        return self

    def _bounded(self, statistics: Statistics) -> Statistics:
        """The statistics that a stream keeps; those that grow with its length are thinned."""
        return statistics

    def _step_centers(self, objective: Objective, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
        if samples.source_weight is not None:
            objective.weighted(samples.source_weight, samples.target_weight)
        features = self._fitted_features(objective, samples, self._chosen("gamma")) if is_first else self.features_
        update = self.update(samples.source, samples.target, None if is_first else self._coef, features=features)
        self._take_step(objective, features, samples, update, is_first)
        self._store_weights(_of_source(objective, update.state.coef, features(samples.source)), samples, samples, like)
        return self

    def _step_rows(self, objective: Objective, samples: Samples, like: Array, index: Any, is_first: bool) -> DensityRatio:
        if samples.source_weight is not None:
            raise ValueError(f"partial_fit of {type(self).__name__} takes no sample_weight: use fit.")
        bank, rows = self._bank(index, samples.source, is_first)
        update = self.update(samples.source, samples.target, namespace(bank).take(bank, rows))
        features = update.features or self._fitted_features(objective, samples, self._chosen("gamma"))
        self._take_step(objective, features, samples, update, is_first)
        weights, named = to_host(bank).copy(), to_host(rows)
        # A row that is named more than once gets the mean of its weights.
        total = np.bincount(named, to_host(update.weights), minlength=len(weights))
        count = np.bincount(named, minlength=len(weights))
        weights[count > 0] = total[count > 0] / count[count > 0]
        self._store_weights(update.state.coef, samples, samples, like)
        self.weights_ = self._returned(put(weights, samples.source), like)
        return self

    def _take_step(self, objective: Objective, features: Features, samples: Samples, update: Update, is_first: bool) -> None:
        inputs = _inputs(objective, features, samples.source, samples.target)
        solver = self._make_solver(objective, inputs[0], to_convergence=False)
        steps = 0 if is_first else self.n_iter_
        self._store(objective, solver, features, inputs[0], objective.summarise(*inputs), update.state, samples.source)
        self.n_iter_ = steps + update.state.n_iter

    def _make_objective(self) -> Objective:
        if isinstance(self.objective, Objective):
            return self.objective
        return from_registry("objective", self.objective, OBJECTIVES)()

    def _make_features(self, objective: Objective, n_centers: int | None, gamma: Any = None) -> Features:
        """The features, not fitted. gamma: the value to use in place of the parameter's."""
        if n_centers is not None and not (isinstance(n_centers, int) and n_centers >= 1):
            raise ValueError(f"n_centers must be an int >= 1 or None; got {n_centers!r}.")
        features = self.kernel
        if not isinstance(features, Features):
            kind = from_registry("kernel", features, FEATURES)
            if objective.anchors == "source" and not kind.is_map:
                n_centers = None
            draws = kind.is_map or n_centers is not None
            gamma = self.gamma if gamma is None else gamma
            features = kind(gamma=gamma, n_centers=n_centers, random_state=_seed(self.random_state) if draws else 0)
        elif gamma is not None and gamma is not self.gamma:
            features = replace(features, gamma=gamma)
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
        if not objectives[0].has_statistics:
            return super()._scores(candidates, samples)
        # One task a bandwidth: its features serve every other parameter.
        members: dict[Any, list[int]] = {}
        for i, candidate in enumerate(candidates):
            members.setdefault(candidate.get("gamma", self.gamma), []).append(i)
        tasks = (delayed(self._scores_at)(gamma, [objectives[i] for i in of], samples) for gamma, of in members.items())
        parts = Parallel(n_jobs=self.n_jobs)(tasks)
        scores = np.empty((len(candidates), parts[0].shape[1]))
        for of, part in zip(members.values(), parts, strict=True):
            scores[of] = part
        return scores

    def _scores_at(self, gamma: Any, objectives: Sequence[Objective], samples: Samples) -> np.ndarray:
        """Held-out scores (len(objectives), n_folds) at one bandwidth, from statistics with and without each fold."""
        features = self._fitted_features(objectives[0], samples, gamma)
        like = features(samples.source[:1, :])
        folds = self._folds(samples)
        parts = [self._statistics(objectives[0], features, samples.taking(*fold)) for fold in folds]
        if are_partition(folds, *samples.sizes):
            rest = [reduce(lambda a, b: a.plus(b), parts[:k] + parts[k + 1 :]) for k in range(len(parts))]
        else:
            rest = [self._statistics(objectives[0], features, samples.taking(*fold.rest(*samples.sizes))) for fold in folds]
        pairs = list(zip(rest, parts, strict=True))
        return np.array([[self._held_out_score(objective, *pair, like) for pair in pairs] for objective in objectives])

    def _held_out_score(self, objective: Objective, kept: Statistics, held_out: Statistics, like: Array) -> float:
        equal, *compact = objective.problem(kept, like)
        solver = self._make_solver(equal, compact[0], to_convergence=True)
        coef = solver.run(equal, solver.init(equal, *compact), *compact).coef
        return float(objective.held_out_score(coef, kept, held_out))

    def _grid(self, name: str, samples: Samples) -> list[float]:
        features = self.kernel if isinstance(self.kernel, Features) else from_registry("kernel", self.kernel, FEATURES)()
        width = float(replace(features, gamma="median").bandwidth(*samples.weighted_rows))
        return [float(width * factor) for factor in _GRID]

    def _check_is_plain(self) -> None:
        for name in self._choosable:
            value = self._chosen(name)
            if (isinstance(value, str) and value == "cv") or isinstance(value, list | tuple | np.ndarray):
                raise ValueError(
                    f"{name}={value!r} asks for cross-validation, which needs a table: in a training loop give a number or a "
                    "rule, or call fit on a table first."
                )

    def _make_solver(self, objective: Objective, source: Array, *, to_convergence: bool) -> Solver:
        if isinstance(self.solver, Solver):
            return self.solver
        name = _auto_solvers(objective, source)[0 if to_convergence else 1] if self.solver == "auto" else self.solver
        if not self.tol > 0.0:
            raise ValueError(f"tol must be > 0; got {self.tol!r}.")
        if not self.max_iter >= 1 or not self.n_steps >= 1:
            raise ValueError(f"max_iter and n_steps must be >= 1; got {self.max_iter!r} and {self.n_steps!r}.")
        return from_registry("solver", name, SOLVERS, also=("auto",))(tol=self.tol, max_iter=self.max_iter)

    def _placed(self, rows: Array) -> Array:
        return rows if self.device is None or is_sparse(rows) else to_device(rows, self.device)

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
        is_here = is_sparse(rows) or _place(rows) == _place(self._coef)
        if self._off_sample is not None:
            return (self._off_sample if is_here else self._off_sample.to(rows))(rows)
        fitted = (self.features_, self._coef, self._counts)
        if not is_here:
            counts = None if self._counts is None else put(to_host(self._counts), rows)
            fitted = (self.features_.to(rows), put(to_host(self._coef), rows), counts)
        block = max(1, _BLOCK // max(1, self._coef.shape[0]))
        parts = [self._block_ratio(rows[i : i + block, :], *fitted) for i in range(0, rows.shape[0], block)]
        return namespace(parts[0]).concat(parts)

    def _block_ratio(self, rows: Array, fitted: Features, coef: Array, counts: Array | None) -> Array:
        objective = self._make_objective()
        return (objective if counts is None else objective.weighted(counts, None)).ratio(coef, fitted(rows))

    def _agreement(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        return self._make_objective().score(source_ratio, target_ratio, source_weight, target_weight)

    def _bank(self, index: Any, source: Array, is_first: bool) -> tuple[Array | None, Any]:
        """Stored weights and the positions of this batch's source rows in them; no bank where the batch is all there is."""
        n = source.shape[0]
        if index is None:
            if not is_first and len(self.weights_) != n:
                raise ValueError(
                    f"The stored weights are those of {len(self.weights_)} source rows and this batch has {n}: name them with "
                    "index= (one number for each source row of the batch)."
                )
            index = range(n)
        rows = check_index(list(index) if isinstance(index, range) else index, n, None)
        stored = put([], source) if is_first else put(to_host(self.weights_), source)
        xp = namespace(source)
        missing = int(rows.max()) + 1 - stored.shape[0]
        if missing > 0:
            stored = xp.concat([stored, put([1.0] * missing, source)])
        device = source.device if is_tensor(source) else None
        return stored, xp.asarray(rows, device=device)

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        kind: Any = FEATURES.get(self.kernel) if isinstance(self.kernel, str) else self.kernel
        return bool(getattr(kind, "takes_sparse", False))


def _auto_solvers(objective: Objective, source: Array) -> tuple[str, str]:
    """Names of the solvers that suit an objective on `source` (n_s, k): to convergence, and for a few steps in a loop."""
    if isinstance(objective, MaximumMeanDiscrepancy):
        return "interior_point" if has_float64(source) else "projected_gradient", "projected_gradient"
    if isinstance(objective, KullbackLeibler):
        suits_newton = has_float64(source) and source.shape[1] <= _DENSE_SOLVE
        return "likelihood_newton" if suits_newton else "expectation_maximisation", "expectation_maximisation"
    if isinstance(objective, SquaredDistance):
        if objective.has_closed_form:
            return "closed_form", "projected_gradient"
        suits_active_set = (
            objective.nonnegative and objective.is_definite and has_float64(source) and source.shape[1] <= _DENSE_SOLVE
        )
        return "active_set" if suits_active_set else "projected_gradient", "projected_gradient"
    if isinstance(objective, Wasserstein1):
        return "closed_form", "subgradient"
    return "projected_gradient", "projected_gradient"


def _place(x: Array) -> Any:
    """What must agree for two arrays to meet in one operation."""
    return (is_tensor(x), x.dtype, x.device if is_tensor(x) else None)


def _inputs(objective: Objective, features: Features | None, source: Array, target: Array) -> tuple[Array, Array]:
    return (source, target) if features is None or objective.takes == "rows" else (features(source), features(target))


def _of_source(objective: Objective, coef: Array, source: Array) -> Array:
    """The raw ratio (n_s,) of the source rows, given what the objective takes of them."""
    return coef if objective.anchors == "source" else objective.ratio(coef, source)


def from_registry(what: str, name: Any, registry: dict[str, type[T]], also: tuple[str, ...] = ()) -> type[T]:
    """The entry `name` of a registry; a ValueError that lists the names where there is none."""
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"{what}={name!r} is not known; use one of {sorted([*registry, *also])}.")
    return registry[name]


def _seed(random_state: Any) -> int:
    """An int seed from an int, a RandomState or Generator (which advances), or None (fresh; the global state is left alone)."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31 - 1))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31 - 1))
    raise ValueError(f"random_state must be an int, a RandomState, a Generator or None; got {random_state!r}.")
