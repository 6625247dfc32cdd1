"""Kernel mean matching."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from .._arrays import Array, namespace, put
from ..features import FEATURES, Features, Gaussian
from ..objectives import MaximumMeanDiscrepancy, Objective
from ..solvers import Solver
from .base import DensityRatio, Update
from .contract import Samples
from .explicit_map import MapAverage, map_error, mapped, mean_mapped
from .parts import from_registry, seed_of
from .witness import Witness

__all__ = ["KMM"]

_MISS = 0.05  # of a weight: beyond it the formula for any row does not give the rows their weights
_MAPS = {name: kind for name, kind in FEATURES.items() if kind.is_map}


class KMM(DensityRatio):
    """Kernel mean matching: one weight for each source row, so that the source's kernel mean is the target's.

    Minimises the maximum mean discrepancy over 0 <= w <= max_weight with mean(w) = 1 within mean_tol, to a certified
    `gap_`. No density model, no centres to choose. Use it for weights of given rows; see `DensityRatio` for what is common
    to all.

    max_weight : float or None, upper bound of a weight. mean_tol : float in [0, 1) or "diw", how far the mean may be from 1.
    regularization : float >= 0, adds regularization |w|^2 / (2 n): without it a few rows take most of the weight; "cv" (five
    values from 0.01 to 100) or a sequence: the best under k-fold cross-validation of the squared distance (see `score`).
    exact_up_to : int or None, source rows up to which the kernel is exact, in memory of n_source^2 entries and a time that
    grows with n_source^3 in many columns. More rows match the Gaussian kernel through an explicit map of n_centers columns, in
    memory and time linear in the rows, and none is left out. None: exact for any number.
    approximation : {"nystroem", "random_fourier"}, that map. kernel="nystroem" or "random_fourier" uses it for any number.

    `fit` also sets approximation_, "exact" or the name of the map, and approximation_error_, the relative error of the map's
    value at the weights against the exact kernel's, estimated on 2000 rows of each sample (seeded; all where there are no
    more). The weights are the exact solution of the approximate problem; features beyond 2^24 entries are in single precision.

    With regularization > 0 `transform` gives a source row its own weight, and any other row what the optimality conditions,
    which are a formula in the row, give there; at 0, or so little that the formula magnifies what the solver left, it is the
    kernel average of the weights near the row.

    A row with a sample_weight counts as that many copies of it. The kernel's sums grow with the rows and regularization does
    not: twice the rows, or twice the sample_weight, take twice of it for the same weights.

    Source: Huang et al. (2007), Correcting sample selection bias by unlabeled data. Maps: Williams & Seeger (2001), Rahimi &
    Recht (2007).
    """

    _choosable: ClassVar[tuple[str, ...]] = ("gamma", "regularization")
    _choice_rows: ClassVar[int] = 1000  # a fit takes a time that grows with their cube

    def __init__(
        self,
        *,
        kernel: str | Features = "gaussian",
        gamma: float | str | Sequence[float | str] = "median",
        n_centers: int | None = None,
        max_weight: float | None = 1000.0,
        mean_tol: float | str = 0.0,
        regularization: float | str | Sequence[float] = 1.0,
        exact_up_to: int | None = 3000,
        approximation: str = "nystroem",
        solver: str | Solver = "auto",
        n_steps: int = 1,
        tol: float = 1e-6,
        max_iter: int = 10_000,
        device: str | None = None,
        random_state: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ):
        super().__init__(
            "kmm", kernel=kernel, gamma=gamma, n_centers=n_centers, solver=solver, n_steps=n_steps, tol=tol,
            max_iter=max_iter, device=device, random_state=random_state, cv=cv, n_jobs=n_jobs,
        )  # fmt: skip
        self.max_weight = max_weight
        self.mean_tol = mean_tol
        self.regularization = regularization
        self.exact_up_to = exact_up_to
        self.approximation = approximation

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
        """See `DensityRatio.update`; a batch of more than exact_up_to source rows is matched through the map, as in `fit`."""
        sized = copy(self)
        sized._choose_kernel(source.shape[0])
        return super(KMM, sized).update(source, target, coef, features=features, centers=centers, to_convergence=to_convergence)

    def _fit(self, samples: Samples) -> Array:
        self._choose_kernel(samples.source.shape[0])
        raw = super()._fit(samples)
        names = {kind: name for name, kind in _MAPS.items()}
        self.approximation_ = names.get(type(self.features_), "exact")
        if self._chosen("regularization") > 0.0:
            witness = self._witness(samples)
            # A regularization so small that the formula magnifies what the solver left is as good as none.
            if witness.misses(samples.source, self._coef) <= _MISS:
                self._off_sample = witness
        self.approximation_error_ = map_error(self.features_, samples, self._coef)
        return raw

    def _step_rows(self, objective: Objective, samples: Samples, *given: Any) -> DensityRatio:
        self._choose_kernel(samples.source.shape[0])
        stepped = super()._step_rows(self._make_objective(), samples, *given)
        self.approximation_ = {kind: name for name, kind in _MAPS.items()}.get(type(self.features_), "exact")
        if hasattr(self, "approximation_error_"):
            del self.approximation_error_
        return stepped

    def _choose_kernel(self, n: int) -> None:
        """Whether n source rows are matched through a map that approximates the kernel."""
        kind = self._kernel_kind
        from_registry("approximation", self.approximation, _MAPS)
        self._is_approximated = not kind.is_map and self._is_beyond(n)
        if self._is_approximated and kind is not Gaussian:
            raise ValueError(
                f"kernel={self.kernel!r} has no explicit map, and its matrix for {n} source rows is larger than exact_up_to="
                f'{self.exact_up_to} allows: use kernel="gaussian", which is approximated, or exact_up_to=None for the exact '
                f"matrix ({8e-9 * n * n:.3g} GB)."
            )

    def _witness(self, samples: Samples) -> Witness:
        """The ratio at any row, from the weights just fitted."""
        features, n = self.features_, samples.source.shape[0]
        count = n if samples.source_weight is None else float(samples.source_weight.sum())
        if features.is_map:
            assert isinstance(self._off_sample, MapAverage)
            target = mean_mapped(features, samples.target, samples.target_weight)[0, :]
            terms: tuple = ((features, target - self._off_sample.weighted),)
        else:
            at_target = replace(features, parameters_=(samples.target,))
            source_share, target_share = (
                put(np.full(size, 1.0 / size), self._coef) if weight is None else weight / namespace(weight).sum(weight)
                for size, weight in zip(samples.sizes, (samples.source_weight, samples.target_weight), strict=True)
            )
            terms = ((at_target, target_share), (features, -source_share * self._coef))
        upper = float(n) if self.max_weight is None else float(self.max_weight)
        witness = Witness(terms, count / float(self._chosen("regularization")), upper)
        return witness.at_level_of(samples.source, self._coef, samples.source_weight)

    def _make_objective(self) -> Objective:
        return MaximumMeanDiscrepancy(self.max_weight, self.mean_tol, self._chosen("regularization"), is_factored=self._uses_map)

    def _make_features(self, objective: Objective, n_centers: int | None, gamma: Any = None) -> Features:
        features = super()._make_features(objective, n_centers, gamma)
        if features.is_map or not self._uses_map:
            return features
        kind = from_registry("approximation", self.approximation, _MAPS)
        return kind(gamma=features.gamma, n_centers=n_centers, random_state=seed_of(self.random_state))

    def _inputs_to_solve(self, objective: Objective, features: Features, samples: Samples) -> tuple[Array, tuple[Array, ...]]:
        if not features.is_map:
            return super()._inputs_to_solve(objective, features, samples)
        source = mapped(features, samples.source)
        return source, (source, mean_mapped(features, samples.target, samples.target_weight))

    def _grid(self, name: str, samples: Samples) -> list[float]:
        return np.logspace(-2.0, 2.0, 5).tolist() if name == "regularization" else super()._grid(name, samples)

    @property
    def _kernel_kind(self) -> type[Features]:
        return type(self.kernel) if isinstance(self.kernel, Features) else from_registry("kernel", self.kernel, FEATURES)

    @property
    def _uses_map(self) -> bool:
        """Whether the kernel is inner products of features: by choice, or in a fit of more rows than exact_up_to."""
        return self._kernel_kind.is_map or getattr(self, "_is_approximated", False)

    def _is_beyond(self, n: int) -> bool:
        if self.exact_up_to is None:
            return False
        if not (isinstance(self.exact_up_to, int) and self.exact_up_to >= 1):
            raise ValueError(
                f"exact_up_to must be an int >= 1, or None for the exact kernel of any size; got {self.exact_up_to!r}."
            )
        return n > self.exact_up_to
