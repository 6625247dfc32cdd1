"""NoisyLabelClassifier at its defaults against the same network trained plainly, and trees, on clean test rows.

    python benchmarks/noisy_label_classifier.py --data letters:/path/letterdata.csv,digits,cancer --noise pair:0.4 --seeds 0,1,2
    python benchmarks/noisy_label_classifier.py --data embeddings:/path/of/cifar10_jpeg.npz --noise human:worse --methods 0,1,5

embeddings needs cifar10n_labels.npz in the same folder, and what image_embeddings.py makes in .benchdata.
Runs that are in the record are not made again; the table is of all of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from runner import RESULTS, Row, markdown
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from densratio import NoisyLabelClassifier
from densratio.datasets import label_noise, load_cifar10n, load_labelled

N_TEST = {"digits": 500, "letters": 4000, "cancer": 319}
N_IMAGES, N_TEST_IMAGES = 10_000, 5_000
EMBEDDINGS = Path(".benchdata/cifar10_embeddings.npy")
METHODS = {
    "NoisyLabelClassifier()": lambda: NoisyLabelClassifier(),
    "same network, weights of 1": lambda: NoisyLabelClassifier("uniform"),
    "NoisyLabelClassifier(), 50 clean rows": lambda: NoisyLabelClassifier(),
    "random forest": lambda: RandomForestClassifier(random_state=0),
    "boosted trees": lambda: HistGradientBoostingClassifier(random_state=0),
    "logistic regression, penalty by cross-validation": lambda: make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(Cs=(1e-3, 1e-2, 0.1, 1.0), cv=3, scoring="neg_log_loss", max_iter=300, use_legacy_attributes=False),
    ),
}
N_CLEAN = 50


def main() -> None:
    """Make the runs that are missing, and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--noise", default="symmetric:0.4,pair:0.4,symmetric:0", help="kind:rate, several separated by commas")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--methods", default="0,1", help="numbers of METHODS")
    parser.add_argument("--record", type=Path, default=RESULTS / "noisy_label_classifier.jsonl")
    arguments = parser.parse_args()
    names = [list(METHODS)[int(number)] for number in arguments.methods.split(",")]
    for seed in map(int, arguments.seeds.split(",")):
        for noise in arguments.noise.split(","):
            for source in arguments.data.split(","):
                for name in names:
                    run(arguments.record, source, noise, seed, name)
    table(arguments.record)


def run(record: Path, source: str, noise: str, seed: int, name: str) -> None:
    """One fit, added to the record."""
    key = {"data": source.partition(":")[0], "noise": noise, "seed": seed, "method": name}
    if any(key.items() <= done.items() for done in done_runs(record)):
        return
    kind, _, rate = noise.partition(":")
    if kind == "human":
        X, y, given, X_test, y_test = embeddings(Path(source.partition(":")[2]).parent, rate, seed)
    else:
        X, y, X_test, y_test = rows_of(source, seed)
        given = label_noise(y, kind, float(rate), random_state=seed).labels
    clean = {}
    if "clean" in name:
        chosen = np.random.default_rng(seed).permutation(len(y))[:N_CLEAN]
        given[chosen], clean = y[chosen], {"clean": chosen}
    start = time.process_time()
    is_network = isinstance(METHODS[name](), NoisyLabelClassifier)
    flat = X if is_network else X.reshape(len(X), -1)
    model = METHODS[name]().fit(flat, given, **clean)
    found = model.predict(X_test if is_network else X_test.reshape(len(X_test), -1))
    accuracy = 100.0 * float(np.mean(found == y_test))
    line = {**key, "accuracy": accuracy, "seconds": time.process_time() - start}
    with open(record, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


def embeddings(folder: Path, kind: str, seed: int) -> tuple[Any, Any, Any, Any, Any]:
    """Embeddings of CIFAR-10's images: training rows, right labels, those that people gave, test rows, their labels."""
    X, y = np.load(EMBEDDINGS), np.asarray(load_labelled(f"cifar10:{folder / 'cifar10_jpeg.npz'}").labels)
    given = y if kind == "clean" else load_cifar10n(folder / "cifar10n_labels.npz")[kind]
    chosen = np.random.default_rng(seed).permutation(len(y))
    own, test = chosen[:N_IMAGES], chosen[N_IMAGES : N_IMAGES + N_TEST_IMAGES]
    return X[own], y[own], given[own], X[test], y[test]


def rows_of(source: str, seed: int) -> tuple[Any, Any, Any, Any]:
    """Training and test rows with right labels; images: a part of them."""
    data = load_breast_cancer() if source == "cancer" else load_labelled(source)
    X, y = (data.data, data.target) if source == "cancer" else (np.asarray(data.inputs), np.asarray(data.labels))
    if source.partition(":")[0] not in N_TEST:
        chosen = np.random.default_rng(seed).permutation(len(y))[:N_IMAGES]
        return X[chosen], y[chosen], *(np.asarray(part)[:N_TEST_IMAGES] for part in data.test)
    X, X_test, y, y_test = train_test_split(X, y, test_size=N_TEST[source.partition(":")[0]], random_state=seed)
    return X, y, X_test, y_test


def words_of(noise: str) -> str:
    """ "40% pair" of "pair:0.4"; "none" of a rate of 0; "people, worse" of "human:worse"."""
    kind, _, rate = noise.partition(":")
    if kind == "human":
        return f"people, {rate}"
    return f"{float(rate):.0%} {kind}" if float(rate) else "none"


def done_runs(record: Path) -> list[Row]:
    """What is in the record."""
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def table(record: Path) -> None:
    """results/noisy_label_classifier.md of all runs."""
    runs, rows = done_runs(record), []
    for data, noise, method in dict.fromkeys((run["data"], run["noise"], run["method"]) for run in runs):
        own = [run for run in runs if (run["data"], run["noise"], run["method"]) == (data, noise, method)]
        accuracy = [run["accuracy"] for run in own]
        seconds = statistics.median(run["seconds"] for run in own)
        spread = f" ± {statistics.stdev(accuracy):.2f}" if len(own) > 1 else ""
        rows.append({
            "data": data, "wrong labels": words_of(noise), "method": method,
            "accuracy %": f"{statistics.mean(accuracy):.2f}{spread}",
            "seeds": ", ".join(str(run["seed"]) for run in own), "CPU s": round(seconds),
        })  # fmt: skip
    rows.sort(key=lambda row: (row["data"], row["wrong labels"], row["method"]))
    note = (
        "Accuracy on clean test rows; mean and standard deviation over the seeds. "
        f"Fashion-MNIST and CIFAR-10: {N_IMAGES:,} training and {N_TEST_IMAGES:,} test images; cancer: 250 training rows. "
        "Embeddings are CIFAR-10's by EfficientNet-Lite0, with people's labels. The plain network has as many epochs or more."
    )
    (RESULTS / "noisy_label_classifier.md").write_text(f"# NoisyLabelClassifier at its defaults\n\n{note}\n\n{markdown(rows)}\n")


if __name__ == "__main__":
    main()
