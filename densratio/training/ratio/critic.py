"""Critic: the Wasserstein-1 distance between rows of several columns, by a network that separates weighted source and target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..._validation import check_count, check_number
from ..loop.row_batch import RowBatch
from ..loop.state import before_loading
from .critic_network import CriticBatch, heads, own_output, perceptron, units_of
from .potential import Estimate, Potential, chance_factor

__all__ = ["Critic"]

_EPS = 1e-8  # of Adam
_UNFIT = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class Critic(Potential):
    """A network f of slope about 1, trained briefly in each batch to maximize mean_j f(v_j) - mean_i w_i f(x_i).

    loss = -(mean_j f(v_j) - mean_i w_i f(x_i)) + penalty * E(|grad f(z)| - 1)^2, z = u v + (1 - u) x on segments between
    target rows v and source rows x drawn in proportion to w, u uniform on [0, 1]. The distance is |mean f(v) - mean w f(x)|.
    With estimates class by class, each class has an output of its own, and one training serves all: it minimizes the sum of the
    classes' losses times their shares of the target. So one critic serves classes with different shifts.
    f sees the rows centered and divided by their mean absolute deviation in the batch; the distance is in the units of the rows.

    network : nn.Module (n, d) -> (n,) or (n, classes), differentiable, without dropout and batch normalization. It is trained in
        place. None: a perceptron with `widths` hidden units, made with the first batch.
    penalty, learning_rate, betas, n_updates : weight of the penalty, Adam's rate and averages, updates of f per batch.
    n_pretraining : initial batches without the penalty, in which the weights stay; those of a warm-up count.
    relaxation, step_size, seed : see `Potential`.

    All state is in state_dict. A batch that is unusable, or whose gradient overflows, leaves the network as it is.
    Sources: Gulrajani et al. (2017) for the penalty; Kingma & Ba (2015) for Adam; ADIW's Wasserstein variant.
    """

    network: nn.Module | None
    first_moment: Tensor | None
    second_moment: Tensor | None
    n_updated: Tensor
    fixed_units: tuple[Tensor, Tensor] | None = None
    """Fixed center and unit of the rows; None: those of each batch."""
    may_be_flat: bool = False
    """Whether a slope below 1 costs nothing."""

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        widths: Sequence[int] = (128, 128),
        penalty: float = 10.0,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        n_updates: int = 3,
        n_pretraining: int = 50,
        relaxation: float = 0.5,
        step_size: float | None = None,
        seed: int = 0,
    ):
        super().__init__(relaxation, seed, step_size)
        if len(widths) == 0 or min(widths) < 1:
            raise ValueError(f"widths must be at least one int >= 1, the units of each hidden layer; got {widths!r}.")
        self.widths = tuple(widths)
        self.penalty = check_number("penalty", penalty, "[0, inf)")
        self.learning_rate = check_number("learning_rate", learning_rate, "(0, inf)")
        self.betas = tuple(check_number("betas", beta, "[0, 1)", ", both of them") for beta in betas)
        self.n_updates = check_count("n_updates", n_updates)
        self.n_pretraining = check_count("n_pretraining", n_pretraining, 0)
        self._makes_network = network is None
        self._units: tuple[Tensor, Tensor] | None = None
        self.register_buffer("n_updated", torch.zeros((), dtype=torch.int64))
        self.register_buffer("first_moment", None)
        self.register_buffer("second_moment", None)
        self.network = None
        before_loading(self, _make_network)
        if network is not None:
            if unfit := [name for name, layer in network.named_modules() if isinstance(layer, _UNFIT)]:
                raise ValueError(
                    f"The critic's network may have neither dropout nor batch normalization, which couples rows; it has {unfit}."
                )
            if not any(True for _ in network.parameters()):
                raise ValueError("The critic's network has no parameters to train.")
            self._take_over(network)

    def learn_from(
        self, weights: Tensor, source: Tensor, target: Tensor, y: Tensor | None, y_val: Tensor | None, rows: RowBatch | None
    ) -> None:
        n_classes = 1
        if y is None or y_val is None:
            y, y_val = (torch.zeros(len(rows), dtype=torch.int64, device=rows.device) for rows in (source, target))
        else:
            known, val_known = y >= 0, y_val >= 0
            weights, source, y, target, y_val = weights[known], source[known], y[known], target[val_known], y_val[val_known]
            n_classes = 1 + int(torch.cat([y, y_val, y.new_zeros(1)]).max())
        network = self._network_for(source, n_classes)
        if len(source) == 0 or len(target) == 0:
            return
        self._units = self.fixed_units or units_of(source, target)
        batch = CriticBatch.of(weights, self._scaled(source), self._scaled(target), y, y_val, n_classes)
        generator = self._generator(source.device)
        parameters = list(network.requires_grad_(True).parameters())
        try:
            for _ in range(self.n_updates):
                with torch.enable_grad():
                    gradient = torch.autograd.grad(self._loss(network, batch, generator), parameters, materialize_grads=True)
                self._update(parameters, torch.cat([part.flatten() for part in gradient]), rows)
        finally:
            network.requires_grad_(False)

    def between(self, source: Tensor, target: Tensor, label: int = 0) -> Callable[[Tensor], Estimate]:
        if self.network is None or self._units is None:
            raise ValueError("A critic has no network before its first batch: call learn first.")
        n, m = len(source), len(target)
        outputs = _outputs(self.network, self._scaled(torch.cat([source, target])))
        f = self._units[1] * outputs[:, label if outputs.shape[1] > 1 else 0].to(source.dtype)
        of_source, of_target = f[:n], f[n:]
        spread = of_target.std(correction=0)

        def estimate(weights: Tensor) -> Estimate:
            gap = of_target.mean() - (weights * of_source).mean()
            # -f is as good a critic as f, and is the one that applies if the weights have gone too far.
            return Estimate(gap.abs(), -gap.sign() * of_source / n, chance_factor(weights, m) * spread)

        return estimate

    def extra_repr(self) -> str:
        return f"penalty={self.penalty}, learning_rate={self.learning_rate}, n_updates={self.n_updates}, seed={self.seed}"

    # ------------------------------------------------------------ learning

    def _loss(self, network: nn.Module, batch: CriticBatch, generator: torch.Generator | None) -> Tensor:
        gain = (batch.signed_mass * own_output(_outputs(network, batch.rows), batch.classes)).sum()
        if not self.is_ready:
            return -gain
        points = batch.points_between(generator).requires_grad_()
        value = own_output(_outputs(network, points), batch.target_classes).sum()
        (slope,) = torch.autograd.grad(value, points, create_graph=True)
        off = torch.linalg.vector_norm(slope, dim=1) - 1.0
        if self.may_be_flat:
            off = off.clamp(min=0.0)
        return self.penalty * (batch.target_mass * off**2).sum() - gain

    @torch.no_grad()
    def _update(self, parameters: list[nn.Parameter], gradient: Tensor, rows: RowBatch | None) -> None:
        """A step of Adam, unless the batch is unusable; torch's own could not be skipped without waiting for the device."""
        keep = torch.isfinite(gradient).all()
        keep = keep if rows is None else rows.accept(keep, torch.zeros_like(keep))
        self.n_updated += keep
        averages = []
        for moment, value, beta in zip(self._moments(), (gradient, gradient**2), self.betas, strict=True):
            moment.copy_(torch.where(keep, torch.lerp(value, moment, beta), moment))
            averages.append(moment / (1.0 - beta ** self.n_updated.clamp(min=1)))
        mean, square = averages
        move = torch.where(keep, self.learning_rate * mean / (square.sqrt() + _EPS), 0.0)
        for parameter, part in zip(parameters, move.split([p.numel() for p in parameters]), strict=True):
            parameter.sub_(part.view_as(parameter))

    def _scaled(self, rows: Tensor) -> Tensor:
        assert self.network is not None and self._units is not None
        center, unit = self._units
        return ((rows - center) / unit).to(next(self.network.parameters()).dtype)

    # ------------------------------------------------------------ the network

    def _network_for(self, rows: Tensor, n_classes: int) -> nn.Module:
        """The network: made for rows (n, d), or extended by one output for each new class."""
        if self.network is None:
            return self._take_over(perceptron((rows.shape[1], *self.widths), n_classes, self.seed).to(rows.device))
        if not self._makes_network:
            n_outputs = _outputs(self.network, rows[:1].to(next(self.network.parameters()).dtype)).shape[1] if n_classes > 1 else 1
            if 1 < n_outputs < n_classes:
                raise ValueError(f"The critic's network has {n_outputs} outputs for {n_classes} classes: give it as many, or one.")
            return self.network
        layers: list[Any] = list(self.network.children())
        first, last = layers[0], layers[-1]
        if first.in_features != rows.shape[1]:
            raise ValueError(f"The critic was made for rows of {first.in_features} columns; this batch has {rows.shape[1]}.")
        if last.out_features < n_classes:
            new = heads(range(last.out_features, n_classes), last.in_features, self.seed).to(last.weight)
            last.weight = nn.Parameter(torch.cat([last.weight, new]), requires_grad=False)
            last.out_features = n_classes
            # The last layer's weight is the last parameter, so the new entries come last in the moments.
            moments = (torch.cat([moment, moment.new_zeros(new.numel())]) for moment in self._moments())
            self.first_moment, self.second_moment = moments
        return self.network

    def _take_over(self, network: nn.Module) -> nn.Module:
        # The loop's optimizers, and wrappers of its modules, skip parameters that need no gradient.
        self.network = network.requires_grad_(False)
        flat = nn.utils.parameters_to_vector(network.parameters())
        self.first_moment, self.second_moment = torch.zeros_like(flat), torch.zeros_like(flat)
        return network

    def _moments(self) -> tuple[Tensor, Tensor]:
        assert self.first_moment is not None and self.second_moment is not None
        return self.first_moment, self.second_moment


def _make_network(critic: Critic, stored: dict[str, Tensor]) -> None:
    # The network is made with the first batch, or here with the sizes of the stored one.
    if not critic._makes_network:
        return
    first, last = (stored.get(f"network.{layer}.weight") for layer in (0, 2 * len(critic.widths)))
    critic.network = critic.first_moment = critic.second_moment = None
    if first is not None and last is not None:
        critic._take_over(perceptron((first.shape[1], *critic.widths), len(last), critic.seed).to(critic.n_updated.device))


def _outputs(network: nn.Module, rows: Tensor) -> Tensor:
    return network(rows).reshape(len(rows), -1)
