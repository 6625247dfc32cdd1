"""Wrong labels found by `suspicious_rows` in one training, against cleanlab's confident learning in the same run.

Letters with flipped labels. Ours: one training with each method, with clean validation rows. cleanlab: its rankings of
out-of-sample probabilities, from cross-validation of the same network with the same epochs, as it recommends; the same with our
clean validation rows among the training rows of every fold; and of in-sample probabilities of one plain training.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from runner import Row, environment, limit_threads, write
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from densratio.datasets import load_labelled
from densratio.demo.experiment import NoiseExperiment, Split, endless_batches, split_rows
from densratio.labels.networks import small_network
from densratio.training import Reweighter, Uniform, reweighter, suspicious_rows

OURS = ["kmm", "kliep", "lsif", "wasserstein"]
PLAIN = "weights of 1"
OUT_OF_SAMPLE, WITH_CLEAN = "cross-validated", "cross-validated, clean rows added"
IN_SAMPLE, IN_SAMPLE_WITH_CLEAN = "in-sample", "in-sample, clean rows added"
LEARNED = {"noisy rows": [OUT_OF_SAMPLE, IN_SAMPLE], "clean rows too": [WITH_CLEAN, IN_SAMPLE_WITH_CLEAN]}
RARE = 10  # one in so many rows stays of every second class, where labels= is tried

Scores = dict[str, np.ndarray]


def network(split: Split, seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return small_network(tuple(split.x.shape[1:]), split.n_classes)


def weighted_epochs(reweighter: Reweighter, model: torch.nn.Module, split: Split, seed: int, config: Any) -> Iterator[int]:
    """Train as densratio.demo.experiment does; gives the number of epochs done after each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    order = torch.Generator().manual_seed(seed)
    val_batches = endless_batches(len(split.x_val), config.batch_size, torch.Generator().manual_seed(seed))
    for epoch in range(config.epochs):
        model.train()
        for i in torch.randperm(len(split.x), generator=order).split(config.batch_size):
            j = next(val_batches)
            loss = reweighter.weighted_loss(model, (split.x[i], split.y[i], i), (split.x_val[j], split.y_val[j], j))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield epoch + 1


def plain_epochs(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, seed: int, config: Any) -> Iterator[int]:
    """Train on all rows alike; gives the number of epochs done after each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(config.epochs):
        model.train()
        for i in torch.randperm(len(x), generator=order).split(config.batch_size):
            loss = torch.nn.functional.cross_entropy(model(x[i]), y[i])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield epoch + 1


@torch.no_grad()
def probabilities(model: torch.nn.Module, x: torch.Tensor) -> np.ndarray:
    model.eval()
    return torch.cat([torch.softmax(model(rows), dim=1) for rows in x.split(2048)]).numpy()


def place_scores(rows: np.ndarray) -> np.ndarray:
    """A score (n,) of each row from its place in a ranking."""
    scores = np.empty(len(rows))
    scores[rows] = -np.arange(len(rows))
    return scores


def our_scores(method: str, split: Split, seed: int, config: Any, at: list[int], *, labels: bool = False) -> dict[int, Scores]:
    """By epoch: scores of `suspicious_rows`, of the current weights, and with labels=."""
    weighter = reweighter(method, len(split.x), len(split.x_val), seed=seed)
    found = {}
    for epoch in weighted_epochs(weighter, network(split, seed), split, seed, config):
        if epoch in at:
            found[epoch] = {method: place_scores(suspicious_rows(weighter)), f"{method}, weights": -weighter.weights_.numpy()}
            if labels:
                found[epoch][f"{method}, labels"] = place_scores(suspicious_rows(weighter, labels=split.y))
    return found


def plain_scores(split: Split, seed: int, config: Any, at: list[int]) -> dict[int, Scores]:
    """By epoch: the mean losses of a training with all weights 1."""
    reweighter = Uniform(len(split.x))
    epochs = weighted_epochs(reweighter, network(split, seed), split, seed, config)
    return {epoch: {PLAIN: reweighter.row_losses.means().numpy()} for epoch in epochs if epoch in at}


def with_clean_rows(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of the training rows, and then of the validation rows."""
    return torch.cat([split.x, split.x_val]), torch.cat([split.y, split.y_val])


def in_sample(split: Split, seed: int, config: Any, at: list[int], *, clean: bool) -> dict[int, np.ndarray]:
    """By epoch: probabilities (n, K) of the rows by the network that learned them. clean: and our validation rows."""
    model, (x, y) = network(split, seed), with_clean_rows(split) if clean else (split.x, split.y)
    return {epoch: probabilities(model, split.x) for epoch in plain_epochs(model, x, y, seed, config) if epoch in at}


def cross_validated(split: Split, seed: int, config: Any, at: list[int], folds: int, *, clean: bool) -> dict[int, np.ndarray]:
    """By epoch: probabilities (n, K) of rows by networks that did not learn them. clean: our validation rows are learned too."""
    n = len(split.x)
    found = {epoch: np.zeros((n, split.n_classes), dtype=np.float32) for epoch in at}
    for fold, (learned, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(n), split.y)):
        if clean:
            learned = np.concatenate([learned, np.arange(n, n + len(split.x_val))])
        x, y = (part[learned] for part in with_clean_rows(split))
        model = network(split, 1000 * (fold + 1) + seed)
        for epoch in plain_epochs(model, x, y, seed, config):
            if epoch in at:
                found[epoch][held_out] = probabilities(model, split.x[held_out])
    return found


def cleanlab_scores(python: Path, labels: np.ndarray, sources: dict[str, np.ndarray]) -> tuple[str, Scores]:
    """cleanlab's version and its scores, by the interpreter that has it."""
    with tempfile.TemporaryDirectory() as folder:
        read, written = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(read, labels=labels, **sources)
        script = Path(__file__).with_name("cleanlab_scores.py")
        subprocess.run([str(python), str(script), str(read), str(written)], check=True)
        with np.load(written) as answer:
            return str(answer["version"]), {name: answer[name] for name in answer.files if name != "version"}


def with_rare_classes(split: Split) -> Split:
    """One in ten of the training rows of every second given label."""
    place = np.zeros(len(split.y), dtype=np.int64)
    y = split.y.numpy()
    for label in np.unique(y):
        place[y == label] = np.arange((y == label).sum())
    keep = np.flatnonzero((y % 2 == 0) | (place % RARE == 0))
    return replace(split, x=split.x[keep], y=split.y[keep], is_flipped=split.is_flipped[keep])


def quality(scores: np.ndarray, is_flipped: np.ndarray, k: int | None = None) -> tuple[float, ...]:
    """AUROC and AUPRC of finding the flipped rows; with k, their share among the k rows of the highest scores."""
    if k is not None:
        return (float(is_flipped[np.argsort(-scores, kind="stable")[:k]].mean()),)
    return float(roc_auc_score(is_flipped, scores)), float(average_precision_score(is_flipped, scores))


def mean_and_std(values: list[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def text(values: list[float]) -> str:
    """Mean and standard deviation over the seeds, with the digits that tell rankings apart."""
    return "{:.4f} ± {:.4f}".format(*mean_and_std(values))


class Results:
    """Qualities by epoch and name, one entry for each seed."""

    def __init__(self) -> None:
        self.auroc: dict[tuple[int, str], list[float]] = {}
        self.auprc: dict[tuple[int, str], list[float]] = {}

    def add(self, epoch: int, scores: Scores, is_flipped: np.ndarray) -> None:
        for name, score in scores.items():
            auroc, auprc = quality(score, is_flipped)
            self.auroc.setdefault((epoch, name), []).append(auroc)
            self.auprc.setdefault((epoch, name), []).append(auprc)

    def names(self, epoch: int, has: Callable[[str], bool]) -> list[str]:
        return [name for at, name in self.auroc if at == epoch and has(name)]

    def best(self, measure: dict[tuple[int, str], list[float]], epoch: int, names: list[str]) -> str:
        return max(names, key=lambda name: np.mean(measure[epoch, name]))


def is_cleanlab(name: str) -> bool:
    return "/" in name


def table(results: Results, epoch: int, folds: int) -> list[Row]:
    rows: list[Row] = []
    for name in OURS:
        rows.append({"ranking": f"suspicious_rows, {name}", "trainings": 1})
        rows.append({"ranking": f"last weights alone, {name}", "trainings": 1})
    names = [name for method in OURS for name in (method, f"{method}, weights")]
    rows.append({"ranking": "mean loss of a training with weights of 1", "trainings": 1})
    names.append(PLAIN)
    for name in results.names(epoch, is_cleanlab):
        source, ranking = name.split("/")
        rows.append({"ranking": f"cleanlab, {source}: {ranking}", "trainings": 1 if source.startswith(IN_SAMPLE) else folds})
        names.append(name)
    for row, name in zip(rows, names, strict=True):
        row |= {"AUROC": text(results.auroc[epoch, name]), "AUPRC": text(results.auprc[epoch, name])}
    return rows


def verdicts(results: Results, epochs: list[int]) -> list[Row]:
    """Each method against the best of cleanlab's rankings, which is chosen anew for each measure and number of epochs."""
    rows = []
    for epoch in epochs:
        for kind, sources in LEARNED.items():
            rivals = results.names(epoch, lambda name, sources=sources: is_cleanlab(name) and name.split("/")[0] in sources)
            rival = [np.mean(m[epoch, results.best(m, epoch, rivals)]) for m in (results.auroc, results.auprc)]
            for method in OURS:
                own = [np.mean(m[epoch, method]) for m in (results.auroc, results.auprc)]
                rows.append(
                    {
                        "epochs": epoch,
                        "cleanlab learns from": kind,
                        "method": method,
                        "AUROC": f"{own[0]:.4f}",
                        "cleanlab's best AUROC": f"{rival[0]:.4f}",
                        "AUPRC": f"{own[1]:.4f}",
                        "cleanlab's best AUPRC": f"{rival[1]:.4f}",
                        "at least as good": "yes" if own[0] >= rival[0] and own[1] >= rival[1] else "NO",
                    }
                )
    return rows


def run_seed(seed: int, data: Any, config: Any, arguments: Any, results: Results, flags: dict[int, list[Row]]) -> str:
    """Add all rankings of one seed; cleanlab's version."""
    split = split_rows(data, config, seed)
    ours = {method: our_scores(method, split, seed, config, arguments.epochs) for method in OURS}
    plain = plain_scores(split, seed, config, arguments.epochs)
    by_source = {}
    for clean, (outside, inside) in zip((False, True), LEARNED.values(), strict=True):
        by_source[outside] = cross_validated(split, seed, config, arguments.epochs, arguments.folds, clean=clean)
        by_source[inside] = in_sample(split, seed, config, arguments.epochs, clean=clean)
    version = ""
    for epoch in arguments.epochs:
        sources = {name: found[epoch] for name, found in by_source.items()}
        version, rivals = cleanlab_scores(arguments.cleanlab, split.y.numpy(), sources)
        own = {name: score for scores in ours.values() for name, score in scores[epoch].items()}
        results.add(epoch, own | plain[epoch] | rivals, split.is_flipped)
        for source in (OUT_OF_SAMPLE, WITH_CLEAN):
            score = rivals[f"{source}/find_label_issues, prune_by_noise_rate"]
            k = int((score > 0.0).sum())
            precision = {"find_label_issues": score} | {method: own[method] for method in OURS}
            found = {name: quality(s, split.is_flipped, k)[0] for name, s in precision.items()}
            flags.setdefault(epoch, []).append({"probabilities": source, "rows": k, **found})
    return version


def flag_table(flags: dict[int, list[Row]]) -> list[Row]:
    rows = []
    for epoch, found in flags.items():
        for source in (OUT_OF_SAMPLE, WITH_CLEAN):
            own = [row for row in found if row["probabilities"] == source]
            means = {name: text([row[name] for row in own]) for name in ("find_label_issues", *OURS)}
            rows.append(
                {"epochs": epoch, "probabilities": source, "rows flagged": f"{np.mean([row['rows'] for row in own]):.0f}"} | means
            )
    return rows


def rare_table(data: Any, config: Any, seeds: int) -> list[Row]:
    """Rankings without and with labels=, where every second class is rare."""
    results = Results()
    for seed in range(seeds):
        split = with_rare_classes(split_rows(data, config, seed))
        for method in OURS:
            results.add(
                config.epochs,
                our_scores(method, split, seed, config, [config.epochs], labels=True)[config.epochs],
                split.is_flipped,
            )
    return [
        {
            "method": method,
            "AUROC": text(results.auroc[config.epochs, method]),
            "AUROC, labels=": text(results.auroc[config.epochs, f"{method}, labels"]),
            "AUPRC": text(results.auprc[config.epochs, method]),
            "AUPRC, labels=": text(results.auprc[config.epochs, f"{method}, labels"]),
        }
        for method in OURS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="letters:letterdata.csv", help='as in densratio.datasets.load_labelled, "letters:FILE"')
    parser.add_argument("--noise", default="symmetric:0.4")
    parser.add_argument("--epochs", type=int, nargs="+", default=[20, 40, 60], help="lengths of the training at which to rank")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5, help="of cleanlab's cross-validation")
    parser.add_argument("--n-val", type=int, default=1000)
    parser.add_argument("--cleanlab", type=Path, default=Path(sys.executable), help="the interpreter that has cleanlab 2.9.0")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    arguments.epochs = sorted(arguments.epochs)
    limit_threads(arguments.threads)
    facts = environment(seeds=range(arguments.seeds))
    data = load_labelled(arguments.data)
    config = NoiseExperiment(arguments.data.partition(":")[0], arguments.noise, epochs=arguments.epochs[-1], n_val=arguments.n_val)
    results, flags = Results(), {}
    for seed in range(arguments.seeds):
        facts["cleanlab"] = run_seed(seed, data, config, arguments, results, flags)
    middle = replace(config, epochs=arguments.epochs[len(arguments.epochs) // 2])
    rare = rare_table(data, middle, arguments.seeds)
    n_train = len(data.labels) - config.n_val - (0 if data.test else config.n_test)
    best = (
        "Means over the seeds; cleanlab's best is chosen anew for each measure and number of epochs. They are compared unrounded. "
    )
    note = (
        f"{config.data}, {config.noise} noise, {n_train} training and {config.n_val} clean validation rows, batch size "
        f"{config.batch_size}, Adam {config.learning_rate}; mean and standard deviation of {arguments.seeds} seeds. Ours uses the "
        "validation rows for its weights; cleanlab has no use for them but as further training rows, which is measured too. "
        f"cleanlab's probabilities: {arguments.folds}-fold cross-validation of the same network for the same epochs, or the plain "
        "network's own rows (in-sample). find_label_issues: the rows it flags first, and each part by self confidence."
    )
    alone = "trainings: of the network, that the ranking needs."
    flagged = "Share of flipped rows among as many as find_label_issues flags"
    sections = [
        ("Against the best of cleanlab's rankings", best + note, verdicts(results, arguments.epochs)),
        *((f"All rankings, {epoch} epochs", alone, table(results, epoch, arguments.folds)) for epoch in arguments.epochs),
        (flagged, "The precision of its own set, and of our first rows.", flag_table(flags)),
        ("labels=, where classes are rare", f"One in {RARE} rows kept of every second class; {middle.epochs} epochs.", rare),
    ]
    write("suspicious_rows", "Wrong labels found: suspicious_rows against cleanlab", facts, sections)


if __name__ == "__main__":
    main()
