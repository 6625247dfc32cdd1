"""Progress: silent unless asked for, lines in a log, a bar on a terminal, and the outer of calls within calls."""

from __future__ import annotations

import io
import logging
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from densratio import (
    KMM,
    Discriminator,
    GaussianRatio,
    SpectralRatio,
    StackedRatio,
    SubspaceLSIF,
    differences,
    divergence,
    find_label_issues,
    importance_weights,
    show_progress,
    stack_domains,
    target_performance,
    weight_intervals,
)
from densratio._progress import run_all, ticked
from densratio.labels import NoisyLabelClassifier

RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.normal(size=(60, 2)), RNG.normal(0.5, 1.0, (50, 2))
X, Y = stack_domains(SOURCE, TARGET)
LABELS = SOURCE[:, 0] > 0.0
LOGISTIC = Discriminator(LogisticRegression(), calibration=None)
FITTED, MODEL = GaussianRatio().fit(X, Y), LogisticRegression().fit(SOURCE, LABELS)
STACK = [GaussianRatio(), LOGISTIC]


def score(verbose, **how):
    return target_performance(MODEL, FITTED, SOURCE, LABELS, TARGET, metric="accuracy", n_bootstrap=2, verbose=verbose, **how)


def issues(verbose, **how):
    return find_label_issues(SOURCE, LABELS, model=MODEL, cv=2, n_repeats=3, verbose=verbose, **how)


CALLS = {
    "Folds of the classifier: 6 of 6": issues,
    "Second round, network 3 of 3, epochs: 2 of 2": lambda v: NoisyLabelClassifier(max_iter=4, verbose=v).fit(SOURCE, LABELS),
    "Training by mw_net, epochs: 1 of 1": lambda v: NoisyLabelClassifier("mw_net", max_iter=1, verbose=v).fit(SOURCE, LABELS),
    "Members of the stack: ": lambda v: StackedRatio(STACK, pull=0.0, verbose=v).fit(X, Y),
    "Members and folds of the stack: 10 of 10": lambda v: importance_weights(SOURCE, TARGET, method=StackedRatio(STACK), verbose=v),
    "Replicas of the weights: 3 of 3": lambda v: weight_intervals(GaussianRatio(), X, Y, n_replicas=3, random_state=0, verbose=v),
    "Refits of the ratio: 2 of 2": score,
    "Chunks: 2 of 2": lambda v: score(v, chunks=2),
    "Folds of the ratio: 5 of 5": lambda v: divergence(SOURCE, TARGET, GaussianRatio(), verbose=v),
    "of the ratio: 5 of 5": lambda v: differences(SOURCE, TARGET, method=GaussianRatio(), n_permutations=1, verbose=v),
}
SEARCHES = [
    (KMM(gamma=[0.1, 1.0]), "Search of KMM: 2 of 2"),
    (SpectralRatio(gamma=[0.1, 1.0]), "Search of SpectralRatio: 2 of 2"),
    (SubspaceLSIF(n_components=1, max_iter=[1, 2], cv=2), "Search of SubspaceLSIF: 4 of 4"),
    (LOGISTIC, "Folds of Discriminator: 10 of 10"),
]


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "densratio")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("words", CALLS)
def test_a_long_call_says_how_far_it_is_if_it_is_asked_and_nothing_else(words, lines):
    CALLS[words](False)
    assert lines() == []
    CALLS[words](True)
    assert any(words in line for line in lines())


@pytest.mark.parametrize(("ratio", "words"), SEARCHES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_search_says_how_far_it_is_within_show_progress(ratio, words, lines):
    ratio.fit(X, Y)
    with show_progress(False):
        ratio.fit(X, Y)
    assert lines() == []
    with show_progress():
        ratio.fit(X, Y)
    assert any(words in line for line in lines())
    ratio.fit(X, Y)
    assert len(lines()) == 1


def test_of_calls_within_calls_the_outer_one_is_shown(lines):
    with show_progress():
        assert list(ticked((list(ticked(range(3), 3, "inner")) for _ in range(2)), 2, "outer")) == [[0, 1, 2]] * 2
        assert [line.split(",")[0] for line in lines()] == ["outer: 2 of 2"]
        list(ticked(range(3), 3, "after"))
    assert lines()[-1].startswith("after: 3 of 3")


def test_an_error_in_a_task_comes_through_and_leaves_all_as_it_was(lines):
    with pytest.raises(ZeroDivisionError), show_progress():
        list(ticked((1 / k for k in (1, 0)), 2, "tasks"))
    list(ticked(range(2), 2, "silent"))
    assert lines() == []


def test_a_count_that_ends_after_its_block_shows_nothing_later(lines):
    with show_progress():
        # As where an error between two results keeps the count in its traceback.
        kept = ticked(range(2), 2, "tasks")
        next(kept)
    kept.close()
    list(ticked(range(2), 2, "silent"))
    assert lines() == []


def test_results_are_in_the_order_of_the_tasks():
    from joblib import delayed

    with show_progress():
        assert run_all((delayed(pow)(k, 2) for k in range(6)), 6, "squares", 2) == [0, 1, 4, 9, 16, 25]


def test_where_no_handler_is_set_up_the_lines_go_to_standard_error(capsys):
    log = logging.getLogger("densratio")
    log.propagate = False
    try:
        with show_progress():
            list(ticked(range(2), 2, "tasks"))
    finally:
        log.propagate = True
    assert capsys.readouterr().err.startswith("tasks: 2 of 2, 0 s") and log.handlers == [] and log.level == logging.NOTSET


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with show_progress():
        list(ticked(range(7), 7, "tasks"))
    assert "tasks" in sys.stderr.getvalue() and "7/7" in sys.stderr.getvalue()
