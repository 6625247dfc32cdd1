"""skorch gives the weights of a plain loop on the same batches, and resumes where it stopped."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from integration_cases import (
    DIGITS,
    LEARNING_RATE,
    MAKERS,
    N_COLUMNS,
    N_TRAIN,
    N_VAL,
    SIZE,
    TRAIN,
    VAL,
    Recorded,
    all_methods,
    assert_moved_after_the_warm_up,
    assert_same_parameters,
    assert_same_weights,
    assert_whole_passes,
    dynamic,
    network,
    one_thread,  # noqa: F401
    plain_loop,
    same,
)
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Subset

from densratio import KLIEP
from densratio.training import CMWNet, DynamicReweighter, RandomWeights, Uniform
from densratio.training.losses import squared_error


class Net(nn.Sequential):
    def __init__(self, seed=0):
        super().__init__(*network(seed))


@pytest.fixture
def skorch():
    pytest.importorskip("skorch")
    from densratio.training.integrations import skorch

    return skorch


ARRAYS = tuple(part.numpy() for part in TRAIN)


def net_of(skorch, reweighter=DynamicReweighter, kind=None, module=Net, **params):
    settings = {
        "criterion": nn.CrossEntropyLoss, "max_epochs": 3, "lr": LEARNING_RATE, "batch_size": SIZE, "train_split": None,
        "verbose": 0, "val_set": tuple(part.numpy() for part in VAL), "iterator_train__shuffle": True, **params,
    }  # fmt: skip
    if reweighter is DynamicReweighter:
        settings = {"reweighter__ratio": "kliep", **settings}
    return (kind or skorch.ReweightedClassifier)(module, reweighter=reweighter, **settings)


@all_methods
def test_a_skorch_net_gives_the_weights_of_a_plain_loop(skorch, method):
    made = []

    def recorded(n_train, n_val):
        made.append(Recorded(MAKERS[method](n_train, n_val, 0)))
        return made[-1].reweighter

    net = net_of(skorch, recorded).fit(*ARRAYS)
    [told] = made
    assert net.reweighter_ is told.reweighter
    assert_whole_passes(told.batches, N_TRAIN, 3)
    model = network()
    assert_same_weights(told.weights, plain_loop(told.batches, MAKERS[method](N_TRAIN, N_VAL, 0), model))
    assert_same_parameters(net.module_, model)
    if isinstance(told.reweighter, DynamicReweighter):
        assert_moved_after_the_warm_up(told.weights)


def test_a_net_is_cross_validated_and_searched_over(skorch):
    from sklearn.model_selection import GridSearchCV, cross_val_score

    net = net_of(skorch, reweighter__warmup_epochs=0)
    assert cross_val_score(net, *ARRAYS, cv=3, error_score="raise").shape == (3,)
    grid = {"reweighter__ratio": ["kmm", KLIEP(gamma=2.0)], "val_set__batch_size": [6]}
    search = GridSearchCV(net, grid, cv=2, error_score="raise").fit(*ARRAYS)
    assert len(search.cv_results_["params"]) == 2
    best = search.best_estimator_.reweighter_
    assert len(best.weights_) == N_TRAIN and not torch.equal(best.weights_, torch.ones(N_TRAIN))
    net.set_params(reweighter__ratio=KLIEP())
    inner = GridSearchCV(net, {"reweighter__ratio__gamma": [0.5, 1.5]}, cv=2, error_score="raise")
    assert inner.fit(*ARRAYS).best_estimator_.reweighter_.ratio.gamma == inner.best_params_["reweighter__ratio__gamma"]


def test_the_training_rows_are_those_that_the_train_split_leaves(skorch):
    from skorch.dataset import ValidSplit

    net = net_of(skorch, train_split=ValidSplit(5)).fit(*ARRAYS)
    assert len(net.reweighter_.weights_) == N_TRAIN * 4 // 5
    assert len(net.history[:, "valid_loss"]) == 3 and np.isfinite(net.history[:, "valid_loss"]).all()


def test_parameters_set_after_fit_count_from_the_next_fit_on(skorch):
    net = net_of(skorch).fit(*ARRAYS)
    first = net.reweighter_
    net.set_params(reweighter__ratio="wasserstein", val_set__batch_size=3, lr=0.2)
    assert net.reweighter_ is first
    net.fit(*ARRAYS)
    assert type(net.reweighter_.ratio).__name__ == "Wasserstein" and net.get_params()["reweighter__ratio"] == "wasserstein"
    assert net.reweighting_.batches.batch_size == 3 and net.optimizer_.param_groups[0]["lr"] == 0.2


def test_a_refused_parameter_leaves_those_of_the_reweighter(skorch):
    net = net_of(skorch)
    before = net.get_params(deep=False)
    with pytest.raises(ValueError, match="nonsense"):
        net.set_params(reweighter__ratio="wasserstein", val_set__batch_size=3, nonsense=1)
    assert str(net.get_params(deep=False)) == str(before)


@pytest.mark.parametrize("ratio", ["kliep", "wasserstein"])
@pytest.mark.parametrize("by", ["pickle", "save_params"])
def test_a_resumed_net_gives_the_weights_of_one_that_did_not_stop(skorch, by, ratio):
    def new():
        return net_of(skorch, reweighter__ratio=ratio, iterator_train__shuffle=False, reweighter__n_train=N_TRAIN, max_epochs=2)

    whole = new().fit(*ARRAYS)
    files = {name: io.BytesIO() for name in ("f_params", "f_optimizer", "f_reweighting")}
    whole.save_params(**files)
    pickled = pickle.dumps(whole)
    whole.partial_fit(*ARRAYS)
    if by == "pickle":
        resumed = pickle.loads(pickled)
    else:
        for file in files.values():
            file.seek(0)
        resumed = new().initialize()
        resumed.load_params(**files)
    resumed.partial_fit(*ARRAYS)
    assert same(whole.reweighting_.state_dict(), resumed.reweighting_.state_dict())
    assert not torch.equal(whole.reweighter_.weights_, torch.ones(N_TRAIN))
    assert np.array_equal(whole.predict_proba(ARRAYS[0]), resumed.predict_proba(ARRAYS[0]))


def test_callbacks_see_batches_and_predictions_as_ever(skorch):
    from skorch.callbacks import EpochScoring

    scoring = EpochScoring("accuracy", name="train_acc", on_train=True, lower_is_better=False)
    for reweighter in (DynamicReweighter, Uniform, MAKERS["val_only"]):
        takes = {} if reweighter is not MAKERS["val_only"] else {"reweighter__seed": 0}
        net = net_of(skorch, reweighter, callbacks=[("scoring", scoring)], **takes).fit(*ARRAYS)
        assert len(net.history[:, "train_acc"]) == 3 and 0 < net.history[-1, "train_acc"] <= 1


def test_a_skorch_checkpoint_holds_the_weights(skorch, tmp_path):
    from skorch.callbacks import Checkpoint, LoadInitState

    def new(epochs, *callbacks):
        return net_of(skorch, reweighter__n_train=N_TRAIN, iterator_train__shuffle=False, max_epochs=epochs, callbacks=[*callbacks])

    checkpoint = Checkpoint(dirname=tmp_path, monitor=None, f_reweighting="reweighting.pt")
    new(2, checkpoint).fit(*ARRAYS)
    resumed = new(2, LoadInitState(checkpoint)).fit(*ARRAYS)
    whole = new(4).fit(*ARRAYS)
    assert same(whole.reweighting_.state_dict(), resumed.reweighting_.state_dict())
    assert_same_parameters(whole.module_, resumed.module_)


def test_a_batch_of_all_rows_is_compared_with_all_validation_rows(skorch):
    net = net_of(skorch, batch_size=-1, reweighter__warmup_epochs=0).fit(*ARRAYS)
    assert net.reweighting_.batches.batch_size == N_VAL and net.history[-1, "train_batch_count"] == 1
    assert net.reweighter_.weights_.mean() == pytest.approx(1.0, abs=1e-5)


def test_other_criteria_modules_and_layers(skorch):
    class Regressor(nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.out = nn.Linear(N_COLUMNS, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x)))

    x, y = ARRAYS[0], ARRAYS[0][:, :1] ** 2
    val_set = VAL[0].numpy(), VAL[0].numpy()[:, :1] ** 2
    params = {"kind": skorch.ReweightedRegressor, "criterion": nn.MSELoss, "val_set": val_set, "reweighter__warmup_epochs": 0}
    net = net_of(skorch, module=Regressor, **params).fit(x, y)
    assert not torch.equal(net.reweighter_.weights_, torch.ones(N_TRAIN))

    class Probabilities(Net):
        def forward(self, x):
            return super().forward(x).softmax(dim=1)

    by_layer = {"reweighter__ratio": "kmm", "reweighter__layer": "0", "reweighter__warmup_epochs": 0}
    net = net_of(skorch, module=Probabilities, criterion=nn.NLLLoss, **by_layer).fit(*ARRAYS)
    assert not torch.equal(net.reweighter_.weights_, torch.ones(N_TRAIN))


def test_a_skorch_net_trains_better_with_weights_than_without(skorch):
    def accuracy(reweighter, **params):
        settings = {"optimizer": torch.optim.Adam, "lr": DIGITS.learning_rate, "batch_size": DIGITS.batch_size,
                    "max_epochs": DIGITS.epochs, "val_set": DIGITS.val, **params}  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = net_of(skorch, reweighter, module=DIGITS.network, **settings).fit(*DIGITS.train)
        return net.score(*DIGITS.test)

    assert accuracy(DynamicReweighter, reweighter__ratio="lsif") > accuracy(Uniform) + 0.05


@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_sample_weight_multiplies_the_weights(skorch, unit):
    weight = np.random.default_rng(0).exponential(size=N_TRAIN)
    params = {"iterator_train__shuffle": False, "reweighter__warmup_epochs": 0}
    net = net_of(skorch, **params).fit(*ARRAYS, sample_weight=unit * weight)
    reweighter = DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_epochs=0)
    reweighter.set_base_weights(weight)
    order = [(rows, None) for rows in torch.arange(N_TRAIN).split(SIZE)] * 3
    model, batches = network(), net.reweighting_.batches
    batches.rows_drawn = 0
    order = [(rows, next(batches)[1]) for rows, _ in order]
    assert_same_weights([net.reweighter_.weights_], plain_loop(order, reweighter, model)[-1:], exact=False)
    assert_same_parameters(net.module_, model)
    plain = net_of(skorch, **params).fit(*ARRAYS)
    assert not torch.allclose(plain.module_[0].weight, net.module_[0].weight, atol=1e-3)


def test_sample_weight_follows_the_rows_of_the_train_split_and_of_folds(skorch):
    from sklearn.model_selection import GridSearchCV
    from skorch.dataset import ValidSplit

    weight = np.arange(1.0, N_TRAIN + 1)
    net = net_of(skorch, train_split=ValidSplit(3), max_epochs=1).fit(*ARRAYS, sample_weight=weight)
    dataset = net.get_dataset(*ARRAYS)
    kept = weight[ValidSplit(3)(dataset, ARRAYS[1])[0].indices]
    np.testing.assert_allclose(net.reweighter_.base_weights, kept / kept.mean(), rtol=1e-6)
    net.partial_fit(*ARRAYS)
    assert net.reweighter_.base_weights is None
    turned = net_of(skorch, train_split=lambda dataset, y: (Subset(dataset, range(N_TRAIN)[::-1]), None), max_epochs=1)
    turned.fit(*ARRAYS, sample_weight=weight)
    np.testing.assert_allclose(turned.reweighter_.base_weights, weight[::-1] / weight.mean(), rtol=1e-6)
    part = Subset(dataset, [*range(N_TRAIN)][::-1])
    rows = net_of(skorch, max_epochs=1).fit(part, None, sample_weight=weight)
    np.testing.assert_allclose(rows.reweighter_.base_weights, weight / weight.mean(), rtol=1e-6)
    grid = GridSearchCV(net_of(skorch, max_epochs=1), {"lr": [0.1]}, cv=2, error_score="raise").fit(*ARRAYS, sample_weight=weight)
    assert len(grid.best_estimator_.reweighter_.base_weights) == N_TRAIN
    with pytest.raises(ValueError, match=r"sample_weight must be \(90,\)"):
        net.fit(*ARRAYS, sample_weight=weight[:-1])
    others = net_of(skorch, train_split=lambda dataset, y: ([*dataset][:80], None), reweighter__n_train=80)
    with pytest.raises(ValueError, match="needs a train_split that gives"):
        others.fit(*ARRAYS, sample_weight=weight)


def test_a_column_beside_a_vector_is_no_loss_of_each_row(skorch):
    x, y = ARRAYS[0], ARRAYS[0][:, 0]
    net = net_of(skorch, kind=skorch.ReweightedRegressor, module=nn.Linear, module__in_features=N_COLUMNS, module__out_features=1,
                 criterion=nn.MSELoss, val_set=(x[:N_VAL], y[:N_VAL]))  # fmt: skip
    with pytest.warns(UserWarning, match="target size"), pytest.raises(ValueError, match=r"Give y as y.reshape\(-1, 1\)"):
        net.fit(x, y)


@pytest.mark.parametrize(
    ("val_set", "got"), [(VAL[0].numpy(), "ndarray"), (None, "NoneType"), ((VAL[0].numpy(),), "1 parts"), ([1, 2, 3], "3 parts")]
)
def test_a_validation_set_that_is_no_pair_is_told(skorch, val_set, got):
    with pytest.raises(TypeError, match=rf"val_set must be \(X_val, y_val\), or a torch Dataset of right rows; got {got}"):
        net_of(skorch, val_set=val_set).fit(*ARRAYS)


X, Y = ARRAYS
X_VAL, Y_VAL = (part.numpy() for part in VAL)
WORDS = np.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("y", "val_set", "words"),
    [
        (WORDS[Y], (X_VAL, Y_VAL), r"y holds text.*LabelEncoder\(\).fit_transform\(y\)"),
        (Y, (X_VAL, WORDS[Y_VAL]), r"y_val holds text"),
        (Y.astype("f4"), (X_VAL, Y_VAL), r"y \(16,\) of torch.float32: .*integers 0 to K - 1"),
        (Y.astype("i4"), (X_VAL, Y_VAL), r"y \(16,\) of torch.int32: .*of 64 bits"),
        (Y[:, None], (X_VAL, Y_VAL), r"y \(16, 1\) of torch.int64: .*y must be \(n,\)"),
        (Y + 2, (X_VAL, Y_VAL), r"predictions \(16, 3\) .*out of bounds. For K classes"),
        (
            Y,
            (X_VAL.astype("f8"), Y_VAL),
            r"X has rows \(5,\) of torch.float32, X_val rows \(5,\) of torch.float64, and the mod",
        ),
        (Y, (X_VAL[:, :4], Y_VAL), r"X_val rows \(4,\) of torch.float32"),
    ],
    ids=["text", "text in val", "float", "int32", "column", "range", "float64", "columns"],
)
def test_rows_and_labels_that_a_net_does_not_take_are_told_with_what_it_takes(skorch, y, val_set, words):
    net = net_of(skorch, module=nn.Linear, module__in_features=N_COLUMNS, module__out_features=3, val_set=val_set)
    with pytest.raises(ValueError, match=words):
        net.fit(X, y)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"reweighter__gama": 1.0},
            "DynamicReweighter: got an unexpected keyword argument 'gama'. Its parameters are reweigh",
        ),
        ({"reweighter": CMWNet}, "CMWNet: missing a required argument: 'y_train'. Its parameters are reweighter__n_train, "),
    ],
)
def test_parameters_of_a_reweighter_are_told_by_their_names_in_the_net(skorch, params, words):
    with pytest.raises(TypeError, match=words):
        net_of(skorch, **params).fit(*ARRAYS)


def test_a_skorch_net_tells_what_is_wrong(skorch):
    with pytest.raises(TypeError, match="must be a Reweighter class"):
        net_of(skorch, dynamic()).fit(*ARRAYS)
    with pytest.raises(TypeError, match=r"val_set=.* is needed"):
        skorch.ReweightedClassifier(Net, reweighter=Uniform).fit(*ARRAYS)
    with pytest.raises(ValueError, match=r"n_train=80 .* has 90"):
        net_of(skorch, reweighter__n_train=80).fit(*ARRAYS)
    net = net_of(skorch).fit(*ARRAYS)
    with pytest.raises(ValueError, match=r"n_train=90 .* has 50"):
        net.partial_fit(ARRAYS[0][:50], ARRAYS[1][:50])
    with pytest.raises(ValueError, match="the criterion of the net is the loss"):
        net_of(skorch, reweighter__loss=squared_error).fit(*ARRAYS)
    with pytest.raises(ValueError, match=r"takes the logarithm of the predictions for NLLLoss.*criterion=nn.CrossEntropyLoss"):
        net_of(skorch, criterion=nn.NLLLoss).fit(*ARRAYS)
    with pytest.raises(ValueError, match="doesn't hold the index of its rows"):
        net.train_step_single(TRAIN)
    with pytest.raises(AttributeError, match="before fit"):
        net_of(skorch).reweighter_  # noqa: B018
    with pytest.raises(TypeError, match="must be a torch DataLoader"):
        net_of(skorch, iterator_train=lambda dataset, batch_size, shuffle: []).fit(*ARRAYS)

    class Own(nn.Module):
        def forward(self, prediction, label):
            return cross_entropy(prediction, label)

    with pytest.raises(ValueError, match="Own has none"):
        net_of(skorch, criterion=Own).fit(*ARRAYS)
    with pytest.raises(ValueError, match="did you mean reweighter__seed"):
        net_of(skorch, RandomWeights, reweighter_seed=1).fit(*ARRAYS)
