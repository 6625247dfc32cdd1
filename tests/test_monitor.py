"""What the weights say: statistics logged while training, and rows ranked by how likely their labels are wrong."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from densratio import KMM
from densratio.training import DynamicReweighter, Monitor, RandomWeights, Uniform, ValidationOnly, suspicious_rows
from densratio.training.loop.row_losses import RowLosses

drawn = settings(max_examples=25, deadline=None)
N_TRAIN, N_VAL = 12, 6


class Log(list):
    """Remembers (name, value, step) of every call."""

    def __call__(self, name, value, step):
        assert type(name) is str and type(value) is float and type(step) is int
        self.append((name, value, step))

    @property
    def last(self):
        """Values by name of the last logged step."""
        return {name: value for name, value, step in self if step == self[-1][2]}


class Writer:
    """The one method of a SummaryWriter that is used; it is callable by mistake."""

    def __init__(self):
        self.scalars = []

    def __call__(self, *args):
        raise AssertionError("a writer is not called")

    def add_scalar(self, tag, scalar_value, global_step=None):
        self.scalars.append((tag, scalar_value, global_step))


def uniform(weights):
    """A reweighter that holds these weights."""
    reweighter = Uniform(len(weights))
    reweighter.weights_.copy_(torch.tensor(weights))
    return reweighter


def new(name="kmm", n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **{"warmup_epochs": 0, **params})


def losses(n, seed):
    return 2.0 * torch.rand(n, generator=torch.Generator().manual_seed(seed))


def step(reweighter, seed=0, index=None):
    index = torch.arange(N_TRAIN) if index is None else torch.as_tensor(index)
    return reweighter.partial_fit(losses(len(index), seed), losses(N_VAL, 100 + seed), index)


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


# ---------------------------------------------------------------- the mean loss of each row


def test_the_mean_loss_counts_a_visit_by_its_epoch():
    reweighter = new(n_train=4, n_val=4)
    first, second, third = (torch.tensor(x) for x in ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0], [8.0, 1.0]))
    val = losses(4, 9)
    for train, index in ((first, [0, 1, 2, 3]), (second, [3, 0]), (third, [2, 3])):
        reweighter.partial_fit(train, val, index, range(len(val)))
    # Epochs 1 + rows seen / 4: 1, 2 and 2.5.
    expected = [(1 * 1 + 2 * 6) / 3, 2.0, (1 * 3 + 2.5 * 8) / 3.5, (1 * 4 + 2 * 5 + 2.5 * 1) / 5.5]
    assert reweighter.row_losses.means().tolist() == pytest.approx(expected, rel=1e-6)
    assert suspicious_rows(reweighter).tolist() == [2, 0, 3, 1]


def test_a_row_that_stands_twice_counts_with_both_losses():
    record = RowLosses(3)
    record.record(torch.tensor([1.0, 5.0, 2.0]), torch.tensor([0, 0, 2]), 1.0)
    assert record.means()[[0, 2]].tolist() == [3.0, 2.0]
    assert bool(record.means()[1].isnan())


def test_losses_of_the_warm_up_count_and_a_row_out_of_the_batch_keeps_its_mean():
    reweighter = new(warmup_epochs=1.0)
    step(reweighter, 3)
    before = reweighter.row_losses.means().clone()
    assert before.tolist() == pytest.approx(losses(N_TRAIN, 3).tolist())
    step(reweighter, 4, [1, 2])
    rest = [i for i in range(N_TRAIN) if i not in (1, 2)]
    assert torch.equal(reweighter.row_losses.means()[rest], before[rest])
    assert not torch.equal(reweighter.row_losses.means()[[1, 2]], before[[1, 2]])


def test_weighted_loss_records_losses_and_not_what_is_compared_in_their_place():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    x, y, i = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1]), torch.arange(5)
    expected = cross_entropy(model(x), y, reduction="none").tolist()
    for params in ({}, {"layer": "0"}, {"transformation": lambda prediction, label, losses: -losses}):
        reweighter = new("kmm", 5, 5, **params)
        reweighter.weighted_loss(model, (x, y, i), (x, y, i))
        assert reweighter.row_losses.means().tolist() == pytest.approx(expected, rel=1e-5)


def test_partial_fit_takes_the_losses_beside_features():
    features, told = torch.rand(3, 2), torch.tensor([3.0, 1.0, 2.0])
    reweighter = new(n_train=3, n_val=3).partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=told)
    assert suspicious_rows(reweighter).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match=r"losses must be \(3,\), one for each row of train; got shape \(2,\)"):
        reweighter.partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=told[:2])


def test_losses_beside_features_that_are_no_numbers_are_left_out():
    features, told = torch.rand(3, 2), torch.tensor([3.0, float("nan"), float("inf")])
    reweighter = new(n_train=3, n_val=3)
    for values in (torch.tensor([1.0, 2.0, 4.0]), told):
        reweighter.partial_fit(features, features, [0, 1, 2], [0, 1, 2], losses=values)
    assert reweighter.row_losses.means().tolist() == pytest.approx([(1 * 1 + 2 * 3) / 3, 2.0, 4.0])


def test_a_batch_that_cannot_be_used_leaves_the_means_to_the_bit():
    reweighter = step(new())
    before = reweighter.row_losses.means().clone()
    with pytest.raises(ValueError, match="NaN or infinity"):
        reweighter.partial_fit(torch.full((N_TRAIN,), float("nan")), losses(N_VAL, 1), range(N_TRAIN))
    assert torch.equal(reweighter.row_losses.means(), before)
    record = RowLosses(2)
    record.record(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), 1.0)
    record.record(torch.tensor([float("nan"), 7.0]), torch.tensor([0, 1]), 2.0, torch.tensor(False))
    assert record.means().tolist() == [1.0, 2.0]


# ---------------------------------------------------------------- the ranking

means = st.lists(st.integers(0, 5), min_size=1, max_size=20)


def with_means(values, visited=None):
    """A reweighter whose rows had these losses, some of them never."""
    reweighter = new(n_train=len(values))
    visited = range(len(values)) if visited is None else visited
    at = torch.tensor([*visited], dtype=torch.int64)
    reweighter.row_losses.record(torch.tensor(values, dtype=torch.float32)[at], at, 1.0)
    return reweighter


@given(values=means)
@drawn
def test_the_ranking_is_a_permutation_from_the_highest_mean_to_the_lowest_with_ties_in_order(values):
    rows = suspicious_rows(with_means(values))
    assert isinstance(rows, np.ndarray) and np.issubdtype(rows.dtype, np.integer)
    assert rows.tolist() == sorted(range(len(values)), key=lambda i: (-values[i], i))


@given(values=st.lists(st.integers(0, 1000), min_size=1, max_size=20, unique=True), seed=st.integers(0, 1000))
@drawn
def test_reordering_the_rows_reorders_the_ranking(values, seed):
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = suspicious_rows(with_means([values[i] for i in order]))
    assert order[shuffled].tolist() == suspicious_rows(with_means(values)).tolist()


@given(values=means, data=st.data())
@drawn
def test_k_rows_are_the_first_of_all(values, data):
    k = data.draw(st.integers(1, len(values)))
    reweighter = with_means(values)
    assert suspicious_rows(reweighter, k).tolist() == suspicious_rows(reweighter).tolist()[:k]


def test_rows_never_visited_come_last_in_their_order():
    assert suspicious_rows(with_means([0, 9, 1, 9, 2], visited=[0, 2, 4])).tolist() == [4, 2, 0, 1, 3]


def test_with_labels_a_row_is_held_against_the_lower_quartile_of_its_class():
    # Class "hard" has losses 10 to 14, lower quartile 11; class "easy" 0 to 6, lower quartile 0.
    values, labels = [10, 11, 12, 13, 14, 0, 0, 0, 6, 2], ["hard"] * 5 + ["easy"] * 5
    assert suspicious_rows(with_means(values), 3).tolist() == [4, 3, 2]
    scores = [-1, 0, 1, 2, 3, 0, 0, 0, 6, 2]
    ranked = sorted(range(10), key=lambda i: (-scores[i], i))
    assert suspicious_rows(with_means(values), labels=labels).tolist() == ranked


def test_with_labels_a_class_never_visited_comes_last():
    labels = torch.tensor([0, 0, 1, 1, 2])
    assert suspicious_rows(with_means([1, 5, 9, 9, 3], visited=[0, 1, 4]), labels=labels).tolist() == [1, 4, 0, 2, 3]


def test_where_only_features_were_told_the_weights_rank_the_least_first():
    reweighter, features = new(), torch.rand(N_TRAIN, 2, generator=torch.Generator().manual_seed(0))
    reweighter.partial_fit(features, features[:N_VAL] / 2, range(N_TRAIN), range(N_VAL))
    weights = reweighter.weights_.tolist()
    assert len(set(weights)) > 1
    assert suspicious_rows(reweighter).tolist() == sorted(range(N_TRAIN), key=lambda i: (weights[i], i))


def test_a_reweighter_without_losses_ranks_by_its_weights_and_equal_ones_do_not_rank():
    assert suspicious_rows(uniform([0.5, 2.0, 0.0])).tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="nothing to rank by"):
        suspicious_rows(Uniform(3))
    with pytest.raises(ValueError, match="nothing to rank by"):
        suspicious_rows(new())


def test_a_reweighter_that_is_warming_up_says_so():
    reweighter = new(warmup_epochs=1.0)
    step(reweighter, 0, range(N_TRAIN - 1))
    with pytest.raises(ValueError, match="still warming up"):
        suspicious_rows(reweighter)
    step(reweighter, 1, [0])
    assert suspicious_rows(reweighter).tolist()[-1] == N_TRAIN - 1


@pytest.mark.parametrize("k", [0, -1, 4, 2.0, True])
def test_k_must_be_a_number_of_rows(k):
    with pytest.raises(ValueError, match="k must be an int from 1 to 3"):
        suspicious_rows(with_means([1, 2, 3]), k)


def test_labels_must_be_one_for_each_row():
    with pytest.raises(ValueError, match=r"labels must be \(3,\).*got shape \(2,\)"):
        suspicious_rows(with_means([1, 2, 3]), labels=[0, 1])


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein", "auto"])
def test_a_run_that_stops_and_resumes_ranks_the_same(name):
    whole, stopped, resumed = new(name), new(name), new(name)
    for seed in range(6):
        step(whole, seed)
    for seed in range(3):
        step(stopped, seed)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        step(resumed, seed)
    assert torch.equal(resumed.row_losses.means(), whole.row_losses.means())
    assert suspicious_rows(resumed).tolist() == suspicious_rows(whole).tolist()


@pytest.mark.parametrize("name", ["kmm", "kliep", "lsif", "wasserstein"])
def test_flipped_labels_of_two_clouds_come_first(name):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = torch.tensor(rng.normal(6.0 * y[:, None] - 3.0, 1.0, (300, 2)), dtype=torch.float32)
    flipped = rng.choice(200, 60, replace=False)
    noisy = torch.tensor(np.where(np.isin(np.arange(300), flipped), 1 - y, y))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
    reweighter = new(name, 200, 100, warmup_epochs=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    val = (x[200:], noisy[200:], torch.arange(100))
    for _ in range(15):
        for i in torch.tensor(rng.permutation(200)).split(50):
            optimizer.zero_grad()
            reweighter.weighted_loss(model, (x[i], noisy[i], i), val).backward()
            optimizer.step()
    assert set(suspicious_rows(reweighter, 60).tolist()) == set(flipped.tolist())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_recording_losses_and_counting_steps_do_not_wait():
    record, reweighter = RowLosses(8).to("cuda"), Uniform(8).to("cuda")
    monitor = Monitor(Log(), every=3)
    told, at, is_usable = torch.rand(4, device="cuda"), torch.arange(4, device="cuda"), torch.tensor(True, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for epoch in (1.0, 2.0):
            record.record(told, at, epoch, is_usable)
            monitor.step(reweighter, at)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert record.means()[:4].tolist() == pytest.approx(told.tolist())
