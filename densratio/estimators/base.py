"""DensityRatio, the scikit-learn estimator over an objective, a solver and features; and what it makes of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from .._arrays import Array, is_tensor, namespace, put, to_host, weighted_mean
from .._validation import check_index
from ..features import Features
from ..objectives import Objective, StatisticObjective
from ..solvers import Solver
from .contract import Samples
from .fitting import SolvedRatio, Update
from .parts import inputs_of, ratio_of_source

__all__ = ["DensityRatio", "Update"]


class DensityRatio(SolvedRatio):
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

    _returns: ClassVar[tuple[str, ...]] = ("coef_", "centers_")

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
        if isinstance(objective, StatisticObjective):
            return self._stream(objective, samples, like, is_first)
        return self._step_centers(objective, samples, like, is_first)

    def _stream(self, objective: StatisticObjective, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
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
        mean = means[0] + (float(weighted_mean(raw, counted.source_weight)) - means[1])
        self.normalization_ = mean if mean > 0.0 else self.normalization_
        return self

    def _step_centers(self, objective: Objective, samples: Samples, like: Array, is_first: bool) -> DensityRatio:
        if samples.source_weight is not None:
            raise ValueError(f"partial_fit of {type(self).__name__} takes no sample_weight: use fit.")
        features = self._fitted_features(objective, samples, self._chosen("gamma")) if is_first else self.features_
        update = self.update(samples.source, samples.target, None if is_first else self._coef, features=features)
        self._take_step(objective, features, samples, update, is_first)
        self._store_weights(ratio_of_source(objective, update.state.coef, features(samples.source)), samples, samples, like)
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
        inputs = inputs_of(objective, features, samples.source, samples.target)
        solver = self._make_solver(objective, inputs[0], to_convergence=False)
        steps = 0 if is_first else self.n_iter_
        self._store(objective, solver, features, inputs[0], objective.summarise(*inputs), update.state, samples.source)
        self.n_iter_ = steps + update.state.n_iter

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
