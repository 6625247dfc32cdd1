"""Two-step importance weighting: any scikit-learn model is fitted or scored with the weights of a fitted ratio."""

from .conformal import WeightedConformal
from .importance_weighted import ImportanceWeighted
from .intervals import WeightIntervals, weight_intervals
from .learned_weights import LearnedWeights, learn_weights
from .performance import TargetPerformance, target_performance
from .scoring import ImportanceWeightedScorer, importance_weighted_score, make_iw_scorer
from .taming import TamedWeights, tame_weights

__all__ = [
    "ImportanceWeighted",
    "ImportanceWeightedScorer",
    "LearnedWeights",
    "TamedWeights",
    "TargetPerformance",
    "WeightIntervals",
    "WeightedConformal",
    "importance_weighted_score",
    "learn_weights",
    "make_iw_scorer",
    "tame_weights",
    "target_performance",
    "weight_intervals",
]
