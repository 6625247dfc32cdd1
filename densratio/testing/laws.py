"""Check a law: run it on drawn cases, name it if it breaks, and compare numbers with tolerances for rounding."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from .._arrays import Array, to_host

__all__ = ["array_libraries", "at_most", "check_is_a", "close", "hold", "largest", "length", "numbers", "short"]


def hold(law: Callable[[Any], None], cases: SearchStrategy[Any], max_examples: int | None) -> None:
    """Run `law` on drawn cases under the loaded hypothesis profile; `max_examples` overrides its number of examples."""
    bounded: dict[str, Any] = {} if max_examples is None else {"max_examples": max_examples}

    @settings(
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        **bounded,
    )
    @given(cases)
    def holds(case: Any) -> None:
        try:
            # Laws visit corner cases in which a division by zero is masked afterwards; only results are checked.
            with np.errstate(all="ignore"):
                law(case)
        except Exception as error:
            statement = law.__name__.strip("_").replace("_", " ")
            what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"law: {statement}\nbroken by {case!r}\n{what}") from error

    holds()


def check_is_a(kind: type, given: Any, name: str, call: str) -> None:
    """Raise TypeError unless `given`, the argument `name` of `call`, is an instance of `kind`."""
    if isinstance(given, type):
        example = call.replace(f"({name}", f"({given.__name__}()").replace(f" {name}", f" {given.__name__}()")
        raise TypeError(f"{name} is the class {given.__name__}; give an instance of it: {example}.")
    if not isinstance(given, kind):
        raise TypeError(f"{name} must be an instance of {kind.__name__}; got {given!r}. The call is {call}.")


def close(actual: Any, expected: Any, atol: float, what: str) -> None:
    """Raise unless the arrays have the same shape and agree within atol; NaN does not agree with anything."""
    actual, expected = numbers(actual), numbers(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {actual.shape} instead of {expected.shape}")
    difference = float(np.max(np.abs(actual - expected), initial=0.0))
    if not difference <= atol:
        raise AssertionError(f"{what}: {short(actual)} instead of {short(expected)}, off by {difference:.3g} > {atol:.3g}")


def at_most(actual: float, bound: float, what: str) -> None:
    """Raise unless actual <= bound; raises for NaN."""
    if not actual <= bound:
        raise AssertionError(f"{what}: {actual:.10g} > {bound:.10g}")


def numbers(x: Any) -> np.ndarray:
    """An array of any library as a float64 numpy array."""
    return np.asarray(to_host(x), dtype=np.float64)


def short(x: np.ndarray) -> str:
    """An abbreviated array, for messages."""
    return np.array2string(x, precision=6, threshold=8, edgeitems=3)


def largest(x: np.ndarray) -> float:
    """Largest absolute entry, 0 of an empty array."""
    return float(np.max(np.abs(x), initial=0.0))


def length(x: np.ndarray) -> float:
    """Euclidean norm, without overflow or underflow of the squares."""
    size = largest(x) or 1.0
    return size * float(np.linalg.norm(x / size))


def array_libraries() -> dict[str, Callable[[np.ndarray], Array]]:
    """For each installed array library, a function that converts numpy arrays to its arrays."""
    found: dict[str, Callable[[np.ndarray], Array]] = {"numpy": np.asarray}
    if importlib.util.find_spec("array_api_strict"):
        found["array_api_strict"] = importlib.import_module("array_api_strict").asarray
    if importlib.util.find_spec("torch"):
        found["torch"] = importlib.import_module("torch").asarray
    return found
