"""Passes sample weights to an estimator's fit: directly, under a Pipeline's step name, through wrappers, or by metadata routing."""

from __future__ import annotations

import warnings
from inspect import Parameter, signature
from typing import Any

import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRouter, get_routing_for_object

__all__ = ["fit_weighted", "takes_any_name", "takes_sample_weight", "weight_names"]


def fit_weighted(estimator: Any, X: Any, y: Any, weights: np.ndarray) -> Any:
    """estimator.fit(X, y) with `weights` (n,) under every name that `weight_names` gives."""
    names = weight_names(estimator)
    with warnings.catch_warnings():
        if len(names) > 1:
            # The warning says that the weights do not reach the inner estimator; they do, under their second name.
            warnings.filterwarnings("ignore", message="Since .* does not appear to accept sample_weight")
        return estimator.fit(X, y, **dict.fromkeys(names, weights))


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
    inner = getattr(estimator, "estimator", getattr(estimator, "regressor", None))
    return ["sample_weight"] if inner is None else weight_names(inner)


def takes_sample_weight(method: Any) -> bool:
    """Whether a callable has a parameter called sample_weight."""
    return "sample_weight" in signature(method).parameters


def takes_any_name(method: Any) -> bool:
    """Whether a callable takes arbitrary keyword arguments."""
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in signature(method).parameters.values())


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
        f"{type(estimator).__name__} takes no sample_weight in fit, so it can't be weighted. Use an estimator that does, or fit "
        "this one on rows drawn in proportion to w = ratio.transform(X): rows = rng.choice(len(w), size=len(w), p=w / w.sum())."
    )
