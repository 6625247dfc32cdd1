"""How each data set is trained on, as published where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from benchmarks.networks import convnet, lenet5, lstm, resnet18
from densratio.labels.networks import small_network
from densratio.training.ratio.published import RECIPES, Published, published

__all__ = ["NETWORKS", "QUICK", "SETTINGS", "Experiment", "Setting", "settings_of"]

NETWORKS = {"small": small_network, "lenet5": lenet5, "convnet": convnet, "lstm": lstm, "resnet18": resnet18}
CLASS_PRIOR = "class_prior"


class Setting(NamedTuple):
    """Training of one data set.

    optimizer: "adam", "sgd", or "momentum" (SGD with momentum 0.9). schedule: "constant", "quarters" (the rate times 0.1 after each
    quarter of the epochs), "at:80/100" (times 0.1 after these epochs), "at:160/180:0.01" (times 0.01), "linear" or "cosine" (to
    0), or "cosine:10", which begins anew after each 10 epochs.
    """

    network: str
    optimizer: str
    learning_rate: float
    weight_decay: float = 0.0
    schedule: str = "constant"
    epochs: int = 400
    batch_size: int = 256
    n_val: int = 1000
    n_test: int = 0
    crop_padding: int = 0
    flip: bool = False


def _as_published(data: str, **more: Any) -> Setting:
    how = RECIPES[data, "label_noise", "losses"][0]
    return Setting(how.network, how.optimizer, how.learning_rate, how.weight_decay, schedule="quarters", **more)


SETTINGS: dict[str, Setting] = {
    # Ours, as `densratio demo` trains: small data for a CPU, whose test rows are held out.
    "digits": Setting("small", "adam", 1e-3, epochs=80, batch_size=128, n_val=100, n_test=500),
    "letters": Setting("small", "adam", 1e-3, epochs=60, batch_size=128, n_test=4000),
    "time_series": Setting("lstm", "adam", 1e-3, epochs=100, batch_size=64, n_val=100, n_test=150),
    "fashion_mnist": _as_published("fashion_mnist"),
    "cifar10": _as_published("cifar10", crop_padding=4, flip=True),
    "cifar100": _as_published("cifar100", crop_padding=4, flip=True),
}
"""Training by name of the data, under label noise."""
UNDER_CLASS_PRIOR: dict[str, dict[str, Any]] = {"fashion_mnist": {"weight_decay": 0.0, "n_val": 100}}
"""What is different under a class-prior shift."""
QUICK: dict[str, Any] = {"epochs": 2, "n_val": 1000}


@dataclass(frozen=True)
class Experiment:
    """All that the result of a method with a seed depends on, but for the machine.

    shift: kind:rate of the label noise, or class_prior:ratio. layer: "losses", "hidden" for the layer before the last, or a
    module's name. parameters: "library" for this package's defaults, "published" for the paper's steps, kernel
    widths and penalties, and Val-Only's epochs.
    val_in_train: the clean validation rows are training rows too, as in DIW's published program.
    """

    data: str
    shift: str
    setting: Setting
    n_val: int
    layer: str = "losses"
    parameters: str = "library"
    amp: bool = False
    val_in_train: bool = False

    def __post_init__(self) -> None:
        if self.parameters not in ("library", "published"):
            raise ValueError(f"The parameters are library or published; got {self.parameters!r}.")
        if self.setting.network not in NETWORKS:
            raise ValueError(f"Network {self.setting.network!r} is not known; use one of {sorted(NETWORKS)}.")
        if self.n_val < 2 or self.setting.epochs < 1 or self.setting.batch_size < 2:
            got = f"{self.n_val}, {self.setting.epochs} and {self.setting.batch_size}"
            raise ValueError(f"n_val must be >= 2, epochs >= 1 and batch_size >= 2; got {got}.")
        if self.parameters == "published":
            self.recipe("diw")

    def as_dict(self) -> dict[str, Any]:
        """All fields, those of the setting among them, as numbers and text."""
        fields = {name: value for name, value in vars(self).items() if name != "setting"}
        return {**self.setting._asdict(), **fields}

    @property
    def compares(self) -> str:
        """ "losses", or "hidden" for any layer."""
        return "losses" if self.layer == "losses" else "hidden"

    @property
    def kind(self) -> str:
        """ "class_prior" or "noise"."""
        return CLASS_PRIOR if self.shift.partition(":")[0] == CLASS_PRIOR else "noise"

    def recipe(self, method: str) -> Published:
        """A method with the paper's numbers. Raises ValueError where it has none."""
        shift = CLASS_PRIOR if self.kind == CLASS_PRIOR else "label_noise"
        return published(method, data=self.data, shift=shift, compares=self.compares)

    def network(self, input_shape: tuple[int, ...], n_classes: int) -> nn.Module:
        """The classifier, its layers drawn from torch's global generator."""
        return NETWORKS[self.setting.network](input_shape, n_classes)

    def layer_name(self, model: nn.Module) -> str | None:
        """The module whose output is compared; None for the losses."""
        if self.layer == "losses":
            return None
        return [name for name, _ in model.named_children()][-2] if self.layer == "hidden" else self.layer


def settings_of(data: str, shift: str, changes: dict[str, Any]) -> Setting:
    """Training of the data under the shift, with what is given in `changes` (None: as it is)."""
    setting = SETTINGS[data]
    if shift.partition(":")[0] == CLASS_PRIOR:
        setting = setting._replace(**UNDER_CLASS_PRIOR.get(data, {}))
    return setting._replace(**{name: value for name, value in changes.items() if value is not None})
