"""MetaReweighter: a method whose weights follow the meta-gradient; and the kind that has a network learn them."""

from __future__ import annotations

import copy
import logging
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..loop.batch_reweighter import BatchReweighter
from ..loop.late_errors import waits_for
from ..loop.losses import Loss, cross_entropy
from ..loop.ranks import sum_over_ranks
from ..loop.training_pass import BatchPass
from .gradient import MetaGradient

__all__ = ["MetaReweighter", "NetworkReweighter"]


_log = logging.getLogger("densratio")


class MetaReweighter(BatchReweighter):
    """What the methods of a meta-gradient share.

    Parameters
    ----------
    n_train : int
        Rows of the training set, over which the index ranges.
    optimizer : torch.optim.Optimizer or None
        The classifier's optimiser, whose next step mode="exact" follows. It may be assigned later; it is not in state_dict.
    mode : "exact", "first_order" or "last_layer", as in `MetaGradient`; product: as there.
    every : int >= 1
        Batches from one meta-gradient to the next.
    n_val, val_refresh : int or None
        With mode="last_layer": validation rows, and how many of them are renewed a step in a bank of all.
    fixed_step_length : bool
        Of `MWNet` and `CMWNet`: whether a weight counts for how it turns the training step alone, and not for how it lengthens it,
        as in `MetaGradient`.
    warmup_epochs : float
        First passes over the data with all weights 1.
    loss : per-row loss of training and validation rows.
    """

    def __init__(
        self,
        n_train: int,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        mode: str = "exact",
        product: str = "auto",
        every: int = 1,
        n_val: int | None = None,
        val_refresh: int | None = None,
        fixed_step_length: bool = False,
        warmup_epochs: float = 0.0,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be an int >= 1, the batches from one meta-gradient to the next; got {every!r}.")
        self.every = every
        self.meta = MetaGradient(
            mode, optimizer, product=product, n_val=n_val, val_refresh=val_refresh, fixed_step_length=fixed_step_length
        )

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The classifier's optimiser."""
        return self.meta.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer | None) -> None:
        self.meta.optimizer = optimizer

    @property
    def is_due(self) -> bool:
        """Whether this batch takes a meta-gradient."""
        return self.steps_seen % self.every == 0

    @property
    def needs_validation(self) -> bool:
        return self.is_due and not self.is_warming_up

    def begin(self, model: nn.Module) -> None:
        super().begin(model)
        if self.steps_seen == 0 and self.is_due:
            self.meta.check(model)

    def rows(self, model: nn.Module, x: Any, y: Any) -> BatchPass:
        return self.meta.rows(model, x, y, self.losses) if self.is_due else super().rows(model, x, y)


class NetworkReweighter(MetaReweighter):
    """A network gives the weights and learns by the meta-gradient: one Adam step on sum_i c_i w_i in each batch that is due.

    A method calls `learn_with` once it is made. Parameters of the network and the state of its optimiser are in state_dict.
    """

    network: nn.Module
    network_optimizer: torch.optim.Adam

    def learn_with(self, network: nn.Module, learning_rate: float, weight_decay: float) -> None:
        """Give the weights by `network`, on which Adam learns at this rate."""
        self.network = network
        self.network_optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, weight_decay=weight_decay)

    @abstractmethod
    def network_weights(self, rows: BatchPass, positions: Tensor) -> Tensor:
        """Weights (n,) as the network gives them now, with the graph to its parameters."""

    def batch_weights(self, rows: BatchPass, positions: Tensor, val: Any) -> Tensor:
        weights = self.network_weights(rows, positions)
        if not self.is_due:
            return weights.detach()
        self.learn(weights, self.meta.of(rows, weights, val))
        with torch.no_grad():
            return self.network_weights(rows, positions)

    def learn(self, weights: Tensor, slope: Tensor) -> None:
        """Move the network against the slope (n,) of the validation loss in the weights (n,).

        A slope that is not finite moves nothing; on a device that the host does not wait for it counts as 0.
        """
        parameters = list(self.network.parameters())
        if not waits_for(slope.device) and not bool(torch.isfinite(slope).all()):
            _log.warning(
                "%s: the meta-gradient of batch %d is not finite, and nothing is learned.", type(self).__name__, self.steps_seen
            )
            return
        slope = torch.where(torch.isfinite(slope).all(), slope, 0.0).to(weights.dtype)
        gradients = torch.autograd.grad((slope * weights).sum(), parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
        if waits_for(slope.device):
            # 0 times a weight that is no number is none either.
            filled = [gradient.nan_to_num(0.0, 0.0, 0.0) for gradient in filled]
        for parameter, gradient in zip(parameters, sum_over_ranks(filled), strict=True):
            parameter.grad = gradient
        self.network_optimizer.step()
        self.network_optimizer.zero_grad(set_to_none=True)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> NetworkReweighter:
        super()._apply(fn, recurse)
        # The moments follow the parameters to another device or precision.
        self.network_optimizer.load_state_dict(self.network_optimizer.state_dict())
        return self

    def get_extra_state(self) -> dict[str, Any]:
        """Counts and the state of the network's optimiser, for state_dict."""
        return {**super().get_extra_state(), "network_optimizer": self.network_optimizer.state_dict()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what a state_dict holds of these."""
        super().set_extra_state(state)
        # Adam would go on in the tensors of the state itself.
        self.network_optimizer.load_state_dict(copy.deepcopy(state["network_optimizer"]))
