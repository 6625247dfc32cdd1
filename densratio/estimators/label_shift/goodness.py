"""Test of label shift: target rows against source rows weighted by their class ratios."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...features import Gaussian
from .class_ratios import Predictions

__all__ = ["label_shift_p_value"]

_MOST_ROWS = 1000  # rows of each sample that the test compares


def label_shift_p_value(
    source: np.ndarray,
    target: np.ndarray,
    given: Predictions,
    estimate: Callable[[Predictions], np.ndarray],
    n_draws: int,
    seed: int,
) -> float:
    """p-value of the hypothesis that p(x | y) is the same in both samples.

    The statistic is the squared maximum mean discrepancy of the target rows (m, d) and the source rows (n, d) weighted by the
    class ratios. Its null distribution is that of samples drawn from the source, of which one is drawn with these weights, with
    the class ratios estimated anew from each draw.
    """
    rng = np.random.default_rng(seed)
    keep = [np.sort(rng.permutation(len(rows))[:_MOST_ROWS]) for rows in (source, target)]
    source, target = source[keep[0]], target[keep[1]]
    given = Predictions(
        given.source[keep[0]],
        given.classes[keep[0]],
        given.target[keep[1]],
        given.source_count[keep[0]],
        given.target_count[keep[1]],
    )
    kernel = Gaussian().fit(source, target, anchors="source")
    among, across, apart = kernel.kernel(source, source), kernel.kernel(source, target), kernel.kernel(target, target)
    drawn = given.target_count / given.target_count.sum()
    weight = _weight(given, estimate)
    found = weight @ among @ weight - 2.0 * weight @ across @ drawn + drawn @ apart @ drawn
    chance = given.source_count / given.source_count.sum()
    n, m = (max(1, round(count.sum())) for count in (given.source_count, given.target_count))
    larger = 0
    for _ in range(n_draws):
        first, second = rng.multinomial(n, chance) * 1.0, rng.multinomial(m, weight) * 1.0
        # The same rows serve as a target, with the predictions that they have as a source.
        null = Predictions(given.source, given.classes, given.source, first, second)
        difference = _weight(null, estimate) - second / m
        larger += difference @ among @ difference >= found
    return (1.0 + larger) / (1.0 + n_draws)


def _weight(given: Predictions, estimate: Callable[[Predictions], np.ndarray]) -> np.ndarray:
    """Shares (n,) of the source rows, weighted by the class ratios."""
    weight = given.source_count * estimate(given)[given.classes]
    return weight / weight.sum()
