"""A torch training loop on real images with half of the labels wrong, unweighted and reweighted.

Run: python examples/training_loop.py [EPOCHS]
"""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset

from densratio.datasets import label_noise, load_digits
from densratio.labels.networks import small_network
from densratio.training import DynamicReweighter, Indexed, Uniform, endless


def main(epochs=80):
    data = load_digits()
    images, labels = torch.as_tensor(data.inputs), torch.as_tensor(data.labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    val, test, train = order[:100], order[100:600], order[600:]
    noisy = label_noise(data.labels[train], "symmetric", 0.5, random_state=0)

    train_set = TensorDataset(images[train], torch.as_tensor(noisy.labels))
    val_set = TensorDataset(images[val], labels[val])
    for name in ("uniform", "kmm", "lsif", "wasserstein"):
        torch.manual_seed(0)
        model = small_network((1, 8, 8), 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        train_loader = DataLoader(Indexed(train_set), batch_size=128, shuffle=True)
        val_batches = endless(DataLoader(Indexed(val_set), batch_size=128, shuffle=True))
        if name == "uniform":
            reweighter = Uniform(len(train_set))
        else:
            reweighter = DynamicReweighter(name, n_train=len(train_set), n_val=len(val_set))
        for _ in range(epochs):
            for x, y, i in train_loader:
                loss = reweighter.weighted_loss(model, (x, y, i), next(val_batches))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            accuracy = (model(images[test]).argmax(dim=1) == labels[test]).float().mean()
        weights = reweighter.weights_.numpy()
        flipped, clean = weights[noisy.is_flipped].mean(), weights[~noisy.is_flipped].mean()
        print(f"{name:12s} test accuracy {accuracy:.3f}   mean weight of right labels {clean:.2f}, of wrong ones {flipped:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
