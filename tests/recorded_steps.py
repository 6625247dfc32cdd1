"""Steps on the CPU that are recorded, operation by operation, as a GPU records its kernels, for the tests of graphs."""

from __future__ import annotations

import contextlib

import pytest
import torch
from small_loops import as_on_a_device
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from densratio.training.loop import captured
from densratio.training.loop import reweighter as reweighter_module

LOOKS = ("_local_scalar_dense", "nonzero", "equal", "_unique2", "unique_dim", "masked_select")


class Tape(TorchDispatchMode):
    """Operations as they run, each with the tensors that it read and made; leaving it, what they wrote is taken back."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert function._schema.name.removeprefix("aten::") not in LOOKS, function
        written = []
        for argument, value in zip(function._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                written.append(value)
        written += [value for name, value in kwargs.items() if name == "out"]
        self.before += [(tensor, tensor.clone()) for tensor in written]
        made = function(*args, **kwargs)
        self.calls.append((function, args, kwargs, made))
        return made

    def take_back(self):
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    def replay(self):
        for function, args, kwargs, made in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_flatten(made)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def record(call, pool):
    tape = Tape()
    with tape:
        result = call()
    tape.take_back()
    return tape.replay, result, pool


@contextlib.contextmanager
def recording():
    """Steps on the CPU are recorded as on a GPU; one entry for each record."""
    made = []
    with as_on_a_device(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured, "_capture", lambda call, pool, device: made.append(0) or record(call, pool))
        patch.setattr(reweighter_module, "can_capture", lambda device: True)
        yield made
