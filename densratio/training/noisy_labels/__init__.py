"""Methods for wrong labels that correct the loss or the labels, or let a second network choose the rows: no validation rows."""

from .elr import ELR

__all__ = ["ELR"]
