"""Density ratios (importance weights) for tables and training loops.

`importance_weights(source, target)` weights the rows of any two tables. `from densratio import KMM, KLIEP, LSIF, stack_domains` and
the other methods; `ImportanceWeighted` trains with a ratio, `diagnose` says whether to. `NoisyLabelClassifier` learns from
partly wrong labels. `densratio.datasets` has shifts with known ratios, `densratio.training` the torch side.
"""

from functools import partial as _partial
from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from ._progress import show_progress
    from ._validation import stack_domains
    from .diagnostics import diagnose, divergence
    from .estimators import (
        KLIEP,
        KMM,
        LSIF,
        DensityRatio,
        Discriminator,
        GaussianRatio,
        KDERatio,
        LabelShiftRatio,
        NearestNeighborsRatio,
        RatioOutlierDetector,
        SpectralRatio,
        StackedRatio,
        SubspaceLSIF,
        Wasserstein,
    )
    from .labels import NoisyLabelClassifier, find_label_issues, label_issues_from_probabilities
    from .tables import StreamMonitor, differences, importance_weights
    from .two_step import (
        ImportanceWeighted,
        WeightedConformal,
        importance_weighted_score,
        learn_weights,
        make_iw_scorer,
        tame_weights,
        target_performance,
        weight_intervals,
    )

__all__ = [
    "KLIEP",
    "KMM",
    "LSIF",
    "DensityRatio",
    "Discriminator",
    "GaussianRatio",
    "ImportanceWeighted",
    "KDERatio",
    "LabelShiftRatio",
    "NearestNeighborsRatio",
    "NoisyLabelClassifier",
    "RatioOutlierDetector",
    "SpectralRatio",
    "StackedRatio",
    "StreamMonitor",
    "SubspaceLSIF",
    "Wasserstein",
    "WeightedConformal",
    "__version__",
    "diagnose",
    "differences",
    "divergence",
    "find_label_issues",
    "importance_weighted_score",
    "importance_weights",
    "label_issues_from_probabilities",
    "learn_weights",
    "make_iw_scorer",
    "show_progress",
    "stack_domains",
    "tame_weights",
    "target_performance",
    "weight_intervals",
]

_HOMES = {
    "_progress": "show_progress",
    "_validation": "stack_domains",
    "diagnostics": "diagnose divergence",
    "labels": "NoisyLabelClassifier find_label_issues label_issues_from_probabilities",
    "tables": "StreamMonitor differences importance_weights",
    "two_step": "ImportanceWeighted WeightedConformal importance_weighted_score learn_weights make_iw_scorer tame_weights "
    "target_performance weight_intervals",
}
"""The names of each room, without the estimators."""
_SHORT_FOR: dict[str, dict[str, Any]] = {"uLSIF": {"nonnegative": False}, "RuLSIF": {"nonnegative": False, "alpha": 0.5}}
"""Names that people know from other libraries, and the parameters of LSIF that they stand for."""
_ROOMS = (
    "diagnostics",
    "estimators",
    "features",
    "labels",
    "model_selection",
    "objectives",
    "projections",
    "solvers",
    "tables",
    "two_step",
)

if not TYPE_CHECKING:  # With this function, a type checker would accept any name as public.

    def __getattr__(name: str) -> Any:
        """Load a public name, or a room, at its first use: the command line shows its help without numpy."""
        if name in _ROOMS:
            return _import_module(f".{name}", __name__)
        if name in _SHORT_FOR:
            return _partial(_import_module(".estimators", __name__).LSIF, **_SHORT_FOR[name])
        if name == "DynamicReweighter":
            raise AttributeError("DynamicReweighter needs torch: from densratio.training import DynamicReweighter.")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = next((room for room, names in _HOMES.items() if name in names.split()), "estimators")
        return globals().setdefault(name, getattr(_import_module(f".{home}", __name__), name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS, *_SHORT_FOR})
