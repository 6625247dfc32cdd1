"""A convolutional network for images, and random moves of images during training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["image_network", "moved"]

_WIDTHS = 24, 48, 96
_SIDE = 64  # side in pixels from which an image is first averaged to a smaller one
_SMALLEST = 6  # least side in pixels that is pooled
_MOVE = 12  # an image moves by at most this fraction of its side, 1 / 12


def image_network(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Three 3 x 3 convolutions, each pooled, the last two with a residual pair, and the largest value of each channel.

    For images (c, h, w) of any size; those of 64 pixels and more a side are averaged to 32 to 47 first.
    Source: He, Zhang, Ren & Sun (2016), Deep residual learning for image recognition.
    """
    channels, *sides = input_shape
    shrinks = tuple(side // (_SIDE // 2) if side >= _SIDE else 1 for side in sides)
    layers: list[nn.Module] = [nn.AvgPool2d(shrinks)] if max(shrinks) > 1 else []  # type: ignore[arg-type]  # a pair of sides
    sides = [side // shrink for side, shrink in zip(sides, shrinks, strict=True)]
    for stage, width in enumerate(_WIDTHS):
        pools = tuple(2 if side >= _SMALLEST else 1 for side in sides)
        sides = [side // pool for side, pool in zip(sides, pools, strict=True)]
        # After pooling, normalization and ReLU take a quarter of the time.
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.MaxPool2d(pools)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if stage > 0:
            layers.append(_ResidualPair(width))
        channels = width
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, n_classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # as in networks.py


class _ResidualPair(nn.Module):
    """x + two 3 x 3 convolutions with batch normalization."""

    def __init__(self, width: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.pair = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pair(x)


def moved(images: Tensor, moves: str) -> Tensor:
    """Images (n, c, h, w), each shifted at random by up to a twelfth of its side.

    moves : "no" leaves them as they are; "shifts"; "flips" also mirrors every second one left to right.
    The image's own pixels, mirrored at its edge, fill the gap. The draws are from torch's global state.
    """
    if moves == "no":
        return images
    n, _, *sides = images.shape
    reach = [side // _MOVE for side in sides]
    padded = functional.pad(images, (reach[1], reach[1], reach[0], reach[0]), mode="reflect") if any(reach) else images
    with images.device:
        rows, columns = (torch.arange(side) + torch.randint(2 * far + 1, (n, 1)) for side, far in zip(sides, reach, strict=True))
        if moves == "flips":
            columns = torch.where(torch.rand(n, 1) < 0.5, columns, columns.flip(1))
        at = torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]
    # Indexing several axes puts channels last, as the convolutions want them.
    return padded.permute(0, 2, 3, 1)[at].permute(0, 3, 1, 2)
