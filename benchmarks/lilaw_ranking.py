"""Wrong labels by the parts of LiLAW's weights, against the rankings of one plain training in `row_scores.py`.

Validation rows are as noisy as the training rows. Each ranking reads the epochs up to its own, EL2N the last of them alone, and
GraNd the first five at most; suspicious_rows: the mean loss. Source: Moturu et al. (2025), LiLAW, Table 16.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import row_scores
import torch
from runner import RESULTS, Row, environment, limit_threads, write
from sklearn.metrics import average_precision_score, roc_auc_score

from densratio.datasets import Labelled, label_noise, load_labelled
from densratio.labels.networks import small_network
from densratio.training import LiLAW, Uniform, suspicious_rows

N_VAL, BATCH, EARLY = 2500, 128, 5


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="letters:FILE")
    parser.add_argument("--noise", default="symmetric:0.5")
    parser.add_argument("--epochs", type=int, nargs="+", default=[3, 10, 20, 40])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    limit_threads(arguments.threads)
    data, seeds = load_labelled(arguments.data), range(arguments.seeds)
    found: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for seed in seeds:
        for epoch, name, scores, is_flipped in rankings(data, arguments.noise, seed, arguments.epochs):
            quality = roc_auc_score(is_flipped, scores), average_precision_score(is_flipped, scores)
            found.setdefault((epoch, name), []).append(quality)
    sections = [
        (f"{epoch} epochs", "", [row(name, found[e, name]) for e, name in found if e == epoch]) for epoch in arguments.epochs
    ]
    title = f"Rankings of wrong labels, letters, {arguments.noise}, noisy validation rows"
    write(str(RESULTS / "lilaw_ranking"), title, environment(seeds=seeds), sections)


def row(name: str, qualities: list[tuple[float, float]]) -> Row:
    auroc, auprc = (f"{np.mean(part):.4f} ± {np.std(part, ddof=1):.4f}" for part in zip(*qualities, strict=True))
    return {"ranking": name, "AUROC": auroc, "AUPRC": auprc}


def rankings(data: Labelled, noise: str, seed: int, epochs: list[int]) -> Iterator[tuple[int, str, np.ndarray, np.ndarray]]:
    """Epoch, name, scores (n,) that are larger where a label is likelier wrong, and which are."""
    kind, rate = noise.split(":")
    rows = np.random.default_rng(seed).permutation(len(data.labels))
    val, train = rows[:N_VAL], rows[N_VAL:]
    noisy, noisy_val = (label_noise(data.labels[part], kind, float(rate), random_state=seed) for part in (train, val))
    arrays = data.inputs[train], noisy.labels, data.inputs[val], noisy_val.labels
    sets = tuple(map(torch.as_tensor, arrays))
    for reweighter in (LiLAW(len(train)), Uniform(len(train))):
        logits, features = [], []
        for epoch, model in trained(reweighter, sets, seed, max(epochs)):
            with torch.no_grad():
                features.append(model[:-1](sets[0]))
                logits.append(model[-1](features[-1]))
            del features[EARLY:]
            if epoch not in epochs:
                continue
            scores = {"suspicious_rows": places(suspicious_rows(reweighter))}
            if isinstance(reweighter, LiLAW):
                easy, hard, moderate = reweighter.difficulty.T
                scores |= {
                    "easy": places(suspicious_rows(reweighter, by="easy")),
                    "hard": hard,
                    "moderate": moderate,
                    "their sum": easy + hard + moderate,
                }
            else:
                scores |= of_training(torch.stack(logits), sets[1], torch.stack(features))
            for name, values in scores.items():
                yield epoch, f"{type(reweighter).__name__}: {name}", np.asarray(values), noisy.is_flipped


def of_training(logits: torch.Tensor, labels: torch.Tensor, features: torch.Tensor) -> dict[str, np.ndarray]:
    """Scores (n,) by the name of the ranking, of logits (T, n, K) and the features (t, n, d) of the first epochs."""
    scores = {
        "AUM": row_scores.aum(logits, labels),
        "EL2N": row_scores.el2n(logits, labels),
        "GraNd, last layer": row_scores.grand(logits[: len(features)], labels, features),
        "Data Maps, confidence": row_scores.confidence(logits, labels),
        "Data Maps, variability": row_scores.variability(logits, labels),
        "Data-IQ, confidence and uncertainty": row_scores.data_iq(logits, labels),
        "Data-IQ, uncertainty": row_scores.uncertainty(logits, labels),
        "CNLCU-S": row_scores.cnlcu_soft(logits, labels),
        "forgetting": row_scores.forgetting(logits, labels),
    }
    # The quality of a ranking is counted by finite scores.
    return {name: np.nan_to_num(values.numpy(), posinf=len(logits)) for name, values in scores.items()}


def places(order: np.ndarray) -> np.ndarray:
    """Scores (n,) that fall along the order."""
    scores = np.empty(len(order))
    scores[order] = -np.arange(len(order))
    return scores


def trained(reweighter: torch.nn.Module, sets: tuple, seed: int, epochs: int) -> Iterator[tuple[int, torch.nn.Module]]:
    """The model after each epoch, and its number."""
    x, y, x_val, y_val = sets
    torch.manual_seed(seed)
    model = small_network(tuple(x.shape[1:]), int(y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(1, epochs + 1):
        for i in torch.randperm(len(x)).split(BATCH):
            j = torch.randint(len(x_val), (BATCH,))
            loss = reweighter.weighted_loss(model, (x[i], y[i], i), (x_val[j], y_val[j], j))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield epoch, model


if __name__ == "__main__":
    main()
