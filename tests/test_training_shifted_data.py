"""Data sets under a shift: other labels and inputs under any map-style data set, and its labels read without its inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from densratio.datasets import label_noise, long_tail
from densratio.training import Indexed, ShiftedDataset, labels_of


class Images(Dataset):
    """Like torchvision's: labels as a list of numbers, transforms, and inputs that count how often they are loaded."""

    def __init__(self, n, transform=None, target_transform=None):
        self.targets, self.transform, self.target_transform = [i % 4 for i in range(n)], transform, target_transform
        self.n_loaded = 0

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.n_loaded += 1
        x, y = torch.full((2,), float(index)), self.targets[index]
        return (self.transform or float_of)(x), (self.target_transform or int)(y)


def float_of(x):
    return x.float()


def hundred_more(x):
    return x + 100


class Triples(Dataset):
    """Items (x, y, z) and nothing that holds the labels; `labels` are the names of the classes."""

    labels = ("cat", "dog", "owl", "cow")

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return [float(index), index * 2, "z"]


NEW = np.array([3, 3, 2, 2, 1, 1, 0, 0])


def test_new_labels_stand_beside_the_transformed_inputs():
    given_labels = NEW.copy()
    shifted = ShiftedDataset(Images(8, transform=hundred_more), labels=given_labels)
    given_labels[:] = 9
    assert len(shifted) == 8 and [y for _, y in shifted] == NEW.tolist()
    assert all(type(y) is int and torch.equal(x, torch.full((2,), i + 100.0)) for i, (x, y) in enumerate(shifted))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_shifted_data_go_through_indexed_and_a_loader_with_workers(n_workers):
    rows = np.array([-1, 1, -1, -1, 0, -1, -1, 1])
    outside = TensorDataset(torch.tensor([[-5.0, -5.0], [-6.0, -6.0]]))
    shifted = ShiftedDataset(Images(8), labels=NEW, outside=outside, outside_rows=rows)
    loader = DataLoader(Indexed(shifted), batch_size=3, num_workers=n_workers)
    x, y, i = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert torch.equal(i, torch.arange(8)) and torch.equal(y, torch.from_numpy(NEW)) and y.dtype == torch.int64
    assert x[:, 0].tolist() == [0.0, -6.0, 2.0, 3.0, -5.0, 5.0, 6.0, -6.0]


def test_shifted_and_unshifted_data_mix_in_a_batch():
    clean = Images(8)
    both = ConcatDataset([ShiftedDataset(clean, labels=NEW), clean])
    assert next(iter(DataLoader(both, batch_size=16)))[1].tolist() == NEW.tolist() + clean.targets
    tensors = TensorDataset(torch.zeros(8, 1), torch.zeros(8, dtype=torch.int64))
    both = ConcatDataset([ShiftedDataset(tensors, labels=NEW), tensors])
    assert next(iter(DataLoader(both, batch_size=16)))[1].tolist() == NEW.tolist() + [0] * 8


def test_other_parts_of_an_item_stay_and_a_bare_input_gets_its_label():
    assert ShiftedDataset(Triples(), labels=[7, 8, 9, 6])[2] == (2.0, 9, "z")
    assert ShiftedDataset(Triples())[2] == (2.0, 4, "z")
    bare = [10.0, 11.0]
    assert ShiftedDataset(bare, labels=[1, 0])[0] == (10.0, 1)
    assert ShiftedDataset(bare, outside=[5.0], outside_rows=[-1, 0])[1] == 5.0
    soft = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert torch.equal(ShiftedDataset(bare, labels=soft)[1][1], soft[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": [0, 1]}, r"labels must have an entry for each of the 4 rows; got shape \(2,\)"),
        ({"labels": 3}, r"labels must have an entry for each of the 4 rows; got shape \(\)"),
        ({"outside": [1.0]}, "both outside, a data set, and outside_rows"),
        ({"outside_rows": [0] * 4}, "both outside, a data set, and outside_rows"),
        ({"outside": [1.0], "outside_rows": [0]}, r"outside_rows must have an entry for each of the 4 rows"),
        ({"outside": [1.0], "outside_rows": [0, 0, 1, -1]}, r"0 to 0; got -1 to 1"),
        ({"outside": [1.0], "outside_rows": [0, 0, -2, -1]}, r"0 to 0; got -2 to 0"),
        ({"outside": [1.0], "outside_rows": [True, False, True, True]}, r"integers; got shape \(4,\) and dtype bool"),
    ],
)
def test_labels_and_rows_that_do_not_fit_the_data_set_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ShiftedDataset(Triples(), **options)


def test_what_is_no_map_of_tuples_is_refused():
    with pytest.raises(TypeError, match=r"map-style data set.*got generator"):
        ShiftedDataset(i for i in range(3))
    with pytest.raises(TypeError, match="got a dict"):
        ShiftedDataset([{"x": 1}], labels=[0])[0]


def test_labels_are_read_without_loading_inputs_where_the_data_set_holds_them():
    images = Images(8, target_transform=hundred_more)
    expected = np.arange(8) % 4 + 100
    assert np.array_equal(labels_of(images), expected)
    assert np.array_equal(labels_of(Subset(images, [5, 2])), expected[[5, 2]])
    assert np.array_equal(labels_of(Indexed(ShiftedDataset(images))), expected)
    assert np.array_equal(labels_of(ConcatDataset([images, ShiftedDataset(images, labels=NEW)])), [*expected, *NEW])
    assert images.n_loaded == 0
    assert np.array_equal(labels_of(Subset(images, [5, 2])), [Subset(images, [5, 2])[i][1] for i in range(2)])
    assert np.array_equal(labels_of(TensorDataset(torch.zeros(8, 2), torch.from_numpy(NEW))), NEW)


def test_labels_are_read_item_by_item_where_nothing_holds_them():
    assert labels_of(Triples()).tolist() == [0, 2, 4, 6]
    pairs = [(torch.zeros(2), torch.tensor(i)) for i in range(3)]
    assert labels_of(pairs).tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match=r"items \(x, y, \.\.\.\); got float"):
        labels_of([1.0, 2.0])


@given(rate=st.floats(0.0, 1.0), seed=st.integers(0, 999))
def test_labels_read_from_shifted_data_are_those_that_it_gives(rate, seed):
    images = Images(24)
    noisy = label_noise(labels_of(images), "symmetric", rate, random_state=seed)
    kept = long_tail(noisy.labels, 2.0, n_classes=4, random_state=seed) if set(noisy.labels) == {0, 1, 2, 3} else None
    data = Subset(ShiftedDataset(images, labels=noisy.labels), range(24) if kept is None else kept.rows)
    assert labels_of(data).tolist() == [y for _, y in data]
