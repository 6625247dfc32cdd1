"""The solvers, by name. A solver knows objectives and no estimator."""

from .active_set import ActiveSet
from .base import Solver, State, optimality_residual
from .closed_form import ClosedForm
from .expectation_maximisation import ExpectationMaximisation
from .interior_point import InteriorPoint
from .likelihood_newton import LikelihoodNewton
from .projected_gradient import ProjectedGradient
from .reference import Reference
from .subgradient import Subgradient

__all__ = [
    "SOLVERS",
    "ActiveSet",
    "ClosedForm",
    "ExpectationMaximisation",
    "InteriorPoint",
    "LikelihoodNewton",
    "ProjectedGradient",
    "Reference",
    "Solver",
    "State",
    "Subgradient",
    "optimality_residual",
]

SOLVERS: dict[str, type[Solver]] = {
    "projected_gradient": ProjectedGradient,
    "interior_point": InteriorPoint,
    "subgradient": Subgradient,
    "likelihood_newton": LikelihoodNewton,
    "expectation_maximisation": ExpectationMaximisation,
    "active_set": ActiveSet,
    "closed_form": ClosedForm,
    "reference": Reference,
}
