"""What every density ratio keeps to, over the whole registry: weights, unseen rows, libraries, counts, copies and corners."""

from __future__ import annotations

import pickle
import warnings
from inspect import signature

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from zoo_cases import quick, source_places

import densratio.labels
from densratio import KLIEP, KMM, LSIF, DensityRatio, stack_domains
from densratio.estimators import ESTIMATORS, IN_LOOPS
from densratio.features import Gaussian
from densratio.testing import KINDS, draw_problem, gaussian_shift

OWN = sorted(set(ESTIMATORS) - set(IN_LOOPS))  # those that tests/test_sklearn.py and tests/test_laws.py do not hold already
NAMES = sorted(ESTIMATORS)
SPARSE = [name for name in NAMES if ESTIMATORS[name]().__sklearn_tags__().input_tags.sparse]


def new(name, **params):
    ratio = ESTIMATORS[name]().set_params(**quick(name))
    if "random_state" in ratio.get_params():
        ratio.set_params(random_state=0)
    return ratio.set_params(**params)


def table(name, n_source=60, n_target=50, seed=0, shift=0.7):
    problem = gaussian_shift(n_source, n_target, 2, shift=shift, seed=seed)
    return problem.source, problem.target


# ---------------------------------------------------------------- scikit-learn


# By default these choose parameters, classifiers or members in every one of the fifty fits.
QUICK = {
    "stacked": quick("stacked"),
    "discriminator": {"classifier": LogisticRegression()},
    "subspace_lsif": {"gamma": "median", "regularization": 0.1, "max_iter": 10, "n_restarts": 1},
}


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *(pytest.param(name, {}, marks=[pytest.mark.long] * (name in QUICK), id=name) for name in OWN),
        *(pytest.param(name, params, id=f"{name}, quick") for name, params in QUICK.items()),
    ],
)
def test_check_estimator_passes(name, params):
    results = check_estimator(ESTIMATORS[name]().set_params(**params), on_fail=None, on_skip=None)
    assert len(results) > 40
    assert {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_fitted_ratio_survives_pickle_joblib_clone_and_frames_as_output(name, tmp_path):
    X, y = stack_domains(*table(name))
    ratio = new(name).fit(X, y)
    joblib.dump(ratio, tmp_path / "ratio.joblib")
    for copy in (pickle.loads(pickle.dumps(ratio)), joblib.load(tmp_path / "ratio.joblib")):
        assert np.array_equal(copy.transform(X), ratio.transform(X))
    blank = clone(ratio)
    assert not hasattr(blank, "weights_")
    with config_context(transform_output="polars" if name < "l" else "pandas"):
        assert blank.fit(X, y).weights_ == pytest.approx(ratio.weights_, abs=1e-10)
        assert blank.transform(X) == pytest.approx(ratio.transform(X), abs=1e-10)


def test_every_ratio_fits_in_processes():
    jobs = [(new(name), *stack_domains(*table(name))) for name in NAMES]
    here = [ratio.fit(X, y).weights_ for ratio, X, y in jobs]
    # A method of an object of the package: the processes load the package, and not these tests and torch.
    there = joblib.Parallel(n_jobs=2)(joblib.delayed(clone(ratio).fit)(X, y) for ratio, X, y in jobs)
    for name, one, other in zip(NAMES, here, there, strict=True):
        assert other.weights_ == pytest.approx(one, abs=1e-8), name


@pytest.mark.parametrize("name", OWN)
def test_fit_leaves_the_parameters_as_they_are(name):
    ratio = new(name)
    before = {key: pickle.dumps(value) for key, value in ratio.get_params(deep=False).items()}
    ratio.fit(*stack_domains(*table(name)))
    assert {key: pickle.dumps(value) for key, value in ratio.get_params(deep=False).items()} == before


@pytest.mark.parametrize("name", OWN)
def test_a_pipeline_with_a_scaler_is_the_scaler_by_hand(name):
    X, y = stack_domains(*table(name))
    pipeline = make_pipeline(StandardScaler(), new(name)).fit(X * 30.0 + 100.0, y)
    by_hand = new(name).fit(StandardScaler().fit_transform(X * 30.0 + 100.0), y)
    assert pipeline[-1].weights_ == pytest.approx(by_hand.weights_, abs=1e-9)


@pytest.mark.parametrize("name", OWN)
def test_grid_search_runs_over_the_score(name):
    X, y = stack_domains(*table(name))
    parameter, values = {
        "discriminator": ("cv", [2, 3]),
        "gaussian": ("shared_covariance", [False, True]),
        "kde": ("gamma", [0.5, 5.0]),
        "nearest_neighbors": ("n_neighbors", [3, 10]),
        "spectral": ("n_components", [2, 5]),
        "stacked": ("pull", [0.0, 1.0]),
        "subspace_lsif": ("n_components", [1, 2]),
    }[name]
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(new(name), {parameter: values}, cv=folds, error_score="raise").fit(X, y)
    for k, value in enumerate(values):
        scores = [new(name, **{parameter: value}).fit(X[a], y[a]).score(X[b], y[b]) for a, b in folds.split(X, y)]
        assert search.cv_results_["mean_test_score"][k] == pytest.approx(np.mean(scores), rel=1e-6)


# ---------------------------------------------------------------- what the answer is


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_have_mean_one_and_the_order_of_the_source_rows(name):
    source, target = table(name)
    X, y = stack_domains(source, target)
    ratio = new(name).fit(X, y)
    assert ratio.weights_.shape == (60,) and ratio.weights_.min() >= 0.0
    assert ratio.weights_.mean() == pytest.approx(1.0, abs=1e-9)
    # However the target rows lie between them, the source rows keep their order.
    mixed = np.random.default_rng(0).permutation(len(y))
    of_mixed = new(name).fit(X[mixed], y[mixed]).weights_
    assert of_mixed == pytest.approx(ratio.weights_[source_places(y, mixed)], abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "discriminator"])
def test_the_score_is_the_formula_on_held_out_rows(name):
    ratio = new(name).fit(*stack_domains(*table(name)))
    source, target = table(name, seed=9)
    r_s, r_t = ratio.transform(source), ratio.transform(target)
    expected = np.log(r_t).mean() - r_s.mean() + 1.0 if name == "kliep" else r_t.mean() - 0.5 * (r_s**2).mean()
    assert ratio.score(*stack_domains(source, target)) == pytest.approx(expected, rel=1e-9)


# Errors of methods at 40 rows to those at 1000: the worst of them halves it.
@pytest.mark.parametrize("name", [name for name in NAMES if name != "wasserstein"])
def test_a_known_ratio_is_recovered_better_with_more_rows(name):
    errors = []
    for n in (40, 1000):
        of_seeds = []
        for seed in range(3):
            problem, fresh = gaussian_shift(n, n, 2, shift=0.7, seed=seed), gaussian_shift(500, 1, 2, seed=99 + seed)
            true = gaussian_shift(n, n, 2, shift=0.7, seed=seed).ratio(fresh.source)
            found = new(name).fit(*stack_domains(problem.source, problem.target)).transform(fresh.source)
            of_seeds.append(np.mean((found - true) ** 2) / np.mean(true**2))
        errors.append(np.mean(of_seeds))
    assert errors[1] < 0.7 * errors[0]
    assert errors[1] < 0.15


@pytest.mark.parametrize("name", NAMES)
def test_an_unfitted_ratio_says_how_to_fit(name):
    with pytest.raises(NotFittedError, match=r"not fitted.*stack_domains"):
        new(name).transform(table(name)[0])


# ---------------------------------------------------------------- libraries


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OWN)
def test_tensors_and_frames_give_what_arrays_give(name, dtype):
    source, target = (rows.astype(dtype) for rows in table(name))
    X, y = stack_domains(source, target)
    expected = new(name).fit(X, y)
    assert expected.weights_.dtype == expected.transform(X).dtype == dtype
    of_tensors = new(name).fit(torch.asarray(X), torch.asarray(y))
    assert isinstance(of_tensors.weights_, torch.Tensor) and of_tensors.weights_.numpy().dtype == dtype
    assert of_tensors.weights_.numpy() == pytest.approx(expected.weights_, abs=1e-6)
    assert of_tensors.transform(torch.asarray(target)).numpy() == pytest.approx(expected.transform(target), abs=1e-6)
    frame = pd.DataFrame(X, columns=["a", "b"])
    of_frames = new(name).fit(frame, y)
    assert list(of_frames.feature_names_in_) == ["a", "b"]
    assert of_frames.weights_ == pytest.approx(expected.weights_, abs=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        of_frames.transform(frame.rename(columns={"a": "c"}))


@pytest.mark.parametrize("name", SPARSE)
def test_csr_rows_give_what_dense_ones_give(name):
    rng = np.random.default_rng(0)
    source, target = (rng.poisson(rate, (40, 5)).astype(float) for rate in (0.5, 0.8))
    dense = new(name).fit(*stack_domains(source, target))
    sparse = new(name).fit(*stack_domains(csr_array(source), csr_array(target)))
    assert sparse.weights_ == pytest.approx(dense.weights_, rel=1e-3, abs=1e-3)
    assert sparse.transform(csr_array(target)) == pytest.approx(dense.transform(target), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SPARSE)))
def test_methods_that_take_no_csr_rows_say_so(name):
    X, y = stack_domains(csr_array(np.eye(8)), csr_array(np.eye(8)))
    with pytest.raises(TypeError, match="dense data is required"):
        new(name).fit(X, y)


# ---------------------------------------------------------------- corners


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OWN)
def test_the_weights_are_finite_in_every_corner(name, kind):
    for seed in range(1 if name == "subspace_lsif" else 2):  # its search takes as long as all others together
        problem = draw_problem(kind, 30, 25, 3, seed=seed)
        X, y = stack_domains(problem.source, problem.target)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                ratio = new(name).fit(X, y)
        except ValueError as error:
            # One row cannot be held out; the message says so and what to do.
            assert kind.startswith("one_") and "at least" in str(error)
            continue
        assert np.isfinite(ratio.weights_).all() and ratio.weights_.min() >= 0.0
        assert ratio.weights_.mean() == pytest.approx(1.0, abs=1e-6)
        assert np.isfinite(ratio.transform(X)).all() and ratio.transform(X).min() >= 0.0
        if kind == "one_value":
            assert ratio.weights_ == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_many_more_columns_than_rows_and_one_hot_integers(name):
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(12, 60)), rng.normal(0.3, 1.0, size=(10, 60))
    one_hot = tuple(np.eye(4, dtype=np.uint8)[rng.integers(0, 4, n)] for n in (40, 30))
    for source, target in (wide, one_hot):
        ratio = new(name).fit(*stack_domains(source, target))
        assert np.isfinite(ratio.weights_).all() and ratio.weights_.mean() == pytest.approx(1.0, abs=1e-6)


# ---------------------------------------------------------------- what a person meets


def test_text_columns_are_named_with_the_pipeline_that_encodes_them():
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0, 4.0], "city": ["a", "b", "a", "b"], "when": pd.date_range("2020", periods=4)})
    with pytest.raises(ValueError, match=r"(?s)Column 'city' holds text.*make_column_transformer.*OneHotEncoder.*LSIF\(\)"):
        LSIF().fit(frame, [0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"Column 'when' holds dates"):
        LSIF().fit(frame[["age", "when"]], [0, 0, 1, 1])


def test_numbers_in_object_boolean_and_categorical_columns_are_numbers():
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame({"a": rng.integers(0, 2, 40), "b": rng.normal(size=40)})
    dressed = numbers.assign(a=numbers["a"].astype(bool), b=numbers["b"].astype(object))
    y = np.repeat([0, 1], 20)
    assert LSIF().fit(dressed, y).weights_ == pytest.approx(LSIF().fit(numbers, y).weights_)
    coded = numbers.assign(a=pd.Categorical(numbers["a"]))
    assert LSIF().fit(coded, y).weights_ == pytest.approx(LSIF().fit(numbers, y).weights_)


# ---------------------------------------------------------------- where a formula meets its edge


def samples(n=300, m=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)), 0.7 * rng.normal(size=(m, 2)) + 0.7


@pytest.mark.parametrize(("dtype", "outlier"), [(np.float64, 3e3), (np.float64, 1e6), (np.float32, 1e3), (np.float32, 1e4)])
def test_one_outlier_leaves_the_median_bandwidth(dtype, outlier):
    X, y = stack_domains(*(rows.astype(dtype) for rows in samples()))
    plain = KLIEP(random_state=0).fit(X, y).gamma_
    X[0] = outlier
    assert KLIEP(random_state=0).fit(X, y).gamma_ == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_unit_of_sample_weight_leaves_the_bandwidth_in_single_precision(scale):
    X, y = stack_domains(*(rows.astype(np.float32) for rows in samples()))
    plain = KLIEP(random_state=0).fit(X, y, np.ones(len(y))).gamma_
    assert KLIEP(random_state=0).fit(X, y, np.full(len(y), scale)).gamma_ == pytest.approx(plain, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The ratio of:UserWarning")
@pytest.mark.parametrize("kind", [KLIEP, LSIF])
def test_a_batch_that_no_center_is_near_keeps_the_mean_of_the_stream_at_one(kind):
    source, target = samples()
    ratio = kind(random_state=0).partial_fit(*stack_domains(source, target))
    ratio.partial_fit(*stack_domains(source + 1e4, target[:1]))
    assert ratio.transform(np.concatenate([source, source + 1e4])).mean() == pytest.approx(1.0, rel=1e-6)


def test_even_weights_on_every_source_row_are_told():
    source, target = samples()
    with pytest.warns(UserWarning, match="The ratio of KLIEP is 0 at every source row, so the weights are even"):
        KLIEP(gamma=1.0).fit(*stack_domains(source + 1e4, target))


@pytest.mark.parametrize("params", [{"max_weight": 1.0}, {"max_weight": 1.2}, {"regularization": 1e-2}, {"exact_up_to": 50}])
def test_kmm_gives_a_source_row_its_own_weight(params):
    source, target = samples()
    ratio = KMM(random_state=0, **params).fit(*stack_domains(source, target))
    assert ratio.transform(source) == pytest.approx(ratio.weights_, abs=5e-3)


@pytest.mark.parametrize("regularization", [0.0, 1e-8, 1e-12])
def test_kmm_all_but_unregularized_never_leaves_the_range_of_its_weights(regularization):
    source, target = samples()
    ratio = KMM(regularization=regularization).fit(*stack_domains(source, target))
    at_rows = ratio.transform(np.concatenate([source, target])) * ratio.normalization_
    assert at_rows.max() <= ratio.weights_.max() * (1.0 + 1e-6)


def test_a_search_over_the_bandwidth_of_a_kernel_of_ones_own_is_that_of_its_name():
    X, y = stack_domains(*samples(60, 50))
    grid = [1e-6, 0.5, 50.0]
    by_name, own = (KMM(kernel=kernel, gamma=grid, cv=2).fit(X, y) for kernel in ("gaussian", Gaussian()))
    assert own.cv_results_["mean_test_score"] == pytest.approx(by_name.cv_results_["mean_test_score"], rel=1e-9)
    assert KLIEP(kernel=Gaussian(), gamma=7.0).fit(X, y).gamma_ == 7.0


def test_the_base_class_matches_kernel_means_through_a_map_as_kmm_does():
    X, y = stack_domains(*samples())
    params = {"kernel": "random_fourier", "n_centers": 100, "random_state": 0}
    base, front = DensityRatio("kmm", **params).fit(X, y), KMM(regularization=0.0, **params).fit(X, y)
    assert base.objective_value_ == pytest.approx(front.objective_value_, rel=1e-6)


def test_a_shuffled_splitter_without_a_seed_scores_all_bandwidths_on_the_same_folds():
    X, y = stack_domains(*samples())
    ratio = KLIEP(gamma=[0.5, 0.5 + 1e-9], cv=StratifiedKFold(3, shuffle=True)).fit(X, y)
    for k in range(3):
        one, other = ratio.cv_results_[f"split{k}_test_score"]
        assert one == pytest.approx(other, rel=1e-5)


def test_numbers_of_numpy_are_numbers_and_a_later_plain_parameter_is_the_one_in_use():
    X, y = stack_domains(*samples())
    ratio = LSIF(n_centers=np.int64(20), regularization=[0.001, 0.01], random_state=0).fit(X, y)
    assert len(ratio.centers_) == 20
    ratio.set_params(regularization=50.0).partial_fit(X, y)
    direct = LSIF(n_centers=20, regularization=50.0, gamma=ratio.gamma_, random_state=0).fit(X, y)
    assert ratio.coef_ == pytest.approx(direct.coef_, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_two_fits_with_default_parameters_are_one_and_the_same(name):
    X, y = stack_domains(*table(name, n_target=120))  # more rows than centers
    first, second = (ESTIMATORS[name]().set_params(**quick(name)).fit(X, y) for _ in range(2))
    assert np.array_equal(first.weights_, second.weights_)


def test_whatever_draws_has_the_same_seed_in_each_call_by_default():
    public = [getattr(module, name) for module in (densratio, densratio.labels) for name in module.__all__]
    drawing = [signature(thing).parameters.get("random_state") for thing in public if callable(thing)]
    assert {parameter.default for parameter in drawing if parameter is not None} == {0}


def test_a_ratio_fitted_on_one_kind_of_rows_takes_the_others():
    source, target = samples()
    dense, sparse = stack_domains(source, target), stack_domains(csr_array(source), csr_array(target))
    tensors = stack_domains(torch.asarray(source), torch.asarray(target))
    fits = [LSIF(random_state=0).fit(*rows) for rows in (dense, sparse, tensors)]
    for ratio in fits:
        at_dense = ratio.transform(target)
        assert ratio.transform(csr_array(target)) == pytest.approx(at_dense, rel=1e-6, abs=1e-9)
        assert ratio.transform(torch.asarray(target)).numpy() == pytest.approx(at_dense, rel=1e-6, abs=1e-9)
        assert ratio.transform(target.astype(np.float32)) == pytest.approx(at_dense, rel=1e-3, abs=1e-3)
