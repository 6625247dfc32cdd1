"""scikit-learn's logistic regression between the domains, as people write it by hand."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

PACKAGES = ["scikit-learn", "scipy", "numpy"]


def fit(method, params, source, target, seed):
    """Odds of the target times n_source / n_target on the source rows (n_source,), and the same for rows (n, d) -> (n,)."""
    domain = np.repeat([0, 1], [len(source), len(target)])
    model = LogisticRegression(random_state=seed, **params).fit(np.concatenate([source, target]), domain)

    def transform(new):
        return np.exp(model.decision_function(new)) * len(source) / len(target)

    return transform(source), transform
