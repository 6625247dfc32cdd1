"""The five feasible sets: exact against brute-force bisection and cvxpy, and lawful on drawn points."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from densratio.projections import box, box_sum, box_sum_range, nonnegative, simplex
from densratio.testing import array_libraries, check_projection

UPPER = 3.0


def weight(n):
    return np.random.default_rng(n).uniform(0.1, 5.0, n)


def is_in_box(p, upper=UPPER):
    return p.min() >= 0.0 and p.max() <= upper


def sums_to(p, total, at=None):
    total_of_p = p.sum() if at is None else at @ p
    return abs(total_of_p - total) <= 1e-9 * max(1.0, abs(total))


def capped(rng, n, total):
    """A point of {0 <= p <= UPPER, sum p = total}, without a projection: fill a random order up, then mix with the even point."""
    p, left = np.zeros(n), total
    for i in rng.permutation(n):
        p[i] = min(UPPER, left)
        left -= p[i]
    t = rng.uniform()
    return t * p + (1 - t) * total / n


def dirichlet(rng, n):
    return rng.dirichlet(np.full(n, 0.5)) / weight(n)


# name: (projection, is feasible, a member drawn without it, constraints for cvxpy)
SETS = {
    "nonnegative": (
        nonnegative,
        lambda p: p.min() >= 0.0,
        lambda rng, n: rng.exponential(size=n),
        lambda p, n: [p >= 0],
    ),
    "box": (
        lambda v: box(v, UPPER),
        is_in_box,
        lambda rng, n: rng.uniform(0.0, UPPER, n),
        lambda p, n: [p >= 0, p <= UPPER],
    ),
    "box_sum": (
        lambda v: box_sum(v, UPPER, v.shape[0]),
        lambda p: is_in_box(p) and sums_to(p, len(p)),
        lambda rng, n: capped(rng, n, n),
        lambda p, n: [p >= 0, p <= UPPER, cp.sum(p) == n],
    ),
    "box_sum_range": (
        lambda v: box_sum_range(v, UPPER, 0.5 * v.shape[0], 1.5 * v.shape[0]),
        lambda p: is_in_box(p) and 0.5 - 1e-9 <= p.mean() <= 1.5 + 1e-9,
        lambda rng, n: capped(rng, n, n * rng.uniform(0.5, 1.5)),
        lambda p, n: [p >= 0, p <= UPPER, cp.sum(p) >= 0.5 * n, cp.sum(p) <= 1.5 * n],
    ),
    "simplex": (
        lambda v: simplex(v, weight(len(v))),
        lambda p: p.min() >= 0.0 and sums_to(p, 1.0, weight(len(p))),
        dirichlet,
        lambda p, n: [p >= 0, weight(n) @ p == 1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_projection_obeys_the_laws(name):
    project, is_feasible, member, _ = SETS[name]
    check_projection(project, is_feasible, member=member)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", [1, 2, 15])
def test_a_projection_is_the_quadratic_programs_answer(name, n):
    project, _, _, constraints = SETS[name]
    for seed in range(4):
        v = 2.0 * np.random.default_rng(seed).standard_normal(n)
        p = cp.Variable(n)
        cp.Problem(cp.Minimize(cp.sum_squares(p - v)), constraints(p, n)).solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(project(v), p.value, atol=2e-5)


def bisect(function, low, high):
    """Root of a falling function."""
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(middle) > 0.0 else (low, middle)
    return 0.5 * (low + high)


vectors = st.builds(
    lambda n, decimals, seed: np.round(3.0 * np.random.default_rng(seed).standard_normal(n), decimals),
    st.integers(1, 200), st.sampled_from([0, 1, 15]), st.integers(0, 2**16),
)  # fmt: skip


@given(vectors, st.floats(0.01, 1.0))
def test_box_sum_is_the_shift_that_bisection_finds(v, share):
    total = share * UPPER * len(v)
    tau = bisect(lambda tau: np.clip(v - tau, 0.0, UPPER).sum() - total, v.min() - UPPER - 1.0, v.max() + 1.0)
    np.testing.assert_allclose(box_sum(v, UPPER, total), np.clip(v - tau, 0.0, UPPER), atol=1e-10)


@given(vectors, st.floats(0.01, 100.0))
def test_simplex_is_the_shift_that_bisection_finds(v, total):
    w = weight(len(v))
    low, high = (v / w).min() - total / (w @ w) - 1.0, (v / w).max()
    nu = bisect(lambda nu: w @ np.clip(v - nu * w, 0.0, None) - total, low, high)
    np.testing.assert_allclose(simplex(v, w, total), np.clip(v - nu * w, 0.0, None), atol=1e-9 * max(1.0, total))


@given(vectors)
def test_a_range_moves_a_point_only_as_far_as_its_nearer_end(v):
    n, clipped = len(v), np.clip(v, 0.0, UPPER)
    low, high = 0.8 * n, 1.2 * n
    expected = clipped if low <= clipped.sum() <= high else box_sum(v, UPPER, np.clip(clipped.sum(), low, high))
    np.testing.assert_array_equal(box_sum_range(v, UPPER, low, high), expected)


@given(vectors)
def test_an_infinite_bound_is_no_bound(v):
    n = len(v)
    np.testing.assert_allclose(box_sum_range(v, float("inf"), n, n), simplex(v, np.ones(n), n), atol=1e-10)


@given(vectors)
def test_a_full_box_holds_one_point(v):
    np.testing.assert_allclose(box_sum(v, UPPER, UPPER * len(v)), UPPER, rtol=1e-12)


@given(vectors)
def test_equal_entries_stay_equal(v):
    for project in (lambda v: box_sum(v, UPPER, 1.0), lambda v: simplex(v, np.ones(len(v)))):
        twice = project(np.concatenate([v, v]))
        np.testing.assert_array_equal(twice[: len(v)], twice[len(v) :])


@given(vectors)
def test_the_order_of_entries_does_not_matter(v):
    order = np.random.default_rng(0).permutation(len(v))
    np.testing.assert_allclose(box_sum(v[order], UPPER, 1.0), box_sum(v, UPPER, 1.0)[order], atol=1e-12)


# With an upper bound that binds, the documented limit is the rounding of the largest entry.
@pytest.mark.parametrize("name", [name for name in SETS if not name.startswith("box_sum")])
def test_points_far_from_each_other_are_feasible_once_projected(name):
    project, is_feasible = SETS[name][:2]
    for n in (1, 2, 3, 5, 40):
        for seed in range(50):
            assert is_feasible(project(1e16 * np.random.default_rng(seed).standard_normal(n)))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("offset", [1e10, -1e10, 1e16, -1e16])
def test_points_far_from_the_set_are_feasible_once_projected(name, offset):
    project, is_feasible = SETS[name][:2]
    for n in (1, 2, 3, 40):
        for seed in range(20):
            assert is_feasible(project(offset + np.random.default_rng(seed).standard_normal(n)))


def test_a_feasible_point_stays_under_weights_of_unlike_sizes():
    np.testing.assert_allclose(simplex(np.array([5e7, 0.5]), np.array([1e-8, 1.0])), [5e7, 0.5], rtol=1e-12)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        unlike = 10.0 ** rng.uniform(-12.0, 0.0, 20)
        shares = rng.dirichlet(np.ones(20))
        np.testing.assert_allclose(simplex(shares / unlike, unlike) * unlike, shares, atol=1e-12)


@given(vectors)
def test_a_shift_along_the_constraint_moves_no_projection(v):
    far = 2.0**40
    v = np.round(v * 2.0**10) / 2.0**10  # so that adding and taking away the shift loses nothing
    np.testing.assert_allclose(box_sum(v + far, UPPER, len(v)), box_sum(v, UPPER, len(v)), atol=1e-12)
    np.testing.assert_allclose(simplex(v + far, np.ones(len(v))), simplex(v, np.ones(len(v))), atol=1e-12)


def test_an_entry_of_minus_infinity_stays_at_zero():
    np.testing.assert_allclose(simplex(np.array([1.0, -np.inf, 2.0]), np.ones(3)), [0.0, 0.0, 1.0], atol=1e-15)


@pytest.mark.parametrize("n", [1, 100, 10_000])
@pytest.mark.parametrize("library", sorted(array_libraries()))
def test_single_precision_keeps_the_sum_under_a_loose_bound(n, library):
    v = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    exact = box_sum(v.astype(np.float64), 1000.0, n)
    single = np.asarray(box_sum(array_libraries()[library](v), 1000.0, n))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, atol=1e-5)
    assert abs(float(single.sum(dtype=np.float64)) / n - 1.0) < 1e-5


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("library", sorted(array_libraries()))
def test_the_array_libraries_agree(name, library):
    project, convert = SETS[name][0], array_libraries()[library]
    for n in (1, 2, 50):
        v = np.random.default_rng(n).standard_normal(n)
        # The simplex takes its weight as an array of the same library.
        answer = simplex(convert(v), convert(weight(n))) if name == "simplex" else project(convert(v))
        np.testing.assert_allclose(np.asarray(answer), project(v), atol=1e-13)
