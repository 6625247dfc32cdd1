"""The two steps as one estimator: weigh the rows by a fitted ratio, then fit or score any scikit-learn model with the weights."""

from .importance_weighted import ImportanceWeighted
from .scoring import ImportanceWeightedScorer, importance_weighted_score, make_iw_scorer

__all__ = ["ImportanceWeighted", "ImportanceWeightedScorer", "importance_weighted_score", "make_iw_scorer"]
