"""Every reweighting method by name: the library, the demonstrations, the command line and the benchmarks make them here."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .loop.model import last_linear
from .loop.reweighter import Reweighter
from .losses import generalized_cross_entropy, symmetric_cross_entropy
from .meta import FSR, GDW, L2R, MCW, BiLAW, CMWNet, CMWNetSL, LiLAW, LRWEasy, LRWHard, LRWOpt, LRWRandom, MWNet, SoftLabels
from .noisy_labels import ELR, CoTeaching, JointOptimization, LabelCorrection, MCorrection, MetaCleaner
from .ratio import DynamicReweighter
from .rules import ClassBalanced, Focal, JustTrainTwice, MarginBased, RHOLoss, SelfPaced
from .stable_net import StableNet

__all__ = ["METHODS", "TRAIN_TWICE", "Ingredients", "Method", "reweighter", "title_of"]


@dataclass(frozen=True)
class Ingredients:
    """The arguments of `reweighter`, from which a method is made; None for one that was not given."""

    n_train: int
    n_val: Any = None
    y_train: Any = None
    n_classes: Any = None
    model: Any = None
    optimizer: Any = None
    epochs: Any = None
    irreducible: Any = None
    seed: int = 0
    first: Any = None

    @property
    def n_features(self) -> int:
        """Columns of the input of the model's last linear layer."""
        linear = last_linear(self.model)
        if linear is None:
            raise ValueError(
                "The model has no nn.Linear, whose input lrw_hard and others, stable_net and meta_cleaner weigh rows by."
            )
        return linear.in_features

    @property
    def losses(self) -> Tensor:
        """The irreducible losses; a function that was given in their place is called."""
        return self.irreducible() if callable(self.irreducible) else self.irreducible

    @property
    def margins(self) -> Any:
        """The margins of a first training; a function that was given in their place is called."""
        return self.first() if callable(self.first) else self.first


class Method(NamedTuple):
    """A method: its title in tables, how it is made, and the arguments of `reweighter` that it needs besides n_train."""

    title: str
    make: Callable[[Ingredients], Reweighter]
    needs: tuple[str, ...] = ()


def _dynamic(ratio: str, title: str) -> Method:
    return Method(title, lambda given: DynamicReweighter(ratio, given.n_train, given.n_val), ("n_val",))


def _twice(kind: type[LRWHard | LRWRandom | LRWEasy], title: str) -> Method:
    return Method(title, lambda given: kind(given.n_train, given.n_features, optimizer=given.optimizer), ("model", "optimizer"))


def _splitting(title: str, hard_split: bool) -> Method:
    def make(given: Ingredients) -> Reweighter:
        return LRWOpt(
            given.n_train, given.n_features, given.n_classes, optimizer=given.optimizer, hard_split=hard_split,
            splitter_warmup=min(25.0, given.epochs / 3), seed=given.seed,
        )  # fmt: skip

    return Method(title, make, ("model", "n_classes", "optimizer", "epochs"))


def _correcting(title: str, rule: str, warmup: float) -> Method:
    def make(given: Ingredients) -> Reweighter:
        return LabelCorrection(given.n_train, given.n_classes, rule=rule, warmup_epochs=min(warmup, given.epochs / 3))

    return Method(title, make, ("n_classes", "epochs"))


_BY_LABELS = ("y_train", "optimizer")

METHODS: dict[str, Method] = {
    "val_only": Method("Val-Only", lambda given: ValidationOnly(given.n_train)),
    "uniform": Method("Uniform", lambda given: Uniform(given.n_train)),
    "random": Method("Random", lambda given: RandomWeights(given.n_train, seed=given.seed)),
    "auto": _dynamic("auto", "Auto"),
    "diw": Method("DIW", lambda given: DIW(given.n_train, given.n_val), ("n_val",)),
    "kmm": _dynamic("kmm", "KMM"),
    "kliep": _dynamic("kliep", "KLIEP"),
    "lsif": _dynamic("lsif", "LSIF"),
    "wasserstein": _dynamic("wasserstein", "Wasserstein"),
    "l2r": Method("L2R", lambda given: L2R(given.n_train)),
    "mw_net": Method("MW-Net", lambda given: MWNet(given.n_train, optimizer=given.optimizer), ("optimizer",)),
    "mw_net_fixed_step": Method(
        "MW-Net, fixed step",
        lambda given: MWNet(given.n_train, optimizer=given.optimizer, fixed_step_length=True),
        ("optimizer",),
    ),
    "cmw_net": Method("CMW-Net", lambda given: CMWNet(given.n_train, given.y_train, optimizer=given.optimizer), _BY_LABELS),
    "cmw_net_fixed_step": Method(
        "CMW-Net, fixed step",
        lambda given: CMWNet(given.n_train, given.y_train, optimizer=given.optimizer, fixed_step_length=True),
        _BY_LABELS,
    ),
    "cmw_net_sl": Method(
        "CMW-Net-SL", lambda given: CMWNetSL(given.n_train, given.y_train, optimizer=given.optimizer), _BY_LABELS
    ),
    "cmw_net_sl_no_mixup": Method(
        "CMW-Net-SL, no mixup",
        lambda given: CMWNetSL(given.n_train, given.y_train, optimizer=given.optimizer, soft_labels=SoftLabels(mixup=None)),
        _BY_LABELS,
    ),
    "mcw": Method(
        "MCW",
        lambda given: MCW(given.n_train, given.y_train, warmup_epochs=0.8 * given.epochs, optimizer=given.optimizer),
        ("y_train", "optimizer", "epochs"),
    ),
    "gdw": Method("GDW", lambda given: GDW(given.n_train, optimizer=given.optimizer), ("optimizer",)),
    "bilaw": Method(
        "BiLAW", lambda given: BiLAW(given.n_train, given.n_classes, optimizer=given.optimizer), ("n_classes", "optimizer")
    ),
    "fsr": Method(
        "FSR",
        lambda given: FSR(given.n_train, given.n_classes, warmup_epochs=0.8 * given.epochs, seed=given.seed),
        ("n_classes", "epochs"),
    ),
    "lilaw": Method("LiLAW", lambda given: LiLAW(given.n_train)),
    "lrw_opt": _splitting("LRW-Opt", False),
    "lrw_opt_hard": _splitting("LRW-Opt, hard split", True),
    "focal": Method("Focal", lambda given: Focal(given.n_train)),
    "gce": Method("GCE", lambda given: Uniform(given.n_train, generalized_cross_entropy)),
    "sce": Method("SCE", lambda given: Uniform(given.n_train, symmetric_cross_entropy)),
    "elr": Method("ELR", lambda given: ELR(given.n_train, given.n_classes), ("n_classes",)),
    "co_teaching": Method(
        "Co-teaching", lambda given: CoTeaching(given.n_train, given.model, given.optimizer), ("model", "optimizer")
    ),
    "m_correction": Method(
        "M-correction", lambda given: MCorrection(given.n_train, warmup_epochs=min(10.0, given.epochs / 3)), ("epochs",)
    ),
    "joint_optimization": Method(
        "Joint optimization",
        lambda given: JointOptimization(given.n_train, given.n_classes, warmup_epochs=min(10.0, given.epochs / 3)),
        ("n_classes", "epochs"),
    ),
    "meta_cleaner": Method("MetaCleaner", lambda given: MetaCleaner(given.n_train, given.n_features), ("model",)),
    "lrt": _correcting("LRT", "lrt", 20.0),
    "plc": _correcting("PLC", "plc", 8.0),
    "class_balanced": Method("Class-balanced", lambda given: ClassBalanced(given.n_train, given.y_train), ("y_train",)),
    "self_paced": Method("Self-paced", lambda given: SelfPaced(given.n_train, n_epochs=given.epochs / 2), ("epochs",)),
    "margin_based": Method("Margin-based", lambda given: MarginBased(given.n_train)),
    "jtt": Method("Just train twice", lambda given: JustTrainTwice(given.n_train, given.margins), ("first",)),
    "rho_loss": Method("RHO-loss", lambda given: RHOLoss(given.n_train, given.losses, share=0.5), ("irreducible",)),
    "stable_net": Method(
        "StableNet", lambda given: StableNet(given.n_train, given.n_features, seed=given.seed), ("model",)
    ),
    "lrw_hard": _twice(LRWHard, "LRW-Hard"),
    "lrw_random": _twice(LRWRandom, "LRW-Random"),
    "lrw_easy": _twice(LRWEasy, "LRW-Easy"),
}  # fmt: skip
"""Every method by name, in the order of tables."""

TRAIN_TWICE: dict[str, type[LRWHard | LRWRandom | LRWEasy]] = {"lrw_hard": LRWHard, "lrw_random": LRWRandom, "lrw_easy": LRWEasy}
"""Methods of two trainings, the second on a split that the first one's margins give."""


def reweighter(
    name: str,
    n_train: int,
    n_val: int | None = None,
    *,
    y_train: Any = None,
    n_classes: int | None = None,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    epochs: float | None = None,
    irreducible: Tensor | Callable[[], Tensor] | None = None,
    first: Any = None,
    seed: int = 0,
) -> Reweighter:
    """Make a reweighting method by its name, with its default parameters.

    The result serves `loss = reweighter.weighted_loss(model, train, val)`. Each method takes the arguments that it needs and
    ignores the others, so the same call serves all methods. For other parameters make the method's class. A train-twice method
    gives the reweighter of its second training.

    name : a key of `densratio.training.registry.METHODS`, in any spelling: "mw_net", "MW-Net".
    n_train, n_val : int, rows of the training and the validation set.
    y_train : (n_train,) int, given labels. n_classes : int.
    model, optimizer : the classifier and its optimizer.
    epochs : planned passes over the training rows.
    irreducible : (n_train,) losses under a model that was trained on other rows, for "rho_loss"; or a function that returns them.
    first : (n_train,) margins under a model that was trained before, for "jtt"; or a function that returns them.
    seed : int, of the method's own draws. A network that a method learns is drawn from torch's global generator.

    Raises ValueError for an unknown name, with the closest ones, and for a missing argument.
    """
    method = METHODS[key_of(name)]
    given = Ingredients(n_train, n_val, y_train, n_classes, model, optimizer, epochs, irreducible, seed, first)
    missing = [f"{argument}=..." for argument in method.needs if getattr(given, argument) is None]
    if missing:
        raise ValueError(f'{name} needs more than n_train: type reweighter("{name}", n_train, {", ".join(missing)}).')
    return method.make(given)


def key_of(name: Any) -> str:
    """The key in METHODS of a name in any spelling. Raises ValueError, with the closest names, if there is none."""
    keys = {_plain(key): key for key in METHODS}
    if isinstance(name, str) and _plain(name) in keys:
        return keys[_plain(name)]
    near = difflib.get_close_matches(_plain(str(name)), keys, n=3)
    hint = f" Did you mean {' or '.join(repr(keys[key]) for key in near)}?" if near else ""
    raise ValueError(f"There is no method {name!r}.{hint} The methods are {', '.join(METHODS)}.")


def keys_of(text: str) -> tuple[str, ...]:
    """The keys in METHODS of comma-separated names in any spelling; "all" gives every key. Raises ValueError as `key_of` does."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(METHODS) if [name.lower() for name in names] == ["all"] else tuple(dict.fromkeys(map(key_of, names)))


def title_of(name: str) -> str:
    """The title of a method in tables and figures."""
    return METHODS[name].title


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
