"""Every reweighting method by name: the library, the demonstrations, the command line and the benchmarks make them here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._names import did_you_mean, plain
from .baselines import DIW, RandomWeights, Uniform, ValidationOnly
from .loop.model import last_linear
from .loop.names import CALLS
from .loop.reweighter import Reweighter
from .losses import generalized_cross_entropy, symmetric_cross_entropy
from .meta import FSR, GDW, L2R, MCW, BiLAW, CMWNet, CMWNetSL, LiLAW, LRWEasy, LRWHard, LRWOpt, LRWRandom, MWNet, SoftLabels
from .noisy_labels import ELR, CoTeaching, DivideMix, ELRPlus, JointOptimization, LabelCorrection, MCorrection, MetaCleaner
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

    def value(self, name: str) -> Any:
        """An argument by name; a function that was given in place of irreducible losses or first margins is called."""
        value = getattr(self, name)
        return value() if name in ("irreducible", "first") and callable(value) else value


class Method(NamedTuple):
    """A method: its title in tables and figures, its class, and how its parameters follow from the arguments of `reweighter`."""

    title: str
    kind: Callable[..., Reweighter]
    takes: tuple[str, ...] = ()
    """Ingredients that the class takes under the same name."""
    of_epochs: Mapping[str, Callable[[float], float]] = MappingProxyType({})
    """Parameters of the class as functions of the planned epochs."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Arguments of `reweighter` that it needs besides n_train."""
        given = ["model" if name == "n_features" else name for name in self.takes if name != "seed"]
        return *given, *(["epochs"] if self.of_epochs else [])

    def call(self, name: str) -> str:
        """What to type to make it by its name."""
        return f'reweighter("{name}", n_train{"".join(f", {argument}=..." for argument in self.needs)})'

    def make(self, given: Ingredients) -> Reweighter:
        """The reweighter."""
        parameters = {name: given.value(name) for name in self.takes}
        return self.kind(given.n_train, **parameters, **{name: of(given.epochs) for name, of in self.of_epochs.items()})


def _up_to(most: float) -> dict[str, Callable[[float], float]]:
    """A warm-up of a third of the epochs, at most `most` of them."""
    return {"warmup_epochs": lambda epochs: min(most, epochs / 3)}


def _without_mixup(n_train: int, y_train: Any, optimizer: torch.optim.Optimizer) -> Reweighter:
    return CMWNetSL(n_train, y_train, optimizer=optimizer, soft_labels=SoftLabels(mixup=None))


_LATE: dict[str, Callable[[float], float]] = {"warmup_epochs": lambda epochs: 0.8 * epochs}
_HALF: dict[str, Callable[[float], float]] = {"n_epochs": lambda epochs: epochs / 2}
_SPLITTER: dict[str, Callable[[float], float]] = {"splitter_warmup": lambda epochs: min(25.0, epochs / 3)}
_BY_LABELS, _BY_FEATURES = ("y_train", "optimizer"), ("n_features", "optimizer")
_SPLITS = ("n_features", "n_classes", "optimizer", "seed")

METHODS: dict[str, Method] = {
    "val_only": Method("Val-Only", ValidationOnly),
    "uniform": Method("Uniform", Uniform),
    "random": Method("Random", RandomWeights, ("seed",)),
    "auto": Method("Auto", partial(DynamicReweighter, "auto"), ("n_val",)),
    "diw": Method("DIW", DIW, ("n_val",)),
    "kmm": Method("KMM", partial(DynamicReweighter, "kmm"), ("n_val",)),
    "kliep": Method("KLIEP", partial(DynamicReweighter, "kliep"), ("n_val",)),
    "lsif": Method("LSIF", partial(DynamicReweighter, "lsif"), ("n_val",)),
    "wasserstein": Method("Wasserstein", partial(DynamicReweighter, "wasserstein"), ("n_val",)),
    "l2r": Method("L2R", L2R),
    "mw_net": Method("MW-Net", MWNet, ("optimizer",)),
    "mw_net_fixed_step": Method("MW-Net, fixed step", partial(MWNet, fixed_step_length=True), ("optimizer",)),
    "cmw_net": Method("CMW-Net", CMWNet, _BY_LABELS),
    "cmw_net_fixed_step": Method("CMW-Net, fixed step", partial(CMWNet, fixed_step_length=True), _BY_LABELS),
    "cmw_net_sl": Method("CMW-Net-SL", CMWNetSL, _BY_LABELS),
    "cmw_net_sl_no_mixup": Method("CMW-Net-SL, no mixup", _without_mixup, _BY_LABELS),
    "mcw": Method("MCW", MCW, _BY_LABELS, _LATE),
    "gdw": Method("GDW", GDW, ("optimizer",)),
    "bilaw": Method("BiLAW", BiLAW, ("n_classes", "optimizer")),
    "fsr": Method("FSR", FSR, ("n_classes", "seed"), _LATE),
    "lilaw": Method("LiLAW", LiLAW),
    "lrw_opt": Method("LRW-Opt", LRWOpt, _SPLITS, _SPLITTER),
    "lrw_opt_hard": Method("LRW-Opt, hard split", partial(LRWOpt, hard_split=True), _SPLITS, _SPLITTER),
    "focal": Method("Focal", Focal),
    "gce": Method("GCE", partial(Uniform, loss=generalized_cross_entropy)),
    "sce": Method("SCE", partial(Uniform, loss=symmetric_cross_entropy)),
    "elr": Method("ELR", ELR, ("n_classes",)),
    "elr_plus": Method("ELR+", ELRPlus, ("n_classes", "model", "optimizer", "seed")),
    "co_teaching": Method("Co-teaching", CoTeaching, ("model", "optimizer")),
    "divide_mix": Method("DivideMix", DivideMix, ("model", "optimizer", "seed"), _up_to(10.0)),
    "m_correction": Method("M-correction", MCorrection, (), _up_to(10.0)),
    "joint_optimization": Method("Joint optimization", JointOptimization, ("n_classes",), _up_to(10.0)),
    "meta_cleaner": Method("MetaCleaner", MetaCleaner, ("n_features",)),
    "lrt": Method("LRT", partial(LabelCorrection, rule="lrt"), ("n_classes",), _up_to(20.0)),
    "plc": Method("PLC", partial(LabelCorrection, rule="plc"), ("n_classes",), _up_to(8.0)),
    "class_balanced": Method("Class-balanced", ClassBalanced, ("y_train",)),
    "self_paced": Method("Self-paced", SelfPaced, (), _HALF),
    "margin_based": Method("Margin-based", MarginBased),
    "jtt": Method("Just train twice", JustTrainTwice, ("first",)),
    "rho_loss": Method("RHO-loss", partial(RHOLoss, share=0.5), ("irreducible",)),
    "stable_net": Method("StableNet", StableNet, ("n_features", "seed")),
    "lrw_hard": Method("LRW-Hard", LRWHard, _BY_FEATURES),
    "lrw_random": Method("LRW-Random", LRWRandom, _BY_FEATURES),
    "lrw_easy": Method("LRW-Easy", LRWEasy, _BY_FEATURES),
}
"""Every method by name, in the order of tables."""

CALLS.update({name: method.call(name) for name, method in METHODS.items()})

TRAIN_TWICE: dict[str, type[LRWHard | LRWRandom | LRWEasy]] = {"lrw_hard": LRWHard, "lrw_random": LRWRandom, "lrw_easy": LRWEasy}
"""Methods with two trainings, the second on a split by the margins of the first."""


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
    keys = {plain(key): key for key in METHODS}
    if isinstance(name, str) and plain(name) in keys:
        return keys[plain(name)]
    raise ValueError(f"There is no method {name!r}.{did_you_mean(name, METHODS)} The methods are {', '.join(METHODS)}.")


def keys_of(text: str) -> tuple[str, ...]:
    """The keys in METHODS of comma-separated names in any spelling; "all" gives every key. Raises ValueError as `key_of` does."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    return tuple(METHODS) if [name.lower() for name in names] == ["all"] else tuple(dict.fromkeys(map(key_of, names)))


def title_of(name: str) -> str:
    """The title of a method in tables and figures."""
    return METHODS[name].title
