"""Pass sample weights to an estimator's fit: directly, under a Pipeline's step name, through wrappers, or by metadata routing."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRouter, get_routing_for_object

from .reach import (
    asking_for_weights,
    changes_with_weights,
    few_rows,
    is_settled,
    learners,
    routed,
    searches,
    takes_any_name,
    takes_sample_weight,
    unweighted_learners,
    wrapped_by,
)

__all__ = ["fit_weighted", "weight_names"]

_DRAW = """fit this one on rows drawn in proportion to the weights:
    import numpy as np
    w, rng = ratio.transform(X), np.random.default_rng(0)
    rows = rng.choice(len(w), size=len(w), p=w / w.sum())
    model.fit(X[rows], y[rows])"""
_SKORCH = """{name} is a skorch net, which passes sample_weight to its module and not to its loss. Draw its rows by their weights:
    from densratio.training import importance_sampler
    sampler = importance_sampler(ratio.transform(X))
    net.set_params(train_split=None, iterator_train__sampler=sampler).fit(X, y)
A net whose loss is weighted is densratio.training.integrations.skorch.ReweightedClassifier."""


def fit_weighted(estimator: Any, X: Any, y: Any, weights: np.ndarray) -> Any:
    """estimator.fit(X, y) with `weights` (n,). Raises ValueError if they do not reach every part that learns from y.

    If only metadata routing passes them on, a clone that requests them is fitted and returned.
    """
    model, names = _reaching(estimator, X, y)
    is_routed = names == ["sample_weight"] and model is not estimator
    with routed() if is_routed else nullcontext(), warnings.catch_warnings():
        if len(names) > 1:
            # This warning is wrong: the weights reach the inner estimator under their second name.
            warnings.filterwarnings("ignore", message="Since .* does not appear to accept sample_weight")
        return model.fit(X, y, **dict.fromkeys(names, weights))


def weight_names(estimator: Any) -> list[str]:
    """Names under which estimator.fit takes sample weights: "sample_weight", or "step__sample_weight" for a Pipeline.

    With metadata routing enabled the name is always "sample_weight", and steps request it with `set_fit_request`. Raises
    ValueError if no step would receive the weights.
    """
    if sklearn.get_config()["enable_metadata_routing"]:
        return _routed_names(estimator)
    if isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        if last is None or last == "passthrough":
            raise ValueError(f"The last step {name!r} of the Pipeline is {last!r}: nothing would be fitted with the weights.")
        return [f"{name}__{inner}" for inner in weight_names(last)]
    if isinstance(estimator, CalibratedClassifierCV) and isinstance(estimator.estimator, Pipeline):
        return ["sample_weight", *weight_names(estimator.estimator)]
    if takes_sample_weight(estimator.fit):
        return ["sample_weight"]
    if not takes_any_name(estimator.fit):
        raise _no_sample_weight(estimator)
    # A wrapper that forwards its fit parameters takes the name that the wrapped estimator expects.
    inner = wrapped_by(estimator)
    return ["sample_weight"] if inner is None else weight_names(inner)


def _reaching(estimator: Any, X: Any, y: Any) -> tuple[Any, list[str]]:
    """The estimator, or a clone that requests weights by metadata routing, and the names of the weights in its fit."""
    if isinstance(estimator, FrozenEstimator):
        raise ValueError("A FrozenEstimator learns nothing, so no weights can change it: pass its inner estimator, unfitted.")
    names, is_routed = weight_names(estimator), sklearn.get_config()["enable_metadata_routing"]
    parts = learners(estimator)
    _refuse_skorch(parts)
    if is_settled(estimator) and (not is_routed or list(parts) == [""]):
        # A search may give its estimator the weights under a name that does not reach its scores.
        searched = [search.estimator for search in searches(estimator) if wrapped_by(search) is not None]
        is_unscored = any(weight_names(one) != ["sample_weight"] for one in searched)
        asking = _asking(estimator, X, y) if not is_routed and is_unscored else None
        return (estimator, names) if asking is None else (asking, ["sample_weight"])
    failure = _failure(estimator, X, y, names)
    # What scikit-learn says about requests is said by the fit.
    if failure is None or (is_routed and not isinstance(failure, _UnweightedError)):
        return estimator, names
    if is_routed:
        lines = [f"    model.get_params()[{name!r}].set_fit_request(sample_weight=True)" for name in parts]
        raise ValueError("\n".join([f"{failure} With metadata routing every part that learns must request it:", *lines]))
    if (asking := _asking(estimator, X, y)) is not None:
        return asking, ["sample_weight"]
    for learner in parts.values():
        if not takes_sample_weight(learner.fit) and not takes_any_name(learner.fit):
            raise _no_sample_weight(learner)
    raise ValueError(f"{failure} Use an estimator that takes sample_weight everywhere, or {_DRAW}") from failure


def _asking(estimator: Any, X: Any, y: Any) -> Any:
    """A clone that requests the weights by metadata routing, or None if they do not reach every learner that way."""
    asking = asking_for_weights(estimator)
    with routed():
        return asking if _failure(asking, X, y, ["sample_weight"]) is None else None


class _UnweightedError(ValueError):
    """A fit that succeeds without weights."""


def _failure(estimator: Any, X: Any, y: Any, names: list[str]) -> Exception | None:
    """Why the weights do not reach every learner, or None: from fits on a few rows, and on all rows if a few do not suffice."""
    kind, parts, failure = type(estimator).__name__, learners(estimator), None
    for rows in (few_rows(estimator, y), np.arange(len(np.asarray(y)))):
        try:
            missed = unweighted_learners(estimator, X, y, rows, names)
            if missed:
                shown = ", ".join(f"{type(parts[name]).__name__} ({name})" for name in missed)
                return _UnweightedError(f"{kind} does not pass sample_weight on to {shown}.")
            is_named = all(takes_sample_weight(learner.fit) for learner in parts.values())
            if is_named or changes_with_weights(estimator, X, y, rows, names):
                return None
            return _UnweightedError(f"{kind} takes sample_weight, but its predictions do not show it.")
        except Exception as error:
            failure = error
    return failure


def _refuse_skorch(parts: dict[str, Any]) -> None:
    for part in parts.values():
        is_net = any(kind.__module__.startswith("skorch.") for kind in type(part).__mro__)
        if is_net and not takes_sample_weight(part.fit):
            raise ValueError(_SKORCH.format(name=type(part).__name__))


def _routed_names(estimator: Any) -> list[str]:
    if takes_sample_weight(estimator.fit):
        return ["sample_weight"]
    routing = get_routing_for_object(estimator)
    if not isinstance(routing, MetadataRouter):
        raise _no_sample_weight(estimator)
    if not routing.consumes("fit", ["sample_weight"]):
        raise ValueError(
            f"{type(estimator).__name__} passes sample_weight to none of its steps. Metadata routing is enabled: call "
            ".set_fit_request(sample_weight=True) on the step that learns from the weights, and with False on the others."
        )
    return ["sample_weight"]


def _no_sample_weight(estimator: Any) -> ValueError:
    return ValueError(
        f"{type(estimator).__name__} takes no sample_weight in fit, so it can't be weighted. Use an estimator that does, or {_DRAW}"
    )
