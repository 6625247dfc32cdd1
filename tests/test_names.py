"""What a message about an unknown name suggests: names as begun, as the field has them, and as mistyped."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from two_step_cases import ones, table

from densratio import KLIEP, LabelShiftRatio, importance_weights, stack_domains, tame_weights, target_performance
from densratio._names import alike, nearest, plain
from densratio.datasets import label_noise
from densratio.estimators import ESTIMATORS
from densratio.labels import NoisyLabelClassifier
from densratio.solvers import SOLVERS
from densratio.training import DynamicReweighter, reweighter
from densratio.training.registry import METHODS

X, _, LABELS = table()
BOTH = stack_domains(X, X + 0.1)
NAMES = st.sampled_from([*METHODS, *ESTIMATORS, *SOLVERS])
KNOWN = list(dict.fromkeys([*METHODS, *ESTIMATORS, *SOLVERS]))


@given(name=NAMES, sign=st.sampled_from(["", " ", "-", "_"]), change=st.sampled_from([str.upper, str.title, str.lower]))
def test_a_name_in_another_spelling_is_the_only_one_suggested(name, sign, change):
    assert nearest(change(name.replace("_", sign)), KNOWN) == [name]


@given(name=NAMES, sign=st.sampled_from(["", " ", "-"]), end=st.sampled_from(["", "s"]))
def test_another_spelling_of_a_column_is_alike_and_a_longer_name_is_not(name, sign, end):
    other = name.upper().replace("_", sign) + end
    assert alike([3, other], [name, 4, "of something else"]) == [(other, name)]
    assert alike([name], [f"{name} of something else", f"{name}_2", 3]) == []


def test_columns_of_wide_tables_are_compared_in_part():
    # All pairs of 3,000 names take minutes.
    wide = [["".join(row) for row in np.random.default_rng(side).choice(list("abcdefgh"), (3000, 9))] for side in (0, 1)]
    start = time.process_time()
    assert alike(["The Age", *wide[0]], [*wide[1], "the_age"])[0] == ("The Age", "the_age")
    assert time.process_time() - start < 10.0


@given(name=NAMES, n=st.integers(2, 20))
def test_the_begin_of_a_name_suggests_names_that_begin_so(name, n):
    begin = name[:n]
    found = nearest(begin, KNOWN, n=len(KNOWN))
    assert name in found and (found == [name] or all(plain(each).startswith(plain(begin)) for each in KNOWN if each in found[:1]))


@given(name=NAMES.filter(lambda name: len(name) > 4), place=st.integers(1, 3))
def test_two_letters_in_the_wrong_order_are_no_hindrance(name, place):
    wrong = name[:place] + name[place + 1] + name[place] + name[place + 2 :]
    assert name in nearest(wrong, [name, "unlike"])


@pytest.mark.parametrize("name", ["", "zzz", "3", "l", "qqqqqq", None, 3])
def test_what_is_far_from_all_names_suggests_none(name):
    assert nearest(name, METHODS) == []


def test_all_columns_of_the_same_letters_are_suggested_and_signs_alone_mean_none():
    assert nearest("AB", ["a b", "%", "a_b", "abc"]) == ["a b", "a_b"] and nearest("#", ["%", "a"]) == []


def named_classifier(name):
    return NoisyLabelClassifier(method=name).fit(X, LABELS)


def named_metric(name):
    return target_performance(LogisticRegression().fit(X, LABELS), ones, X, LABELS, X, metric=name)


def named_column(name):
    frame = pd.DataFrame(X, columns=["zip_code", "age"])
    return importance_weights(frame, frame, drop=name)


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        *(
            (call, given, meant)
            for call in (lambda name: reweighter(name, 5), named_classifier)
            for given, meant in {
                "joint": "'joint_optimization'",
                "coteach": "'co_teaching'", "meta-clean": "'meta_cleaner'", "wass": "'wasserstein'",
                "meta weight net": "'mw_net'", "importance": "'diw' or 'kliep' or 'lsif'", "just train twice": "'jtt'",
                "focal_loss": "'focal'", "mw_nett": "'mw_net'",
            }.items()
        ),
        (lambda name: DynamicReweighter(name, 5, 5), "wass", "'wasserstein'"),
        (lambda name: DynamicReweighter(name, 5, 5), "uLSIF", "'lsif'"),
        (lambda name: importance_weights(X, X, method=name), "knn", "'nearest_neighbors'"),
        (lambda name: importance_weights(X, X, method=name), "GaussianRatio", "'gaussian'"),
        (lambda name: importance_weights(X, X, method=name), "kernel mean matching", "'kmm'"),
        (named_metric, "auc", "'roc_auc'"),
        (named_metric, "mse", "'mean_squared_error'"),
        (named_column, "zip", "'zip_code'"),
        (lambda name: KLIEP(kernel=name).fit(*BOTH), "gauss", "'gaussian'"),
        (lambda name: KLIEP(solver=name).fit(*BOTH), "newton", "'likelihood_newton'"),
        (lambda name: LabelShiftRatio(LogisticRegression(), method=name).fit(*BOTH, labels=LABELS), "black box", "'bbse'"),
        (lambda name: tame_weights(np.ones(9), name), "clip", "'truncate'"),
        (lambda name: label_noise(LABELS, name, 0.1), "sym", "'symmetric' or 'symmetric_inclusive'"),
    ],
)  # fmt: skip
def test_every_place_that_takes_a_name_says_which_was_meant(call, given, meant):
    with pytest.raises(ValueError, match=rf"Did you mean {meant}\?"):
        call(given)
