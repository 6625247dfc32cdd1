"""Every reweighting method by name, as `densratio demo` and the benchmarks make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..training.baselines import DIW, RandomWeights, Uniform, ValidationOnly
from ..training.loop.reweighter import Reweighter
from ..training.loop.validation_pass import last_linear
from ..training.meta import L2R, CMWNet, CMWNetSL, LiLAW, LRWEasy, LRWHard, LRWOpt, LRWRandom, MWNet
from ..training.ratio.dynamic import DynamicReweighter
from ..training.rules import ClassBalanced, Focal, MarginBased, RHOLoss, SelfPaced

__all__ = ["LEARNED", "METHODS", "TITLES", "TRAIN_TWICE", "Setup", "all_methods", "build", "named"]


@dataclass(frozen=True)
class Setup:
    """What methods are made of. y_train (n_train,): given labels. irreducible: gives the losses (n_train,) that RHOLoss needs."""

    n_train: int
    n_val: int
    seed: int
    epochs: int
    y_train: Tensor
    n_classes: int
    model: nn.Module
    optimizer: torch.optim.Optimizer
    irreducible: Callable[[], Tensor] | None = None

    @property
    def n_features(self) -> int:
        """Columns of the input of the model's last linear layer."""
        linear = last_linear(self.model)
        if linear is None:
            raise ValueError("The model has no nn.Linear, whose input the train-twice methods and lrw_opt weigh rows by.")
        return linear.in_features


METHODS: dict[str, Callable[[int, int, int], Reweighter]] = {
    "val_only": lambda n_train, n_val, seed: ValidationOnly(n_train),
    "uniform": lambda n_train, n_val, seed: Uniform(n_train),
    "random": lambda n_train, n_val, seed: RandomWeights(n_train, seed=seed),
    "auto": lambda n_train, n_val, seed: DynamicReweighter("auto", n_train, n_val),
    "diw": lambda n_train, n_val, seed: DIW(n_train, n_val),
    "kmm": lambda n_train, n_val, seed: DynamicReweighter("kmm", n_train, n_val),
    "kliep": lambda n_train, n_val, seed: DynamicReweighter("kliep", n_train, n_val),
    "lsif": lambda n_train, n_val, seed: DynamicReweighter("lsif", n_train, n_val),
    "wasserstein": lambda n_train, n_val, seed: DynamicReweighter("wasserstein", n_train, n_val),
}
"""Reweighter of n_train, n_val and a seed, for methods that need to know no more."""

LEARNED: dict[str, Callable[[Setup], Reweighter]] = {
    "l2r": lambda setup: L2R(setup.n_train),
    "mw_net": lambda setup: MWNet(setup.n_train, optimizer=setup.optimizer),
    "mw_net_fixed_step": lambda setup: MWNet(setup.n_train, optimizer=setup.optimizer, fixed_step_length=True),
    "cmw_net": lambda setup: CMWNet(setup.n_train, setup.y_train, optimizer=setup.optimizer),
    "cmw_net_fixed_step": lambda setup: CMWNet(
        setup.n_train, setup.y_train, optimizer=setup.optimizer, fixed_step_length=True
    ),
    "cmw_net_sl": lambda setup: CMWNetSL(setup.n_train, setup.y_train, optimizer=setup.optimizer),
    "lilaw": lambda setup: LiLAW(setup.n_train),
    "lrw_opt": lambda setup: LRWOpt(
        setup.n_train, setup.n_features, setup.n_classes, optimizer=setup.optimizer, splitter_warmup=min(25.0, setup.epochs / 3),
        seed=setup.seed,
    ),
    "focal": lambda setup: Focal(setup.n_train),
    "class_balanced": lambda setup: ClassBalanced(setup.n_train, setup.y_train),
    "self_paced": lambda setup: SelfPaced(setup.n_train, n_epochs=setup.epochs / 2),
    "margin_based": lambda setup: MarginBased(setup.n_train),
    "rho_loss": lambda setup: RHOLoss(setup.n_train, _irreducible(setup), share=0.5),
}  # fmt: skip
"""Reweighter of a `Setup`, for methods that use labels, the optimizer or the model."""

TRAIN_TWICE: dict[str, type[LRWHard | LRWRandom | LRWEasy]] = {"lrw_hard": LRWHard, "lrw_random": LRWRandom, "lrw_easy": LRWEasy}
"""Methods of two trainings, the second on a split that the first one's margins give."""

TITLES: dict[str, str] = {
    "val_only": "Val-Only", "uniform": "Uniform", "random": "Random", "auto": "Auto", "diw": "DIW", "kmm": "KMM", "kliep": "KLIEP",
    "lsif": "LSIF", "wasserstein": "Wasserstein", "l2r": "L2R", "mw_net": "MW-Net", "mw_net_fixed_step": "MW-Net, fixed step",
    "cmw_net": "CMW-Net", "cmw_net_fixed_step": "CMW-Net, fixed step", "cmw_net_sl": "CMW-Net-SL", "lilaw": "LiLAW",
    "lrw_opt": "LRW-Opt", "focal": "Focal", "class_balanced": "Class-balanced", "self_paced": "Self-paced",
    "margin_based": "Margin-based", "rho_loss": "RHO-loss", "lrw_hard": "LRW-Hard", "lrw_random": "LRW-Random",
    "lrw_easy": "LRW-Easy",
}  # fmt: skip
"""What the methods are called in tables and figures."""


def all_methods() -> tuple[str, ...]:
    """Names of every method."""
    return tuple(TITLES)


def named(text: str) -> tuple[str, ...]:
    """Names in a list with commas, in any spelling (MW-Net: mw_net); "all" for every one; unknown ones stay as they are."""
    known = {name.replace("_", ""): name for name in TITLES}
    parts = [part.strip().lower().replace("-", "_") for part in text.split(",") if part.strip()]
    return all_methods() if parts == ["all"] else tuple(dict.fromkeys(known.get(part.replace("_", ""), part) for part in parts))


def build(name: str, setup: Setup) -> Reweighter:
    """The reweighter of that name; of a train-twice method the one of the second training."""
    if name in METHODS:
        return METHODS[name](setup.n_train, setup.n_val, setup.seed)
    if name in TRAIN_TWICE:
        return TRAIN_TWICE[name](setup.n_train, setup.n_features, optimizer=setup.optimizer)
    if name not in LEARNED:
        raise ValueError(f"Method {name!r} is not known; use one of {list(all_methods())}.")
    return LEARNED[name](setup)


def _irreducible(setup: Setup) -> Any:
    if setup.irreducible is None:
        raise ValueError("rho_loss needs the losses of the training rows under a model that learned from other rows.")
    return setup.irreducible()
