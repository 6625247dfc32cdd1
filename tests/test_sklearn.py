"""The scikit-learn contract: check_estimator, clone, pickle, pipelines, frames, tensors, partial_fit, random state."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn_cases import BY_NAME, SOURCE_ANCHORED, TARGET_ANCHORED, new, problem, stacked
from zoo_cases import source_places

from densratio import KLIEP, KMM, DensityRatio, Wasserstein, stack_domains
from densratio.estimators import IN_LOOPS, objective_of

NAMES = sorted(IN_LOOPS)

# ---------------------------------------------------------------- check_estimator


CHECKED = {**BY_NAME, "wasserstein, critic": Wasserstein(potential="critic", max_iter=5, random_state=0)}


@pytest.mark.filterwarnings("default::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", CHECKED)
def test_check_estimator_passes_without_expected_failures(name):
    results = check_estimator(CHECKED[name], on_fail=None, on_skip=None)
    assert len(results) > 30
    assert {r["check_name"]: str(r["exception"]) for r in results if r["status"] == "failed"} == {}


# ---------------------------------------------------------------- parameters and fitted attributes


@pytest.mark.parametrize("name", BY_NAME)
def test_a_clone_is_unfitted_and_fits_to_the_same_weights(name):
    X, y = stacked(name)
    ratio = new(name, random_state=3).fit(X, y)
    copy = clone(ratio)
    assert not hasattr(copy, "weights_")
    assert repr(copy.get_params()) == repr(ratio.get_params())
    assert np.array_equal(copy.fit(X, y).weights_, ratio.weights_)


@pytest.mark.parametrize("name", BY_NAME)
def test_pickle_keeps_the_fit_to_the_bit(name):
    X, y = stacked(name)
    ratio = new(name).fit(X, y)
    copy = pickle.loads(pickle.dumps(ratio))
    assert np.array_equal(copy.weights_, ratio.weights_)
    assert np.array_equal(copy.transform(X), ratio.transform(X))
    assert copy.score(X, y) == ratio.score(X, y)


@pytest.mark.parametrize("name", BY_NAME)
def test_set_params_is_the_constructor(name):
    X, y = stacked(name)
    made = type(BY_NAME[name])(**{**BY_NAME[name].get_params(), "gamma": 0.3, "kernel": "laplacian"})
    changed = new(name, gamma=0.3, kernel="laplacian")
    assert made.get_params() == changed.get_params()
    assert np.array_equal(made.fit(X, y).transform(X), changed.fit(X, y).transform(X))


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_fitting_leaves_the_constructor_parameters_as_given(name, method):
    ratio = new(name)
    before = dict(ratio.get_params())
    assert getattr(ratio, method)(*stacked(name)) is ratio
    after = ratio.get_params()
    assert before.keys() == after.keys() and all(before[key] is after[key] for key in before)


@pytest.mark.parametrize("name", BY_NAME)
def test_fit_is_idempotent_and_forgets_an_earlier_fit(name):
    X, y = stacked(name)
    once = new(name, random_state=0).fit(X, y)
    again = new(name, random_state=0).fit(*stacked(name, n_source=25, seed=9)).fit(X, y)
    assert np.array_equal(again.weights_, once.weights_)
    assert np.array_equal(again.transform(X), once.transform(X))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_fitted_attributes_are_those_of_the_contract(name):
    source, target = problem(name)
    ratio = new(name).fit(*stack_domains(source, target))
    assert ratio.n_features_in_ == source.shape[1]
    assert ratio.weights_.shape == (len(source),)
    assert ratio.coef_.shape == (len(ratio.centers_),)
    assert ratio.centers_.shape[1] == source.shape[1]
    assert ratio.gamma_ > 0 and ratio.n_iter_ >= 1
    assert ratio.converged_ and ratio.residual_ <= ratio.tol
    assert np.isfinite(ratio.objective_value_)
    assert not hasattr(ratio, "feature_names_in_")


@pytest.mark.parametrize("name", BY_NAME)
def test_weights_are_nonnegative_with_mean_one_in_the_order_of_the_source_rows(name):
    X, y = stacked(name)
    ratio = new(name, n_centers=None).fit(X, y) if name != "wasserstein" else new(name).fit(X, y)
    assert ratio.weights_.min() >= 0 and ratio.weights_.mean() == pytest.approx(1.0, abs=1e-9)
    order = np.random.default_rng(1).permutation(len(X))
    shuffled = clone(ratio).fit(X[order], y[order])
    assert shuffled.weights_ == pytest.approx(ratio.weights_[source_places(y, order)], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_base_class_by_name_solves_what_its_front_door_solves(name):
    X, y = stacked(name)
    # The front doors of KMM and Wasserstein regularize, and their objectives do not unless told.
    plain = {"regularization": 0.0} if name in SOURCE_ANCHORED else {}
    front, base = IN_LOOPS[name](**plain).fit(X, y), DensityRatio(name).fit(X, y)
    assert base.objective_value_ == pytest.approx(front.objective_value_, rel=1e-4)
    assert DensityRatio(objective_of(front)).fit(X, y).objective_value_ == base.objective_value_


@pytest.mark.parametrize("labels", [(-1, 1), (0.0, 1.0), (False, True), ("a", "b"), (3, 7)], ids=str)
def test_the_smaller_of_any_two_labels_is_the_source(labels):
    X, y = stacked("kliep")
    relabeled = np.array(labels)[y]
    assert np.array_equal(KLIEP().fit(X, relabeled).weights_, KLIEP().fit(X, y).weights_)


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("method", ["transform", "score"])
def test_an_unfitted_estimator_says_how_to_fit(name, method):
    X, y = stacked(name)
    args = (X,) if method == "transform" else (X, y)
    ratio = new(name)
    with pytest.raises(NotFittedError, match=rf"{type(ratio).__name__} .*not fitted.*stack_domains"):
        getattr(ratio, method)(*args)


# ---------------------------------------------------------------- transform and score


@pytest.mark.parametrize("name", TARGET_ANCHORED)
def test_the_ratio_has_mean_one_over_the_source_rows_where_it_is_weights_(name):
    source, target = problem(name)
    ratio = new(name).fit(*stack_domains(source, target))
    values = ratio.transform(source)
    assert values.mean() == pytest.approx(1.0, abs=1e-12)
    assert values == pytest.approx(ratio.weights_, abs=1e-12)


@pytest.mark.parametrize("name", SOURCE_ANCHORED)
def test_the_ratio_of_unseen_rows_is_the_kernel_average_of_the_weights(name):
    source, target = problem(name)
    unseen = problem(name, n_source=17, seed=5)[0]
    # With a regularization there is a formula off the sample.
    ratio = new(name, scale=None, regularization=0.0).fit(*stack_domains(source, target))
    kernel = np.exp(-ratio.gamma_ * ((unseen[:, None] - ratio.centers_[None]) ** 2).sum(axis=2))
    expected = kernel @ ratio.weights_ / kernel.sum(axis=1)
    assert ratio.transform(unseen) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_ratio_is_larger_where_the_target_is_denser(name):
    ratio = new(name).fit(*stacked(name, n_source=200, n_target=200))
    near_source, near_target = (np.full((1, ratio.n_features_in_), at) for at in (-0.7, 0.7))
    assert ratio.transform(near_target)[0] > 1.0 > ratio.transform(near_source)[0] >= 0.0


@pytest.mark.parametrize("name", BY_NAME)
def test_fit_transform_is_fit_then_transform(name):
    X, y = stacked(name)
    assert np.array_equal(new(name).fit_transform(X, y), new(name).fit(X, y).transform(X))


@pytest.mark.parametrize("name", BY_NAME)
def test_the_score_is_the_formula_on_held_out_rows(name):
    ratio = new(name).fit(*stacked(name))
    source, target = problem(name, seed=8)
    r_s, r_t = ratio.transform(source), ratio.transform(target)
    bound, agreement = np.log(r_t).mean() - r_s.mean() + 1.0, r_t.mean() - 0.5 * (r_s**2).mean()
    expected = bound if name in ("kliep", "base") else agreement
    assert ratio.score(*stack_domains(source, target)) == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------- pipelines and searches


@pytest.mark.parametrize("name", BY_NAME)
def test_a_scaler_in_a_pipeline_is_the_scaler_by_hand(name):
    X, y = stacked(name)
    X = X * 30.0 + 100.0
    pipeline = make_pipeline(StandardScaler(), new(name, gamma=0.5)).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    by_hand = new(name, gamma=0.5).fit(scaled, y)
    assert np.array_equal(pipeline[-1].weights_, by_hand.weights_)
    assert np.array_equal(pipeline.transform(X), by_hand.transform(scaled))


@pytest.mark.parametrize("name", BY_NAME)
def test_grid_search_over_gamma_maximizes_the_held_out_score(name):
    X, y = stacked(name)
    gammas, folds = [0.01, 0.5, 20.0], StratifiedKFold(3, shuffle=True, random_state=0)
    search = GridSearchCV(new(name), {"gamma": gammas}, cv=folds, error_score="raise").fit(X, y)
    by_hand = [np.mean([new(name, gamma=g).fit(X[a], y[a]).score(X[b], y[b]) for a, b in folds.split(X, y)]) for g in gammas]
    assert search.cv_results_["mean_test_score"] == pytest.approx(by_hand, rel=1e-9)
    assert search.best_params_["gamma"] == gammas[int(np.argmax(by_hand))]
    assert search.best_estimator_.gamma_ == search.best_params_["gamma"]


# ---------------------------------------------------------------- frames


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("name", BY_NAME)
def test_a_frame_gives_the_weights_of_its_array_and_keeps_the_column_names(name, frame):
    source, target = problem(name)
    names = ["age", "dose"][: source.shape[1]]
    frames = [frame(dict(zip(names, rows.T, strict=True))) for rows in (source, target)]
    X, y = stack_domains(*frames)
    assert isinstance(X, frame) and list(X.columns) == names
    ratio = new(name).fit(X, y)
    assert list(ratio.feature_names_in_) == names
    # A frame is stored by columns and an array by rows, and BLAS orders its sums by that and by the number of rows.
    assert ratio.weights_ == pytest.approx(new(name).fit(*stack_domains(source, target)).weights_, rel=1e-8, abs=1e-10)
    assert ratio.transform(frames[1]) == pytest.approx(ratio.transform(X)[y == 1], rel=1e-10, abs=1e-12)
    with pytest.raises(ValueError, match=r"(?s)feature names.*weight"):
        ratio.transform(frame({"weight": [1.0], **({"dose": [2.0]} if len(names) == 2 else {})}))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_stack_domains_aligns_the_columns_of_the_target_frame(frame):
    X, y = stack_domains(frame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), frame({"b": [5], "a": [6]}))
    assert list(X.columns) == ["a", "b"]
    assert np.array_equal(np.asarray(X)[y == 0], [[1.0, 3.0], [2.0, 4.0]])
    assert np.array_equal(np.asarray(X)[y == 1], [[6.0, 5.0]])


# ---------------------------------------------------------------- tensors, dtypes, devices


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_tensor_gives_tensors_of_its_dtype_and_device(name, dtype):
    source, target = (torch.tensor(rows, dtype=dtype) for rows in problem(name))
    X, y = stack_domains(source.requires_grad_(), target)
    ratio = new(name).fit(X, y)
    for out in (ratio.weights_, ratio.coef_, ratio.centers_, ratio.transform(X)):
        assert isinstance(out, torch.Tensor) and out.dtype == dtype and out.device == X.device
        assert not out.requires_grad
    by_numpy = new(name).fit(X.detach().numpy(), y.numpy())
    # Single precision leaves the weights open along flat directions of the objective, but not its value.
    assert ratio.objective_value_ == pytest.approx(by_numpy.objective_value_, rel=1e-3)
    if dtype == torch.float64:
        assert ratio.weights_.numpy() == pytest.approx(by_numpy.weights_, abs=1e-6)
    assert isinstance(ratio.score(X, y), float)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("name", BY_NAME)
def test_float32_stays_float32_in_numpy(name, method):
    X, y = stacked(name, dtype=np.float32)
    ratio = getattr(new(name), method)(X, y)
    assert [ratio.weights_.dtype, ratio.coef_.dtype, ratio.centers_.dtype, ratio.transform(X).dtype] == [np.float32] * 4


@pytest.mark.parametrize("name", BY_NAME)
def test_the_library_of_the_rows_and_not_of_the_fit_is_the_library_of_the_ratio(name):
    X, y = stacked(name)
    by_numpy, by_torch = new(name).fit(X, y), new(name).fit(torch.tensor(X), torch.tensor(y))
    assert isinstance(by_numpy.transform(torch.tensor(X)), torch.Tensor)
    assert isinstance(by_torch.transform(X), np.ndarray)
    assert by_numpy.transform(torch.tensor(X)).numpy() == pytest.approx(by_numpy.transform(X), rel=1e-9)
    assert by_torch.transform(X) == pytest.approx(by_torch.transform(torch.tensor(X)).numpy(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BY_NAME)
def test_device_cpu_gives_numpy_back_equal_to_the_numpy_path(name, dtype):
    X, y = stacked(name, dtype=dtype)
    here, there = new(name).fit(X, y), new(name, device="cpu").fit(X, y)
    for out, expected in ((there.weights_, here.weights_), (there.transform(X), here.transform(X))):
        assert isinstance(out, np.ndarray) and out.dtype == dtype
        assert dtype == np.float32 or out == pytest.approx(expected, abs=1e-6)
    assert isinstance(there.coef_, np.ndarray) and isinstance(there.centers_, np.ndarray)
    assert there.objective_value_ == pytest.approx(here.objective_value_, rel=1e-3)


# ---------------------------------------------------------------- random state


@pytest.mark.parametrize("name", TARGET_ANCHORED)
def test_random_state_chooses_the_centers_reproducibly(name):
    X, y = stacked(name)
    one, same, other = (new(name, n_centers=5, random_state=seed).fit(X, y) for seed in (0, 0, 1))
    assert np.array_equal(one.centers_, same.centers_) and np.array_equal(one.weights_, same.weights_)
    assert not np.array_equal(one.centers_, other.centers_)
    for make in (np.random.RandomState, np.random.default_rng):
        first, second = (new(name, n_centers=5, random_state=make(0)).fit(X, y) for _ in range(2))
        assert np.array_equal(first.centers_, second.centers_)


@pytest.mark.parametrize("kernel", ["nystroem", "random_fourier"])
def test_random_state_draws_an_explicit_map_reproducibly(kernel):
    X, y = stacked("kmm")
    one, same, other = (KMM(kernel=kernel, n_centers=6, random_state=seed).fit(X, y).weights_ for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("random_state", [None, 0])
@pytest.mark.parametrize("name", BY_NAME)
def test_the_global_random_states_are_untouched(name, random_state):
    X, y = stacked(name)
    before, torch_before = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    ratio = new(name, random_state=random_state).fit(X, y).partial_fit(X, y)
    ratio.score(X, y)
    after = np.random.get_state()  # noqa: NPY002
    assert before[2:] == after[2:] and np.array_equal(before[1], after[1])
    assert torch.equal(torch_before, torch.get_rng_state())


def test_kliep_with_many_centers_takes_the_step_whose_cost_is_linear_in_them(monkeypatch):
    from densratio.solvers import likelihood_newton

    rng = np.random.default_rng(0)
    X, y = stack_domains(rng.normal(size=(40, 2)), rng.normal(size=(30, 2)))
    few = KLIEP(n_centers=5, random_state=0).fit(X, y)
    monkeypatch.setattr(likelihood_newton, "_MOST_CENTERS", 4)
    many = KLIEP(n_centers=5, random_state=0).fit(X, y)
    assert many.n_iter_ != few.n_iter_
    np.testing.assert_allclose(many.weights_, few.weights_, atol=1e-4)
