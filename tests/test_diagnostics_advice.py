"""Advice, names and signs of a report: what the method has, what was not done yet, and what a number means."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from diagnostics_cases import gaussian_shift
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densratio import KLIEP, KMM, LSIF, Discriminator, GaussianRatio, NearestNeighborsRatio, Wasserstein, stack_domains
from densratio.diagnostics import diagnose
from densratio.diagnostics.columns import numeric_columns

# ---------------------------------------------------------------- advice


def advised(ratio):
    """The advice on a ratio, whose fit is not judged here: the weights leave most of a shift."""
    source, target, truth = gaussian_shift(0, 300, 300, d=3, delta=1.5)
    X, y = stack_domains(source, target)
    report = diagnose(ratio.fit(X, y), X, y, weights=truth(source) ** 0.1, n_permutations=99)
    return " ".join(w for w in report.warnings if "off balance" in w or "little of the shift" in w)


@pytest.mark.parametrize(
    ("ratio", "has", "lacks"),
    [
        (KMM(), ["gamma='cv'", "regularization='cv'"], ["n_neighbors", "one scale"]),
        (KMM(gamma="cv"), ["regularization='cv'"], ["gamma='cv'"]),
        (KMM(gamma=[0.1, 1.0], regularization="cv"), ["try another method"], ["gamma", "cross-validation"]),
        (KMM(scale=None), ["one scale (scale='auto')"], []),
        (KLIEP(gamma="cv"), ["try another method"], ["gamma", "cross-validation"]),
        (NearestNeighborsRatio(), ["n_neighbors='cv'"], ["gamma"]),
        (NearestNeighborsRatio(n_neighbors="cv"), ["try another method"], ["gamma", "n_neighbors"]),
        (Discriminator(), ["try another method"], ["gamma", "classifier"]),
        (Discriminator(LogisticRegression()), ["classifier='cv'"], ["gamma"]),
        (Wasserstein(), ["regularization='cv'"], ["gamma"]),
        (GaussianRatio(), ["try another method"], ["gamma", "cross-validation"]),
        (make_pipeline(StandardScaler(), KLIEP()), ["gamma='cv'"], ["regularization", "n_neighbors"]),
    ],
    ids=str,
)
def test_advice_names_what_the_method_has_and_not_what_was_done(ratio, has, lacks):
    text = advised(ratio).lower()
    assert [word for word in has if word not in text] == [] and [word for word in lacks if word in text] == []


def test_advice_on_heavy_weights_names_what_makes_these_even():
    source, target, _ = gaussian_shift(0, 300, 300)
    X, y = stack_domains(source, target)
    heavy = np.where(np.arange(300) < 3, 500.0, 0.5)
    for ratio, has, lacks in (
        (KMM(), ["max_weight", "flatten=0.5"], ["alpha"]),
        (LSIF(), ["alpha=0.5"], ["max_weight"]),
        (LSIF(alpha=0.3), ["w ** 0.5"], ["alpha", "max_weight"]),
    ):
        text = " ".join(diagnose(ratio.fit(X, y), X, y, weights=heavy, n_permutations=19).warnings)
        assert [word for word in has if word not in text] == [] and [word for word in lacks if word in text] == []


# ---------------------------------------------------------------- names and signs


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (KMM(gamma=0.25, random_state=3), "KMM(gamma=0.25)"),
        (KLIEP(gamma=[0.25]), "KLIEP(gamma=0.25)"),
        (make_pipeline(StandardScaler(), LSIF(alpha=0.5, gamma=1.0)), "StandardScaler() + LSIF(alpha=0.5, gamma=1)"),
        (Discriminator(make_pipeline(StandardScaler(), LogisticRegression())), "(classifier=StandardScaler + LogisticRegression)"),
    ],
    ids=str,
)
def test_a_report_names_the_ratio_and_the_parameters_that_matter(ratio, name):
    source, target, _ = gaussian_shift(0, 60, 50)
    X, y = stack_domains(source, target)
    report = diagnose(ratio.fit(X, y), X, y, n_permutations=19)
    assert report.ratio.endswith(name) and name in str(report) and name in report.to_html()


def test_the_sign_of_a_difference_is_said_and_zero_has_none():
    source, target, _ = gaussian_shift(0, 50, 50, d=1)
    report = diagnose(np.ones(50), *stack_domains(source, target + 3.0), n_permutations=19)
    assert report.balance[0].before < 0.0 and "Standardized mean difference, source minus target" in str(report)
    tiny = dataclasses.replace(report, balance=(report.balance[0]._replace(before=-1e-5, after=-0.0),))
    assert "+0.000" in str(tiny) and "-0.000" not in str(tiny)
    assert "negative if the target is larger" in tiny.to_html()


def test_levels_that_begin_with_a_sign_are_quoted_and_masked_entries_are_missing():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"years": ["> 7", "=> 7", "3"]})
    assert numeric_columns(frame).names == ("years=3", "years='=> 7'", "years='> 7'")
    masked = np.ma.masked_equal([[0.0, 1.0], [1.0, -999.0]], -999.0)
    with pytest.raises(ValueError, match="NaN in column 'x1'"):
        numeric_columns(masked)


def test_what_a_terminal_would_obey_is_written_out():
    pandas = pytest.importorskip("pandas")
    source, target, _ = gaussian_shift(0, 30, 30, d=1)
    frames = [pandas.DataFrame(x + shift, columns=["a\x1b[2J"]) for x, shift in ((source, 0.0), (target, 9.0))]
    report = diagnose(np.linspace(0.5, 1.5, 30), *stack_domains(*frames), n_permutations=19)
    for text in (str(report), report.to_html()):
        assert "\x1b" not in text and r"a\x1b[2J" in text


def test_gaps_are_counted_column_by_column():
    pandas = pytest.importorskip("pandas")
    gap = np.arange(20) % np.where(np.arange(20) < 10, 5, 2) == 0
    frame = pandas.DataFrame({"age": np.where(gap, np.nan, 3.0), "job": ["a", "b"] * 10})
    filled, y = frame.fillna(3.0).assign(gap=gap * 1.0), np.repeat([0, 1], 10)
    found, expected = (diagnose(np.ones(10), table, y, n_permutations=9).balance for table in (frame, filled))
    assert [column.name for column in found] == ["age", "job=a", "job=b", "age (missing)"]
    assert [column[1:] for column in found] == [column[1:] for column in expected]
