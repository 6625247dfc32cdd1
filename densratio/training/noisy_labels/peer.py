"""A second network beside the model, which takes its own step for each batch within `weighted_loss`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..loop.batch_reweighter import BatchReweighter
from ..loop.draws import same_draws
from ..loop.mixed_labels import mixup_of
from ..loop.model import device_of_model, unwrapped
from ..loop.optimizer_step import step_with
from ..loop.ranks import n_ranks
from ..loop.row_batch import RowBatch
from ..losses import Loss, cross_entropy

__all__ = ["Both", "WithPeer"]


class Both(NamedTuple):
    """A batch as each network learns it, with rows `x` (m, ...) and soft labels `targets` (m, K), and the losses of its rows."""

    own: Any
    peer: Any
    losses: Tensor

    @staticmethod
    def cross_entropies(prediction: Tensor, both: Any) -> Tensor:
        """Losses (m,) against the model's targets."""
        return cross_entropy(prediction, both.own.targets.to(prediction.dtype))


class WithPeer(BatchReweighter):
    """A method of two networks: the model, and `peer`, a copy of it with another start.

    The peer passes in place of the model's own tensors, so that the surrounding module and the mode of each layer are the same for
    both, and in full precision, because no GradScaler reaches its step. Its start is never the model's own.
    Raises ValueError for a layer that cannot start anew, for a peer of another form, and for an optimizer of other parameters.
    """

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "peer_optimizer")

    def __init__(
        self,
        n_train: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        peer: nn.Module | None,
        loss: Loss,
        *,
        warmup_epochs: float = 0.0,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        name = type(self).__name__
        if not isinstance(model, nn.Module):
            raise ValueError(f"{name} copies the torch.nn.Module that you train; got a {type(model).__name__}.")
        self._followed = optimizer
        self.peer, self.peer_optimizer = _twin(model, optimizer, name)
        if peer is None:
            _start_anew(self.peer)
            if _are_equal(self.peer, unwrapped(model)):
                # The generator was seeded as it was before the model was made: the next draws are others.
                _start_anew(self.peer)
        else:
            _start_as(self.peer, peer, name)

    @contextmanager
    def as_peer(self) -> Iterator[None]:
        """Inside it gradients are recorded in full precision; afterwards random generators are as they were before."""
        device = device_of_model(self.peer)
        with same_draws(device), torch.autocast(device.type, enabled=False), torch.enable_grad():
            yield

    def peer_prediction(
        self, model: nn.Module, x: Any, *, leaves_trace: bool = True, tensors: Mapping[str, Tensor] | None = None
    ) -> Any:
        """The prediction for x under the peer, in the place of `model`.

        leaves_trace: whether its running statistics change. tensors: others in place of the peer's own, by its names.
        """
        inner = unwrapped(model)
        place = _place(self.peer, inner, type(self).__name__)
        taken = {**_tensors(self.peer), **(tensors or {})}
        if not leaves_trace:
            taken |= {name: taken[name].clone() for name, _ in self.peer.named_buffers()}
        return functional_call(inner, {f"{place}{name}": value for name, value in taken.items()}, (x,))

    def mixing(self, mixup: float | str | None, x: Any, published: float) -> float | None:
        """The Beta parameter of the mixing of rows x, or None: `mixup_of`. Raises ValueError for mixed rows with base weights."""
        found = mixup_of(mixup, x, published)
        if found is not None and self.base_weights is not None:
            raise ValueError(_mixed_rows(type(self).__name__))
        return found

    def refuse_base_weights_of(self, mixup: float | str | None) -> None:
        """Refuse base weights beforehand where all rows are mixed."""
        if mixup is not None and mixup != "auto":
            self.no_base_weights = _mixed_rows(type(self).__name__)

    def base_of(self, rows: RowBatch, losses: Tensor) -> Tensor:
        """Base weights (m,) of the losses (m,) of a batch, in which each row may come several times in a row of copies."""
        if self.base_weights is None:
            return torch.ones_like(losses.detach())
        return self.base_weights[rows.positions].to(losses.dtype).repeat(len(losses) // rows.n_rows)

    def remember_peer(self, rows: RowBatch) -> None:
        """Record the peer's statistics for `take_back`, before a pass changes them."""
        for buffer in self.peer.buffers():
            rows.remember(buffer)

    @torch.no_grad()
    def step_peer(self, loss: Tensor, rows: RowBatch) -> None:
        """A step of the peer down the gradient of the loss (), with the settings of the model's optimizer.

        A gradient that is not finite, or of an unusable batch, counts as 0.
        """
        groups, followed = self.peer_optimizer.param_groups, self._followed.param_groups
        if len(groups) != len(followed):
            raise ValueError(
                f"The optimizer has {len(followed)} groups of parameters and had {len(groups)} when {type(self).__name__} was "
                "made: make it anew with the model as it is now."
            )
        for own, theirs in zip(groups, followed, strict=True):
            own.update({name: value for name, value in theirs.items() if name != "params"})
        parameters = [p for p in self.peer.parameters() if p.requires_grad]
        found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradients = rows.gradient(found)
        is_sound = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).all()
        sound = [rows.accept(torch.where(is_sound, g, 0.0), torch.zeros_like(g)) for g in gradients]
        with torch.enable_grad():
            step_with(self.peer_optimizer, parameters, sound)
        # Also for parameters that the optimizer does not train.
        self.peer.zero_grad(set_to_none=True)
        if n_ranks() > 1:
            # Each rank has the running statistics of its own rows; their mean is the same on all ranks.
            statistics = [buffer for buffer in self.peer.buffers() if buffer.is_floating_point()]
            for buffer, mean in zip(statistics, rows.gradient(statistics), strict=True):
                buffer.copy_(mean)


def _mixed_rows(method: str) -> str:
    return (
        f"{method} mixes these rows, and the terms of its loss are no sums over the rows that are mixed, which base weights could "
        "multiply: type mixup=None, with which each row has its own loss, or leave set_base_weights out."
    )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(chain(network.named_parameters(), network.named_buffers()))


def _are_equal(network: nn.Module, other: nn.Module) -> bool:
    """Whether two networks of one form have the same parameters, some of which are drawn."""
    return all(torch.equal(one, two) for one, two in zip(network.parameters(), other.parameters(), strict=True))


def _place(peer: nn.Module, model: nn.Module, method: str) -> str:
    """Prefix of the peer's tensor names in the model that trains, which may hold the network in an adapter or a module.

    Raises ValueError if the model has no such network.
    """
    shapes = {name: value.shape for name, value in _tensors(peer).items()}
    for name, module in model.named_modules():
        if {own: value.shape for own, value in _tensors(module).items()} == shapes:
            return f"{name}." if name else ""
    raise ValueError(f"The model isn't the one that {method} was made with, of which the peer is a copy: make it anew.")


def _twin(model: nn.Module, optimizer: torch.optim.Optimizer, method: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of the model, and a copy of the optimizer for its parameters, without state.

    Raises ValueError if the optimizer has other parameters too, or needs a closure.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{method} takes the peer's step from one gradient, and {type(optimizer).__name__} evaluates the loss several times a "
            "step: give an optimizer such as SGD or Adam."
        )
    twin, its_optimizer = copy.deepcopy((unwrapped(model), optimizer))
    own = {id(p) for p in twin.parameters()}
    if any(id(p) not in own for group in its_optimizer.param_groups for p in group["params"]):
        raise ValueError(
            f"{method} gives the peer a copy of the optimizer: it must be one of parameters of the model alone. "
            "Give other parameters an optimizer of their own."
        )
    its_optimizer.state.clear()
    its_optimizer.zero_grad(set_to_none=True)
    return twin, its_optimizer


def _start_as(network: nn.Module, peer: Any, method: str) -> None:
    """Give the network the tensors of another. Raises ValueError for one of another form."""
    try:
        network.load_state_dict(unwrapped(peer).state_dict())
    except (AttributeError, RuntimeError) as error:
        raise ValueError(f"{method}: peer= must be a torch.nn.Module of the same form as the model; got {peer!r}.") from error


def _start_anew(network: nn.Module) -> None:
    """Draw the parameters of every layer anew. Raises ValueError for a layer that has no method for it."""
    for layer in network.modules():
        # nn.MultiheadAttention has it under a private name.
        reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
        if reset is not None:
            reset()
        elif any(True for _ in layer.parameters(recurse=False)):
            raise ValueError(
                f"The layer {type(layer).__name__} has no reset_parameters, by which the peer starts anew: give peer=, a network "
                "of the same form with a start of its own."
            )
