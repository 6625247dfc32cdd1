"""LSIF and KLIEP on Dask collections: the fit in memory, whatever the partitions."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold

pytest.importorskip("dask.array")
pd = pytest.importorskip("pandas")
dd = pytest.importorskip("dask.dataframe")
import dask  # noqa: E402
import dask.array as da  # noqa: E402
from dask_cases import (  # noqa: E402
    on_one_thread,  # noqa: F401
    samples,
    split,
    table,
    unknown,
    with_features_of,
)

import densratio  # noqa: E402
from densratio import KLIEP, KMM, LSIF, DensityRatio, Wasserstein  # noqa: E402
from densratio.dask import DaskRatio, solve, stack_domains  # noqa: E402
from densratio.dask.partitions import Partitions  # noqa: E402
from densratio.dask.survey import survey  # noqa: E402
from densratio.features import Gaussian, Laplacian  # noqa: E402

RATIOS = {
    "LSIF": LSIF(random_state=0),
    "LSIF with L1": LSIF(regularization=0.1, l1_ratio=0.9, random_state=0),
    "uLSIF": LSIF(nonnegative=False, regularization=1e-3, random_state=0),
    "RuLSIF": LSIF(nonnegative=False, alpha=0.3, random_state=0),
    "KLIEP": KLIEP(random_state=0),
    "random Fourier": LSIF(kernel="random_fourier", nonnegative=False, random_state=0),
    "Laplacian": KLIEP(kernel=Laplacian(n_centers=30, random_state=1)),
    "by objective": DensityRatio("lsif", n_centers=20, random_state=0),
}
FITTED = ["coef_", "centers_", "gamma_", "normalization_", "objective_value_", "n_iter_", "converged_", "n_features_in_"]


def check_is_the_fit_in_memory(model, expected, X, *, atol=1e-10):
    for name in FITTED:
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name), rtol=1e-9, atol=atol, err_msg=name)
    np.testing.assert_allclose(model.weights_.compute(), expected.weights_, rtol=0, atol=atol)
    np.testing.assert_allclose(model.ratio_.transform(X), expected.transform(X), rtol=0, atol=atol)


# ---------------------------------------------------------------- the fit


@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", RATIOS)
def test_a_table_no_larger_than_the_sample_gives_the_fit_in_memory(name, is_weighted):
    X, y, weight = table()
    weight = weight if is_weighted else None
    model = DaskRatio(RATIOS[name]).fit(*split(X, y, weight))
    check_is_the_fit_in_memory(model, clone(RATIOS[name]).fit(X, y, weight), X)


@pytest.mark.parametrize("is_weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", RATIOS)
def test_a_larger_table_gives_the_fit_in_memory_at_the_same_centers(name, is_weighted):
    X, y, weight = table(3000, 2000)
    weight = weight if is_weighted else None
    ratio = clone(RATIOS[name])
    if isinstance(ratio.kernel, str):
        ratio.set_params(n_centers=20)
    model = DaskRatio(ratio, n_sample=100).fit(*split(X, y, weight))
    assert name == "random Fourier" or not np.array_equal(model.centers_, clone(ratio).fit(X, y, weight).centers_)
    check_is_the_fit_in_memory(model, with_features_of(model, ratio, X, y, weight), X)


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    ratio=st.sampled_from([LSIF(n_centers=7, random_state=0), KLIEP(n_centers=7, random_state=0)]),
    seed=st.integers(0, 5),
)
@settings(max_examples=15)
def test_no_split_into_partitions_changes_the_fit(sizes, ratio, seed):
    X, y, _ = table(60, 50, seed=seed)
    chunks = (*sizes, len(y) - sum(sizes)) if sum(sizes) < len(y) else (len(y),)
    check_is_the_fit_in_memory(DaskRatio(ratio).fit(*split(X, y, chunks=chunks)), clone(ratio).fit(X, y), X)


@pytest.mark.parametrize("ratio", [RATIOS["uLSIF"], RATIOS["KLIEP"]], ids=["uLSIF", "KLIEP"])
def test_arrays_of_unknown_chunk_sizes_and_frames_give_the_fit_in_memory(ratio):
    source, target = samples()
    expected = clone(ratio).fit(*densratio.stack_domains(source, target))
    parts = [da.from_array(part, chunks=(150, 1)) for part in (source, target)]
    check_is_the_fit_in_memory(DaskRatio(ratio).fit(*stack_domains(*map(unknown, parts))), expected, target)

    frames = [pd.DataFrame(part, columns=["age", "income"]) for part in (source, target)]
    model = DaskRatio(ratio).fit(*stack_domains(*(dd.from_pandas(frame, npartitions=3) for frame in frames)))
    assert list(model.feature_names_in_) == ["age", "income"]
    check_is_the_fit_in_memory(model, clone(ratio).fit(*densratio.stack_domains(*frames)), frames[1])


def test_labels_and_weights_are_columns_of_a_parquet_table(tmp_path):
    X, y, weight = table()
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(n=np.arange(len(X)) % 7, domain=np.where(y == 1, "new", "before"), w=weight)
    dd.from_pandas(frame, npartitions=20).to_parquet(tmp_path)
    stored = dd.read_parquet(tmp_path)
    model = DaskRatio(LSIF(random_state=0)).fit(stored[["a", "b", "n"]], stored["domain"], stored["w"])
    expected = LSIF(random_state=0).fit(frame[["a", "b", "n"]], frame["domain"], frame["w"])
    check_is_the_fit_in_memory(model, expected, frame[["a", "b", "n"]])


@pytest.mark.parametrize("words", [("train", "test"), ("source", "target")])
def test_words_that_name_the_samples_are_taken_at_their_word_as_in_memory(words):
    X, y, _ = table(60, 40)
    named = pd.Series(np.array(words)[y])
    model = DaskRatio(LSIF(random_state=0)).fit(*(dd.from_pandas(part, npartitions=3) for part in (pd.DataFrame(X), named)))
    check_is_the_fit_in_memory(model, LSIF(random_state=0).fit(X, y), X)


@pytest.mark.parametrize("dtype", ["Int64", "Float32", "int64[pyarrow]", "bool", "boolean", "int8"])
def test_columns_of_every_number_type_are_numbers(dtype):
    pytest.importorskip("pyarrow")
    X, y, _ = table(60, 40)
    frame = pd.DataFrame({"a": pd.Series((X[:, 0] > 0.0).astype(int)).astype(dtype), "b": X[:, 1]})
    model = DaskRatio(LSIF(random_state=0)).fit(*(dd.from_pandas(part, npartitions=3) for part in (frame, pd.Series(y == 1))))
    check_is_the_fit_in_memory(model, LSIF(random_state=0).fit(frame.astype(float), y), frame.astype(float))
    lazy = dd.from_pandas(frame, npartitions=3)
    np.testing.assert_allclose(model.transform(lazy).compute(), model.ratio_.transform(frame.astype(float)))


@pytest.mark.parametrize(
    "ratio",
    [
        LSIF(gamma="cv", regularization="cv", nonnegative=False, random_state=0),
        LSIF(regularization=[0.01, 1.0], cv=3, random_state=0),
        KLIEP(gamma=[0.1, "median", 3.0], cv=StratifiedKFold(4, shuffle=True, random_state=0), random_state=0),
    ],
    ids=["leave one out", "folds", "splitter"],
)
def test_cross_validation_on_the_sample_chooses_what_it_chooses_in_memory(ratio):
    X, y, _ = table(150, 120)
    model, expected = DaskRatio(ratio).fit(*split(X, y)), clone(ratio).fit(X, y)
    assert model.best_params_ == model.ratio_.best_params_ == expected.best_params_
    np.testing.assert_allclose(model.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])
    check_is_the_fit_in_memory(model, expected, X)


def test_single_precision_stays_single_and_near_the_fit_in_memory():
    X, y, _ = table()
    X = X.astype(np.float32)
    for ratio in (LSIF(random_state=0), KLIEP(random_state=0)):
        model, expected = DaskRatio(ratio).fit(*split(X, y)), clone(ratio).fit(X, y)
        assert model.coef_.dtype == model.weights_.dtype == model.transform(X).dtype == np.float32
        assert model.weights_.compute().dtype == np.float32
        np.testing.assert_allclose(model.weights_.compute(), expected.weights_, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("ratio", [RATIOS["uLSIF"], KLIEP(tol=1e-9, random_state=0)], ids=["uLSIF", "KLIEP"])
def test_partitions_are_computed_on_the_device_that_the_ratio_names(ratio, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(solve, "_GATHERED", 2000)
    X, y, weight = table()
    model = DaskRatio(clone(ratio).set_params(device="cpu")).fit(*split(X, y, weight))
    np.testing.assert_allclose(model.weights_.compute(), clone(ratio).fit(X, y, weight).weights_, atol=1e-7)
    assert isinstance(model.coef_, np.ndarray)


def test_a_ratio_that_vanishes_on_the_source_weighs_its_rows_alike_as_in_memory():
    source, target = samples(50, 40)
    X, y = densratio.stack_domains(source, target + 1e3)
    model, expected = DaskRatio(LSIF(gamma=1.0, random_state=0)).fit(*split(X, y)), LSIF(gamma=1.0, random_state=0).fit(X, y)
    assert np.array_equal(model.weights_.compute(), np.ones(50))
    np.testing.assert_allclose(model.ratio_.transform(X), expected.transform(X))


def test_a_fit_takes_two_passes_and_a_third_where_the_ratio_is_clipped(monkeypatch):
    X, y, _ = table()
    passes = []
    reduce = Partitions.reduce
    monkeypatch.setattr(Partitions, "reduce", lambda self, *args: passes.append(args) or reduce(self, *args))

    def count(ratio):
        passes.clear()
        DaskRatio(ratio).fit(*split(X, y))
        return len(passes)

    assert [count(RATIOS[name]) for name in ("LSIF", "KLIEP", "uLSIF")] == [2, 2, 3]


def test_no_block_of_features_has_more_rows_than_a_partition_or_more_columns_than_centers(monkeypatch):
    X, y, _ = table(3000, 2000)
    shapes = []
    call = Gaussian.__call__
    monkeypatch.setattr(Gaussian, "__call__", lambda self, x: shapes.append((len(x), self.n_columns)) or call(self, x))
    model = DaskRatio(LSIF(n_centers=12, random_state=0), n_sample=50).fit(*split(X, y, chunks=(500,) * 10))
    model.weights_.compute()
    assert {columns for _, columns in shapes} == {12}
    assert max(rows for rows, _ in shapes) <= 500


def test_warns_in_words_where_the_solver_stops_early():
    X, y, _ = table()
    with pytest.warns(ConvergenceWarning, match="raise max_iter"):
        DaskRatio(KLIEP(max_iter=1, random_state=0)).fit(*split(X, y))


# ---------------------------------------------------------------- the sample


def test_the_sample_is_uniform_over_the_rows_of_each_domain_whatever_the_partitions():
    X = np.arange(60.0)[:, None]
    y = np.arange(60) % 2
    partitions = Partitions.of(LSIF(), *split(X, y, chunks=(2, 0, 50, 8)))
    hits = np.zeros(60)
    for seed in range(200):
        rows, labels, _ = survey(partitions, 5, seed).sample(None)
        assert np.array_equal(np.sort(rows[:, 0]), rows[:, 0]) and np.bincount(labels).tolist() == [5, 5]
        hits[rows[:, 0].astype(int)] += 1
    assert chisquare(hits).pvalue > 1e-3


def test_rows_that_count_are_drawn_before_rows_that_do_not():
    X, y, _ = table(300, 300)
    weight = (np.arange(600) % 10 == 0).astype(float)
    partitions = Partitions.of(LSIF(), *split(X, y, weight))
    _, _, drawn = survey(partitions, 20, 0).sample(None)
    assert np.array_equal(drawn, np.ones(40))


def test_the_same_seed_draws_the_same_centers():
    X, y, _ = table(600, 600)
    first, again, other = (
        DaskRatio(LSIF(n_centers=5, random_state=0), n_sample=30, random_state=seed).fit(*split(X, y)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first.centers_, again.centers_)
    assert not np.array_equal(first.centers_, other.centers_)


# ---------------------------------------------------------------- what a fit gives


def test_the_weights_are_lazy_and_have_known_sizes_and_mean_one():
    X, y = stack_domains(*(unknown(da.from_array(part, chunks=(100, 2))) for part in samples()))
    weights = DaskRatio(KLIEP(random_state=0)).fit(X, y).weights_
    assert isinstance(weights, da.Array) and weights.chunks == ((100, 100, 100, 100),)
    np.testing.assert_allclose(weights.mean().compute(), 1.0)


def test_the_fitted_ratio_pickles_small_and_goes_on_without_dask():
    X, y, _ = table(3000, 2000)
    Z, z, _ = table(500, 400, seed=9)
    ratio = LSIF(n_centers=20, random_state=0)
    model = DaskRatio(ratio, n_sample=100).fit(*split(X, y))
    stored = pickle.dumps(model.ratio_)
    assert len(stored) < 30_000
    goes_on = pickle.loads(stored).partial_fit(Z, z)
    expected = with_features_of(model, ratio, np.concatenate([X, Z]), np.concatenate([y, z]))
    np.testing.assert_allclose(goes_on.coef_, expected.coef_, atol=1e-9)
    np.testing.assert_allclose(goes_on.transform(Z), expected.transform(Z), atol=1e-9)


def test_the_ratio_given_stays_unfitted_and_a_refit_forgets_the_last():
    X, y, _ = table()
    model = DaskRatio(KLIEP(gamma=[0.5, 1.0], random_state=0))
    copy = clone(model)
    assert copy.get_params()["ratio__gamma"] == [0.5, 1.0]
    copy.fit(*split(X, y))
    assert not hasattr(copy.ratio, "coef_") and copy.best_params_
    copy.set_params(ratio__gamma=1.0).fit(*split(X, y))
    assert not hasattr(copy, "best_params_") and copy.gamma_ == 1.0


@pytest.mark.parametrize("name", ["LSIF", "uLSIF", "RuLSIF", "KLIEP"])
def test_the_score_on_held_out_rows_is_that_in_memory(name):
    X, y, weight = table()
    Z, z, held_out_weight = table(seed=5)
    model, expected = DaskRatio(RATIOS[name]).fit(*split(X, y, weight)), clone(RATIOS[name]).fit(X, y, weight)
    np.testing.assert_allclose(model.score(*split(Z, z)[:2]), expected.score(Z, z))
    np.testing.assert_allclose(model.score(*split(Z, z, held_out_weight)), expected.score(Z, z, held_out_weight))


# ---------------------------------------------------------------- errors


def bad(change):
    """A good table as frames of three partitions, changed."""
    X, y, weight = table(40, 30)
    frame = pd.DataFrame(X, columns=["a", "b"]).assign(domain=y, w=weight)
    return dd.from_pandas(change(frame), npartitions=3)


def set_at(column, value, row=37):
    def change(frame):
        frame[column] = frame[column].astype(object if isinstance(value, str) else float)
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_at("b", np.nan), "Input X contains NaN in column 'b'"),
        (set_at("a", np.inf), "Input X contains infinity in column 'a'"),
        (set_at("b", "word"), "Column 'b' holds text"),
        (set_at("domain", np.nan), "Input y contains NaN or infinity in partition 1"),
        (set_at("domain", 7.0), "exactly two values.*more than two \\(0.0, 1.0, 7.0"),
        (lambda frame: frame.assign(domain=1), "One domain is empty"),
        (lambda frame: frame.assign(domain=frame["a"]), "exactly two values"),
        (lambda frame: frame.iloc[:0], "no rows"),
        (set_at("w", -1.0), "sample_weight must hold finite numbers >= 0; row 13 of partition 1 has -1.0"),
        (set_at("w", np.nan), "sample_weight must hold finite numbers >= 0; row 13 of partition 1 has nan"),
        (lambda frame: frame.assign(w=frame["w"] * frame["domain"]), "sample_weight is zero on every source row"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_an_error_in_words(change, message):
    frame = bad(change)
    model = DaskRatio(LSIF(random_state=0), n_sample=3)
    with pytest.raises(ValueError, match=message):
        model.fit(frame[["a", "b"]], frame["domain"], frame["w"])
    assert not hasattr(model, "ratio_")


def test_what_is_not_dask_or_not_split_alike_is_an_error_that_says_what_to_do():
    X, y, weight = table(40, 30)
    dX, dy, _ = split(X, y)
    model = DaskRatio(LSIF())
    with pytest.raises(ValueError, match=r"got numpy.ndarray.*LSIF\(\)\.fit\(X, y\)"):
        model.fit(X, y)
    with pytest.raises(ValueError, match=r"y must be a Dask array.*stack_domains"):
        model.fit(dX)
    with pytest.raises(ValueError, match=r"y must be a Dask array.*got a 2-D collection"):
        model.fit(dX, dX)
    with pytest.raises(ValueError, match=r"sample_weight must be a Dask array.*got ndarray"):
        model.fit(dX, dy, weight)
    with pytest.raises(ValueError, match="Expected 2D array"):
        model.fit(dy, dy)
    with pytest.raises(ValueError, match="X has 70 rows and y has 69"):
        model.fit(dX, dy[:-1])
    with pytest.raises(ValueError, match=r"X has 5 partitions and y has 1.*compute_chunk_sizes"):
        model.fit(unknown(dX), dy.rechunk(-1))
    with pytest.raises(ValueError, match=r"Partition \d has \d+ rows in X and \d+ in y"):
        model.fit(unknown(dX), unknown(dy.rechunk(((10, 0, 25, 25, 10),))))
    with pytest.raises(ValueError, match="blocks of X must be numpy"):
        import scipy.sparse

        model.fit(dX.map_blocks(scipy.sparse.csr_array), dy)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (DaskRatio(KMM()), r"LSIF\(\) and KLIEP\(\).*KMM needs all rows at once"),
        (DaskRatio(Wasserstein()), "Wasserstein needs all rows"),
        (DaskRatio(KFold()), "KFold needs all rows"),
        (DaskRatio(LSIF(cv=[([0], [1])])), "cv names rows"),
        (DaskRatio(LSIF(n_centers="many")), "n_centers must be an int"),
        (DaskRatio(KLIEP(kernel="random_fourier")), "needs features >= 0"),
        (DaskRatio(LSIF(n_centers=None), n_sample=5), "the target has 30 rows, more than n_sample=5"),
        (DaskRatio(LSIF(), n_sample=0), "n_sample of DaskRatio must be an int >= 1; got 0"),
        (DaskRatio(LSIF(), random_state=None), "random_state of DaskRatio must be an int >= 0; got None"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_ratio_that_no_sums_can_fit_is_refused_in_words(model, message):
    X, y, _ = table(40, 30)
    with pytest.raises(ValueError, match=message):
        model.fit(*split(X, y))


def test_every_target_row_is_a_center_where_the_sample_holds_them_all():
    X, y, _ = table(40, 30)
    model = DaskRatio(LSIF(n_centers=None)).fit(*split(X, y))
    check_is_the_fit_in_memory(model, LSIF(n_centers=None).fit(X, y), X)


# ---------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def client():
    # One process imports what the others begin with, where this is the first to ask for them.
    dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("name", ["LSIF", "uLSIF", "RuLSIF", "KLIEP"])
def test_two_processes_give_the_fit_in_memory(name, client):
    X, y, weight = table()
    with dask.config.set(scheduler=client):
        model = DaskRatio(RATIOS[name]).fit(*split(X, y, weight))
        check_is_the_fit_in_memory(model, clone(RATIOS[name]).fit(X, y, weight), X)
        np.testing.assert_allclose(model.transform(split(X, y)[0]).compute(), model.ratio_.transform(X))


def test_two_processes_give_the_fit_of_a_larger_frame_at_the_same_centers(client):
    source, target = (pd.DataFrame(part, columns=["a", "b", "c"]) for part in samples(8_000, 6_000, 3))
    X, y = densratio.stack_domains(source, target)
    with dask.config.set(scheduler=client):
        lazy = stack_domains(*(dd.from_pandas(part, npartitions=4) for part in (source, target)))
        for ratio in (LSIF(random_state=0), KLIEP(random_state=0)):
            model = DaskRatio(ratio, n_sample=1000).fit(*lazy)
            check_is_the_fit_in_memory(model, with_features_of(model, ratio, X, y), X)


def test_an_error_of_a_process_reaches_the_person_in_words(client):
    frame = bad(set_at("b", np.nan))
    with dask.config.set(scheduler=client), pytest.raises(ValueError, match="NaN in column 'b'"):
        DaskRatio(LSIF()).fit(frame[["a", "b"]], frame["domain"])
