"""Tables as people have them: categories, dates and gaps in, weights out, in one call."""

from .encoder import TableEncoder
from .use import ColumnUse
from .weights import ImportanceWeights, importance_weights

__all__ = ["ColumnUse", "ImportanceWeights", "TableEncoder", "importance_weights"]
