"""The state of a module: buffers that a first batch would make are made for loading, and loading changes all or nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["all_or_nothing", "as_stored", "before_loading", "check_numbers", "snapshot"]

Prepare = Callable[[Any, dict[str, Tensor]], None]


def before_loading(module: nn.Module, prepare: Prepare) -> None:
    """Call prepare(module, stored) before the module loads a state_dict; stored: the module's entries, by its own names.

    prepare: a module-level function, so that the object can be pickled. It makes the buffers and modules that `stored` holds and
    the object lacks, and discards what was computed from the old values.
    """
    module.register_load_state_dict_pre_hook(partial(_prepare, prepare))


def _prepare(prepare: Prepare, module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
    stored = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if stored:
        prepare(module, stored)


def as_stored(module: nn.Module, name: str, stored: dict[str, Tensor], make: Callable[[], Any]) -> None:
    """Give `module` the buffer or submodule `name`, which a batch makes, where `stored` holds it; otherwise set it to None.

    So a state from before that batch can be loaded after it, too.
    """
    if not any(key.partition(".")[0] == name for key in stored):
        setattr(module, name, None)
    elif getattr(module, name) is None:
        setattr(module, name, make())


def check_numbers(state: dict[str, Any], own: dict[str, Any]) -> None:
    """Raise ValueError if an entry of a state_dict holds NaN or infinity, and the module's own entry does not.

    So a mask of minus infinity, in a backbone for example, is accepted.
    """
    for key, value in state.items():
        if not _is_finite(value) and _is_finite(own.get(key)):
            raise ValueError(f"The checkpoint has NaN or infinity in {key!r}: nothing was loaded. Load one from before that.")


def _is_finite(value: Any) -> bool:
    return not (isinstance(value, Tensor) and value.is_floating_point()) or bool(torch.isfinite(value).all())


@contextmanager
def all_or_nothing(module: nn.Module, message: str) -> Iterator[None]:
    """Inside it an error leaves the module as it was, and becomes a RuntimeError that starts with `message`."""
    restore = snapshot(module)
    try:
        yield
    except Exception as error:
        restore()
        raise RuntimeError(f"{message} {error}") from error


def snapshot(module: nn.Module) -> Callable[[], None]:
    """A function that restores the present parameters, buffers, submodules and extra state of the module and its submodules."""
    parts = [(part, [dict(held) for held in _held(part)], _extra_state(part)) for part in module.modules()]
    tensors = [tensor for _, held, _ in parts for tensor in (held[0] | held[1]).values() if tensor is not None]
    values = [tensor.detach().clone() for tensor in tensors]

    def restore() -> None:
        for part, held, extra in parts:
            for now, before in zip(_held(part), held, strict=True):
                now.clear()
                now.update(before)
            if extra is not None:
                part.set_extra_state(extra)
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)

    return restore


def _held(part: nn.Module) -> tuple[dict[str, Any], ...]:
    return part._parameters, part._buffers, part._modules


def _extra_state(part: nn.Module) -> Any:
    has_one = type(part).get_extra_state is not nn.Module.get_extra_state
    return copy.deepcopy(part.get_extra_state()) if has_one else None
