"""Weights, differences and alarms for tables with categories, dates and gaps."""

from .differences import ColumnDifference, Differences, differences
from .encoder import TableEncoder
from .stream import ChunkTest, StreamMonitor
from .use import ColumnUse
from .weights import ImportanceWeights, importance_weights

__all__ = [
    "ChunkTest",
    "ColumnDifference",
    "ColumnUse",
    "Differences",
    "ImportanceWeights",
    "StreamMonitor",
    "TableEncoder",
    "differences",
    "importance_weights",
]
