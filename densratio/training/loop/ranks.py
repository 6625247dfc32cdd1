"""Rows of a batch among those of all ranks of a distributed run: gathered, summed and averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "Rows",
    "errors_of_all_ranks",
    "finished",
    "mean_of_rows",
    "n_ranks",
    "of_all_ranks",
    "on_all_ranks",
    "rank_here",
]

T = TypeVar("T", Tensor, Tensor | None)
V = TypeVar("V")
W = TypeVar("W")

_exchanges = 0  # how often values were exchanged with the other ranks


def n_ranks() -> int:
    """Number of processes in the run; 1 if torch.distributed was not started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank_here() -> int:
    """Number of this process, from 0 on."""
    return dist.get_rank() if n_ranks() > 1 else 0


def of_all_ranks(values: Tensor, sizes: list[int] | None = None) -> Tensor:
    """Rows (N, ...) of all ranks, from those of this one (n, ...); the same on all ranks, and `values` itself with one rank.

    sizes: how many rows each rank has; None asks. On the CPU the ranks may have different numbers of rows. On a GPU they must have
    equally many, as DistributedSampler gives them, because asking would make the host wait for the device.
    """
    if n_ranks() == 1:
        return values
    values = values.contiguous()
    if values.device.type != "cpu":
        return torch.cat(_gathered(values))
    sizes = sizes_of_ranks(len(values)) if sizes is None else sizes
    padded = values.new_zeros((max(sizes), *values.shape[1:]))
    padded[: len(values)] = values
    return torch.cat([part[:size] for part, size in zip(_gathered(padded), sizes, strict=True)])


def sizes_of_ranks(n_rows: int) -> list[int]:
    """How many rows each rank has, given the number here. The ranks exchange it on the CPU."""
    return [int(size) for size in _gathered(torch.tensor(n_rows))]


def on_all_ranks(check: Callable[[], V]) -> V:
    """The result of `check` on this rank. If it raises ValueError on one rank, every rank raises it, and none waits for another.

    If the ranks exchange only tensors on a GPU, each raises its own error: asking the others would make the host wait for the
    device.
    """
    if not _can_tell():
        return check()
    found, error = None, None
    try:
        found = check()
    except ValueError as own:
        error = own
    if errors := _errors("" if error is None else str(error)):
        raise error or ValueError("; ".join(f"rank {rank}: {words}" for rank, words in errors.items()))
    return found  # type: ignore[return-value]


@contextmanager
def errors_of_all_ranks() -> Iterator[None]:
    """Around the beginning of a step: an error of one rank before the first exchange, as of a label, is raised on every rank.

    The other ranks wait in `on_all_ranks`, with which every step begins its exchanges.
    """
    before = _exchanges
    try:
        yield
    except (ValueError, IndexError) as error:
        if _can_tell() and _exchanges == before:
            _errors(str(error) or type(error).__name__)
        raise


def finished(first: Callable[[], V], second: Callable[[], W]) -> tuple[V, W]:
    """The results of both calls. With several ranks the second is made although the first raised an error.

    For passes through a model that exchanges values itself, as DistributedDataParallel does: each rank must pass as often.
    """
    if n_ranks() == 1:
        return first(), second()
    try:
        found = first()
    except (ValueError, IndexError):
        second()
        raise
    return found, second()


def _can_tell() -> bool:
    """Whether there are other ranks that a host can tell of an error."""
    return n_ranks() > 1 and "cpu" in dist.get_backend_config()


def _errors(words: str) -> dict[int, str]:
    """The errors of all ranks, by rank, given the error of this one, "" for none."""
    try:
        lengths = _gathered(torch.tensor(len(words)))
    except RuntimeError as error:
        raise RuntimeError(
            "Another rank took no part in this step: it has fewer batches, or has stopped. Give every rank as many batches, as "
            "DistributedSampler does, or train within Join([reweighter, model], throw_on_early_termination=True)."
        ) from error
    if not any(bool(length) for length in lengths):
        return {}
    of_ranks: list[str] = [""] * n_ranks()
    dist.all_gather_object(of_ranks, words)
    return {rank: theirs for rank, theirs in enumerate(of_ranks) if theirs}


class Rows:
    """n rows of this process among the rows of all ranks. With one rank every method is the plain operation.

    Sums and means keep the graph, also through the values of the other ranks. Their gradients have the scale that averaging over
    the ranks expects, as DistributedDataParallel and `gradient` average. holds_all: whether the rows here are those of all ranks.
    """

    def __init__(self, n_rows: int, *, holds_all: bool = False):
        self.n_rows = n_rows
        self.holds_all = holds_all
        self._sizes: list[int] | None = None

    def all(self, values: Tensor) -> Tensor:
        """Values (N, ...) of all rows, from those of the rows here (n, ...); without a graph to those of other ranks."""
        return values if self.holds_all else of_all_ranks(values, self._sizes_of_ranks(values.device))

    def own(self, values: Tensor) -> Tensor:
        """Values (n, ...) of the rows here, from the values (N, ...) of all rows."""
        if n_ranks() == 1:
            return values
        first = sum(self._sizes_of_ranks(values.device)[: rank_here()])
        return values[first : first + self.n_rows]

    def _sizes_of_ranks(self, device: torch.device) -> list[int]:
        """How many rows each rank has: asked once, and as many as here on a GPU, see `of_all_ranks`."""
        if n_ranks() == 1 or device.type != "cpu":
            return [self.n_rows] * n_ranks()
        if self._sizes is None:
            self._sizes = sizes_of_ranks(self.n_rows)
        return self._sizes

    def count(self, like: Tensor) -> Tensor | int:
        """Number of all rows; a tensor on the device of `like` with several ranks."""
        if n_ranks() == 1:
            return self.n_rows
        return self.sum_of([torch.tensor(self.n_rows, device=like.device)])[0]

    def sum(self, values: Tensor) -> Tensor:
        """Sum () of the entries of `values` (n, ...) over all rows."""
        return self.total(values.sum())

    def total(self, part: Tensor) -> Tensor:
        """Sum over the ranks of a tensor that has the same shape on each, with its graph."""
        return part if n_ranks() == 1 else _SumOverRanks.apply(part)

    def mean(self, values: Tensor) -> Tensor:
        """Mean () of the entries of `values` (n, ...) over all rows."""
        if n_ranks() == 1:
            return values.mean()
        # Half precision cannot represent the number of rows.
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        total = _SumOverRanks.apply(torch.stack([exact.sum(), exact.new_tensor(float(values.numel()))]))
        return (total[0] / total[1]).to(values.dtype)

    def mean_row(self, values: Tensor) -> Tensor:
        """Mean (K,) of the rows of `values` (n, K) over all rows."""
        if n_ranks() == 1:
            return values.mean(dim=0)
        total = _SumOverRanks.apply(torch.cat([values.sum(dim=0), values.new_tensor([float(self.n_rows)])]))
        return total[:-1] / total[-1]

    def mean_one(self, weights: Tensor) -> Tensor:
        """weights (n,) divided by their mean over all rows, with the graph of both; NaN if all are 0."""
        return weights / self.mean(weights)

    def sum_of(self, tensors: Sequence[T]) -> list[T]:
        """Sums over the ranks of tensors that have the same shapes on each, or are None."""
        sums = list(tensors)
        if n_ranks() == 1:
            return sums
        # One exchange for all parameters of a kind: each costs a wait for the other ranks.
        for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors if tensor is not None):
            alike = {i: tensor for i, tensor in enumerate(tensors) if tensor is not None and (tensor.dtype, tensor.device) == kind}
            whole = torch.cat([tensor.reshape(-1) for tensor in alike.values()])
            _count()
            dist.all_reduce(whole)
            parts = whole.split([tensor.numel() for tensor in alike.values()])
            for (i, tensor), part in zip(alike.items(), parts, strict=True):
                sums[i] = part.reshape(tensor.shape)
        return sums

    def gradient(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of a function of `sum` and `mean` over all rows, from what backward found on this rank."""
        return [part / n_ranks() for part in self.sum_of(parts)]


def _count() -> None:
    global _exchanges
    _exchanges += 1


def mean_of_rows(values: Tensor) -> Tensor:
    """Mean () of values (n, ...) over the rows of all ranks, with its graph."""
    return Rows(len(values)).mean(values)


def _gathered(values: Tensor) -> list[Tensor]:
    _count()
    parts = [torch.empty_like(values) for _ in range(n_ranks())]
    dist.all_gather(parts, values)
    return parts


class _SumOverRanks(torch.autograd.Function):
    """The sum over the ranks; its gradient is the sum of theirs, and can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        _count()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _SumOverRanks.apply(grad)
