"""The report: its numbers, how it prints, and that it warns where it should and is silent where it should be."""

from __future__ import annotations

import dataclasses
import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from diagnostics_cases import gaussian_shift
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from densratio import KLIEP, KMM, LSIF, stack_domains
from densratio._scale import Scale
from densratio.diagnostics import (
    Report,
    diagnose,
    effective_sample_size,
    mmd,
    pareto_k,
    standardized_mean_difference,
)
from densratio.diagnostics import two_sample as two_sample_module
from densratio.diagnostics.balance import outside_range, outside_share
from densratio.diagnostics.weights import largest_share, top_share

TABLES = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 9), st.integers(1, 3)), elements=st.sampled_from([0.0, 1.0, -2.0, 5e7, 1e-9])
)


def starts(report):
    return [warning.split(":")[0].split("(")[0].strip() for warning in report.warnings]


def warns(report, opening):
    return any(warning.startswith(opening) for warning in report.warnings)


# ---------------------------------------------------------------- the report's numbers


def test_the_report_holds_what_the_measures_give():
    source, target, ratio = gaussian_shift(1, 120, 90, d=3)
    weights = ratio(source)
    report = diagnose(ratio, *stack_domains(source, target), gamma=0.4, n_permutations=99, random_state=3)
    scaled = two_sample_module.standardized(source, target)
    halves = scaled[:120], scaled[120:]
    assert (report.n_source, report.n_target, report.n_rows_tested, report.n_permutations) == (120, 90, 210, 99)
    assert not report.is_subsample and not report.is_uniform
    expected = {
        "effective_sample_size": effective_sample_size(weights),
        "effective_share": effective_sample_size(weights) / 120,
        "largest_weight": np.max(weights / np.mean(weights)),
        "largest_share": largest_share(weights),
        "top_share": top_share(weights),
        "pareto_k": pareto_k(weights),
        "mmd_before": mmd(*halves, gamma=0.4),
        "mmd_after": mmd(*halves, weights, gamma=0.4),
        "outside_share": outside_share(*halves),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(report, name), value, rtol=1e-9, err_msg=name)
    np.testing.assert_array_equal([b.before for b in report.balance], standardized_mean_difference(source, target))
    np.testing.assert_allclose([b.after for b in report.balance], standardized_mean_difference(source, target, weights), rtol=1e-9)
    np.testing.assert_array_equal([b.outside for b in report.balance], outside_range(source, target))
    assert [b.name for b in report.balance] == ["x0", "x1", "x2"]


def test_scaling_is_by_the_pooled_spread_without_units_and_origins():
    source, target, _ = gaussian_shift(0, 30, 20, d=3)
    unit, origin = np.array([1e200, 1.0, 1e-200]), np.array([0.0, 1e6, 0.0])
    source[:, 1], target[:, 1] = np.round(source[:, 1]), np.round(target[:, 1])
    found = two_sample_module.standardized(unit * source + origin, unit * target + origin)
    pooled = np.concatenate([source, target])
    scale = Scale.of((pooled, None))
    np.testing.assert_allclose(found, np.clip((pooled - scale.middle) / scale.spread, -4.0, 4.0), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(two_sample_module.standardized(np.full((3, 1), 0.1), np.full((2, 1), 0.1)), 0.0)


def test_the_chance_level_is_what_equal_samples_stay_below_95_times_of_100():
    n_runs = 100
    below = 0
    for seed in range(n_runs):
        source, target, _ = gaussian_shift(seed, 40, 40, delta=0.0)
        report = diagnose(np.ones(40), *stack_domains(source, target), n_permutations=99, random_state=seed)
        below += report.mmd_before <= report.mmd_chance
    assert abs(below / n_runs - 0.95) < 4 * math.sqrt(0.95 * 0.05 / n_runs)


def test_a_long_table_is_tested_on_a_draw_that_the_report_names():
    source, target, ratio = gaussian_shift(0, 1500, 40_000)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400)
    assert report.n_rows_tested == 400 and report.is_subsample
    assert "a seeded subsample: 400 of 41500 rows" in str(report)
    again = diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400)
    assert again == report
    assert diagnose(ratio, *stack_domains(source, target), n_permutations=49, max_rows=400, random_state=1) != report


def test_a_ratio_may_be_an_estimator_a_function_or_weights_of_any_scale():
    X, y = stack_domains(*gaussian_shift(0, 80, 60)[:2])
    fitted = LSIF(gamma=0.3).fit(X, y)
    weights = fitted.transform(X[y == 0])
    reports = [diagnose(r, X, y, n_permutations=19) for r in (fitted, fitted.transform, weights, weights.tolist())]
    assert reports[1] == reports[2] == reports[3] and dataclasses.replace(reports[0], ratio="") == reports[1]
    assert reports[0].ratio == "LSIF(gamma=0.3)"
    other = diagnose(fitted, X, y, weights=np.ones(80), n_permutations=19)
    assert other.is_uniform and other.ratio == "LSIF(gamma=0.3)"
    scaled = diagnose(3.0 * weights, X, y, n_permutations=19)
    np.testing.assert_allclose(scaled.largest_weight, reports[0].largest_weight, rtol=1e-12)


def test_any_two_values_label_the_domains_and_rows_may_stand_in_any_order():
    source, target, ratio = gaussian_shift(0, 70, 50)
    X, y = stack_domains(source, target)
    order = np.random.default_rng(0).permutation(len(y))
    expected = diagnose(ratio, X, y, n_permutations=19)
    found = diagnose(ratio, X[order], np.where(y[order] == 0, 3, 8), n_permutations=19)
    for name in ("effective_sample_size", "mmd_before", "mmd_after", "pareto_k", "outside_share"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0.1 if "mmd" in name else 1e-9)
    np.testing.assert_allclose([b[1:] for b in found.balance], [b[1:] for b in expected.balance], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["pandas", "polars", "torch", "sparse"])
def test_other_tables_give_the_report_of_the_array(kind):
    source, target, _ = gaussian_shift(0, 60, 50, d=3)
    X, y = stack_domains(source, target)
    names = ["age", "income", "height"]
    table, labels = X, y
    if kind == "sparse":
        table = scipy.sparse.csr_array(X)
    else:
        library = pytest.importorskip(kind)
        table = library.asarray(X) if kind == "torch" else library.DataFrame(dict(zip(names, X.T, strict=True)))
        labels = library.asarray(y) if kind == "torch" else y
    fitted = KLIEP(gamma=0.3).fit(X, y)
    expected = diagnose(fitted.transform(source), X, y, n_permutations=19)
    ratio = fitted.transform(source) if kind == "sparse" else KLIEP(gamma=0.3).fit(table, labels)
    found = diagnose(ratio, table, labels, n_permutations=19)
    assert [b.name for b in found.balance] == (names if kind in ("pandas", "polars") else ["x0", "x1", "x2"])
    for name in ("effective_sample_size", "mmd_before", "mmd_after", "p_value", "outside_share"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6, err_msg=name)
    np.testing.assert_allclose([b[1:] for b in found.balance], [b[1:] for b in expected.balance], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_pipeline_over_words_is_diagnosed_on_the_raw_frame(kind):
    library = pytest.importorskip(kind)
    rng = np.random.default_rng(0)
    town = np.concatenate([rng.choice(["A", "B"], 80, p=[0.8, 0.2]), rng.choice(["A", "B"], 80, p=[0.2, 0.8])])
    frame = library.DataFrame({"town": town, "age": rng.standard_normal(160)})
    y = np.repeat([0, 1], 80)
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["town"]), remainder=StandardScaler())
    report = diagnose(make_pipeline(encode, LSIF(gamma=1.0, scale=None)).fit(frame, y), frame, y, n_permutations=99)
    assert [b.name for b in report.balance] == ["town=A", "town=B", "age"]
    assert report.p_value == 0.01
    assert abs(report.balance[0].after) < 0.25 * abs(report.balance[0].before)


@pytest.mark.parametrize(
    ("ratio", "y", "words"),
    [
        (np.ones(6), np.repeat([0, 1], [4, 2]), r"Weights must be \(4,\)"),
        (np.ones((4, 1)), np.repeat([0, 1], [4, 2]), r"got shape \(4, 1\)"),
        (np.zeros(4), np.repeat([0, 1], [4, 2]), "no overlap"),
        (np.array([1, 1, 1, np.nan]), np.repeat([0, 1], [4, 2]), "NaN or infinite"),
        (np.ones(6), np.zeros(6), "One domain is empty"),
        (np.ones(6), None, "requires y to be passed"),
        (np.ones(6), np.arange(6), "exactly two values"),
        (np.ones(4), np.repeat([0, 1], [4, 3]), "7 labels"),
    ],
)
def test_input_that_has_no_diagnosis_is_refused(ratio, y, words):
    with pytest.raises(ValueError, match=words):
        diagnose(ratio, np.arange(6.0)[:, None], y)


@given(TABLES, st.data())
def test_any_table_has_a_report_that_prints_and_is_valid_json(X, data):
    n_source = data.draw(st.integers(1, len(X) - 1))
    weights = data.draw(hnp.arrays(np.float64, n_source, elements=st.sampled_from([0.0, 1e-300, 1.0, 1e6])).filter(np.any))
    y = np.repeat([0, 1], [n_source, len(X) - n_source])
    report = diagnose(weights, X, y, n_permutations=9)
    assert 1.0 - 1e-9 <= report.effective_sample_size <= n_source * (1 + 1e-9)
    assert report.p_value in {k / 10 for k in range(1, 11)}
    assert report.mmd_before >= 0.0 and report.mmd_after >= 0.0
    assert not any(math.isnan(value) for b in report.balance for value in b[1:])
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["n_source"] == n_source
    assert str(report) and report._repr_html_()


# ---------------------------------------------------------------- the report's warnings


@pytest.mark.parametrize(("n", "m", "d", "delta"), [(500, 500, 1, 0.5), (600, 300, 2, 0.7), (300, 800, 5, 0.6)])
def test_a_healthy_shift_with_true_weights_is_silent(n, m, d, delta):
    noisy = []
    for seed in range(20):
        source, target, ratio = gaussian_shift(seed, n, m, d, delta)
        noisy += [seed] * bool(diagnose(ratio, *stack_domains(source, target), n_permutations=99).warnings)
    # At most one in twenty by design of the levels; four is the 99.9 % quantile of that binomial.
    assert len(noisy) <= 4


@pytest.mark.parametrize("seed", range(5))
def test_a_healthy_shift_with_fitted_weights_is_silent(seed):
    source, target, _ = gaussian_shift(seed, 400, 400, d=2, delta=0.5)
    X, y = stack_domains(source, target)
    for ratio in (LSIF(gamma=0.25, regularization=1e-3), KLIEP(gamma=0.2)):
        assert diagnose(ratio.fit(X, y), X, y, n_permutations=99).warnings == ()


def test_samples_that_do_not_differ_need_no_weights():
    told = 0
    for seed in range(40):
        source, target, _ = gaussian_shift(seed, 200, 150, d=3, delta=0.0)
        weights = np.random.default_rng(seed).uniform(0.8, 1.2, 200)
        report = diagnose(weights, *stack_domains(source, target), n_permutations=99)
        told += warns(report, "The samples do not differ measurably (p = ")
    # Either of two tests at 5 % silences it: at least 90 % in the mean, less four standard deviations of 40 runs.
    assert told / 40 > 0.9 - 4 * math.sqrt(0.9 * 0.1 / 40)


def test_a_shift_of_one_column_among_many_is_not_called_none():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((20_000, 60)), rng.standard_normal((20_000, 60))
    target[:, 7] += 0.1
    report = diagnose(np.ones(20_000), *stack_domains(source, target), n_permutations=99, max_rows=300)
    assert report.p_value > 0.05
    assert starts(report) == ["All weights are equal"]


def test_equal_weights_are_called_so_and_blamed_where_the_samples_differ():
    source, target, _ = gaussian_shift(0, delta=1.0)
    X, y = stack_domains(source, target)
    report = diagnose(np.full(500, 0.3), X, y, n_permutations=99)
    assert starts(report) == ["All weights are equal"] and "But the samples differ" in report.warnings[0]
    assert report.mmd_after == pytest.approx(report.mmd_before, rel=1e-12) and report.is_uniform
    same = diagnose(np.ones(300), *stack_domains(*gaussian_shift(1, 300, 300, delta=0.0)[:2]), n_permutations=99)
    assert "Yet" not in same.warnings[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("d", "gap"), [(1, 8.0), (2, 5.0), (20, 7.0)])
def test_a_target_away_from_the_source_is_no_overlap(seed, d, gap):
    source, target, _ = gaussian_shift(seed, 300, 300, d, gap)
    X, y = stack_domains(source, target)
    for weights in (KMM().fit(X, y).weights_, LSIF().fit(X, y), np.ones(300)):
        assert warns(diagnose(weights, X, y, n_permutations=19), "No overlap for a part of the target")


def test_no_overlap_names_the_column_and_its_share():
    rng = np.random.default_rng(0)
    source, target = rng.uniform(size=(400, 6)), rng.uniform(size=(400, 6))
    source[:2] = [[0.0], [1.0]]
    target[:100, 4] += 1.0
    report = diagnose(np.ones(400), *stack_domains(source, target), n_permutations=19)
    assert "25 % of the target rows are outside the source's range of 'x4'" in report.warnings[0]
    assert report.balance[4].outside == 0.25


def test_a_hole_in_the_source_is_no_overlap_though_every_column_is_in_range():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 500)
    ring = 5.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * rng.standard_normal((500, 2))
    report = diagnose(np.ones(500), *stack_domains(ring, 0.5 * rng.standard_normal((500, 2))), n_permutations=19)
    assert np.max([b.outside for b in report.balance]) == 0.0
    assert report.outside_share > 0.99 and "farther from every source row" in report.warnings[0]


def test_two_different_constants_are_a_matter_of_overlap_alone():
    source, target, ratio = gaussian_shift(2)
    source, target = np.c_[source, np.zeros(500)], np.c_[target, np.ones(500)]
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert report.balance[2].before == report.balance[2].after == -math.inf
    assert "up to 100 % of the target rows are outside the source's range of 'x2'" in report.warnings[0]
    assert not warns(report, "A column is still off balance")


@pytest.mark.parametrize("seed", range(5))
def test_a_handful_of_rows_with_the_weight_and_a_heavy_tail_are_named(seed):
    source, target, ratio = gaussian_shift(seed, 1000, 1000, delta=3.0)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert warns(report, "A handful of rows carry the weight") and warns(report, "The tail of the weights is heavy (Pareto k-hat")
    even = np.where(np.arange(1000) < 10, 40.0, 0.6)
    assert warns(diagnose(even, *stack_domains(source, target), n_permutations=19), "A handful of rows carry the weight")


def test_a_small_table_with_even_weights_is_no_handful():
    source, target, ratio = gaussian_shift(0, 12, 12, delta=0.3)
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert not warns(report, "A handful")


@pytest.mark.parametrize("seed", range(5))
def test_inverted_weights_make_the_balance_worse(seed):
    source, target, ratio = gaussian_shift(seed, delta=0.8)
    report = diagnose(lambda x: 1.0 / ratio(x), *stack_domains(source, target), n_permutations=19)
    worse = [w for w in report.warnings if w.startswith("Weighting made the balance worse")]
    assert len(worse) == 1 and "the means of 'x0' moved apart" in worse[0] and "inverted weights" in worse[0]
    assert "squared MMD rose" in worse[0]


def test_a_column_that_the_weights_leave_off_balance_is_named():
    source, target, ratio = gaussian_shift(0, d=3)
    target[:, 2] += 0.5
    report = diagnose(ratio, *stack_domains(source, target), n_permutations=19)
    assert "A column is still off balance after weighting: 'x2'" in "".join(report.warnings)
    assert "'x0'" not in "".join(report.warnings)


def test_weights_that_barely_move_leave_the_shift():
    source, target, ratio = gaussian_shift(0, delta=1.0)
    report = diagnose(ratio(source) ** 0.1, *stack_domains(source, target), n_permutations=99)
    assert warns(report, "Weighting removed little of the shift")


def test_many_columns_off_balance_are_counted_and_three_are_named():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((800, 9)), rng.standard_normal((800, 9)) + 0.5
    report = diagnose(rng.uniform(0.9, 1.1, 800), *stack_domains(source, target), n_permutations=19)
    text = "".join(report.warnings)
    assert "columns are still off balance" in text or "moved apart" in text
    assert text.count("'x") <= 6 and " more" in text


# ---------------------------------------------------------------- how it prints


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((60, 25)), rng.standard_normal((60, 25)) + np.linspace(0, 1, 25)
    return diagnose(rng.exponential(size=60), *stack_domains(source, target), n_permutations=19)


def test_a_wide_table_prints_its_ten_worst_columns_and_counts_the_rest(wide):
    text = str(wide)
    worst = sorted(wide.balance, key=lambda b: max(abs(b.before), abs(b.after)), reverse=True)
    assert [b.name for b in wide.most_off_balance()] == [b.name for b in worst[:10]]
    assert all(f"  {b.name} " in text for b in worst[:10]) and not any(f"  {b.name} " in text for b in worst[10:])
    assert "15 more columns differ by" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_text_is_aligned(wide):
    lines = str(wide).splitlines()
    head = next(line for line in lines if line.strip().startswith("Standardized mean difference"))
    rows = lines[lines.index(head) + 1 : lines.index(head) + 11]
    assert {len(line) for line in rows} == {len(head)}
    assert head.endswith("after") and all(line[head.index("after") + 4].isdigit() for line in rows)


class Tags(HTMLParser):
    """Checks that tags close in order, and gathers text and addresses."""

    void = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(html):
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    return tags


def test_names_are_escaped_in_html_and_kept_on_one_line_in_text():
    pandas = pytest.importorskip("pandas")
    source, target, ratio = gaussian_shift(0, 50, 50)
    names = ["<script>alert('x')</script>", "two\nlines & a very long name that goes on and on and on"]
    frames = (pandas.DataFrame(x, columns=names) for x in (source, target))
    report = diagnose(np.asarray(ratio(source)), *stack_domains(*frames), n_permutations=19)
    for html in (report._repr_html_(), report.to_html(title="<b>")):
        assert "<script>" not in html and "<b>" not in html
        assert names[0] in parsed(html).text
    assert "two lines & a very long name that goes " in str(report)


def test_the_page_stands_alone_with_its_pictures(wide):
    tags = parsed(wide.to_html(title="My report", pictures={"Weights & more": b"\x89PNG"}))
    assert tags.addresses == ["data:image/png;base64,iVBORw=="]
    assert tags.text.count("My report") == 2 and "Weights & more" in tags.text
    assert "color-scheme: light dark" in "".join(tags.text)
    for warning in wide.warnings:
        assert warning in tags.text and warning.split()[0] in str(wide)


def test_no_warnings_are_said_to_be_none():
    report = dataclasses.replace(diagnose(*_small()), warnings=())
    assert str(report).endswith("No warnings.") and "No warnings." in report._repr_html_()


def _small():
    source, target, ratio = gaussian_shift(0, 30, 30)
    return ratio, *stack_domains(source, target)


def test_a_report_is_frozen_and_gives_every_field_to_json(wide):
    with pytest.raises(dataclasses.FrozenInstanceError):
        wide.p_value = 0.0
    fields = wide.to_dict()
    assert set(fields) == {f.name for f in dataclasses.fields(Report)} | {"effective_share", "is_subsample"}
    assert fields["balance"][0] == wide.balance[0]._asdict() and fields["warnings"] == list(wide.warnings)
    unknown = dataclasses.replace(wide, pareto_k=math.nan).to_dict()
    assert unknown["pareto_k"] is None and json.dumps(unknown, allow_nan=False)


@pytest.mark.parametrize("wrong", [KLIEP, "kliep", object()], ids=["class", "name", "object"])
def test_what_is_no_ratio_is_refused_with_what_is_one(wrong):
    X, y = stack_domains(np.arange(10.0)[:, None], np.arange(10.0)[:, None])
    with pytest.raises(ValueError, match=r"ratio must be a fitted density ratio such as KMM\(\)\.fit\(X, y\), a function"):
        diagnose(wrong, X, y)
