"""The benchmark of the paper's experiments: its networks, its problems, stopping and going on, its clock, and its command."""

from __future__ import annotations

import json
import sys
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paper_cases import DIGITS, FEW, TINY, experiment, finished, session
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from benchmarks.networks import convnet, lenet5, lstm, resnet18
from benchmarks.paper.__main__ import main
from benchmarks.paper.methods import METHODS, PLAIN, REBUILT, Method, Sizes, method_of, title
from benchmarks.paper.problems import draw
from benchmarks.paper.published import ACCURACY, SECONDS, STAGE_SECONDS
from benchmarks.paper.records import BIN_EDGES, Files, summary_of_weights
from benchmarks.paper.session import Session
from benchmarks.paper.settings import QUICK, SETTINGS, Experiment, settings_of
from benchmarks.paper.shifts import shift_of
from benchmarks.paper.stages import STAGES, StageClock
from benchmarks.paper.tables import accuracy_row, aims_of, grouped, last_epochs
from benchmarks.paper.twice import session_of
from densratio.labels.networks import small_network
from densratio.training.registry import TRAIN_TWICE, Ingredients
from densratio.training.rules import margins

# ---------------------------------------------------------------- networks


def n_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_networks_have_the_published_sizes():
    assert n_parameters(resnet18((3, 32, 32), 10)) == 11_173_962
    assert n_parameters(resnet18((3, 32, 32), 100)) == 11_173_962 + 90 * 513
    assert n_parameters(lenet5((1, 28, 28), 10)) == 61_706  # that of LeCun et al. with full connections
    assert n_parameters(small_network((1, 8, 8), 10)) == 160 + 4640 + 512 * 128 + 128 + 1290


@pytest.mark.parametrize(
    ("network", "shape", "width"),
    [
        (lenet5, (1, 8, 8), 84),
        (lenet5, (1, 28, 28), 84),
        (lenet5, (3, 40, 33), 84),
        (convnet, (3, 32, 32), 128),
        (resnet18, (3, 32, 32), 512),
        (lstm, (9,), 64),
    ],
)
def test_the_hidden_layer_is_what_the_last_layer_takes(network, shape, width):
    model = network(shape, 7)
    taken = {}
    model.hidden.register_forward_hook(lambda module, args, output: taken.update(hidden=output))
    logits = model(torch.zeros(2, *shape))
    assert logits.shape == (2, 7) and taken["hidden"].shape == (2, width)
    assert torch.equal(logits, model.output(taken["hidden"]))


def test_resnet18_keeps_the_resolution_in_its_stem_and_halves_it_three_times():
    model, sizes = resnet18((3, 32, 32), 10), []
    for name in ("relu", "group1", "group2", "group3", "group4"):
        getattr(model, name).register_forward_hook(lambda module, args, output: sizes.append(tuple(output.shape[1:])))
    model(torch.zeros(2, 3, 32, 32))
    assert sizes == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


@pytest.mark.parametrize("network", [lenet5, convnet, resnet18])
def test_a_network_for_images_refuses_rows(network):
    with pytest.raises(ValueError, match=r"takes images.*\(16,\)"):
        network((16,), 10)


def test_the_network_for_series_refuses_images():
    with pytest.raises(ValueError, match=r"reads series of one variable.*\(1, 8, 8\)"):
        lstm((1, 8, 8), 10)


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize(
    ("text", "method"),
    [("kmm", Method("kmm")), ("Val-Only", Method("val_only")), ("diw@8", Method("diw", 8)), ("kmm@32per4", Method("kmm", 32, 4))],
)
def test_a_method_is_a_name_or_a_name_with_the_rows_of_its_bank(text, method):
    assert method_of(text) == method and method_of(str(method)) == method


def made_of():
    model = small_network((4,), 3)
    optimizer, y = torch.optim.SGD(model.parameters(), lr=0.1), torch.zeros(30, dtype=torch.int64)
    given = Ingredients(30, 20, y, 3, model, optimizer, 2, lambda: torch.zeros(30), first=torch.zeros(30))
    return Sizes(given, np.zeros(20, dtype=np.int64), np.arange(30) < 10, lambda: np.arange(30.0), None)


def test_every_method_has_a_title_and_builds_a_reweighter_of_the_training_rows():
    sizes = made_of()
    for name in METHODS:
        assert len(Method(name).build(experiment(), sizes).weights_) == 30 and title(name)
    assert title("kliep@32", "hidden") == "ADIW-KL-F, bank 32" and title("uniform") == "Uniform"
    assert title("diw@8per4") == "DIW-L, bank 8 per 4"


def test_right_rows_alone_train_on_no_wrong_label():
    sizes = made_of()
    alone, x, y = Method("right_rows").build(experiment(), sizes), torch.randn(30, 4), torch.randint(3, (30,))
    loss = alone.weighted_loss(sizes.given.model, (x, y, torch.arange(30)))
    right = torch.nn.functional.cross_entropy(sizes.given.model(x)[10:], y[10:])
    torch.testing.assert_close(loss, right)
    with pytest.raises(ValueError, match="right_rows needs wrong labels; 'class_prior:4' has none"):
        Method("right_rows").build(experiment("class_prior:4"), sizes)


def test_published_parameters_are_those_of_the_data_and_what_is_compared():
    sizes = made_of()

    def ratio(method, data, shift, layer="losses"):
        chosen = Experiment(data, shift, settings_of(data, shift, {}), 1000, layer, "published")
        return Method(method).build(chosen, sizes._replace(layer=None if layer == "losses" else "8")).ratio

    assert ratio("kliep", "fashion_mnist", "class_prior:100").gamma == 5.0
    assert ratio("diw", "fashion_mnist", "class_prior:100:0.2").gamma == 0.1
    assert ratio("kliep", "cifar100", "pair:0.3").gamma == 0.1
    assert ratio("kmm", "cifar10", "pair:0.3", "hidden").get_params()["gamma"] == 0.5
    by_layer = [ratio("lsif", "cifar10", "symmetric:0.5", layer) for layer in ("losses", "hidden")]
    assert [(r.gamma, r.regularization, r.solver.step_size) for r in by_layer] == [(0.01, 1e-5, 0.1), (0.3, 1e-3, 0.1)]


def test_an_epoch_of_validation_rows_alone_is_as_published_one_pass_over_them():
    recipe = Experiment("fashion_mnist", "symmetric:0.4", TINY._replace(epochs=1), 100, parameters="published")
    problem = draw(FEW, experiment(), 0)
    alone = session_of(recipe, Method("val_only"), 0, problem, "cpu")
    assert alone.advance(lambda: False)
    assert alone.reweighter.rows_seen == 96 and len(alone.reweighter.weights_) == 100


def test_the_share_of_small_classes_is_the_second_number_of_a_class_prior_shift():
    problem = draw(DIGITS, experiment("class_prior:4:0.2"), 1)
    sizes = np.bincount(problem.y, minlength=10)
    assert sorted(set(sizes)) == [round(sizes.max() / 4), sizes.max()] and np.sum(sizes == sizes.min()) == 2
    assert shift_of("class_prior:4").minority == 0.5


# ---------------------------------------------------------------- stop and go on


def stops_after(n):
    """A `must_stop` that is true from its n-th call on."""
    calls = []
    return lambda: calls.append(None) is None and len(calls) >= n


def outcome(one):
    tensors = [*one.model.state_dict().values(), one.reweighter.weights_]
    return one.history["accuracy"], one.history["loss"], tensors


def same(one, other):
    (accuracy, loss, tensors), (other_accuracy, other_loss, others) = outcome(one), outcome(other)
    is_equal = all(torch.equal(a, b) for a, b in zip(tensors, others, strict=True))
    return is_equal and accuracy == other_accuracy and loss == other_loss


def gone_on(stopped, fresh, folder):
    """The fresh run, taken up from the files of the one that was stopped."""
    Files(folder, folder, stopped, {}).save()
    Files(folder, folder, fresh, {}).load()
    return fresh


PLACES = {"in an epoch": 5, "at the end of one": 9, "in the second": 13}
STOPPED = ["random", "val_only", "kmm", "kliep@16", "lsif", "wasserstein@16"]


def is_quick(method, is_its_place):
    """Every method stops at one place, and one without and one with a bank at all."""
    return is_its_place or method in ("random", "kliep@16")


@pytest.mark.parametrize(
    ("method", "after"),
    [
        pytest.param(method, after, id=f"{method} {place}", marks=[] if is_quick(method, k % 3 == j) else pytest.mark.long)
        for k, method in enumerate(STOPPED)
        for j, (place, after) in enumerate(PLACES.items())
    ],
)
def test_a_run_that_stops_and_goes_on_gives_what_one_that_did_not_gives(tmp_path, method, after):
    whole = finished(method)
    assert len(whole.history["seconds"]) == 3
    stopped = session(method)
    assert not stopped.advance(stops_after(after))
    resumed = gone_on(stopped, session(method), tmp_path)
    assert resumed.epoch == after // 9 and resumed.advance(lambda: False)
    assert same(resumed, whole)


def test_the_hidden_layer_is_compared_class_by_class_and_resumes_too(tmp_path):
    whole = session("kmm", layer="hidden")
    assert whole.reweighter.layer == "8" and whole.reweighter.classes is not None
    whole.advance(lambda: False)
    stopped = session("kmm", layer="hidden")
    stopped.advance(stops_after(12))
    resumed = gone_on(stopped, session("kmm", layer="hidden"), tmp_path)
    resumed.advance(lambda: False)
    assert same(resumed, whole) and not torch.equal(whole.reweighter.weights_, torch.ones_like(whole.reweighter.weights_))


def test_mixed_precision_trains_with_weights_in_single_precision():
    chosen = Experiment("digits", "symmetric:0.4", TINY, 100, amp=True)
    one, plain = Session(chosen, method_of("kmm@16"), 0, draw(FEW, chosen, 0), "cpu"), finished("kmm@16")
    one.advance(lambda: False)
    weights = one.reweighter.weights_
    assert weights.dtype == torch.float32 and bool(torch.isfinite(weights).all()) and one.history["loss"] != plain.history["loss"]
    assert one.history["loss"] == pytest.approx(plain.history["loss"], rel=0.05)


def test_the_rate_falls_by_a_quarter_of_the_epochs_and_the_checkpoint_of_another_run_is_refused(tmp_path):
    one = session("uniform", setting=TINY._replace(epochs=4))
    rates = []
    one.advance(lambda: False, lambda running: rates.append(running.optimizer.param_groups[0]["lr"]))
    assert rates == pytest.approx([1e-4, 1e-5, 1e-6, 1e-7])
    torch.save(one.state_dict(), tmp_path / "run.pt")
    other = Files(tmp_path, tmp_path, session("uniform", seed=1), {})
    other.checkpoint = tmp_path / "run.pt"
    with pytest.raises(ValueError, match=r"another run \(epochs 4, seed 0; asked for: epochs 3, seed 1\)"):
        other.load()


PROBLEM = draw(FEW, experiment(), 0)


@pytest.mark.parametrize(
    ("name", "after"),
    [("lrw_hard", 3), ("lrw_hard", 9), ("lrw_random", 12), ("lrw_easy", 15)],
    ids=["in the first training", "at its end", "in the second", "near its end"],
)
def test_a_train_twice_method_is_one_run_of_two_trainings_that_goes_on_where_it_stopped(tmp_path, name, after):
    whole = by_hand(name)
    stopped = twice(name)
    assert not stopped.advance(stops_after(after))
    resumed = gone_on(stopped, twice(name), tmp_path)
    assert resumed.epoch == stopped.epoch and resumed.advance(lambda: False)
    assert resumed.history["accuracy"] == whole.history["accuracy"] and resumed.history["loss"] == whole.history["loss"]
    assert torch.equal(resumed.reweighter.weights_, whole.reweighter.weights_)


@cache
def by_hand(name):
    """A run that nothing stopped: plain training for one epoch of three, the method's split of its margins, and training anew."""
    whole, problem, epochs = twice(name), PROBLEM, []
    assert whole.advance(lambda: False, lambda run: epochs.append(run.epoch)) and whole.is_done
    assert epochs == [1, 2, 3] and {len(values) for values in whole.history.values()} == {3}
    accuracy, found = first_training()
    own = TRAIN_TWICE[name].split(found)
    assert len(whole.reweighter.weights_) == len(own.train) == len(problem.x) - len(own.val)
    assert (whole.is_off == problem.is_off[own.train]).all()
    chosen = experiment(setting=TINY._replace(epochs=2))
    second = Session(chosen, method_of(name), 0, problem.held_out(own.train, own.val), "cpu")
    second.advance(lambda: False)
    assert whole.history["accuracy"] == accuracy + second.history["accuracy"]
    assert torch.equal(whole.reweighter.weights_, second.reweighter.weights_)
    return whole


@cache
def first_training():
    """Accuracy, and the margins (n,) of the training rows."""
    first = session("uniform", setting=TINY._replace(epochs=1))
    first.advance(lambda: False)
    first.model.eval()
    with torch.no_grad():
        mean, std = (torch.tensor(part)[:, None, None] for part in PROBLEM.channels())
        found = margins(first.model((torch.as_tensor(PROBLEM.x) - mean) / std), torch.as_tensor(PROBLEM.y))
    return first.history["accuracy"], found


def twice(name):
    return session_of(experiment(), method_of(name), 0, PROBLEM, "cpu")


# ---------------------------------------------------------------- the clock


@pytest.mark.parametrize("method", ["uniform", "val_only", "kmm", "kliep@16"])
def test_the_clock_changes_nothing_and_counts_every_moment_once(method):
    plain, clocked, clock = session(method), session(method), StageClock()
    plain.reweighter.warmup_epochs = clocked.reweighter.warmup_epochs = 0.0
    batches = iter(clocked.train)
    for batch, _ in zip(plain.train, range(6), strict=False):
        plain.step(batch)
        clock.step(clocked, batches)
    assert same(plain, clocked)
    assert len(clock.batches) == 6 and all(set(stages) == set(STAGES) for stages in clock.batches)
    typical = clock.means()
    # Validation-only training passes the training rows too, without gradients, for their losses.
    assert (typical["validation forward"] > 0) == (method != "uniform")
    assert (typical["validation fetch"] > 0) == (method != "uniform")
    assert (typical["weight step"] > 0) == (method in ("kmm", "kliep@16"))
    assert min(typical[name] for name in ("training fetch", "training forward", "backward", "optimizer step", "rest")) > 0
    assert "partial_fit" not in vars(clocked.reweighter) and "next_validation" not in vars(clocked)


def test_the_clock_adds_up_to_the_time_of_the_batch():
    ticks = iter(range(1000))
    clock, one = StageClock(), session("kmm")
    clock.now = lambda: float(next(ticks))
    clock.step(one, iter(one.train))
    # Each stage begins and ends on a tick of its own, so each lasts 1 and the rest is what lies between them.
    stages = clock.batches[0]
    assert [stages[name] for name in STAGES[:-1]] == [1.0] * 7 and sum(stages.values()) == 15.0


# ---------------------------------------------------------------- records and tables


@given(seed=st.integers(0, 99), n=st.integers(5, 60), top=st.floats(0.1, 20.0))
def test_the_summary_of_the_weights_counts_every_row(seed, n, top):
    rng = np.random.default_rng(seed)
    weights, is_off = rng.uniform(0.0, top, n), np.arange(n) % 3 == 0
    summary = summary_of_weights(weights, is_off)
    for name, values in (("on", weights[~is_off]), ("off", weights[is_off])):
        assert sum(summary[name]["counts"]) == summary[name]["rows"] == len(values)
        assert summary[name]["mean"] == pytest.approx(values.mean()) and summary[name]["quantiles"][2] == pytest.approx(
            np.median(values)
        )
        assert summary[name]["counts"][0] == np.sum(values < BIN_EDGES[1])
    assert summary["auroc"] == pytest.approx(roc_auc_score(~is_off, weights))
    assert summary["effective_share"] == pytest.approx(weights.sum() ** 2 / n / np.sum(weights**2))


def test_weights_of_one_kind_of_rows_have_no_auroc_and_weights_of_zero_no_effective_share():
    assert summary_of_weights(np.ones(4), np.zeros(4, dtype=bool)) == {
        "on": summary_of_weights(np.ones(4), np.zeros(4, dtype=bool))["on"], "auroc": None, "effective_share": 1.0,
    }  # fmt: skip
    assert summary_of_weights(np.zeros(4), np.array([True, True, False, False]))["effective_share"] is None


def record(method, seed, accuracy, shift="symmetric:0.4"):
    identity = {**experiment(shift).as_dict(), "method": method, "seed": seed, "n_train": 10}
    history = {"accuracy": accuracy, "loss": accuracy, "seconds": [1.0] * len(accuracy)}
    return {"identity": identity, "history": history, "weights": summary_of_weights(np.ones(3), np.array([True, False, False]))}


def test_the_aims_are_held_against_the_last_ten_epochs_of_all_seeds():
    runs = [record("uniform", seed, [0.1] * 5 + [0.80 + 0.01 * seed] * 10) for seed in range(2)]
    runs += [record("kmm", seed, [0.9] * 5 + [0.82 + 0.03 * seed] * 10) for seed in range(2)]
    runs += [record("kliep", seed, [0.80] * 15) for seed in range(2)] + [record("kmm@32", 0, [0.82] * 15)]
    runs += [record("kmm", 0, [0.3], shift="pair:0.3"), record("lsif", 0, [])]
    groups = grouped(runs)
    assert [list(methods) for methods in groups.values()] == [["kmm"], ["uniform", "kmm", "kliep", "kmm@32"]]
    assert last_epochs(runs[:2]) == pytest.approx([80.0, 81.0])
    rows = [(row["method"], row["points"], row["is met"]) for methods in groups.values() for row in aims_of(methods)]
    assert rows == [("ADIW-KL-L", "-0.50", "NO"), ("ADIW-KM-L", "+3.00", "yes"), ("ADIW-KM-L, bank 32", "-1.50", "NO")]


def test_the_paired_t_test_is_scipys_over_the_seeds():
    scores = {"kmm": [0.90, 0.91, 0.92, 0.93], "kliep": [0.895, 0.906, 0.914, 0.926], "lsif": [0.89, 0.93, 0.90, 0.92]}
    runs = [record(method, seed, [value] * 10) for method, values in scores.items() for seed, value in enumerate(values)]
    (methods,) = grouped(runs).values()
    words = {name: accuracy_row(name, methods)["as good as the best"] for name in scores}
    p = {name: ttest_rel(scores["kmm"], values).pvalue for name, values in scores.items() if name != "kmm"}
    assert p["kliep"] < 0.01 < p["lsif"] and words == {"kmm": "yes", "kliep": "no", "lsif": "yes"}


def test_stopped_early_is_the_test_accuracy_at_the_first_best_epoch_of_the_validation_rows():
    runs = [record("kmm", seed, [0.5, 0.7, 0.8 + 0.02 * seed, 0.9]) for seed in range(2)]
    for run in runs:
        run["history"]["val_accuracy"] = [0.6, 0.6, 0.75, 0.75]
    (methods,) = grouped(runs).values()
    assert accuracy_row("kmm", methods)["stopped early, %"] == "81.00 (1.41)"
    del runs[0]["history"]["val_accuracy"]  # a record of before
    assert accuracy_row("kmm", methods)["stopped early, %"] is None


def test_the_papers_tables_are_on_record():
    assert sum(data != "imagenet" for data, *_ in ACCURACY) == 9 * 10 + 2 * 6 + 2 * 5 + 3 * 4
    assert str(ACCURACY["cifar10", "symmetric:0.4", 1000, "losses", "kliep"]) == "87.05 (0.18)"
    assert str(ACCURACY["fashion_mnist", "pair:0.3", 1000, "losses", "lsif"]) == "90.00 (0.11)"
    ratios = [row["kmm"] / row["uniform"] for (data, *_), row in SECONDS.items() if data == "fashion_mnist" and "uniform" in row]
    assert [round(ratio, 1) for ratio in ratios] == [3.6, 3.7, 3.4]
    assert SECONDS["fashion_mnist", "class_prior:100:0.2", "losses"]["kliep"] == 8.39
    assert SECONDS["cifar10", "pair:0.3", "hidden"]["wasserstein"] == 75.74
    # The stages add up to the printed totals, but for the rounding of ten numbers.
    totals = {"imagenet": [(75.90, 33.14), (22.86, 23.15), (7.52, 7.81), (3.42, 2.04)]}
    totals["cifar10"] = [(6.28, 4.26), (6.61, 4.41), (5.96, 4.41), (3.38, 1.06)]
    for data, variants in STAGE_SECONDS.items():
        for printed, columns in zip(totals[data], variants.values(), strict=True):
            assert [sum(column.values()) for column in columns] == pytest.approx(printed, abs=0.06)


# ---------------------------------------------------------------- the command


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["paper", *map(str, arguments)])
    main()


def test_a_command_that_meets_its_time_limit_goes_on_when_it_is_given_again(tmp_path, monkeypatch, capsys):
    command = ["--methods", "uniform,kmm@16", "--seeds", 1, "--epochs", 2, "--n-val", 1000, "--output", tmp_path]
    command += ["--checkpoints", tmp_path / "ck"]
    run_main(monkeypatch, *command, "--minutes", 1e-6)
    words = capsys.readouterr().err
    assert "Stopped at the time limit" in words and "nothing to report" in words
    assert len(list((tmp_path / "ck").glob("*.pt"))) == 1
    run_main(monkeypatch, *command)
    runs = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")]
    assert {run["identity"]["method"]: run["is_done"] for run in runs} == {"uniform": True, "kmm@16": True}
    assert list((tmp_path / "ck").glob("*.pt")) == []
    before = {path: path.read_text() for path in (tmp_path / "runs").glob("*.json")}
    capsys.readouterr()
    run_main(monkeypatch, *command)
    assert capsys.readouterr().err.count("is there already") == 2
    assert before == {path: path.read_text() for path in (tmp_path / "runs").glob("*.json")}
    with pytest.raises(SystemExit):
        run_main(monkeypatch, *command, "--epochs", 3)
    assert "is of another run (epochs 2; asked for: epochs 3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "kmm,foo"], "Method 'foo' is not known; use some of val_only, uniform"),
        (["--methods", "uniform@32"], "'uniform@32' is no method with a bank"),
        (["--methods", "kmm@0"], "'kmm@0' is no method with a bank"),
        (["--data", "mnist"], "Data 'mnist' is not known"),
        (["--data", "letters:/nowhere.csv"], "There is no file /nowhere.csv"),
        (["--noise", "symmetric"], "The shift must be kind:rate"),
        (["--noise", "symmetric:1.5"], "The shift must be kind:rate"),
        (["--noise", "class_prior:0.5"], "The shift must be kind:rate"),
        (["--noise", "class_prior:5:1.5"], "the share of small classes in (0, 1)"),
        (["--noise", "symmetric:0.4:0.2"], "the share of small classes in (0, 1)"),
        (["--n-val", "ten"], "--n-val takes whole numbers"),
        (["--n-val", "1"], "n_val must be >= 2"),
        (["--n-val", "1290"], "fewer than one training batch"),
        (["--seeds", "x"], "--seeds takes whole numbers"),
        (["--network", "vgg"], "Network 'vgg' is not known; use one of ['convnet', 'lenet5', 'lstm', 'resnet18', 'small']"),
        (["--parameters", "published"], 'Nothing is published for data="digits", shift="label_noise"'),
        (["--parameters", "best"], "library or published"),
        (["--layer", "13", "--methods", "kmm"], "The model has no layer '13'"),
        (["--device", "tpu"], "tpu"),
        (["report"], "There are no records of runs"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_plain_line(tmp_path, monkeypatch, capsys, arguments, words):
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, *arguments, "--output", tmp_path, "--checkpoints", tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]


def test_the_quick_benchmark_runs_every_method_and_writes_its_tables_and_figures(tmp_path, monkeypatch):
    few = FEW._replace(inputs=FEW.inputs[:300], labels=FEW.labels[:300])
    with monkeypatch.context() as smaller:
        smaller.setattr("benchmarks.paper.__main__.draw_figures", lambda folder: None)
        smaller.setattr("benchmarks.paper.__main__.load_labelled", lambda name: few)
        smaller.setitem(SETTINGS, "digits", SETTINGS["digits"]._replace(n_test=100))
        smaller.setitem(QUICK, "n_val", 100)
        # The profiler takes as long as the training; the command above, of two methods, has it.
        smaller.setattr("benchmarks.paper.session.peak_memory", lambda step, device: 0 * step().numel())
        run_main(monkeypatch, "--quick", "--batch-size", 50, "--output", tmp_path)
    paths = sorted((tmp_path / "runs").glob("*.json"))
    runs = [json.loads(path.read_text()) for path in paths]
    assert all(run["is_done"] and len(run["history"]["accuracy"]) == 2 for run in runs)
    assert {run["identity"]["method"] for run in runs} >= set(METHODS) - {"diw_cvxpy", PLAIN, REBUILT}
    assert {run["identity"]["layer"] for run in runs} == {"losses", "hidden"}
    assert {path.name for path in tmp_path.iterdir()} >= {"accuracy.md", "accuracy.json", "cost_digits_small_cpu.md"}
    # A panel of a few methods shows what a panel of all shows.
    for path, run in zip(paths, runs, strict=True):
        if run["identity"]["method"] not in ("uniform", "kmm", "lsif@32"):
            path.unlink()
    run_main(monkeypatch, "report", "--output", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {
        "accuracy-digits-small-symmetric_0.4-100-losses-library-50.png",
        "weights-digits-small-class_prior_5-100-hidden-library-50.png",
        "boxes-digits-small-class_prior_5-100-hidden-library-50.png",
    }  # fmt: skip
    sections = {
        part["heading"]: part["rows"] for part in json.loads((tmp_path / "cost_digits_small_cpu.json").read_text())["sections"]
    }
    whole = next(rows for heading, rows in sections.items() if heading.startswith("Seconds of a batch"))
    assert {row["method"]: row["times Uniform"] for row in whole}["Uniform"] == 1.0 and len(whole) == 10
