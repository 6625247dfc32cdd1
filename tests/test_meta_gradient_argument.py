"""The engine of the learned methods as an argument: made once, before the model too; and what the older parameters make of it."""

from __future__ import annotations

import pytest
import torch
from small_loops import N_TRAIN, N_VAL, VAL, C, Network, Y, assert_same, of, optimizer_of, plan, train

from densratio.training import (
    L2R,
    MCW,
    CMWNet,
    CMWNetSL,
    DynamicReweighter,
    LRWEasy,
    LRWHard,
    LRWOpt,
    LRWRandom,
    MetaGradient,
    MWNet,
    Reweighter,
    SoftLabels,
)

MAKE = {
    "l2r": lambda **params: L2R(N_TRAIN, **params),
    "mcw": lambda **params: MCW(N_TRAIN, Y, warmup_epochs=0.0, **params),
    "mw_net": lambda **params: MWNet(N_TRAIN, **params),
    "cmw_net": lambda **params: CMWNet(N_TRAIN, Y, **params),
    "cmw_net_sl": lambda **params: CMWNetSL(N_TRAIN, Y, **params),
    "lrw_hard": lambda **params: LRWHard(N_TRAIN, 6, **params),
    "lrw_easy": lambda **params: LRWEasy(N_TRAIN, 6, **params),
    "lrw_random": lambda **params: LRWRandom(N_TRAIN, 6, **params),
    "lrw_opt": lambda **params: LRWOpt(N_TRAIN, 6, C, splitter_warmup=0.5, **params),
}
every_method = pytest.mark.parametrize("name", MAKE)


def trained(make):
    model = Network(0).train()
    optimizer = optimizer_of(model)
    torch.default_generator.manual_seed(1)
    reweighter = make(optimizer)
    losses = train(reweighter, model, optimizer, plan(5))
    return losses, reweighter.state_dict()


@pytest.mark.parametrize("mode", ["exact", "first_order"])
@every_method
def test_the_engine_and_the_parameters_beside_it_are_the_same_method(name, mode):
    params = {"mode": mode, "every": 2}
    beside = trained(lambda optimizer: MAKE[name](optimizer=optimizer, **params))
    given = trained(lambda optimizer: MAKE[name](gradient=MetaGradient(optimizer=optimizer, **params)))
    assert_same(beside, given)


@every_method
def test_the_engine_is_made_before_the_model_and_gets_its_optimizer_later(name):
    gradient = MetaGradient(mode="exact", every=3)
    reweighter = MAKE[name](gradient=gradient)
    model = Network(0).train()
    with pytest.raises(ValueError, match="give optimizer="):
        reweighter.weighted_loss(model, of(plan(1)[0]), VAL)
    reweighter.optimizer = optimizer_of(model)
    assert gradient.optimizer is reweighter.optimizer and reweighter.meta is gradient and reweighter.every == 3
    train(reweighter, model, reweighter.optimizer, plan(4))


@every_method
def test_usual_modes_are_those_of_each_method(name):
    usual = {"l2r": ("first_order", 1), "cmw_net_sl": ("exact", 10), "lrw_opt": ("exact", 5)}
    meta = MAKE[name]().meta
    assert (meta.mode, meta.every) == usual.get(name, ("exact", 1))


@pytest.mark.parametrize(
    "beside",
    [{"mode": "exact"}, {"every": 1}, {"product": "auto"}, {"optimizer": torch.optim.SGD([torch.zeros(1)], 0.1), "every": 2}],
    ids=lambda beside: " ".join(beside),
)
@every_method
def test_both_forms_at_once_are_refused_with_what_to_type(name, beside):
    names = ", ".join(f"{key}=" for key in beside)
    with pytest.raises(ValueError, match=rf"gradient= and {names} were both given: put {names} into the MetaGradient\(...\)"):
        MAKE[name](gradient=MetaGradient(), **beside)


@pytest.mark.parametrize("make", [MWNet, L2R])
@pytest.mark.parametrize("beside", [{"n_val": N_VAL}, {"val_refresh": 3}])
def test_a_bank_beside_the_engine_is_refused_too(make, beside):
    with pytest.raises(ValueError, match="both given"):
        make(N_TRAIN, gradient=MetaGradient("last_layer", n_val=N_VAL, val_refresh=3), **beside)


@every_method
def test_what_is_no_engine_is_refused(name):
    with pytest.raises(ValueError, match=r"gradient must be a MetaGradient, such as MetaGradient\(mode="):
        MAKE[name](gradient="exact")


@pytest.mark.parametrize("every", [0, True, 2.0])
def test_the_engine_counts_whole_batches(every):
    with pytest.raises(ValueError, match="every must be an int >= 1"):
        MetaGradient(every=every)


# ---------------------------------------------------------------- modes that are classes, and warm-ups


def test_soft_labels_on_the_older_class_say_what_to_type():
    for soft_labels in (True, SoftLabels()):
        with pytest.raises(ValueError, match=r"CMWNetSL\(n_train, y_train\), with soft_labels=SoftLabels\("):
            CMWNet(N_TRAIN, Y, soft_labels=soft_labels)
    assert isinstance(CMWNetSL(N_TRAIN, Y), CMWNet)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"soft_labels": True}, r"soft_labels must be a SoftLabels\(...\) or None"),
        ({"gradient": MetaGradient("last_layer")}, "each row on four losses"),
        ({"gradient": MetaGradient(product="layers")}, "each row on four losses"),
    ],
)
def test_what_soft_labels_cannot_have_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        CMWNetSL(N_TRAIN, Y, **params)


def test_in_a_warm_up_soft_labels_train_on_the_given_labels_and_the_average_follows():
    model = Network(0).train()
    optimizer = optimizer_of(model)
    reweighter = CMWNetSL(N_TRAIN, Y, gradient=MetaGradient(optimizer=optimizer, every=1), warmup_epochs=1.0)
    train(reweighter, model, optimizer, plan(2))
    assert reweighter.is_warming_up and reweighter.soft_labels.average.n_steps == 2 and reweighter.soft_labels.kept is None
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and not reweighter.needs_validation


def test_the_older_name_of_the_splitters_warm_up_says_what_to_type():
    with pytest.raises(ValueError, match=r"warmup_epochs= of LRWOpt.* is now splitter_warmup=3\.0"):
        LRWOpt(N_TRAIN, 6, C, warmup_epochs=3.0)
    with pytest.raises(ValueError, match="splitter_warmup must be a number in"):
        LRWOpt(N_TRAIN, 6, C, splitter_warmup=-1.0)


def test_a_last_layer_cannot_validate_on_shares_of_rows():
    with pytest.raises(ValueError, match="LRWOpt validates on shares of rows"):
        LRWOpt(N_TRAIN, 6, C, gradient=MetaGradient("last_layer"))


def test_a_warm_up_is_one_thing_for_every_method():
    for make in (lambda: MWNet(N_TRAIN, warmup_epochs=1.0), lambda: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=1.0)):
        reweighter = make()
        assert reweighter.is_warming_up and reweighter.warmup_epochs == 1.0
        reweighter.rows_seen = N_TRAIN
        assert not reweighter.is_warming_up
        reweighter.warmup_epochs = 2.0
        assert reweighter.is_warming_up


def inheritance(kind):
    """Steps of inheritance up to Reweighter."""
    return 0 if kind is Reweighter else 1 + max(inheritance(base) for base in kind.__bases__ if issubclass(base, Reweighter))


def every_kind(kind):
    return {kind}.union(*(every_kind(sub) for sub in kind.__subclasses__() if sub.__module__.startswith("densratio")))


def test_no_reweighter_stands_more_than_three_steps_below_the_base():
    assert {kind.__name__: inheritance(kind) for kind in every_kind(Reweighter) if inheritance(kind) > 3} == {}
