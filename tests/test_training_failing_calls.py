"""A call that raises changes nothing: steps and checkpoints of every method, and copies made between any two steps."""

from __future__ import annotations

import copy

import pytest
import torch
from small_loops import N_TRAIN, N_VAL, VAL, C, Network, X, Y, assert_same, of, optimizer_of, plan, stored, train
from torch import nn

from densratio.training import (
    ELR,
    FSR,
    GDW,
    L2R,
    MCW,
    CMWNetSL,
    CoTeaching,
    Critic,
    DivideMix,
    DynamicReweighter,
    ELRPlus,
    JointOptimization,
    LabelCorrection,
    LiLAW,
    LRWHard,
    MCorrection,
    MetaCleaner,
    MWNet,
    RandomWeights,
    RHOLoss,
    SelfPaced,
    StableNet,
    Uniform,
    ValidationOnly,
)


def co_teaching():
    peer = Network(4, has_norm=False)
    return CoTeaching(N_TRAIN, peer, optimizer_of(peer), forget_rate=0.4, n_epochs=2)


def elr_plus():
    peer = Network(4, has_norm=False)
    return ELRPlus(N_TRAIN, C, peer, optimizer_of(peer), mixup=1.0, warmup_epochs=0.5)


def divide_mix():
    peer = Network(4, has_norm=False)
    return DivideMix(N_TRAIN, peer, optimizer_of(peer), mixup=4.0, warmup_epochs=0.5)


METHODS = {
    "kmm": lambda **_: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0),
    "kliep of a bank": lambda **_: DynamicReweighter("kliep", N_TRAIN, N_VAL, warmup_epochs=0, val_refresh=5, val_every=2),
    "layers": lambda **_: DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0, layer="out", val_refresh=5, val_every=2),
    "mixture": lambda **_: DynamicReweighter("auto", N_TRAIN, N_VAL, warmup_epochs=0),
    "critic": lambda **_: DynamicReweighter(
        "wasserstein", N_TRAIN, N_VAL, warmup_epochs=0, transformation=lambda p, y, losses: p.detach(), potential="critic"
    ),
    "l2r of a bank": lambda **_: L2R(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=5),
    "mw_net": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer),
    "cmw_net_sl": lambda optimizer: CMWNetSL(N_TRAIN, Y, every=2, optimizer=optimizer, warmup_epochs=0.0),
    "mcw": lambda optimizer: MCW(N_TRAIN, Y, optimizer=optimizer, warmup_epochs=0.0),
    "gdw": lambda optimizer: GDW(N_TRAIN, optimizer=optimizer),
    "fsr": lambda optimizer: FSR(N_TRAIN, 3, optimizer=optimizer, warmup_epochs=0.0),
    "lilaw": lambda **_: LiLAW(N_TRAIN, warmup_epochs=0),
    "random": lambda **_: RandomWeights(N_TRAIN),
    "self_paced": lambda **_: SelfPaced(N_TRAIN),
    "stable_net": lambda **_: StableNet(N_TRAIN, 6, n_saved=9),
    "co_teaching": lambda **_: co_teaching(),
    "divide_mix": lambda **_: divide_mix(),
    "elr_plus": lambda **_: elr_plus(),
    "m_correction": lambda **_: MCorrection(N_TRAIN, warmup_epochs=0.5),
    "m_correction, mixed": lambda **_: MCorrection(N_TRAIN, mixup=32.0, warmup_epochs=0.5),
    "joint_optimization": lambda **_: JointOptimization(N_TRAIN, C, warmup_epochs=0.5),
    "meta_cleaner": lambda **_: MetaCleaner(N_TRAIN, 6, warmup_epochs=0.0),
    "plc": lambda **_: LabelCorrection(N_TRAIN, C, retroactive=1.0, warmup_epochs=0.0),
    "elr": lambda **_: ELR(N_TRAIN, C),
    "rho_loss": lambda **_: RHOLoss(N_TRAIN, torch.zeros(N_TRAIN)),
    "uniform": lambda **_: Uniform(N_TRAIN),
    "val_only": lambda **_: ValidationOnly(N_TRAIN),
}
every_method = pytest.mark.parametrize("name", METHODS)
WITHOUT_VALIDATION = {
    "random", "self_paced", "stable_net", "fsr", "co_teaching", "divide_mix", "elr_plus", "m_correction",
    "m_correction, mixed", "joint_optimization", "meta_cleaner", "plc", "elr", "rho_loss", "uniform",
}  # fmt: skip


def run_of(name, n_steps, seed=0):
    model = Network(seed, False).train()
    optimizer = optimizer_of(model)
    torch.default_generator.manual_seed(3)
    reweighter = METHODS[name](optimizer=optimizer)
    train(reweighter, model, optimizer, plan(n_steps))
    return reweighter, model, optimizer


def bad_batches():
    x = X[:3].clone()
    x[1] = float("nan")
    yield (x, Y[:3], [0, 1, 2]), VAL, "NaN or infinity in training rows"
    yield (X[:3], Y[:3], [0, 1, N_TRAIN]), VAL, "out of range"
    yield (X[:3], Y[:3], [0, 1]), VAL, "one entry for each row|3 rows"
    yield (X[:0], Y[:0], []), VAL, "The training batch has no rows"


@pytest.mark.parametrize("n_steps", [0, 4])
@every_method
def test_a_step_that_raises_leaves_every_entry_and_generator_as_it_was(name, n_steps):
    reweighter, model, _ = run_of(name, n_steps)
    before = stored(reweighter.state_dict())
    for batch, val, message in bad_batches():
        with pytest.raises(ValueError, match=message):
            reweighter.weighted_loss(model, batch, val)
        assert_same(reweighter.state_dict(), before)


@pytest.mark.parametrize("name", [name for name in METHODS if name not in WITHOUT_VALIDATION])
def test_a_model_that_fails_on_the_validation_rows_leaves_the_reweighter_as_it_was(name):
    reweighter, model, _ = run_of(name, 4)
    before = stored(reweighter.state_dict())
    fails_at = N_VAL if getattr(reweighter, "val_refresh", None) is None and "bank" not in name else 5

    class Failing(Network):
        def forward(self, x):
            if len(x) == fails_at:
                raise RuntimeError("no room")
            return super().forward(x)

    model.__class__ = Failing
    with pytest.raises(RuntimeError, match="no room"):
        reweighter.weighted_loss(model, of(torch.arange(9)), VAL)
    assert_same(reweighter.state_dict(), before)


def test_classes_that_a_failing_partial_fit_was_given_are_not_kept():
    reweighter = DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0)
    before = stored(reweighter.state_dict())
    with pytest.raises(ValueError, match="NaN"):
        reweighter.partial_fit(
            torch.tensor([1.0, float("nan")]), torch.rand(N_VAL), [0, 1], range(N_VAL), y=[0, 1], y_val=[0] * N_VAL
        )
    assert reweighter.classes is None
    assert_same(reweighter.state_dict(), before)
    reweighter.partial_fit(torch.rand(4), torch.rand(6), range(4))  # and no val_index is asked for


@pytest.mark.parametrize("failing", ["kliep", "lsif", "wasserstein"])
def test_a_solver_that_fails_in_the_middle_takes_back_labels_bank_and_the_other_methods(failing, monkeypatch):
    reweighter = DynamicReweighter("auto", N_TRAIN, N_VAL, warmup_epochs=0, val_refresh=5)
    generator = torch.Generator().manual_seed(0)

    def batch():
        train, val = torch.rand(12, generator=generator), torch.rand(5, generator=generator)
        return train, val, torch.arange(12), torch.arange(5), torch.arange(12) % 2, torch.arange(5) % 2

    reweighter.partial_fit(*batch())
    before = stored(reweighter.state_dict())
    broken = next(step for step in reweighter.steps if type(step.ratio).__name__.lower() == failing)

    def fail(*args, **params):
        raise FloatingPointError("overflow")

    with monkeypatch.context() as patch:
        patch.setattr(broken.ratio, "update", fail)
        with pytest.raises(FloatingPointError):
            reweighter.partial_fit(*batch())
    assert_same(reweighter.state_dict(), before)
    reweighter.partial_fit(*batch())


# ---------------------------------------------------------------- copies


@every_method
def test_a_deep_copy_between_any_two_steps_goes_on_to_the_bit(name):
    run, copies, after = run_of(name, 0), [], []
    for index in plan(7):
        copies.append((copy.deepcopy(run), torch.get_rng_state()))
        train(*run, [index])
        after.append(stored(run[0].state_dict()))
    # The run itself is over: a tensor that a copy shared with it would be that of the last step.
    for n_steps, (twin, draws) in enumerate(copies[:5]):
        torch.set_rng_state(draws)
        train(*twin, plan(7)[n_steps : n_steps + 3])
        assert_same(stored(twin[0].state_dict()), after[n_steps + 2])


@pytest.mark.parametrize("name", ["layers", "mixture", "kmm"])
def test_a_copy_is_made_before_the_backward_pass_too(name):
    reweighter, model, _ = run_of(name, 1)
    reweighter.weighted_loss(model, of(torch.arange(9)), VAL)
    assert_same(copy.deepcopy(reweighter).state_dict(), reweighter.state_dict())


# ---------------------------------------------------------------- checkpoints


def spoiled(state, key):
    bad = stored(state)
    bad[key] = bad[key].clone()
    bad[key].view(-1)[0] = float("nan")
    return bad


@every_method
def test_a_checkpoint_with_nan_is_refused_and_nothing_changes(name):
    reweighter, _, _ = run_of(name, 4)
    state = stored(run_of(name, 3, seed=1)[0].state_dict())
    before = stored(reweighter.state_dict())
    floats = [key for key, value in state.items() if torch.is_tensor(value) and value.is_floating_point() and value.numel()]
    for key in floats:
        with pytest.raises(ValueError, match=rf"NaN or infinity in '{key}': nothing was loaded"):
            reweighter.load_state_dict(spoiled(state, key))
        assert_same(reweighter.state_dict(), before)
    reweighter.load_state_dict(state)
    assert_same(reweighter.state_dict(), state)


MISFITS = {
    "size": lambda state: state.update({"row_losses.mass": torch.zeros(N_TRAIN + 2)}),
    "missing": lambda state: state.pop("row_losses.total"),
    "extra": lambda state: state["_extra_state"].pop("steps_seen"),
    "counts": lambda state: state.update(_extra_state=3),
    "unknown": lambda state: state.update(of_another_method=torch.zeros(2)),
}


@every_method
def test_a_checkpoint_that_does_not_fit_changes_nothing_and_says_what_to_do(name):
    reweighter, _, _ = run_of(name, 4)
    before = stored(reweighter.state_dict())
    whole = stored(run_of(name, 3, seed=1)[0].state_dict())
    message = rf"does not fit {type(reweighter).__name__} of {N_TRAIN} training rows; nothing was loaded"
    for what, spoil in MISFITS.items():
        state = stored(whole)
        spoil(state)
        with pytest.raises(RuntimeError, match=message):
            reweighter.load_state_dict(state)
            pytest.fail(what)
        assert_same(reweighter.state_dict(), before)


def kind_of(reweighter):
    """The method and its ratio: states of two kinds can have the same entries."""
    return type(reweighter).__name__, *([type(reweighter.ratio).__name__] if hasattr(reweighter, "ratio") else [])


def shapes(state):
    return {key: getattr(value, "shape", None) for key, value in state.items()}


def test_the_state_of_another_method_is_refused_by_its_name():
    fresh = [run_of(name, 0)[0] for name in METHODS]
    states = [stored(method.state_dict()) for method in fresh]
    others = [(i, j) for i, own in enumerate(fresh) for j, other in enumerate(fresh) if kind_of(own) != kind_of(other)]
    alike = [(i, j) for i, j in others if shapes(states[i]) == shapes(states[j])]
    assert alike
    for i, j in alike + [(i, j) for i, j in others if j == i + 1]:
        with pytest.raises(RuntimeError, match=rf"nothing was loaded.*It is of {' of '.join(kind_of(fresh[j]))}, and"):
            fresh[i].load_state_dict(states[j])
        assert_same(fresh[i].state_dict(), states[i])


def test_a_class_that_extends_a_method_loads_its_states():
    class Mine(MWNet):
        """A method of one's own."""

    ours, mine = MWNet(N_TRAIN), Mine(N_TRAIN)
    mine.load_state_dict(ours.state_dict())
    ours.load_state_dict(mine.state_dict())
    with pytest.raises(RuntimeError, match="It is of L2R, and this is MWNet"):
        mine.load_state_dict(L2R(N_TRAIN).state_dict())


@every_method
def test_a_state_that_does_not_name_its_method_is_loaded(name):
    own, other = run_of(name, 2)[0], run_of(name, 0)[0]
    state = stored(own.state_dict())
    del state["_extra_state"]["method"]
    other.load_state_dict(state)
    assert_same(other.state_dict(), own.state_dict())


@every_method
def test_a_checkpoint_with_an_entry_of_another_shape_changes_nothing(name):
    reweighter, _, _ = run_of(name, 4)
    before = stored(reweighter.state_dict())
    for key in [key for key, value in before.items() if isinstance(value, torch.Tensor)]:
        state = stored(before)
        state[key] = torch.ones(state[key].numel() + 1)
        with pytest.raises(RuntimeError, match="nothing was loaded"):
            reweighter.load_state_dict(state)
        assert_same(reweighter.state_dict(), before)


def test_a_checkpoint_of_another_method_or_size_names_what_to_make():
    state = MWNet(N_TRAIN).state_dict()
    with pytest.raises(RuntimeError, match="the same class, sizes and parameters"):
        L2R(N_TRAIN).load_state_dict(state)
    unnamed = L2R(N_TRAIN).state_dict()
    del unnamed["_extra_state"]["method"]
    with pytest.raises(RuntimeError, match="It lacks 'network_optimizer', which MWNet saves"):
        MWNet(N_TRAIN).load_state_dict(unnamed)
    with pytest.raises(RuntimeError, match="It lacks 'too_small_', which DynamicReweighter saves"):
        DynamicReweighter("kmm", N_TRAIN, 5).load_state_dict(unnamed)
    with pytest.raises(RuntimeError, match=rf"MWNet of {N_TRAIN + 1} training rows(?s:.*)\b{N_TRAIN}\b"):
        MWNet(N_TRAIN + 1).load_state_dict(state)


def test_a_critic_that_was_made_stays_after_a_checkpoint_that_does_not_fit():
    reweighter, _, _ = run_of("critic", 3)
    assert isinstance(reweighter.steps[0].potential, Critic)
    before = stored(reweighter.state_dict())
    state = stored(before)
    state["steps.0.potential.network.0.weight"] = torch.zeros(128, 7)
    with pytest.raises(RuntimeError, match="does not fit"):
        reweighter.load_state_dict(state)
    assert_same(reweighter.state_dict(), before)


def stepped(reweighter, model, optimizer, batches):
    torch.default_generator.manual_seed(5)
    return train(reweighter, model, optimizer, batches), stored(reweighter.state_dict())


@pytest.mark.parametrize("back", [0, 1])
@every_method
def test_a_run_goes_back_to_the_state_before_an_early_batch_to_the_bit(name, back):
    """What the first batches make, such as a bank or a critic, is not in that state, and is made anew."""
    reweighter, model, optimizer = run_of(name, back)
    states = [stored(part.state_dict()) for part in (reweighter, model, optimizer)]
    first = stepped(reweighter, model, optimizer, plan(4))
    for part, state in zip((reweighter, model, optimizer), states, strict=True):
        part.load_state_dict(state)
    assert_same(stored(reweighter.state_dict()), states[0])
    assert_same(stepped(reweighter, model, optimizer, plan(4)), first)


@pytest.mark.parametrize("by_labels", [False, True])
def test_labels_that_came_with_the_batches_are_forgotten_with_them(by_labels):
    labels = {"y_train": Y, "y_val": VAL[1]} if by_labels else {}
    reweighter, batch = DynamicReweighter("kmm", N_TRAIN, N_VAL, warmup_epochs=0, **labels), torch.arange(20)
    before, losses = stored(reweighter.state_dict()), torch.linspace(0.0, 1.0, 20)
    for _ in range(2):
        reweighter.partial_fit(losses, losses[:N_VAL], batch, y=Y[batch], y_val=VAL[1])
        reweighter.load_state_dict(before)
        assert_same(stored(reweighter.state_dict()), before)
    # Labels that were declared belong to every state.
    other = DynamicReweighter("kmm", N_TRAIN, N_VAL, **({} if by_labels else {"y_train": Y, "y_val": VAL[1]}))
    with pytest.raises(RuntimeError, match="does not fit"):
        (reweighter if by_labels else other).load_state_dict(stored((other if by_labels else reweighter).state_dict()))


def test_a_critic_that_was_not_made_is_none_after_a_checkpoint_that_does_not_fit():
    def made():
        return DynamicReweighter("wasserstein", N_TRAIN, N_VAL, warmup_epochs=0, layer="out")

    reweighter, model = made(), Network(0, has_norm=False)
    reweighter.weighted_loss(model, of(torch.arange(9)), VAL)
    state = {**stored(reweighter.state_dict()), "weights_": torch.zeros(3)}
    fresh = made()
    with pytest.raises(RuntimeError, match="does not fit"):
        fresh.load_state_dict(state)
    assert fresh.steps[0].potential is None
    fresh.weighted_loss(model, of(torch.arange(9)), VAL)


def test_a_mask_of_infinity_in_a_backbone_is_no_fault():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

        def forward(self, x):
            return x

    first, second = (LRWHard(N_TRAIN, 4, backbone=Masked()) for _ in range(2))
    first.load_state_dict(second.state_dict())
    with pytest.raises(ValueError, match=r"NaN or infinity in .*bias"):
        first.load_state_dict(spoiled(second.state_dict(), "network.layers.0.bias"))
