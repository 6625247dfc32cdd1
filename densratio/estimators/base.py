"""DensityRatio, the scikit-learn estimator over an objective, a solver and features."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple, TypeVar

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from .._arrays import Array, has_float64, is_tensor, namespace, put, to_device, to_host
from .._validation import check_index, check_rows, split_domains
from ..features import FEATURES, Features
from ..objectives import OBJECTIVES, KullbackLeibler, MaximumMeanDiscrepancy, Objective, SquaredDistance, Wasserstein1
from ..solvers import SOLVERS, Solver, State

__all__ = ["DensityRatio", "Update", "from_registry"]

T = TypeVar("T")
_NEWTON_CENTERS = 1000  # beyond it a Newton step of KLIEP costs more than it saves
_BLOCK = 2**24  # entries of a feature block in transform


class Update(NamedTuple):
    """What some steps on one batch give: the coefficients, the source rows' weights (n_s,) of mean 1, and the solver's state."""

    coef: Array
    weights: Array
    state: State
    features: Features | None
    normalization: Array


class DensityRatio(BaseEstimator):
    """Density ratio p_target(x) / p_source(x) by minimising a divergence between the weighted source and the target.

    Parameters
    ----------
    objective : str or Objective
        A name in `densratio.objectives.OBJECTIVES` or an instance, your own included.
    kernel : {"gaussian", "laplacian", "random_fourier", "nystroem"} or Features
        Features of the rows. The last two approximate the Gaussian kernel and may be negative: KLIEP does not take them.
    gamma : float or {"median", "target_spread"}
        Bandwidth, in 1 / (data units)^2 for the Gaussian kernel exp(-gamma |x - y|^2) and in 1 / (data units) for the
        Laplacian. "median": 1 / (2 median squared distance) of the pooled rows. "target_spread": 1 / (squared distance
        between the 10 % and 90 % quantiles of the target), the better rule in training loops.
    n_centers : int or None
        Target rows that serve as kernel centres (None: all), or columns of an explicit map (None: 200).
    solver : str or Solver
        A name in `densratio.solvers.SOLVERS`, an instance, or "auto": the one that suits the objective.
    n_steps : int
        Steps of each `partial_fit`.
    tol, max_iter : float, int
        `fit` stops when the optimality residual is at most tol, or warns after max_iter steps.
    device : str or None
        "cuda", "cpu", "mps": compute there in torch and give numpy back. None: where the input is.
    random_state : int, RandomState or None
        Choice of centres and random features.

    Attributes
    ----------
    weights_ : (n_source,) weights of the source rows in their order, mean 1.
    coef_ : (p,) coefficients: one for each centre, or the weights themselves (KMM, Wasserstein).
    centers_, gamma_ : the rows that coef_ belongs to (p, d), and the bandwidth.
    objective_value_, gap_ : value at coef_, and an upper bound on its distance to the optimum (infinite if none is known).
    residual_, converged_, n_iter_ : optimality residual, whether it reached tol, and steps taken.
    normalization_ : mean of the raw ratio over the source rows, which `transform` divides by.
    n_features_in_, feature_names_in_ : columns seen in fit.
    """

    n_iter_: int

    def __init__(
        self,
        objective: str | Objective = "kliep",
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str = "median",
        n_centers: int | None = 100,
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
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

    # ------------------------------------------------------------ the contract

    def fit(self, X: Any, y: Any = None) -> DensityRatio:
        """Estimate the ratio to convergence. X (n, d); y (n,) two values, the smaller is the source."""
        source, target, on_host = self._domains(X, y, reset=True)
        objective = self._make_objective()
        features = self._make_features(objective, source, target, self.n_centers)
        inputs = _inputs(objective, features, source, target)
        solver = self._make_solver(objective, inputs[0], to_convergence=True)
        compact = objective.summarise(*inputs)
        state = solver.run(objective, solver.init(objective, *compact), *compact)
        self._store(objective, solver, features, inputs, compact, state, source, on_host)
        if not self.converged_:
            warnings.warn(
                f"{type(self).__name__} stopped after {self.n_iter_} steps with optimality residual {self.residual_:.1e} > "
                f"tol={self.tol:.1e}. The weights are usable; raise max_iter or tol, or scale the columns.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: Any, y: Any = None, index: Any = None) -> DensityRatio:
        """`n_steps` steps on this batch, warm-started from the stored coefficients. X (n, d); y (n,) as in `fit`.

        Where coef_ belongs to source rows (KMM, Wasserstein) `index` (n_source of the batch,) names them: their stored
        weights are the start, and weights_ grows to the largest index seen, 1 for rows not seen yet; without `index`
        each batch must hold the same source rows. Elsewhere the centres and bandwidth of the first call are kept.
        """
        is_first = not hasattr(self, "coef_")
        source, target, on_host = self._domains(X, y, reset=is_first)
        objective = self._make_objective()
        if objective.anchors == "target":
            if index is not None:
                raise ValueError(
                    f"index names stored weights of source rows; {type(self).__name__} stores one coefficient per centre."
                )
            features = None if is_first else self.features_
            update = self.update(source, target, None if is_first else self._coef, features=features)
            bank = None
        else:
            bank, rows = self._bank(index, source, is_first)
            update = self.update(source, target, None if bank is None else namespace(bank).take(bank, rows))
        fitted = update.features or self._make_features(objective, source, target, self.n_centers)
        inputs = _inputs(objective, fitted, source, target)
        compact = objective.summarise(*inputs)
        solver = self._make_solver(objective, inputs[0], to_convergence=False)
        steps = 0 if is_first else self.n_iter_
        self._store(objective, solver, fitted, inputs, compact, update.state, source, on_host)
        self.n_iter_ = steps + update.state.n_iter
        if bank is not None:
            weights, named = to_host(bank).copy(), to_host(rows)
            # A row that is named more than once gets the mean of its weights.
            total = np.bincount(named, to_host(update.weights), minlength=len(weights))
            count = np.bincount(named, minlength=len(weights))
            weights[count > 0] = total[count > 0] / count[count > 0]
            self.weights_ = self._out(put(weights, source), on_host)
        return self

    def transform(self, X: Any) -> Any:
        """p_target(x) / p_source(x) (n,), >= 0, for the rows of X (n, d); mean 1 over the rows that `fit` saw as source.

        KMM and Wasserstein weigh rows, not points: their ratio at x is the kernel average of the weights near x.
        """
        self._check_is_fitted()
        rows = check_rows(self, X, reset=False)
        on_host = not is_tensor(rows)
        rows = self._placed(rows)
        xp = namespace(rows)
        fitted = (self.features_, self._coef, self._anchor_features)
        if _place(rows) != _place(self._coef):
            anchor_features = None if self._anchor_features is None else put(to_host(self._anchor_features), rows)
            fitted = (self.features_.to(rows), put(to_host(self._coef), rows), anchor_features)
        block = max(1, _BLOCK // max(1, self._coef.shape[0]))
        parts = [self._ratio(rows[i : i + block, :], *fitted) for i in range(0, rows.shape[0], block)]
        return self._out(xp.concat(parts) / self.normalization_, on_host)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """fit(X, y), then the ratio (n,) of all rows of X."""
        return self.fit(X, y).transform(X)

    def score(self, X: Any, y: Any = None) -> float:
        """Agreement of the ratio with held-out rows, higher is better. X (n, d); y (n,) as in `fit`.

        For KLIEP the lower bound mean log r(target) - mean r(source) + 1 of the Kullback-Leibler divergence; for every other
        mean r(target) - mean r(source)^2 / 2, the squared distance to the true ratio up to sign and a constant.
        """
        self._check_is_fitted()
        source, target, _ = split_domains(self, X, y, reset=False)
        return float(self._make_objective().score(self.transform(source), self.transform(target)))

    # ------------------------------------------------------------ for training loops

    def update(self, source: Array, target: Array, coef: Array | None = None, *, features: Features | None = None) -> Update:
        """`n_steps` steps on one batch from the stored `coef`: a pure function of its arguments that never waits for a GPU.

        source (n_s, d), target (n_t, d): arrays of one library, unchecked. coef (p,): None for a cold start. features:
        fitted ones to keep; None fits them to the batch with every anchor row a centre where `coef` was given.
        """
        objective = self._make_objective()
        if features is None and objective.takes == "features":
            n_centers = self.n_centers if coef is None or objective.anchors == "source" else None
            features = self._make_features(objective, source, target, n_centers)
        inputs = _inputs(objective, features, source, target)
        compact = objective.summarise(*inputs)
        solver = self._make_solver(objective, inputs[0], to_convergence=False)
        state = solver.init(objective, *compact, coef=coef)
        for _ in range(self.n_steps):
            state = solver.step(objective, state, *compact)
        weights, normalization = _mean_one(objective, state.coef, inputs[0])
        return Update(state.coef, weights, state, features, normalization)

    # ------------------------------------------------------------ parts

    def _make_objective(self) -> Objective:
        if isinstance(self.objective, Objective):
            return self.objective
        return from_registry("objective", self.objective, OBJECTIVES)()

    def _make_features(self, objective: Objective, source: Array, target: Array, n_centers: int | None) -> Features:
        if n_centers is not None and not (isinstance(n_centers, int) and n_centers >= 1):
            raise ValueError(f"n_centers must be an int >= 1 or None; got {n_centers!r}.")
        features = self.kernel
        if not isinstance(features, Features):
            kind = from_registry("kernel", features, FEATURES)
            if objective.anchors == "source" and not kind.is_map:
                n_centers = None
            draws = kind.is_map or n_centers is not None
            features = kind(gamma=self.gamma, n_centers=n_centers, random_state=_seed(self.random_state) if draws else 0)
        if objective.needs_nonnegative_features and not features.is_nonnegative:
            fits = sorted(name for name, kind in FEATURES.items() if kind.is_nonnegative)
            raise ValueError(
                f"{type(self).__name__} needs features >= 0, which kernel={self.kernel!r} does not give; use one of {fits}."
            )
        return features.fit(source, target, anchors=objective.anchors)

    def _make_solver(self, objective: Objective, source: Array, *, to_convergence: bool) -> Solver:
        if isinstance(self.solver, Solver):
            return self.solver
        name = _auto_solvers(objective, source)[0 if to_convergence else 1] if self.solver == "auto" else self.solver
        if not self.tol > 0.0:
            raise ValueError(f"tol must be > 0; got {self.tol!r}.")
        if not self.max_iter >= 1 or not self.n_steps >= 1:
            raise ValueError(f"max_iter and n_steps must be >= 1; got {self.max_iter!r} and {self.n_steps!r}.")
        return from_registry("solver", name, SOLVERS, also=("auto",))(tol=self.tol, max_iter=self.max_iter)

    def _domains(self, X: Any, y: Any, *, reset: bool) -> tuple[Array, Array, bool]:
        source, target, _ = split_domains(self, X, y, reset=reset)
        return self._placed(source), self._placed(target), not is_tensor(source)

    def _placed(self, rows: Array) -> Array:
        return rows if self.device is None else to_device(rows, self.device)

    def _out(self, x: Array, on_host: bool) -> Array:
        return to_host(x) if on_host else x

    def _store(
        self,
        objective: Objective,
        solver: Solver,
        features: Features,
        inputs: tuple[Array, Array],
        compact: tuple[Array, Array],
        state: State,
        source: Array,
        on_host: bool,
    ) -> None:
        weights, normalization = _mean_one(objective, state.coef, inputs[0])
        value, grad = objective.value_and_grad(state.coef, *compact)
        self.features_, self._coef = features, state.coef
        self._anchor_features = inputs[0] if objective.anchors == "source" and features.is_map else None
        self.weights_ = self._out(weights, on_host)
        self.coef_ = self._out(state.coef, on_host)
        self.centers_ = self._out(source if objective.anchors == "source" else features.centers_, on_host)
        self.gamma_ = float(features.gamma_)
        self.normalization_ = float(normalization)
        self.objective_value_ = float(value)
        self.gap_ = float(objective.gap(state.coef, grad, *compact))
        self.n_iter_ = state.n_iter
        self.residual_ = float(state.residual)
        self.converged_ = solver.has_converged(state)

    def _ratio(self, rows: Array, fitted: Features, coef: Array, anchor_features: Array | None) -> Array:
        features = fitted(rows)
        if anchor_features is not None:
            xp = namespace(rows)
            features = xp.clip(features @ xp.matrix_transpose(anchor_features), min=0.0)
        return self._make_objective().ratio(coef, features)

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

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise NotFittedError(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before using "
                "this estimator: fit(*stack_domains(X_source, X_target))."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags = _transformer_tags()
        tags.classifier_tags = _two_valued_target()
        return tags


def _auto_solvers(objective: Objective, source: Array) -> tuple[str, str]:
    """Names of the solvers that suit an objective on `source` (n_s, k): to convergence, and for a few steps in a loop."""
    if isinstance(objective, MaximumMeanDiscrepancy):
        return "interior_point" if has_float64(source) else "projected_gradient", "projected_gradient"
    if isinstance(objective, KullbackLeibler):
        suits_newton = has_float64(source) and source.shape[1] <= _NEWTON_CENTERS
        return "likelihood_newton" if suits_newton else "expectation_maximisation", "expectation_maximisation"
    if isinstance(objective, SquaredDistance) and objective.has_closed_form:
        return "closed_form", "projected_gradient"
    if isinstance(objective, Wasserstein1):
        return "closed_form", "subgradient"
    return "projected_gradient", "projected_gradient"


def _place(x: Array) -> Any:
    """What must agree for two arrays to meet in one operation."""
    return (is_tensor(x), x.dtype, x.device if is_tensor(x) else None)


def _inputs(objective: Objective, features: Features | None, source: Array, target: Array) -> tuple[Array, Array]:
    return (source, target) if features is None or objective.takes == "rows" else (features(source), features(target))


def _mean_one(objective: Objective, coef: Array, source: Array) -> tuple[Array, Array]:
    """Weights (n_s,) of mean 1 and the mean before; even weights where the ratio vanishes on every source row."""
    raw = coef if objective.anchors == "source" else objective.ratio(coef, source)
    xp = namespace(raw)
    mean = xp.mean(raw)
    usable = mean > 0.0
    mean = xp.where(usable, mean, xp.ones_like(mean))
    return xp.where(usable, raw / mean, xp.ones_like(raw)), mean


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


def _transformer_tags():
    from sklearn.utils import TransformerTags

    return TransformerTags(preserves_dtype=["float64", "float32"])


def _two_valued_target():
    # y is a two-valued label, and this is scikit-learn's way to say so; estimator_type stays unset: it predicts no class.
    from sklearn.utils import ClassifierTags

    return ClassifierTags(multi_class=False)
