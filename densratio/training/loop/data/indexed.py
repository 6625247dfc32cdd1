"""Data sets whose items carry their index, and validation batches without end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import Dataset

__all__ = ["Indexed", "endless"]


class Indexed(Dataset):
    """A map-style data set whose items carry their index last: (x, y) becomes (x, y, i), and a bare x becomes (x, i)."""

    def __init__(self, dataset: Any):
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise TypeError(f"Indexed needs a map-style data set, with a length and items by number; got {type(dataset).__name__}.")
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.dataset[index]
        return (*item, index) if isinstance(item, tuple | list) else (item, index)


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches of `loader` over and over, shuffled anew in each pass if it shuffles. Make it once, outside the epochs."""
    while True:
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError("The validation loader gives no batches: with drop_last=True it needs at least batch_size rows.")
