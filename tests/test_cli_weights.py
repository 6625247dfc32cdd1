"""densratio weights: the weights are the library's, and what is read and written is what the help says."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_cases import call, contents, error_of, read_text, samples, weights
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier
from typer.testing import CliRunner

from densratio import importance_weights, stack_domains, tame_weights
from densratio.cli import app
from densratio.cli.files import write_all
from densratio.cli.tables import open_table
from densratio.estimators import ESTIMATORS
from densratio.two_step.taming import TAMINGS

ROOT = Path(__file__).parents[1]


def expected(source, target, method="kmm", **parameters):
    X, y = stack_domains(source.to_numpy(dtype=float), target.to_numpy(dtype=float))
    return ESTIMATORS[method]().set_params(**parameters).fit(X, y).weights_


# ---------------------------------------------------------------- the weights


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[pytest.mark.long] * (name == "stacked")) for name in sorted(ESTIMATORS)]
)
def test_the_weights_are_the_librarys(folder, method):
    columns = ["age"] if method == "wasserstein" else ["age", "income", "score"]
    found = weights("source.csv", "target.csv", "--method", method, "--seed", 3, "--columns", ",".join(columns))
    seeded = {"random_state": 3} if "random_state" in ESTIMATORS[method]().get_params() else {}
    plain = expected(*(frame[columns] for frame in samples()), method, **seeded)
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)
    assert abs(found.mean() - 1.0) < 1e-9


def test_no_scale_takes_the_numbers_as_they_are(folder):
    found = weights("source.csv", "target.csv", "--no-scale", "--seed", 3)
    np.testing.assert_allclose(found, expected(*samples(), scale=None, random_state=3), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [0.25, "median", "cv"])
def test_a_bandwidth_reaches_the_estimator(folder, gamma):
    found = weights("source.csv", "target.csv", "--gamma", gamma)
    np.testing.assert_allclose(found, expected(*samples(), gamma=gamma, random_state=0), rtol=1e-9, atol=1e-12)


def test_permuted_rows_of_the_source_have_permuted_weights(folder):
    order = np.random.default_rng(5).permutation(60)
    straight = weights("source.csv", "target.csv")
    pd.read_csv("source.csv").iloc[order].to_csv("permuted.csv", index=False)
    np.testing.assert_allclose(weights("permuted.csv", "target.csv"), straight[order], rtol=1e-4, atol=1e-5)


def test_the_order_of_the_targets_columns_does_not_matter(folder):
    straight = weights("source.csv", "target.csv")
    pd.read_csv("target.csv")[["score", "age", "income"]].to_csv("turned.csv", index=False)
    np.testing.assert_array_equal(weights("source.csv", "turned.csv"), straight)


def test_every_kind_of_file_gives_the_same_weights(folder):
    straight = weights("source.csv", "target.csv")
    source, target = pd.read_csv("source.csv"), pd.read_csv("target.csv")
    source.to_parquet("source.parquet")
    target.to_parquet("target.PARQUET")
    source.to_csv("source.csv.gz", index=False)
    target.to_csv("target.tsv", sep="\t", index=False)
    target.to_csv("target.tsv.gz", sep="\t", index=False)
    for pair in (("source.parquet", "target.PARQUET"), ("source.csv.gz", "target.tsv"), ("source.parquet", "target.tsv.gz")):
        np.testing.assert_array_equal(weights(*pair), straight)


def test_every_kind_of_output_holds_the_same_weights(folder):
    straight = weights("source.csv", "target.csv")
    for name in ("w.csv.gz", "w.tsv", "w.parquet"):
        assert call("source.csv", "target.csv", "--out", name).exit_code == 0
        found = pd.read_parquet(name)["weight"] if name.endswith(".parquet") else read_text(name)
        np.testing.assert_array_equal(found, straight)
    assert gzip.decompress(Path("w.csv.gz").read_bytes()) == Path("weights.csv").read_bytes()


def test_the_row_index_that_pandas_stores_in_parquet_is_no_column(folder):
    straight = weights("source.csv", "target.csv")
    source = pd.read_csv("source.csv")
    source.set_index(pd.Index(np.arange(60)[::-1], name="id")).to_parquet("source.parquet")
    np.testing.assert_array_equal(weights("source.parquet", "target.csv"), straight)


def test_drop_and_columns_choose_the_same_columns(folder):
    source, target = samples()
    source.assign(y=1.0, id="a").to_csv("source.csv", index=False)
    target.assign(id="b").to_csv("target.csv", index=False)
    dropped = weights("source.csv", "target.csv", "--drop", "y,id,score")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--columns", "age, income"), dropped)
    chosen = expected(source[["age", "income"]], target[["age", "income"]], random_state=0)
    np.testing.assert_allclose(dropped, chosen, rtol=1e-9, atol=1e-12)


def test_a_column_name_with_a_comma_is_given_in_quotes(folder):
    straight = weights("source.csv", "target.csv", "--columns", "age,score")
    for name in ("source.csv", "target.csv"):
        pd.read_csv(name).rename(columns={"age": "age, years"}).to_csv(name, index=False)
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--columns", '"age, years",score'), straight)


def test_true_and_false_are_one_and_zero(folder):
    source, target = samples()
    is_old = [frame["age"] > 40.0 for frame in (source, target)]
    source.assign(old=is_old[0]).to_csv("source.csv", index=False)
    target.assign(old=is_old[1]).to_parquet("target.parquet")
    frames = source.assign(old=is_old[0]), target.assign(old=is_old[1])
    np.testing.assert_allclose(weights("source.csv", "target.parquet"), importance_weights(*frames).weights, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("flatten", [0.0, 0.5, 1.0])
def test_a_mixed_table_gets_the_weights_of_importance_weights(folder, flatten):
    rng, frames = np.random.default_rng(0), []
    for name, n in (("source", 40), ("target", 30)):
        frame = pd.DataFrame({"age": rng.normal(40, 9, n), "job": rng.choice(list("abc"), n), "new": rng.random(n) < 0.4})
        frame.loc[3, "age"], frame.loc[5, "job"] = np.nan, None
        frame["day"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 99, n), "D")
        frame.to_parquet(f"{name}.parquet")
        frames.append(frame)
    options = ["--encode", "--missing", "indicate", "--flatten", flatten]
    found = weights("source.parquet", "target.parquet", *options)
    np.testing.assert_allclose(found, importance_weights(*frames, flatten=flatten).weights, rtol=1e-9)


@pytest.mark.parametrize("tame", TAMINGS)
def test_weights_are_tamed_as_by_the_library(folder, tame):
    plain = weights("source.csv", "target.csv")
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--tame", tame), tame_weights(plain, tame).weights, rtol=1e-9)
    assert f"tamed by {tame}" in call("source.csv", "target.csv", "--tame", tame).stdout


def test_taming_that_is_not_known_is_told(folder):
    known = "--tame is one of pareto, truncate, flatten, overlap; got 'mild'."
    assert error_of(folder, "source.csv", "target.csv", "--tame", "mild") == known


def test_a_column_of_names_is_kept_beside_the_weights_and_not_used(folder):
    straight = weights("source.csv", "target.csv")
    source, names = pd.read_csv("source.csv"), [f"{i:03}" for i in range(60)]
    source.assign(customer=names).to_csv("named.csv", index=False)
    source.assign(customer=names).to_parquet("named.parquet")
    for table in ("named.csv", "named.parquet"):
        assert call(table, "target.csv", "--id", "customer", "--out", "w.csv").exit_code == 0
        written = pd.read_csv("w.csv", dtype={"customer": str})
        assert written.columns.tolist() == ["customer", "weight"] and written["customer"].tolist() == names
        np.testing.assert_allclose(written["weight"], straight, rtol=1e-9)


@pytest.mark.parametrize(
    "method, option, value, parameters",
    [
        ("kmm", "--regularization", "0.5", {"regularization": 0.5}),
        ("auto", "--regularization", "0.5", {"regularization": 0.5}),
        ("lsif", "--regularization", "cv", {"regularization": "cv"}),
        ("nearest_neighbors", "--neighbors", "7", {"n_neighbors": 7}),
        ("nearest_neighbors", "--neighbors", "many", {"n_neighbors": "many"}),
        ("discriminator", "--classifier", "boosting", {"classifier": HistGradientBoostingClassifier(random_state=0)}),
    ],
)
def test_a_setting_reaches_the_estimator(folder, method, option, value, parameters):
    found = weights("source.csv", "target.csv", "--method", method, option, value)
    seeded = {} if method == "nearest_neighbors" else {"random_state": 0}
    plain = expected(*samples(), "kmm" if method == "auto" else method, **parameters, **seeded)
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)


def test_row_numbers_are_used_where_columns_names_them_alone(folder):
    source, target = samples()
    plain = expected(source, target, random_state=0)
    for name, frame in (("source", source), ("target", target)):
        frame.assign(id=range(len(frame))).to_csv(f"{name}.csv", index=False)
    np.testing.assert_allclose(weights("source.csv", "target.csv"), plain, rtol=1e-9)
    said = call("source.csv", "target.csv").stdout
    assert (
        "warning: Column 'id' counts up without repeating" in said
        and "column 'id'            dropped: whole numbers in equal steps" in said
    )
    used = expected(source.assign(id=range(60)), target.assign(id=range(40)), random_state=0)
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--columns", "age,income,score,id"), used, rtol=1e-9)


def test_decimals_nullable_integers_and_float32_of_parquet_are_numbers(folder):
    from decimal import Decimal

    source, target = samples()
    halves = np.arange(60) / 2.0
    source = pd.DataFrame({"a": source["age"].astype("float32"), "b": [Decimal(str(v)) for v in halves], "c": np.arange(60) % 7})
    target = pd.DataFrame({"a": target["age"].astype("float32"), "b": np.arange(40.0), "c": np.arange(40) % 5})
    source.astype({"c": "Int64"}).to_parquet("source.parquet")
    target.to_parquet("target.parquet")
    np.testing.assert_allclose(
        weights("source.parquet", "target.parquet"), expected(source, target, random_state=0), rtol=1e-9, atol=1e-12
    )


def test_encoded_texts_become_columns_of_zero_and_one(folder):
    source, target = samples()
    source["color"] = ["red", "green", "NA"] * 20
    target["color"] = ["red", "blue"] * 20
    source.to_csv("source.csv", index=False)
    target.to_csv("target.csv", index=False)
    X, y = stack_domains(source, target)
    indicators = [(X["color"] == value).to_numpy(dtype=float) for value in ("NA", "blue", "green", "red")]
    numbers = X[["age", "income", "score"]].to_numpy()
    ratio = ESTIMATORS["kmm"](random_state=0).fit(np.column_stack([numbers, *indicators]), y)
    np.testing.assert_allclose(weights("source.csv", "target.csv", "--encode"), ratio.weights_, rtol=1e-9, atol=1e-12)


def test_no_two_kinds_of_columns_are_needed(folder):
    for name, n in (("source", 12), ("target", 9)):
        pd.DataFrame({"color": (["red", "green", "blue"] * 4)[:n]}).to_csv(f"{name}.csv", index=False)
    assert len(weights("source.csv", "target.csv", "--encode")) == 12


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(folder, separator):
    frame = samples()[0]
    frame.columns = ["age, years", "income; net", "score|z"]
    frame.to_csv("odd.csv", sep=separator, index=False)
    table = open_table(Path("odd.csv"))
    assert table.names == tuple(frame.columns)
    pd.testing.assert_frame_equal(table.read(table.names), frame)


def test_real_data_are_read_with_commas_and_with_semicolons(folder):
    wine = ROOT.parent / "shared" / "data" / "winequality-white.csv"
    if not wine.exists():
        pytest.skip("the wine data are not on this machine")
    header, *lines = [line.replace(";", ",") for line in wine.read_text().splitlines() if line]
    Path("source.csv").write_text("\n".join([header, *lines[:150]]).replace(",", ";"))
    Path("target.csv").write_text("\n".join([header, *lines[150:250]]))
    source, target = pd.read_csv("source.csv", sep=";"), pd.read_csv("target.csv")
    found = weights("source.csv", "target.csv", "--drop", "quality")
    plain = expected(source.drop(columns="quality"), target.drop(columns="quality"), random_state=0)
    np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-12)


def test_decimal_commas_are_read_where_they_are_announced(folder):
    straight = weights("source.csv", "target.csv")
    for name in ("source.csv", "target.csv"):
        pd.read_csv(name).to_csv(name, sep=";", decimal=",", index=False)
    assert "--decimal ," in error_of(folder, "source.csv", "target.csv")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--decimal", ","), straight)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffa,b\n1,2\n3,4\n",  # the mark that Excel puts first
        "a,b\r\n1,2\r\n3,4\r\n",
        "a,b\r1,2\r3,4\r",
        "\n\na,b\n1,2\n\n3,4\n\n",
        "a, b\n 1, 2\n3 ,4",
        'a,"b"\n"1","2"\n"3",4\n',
        "a,b\n1,2,\n3,4,\n",
    ],
    ids=["mark", "carriage returns and line feeds", "carriage returns", "empty lines", "spaces", "quotes", "trailing separator"],
)
def test_csv_as_programs_write_it_is_read(folder, text):
    Path("odd.csv").write_bytes(text.encode())
    table = open_table(Path("odd.csv"))
    assert table.names == ("a", "b")
    assert table.read(["b", "a"]).to_numpy(dtype=float).tolist() == [[2.0, 1.0], [4.0, 3.0]]


def test_columns_that_are_numbered_have_names(folder):
    for name, frame in zip(("source", "target"), samples(), strict=True):
        frame.set_axis(range(3), axis=1).to_csv(f"{name}.csv", index=False)
    straight = weights("source.csv", "target.csv")
    for name in ("source", "target"):
        pd.read_csv(f"{name}.csv").to_csv(f"{name}.csv")
    assert "--drop 'Unnamed: 0'" in error_of(folder, "source.csv", "target.csv")
    np.testing.assert_array_equal(weights("source.csv", "target.csv", "--drop", "Unnamed: 0"), straight)


FIELDS = st.text(st.sampled_from('ab \n",;é'), max_size=4)


@given(rows=st.lists(st.tuples(FIELDS, st.integers(-9, 9)), min_size=1, max_size=12), separator=st.sampled_from(",;\t"))
def test_the_named_line_is_where_the_row_begins(rows, separator, tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "t.csv"
    frame = pd.DataFrame([("x" + text, number) for text, number in rows], columns=["text", "number"])
    frame.to_csv(path, sep=separator, index=False)
    table = open_table(path)
    pd.testing.assert_frame_equal(table.read(["number"]), frame[["number"]])
    starts = np.cumsum([2, *(1 + text.count("\n") for text, _ in rows)])
    assert table.places(range(len(rows))) == starts[:-1].tolist()


# ---------------------------------------------------------------- what is written


def test_a_failure_while_writing_leaves_every_file_as_it_was(folder, monkeypatch):
    Path("r.html").write_text("old")
    replace = os.replace

    def fail_at_the_page(source, target):
        if Path(target).name == "r.html":
            raise PermissionError(13, "Permission denied", str(target))
        replace(source, target)

    monkeypatch.setattr("densratio.cli.files.os.replace", fail_at_the_page)
    said = error_of(folder, "source.csv", "target.csv", "--report", "r.html")
    assert "r.html: Permission denied" in said
    Path("weights.csv").write_text("old weights")
    error_of(folder, "source.csv", "target.csv", "--report", "r.html")


def test_a_folder_that_may_not_be_written_is_refused_before_the_work(folder, monkeypatch):
    monkeypatch.setattr("densratio.cli.files.os.access", lambda *_: False)
    monkeypatch.setattr(ESTIMATORS["kmm"], "fit", lambda *_: pytest.fail("fitted before the check"))
    assert "no permission" in error_of(folder, "source.csv", "target.csv")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit, OSError])
def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch, failure):
    (tmp_path / "b.csv").write_text("old")
    write = Path.write_bytes

    def fail(path, content):
        write(path, content[: len(content) // 2])
        if content == b"half of this":
            raise failure

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(failure):
        write_all({tmp_path / "a.csv": b"new", tmp_path / "b.csv": b"half of this"})
    assert contents(tmp_path) == {"b.csv": b"old"}


def test_a_writer_deletes_what_a_killed_one_left(tmp_path):
    for name, age in ((".densratio-old", 3700.0), (".densratio-new", 0.0), ("old", 3700.0)):
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write_all({tmp_path / "a.csv": b"new"})
    assert sorted(contents(tmp_path)) == [".densratio-new", "a.csv", "old"]


# A process that has imported what the command needs forks one for each call, which takes a tenth of a new interpreter's time.
FORKS = """
import os, signal, sys, time
import matplotlib.pyplot
from densratio.cli import estimation, files
from densratio.estimators import KMM
from densratio.__main__ import main

def wait(*arguments, **options):
    print("ready", flush=True)
    time.sleep(60)

def call(folder, room, function, number):
    os.chdir(folder)
    if number != signal.SIGKILL:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    sys.argv[1:] = ["weights", "source.csv", "target.csv", "--report", "r.html"]
    exec(f"{room}.{function} = wait")
    main()

for line in sys.stdin:
    folder, room, function, number = line.split()
    child = os.fork()
    if child == 0:
        call(folder, room, function, int(number))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def forks():
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as parent:
        yield parent


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("at", ["estimation weigh", "files os.replace"], ids=["estimating", "writing"])
def test_a_killed_command_leaves_no_files(folder, forks, number, at):
    if number == signal.SIGKILL and at.startswith("files"):
        pytest.skip("nothing can be cleaned up after SIGKILL; it would have to come within the renaming")
    Path("weights.csv").write_text("old")
    before = contents(folder)
    print(folder, at, int(number), file=forks.stdin, flush=True)
    child, ready = sorted(forks.stdout.readline().strip() for _ in range(2))
    assert ready == "ready"
    time.sleep(0.3)  # then it waits, and no destructor that swallows exceptions is running
    os.kill(int(child), number)
    assert int(forks.stdout.readline()) != 0
    assert contents(folder) == before


def test_a_file_that_is_there_is_replaced_with_its_permissions_and_its_link(folder):
    Path("store").mkdir()
    Path("store/w.csv").write_text("old")
    Path("store/w.csv").chmod(0o640)
    Path("w.csv").symlink_to("store/w.csv")
    result = call("source.csv", "target.csv", "--out", "w.csv")
    assert "Wrote w.csv (replaced)." in result.stdout
    assert Path("w.csv").is_symlink() and Path("store/w.csv").stat().st_mode & 0o777 == 0o640
    assert len(pd.read_csv("store/w.csv")) == 60


def test_a_new_file_has_the_permissions_of_any_other(folder):
    Path("other").write_text("")
    weights("source.csv", "target.csv")
    assert Path("weights.csv").stat().st_mode == Path("other").stat().st_mode


@pytest.mark.filterwarnings("error:constrained_layout")
def test_the_page_holds_the_report_and_the_picture(folder):
    assert call("source.csv", "target.csv", "--report", "plain.html").exit_code == 0
    result = call("source.csv", "target.csv", "--report", "r.html", "--plot", "w.png", "--out", "w.csv")
    assert result.exit_code == 0, result.stderr
    assert Path("w.png").read_bytes().startswith(b"\x89PNG")
    plain, page = Path("plain.html").read_text(), Path("r.html").read_text()
    assert plain == page and "data:image/png;base64" in page
    for words in ("Weights of source.csv for target.csv", "KMM(gamma=", "source.csv, 60 rows", "3: age, income and score"):
        assert words in page
    for term in ("Pareto k-hat", "maximum mean discrepancy", "mean of the source minus that of the target"):
        assert term in page
    # The report stands alone.
    assert "http" not in page.replace("http-equiv", "")
    assert result.stdout.endswith("Wrote w.csv, w.png and r.html.\n")


def test_the_summary_says_what_was_done_and_warns_in_the_reports_words(folder):
    samples()[0].add(1e6).to_csv("target.csv", index=False)
    result = call("source.csv", "target.csv", "--drop", "score")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert re.fullmatch(r"method KMM\(gamma=[0-9.e-]+\)", lines[0])
    assert lines[1:5] == ["source source.csv, 60 rows", "target target.csv, 60 rows", "columns 2: age and income", "left out score"]
    assert lines[5].startswith("effective sample size ") and lines[6].startswith("largest weight ")
    assert any(line.startswith("warning: No overlap") for line in lines)
    assert lines[-1] == "Wrote weights.csv."


def test_long_paths_are_not_wrapped_and_brackets_are_no_markup(folder):
    long = Path("[bold]" + "x" * 150)
    long.mkdir()
    result = call("source.csv", "target.csv", "--out", long / "w.csv")
    assert result.stdout.endswith(f"Wrote {long}/w.csv.\n")
    assert str(long) in error_of(folder, long / "nowhere.csv", "target.csv")


def test_a_new_process_writes_the_weights_without_torch_and_says_errors_on_standard_error(folder):
    code = (
        "import sys; from densratio.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)\n"
        "sys.argv[3] = 'nowhere.csv'; main()"
    )
    command = [sys.executable, "-c", code, "weights", "source.csv", "target.csv", "--out", "w.csv"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert (done.returncode, done.stderr) == (2, "error: nowhere.csv does not exist.\n")
    assert done.stdout.splitlines()[-1] == "False False"
    np.testing.assert_array_equal(read_text("w.csv"), weights("source.csv", "target.csv"))


def test_the_help_names_both_commands():
    said = CliRunner().invoke(app, ["--help"]).stdout
    assert "weights" in said and "demo" in said
