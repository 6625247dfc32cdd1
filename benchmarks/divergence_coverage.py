"""How often intervals of `divergence` hold the true divergence of two Gaussians, and how often `ratio_test` says "different"."""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from runner import Row, environment, limit_threads, write
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from densratio import Discriminator, divergence
from densratio.diagnostics import ratio_test, two_sample_test

N, SHIFTS = 400, [(0.0, 1.0), (0.5, 1.0), (1.0, 0.75)]


def quadratic() -> Discriminator:
    logistic = LogisticRegression(C=10.0, max_iter=500)
    return Discriminator(make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), logistic), calibration=None)


def truth(delta: float, sd: float) -> dict[str, float]:
    p, q = norm(0.0, 1.0), norm(delta, sd)

    def integral(f) -> float:
        return quad(f, -10.0, 10.0, limit=200)[0]

    def js_part(one, other) -> float:
        return integral(lambda x: 0.5 * one.pdf(x) * (np.log(2.0) - np.logaddexp(0.0, other.logpdf(x) - one.logpdf(x))))

    return {
        "kl": integral(lambda x: q.pdf(x) * (q.logpdf(x) - p.logpdf(x))),
        "pearson": integral(lambda x: 0.5 * np.exp(2.0 * q.logpdf(x) - p.logpdf(x))) - 0.5,
        "js": js_part(p, q) + js_part(q, p),
    }


def samples(seed: int, delta: float, sd: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source, target = rng.standard_normal((N, 2)), rng.standard_normal((N, 2))
    target[:, 0] = delta + sd * target[:, 0]
    return source, target


def coverage(name: str, ratio: Discriminator, n_draws: int) -> list[Row]:
    table: list[Row] = []
    for delta, sd in SHIFTS:
        true = truth(delta, sd)
        found = [divergence(*samples(seed, delta, sd), ratio, random_state=seed) for seed in range(n_draws)]
        for kind, value in true.items():
            ends = np.array([one[kind].interval for one in found])
            # Numerical integrals of a divergence of 0 are off by rounding.
            held = np.mean((ends[:, 0] <= value + 1e-9) & (value - 1e-9 <= ends[:, 1]))
            estimates = np.array([one[kind].estimate for one in found])
            facts = {"ratio": name, "target": f"N({delta} e_1, {sd})", "kind": kind, "coverage %": 100.0 * float(held)}
            table.append(facts | {"true value": value, "mean": float(estimates.mean()), "deviation": float(estimates.std())})
    return table


def tests(n_draws: int) -> list[Row]:
    table: list[Row] = []
    for delta in (0.0, 0.15, 0.3):
        pairs = [samples(seed, delta, 1.0) for seed in range(n_draws)]
        row: Row = {"target": f"N({delta} e_1, 1)"}
        for name, test in (("ratio_test", ratio_test), ("two_sample_test", two_sample_test)):
            p = [test(*pair, n_permutations=199, random_state=seed).p_value for seed, pair in enumerate(pairs)]
            row[f"{name}, p <= 0.05, %"] = 100.0 * float(np.mean(np.array(p) <= 0.05))
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--default-draws", type=int, default=200)
    arguments = parser.parse_args()
    limit_threads(1)
    warnings.simplefilter("ignore")
    facts = environment(seeds=range(arguments.draws))
    shown = f"Source N(0, I), {N} rows of two columns in each sample"
    sections = [
        (
            "Intervals at 95 %, quadratic logistic regression",
            f"{shown}, {arguments.draws} draws.",
            coverage("quadratic logistic", quadratic(), arguments.draws),
        ),
        ("Share of draws that are called different", f"{shown}, {arguments.draws} draws.", tests(arguments.draws)),
    ]
    if arguments.default_draws:
        rows = coverage("Discriminator()", Discriminator(), arguments.default_draws)
        sections.append(("Intervals at 95 %, the default ratio", f"{shown}, {arguments.default_draws} draws.", rows))
    write("divergence_coverage", "Divergences and the test by the ratio's score", facts, sections)


if __name__ == "__main__":
    main()
