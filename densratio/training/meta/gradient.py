"""The meta-gradient: how the validation loss after the next training step changes with the weight of each training row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..._validation import check_count
from ..loop.model import last_linear, uncompiled, unwrapped
from ..loop.ranks import Rows, mean_of_rows
from ..loop.row_batch import RowBatch
from ..loop.told import warn
from ..loop.training_pass import LastLayer, TrainingPass, weighted_gradient
from ..loop.validation_bank import ValidationBank, check_refresh
from ..loop.validation_pass import first_rows, validation_pass
from ..losses import Loss
from .products import PRODUCTS, can_split_by_layers, layerwise, tolerance
from .virtual_step import learning_rates, rule_of, virtual_step

__all__ = ["MODES", "MetaGradient", "gradient_from", "step_of_size"]

Predict = Callable[[Any], Tensor]
ValidationLoss = Callable[[Predict], Tensor]
"""Validation loss: (prediction of any rows under given parameters) -> scalar."""

MODES = ("exact", "first_order", "last_layer")
_LEAST_WEIGHT = 1e-20
_NO_OPTIMIZER = (
    'mode="exact" follows the optimizer\'s next step: give optimizer=, the one that trains the classifier; or mode="first_order".'
)
_ONE_OF_BOTH = (
    'Make one with a group of parameters for each part, SGD([{"params": ..., "lr": ...}, ...]), or use mode="first_order" and '
    "leave out optimizer=."
)


class Slopes(NamedTuple):
    """d sum_i w_i l_i / d output of each layer, (n, ...), and the weights w (n,): row i has w_i times its own slope."""

    of_outputs: list[Tensor]
    weights: Tensor


class MetaGradient(nn.Module):
    """c_i = dL_val / dw_i = -(1/n) <D g_val, g_i> for the training loss (1/n) sum_i w_i l_i(theta) of a batch.

    g_i is the gradient of l_i at theta, g_val that of the mean validation loss, and D the diagonal derivative of the optimizer's
    step in its gradient.

    It can be made before the model: MWNet(n_train, gradient=MetaGradient(mode="exact", every=5)), and later
    `reweighter.optimizer = ...`.

    mode : "exact": g_val at the parameters after the optimizer's own next step (SGD, momentum, Nesterov, Adam, AdamW, with weight
        decay), and D of that step. "first_order": g_val at theta, D the learning rate. "last_layer": the same in the parameters of
        the last nn.Linear alone, as two matrix products of quantities that the usual passes give.
    optimizer : the classifier's optimizer, which "exact" needs. Without it the other modes take 1 as the learning rate. It may be
        assigned later, and is not in state_dict.
    product : how <D g_val, g_i> is computed: "layers" (from the backward pass of the training batch, one product per layer; all
        layers must be linear in their parameters and keep the rows apart), "forward" (forward-mode differentiation),
        "double_backward" or "finite_differences". "auto" takes in the first batch the first of the last three that the model
        supports, and from then on "layers" if that gave the same result. The choice is stored as `product_`.
    every : batches from one meta-gradient to the next.
    n_val, val_refresh : with "last_layer" and both given, the last known gradient factors of all validation rows are stored, and a
        step renews only val_refresh of them.
    fixed_step_length : count only the part of g_val that turns the training step, not the part along the step, which rows with
        large gradients lengthen. With D G, G the weighted gradient of the batch,
        c_i = -(1/n) <D (g_val - (<g_val, D G> / |D G|^2) D G), g_i>, so that sum_i w_i c_i = 0. A longer step lowers the next
        validation loss whichever rows lengthen it; this says nothing about the long run (short-horizon bias).

    Running statistics, random draws and gradients of the model stay as they are. With torch.distributed the result is that of the
    rows of all ranks together.
    Source: Ren et al. (2018), Learning to reweight; Shu et al. (2019), Meta-Weight-Net. fixed_step_length is this package's own;
    for the bias see Wu et al. (2018), Understanding short-horizon bias in stochastic meta-optimization.
    """

    def __init__(
        self,
        mode: str = "exact",
        optimizer: torch.optim.Optimizer | None = None,
        *,
        product: str = "auto",
        every: int = 1,
        n_val: int | None = None,
        val_refresh: int | None = None,
        fixed_step_length: bool = False,
    ):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {list(MODES)}; got {mode!r}.")
        if product not in ("auto", "layers", *PRODUCTS):
            raise ValueError(f"product must be one of {['auto', 'layers', *PRODUCTS]}; got {product!r}.")
        check_count("every", every, more=", the batches from one meta-gradient to the next")
        if val_refresh is not None and (mode != "last_layer" or n_val is None or val_refresh < 1):
            raise ValueError(
                'val_refresh keeps the gradient factors of all validation rows: it needs mode="last_layer", n_val= and a number '
                f">= 1; got mode={mode!r}, n_val={n_val!r}, val_refresh={val_refresh!r}."
            )
        if val_refresh is not None and n_val is not None:
            check_refresh(val_refresh, 1, n_val)
        self.mode = mode
        self.every = every
        self.fixed_step_length = fixed_step_length
        self.optimizer = optimizer
        self.product = product
        self.product_: str | None = None if product == "auto" else product
        self.val_refresh = val_refresh
        self.bank = ValidationBank(n_val) if n_val is not None and val_refresh is not None else None

    def check(self, model: nn.Module) -> None:
        """Raise ValueError if the optimizer is missing, unknown, or trains another model, or if all parameters are frozen.

        Warns if it trains a part of the model.
        """
        parameters = [p for p in unwrapped(model).parameters() if p.requires_grad]
        if not parameters:
            raise ValueError(
                "All parameters of the model are frozen, and the weights follow the gradient of the validation loss in those that "
                "are trained: type model.requires_grad_(True), or the same of the layers that train."
            )
        if isinstance(self.optimizer, list | tuple):
            raise ValueError(f"The meta-gradient follows one optimizer; got a {type(self.optimizer).__name__}. {_ONE_OF_BOTH}")
        if self.mode == "exact":
            if self.optimizer is None:
                raise ValueError(_NO_OPTIMIZER)
            rule_of(self.optimizer)
        if self.optimizer is None:
            return
        held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        n_held = sum(id(p) in held for p in parameters)
        if n_held == 0:
            raise ValueError("The optimizer holds none of the model's parameters: give the one that trains this model.")
        if n_held < len(parameters):
            warn(
                f"The optimizer holds {n_held} of the model's {len(parameters)} parameters that are not frozen, and the "
                f"meta-gradient takes the others to stay. If they are trained too: {_ONE_OF_BOTH}"
            )

    def rows(self, model: nn.Module, x: Any, y: Any, loss: Loss, *, keeps: Collection[str] = ()) -> TrainingPass:
        """The training pass of a batch, which `of` starts from. keeps: what else it stores, as in `TrainingPass.of`.

        A model under torch.compile runs uncompiled, because its compiled backward could be used only once.
        """
        own = ["last_layer"] if self.mode == "last_layer" else ["layers"] if self.product_ in (None, "layers") else []
        return TrainingPass.of(uncompiled(model), x, y, loss, keeps=[*own, *keeps])

    def of(self, batch: TrainingPass, weights: Tensor, val: Any, loss: Loss | None = None) -> Tensor:
        """c (n,) for the weights (n,) of the rows and a validation batch (x, y, index); detached.

        loss: that of the validation rows, if it differs from the loss of the batch; only for "exact" and "first_order".
        """
        if self.mode == "last_layer":
            return self._in_last_layer(batch, weights, val)
        own = batch.loss if loss is None else loss
        return self.of_loss(batch, weights, lambda predict: mean_of_rows(own(predict(val[0]), val[1])))

    def of_loss(self, batch: TrainingPass, weights: Tensor, val_loss: ValidationLoss) -> Tensor:
        """c (n,) for any loss of validation rows, "exact" or "first_order"; detached. Take means over rows by `Rows.mean`."""
        parameters = list(batch.named_parameters.values())
        needs_step = self.mode == "exact" or self.fixed_step_length
        gradients, of_layers = self._training_gradient(batch, weights, parameters) if needs_step else ([], None)
        at, slope = self._next_step(parameters, gradients)
        gradient = self._validation_gradient(batch, at, val_loss)
        if self.fixed_step_length:
            gradient = _across(gradient, [d * g for d, g in zip(slope, _or_zero(gradients, parameters), strict=True)])
        products = self._products(batch, [d * g for d, g in zip(slope, gradient, strict=True)], of_layers)
        return -products.detach() / _n_rows(batch)

    # ------------------------------------------------------------ the gradients

    def _next_step(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], list[Any]]:
        """The parameters at which the validation gradient is taken, and D."""
        if self.mode != "exact":
            return [p.detach() for p in parameters], learning_rates(self.optimizer, parameters)
        if self.optimizer is None:
            raise ValueError(_NO_OPTIMIZER)
        return virtual_step(self.optimizer, parameters, gradients)

    def _training_gradient(
        self, batch: TrainingPass, weights: Tensor, parameters: Sequence[Tensor]
    ) -> tuple[list[Tensor | None], Slopes | None]:
        """Gradients of the weighted loss, None for a parameter without a part in it; and its gradients in each layer's output.

        The latter are None if the layers are not kept.
        """
        layers = [layer.output for layer in batch.layers or []] if self._may_split(batch) else []
        weights = weights.detach().to(batch.losses.dtype)
        # Rows of weight 0 get a tiny one, far below the rounding of the gradient; their slopes are divided by it later.
        weights = weights.clamp(min=_LEAST_WEIGHT) if layers else weights
        # The gradient of the sum is divided later: in half precision that of the mean would underflow more often.
        loss = (weights * batch.losses).sum()
        found = torch.autograd.grad(loss, [*parameters, *layers], retain_graph=True, allow_unused=True)
        n = len(parameters)
        total = _n_rows(batch)
        gradients = [None if g is None else g / total for g in Rows(len(batch.losses)).sum_of(_dense(found[:n], parameters))]
        if not layers:
            return gradients, None
        return gradients, Slopes(_or_zero(found[n:], layers), weights)

    def _may_split(self, batch: TrainingPass) -> bool:
        return self.product_ in (None, "layers") and can_split_by_layers(batch)

    def _validation_gradient(self, batch: TrainingPass, at: Sequence[Tensor], val_loss: ValidationLoss) -> list[Tensor]:
        model, names = unwrapped(batch.model), list(batch.named_parameters)
        points = [p.detach().requires_grad_() for p in at]
        with validation_pass(batch.model), torch.enable_grad():
            value = val_loss(lambda x: functional_call(model, dict(zip(names, points, strict=True)), (x,)))
            gradients = torch.autograd.grad(value, points, allow_unused=True)
        return Rows(len(batch.losses)).gradient(_or_zero(gradients, points))

    def _products(self, batch: TrainingPass, tangent: Sequence[Tensor], slopes: Slopes | None) -> Tensor:
        if self.product_ in PRODUCTS:
            return PRODUCTS[self.product_](batch, tangent)
        split = self._split(batch, tangent, slopes) if self._may_split(batch) else None
        if self.product == "layers" and split is None:
            raise ValueError('product="layers" needs layers that keep the rows apart; "forward" works with any others.')
        if self.product_ == "layers" and split is not None:
            return split
        products, name = _first_that_runs(batch, tangent)
        if split is None or products.device.type == "meta":
            # Layers frozen since then may be trained again later.
            self.product_ = self.product_ or name
            return products
        if not bool(products.norm() > 0):
            # A learning rate of 0 shows nothing: the next batch decides.
            return products
        # Waits for the device once in a run, to see whether both agree up to rounding.
        self.product_ = "layers" if bool((split - products).norm() <= tolerance(batch) * products.norm()) else name
        return split if self.product_ == "layers" else products

    def _split(self, batch: TrainingPass, tangent: Sequence[Tensor], slopes: Slopes | None) -> Tensor:
        assert batch.layers is not None
        tangents = {id(p): t for p, t in zip(batch.named_parameters.values(), tangent, strict=True)}
        if slopes is None:
            layers = [layer.output for layer in batch.layers]
            found = torch.autograd.grad(batch.losses.sum(), layers, retain_graph=True, allow_unused=True)
            slopes = Slopes(_or_zero(found, layers), torch.ones_like(batch.losses))
        return layerwise(batch.layers, slopes.of_outputs, tangents) / slopes.weights

    # ------------------------------------------------------------ the last layer

    def _in_last_layer(self, batch: TrainingPass, weights: Tensor, val: Any) -> Tensor:
        train, gradient = batch.last_layer(), self._last_gradient(batch, val)
        linear = last_linear(unwrapped(batch.model))
        assert linear is not None
        is_trained = [p is not None and p.requires_grad for p in (linear.weight, linear.bias)]
        rates = learning_rates(self.optimizer, [linear.weight, linear.bias])
        weight, bias = (rate if trained else 0.0 for rate, trained in zip(rates, is_trained, strict=True))
        if self.fixed_step_length:
            total = Rows(len(batch.losses)).sum_of([weighted_gradient(train, weights.detach().to(train.slope.dtype))])[0]
            gradient = _across([gradient], [torch.cat([weight * total[:, :-1], bias * total[:, -1:]], dim=1)])[0]
        along = weight * (train.entry @ gradient[:, :-1].mT) + bias * gradient[:, -1]
        return -(train.slope * along).sum(dim=1) / _n_rows(batch)

    def _last_gradient(self, batch: TrainingPass, val: Any) -> Tensor:
        """Gradient (C, h + 1) of the mean validation loss in the last layer's weights and biases."""
        x, y, index = val
        if self.bank is not None and self.val_refresh is not None:
            x, y = (first_rows(part, self.val_refresh) for part in (x, y))
            index = None if index is None else first_rows(index, self.val_refresh)
            layer = self._banked(self.bank, batch.last_layer_of(x, y), index)
            is_known = self.bank.is_known().to(layer.slope.dtype)
            return weighted_gradient(layer, is_known) / is_known.sum()
        layer = batch.last_layer_of(x, y)
        of_val = Rows(len(layer.slope))
        total = of_val.sum_of([weighted_gradient(layer, torch.ones_like(layer.slope[:, 0]))])[0]
        return total / of_val.count(total)

    def _banked(self, bank: ValidationBank, fresh: LastLayer, index: Any) -> LastLayer:
        """Factors of all validation rows, after those of the fresh ones of all ranks were stored."""
        if index is None:
            raise ValueError("val_index is needed: with val_refresh the gradient factors of each validation row are kept.")
        values = torch.cat([fresh.slope, fresh.entry], dim=1)
        bank.refresh(values, RowBatch.skipping(index, values, bank.n_rows, "val_index"))
        assert bank.values is not None
        width = fresh.slope.shape[1]
        return LastLayer(bank.values[:, :width], bank.values[:, width:])


def gradient_from(
    gradient: MetaGradient | None,
    optimizer: torch.optim.Optimizer | None,
    mode: str | None,
    product: str | None,
    every: int | None,
    n_val: int | None = None,
    val_refresh: int | None = None,
    fixed_step_length: bool | None = None,
    *,
    usual_mode: str = "exact",
    usual_every: int = 1,
) -> MetaGradient:
    """The meta-gradient of a method: `gradient`, or one of the other parameters that are not None. Raises ValueError for both."""
    names = ("optimizer", "mode", "product", "every", "n_val", "val_refresh", "fixed_step_length")
    values = (optimizer, mode, product, every, n_val, val_refresh, fixed_step_length)
    given: dict[str, Any] = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    if gradient is None:
        return MetaGradient(**{"mode": usual_mode, "every": usual_every, **given})
    if not isinstance(gradient, MetaGradient):
        raise ValueError(f'gradient must be a MetaGradient, such as MetaGradient(mode="exact", every=5); got {gradient!r}.')
    if given:
        both = ", ".join(f"{name}=" for name in given)
        raise ValueError(f"gradient= and {both} were both given: put {both} into the MetaGradient(...).")
    return gradient


def step_of_size(slope: Tensor, size: float, rows: Rows) -> Tensor:
    """The slope (n, ...) scaled to a mean absolute value of `size` over all rows; 0 if it is 0 everywhere or not finite."""
    mean = rows.mean(slope.abs())
    return torch.where((mean > 0.0) & (mean < float("inf")), size * slope / mean, 0.0)


def _first_that_runs(batch: TrainingPass, tangent: Sequence[Tensor]) -> tuple[Tensor, str]:
    """Products (n,), and the name of the function that computed them."""
    reasons = []
    for name, product in PRODUCTS.items():
        try:
            return product(batch, tangent), name
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # torch's error for a layer that can't be differentiated this way
            reasons.append(f"{name}: {error}")
    raise RuntimeError("This model can't be differentiated in any of the known ways. " + " ".join(reasons))


def _across(gradient: Sequence[Tensor], step: Sequence[Tensor]) -> list[Tensor]:
    """The component of the gradient orthogonal to the step; all of it if the step is 0."""
    length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(u) for u in step]))
    unit = [torch.where(length > 0, u / length, 0.0) for u in step]
    along = torch.stack([(g * u).sum() for g, u in zip(gradient, unit, strict=True)]).sum()
    return [g - along * u for g, u in zip(gradient, unit, strict=True)]


def _n_rows(batch: TrainingPass) -> Tensor | int:
    """Number of losses on all ranks."""
    return Rows(len(batch.losses)).count(batch.losses)


def _dense(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor | None]:
    """Detached, in the parameters' precision, and not sparse."""
    pairs = zip(gradients, parameters, strict=True)
    return [None if g is None else (g.to_dense() if g.is_sparse else g).detach().to(p.dtype) for g, p in pairs]


def _or_zero(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    pairs = zip(_dense(gradients, parameters), parameters, strict=True)
    return [torch.zeros_like(p) if g is None else g for g, p in pairs]
