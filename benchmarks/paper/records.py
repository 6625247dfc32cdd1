"""What is kept of a run: one JSON file each, so that runs at the same time never write the same file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from .session import Session
from .twice import TwoTrainings

__all__ = ["BIN_EDGES", "Files", "Record", "as_file_name", "read_runs", "summary_of_weights"]

BIN_EDGES = np.linspace(0.0, 5.0, 51)
"""Of the histograms of the weights; the last bin holds everything above."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Record = dict[str, Any]


class Files:
    """A run's record in `folder`/runs, and its checkpoint in `checkpoints` for as long as it is not done."""

    def __init__(self, folder: Path, checkpoints: Path, session: Session | TwoTrainings, environment: dict[str, str]):
        self.session, self.environment = session, environment
        self.name = _name(session.identity)
        self.record, self.checkpoint = folder / "runs" / f"{self.name}.json", checkpoints / f"{self.name}.pt"

    def is_finished(self) -> bool:
        """Whether the record is of this run, done. Raises ValueError where it is of a run with other settings."""
        if not self.record.exists():
            return False
        record = json.loads(self.record.read_text())
        _check_identity(self.session.identity, record["identity"], self.record)
        return record["is_done"]

    def load(self) -> None:
        """Take the run up where it was stopped, if it was. Raises ValueError for the checkpoint of another run."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            _check_identity(self.session.identity, state["identity"], self.checkpoint)
            self.session.load_state_dict(state)

    def save(self, session: Any = None) -> None:
        """Write the record and the checkpoint; of a run that is done the record alone is kept.

        A run that is stopped meanwhile leaves both as they were.
        """
        method = self.session.reweighter
        weights = method.weights_ if method.base_weights is None else method.weights_ * method.base_weights
        weights = weights.detach().cpu().numpy().astype(np.float64)
        record = {
            "identity": self.session.identity,
            "is_done": self.session.is_done,
            "environment": self.environment,
            "history": self.session.history,
            "weights": summary_of_weights(weights, self.session.is_off),
            "confusion": self.session.confusion().tolist() if self.session.is_done else None,
            "class_sizes": self.session.class_sizes.tolist(),
            "peak_memory": self.session.peak_memory() if self.session.is_done else None,
        }
        if not self.session.is_done:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            part = self.checkpoint.with_suffix(".part")
            torch.save(self.session.state_dict(), part)
            os.replace(part, self.checkpoint)
        self.record.parent.mkdir(parents=True, exist_ok=True)
        part = self.record.with_suffix(".part")
        part.write_text(json.dumps(record) + "\n")
        os.replace(part, self.record)
        if self.session.is_done:
            self.checkpoint.unlink(missing_ok=True)


def summary_of_weights(weights: np.ndarray, is_off: np.ndarray) -> Record:
    """Of weights (n,): spread of those to keep and those that are off, and the weight as a score of rows to keep (AUROC)."""
    groups = {"on": weights[~is_off], "off": weights[is_off]}
    summary: Record = {name: _spread(values) for name, values in groups.items() if len(values)}
    is_mixed = len(summary) == 2
    summary["auroc"] = float(roc_auc_score(~is_off, weights)) if is_mixed else None
    summary["effective_share"] = float(weights.sum() ** 2 / (len(weights) * np.sum(weights**2))) if weights.any() else None
    return summary


def as_file_name(parts: Iterable[Any]) -> str:
    """Settings as the name of a file: joined by hyphens, with an underscore in place of what file names do not take."""
    return "-".join("".join(c if c.isalnum() or c in "._@" else "_" for c in str(part)) for part in parts)


def read_runs(folder: Path) -> list[Record]:
    """All records of runs in `folder`/runs, in the order of their names. Raises FileNotFoundError where there is none."""
    paths = sorted((folder / "runs").glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"There are no records of runs in {folder / 'runs'}.")
    return [json.loads(path.read_text()) for path in paths]


def _check_identity(wanted: dict[str, Any], found: dict[str, Any], path: Path) -> None:
    """Raise ValueError where the file at `path` is of a run that differs from the wanted one."""
    differ = [key for key, value in wanted.items() if found.get(key) != value]
    if differ:
        now, then = (", ".join(f"{key} {run.get(key)}" for key in differ) for run in (wanted, found))
        raise ValueError(f"{path} is of another run ({then}; asked for: {now}). Give --no-resume to start anew.")


def _spread(values: np.ndarray) -> Record:
    counts = np.histogram(np.minimum(values, BIN_EDGES[-1]), BIN_EDGES)[0]
    return {
        "rows": len(values),
        "mean": float(values.mean()),
        "quantiles": np.quantile(values, QUANTILES).tolist(),
        "counts": counts.tolist(),
    }


def _name(identity: Record) -> str:
    """The name of a run's files, which tells runs apart that belong beside each other in a table."""
    keys = ("data", "network", "shift", "n_val", "layer", "parameters", "method")
    parts = [str(identity[key]) for key in keys] + [f"batch{identity['batch_size']}", f"seed{identity['seed']}"]
    return as_file_name(parts)
