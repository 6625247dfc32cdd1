"""Statistics of the weights, logged while training."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_cases import N_TRAIN, N_VAL, Log, losses, new, step, uniform
from torch import nn

from densratio import KMM
from densratio.training import DynamicReweighter, LiLAW, Monitor, RandomWeights, Uniform, ValidationOnly

drawn = settings(max_examples=25, deadline=None)


class Writer:
    """The one method of a SummaryWriter that is used; it is callable by mistake."""

    def __init__(self):
        self.scalars = []

    def __call__(self, *args):
        raise AssertionError("a writer is not called")

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.scalars.append((tag, scalar_value, global_step))


def batch(model, reweighter, n=4):
    x, y, i = torch.zeros(n, 2), torch.zeros(n, dtype=torch.int64), torch.arange(n)
    return reweighter.weighted_loss(model, (x, y, i), (x, y, i))


# ---------------------------------------------------------------- the numbers, by hand


def test_every_statistic_of_given_weights():
    log = Log()
    reweighter = uniform([0.0, 0.0, 1.0, 3.0])
    Monitor(log, every=1, labels=["a", "b", "a", "b"]).step(reweighter, [2, 3])
    # (0 + 0 + 1 + 3)^2 / (4 (1 + 9)) and (1 + 3)^2 / (2 (1 + 9))
    quantiles = np.quantile([0.0, 0.0, 1.0, 3.0], [0.05, 0.25, 0.5, 0.75, 0.95])
    expected = {
        "weights/effective_share": 0.4,
        "weights/batch_effective_share": 0.8,
        **dict(zip([f"weights/quantile_{q}" for q in ("05", "25", "50", "75", "95")], quantiles, strict=True)),
        "weights/share_at_zero": 0.5,
        "weights/class_a": 0.5,
        "weights/class_b": 1.5,
    }
    assert log.last == pytest.approx(expected, rel=1e-12)
    assert len(log) == len(expected)


@given(weights=st.lists(st.floats(0.0, 100.0, width=16), min_size=1, max_size=30).filter(any))
@drawn
def test_quantiles_are_numpys_and_the_effective_share_is_kishs(weights):
    log, w = Log(), np.array(weights)
    Monitor(log, every=1).step(uniform(weights), [0])
    assert [log.last[f"weights/quantile_{q}"] for q in ("25", "50", "75")] == np.quantile(w, [0.25, 0.5, 0.75]).tolist()
    assert log.last["weights/effective_share"] == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()), rel=1e-9)


def test_weights_that_are_all_zero_have_no_effective_row():
    log, reweighter = Log(), ValidationOnly(4)
    reweighter.monitor = Monitor(log, every=1)
    batch(nn.Linear(2, 2), reweighter)
    assert log.last["weights/effective_share"] == log.last["weights/batch_effective_share"] == 0.0
    assert log.last["weights/share_at_zero"] == 1.0


def test_drift_is_the_mean_absolute_change_since_the_last_log():
    log, reweighter = Log(), uniform([1.0, 1.0])
    reweighter.monitor = Monitor(log, every=2)
    for weights in ([1.0, 1.0], [0.0, 2.0], [9.0, 9.0], [0.5, 1.5], [0.0, 0.0], [0.5, 1.5]):
        reweighter.weights_.copy_(torch.tensor(weights))
        batch(nn.Linear(2, 2), reweighter, n=2)
    drift = {step: value for name, value, step in log if name == "weights/drift"}
    assert drift == {4: 0.5, 6: 0.0}


@pytest.mark.parametrize(
    ("params", "share"),
    [({"ratio": KMM(max_weight=1.5, regularization=0.0)}, 0.25), ({"ratio": KMM(max_weight=None)}, None), ({"ratio": "lsif"}, None),
     ({"ratio": "auto"}, None)],
)  # fmt: skip
def test_saturation_is_counted_where_the_ratio_has_a_bound(params, share):
    log = Log()
    reweighter = DynamicReweighter(**params, n_train=4, n_val=4)
    # A hair below the bound is at it; half of it is not.
    reweighter.weights_.copy_(torch.tensor([1.4999999, 0.75, 1.49, 0.0]))
    Monitor(log, every=1).step(reweighter, [0])
    assert log.last.get("weights/share_at_bound") == share


def test_class_by_class_the_bound_takes_the_class_prior_ratio():
    log = Log()
    # Class 0: (1/4) / (1/2) = 1/2, class 1: (3/4) / (1/2) = 3/2; bounds 1 and 3.
    reweighter = DynamicReweighter(KMM(max_weight=2.0), 4, 4, y_train=[0, 0, 1, 1], y_val=[0, 1, 1, 1])
    reweighter.weights_.copy_(torch.tensor([1.0, 0.9, 2.9, 3.0]))
    Monitor(log, every=1).step(reweighter, [0])
    assert log.last["weights/share_at_bound"] == 0.5


def test_a_class_that_the_target_has_not_is_at_zero_and_not_at_its_bound():
    log = Log()
    reweighter = DynamicReweighter(KMM(max_weight=2.0), 4, 2, y_train=[0, 0, 1, 1], y_val=[0, 0])
    reweighter.weights_.copy_(torch.tensor([2.0, 2.0, 0.0, 0.0]))
    Monitor(log, every=1).step(reweighter, [0])
    assert (log.last["weights/share_at_bound"], log.last["weights/share_at_zero"]) == (0.0, 0.5)


def test_classes_that_the_reweighter_knows_are_the_labels_unless_others_are_given():
    log = Log()
    reweighter = DynamicReweighter("kmm", 4, 2, y_train=[0, 0, 1, 1], y_val=[0, 1])
    reweighter.weights_.copy_(torch.tensor([0.0, 1.0, 2.0, 4.0]))
    Monitor(log, every=1).step(reweighter, [0])
    assert (log.last["weights/class_0"], log.last["weights/class_1"]) == (0.5, 3.0)
    other = Log()
    Monitor(other, every=1, labels=torch.tensor([7, 7, 7, 8])).step(reweighter, [0])
    assert (other.last["weights/class_7"], other.last["weights/class_8"]) == (1.0, 4.0)
    assert "weights/class_0" not in other.last


def test_labels_not_met_yet_are_no_class():
    log = Log()
    reweighter = new(n_train=4, n_val=2)
    reweighter.monitor = Monitor(log, every=1)
    reweighter.partial_fit(losses(2, 0), losses(2, 1), [0, 3], [0, 1], y=[2, 2], y_val=[2, 2])
    named = {name for name, _, _ in log if "class" in name}
    assert named == {"weights/class_2"}
    assert log.last["weights/class_2"] == pytest.approx(float(reweighter.weights_[[0, 3]].mean()), rel=1e-6)


def test_shares_of_the_mixture_are_logged():
    log, reweighter = Log(), new("auto")
    reweighter.monitor = Monitor(log, every=1)
    step(reweighter)
    assert {name: log.last[f"weights/share_{name}"] for name in reweighter.share_} == dict.fromkeys(reweighter.share_, 0.25)


# ---------------------------------------------------------------- when it logs


@pytest.mark.parametrize("every", [1, 3, 7])
@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein"])
def test_it_logs_at_every_th_step_and_nothing_between(name, every):
    log, reweighter = Log(), new(name)
    reweighter.monitor = Monitor(log, every=every)
    for seed in range(15):
        step(reweighter, seed)
        assert {s for _, _, s in log} == set(range(every, seed + 2, every))
    assert len({(n, s) for n, _, s in log}) == len(log)


@pytest.mark.parametrize("kind", [Uniform, RandomWeights, ValidationOnly])
def test_every_reweighter_is_monitored_in_its_loop(kind):
    log, reweighter = Log(), kind(4)
    reweighter.monitor = Monitor(log, every=2)
    for _ in range(4):
        batch(nn.Linear(2, 2), reweighter)
    assert sorted({s for _, _, s in log}) == [2, 4]
    assert log.last["weights/quantile_95"] == pytest.approx(np.quantile(reweighter.weights_.double().numpy(), 0.95))


def test_the_logged_batch_is_that_of_the_step():
    log, reweighter = Log(), new()
    reweighter.monitor = Monitor(log, every=1)
    for seed, index in enumerate([[0, 1, 2, 3], [5, 9, 11]]):
        step(reweighter, seed, index)
        w = reweighter.weights_[index].double().numpy()
        assert log.last["weights/batch_effective_share"] == pytest.approx(w.sum() ** 2 / (len(w) * (w**2).sum()), rel=1e-9)


def test_between_two_logs_no_value_is_looked_at():
    # On "meta" there are no values, and torch itself raises this error where one is looked at, as the log does in the third step.
    reweighter = new().to("meta")
    reweighter.monitor = Monitor(Log(), every=3)
    train, val = torch.empty(N_TRAIN, device="meta"), torch.empty(N_VAL, device="meta")
    for _ in range(2):
        reweighter.partial_fit(train, val, range(N_TRAIN), range(N_VAL))
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor; no data"):
        reweighter.partial_fit(train, val, range(N_TRAIN), range(N_VAL))


def test_without_a_monitor_nothing_of_it_is_called(monkeypatch):
    monkeypatch.setattr(Monitor, "step", lambda *args: pytest.fail("called"))
    for reweighter in (new(), Uniform(4), RandomWeights(4), ValidationOnly(4)):
        assert reweighter.monitor is None
    step(new())
    batch(nn.Linear(2, 2), Uniform(4))


def test_a_monitor_changes_no_weight():
    plain, watched = new("wasserstein"), new("wasserstein")
    watched.monitor = Monitor(Log(), every=1)
    for seed in range(4):
        assert torch.equal(step(plain, seed).weights_, step(watched, seed).weights_)


# ---------------------------------------------------------------- writers, copies, checkpoints


def test_a_writer_and_a_callable_are_told_the_same():
    writer, log = Writer(), Log()
    for told in (writer, log):
        reweighter = new()
        reweighter.monitor = Monitor(told, every=2)
        for seed in range(4):
            step(reweighter, seed)
    assert writer.scalars == list(log) != []


def test_tensorboard_reads_back_what_was_logged(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", exc_type=ImportError)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = Log()
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        for told in (writer, log):
            reweighter = new("lsif")
            reweighter.monitor = Monitor(told, every=2)
            for seed in range(4):
                step(reweighter, seed)
    events = EventAccumulator(str(tmp_path)).Reload()
    read = {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    assert read == pytest.approx({(name, s): value for name, value, s in log}, rel=1e-6)


def test_copies_and_pickles_take_their_monitor_along_and_log_on():
    for copied in (copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))):
        reweighter = new()
        reweighter.monitor = Monitor(Log(), every=2)
        step(reweighter)
        twin = copied(reweighter)
        assert twin.monitor is not reweighter.monitor
        for seed in (1, 2, 3):
            step(reweighter, seed), step(twin, seed)
        assert list(twin.monitor.log) == list(reweighter.monitor.log)
        assert sorted({s for _, _, s in twin.monitor.log}) == [2, 4]


def test_a_checkpoint_has_no_trace_of_the_monitor_and_the_steps_go_on_after_it():
    plain, watched = new(), new()
    watched.monitor = Monitor(Log(), every=3)
    for seed in range(2):
        step(plain, seed), step(watched, seed)
    assert watched.state_dict().keys() == plain.state_dict().keys()
    resumed, log = new(), Log()
    resumed.load_state_dict(watched.state_dict())
    resumed.monitor = Monitor(log, every=3)
    step(resumed, 2)
    assert {s for _, _, s in log} == {3}


@pytest.mark.parametrize("every", [0, -1, 2.0, True, None])
def test_every_must_be_a_whole_number_of_steps(every):
    with pytest.raises(ValueError, match="every must be an int >= 1"):
        Monitor(Log(), every=every)


def test_the_log_must_be_a_writer_or_a_callable():
    with pytest.raises(TypeError, match="add_scalar"):
        Monitor("runs/1")


def test_labels_of_another_length_are_told_with_the_first_step():
    reweighter = new()
    reweighter.monitor = Monitor(Log(), every=100, labels=[0, 1])
    with pytest.raises(ValueError, match=rf"labels must be \({N_TRAIN},\).*got shape \(2,\)"):
        step(reweighter)


def test_the_change_of_the_weights_adds_up():
    log, reweighter = Log(), uniform([1.0, 1.0, 1.0])
    monitor = Monitor(log, every=1)
    path = [[1.0, 1.0, 1.0], [0.5, 1.5, 1.0], [0.5, 1.0, 1.5], [1.0, 1.0, 1.0]]
    for number, weights in enumerate(path, start=1):
        reweighter.weights_.copy_(torch.tensor(weights))
        reweighter.steps_seen = number
        monitor.step(reweighter, torch.arange(3))
    assert log.last["weights/total_change"] == float(np.abs(np.diff(path, axis=0)).sum())


def test_learned_numbers_are_logged_by_name():
    log = Log()
    Monitor(log, every=1).step(LiLAW(3, alpha=9.0), torch.arange(3))
    assert {name: value for name, value in log.last.items() if name.startswith("parameters/")} == {
        "parameters/alpha": 9.0, "parameters/beta": 2.0, "parameters/delta": 6.0,
    }  # fmt: skip
