"""Covariate shift on a table: a straight line fitted to a curved world, with and without weights.

Run: python examples/table.py
"""

import numpy as np
from sklearn.linear_model import LinearRegression

from densratio import KLIEP, KMM, LSIF, stack_domains


def world(x, rng):
    """The truth, sinc(x), with noise: no straight line fits it everywhere."""
    return np.sinc(x[:, 0]) + 0.1 * rng.standard_normal(len(x))


def main():
    rng = np.random.default_rng(0)
    X_train, X_test = rng.normal(1.0, 0.5, (500, 1)), rng.normal(2.0, 0.25, (500, 1))
    y_train, y_test = world(X_train, rng), world(X_test, rng)
    X, domain = stack_domains(X_train, X_test)

    def test_error(weights):
        model = LinearRegression().fit(X_train, y_train, sample_weight=weights)
        return np.mean((model.predict(X_test) - y_test) ** 2)

    print(f"mean squared error on the test table, no weights: {test_error(None):.4f}")
    for ratio in (KMM(), KLIEP(random_state=0), LSIF(random_state=0)):
        weights = ratio.fit(X, domain).weights_
        effective = weights.sum() ** 2 / (weights**2).sum()
        print(f"{type(ratio).__name__:6s} {test_error(weights):.4f}   (effective sample size {effective:.0f} of {len(weights)})")


if __name__ == "__main__":
    main()
