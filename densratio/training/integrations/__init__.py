"""Reweighting in training frameworks.

    from densratio.training.integrations.lightning import Reweighting                  # a Lightning callback
    from densratio.training.integrations.transformers import ReweightedTrainer         # a Hugging Face Trainer
    from densratio.training.integrations.skorch import ReweightedClassifier            # a skorch net

Each module needs its framework and is imported by its own name. This package itself has what they share, for a framework without
a module: the validation rows, and the state that a checkpoint must hold.
"""

from .state import LoopState
from .validation import NumberedCollate, NumberedRows, ValidationBatches

__all__ = ["LoopState", "NumberedCollate", "NumberedRows", "ValidationBatches"]
