"""Batches as loops have them: of any size, labels of 8 bits, several outputs, none of validation rows, compiled before."""

from __future__ import annotations

import contextlib
import warnings
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_steps import recording
from small_loops import N_TRAIN, N_VAL, VAL, C, Network, X, Y, as_on_a_device, of, optimizer_of
from torch import nn
from torch.nn.functional import cross_entropy

from densratio import KMM
from densratio.training import CoTeaching, DynamicReweighter, MetaGradient, MWNet, StableNet, Uniform, losses, reweighter
from densratio.training.registry import METHODS

# Methods by name, made for the small network.
GIVEN = {
    "n_val": N_VAL,
    "y_train": Y,
    "n_classes": C,
    "epochs": 1.0,
    "irreducible": torch.zeros(N_TRAIN),
    "first": torch.linspace(-1, 1, N_TRAIN),
}


def made(name):
    model = Network(0, has_norm=False).train()
    optimizer = optimizer_of(model)
    return reweighter(name, N_TRAIN, model=model, optimizer=optimizer, **GIVEN), model, optimizer


@settings(max_examples=20)
@given(n=st.integers(1, N_TRAIN), m=st.integers(1, N_VAL), is_double=st.booleans())
def test_the_mixture_takes_batches_of_every_size(n, m, is_double):
    dtype = torch.float64 if is_double else torch.float32
    auto = DynamicReweighter("auto", N_TRAIN, N_VAL, warmup_epochs=0)
    losses = torch.rand(n + m, dtype=dtype, generator=torch.Generator().manual_seed(n))
    auto.partial_fit(losses[:n], losses[n:], torch.arange(n), torch.arange(m))
    assert torch.isfinite(auto.weights_).all() and float(auto.weights_[:n].mean()) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_labels_of_8_bits_are_those_of_64(name):
    weights = []
    for labels in (torch.int64, torch.uint8):
        torch.default_generator.manual_seed(0)
        method, model, optimizer = made(name)
        for step in range(5):
            (x, y, i), (x_val, y_val, j) = of((torch.arange(14) + 14 * step) % N_TRAIN), VAL
            loss = method.weighted_loss(model, (x, y.to(labels), i), (x_val, y_val.to(labels), j))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        weights.append(method.weights_)
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", ["lrw_opt", "lrw_opt_hard"])
def test_a_split_by_class_refuses_targets_that_are_no_classes(name):
    method, model, _ = made(name)
    x, y, i = of(range(14))
    with pytest.raises(ValueError, match=r"LRWOpt needs logits \(n, 3\) and class labels \(n,\)"):
        method.weighted_loss(model, (x, nn.functional.one_hot(y, C).float(), i), VAL)


@pytest.mark.parametrize("name", METHODS)
def test_a_validation_batch_without_rows_is_refused_where_one_is_needed(name):
    method, model, _ = made(name)
    none = [part[:0] for part in VAL]
    for step in range(4):
        batch = of((torch.arange(14) + 14 * step) % N_TRAIN)
        if method.needs_validation:
            before = method.weights_.clone()
            with pytest.raises(ValueError, match="validation batch has no rows"):
                method.weighted_loss(model, batch, none)
            assert torch.equal(method.weights_, before)
        method.weighted_loss(model, batch, VAL)


@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_a_device, recording])
@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (torch.tensor(1.0), torch.rand(5), r"training losses or features must be \(n,\) or \(n, d\); got shape \(\)"),
        (torch.rand(3), torch.tensor(1.0), r"validation losses or features must be \(n,\) or \(n, d\); got shape \(\)"),
    ],
)
def test_one_number_in_place_of_rows_is_refused(where, train, val, words):
    with where():
        method = DynamicReweighter("kmm", 10, 5, warmup_epochs=0)
        for _ in range(3):
            method.partial_fit(torch.rand(3), torch.rand(5), torch.arange(3))
        before = method.weights_.clone()
        with pytest.raises(ValueError, match=words):
            method.partial_fit(train, val, torch.arange(3))
        assert torch.equal(method.weights_, before)


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.of_class, self.of_number = nn.Linear(4, C), nn.Linear(4, 1)

    def forward(self, x):
        return {"class": self.of_class(x), "number": self.of_number(x)[:, 0]}


def both(prediction, y):
    return cross_entropy(prediction["class"], y, reduction="none") + (prediction["number"] - y) ** 2


def test_several_outputs_and_what_the_methods_of_the_last_layer_say_to_them():
    model = TwoHeads()
    x, y, i = of(range(14))
    assert DynamicReweighter("kmm", N_TRAIN, N_VAL, loss=both).weighted_loss(model, (x, y, i), VAL).isfinite()
    last = MetaGradient("last_layer", optimizer=optimizer_of(model))
    for method in (DynamicReweighter("auto", N_TRAIN, N_VAL, loss=both), MWNet(N_TRAIN, loss=both, gradient=last)):
        with pytest.raises(ValueError, match=r"needs? a model that predicts one tensor; this one gives a dict"):
            method.weighted_loss(model, (x, y, i), VAL)


def test_features_are_heard_in_a_model_that_ran_compiled_before():
    torch.compiler.reset()
    plain = Network(0, has_norm=False).train()
    called = torch.compile(plain, backend="eager")
    called(X[:14])  # before anything listens
    one, other = StableNet(N_TRAIN, 6), StableNet(N_TRAIN, 6)
    one.weighted_loss(called, of(range(14)))
    other.weighted_loss(plain, of(range(14)))
    torch.testing.assert_close(one.weights_, other.weights_)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_whose_weights_are_1_for_a_row_alone_says_so_and_no_other_does(name):
    method, model, _ = made(name)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in (0, 1, 2, 3):
            method.weighted_loss(model, of(torch.tensor([step])), VAL).backward()
    said = [str(warning.message) for warning in told if "Batches have one row each" in str(warning.message)]
    assert len(said) == method.normalize and all(type(method).__name__ in sentence for sentence in said)
    if method.normalize:
        assert torch.equal(method.weights_[:4], torch.ones(4))


def test_a_last_batch_of_one_row_is_no_fault(recwarn):
    method, model, _ = made("lsif")
    for rows in [[0, 1, 2], [3]] * 4:
        method.weighted_loss(model, of(torch.tensor(rows)), VAL).backward()
    assert not [warning for warning in recwarn if "Batches have one row each" in str(warning.message)]


@pytest.mark.parametrize("name", ["lsif", "mw_net", "elr", "val_only"])
@pytest.mark.parametrize("places", [True, False])
def test_places_in_a_batch_in_place_of_row_numbers_are_told_once(name, places, recwarn):
    method, model, _ = made(name)
    for order in torch.arange(N_TRAIN).reshape(5, -1).repeat(4, 1):
        x, y, index = of(order)
        method.weighted_loss(model, (x, y, torch.arange(len(x)) if places else index), VAL).backward()
    said = [warning for warning in recwarn if "only the rows 0 to 7 were named" in str(warning.message)]
    assert len(said) == places and all(warning.filename == __file__ for warning in said)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (nn.CrossEntropyLoss, r'is the class CrossEntropyLoss: type loss=CrossEntropyLoss\(reduction="none"\)'),
        (nn.BCEWithLogitsLoss(), r'one loss a row: type loss=BCEWithLogitsLoss\(reduction="none"\)'),
    ],
)
def test_a_loss_that_is_no_loss_of_rows_is_told_when_a_method_is_made(loss, words):
    with pytest.raises(ValueError, match=words):
        Uniform(4, loss=loss)


def test_labels_that_met_another_shape_are_told_with_both():
    method, (x, _, index) = Uniform(N_TRAIN, loss=nn.L1Loss(reduction="none")), of(torch.arange(4))
    with (
        pytest.warns(UserWarning, match="broadcasting"),
        pytest.raises(ValueError, match=r"\(4, 4\) of a prediction \(4, 1\) and labels \(4,\)"),
    ):
        method.weighted_loss(nn.Linear(x.shape[1], 1), (x, torch.zeros(4), index))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda model: Uniform([1, 2, 3]), r"n_train must be an int >= 1, .* as len\(train_set\); got \[1, 2, 3\]"),
        (lambda model: DynamicReweighter(KMM, 4, 4), r"Type KMM\(...\)"),
        (
            lambda model: CoTeaching(4, lambda: model, optimizer_of(model)),
            "copies the torch.nn.Module that you train; got a function",
        ),
        (
            lambda model: MWNet(N_TRAIN, optimizer=[optimizer_of(model)]).weighted_loss(model, of(range(4)), VAL),
            "follows one optimizer",
        ),
    ],
)
def test_a_thing_of_another_kind_is_told_with_what_to_type(make, words):
    with pytest.raises(ValueError, match=words):
        make(Network(0))


@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("name", ["mw_net", "lrw_hard"])
def test_an_optimizer_of_a_part_of_the_model_is_told(name, is_frozen, recwarn):
    model = Network(0, has_norm=False).train()
    model.hidden.requires_grad_(not is_frozen)
    method = reweighter(name, N_TRAIN, model=model, optimizer=optimizer_of(model.out), **GIVEN)
    for _ in range(2):
        method.weighted_loss(model, of(torch.arange(4)), VAL)
    said = [warning for warning in recwarn if "holds 2 of the model's 4 parameters" in str(warning.message)]
    assert len(said) == (not is_frozen) and all(warning.filename == __file__ for warning in said)


class Returning(nn.Module):
    """A network whose outputs are wrapped."""

    def __init__(self, wrap):
        super().__init__()
        self.network, self.wrap = nn.Linear(X.shape[1], C), wrap

    def forward(self, x):
        return self.wrap(self.network(x))


@pytest.mark.parametrize("name", ["lsif", "l2r", "lilaw", "elr", "gdw", "uniform"])
@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda logits: (logits, None), r"returns self.model\(x\)\[0\]"),
        (lambda logits: {"logits": logits}, r'self.model\(\*\*x\)\["logits"\] where x is a dict'),
        (lambda logits: SimpleNamespace(logits=logits), r"The model returns a SimpleNamespace, .*\.logits"),
    ],
)
def test_a_model_that_returns_no_tensor_is_told_what_to_wrap(name, wrap, part):
    model = Returning(wrap)
    method = reweighter(name, N_TRAIN, model=model, optimizer=optimizer_of(model), **GIVEN)
    with pytest.raises(ValueError, match=part):
        method.weighted_loss(model, of(torch.arange(4)), VAL)
    with pytest.raises(ValueError, match=r"takes the torch.nn.Module that you train; got a function"):
        method.weighted_loss(lambda x: model(x), of(torch.arange(4)), VAL)


@pytest.mark.parametrize("loss", [losses.squared_error, losses.multilabel, losses.token_cross_entropy, losses.pixel_cross_entropy])
def test_other_losses_name_the_part_too(loss):
    with pytest.raises(ValueError, match="The model returns a tuple"):
        loss((torch.zeros(2, 3),), torch.zeros(2, 3))


@pytest.mark.parametrize("name", METHODS)
def test_warnings_point_at_the_line_of_the_loop(name):
    model = nn.Sequential(nn.Linear(X.shape[1], 6), nn.Dropout(), nn.Linear(6, C)).eval()
    method = reweighter(name, N_TRAIN, model=model, optimizer=optimizer_of(model), **GIVEN)
    with pytest.warns(UserWarning) as said:
        for _ in range(12):
            method.weighted_loss(model, of(torch.arange(10)), VAL)
    own = [warning for warning in said if warning.category is UserWarning]
    lines = {warning.lineno for warning in own}
    assert len(own) == 2 and len(lines) == 1 and {warning.filename for warning in own} == {__file__}


@pytest.mark.parametrize("name", METHODS)
def test_a_training_batch_without_rows_is_told_to_be_left_out(name):
    method, model, _ = made(name)
    with pytest.raises(ValueError, match="The training batch has no rows: leave it out"):
        method.weighted_loss(model, of(torch.arange(0)), VAL)


@pytest.mark.parametrize("name", METHODS)
def test_an_index_that_was_left_out_is_told_where_to_get_it(name):
    method, model, _ = made(name)
    with pytest.raises(ValueError, match=r"integers, the number of each row; got None. Indexed\(data_set\) numbers the rows"):
        method.weighted_loss(model, (X[:4], Y[:4], None), VAL)


@pytest.mark.parametrize("name", METHODS)
def test_models_that_are_double_by_torchs_default_are_taken(name):
    torch.set_default_dtype(torch.float64)
    try:
        method, model, optimizer = made(name)
        for step in range(4):
            (x, y, i), (x_val, *val) = of((torch.arange(14) + 14 * step) % N_TRAIN), VAL
            loss = method.weighted_loss(model, (x.double(), y, i), (x_val.double(), *val))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finally:
        torch.set_default_dtype(torch.float32)
    assert loss.dtype == method.weights_.dtype == torch.float64 and bool(torch.isfinite(method.weights_).all())


@pytest.mark.parametrize(
    ("label", "advice"),
    [
        (lambda y: y.tolist(), r"Make the labels a tensor, torch.as_tensor\(y\)|type y = torch.as_tensor\(y\)"),
        (lambda y: y.float(), r"Make the labels integers, y.long\(\)"),
        (lambda y: y[:, None], r"Take the one column of the labels: y\[:, 0\]\."),
        (lambda y: nn.functional.one_hot(y, C), r"One-hot labels become y.argmax\(dim=1\)"),
        (lambda y: y.masked_fill(y == 1, 7), r"(?i)number the classes from 0 to 2|give one more than the largest"),
    ],
)
@pytest.mark.parametrize("name", METHODS)
def test_labels_of_another_form_are_told_what_to_type(name, label, advice):
    method, model, _ = made(name)
    x, y, i = of(torch.arange(8))
    with pytest.raises(ValueError, match=advice):
        method.weighted_loss(model, (x, label(y), i), VAL)


@pytest.mark.parametrize("name", ["co_teaching", "divide_mix", "elr_plus"])
def test_a_peer_takes_no_optimizer_that_calls_the_loop_again(name):
    model = Network(0, has_norm=False)
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times a step: give an optimizer such as SGD or Adam"):
        reweighter(name, N_TRAIN, model=model, optimizer=torch.optim.LBFGS(model.parameters()), **GIVEN)


class OfTwo(nn.Module):
    """The network, of an input in two parts."""

    def __init__(self):
        super().__init__()
        self.network = Network(0, has_norm=False)

    def forward(self, x):
        return self.network(torch.cat([x["first"], x["rest"]], dim=1))


def in_two(x, y, i):
    return {"first": x[:, :1], "rest": x[:, 1:]}, y, i


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("cmw_net_sl", "fsr")])
def test_an_input_of_several_parts_gives_the_weights_of_the_whole(name):
    found = []
    for part in (lambda *batch: batch, in_two):
        model = OfTwo().train() if part is in_two else Network(0, has_norm=False).train()
        optimizer = optimizer_of(model)
        torch.default_generator.manual_seed(0)
        method = reweighter(name, N_TRAIN, model=model, optimizer=optimizer, **GIVEN)
        for step in range(5):
            batch = of((torch.arange(14) + 14 * step) % N_TRAIN)
            loss = method.weighted_loss(model, part(*batch), part(*VAL))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(method.weights_)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cmw_net_sl", r"got a dict: give soft_labels=SoftLabels\(mixup=None\)"),
        ("fsr", "DynamicReweighter, MWNet and L2R, take any input"),
    ],
)
def test_methods_that_mix_or_keep_rows_say_what_takes_several_parts(name, advice):
    model = OfTwo().train()
    method = reweighter(name, N_TRAIN, model=model, optimizer=optimizer_of(model), **{**GIVEN, "epochs": 0.0})
    method.warmup_epochs = 0.0
    with pytest.raises(ValueError, match=advice):
        method.weighted_loss(model, in_two(*of(torch.arange(8))), VAL)


@pytest.mark.parametrize("name", METHODS)
def test_an_index_that_is_no_list_of_row_numbers_is_refused_by_transform_too(name):
    method, _, _ = made(name)
    for index in (3, None, torch.tensor(3), "a", [0.5], [N_TRAIN], [-1]):
        with pytest.raises(ValueError, match="index"):
            method.transform(index)
    for index in ([0, 2], (0, 2), range(0, 4, 2), torch.tensor([0, 2], dtype=torch.int32), Y[[0, 2]].numpy() * 0 + [0, 2]):
        assert torch.equal(method.transform(index), method.weights_[[0, 2]])


@pytest.mark.parametrize("where", [contextlib.nullcontext, as_on_a_device])
def test_validation_rows_alone_train_on_no_loss_that_is_no_number(where):
    method, model, _ = made("val_only")
    x_val, y_val, index = VAL
    bad = x_val.index_fill(0, torch.tensor([2]), float("nan")), y_val, index + 1
    with where(), pytest.raises(ValueError, match=r"NaN or infinity in validation rows \[3\]"):
        for _ in range(2):
            method.weighted_loss(model, of(torch.arange(4)), bad)
            method.check()


@pytest.mark.parametrize("name", ["training", "validation"])
def test_complex_losses_are_refused(name):
    method, own, complex_ = DynamicReweighter("kmm", 10, 5), torch.rand(5), torch.rand(5) + 1j
    with pytest.raises(ValueError, match=f"The {name} losses or features must be real; got torch.complex64"):
        method.partial_fit(*((complex_, own) if name == "training" else (own, complex_)), range(5))
