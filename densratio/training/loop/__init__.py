"""What every method of a training loop uses: the rows of a batch, passes, the validation bank, losses, the monitor, and data."""

from .batch_reweighter import BatchReweighter
from .reweighter import Reweighter

__all__ = ["BatchReweighter", "Reweighter"]
