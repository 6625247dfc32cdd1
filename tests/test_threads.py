"""Small matrices are factored by one thread of BLAS, and the number of threads is afterwards what it was."""

from __future__ import annotations

from threading import Event, Thread

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

from densratio import KMM, LSIF, Discriminator, SpectralRatio, SubspaceLSIF, Wasserstein, stack_domains
from densratio._threads import blas, few_threads, one_thread, threads_for
from densratio.labels import find_label_issues
from densratio.labels.default_model import default_threads


def n_threads():
    return max((library["num_threads"] for library in blas().info()), default=1)


@pytest.fixture
def two_threads():
    with blas().limit(limits=2):
        if n_threads() != 2:
            pytest.skip("this BLAS has one thread")
        yield


FITS = {
    "kmm": KMM(random_state=0),
    "wasserstein": Wasserstein(random_state=0),
    "leave one out": LSIF(nonnegative=False, regularization="cv", random_state=0),
    "closed form": LSIF(nonnegative=False, random_state=0),
    "spectral": SpectralRatio(random_state=0),
    "subspace": SubspaceLSIF(n_components=1, max_iter=1, random_state=0),
}


@pytest.mark.parametrize(("name", "n_rows"), [*((name, 60) for name in FITS), ("kmm", 1100)])
def test_a_fit_with_an_exact_kernel_factors_matrices_by_one_thread(name, n_rows, two_threads, monkeypatch):
    seen = []
    for module, function in ((scipy.linalg, "cho_factor"), (scipy.linalg, "eigh"), (np.linalg, "eigh"), (np.linalg, "cholesky")):
        inner = getattr(module, function)

        def counted(matrix, *args, inner=inner, **params):
            seen.extend([n_threads()] * (len(matrix) > 10))
            return inner(matrix, *args, **params)

        monkeypatch.setattr(module, function, counted)
    rng = np.random.default_rng(0)
    FITS[name].fit(*stack_domains(rng.normal(size=(n_rows, 6)), rng.normal(0.5, 1.0, (n_rows, 6))))
    assert set(seen) == {1} and n_threads() == 2


@pytest.mark.parametrize(("n_rows", "expected"), [(60, 1), (6000, 2)])
def test_a_classifier_of_few_rows_takes_one_thread_of_openmp(n_rows, expected, two_threads):
    openmp = ThreadpoolController().select(user_api="openmp")
    seen = []

    class Counting(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            seen.extend(library["num_threads"] for library in openmp.info())
            return super().fit(X, y, sample_weight)

    rows = np.random.default_rng(0).normal(size=(n_rows, 1))
    with openmp.limit(limits=2):
        Discriminator(Counting(), cv=1).fit(*stack_domains(rows, rows + 0.5))
        assert set(seen) == {expected} and {library["num_threads"] for library in openmp.info()} == {2}


@pytest.mark.parametrize("labels", [np.arange(60) % 2, np.arange(60) / 7], ids=["classes", "numbers"])
def test_the_default_models_of_few_labels_take_one_thread(labels, two_threads, monkeypatch):
    """The trees that are compared, and those of the folds; a given model keeps the threads that there are."""
    openmp, seen = ThreadpoolController().select(user_api="openmp"), []
    for boosting in (HistGradientBoostingClassifier, HistGradientBoostingRegressor):
        fit = boosting.fit

        def counted(self, *args, fit=fit, **params):
            seen.extend(library["num_threads"] for library in openmp.info())
            return fit(self, *args, **params)

        monkeypatch.setattr(boosting, "fit", counted)
    X = np.random.default_rng(0).normal(size=(60, 2)) + np.arange(60)[:, None] % 2
    made = HistGradientBoostingClassifier if labels.dtype.kind == "i" else HistGradientBoostingRegressor
    with openmp.limit(limits=2):
        for model, expected in ((None, 1), (made(max_iter=2), 2)):
            seen.clear()
            find_label_issues(X, labels, model=model, n_repeats=1, cv=2)
            assert seen and set(seen) == {expected}
    with openmp.limit(limits=2), default_threads(LogisticRegression(), np.zeros((20_000, 30))):
        assert {library["num_threads"] for library in openmp.info()} == {2}


def test_long_matrices_have_all_threads_and_errors_restore_them(two_threads):
    with few_threads(100_000):
        assert n_threads() == 2
    with pytest.raises(ArithmeticError), few_threads(10):
        assert n_threads() == 1
        raise ArithmeticError
    assert n_threads() == 2


@given(order=st.permutations([0, 0, 1, 1, 2, 2]))
def test_uses_that_overlap_restore_the_threads_when_the_last_one_ends(order):
    with blas().limit(limits=2):
        before, held = n_threads(), {}
        for number in order:
            if number in held:
                held.pop(number).__exit__(None, None, None)
            else:
                held[number] = one_thread()
                held[number].__enter__()
            assert n_threads() == (1 if held else before)


def test_each_thread_of_python_gets_its_own_number_back_for_openmp():
    """OpenMP counts by threads of Python: the second one leaves last, and the first one has its number already."""
    openmp, seen = ThreadpoolController().select(user_api="openmp"), []
    entered, leave = Event(), Event()

    def numbers():
        return {library["num_threads"] for library in openmp.info()}

    def second():
        with openmp.limit(limits=2):
            with threads_for(60, 1):
                seen.append(numbers())
                entered.set()
                leave.wait(5.0)
            seen.append(numbers())

    thread = Thread(target=second)
    with openmp.limit(limits=2):
        with threads_for(60, 1):
            thread.start()
            assert entered.wait(5.0) and numbers() == {1}
        leave.set()
        thread.join()
        assert seen == [{1}, {2}] and numbers() == {2}
        with threads_for(6000, 200):
            assert numbers() == {2}


def test_the_perceptron_of_a_table_takes_one_thread_of_torch(monkeypatch):
    torch, network = pytest.importorskip("torch"), pytest.importorskip("densratio.labels.mean_network")
    seen, made = [], network.small_network

    def recorded(*shape):
        seen.append(torch.get_num_threads())
        return made(*shape)

    monkeypatch.setattr(network, "small_network", recorded)
    monkeypatch.setattr(network, "_STEPS", 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for rows in (np.eye(6), np.eye(36).reshape(36, 1, 6, 6)):
            network.MeanNetwork(epochs=1).fit(rows, np.arange(len(rows)) % 2)
            seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2, 2, 2]
