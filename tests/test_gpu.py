"""On a GPU no step waits for the device, and a captured step gives what the step gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from densratio.training import (
    ELR,
    FSR,
    GDW,
    L2R,
    MCW,
    BiLAW,
    CoTeaching,
    DynamicReweighter,
    JointOptimization,
    LabelCorrection,
    LiLAW,
    MCorrection,
    MetaCleaner,
    MWNet,
    RandomWeights,
    StableNet,
    Uniform,
    ValidationOnly,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

N_TRAIN, N_VAL, BATCH, REFRESH = 512, 128, 64, 32
WARM = 9  # steps after which those of ratios are graphs, of both kinds where a bank is renewed in turns
RATIOS = ["kmm", "kliep", "lsif", "wasserstein", "auto"]


def batch(seed, n_rows, n):
    generator = torch.Generator("cuda").manual_seed(seed)
    index = torch.randperm(n_rows, generator=generator, device="cuda")[:n]
    x = torch.randn(n, 8, generator=generator, device="cuda")
    return x, torch.randint(4, (n,), generator=generator, device="cuda"), index


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to("cuda")


def co_teaching():
    model = network()
    return CoTeaching(N_TRAIN, model, torch.optim.Adam(model.parameters()), forget_rate=0.4)


METHODS = {
    **{name: lambda optimizer, name=name: DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0) for name in RATIOS},
    "bank": lambda optimizer: DynamicReweighter("lsif", N_TRAIN, N_VAL, warmup_epochs=0, val_refresh=REFRESH),
    "bank in turns": lambda optimizer: DynamicReweighter(
        "wasserstein", N_TRAIN, N_VAL, warmup_epochs=0, val_refresh=REFRESH, val_every=3
    ),
    "uniform": lambda optimizer: Uniform(N_TRAIN),
    "random": lambda optimizer: RandomWeights(N_TRAIN),
    "validation only": lambda optimizer: ValidationOnly(N_TRAIN),
    "l2r": lambda optimizer: L2R(N_TRAIN),
    "mw_net": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer),
    "mw_net at a fixed step length": lambda optimizer: MWNet(N_TRAIN, optimizer=optimizer, fixed_step_length=True),
    "mw_net, last layer, bank": lambda optimizer: MWNet(N_TRAIN, mode="last_layer", n_val=N_VAL, val_refresh=REFRESH),
    "mcw": lambda optimizer: MCW(N_TRAIN, [0, 1, 2, 3] * (N_TRAIN // 4), optimizer=optimizer, warmup_epochs=0.0),
    "gdw": lambda optimizer: GDW(N_TRAIN, optimizer=optimizer),
    "bilaw": lambda optimizer: BiLAW(N_TRAIN, 4, optimizer=optimizer),
    "fsr": lambda optimizer: FSR(N_TRAIN, 4, warmup_epochs=0.0),
    "stable_net": lambda optimizer: StableNet(N_TRAIN, 16),
    "lilaw": lambda optimizer: LiLAW(N_TRAIN, warmup_epochs=0),
    "elr": lambda optimizer: ELR(N_TRAIN, 4),
    "co_teaching": lambda optimizer: co_teaching(),
    "m_correction": lambda optimizer: MCorrection(N_TRAIN, warmup_epochs=0),
    "joint_optimization": lambda optimizer: JointOptimization(N_TRAIN, 4, warmup_epochs=0),
    "meta_cleaner": lambda optimizer: MetaCleaner(N_TRAIN, 16, warmup_epochs=0),
    "label correction": lambda optimizer: LabelCorrection(N_TRAIN, 4, warmup_epochs=0),
}


@pytest.mark.parametrize("name", METHODS)
def test_no_step_waits_for_the_device(name):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    reweighter = METHODS[name](optimizer).to("cuda")

    def step(seed):
        val = batch(100 + seed, N_VAL, REFRESH if "bank" in name else N_VAL)
        loss = reweighter.weighted_loss(model, batch(seed, N_TRAIN, BATCH), val)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for seed in range(WARM):  # what is found out or made once may wait
        step(seed)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed in range(WARM, WARM + 6):
            step(seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(reweighter.weights_).all())


@pytest.mark.parametrize("name", METHODS)
def test_every_step_runs_under_deterministic_algorithms(name, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    model = network()
    reweighter = METHODS[name](torch.optim.SGD(model.parameters(), lr=0.1)).to("cuda")
    torch.use_deterministic_algorithms(True)
    try:
        for seed in range(WARM):
            val = batch(100 + seed, N_VAL, REFRESH if "bank" in name else N_VAL)
            reweighter.weighted_loss(model, batch(seed, N_TRAIN, BATCH), val).backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert bool(torch.isfinite(reweighter.weights_).all())


@pytest.mark.parametrize("n_before", [1, WARM])
@pytest.mark.parametrize("what", ["no number", "out of range"])
@pytest.mark.parametrize("name", METHODS)
def test_an_unusable_batch_changes_no_weight_and_is_told_later(name, what, n_before):
    model = network()
    reweighter = METHODS[name](torch.optim.SGD(model.parameters(), lr=0.1)).to("cuda")
    val = batch(1, N_VAL, REFRESH if "bank" in name else N_VAL)
    for _ in range(n_before):
        reweighter.weighted_loss(model, batch(0, N_TRAIN, BATCH), val)
    before = reweighter.weights_.clone()
    x, y, index = batch(2, N_TRAIN, BATCH)
    if what == "no number":
        x[3] = float("nan")
    else:
        index[3] = N_TRAIN
    reweighter.weighted_loss(model, (x, y, index), val)
    assert torch.equal(reweighter.weights_, before)
    with pytest.raises(ValueError, match=rf"training rows \[{int(index[3])}\]" if what == "no number" else "out of range"):
        reweighter.check()
    reweighter.weighted_loss(model, batch(3, N_TRAIN, BATCH), val)
    assert bool(torch.isfinite(reweighter.weights_).all())


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_replays_graphs_and_trains_as_it_does_step_by_step(name):
    states = []
    for captures in (False, True):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        reweighter = METHODS[name](optimizer).to("cuda")
        reweighter.captures = captures
        for seed in range(5 * WARM):
            val = batch(100 + seed, N_VAL, REFRESH if "bank" in name else N_VAL)
            # The last batch of an epoch is smaller.
            loss = reweighter.weighted_loss(model, batch(seed, N_TRAIN, BATCH if seed % 4 else BATCH - 7), val)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append({**model.state_dict(), **reweighter.state_dict()})
        graphs = reweighter._captured._graphs.values()
        assert bool(graphs) == captures and None not in graphs
    for entry, value in states[0].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(states[1][entry], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RATIOS[:4])
def test_a_captured_step_gives_the_weights_of_the_step(name):
    plain, captured = (DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0).to("cuda") for _ in range(2))
    train, val, index = torch.rand(BATCH, device="cuda"), torch.rand(N_VAL, device="cuda"), torch.arange(BATCH, device="cuda")
    val_index = torch.arange(N_VAL, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            captured.partial_fit(train, val, index, val_index)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.partial_fit(train, val, index, val_index)
    plain.load_state_dict(captured.state_dict())
    for seed in range(4):
        train.copy_(batch(seed, N_TRAIN, BATCH)[0][:, 0].abs())
        graph.replay()
        plain.partial_fit(train, val, index, val_index)
        torch.testing.assert_close(captured.weights_, plain.weights_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["exact", "first_order"])
def test_the_scores_are_those_of_the_host(mode):
    weights = []
    for device in ("cpu", "cuda"):
        own = network().to(device)
        reweighter = L2R(N_TRAIN, optimizer=torch.optim.SGD(own.parameters(), lr=0.1), mode=mode).to(device)
        train, val = (tuple(part.to(device) for part in batch(seed, n, BATCH)) for seed, n in ((0, N_TRAIN), (1, N_VAL)))
        reweighter.weighted_loss(own, train, val)
        weights.append(reweighter.weights_.cpu())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-4)
