"""Labels of tokens: sequences of different lengths as one list, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._arrays import to_host
from .given import clean_rows

__all__ = ["are_sequences", "token_issues"]


def are_sequences(labels: Any) -> bool:
    """Whether labels are a list of sequences of labels."""
    return (
        isinstance(labels, list | tuple) and len(labels) > 0 and all(isinstance(one, list | tuple | np.ndarray) for one in labels)
    )


def token_issues(labels: Any, proba: Any, clean: Any, list_issues: Callable[..., Any]) -> Any:
    """The frame of `list_issues` for all tokens; row is the sequence, and token the place in it.

    clean: sequences whose labels are all right. Raises ValueError if labels and probabilities differ in number.
    """
    lengths = [len(one) for one in labels]
    found = [np.asarray(to_host(one), dtype=np.float64) for one in proba]
    odd = next((row for row, (n, own) in enumerate(zip(lengths, found, strict=False)) if own.ndim != 2 or len(own) != n), None)
    if odd is not None:
        raise ValueError(
            f"Sequence {odd} has {lengths[odd]} labels and probabilities of shape {found[odd].shape}: pass (tokens, K) for each "
            "sequence, without padding."
        )
    if len(found) != len(lengths):
        raise ValueError(f"There are {len(lengths)} sequences of labels and {len(found)} of probabilities: pass one of each.")
    row, token = np.repeat(np.arange(len(lengths)), lengths), np.concatenate([np.arange(n) for n in lengths])
    is_clean = clean_rows(clean, len(lengths))[row]
    frame = list_issues([label for one in labels for label in one], np.concatenate(found), clean=is_clean)
    at = frame["row"].to_numpy()
    frame["row"] = row[at]
    frame.insert(1, "token", token[at])
    return frame
