"""Ratios by classifier: cross-fitting, calibration, and which classifier."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import sklearn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_array, csr_matrix
from scipy.spatial.distance import cdist
from scipy.special import expit
from scipy.stats import norm
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from zoo_cases import logistic, nmse, samples

from densratio import stack_domains
from densratio.datasets import make_gaussian_shift, make_heavy_tails
from densratio.estimators.discriminator import Discriminator, calibration
from densratio.estimators.discriminator.calibration import Isotonic, Sigmoid
from densratio.estimators.discriminator.classifiers import Landmarks, Standardized, default_classifiers
from densratio.estimators.discriminator.cross_fitting import Table, dealt
from densratio.estimators.discriminator.weighted_bins import WeightedBins
from densratio.estimators.gaussian import GaussianRatio

# ---------------------------------------------------------------- classifiers: cross-fitting


def test_uncalibrated_weights_are_the_held_out_odds_by_hand():
    X, y = stack_domains(*samples())
    folds = list(StratifiedKFold(4, shuffle=True, random_state=0).split(X, y))
    ratio = Discriminator(logistic(), cv=folds, calibration=None).fit(X, y)
    held_out = cross_val_predict(logistic(), X, y, cv=folds, method="predict_proba")[:, 1]
    odds = (held_out / (1 - held_out))[y == 0]
    np.testing.assert_allclose(ratio.weights_, odds / odds.mean(), rtol=1e-6)
    np.testing.assert_allclose(ratio.probabilities_, held_out, rtol=1e-6)
    assert ratio.normalization_ == pytest.approx(60 / 40 * odds.mean(), rel=1e-6)
    assert ratio.n_folds_ == len(ratio.classifiers_) == 4
    unseen = samples(seed=7)[1]
    mean_odds = np.exp(np.mean([logistic().fit(X[a], y[a]).decision_function(unseen) for a, _ in folds], axis=0))
    np.testing.assert_allclose(ratio.transform(unseen), mean_odds / odds.mean(), rtol=1e-6)


def test_held_out_probabilities_are_in_the_order_of_the_rows_and_nan_where_a_row_does_not_count():
    X, y = stack_domains(*samples())
    order, weight = np.random.default_rng(0).permutation(len(y)), np.ones(len(y))
    weight[[3, 70]] = 0.0
    straight = Discriminator(logistic()).fit(X, y, sample_weight=weight).probabilities_
    shuffled = Discriminator(logistic()).fit(X[order], y[order], sample_weight=weight[order]).probabilities_
    np.testing.assert_allclose(shuffled, straight[order], rtol=1e-6)
    assert np.flatnonzero(np.isnan(straight)).tolist() == [3, 70]


class Memory(ClassifierMixin, BaseEstimator):
    """Certain of the rows that it has seen, undecided on others; rows must match to the bit."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.seen_ = {row.tobytes(): label for row, label in zip(X, y, strict=True)}
        return self

    def predict_proba(self, X):
        p = np.array([self.seen_.get(row.tobytes(), 0.5) for row in X])
        return np.c_[1 - p, p]


def test_no_row_is_weighed_by_a_classifier_that_has_seen_it_or_a_copy_of_it():
    source, target = samples()
    source, target = np.r_[source, source[:9]], np.r_[target, source[3:6]]
    X, y = stack_domains(source, target)
    for cv in (5, GroupKFold(3).split(X, y, np.unique(X, axis=0, return_inverse=True)[1])):
        ratio = Discriminator(Memory(), cv=cv, calibration=None).fit(X, y)
        np.testing.assert_allclose(ratio.probabilities_, 0.5)
        np.testing.assert_allclose(ratio.weights_, 1.0)


def test_a_frequent_value_is_held_out_in_part_so_that_every_classifier_knows_it():
    source, target = np.repeat([0.0, 1.0], [80, 20])[:, None], np.repeat([0.0, 1.0], [10, 40])[:, None]
    ratio = Discriminator(DecisionTreeClassifier(), calibration=None).fit(*stack_domains(source, target))
    np.testing.assert_allclose(ratio.transform([[0.0], [1.0]]), [0.2 / 0.8, 0.8 / 0.2], rtol=1e-6)


@given(
    values=st.lists(st.integers(0, 6), min_size=2, max_size=40),
    split=st.integers(1, 39),
    counts=st.lists(st.integers(1, 9), min_size=40, max_size=40),
    n_folds=st.integers(2, 7),
)
@settings(max_examples=60)
def test_the_deal_leaves_rows_of_both_domains_in_every_fold(values, split, counts, n_folds):
    kind, split = np.unique(values, return_inverse=True)[1], min(split, len(values) - 1)
    y = (np.arange(len(kind)) >= split).astype(int)
    table = Table(np.zeros((len(kind), 1)), y, np.array(counts[: len(kind)], dtype=float), kind)
    shares = dealt(table, n_folds, seed=0)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    assert shares.min() >= 0.0 and 1 <= shares.shape[1] <= n_folds
    held = table.counts[:, None] * shares
    np.testing.assert_allclose(held, np.rint(held), atol=1e-9)
    total = np.bincount(kind, table.counts)
    for domain in (0, 1):
        of_domain = y == domain
        kept = table.counts[of_domain].sum() - held[of_domain].sum(axis=0)
        assert shares.shape[1] == 1 or kept.min() > 0.5
        for k in np.unique(kind[of_domain]):
            parts = held[of_domain & (kind == k)].sum(axis=0)
            if total[k] >= n_folds:
                assert np.ptp(parts) <= 1.0 + 1e-9
            else:
                assert np.count_nonzero(parts) == 1
    for k in np.flatnonzero(total < n_folds):
        assert np.count_nonzero(held[kind == k].sum(axis=0)) == 1


def test_the_seed_deals_and_equal_seeds_deal_alike():
    X, y = stack_domains(*samples())
    first, again, other = (Discriminator(logistic(), random_state=seed).fit(X, y).weights_ for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_folds_that_never_hold_a_row_out_are_refused():
    X, y = stack_domains(*samples())
    folds = list(StratifiedKFold(4).split(X, y))[:2]
    with pytest.raises(ValueError, match="cv holds out 50 of 100 rows"):
        Discriminator(logistic(), cv=folds).fit(X, y)
    with pytest.raises(ValueError, match="cv must be an int >= 1"):
        Discriminator(logistic(), cv=0).fit(X, y)
    with pytest.raises(ValueError, match="n_repeats must be an int >= 1"):
        Discriminator(logistic(), n_repeats=0).fit(X, y)


def test_one_fold_is_one_classifier_of_all_rows_whose_odds_are_the_weights():
    X, y = stack_domains(*samples(40, 30))
    ratio = Discriminator(logistic(), cv=1).fit(X, y)
    p = logistic().fit(X, y).predict_proba(X[y == 0])
    odds = p[:, 1] / p[:, 0]
    assert ratio.n_folds_ == 1 and ratio.calibration_ is None
    np.testing.assert_allclose(ratio.weights_, odds / odds.mean(), rtol=1e-6)
    np.testing.assert_array_equal(ratio.transform(X[y == 0]), ratio.weights_)


@pytest.mark.parametrize("sizes", [(1, 30), (30, 1)])
def test_a_domain_of_one_row_is_fitted_without_cross_fitting(sizes):
    X, y = stack_domains(*samples(*sizes))
    ratio = Discriminator().fit(X, y)
    assert ratio.n_folds_ == len(ratio.classifiers_) == 1 and ratio.calibration_ is None
    linear = default_classifiers(2, is_sparse=False)[0].fit(X, y)
    expected = np.clip(linear.predict_proba(X)[:, 1], 1 / 33, 32 / 33)
    np.testing.assert_allclose(ratio.probabilities_, expected, rtol=1e-5)


# ---------------------------------------------------------------- classifiers: calibration


@given(seed=st.integers(0, 2**16), separation=st.sampled_from([0.0, 1.0, 100.0]))
def test_the_sigmoid_has_the_largest_likelihood_of_platts_targets(seed, separation):
    rng = np.random.default_rng(seed)
    y, counts = np.repeat([0, 1], [30, 20]), rng.integers(1, 4, 50).astype(float)
    scores = 5.0 + 3.0 * (rng.normal(size=50) + separation * y)
    sigmoid = Sigmoid().fit(scores, y, counts)
    n_source, n_target = counts[y == 0].sum(), counts[y == 1].sum()
    soft = np.where(y == 1, (n_target + 1) / (n_target + 2), 1 / (n_source + 2))

    def loss(line):
        z = line[0] * scores + line[1]
        return counts @ (np.logaddexp(0.0, z) - soft * z)

    best = minimize(loss, [0.0, 0.0], method="L-BFGS-B", bounds=[(0.0, None), (None, None)], options={"ftol": 1e-14, "gtol": 1e-9})
    assert np.isfinite(sigmoid.slope_) and sigmoid.slope_ >= 0.0
    assert loss([sigmoid.slope_, sigmoid.intercept_]) <= best.fun + 1e-2


def test_scores_that_are_upside_down_or_equal_calibrate_to_the_share_of_the_target():
    y = np.repeat([0, 1], [30, 20])
    for scores in (-1.0 * y, np.full(50, 3.0)):
        sigmoid = Sigmoid().fit(scores, y, np.ones(50))
        np.testing.assert_allclose(expit(sigmoid(scores)), 21 / 52)


@given(seed=st.integers(0, 2**16), separation=st.sampled_from([0.0, 1.0, 100.0]))
def test_the_isotonic_map_rises_and_is_certain_of_nothing(seed, separation):
    rng = np.random.default_rng(seed)
    y = np.repeat([0, 1], [30, 20])
    scores = rng.normal(size=50) + separation * y
    log_odds = Isotonic().fit(scores, y, np.ones(50))(np.linspace(-10.0, 110.0, 200))
    assert np.all(np.diff(log_odds) >= 0.0) and np.all(np.isfinite(log_odds))
    # A step of at most 30 rows of one kind, and one row of share 0.4.
    assert expit(log_odds).min() >= 0.4 / 31 - 1e-12 and expit(log_odds).max() <= 20.4 / 21 + 1e-12


def test_isotonic_steps_are_the_shares_with_one_row_of_the_overall_share():
    scores, y = np.repeat([0.0, 1.0], [10, 10]), np.repeat([0, 1, 0, 1], [8, 2, 3, 7])
    steps = expit(Isotonic().fit(scores, y, np.ones(20))(np.array([0.0, 1.0])))
    np.testing.assert_allclose(steps, [(2 + 0.45) / 11, (7 + 0.45) / 11])


@pytest.mark.parametrize("classifier", [RidgeClassifier(), LinearSVC()], ids=str)
def test_a_classifier_without_probabilities_is_calibrated(classifier):
    shift = make_gaussian_shift(400, 400, 2, shift=1.0, scale=1.0, random_state=0)
    ratio = Discriminator(classifier).fit(shift.X, shift.y)
    truth = shift.ratio(shift.X_source)
    assert nmse(ratio.weights_, truth) < 0.5 * nmse(np.ones(400), truth)
    with pytest.raises(ValueError, match=r"has no predict_proba.*calibration=\"sigmoid\""):
        clone(ratio).set_params(calibration=None).fit(shift.X, shift.y)


def test_class_weights_are_calibrated_away_and_do_not_change_weights():
    X, y = stack_domains(*samples(600, 100))
    plain, balanced = (Discriminator(LogisticRegression(class_weight=w)).fit(X, y) for w in (None, "balanced"))
    assert plain.probabilities_.mean() == pytest.approx(100 / 700, abs=0.01)
    assert balanced.probabilities_.mean() == pytest.approx(100 / 700, abs=0.01)
    np.testing.assert_allclose(balanced.weights_, plain.weights_, rtol=0.1, atol=0.02)


# Two classifiers that disagree, each certain, have log odds 0 on average.
@pytest.mark.parametrize(("n_repeats", "expected"), [(1, [1 / 102, 101 / 102]), (2, [1 / 102, 0.5, 101 / 102])])
def test_certain_probabilities_are_drawn_in_by_the_size_of_the_samples(n_repeats, expected):
    X, y = stack_domains(*samples())
    ratio = Discriminator(KNeighborsClassifier(1), calibration=None, n_repeats=n_repeats).fit(X, y)
    assert np.unique(np.round(ratio.probabilities_, 9)).tolist() == pytest.approx(expected)
    assert len(ratio.classifiers_) == ratio.n_folds_ == 5 * n_repeats


def test_calibration_and_cross_fitting_keep_a_tree_from_believing_in_chance():
    X, y = stack_domains(*(np.random.default_rng(seed).normal(size=(400, 2)) for seed in (0, 1)))
    assert np.var(Discriminator(DecisionTreeClassifier(random_state=0)).fit(X, y).weights_) < 0.05


def test_an_unknown_calibration_is_refused():
    assert sorted(calibration.CALIBRATIONS) == ["isotonic", "sigmoid"]
    with pytest.raises(ValueError, match=r"calibration='platt' is not known; use one of \['isotonic', 'sigmoid'\] or None"):
        Discriminator(logistic(), calibration="platt").fit(*stack_domains(*samples()))


# ---------------------------------------------------------------- classifiers: which one, and its weights


def test_the_default_chooses_the_simplest_classifier_that_fits():
    chosen = {
        name: Discriminator().fit(shift.X, shift.y).best_params_["classifier"][-2]
        for name, shift in {
            "linear": make_gaussian_shift(600, 600, 2, shift=0.7, scale=1.0, random_state=1),
            "quadratic": make_gaussian_shift(600, 600, 2, shift=0.5, scale=0.7, random_state=1),
            "kernel": make_heavy_tails(600, 600, 2, random_state=1),
        }.items()
    }
    assert {name: type(step).__name__ for name, step in chosen.items()} == {
        "linear": "Standardized",
        "quadratic": "PolynomialFeatures",
        "kernel": "Landmarks",
    }


@pytest.mark.parametrize("kind", [csr_matrix, csr_array])
def test_sparse_columns_are_standardized_as_dense_ones(kind):
    dense = np.random.default_rng(0).poisson(0.5, (40, 3)).astype(float)
    found, expected = (Standardized(with_mean=False).fit(rows).transform(rows) for rows in (kind(dense), dense))
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)


@pytest.mark.parametrize("d", [1, 5])
def test_a_log_linear_ratio_is_recovered_as_well_as_by_plain_logistic_regression(d):
    ours, plain = [], []
    for seed in range(5):
        shift = make_gaussian_shift(600, 400, d, shift=0.5, scale=1.0, random_state=seed)
        fresh = np.random.default_rng(1000 + seed).normal(size=(2000, d))
        truth = shift.ratio(fresh)
        ours.append(nmse(Discriminator().fit(shift.X, shift.y).transform(fresh), truth))
        plain.append(nmse(np.exp(LogisticRegression().fit(shift.X, shift.y).decision_function(fresh)), truth))
    assert np.mean(ours) <= 1.15 * np.mean(plain)


def test_of_several_classifiers_the_likelier_is_taken_and_none_is_touched():
    shift = make_gaussian_shift(300, 300, 2, shift=0.5, scale=0.6, random_state=0)
    given = [logistic(), GaussianNB()]
    ratio = Discriminator(given).fit(shift.X, shift.y)
    assert isinstance(ratio.best_params_["classifier"], GaussianNB)
    assert all(isinstance(model, GaussianNB) for model in ratio.classifiers_)
    assert not hasattr(given[1], "theta_") and ratio.classifier is given
    assert ratio.cv_results_["mean_test_score"].shape == (2,)


def test_the_quadratic_is_left_out_where_it_would_have_over_1000_columns():
    assert [len(default_classifiers(d, is_sparse=False)) for d in (2, 43, 44)] == [3, 3, 2]
    assert len(default_classifiers(5, is_sparse=True)) == 1


def test_landmarks_give_the_gaussian_kernel_between_them_and_ignore_copies():
    X = samples()[0]
    features = Landmarks(gamma=0.3).fit(X).transform(X)
    np.testing.assert_allclose(features @ features.T, np.exp(-0.3 * cdist(X, X, "sqeuclidean")), atol=1e-8)
    few = Landmarks(n_landmarks=10).fit(X)
    copies = Landmarks(n_landmarks=10).fit(np.r_[X[::-1], X[:20]])
    np.testing.assert_allclose(few.transform(X), copies.transform(X), atol=1e-12)
    assert few.transform(X).shape == (60, 10) and few.map_.gamma == pytest.approx(0.5 / 2**0.5)


WEIGHTED = {
    "plain": LogisticRegression(tol=1e-10),
    "pipeline": logistic(),
    "pipeline in a pipeline": make_pipeline("passthrough", logistic()),
    "search": GridSearchCV(LogisticRegression(tol=1e-10), {"C": [1.0]}, cv=2),
    "calibrated": CalibratedClassifierCV(GaussianNB(), cv=2),
}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("name", WEIGHTED)
def test_sample_weights_reach_the_classifier(name, routing):
    X, y = stack_domains(*samples())
    weight = np.where(X[:, 0] > 0.0, 0.1, 1.9)
    with sklearn.config_context(enable_metadata_routing=routing):
        with_weight = Discriminator(WEIGHTED[name]).fit(X, y, sample_weight=weight)
        without = Discriminator(WEIGHTED[name]).fit(X, y)
    assert np.max(np.abs(with_weight.weights_ - without.weights_)) > 0.05


def test_sample_weights_reach_every_step_of_a_pipeline():
    X, y = stack_domains(*samples())
    counts = np.random.default_rng(0).integers(1, 4, len(y))
    ratio = Discriminator(logistic(), cv=3).fit(X, y, sample_weight=counts)
    scalers = [model[0] for model in ratio.classifiers_]
    # In each of two repeats all but one of the three folds see a row.
    assert sum(scaler.n_samples_seen_ for scaler in scalers) == pytest.approx(2 * 2 * counts.sum())


def test_a_classifier_that_takes_no_sample_weight_is_named_where_there_are_weights():
    X, y = stack_domains(*samples())
    for classifier in (KNeighborsClassifier(), make_pipeline(StandardScaler(), KNeighborsClassifier())):
        Discriminator(classifier).fit(X, y)
        with pytest.raises(ValueError, match=r"KNeighborsClassifier takes no sample_weight in fit.*leave sample_weight out"):
            Discriminator(classifier).fit(X, y, sample_weight=1.0 + (X[:, 0] > 0))


@pytest.mark.parametrize("classifier", ["logistic", None, 3])
def test_what_is_no_classifier_is_refused(classifier):
    with pytest.raises(ValueError, match="classifier must be a scikit-learn classifier"):
        Discriminator(classifier).fit(*stack_domains(*samples()))


def test_csr_rows_are_taken_where_the_classifier_takes_them():
    X, y = stack_domains(*(scipy.sparse.csr_array(np.round(rows)) for rows in samples()))
    assert Discriminator().fit(X, y).best_params_["classifier"][-1].solver == "lbfgs"
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        Discriminator(GaussianNB()).fit(X, y)


def test_the_ratio_of_normal_densities_is_their_odds_whatever_the_sizes():
    rng = np.random.default_rng(0)
    source, target, grid = rng.normal(size=(8000, 1)), rng.normal(1.0, 1.0, size=(1000, 1)), np.linspace(-1.0, 2.0, 7)
    truth = norm.pdf(grid, 1.0) / norm.pdf(grid)
    for ratio in (Discriminator(), GaussianRatio()):
        np.testing.assert_allclose(ratio.fit(*stack_domains(source, target)).transform(grid[:, None]), truth, rtol=0.2)


@given(seed=st.integers(0, 10**6), power=st.integers(-8, 8))
@example(seed=12, power=3)
@example(seed=20, power=3)
@settings(max_examples=10, deadline=None)
def test_a_column_that_is_constant_in_a_fold_has_no_unit_in_the_others(seed, power):
    rng = np.random.default_rng(seed)
    X, y = rng.integers(-2, 3, (12, 3)).astype(float), np.repeat([0, 1], [10, 2])
    X[:, 2] = 0.0
    X[rng.integers(12), 2] = 1.0
    weights = [Discriminator().fit(X * [1.0, 1.0, 10.0**p], y).weights_ for p in (0, power)]
    np.testing.assert_allclose(weights[1], weights[0], rtol=1e-6)


@settings(max_examples=8)
@given(seed=st.integers(0, 999), whole=st.booleans(), n_digits=st.integers(1, 3))
def test_bins_found_at_once_give_the_trees_of_boostings_own(seed, whole, n_digits):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(260, 500))
    rows = np.column_stack([rng.normal(size=n), np.round(rng.normal(size=n), n_digits)])
    rows[rng.random(n) < 0.1, 0] = np.nan
    y, weight = (rng.random(n) < 0.5).astype(int), rng.integers(1, 5, n) if whole else rng.exponential(size=n)
    boosting = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5)
    new = np.concatenate([rows, np.round(rng.normal(size=(300, 2)), 3)])
    own = clone(boosting).fit(rows, y, sample_weight=weight).predict_proba(new)
    bins = WeightedBins().fit(rows, y, weight)
    at_once = clone(boosting).fit(bins.transform(rows), y, sample_weight=weight)
    assert np.array_equal(at_once.predict_proba(bins.transform(new)), own)


@pytest.mark.parametrize("n_repeats", [1, 3])
def test_the_folds_of_a_search_are_not_fitted_again_and_give_what_a_fit_without_search_gives(n_repeats):
    rng, fits = np.random.default_rng(0), []

    class Counting(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            fits.append(self)
            return super().fit(X, y, sample_weight)

    X, y = stack_domains(rng.normal(size=(60, 2)), rng.normal(0.5, 1.0, size=(50, 2)))
    of_weight = rng.integers(1, 4, len(y))
    expected = Discriminator(LogisticRegression(), n_repeats=n_repeats).fit(X, y, of_weight)
    searched = Discriminator([Counting(C=1e-9), Counting()], n_repeats=n_repeats).fit(X, y, of_weight)
    assert searched.best_params_["classifier"].C == 1.0 and len(fits) == 5 * (2 + n_repeats - 1)
    np.testing.assert_allclose(searched.weights_, expected.weights_, rtol=1e-10)
    np.testing.assert_allclose(searched.transform(X), expected.transform(X), rtol=1e-10)
    anew = StratifiedKFold(5, shuffle=True)  # draws other folds at each split
    for folds in ({"random_state": None}, {"random_state": rng}, {"cv": anew}, {"cv": anew.split(X, y)}):
        fits.clear()
        Discriminator([Counting(C=1e-9), Counting()], n_repeats=n_repeats, **folds).fit(X, y, of_weight)
        assert len(fits) == 5 * (2 + ("cv" not in folds) * (n_repeats - 1))
