"""One run of a method: made, trained until it is told to stop, saved, and taken up again as if it had not stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densratio.demo.peak_memory import peak_memory
from densratio.labels.rows import Rows
from densratio.labels.training import Plan, label_model
from densratio.training import endless
from densratio.training.loop.data import DeviceData
from densratio.training.loop.validation_pass import evaluation
from densratio.training.noisy_labels.peer import WithPeer
from densratio.training.registry import Ingredients
from densratio.training.rules import irreducible_losses, margins

from .methods import REBUILT, Method, Sizes
from .problems import Problem
from .settings import Experiment

__all__ = ["Session", "decay_of", "in_order", "margins_of"]

EVALUATED_AT_ONCE = 2048
CROSS_FITTED_RATE = 2e-3  # of AdamW, for the networks that say which labels are right
_SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2.0,
}


class Session:
    """Model, optimizer, reweighter, batches and history of one method with one seed.

    history: for each epoch that is done, "accuracy" on the test rows, its mean over the classes, "class_accuracy", "val_accuracy"
    on the validation rows, the mean weighted "loss", and "seconds" of its training; for a method of two networks also
    "both_accuracy", that of the mean of their probabilities.
    """

    def __init__(
        self, experiment: Experiment, method: Method, seed: int, problem: Problem, device: str, *, warmup_epochs: float = 1.0
    ):
        self.n_classes, self.is_off = problem.n_classes, problem.is_off
        self.class_sizes = np.bincount(problem.y, minlength=problem.n_classes)
        self.identity = {**experiment.as_dict(), "method": str(method), "seed": seed, "n_train": len(problem.x)}
        self.experiment, self.device = experiment, torch.device(device)
        setting = experiment.setting
        self.model = _seeded_model(experiment, problem, seed, self.device)
        layer = experiment.layer_name(self.model)
        self.optimizer = _optimizer(self.model, experiment)
        given = Ingredients(
            len(problem.x), len(problem.x_val), torch.as_tensor(problem.y), problem.n_classes, self.model, self.optimizer,
            setting.epochs, lambda: _irreducible(experiment, seed, problem, device), seed,
            lambda: margins_of(_shorter(experiment, "uniform", seed, problem, device), problem, device),
        )  # fmt: skip
        right = partial(_right, experiment, seed, problem, device)
        sizes = Sizes(given, problem.y_val, problem.is_off, right, layer, warmup_epochs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reweighter = method.build(experiment, sizes).to(self.device)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, decay_of(setting.schedule, setting.epochs))
        self.train, self.val = _samples(problem, experiment, method, seed, self.device)
        self.test = _as_they_are(problem, (problem.x_test, problem.y_test), self.device)
        self.val_rows = _as_they_are(problem, (problem.x_val, problem.y_val), self.device)
        self._val_batches = endless(self.val)
        # DIW's published program makes its validation loader anew for each batch.
        self._remake = (lambda: _validation(problem, experiment, method, seed, self.device)) if method.name == REBUILT else None
        self.history: dict[str, list[float]] = {
            "accuracy": [], "class_accuracy": [], "val_accuracy": [], "loss": [], "seconds": []
        }  # fmt: skip
        self._loss, self._seconds, self._batches = torch.zeros((), device=self.device), 0.0, 0

    @property
    def epoch(self) -> int:
        """Epochs that are done."""
        return len(self.history["accuracy"])

    @property
    def is_done(self) -> bool:
        """Whether all epochs are."""
        return self.epoch >= self.experiment.setting.epochs

    @property
    def cycle(self) -> int:
        """Batches from one that looks at validation rows to the next."""
        return max(getattr(self.reweighter, "every", 1), getattr(self.reweighter, "val_every", 1))

    def advance(self, must_stop: Callable[[], bool], on_epoch: Callable[[Session], None] = lambda session: None) -> bool:
        """Train on until all epochs are done (True), or `must_stop()` is true after a batch (False)."""
        while not self.is_done:
            self.model.train()
            start = time.perf_counter()
            for batch in self.train:
                self._loss += self.step(batch)
                self._batches += 1
                if must_stop():
                    break
            is_over = self._batches >= len(self.train)
            loss = float(self._loss)  # waits for the device, so that the seconds are those of the work
            self._seconds += time.perf_counter() - start
            if is_over:
                self._end_epoch(loss)
                on_epoch(self)
            if must_stop() and not self.is_done:
                return False
        return True

    def step(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """One update of the classifier and its weighted loss ()."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The weighted loss () of a batch, with the next validation batch where the method looks at one."""
        val = self.next_validation() if self.reweighter.needs_validation else None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.experiment.amp):
            return self.reweighter.weighted_loss(self.model, batch, val)

    def next_validation(self) -> Any:
        """The next validation batch."""
        if self._remake is not None:
            self.val = self._remake()
            self._val_batches = endless(self.val)
        return next(self._val_batches)

    def accuracy(self) -> tuple[float, float]:
        """Share of the test rows that the classifier gets right, and the mean of the classes' shares."""
        counts = self.confusion()
        right, rows = counts.diagonal(), counts.sum(dim=1)
        return float(right.sum() / rows.sum()), float((right / rows)[rows > 0].mean())

    def confusion(self) -> Tensor:
        """Test rows (K, K) by their class and by the one that the classifier takes them for."""
        return self._counts(self.test)

    @torch.no_grad()
    def _counts(self, data: DeviceData, predict: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        self.model.eval()
        counts = torch.zeros(self.n_classes**2, dtype=torch.float64, device=self.device)
        for x, y, _ in data:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.experiment.amp):
                found = (predict or self.model)(x).argmax(dim=1)
            counts.index_add_(0, y * self.n_classes + found, torch.ones_like(y, dtype=counts.dtype))
        self.model.train()
        return counts.cpu().reshape(self.n_classes, self.n_classes)

    def peak_memory(self) -> int | None:
        """Bytes that a batch takes at its peak, a due one among them; they are trained on, so ask when all is done."""
        sizes = [peak_memory(lambda: self.step(next(iter(self.train))), self.device) for _ in range(self.cycle)]
        return max((size for size in sizes if size is not None), default=None)

    def _of_both(self, x: Tensor) -> Tensor:
        """Mean of the probabilities of the model and its peer, both in eval mode."""
        peer = self.reweighter.peer_prediction(self.model, x, leaves_trace=False)  # type: ignore[operator]
        return (self.model(x).softmax(dim=1) + peer.softmax(dim=1)) / 2.0

    # ------------------------------------------------------------ stop and resume

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        parts = {name: part.state_dict() for name, part in self._stateful().items()}
        counts = {"loss": self._loss, "seconds": self._seconds, "batches": self._batches}
        return {"identity": self.identity, "history": self.history, "counts": counts, **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the `state_dict` was taken."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.history = state["history"]
        loss, self._seconds, self._batches = (state["counts"][key] for key in ("loss", "seconds", "batches"))
        self._loss = loss.to(self.device)

    def _stateful(self) -> dict[str, Any]:
        return {
            "model": self.model, "optimizer": self.optimizer, "schedule": self.schedule, "reweighter": self.reweighter,
            "train": self.train, "val": self.val,
        }  # fmt: skip

    def _end_epoch(self, loss: float) -> None:
        self.reweighter.check()
        self.schedule.step()
        accuracy, class_accuracy = self.accuracy()
        val_counts = self._counts(self.val_rows)
        values = {
            "accuracy": accuracy, "class_accuracy": class_accuracy, "loss": loss / self._batches, "seconds": self._seconds,
            "val_accuracy": float(val_counts.trace() / val_counts.sum()),
        }  # fmt: skip
        if isinstance(self.reweighter, WithPeer):
            counts = self._counts(self.test, self._of_both)
            values["both_accuracy"] = float(counts.trace() / counts.sum())
        for name, value in values.items():
            self.history.setdefault(name, []).append(value)
        self._loss, self._seconds, self._batches = torch.zeros_like(self._loss), 0.0, 0


def decay_of(schedule: str, epochs: int) -> Callable[[int], float]:
    """What the rate is multiplied by after so many epochs, see `Setting`. Raises ValueError for an unknown schedule."""
    kind, _, rest = schedule.partition(":")
    if schedule in _SHAPES:
        return lambda epoch: _SHAPES[schedule](min(1.0, epoch / epochs))
    if schedule == "quarters":
        return lambda epoch: 0.1 ** (epoch // max(1, epochs // 4))
    if kind == "cosine" and rest.isdecimal() and int(rest) > 0:
        return lambda epoch: _SHAPES["cosine"](epoch % int(rest) / int(rest))
    steps, _, factor = rest.partition(":")
    try:
        after, times = [int(step) for step in steps.split("/")], float(factor or 0.1)
    except ValueError:
        kind = ""
    if kind != "at":
        known = "constant, quarters, linear, cosine, at:80/100, at:160/180:0.01 or cosine:10"
        raise ValueError(f"The schedule is {known}; got {schedule!r}.")
    return lambda epoch: times ** sum(epoch >= step for step in after)


def _seeded_model(experiment: Experiment, problem: Problem, seed: int, device: torch.device) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _model(experiment, problem).to(device)


def _model(experiment: Experiment, problem: Problem) -> torch.nn.Module:
    model = experiment.network(problem.x.shape[1:], problem.n_classes)
    if problem.x.ndim == 4:
        for parameter in model.parameters():
            if parameter.ndim == 4:  # the order in memory that GPUs convolve fastest in, and CPUs with few channels
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _irreducible(experiment: Experiment, seed: int, problem: Problem, device: str) -> Tensor:
    """Losses (n_train,) of the training rows under a network that learned from the validation rows alone, in fewer epochs."""
    return irreducible_losses(_shorter(experiment, "val_only", seed, problem, device).model, in_order(problem, device))


def _shorter(experiment: Experiment, name: str, seed: int, problem: Problem, device: str) -> Session:
    """A training by another method, in a quarter of the epochs."""
    fewer = replace(
        experiment, parameters="library", setting=experiment.setting._replace(epochs=max(1, experiment.setting.epochs // 4))
    )
    session = Session(fewer, Method(name), seed, problem, device)
    session.advance(lambda: False)
    return session


@torch.no_grad()
def margins_of(session: Session, problem: Problem, device: str) -> Tensor:
    """Margins (n_train,) of the training rows under the session's model, on the host."""
    with evaluation(session.model):
        return torch.cat([margins(session.model(x), y).cpu() for x, y, _ in in_order(problem, device)])


def _right(experiment: Experiment, seed: int, problem: Problem, device: str) -> np.ndarray:
    """P(label right) (n_train,) by networks that learned from other rows, in a fifth of the epochs. Validation rows are clean."""
    x, y = np.concatenate([problem.x, problem.x_val]), np.concatenate([problem.y, problem.y_val])
    if (channels := problem.channels()) is not None:
        mean, std = (np.reshape(values, (-1, 1, 1)) for values in channels)
        x = (x - mean) / std
    rows = Rows(x.astype(np.float32), y, np.ones(len(y)), np.arange(len(y)) >= len(problem.y))
    epochs, size = max(1, experiment.setting.epochs // 5), experiment.setting.batch_size
    plan = Plan(lambda *_: _model(experiment, problem), problem.n_classes, epochs, CROSS_FITTED_RATE, size, device, lambda: None)
    found, _ = label_model(plan, rows, seed)
    return np.ones(len(problem.y)) if found is None else found.posterior[np.arange(len(problem.y)), problem.y]


def in_order(problem: Problem, device: str) -> DeviceData:
    """Batches of all training rows in their order, as they are."""
    mean, std = problem.channels() or (None, None)
    return DeviceData(problem.x, problem.y, EVALUATED_AT_ONCE, device=device, shuffle=False, mean=mean, std=std)


def _optimizer(model: torch.nn.Module, experiment: Experiment) -> torch.optim.Optimizer:
    setting = experiment.setting
    own: dict[str, Any] = {"lr": setting.learning_rate, "weight_decay": setting.weight_decay}
    if setting.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **own)
    return torch.optim.SGD(model.parameters(), momentum=0.9 if setting.optimizer == "momentum" else 0.0, **own)


def _samples(
    problem: Problem, experiment: Experiment, method: Method, seed: int, device: torch.device
) -> tuple[DeviceData, DeviceData]:
    """Training and validation batches, augmented alike so that a loss means the same on both."""
    size = min(experiment.setting.batch_size, len(problem.x))
    train = _shuffled(problem, experiment, (problem.x, problem.y), size, seed, device)
    return train, _validation(problem, experiment, method, seed, device)


def _as_they_are(problem: Problem, rows: tuple[np.ndarray, np.ndarray], device: torch.device) -> DeviceData:
    """Batches of rows and labels in their order, not augmented."""
    mean, std = problem.channels() or (None, None)
    return DeviceData(*rows, EVALUATED_AT_ONCE, device=device, shuffle=False, mean=mean, std=std)


def _validation(problem: Problem, experiment: Experiment, method: Method, seed: int, device: torch.device) -> DeviceData:
    # A bank takes as many rows as it renews, so that it meets each validation row equally often.
    size = min(method.val_refresh or experiment.setting.batch_size, len(problem.x_val))
    return _shuffled(problem, experiment, (problem.x_val, problem.y_val), size, 1_000_000 + seed, device)


def _shuffled(
    problem: Problem, experiment: Experiment, rows: tuple[np.ndarray, np.ndarray], size: int, seed: int, device: torch.device
) -> DeviceData:
    """Batches of rows and labels in the units of the training rows."""
    setting, (mean, std) = experiment.setting, problem.channels() or (None, None)
    return DeviceData(
        *rows,
        size,
        device=device,
        drop_last=True,
        crop_padding=setting.crop_padding,
        flip=setting.flip,
        mean=mean,
        std=std,
        seed=seed,
    )
