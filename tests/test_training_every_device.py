"""Steps on a device without numpy's shortcut give what they give on the host, in the dtype of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_steps import recording
from small_loops import IRREDUCIBLE, N_TRAIN, N_VAL, X_VAL, Y_VAL, C, Network, X, Y, as_on_a_device, optimizer_of, plan
from training_cases import tensors

from densratio import KLIEP, KMM, LSIF, _arrays
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
    JointOptimization,
    JustTrainTwice,
    LabelCorrection,
    LiLAW,
    LRWHard,
    LRWOpt,
    MarginBased,
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
from densratio.training.loop import draws
from densratio.training.ratio import stored_step

RATIOS = {
    "kmm": lambda: KMM(gamma="target_spread", regularization=0.1),
    "kliep": lambda: "kliep",
    "lsif": lambda: "lsif",
    "wasserstein": lambda: "wasserstein",
    "uLSIF": lambda: LSIF(nonnegative=False),
    "RuLSIF": lambda: LSIF(alpha=0.5),
    "kmm through a map": lambda: KMM(kernel="random_fourier", regularization=0.1, random_state=0),
}


def weights(ratio, dtype, n, m, to_convergence):
    generator = torch.Generator().manual_seed(n)
    reweighter = DynamicReweighter(ratio, 512, 512, warmup_epochs=0, to_convergence=to_convergence)
    for _ in range(2):
        values = (torch.rand(k, generator=generator, dtype=torch.float64).to(dtype) for k in (n, m))
        reweighter.partial_fit(*values, torch.arange(n), torch.arange(m))
    return reweighter.weights_


@pytest.mark.parametrize("to_convergence", [False, True])
@pytest.mark.parametrize(("n", "m"), [(64, 128), (128, 64), (300, 20)])
@pytest.mark.parametrize("name", RATIOS)
def test_tensors_give_the_weights_of_numpy_arrays(name, n, m, to_convergence, monkeypatch):
    results = {}
    for dtype in (torch.float32, torch.float64):
        expected = weights(RATIOS[name](), dtype, n, m, to_convergence)
        with monkeypatch.context() as patch:
            patch.setattr(stored_step, "cheapest", lambda *tensors: tensors)
            results[dtype] = weights(RATIOS[name](), dtype, n, m, to_convergence)
        tolerance = 1e-6 if dtype == torch.float64 else 2e-3
        torch.testing.assert_close(results[dtype], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("ratio", ["kmm", "kliep", "lsif", "wasserstein"])
def test_rows_that_are_no_numbers_are_never_out_of_the_range_of_an_index(ratio):
    # On a GPU the values are looked at after the step; an index out of range there ends the process.
    step = stored_step.StoredStep(stored_step.ratio_for_loops(ratio), 8, 8)
    source, target = torch.rand(8, 1), torch.rand(8, 1)
    source[3] = float("nan")
    update = step.ratio.update(source, target, torch.ones(8))
    assert update.weights.shape == (8,)


@pytest.mark.parametrize("name", ["kmm", "wasserstein", "kmm through a map"])
def test_sums_in_a_fixed_order_give_the_same_weights(name, monkeypatch):
    monkeypatch.setattr(stored_step, "cheapest", lambda *tensors: tensors)
    expected = weights(RATIOS[name](), torch.float64, 100, 37, False)
    n_summed = []
    monkeypatch.setattr(_arrays, "_must_be_deterministic", lambda x: n_summed.append(len(x)) or True)
    torch.testing.assert_close(weights(RATIOS[name](), torch.float64, 100, 37, False), expected, rtol=1e-9, atol=1e-9)
    assert n_summed


@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 5)), axis=st.sampled_from([0, 1]), seed=st.integers(0, 99))
@settings(deadline=None)
def test_a_doubled_sum_is_the_cumulative_sum(shape, axis, seed):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = np.array([x.narrow(axis, 0, k + 1).sum(axis).numpy() for k in range(shape[axis])])
    np.testing.assert_allclose(_arrays._doubled_sum(x, axis).movedim(axis, 0).numpy(), expected, rtol=0.0, atol=1e-12)


def test_the_generator_of_any_device_is_put_back(monkeypatch):
    state = [torch.zeros(1)]
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: state[0].clone())
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda new, device: state.__setitem__(0, new))
    device, host = torch.device("mps"), torch.get_rng_state()
    states = draws.generator_states(device)
    with pytest.raises(ZeroDivisionError), draws.same_draws(device):
        state[0] += torch.rand(1)
        raise ZeroDivisionError
    assert torch.equal(state[0], torch.zeros(1)) and torch.equal(torch.get_rng_state(), host)
    state[0] += torch.rand(1)
    draws.set_generators(states, device)
    assert torch.equal(state[0], torch.zeros(1)) and torch.equal(torch.get_rng_state(), host)


# ---------------------------------------------------------------- whole steps, as a device takes them

NAMES = ["kmm", "kliep", "lsif", "wasserstein", "auto"]
WAYS = {
    "losses": {},
    "bank": {"val_refresh": 5},
    "bank in turns": {"val_refresh": 5, "val_every": 2, "forget": 0.1},
    "classes": {"y_train": Y, "y_val": Y_VAL},
    "layer": {"layer": "out"},
    "layer of a bank": {"layer": "out", "val_refresh": 5},
}


def co_teaching(dtype):
    peer = Network(4, has_norm=False).to(dtype)
    return CoTeaching(N_TRAIN, peer, optimizer_of(peer), forget_rate=0.4, n_epochs=2)


def elr_plus(dtype):
    peer = Network(4, False).to(dtype)
    return ELRPlus(N_TRAIN, C, peer, optimizer_of(peer))


def divide_mix(dtype):
    peer = Network(4, False).to(dtype)
    return DivideMix(N_TRAIN, peer, optimizer_of(peer), warmup_epochs=0.5, mixup=None)


METHODS = {
    **{
        f"{name}, {way}": (lambda _, name=name, params=params: DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0, **params))
        for name in NAMES
        for way, params in WAYS.items()
    },
    "sliced, layer": lambda _: DynamicReweighter("wasserstein", N_TRAIN, N_VAL, warmup_epochs=0, layer="out", potential="sliced"),
    "l2r": lambda _: L2R(N_TRAIN),
    "l2r of a bank": lambda _: L2R(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=5),
    "mw_net": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer),
    "cmw_net": lambda optimizer: CMWNet(N_TRAIN, Y, K=2, optimizer=optimizer, fixed_step_length=True),
    "cmw_net_sl": lambda optimizer: CMWNetSL(N_TRAIN, Y, optimizer=optimizer, every=2, warmup_epochs=0.0),
    "lrw_hard": lambda optimizer: LRWHard(N_TRAIN, 6, optimizer=optimizer),
    "lrw_opt": lambda optimizer: LRWOpt(N_TRAIN, 6, C, optimizer=optimizer, every=2, splitter_warmup=0),
    "mcw": lambda optimizer: MCW(N_TRAIN, Y, optimizer=optimizer, warmup_epochs=0.0),
    "gdw": lambda optimizer: GDW(N_TRAIN, optimizer=optimizer),
    "bilaw": lambda optimizer: BiLAW(N_TRAIN, C, optimizer=optimizer),
    "fsr": lambda optimizer: FSR(N_TRAIN, C, optimizer=optimizer, warmup_epochs=0.0),
    "lilaw": lambda _: LiLAW(N_TRAIN, warmup_epochs=0),
    "co_teaching": lambda optimizer: co_teaching(optimizer.param_groups[0]["params"][0].dtype),
    "elr_plus": lambda optimizer: elr_plus(optimizer.param_groups[0]["params"][0].dtype),
    "divide_mix": lambda optimizer: divide_mix(optimizer.param_groups[0]["params"][0].dtype),
    "m_correction": lambda _: MCorrection(N_TRAIN, warmup_epochs=0.5),
    "m_correction, mixed": lambda _: MCorrection(N_TRAIN, mixup=32.0, warmup_epochs=0.5),
    "joint_optimization": lambda _: JointOptimization(N_TRAIN, C, warmup_epochs=0.0),
    "meta_cleaner": lambda _: MetaCleaner(N_TRAIN, 6, warmup_epochs=0.0),
    "lrt": lambda _: LabelCorrection(N_TRAIN, C, rule="lrt", retroactive=1.0, warmup_epochs=0.0),
    "elr": lambda _: ELR(N_TRAIN, C),
    "focal": lambda _: Focal(N_TRAIN),
    "class_balanced": lambda _: ClassBalanced(N_TRAIN, Y),
    "self_paced": lambda _: SelfPaced(N_TRAIN),
    "margin_based": lambda _: MarginBased(N_TRAIN),
    "jtt": lambda _: JustTrainTwice(N_TRAIN, 2.0 * IRREDUCIBLE - 1.0),
    "rho_loss": lambda _: RHOLoss(N_TRAIN, IRREDUCIBLE),
    "stable_net": lambda _: StableNet(N_TRAIN, 6, n_saved=9),
    "random": lambda _: RandomWeights(N_TRAIN),
    "uniform": lambda _: Uniform(N_TRAIN),
    "val_only": lambda _: ValidationOnly(N_TRAIN),
}


def trained(name, dtype, is_half, n_batches=4, captures=True):
    model = Network(0, False).train().to(dtype)
    optimizer = optimizer_of(model)
    torch.default_generator.manual_seed(5)
    reweighter = METHODS[name](optimizer)
    reweighter.captures = captures
    torch.default_generator.manual_seed(6)
    for index in plan(n_batches):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            batch, val = (X[index].to(dtype), Y[index], index), (X_VAL.to(dtype), Y_VAL, torch.arange(N_VAL))
            loss = reweighter.weighted_loss(model, batch, val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reweighter.check()
    return reweighter, loss.detach()


@pytest.mark.parametrize(("dtype", "is_half"), [(torch.float32, False), (torch.float64, False), (torch.float32, True)], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_whole_steps_of_a_device_are_those_of_the_host(name, dtype, is_half):
    expected, loss = trained(name, dtype, is_half)
    with as_on_a_device():
        found, its_loss = trained(name, dtype, is_half)
    # A step from rounded losses starts from another point.
    tolerance = {"rtol": 5e-2, "atol": 5e-2} if is_half else {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(its_loss, loss, **tolerance)
    torch.testing.assert_close(found.weights_, expected.weights_, **tolerance)
    assert not torch.equal(found.weights_, torch.ones(N_TRAIN)) or name in ("uniform", "elr", "elr_plus")


# One of each way to write what is stored.
@pytest.mark.parametrize(
    "name", ["l2r", "mw_net", "cmw_net_sl", "fsr", "m_correction, mixed", "divide_mix", "elr", "uniform", "val_only"]
)
def test_whole_steps_that_graphs_replay_are_the_steps_themselves(name):
    with recording() as recorded:
        (plain, loss), (replayed, its_loss) = (trained(name, torch.float32, False, 9, captures) for captures in (False, True))
    assert recorded or isinstance(plain, DynamicReweighter) or name == "val_only"
    torch.testing.assert_close(its_loss, loss, rtol=1e-5, atol=1e-6)
    for entry, value in tensors(plain).items():
        torch.testing.assert_close(tensors(replayed)[entry], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (
            LSIF(l1_ratio=0.5, nonnegative=False),
            "l1_ratio > 0 with nonnegative=False .*leave out l1_ratio, or give",
        ),
        (LSIF(kernel="random_fourier", nonnegative=False), r'kernel=.random_fourier. .*give kernel="gaussian", or KMM'),
        (LSIF(kernel="nystroem", nonnegative=False), r'kernel=.nystroem. .*give kernel="gaussian", or KMM'),
        (KLIEP(kernel="random_fourier"), "needs features >= 0"),
    ],
)
def test_a_ratio_with_other_coefficients_than_validation_rows_is_refused_with_what_to_type(ratio, words):
    with pytest.raises(ValueError, match=words):
        DynamicReweighter(ratio, 20, 10)
