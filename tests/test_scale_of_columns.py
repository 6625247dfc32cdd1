"""The scale of the columns, the distinct rows, and distances that are exact wherever the rows are."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array
from scipy.stats import wasserstein_distance

from densratio._distances import squared_euclidean
from densratio._scale import Scale, distinct, distinct_of_any_columns, some_of
from densratio.testing import array_libraries, gaussian_shift, problems

seeds = st.integers(0, 2**16)
# Few values, so that many rows are equal; 0 is one of them, so that CSR rows store fewer.
few_valued = hnp.arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.integers(-2, 2).map(float))
columns = st.lists(st.integers(-50, 50), min_size=1, max_size=30).map(lambda values: np.array(values, dtype=float))
powers = st.floats(-12.0, 12.0)


def scale_of(*samples):
    return Scale.of(*((rows, None) for rows in samples))


def both(scale, rows):
    return np.concatenate([scale.middle, scale.spread, scale(rows).ravel()])


# ---------------------------------------------------------------- the scale


def spread_by_all_pairs(*samples):
    """The lesser of median and lower quartile, each as of a Gaussian, of all differences of two rows of a sample that differ."""
    weighted = []
    for values in samples:
        differences = np.abs(np.subtract.outer(values, values))[np.triu_indices(len(values), 1)]
        # A sample of n rows counts n times, and its pairs as often together.
        weighted += [(difference, Fraction(1, len(values))) for difference in differences if difference > 0.0]
    found = []
    for level, gaussian in ((Fraction(1, 4), 0.4506242231), (Fraction(1, 2), 0.9538725524)):
        left = level * sum(weight for _, weight in weighted)
        for difference, weight in sorted(weighted):
            left -= weight
            if left <= 0:
                found.append(difference / gaussian)
                break
    return min(found, default=np.inf)


@given(source=columns, target=columns)
def test_the_spread_is_that_of_differences_within_the_samples_and_the_middle_a_median(source, target):
    scale, pooled = scale_of(source[:, None], target[:, None]), np.concatenate([source, target])
    expected = spread_by_all_pairs(source, target)
    if not np.isfinite(expected):
        expected = spread_by_all_pairs(pooled)
    assert scale.spread[0] == pytest.approx(expected, rel=1e-12)
    assert scale.middle[0] == np.sort(pooled)[(len(pooled) - 1) // 2]


@given(source=columns, target=columns, shift=st.integers(-(10**6), 10**6))
def test_a_shift_between_the_samples_leaves_the_spread(source, target, shift):
    assume(len(set(source)) > 1 or len(set(target)) > 1)
    spread = [scale_of(source[:, None], moved[:, None]).spread[0] for moved in (target, target + shift)]
    assert spread[0] == spread[1]


@given(data=st.data(), n_source=st.integers(1, 30), n_target=st.integers(1, 30), d=st.integers(1, 3))
def test_between_two_samples_a_column_counts_less_the_less_they_differ_in_it(data, n_source, n_target, d):
    values = st.integers(-20, 20).map(float) | st.just(1e300)
    source, target = (data.draw(hnp.arrays(np.float64, (n, d), elements=values)) for n in (n_source, n_target))
    weight = data.draw(hnp.arrays(np.float64, n_source, elements=st.integers(1, 5).map(float)))
    plain, between = (make((source, weight), (target, None)) for make in (Scale.of, Scale.between))
    clipped = [np.clip((rows - plain.middle) / plain.spread, -3.0, 3.0) for rows in (source, target)]
    apart = np.array(
        [wasserstein_distance(*columns, u_weights=weight) for columns in zip(*(rows.T for rows in clipped), strict=True)]
    )
    counts = 0.4 + 0.6 * np.minimum(apart / 0.15, 1.0)
    np.testing.assert_array_equal(between.middle, plain.middle)
    np.testing.assert_allclose(between.spread, plain.spread * counts.max() / counts, rtol=1e-9)


@pytest.mark.parametrize("n", [50, 120, 1000])
@given(seed=seeds)
def test_the_spread_of_a_gaussian_column_is_its_standard_deviation(n, seed):
    values = 3.0 * np.random.default_rng(seed).standard_normal((n, 1))
    # The noise of the median difference is about that of the standard deviation, 1 / sqrt(2 n): five of these.
    assert scale_of(values).spread[0] == pytest.approx(3.0, rel=5.0 / np.sqrt(n))


@given(problem=problems(["shift", "duplicate_rows", "heavy_tails"], n_rows=(1, 200)), data=st.data())
def test_units_and_offsets_of_the_columns_leave_the_scaled_rows(problem, data):
    d = problem.source.shape[1]
    factor = 10.0 ** np.array(data.draw(st.lists(powers, min_size=d, max_size=d)))
    offset = factor * np.array(data.draw(st.lists(st.floats(-1e4, 1e4), min_size=d, max_size=d)))
    # The offset costs digits of the rows before anyone sees them: nearer values could become equal.
    source, target = (np.round(rows, 6) for rows in (problem.source, problem.target))
    plain, moved = scale_of(source, target), scale_of(source * factor + offset, target * factor + offset)
    np.testing.assert_allclose(moved(source * factor + offset), plain(source), rtol=1e-9, atol=1e-9)


@given(values=columns, power=st.integers(-300, 300))
def test_a_unit_that_costs_no_digits_leaves_the_scaled_rows_to_the_last_one(values, power):
    rows = values[:, None]
    np.testing.assert_array_equal(scale_of(rows * 2.0**power)(rows * 2.0**power), scale_of(rows)(rows))


@given(values=columns)
def test_an_offset_that_costs_no_digits_leaves_the_scaled_rows_to_the_last_one(values):
    rows = values[:, None]
    np.testing.assert_array_equal(scale_of(rows + 1e15)(rows + 1e15), scale_of(rows)(rows))


@given(rows=few_valued, other=st.sampled_from([0.0, 3.0]))
def test_csr_rows_have_the_scale_of_dense_ones(rows, other):
    # With 3 in place of most of its entries the middle of a column is not 0.
    rows = np.where(rows == 0.0, other, rows)
    dense, sparse = scale_of(rows), scale_of(csr_array(rows))
    np.testing.assert_array_equal(sparse.middle, dense.middle)
    np.testing.assert_array_equal(sparse.spread, dense.spread)
    np.testing.assert_allclose(sparse(csr_array(rows)).toarray(), dense(rows), rtol=1e-15)
    np.testing.assert_allclose(sparse.back(sparse(csr_array(rows))).toarray(), dense.back(dense(rows)), rtol=1e-15)


@given(rows=few_valued, seed=seeds)
def test_copies_have_the_scale_of_weights(rows, seed):
    counts = np.random.default_rng(seed).integers(1, 5, len(rows))
    weighted, copied = Scale.of((rows, counts)), scale_of(np.repeat(rows, counts, axis=0))
    np.testing.assert_allclose(both(weighted, rows), both(copied, rows), rtol=1e-12)


@given(seed=seeds)
def test_copies_have_the_scale_of_weights_where_values_are_many(seed):
    rng = np.random.default_rng(seed)
    rows, counts = rng.standard_normal((300, 2)), rng.integers(1, 5, 300)
    weighted, copied = Scale.of((rows, counts)), scale_of(np.repeat(rows, counts, axis=0))
    np.testing.assert_allclose(both(weighted, rows), both(copied, rows), rtol=1e-12)


@given(seed=seeds, n=st.integers(2, 300), unit=powers)
def test_the_order_of_the_rows_and_the_unit_of_the_weights_leave_the_scale(seed, n, unit):
    rng = np.random.default_rng(seed)
    rows, weight, order = rng.standard_normal((n, 2)), rng.uniform(0.1, 1.0, n), rng.permutation(n)
    plain, other = Scale.of((rows, weight)), Scale.of((rows[order], weight[order] * 10.0**unit))
    np.testing.assert_allclose(both(other, rows), both(plain, rows), rtol=1e-12)


@given(seed=seeds, sentinel=st.sampled_from([-999.0, 1e10, -1e300]), n=st.sampled_from([200, 1000]))
def test_a_far_value_hardly_changes_the_spread(seed, sentinel, n):
    values = np.random.default_rng(seed).standard_normal((n, 1))
    plain = scale_of(values).spread[0]
    values[seed % n] = sentinel
    # Two in 128 pairs of quantiles become far: the median difference of a Gaussian moves by 4 %, and by one gap more.
    assert scale_of(values).spread[0] == pytest.approx(plain, rel=0.08)


@given(low=st.floats(-1e6, 1e6), high=st.floats(-1e6, 1e6), n=st.integers(2, 2000), data=st.data())
def test_a_column_of_two_values_has_one_spread_however_rare_one_of_them_is(low, high, n, data):
    assume(abs(high - low) > 1e-9 * max(abs(low), abs(high)))
    values = np.full((n, 1), low)
    values[: data.draw(st.integers(1, n - 1))] = high
    assert scale_of(values).spread[0] == pytest.approx(abs(high - low) / 0.9538725524, rel=1e-12)


@given(constant=st.floats(-1e12, 1e12), n=st.integers(1, 300))
def test_a_constant_column_is_left_out_and_comes_back(constant, n):
    rows = np.column_stack([np.full(n, constant), np.arange(n)])
    scale = scale_of(rows)
    assert scale.spread[0] == np.inf
    np.testing.assert_array_equal(scale(rows)[:, 0], 0.0)
    # Far from it, too: there is no unit to measure the distance in.
    assert scale(np.array([[constant + 1e6, 0.0]]))[0, 0] == 0.0
    np.testing.assert_allclose(scale.back(scale(rows)), rows, rtol=1e-15, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(seed=seeds, n=st.sampled_from([30, 300]), size=st.floats(0.1, 1e6))
def test_values_that_rounding_sets_apart_are_one(dtype, seed, n, size):
    assume(dtype(size) != np.rint(dtype(size)))
    rng = np.random.default_rng(seed)
    rounded = np.where(rng.random((n, 1)) < 0.5, dtype(size), np.nextafter(dtype(size), dtype(np.inf)))
    assert scale_of(rounded).spread[0] == np.inf
    # Nor do they hide the spread of the other values, in this sample or in another one.
    some, other = rounded.copy(), np.array([[0.0], [1.0]], dtype=dtype)
    some[:2, 0] = size + 1.0, size + 3.0
    assert scale_of(some).spread[0] > 0.5
    assert scale_of(rounded, other).spread[0] == pytest.approx(1.0 / 0.9538725524, rel=1e-6)


@pytest.mark.parametrize(("dtype", "first"), [(np.float32, 2.0**24), (np.float64, 2.0**53)])
def test_whole_numbers_are_exact(dtype, first):
    """Neighboring numbers of the dtype, as long as there is nothing between them: 1e16 and 1e16 + 2 are two keys or dates."""
    assert scale_of(np.array([[first], [first + 2.0]], dtype=dtype)).spread[0] == pytest.approx(2.0 / 0.9538725524)


@given(seed=seeds, n=st.integers(2, 200))
def test_back_is_the_inverse(seed, n):
    problem = gaussian_shift(n, n, 3, seed=seed)
    scale = scale_of(problem.source, problem.target)
    np.testing.assert_allclose(scale.back(scale(problem.source)), problem.source, rtol=1e-12, atol=1e-12)


@given(seed=seeds, offset=st.sampled_from([0.0, 1000.0]))
def test_single_precision_has_the_scale_of_the_same_values_in_double_precision(seed, offset):
    rows = (gaussian_shift(200, 1, 2, seed=seed).source + offset).astype(np.float32)
    single, double = scale_of(rows), scale_of(rows.astype(np.float64))
    np.testing.assert_array_equal([single.middle, single.spread], [double.middle, double.spread])
    assert single(rows).dtype == single.back(single(rows)).dtype == np.float32
    np.testing.assert_allclose(single(rows), double(rows.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_square_of_a_scaled_row_is_finite(dtype):
    largest = np.finfo(dtype).max
    rows = np.array([[-largest], *([float(i)] for i in range(7)), [largest]], dtype=dtype)
    for scaled in (scale_of(rows)(rows), scale_of(rows)(csr_array(rows)).toarray()):
        assert np.all(np.isfinite(scaled**2)) and np.all(np.diff(scaled, axis=0) > 0.0)


@pytest.mark.parametrize("library", sorted(array_libraries()))
def test_the_array_libraries_agree_on_the_scale(library):
    problem = gaussian_shift(300, 200, 3)
    convert = array_libraries()[library]
    rows = [convert(x) for x in (problem.source, problem.target)]
    scale, expected = scale_of(*rows), scale_of(problem.source, problem.target)
    np.testing.assert_array_equal([scale.middle, scale.spread], [expected.middle, expected.spread])
    assert type(scale(rows[0])) is type(rows[0])
    np.testing.assert_allclose(np.asarray(scale(rows[0])), expected(problem.source), rtol=1e-15)


# ---------------------------------------------------------------- the distinct rows


@given(rows=few_valued, dtype=st.sampled_from([np.float32, np.float64]))
def test_distinct_rows_are_those_of_numpy(rows, dtype):
    rows = rows.astype(dtype)
    position, kind = distinct(rows)
    # Adding 0 leaves no -0, which numpy may tell from 0.
    expected, inverse = np.unique(rows + 0.0, axis=0, return_inverse=True)
    np.testing.assert_array_equal(rows[position], expected)
    np.testing.assert_array_equal(kind, inverse.ravel())


@given(seed=seeds, n=st.integers(1, 200), d=st.integers(1, 4))
def test_rows_that_all_differ_come_in_lexicographic_order(seed, n, d):
    rows = np.random.default_rng(seed).standard_normal((n, d))
    position, kind = distinct(rows)
    np.testing.assert_array_equal(position, np.lexsort(rows.T[::-1]))
    np.testing.assert_array_equal(position[kind], np.arange(n))


@given(rows=few_valued)
def test_distinct_csr_rows_are_those_of_dense_ones(rows):
    for one, other in zip(distinct(csr_array(rows)), distinct(rows), strict=True):
        np.testing.assert_array_equal(one, other)


def test_stored_zeros_and_entries_stored_twice_are_not_seen():
    stored = csr_array((np.array([1.0, 1.0, 0.0, 2.0]), np.array([0, 0, 1, 0]), np.array([0, 3, 4])), shape=(2, 2))
    assert stored.nnz == 4
    np.testing.assert_array_equal(distinct(stored)[1], [0, 0])
    np.testing.assert_array_equal(distinct(np.array([[0.0], [-0.0]]))[1], [0, 0])


@given(rows=few_valued, seed=seeds)
def test_the_order_of_the_rows_and_their_units_leave_the_numbers_of_distinct_rows(rows, seed):
    rng = np.random.default_rng(seed)
    order, factor, offset = rng.permutation(len(rows)), rng.uniform(0.1, 10.0, rows.shape[1]), rng.normal(size=rows.shape[1])
    np.testing.assert_array_equal(distinct(rows[order] * factor + offset)[1], distinct(rows)[1][order])


@given(seed=seeds, n=st.integers(2, 60), d=st.integers(2, 5), levels=st.sampled_from([None, 4, 12]))
def test_no_order_or_unit_of_columns_leaves_its_mark_on_the_order_of_distinct_rows(seed, n, d, levels):
    rng = np.random.default_rng(seed)
    # Columns of few levels are told apart as well, because each has its own.
    rows = rng.gamma(1.0 + 2.0 * np.arange(d), size=(n, d))
    rows = rows if levels is None else np.round(rows * levels / 4)
    kind = distinct_of_any_columns(rows)[1]
    np.testing.assert_array_equal(np.unique(kind), np.arange(len(np.unique(rows, axis=0))))
    if len(np.unique(ranked_columns(rows), axis=0)) < d:
        return
    order, columns, factor = rng.permutation(n), rng.permutation(d), rng.uniform(0.1, 10.0, d)
    mixed = (rows * factor + rng.standard_normal(d))[order][:, columns]
    np.testing.assert_array_equal(distinct_of_any_columns(mixed)[1], kind[order])
    np.testing.assert_array_equal(distinct_of_any_columns(csr_array(mixed))[1], kind[order])
    doubled = np.vstack([rows, rows[:1].repeat(3, axis=0)])
    np.testing.assert_array_equal(distinct_of_any_columns(doubled)[1][:n], kind)


def ranked_columns(rows):
    """What tells columns apart, one row for each: moments of their ranks among the distinct rows, and of all columns' ranks."""
    rows = np.unique(rows, axis=0)
    edges = np.sort(rows, axis=0)[np.arange(1, 16) * len(rows) // 16]
    ranks = (rows[:, None, :] > edges[None]).sum(axis=1)
    total = ranks.sum(axis=1)
    return np.array([[r.sum(), (r * r).sum(), (r * total).sum(), (r * r * total).sum(), (r * total**2).sum()] for r in ranks.T])


# ---------------------------------------------------------------- distances

LIBRARIES = {"numpy": np.asarray, "csr": csr_array, "one csr": None, **array_libraries()}
ERROR = {"float32": (2e-6, 1e-4), "float64": (1e-14, 1e-10)}  # relative, and per unit of resolution


def in_libraries(library, x, y):
    if library == "one csr":
        return csr_array(x), y
    return LIBRARIES[library](x), LIBRARIES[library](y)


@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("library", LIBRARIES)
@given(
    seed=seeds, n=st.integers(1, 20), m=st.integers(1, 20), d=st.sampled_from([1, 2, 5, 6, 20]),
    resolution=st.sampled_from([0.0, 1.0]),
    offset=st.sampled_from([0.0, 1e3, 1e10]), is_far=st.sampled_from(["none", "x", "y", "both"]),
)  # fmt: skip
def test_squared_distances_are_exact_wherever_the_rows_are(library, dtype, seed, n, m, d, resolution, offset, is_far):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    # One row of each that is the same in both: its distance is 0.
    x[0] = y[0]
    for rows, name in ((x, "x"), (y, "y")):
        rows[rng.random(rows.shape) < 0.3] = 0.0
        if is_far in (name, "both"):
            rows[-1] += 1e10
    x, y = ((rows + offset).astype(dtype) for rows in (x, y))
    expected = ((x[:, None, :].astype(np.longdouble) - y[None, :, :]) ** 2).sum(axis=2)
    found = np.asarray(squared_euclidean(*in_libraries(library, x, y), resolution))
    relative, absolute = ERROR[dtype]
    assert found.shape == (n, m)
    np.testing.assert_allclose(found, expected.astype(np.float64), rtol=d * relative, atol=resolution * absolute)


@pytest.mark.parametrize("library", LIBRARIES)
def test_equal_rows_have_the_distance_zero_beside_a_far_one(library):
    rows = np.random.default_rng(0).standard_normal((30, 8))
    rows[7] = 1e12
    found = np.asarray(squared_euclidean(*in_libraries(library, rows, rows), 1e-6))
    assert np.diag(found) == pytest.approx(0.0, abs=1e-15)
    assert found[7, 3] == pytest.approx(8e24, rel=1e-10)
    assert torch.is_tensor(squared_euclidean(torch.asarray(rows), torch.asarray(rows), 1e-6))


@given(n=st.integers(1, 500), most=st.integers(1, 100))
def test_some_of_sorted_rows_have_their_quantiles(n, most):
    kept = some_of(n, most)
    assert len(kept) == min(n, most) and np.all(np.diff(kept) > 0)
    # One row of each of as many runs of equal length.
    assert np.all(np.abs((kept + 0.5) / n - (np.arange(len(kept)) + 0.5) / len(kept)) <= 0.5 / len(kept) + 1.0 / n)
