"""Two-step importance weighting: a fitted ratio gives the weights, with which any scikit-learn model is fitted or scored."""

from .importance_weighted import ImportanceWeighted
from .scoring import ImportanceWeightedScorer, importance_weighted_score, make_iw_scorer

__all__ = ["ImportanceWeighted", "ImportanceWeightedScorer", "importance_weighted_score", "make_iw_scorer"]
