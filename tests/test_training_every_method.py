"""What every method that gives a batch its weights promises a training loop."""

from __future__ import annotations

import contextlib
import copy
import importlib

import numpy as np
import pytest
import torch
from small_loops import (
    IRREDUCIBLE,
    N_TRAIN,
    N_VAL,
    VAL,
    X_VAL,
    Y_VAL,
    C,
    D,
    Network,
    X,
    Y,
    assert_same,
    double,
    of,
    optimizer_of,
    plan,
    stored,
    train,
)
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from densratio.training import (
    ELR,
    FSR,
    GDW,
    L2R,
    MCW,
    BiLAW,
    ClassBalanced,
    CMWNet,
    CMWNetSL,
    CoTeaching,
    DivideMix,
    DynamicReweighter,
    ELRPlus,
    Focal,
    Indexed,
    JointOptimization,
    JustTrainTwice,
    LabelCorrection,
    LiLAW,
    LRWEasy,
    LRWHard,
    LRWOpt,
    LRWRandom,
    MarginBased,
    MCorrection,
    MetaCleaner,
    Monitor,
    MWNet,
    RandomWeights,
    RHOLoss,
    SelfPaced,
    SoftLabels,
    StableNet,
    Uniform,
    ValidationOnly,
    endless,
    suspicious_rows,
)


def backbone():
    torch.default_generator.manual_seed(11)
    return nn.Sequential(nn.Linear(D, 5), nn.BatchNorm1d(5), nn.Dropout(0.3))


def co_teaching(optimizer):
    # Of the form of the model that the optimizer trains.
    peer = Network(4, has_norm=len(optimizer.param_groups[0]["params"]) > 4)
    return CoTeaching(N_TRAIN, peer, optimizer_of(peer), forget_rate=0.4, n_epochs=2)


def elr_plus(optimizer):
    peer = Network(4, has_norm=len(optimizer.param_groups[0]["params"]) > 4)
    return ELRPlus(N_TRAIN, C, peer, optimizer_of(peer), mixup=1.0, warmup_epochs=0.5)


def divide_mix(optimizer, **params):
    peer = Network(4, has_norm=len(optimizer.param_groups[0]["params"]) > 4)
    return DivideMix(N_TRAIN, peer, optimizer_of(peer), warmup_epochs=0.5, ramp_epochs=0.5, **params)


METHODS = {
    "l2r": lambda optimizer: L2R(N_TRAIN, optimizer=optimizer),
    "l2r exact, every second": lambda optimizer: L2R(N_TRAIN, optimizer=optimizer, mode="exact", every=2),
    "l2r of a bank": lambda optimizer: L2R(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=5),
    "mw_net": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer, hidden=9, learning_rate=0.05),
    "mw_net of the last layer": lambda optimizer: MWNet(
        N_TRAIN, optimizer=optimizer, mode="last_layer", every=2, fixed_step_length=True
    ),
    "cmw_net": lambda optimizer: CMWNet(N_TRAIN, Y, K=2, optimizer=optimizer, fixed_step_length=True, warmup_epochs=0.5),
    "cmw_net with soft labels": lambda optimizer: CMWNetSL(N_TRAIN, Y, every=2, optimizer=optimizer, warmup_epochs=0.0),
    "cmw_net with plain soft labels": lambda optimizer: CMWNetSL(
        N_TRAIN,
        Y,
        soft_labels=SoftLabels(0.9, ensemble=None, mixup=None),
        every=2,
        optimizer=optimizer,
        mode="first_order",
        fixed_step_length=True,
        warmup_epochs=0.0,
    ),
    "mcw": lambda optimizer: MCW(N_TRAIN, Y, optimizer=optimizer, warmup_epochs=0.5),
    "mcw, every second": lambda optimizer: MCW(N_TRAIN, Y, mode="first_order", step=2.0, every=2, warmup_epochs=0.0),
    "gdw": lambda optimizer: GDW(N_TRAIN, optimizer=optimizer, learning_rate=0.05),
    "gdw, every second": lambda optimizer: GDW(N_TRAIN, mode="first_order", every=2, warmup_epochs=0.5, normalize=False),
    "bilaw": lambda optimizer: BiLAW(N_TRAIN, C, optimizer=optimizer, learning_rate=0.05),
    "fsr": lambda optimizer: FSR(N_TRAIN, C, k=4, n_drawn=9, optimizer=optimizer, warmup_epochs=0.5),
    "fsr, every second": lambda optimizer: FSR(N_TRAIN, C, k=40, optimizer=optimizer, mode="exact", every=2, warmup_epochs=0.0),
    "lilaw": lambda optimizer: LiLAW(N_TRAIN, warmup_epochs=0.5, learning_rate=0.1),
    "focal": lambda optimizer: Focal(N_TRAIN, gamma=0.5),
    "class_balanced": lambda optimizer: ClassBalanced(N_TRAIN, Y, warmup_epochs=0.5),
    "self_paced": lambda optimizer: SelfPaced(N_TRAIN, n_epochs=20),
    "margin_based": lambda optimizer: MarginBased(N_TRAIN),
    "margin_based, easy": lambda optimizer: MarginBased(N_TRAIN, favors="easy"),
    "jtt": lambda optimizer: JustTrainTwice(N_TRAIN, 2.0 * IRREDUCIBLE - 1.0, warmup_epochs=0.5),
    "rho_loss": lambda optimizer: RHOLoss(N_TRAIN, IRREDUCIBLE, share=0.4),
    "stable_net": lambda optimizer: StableNet(N_TRAIN, 6, n_saved=9, n_functions=2, warmup_epochs=0.5),
    "co_teaching": co_teaching,
    "divide_mix": lambda optimizer: divide_mix(optimizer, mixup=4.0),
    "elr_plus": elr_plus,
    "divide_mix, unmixed": lambda optimizer: divide_mix(optimizer, mixup=None),
    "m_correction": lambda optimizer: MCorrection(N_TRAIN, warmup_epochs=0.5),
    "m_correction, soft": lambda optimizer: MCorrection(N_TRAIN, hard=False, prior=0.0, warmup_epochs=1.0),
    "m_correction, mixed": lambda optimizer: MCorrection(N_TRAIN, mixup=32.0, warmup_epochs=0.5),
    "joint_optimization": lambda optimizer: JointOptimization(N_TRAIN, C, window=3, warmup_epochs=0.5),
    "joint_optimization, hard": lambda optimizer: JointOptimization(N_TRAIN, C, hard=True, warmup_epochs=0.0),
    "meta_cleaner": lambda optimizer: MetaCleaner(N_TRAIN, 6, k=3, learning_rate=0.05, warmup_epochs=0.5),
    "lrt": lambda optimizer: LabelCorrection(N_TRAIN, C, rule="lrt", retroactive=1.0, warmup_epochs=0.5),
    "plc": lambda optimizer: LabelCorrection(N_TRAIN, C, decay=0.5, warmup_epochs=0.0),
    "elr": lambda optimizer: ELR(N_TRAIN, C, warmup_epochs=0.5),
    "lrw_hard": lambda optimizer: LRWHard(N_TRAIN, 6, optimizer=optimizer, learning_rate=0.05),
    "lrw_random, every second": lambda optimizer: LRWRandom(N_TRAIN, 6, optimizer=optimizer, every=2, warmup_epochs=0.5),
    "lrw_easy of the last layer": lambda optimizer: LRWEasy(N_TRAIN, 6, mode="last_layer", hidden=9),
    "lrw_hard of a backbone": lambda optimizer: LRWHard(N_TRAIN, 5, optimizer=optimizer, backbone=backbone()),
    "lrw_opt": lambda optimizer: LRWOpt(N_TRAIN, 6, C, optimizer=optimizer, share=0.3, every=1, splitter_warmup=0.5),
    "lrw_opt, every second": lambda optimizer: LRWOpt(
        N_TRAIN, 6, C, optimizer=optimizer, share=0.3, every=2, regularize_every=2, splitter_warmup=0.0, mode="first_order"
    ),
    "lrw_opt of a backbone": lambda optimizer: LRWOpt(
        N_TRAIN, 5, C, optimizer=optimizer, share=0.3, every=2, splitter_warmup=0.0, backbone=backbone()
    ),
}
every_method = pytest.mark.parametrize("name", METHODS)
UNWEIGHTED = {"elr", "elr_plus"}
"""Methods that change the loss and leave every weight at 1."""


def weighs(name, reweighter, rows=slice(None)):
    """Whether the rows have weights other than 1, as those of every method that weighs rows have."""
    return (name in UNWEIGHTED) == torch.equal(reweighter.weights_[rows], torch.ones(N_TRAIN)[rows])


def made(name, seed=0, has_norm=True):
    model = Network(seed, has_norm).train()
    optimizer = optimizer_of(model)
    torch.default_generator.manual_seed(100 + seed)
    return METHODS[name](optimizer), model, optimizer


def start_at_once(reweighter):
    """No warm-up of any kind."""
    reweighter.warmup_epochs = 0
    if isinstance(reweighter, LRWOpt):
        reweighter.splitter_warmup = 0
    return reweighter


@pytest.mark.parametrize(
    ("stop", "has_norm"),
    [(1, True), (5, False), *(pytest.param(*twin, marks=pytest.mark.long) for twin in [(1, False), (5, True)])],
)
@every_method
def test_a_run_resumes_to_the_bit(name, stop, has_norm):
    batches = plan(9)
    torch.default_generator.manual_seed(7)
    whole = made(name, 0, has_norm)
    torch.default_generator.manual_seed(7)
    train(*whole, batches)
    first = made(name, 0, has_norm)
    torch.default_generator.manual_seed(7)
    train(*first, batches[:stop])
    saved, draws = [stored(part.state_dict()) for part in first], torch.get_rng_state()
    resumed = made(name, 1, has_norm)
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    torch.set_rng_state(draws)
    train(*resumed, batches[stop:])
    for one, other in zip(whole, resumed, strict=True):
        assert_same(one.state_dict(), other.state_dict())
    assert weighs(name, whole[0])


@every_method
def test_rows_that_come_twice_in_a_batch_are_stored_once(name):
    reweighter, model, optimizer = made(name)
    losses = train(reweighter, model, optimizer, [torch.arange(20).repeat(2)] * 3 + [torch.tensor([3, 3, 3, 8, 8, 9])] * 2)
    assert np.isfinite(losses).all() and bool(torch.isfinite(reweighter.weights_).all())
    assert torch.equal(reweighter.weights_[20:], torch.ones(20)) and weighs(name, reweighter, slice(20))


@pytest.mark.parametrize("how", ["accumulated and clipped", "half precision"])
@every_method
def test_real_loops_give_finite_weights_of_which_none_is_negative(name, how):
    reweighter, model, optimizer = made(name)
    generator = torch.Generator().manual_seed(0)
    batches = endless(DataLoader(Indexed(TensorDataset(X, Y)), batch_size=12, shuffle=True, generator=generator))
    vals, parts = endless(DataLoader(Indexed(TensorDataset(X_VAL, Y_VAL)), batch_size=5)), 1 if how == "half precision" else 2
    waiting = 0.0
    for step in range(8):  # more than two epochs
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "half precision"):
            loss = reweighter.weighted_loss(model, next(batches), next(vals)) / parts
        assert loss.shape == () and loss.dtype == torch.float32 and bool(torch.isfinite(loss))
        # What a later batch changes is not what backward needs.
        waiting = waiting + loss
        if (step + 1) % parts == 0:
            waiting.backward()
            waiting = 0.0
            if how == "accumulated and clipped":
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    weights = reweighter.weights_
    assert bool(torch.isfinite(weights).all()) and float(weights.min()) >= 0.0 and weighs(name, reweighter)
    assert weights.dtype == torch.float32 and not weights.requires_grad
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


@pytest.mark.parametrize(
    ("has_norm", "is_half"),
    [(False, False), (True, True), *(pytest.param(*twin, marks=pytest.mark.long) for twin in [(False, True), (True, False)])],
)
@every_method
def test_batches_of_any_size_give_finite_weights_of_which_none_is_negative(name, has_norm, is_half):
    reweighter, model, optimizer = made(name, 0, has_norm)
    # A norm takes no batch of one row.
    for index in [*plan(9), torch.tensor([5, 6]), *([] if has_norm else [torch.tensor([3])])]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            loss = reweighter.weighted_loss(model, of(index), VAL)
        assert loss.shape == () and loss.dtype == torch.float32 and bool(torch.isfinite(loss))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = reweighter.weights_
    assert bool(torch.isfinite(weights).all()) and float(weights.min()) >= 0.0 and weighs(name, reweighter)
    assert weights.dtype == torch.float32 and not weights.requires_grad
    assert all(bool(torch.isfinite(p).all()) for part in (model, reweighter) for p in part.parameters())


@pytest.mark.parametrize("name", ["mw_net", "l2r", "cmw_net"])
def test_half_precision_gives_about_the_same_weights(name):
    found = []
    for is_half in (False, True):
        reweighter, model, _ = made(name, has_norm=False)
        start_at_once(reweighter)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            reweighter.weighted_loss(model, of(range(N_TRAIN)), VAL)
        found.append(reweighter.weights_.clone())
    assert float(functional.cosine_similarity(*found, dim=0)) > 0.95


@every_method
def test_validation_rows_that_lack_a_class_will_do(name):
    reweighter, model, optimizer = made(name)
    val = tuple(part[Y_VAL == 0] for part in VAL)
    assert np.isfinite(train(reweighter, model, optimizer, plan(5), val)).all()
    assert bool(torch.isfinite(reweighter.weights_).all())


@every_method
def test_a_monitor_and_the_ranking_of_suspicious_rows_work(name):
    reweighter, model, optimizer = made(name)
    log = []
    reweighter.monitor = Monitor(lambda *entry: log.append(entry), every=2, labels=Y)
    train(reweighter, model, optimizer, [*plan(4), torch.arange(N_TRAIN)])
    assert {step for *_, step in log} == {2, 4} and {"weights/effective_share", "weights/class_0"} <= {tag for tag, *_ in log}
    assert all(np.isfinite(value) for _, value, _ in log)
    ranked = suspicious_rows(reweighter)
    assert sorted(ranked.tolist()) == list(range(N_TRAIN))
    assert suspicious_rows(reweighter, k=5, labels=Y).shape == (5,)


@every_method
def test_an_index_that_is_none_is_refused_and_nothing_stored_changes(name):
    reweighter, model, optimizer = made(name, has_norm=False)
    train(reweighter, model, optimizer, plan(3))
    before = copy.deepcopy(reweighter.state_dict())
    for index in ([0, 1, N_TRAIN], [0, 1, -1], [0, 1], [0.0, 1.0, 2.0]):
        with pytest.raises(ValueError, match="index"):
            reweighter.weighted_loss(model, (X[:3], Y[:3], index), VAL)
        assert_same(reweighter.state_dict(), before)


@every_method
def test_losses_that_are_no_numbers_name_their_rows_and_nothing_stored_changes(name):
    reweighter, model, optimizer = made(name, has_norm=False)
    train(reweighter, model, optimizer, plan(3))
    before, x = copy.deepcopy(reweighter.state_dict()), X[:4].clone()
    x[2] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinity in training rows \[17\]"):
        reweighter.weighted_loss(model, (x, Y[:4], [30, 4, 17, 5]), VAL)
    assert_same(reweighter.state_dict(), before)


# The networks of the first two learn from the training rows, and so does the peer of the others.
LEARN_FROM_ALL = "lrw_opt", "meta_cleaner", "co_teaching", "divide_mix", "elr_plus"


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith(LEARN_FROM_ALL)])
def test_validation_losses_that_are_no_numbers_spoil_nothing_that_stays(name):
    reweighter, model, optimizer = made(name, has_norm=False)
    train(reweighter, model, optimizer, plan(4))
    learned = {key: value.clone() for key, value in reweighter.named_parameters()}
    x = X_VAL.clone()
    x[1] = float("nan")
    loss = None
    for _ in range(2):
        try:
            loss = reweighter.weighted_loss(model, of(range(9)), (x, *VAL[1:]))
        except ValueError as error:
            assert "validation rows" in str(error)
    assert loss is None or bool(torch.isfinite(loss))
    assert bool(torch.isfinite(reweighter.weights_).all())
    for key, value in reweighter.named_parameters():
        torch.testing.assert_close(value, learned[key], rtol=0.0, atol=0.0, msg=lambda text, key=key: f"{key}: {text}")
    assert np.isfinite(train(reweighter, model, optimizer, plan(2))).all()


@pytest.mark.parametrize("name", [name for name in METHODS if name.startswith("lrw_")])
def test_training_goes_on_after_validation_losses_that_are_no_numbers(name):
    reweighter, model, optimizer = made(name, has_norm=False)
    train(reweighter, model, optimizer, plan(4))
    x = X_VAL.clone()
    x[1] = float("nan")
    losses = train(reweighter, model, optimizer, plan(2), (x, *VAL[1:]))
    assert np.isfinite(losses).all() and bool(torch.isfinite(reweighter.weights_).all())
    assert all(bool(torch.isfinite(p).all()) for p in reweighter.parameters())
    assert np.isfinite(train(reweighter, model, optimizer, plan(2))).all()


@every_method
def test_a_model_left_in_eval_mode_is_told(name):
    reweighter, model, _ = made(name)
    with pytest.warns(UserWarning, match="eval mode"):
        reweighter.weighted_loss(model.eval(), of(range(9)), VAL)


@every_method
def test_a_warm_up_needs_no_validation_rows_and_has_weights_of_one(name):
    reweighter, model, optimizer = made(name)
    reweighter.warmup_epochs = 1.0
    train(reweighter, model, optimizer, [torch.arange(20), torch.arange(20, 40)], val=None)
    assert torch.equal(reweighter.weights_, torch.ones(N_TRAIN)) and reweighter.epoch == 1.0 and not reweighter.is_warming_up


@every_method
def test_double_precision_is_kept(name):
    reweighter, model, _ = made(name, has_norm=False)
    start_at_once(reweighter)
    reweighter.double(), model.double()
    loss = reweighter.weighted_loss(model, double(of(range(9))), double(VAL))
    assert loss.dtype == torch.float64 and reweighter.weights_.dtype == torch.float64


@every_method
def test_gradients_of_the_network_come_from_the_returned_loss_alone(name):
    """The model has no gradient before backward, and one of the loss as it stands after it."""
    reweighter, model, _ = made(name, has_norm=False)
    start_at_once(reweighter)
    loss = reweighter.weighted_loss(model, of(range(9)), VAL)
    assert all(p.grad is None for p in model.parameters())
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None for p in reweighter.parameters())


# Mixed rows are others than plain training sees.
@pytest.mark.parametrize(
    "name", [name for name in METHODS if name not in ("cmw_net with soft labels", "m_correction, mixed", "divide_mix", "elr_plus")]
)
def test_a_step_records_the_training_batch_once_and_draws_as_plain_training_does(name):
    """Running statistics and random draws are those of one pass of the training rows."""
    reweighter, model, _ = made(name)
    plain = copy.deepcopy(model)
    torch.default_generator.manual_seed(5)
    plain(X[:9])
    after = torch.get_rng_state()
    torch.default_generator.manual_seed(5)
    start_at_once(reweighter).weighted_loss(model, of(range(9)), VAL)
    assert torch.equal(torch.get_rng_state(), after)
    assert_same(dict(model.named_buffers()), dict(plain.named_buffers()))
    assert_same(model.state_dict(), plain.state_dict())


@every_method
def test_a_whole_step_runs_where_no_value_can_be_read(name, monkeypatch):
    """On "meta" a branch on a value of the device raises: on a GPU nothing is waited for."""
    # torch has no autocast for "meta", not even to be switched off.
    monkeypatch.setattr(torch, "autocast", lambda *args, **params: contextlib.nullcontext())
    model = Network(0, has_norm=False).train().to("meta")
    optimizer = optimizer_of(model)
    reweighter = METHODS[name](optimizer).to("meta")
    start_at_once(reweighter)
    for n in (9, 4):
        x, y = torch.empty(n, D, device="meta"), torch.empty(n, dtype=torch.int64, device="meta")
        x_val, y_val = torch.empty(5, D, device="meta"), torch.empty(5, dtype=torch.int64, device="meta")
        loss = reweighter.weighted_loss(model, (x, y, range(n)), (x_val, y_val, range(5)))
        assert loss.device.type == "meta" and loss.shape == ()
        loss.backward()
        optimizer.step()
    assert reweighter.rows_seen == 13


BASELINES = {
    "uniform": lambda optimizer: Uniform(N_TRAIN),
    "random": lambda optimizer: RandomWeights(N_TRAIN),
    "val_only": lambda optimizer: ValidationOnly(N_TRAIN),
    "kmm": lambda optimizer: DynamicReweighter("kmm", N_TRAIN, N_VAL),
}


@pytest.mark.parametrize("name", [*METHODS, *BASELINES])
def test_a_batch_that_is_not_indexed_is_told_what_is_missing(name):
    model = Network(0)
    reweighter = {**METHODS, **BASELINES}[name](optimizer_of(model))
    index = torch.arange(4)
    for batch, got in ((X[:4], "Tensor"), ((X[:4], Y[:4]), "2 parts"), (((X[:4], Y[:4]), index, index, index), "4 parts")):
        message = rf"A training batch must be \(x, y, index\), as .*Indexed makes it: DataLoader\(Indexed\(.* Got {got}"
        with pytest.raises(ValueError, match=message):
            reweighter.weighted_loss(model, batch, VAL)
    with pytest.raises(ValueError, match=r"takes the model first; got tuple"):
        reweighter.weighted_loss((X[:4], Y[:4], index), model, VAL)
    if reweighter.needs_validation:
        with pytest.raises(ValueError, match=r"A validation batch must be \(x, y, index\).* Got 2 parts"):
            reweighter.weighted_loss(model, (X[:4], Y[:4], index), VAL[:2])
        with pytest.raises(ValueError, match=f"{type(reweighter).__name__} needs validation rows for this batch"):
            reweighter.weighted_loss(model, (X[:4], Y[:4], index))


@pytest.mark.parametrize("what", ["no number", "out of range"])
@every_method
def test_on_a_device_an_unusable_batch_changes_no_row_and_is_told_later(name, what, monkeypatch):
    for module in ("loop.row_batch", "loop.batch_reweighter", "loop.reweighter", "meta.weight_network", "meta.virtual_step"):
        monkeypatch.setattr(importlib.import_module(f"densratio.training.{module}"), "waits_for", lambda device: True)
    reweighter, model, optimizer = made(name, 0, False)
    start_at_once(reweighter)
    train(reweighter, model, optimizer, [torch.arange(N_TRAIN), torch.arange(20)])
    before = {key: value.clone() for key, value in reweighter.state_dict().items() if torch.is_tensor(value)}
    index = torch.arange(5, 15)
    x, y, told = X[index].clone(), Y[index], index.clone()
    if what == "no number":
        x[3] = float("nan")
    else:
        told[3] = N_TRAIN
    reweighter.weighted_loss(model, (x, y, told), VAL)
    after = reweighter.state_dict()
    rows = {key for key, value in before.items() if len(value.shape) and len(value) == N_TRAIN}
    assert "weights_" in rows and all(torch.equal(before[key], after[key]) for key in rows - {"split_"})
    assert all(bool(torch.isfinite(value.float()).all()) for key, value in after.items() if torch.is_tensor(value))
    message = r"training rows \[8[,\]]" if what == "no number" else "An index of an earlier batch was out of range"
    with pytest.raises(ValueError, match=message):
        reweighter.check()
    train(reweighter, model, optimizer, [torch.arange(20)])
    assert bool(torch.isfinite(reweighter.weights_).all())


@pytest.mark.parametrize(
    "name",
    ["mw_net", "l2r of a bank", "gdw", "bilaw", "fsr", "stable_net", "meta_cleaner", "lilaw", "focal", "margin_based", "lrw_hard",
     "lrw_opt"],
)  # fmt: skip
def test_a_compiled_model_gives_the_weights_of_the_plain_one(name):
    torch.compiler.reset()
    found = []
    for is_compiled in (False, True):
        reweighter, model, optimizer = made(name, has_norm=False)
        train(reweighter, torch.compile(model, backend="aot_eager") if is_compiled else model, optimizer, plan(5))
        found.append(reweighter.weights_.clone())
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)
