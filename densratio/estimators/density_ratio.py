"""DensityRatio: the scikit-learn estimator that minimizes an objective, on tables and on batches."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.metaestimators import available_if

from .._arrays import Array, are_alike, is_sparse, is_tensor, namespace, put, to_host, weighted_mean
from .._estimator import unchanged_on_error
from .._validation import check_index, from_registry
from ..features import FEATURES, Features
from ..objectives import Objective, Problem
from ..objectives.base import SumProblem
from ..solvers import Solution, Solver
from .base import RatioEstimator
from .explicit_map import MapAverage, mapped
from .off_sample import FromFeatures, KnownRows, Predictor
from .samples import Samples
from .search import ParameterSearch, scores_of_clones, search
from .solve import (
    Assembly,
    Weighting,
    assemble,
    assemble_batch,
    objective_of,
    problem_of,
    solve,
    takes_batches,
    warn_unless_converged,
    weigh,
)
from .sum_search import scores_from_sums

__all__ = ["DensityRatio", "bandwidths"]

_GRID = np.logspace(-1.5, 1.5, 9)  # bandwidths that "cv" tries, as multiples of the median rule


def bandwidths(ratio: DensityRatio, samples: Samples) -> list[float]:
    """The bandwidths that "cv" tries."""
    kernel = ratio.kernel
    features = kernel if isinstance(kernel, Features) else from_registry("kernel", kernel, FEATURES)()
    width = float(replace(features, gamma="median").bandwidth(*samples.weighted_rows, origin=samples.origin))
    return [float(width * factor) for factor in _GRID]


def _scores(ratio: DensityRatio, candidates: list[dict[str, Any]], samples: Samples) -> np.ndarray:
    return (scores_from_sums if objective_of(ratio).is_sum else scores_of_clones)(ratio, candidates, samples)


class DensityRatio(RatioEstimator):
    """Density ratio p_target(x) / p_source(x) by minimizing a divergence between the weighted source and the target.

    Parameters
    ----------
    objective : str or Objective
        A name in `densratio.objectives.OBJECTIVES`, or an instance, also of your own class.
    kernel : {"gaussian", "laplacian", "random_fourier", "nystroem"} or Features
        Features of the rows. The last two approximate the Gaussian kernel and may be negative, so KLIEP does not accept them.
    gamma : float, {"median", "target_spread", "cv"} or a sequence of these
        Bandwidth of the Gaussian kernel exp(-gamma |x - y|^2) or of the Laplacian exp(-gamma |x - y|_1), in the units that
        `scale` gives to the columns. "median": 1 / (2 median squared distance) of the pooled rows; with coefficients >= 0
        (KLIEP, LSIF) of the distance divided by the number of columns, at most by 3. For KLIEP and LSIF, with few distinct rows
        that occur often, at least so much that the kernels of two different rows do not overlap. "target_spread":
        1 / (squared distance between the 10 % and 90 % quantiles of the target), better in training loops. "cv": the best of
        nine values from 1/32 to 32 times the median rule, by cross-validation; a sequence: the best of these values.
    n_centers : int or None
        Number of target rows used as kernel centers (None: all), or of columns of an explicit map (None: 200).
    solver : str or Solver
        A name in `densratio.solvers.SOLVERS`, an instance, or "auto": the first that suits the problem.
    n_steps : int
        Steps of each `update`, and of each `partial_fit` of methods that take steps there.
    tol, max_iter : float, int
        `fit` stops when the optimality residual is at most tol, or with a warning after max_iter steps.
    scale : {"auto", None}
        "auto": distances are in units of each column's spread (`scale_`), so that units and offsets of the columns do not matter,
        and columns that both samples distribute alike count less.
        None: the columns are used as they are. `update`, a batch of a training loop, is never scaled.
    device : str or None
        "cuda", "cpu", "mps": compute there in torch and return numpy arrays. None: compute where the input is.
    random_state : int, RandomState, Generator or None
        Seed of the choice of centers and of random features; None draws others in each fit.
    cv : int, scikit-learn splitter, iterable of (train, test), or None
        Folds of cross-validation for "cv" and sequences. With an iterable, the rows of `test` are held out and all others
        fitted. None: five folds of each domain, or the closed-form leave-one-out score if there is one (uLSIF).
    n_jobs : int or None
        Number of joblib processes of that search.

    Attributes
    ----------
    weights_ : (n_source,) weights of the source rows in their order, mean 1.
    coef_ : (p,) coefficients: one per center, or the weights themselves (KMM, Wasserstein).
    centers_, gamma_ : the rows (p, d) that coef_ belongs to, in the columns' own units, and the bandwidth.
    scale_ : (d,) what each column is divided by: its spread, the standard deviation of a Gaussian column, from the median or
        lower quartile of the differences of two rows of one sample that differ in it; up to 2.5 times that where the samples do
        not differ in the column; 0 for a constant column, which is left out. Only with scale="auto".
    objective_value_, gap_ : value at coef_, and an upper bound on its distance to the optimum (infinite if none is known).
    residual_, converged_, n_iter_ : optimality residual, whether the solver converged, and steps taken.
    normalization_ : mean of the raw ratio over the source rows, by which `transform` divides.
    best_params_, cv_results_ : parameters chosen by cross-validation, and all results in the format of GridSearchCV.
    n_features_in_, feature_names_in_ : columns seen in fit.
    """

    _on_host: ClassVar[bool] = False
    _search: ClassVar[ParameterSearch] = ParameterSearch({"gamma": bandwidths}, _scores)
    _returns: ClassVar[tuple[str, ...]] = ("coef_", "centers_")
    _of_objective: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that are passed to the objective."""
    _of_map: ClassVar[tuple[str, ...]] = ()
    """Names of the parameters that decide when an explicit map replaces the kernel, see `map_instead`."""
    _for_tables: ClassVar[Mapping[str, str]] = {}
    """Names of parameters that batches support only as None, and the error message of each."""

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
        scale: str | None = "auto",
        device: str | None = None,
        random_state: Any = 0,
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
        self.scale = scale
        self.device = device
        self.random_state = random_state
        self.cv = cv
        self.n_jobs = n_jobs

    def update(
        self,
        source: Array,
        target: Array,
        coef: Array | None = None,
        *,
        features: Features | None = None,
        centers: Array | None = None,
        to_convergence: bool = False,
    ) -> Weighting:
        """Take `n_steps` steps on one batch from a stored `coef`: a pure function that never waits for a GPU.

        source (n_s, d), target (n_t, d): arrays of one library, not validated. coef (p,): None for a cold start. features:
        fitted features to use; None fits them to the batch, and if `coef` is given all anchor rows become centers. centers
        (p, d): the centers of KLIEP and LSIF, instead of the target rows. to_convergence: solve the batch as `fit` does, which
        waits for the device, instead of taking steps.
        """
        assembly = assemble_batch(self, source, target, is_warm=coef is not None, features=features, centers=centers)
        return weigh(self, assembly, source, target, coef, to_convergence=to_convergence, is_measured=False)

    @available_if(takes_batches)
    def partial_fit(self, X: Any, y: Any = None, index: Any = None, sample_weight: Any = None) -> DensityRatio:
        """Update the fit with one batch. X (n, d); y (n,) and sample_weight (n,) as in `fit`.

        KLIEP and LSIF add the problem of the batch to that of all earlier batches and solve the sum: a stream gives the same result
        as `fit` on all its rows, with the centers and the bandwidth of the first batch, on which "cv" chooses too. weights_ belong
        to the source rows of this batch. If coef_ belongs to source rows (KMM, Wasserstein), the batch takes `n_steps` steps from
        the stored
        weights: `index` (n_source of the batch,) names the source rows, and weights_ grows to the largest index, with 1 for rows
        that have not occurred yet; without `index` each batch must hold the same source rows.
        """
        is_first = not hasattr(self, "coef_")
        with unchanged_on_error(self):
            samples, like = self._samples(X, y, sample_weight, reset=is_first, is_stream=True)
            if is_first:
                self._draw_seed()
                search(self, samples.counted().mapped(self._scaled).merged())
            objective = objective_of(self)
            if objective.anchors == "source":
                return self._step_rows(samples, like, index, is_first)
            if index is not None:
                raise ValueError(
                    f"index names stored weights of source rows, but {type(self).__name__} stores one coefficient per center: "
                    "leave it out."
                )
            return (self._stream if objective.is_sum else self._step_centers)(samples, like, is_first)

    # ------------------------------------------------------------ a table

    def _fit(self, samples: Samples) -> Array:
        assembly = assemble(self, samples)
        solution = solve(self, problem_of(assembly, samples))
        self._keep(assembly, solution, samples)
        warn_unless_converged(self, solution)
        return self._raw_source_ratio(assembly, samples)

    def _raw_source_ratio(self, assembly: Assembly, samples: Samples) -> Array:
        return self._coef if assembly.objective.anchors == "source" else self._ratio(samples.source)

    def _keep(self, assembly: Assembly, solution: Solution, samples: Samples) -> None:
        """Store a solution: the fitted attributes, and the predictor of the ratio at any row."""
        objective, features = assembly
        like = solution.coef if objective.takes == "rows" else features(samples.source[:1, :])
        self._coef = namespace(like).astype(solution.coef, like.dtype, copy=False)
        problem = solution.problem
        self._problem: Any = problem.compact() if isinstance(problem, SumProblem) else problem.bare()
        self.features_ = features
        if objective.anchors == "source":
            self._keep_weights(samples)
        else:
            self.coef_, self._known = self._coef, None
            self.centers_ = self._unscaled(features.centers_) if features.centers_are_rows else features.centers_
        self.gamma_ = float(features.gamma_)
        self.objective_value_, self.gap_ = solution.value, solution.gap
        self.n_iter_, self.residual_, self.converged_ = solution.n_iter, solution.residual, solution.converged
        self._predictor = self._predictor_of(assembly, solution.problem, samples)

    def _keep_weights(self, samples: Samples) -> None:
        """Store the weights of the source rows as they were given."""
        self.coef_, self.centers_ = samples.of_each_source_row(self._coef), samples.given_source
        self._known = KnownRows.of(self.centers_, self.coef_)

    def _predictor_of(self, assembly: Assembly, problem: Problem, samples: Samples) -> Predictor:
        """The predictor of the ratio at any row, from the solved problem and what `_keep` has stored."""
        objective, features = assembly
        if objective.anchors == "source" and features.is_map:
            of_source = mapped(features, samples.source) if problem.source_map is None else problem.source_map
            return MapAverage.of(features, samples.source, of_source, self._coef, samples.source_weight)
        return FromFeatures(self._problem.bare(), features, self._coef)

    def _ratio(self, rows: Array) -> Array:
        if is_sparse(rows) and is_tensor(self._coef):
            rows = rows.toarray()
        is_here = is_sparse(rows) or are_alike(rows, self._coef)
        return (self._predictor if is_here else self._predictor.to(rows))(rows)

    def _score_of(
        self, source_ratio: Array, target_ratio: Array, source_weight: Array | None, target_weight: Array | None
    ) -> Array:
        return objective_of(self).score(source_ratio, target_ratio, source_weight, target_weight)

    @property
    def _takes_sparse(self) -> bool:  # type: ignore[override]
        kind: Any = FEATURES.get(self.kernel) if isinstance(self.kernel, str) else self.kernel
        return bool(getattr(kind, "takes_sparse", False))

    # ------------------------------------------------------------ batches

    def _stream(self, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
        counted = samples.counted()
        batch_rows = counted.mapped(self._scaled).merged()
        assembly = assemble(self, batch_rows) if is_first else Assembly(objective_of(self), self.features_)
        batch: Any = problem_of(assembly, batch_rows)
        seen = batch if is_first else batch.plus(self._problem)
        self._take_steps(assembly, solve(self, seen.compact()), counted, is_first)
        raw = self._ratio(self._scaled(counted.source))
        self._store_weights(raw, samples, counted, like)
        # The mean over the source rows of all batches: exact except for clipping at 0, whose effect is estimated on this batch.
        means = [float(part.source_mean(self._coef)) for part in (self._problem, batch)]
        mean = means[0] + (float(weighted_mean(raw, counted.source_weight)) - means[1])
        self.normalization_ = mean if mean > 0.0 else self.normalization_
        return self

    def _step_centers(self, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
        own, samples = samples, self._counting_once(samples)
        assembly = assemble(self, samples) if is_first else Assembly(objective_of(self), self.features_)
        found = weigh(self, assembly, samples.source, samples.target, None if is_first else self._coef)
        self._take_steps(assembly, found.solution, samples, is_first)
        self._store_weights(self._raw_source_ratio(assembly, samples), own, own, like)
        return self

    def _step_rows(self, samples: Samples, like: Array, index: Any, is_first: bool) -> DensityRatio:
        own, samples = samples, self._counting_once(samples)
        if is_first and index is None:
            steps = f"{self.n_steps} step{'s' * (self.n_steps != 1)}"
            warnings.warn(
                f"{type(self).__name__}.partial_fit takes {steps} of a training loop at each call, which does not solve for the "
                "weights of a table: call fit for that. In a loop, index= names the source rows.",
                UserWarning,
                stacklevel=3,
            )
        bank, rows = self._bank(index, samples.source, is_first)
        start = namespace(bank).take(bank, rows)
        assembly = assemble_batch(self, samples.source, samples.target, is_warm=True, features=None, centers=None)
        found = weigh(self, assembly, samples.source, samples.target, start)
        assembly = assemble(self, samples) if assembly.features is None else assembly
        self._take_steps(assembly, found.solution, samples, is_first)
        weights, named = to_host(bank).copy(), to_host(rows)
        # A row named more than once gets the mean of its weights.
        total = np.bincount(named, to_host(found.weights), minlength=len(weights))
        count = np.bincount(named, minlength=len(weights))
        weights[count > 0] = total[count > 0] / count[count > 0]
        self._store_weights(self._coef, own, own, like)
        self.weights_ = self._returned(put(weights, samples.source), like)
        return self

    def _counting_once(self, samples: Samples) -> Samples:
        """The samples in units of the columns' spreads, if their rows count once."""
        if samples.source_weight is not None:
            raise ValueError(f"partial_fit of {type(self).__name__} does not support sample_weight: use fit.")
        return samples.mapped(self._scaled)

    def _take_steps(self, assembly: Assembly, solution: Solution, samples: Samples, is_first: bool) -> None:
        steps = 0 if is_first else self.n_iter_
        self._keep(assembly, solution, samples)
        self.n_iter_ += steps

    def _bank(self, index: Any, source: Array, is_first: bool) -> tuple[Array | None, Any]:
        """The stored weights, and the positions of the source rows of this batch in them."""
        n = source.shape[0]
        if index is None:
            if not is_first and len(self.weights_) != n:
                raise ValueError(
                    f"The stored weights belong to {len(self.weights_)} source rows, and this batch has {n}: name its rows with "
                    "index= (one number per source row of the batch)."
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
