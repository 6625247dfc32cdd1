"""The members of an automatic stack, by the size of the table."""

from __future__ import annotations

from ..base import RatioEstimator
from ..discriminator import Discriminator
from ..gaussian import GaussianRatio
from ..kmm import KMM
from ..lsif import LSIF
from ..nearest_neighbors import NearestNeighborsRatio
from ..spectral import SpectralRatio
from ..subspace import SubspaceLSIF

__all__ = ["members_for"]

_FEW = 10  # distinct rows of a domain that nested folds need
_LONG = 20_000  # rows of both domains beyond which only methods in one pass over the rows take part
_SMALL = 4_000  # rows up to which the slower searches take part
_MANY_COLUMNS = 6  # columns from which a search for a subspace is worth its time


def members_for(n_source: int, n_target: int, n_columns: int, *, is_sparse: bool, seed: int) -> dict[str, RatioEstimator]:
    """The members for so many distinct rows of each domain with `n_columns` columns, by name.

    With many rows those whose time grows fastest leave first; with few, those that need folds of their own.
    """
    n = n_source + n_target
    if min(n_source, n_target) < _FEW:
        return {"kmm": KMM(random_state=seed)} | ({} if is_sparse else {"gaussian": GaussianRatio()})
    members: dict[str, RatioEstimator] = {
        "lsif": LSIF(random_state=seed),
        "ulsif": LSIF(gamma="cv", regularization="cv", nonnegative=False, random_state=seed),
        "spectral": SpectralRatio(random_state=seed),
    }
    if n <= _LONG:
        members["kmm"] = KMM(random_state=seed)
        members["near_neighbors"] = NearestNeighborsRatio()
        # For a smooth ratio, more neighbors than the rule takes have less noise.
        members["far_neighbors"] = NearestNeighborsRatio(n_neighbors="many")
    if is_sparse:
        return members
    members["gaussian"] = GaussianRatio()
    if n <= _LONG:
        members["discriminator"] = Discriminator(random_state=seed)
    if n <= _SMALL and n_columns >= _MANY_COLUMNS:
        members["subspace"] = SubspaceLSIF(random_state=seed, max_iter=60)
    return members
