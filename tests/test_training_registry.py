"""Every method by its name: one call makes it, and one line of a loop trains with it."""

from __future__ import annotations

import ast
import inspect

import numpy as np
import pytest
import torch
from small_loops import (
    IRREDUCIBLE,
    N_TRAIN,
    N_VAL,
    VAL,
    C,
    Network,
    X,
    Y,
    as_on_a_device,
    assert_same,
    of,
    optimizer_of,
    plan,
    stored,
    train,
)
from torch import nn
from training_cases import tensors

from densratio._names import plain
from densratio.training import DynamicReweighter, Reweighter, reweighter
from densratio.training.losses import multilabel
from densratio.training.registry import METHODS, TRAIN_TWICE, key_of, title_of


def made(name, **changes):
    model = Network(0).train()
    optimizer = optimizer_of(model)
    given = {"n_val": N_VAL, "y_train": Y, "n_classes": C, "model": model, "optimizer": optimizer, "epochs": 2,
             "irreducible": lambda: IRREDUCIBLE, "first": lambda: 2.0 * IRREDUCIBLE - 1.0, **changes}  # fmt: skip
    return reweighter(name, N_TRAIN, **given), model, optimizer


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_two_batches_in_one_loop(name):
    method, model, optimizer = made(name)
    before = [p.detach().clone() for p in model.parameters()]
    assert np.isfinite(train(method, model, optimizer, plan(2))).all()
    assert method.weights_.shape == (N_TRAIN,) and bool(torch.isfinite(method.weights_).all())
    assert float(method.weights_.min()) >= 0.0 and method.steps_seen == 2
    assert any(not torch.equal(p, start) for p, start in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_without_gradients_is_refused_in_the_name_of_the_method_and_changes_nothing(name, off):
    method, model, optimizer = made(name)
    train(method, model, optimizer, plan(1))
    before = stored(method.state_dict())
    words = rf"^weighted_loss of {type(method).__name__} .* outside of torch.{off.__name__}\(\)"
    with off(), pytest.raises(ValueError, match=words):
        method.weighted_loss(model, of([0, 1, 2]), VAL)
    assert_same(method.state_dict(), before)


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_model_is_told_in_words_or_needs_no_gradient(name):
    method, model, _ = made(name)
    method.warmup_epochs = 0.0
    model.requires_grad_(False)
    try:
        method.weighted_loss(model, of(range(14)), VAL)
    except ValueError as error:
        assert "All parameters of the model are frozen" in str(error)


# Methods that take the column of a label, and those that train rows on labels of their own making.
LOOKS_UP = {
    "gdw", "bilaw", "lilaw", "lrw_opt", "lrw_opt_hard", "lrt", "plc", "joint_optimization", "margin_based", "divide_mix",
    "elr_plus",
}  # fmt: skip
OWN_LABELS = {"cmw_net_sl", "cmw_net_sl_no_mixup", "elr", "m_correction"}


@pytest.mark.parametrize("name", METHODS)
def test_rows_without_a_label_are_not_trained_on_or_are_named(name):
    """-100, as torch marks them: the oracle is the gradient in such a row's logits, which the plain loss leaves at 0."""
    method, model, optimizer = made(name)
    train(method, model, optimizer, plan(9))
    before, outputs = stored(method.state_dict()), []
    x, y, index = of(plan(1)[0])
    y[[3, 5]] = -100

    def keep(module, entry, output):
        if output.requires_grad and len(output) == len(y):
            output.retain_grad()
            outputs.append(output)

    model.out.register_forward_hook(keep)
    if name in LOOKS_UP:
        words = r"the class of each row, 0 to 2, and row 3 of the batch has -100 \(2 rows have such labels\): leave rows"
        with pytest.raises(ValueError, match=words):
            method.weighted_loss(model, (x, y, index), VAL)
        assert_same(stored(method.state_dict()), before)
        return
    loss = method.weighted_loss(model, (x, y, index), VAL)
    loss.backward()
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(method.weights_).all())
    gradients = [output.grad for output in outputs if output.grad is not None]
    if name not in OWN_LABELS and name != "val_only":
        assert gradients and all(bool((gradient[[3, 5]] == 0.0).all()) and bool(gradient.any()) for gradient in gradients)


@pytest.mark.parametrize("label", [-100, -1, 7])
@pytest.mark.parametrize("name", METHODS)
def test_a_label_of_no_class_is_told_with_a_later_batch_of_a_device_and_changes_no_row(name, label):
    with as_on_a_device():
        method, model, optimizer = made(name)
        train(method, model, optimizer, plan(9))
        before = {key: value.clone() for key, value in tensors(method).items()}
        x, y, index = of(plan(1)[0])
        y[[5, 3]] = label
        loss = method.weighted_loss(model, (x, y, index), VAL)
        model.zero_grad()
        loss.backward()
        assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)
        if label == -100 and name not in LOOKS_UP:
            method.check()
            return
        rows = {key for key, value in before.items() if len(value.shape) and len(value) == N_TRAIN}
        after = tensors(method)
        # A guess of the splitter about a row, which needs no label that is right.
        assert "weights_" in rows and all(torch.equal(before[key], after[key]) for key in rows - {"split_"})
        assert all(bool(torch.isfinite(value.float()).all()) for value in after.values())
        words = (
            rf"training rows \[{', '.join(map(str, sorted(index[[3, 5]].tolist())))}\] .* a label of no class; .*leave rows with"
        )
        with pytest.raises(ValueError, match=words):
            method.check()


@pytest.mark.parametrize("name", [name for name in METHODS if made(name)[0].uses_validation and name != "fsr"])
def test_a_validation_label_of_no_class_is_told_with_a_later_batch_of_a_device(name):
    with as_on_a_device():
        method, model, optimizer = made(name)
        method.warmup_epochs = 0.0
        train(method, model, optimizer, plan(1))
        wrong = VAL[1].clone()
        wrong[[4, 2]] = 7
        for index in plan(20):
            if method.needs_validation:
                break
            train(method, model, optimizer, [index])
        method.weighted_loss(model, of(plan(1)[0]), (VAL[0], wrong, VAL[2]))
        with pytest.raises(ValueError, match=r"validation rows \[2, 4\] .* a label of no class"):
            method.check()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_made_of_what_it_needs_alone_and_names_what_is_missing(name):
    needs = METHODS[name].needs
    unneeded = {"n_val", "y_train", "n_classes", "model", "optimizer", "epochs", "irreducible", "first"} - {*needs}
    assert isinstance(made(name, **dict.fromkeys(unneeded))[0], Reweighter)
    if needs:
        asked = ", ".join(f"{argument}=..." for argument in needs)
        with pytest.raises(ValueError, match=f'{name} needs more than n_train: type reweighter."{name}", n_train, {asked}.'):
            reweighter(name, N_TRAIN)
    assert set(needs) < set(inspect.signature(reweighter).parameters)


@pytest.mark.parametrize("text", ["mw_net", "MW-Net", "mwnet", " MW Net"])
def test_names_are_known_in_any_spelling(text):
    assert key_of(text) == "mw_net" and title_of("mw_net") == "MW-Net"


def test_titles_differ_and_are_no_names_of_other_methods():
    keys = {plain(key): key for key in METHODS}
    assert all(keys.get(plain(method.title), key) == key for key, method in METHODS.items()) and key_of("ELR+") == "elr_plus"
    assert len({method.title for method in METHODS.values()}) == len(METHODS) and set(TRAIN_TWICE) < set(METHODS)


@pytest.mark.parametrize(
    ("name", "words"),
    [("kleip", r"There is no method 'kleip'. Did you mean 'kliep'"), ("mw_nett", "Did you mean 'mw_net'"),
     ("zzz", r"There is no method 'zzz'. The methods are val_only, uniform,"), (3, "There is no method 3"), ("", "no method ''")],
)  # fmt: skip
def test_an_unknown_name_is_told_the_nearest_ones(name, words):
    with pytest.raises(ValueError, match=words):
        reweighter(name, 4)


def test_a_model_without_a_linear_layer_is_refused_where_a_method_weighs_by_its_input():
    bare = nn.Sequential(nn.Conv1d(1, 1, 1))
    with pytest.raises(ValueError, match=r"no nn.Linear"):
        reweighter("lrw_hard", N_TRAIN, model=bare, optimizer=optimizer_of(bare))


@pytest.mark.parametrize(
    ("typed", "key"),
    [("mw_net", "mw_net"), ("CMW-Net", "cmw_net"), ("MWNet", "mw_net"), ("lrt", "lrt"), ("JustTrainTwice", "jtt"),
     ("focal loss", "focal"), ("elr+", "elr_plus"), ("LRWHard", "lrw_hard"), ("diw", "diw"), ("random", "random")],
)  # fmt: skip
def test_the_dynamic_reweighter_says_what_to_type_for_another_method(typed, key):
    with pytest.raises(ValueError, match=r"made by name: type densratio.training.reweighter\(") as told:
        DynamicReweighter(typed, N_TRAIN, N_VAL)
    call = ast.parse(str(told.value).split("type densratio.training.")[1].removesuffix("."), mode="eval").body
    # That these arguments are enough is tested above.
    assert call.func.id == "reweighter" and call.args[0].value == key
    assert {argument.arg for argument in call.keywords} == set(METHODS[key].needs)


@pytest.mark.parametrize(("typed", "name"), [("kiep", "kliep"), ("kl", "kliep"), ("adiw-wa", "wasserstein"), ("auto ", "auto")])
def test_the_dynamic_reweighter_names_its_own_method_that_is_near(typed, name):
    with pytest.raises(ValueError, match=f"one of .'auto', 'kliep', 'kmm', 'lsif', 'wasserstein'.; got .*Did you mean '{name}'.$"):
        DynamicReweighter(typed, 4, 4)


@pytest.mark.parametrize("typed", ["l", "", "???", "zzz"])
def test_the_dynamic_reweighter_lists_every_method_for_a_name_that_is_near_to_none(typed):
    with pytest.raises(ValueError, match="makes methods of other kinds by name: ") as told:
        DynamicReweighter(typed, 4, 4)
    listed = str(told.value).split("by name: ")[1].removesuffix(".").split(", ")
    assert set(listed) == set(METHODS) - {"auto", "kliep", "kmm", "lsif", "wasserstein"}


ONE_HOT = torch.eye(C)[Y]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (Y.float(), r"dtype float32, from 0.0 on: type y_train.astype\(int\), or y_train.long\(\)"),
        (ONE_HOT, r"shape \(40, 3\) and dtype float32: of one-hot labels type y_train.argmax\(1\)"),
        (Y[:, None], r"type y_train\[:, 0\]"),
        (torch.where(Y > 1, -100, Y), "from -100 on: leave rows without a label out"),
        (np.array(["a", "b"])[Y.numpy() % 2], "dtype <U1: number the classes from 0 on"),
        (Y[:9], r"got shape \(9,\) and dtype int64\."),
    ],
)
def test_training_labels_that_are_no_classes_are_told_with_what_to_type(labels, words):
    with pytest.raises(ValueError, match=words):
        made("cmw_net", y_train=labels)


@pytest.mark.parametrize(
    ("n_outputs", "n_classes", "labels", "words"),
    [
        (C, C, ONE_HOT, r"One-hot labels become y.argmax\(dim=1\)"),
        (C, C + 2, Y, r"The model gives 3 logits a row: make the method with n_classes=3"),
        (1, 2, (Y > 0).float(), r"For two classes give the model an output for each, .* with one output a row, .* use Dynamic"),
        (C, C, Y.float(), r"Make the labels integers, y.long\(\)"),
    ],
)
def test_targets_that_a_method_by_classes_cannot_take_are_told_with_what_to_type(n_outputs, n_classes, labels, words):
    model = nn.Linear(X.shape[1], n_outputs)
    method = reweighter("elr", N_TRAIN, n_classes=n_classes)
    # A loss that takes all of them.
    method.loss = lambda prediction, y: prediction.sum(dim=1)
    with pytest.raises(ValueError, match=words):
        method.weighted_loss(model, (X, labels, torch.arange(N_TRAIN)))


@pytest.mark.parametrize("name", ["kliep", "mw_net", "uniform"])
def test_losses_of_one_output_a_row_are_the_losses_of_the_rows(name):
    column, losses = (Y[:, None] > 0).float(), []
    for loss in (nn.BCEWithLogitsLoss(reduction="none"), multilabel):
        torch.default_generator.manual_seed(0)
        model = nn.Linear(X.shape[1], 1)
        method = reweighter(name, N_TRAIN, N_VAL, model=model, optimizer=optimizer_of(model))
        method.loss = loss
        val = VAL[0], (VAL[1][:, None] > 0).float(), VAL[2]
        losses.append(method.weighted_loss(model, (X, column, torch.arange(N_TRAIN)), val).detach())
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("labels", [Y.tolist(), Y.numpy()], ids=["list", "array"])
def test_labels_that_are_no_tensor_are_told_in_words(labels):
    model = Network(0)
    for name in ("uniform", "lilaw"):
        with pytest.raises(ValueError, match=r"(must be|Make the labels) a tensor.*as_tensor\(y\)"):
            reweighter(name, N_TRAIN).weighted_loss(model, (X, labels, torch.arange(N_TRAIN)), VAL)
