"""Calls that recur become CUDA graphs: the host launches a graph in the time of a few of its kernels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .draws import is_captured

__all__ = ["CapturedCalls", "can_capture"]

_log = logging.getLogger("densratio")

_EAGER = 2  # calls of a kind before its capture, in which all that is made once is made
_MOST = 16  # graphs at a time
_KINDS, _CALLS = 64, 1024  # kinds and calls that are counted until all counts are halved
_LEAD = 8  # calls by which a kind must exceed twice those of a graph, to take its place


def can_capture(device: torch.device) -> bool:
    """Whether work on this device can become a graph: none is being captured there already."""
    return device.type == "cuda" and not is_captured(device)


class _Graph(NamedTuple):
    """A captured call: its replay, the tensors that it reads, and what it returned."""

    replay: Callable[[], Any]
    inputs: list[Tensor]
    result: Any


class CapturedCalls:
    """Calls of functions of tensors on a GPU, which are captured as CUDA graphs from the third call of a kind on, and replayed.

    A step of weights has some two hundred short kernels. A GPU takes a third of a millisecond for them; the host, which launches
    them one by one, ten times as long, and a twentieth of a millisecond for their graph. There are graphs of at most 16 kinds,
    those called most of late: batches of sequences have many lengths.
    Copies and pickles start without graphs.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all graphs: when tensors that they read or write are replaced by others."""
        self._graphs: dict[Hashable, _Graph | None] = {}
        self._calls: Counter[Hashable] = Counter()  # recent calls of each kind, replays too
        self._pool: Any = None

    def __call__(self, kind: Hashable, function: Callable[..., Any], tensors: Sequence[Tensor | None]) -> Any:
        """The result of function(*tensors), from a graph if there is one for the kind, the shapes and the dtypes.

        function may neither look at a value nor follow gradients, and changes nothing but tensors that outlive the call. `kind`
        holds these tensors, unless `clear` is called when others take their place, and whatever else its kernels depend on, such as
        autocast. Tensors in the result may be overwritten by the next call.
        """
        given = [tensor for tensor in tensors if tensor is not None]
        is_exact = torch.are_deterministic_algorithms_enabled()
        kind = kind, is_exact, tuple(None if tensor is None else (tensor.shape, tensor.dtype) for tensor in tensors)
        with torch.no_grad():
            self._count(kind)
            if kind not in self._graphs and self._is_due(kind):
                self._graphs[kind] = self._graph_of(function, tensors)
            graph = self._graphs.get(kind)
            if graph is None:
                return function(*tensors)
            torch._foreach_copy_(graph.inputs, given, non_blocking=True)
            graph.replay()
            return graph.result

    def _count(self, kind: Hashable) -> None:
        self._calls[kind] += 1
        if len(self._calls) > _KINDS or self._calls.total() >= _CALLS:
            # So early calls count less and less, and a kind without a second call is forgotten.
            self._calls = Counter({known: n // 2 for known, n in self._calls.items() if n > 1})

    def _is_due(self, kind: Hashable) -> bool:
        """Whether the kind is to be captured; the graph called least gives way to a kind called far more often of late."""
        if self._calls[kind] <= _EAGER or len(self._graphs) < _MOST:
            return self._calls[kind] > _EAGER
        # Of a kind that could not be captured too: it would hold its place for good.
        least = min(self._graphs, key=self._calls.__getitem__)
        if self._calls[kind] <= 2 * self._calls[least] + _LEAD:
            return False
        # A graph that still runs is freed when it ends.
        del self._graphs[least]
        return True

    def _graph_of(self, function: Callable[..., Any], tensors: Sequence[Tensor | None]) -> _Graph | None:
        """The graph of a call, which is not run; None if it can't be captured."""
        # Tensors made under torch.inference_mode() could not be written outside of it.
        with torch.inference_mode(False), torch.no_grad():
            own = [None if tensor is None else tensor.clone() for tensor in tensors]
            device = next(tensor.device for tensor in own if tensor is not None)
            try:
                replay, result, self._pool = _capture(lambda: function(*own), self._pool, device)
            except RuntimeError as error:
                # What cannot be captured still runs kernel by kernel.
                _log.info("A step is not captured as a CUDA graph: %s", error)
                return None
        return _Graph(replay, [tensor for tensor in own if tensor is not None], result)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return CapturedCalls, ()


def _capture(call: Callable[[], Any], pool: Any, device: torch.device) -> tuple[Callable[[], Any], Any, Any]:
    """The replay of a call, its result, and the memory pool, which graphs that run one after another share."""
    graph, stream = torch.cuda.CUDAGraph(), _stream(device)
    # The stream of the loop is set again in any case: torch leaves its own as the current one when it can't end a capture.
    # Threads that pin the memory of a loader use the GPU meanwhile.
    with (
        torch.cuda.device(device),
        torch.cuda.stream(torch.cuda.current_stream(device)),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        result = call()
    return graph.replay, result, graph.pool()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One stream of a device for all captures: matrix products take working memory for each stream."""
    return torch.cuda.Stream(device)
