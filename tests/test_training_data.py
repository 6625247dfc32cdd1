"""Row numbers beside the rows, and batches without end."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training_cases import N_TRAIN, N_VAL, TRAIN, _copy, losses, warm

from densratio.training import Indexed, endless


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


@pytest.mark.parametrize("stream", [iter([1, 2]), (x for x in "ab"), 3], ids=lambda s: type(s).__name__)
def test_indexed_refuses_what_has_no_row_numbers(stream):
    with pytest.raises(TypeError, match=f"map-style.*got {type(stream).__name__}"):
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


def test_a_deep_copy_and_a_moved_module_keep_their_weights():
    reweighter = warm("kliep")
    moved = _copy(reweighter).to("cpu").to(torch.float64)
    assert torch.equal(moved.weights_, reweighter.weights_.double()) and moved.coef_.dtype == torch.float64
    w = moved.partial_fit(losses(4, 0), losses(N_VAL, 1), torch.arange(4)).transform(torch.arange(4))
    assert w.dtype == torch.float64 and float(w.mean()) == pytest.approx(1.0)
