"""Batches with the index of each row, in an order that a resumed run continues at the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import default_collate

from ..loop.data.indexed import Indexed, map_style
from ..loop.ranks import n_ranks, rank_here

__all__ = ["NumberedCollate", "NumberedRows", "ValidationBatches"]

Collate = Callable[[list[Any]], Any]


class NumberedRows(Dataset):
    """A map-style data set whose items have the form (item, i), whatever an item is; messages call it `name`.

    The items of an `Indexed` data set are taken without its index.
    """

    def __init__(self, dataset: Any, name: str = "dataset"):
        self.dataset = map_style(dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.dataset.item(index) if type(self.dataset) is Indexed else self.dataset[index], index

    def __getitems__(self, indices: list[int]) -> list[tuple[Any, int]]:
        """Several items, at once if the data set supports it."""
        together = getattr(self.dataset, "__getitems__", None)
        return [self[i] for i in indices] if together is None else list(zip(together(indices), indices, strict=True))


class NumberedCollate:
    """Makes (batch, index (n,)) of rows (item, i); `collate` sees the items alone."""

    def __init__(self, collate: Collate = default_collate):
        self.collate = collate

    def __call__(self, rows: list[tuple[Any, int]]) -> Any:
        items, index = zip(*rows, strict=True)
        return self.collate(list(items)), torch.tensor(index)


class ValidationBatches:
    """Endless batches (batch, index) of a map-style data set.

    The rows come in passes, each a permutation drawn from (seed, number of the pass), and a batch may contain the end of one pass
    and the start of the next. With several ranks the next batch_size * ranks rows are divided among them.
    rows_drawn: number of rows given so far, on all ranks; set it to continue from there. A batch has at most len(dataset) rows.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        collate_fn: Collate | None = None,
        num_workers: int = 0,
        seed: int = 0,
        name: str = "val_set",
    ):
        is_plain = type(dataset) is Indexed and dataset.y_key is None
        self.dataset = NumberedRows(dataset.dataset if is_plain else dataset, name)
        if len(self.dataset) == 0 or batch_size < 1:
            raise ValueError(f"{name} must have rows and batch_size be >= 1; got {len(self.dataset)} rows and {batch_size!r}.")
        self.batch_size = min(batch_size, len(self.dataset))
        self.collate_fn = NumberedCollate(default_collate if collate_fn is None else collate_fn)
        self.num_workers, self.seed = num_workers, seed
        self._rows_drawn = 0
        self._loading: Iterator[tuple[Any, Tensor]] | None = None

    @property
    def rows_drawn(self) -> int:
        """Rows of all ranks given so far."""
        return self._rows_drawn

    @rows_drawn.setter
    def rows_drawn(self, count: int) -> None:
        self._rows_drawn, self._loading = count, None

    def __iter__(self) -> ValidationBatches:
        return self

    def __next__(self) -> tuple[Any, Tensor]:
        if self._loading is None:
            self._loading = iter(self._loader())
        batch = next(self._loading)
        self._rows_drawn += self.batch_size * n_ranks()
        return batch

    def __getstate__(self) -> dict[str, Any]:
        # Batches loaded ahead are loaded again from rows_drawn on.
        return {**self.__dict__, "_loading": None}

    def _loader(self) -> DataLoader:
        rows = _batches_of_rows(len(self.dataset), self.batch_size, self.seed, self._rows_drawn, rank_here(), n_ranks())
        # A loader draws the seed of its workers from this generator, not from the global one.
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self.dataset, batch_sampler=rows, collate_fn=self.collate_fn, num_workers=self.num_workers, generator=generator
        )


def _batches_of_rows(n: int, size: int, seed: int, start: int, rank: int, ranks: int) -> Iterator[list[int]]:
    """Row numbers of the batches of one rank from the place `start` of the endless order on."""

    @lru_cache(maxsize=2)
    def order(number: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).permutation(n)

    while True:
        first = start + rank * size
        yield [int(order(place // n)[place % n]) for place in range(first, first + size)]
        start += size * ranks
