"""On a GPU no step waits for the device, and a captured step gives what the step gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from test_labels_images import CROSS, SQUARE, drawn
from torch import nn

from densratio import NoisyLabelClassifier, find_label_issues
from densratio.labels import epochs, mean_network, training
from densratio.labels.image_network import image_network
from densratio.labels.mean_network import MeanNetwork
from densratio.labels.networks import small_network
from densratio.training import (
    ELR,
    FSR,
    GDW,
    L2R,
    MCW,
    BiLAW,
    CoTeaching,
    DivideMix,
    DynamicReweighter,
    ELRPlus,
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


def elr_plus():
    model = network()
    return ELRPlus(N_TRAIN, 4, model, torch.optim.Adam(model.parameters()), mixup=1.0)


def divide_mix():
    model = network()
    return DivideMix(N_TRAIN, model, torch.optim.Adam(model.parameters()), mixup=4.0, warmup_epochs=0.5)


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
    "divide_mix": lambda optimizer: divide_mix(),
    "elr_plus": lambda optimizer: elr_plus(),
    "m_correction": lambda optimizer: MCorrection(N_TRAIN, warmup_epochs=0),
    "joint_optimization": lambda optimizer: JointOptimization(N_TRAIN, 4, warmup_epochs=0),
    "meta_cleaner": lambda optimizer: MetaCleaner(N_TRAIN, 16, warmup_epochs=0),
    "label correction": lambda optimizer: LabelCorrection(N_TRAIN, 4, retroactive=1.0, warmup_epochs=0),
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


# ---------------------------------------------------------------- wrong labels


def table(n=600):
    """Rows (n, 3) of three classes that overlap a little, their given labels, 20 % of them wrong, and the right ones."""
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=n)
    given = np.where(rng.random(n) < 0.3, rng.integers(3, size=n), true)
    return 3.0 * np.eye(3)[true] + rng.normal(size=(n, 3)), given, true


def shapes(n=300):
    """Images (n, h, w) of crosses and squares, their given labels, 20 % of them wrong, and the right ones."""
    images, true = drawn(n, [CROSS, SQUARE], seed=0)
    return images, np.where(np.random.default_rng(1).random(n) < 0.2, 1 - true, true), true


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(mean_network, "_STEPS", 60)


# The network of a table meets the same batches on both, so that they differ by rounding: 1e-5 after 300 steps where each number of
# the rows is changed by 3e-7. Images are moved by other draws, and differ as two seeds do: AUROC .9989 to 1, number 58 to 63.
@pytest.mark.parametrize(("rows", "far", "off"), [(table, 0.002, 3), (shapes, 0.01, 12)], ids=["table", "images"])
def test_the_wrong_labels_are_those_found_on_the_host(rows, far, off, few_steps):
    X, given, true = rows()
    host, device = (find_label_issues(X, given, cv=2, n_repeats=1, device=name) for name in ("cpu", "cuda"))
    areas = [roc_auc_score(given != true, issues.sort_values("row").score) for issues in (host, device)]
    assert areas[1] > 0.98 and abs(areas[1] - areas[0]) < far
    assert abs(device.attrs["n_issues"] - host.attrs["n_issues"]) <= off


@pytest.mark.parametrize("n_rows", [128, 600])
def test_a_network_of_a_table_is_that_of_the_host(n_rows, monkeypatch):
    monkeypatch.setattr(mean_network, "_STEPS", 20)
    X, given, _ = table(n_rows)
    host, device = (MeanNetwork(epochs=4, device=name).fit(X, given) for name in ("cpu", "cuda"))
    assert next(device.model_.parameters()).is_cuda and not any(value.is_cuda for value in device.states_[0].values())
    np.testing.assert_allclose(device.predict_proba(X), host.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("method", ["auto", "mw_net", "uniform"])
def test_a_classifier_learns_what_it_learns_on_the_host(method):
    """Four standard errors of the difference of two seeds: accuracy .0025 each, AUROC .0003, number 3.2."""
    X, given, true = table()
    clean = np.arange(60)[(given == true)[:60]]
    host, device = (NoisyLabelClassifier(method, max_iter=20, device=name).fit(X, given, clean=clean) for name in ("cpu", "cuda"))
    assert abs(device.score(X, true) - host.score(X, true)) <= 0.014
    assert isinstance(device.weights_, np.ndarray) and next(device.module_.parameters()).is_cuda
    if method == "auto":
        areas = [roc_auc_score(given != true, model.label_issues_.sort_values("row").score) for model in (host, device)]
        assert abs(areas[1] - areas[0]) < 0.002
        assert abs(device.label_issues_.attrs["n_issues"] - host.label_issues_.attrs["n_issues"]) <= 18


def perceptron(n_features, n_classes):
    return small_network((n_features,), n_classes)


def by_mw_net(**clean):
    # A network of one's own is trained without a trial: the first epoch is one of MW-Net.
    return NoisyLabelClassifier("mw_net", perceptron, max_iter=3, device="cuda").fit(*table()[:2], **clean)


def learned_from_images(*factory, **how):
    images, given, _ = shapes()
    return MeanNetwork(*factory, epochs=3, device="cuda", **how).fit(images[:, None], given)


LEARNERS = {
    "images moved": lambda: learned_from_images(image_network, moves="flips"),
    "images": learned_from_images,
    "table": lambda: MeanNetwork(epochs=3, device="cuda").fit(*table()[:2]),
    "classifier of images": lambda: NoisyLabelClassifier(max_iter=4, device="cuda").fit(*shapes()[:2]),
    "classifier": lambda: NoisyLabelClassifier(max_iter=4, device="cuda").fit(*table()[:2]),
    "mw_net, clean rows": lambda: by_mw_net(clean=np.arange(60)),
    "mw_net, chosen rows": by_mw_net,
}


@pytest.mark.parametrize("name", LEARNERS)
def test_no_epoch_waits_for_the_device(name, monkeypatch):
    """From the second on: what is found out or made once may wait."""
    monkeypatch.setattr(mean_network, "_STEPS", 20)
    lengths = []

    def strict(order, *given):
        lengths.append(len(order))
        if len(lengths) == 1:
            return epochs.one_epoch(order, *given)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            return epochs.one_epoch(order, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    for module in (mean_network, training):
        monkeypatch.setattr(module, "one_epoch", strict)
    LEARNERS[name]()
    assert len(lengths) >= 3
