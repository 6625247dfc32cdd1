"""Data sets whose items carry their index, and validation batches without end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, Dataset

__all__ = ["Indexed", "endless", "map_style"]


class Indexed(Dataset):
    """A map-style data set whose items end with their index: (x, y) becomes (x, y, i), and a bare x becomes (x, i).

    y_key: for items that are mappings, the name of the label; x_key: the name of the input, None for a dict of all others. Such an
    item becomes (x, y, i) too.
    """

    def __init__(self, dataset: Any, *, x_key: Any = None, y_key: Any = None):
        if x_key is not None and y_key is None:
            raise ValueError(f"x_key={x_key!r} needs y_key, the name of the label: Indexed(dataset, x_key={x_key!r}, y_key=...).")
        self.dataset = map_style(dataset, "dataset")
        self.x_key, self.y_key = x_key, y_key

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        item = self.item(index)
        return (*item, index) if isinstance(item, tuple | list) else (item, index)

    def item(self, index: int) -> Any:
        """The item without its index, (x, y) where y_key is given."""
        item = self.dataset[index]
        if self.y_key is None:
            return item
        names = list(item) if isinstance(item, Mapping) else []
        missing = [key for key in (self.x_key, self.y_key) if key is not None and key not in names]
        if missing:
            got = f"a mapping of {names}" if names else type(item).__name__
            raise ValueError(f"Items must be mappings with {missing}, as x_key and y_key say; item {index} is {got}.")
        others = {name: value for name, value in item.items() if name != self.y_key}
        return others if self.x_key is None else item[self.x_key], item[self.y_key]


def map_style(dataset: Any, name: str) -> Any:
    """`dataset` itself. Raises TypeError, with what to pass as `name`, if it has no length or no items by number."""
    if isinstance(dataset, DataLoader):
        hint = f"Give the data set and not the loader: {name}=loader.dataset."
    elif isinstance(dataset, Mapping):
        hint = f"Give one of its parts {list(dataset)}."
    elif isinstance(dataset, tuple) and dataset and all(hasattr(part, "shape") for part in dataset):
        hint = f"Put tensors together: {name}=torch.utils.data.TensorDataset(X, y)."
    elif hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and not isinstance(dataset, str):
        return dataset
    else:
        is_stream = isinstance(dataset, Iterable) and not isinstance(dataset, str)
        numbered = "put its items into a list, list(stream), or yield (x, y, i) yourself, i the number of a row, without Indexed"
        hint = f"Weights belong to rows, which a stream does not number: {numbered}." if is_stream else ""
    got = type(dataset).__name__
    raise TypeError(f"{name} must be a map-style data set, with a length and items by number; got {got}. {hint}".rstrip())


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches of `loader` over and over, shuffled again in each pass if it shuffles. Make it once, outside the epochs.

    Raises ValueError for a loader without batches, and for a generator, which gives them once.
    """
    is_first = True
    while True:
        is_empty = True
        for batch in loader:
            is_empty = False
            yield batch
        if is_empty and is_first:
            raise ValueError("The validation loader gives no batches: with drop_last=True it needs at least batch_size rows.")
        if is_empty:
            raise ValueError(
                f"endless goes over the loader again and again, and a {type(loader).__name__} gives its batches once: give the "
                "DataLoader, endless(DataLoader(...)), of rows that can be read again, or a list of batches."
            )
        is_first = False
