"""skorch nets whose training loss is weighted; everything else is skorch's."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

if importlib.util.find_spec("skorch") is None:
    raise ImportError('densratio.training.integrations.skorch needs skorch: pip install "densratio-toolkit[skorch]"')

import numpy as np
from sklearn.base import clone
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.dataset import get_len, unpack_data
from skorch.utils import is_dataset
from torch import Tensor, nn
from torch.utils.data import Subset

from ..._validation import check_sample_weight
from ..loop.reweighter import Reweighter
from ..losses import other_task, rows_mean
from .state import LoopState, Prediction
from .validation import NumberedCollate, NumberedRows

__all__ = ["ReweightedClassifier", "ReweightedNet", "ReweightedRegressor"]


class ReweightedNet(NeuralNet):
    """Reweighting in a skorch net, which trains on `criterion` with a weight for each row.

        net = ReweightedClassifier(
            Module, criterion=nn.CrossEntropyLoss, val_set=(X_val, y_val),
            reweighter=DynamicReweighter, reweighter__ratio="kliep",
        ).fit(X, y)

    reweighter : a Reweighter class, or a function that returns a reweighter; `reweighter__*` are its parameters. Each `fit` makes a
        new one for the training rows that `train_split` leaves, so the net can be cloned and searched over.
    val_set : (X_val, y_val), or a Dataset of right rows; `val_set__batch_size` (the net's by default), `val_set__seed` and
        `val_set__num_workers` set its batches.
    reweighter_ : the fitted Reweighter. Pickles hold it, and `save_params(f_reweighting=...)` writes it; `load_params` restores it
        if `reweighter__n_train` is given, since the training rows are unknown then.
    The criterion must have a `reduction`, as torch's losses have, and its mean is over rows. `fit(X, y, sample_weight=...)` takes
    weights of your own, which multiply those of the reweighter.
    """

    prefixes_ = [*NeuralNet.prefixes_, "reweighter", "val_set"]  # noqa: RUF012
    cuda_dependent_attributes_ = [*NeuralNet.cuda_dependent_attributes_, "reweighting_"]  # noqa: RUF012

    reweighting_: LoopState | None
    _given: tuple[Any, Any] | None = None

    @property
    def reweighter_(self) -> Reweighter:
        """The Reweighter of the training rows, once they are known."""
        state: LoopState | None = getattr(self, "reweighting_", None)
        if state is None:
            raise AttributeError("The net has no reweighter_ before fit.")
        return state.reweighter

    def initialize(self) -> ReweightedNet:
        """Start the net and its weights anew. Raises TypeError if reweighter or val_set is missing."""
        self.reweighting_ = None
        if not callable(getattr(self, "reweighter", None)) or isinstance(self.reweighter, nn.Module):
            raise TypeError(
                "reweighter must be a Reweighter class or a function that gives one, such as reweighter=DynamicReweighter, "
                f'reweighter__ratio="kliep"; got {getattr(self, "reweighter", None)!r}.'
            )
        if not hasattr(self, "val_set"):
            raise TypeError("val_set=(X_val, y_val) is needed: the rows that the weights are estimated against.")
        if isinstance(self.val_set, tuple | list) and len(self.val_set) == 2:
            _check_labels(self.val_set[1], "y_val")
        super().initialize()
        if "n_train" in self.get_params_for("reweighter"):
            self.reweighting_ = self._new_state(self.get_params_for("reweighter")["n_train"])
        return self

    def fit_loop(self, X: Any, y: Any = None, epochs: int | None = None, *, sample_weight: Any = None, **fit_params: Any) -> Any:
        """skorch's; sample_weight (n,) of all rows, validation rows of `train_split` included, multiplies the weights."""
        _check_labels(y, "y")
        self._given = None if sample_weight is None else (X, check_sample_weight(sample_weight, get_len(X)))
        try:
            return super().fit_loop(X, y, epochs, **fit_params)
        finally:
            self._given = None

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """skorch's; the batches of a training set carry the index of their rows."""
        if not training:
            return super().get_iterator(dataset, training=False)
        rows = NumberedRows(dataset, "The training set")
        if self.reweighting_ is None:
            self.reweighting_ = self._new_state(len(rows))
        self.reweighting_.check_train(len(rows))
        self.reweighter_.set_base_weights(self._weights_of(dataset))
        return _NumberedBatches(super().get_iterator(rows, training=True))

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """The weighted loss of a batch, its gradients, and the prediction."""
        if not isinstance(batch, _Batch) or self.reweighting_ is None:
            raise ValueError(
                "The batch doesn't hold the index of its rows: iterator_train must be a DataLoader and get_iterator be ours."
            )
        self._set_training(True)
        state = self.reweighting_
        X, y = unpack_data(batch)
        batch_val = state.next_validation()
        val = None if batch_val is None else (*batch_val[0], batch_val[1])
        state.take_optimizer(getattr(self, "optimizer_", None))
        model = Prediction(self.module_, lambda _, x: self.infer(x, **fit_params))
        # A reweighter that held a method of the net could not be pickled with it.
        with _replaced(state.reweighter, "loss", self._losses):
            try:
                loss = state.reweighter.weighted_loss(model, (X, y, batch.row_index), val)
            except RuntimeError as error:
                self._explain(X, None if val is None else val[0], error)
                raise
        loss.backward()
        return {"loss": loss, "y_pred": model.outputs(X)}

    def set_params(self, **params: Any) -> ReweightedNet:
        """skorch's; parameters of the reweighter and of val_set count from the next `fit` on."""
        own = {name: params.pop(name) for name in list(params) if name.startswith(("reweighter", "val_set"))}
        super().set_params(**params)
        for name, value in own.items():
            setattr(self, name, value)
        self._params_to_validate.update(own)
        return self

    def _weights_of(self, dataset: Any) -> Any:
        """The part of sample_weight that belongs to the rows of the training set; None if none was given."""
        if self._given is None:
            return None
        X, weight = self._given
        if isinstance(dataset, Subset) and dataset is not X:
            return weight[np.asarray(dataset.indices)]
        if len(dataset) != len(weight):
            raise ValueError("sample_weight needs a train_split that gives all rows or a torch Subset of them, as ValidSplit does.")
        return weight

    def _new_state(self, n_train: int) -> LoopState:
        val_set = self.val_set
        if not is_dataset(val_set):
            if not isinstance(val_set, tuple | list) or len(val_set) != 2:
                got = f"{len(val_set)} parts" if isinstance(val_set, tuple | list) else type(val_set).__name__
                raise TypeError(f"val_set must be (X_val, y_val), or a torch Dataset of right rows; got {got}.")
            val_set = self.get_dataset(*val_set)
        # To skorch a batch size of -1 means all rows.
        params = {"batch_size": self.batch_size if self.batch_size > 0 else len(val_set), **self.get_params_for("val_set")}
        state = LoopState(self._new_reweighter(n_train, len(val_set)), val_set, **params)
        state.reweighter.to(self.device)
        return state

    def _new_reweighter(self, n_train: int, n_val: int) -> Reweighter:
        params = self.get_params_for("reweighter")
        if "loss" in params:
            raise ValueError("reweighter__loss is not used: the criterion of the net is the loss.")
        of_ratio = {name.removeprefix("ratio__"): params.pop(name) for name in list(params) if name.startswith("ratio__")}
        if of_ratio:
            params["ratio"] = clone(params["ratio"]).set_params(**of_ratio)
        signature = inspect.signature(self.reweighter)
        sizes = {"n_train": n_train, "n_val": n_val}
        params = {**{name: size for name, size in sizes.items() if name in signature.parameters}, **params}
        try:
            signature.bind(**params)
        except TypeError as error:
            name = getattr(self.reweighter, "__name__", "reweighter")
            known = ", ".join(f"reweighter__{parameter}" for parameter in signature.parameters)
            raise TypeError(f"{name}: {error}. Its parameters are {known}.") from None
        return self.reweighter(**params)

    def _explain(self, X: Any, X_val: Any, error: RuntimeError) -> None:
        """Raise ValueError if the rows of X, those of X_val and the module do not match."""
        own = next((p.dtype for p in self.module_.parameters() if p.is_floating_point()), None)
        kinds = [(x.dtype, tuple(x.shape[1:])) for x in (X, X if X_val is None else X_val) if isinstance(x, Tensor)]
        if len(kinds) == 2 and (kinds[0] != kinds[1] or kinds[0][0] != own):
            (dtype, shape), (val_dtype, val_shape) = kinds
            rows = f"X has rows {shape} of {dtype}, X_val rows {val_shape} of {val_dtype}, and the module is of {own}"
            raise ValueError(f"{rows}: {error}. Give both as the module takes them, X.astype(np.float32).") from error

    def _losses(self, y_pred: Any, y_true: Any) -> Tensor:
        if not hasattr(self.criterion_, "reduction"):
            name = type(self.criterion_).__name__
            raise ValueError(f"The criterion must have a `reduction`, as torch's losses have; {name} has none.")
        with _replaced(self.criterion_, "reduction", "none"):
            try:
                losses = self.get_loss(y_pred, y_true, training=True)
            except (IndexError, RuntimeError) as error:
                if other_task(y_pred, y_true) is None and not isinstance(error, IndexError):
                    raise
                given = f"predictions {tuple(y_pred.shape)} and y {tuple(y_true.shape)} of {y_true.dtype}"
                text = f"{type(self.criterion_).__name__} does not take {given}: {str(error).rstrip('.')}"
                raise ValueError(f"{text}. For K classes y must be (n,), integers 0 to K - 1 of 64 bits.") from error
        is_of_logits = isinstance(self.criterion_, nn.NLLLoss) and losses.device.type == "cpu" and bool((y_pred < 0).any())
        if is_of_logits and bool(losses.isnan().any()):
            raise ValueError(
                "skorch takes the logarithm of the predictions for NLLLoss, its default criterion, and some are below 0: give "
                "criterion=nn.CrossEntropyLoss, or end the module with a softmax."
            )
        if losses.ndim == 2 and losses.shape != y_pred.shape and len(losses) == len(y_pred):
            given = f"y_pred has the shape {tuple(y_pred.shape)} and y {tuple(y_true.shape)}"
            raise ValueError(f"The criterion must give one loss for each row; {given}. Give y as y.reshape(-1, 1).")
        return rows_mean(losses)


class ReweightedClassifier(ReweightedNet, NeuralNetClassifier):
    """`ReweightedNet` as a skorch classifier: its parameters, and those of NeuralNetClassifier."""


class ReweightedRegressor(ReweightedNet, NeuralNetRegressor):
    """`ReweightedNet` as a skorch regressor: its parameters, and those of NeuralNetRegressor."""


class _Batch(list):
    """[X, y], with row_index (n,) of its rows."""

    def __init__(self, values: Any, row_index: Tensor):
        super().__init__(values)
        self.row_index = row_index


class _NumberedBatches:
    """Batches of a loader of NumberedRows."""

    def __init__(self, loader: Any):
        if not hasattr(loader, "collate_fn"):
            raise TypeError(f"iterator_train must be a torch DataLoader; got {type(loader).__name__}.")
        loader.collate_fn = NumberedCollate(loader.collate_fn)
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[_Batch]:
        for values, index in self.loader:
            yield _Batch(values, index)


def _check_labels(y: Any, name: str) -> None:
    is_column = isinstance(y, Iterable) and not isinstance(y, Tensor | Mapping)
    if is_column and isinstance(next(iter(y), None), str):
        raise ValueError(f"{name} holds text: number the classes, such as LabelEncoder().fit_transform({name}).")


@contextmanager
def _replaced(thing: Any, name: str, value: Any) -> Iterator[None]:
    kept = getattr(thing, name)
    setattr(thing, name, value)
    try:
        yield
    finally:
        setattr(thing, name, kept)
