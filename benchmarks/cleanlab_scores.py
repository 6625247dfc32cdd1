"""cleanlab's rankings of the rows by how likely their labels are wrong; run by an interpreter that has cleanlab.

python cleanlab_scores.py IN.npz OUT.npz. IN: labels (n,) and for each source of probabilities an array (n, K). OUT: for each
"source/ranking" the scores (n,), higher where the label is more likely wrong, and the version.
"""

from __future__ import annotations

import sys

import cleanlab
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores

RANKINGS = ["self_confidence", "normalized_margin", "confidence_weighted_entropy"]
FILTERS = ["prune_by_noise_rate", "confident_learning"]


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Every ranking of the rows; a filter's ranking has the rows that it flags first, each part by self confidence."""
    found = {}
    for method in RANKINGS:
        found[method] = -get_label_quality_scores(labels, probabilities, method=method)
        if method != RANKINGS[-1]:  # which cleanlab does not offer adjusted
            found[f"{method}, adjusted"] = -get_label_quality_scores(labels, probabilities, method=method, adjust_pred_probs=True)
    for name in FILTERS:
        is_flagged = find_label_issues(labels, probabilities, filter_by=name, n_jobs=1)
        # Self confidence is from 0 to 1, so that 2 puts every flagged row before all others.
        found[f"find_label_issues, {name}"] = found["self_confidence"] + 2.0 * is_flagged
    return found


def main() -> None:
    read, written = sys.argv[1:]
    given = np.load(read)
    answer = {
        f"{source}/{ranking}": score
        for source in given.files
        if source != "labels"
        for ranking, score in scores(given["labels"], given[source].astype(np.float64)).items()
    }
    np.savez(written, version=np.array(cleanlab.__version__), **answer)


if __name__ == "__main__":
    main()
