"""The frameworks people train with: each gives the weights of a plain loop on the same batches, and resumes where it stopped."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import os
import pickle
import re
import subprocess
import sys
import warnings
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from densratio import KLIEP
from densratio.datasets import label_noise
from densratio.demo.methods import METHODS
from densratio.training import DynamicReweighter, Indexed, MWNet, RandomWeights, Uniform
from densratio.training.integrations import LoopState, ValidationBatches
from densratio.training.integrations.validation import _batches_of_rows
from densratio.training.losses import squared_error

PAGE = Path(__file__).parent.parent / "docs" / "integrations.md"
N_TRAIN, N_VAL, N_COLUMNS, N_CLASSES, SIZE = 90, 24, 5, 3, 16  # the last batch of an epoch has 10 rows
PER_EPOCH = 6
LEARNING_RATE = 0.1


def meta_weights(n_train, n_val, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MWNet(n_train, normalize=True, learning_rate=0.05)


def in_turns(n_train, n_val, seed):
    return DynamicReweighter("kliep", n_train, n_val, val_refresh=7, val_every=3)


MAKERS = {**METHODS, "mw_net": meta_weights, "in_turns": in_turns}
all_methods = pytest.mark.parametrize("method", sorted(MAKERS))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads of tiny networks only wait for each other, most of all beside other test processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---------------------------------------------------------------- data, networks and the plain loop


def rows(n, seed):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, N_COLUMNS, generator=draw), torch.randint(N_CLASSES, (n,), generator=draw)


def network(seed=0, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(N_COLUMNS, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, N_CLASSES))


TRAIN, VAL = rows(N_TRAIN, 0), rows(N_VAL, 1)
TRAIN_SET, VAL_SET = TensorDataset(*TRAIN), TensorDataset(*VAL)


def dynamic(name="kliep", n_train=N_TRAIN, n_val=N_VAL, **params):
    return DynamicReweighter(name, n_train, n_val, **params)


class Recorded:
    """The batches that a reweighter was given, and its weights after each of them."""

    def __init__(self, reweighter):
        self.reweighter, self.batches, self.weights = reweighter, [], []
        self._loss = reweighter.weighted_loss
        reweighter.weighted_loss = self

    def __call__(self, model, train, val):
        loss = self._loss(model, train, val)
        self.batches.append((train[2].clone(), None if val is None else val[2].clone()))
        self.weights.append(self.reweighter.weights_.clone())
        return loss


def plain_loop(batches, reweighter, model, *, steps=None, clip=None, precision=None, scale=1.0):
    """The weights after each batch. steps: batches of each optimizer step, whose rows count alike; one each by default."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    if isinstance(reweighter, MWNet):
        reweighter.optimizer = optimizer
    weights, queue = [], list(batches)
    for n_batches in steps or [1] * len(queue):
        group, queue = queue[:n_batches], queue[n_batches:]
        n_rows = sum(len(i) for i, _ in group)
        optimizer.zero_grad()
        for i, j in group:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
                val = None if j is None else (scale * VAL[0][j], VAL[1][j], j)
                loss = reweighter.weighted_loss(model, (scale * TRAIN[0][i], TRAIN[1][i], i), val)
            (loss * len(i) / n_rows).backward()
            weights.append(reweighter.weights_.clone())
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return weights


def assert_same_weights(weights, others, exact=True):
    assert len(weights) == len(others) > 0
    for one, other in zip(weights, others, strict=True):
        torch.testing.assert_close(one, other, **({"rtol": 0, "atol": 0} if exact else {"rtol": 1e-4, "atol": 1e-5}))


def assert_same_parameters(model, other):
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def assert_moved_after_the_warm_up(weights):
    ones = torch.ones(N_TRAIN)
    assert all(torch.equal(w, ones) for w in weights[:PER_EPOCH]) and not torch.equal(weights[-1], ones)


def assert_whole_passes(batches, n, epochs):
    """Every training row once in each epoch."""
    seen = torch.cat([i for i, _ in batches]).reshape(epochs, n)
    assert torch.equal(seen.sort(dim=1).values, torch.arange(n).expand(epochs, n))


def same(one, other):
    """Whether two states are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if not isinstance(one, torch.Tensor):
        return one == other
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


class Digits:
    """Half the labels of the training rows are wrong; those of the validation and test rows are right."""

    n_train, n_val, batch_size, epochs, learning_rate = 512, 100, 64, 25, 1e-2

    def __init__(self):
        x, y = load_digits(return_X_y=True)
        x, order = (x / 16).astype("float32"), np.random.default_rng(0).permutation(len(y))
        val, train, test = np.split(order, [self.n_val, self.n_val + self.n_train])
        noisy = label_noise(y[train], "symmetric", 0.5, n_classes=10, random_state=0).labels
        self.train, self.val, self.test = (x[train], noisy), (x[val], y[val]), (x[test], y[test])

    def sets(self):
        return [TensorDataset(*map(torch.as_tensor, part)) for part in (self.train, self.val)]

    def network(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def reweighter(self, name):
        return Uniform(self.n_train) if name == "uniform" else DynamicReweighter(name, self.n_train, self.n_val)

    @torch.no_grad()
    def accuracy(self, model):
        model.eval()
        x, y = map(torch.as_tensor, self.test)
        return float((model(x).argmax(dim=1) == y).double().mean())


DIGITS = Digits()


# ---------------------------------------------------------------- what they share


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5), st.integers(0, 3))
def test_every_pass_over_the_validation_rows_is_a_new_permutation(n, size, seed, passes):
    stream = _batches_of_rows(n, size, seed, 0, 0, 1)
    flat = np.concatenate([next(stream) for _ in range(-(-n * (passes + 1) // size))])[: n * (passes + 1)].reshape(-1, n)
    assert np.array_equal(np.sort(flat, axis=1), np.tile(np.arange(n), (passes + 1, 1)))
    if n >= 20 and passes:
        assert not np.array_equal(flat[0], flat[1])


@given(st.integers(1, 30), st.integers(1, 10), st.integers(2, 3), st.integers(0, 5))
def test_the_ranks_share_the_rows_of_one_process_with_larger_batches(n, size, ranks, steps):
    whole = _batches_of_rows(n, size * ranks, 0, 0, 0, 1)
    parts = [_batches_of_rows(n, size, 0, 0, rank, ranks) for rank in range(ranks)]
    for _ in range(steps):
        assert next(whole) == [row for part in parts for row in next(part)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9), st.booleans())
def test_validation_batches_go_on_where_they_were(n, size, drawn, by_pickle):
    def new():
        return ValidationBatches(TensorDataset(torch.arange(n)), size, seed=3)

    batches = new()
    for _ in range(drawn):
        next(batches)
    resumed = pickle.loads(pickle.dumps(batches)) if by_pickle else new()
    resumed.rows_drawn = batches.rows_drawn
    for _ in range(4):
        ([x], index), ([x_2], index_2) = next(batches), next(resumed)
        assert torch.equal(x, x_2) and torch.equal(index, index_2) and torch.equal(x, index) and len(x) == min(size, n)


def test_workers_that_load_ahead_give_the_same_validation_batches():
    one, several = (ValidationBatches(VAL_SET, 7, num_workers=n) for n in (0, 2))
    first = [next(several) for _ in range(3)]
    several.rows_drawn = 7
    assert same(list(islice(one, 6)), [first[0], *islice(several, 5)])


def test_drawing_validation_batches_leaves_the_global_random_state():
    before = torch.random.get_rng_state()
    assert len(list(islice(ValidationBatches(VAL_SET, 7), 9))) == 9
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_val_refresh_no_more_validation_rows_are_loaded():
    state = LoopState(dynamic(val_refresh=4), Indexed(VAL_SET), 16)
    (x, y), index = next(state.batches)
    assert x.shape == (4, N_COLUMNS) and len(y) == len(index) == 4


def test_wrong_sizes_and_kinds_are_told():
    with pytest.raises(ValueError, match=r"n_val=24 .* has 90"):
        LoopState(dynamic(), TRAIN_SET, 16)
    with pytest.raises(ValueError, match=r"n_train=90 .* has 91"):
        LoopState(dynamic(), VAL_SET, 16).check_train(91)
    with pytest.raises(TypeError, match="Reweighter such as DynamicReweighter"):
        LoopState("kliep", VAL_SET, 16)
    with pytest.raises(TypeError, match="map-style"):
        LoopState(Uniform(N_TRAIN), iter([1]), 16)
    with pytest.raises(ValueError, match="batch_size be >= 1; got 24 rows and 0"):
        LoopState(Uniform(N_TRAIN), VAL_SET, 0)


@pytest.mark.parametrize("name", ["lightning", "transformers", "skorch"])
def test_a_missing_framework_is_told_with_the_command_that_installs_it(name, monkeypatch):
    module = f"densratio.training.integrations.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ImportError, match=re.escape(f'pip install "densratio-toolkit[{name}]"')):
        importlib.import_module(module)


def test_the_folder_itself_imports_no_framework():
    code = "import sys, densratio.training.integrations as i; print({'lightning', 'transformers', 'skorch'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("section", "needs"), [("Lightning", "lightning"), ("Hugging Face", "transformers"), ("skorch", "skorch")])
def test_the_code_of_the_page_runs(section, needs, tmp_path, monkeypatch):
    pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```py\n(.*?)^```", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    names = {"model": network(), "Network": network, "train_set": TRAIN_SET, "val_set": VAL_SET, "nn": nn,
             "X": TRAIN[0].numpy(), "y": TRAIN[1].numpy(), "X_val": VAL[0].numpy(), "y_val": VAL[1].numpy()}  # fmt: skip
    if section == "Hugging Face":
        names |= {"model": Classifier(), "train_set": columns(*TRAIN), "val_set": columns(*VAL), "test_set": columns(*VAL)}
    assert blocks
    for block in blocks:
        exec(compile(block, f"{PAGE.name}, {section}", "exec"), names)


# ---------------------------------------------------------------- Lightning


@pytest.fixture
def lightning(tmp_path):
    pytest.importorskip("lightning")
    from lightning import pytorch

    from densratio.training.integrations.lightning import Reweighting

    class Module(pytorch.LightningModule):
        def __init__(self, model, reweighting, optimizer=torch.optim.SGD, learning_rate=LEARNING_RATE, scale=1.0):
            super().__init__()
            self.model, self.reweighting, self.scale = model, reweighting, scale
            self.optimizer, self.learning_rate = optimizer, learning_rate

        def forward(self, x):
            return self.model(x)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            x, *others = batch
            return [self.scale * x, *others]

        def training_step(self, batch, batch_idx):
            return self.reweighting.weighted_loss(self, batch)

        def configure_optimizers(self):
            return self.optimizer(self.parameters(), lr=self.learning_rate)

    def fit(module, loader, epochs, *, callbacks=(), resume=None, **params):
        trainer = pytorch.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, enable_checkpointing=bool(callbacks), callbacks=[module.reweighting, *callbacks], **params,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, loader, ckpt_path=resume)
        return trainer

    return SimpleNamespace(Module=Module, fit=fit, Reweighting=Reweighting, ModelCheckpoint=pytorch.callbacks.ModelCheckpoint)


def train_loader(shuffle=True):
    return DataLoader(Indexed(TRAIN_SET), SIZE, shuffle=shuffle, generator=torch.Generator().manual_seed(0))


@all_methods
def test_lightning_gives_the_weights_of_a_plain_loop(lightning, method):
    recorded = Recorded(MAKERS[method](N_TRAIN, N_VAL, 0))
    module = lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET, batch_size=12))
    lightning.fit(module, train_loader(), 3)
    assert_whole_passes(recorded.batches, N_TRAIN, 3)
    model = network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, MAKERS[method](N_TRAIN, N_VAL, 0), model))
    assert_same_parameters(module.model, model)
    if isinstance(recorded.reweighter, DynamicReweighter):
        assert_moved_after_the_warm_up(recorded.weights)


@pytest.mark.parametrize(
    ("params", "loop"),
    [
        ({"gradient_clip_val": 0.05}, {"clip": 0.05}),
        ({"precision": "bf16-mixed"}, {"precision": "bf16"}),
        ({"scale": 3.0}, {"scale": 3.0}),
    ],
    ids=["clipping", "bf16", "transfer hooks"],
)
def test_lightning_options_mean_what_they_mean_in_a_plain_loop(lightning, params, loop):
    recorded = Recorded(dynamic())
    scale = params.pop("scale", 1.0)
    module = lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET), scale=scale)
    lightning.fit(module, train_loader(), 3, **params)
    model = network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, dynamic(), model, **loop))
    assert_same_parameters(module.model, model)


def test_lightning_accumulates_gradients_over_batches(lightning):
    recorded = Recorded(dynamic())
    module = lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET))
    equal = DataLoader(Indexed(TRAIN_SET), 15, shuffle=True)  # Lightning counts batches of unequal size alike
    lightning.fit(module, equal, 3, accumulate_grad_batches=3)
    model = network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, dynamic(), model, steps=[3] * 6), exact=False)
    assert_same_parameters(module.model, model)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forks of this one")
def test_two_lightning_processes_give_the_weights_of_one_with_their_batches_together(lightning, tmp_path):
    def plain():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(N_COLUMNS, 8), nn.ReLU(), nn.Linear(8, N_CLASSES))  # each rank normalises by itself

    class Telling(lightning.Module):
        def setup(self, stage):
            torch.set_num_threads(1)  # a fork has none of the threads that earlier tests may have started

        def on_train_end(self):
            torch.save([recorded.batches, recorded.weights, self.model.state_dict()], tmp_path / str(self.global_rank))

    recorded = Recorded(dynamic())
    module = Telling(plain(), lightning.Reweighting(recorded.reweighter, VAL_SET, batch_size=6))
    lightning.fit(module, DataLoader(Indexed(TRAIN_SET), 15, shuffle=True), 3, strategy="ddp_fork", devices=2)
    (batches, weights, state), (others, same_weights, same_state) = (torch.load(tmp_path / rank) for rank in "01")
    assert same(weights, same_weights) and same(state, same_state)
    together = [tuple(map(torch.cat, zip(one, other, strict=True))) for one, other in zip(batches, others, strict=True)]
    assert_whole_passes(together, N_TRAIN, 3)
    model = plain()
    assert_same_weights(weights, plain_loop(together, dynamic(), model), exact=False)
    module.model.load_state_dict(state)
    assert_same_parameters(module.model, model)


class Stateful:
    """A loader that begins again in the middle of an epoch, as torchdata's StatefulDataLoader does."""

    def __init__(self):
        self.epoch = self.given = 0

    def __len__(self):
        return PER_EPOCH

    def __iter__(self):
        if self.given == PER_EPOCH:
            self.epoch, self.given = self.epoch + 1, 0
        order = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(self.epoch)).split(SIZE)
        for i in order[self.given :]:
            self.given += 1
            yield TRAIN[0][i], TRAIN[1][i], i

    def state_dict(self):
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state):
        self.epoch, self.given = state["epoch"], state["given"]


@pytest.mark.parametrize("method", ["kliep", "wasserstein", "random"])
@pytest.mark.parametrize("stop", [2 * PER_EPOCH, 2 * PER_EPOCH + 4], ids=["epoch", "middle of an epoch"])
def test_a_resumed_lightning_run_gives_the_weights_of_one_that_did_not_stop(lightning, tmp_path, method, stop):
    def new():
        recorded = Recorded(MAKERS[method](N_TRAIN, N_VAL, 0))
        return recorded, lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET, batch_size=7))

    def saving(folder):
        return lightning.ModelCheckpoint(folder, "{step}", every_n_train_steps=stop, save_top_k=-1)

    recorded, module = new()
    lightning.fit(module, Stateful(), 4, callbacks=[saving(tmp_path / "one")])
    again, resumed = new()
    lightning.fit(resumed, Stateful(), 4, resume=tmp_path / "one" / f"step={stop}.ckpt")
    assert_same_weights(recorded.weights[stop:], again.weights)
    assert same(recorded.batches[stop:], again.batches)
    assert same(recorded.reweighter.state_dict(), again.reweighter.state_dict())
    assert_same_parameters(resumed.model, module.model)


def test_lightning_trains_better_with_weights_than_without(lightning):
    def accuracy(name):
        train_set, val_set = DIGITS.sets()
        reweighting = lightning.Reweighting(DIGITS.reweighter(name), val_set, batch_size=64)
        module = lightning.Module(DIGITS.network(), reweighting, torch.optim.Adam, DIGITS.learning_rate)
        order = torch.Generator().manual_seed(0)
        lightning.fit(module, DataLoader(Indexed(train_set), DIGITS.batch_size, shuffle=True, generator=order), DIGITS.epochs)
        return DIGITS.accuracy(module.model)

    assert accuracy("lsif") > accuracy("uniform") + 0.05


def test_lightning_tells_what_is_wrong(lightning):
    reweighting = lightning.Reweighting(dynamic(n_train=80), VAL_SET)
    with pytest.raises(ValueError, match=r"n_train=80 .* has 90"):
        lightning.fit(lightning.Module(network(), reweighting), train_loader(), 1)
    module = lightning.Module(network(), lightning.Reweighting(dynamic(), VAL_SET))
    with pytest.raises(ValueError, match=r"\(x, y, index\): wrap the training set in .*Indexed. Got 2 parts"):
        lightning.fit(module, DataLoader(TRAIN_SET, SIZE), 1)
    with pytest.raises(RuntimeError, match=r"callbacks=\[reweighting\]"):
        lightning.Reweighting(dynamic(), VAL_SET).weighted_loss(network(), next(iter(train_loader())))
    bare = lightning.Reweighting(dynamic(), TensorDataset(VAL[0]))
    with pytest.raises(ValueError, match=r"must be \(x, y\).* Got 1 parts"):
        lightning.fit(lightning.Module(network(), bare), train_loader(), 1)


def test_a_part_of_an_indexed_set_may_have_fewer_rows(lightning):
    part = torch.utils.data.Subset(Indexed(TRAIN_SET), range(10, 60))
    recorded = Recorded(dynamic(warmup_steps=1))
    lightning.fit(lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET)), DataLoader(part, SIZE), 1)
    assert torch.equal((recorded.reweighter.weights_ != 1).nonzero()[:, 0], torch.arange(10 + SIZE, 60))


# ---------------------------------------------------------------- Hugging Face


class Classifier(nn.Module):
    """Gives logits, and the loss where it is given labels, as the models of the library do."""

    def __init__(self, dropout=0.0, model=None):
        super().__init__()
        self.model = network(dropout=dropout) if model is None else model

    def forward(self, x, labels=None):
        logits = self.model(x)
        return {"logits": logits} if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}


class TakesLossArguments(Classifier):
    """As most models of the library: the loss is a sum over num_items_in_batch where that is given."""

    def forward(self, x, labels=None, **kwargs):
        logits = self.model(x)
        if labels is None:
            return (logits,)
        n_items = kwargs.get("num_items_in_batch", len(labels))
        return cross_entropy(logits, labels, reduction="sum") / n_items, logits


def columns(x, y):
    """Rows as the library has them, with a column that the model does not take."""
    return [{"x": a, "labels": b, "row": -1} for a, b in zip(x, y, strict=True)]


@pytest.fixture
def hugging(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # TrainingArguments(bf16=True) sets it for good.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    from transformers import TrainingArguments

    from densratio.training.integrations.transformers import ReweightedTrainer

    def trainer(model, reweighter, train=TRAIN, val=VAL, *, folder="run", kind=None, collator=None, evaluation=None, **args):
        settings = {
            "num_train_epochs": 3, "per_device_train_batch_size": SIZE, "optim": "sgd", "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "save_strategy": "no", "report_to": [], "use_cpu": True,
            "disable_tqdm": True, "logging_strategy": "no", "dataloader_pin_memory": False, **args,
        }  # fmt: skip
        train, val = (part if isinstance(part, list) else columns(*part) for part in (train, val))
        return (kind or ReweightedTrainer)(
            model, TrainingArguments(str(tmp_path / folder), **settings), train_dataset=train, val_dataset=val,
            eval_dataset=evaluation, reweighter=reweighter, data_collator=collator,
        )  # fmt: skip

    return trainer


@all_methods
def test_the_trainer_gives_the_weights_of_a_plain_loop(hugging, method):
    recorded = Recorded(MAKERS[method](N_TRAIN, N_VAL, 0))
    model = Classifier()
    hugging(model, recorded.reweighter).train()
    assert_whole_passes(recorded.batches, N_TRAIN, 3)
    plain = network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, MAKERS[method](N_TRAIN, N_VAL, 0), plain))
    assert_same_parameters(model.model, plain)
    if isinstance(recorded.reweighter, DynamicReweighter):
        assert_moved_after_the_warm_up(recorded.weights)


@pytest.mark.parametrize("kind", [Classifier, TakesLossArguments])
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_rows_of_an_accumulated_step_count_alike(hugging, kind, clip):
    recorded = Recorded(dynamic())
    model = kind()
    # 6 batches an epoch make steps of 4 and of 2, the last with 16 and 10 rows.
    hugging(model, recorded.reweighter, gradient_accumulation_steps=4, max_grad_norm=clip).train()
    plain = network()
    weights = plain_loop(recorded.batches, dynamic(), plain, steps=[4, 2] * 3, clip=clip or None)
    assert_same_weights(recorded.weights, weights, exact=False)
    assert_same_parameters(model.model, plain)


def test_the_trainer_in_bfloat16(hugging):
    recorded = Recorded(dynamic())
    model = Classifier()
    hugging(model, recorded.reweighter, bf16=True).train()
    assert_moved_after_the_warm_up(recorded.weights)
    assert all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in model.parameters())
    final = recorded.weights[-1]
    assert final.dtype == torch.float32 and final.mean() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("kind", [Classifier, TakesLossArguments])
def test_evaluation_is_the_trainer_s_own(hugging, kind):
    reweighter, model = dynamic(), kind()
    trainer = hugging(model, reweighter, evaluation=columns(*VAL), per_device_eval_batch_size=N_VAL)
    trainer.train()
    before = {key: value for key, value in reweighter.state_dict().items() if isinstance(value, torch.Tensor)}
    loss = trainer.evaluate()["eval_loss"]
    expected = cross_entropy(model.model.eval()(VAL[0]), VAL[1])
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert all(torch.equal(reweighter.state_dict()[key], value) for key, value in before.items())
    assert trainer.predict(columns(*VAL)).predictions.shape == (N_VAL, N_CLASSES)


@pytest.mark.parametrize("method", ["kliep", "wasserstein", "random"])
def test_a_resumed_trainer_gives_the_weights_of_one_that_did_not_stop(hugging, tmp_path, method):
    def new(folder):
        recorded = Recorded(MAKERS[method](N_TRAIN, N_VAL, 0))
        return recorded, hugging(
            Classifier(dropout=0.2), recorded.reweighter, folder=folder, save_strategy="steps", save_steps=8, num_train_epochs=4
        )

    recorded, trainer = new("one")
    trainer.train()
    again, resumed = new("two")
    resumed.train(resume_from_checkpoint=str(tmp_path / "one" / "checkpoint-8"))
    assert_same_weights(recorded.weights[8:], again.weights)
    assert same(recorded.batches[8:], again.batches)
    assert same(recorded.reweighter.state_dict(), again.reweighter.state_dict())
    assert_same_parameters(resumed.model, trainer.model)


def test_the_index_outlives_column_removal_and_any_collator(hugging):
    from transformers import TrainingArguments

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.out = nn.Embedding(11, 4, padding_idx=0), nn.Linear(4, N_CLASSES)

        def forward(self, input_ids, labels=None):
            return {"logits": self.out(self.embedding(input_ids).sum(dim=1))}

    def padded(items):
        assert all(item.keys() == {"input_ids", "labels"} for item in items)
        ids = nn.utils.rnn.pad_sequence([torch.tensor(item["input_ids"]) for item in items], batch_first=True)
        return {"input_ids": ids, "labels": torch.tensor([item["labels"] for item in items])}

    draw = np.random.default_rng(0)
    data = [{"input_ids": draw.integers(1, 11, 1 + k % 5).tolist(), "labels": k % N_CLASSES, "text": "?"} for k in range(N_TRAIN)]
    recorded = Recorded(dynamic(warmup_epochs=0))
    seen = []
    original = recorded._loss

    def checked(model, train, val):
        seen.extend((int(i), [t for t in ids.tolist() if t]) for i, ids in zip(train[2], train[0]["input_ids"], strict=True))
        return original(model, train, val)

    recorded._loss = checked
    by_length = {"train_sampling_strategy": "group_by_length"}
    if "train_sampling_strategy" not in inspect.signature(TrainingArguments).parameters:
        by_length = {"group_by_length": True}
    hugging(Sequences(), recorded.reweighter, data, data[:N_VAL], collator=padded, num_train_epochs=1, **by_length).train()
    assert sorted(seen) == [(i, row["input_ids"]) for i, row in enumerate(data)]


def test_a_model_of_the_library_with_a_hidden_layer_compared(hugging):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=N_CLASSES,
        max_position_embeddings=8,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    data = [{"input_ids": draw.integers(1, 20, 6).tolist(), "labels": k % N_CLASSES} for k in range(N_TRAIN)]
    reweighter = dynamic("kmm", layer="bert.pooler", warmup_epochs=0)
    trainer = hugging(
        transformers.BertForSequenceClassification(config), reweighter, data, data[:N_VAL], num_train_epochs=1,
        save_strategy="epoch", evaluation=data[:N_VAL],
    )  # fmt: skip
    trainer.train()
    assert not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))
    assert np.isfinite(trainer.evaluate()["eval_loss"])


def test_other_losses_and_other_outputs(hugging):
    from densratio.training.integrations.transformers import ReweightedTrainer

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = network()

        def forward(self, x):
            return {"first": self.model(x)[:, 0], "second": self.model(x)[:, 1]}

    class TwoTrainer(ReweightedTrainer):
        def prediction(self, outputs):
            return outputs["first"], outputs["second"]

    def loss(prediction, label):
        return squared_error(prediction[0], label[0]) + squared_error(prediction[1], label[1])

    def data(x, y):
        return [{"x": a, "one": float(b), "two": float(-b)} for a, b in zip(x, y, strict=True)]

    reweighter = dynamic(loss=loss, warmup_epochs=0, val_refresh=5)
    params = {"label_names": ["one", "two"], "remove_unused_columns": False, "num_train_epochs": 1}
    hugging(Two(), reweighter, data(*TRAIN), data(*VAL), kind=TwoTrainer, **params).train()
    assert not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))
    with pytest.raises(ValueError, match=r"\['first', 'second'\] and no logits"):
        hugging(Two(), dynamic(loss=loss), data(*TRAIN), data(*VAL), **params).train()


def test_compute_loss_tells_the_outputs_of_the_training_rows(hugging):
    trainer = hugging(Classifier(), dynamic())
    batch = next(iter(trainer.get_train_dataloader()))
    model = trainer.model.train()
    loss, outputs = trainer.compute_loss(model, batch, return_outputs=True)
    assert loss.requires_grad and torch.equal(outputs["logits"], model(batch["x"])["logits"])


def test_the_trainer_trains_better_with_weights_than_without(hugging):
    def accuracy(name):
        model = Classifier(model=DIGITS.network())
        settings = {"num_train_epochs": DIGITS.epochs, "per_device_train_batch_size": DIGITS.batch_size, "optim": "adamw_torch",
                    "learning_rate": DIGITS.learning_rate}  # fmt: skip
        data = (tuple(map(torch.as_tensor, part)) for part in (DIGITS.train, DIGITS.val))
        hugging(model, DIGITS.reweighter(name), *data, **settings).train()
        return DIGITS.accuracy(model.model)

    assert accuracy("lsif") > accuracy("uniform") + 0.05


def test_the_trainer_tells_what_is_wrong(hugging, tmp_path):
    with pytest.raises(ValueError, match=r"n_train=80 .* has 90"):
        hugging(Classifier(), dynamic(n_train=80)).train()
    with pytest.raises(ValueError, match=r"n_val=9 .* has 24"):
        hugging(Classifier(), dynamic(n_val=9))
    with pytest.raises(ValueError, match="label_smoothing_factor is not used"):
        hugging(Classifier(), dynamic(), label_smoothing_factor=0.1)
    unlabelled = [{"x": x} for x in TRAIN[0]]
    with pytest.raises(ValueError, match=r"no \['labels'\]: its columns are \['x', 'row_index'\]"):
        hugging(Classifier(), dynamic(), unlabelled).train()
    trainer = hugging(Classifier(), dynamic())
    with pytest.raises(ValueError, match="no column 'row_index'"):
        trainer.compute_loss(trainer.model.train(), {"x": TRAIN[0], "labels": TRAIN[1]})
    plain = hugging(Classifier(), dynamic(), save_strategy="epoch", num_train_epochs=2)
    plain.train()
    (tmp_path / "run" / "checkpoint-6" / "reweighter.pt").unlink()
    with pytest.warns(UserWarning, match=r"has no reweighter\.pt"):
        plain.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))


# ---------------------------------------------------------------- skorch


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
    with pytest.raises(ValueError, match="doesn't tell its rows"):
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
