"""Training a network on the rows of a fit: plainly with weights, cross-fitted, or by a reweighting method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from .._arrays import usable_device
from .._progress import ticked
from ..training.loop.data import ChosenRows
from ..training.registry import TRAIN_TWICE, key_of, reweighter
from .confusion import LabelModel, label_posterior
from .epochs import drawn_order, one_epoch, seeded
from .held_out import calibrated_loss, log_losses
from .image_network import image_network, moved
from .networks import LINEAR_REACH, is_linear, made_network, small_network
from .rows import Rows, dealt, held_shares

__all__ = ["Plan", "corrected", "crossfitted", "label_model", "predicted", "stopped", "train", "train_reweighted"]

_LONGER = 5.0  # times the learning rate, for networks with batch normalization
_PATIENCE = 5  # epochs without a better held-out loss
_FOLDS = 3  # of cross-fitting
_SURE = 0.95  # probability above which another class replaces a label: suggestions below it are wrong too often to help
_AT_ONCE = 2048  # rows of a prediction
_FEWEST = 5  # fewest rows of a class that can be compared with each other


@dataclass
class Plan:
    """How each network of a fit is trained.

    factory : (shape, n_classes) -> nn.Module, or None for `small_network`. tick : called after each epoch.
    stage : what the progress says that a network is for.
    decay : half of it times the squared weights is added to the mean loss.
    moves : how images are moved while they are learned, as in `moved`.
    """

    factory: Any
    n_classes: int
    epochs: int
    rate: float
    batch_size: int
    device: Any
    tick: Callable[[], None]
    decay: float = 0.0
    moves: str = "no"
    stage: str = "Network"

    def __post_init__(self) -> None:
        # An unknown device raises its error before the training.
        self.device = usable_device(self.device)

    def linear(self, decay: float) -> Plan:
        """This plan with a linear network, which starts at 0."""
        return replace(self, factory=_linear_network, decay=decay)

    def of_images(self, moves: str, epochs: int) -> Plan:
        """This plan for `epochs` epochs on moved images, with a convolutional network and longer steps."""
        return replace(self, factory=image_network, moves=moves, rate=_LONGER * self.rate, epochs=epochs)

    def at(self, stage: str) -> Plan:
        """This plan for a network of another stage of the fit."""
        return replace(self, stage=stage)

    def shorter(self, share: float) -> Plan:
        """This plan with a share of the epochs."""
        return replace(self, epochs=max(1, round(share * self.epochs)))

    def network(self, rows: Tensor, seed: int) -> nn.Module:
        """A fresh network for rows (n, ...), drawn by the seed."""
        with seeded(self.device, seed):
            if self.factory is None:
                return small_network(tuple(rows.shape[1:]), self.n_classes, hidden=512).to(self.device)
            return made_network(self.factory, rows, self.n_classes)

    def tensor(self, values: np.ndarray) -> Tensor:
        """An array on the device."""
        return torch.as_tensor(values, device=self.device)


class Training:
    """A network, its optimizer and the batches of one training; the step length falls along a half cosine where `falls`."""

    def __init__(self, plan: Plan, rows: Rows, seed: int, *, falls: bool = True):
        self.plan = plan
        self.x, self.y = plan.tensor(rows.x), plan.tensor(rows.y)
        self.model = plan.network(self.x, seed)
        n_steps = plan.epochs * -(-len(rows.y) // plan.batch_size)
        # Few steps at the rate of a deep network would leave a linear one near its start.
        rate = max(plan.rate, LINEAR_REACH / n_steps) if is_linear(self.model) else plan.rate
        # One kernel steps all parameters on a GPU.
        self.optimizer = torch.optim.Adam(_groups(self.model, plan.decay), lr=rate, fused=plan.device.type != "cpu")
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, n_steps) if falls else None
        self.order = torch.Generator().manual_seed(seed)

    def rows(self, i: Tensor) -> Tensor:
        """The rows of a batch; images are moved anew each time."""
        return moved(self.x[i], self.plan.moves)

    def epoch(self, loss: Callable[[Tensor], Tensor]) -> float:
        """One pass over the rows; the mean of loss(index)."""
        self.model.train()
        order = drawn_order(len(self.y), self.plan.device, self.order)
        losses = one_epoch(order, self.plan.batch_size, loss, self.optimizer, self.schedule)
        self.plan.tick()
        mean = float(torch.stack(losses).mean())
        if not np.isfinite(mean):
            raise ValueError(f"The loss of the network is {mean} after an epoch: lower learning_rate, or look at its output.")
        return mean

    def epochs(self, loss: Callable[[Tensor], Tensor]) -> Iterator[float]:
        """`epoch` for each epoch of the plan, counted on the display of progress."""
        n = self.plan.epochs
        return ticked((self.epoch(loss) for _ in range(n)), n, f"{self.plan.stage}, epochs")


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: matrices decay, other parameters do not."""
    kinds: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        kinds[parameter.ndim > 1].append(parameter)
    return [{"params": own, "weight_decay": decay * is_matrix} for is_matrix, own in kinds.items() if own]


def train(plan: Plan, rows: Rows, weight: np.ndarray, seed: int) -> tuple[nn.Module, list[float]]:
    """A network trained on the cross entropy of the rows times weight (m,), and its loss after each epoch."""
    run = Training(plan, rows, seed)
    loss = _weighted(run, weight)
    return run.model, list(run.epochs(loss))


def _weighted(run: Training, weight: np.ndarray) -> Callable[[Tensor], Tensor]:
    """The mean cross entropy of a batch, given its index, with weights (m,) that are scaled to mean 1."""
    scaled = run.plan.tensor((weight / weight.mean()).astype(np.float32))
    return lambda i: (functional.cross_entropy(run.model(run.rows(i)), run.y[i], reduction="none") * scaled[i]).mean()


@torch.no_grad()
def predicted(plan: Plan, model: nn.Module, x: np.ndarray | Tensor) -> np.ndarray:
    """Probabilities (n, C) in float64 of rows on the host, which are moved block by block, or on the device."""
    model.eval()
    blocks = torch.as_tensor(x).tensor_split(max(1, len(x) // _AT_ONCE))
    logits = torch.cat([model(block.to(plan.device)) for block in blocks])
    return torch.softmax(logits.cpu().double(), dim=1).numpy()


def _linear_network(n_features: int, n_classes: int) -> nn.Module:
    network = nn.Linear(n_features, n_classes)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


# ---------------------------------------------------------------- no method: probabilities of rows that were held out


def label_model(plan: Plan, rows: Rows, seed: int) -> tuple[LabelModel | None, float]:
    """P(true class) (m, C) of each row by networks that did not learn from it, and the share of epochs after which these were best.

    The probabilities are None for too few rows. First the networks learn from the given labels and stop when held-out labels are
    predicted best. Then as many rows as are likely wrong, at most half, are left out, the least likely right first under the
    confusion of labels: a label common among rows of another class is expected there, and seldom right. New networks learn from the
    rest, and their probabilities and the fitted confusion give the class of each row. A class of few rows keeps its labels.
    """
    is_known = rows.is_clean | (np.bincount(rows.y, minlength=plan.n_classes)[rows.y] < _FEWEST)
    if (~is_known).sum() < 4 * _FOLDS:
        return None, 1.0
    everything, at = np.ones(len(rows.y), dtype=bool), (np.arange(len(rows.y)), rows.y)
    proba, _ = crossfitted(plan.at("First round, network"), rows, everything, seed, stops=True)
    right = label_posterior(proba, rows.y, is_known, rows.counts).posterior[at]
    # At least half of the rows stay.
    n_wrong = min(rows.counts @ (1.0 - right), 0.5 * rows.counts[~is_known].sum())
    order, is_kept = np.argsort(np.where(is_known, 1.0, right), kind="stable"), is_known.copy()
    is_kept[order[np.cumsum(rows.counts[order]) > n_wrong]] = True
    proba, share = crossfitted(plan.at("Second round, network"), rows, is_kept, seed + 1, stops=False)
    return label_posterior(proba, rows.y, is_known, rows.counts, holds_noise=False), share


def corrected(rows: Rows, posterior: np.ndarray) -> Rows:
    """The rows as the final network learns them: labels replaced by classes that are nearly certain, counts times P(class).

    posterior (m, C): P(true class) of each row. Rows whose true class is known have all of it there.
    """
    at, likely = np.arange(len(rows.y)), posterior.argmax(axis=1)
    labels = np.where(posterior[at, likely] > _SURE, likely, rows.y)
    return rows._replace(y=labels, counts=rows.counts * posterior[at, labels])


def crossfitted(plan: Plan, rows: Rows, is_kept: np.ndarray, seed: int, *, stops: bool) -> tuple[np.ndarray, float]:
    """Probabilities (m, C) of each row by a network that learned from the kept rows of other folds; and the share of best epochs.

    The share is that after which the networks were best; 1 if they stop early (`stops`).
    """
    proba, shares = np.zeros((len(rows.y), plan.n_classes)), []
    for number, held_share in enumerate(held_shares(rows, _FOLDS, seed).T):
        one = plan.at(f"{plan.stage} {number + 1} of {_FOLDS}")
        is_held = held_share > 0.0
        own, held = dealt(rows, held_share)
        own = own.take(is_kept[held_share < 1.0])
        if stops:
            found = stopped(one, own, held, seed + number)
        else:
            found, share = _best(one.shorter(0.5), own, held, is_kept[is_held], seed + number)
            shares.append(share)
        proba[is_held] += held_share[is_held, None] * found
    return proba, float(np.mean(shares)) if shares else 1.0


def _held_out_after_each(plan: Plan, own: Rows, held: Rows, seed: int, *, falls: bool) -> Iterator[np.ndarray]:
    """Probabilities of the held-out rows after each epoch of a training on the rows `own`."""
    run, x = Training(plan, own, seed, falls=falls), plan.tensor(held.x)
    for _ in run.epochs(_weighted(run, own.counts)):
        yield predicted(plan, run.model, x)


def _best(plan: Plan, own: Rows, held: Rows, is_kept: np.ndarray, seed: int) -> tuple[np.ndarray, float]:
    """Probabilities of the held-out rows after the epoch that predicts the kept ones best, and the share of epochs up to it."""
    best, found, at = np.inf, np.empty(0), 0
    # A network with a penalty need not stop.
    looks = is_kept.any() and plan.decay == 0.0
    for epoch, proba in enumerate(_held_out_after_each(plan, own, held, seed, falls=True), start=1):
        value = calibrated_loss(proba[is_kept], held.y[is_kept], held.counts[is_kept]) if looks else 0.0
        if value <= best:
            best, found, at = value, proba, epoch
    return found, at / plan.epochs


def stopped(plan: Plan, own: Rows, held: Rows, seed: int) -> np.ndarray:
    """Probabilities of the held-out rows at the epoch that predicts the given labels best."""
    best, found, since = np.inf, np.empty(0), 0
    for proba in _held_out_after_each(plan, own, held, seed, falls=False):
        value = np.average(log_losses(proba, held.y), weights=held.counts)
        best, found, since = (value, proba, 0) if value < best else (best, found, since + 1)
        if since >= _PATIENCE:
            break
    return found


# ---------------------------------------------------------------- a method by name


def train_reweighted(plan: Plan, rows: Rows, clean: Rows | None, name: str, seed: int) -> tuple[nn.Module, np.ndarray, list[float]]:
    """A network, the weights (m,) of a method, and the losses.

    The method validates on the clean rows, or on the rows of each class that are easiest for an averaged network; a method that
    trains twice validates on the rows that the margins of a plain training hold out, which have weight 0.
    """
    twice = TRAIN_TWICE.get(key_of(name))
    if twice is None:
        return _reweighted(plan, rows, clean, name, seed)
    first, _ = train(plan.at("First training"), rows, rows.counts, seed)
    split = twice.split(_margins(predicted(plan, first, rows.x), rows.y), seed=seed)
    model, found, losses = _reweighted(plan, rows.take(split.train), rows.take(split.val), name, seed)
    weight = np.zeros(len(rows.y))
    weight[split.train] = found
    return model, weight, losses


def _margins(proba: np.ndarray, y: np.ndarray) -> np.ndarray:
    """P(label) minus that of the most probable other class (m,)."""
    at, others = (np.arange(len(y)), y), proba.copy()
    others[at] = -1.0
    return proba[at] - others.max(axis=1)


def _reweighted(plan: Plan, rows: Rows, clean: Rows | None, name: str, seed: int) -> tuple[nn.Module, np.ndarray, list[float]]:
    run = Training(plan, rows, seed)
    labels, chosen = torch.as_tensor(rows.y), None
    validation: Callable[[], Any]
    if clean is None:
        chosen = ChosenRows(TensorDataset(torch.as_tensor(rows.x), labels), labels, mixup=None, seed=seed)
        n_val, validation = chosen.n_val, partial(chosen.batch, run.model)
    else:
        n_val, validation = len(clean.y), partial(next, _batches(plan, clean, seed))
    method = reweighter(
        name, len(rows.y), n_val, y_train=labels, n_classes=plan.n_classes, model=run.model, optimizer=run.optimizer,
        epochs=plan.epochs, irreducible=lambda: _held_out_losses(plan, rows, seed),
        first=lambda: _margins(_held_out(plan, rows, seed), rows.y), seed=seed,
    ).to(plan.device)  # fmt: skip
    if np.ptp(rows.counts) > 0:
        if method.no_base_weights or (rows.x.ndim > 2 and getattr(method, "mixup", None) is not None):
            return _of_copies(plan, rows, clean, name, seed)
        method.set_base_weights(rows.counts)

    def loss(i: Tensor) -> Tensor:
        val = validation() if method.needs_validation else None
        return method.weighted_loss(run.model, (run.rows(i), run.y[i], i), val)

    def losses() -> Iterator[float]:
        for _ in range(plan.epochs):
            if chosen is not None and method.uses_validation:
                chosen.choose(run.model)
            yield run.epoch(loss)

    history = list(ticked(losses(), plan.epochs, f"Training by {name}, epochs"))
    return run.model, method.weights_.cpu().numpy().astype(np.float64), history


def _of_copies(plan: Plan, rows: Rows, clean: Rows | None, name: str, seed: int) -> tuple[nn.Module, np.ndarray, list[float]]:
    """`_reweighted` by a method that can't count a row more than once: with a row for each copy."""
    copies = np.round(rows.counts).astype(np.int64)
    if (copies != rows.counts).any():
        raise ValueError(
            f"method={name!r} takes no sample_weight but whole numbers, which are copies: leave sample_weight out, or type another "
            'method, such as "auto" or "co_teaching".'
        )
    place = np.repeat(np.arange(len(copies)), copies)
    each = rows.take(place)._replace(counts=np.ones(len(place)))
    model, weight, losses = _reweighted(plan, each, clean, name, seed)
    return model, np.bincount(place, weight, len(copies)) / copies, losses


def _batches(plan: Plan, rows: Rows, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches (x, y, index) without end of rows that are moved to the device once."""
    x, y, draw = plan.tensor(rows.x), plan.tensor(rows.y), np.random.default_rng(seed)
    while True:
        # Without non_blocking the host would wait for the copy.
        j = torch.as_tensor(draw.permutation(len(y))[: plan.batch_size]).to(plan.device, non_blocking=True)
        yield x[j], y[j], j


def _held_out_losses(plan: Plan, rows: Rows, seed: int) -> Tensor:
    return torch.as_tensor(log_losses(_held_out(plan, rows, seed), rows.y), dtype=torch.float32)


def _held_out(plan: Plan, rows: Rows, seed: int) -> np.ndarray:
    """Probabilities (m, K) by networks that learned from other rows."""
    return crossfitted(plan.at("Losses of held-out rows, network"), rows, np.ones(len(rows.y), dtype=bool), seed, stops=True)[0]
