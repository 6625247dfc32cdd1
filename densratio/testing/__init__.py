"""Laws that every divergence, solver, feature map and projection must obey, as property-based tests for your own.

`check_objective(MyDivergence())` draws problems with hypothesis, the awkward ones included (one row, constant columns,
duplicates, huge and tiny scales), and raises AssertionError with the broken law and the smallest problem that breaks it.
The tests of this library are the same calls over its registries. Needs the extra `testing`; laws about torch or
array_api_strict run if these are installed.

    law: the gradient is the slope of the value
    broken by draw_problem('shift', 1, 1, 1, seed=0)
"""

import importlib.util

if importlib.util.find_spec("hypothesis") is None:
    raise ImportError('densratio.testing needs hypothesis: pip install "densratio-toolkit[testing]"')

from .features import check_features
from .laws import array_libraries
from .objectives import check_objective
from .problem import KINDS, Problem, draw_problem, gaussian_shift, problems
from .projections import check_projection
from .solvers import check_solver

__all__ = [
    "KINDS",
    "Problem",
    "array_libraries",
    "check_features",
    "check_objective",
    "check_projection",
    "check_solver",
    "draw_problem",
    "gaussian_shift",
    "problems",
]
