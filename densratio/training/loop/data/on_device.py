"""A data set on one device: its batches are gathered, augmented and normalized there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...._validation import check_count

__all__ = ["DeviceData"]


class DeviceData:
    """Batches (x, y, index) without a loader's workers and copies, to train from a small data set on a GPU.

    An image is padded by `crop_padding` zero pixels on each side and cropped at random to its size, mirrored left to right
    with probability 1/2 if `flip`, and then normalized to (x - mean) / std.

    x : (n, ...) tensor or array; images are (n, c, h, w). Bytes stay bytes, and are scaled to [0, 1] batch by batch.
    y : (n, ...) labels. batch_size : rows of a batch; the last batch of a pass has the rest, or is left out if `drop_last`.
    device : where everything happens; None: where x is. shuffle : draw a new order for each pass.
    mean, std : one number for each channel (c,), in the units of x in [0, 1]; None: 0 and 1.
    seed : of the torch.Generator that orders and augments; no global random state is used.

    Iteration continues where it stopped, also in the middle of a pass, and ends with the pass. A `state_dict` taken between two
    batches and loaded into the same data elsewhere gives the batches that would have followed. No step waits for the device.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        batch_size: int,
        *,
        device: torch.device | str | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        crop_padding: int = 0,
        flip: bool = False,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        seed: int = 0,
    ):
        self.x, self.y = (torch.as_tensor(part, device=device) for part in (x, y))
        if len(self.x) != len(self.y) or len(self.x) < 1 or self.x.device != self.y.device:
            raise ValueError(f"x and y must have as many rows, at least one, on one device; got {len(self.x)} and {len(self.y)}.")
        check_count("batch_size", batch_size)
        check_count("crop_padding", crop_padding, 0)
        if drop_last and batch_size > len(self.x):
            raise ValueError(f"With drop_last {len(self.x)} rows give no batch of {batch_size}.")
        if (crop_padding or flip or mean is not None or std is not None) and self.x.ndim != 4:
            raise ValueError(f"Crops, flips and normalization take images (n, c, h, w); got rows of {tuple(self.x.shape[1:])}.")
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.crop_padding = crop_padding
        self.flip = flip
        self._mean, self._std = self._by_channel(mean, "mean"), self._by_channel(std, "std")
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._order: Tensor | None = None
        self._position = 0

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.x.device

    @property
    def n_rows(self) -> int:
        """Rows of the data set."""
        return len(self.x)

    def __len__(self) -> int:
        """Batches of a whole pass."""
        return self.n_rows // self.batch_size if self.drop_last else -(-self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        if self._order is None:
            n, at = self.n_rows, self.device
            order = torch.randperm(n, generator=self._generator, device=at) if self.shuffle else torch.arange(n, device=at)
            self._order, self._position = order, 0
        while self._order is not None and self._position < len(self):
            index = self._order[self._position * self.batch_size : (self._position + 1) * self.batch_size]
            batch = self.inputs(index), self.y[index], index
            self._position += 1
            if self._position == len(self):
                # From here on a state_dict shows the pass as over, even before the surrounding loop ends.
                self._order = None
                yield batch
                return
            yield batch

    def inputs(self, index: Tensor) -> Tensor:
        """Rows `index` (b,) as the model takes them: augmented by the next draws of the generator, and normalized."""
        x = self.x[index]
        if self.crop_padding or self.flip:
            x = self._crop_and_flip(x)
        if x.dtype == torch.uint8:
            x = x.to(torch.get_default_dtype()) / 255.0
        x = x if self._mean is None else x - self._mean
        return x if self._std is None else x / self._std

    def state_dict(self) -> dict[str, Any]:
        """The generator, and the place in the pass."""
        return {"generator": self._generator.get_state(), "order": self._order, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. Raises ValueError for one of a data set of another size or kind of device."""
        order, position, generator = state["order"], int(state["position"]), state["generator"].cpu()
        if order is not None and len(order) != self.n_rows:
            raise ValueError(f"This state is of {len(order)} rows and the data set has {self.n_rows}.")
        if generator.shape != self._generator.get_state().shape:
            raise ValueError(
                f"This state was taken on another kind of device than {self.device.type}, with other random numbers: go on "
                "there or start the pass anew without it."
            )
        self._generator.set_state(generator)
        self._order, self._position = None if order is None else order.to(self.device), position

    def _by_channel(self, values: Sequence[float] | None, name: str) -> Tensor | None:
        if values is None:
            return None
        if len(values) != self.x.shape[1]:
            raise ValueError(f"{name} must have one number for each of the {self.x.shape[1]} channels; got {len(values)}.")
        return torch.tensor(values, dtype=torch.get_default_dtype(), device=self.device)[:, None, None]

    def _crop_and_flip(self, x: Tensor) -> Tensor:
        """x (b, c, h, w), each image at an offset and in a direction of its own, by one gather."""
        n, channels, height, width = x.shape
        place: dict[str, Any] = {"device": self.device, "generator": self._generator}
        top, left = torch.randint(0, 2 * self.crop_padding + 1, (2, n, 1), **place)
        rows, columns = (start + torch.arange(size, device=self.device) for start, size in ((top, height), (left, width)))
        if self.flip:
            columns = torch.where(torch.rand((n, 1), **place) < 0.5, columns.flip(1), columns)
        padded = functional.pad(x, (self.crop_padding,) * 4)
        # One index per pixel, shared by all channels, takes a third of the time of four broadcast indices.
        places = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).reshape(n, 1, height * width)
        return padded.flatten(2).gather(2, places.expand(n, channels, height * width)).reshape(x.shape)
