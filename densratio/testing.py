"""Laws that every divergence, solver, feature map and projection obeys, as property-based tests to run on your own.

`check_objective(MyDivergence())` draws problems with hypothesis, the awkward ones included (one row, constant columns,
duplicates, huge and tiny scales), and raises AssertionError with the law that broke and the smallest problem that breaks it.
This library's own tests are the same calls over its registries. Needs the extra `test`; laws about torch or
array_api_strict run where those are installed.

    law: the gradient is the slope of the value
    broken by draw_problem('shift', 1, 1, 1, seed=0)
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ._arrays import Array, to_host
from .features import Features, Gaussian
from .objectives import Objective
from .solvers.base import Solver, State, optimality_residual, residual_scale

__all__ = [
    "KINDS",
    "Problem",
    "array_libraries",
    "check_features",
    "check_objective",
    "check_projection",
    "check_solver",
    "draw_problem",
    "gaussian_shift",
    "problems",
]

_MOST_ROWS, _MOST_COLUMNS = 40, 4


# ---------------------------------------------------------------- problems


@dataclass(frozen=True, eq=False, repr=False)
class Problem:
    """Two samples, source (n_s, d) and target (n_t, d), and what is known of their answer.

    ratio: the exact density ratio of rows, (n, d) -> (n,), or None. weights: weights (n_s,) of mean 1 that are optimal for
    every divergence, or None. call: what draws it again, which is its repr.
    """

    source: np.ndarray
    target: np.ndarray
    seed: int
    call: str
    ratio: Callable[[np.ndarray], np.ndarray] | None = None
    weights: np.ndarray | None = None

    def __repr__(self) -> str:
        return self.call

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator for whatever else a law draws: the same each time."""
        return np.random.default_rng([self.seed, 1])


def gaussian_shift(n_source: int, n_target: int, n_columns: int = 1, *, shift: float = 0.5, seed: int = 0) -> Problem:
    """Source N(0, I) and target N(shift e_1, I), whose ratio exp(shift x_1 - shift^2 / 2) is attached."""
    rng = np.random.default_rng(seed)
    source, target = rng.standard_normal((n_source, n_columns)), rng.standard_normal((n_target, n_columns))
    target[:, 0] += shift
    call = f"gaussian_shift({n_source}, {n_target}, {n_columns}, shift={shift}, seed={seed})"
    return Problem(source, target, seed, call, ratio=lambda x: np.exp(shift * x[:, 0] - 0.5 * shift**2))


def _with(problem: Problem, transform: Callable[[np.ndarray], np.ndarray]) -> Problem:
    return replace(problem, source=transform(problem.source), target=transform(problem.target), ratio=None)


def _equal(problem: Problem) -> Problem:
    return replace(problem, target=problem.source.copy(), ratio=None, weights=np.ones(len(problem.source)))


def _last_column_constant(rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows[:, :-1], np.full((len(rows), 1), 3.0)], axis=1)


def _mixed_scales(rows: np.ndarray) -> np.ndarray:
    return rows * np.logspace(-6.0, 6.0, rows.shape[1])


KINDS: dict[str, Callable[[Problem], Problem]] = {
    "shift": lambda p: p,
    "equal": _equal,
    "one_source_row": lambda p: replace(p, source=p.source[:1]),
    "one_target_row": lambda p: replace(p, target=p.target[:1]),
    "few_source_rows": lambda p: replace(p, source=p.source[: 1 + len(p.source) // 10]),
    "few_target_rows": lambda p: replace(p, target=p.target[: 1 + len(p.target) // 10]),
    "duplicate_rows": lambda p: _with(p, np.round),
    "constant_column": lambda p: _with(p, _last_column_constant),
    "one_value": lambda p: _with(p, lambda rows: np.full_like(rows, 3.0)),
    "huge": lambda p: _with(p, lambda rows: 1e6 * rows),
    "tiny": lambda p: _with(p, lambda rows: 1e-6 * rows),
    "mixed_scales": lambda p: _with(p, _mixed_scales),
    "offset": lambda p: _with(p, lambda rows: 1e3 + rows),
    "heavy_tails": lambda p: _with(p, lambda rows: rows**5),
    "far_apart": lambda p: replace(p, target=p.target + 50.0, ratio=None),
}
"""Kinds of problems: what each makes of a Gaussian mean shift."""


def draw_problem(kind: str, n_source: int, n_target: int, n_columns: int = 1, seed: int = 0) -> Problem:
    """The problem of this kind, of at most these sizes: a pure function of its arguments. Kinds: see `KINDS`."""
    problem = KINDS[kind](gaussian_shift(n_source, n_target, n_columns, seed=seed))
    return replace(problem, call=f"draw_problem({kind!r}, {n_source}, {n_target}, {n_columns}, seed={seed})")


def problems(
    kinds: Sequence[str] = tuple(KINDS), *, n_rows: tuple[int, int] = (1, 200), n_columns: tuple[int, int] = (1, _MOST_COLUMNS)
) -> SearchStrategy[Problem]:
    """Hypothesis strategy of problems: a kind, sizes within these bounds, and a seed, from which numpy makes the rows.

    A failing example shrinks to the first of `kinds`, the fewest rows and columns, and seed 0.
    """
    rows = st.integers(*n_rows)
    return st.builds(draw_problem, st.sampled_from(list(kinds)), rows, rows, st.integers(*n_columns), st.integers(0, 2**16))


# ---------------------------------------------------------------- how a law is held


def _hold(law: Callable[[Any], None], cases: SearchStrategy[Any], max_examples: int | None) -> None:
    """Run `law` on drawn cases. The loaded hypothesis profile applies, with `max_examples` in place of its own."""
    bounded = {} if max_examples is None else {"max_examples": max_examples}

    @settings(
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        **bounded,
    )
    @given(cases)
    def holds(case: Any) -> None:
        try:
            # Laws visit corners where a division by zero is masked afterwards; what they return is what is judged.
            with np.errstate(all="ignore"):
                law(case)
        except Exception as error:
            _break(law, case, error)

    holds()


def _break(law: Callable[[Any], None], case: Any, error: Exception) -> NoReturn:
    what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    raise AssertionError(f"law: {_statement(law)}\nbroken by {case!r}\n{what}") from error


def _statement(law: Callable[[Any], None]) -> str:
    return law.__name__.strip("_").replace("_", " ")


def _close(actual: Any, expected: Any, atol: float, what: str) -> None:
    actual, expected = _numbers(actual), _numbers(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape} in place of {expected.shape}")
    difference = float(np.max(np.abs(actual - expected), initial=0.0))
    if not difference <= atol:  # a NaN is not close
        raise AssertionError(f"{what}: {_short(actual)} in place of {_short(expected)}, off by {difference:.3g} > {atol:.3g}")


def _at_most(actual: float, bound: float, what: str) -> None:
    if not actual <= bound:
        raise AssertionError(f"{what}: {actual:.10g} > {bound:.10g}")


def _numbers(x: Any) -> np.ndarray:
    return np.asarray(to_host(x), dtype=np.float64)


def _short(x: np.ndarray) -> str:
    return np.array2string(x, precision=6, threshold=8, edgeitems=3)


def _size(x: np.ndarray) -> float:
    return float(np.max(np.abs(x), initial=0.0))


def array_libraries() -> dict[str, Callable[[np.ndarray], Array]]:
    """What turns a numpy array into an array of each library installed here that the library is tested with."""
    found: dict[str, Callable[[np.ndarray], Array]] = {"numpy": np.asarray}
    if importlib.util.find_spec("array_api_strict"):
        found["array_api_strict"] = importlib.import_module("array_api_strict").asarray
    if importlib.util.find_spec("torch"):
        found["torch"] = importlib.import_module("torch").asarray
    return found


# ---------------------------------------------------------------- projections


@dataclass(frozen=True, eq=False, repr=False)
class _Vectors:
    """Points to project: one seed, so that they are reproducible; `rivals` are points of the set."""

    project: Callable[[np.ndarray], np.ndarray]
    is_feasible: Callable[[np.ndarray], bool]
    member: Callable[[np.random.Generator, int], np.ndarray] | None
    size: int
    scale: float
    decimals: int
    seed: int

    def __repr__(self) -> str:
        return f"points of size {self.size}, scale {self.scale:g}, {self.decimals} decimals, seed {self.seed}"

    def points(self, count: int) -> list[np.ndarray]:
        rng = np.random.default_rng(self.seed)
        return [np.round(self.scale * rng.standard_normal(self.size), self.decimals) for _ in range(count)]

    def rivals(self, point: np.ndarray) -> Iterator[np.ndarray]:
        rng, nearest = np.random.default_rng([self.seed, 1]), self.project(point)
        for other in self.points(8)[1:]:
            yield self.project(other)
        # Points between the answer and the question: a projection that stops short of the set's edge leaves some feasible.
        yield from (between for t in (1e-3, 0.1, 1.0) if self.is_feasible(between := nearest + t * (point - nearest)))
        if self.member is not None:
            yield from (self.member(rng, self.size) for _ in range(8))


def check_projection(
    project: Callable[[np.ndarray], np.ndarray],
    is_feasible: Callable[[np.ndarray], bool],
    *,
    member: Callable[[np.random.Generator, int], np.ndarray] | None = None,
    sizes: tuple[int, int] = (1, 60),
    max_examples: int | None = None,
) -> None:
    """Hold a Euclidean projection (n,) -> (n,) onto a convex set to its laws: feasible, idempotent, non-expansive, nearest.

    is_feasible: whether a point (n,) is in the set, up to rounding. member: (rng, n) -> a point of the set, drawn without
    `project`; it makes "nearest" a test against the whole set. sizes: least and largest n. The points are float64, of
    scales 1e-3 to 1e3, some rounded to few decimals so that ties and exact zeros come up.
    """
    cases = st.builds(
        _Vectors, st.just(project), st.just(is_feasible), st.just(member), st.integers(*sizes),
        st.sampled_from([1.0, 1e-3, 10.0, 1e3]), st.sampled_from([0, 1, 15]), st.integers(0, 2**16),
    )  # fmt: skip
    for law in (_a_projection_is_feasible, _projecting_twice_changes_nothing, _projections_come_no_further_apart,
                _no_feasible_point_is_nearer_than_the_projection):  # fmt: skip
        _hold(law, cases, max_examples)


def _a_projection_is_feasible(case: _Vectors) -> None:
    for point in case.points(3):
        nearest = case.project(point)
        if not case.is_feasible(nearest):
            raise AssertionError(f"{_short(nearest)} is not feasible, projected from {_short(point)}")


def _projecting_twice_changes_nothing(case: _Vectors) -> None:
    for point in case.points(3):
        once = case.project(point)
        _close(case.project(once), once, 1e-9 * (1e-3 + _size(once)), "the second projection")


def _projections_come_no_further_apart(case: _Vectors) -> None:
    first, second = case.points(2)
    _no_expansion(first, second, case.project(first), case.project(second))


def _no_feasible_point_is_nearer_than_the_projection(case: _Vectors) -> None:
    point = case.points(1)[0]
    _nearest(point, case.project(point), case.rivals(point))


def _no_expansion(v: np.ndarray, u: np.ndarray, p: np.ndarray, q: np.ndarray) -> None:
    rounding = 1e-11 * sum(map(np.linalg.norm, (v, u, p, q)))
    _at_most(float(np.linalg.norm(p - q)), float(np.linalg.norm(v - u) * (1.0 + 1e-9) + rounding), "distance of the projections")


def _nearest(v: np.ndarray, p: np.ndarray, rivals: Iterator[np.ndarray]) -> None:
    """p is the point of a convex set nearest to v if and only if (v - p).(q - p) <= 0 for every q of the set."""
    norm = np.linalg.norm
    for q in rivals:
        rounding = 1e-8 * norm(v - p) * norm(q - p) + 1e-11 * (norm(v) + norm(p)) * (norm(v - p) + norm(q - p))
        _at_most(float((v - p) @ (q - p)), float(rounding), f"(v - p).(q - p) at v = {_short(v)}, p = {_short(p)}, q = {_short(q)}")


# ---------------------------------------------------------------- features


@dataclass(frozen=True, eq=False, repr=False)
class _FeatureCase:
    features: Features
    problem: Problem

    def __repr__(self) -> str:
        return repr(self.problem)

    def fit(self, convert: Callable[[np.ndarray], Array] = np.asarray, scale: float = 1.0) -> tuple[Features, Array, Array]:
        source, target = convert(scale * self.problem.source), convert(scale * self.problem.target)
        return self.features.fit(source, target, anchors="target"), source, target


def check_features(features: Features, *, on: SearchStrategy[Problem] | None = None, max_examples: int | None = None) -> None:
    """Hold a feature map to its laws: finite (n, k) features, row by row, reproducible, the same in every array library.

    on: the problems to draw, by default of up to 40 rows and 4 columns.
    """
    drawn = problems(n_rows=(1, _MOST_ROWS)) if on is None else on
    cases = st.builds(_FeatureCase, st.just(features), drawn)
    laws = [_features_are_finite_with_one_row_for_each_row, _the_features_of_a_row_depend_on_that_row_alone,
            _fitting_returns_a_copy_and_repeats_itself, _the_array_libraries_agree_on_the_features]  # fmt: skip
    if features.is_nonnegative:
        laws.append(_the_features_are_nonnegative)
    if isinstance(features.gamma, str):
        laws.append(_the_features_with_a_bandwidth_rule_have_no_unit)
    for law in laws:
        _hold(law, cases, max_examples)


def _features_are_finite_with_one_row_for_each_row(case: _FeatureCase) -> None:
    fitted, source, target = case.fit()
    of_source, of_target = fitted(source), fitted(target)
    for rows, values in ((source, of_source), (target, of_target)):
        if values.shape != (len(rows), of_source.shape[1]) or not np.all(np.isfinite(values)):
            raise AssertionError(f"features {values.shape} of {rows.shape}, finite: {bool(np.all(np.isfinite(values)))}")


def _the_features_of_a_row_depend_on_that_row_alone(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    together, alone = fitted(source), np.concatenate([fitted(source[i : i + 1]) for i in range(len(source))])
    _close(alone, together, 1e-6 * (1.0 + _size(together)), "features of single rows")


def _fitting_returns_a_copy_and_repeats_itself(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    if fitted is case.features or case.features.gamma_ is not None:
        raise AssertionError("fit changed the configuration that it was called on")
    _close(case.fit()[0](source), fitted(source), 0.0, "features of the second fit")


def _the_features_are_nonnegative(case: _FeatureCase) -> None:
    fitted, source, target = case.fit()
    _at_most(0.0, float(min(fitted(source).min(), fitted(target).min())), "0 and the least feature, though is_nonnegative")


def _the_features_with_a_bandwidth_rule_have_no_unit(case: _FeatureCase) -> None:
    (fitted, source, _), (rescaled, larger, _) = case.fit(), case.fit(scale=1024.0)
    _close(_kernel(rescaled, larger), _kernel(fitted, source), 1e-6, "the kernel of rows 1024 times as large")


def _the_array_libraries_agree_on_the_features(case: _FeatureCase) -> None:
    fitted, source, _ = case.fit()
    expected = _kernel(fitted, source)
    for name, convert in array_libraries().items():
        of_library, rows, _ = case.fit(convert)
        _close(_kernel(of_library, rows), expected, 1e-8 * (1.0 + _size(expected)), f"the kernel in {name}")


def _kernel(fitted: Features, rows: Array) -> np.ndarray:
    """What features mean: their values at centres, or the inner products of a map, whose basis is arbitrary."""
    values = _numbers(fitted(rows))
    return values @ values.T if fitted.is_map else values


# ---------------------------------------------------------------- objectives


@dataclass(frozen=True, eq=False, repr=False)
class _Case:
    """An objective (and a solver) on a drawn problem; source (n_s, k), target (n_t, k) are what the objective takes."""

    problem: Problem
    objective: Objective
    features: Features
    solver: Solver | None = None

    def __repr__(self) -> str:
        return repr(self.problem)

    def inputs(self, convert: Callable[[np.ndarray], Array] = np.asarray) -> tuple[Array, Array]:
        source, target = convert(self.problem.source), convert(self.problem.target)
        if self.objective.takes == "rows":
            return source, target
        fitted = self.features.fit(source, target, anchors=self.objective.anchors)
        return fitted(source), fitted(target)

    def start(self) -> np.ndarray:
        return self.objective.init(*self.inputs())

    def points(self, count: int) -> list[np.ndarray]:
        """Points (p,) around the start, feasible or not, from near to far."""
        start, rng = self.start(), self.problem.rng
        scales = (_size(start) or 1.0) * 10.0 ** rng.uniform(-1.0, 1.0, count)
        return [start + scale * rng.standard_normal(len(start)) for scale in scales]

    def feasible(self, count: int) -> list[np.ndarray]:
        return [self.project(point) for point in self.points(count)]

    def project(self, coef: np.ndarray) -> np.ndarray:
        return self.objective.project(coef, *self.inputs())

    def value_and_grad(self, coef: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = self.objective.value_and_grad(coef, *self.inputs())
        return float(value), grad


def check_objective(
    objective: Objective,
    *,
    features: Features | None = None,
    on: SearchStrategy[Problem] | None = None,
    max_examples: int | None = None,
) -> None:
    """Hold a divergence to the laws that solvers and estimators rely on.

    Its gradient is the slope of its value (where `is_smooth`; where torch is installed also automatic differentiation's) and
    its linear model lies below it; `init`, `project` and `warm_start` are feasible and `project` is the nearest point;
    `curvature` bounds an affine gradient's slope; `summarise` changes nothing; `gap` bounds what is left to gain; `ratio` is
    finite and >= 0; numpy, array_api_strict and torch agree.

    features: what it is given of the rows, Gaussian() unless told. on: the problems to draw, by default of up to 40 rows
    and 4 columns, or one column for an objective that takes the rows themselves. max_examples: problems for each law; the
    loaded hypothesis profile's number unless told.
    """
    cases = st.builds(_Case, _drawn(objective, on), st.just(objective), st.just(features or Gaussian()))
    for law in _laws_of(objective):
        _hold(law, cases, max_examples)


def _drawn(objective: Objective, on: SearchStrategy[Problem] | None) -> SearchStrategy[Problem]:
    if on is not None:
        return on
    return problems(n_rows=(1, _MOST_ROWS), n_columns=(1, 1 if objective.takes == "rows" else _MOST_COLUMNS))


def _laws_of(objective: Objective) -> list[Callable[[_Case], None]]:
    laws = [
        _the_value_and_gradient_are_finite,
        _the_value_is_above_its_linear_models,
        _the_start_is_feasible,
        _a_warm_start_is_feasible,
        _projecting_a_coef_twice_changes_nothing,
        _projected_coefs_come_no_further_apart,
        _no_feasible_coef_is_nearer_than_the_projection,
        _the_curvature_is_positive_and_finite,
        _summarised_samples_have_the_same_value_gradient_and_feasible_set,
        _the_gap_is_at_least_what_is_left_to_gain,
        _the_ratio_is_finite_and_nonnegative,
        _the_array_libraries_agree_on_the_objective,
    ]
    if objective.is_smooth:
        laws.insert(1, _the_gradient_is_the_slope_of_the_value)
        if importlib.util.find_spec("torch"):
            laws.insert(2, _the_gradient_is_that_of_automatic_differentiation)
    if objective.gradient_is_affine:
        laws += [_the_gradient_is_affine, _the_curvature_bounds_the_change_of_the_gradient]
    return laws


def _the_value_and_gradient_are_finite(case: _Case) -> None:
    start = case.start()
    value, grad = case.value_and_grad(start)
    if grad.shape != start.shape or not np.isfinite(value) or not np.all(np.isfinite(grad)):
        raise AssertionError(f"at the start, value {value} and gradient {_short(grad)} {grad.shape} for coef {start.shape}")


def _the_gradient_is_the_slope_of_the_value(case: _Case) -> None:
    # A third of the start keeps the points where the value is smooth, and p - q along the feasible set keeps them feasible.
    p, q = case.feasible(2)
    middle, along = (case.start() + p + q) / 3.0, q - p
    value, grad = case.value_and_grad(middle)

    def slope(h: float) -> float:
        return (case.value_and_grad(middle + h * along)[0] - case.value_and_grad(middle - h * along)[0]) / (2.0 * h)

    coarse, fine = slope(1e-4), slope(5e-5)
    size = float(np.sum(np.abs(grad * along)))
    rounding = 1e-10 * (abs(value) + float(np.sum(np.abs(grad * middle))))
    atol = 1e-6 * size + rounding + 2.0 * abs(coarse - fine)
    _close(float(grad @ along), fine, atol, "gradient . direction and the finite difference")


def _the_gradient_is_that_of_automatic_differentiation(case: _Case) -> None:
    torch = importlib.import_module("torch")
    coef = (case.start() + case.feasible(1)[0]) / 2.0
    tensor = torch.asarray(coef).requires_grad_(True)
    value = case.objective.value_and_grad(tensor, *case.inputs(torch.asarray))[0]
    expected = torch.autograd.grad(value, tensor, allow_unused=True)[0]
    expected = torch.zeros_like(tensor) if expected is None else expected
    _close(case.value_and_grad(coef)[1], expected, 1e-8 * _size(_numbers(expected)) + 1e-12, "gradient and torch.autograd")


def _the_value_is_above_its_linear_models(case: _Case) -> None:
    """f(q) >= f(p) + g(p).(q - p): f is convex and g a subgradient."""
    start = case.start()
    p, q = ((start + point) / 2.0 for point in case.feasible(2))
    value, grad = case.value_and_grad(p)
    elsewhere = case.value_and_grad(q)[0]
    rounding = 1e-10 * (abs(value) + abs(elsewhere) + float(np.sum(np.abs(grad) * (np.abs(p) + np.abs(q)))))
    _at_most(value + float(grad @ (q - p)), elsewhere + rounding, "the linear model at p and the value, both at q")


def _the_start_is_feasible(case: _Case) -> None:
    _is_its_own_projection(case, case.start())


def _a_warm_start_is_feasible(case: _Case) -> None:
    for stored in [*case.points(2), *case.feasible(1), np.zeros_like(case.start())]:
        _is_its_own_projection(case, case.objective.warm_start(stored, *case.inputs()))


def _projecting_a_coef_twice_changes_nothing(case: _Case) -> None:
    for point in case.feasible(3):
        _is_its_own_projection(case, point)


def _is_its_own_projection(case: _Case, coef: np.ndarray) -> None:
    _close(case.project(coef), coef, 1e-9 * (1e-3 + _size(coef)), "the projection of a coef that should be feasible")


def _projected_coefs_come_no_further_apart(case: _Case) -> None:
    first, second = case.points(2)
    _no_expansion(first, second, case.project(first), case.project(second))


def _no_feasible_coef_is_nearer_than_the_projection(case: _Case) -> None:
    point, *others = case.points(6)
    rivals = [case.start(), case.objective.warm_start(point, *case.inputs()), *map(case.project, others)]
    _nearest(point, case.project(point), iter(rivals))


def _the_curvature_is_positive_and_finite(case: _Case) -> None:
    curvature = float(case.objective.curvature(*case.inputs()))
    if not 0.0 < curvature < float("inf"):
        raise AssertionError(f"curvature {curvature}: 1 / it is the first step size")


def _the_gradient_is_affine(case: _Case) -> None:
    p, q = case.points(2)
    of_p, of_q, of_mix = (case.value_and_grad(x)[1] for x in (p, q, 0.3 * p + 0.7 * q))
    _close(of_mix, 0.3 * of_p + 0.7 * of_q, 1e-9 * (_size(of_p) + _size(of_q)) + 1e-12, "gradient at 0.3 p + 0.7 q")


def _the_curvature_bounds_the_change_of_the_gradient(case: _Case) -> None:
    curvature, norm = float(case.objective.curvature(*case.inputs())), np.linalg.norm
    p, q = case.points(2)
    distance, of_p = float(norm(q - p)), case.value_and_grad(p)[1]
    for _ in range(4):
        of_q = case.value_and_grad(q)[1]
        change, rounding = of_q - of_p, 1e-11 * float(norm(of_p) + norm(of_q))
        _at_most(float(norm(change)), curvature * float(norm(q - p)) * (1.0 + 1e-9) + rounding, "|change of gradient|")
        # Power iteration turns q - p towards the direction of the largest change; below this its length would underflow.
        if _size(change) < 1e-100:
            return
        unit = change / _size(change)
        q = p + unit * (distance / float(norm(unit)))


def _summarised_samples_have_the_same_value_gradient_and_feasible_set(case: _Case) -> None:
    objective, samples = case.objective, case.inputs()
    summary = objective.summarise(*samples)
    for point in case.points(2):
        _close(objective.project(point, *summary), case.project(point), 1e-9 * (1e-3 + _size(point)), "projection")
        coef = (case.start() + case.project(point)) / 2.0
        value, grad = case.value_and_grad(coef)
        same_value, same_grad = objective.value_and_grad(coef, *summary)
        size = abs(value) + _size(grad) + float(np.sum(np.abs(grad * coef)))
        _close(same_value, value, 1e-9 * size, "value")
        _close(same_grad, grad, 1e-9 * size, "gradient")


def _the_gap_is_at_least_what_is_left_to_gain(case: _Case) -> None:
    rivals = [case.start(), *case.feasible(4)]
    for coef in rivals:
        value, grad = case.value_and_grad(coef)
        gap = float(case.objective.gap(coef, grad, *case.inputs()))
        best = min(case.value_and_grad(rival)[0] for rival in rivals)
        rounding = 1e-9 * (abs(value) + abs(best) + float(np.sum(np.abs(grad * coef))))
        _at_most(value - best, gap + rounding, "gain by another feasible coef and the gap")


def _the_ratio_is_finite_and_nonnegative(case: _Case) -> None:
    problem, anchors = case.problem, case.objective.anchors
    kernel = Gaussian() if anchors == "source" else case.features
    fitted = kernel.fit(problem.source, problem.target, anchors=anchors)
    for coef in [case.start(), *case.feasible(2)]:
        for rows in (problem.source, problem.target):
            ratio = case.objective.ratio(coef, fitted(rows))
            if ratio.shape != (len(rows),) or not np.all(np.isfinite(ratio)) or ratio.min() < 0.0:
                raise AssertionError(f"ratio {_short(ratio)} {ratio.shape} of {len(rows)} rows at coef {_short(coef)}")


def _the_array_libraries_agree_on_the_objective(case: _Case) -> None:
    point = case.points(1)[0]
    coef = (case.start() + case.project(point)) / 2.0
    expected = _everything(case.objective, np.asarray(point), np.asarray(coef), *case.inputs())
    for name, convert in array_libraries().items():
        samples = [convert(x) for x in case.inputs()]
        for what, value in _everything(case.objective, convert(point), convert(coef), *samples).items():
            _close(value, expected[what], 1e-8 * (1e-3 + _size(expected[what])), f"{what} in {name}")


def _everything(objective: Objective, point: Array, coef: Array, source: Array, target: Array) -> dict[str, np.ndarray]:
    value, grad = objective.value_and_grad(coef, source, target)
    found = {
        "init": objective.init(source, target),
        "value": value,
        "gradient": grad,
        "curvature": objective.curvature(source, target),
        "projection": objective.project(point, source, target),
        "warm start": objective.warm_start(point, source, target),
    }
    return {what: _numbers(x) for what, x in found.items()}


# ---------------------------------------------------------------- solvers


def check_solver(
    solver: Solver,
    objective: Objective,
    *,
    features: Features | None = None,
    on: SearchStrategy[Problem] | None = None,
    is_monotone: bool = True,
    is_exact: bool = True,
    steps_on_device: bool = True,
    max_examples: int | None = None,
) -> None:
    """Hold a solver, on one objective, to the laws that estimators and training loops rely on.

    It starts and ends feasible, `run` is so many calls of `step`, and a solver that says it has converged is at the optimum.

    is_monotone: no step worsens the value. is_exact: `run` converges, to cvxpy's optimum to 1e-6 relative (needs cvxpy and
    a program for the objective, see `densratio.solvers.reference.program`). steps_on_device: `step` runs on torch's meta
    tensors, so that it never waits for a GPU; set False for a solver whose step works on the host (closed forms, cvxpy).
    The other arguments are those of `check_objective`.
    """
    cases = st.builds(_Case, _drawn(objective, on), st.just(objective), st.just(features or Gaussian()), st.just(solver))
    laws = [_the_solver_starts_feasible, _a_run_is_calls_of_step, _the_solver_ends_feasible]
    if is_monotone:
        laws += [_no_step_worsens_the_value, _a_warm_start_at_the_answer_stays_as_good]
    if is_exact:
        laws.append(_a_run_converges)
        if objective.is_smooth:
            laws.append(_a_converged_solver_has_a_residual_within_tol)
        laws.append(_the_value_is_the_reference_optimum)
    if steps_on_device and importlib.util.find_spec("torch"):
        laws.append(_a_step_never_waits_for_the_device)
    for law in laws:
        _hold(law, cases, max_examples)


def _started(case: _Case, coef: np.ndarray | None = None) -> tuple[Solver, State, tuple[Array, Array]]:
    solver, samples = _solver_of(case), case.inputs()
    return solver, solver.init(case.objective, *samples, coef=coef), samples


def _solver_of(case: _Case) -> Solver:
    assert case.solver is not None
    return case.solver


def _ran(case: _Case, coef: np.ndarray | None = None, *, max_iter: int | None = None) -> State:
    solver, state, samples = _started(case, coef)
    return (replace(solver, max_iter=max_iter) if max_iter else solver).run(case.objective, state, *samples)


def _the_solver_starts_feasible(case: _Case) -> None:
    for stored in (None, *case.points(2)):
        _is_its_own_projection(case, _started(case, stored)[1].coef)


def _the_solver_ends_feasible(case: _Case) -> None:
    _is_its_own_projection(case, _ran(case, max_iter=30).coef)


def _a_run_is_calls_of_step(case: _Case) -> None:
    end = _ran(case, max_iter=12)
    solver, state, samples = _started(case)
    for _ in range(end.n_iter):
        state = solver.step(case.objective, state, *samples)
    if state.n_iter != end.n_iter:
        raise AssertionError(f"{end.n_iter} steps counted by run and {state.n_iter} by step")
    _close(state.coef, end.coef, 0.0, f"coef after {end.n_iter} calls of step, and after run")


def _no_step_worsens_the_value(case: _Case) -> None:
    for stored in (None, case.points(1)[0]):
        solver, state, samples = _started(case, stored)
        value, grad = case.value_and_grad(state.coef)
        for _ in range(10):
            state = solver.step(case.objective, state, *samples)
            rounding = 1e-10 * (abs(value) + float(np.sum(np.abs(grad * state.coef))))
            after, grad = case.value_and_grad(state.coef)
            _at_most(after, value + rounding + 1e-10 * abs(after), f"value after step {state.n_iter} and before it")
            value = after


def _a_warm_start_at_the_answer_stays_as_good(case: _Case) -> None:
    answer = _ran(case, max_iter=30).coef
    # What the warm start makes of the answer is the objective's affair; the solver may not make it worse.
    value, grad = case.value_and_grad(case.objective.warm_start(answer, *case.inputs()))
    rounding = 1e-9 * (abs(value) + float(np.sum(np.abs(grad * answer))))
    _at_most(
        case.value_and_grad(_ran(case, answer, max_iter=30).coef)[0], value + rounding, "value of a run from the answer, and there"
    )


def _a_run_converges(case: _Case) -> None:
    state = _ran(case)
    if not _solver_of(case).has_converged(state):
        raise AssertionError(f"after {state.n_iter} steps the residual is {float(state.residual):.3g}")


def _a_converged_solver_has_a_residual_within_tol(case: _Case) -> None:
    state, samples, solver = _ran(case), case.inputs(), _solver_of(case)
    if not solver.has_converged(state):
        return
    grad = case.objective.value_and_grad(state.coef, *samples)[1]
    scale = residual_scale(case.objective.curvature(*samples))
    residual = optimality_residual(case.objective, state.coef, grad, *samples, scale)
    resolution = 100.0 * float(np.finfo(np.float64).eps) * max(1.0, _size(state.coef))
    _at_most(float(residual), 1.01 * max(solver.tol, resolution), "optimality residual, computed afresh, and tol")


def _the_value_is_the_reference_optimum(case: _Case) -> None:
    from .solvers.reference import Reference

    value, reference = case.value_and_grad(_ran(case).coef)[0], Reference()
    best = reference.run(case.objective, reference.init(case.objective, *case.inputs()), *case.inputs()).coef
    optimum = case.value_and_grad(best)[0]
    size = max(abs(optimum), abs(case.value_and_grad(case.start())[0]))
    _close(value, optimum, 1e-6 * size + 1e-12, "the solver's value and cvxpy's")


def _a_step_never_waits_for_the_device(case: _Case) -> None:
    """A Python branch on a device value raises on meta tensors, which have shapes and no values."""
    torch = importlib.import_module("torch")
    solver, samples = _solver_of(case), case.inputs(torch.asarray)
    state = solver.init(case.objective, *samples)
    on_meta = [_to_meta(x) for x in samples]
    after = solver.step(case.objective, _to_meta(state), *on_meta)
    if after.coef.shape != state.coef.shape or after.coef.device.type != "meta":
        raise AssertionError(f"a step on meta tensors gave coef {tuple(after.coef.shape)} on {after.coef.device}")


def _to_meta(tree: Any) -> Any:
    if hasattr(tree, "_fields"):
        return type(tree)(*map(_to_meta, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(_to_meta, tree))
    return tree.to("meta") if hasattr(tree, "to") else tree
