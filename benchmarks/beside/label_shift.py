"""`LabelShiftRatio` on skada's label shift, beside skada's MMDTarS, QuaPy's EMQ, and training on the target itself.

The classifier is a support vector machine of scikit-learn's defaults after a StandardScaler; accuracy is on a fresh target.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from densratio import LabelShiftRatio, stack_domains

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from runner import Row, environment, limit_threads, write  # noqa: E402


def machine(**params: object) -> object:
    return make_pipeline(StandardScaler(), SVC(random_state=0, **params))


def elsewhere(python: Path, script: str, *arguments: object) -> dict[str, np.ndarray]:
    subprocess.run([str(python), "-W", "ignore", "-P", str(HERE / script), *map(str, arguments)], check=True)
    return dict(np.load(str(arguments[-1])))


def adjusted(model: object, ratio: LabelShiftRatio, X: np.ndarray) -> np.ndarray:
    """Classes (n,) of the largest corrected probability."""
    return ratio.classes_[np.argmax(ratio.adjust(model.predict_proba(X)), axis=1)]


def compared(seed: int, skada: Path, quapy: Path | None) -> tuple[Row, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        rows = elsewhere(skada, "in_skada.py", seed, Path(folder) / "rows.npz")
        emq = None if quapy is None else elsewhere(quapy, "in_quapy.py", Path(folder) / "rows.npz", Path(folder) / "emq.npz")
    X, y, test = rows["X"], rows["y"], (rows["X_test"], rows["y_test"])
    stacked, domain = stack_domains(X, rows["X_target"])
    ratio = LabelShiftRatio(machine(probability=True), n_bootstrap=50).fit(stacked, domain, labels=y)
    rlls = LabelShiftRatio(machine(probability=True), method="rlls", n_bootstrap=2).fit(stacked, domain, labels=y)
    true = np.bincount(rows["y_target"].astype(int)) / len(rows["y_target"]) / (np.bincount(y.astype(int)) / len(y))
    found: Row = {
        "seed": seed,
        "trained on the source": machine().fit(X, y).score(*test),
        "LabelShiftRatio": machine().fit(X, y, svc__sample_weight=ratio.weights_).score(*test),
        "its corrected probabilities": np.mean(adjusted(machine(probability=True).fit(X, y), ratio, test[0]) == test[1]),
        "LabelShiftRatio, rlls": machine().fit(X, y, svc__sample_weight=rlls.weights_).score(*test),
        "MMDTarS": float(rows["mmdtars"]),
        "trained on the target": machine().fit(rows["X_target"], rows["y_target"]).score(*test),
        "error of the class ratios": float(np.max(np.abs(ratio.class_ratios_ - true))),
    }
    versions = {"skada": str(rows["version"])}
    if emq is not None:
        theirs = emq["shares"] / (np.bincount(y.astype(int)) / len(y))
        found["that of QuaPy's EMQ"] = float(np.max(np.abs(theirs - true)))
        versions["quapy"] = str(emq["version"])
    return found, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skada", type=Path, required=True, help="an interpreter that has skada")
    parser.add_argument("--quapy", type=Path, help="an interpreter that has QuaPy")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--more", type=int, default=0, help="further seeds, from 200 on, of which the means are given")
    arguments = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    facts = environment(seeds=[*range(arguments.seeds), *range(200, 200 + arguments.more)])

    def run(seeds: range) -> list[Row]:
        rows = []
        for seed in seeds:
            row, versions = compared(seed, arguments.skada, arguments.quapy)
            facts.update(versions)
            rows.append(row)
            print(row, flush=True)
        numbers = {name: [row[name] for row in rows] for name in rows[0] if name != "seed"}
        rows.append({"seed": "mean"} | {name: float(np.mean(values)) for name, values in numbers.items()})
        rows.append({"seed": "deviation"} | {name: float(np.std(values)) for name, values in numbers.items()})
        return rows

    note = (
        "skada's generator `target_shift`, 8 x 100 rows a sample, noise 0.8, ratio 0.9. Accuracy on a fresh target; the error "
        "of the class ratios is the largest difference from those of the labels."
    )
    sections = [("Accuracy and class ratios", note, run(range(arguments.seeds)))]
    if arguments.more:
        shown = f"As above, seeds 200 to {199 + arguments.more}."
        sections.append(("More seeds", shown, run(range(200, 200 + arguments.more))[-2:]))
    write("beside_label_shift", "LabelShiftRatio beside skada and QuaPy", facts, sections)


if __name__ == "__main__":
    main()
