"""Row numbers beside the rows, and batches without end."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training_cases import N_TRAIN, N_VAL, TRAIN, _copy, losses, warm

from densratio.training import Indexed, Uniform, endless, labels_of


class Rows(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (("x", "y"), ("x", "y", 0)),
        (["x", "y"], ("x", "y", 0)),
        ("x", ("x", 0)),
        (("x",), ("x", 0)),
        (("x", "y", "z"), ("x", "y", "z", 0)),
    ],
    ids=repr,
)
def test_indexed_puts_the_row_number_last(item, expected):
    assert Indexed(Rows([item]))[0] == expected


def test_a_loader_of_indexed_gives_the_rows_that_its_indices_name():
    indexed = Indexed(TensorDataset(*TRAIN))
    assert len(indexed) == N_TRAIN
    seen = []
    for x, y, i in DataLoader(indexed, batch_size=6, shuffle=True, generator=torch.Generator().manual_seed(0)):
        assert torch.equal(x, TRAIN[0][i]) and torch.equal(y, TRAIN[1][i])
        seen += i.tolist()
    assert sorted(seen) == list(range(N_TRAIN)) and seen != sorted(seen)


ITEMS = [{"ids": i, "mask": 1, "label": 10 * i} for i in range(3)]


def test_items_that_are_mappings_become_x_y_and_the_row_number():
    assert Indexed(Rows(ITEMS), y_key="label")[2] == ({"ids": 2, "mask": 1}, 20, 2)
    assert Indexed(Rows(ITEMS), x_key="ids", y_key="label")[2] == (2, 20, 2)
    assert Indexed(Rows(ITEMS))[2] == (ITEMS[2], 2)
    assert labels_of(Indexed(Rows(ITEMS), y_key="label")).tolist() == [0, 10, 20]
    x, y, i = next(iter(DataLoader(Indexed(Rows(ITEMS), y_key="label"), batch_size=3)))
    assert x["ids"].tolist() == i.tolist() == [0, 1, 2] and y.tolist() == [0, 10, 20]


@pytest.mark.parametrize(
    ("keys", "items", "words"),
    [
        ({"y_key": "y"}, ITEMS, r"mappings with \['y'\].*item 0 is a mapping of \['ids', 'mask', 'label'\]"),
        ({"x_key": "x", "y_key": "label"}, ITEMS, r"mappings with \['x'\]"),
        ({"y_key": "label"}, [(1, 2)], r"mappings with \['label'\].*item 0 is tuple"),
    ],
)
def test_a_key_that_an_item_lacks_is_told_with_those_it_has(keys, items, words):
    with pytest.raises(ValueError, match=words):
        Indexed(Rows(items), **keys)[0]
    with pytest.raises(ValueError, match="x_key='ids' needs y_key"):
        Indexed(Rows(items), x_key="ids")


def test_a_batch_of_mappings_says_how_it_becomes_one_of_rows_with_an_index():
    loader = DataLoader(Indexed([{"x": 1.0, "label": 0}] * 3), batch_size=3)
    with pytest.raises(
        ValueError, match=r"Got 2 parts. Of items with \['x', 'label'\] name the label: Indexed\(training_set, y_key"
    ):
        Uniform(3).weighted_loss(torch.nn.Linear(1, 2), next(iter(loader)))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (iter([1, 2]), "got list_iterator. Weights belong to rows"),
        ((x for x in "ab"), "got generator. Weights belong to rows"),
        (3, "got int.$"),
        (None, "got NoneType.$"),
        ("train", "got str.$"),
        (DataLoader(TensorDataset(*TRAIN)), "got DataLoader. Give the data set and not the loader: dataset=loader.dataset.$"),
        ({"train": [1], "test": [2]}, r"got dict. Give one of its parts \['train', 'test'\].$"),
        (TRAIN, r"got tuple. Put tensors together: dataset=torch.utils.data.TensorDataset\(X, y\).$"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_indexed_refuses_what_has_no_row_numbers(stream, words):
    with pytest.raises(TypeError, match="dataset must be a map-style data set.*" + words):
        Indexed(stream)


def test_endless_gives_each_row_once_a_pass_and_shuffles_every_pass_anew():
    loader = DataLoader(torch.arange(12), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(0))
    source = endless(loader)
    passes = [torch.cat([next(source) for _ in range(3)]).tolist() for _ in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert len({tuple(one) for one in passes}) == 3


def test_endless_of_nothing_says_why():
    empty = DataLoader(torch.arange(3), batch_size=5, drop_last=True)
    with pytest.raises(ValueError, match=r"no batches.*drop_last=True.*batch_size"):
        next(endless(empty))


def test_endless_of_what_gives_its_batches_once_says_what_to_give():
    batches = endless(iter(DataLoader(Indexed(TensorDataset(torch.zeros(4, 2), torch.zeros(4))), batch_size=2)))
    next(batches), next(batches)
    with pytest.raises(ValueError, match=r"gives its batches once: give the DataLoader, endless\(DataLoader"):
        next(batches)


def test_a_deep_copy_and_a_moved_module_keep_their_weights():
    reweighter = warm("kliep")
    moved = _copy(reweighter).to("cpu").to(torch.float64)
    assert torch.equal(moved.weights_, reweighter.weights_.double()) and moved.coef_.dtype == torch.float64
    w = moved.partial_fit(losses(4, 0), losses(N_VAL, 1), torch.arange(4)).transform(torch.arange(4))
    assert w.dtype == torch.float64 and float(w.mean()) == pytest.approx(1.0)
