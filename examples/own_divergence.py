"""Your own divergence: define it, check it against the laws, and use it like the built-in ones.

    python examples/own_divergence.py

Needs the extras `testing` and `reference`. The divergence below matches the mean kernel features of the samples:
F(w) = |mean_i w_i phi(x_i) - mean_j phi(v_j)|^2 / 2 + ridge |w - 1|^2 / (2 n), over weights w >= 0 of mean 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from densratio import DensityRatio, stack_domains
from densratio.objectives import Objective, Problem, SquaredDistance
from densratio.projections import box_sum, nonnegative
from densratio.solvers import ProjectedGradient
from densratio.testing import check_objective, check_solver, gaussian_shift


@dataclass(frozen=True, eq=False)
class MeanMatchingProblem(Problem):
    """The divergence on two samples, as a function of the source rows' weights."""

    source: Any  # features (n, k)
    target: Any  # features (m, k)
    ridge: float

    gradient_is_affine = True  # the problem is quadratic

    def init(self):
        return array_namespace(self.source).ones_like(self.source[:, 0])

    def value_and_grad(self, coef):
        xp, n = array_namespace(coef, self.source), self.source.shape[0]
        off = xp.matrix_transpose(self.source) @ coef / n - xp.mean(self.target, axis=0)
        value = 0.5 * xp.sum(off * off) + 0.5 * self.ridge * xp.sum((coef - 1.0) ** 2) / n
        return value, (self.source @ off + self.ridge * (coef - 1.0)) / n

    def curvature(self):
        n = self.source.shape[0]  # |phi|^2 / n bounds the largest eigenvalue of phi phi' / n
        return (array_namespace(self.source).sum(self.source * self.source) / n + self.ridge) / n

    def project(self, coef):
        n = coef.shape[0]
        return box_sum(coef, float(n), n)

    def ratio(self, coef, features):
        return nonnegative(features @ coef) / coef.shape[0]


@dataclass(frozen=True)
class MeanMatching(Objective):
    """Weights of the source rows that carry the source's mean features onto the target's."""

    ridge: float = 0.01

    anchors = "source"  # coef belongs to the source rows

    def problem(self, source, target, source_weight=None, target_weight=None):
        return MeanMatchingProblem(source, target, self.ridge)


class WrongGradient(MeanMatchingProblem):
    """A slip of the pen: the ridge's part of the gradient is twice what it should be."""

    def value_and_grad(self, coef):
        value, grad = super().value_and_grad(coef)
        return value, grad + self.ridge * (coef - 1.0) / self.source.shape[0]


class InfeasibleProjection(MeanMatchingProblem):
    """Clip and then shift to mean 1, which makes the clipped entries negative again."""

    def project(self, coef):
        clipped = nonnegative(coef)
        return clipped - array_namespace(coef).mean(clipped) + 1.0


class Wrongly(MeanMatching):
    """The divergence with a wrong problem."""

    kind = MeanMatchingProblem

    def problem(self, source, target, source_weight=None, target_weight=None):
        return self.kind(source, target, self.ridge)


class WithWrongGradient(Wrongly):
    kind = WrongGradient


class WithInfeasibleProjection(Wrongly):
    kind = InfeasibleProjection


class StopsEarly(ProjectedGradient):
    """Claims convergence after three steps."""

    def has_converged(self, state):
        return state.n_iter >= 3


def show_that_it_is_caught(what, check) -> None:
    """Run a check that must fail, and print the violated law that it reports."""
    try:
        check()
    except AssertionError as error:
        print(f"{what} is caught:\n\n{error}\n")
    else:
        raise SystemExit(f"{what} went unnoticed")


def main() -> None:
    check_objective(MeanMatching(), max_examples=20)
    print("MeanMatching obeys the laws of a divergence.")

    # is_exact=False: only objectives with a registered cvxpy program can be compared with cvxpy's optimum.
    check_solver(ProjectedGradient(), MeanMatching(), is_exact=False, max_examples=10)
    print("projected_gradient obeys the laws of a solver on it.")

    show_that_it_is_caught("A wrong gradient", lambda: check_objective(WithWrongGradient(), max_examples=20))
    show_that_it_is_caught("An infeasible projection", lambda: check_objective(WithInfeasibleProjection(), max_examples=20))
    # The built-in divergences have a cvxpy program, so the solver's result is compared with the optimum.
    show_that_it_is_caught("A solver that stops early", lambda: check_solver(StopsEarly(), SquaredDistance(), max_examples=20))

    problem = gaussian_shift(400, 400, shift=0.7, seed=0)
    X, y = stack_domains(problem.source, problem.target)
    weights = DensityRatio(MeanMatching(), gamma=0.5, tol=1e-4).fit(X, y).weights_
    exact = problem.ratio(problem.source)
    print(f"In an estimator, its weights correlate {np.corrcoef(weights, exact)[0, 1]:.3f} with the exact ratio.")


if __name__ == "__main__":
    main()
