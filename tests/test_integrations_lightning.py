"""Lightning gives the weights of a plain loop on the same batches, and resumes where it stopped."""

from __future__ import annotations

import os
import warnings
from types import SimpleNamespace

import pytest
import torch
from integration_cases import (
    DIGITS,
    LEARNING_RATE,
    MAKERS,
    N_CLASSES,
    N_COLUMNS,
    N_TRAIN,
    N_VAL,
    PER_EPOCH,
    SIZE,
    TRAIN,
    TRAIN_SET,
    VAL,
    VAL_SET,
    Recorded,
    all_methods,
    assert_moved_after_the_warm_up,
    assert_same_parameters,
    assert_same_weights,
    assert_whole_passes,
    columns,
    dynamic,
    leave_out_of_garbage_collection,
    network,
    one_thread,  # noqa: F401
    plain_loop,
    same,
)
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from densratio.training import DynamicReweighter, Indexed


@pytest.fixture
def lightning(tmp_path):
    pytest.importorskip("lightning")
    from lightning import pytorch

    from densratio.training.integrations.lightning import Reweighting

    leave_out_of_garbage_collection("lightning")

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

    def fit(module, loader, epochs, *, callbacks=(), resume=None, quietly=True, **params):
        trainer = pytorch.Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path, enable_checkpointing=bool(callbacks), callbacks=[module.reweighting, *callbacks], **params,
        )  # fmt: skip
        with warnings.catch_warnings():
            if quietly:
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
            return nn.Sequential(nn.Linear(N_COLUMNS, 8), nn.ReLU(), nn.Linear(8, N_CLASSES))  # each rank normalizes by itself

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
    with pytest.raises(ValueError, match=r"\(x, y, index\), as .*Indexed makes it.* Got 2 parts"):
        lightning.fit(module, DataLoader(TRAIN_SET, SIZE), 1)
    with pytest.raises(RuntimeError, match=r"callbacks=\[reweighting\]"):
        lightning.Reweighting(dynamic(), VAL_SET).weighted_loss(network(), next(iter(train_loader())))
    known = lightning.Reweighting(dynamic(), VAL_SET)
    known.setup(None, None, "fit")  # before the training, such as in Lightning's check of the validation step
    with pytest.raises(RuntimeError, match=r"the loss of training_step, .* elsewhere take reweighting.reweighter.losses"):
        known.weighted_loss(network(), next(iter(train_loader())))
    for val_set, words in [
        (DataLoader(VAL_SET), "val_set must be a map-style.*val_set=loader.dataset"),
        (VAL, r"val_set=torch.utils.data.TensorDataset\(X, y\)"),
        (None, "val_set must be a map-style.*got NoneType"),
    ]:
        with pytest.raises(TypeError, match=words):
            lightning.Reweighting(dynamic(), val_set)
    with pytest.raises(TypeError, match=r"such as DynamicReweighter\(.*got the class DynamicReweighter"):
        lightning.Reweighting(DynamicReweighter, VAL_SET)
    mapped = lightning.Reweighting(dynamic(), columns(*VAL))
    with pytest.raises(ValueError, match=r"got dict.*val_set=Indexed\(val_set, y_key=...\)"):
        lightning.fit(lightning.Module(network(), mapped), train_loader(), 1)
    bare = lightning.Reweighting(dynamic(), TensorDataset(VAL[0]))
    with pytest.raises(ValueError, match=r"must be \(x, y\); got 1 parts"):
        lightning.fit(lightning.Module(network(), bare), train_loader(), 1)


def test_a_training_step_that_leaves_the_weights_out_is_warned_of(lightning):
    class Forgetful(lightning.Module):
        def training_step(self, batch, batch_idx):
            x, y, _ = batch
            return nn.functional.cross_entropy(self(x), y)

    module = Forgetful(network(), lightning.Reweighting(dynamic(), VAL_SET))
    with pytest.warns(UserWarning, match=r"no batch came to reweighting.weighted_loss: let training_step return") as told:
        lightning.fit(module, train_loader(), 1, quietly=False)
    assert [warning.filename for warning in told if "trains without weights" in str(warning.message)] == [__file__]
    used = lightning.Module(network(), lightning.Reweighting(dynamic(), VAL_SET))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The model trains without weights")
        lightning.fit(used, train_loader(), 1, quietly=False)


class Stream(IterableDataset):
    """Rows that know their number, without a length."""

    def __iter__(self):
        return zip(*TRAIN, range(N_TRAIN), strict=True)


@pytest.mark.parametrize("method", ["kliep", "uniform", "mw_net"])
def test_a_loader_without_a_length_gives_the_weights_of_a_plain_loop(lightning, method):
    recorded = Recorded(MAKERS[method](N_TRAIN, N_VAL, 0))
    module = lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET))
    lightning.fit(module, DataLoader(Stream(), SIZE), 2)
    assert_whole_passes(recorded.batches, N_TRAIN, 2)
    model = network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, MAKERS[method](N_TRAIN, N_VAL, 0), model))


def test_items_that_are_mappings_give_the_weights_of_pairs(lightning):
    class Mapped(lightning.Module):
        def forward(self, batch):
            return self.model(batch["x"] if isinstance(batch, dict) else batch)

        def on_before_batch_transfer(self, batch, dataloader_idx):
            return batch

    def weights(train_set, val_set):
        recorded = Recorded(dynamic())
        reweighting = lightning.Reweighting(recorded.reweighter, val_set, batch_size=7)
        lightning.fit(Mapped(network(), reweighting), DataLoader(train_set, SIZE), 3)
        return recorded.weights

    mapped = [Indexed(columns(*part), y_key="labels") for part in (TRAIN, VAL)]
    assert_same_weights(weights(Indexed(TRAIN_SET), VAL_SET), weights(*mapped))


def test_a_part_of_an_indexed_set_may_have_fewer_rows(lightning):
    part = torch.utils.data.Subset(Indexed(TRAIN_SET), range(10, 60))
    recorded = Recorded(dynamic(warmup_steps=1))
    lightning.fit(lightning.Module(network(), lightning.Reweighting(recorded.reweighter, VAL_SET)), DataLoader(part, SIZE), 1)
    assert torch.equal((recorded.reweighter.weights_ != 1).nonzero()[:, 0], torch.arange(10 + SIZE, 60))


def test_a_warning_names_the_line_of_training_step(lightning):
    told = []

    class Frozen(lightning.Module):
        def training_step(self, batch, batch_idx):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                loss = self.reweighting.weighted_loss(self.eval(), batch)
            told.extend(warning for warning in said if "The model is in eval mode" in str(warning.message))
            return loss

    module = Frozen(nn.Sequential(nn.Dropout(), network()), lightning.Reweighting(dynamic("kmm"), VAL_SET))
    lightning.fit(module, train_loader(), 1)
    assert [warning.filename for warning in told] == [__file__]
