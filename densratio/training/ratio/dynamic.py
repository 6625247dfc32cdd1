"""DynamicReweighter: one warm-started step of a divergence in each batch, from weights stored for each training row."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..._validation import check_count, check_number
from ...estimators import IN_LOOPS, DensityRatio
from ..loop.model import eager, single_precision
from ..loop.ranks import errors_of_all_ranks, finished, mean_of_rows
from ..loop.reweighter import Reweighter
from ..loop.row_batch import positions_of
from ..loop.state import as_stored, before_loading, snapshot
from ..loop.training_pass import LastLayer
from ..loop.validation_bank import ValidationBank, check_refresh
from ..loop.validation_pass import first_rows, validation_pass
from ..losses import Loss, cross_entropy
from .class_priors import ClassFrequencies
from .mixture import Agreement
from .potential import Potential
from .stored_step import StoredStep, ratio_for_loops
from .two_samples import Compared, Comparison, Given, Transformation, TwoSamples, collect

__all__ = ["DynamicReweighter"]


class DynamicReweighter(Reweighter):
    """Dynamic importance weighting: weights of the training rows under which their losses match the validation losses.

    Each `partial_fit` reads the stored entries of the batch, takes the ratio's `n_steps` projected-gradient (KLIEP:
    expectation-maximization) steps from them, and stores the result. KMM and Wasserstein store one weight for each
    training row; KLIEP and LSIF one coefficient for each validation row, since these are the kernel centers of the batch.

    Parameters
    ----------
    ratio : DensityRatio, or a name in {"kmm", "kliep", "lsif", "wasserstein"} for that method with gamma="target_spread"; or
        "auto" for all four side by side and a mixture of their weights, by how well each method's training gradient in the last
        linear layer agrees with the validation gradient. Only `weighted_loss` sees these gradients; `partial_fit` alone keeps the
        shares as they are.
    n_train, n_val : int
        Rows in the training and the validation set, over which index and val_index range.
    layer : str or None
        Name of a module of the model, as in `model.named_modules()`, whose output (flattened, detached) `weighted_loss`
        compares in place of the losses, class by class.
    transformation : callable (prediction, label, losses) -> (n,) or (n, d), or None
        What `weighted_loss` compares in place of the losses.
    y_train, y_val : (n_train,), (n_val,) int, or None
        Classes of all rows. The estimate is then class by class in every batch, times the class-prior ratio
        (n_val,y / n_val) / (n_train,y / n_train). Without them the classes given with the batches so far determine that ratio.
    val_refresh : int or None
        Store the last known value of every validation row, renew this many rows in each step (`weighted_loss` passes only as many
        of the validation batch), and compare with all. None: compare with the validation batch.
    val_every : int
        With val_refresh: `weighted_loss` looks at validation rows in one of so many calls, from the first on. In the others
        `needs_validation` is false, no validation pass runs, and val may be None. Draw the next validation batch only if it is
        needed; otherwise some rows of an unshuffled validation set are never used.
    forget : float in [0, 1)
        For a drifting target: stored weights and coefficients move this share of the way to 1 before each step, and of the
        stored validation values only those of the last 1 / forget steps count, or else the most recent.
    to_convergence : bool
        Solve each batch to the ratio's tolerance in place of the steps.
    normalize : bool
        Scale the weights of each batch to mean 1. False leaves them as the divergence gives them: KMM's mean within mean_tol of 1,
        LSIF's as its coefficients give it. A mean other than 1 acts like a change of the learning rate.
    warmup_epochs : float
        Initial passes over the data with all weights 1, counted in rows seen / n_train; the first losses carry little information.
    warmup_steps : int or None
        A number of batches in place of warmup_epochs.
    potential : "critic", "sliced", a `Critic` or a `Sliced`, or None
        The estimate of the Wasserstein distance. None: the closed form for rows of one column, such as losses; for more columns a
        critic, made with the first such batch.
    loss : per-row loss of `weighted_loss`.

    Attributes
    ----------
    weights_ : (n_train,) current weights.
    coef_ : (n_val,) coefficients of KLIEP and LSIF.
    share_ : dict, name -> share in the mixture, of "auto".
    row_losses : `RowLosses`, the mean loss of each row so far, by which `suspicious_rows` ranks.
    too_small_ : dict, class -> batches in which it had fewer than two rows in either sample and kept its stored weights.

    All state, the stored vectors and the counts of the warm-up, is in state_dict: a resumed run gives the same weights, also with
    another number of ranks.
    On a GPU no step waits for the device, except one class by class. From the third batch of a shape on a step is replayed as a
    CUDA graph; not one class by class, of a critic, to convergence or of several ranks, and none if `captures` is set to False. A
    batch that is unusable there (NaN, infinity, an index out of range) changes no stored entry, and its error comes with the next
    batch or the one after it.
    Source: Fang et al. (2020), DIW, and its accelerated form ADIW.
    """

    saved: ClassVar[tuple[str, ...]] = (*Reweighter.saved, "too_small_")
    classes: ClassFrequencies | None

    def __init__(
        self,
        ratio: DensityRatio | str,
        n_train: int,
        n_val: int,
        *,
        layer: str | None = None,
        transformation: Transformation | None = None,
        y_train: Any = None,
        y_val: Any = None,
        val_refresh: int | None = None,
        val_every: int = 1,
        forget: float = 0.0,
        to_convergence: bool = False,
        normalize: bool = True,
        warmup_epochs: float = 1.0,
        warmup_steps: int | None = None,
        potential: str | Potential | None = None,
        loss: Loss = cross_entropy,
    ):
        super().__init__(n_train, loss, warmup_epochs=warmup_epochs, warmup_steps=warmup_steps)
        check_count("n_val", n_val, more=", the number of validation rows, as len(val_set)")
        if layer is not None and transformation is not None:
            raise ValueError("layer and transformation both say what is compared: give one of them.")
        if (y_train is None) != (y_val is None):
            raise ValueError("Give both y_train and y_val, the classes of all training and validation rows, or neither.")
        check_number("forget", forget, "[0, 1)")
        check_refresh(val_refresh, val_every, n_val)
        is_auto = isinstance(ratio, str) and ratio.lower() == "auto"
        names = list(IN_LOOPS) if is_auto else [ratio]
        self.steps = nn.ModuleList(
            # Only one step takes a potential.
            StoredStep(ratio_for_loops(name), n_train, n_val, forget=forget, to_convergence=to_convergence,
                       normalize=normalize, potential=potential if not is_auto or name == "wasserstein" else None)
            for name in names
        )  # fmt: skip
        self._method += f" of {type(self.ratio).__name__}"
        self.agreement = Agreement(len(names)) if is_auto else None
        self.normalize = normalize
        self.n_val = n_val
        self.layer = layer
        self.transformation = transformation
        self.val_refresh = val_refresh
        self.val_every = val_every
        self.too_small_: dict[int, int] = {}
        self._meets_classes = y_train is None and layer is None
        known = self._unknown_classes() if y_train is None else ClassFrequencies.declared(y_train, y_val, n_train, n_val)
        self.register_module("classes", None if self._meets_classes else known)
        self.bank = None if val_refresh is None else ValidationBank(n_val, forget)
        self._comparison = Comparison(layer, transformation, keeps_last_layer=is_auto)
        self._last_weights: list[Tensor] = []
        before_loading(self, _make_classes)

    @property
    def ratio(self) -> DensityRatio:
        """The ratio whose steps are taken; with "auto" the first."""
        return self._steps[0].ratio

    @property
    def coef_(self) -> Tensor:
        """Coefficients (n_val,) of KLIEP and LSIF. Raises AttributeError for other methods."""
        if self._steps[0].stores_weights:
            raise AttributeError(f"{type(self.ratio).__name__} stores weights and no coefficients.")
        return self._steps[0].stored

    @property
    def share_(self) -> dict[str, float]:
        """Shares of the methods in the mixture of "auto"; waits for the device."""
        share = [1.0] if self.agreement is None else self.agreement.share.tolist()
        return dict(zip(IN_LOOPS if self.agreement is not None else [type(self.ratio).__name__.lower()], share, strict=True))

    @property
    def needs_validation(self) -> bool:
        return self.steps_seen % self.val_every == 0 or (self.bank is not None and self.bank.values is None)

    @eager
    def partial_fit(
        self,
        train: Tensor,
        val: Tensor | None,
        index: Any,
        val_index: Any = None,
        y: Any = None,
        y_val: Any = None,
        losses: Tensor | None = None,
    ) -> DynamicReweighter:
        """Estimate the weights of a batch. train (n,) or (n, d): its losses or features; val (m,) or (m, d); index (n,).

        With val_refresh, val may be None once validation rows are known; then none is renewed.
        val_index (m,) names the validation rows. KLIEP and LSIF, val_refresh, and an estimate class by class need it, unless val
        holds all n_val rows in order. y (n,), y_val (m,): the classes; with them (or if they were declared) the estimate is class
        by class, and a class with fewer than two rows in either sample keeps its stored weights.
        losses (n,): what `suspicious_rows` ranks by if train holds something else; a train of one column is taken for them.
        A row that occurs in the batch more than once gets the mean of its weights. Gradients are not followed.
        Raises ValueError, before any stored entry changes, for non-finite input, lengths that differ, or an index out of range.
        """
        self.late_errors.raise_if_seen()
        with single_precision(self.weights_.device):
            given = Given(train, val, index, val_index, y, y_val, losses)
            take = self._replayed if self._is_capturable(given) else self._take
            positions, self._last_weights = take(given, 1.0 + self.epoch)
        self.rows_seen += len(positions)
        self.steps_seen += 1
        if self.monitor is not None:
            self.monitor.step(self, positions)
        return self

    @eager
    def weighted_loss(self, model: nn.Module, train: Any, val: Any = None) -> Tensor:
        """mean(w * loss) of a training batch (x, y, index), with w estimated against a validation batch (x, y, index).

        The latter may be None if `needs_validation` is false. The validation rows pass through the model in its present mode, and
        leave neither gradients nor a trace in running statistics and random generators. It works inside autocast and outside; the
        estimate is in single precision.
        """
        with errors_of_all_ranks():
            x, y, index = self._given(model, train, val)
            # Gradients of both samples are compared in steps that use validation rows.
            needs_validation = self.needs_validation
            wants_last = self.agreement is not None and needs_validation
            own, (other, val_index, y_val) = finished(
                lambda: self._comparison.of(model, x, y, self.losses, wants_last=wants_last),
                lambda: self._validation(model, val) if needs_validation else (None, None, None),
            )
        labels = (y, y_val) if self.classes is not None else (None, None)
        losses, val_values = None if own.values is own.losses else own.losses, None if other is None else other.values
        self.partial_fit(own.values, val_values, index, val_index, y=labels[0], y_val=labels[1], losses=losses)
        if self._last_weights and own.last is not None and other is not None and other.last is not None:
            self._record_agreement(own.last, other.last)
        weights = self._times_base(self.transform(index), index)
        return mean_of_rows(weights.to(own.losses.device, own.losses.dtype) * own.losses)

    def extra_repr(self) -> str:
        return f"{self.ratio}, n_train={self.n_train}, n_val={self.n_val}"

    # ------------------------------------------------------------ what a step takes

    def _validation(self, model: nn.Module, val: Any) -> tuple[Compared, Any, Any]:
        """The compared values, places and labels of the validation rows that this step uses."""
        x, y, index = val if self.val_refresh is None else (first_rows(part, self.val_refresh) for part in val)
        with validation_pass(model):
            return self._comparison.of(model, x, y, self.losses, wants_last=self.agreement is not None), index, y

    def _val_index(self, given: Given) -> Any:
        """Places of the validation rows. Raises ValueError for arguments that do not go together."""
        val, val_index, by_class = given.val, given.val_index, given.y is not None or self.classes is not None
        if val is not None and (given.y is None) != (given.y_val is None):
            raise ValueError("Give both y and y_val, the classes of the training and of the validation rows, or neither.")
        if val is None and (self.bank is None or self.bank.values is None):
            reason = "without val_refresh each step" if self.bank is None else "before validation rows are known a step"
            raise ValueError(f"val is None: {reason} needs losses or features of a validation batch.")
        if val is None and (val_index is not None or given.y_val is not None):
            raise ValueError("val is None, and val_index or y_val were given: they are of the rows of val.")
        if val is None or val_index is not None:
            return val_index
        stores_weights = all(step.stores_weights for step in self._steps)
        if len(val) == self.n_val or (stores_weights and self.bank is None and not by_class):
            return range(len(val))
        reason = (
            "with val_refresh the value of each validation row is kept" if self.bank is not None
            else "class by class the class of each validation row is kept" if by_class
            else f"{type(self.ratio).__name__} stores one coefficient for each of the {self.n_val} validation rows"
        )  # fmt: skip
        raise ValueError(
            f"val_index is needed: {reason} and this batch has {len(val)}. Wrap the validation set in Indexed to get it."
        )

    def _against(self, bank: ValidationBank, batch: TwoSamples) -> TwoSamples:
        """The batch with all rows of the bank, after its renewal, as the target."""
        bank.refresh(batch.target, batch.val_rows)
        # On a device possibly no row is known yet, and then there is nothing to compare with.
        rows, everyone = (batch.rows.only_if((bank.age >= 0).any()), torch.arange(self.n_val, device=batch.target.device))
        return batch._replace(target=bank.known(), rows=rows, val_rows=rows.beside(everyone), y_val=None)

    # ------------------------------------------------------------ the step

    def _is_capturable(self, given: Given) -> bool:
        """Whether the step is one of kernels alone, which a graph can hold: nothing in it is made, and the host decides nothing."""
        is_by_class, is_first = self.classes is not None or given.y is not None, self.bank is not None and self.bank.values is None
        if not self._may_capture or is_by_class or is_first:
            return False
        values = [part for part in (given.train, given.val, given.losses) if part is not None]
        # A single number has no rows, and is refused with the other checks.
        if not all(isinstance(part, Tensor) and part.ndim and part.device == self.weights_.device for part in values):
            return False
        width = given.train.shape[1] if given.train.ndim == 2 else 1
        return all(step.is_of_kernels(width) for step in self._steps)

    def _replayed(self, given: Given, epoch: float) -> tuple[Tensor, list[Tensor]]:
        """`_take` by a graph, if the device has one for such a batch."""
        device, train, val = self.weights_.device, given.train, given.val
        index = positions_of(given.index, len(train), "index", device)
        val_index = None if val is None else positions_of(self._val_index(given), len(val), "val_index", device)

        def take(*tensors: Any) -> tuple[Tensor, list[Tensor]]:
            train, val, index, val_index, losses, epoch = tensors
            return self._take(Given(train, val, index, val_index, None, None, losses), epoch)

        # Parameters of a ratio may be set anew from step to step.
        kind = self._recorded, self.is_warming_up, *[step.settings for step in self._steps]
        now = torch.full((), epoch, device=device)
        return self._captured(kind, take, (train, val, index, val_index, given.losses, now))

    def _record_agreement(self, train: LastLayer, val: LastLayer) -> None:
        """The evidence of the step for the shares of "auto"."""

        def record(*tensors: Any) -> None:
            assert self.agreement is not None
            *weights, slope, entry, val_slope, val_entry = tensors
            self.agreement.record(weights, LastLayer(slope, entry), LastLayer(val_slope, val_entry))

        tensors = *self._last_weights, *train, *val
        with single_precision(self.weights_.device):
            if self._may_capture:
                self._captured(self.agreement, record, tensors)
            else:
                record(*tensors)

    def _take(self, given: Given, epoch: float | Tensor) -> tuple[Tensor, list[Tensor]]:
        """The step on a batch: the places (n,) of its training rows, and the weights (n,) by each method, after the warm-up."""
        batch = collect(given, self._val_index, (self.n_train, self.n_val), self.late_errors)
        kept = self._kept()
        try:
            batch, weights = self._step(batch)
        except Exception:
            self._take_back(batch, kept)
            raise
        if batch.losses is not None:
            self.row_losses.record(batch.losses, batch.rows, epoch)
        return batch.rows.positions, weights

    def _step(self, batch: TwoSamples) -> tuple[TwoSamples, list[Tensor]]:
        """Take the step; the batch with the target that it was compared with, and the weights by each method."""
        steps = self._steps
        if self.steps_seen == 0:
            for step in steps:
                step.check(batch)
        given = batch
        if self.bank is not None:
            batch = self._against(self.bank, batch)
        if given.y is not None:
            # From the first labels on the estimate is class by class.
            if self.classes is None:
                self.classes = self._unknown_classes()
            if given.y_val is not None:
                self.classes.record(given.y, given.rows, given.y_val, given.val_rows)
        for step in steps:
            step.learn(batch, self.classes)
        return batch, [] if self.is_warming_up else self._estimate(steps, batch)

    def _unknown_classes(self) -> ClassFrequencies:
        return ClassFrequencies.unknown(self.n_train, self.n_val).to(self.weights_.device)

    def _kept(self) -> tuple[Any, ...]:
        """State that a step may make or replace, besides the entries that its rows write."""
        parts = [part for part in (self.bank, self.classes) if part is not None]
        potentials = [(step, step.potential, None if step.potential is None else snapshot(step.potential)) for step in self._steps]
        return self.classes, dict(self.too_small_), [(part, dict(part._buffers)) for part in parts], potentials

    def _take_back(self, batch: TwoSamples, kept: tuple[Any, ...]) -> None:
        """Restore all stored state to what it was before the step."""
        self.classes, self.too_small_, parts, potentials = kept
        for part, buffers in parts:
            part._buffers.update(buffers)
            part.look_again()
        batch.rows.take_back()
        for step, potential, restore in potentials:
            step.potential = potential
            if restore is not None:
                restore()

    def _estimate(self, steps: list[StoredStep], batch: TwoSamples) -> list[Tensor]:
        weights = [self._weights(step, batch) for step in steps]
        if self.agreement is None:
            batch.rows.write(self.weights_, weights[0])
        else:
            batch.rows.write(self.weights_, torch.stack(weights, dim=1) @ self.agreement.share.to(weights[0].dtype))
        return weights

    def _weights(self, step: StoredStep, batch: TwoSamples) -> Tensor:
        turn = None if self.bank is None else self.bank.turn
        if self.classes is None:
            return step.weights(batch, turn)
        weights, too_small = step.weights_by_class(batch, turn, self.classes, self.weights_[batch.rows.positions])
        if step is self.steps[0]:
            for label in too_small:
                self.too_small_[label] = self.too_small_.get(label, 0) + 1
        return weights

    @property
    def _steps(self) -> list[StoredStep]:
        return list(self.steps)  # type: ignore[arg-type]


def _make_classes(reweighter: DynamicReweighter, stored: dict[str, Tensor]) -> None:
    # A resumed run knows the classes given with earlier batches before its own first batch.
    if reweighter._meets_classes:
        as_stored(reweighter, "classes", stored, reweighter._unknown_classes)
