"""The solvers, by name. A solver depends on problems but not on estimators, and declares which problems it can solve."""

from typing import Any

from .._validation import from_registry
from .active_set import ActiveSet
from .base import Kind, Solution, Solver, State
from .closed_form import ClosedForm
from .expectation_maximization import ExpectationMaximization
from .likelihood_newton import LikelihoodNewton
from .plain_gradient import PlainGradient
from .primal_dual import PrimalDual
from .projected_gradient import ProjectedGradient
from .reference import Reference
from .subgradient import Subgradient

__all__ = [
    "PER_STEP",
    "SOLVERS",
    "TO_CONVERGENCE",
    "ActiveSet",
    "ClosedForm",
    "ExpectationMaximization",
    "Kind",
    "LikelihoodNewton",
    "PlainGradient",
    "PrimalDual",
    "ProjectedGradient",
    "Reference",
    "Solution",
    "Solver",
    "State",
    "Subgradient",
    "solver_class",
]

SOLVERS: dict[str, type[Solver]] = {
    "projected_gradient": ProjectedGradient,
    "plain_gradient": PlainGradient,
    "active_set": ActiveSet,
    "subgradient": Subgradient,
    "likelihood_newton": LikelihoodNewton,
    "expectation_maximization": ExpectationMaximization,
    "closed_form": ClosedForm,
    "primal_dual": PrimalDual,
    "reference": Reference,
}
TO_CONVERGENCE = ("closed_form", "active_set", "primal_dual", "likelihood_newton", "expectation_maximization", "projected_gradient")
"""Order in which solver="auto" looks for a solver that suits the problem, for a fit to convergence."""
PER_STEP = ("subgradient", "expectation_maximization", "projected_gradient")
"""The same order, for a few steps in a training loop."""
_OLD_NAMES = {"interior_point": "active_set", "expectation_maximisation": "expectation_maximization"}


def solver_class(name: Any) -> type[Solver]:
    """The entry `name` of SOLVERS, or the one that replaced it if `name` is an old name. Raises ValueError for other names."""
    name = _OLD_NAMES.get(name, name) if isinstance(name, str) else name
    return from_registry("solver", name, SOLVERS, also=("auto",))


def __getattr__(name: str) -> Any:
    old = {"InteriorPoint": "ActiveSet", "ExpectationMaximisation": "ExpectationMaximization"}
    if name in old:
        return globals()[old[name]]
    if name == "optimality_residual":
        raise ImportError("optimality_residual(...) is gone: problem.residual(coef, grad, scale) takes its place.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
