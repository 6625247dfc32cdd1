"""densratio weights: numbers with faults are named and never encoded; gaps, codes and numbers as people write them are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import call, error_of, read_text, samples, weights
from hypothesis import given
from hypothesis import strategies as st

from densratio import importance_weights
from densratio.cli.numerals import numbers_in
from densratio.cli.tables import Reading

JOBS = ["clerk", "boss", "cook"]


def write(values, change=lambda i, value: value, name="x"):
    """Two files of 200 rows with a column of numbers near 40 and near 48, changed by a function of the row, and one of texts."""
    rng = np.random.default_rng(0)
    for path, mean in (("source.csv", 40), ("target.csv", 48)):
        column = [int(np.clip(mean + 12 * z, 18, 90)) for z in rng.normal(size=200)]
        cells = [values(value) if change is None else change(i, values(value)) for i, value in enumerate(column)]
        pd.DataFrame({name: cells, "job": [JOBS[i % 3] for i in range(200)]}).to_csv(path, index=False)


def facts(*arguments):
    result = call("source.csv", "target.csv", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


# ---------------------------------------------------------------- --encode is for texts


@pytest.mark.parametrize("stray", ["NA", "?", "-", "45 kg", "12%", "unknown", "−5"])
def test_a_stray_value_in_a_column_of_numbers_is_named_and_not_encoded(folder, stray):
    write(str, lambda i, value: stray if i == 9 else value)
    for encode in ([], ["--encode"]):
        said = error_of(folder, "source.csv", "target.csv", "--drop", "job", *encode)
        assert f"source.csv: column 'x' has '{stray}' on line 11 where a number belongs." in said
        assert f"target.csv: column 'x' has '{stray}' on line 11" in said and "--drop job,x" in said
        assert ("--text x" in said) == bool(encode) and "--encode" not in said


WRITTEN = {
    "a unit": (lambda v: f"{v} kg", "Write the numbers without 'kg'."),
    "a percent sign": (lambda v: f"{v}%", "Write the numbers without '%'."),
    "a currency": (lambda v: f"${v}", "Write the numbers without '$'."),
    "another currency": (lambda v: f"EUR {v}", "Write the numbers without 'EUR'."),
    "decimal commas": (lambda v: f"{v},5", "--decimal , reads decimals."),
    "US thousands": (lambda v: f"{v},000", "--thousands , reads thousands set apart"),
    "Swiss thousands": (lambda v: f"{v}'000", '--thousands "\'" reads thousands set apart.'),
    "thousands with spaces": (lambda v: f"{v} 000", "--thousands ' ' reads thousands set apart."),
    "thousands with no-break spaces": (lambda v: f"{v}\u202f000", "--thousands ' ' reads thousands set apart."),
}


@pytest.mark.parametrize("value, advice", WRITTEN.values(), ids=WRITTEN)
def test_numbers_as_people_write_them_are_not_encoded_and_the_way_to_read_them_is_named(folder, value, advice):
    write(value)
    for encode in ([], ["--encode"]):
        said = error_of(folder, "source.csv", "target.csv", "--drop", "job", *encode)
        assert "column 'x' holds numbers such as" in said and advice in said and "--encode" not in said


@pytest.mark.parametrize(
    "value, options",
    [
        (lambda v: f"{v},5", ["--decimal", ","]),
        (lambda v: f"{v},000.5", ["--thousands", ","]),
        (lambda v: f"{v}.000,5", ["--thousands", ".", "--decimal", ","]),
        (lambda v: f"{v}\u00a0000", ["--thousands", " "]),
        (lambda v: f"{v}\u2019000", ["--thousands", "'"]),
    ],
    ids=["decimal commas", "US", "German", "no-break spaces", "Swiss"],
)
def test_the_named_options_read_them(folder, value, options):
    write(lambda v: v)
    plain = weights("source.csv", "target.csv", "--drop", "job")
    write(value)
    # Units do not matter: a half more and a thousand times as much are the same column.
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--drop", "job", *options), plain, rtol=1e-9)


def test_thousands_set_apart_wrongly_are_named(folder):
    write(lambda v: f"{v},000", lambda i, value: "1,2" if i == 3 else value)
    said = error_of(folder, "source.csv", "target.csv", "--drop", "job", "--thousands", ",")
    assert "column 'x' has '1,2' on line 5 where a number belongs" in said


def test_decimal_commas_beside_other_texts_and_dots_are_told_apart(folder):
    for text, words in {
        "h;g\n0.1;1\n0.2;2\n0.3;1\n": "column 'h' holds numbers such as '0.1' on lines 2, 3 and 4. --decimal . reads decimals.",
        "h;g\n0,1;1\n0,2;2\n0,3;1\nx;2\n": "column 'h' has 'x' on line 5 where a number belongs.",
        "h;g\n1.876;1\n941;2\n1.002;1\n": "--thousands . reads thousands set apart",
        "h;g\n0,1;1\n0,2;2\n1.234,56;1\n0,3;3\n": "column 'h' has '1.234,56' on line 4 where a number belongs.",
        "h;g\n0,1;1\nNA;2\n0,4;1\n0,3;3\n": "column 'h' has 'NA' on line 3 where a number belongs.",
    }.items():
        for name in ("source.csv", "target.csv"):
            Path(name).write_text(text)
        assert words in error_of(folder, "source.csv", "target.csv", "--decimal", ",")


def test_decimals_in_one_column_tell_what_the_commas_of_another_are(folder):
    for name in ("source.csv", "target.csv"):
        Path(name).write_text("h;g\n0,1;1,234\n0,2;2,345\n0,3;1,456\n")
    said = error_of(folder, "source.csv", "target.csv")
    assert "--decimal , reads decimals." in said and "--thousands" not in said


@pytest.mark.parametrize("gap", ["NA", "", " n/a "])
def test_truth_values_with_gaps_are_truth_values(folder, gap):
    """As R writes them: TRUE, FALSE and NA."""
    write(lambda v: "TRUE" if v % 3 else "FALSE")
    target = Path("target.csv").read_text()
    write(lambda v: "TRUE" if v % 3 else "FALSE", lambda i, value: gap if i in (3, 9) else value)
    Path("target.csv").write_text(target)
    said = error_of(folder, "source.csv", "target.csv", "--drop", "job")
    assert "source.csv: column 'x' has " in said and "on lines 5 and 11" in said and "--missing drop, --missing impute" in said
    assert "column 'x'             one-hot: 'False', 'True', gaps as a level" in facts("--drop", "job", "--missing", "indicate")
    texts = [pd.read_csv(name, dtype=str)["x"] for name in ("source.csv", "target.csv")]
    frames = [column.map({"TRUE": True, "FALSE": False}).to_frame() for column in texts]
    np.testing.assert_array_equal(read_text("weights.csv"), importance_weights(*frames).weights)


def test_what_is_neither_true_nor_false_is_named_beside_truth_values(folder):
    write(lambda v: "true" if v % 3 else "false")
    target = Path("target.csv").read_text()
    write(lambda v: "true" if v % 3 else "false", lambda i, value: "maybe" if i == 3 else value)
    Path("target.csv").write_text(target)
    said = error_of(folder, "source.csv", "target.csv", "--drop", "job", "--encode")
    assert "column 'x' has 'maybe' on line 5 where true or false belongs; in target.csv the column holds true or false." in said


def test_a_missing_text_is_no_code(folder):
    write(lambda v: v)
    for name in ("source.csv", "target.csv"):
        pd.read_csv(name).assign(job=lambda frame: frame["job"].where(frame.index != 3)).to_csv(name, index=False)
    said = error_of(folder, "source.csv", "target.csv", "--encode")
    assert "column 'job' has no value on line 5" in said and said.endswith("out with --drop job.") and "--text" not in said


def test_gaps_and_texts_are_told_at_once(folder):
    write(lambda v: v, lambda i, value: "" if i == 3 else value)
    said = error_of(folder, "source.csv", "target.csv")
    assert "column 'x' has no value on line 5" in said and said.endswith("--drop x. Text, in 'job', needs --encode.")


@given(
    value=st.floats(-1e12, 1e12).map(lambda v: round(v, 3)),
    marks=st.sampled_from([(".", None), (",", None), (".", ","), (",", "."), (",", " "), (".", "'")]),
)
def test_a_number_is_read_as_it_was_written(value, marks):
    decimal, thousands = marks
    text = f"{value:,.3f}".replace(",", "T").replace(".", decimal).replace("T", thousands or "")
    assert numbers_in(pd.Series([text]), Reading(decimal, thousands))[0] == value


@pytest.mark.parametrize("text", ["1,2,3", "12,34", ",123", "1,2345", "1_000", "0x10", "1 000", "nan", "", "e5", ".", "+"])
def test_what_is_no_number_with_its_thousands_set_apart_is_none(text):
    assert np.isnan(numbers_in(pd.Series([text]), Reading(".", ","))[0])


# ---------------------------------------------------------------- codes


def test_codes_that_are_declared_text_are_encoded_as_they_stand(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        codes = [["01234", "1234", "99"][i % 3 if name == "source" else i % 2] for i in range(len(frame))]
        frame.assign(zip=codes, kind="a").to_csv(f"{name}.csv", index=False)
        frame.assign(zip=[f"c{code}" for code in codes]).to_csv(f"{name}_texts.csv", index=False)
    as_texts = weights("source_texts.csv", "target_texts.csv", "--encode")
    result = call("source.csv", "target.csv", "--drop", "kind", "--text", "zip")
    assert "column 'zip'           one-hot: '01234', '1234', '99'\n" in result.stdout
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--drop", "kind", "--text", "zip"), as_texts, rtol=1e-9)
    assert "neither file has a column 'zap'. Did you mean 'zip'?" in error_of(folder, "source.csv", "target.csv", "--text", "zap")


@pytest.mark.parametrize(("n_codes", "every"), [(12, 1), (150, 1), (12, 2)])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_codes_that_lost_their_zeros_are_those_of_the_other_file(folder, suffix, n_codes, every):
    frames = [frame.assign(code=np.arange(len(frame)) * (1 + k) % n_codes + 1) for k, frame in enumerate(samples())]
    for name, frame in zip(("source", "target"), frames, strict=True):
        frame.assign(code=[str(code).zfill(3) for code in frame["code"]]).to_csv(f"{name}.csv", index=False)
    # Some rows have kept them, where two files were joined.
    lost = frames[1] if every == 1 else frames[1].assign(code=[str(c).zfill(3 * (k % 2)) for k, c in enumerate(frames[1]["code"])])
    getattr(lost, f"to_{suffix[1:]}")(f"lost{suffix}", index=False)
    expected = weights("source.csv", "target.csv", "--encode")
    result = call("source.csv", f"lost{suffix}", "--encode")
    np.testing.assert_allclose(weights("source.csv", f"lost{suffix}", "--encode"), expected, rtol=1e-9)
    lacks = "has no zeros before its codes" if every == 1 else "lacks the zeros before some of its codes"
    assert f"lost{suffix}: column 'code' {lacks}: '1' is read as '001', as in source.csv." in result.output
    np.testing.assert_allclose(weights("source.csv", f"lost{suffix}", "--encode", "--text", "code"), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "of_each", [(["01", "1", "2"], ["1", "2"]), (["01", "02"], ["02", "3", "5"]), (["01", "02"], ["02", "1", "111"])]
)
def test_zeros_that_tell_codes_apart_are_given_to_no_other_file(folder, of_each):
    for name, frame, codes in zip(("source", "target"), samples(), of_each, strict=True):
        frame.assign(code=[codes[i % len(codes)] for i in range(len(frame))]).to_csv(f"{name}.csv", index=False)
    result = call("source.csv", "target.csv", "--encode")
    assert result.exit_code == 0 and "is read as '0" not in result.output


def test_codes_of_parquet_are_the_same_with_and_without_gaps(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.assign(code=np.arange(len(frame)) % 3).to_parquet(f"{name}.parquet")
    whole = weights("source.parquet", "target.parquet", "--text", "code")
    frame = pd.read_parquet("source.parquet").astype({"code": float})
    frame.loc[0, "code"] = np.nan
    frame.to_parquet("gap.parquet")
    kept = weights("gap.parquet", "target.parquet", "--text", "code", "--missing", "drop")
    assert kept[0] == 0.0 and abs(kept[1:].mean() - 1.0) < 1e-12
    pd.read_parquet("source.parquet").iloc[1:].to_parquet("rest.parquet")
    np.testing.assert_allclose(kept[1:], weights("rest.parquet", "target.parquet", "--text", "code"), rtol=1e-9)
    assert len(whole) == 60


def test_spaces_around_a_text_are_no_part_of_it_and_that_is_said(folder):
    write(str)
    plain = weights("source.csv", "target.csv", "--encode")
    text = Path("source.csv").read_text()
    Path("source.csv").write_text(text.replace("clerk\n", "clerk \n", 5))
    found = facts("--encode")
    assert (
        "note: Column 'job': spaces around 'clerk ' were left out." in found
        and "column 'job'           one-hot: 'boss', 'clerk', 'cook'\n" in found
    )
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--encode"), plain)


# ---------------------------------------------------------------- missing values


@pytest.fixture
def gaps(folder):
    """Source and target with an NA in a column of numbers and an empty text, and what the frames hold."""
    frames = []
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame = frame.assign(job=[JOBS[i % 3] for i in range(len(frame))]).astype({"age": object})
        frame.loc[3, "age"], frame.loc[7, "job"] = "NA", None
        frame.to_csv(f"{name}.csv", index=False)
        frames.append(frame)
    return frames


def fitted(frames, **columns):
    from densratio import KMM, stack_domains

    tables = []
    for i, frame in enumerate(frames):
        table = {name: frame[name].astype(float) for name in ("age", "income", "score")}
        tables.append(pd.DataFrame(table | {name: values[i] for name, values in columns.items()}))
    return KMM(random_state=0).fit(*stack_domains(*tables)).weights_


def test_missing_values_are_an_error_that_names_the_options(folder, gaps):
    said = error_of(folder, "source.csv", "target.csv", "--encode")
    assert "source.csv: column 'age' has 'NA' on line 5" in said and "source.csv: column 'job' has no value on line 9." in said
    assert "--missing drop, --missing impute or --missing indicate says" in said


def test_rows_with_gaps_are_dropped_with_weight_zero(folder, gaps):
    rest = [frame.drop(index=[3, 7]).reset_index(drop=True) for frame in gaps]
    jobs = {f"job={job}": [(frame["job"] == job).astype(float) for frame in rest] for job in sorted(JOBS)}
    assert "Left out rows, 2 of the source, with weight 0, and 2 of the target" in facts("--encode", "--missing", "drop")
    found = weights("source.csv", "target.csv", "--encode", "--missing", "drop")
    assert found[3] == found[7] == 0.0
    np.testing.assert_allclose(np.delete(found, [3, 7]), fitted(rest, **jobs), rtol=1e-9)


@pytest.mark.parametrize("how", ["impute", "indicate"])
def test_gaps_are_filled_with_the_median_and_the_most_frequent_text(folder, gaps, how):
    is_gap = [frame["age"] == "NA" for frame in gaps]
    median = np.median(np.concatenate([frame["age"][~gap].astype(float) for frame, gap in zip(gaps, is_gap, strict=True)]))
    most = pd.concat([frame["job"] for frame in gaps]).mode()[0]
    filled = [frame.assign(age=frame["age"].where(~gap, median)) for frame, gap in zip(gaps, is_gap, strict=True)]
    texts = [frame["job"].fillna(most if how == "impute" else "(missing)") for frame in filled]
    marks = {"age=(missing)": [gap.astype(float) for gap in is_gap]} if how == "indicate" else {}
    jobs = {f"job={job}": [(text == job).astype(float) for text in texts] for job in sorted(set(texts[0]))}
    found = weights("source.csv", "target.csv", "--encode", "--missing", how)
    np.testing.assert_allclose(found, fitted(filled, **marks, **jobs), rtol=1e-7)
    assert "'age' (2) and 'job' (2)" in facts("--encode", "--missing", how)


def test_what_cannot_be_filled_is_said(folder):
    samples()[0].assign(age=np.nan).to_csv("source.csv", index=False)
    assert "column 'age' has no value at all" in error_of(folder, "source.csv", "target.csv", "--missing", "impute")
    samples()[0].assign(age=[None] * 59 + [1.0]).to_csv("source.csv", index=False)
    said = error_of(folder, "source.csv", "target.csv", "--missing", "drop")
    assert "--missing drop leaves 1 of 60 rows of the source and 40 of 40 of the target" in said and "--missing impute" in said
    assert "--missing is one of drop, impute, indicate; got 'mean'" in error_of(
        folder, "source.csv", "target.csv", "--missing", "mean"
    )


# ---------------------------------------------------------------- other types


@pytest.mark.parametrize("form", ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%SZ"])
def test_dates_in_iso_format_weigh_as_the_days_that_they_are(folder, form):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        days = (20 * frame["score"]).astype(int) + 40
        dates = pd.Timestamp("2024-01-01") + pd.to_timedelta(days, "D")
        frame.drop(columns="score").assign(day=days).to_csv(f"{name}_days.csv", index=False)
        frame.drop(columns="score").assign(day=dates.dt.strftime(form)).to_csv(f"{name}.csv", index=False)
    assert "column 'day'           days since 1970\n" in facts()
    expected = weights("source_days.csv", "target_days.csv")
    np.testing.assert_allclose(weights("source.csv", "target.csv"), expected, rtol=1e-6)
    assert "column 'day'           one-hot" in facts("--text", "day")


def test_a_text_among_dates_is_named_and_a_gap_is_one(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        days = pd.Series(pd.date_range("2024-01-01", periods=len(frame))).dt.strftime("%Y-%m-%d")
        frame.assign(day=days.where(np.arange(len(frame)) != 4, "NA")).to_csv(f"{name}.csv", index=False)
    said = error_of(folder, "source.csv", "target.csv")
    assert "source.csv: column 'day' has 'NA' on line 6 where a date belongs." in said and "--missing indicate" in said
    assert "column 'day'           days since 1970, a 0/1 column for gaps\n" in facts("--missing", "indicate")
    samples()[1].assign(day="2024-01-01").to_csv("target.csv", index=False)
    said = error_of(folder, "source.csv", "target.csv", "--encode")
    assert "'NA' on line 6 where a date belongs; in target.csv the column holds dates" in said


def test_dates_of_every_kind_are_used_and_said_and_lists_are_named(folder):
    import datetime

    for name, frame in zip(("source", "target"), samples(), strict=True):
        n = len(frame)
        frame.assign(
            zone=pd.date_range("2020", periods=n, tz="UTC"),
            day=[datetime.date(2020, 1, 1)] * n,
            hour=[datetime.time(8)] * n,
            wait=pd.to_timedelta(np.arange(n), "h"),
            many=[[1.0, 2.0]] * n,
        ).to_parquet(f"{name}.parquet")
    said = error_of(folder, "source.parquet", "target.parquet")
    assert "source.parquet: 'many' (lists or mixed values). Leave out with --drop many." in said
    done = call("source.parquet", "target.parquet", "--drop", "many").stdout
    for words in ("'zone'          days since 1970", "'wait'          days", "'day'           dropped: the same value in all rows"):
        assert f"column {words}" in done
