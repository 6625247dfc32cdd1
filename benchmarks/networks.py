"""Networks of the published experiments, by the shape of the input."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["convnet", "lenet5", "lstm", "resnet18"]


def lenet5(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """LeNet-5 with ReLU and max pooling, as DIW trains it: C6-S2-C16-S2-F120-F84, images (c, h, w) padded to 32 x 32 or more.

    The layer `hidden` gives the 84 last activations. Raises ValueError for rows that are no images.
    Source: LeCun et al. (1998), Gradient-based learning applied to document recognition.
    """
    channels, height, width = _image_shape(input_shape, "LeNet-5")
    padding = max(0, (33 - height) // 2), max(0, (33 - width) // 2)
    sides = [((size + 2 * pad - 4) // 2 - 4) // 2 for size, pad in zip((height, width), padding, strict=True)]
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(channels, 6, 5, padding=padding),
        "pool1": nn.MaxPool2d(2),  # a ReLU of the largest is the largest of the ReLUs, of a quarter as many
        "relu1": nn.ReLU(),
        "conv2": nn.Conv2d(6, 16, 5),
        "pool2": nn.MaxPool2d(2),
        "relu2": nn.ReLU(),
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(16 * sides[0] * sides[1], 120),
        "relu3": nn.ReLU(),
        "linear2": nn.Linear(120, 84),
        "hidden": nn.ReLU(),
        "output": nn.Linear(84, n_classes),
    }
    return nn.Sequential(OrderedDict(layers))


def convnet(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Pairs of 3 x 3 convolutions of 32, 64 and 128 channels with batch normalization, each pair pooled; images (c, h, w).

    The layer `hidden` gives the 128 averaged features. Raises ValueError for rows that are no images.
    """
    width = _image_shape(input_shape, "The convolutional network")[0]
    layers: dict[str, nn.Module] = {}
    for group, n_out in enumerate((32, 64, 128), start=1):
        pair = []
        for n_in in (width, n_out):
            pair += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
        layers[f"group{group}"] = nn.Sequential(*pair, nn.MaxPool2d(2))
        width = n_out
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "hidden": nn.Flatten(), "output": nn.Linear(width, n_classes)}
    return nn.Sequential(OrderedDict(layers))


def lstm(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """Two stacked layers of 64 LSTM cells that read a series (length,) value by value; the layer `hidden` is the last state.

    Raises ValueError for images.
    """
    if len(input_shape) != 1:
        raise ValueError(f"The LSTM reads series of one variable, rows (n, length); got rows of shape {input_shape}.")
    layers = {"series": nn.Unflatten(1, (-1, 1)), "cells": nn.LSTM(1, 64, 2, batch_first=True), "hidden": _LastState()}
    return nn.Sequential(OrderedDict(layers | {"output": nn.Linear(64, n_classes)}))


class _LastState(nn.Module):
    def forward(self, outputs: tuple[Tensor, tuple[Tensor, Tensor]]) -> Tensor:
        return outputs[0][:, -1]


def resnet18(input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
    """ResNet-18 for small images (c, h, w): a 3 x 3 stem of stride 1 without pooling, then 2 blocks each of 64 to 512 channels.

    The layer `hidden` gives the 512 averaged features. Raises ValueError for rows that are no images.
    Source: He, Zhang, Ren & Sun (2016), Deep residual learning for image recognition.
    """
    channels = _image_shape(input_shape, "ResNet-18")[0]
    layers: dict[str, nn.Module] = {
        "stem": nn.Conv2d(channels, 64, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(64),
        "relu": nn.ReLU(inplace=True),
    }
    width = 64
    for number, n_out in enumerate((64, 128, 256, 512), start=1):
        stride = 1 if number == 1 else 2
        layers[f"group{number}"] = nn.Sequential(ResidualBlock(width, n_out, stride), ResidualBlock(n_out, n_out, 1))
        width = n_out
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "hidden": nn.Flatten(), "output": nn.Linear(width, n_classes)}
    model = nn.Sequential(OrderedDict(layers))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return model


class ResidualBlock(nn.Module):
    """relu(x + two 3 x 3 convolutions with batch normalization); x passes a 1 x 1 convolution where the shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.shortcut(x) + self.norm2(self.conv2(inner)))


def _image_shape(input_shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"{name} takes images (channels, height, width); got rows of shape {tuple(input_shape)}.")
    channels, height, width = input_shape
    return channels, height, width
