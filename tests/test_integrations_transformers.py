"""Hugging Face's trainer gives the weights of a plain loop on the same batches, and resumes where it stopped."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from integration_cases import (
    DIGITS,
    LEARNING_RATE,
    MAKERS,
    N_CLASSES,
    N_TRAIN,
    N_VAL,
    SIZE,
    TRAIN,
    VAL,
    Classifier,
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
from torch.nn.functional import cross_entropy

from densratio.training import FSR, CMWNetSL, DynamicReweighter, Indexed
from densratio.training.losses import squared_error


class TakesLossArguments(Classifier):
    """As most models of the library: the loss is a sum over num_items_in_batch where that is given."""

    def forward(self, x, labels=None, **kwargs):
        logits = self.model(x)
        if labels is None:
            return (logits,)
        n_items = kwargs.get("num_items_in_batch", len(labels))
        return cross_entropy(logits, labels, reduction="sum") / n_items, logits


class TakesMore(Classifier):
    def forward(self, x, more, labels=None):
        return (self.model(x + more),)


@pytest.fixture
def hugging(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    # TrainingArguments(bf16=True) sets it for good.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    from transformers import TrainingArguments

    from densratio.training.integrations.transformers import ReweightedTrainer

    leave_out_of_garbage_collection("transformers")

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


OF_ONE_TENSOR = {
    "fsr": lambda: FSR(N_TRAIN, N_CLASSES, warmup_epochs=1.0),
    "cmw_net_sl": lambda: CMWNetSL(N_TRAIN, TRAIN[1], every=2),
}


@pytest.mark.parametrize("method", OF_ONE_TENSOR)
def test_methods_that_keep_or_mix_rows_take_rows_of_one_column(hugging, method):
    torch.manual_seed(0)
    recorded = Recorded(OF_ONE_TENSOR[method]())
    model = Classifier()
    hugging(model, recorded.reweighter).train()
    assert_whole_passes(recorded.batches, N_TRAIN, 3)
    torch.manual_seed(0)
    reweighter, plain = OF_ONE_TENSOR[method](), network()
    assert_same_weights(recorded.weights, plain_loop(recorded.batches, reweighter, plain), exact=False)
    assert_same_parameters(model.model, plain)
    assert_moved_after_the_warm_up(recorded.weights)


def test_rows_of_several_columns_are_told_where_a_method_takes_one_tensor(hugging):
    rows = [{"x": x, "more": x, "labels": y} for x, y in zip(*TRAIN, strict=True)]
    with pytest.raises(ValueError, match="must be one tensor"):
        hugging(TakesMore(), OF_ONE_TENSOR["fsr"](), rows, rows[:N_VAL]).train()


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
        seen.extend((int(i), [t for t in ids.tolist() if t]) for i, ids in zip(train[2], train[0], strict=True))
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


TAKES = "^Cross entropy takes logits .*"


@pytest.mark.parametrize(
    ("n_outputs", "label", "words"),
    [
        (
            (1,),
            lambda y: y.float(),
            TAKES + "one number a row: loss=densratio.training.losses.squared_error for numbers",
        ),
        (
            (4, N_CLASSES),
            lambda y: y[:, None].repeat(1, 4),
            TAKES + "tokens or pixels use loss=densratio.training.losses.token",
        ),
        ((N_CLASSES,), lambda y: y + 2, "^The model has 3 classes and the labels go from 2 to 4: row"),
        ((N_CLASSES,), lambda y: y.float(), TAKES + "Make the labels integers"),
        ((N_CLASSES,), lambda y: y[:, None], TAKES + "one column of the labels"),
        ((N_CLASSES,), lambda y: torch.eye(N_CLASSES, dtype=torch.int64)[y], TAKES + "several labels a row use loss=.*multilabel"),
    ],
    ids=["regression", "tokens", "out of range", "float", "column", "several"],
)
def test_another_task_than_the_default_loss_is_told_with_the_loss_to_use(hugging, n_outputs, label, words):
    class Task(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(5, int(np.prod(n_outputs)))

        def forward(self, x, labels=None):
            return {"logits": self.layer(x).reshape(-1, *n_outputs)}

    train, val = (columns(x, label(y)) for x, y in (TRAIN, VAL))
    with pytest.raises(ValueError, match=words):
        hugging(Task(), dynamic(), train, val).train()


def test_labels_that_are_text_are_told_as_such(hugging):
    text = [{**row, "labels": "cat"} for row in columns(*TRAIN)]
    with pytest.raises(ValueError, match=r"no \['labels'\].*train_dataset holds text there, such as 'cat'.*number the classes"):
        hugging(Classifier(), dynamic(), text).train()
    with pytest.raises(ValueError, match=r"val_dataset holds text there, such as 'cat'"):
        hugging(Classifier(), dynamic(), val=text[:N_VAL]).train()


@pytest.mark.parametrize(("val", "words"), [(None, "got NoneType"), ({"train": [1]}, r"Give one of its parts \['train'\]")])
def test_a_validation_set_that_is_none_is_told_by_its_name(hugging, val, words, tmp_path):
    from transformers import TrainingArguments

    from densratio.training.integrations.transformers import ReweightedTrainer

    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(TypeError, match="val_dataset must be a map-style data set.*" + words):
        ReweightedTrainer(Classifier(), args, train_dataset=columns(*TRAIN), reweighter=dynamic(), val_dataset=val)
    stream = iter(columns(*TRAIN))
    with pytest.raises(TypeError, match=r"train_dataset must be a map-style data set.*which a stream does not number"):
        ReweightedTrainer(Classifier(), args, train_dataset=stream, reweighter=dynamic(), val_dataset=columns(*VAL))


def test_the_trainer_tells_what_is_wrong(hugging, tmp_path):
    from densratio.training.integrations.transformers import ReweightedTrainer

    with pytest.raises(ValueError, match=r"n_train=80 .* has 90"):
        hugging(Classifier(), dynamic(n_train=80)).train()
    with pytest.raises(ValueError, match=r"n_val=9 .* has 24"):
        hugging(Classifier(), dynamic(n_val=9))
    with pytest.raises(ValueError, match="label_smoothing_factor is not used"):
        hugging(Classifier(), dynamic(), label_smoothing_factor=0.1)
    pairs = list(zip(*TRAIN, strict=True))
    for rows, words in ((pairs, r"got a tuple\.$"), (Indexed(columns(*TRAIN), y_key="labels"), "leave out Indexed")):
        with pytest.raises(ValueError, match=rf"An item of train_dataset must be a mapping of columns, .*{words}"):
            ReweightedTrainer(Classifier(), None, train_dataset=rows, reweighter=dynamic(), val_dataset=columns(*VAL))
    unlabeled = [{"x": x} for x in TRAIN[0]]
    with pytest.raises(ValueError, match=r"no \['labels'\]: its columns are \['x', 'row_index'\]"):
        hugging(Classifier(), dynamic(), unlabeled).train()
    trainer = hugging(Classifier(), dynamic())
    with pytest.raises(ValueError, match="no column 'row_index'"):
        trainer.compute_loss(trainer.model.train(), {"x": TRAIN[0], "labels": TRAIN[1]})
    plain = hugging(Classifier(), dynamic(), save_strategy="epoch", num_train_epochs=2)
    plain.train()
    (tmp_path / "run" / "checkpoint-6" / "reweighter.pt").unlink()
    with pytest.warns(UserWarning, match=r"has no reweighter\.pt"):
        plain.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-6"))
