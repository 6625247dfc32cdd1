"""The recipes of the ADIW paper: how its methods and classifiers were trained in each setting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...estimators import KLIEP, KMM, LSIF, DensityRatio, Wasserstein
from ...solvers import PlainGradient
from ..losses import Loss, cross_entropy
from .critic import Critic
from .dynamic import DynamicReweighter

__all__ = ["RECIPES", "Published", "Training", "published"]

_MAX_WEIGHT = 50.0  # B of DIW's published program


class Training(NamedTuple):
    """How the classifier of a setting was trained; the rate falls to a tenth every `decay_every` epochs. Batches have 256 rows."""

    network: str
    optimizer: str
    learning_rate: float
    weight_decay: float
    epochs: int
    n_val: int
    decay_every: int = 100
    batch_size: int = 256


class Steps(NamedTuple):
    """The step size and kernel width gamma of each method in a setting, and LSIF's penalty."""

    rates: dict[str, float]
    widths: dict[str, float]
    penalty: float = 1e-5


_NARROW = {"adiw-km": 0.01, "adiw-ls": 0.01, "diw": 0.01}
RECIPES: dict[tuple[str, str, str], tuple[Training, Steps]] = {
    ("fashion_mnist", "class_prior", "losses"): (
        Training("lenet5", "sgd", 0.1, 0.0, 400, 100),
        Steps(
            {"adiw-km": 1e-4, "adiw-kl": 5e-3, "adiw-ls": 0.01, "adiw-wa": 5e-4},
            {"adiw-km": 0.1, "adiw-kl": 5.0, "adiw-ls": 1.0, "diw": 0.1},
        ),
    ),
    ("fashion_mnist", "label_noise", "losses"): (
        Training("lenet5", "sgd", 0.1, 1e-7, 400, 1000),
        Steps({"adiw-km": 0.1, "adiw-kl": 0.5, "adiw-ls": 0.01, "adiw-wa": 0.01}, {**_NARROW, "adiw-kl": 0.5}),
    ),
    ("cifar10", "label_noise", "losses"): (
        Training("resnet18", "adam", 5e-4, 1e-4, 400, 1000),
        Steps({"adiw-km": 0.1, "adiw-kl": 0.1, "adiw-ls": 0.1, "adiw-wa": 0.01}, {**_NARROW, "adiw-kl": 0.5}),
    ),
    ("cifar10", "label_noise", "hidden"): (
        Training("resnet18", "adam", 5e-4, 1e-4, 400, 1000),
        Steps(
            {"adiw-km": 0.1, "adiw-kl": 0.1, "adiw-ls": 0.1, "adiw-wa": 0.01},
            {"adiw-km": 0.5, "adiw-kl": 0.3, "adiw-ls": 0.3, "diw": 0.5},
            penalty=1e-3,
        ),
    ),
    ("cifar100", "label_noise", "losses"): (
        Training("resnet18", "adam", 5e-4, 5e-4, 400, 1000),
        Steps({"adiw-km": 0.5, "adiw-kl": 0.1, "adiw-ls": 0.1, "adiw-wa": 0.005}, {**_NARROW, "adiw-kl": 0.1}),
    ),
    ("imagenet", "label_noise", "losses"): (
        Training("resnet18", "adam", 2e-4, 1e-5, 300, 20_000),
        Steps({"adiw-km": 0.5, "adiw-kl": 0.5, "adiw-ls": 0.5, "adiw-wa": 0.003}, {**_NARROW, "adiw-kl": 0.5}),
    ),
}
"""Training and steps by (data, kind of shift, what is compared): Appendix E of the ADIW paper. DIW's width on a hidden layer,
which it does not give, is that of ADIW-KM."""


class Published(NamedTuple):
    """A method with its published numbers in a setting, see `published`."""

    method: str
    training: Training
    ratio: DensityRatio
    step_size: float | None
    """None for DIW, which solves each batch to convergence"""
    compares: str

    def reweighter(
        self,
        n_train: int,
        n_val: int,
        *,
        layer: str | None = None,
        y_train: Any = None,
        y_val: Any = None,
        val_refresh: int | None = None,
        val_every: int = 1,
        warmup_epochs: float = 1.0,
        loss: Loss = cross_entropy,
    ) -> DynamicReweighter:
        """The method for a training and a validation set; parameters as in `DynamicReweighter`. "hidden" needs `layer`."""
        if self.compares == "hidden" and layer is None:
            raise ValueError('compares="hidden" needs layer=, the name of the module whose output is compared.')
        critic = Critic(step_size=self.step_size) if self.method == "adiw-wa" else None
        return DynamicReweighter(
            self.ratio, n_train, n_val, layer=layer, y_train=y_train, y_val=y_val, val_refresh=val_refresh, val_every=val_every,
            to_convergence=self.step_size is None, normalize=False, potential=critic, warmup_epochs=warmup_epochs,
            loss=loss,
        )  # fmt: skip

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The classifier's optimizer."""
        kinds: dict[str, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
        how = self.training
        return kinds[how.optimizer](parameters, lr=how.learning_rate, weight_decay=how.weight_decay)

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of its rate; call `step` after each epoch."""
        return torch.optim.lr_scheduler.StepLR(optimizer, self.training.decay_every, 0.1)


def published(method: str, *, data: str, shift: str = "label_noise", compares: str = "losses") -> Published:
    """A method of the ADIW paper as it was run there: step sizes, kernel widths, penalty, and the training of the classifier.

    recipe = published("adiw-kl", data="fashion_mnist"); reweighter = recipe.reweighter(n_train, n_val);
    optimizer = recipe.optimizer(model.parameters()); schedule = recipe.schedule(optimizer).

    method : "adiw-km", "adiw-kl", "adiw-ls", "adiw-wa" or "diw".
    data, shift, compares : "fashion_mnist", "cifar10", "cifar100" or "imagenet"; "label_noise" or, for Fashion-MNIST,
        "class_prior"; "losses" or, for CIFAR-10, "hidden".

    A batch takes one plain gradient step, and the weights are not scaled to mean 1. Where the paper is not explicit, this is the
    reading. The step of KM is on (K w - kappa) / n, with 0 <= w <= 50 and DIW's tolerance of the mean. That of WA is on n times
    (15): by (15) itself no weight would move by a tenth in all 400 epochs. KL and LS model the ratio as the mean of a step's k
    kernels, sum_l theta_l phi_l / k; k is the number of validation rows of the batch, or of its class. Their step is k times the
    printed one, theta <- theta - eta k grad: eta grad alone would move an entry of KL by some thousandths. If the ratio were the
    sum of the kernels, LS's first weights would be k, and KL's step a hundred times as long as its coefficients. LS's theta is
    initially 1. KL's is projected onto the ratios of mean 1 of the batch before the step as well as after it, and the coefficients
    theta / k of the sum are initially 1: with theta = 1 two of four runs under pair noise diverged.
    Raises ValueError for a combination that the paper does not have.
    """
    key = data, shift, compares
    if key not in RECIPES:
        known = "; ".join(f'data="{d}", shift="{s}", compares="{c}"' for d, s, c in RECIPES)
        raise ValueError(f'Nothing is published for data="{data}", shift="{shift}", compares="{compares}"; use one of: {known}.')
    training, steps = RECIPES[key]
    if method not in (*steps.rates, "diw"):
        raise ValueError(f"method must be one of {[*steps.rates, 'diw']}; got {method!r}.")
    return Published(method, training, _ratio(method, steps), steps.rates.get(method), compares)


def _ratio(method: str, steps: Steps) -> DensityRatio:
    gamma = steps.widths.get(method, 0.0)
    if method == "diw":
        return KMM(gamma=gamma, max_weight=_MAX_WEIGHT, mean_tol="diw", regularization=1e-5)
    if method == "adiw-wa":
        return Wasserstein(regularization=0.0)
    rate = steps.rates[method]
    if method == "adiw-km":
        solver = PlainGradient(step_size=rate)
        return KMM(gamma=gamma, max_weight=_MAX_WEIGHT, mean_tol="diw", regularization=0.0, solver=solver)
    solver = PlainGradient(step_size=rate, of_mean=True)
    if method == "adiw-kl":
        return KLIEP(gamma=gamma, solver=solver)
    return LSIF(gamma=gamma, regularization=steps.penalty, l1_ratio=1.0, solver=solver)
