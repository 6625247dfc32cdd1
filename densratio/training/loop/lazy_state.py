"""State that a module makes with its first batch, made in time where a state_dict is loaded before that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

__all__ = ["before_loading"]

Prepare = Callable[[Any, dict[str, Tensor]], None]


def before_loading(module: nn.Module, prepare: Prepare) -> None:
    """Call prepare(module, stored) before the module loads a state_dict; stored: the entries of the module, by its own names.

    prepare: a function of a module, so that the object can be pickled. It makes the buffers and modules that `stored` holds and
    the object lacks, and forgets what was computed from the old values.
    """
    module.register_load_state_dict_pre_hook(_Preparing(prepare))


class _Preparing:
    def __init__(self, prepare: Prepare):
        self.prepare = prepare

    def __call__(self, module: nn.Module, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.prepare(module, {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)})
