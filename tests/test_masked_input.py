"""A mask, an imaginary part or a structure is never dropped without a word, whatever the array is given to."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from densratio import (
    KMM,
    ImportanceWeighted,
    LabelShiftRatio,
    NoisyLabelClassifier,
    RatioOutlierDetector,
    WeightedConformal,
    diagnose,
    divergence,
    find_label_issues,
    importance_weighted_score,
    label_issues_from_probabilities,
    stack_domains,
    tame_weights,
    target_performance,
)

RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.normal(size=(30, 2)), RNG.normal(0.5, 1.0, (20, 2))
X, DOMAIN = stack_domains(SOURCE, TARGET)
LABELS = (SOURCE[:, 0] > 0.0).astype(float)
MODEL, WEIGHTS = Ridge().fit(SOURCE, LABELS), np.ones(30)


def even(rows):
    return np.ones(len(rows))


def masked(values):
    found = np.ma.masked_array(values.copy(), mask=np.zeros(values.shape, dtype=bool))
    found[3] = np.ma.masked
    return found


OF_ROWS = {
    "stack_domains": lambda S: stack_domains(S, TARGET),
    "fit": lambda S: KMM().fit(S, np.arange(30) % 2),
    "divergence": lambda S: divergence(S, TARGET),
    "ImportanceWeighted": lambda S: ImportanceWeighted(Ridge(), even).fit(S, LABELS),
    "WeightedConformal": lambda S: WeightedConformal(Ridge(), even).fit(S, LABELS),
    "target_performance": lambda S: target_performance(MODEL, even, S, LABELS, TARGET, metric="mean_squared_error"),
    "RatioOutlierDetector": lambda S: RatioOutlierDetector().fit(S),
    "RatioOutlierDetector, new rows": lambda S: RatioOutlierDetector().fit(TARGET, new=S),
    "RatioOutlierDetector.predict": lambda S: RatioOutlierDetector().fit(TARGET).predict(S),
    "find_label_issues": lambda S: find_label_issues(S, LABELS, model=LogisticRegression()),
    "find_label_issues, clean rows": lambda S: find_label_issues(SOURCE, LABELS, clean=(S, LABELS), model=LogisticRegression()),
    "NoisyLabelClassifier": lambda S: NoisyLabelClassifier(max_iter=1).fit(S, LABELS),
}
OF_VECTORS = {
    "domains": lambda v: KMM().fit(SOURCE, v(np.arange(30) % 2)),
    "sample_weight": lambda v: KMM().fit(SOURCE, np.arange(30) % 2, sample_weight=v(WEIGHTS)),
    "ImportanceWeighted": lambda v: ImportanceWeighted(Ridge(), even).fit(SOURCE, v(LABELS)),
    "WeightedConformal": lambda v: WeightedConformal(Ridge(), even).fit(SOURCE, v(LABELS)),
    "LabelShiftRatio": lambda v: LabelShiftRatio().fit(X, DOMAIN, labels=v(LABELS)),
    "target_performance": lambda v: target_performance(MODEL, even, SOURCE, v(LABELS), TARGET, metric="mean_squared_error"),
    "importance_weighted_score": lambda v: importance_weighted_score(MODEL, SOURCE, v(LABELS), even, "neg_mean_squared_error"),
    "diagnose": lambda v: diagnose(v(WEIGHTS), X, DOMAIN),
    "tame_weights": lambda v: tame_weights(v(WEIGHTS), "pareto"),
    "find_label_issues": lambda v: find_label_issues(SOURCE, v(LABELS), model=LogisticRegression()),
    "label_issues_from_probabilities": lambda v: label_issues_from_probabilities(v(LABELS), np.full((30, 2), 0.5)),
    "NoisyLabelClassifier": lambda v: NoisyLabelClassifier(max_iter=1).fit(SOURCE, v(LABELS)),
}


@pytest.mark.parametrize("name", OF_ROWS)
@pytest.mark.parametrize(
    ("made", "words"),
    [
        (masked, r"contains missing \(masked\) values in column 0"),
        (lambda rows: rows + 1j, "Complex data not supported: .* Give the real and the imaginary part"),
        (lambda rows: np.rec.fromarrays(rows.T), r"is a structured array with the fields \['f0', 'f1'\]"),
    ],
    ids=["mask", "complex", "structure"],
)
def test_rows_that_would_lose_something_are_refused(name, made, words):
    with pytest.raises(ValueError, match=words):
        OF_ROWS[name](made(SOURCE))


@pytest.mark.parametrize("name", OF_VECTORS)
def test_masked_labels_and_weights_are_refused(name):
    with pytest.raises(ValueError, match=r"contains missing \(masked\) values in row 3"):
        OF_VECTORS[name](masked)
