"""What every generator of data says of a parameter that is none: one message that names it."""

from __future__ import annotations

import numpy as np
import pytest

from densratio import datasets

RNG = np.random.default_rng(0)
LABELS, ROWS, IMAGES = np.arange(60) % 3, RNG.normal(size=(60, 4)), RNG.random((60, 1, 8, 8))
POSTERIORS = RNG.dirichlet(np.ones(3), 60)
SIZES, SHIFT = {"n_source": 9, "n_target": 9, "n_columns": 5}, {"shift": 1.0, "noise": 0.1}
GIVEN = {
    "input_noise": {"inputs": IMAGES, "kind": "zoom", "rate": 0.5, "strength": 2.0},
    "label_noise": {"labels": LABELS, "kind": "asymmetric", "rate": 0.3, "n_classes": 3, "mapping": {0: 1}},
    "transition_matrix": {"kind": "asymmetric", "rate": 0.3, "n_classes": 3, "mapping": {0: 1}},
    "feature_dependent_noise": {
        "labels": LABELS, "posteriors": POSTERIORS, "kind": "I", "rate": 0.3, "then": ("asymmetric", 0.1), "mapping": {0: 1},
    },
    "flip_probabilities": {"posteriors": POSTERIORS, "kind": "I", "rate": 0.3},
    "instance_dependent_noise": {"labels": LABELS, "inputs": ROWS, "rate": 0.3, "spread": 0.1, "n_classes": 3},
    "out_of_fold_posteriors": {"X": ROWS, "y": LABELS, "n_folds": 3, "n_classes": 3},
    "long_tail": {"labels": LABELS, "factor": 3.0, "n_classes": 3},
    "step_imbalance": {"labels": LABELS, "ratio": 3.0, "fraction": 0.5, "n_classes": 3},
    "open_set_rows": {"n": 10, "rate": 0.3, "n_outside": 4},
    "make_gaussian_shift": {**SIZES, **SHIFT, "scale": 0.7},
    "make_heavy_tails": {**SIZES, **SHIFT, "scale": 0.7, "df_source": 3.0, "df_target": 3.0},
    "make_mixture_shift": {
        **SIZES, "n_columns": 2, "means": np.eye(2), "target_means": np.eye(2), "source_weights": (0.5, 0.5),
        "target_weights": (0.5, 0.5), "scales": 1.0, "noise": 0.1,
    },
    "make_subspace_shift": {**SIZES, **SHIFT, "n_directions": 2, "scale": 0.7},
    "make_selection_bias": {
        "X": ROWS, "labels": LABELS, "kind": "feature", "column": 0, "threshold": 0.1, "probabilities": (0.2, 0.8), "n_source": 5,
        "n_target": 5,
    },
}  # fmt: skip
HAVE_NO_DRAWS = {"transition_matrix", "flip_probabilities"}
WRONG = [["zoom"], {"a": 1}, "text", object(), np.array([1.0, 2.0]), b"x", 1j, -1.5, [[1], [2, 3]]]
CASES = [
    (name, parameter)
    for name, given in GIVEN.items()
    for parameter in [*given, *(["random_state"] if name not in HAVE_NO_DRAWS else [])]
    if parameter not in ("labels", "X", "y")
]


@pytest.mark.parametrize(("name", "parameter"), CASES)
def test_a_parameter_that_is_none_is_named_in_one_message(name, parameter):
    """Whatever it is, also a value without a hash or an order; some wrong ones are right for a few parameters."""
    make, refused = getattr(datasets, name), 0
    make(**GIVEN[name])
    for value in WRONG:
        try:
            make(**{**GIVEN[name], parameter: value})
        except ValueError as error:
            words = {"inputs": ("inputs", "images"), "then": ("then", "Noise kind")}.get(parameter, (parameter,))
            assert any(word in str(error) for word in words)
            refused += 1
    assert refused >= len(WRONG) - 3
