"""Co-teaching: two networks, each of which trains on the rows with small losses under the other."""

from __future__ import annotations

import copy
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..._validation import check_number
from ..loop.batch_reweighter import BatchReweighter
from ..loop.draws import same_draws
from ..loop.model import device_of_model, unwrapped
from ..loop.optimizer_step import step_with
from ..loop.ranks import n_ranks
from ..loop.row_batch import RowBatch
from ..loop.training_pass import TrainingPass
from ..losses import Loss, cross_entropy
from ..rules import top_share

__all__ = ["CoTeaching"]


class CoTeaching(BatchReweighter):
    """w_i = 1 / s for the share s of the batch with the least losses under a peer, which trains on the model's easiest rows.

    The reweighter holds the peer, which takes its own step within `weighted_loss`, so the loop needs no change. Each network trains
    on s = 1 - forget_rate min(1, epoch^exponent / n_epochs) of the rows, chosen by the other.

    Parameters
    ----------
    n_train : int
        Rows of the training set.
    model : nn.Module
        The network that trains, alone or inside the module that `weighted_loss` gets; there the peer runs in its place. The peer is
        a copy whose parameters are drawn anew by each layer's own `reset_parameters`, from torch's global generator; with several
        ranks it is that of rank 0.
    optimizer : torch.optim.Optimizer
        The optimizer of the model. The peer has a copy, which follows its learning rates and other settings, schedules included.
    peer : nn.Module or None
        A network of the same form with the peer's initial parameters, for models that cannot start anew layer by layer or are
        pretrained; for example the same model with a new last layer.
    forget_rate : float in [0, 1)
        Share of the rows that is left out in the end; as published the share of wrong labels.
    n_epochs : float > 0
        Epochs until then; 10 as published.
    exponent : float > 0
        c of the schedule; 1 as published.
    loss : per-row loss.

    The weights have mean 1 in each batch. `peer` and its optimizer are in state_dict. The peer passes in full precision, because no
    GradScaler reaches its step; with gradient accumulation it steps in every batch. A peer gradient that is not finite counts as 0.
    Two passes and two steps cost slightly more than two plain trainings.
    Raises ValueError for a layer that cannot start anew, and for an optimizer of other parameters.
    Source: Han et al. (2018), Co-teaching: robust training of deep neural networks with extremely noisy labels.
    """

    saved: ClassVar[tuple[str, ...]] = (*BatchReweighter.saved, "peer_optimizer")

    def __init__(
        self,
        n_train: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        peer: nn.Module | None = None,
        forget_rate: float = 0.2,
        n_epochs: float = 10.0,
        exponent: float = 1.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss)
        check_number("forget_rate", forget_rate, "[0, 1)")
        check_number("n_epochs", n_epochs, "(0, inf)")
        check_number("exponent", exponent, "(0, inf)")
        self.forget_rate, self.n_epochs, self.exponent = forget_rate, n_epochs, exponent
        if not isinstance(model, nn.Module):
            raise ValueError(f"CoTeaching copies the torch.nn.Module that you train; got a {type(model).__name__}.")
        self._followed = optimizer
        self.peer, self.peer_optimizer = _twin(model, optimizer)
        if peer is None:
            _start_anew(self.peer)
        else:
            self.peer.load_state_dict(unwrapped(peer).state_dict())

    @property
    def share(self) -> float:
        """Share of the next batch that each network trains on."""
        left_out = 0.0 if self.is_warming_up else min(1.0, self.epoch**self.exponent / self.n_epochs)
        return 1.0 - self.forget_rate * left_out

    def batch_weights(self, batch: TrainingPass, rows: RowBatch, val: Any) -> Tensor:
        return _easiest(batch.found["peer_losses"], self.share, rows)

    def observe(self, batch: TrainingPass, rows: RowBatch) -> None:
        """The peer's losses and step, also in a warm-up, so that it is as experienced as the model when it begins to choose."""
        for buffer in self.peer.buffers():
            rows.remember(buffer)
        batch.found["peer_losses"] = self._learn(batch, rows)

    def _learn(self, batch: TrainingPass, rows: RowBatch) -> Tensor:
        """Losses (n,) of the batch under the peer, detached, after the peer's step on the model's easiest rows."""
        model, device = unwrapped(batch.model), device_of_model(self.peer)
        # In place of the model's own tensors, so that the surrounding module and the mode of each layer are the same for both.
        tensors = {f"{_place(self.peer, model)}{name}": value for name, value in _tensors(self.peer).items()}
        with same_draws(device), torch.autocast(device.type, enabled=False), torch.enable_grad():
            losses = self.losses(functional_call(model, tensors, (batch.x,)), batch.y)
            weights = _easiest(batch.losses.detach(), self.share, rows).to(losses.dtype)
            if self.base_weights is not None:
                weights = weights * self.base_weights[rows.positions].to(losses.dtype)
            self._step(rows.mean(weights * losses), rows)
        return losses.detach()

    @torch.no_grad()
    def _step(self, loss: Tensor, rows: RowBatch) -> None:
        groups, followed = self.peer_optimizer.param_groups, self._followed.param_groups
        if len(groups) != len(followed):
            raise ValueError(
                f"The optimizer has {len(followed)} groups of parameters and had {len(groups)} when CoTeaching was made: make it "
                "anew with the model as it is now."
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


def _easiest(losses: Tensor, share: float, rows: RowBatch) -> Tensor:
    """Weights (n,) of the rows with the least losses (n,); losses that are NaN come last."""
    return top_share(-losses.nan_to_num(float("inf"), posinf=float("inf")), share, rows)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return dict(chain(network.named_parameters(), network.named_buffers()))


def _place(peer: nn.Module, model: nn.Module) -> str:
    """Prefix of the peer's tensor names in the model that trains, which may hold the network in an adapter or a module.

    Raises ValueError if the model has no such network.
    """
    shapes = {name: value.shape for name, value in _tensors(peer).items()}
    for name, module in model.named_modules():
        if {own: value.shape for own, value in _tensors(module).items()} == shapes:
            return f"{name}." if name else ""
    raise ValueError("The model isn't the one that CoTeaching was made with, of which the peer is a copy: make it anew.")


def _twin(model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A copy of the model, and a copy of the optimizer for its parameters, without state.

    Raises ValueError if the optimizer has other parameters too.
    """
    twin, its_optimizer = copy.deepcopy((unwrapped(model), optimizer))
    own = {id(p) for p in twin.parameters()}
    if any(id(p) not in own for group in its_optimizer.param_groups for p in group["params"]):
        raise ValueError("CoTeaching gives the peer a copy of the optimizer: it must be one of parameters of the model alone.")
    its_optimizer.state.clear()
    its_optimizer.zero_grad(set_to_none=True)
    return twin, its_optimizer


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
