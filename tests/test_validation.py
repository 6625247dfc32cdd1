"""Every error of the contract, by the words a person reads."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_array

from densratio import KLIEP, KMM, LSIF, DensityRatio, Wasserstein, stack_domains
from densratio.estimators import IN_LOOPS
from densratio.features import BANDWIDTHS, FEATURES
from densratio.objectives import OBJECTIVES
from densratio.solvers import SOLVERS
from densratio.training import DynamicReweighter

NAMES = sorted(IN_LOOPS)
RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.normal(size=(12, 1)), RNG.normal(0.5, 1.0, size=(9, 1))
X, Y = stack_domains(SOURCE, TARGET)
WIDE = np.hstack([X, X, X])
SHOWN = re.escape("fit(*stack_domains(X_source, X_target))")


def raises(*parts):
    """pytest.raises of a ValueError whose text holds every part, in this order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(parts))


def listed(names):
    """A pattern for the sorted list of known names."""
    return re.escape(", ".join(repr(name) for name in sorted(names)))


@pytest.fixture(params=NAMES)
def ratio(request):
    return IN_LOOPS[request.param]()


# ---------------------------------------------------------------- domain labels


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_three_labels_are_refused_with_what_y_must_be(ratio, method):
    with raises("exactly two values", "0 = source and 1 = target", "got 3 values", "0, 1, 2"):
        getattr(ratio, method)(X, np.arange(len(X)) % 3)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_one_label_is_an_empty_domain(ratio, method, label):
    with raises("domain is empty", "two values, 0 = source and 1 = target", f"{label}", "StratifiedKFold"):
        getattr(ratio, method)(X, np.full(len(X), label))


def test_a_fold_without_source_rows_is_an_empty_domain_to_score(ratio):
    ratio.fit(X, Y)
    with raises("domain is empty", r"StratifiedKFold\(5, shuffle=True\)"):
        ratio.score(TARGET, np.ones(len(TARGET)))


@pytest.mark.parametrize("other", [TARGET, np.hstack([TARGET, TARGET]), torch.tensor(np.hstack([TARGET] * 2))])
def test_a_second_sample_in_the_place_of_y_is_shown_how_to_stack(ratio, other):
    with raises(SHOWN):
        ratio.fit(SOURCE, other)


def test_the_shape_of_a_two_dimensional_y_is_told(ratio):
    with raises(re.escape("(9, 2)"), SHOWN):
        ratio.fit(SOURCE, np.hstack([TARGET, TARGET]))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_missing_y_is_shown_how_to_stack(ratio, method):
    with raises(type(ratio).__name__, "requires y", "0 = source and 1 = target", SHOWN):
        getattr(ratio, method)(X)


def test_y_of_another_length_is_refused_with_both_lengths(ratio):
    with raises("21 rows", "20 labels"):
        ratio.fit(X, Y[:-1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_label_that_is_not_finite_is_refused(ratio, bad):
    y = Y.astype(float)
    y[3] = bad
    with raises("y contains NaN or infinity", "0 = source and 1 = target"):
        ratio.fit(X, y)


# ---------------------------------------------------------------- rows


def spoiled(bad, column=1):
    rows = WIDE.copy()
    rows[4, column] = bad
    return rows


BAD = [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")]


@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize(("bad", "word"), BAD)
@pytest.mark.parametrize("method", ["fit", "partial_fit", "score", "transform"])
def test_the_number_of_the_column_that_is_not_finite_is_told(method, bad, word, as_tensor):
    put = torch.tensor if as_tensor else np.asarray
    ratio = KLIEP().fit(WIDE, Y)
    args = (put(spoiled(bad)),) if method == "transform" else (put(spoiled(bad)), Y)
    with raises(word, r"column 1\b"):
        getattr(ratio, method)(*args)


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize(("bad", "word"), BAD)
def test_the_name_of_the_column_that_is_not_finite_is_told(bad, word, frame):
    rows = frame(dict(zip(["age", "dose", "weight"], spoiled(bad).T, strict=True)))
    with raises(word, "'dose'"):
        KLIEP().fit(rows, Y)


def test_further_columns_that_are_not_finite_are_counted():
    rows = spoiled(np.nan)
    rows[0, 2] = np.inf
    with raises("NaN", r"column 1 and 1 more"):
        LSIF().fit(rows, Y)


@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "torch"])
@pytest.mark.parametrize("method", ["partial_fit", "score", "transform"])
def test_rows_of_another_width_than_in_fit_are_refused_with_both_widths(ratio, method, as_tensor):
    put = torch.tensor if as_tensor else np.asarray
    ratio.partial_fit(put(X), Y)
    args = (put(WIDE),) if method == "transform" else (put(WIDE), Y)
    with raises("X has 3 features", f"{type(ratio).__name__} is expecting 1 features"):
        getattr(ratio, method)(*args)


@pytest.mark.parametrize("as_tensor", [False, True], ids=["numpy", "torch"])
def test_one_dimensional_rows_are_told_to_reshape(ratio, as_tensor):
    rows = torch.tensor(X[:, 0]) if as_tensor else X[:, 0]
    with raises("(?i)2D array", r"reshape\(-1, 1\)"):
        ratio.fit(rows, Y)


# ---------------------------------------------------------------- parameters


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("gamma", [-1.0, 0, 0.0, np.nan, np.inf])
def test_gamma_must_be_a_positive_number(ratio, method, gamma):
    with raises("gamma must be a finite number > 0", listed(BANDWIDTHS), re.escape(repr(gamma))):
        getattr(ratio.set_params(gamma=gamma), method)(X, Y)


@pytest.mark.parametrize("gamma", [None, [None, 1.0], "1.0"], ids=repr)
def test_gamma_of_another_type_is_refused_with_the_known_rules(ratio, gamma):
    with raises("gamma", listed(BANDWIDTHS)):
        ratio.set_params(gamma=gamma).fit(X, Y)


UNKNOWN = [("gamma", BANDWIDTHS), ("kernel", FEATURES), ("solver", [*SOLVERS, "auto"])]


@pytest.mark.parametrize(("parameter", "known"), UNKNOWN)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_an_unknown_name_is_refused_with_the_known_ones(ratio, method, parameter, known):
    with raises(f"{parameter}='mediann'", "known", listed(known)):
        getattr(ratio.set_params(**{parameter: "mediann"}), method)(X, Y)


@pytest.mark.parametrize("objective", ["klieb", None, 3], ids=repr)
def test_an_unknown_objective_is_refused_with_the_known_ones(objective):
    with raises(re.escape(f"objective={objective!r}"), "known", listed(OBJECTIVES)):
        DensityRatio(objective).fit(X, Y)


OUT_OF_RANGE = [
    (KLIEP, "n_centers", [0, -3, 2.5], "n_centers must be an int >= 1 or None"),
    (LSIF, "n_centers", [0, -3, 2.5], "n_centers must be an int >= 1 or None"),
    (KMM, "n_centers", [0, -3, 2.5], "n_centers must be an int >= 1 or None"),
    (KMM, "max_weight", [0.5, 0.0, -1.0, np.nan], r"max_weight must be a number in \[1, inf\]"),
    (Wasserstein, "max_weight", [0.5, 0.0, -1.0, np.nan], r"max_weight must be a number in \[1, inf\]"),
    (KMM, "mean_tol", [-0.1, 1.0, np.nan, "dwi"], r'mean_tol must be a number in \[0, 1\) or "diw"'),
    (KMM, "regularization", [-1.0, np.inf, np.nan], r"regularization must be a number in \[0, inf\)"),
    (LSIF, "regularization", [-1.0, np.inf, np.nan], r"regularization must be a number in \[0, inf\)"),
    (LSIF, "l1_ratio", [-0.1, 1.1, np.nan], r"l1_ratio must be a number in \[0, 1\]"),
    *[(kind, "tol", [0.0, -1.0, np.nan], r"tol must be a number in \(0, inf\]") for kind in IN_LOOPS.values()],
    *[(kind, "max_iter", [0, -1, "cv", 2.5], "max_iter must be an int >= 1") for kind in IN_LOOPS.values()],
    *[(kind, "n_steps", [0, -1, "cv"], "n_steps must be an int >= 1") for kind in IN_LOOPS.values()],
]


@pytest.mark.parametrize(
    ("kind", "parameter", "value", "words"),
    [
        pytest.param(kind, parameter, value, words, id=f"{kind.__name__}-{parameter}={value!r}")
        for kind, parameter, values, words in OUT_OF_RANGE
        for value in values
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_parameter_out_of_range_is_refused_with_its_range_and_value(method, kind, parameter, value, words):
    with raises(words, re.escape(repr(value))):
        getattr(kind(**{parameter: value}), method)(X, Y)


def test_a_refused_parameter_leaves_the_estimator_unfitted(ratio):
    with raises("gamma must be"):
        ratio.set_params(gamma=-1.0).fit(X, Y)
    assert not hasattr(ratio, "weights_")
    assert ratio.set_params(gamma=1.0).partial_fit(X, Y).weights_.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("kernel", ["nystroem", "random_fourier"])
def test_kliep_refuses_features_that_may_be_negative_and_names_those_that_fit(kernel):
    with raises("KLIEP needs features >= 0", kernel, listed(["gaussian", "laplacian"])):
        KLIEP(kernel=kernel).fit(X, Y)


@pytest.mark.parametrize("kernel", ["nystroem", "random_fourier"])
@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_lsif_takes_features_of_either_sign_only_with_coefficients_of_either_sign(kernel, l1_ratio):
    with raises("LSIF needs features >= 0", kernel, "or nonnegative=False."):
        LSIF(kernel=kernel, l1_ratio=l1_ratio).fit(X, Y)
    assert LSIF(kernel=kernel, l1_ratio=l1_ratio, nonnegative=False, regularization=0.1).fit(X, Y).residual_ <= 1e-5


def test_a_device_that_is_not_there_is_refused_with_the_way_out(ratio):
    with raises('device="abacus"', 'device="cpu"'):
        ratio.set_params(device="abacus").fit(X, Y)


# ---------------------------------------------------------------- stack_domains


@pytest.mark.parametrize("put", [np.asarray, torch.tensor, pd.DataFrame, pl.DataFrame])
@pytest.mark.parametrize("which", ["source", "target"])
def test_an_empty_sample_is_refused_by_name(put, which):
    samples = {"source": put(SOURCE), "target": put(TARGET)}
    samples[which] = samples[which][:0]
    with raises(f"The {which} sample is empty"):
        stack_domains(samples["source"], samples["target"])


@pytest.mark.parametrize("put", [np.asarray, torch.tensor])
def test_samples_of_different_widths_are_refused_with_both_widths(put):
    with raises("differ in their columns", "source has 1", "target has 3"):
        stack_domains(put(SOURCE), put(WIDE))


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_frames_of_different_columns_are_refused_with_their_names(frame):
    with raises("differ in their columns", r"only the source has \['dose'\]", r"only the target has \['mass'\]"):
        stack_domains(frame({"age": [1.0], "dose": [2.0]}), frame({"age": [1.0], "mass": [2.0]}))


@pytest.mark.parametrize("put", [np.asarray, torch.tensor, list])
@pytest.mark.parametrize("which", ["source", "target"])
def test_a_one_dimensional_sample_is_told_to_reshape(put, which):
    samples = {"source": put(SOURCE), "target": put(TARGET)}
    samples[which] = put([1.0, 2.0])
    with raises(f"The {which} sample must be 2-D", "1-D", re.escape("X.reshape(-1, 1)")):
        stack_domains(samples["source"], samples["target"])


@pytest.mark.parametrize("tensor_first", [True, False])
def test_a_tensor_and_an_array_are_refused(tensor_first):
    pair = (torch.tensor(SOURCE), TARGET)
    with raises("torch tensor and the other is not", "both"):
        stack_domains(*(pair if tensor_first else pair[::-1]))


# ---------------------------------------------------------------- index of partial_fit


@pytest.mark.parametrize("kind", [KMM, Wasserstein])
@pytest.mark.parametrize(
    ("index", "words"),
    [
        (np.arange(11), ["batch has 12 rows", "has 11"]),
        (np.arange(12) - 1, ["index must be >= 0", "-1"]),
        (np.arange(12.0), ["integers", "float64"]),
        (np.arange(12)[:, None], ["integers", re.escape("(12, 1)")]),
        (np.arange(12) > 3, ["integers", "bool"]),
    ],
    ids=["short", "negative", "float", "2-D", "bool"],
)
def test_an_index_that_does_not_name_the_rows_is_refused_and_no_weight_changes(kind, index, words):
    ratio = kind().partial_fit(X, Y, index=np.arange(12))
    before = ratio.weights_.copy()
    with raises(*words):
        ratio.partial_fit(X, Y, index=index)
    assert np.array_equal(ratio.weights_, before)


@pytest.mark.parametrize("kind", [KMM, Wasserstein])
def test_another_batch_without_index_is_told_to_give_one(kind):
    ratio = kind().partial_fit(X, Y)
    with raises("12 source rows", "this batch has 11", "index="):
        ratio.partial_fit(X[1:], Y[1:])


@pytest.mark.parametrize("kind", [KLIEP, LSIF])
def test_an_index_where_no_row_has_a_weight_is_refused(kind):
    with raises("index names stored weights of source rows", kind.__name__, "one coefficient per center"):
        kind().partial_fit(X, Y, index=np.arange(12))


# ---------------------------------------------------------------- the training room

N_TRAIN, N_VAL = 20, 10


@pytest.fixture(params=NAMES)
def reweighter(request):
    """One that has left uniform weights behind."""
    made = DynamicReweighter(request.param, N_TRAIN, N_VAL, warmup_epochs=0)
    return made.partial_fit(torch.linspace(0, 2, N_TRAIN), torch.linspace(0, 1, N_VAL), torch.arange(N_TRAIN))


def snapshot(reweighter):
    return {
        key: value.clone() if isinstance(value, torch.Tensor) else dict(value) for key, value in reweighter.state_dict().items()
    }


def unchanged(reweighter, before):
    after = reweighter.state_dict()
    return before.keys() == after.keys() and all(
        torch.equal(after[key], value) if isinstance(value, torch.Tensor) else after[key] == value for key, value in before.items()
    )


def ones(n, bad=()):
    losses = torch.linspace(0.5, 1.5, n)
    for row, value in bad:
        losses[row] = value
    return losses


REFUSED = {
    "index too large": ((ones(4), ones(10), [0, 3, 20, 1]), ["index 20 is out of range", "largest allowed is 19"]),
    "index negative": ((ones(4), ones(10), [0, -1, 2, 1]), ["index must be >= 0", "-1"]),
    "index too short": ((ones(4), ones(10), [0, 1, 2]), ["batch has 4 rows", "index has 3"]),
    "index not integer": ((ones(4), ones(10), torch.ones(4)), ["index must be", "integers", "float32"]),
    "val_index too large": ((ones(4), ones(2), [0, 1, 2, 3], [10, 1]), ["val_index 10 is out of", "allowed is 9"]),
    "val_index too short": ((ones(4), ones(2), [0, 1, 2, 3], [1]), ["batch has 2 rows", "val_index has 1"]),
    "NaN": ((ones(3, [(1, np.nan)]), ones(10), [7, 5, 2]), [r"NaN or infinity in training rows \[5\]", "1 of 3"]),
    "infinity": ((ones(3, [(0, np.inf), (2, -np.inf)]), ones(10), [7, 5, 2]), [r"training rows \[7, 2\]", "2 of 3"]),
    "NaN in val": ((ones(2), ones(2, [(1, np.nan)]), [7, 5], [4, 8]), [r"in validation rows \[8\]", "1 of 2"]),
    "widths differ": ((ones(2)[:, None], torch.ones(10, 2), [1, 2]), ["train has 1 columns and val has 2"]),
    "three dimensions": ((torch.ones(2, 1, 1), ones(10), [1, 2]), [r"must be \(n,\) or \(n, d\)", r"\(2, 1, 1\)"]),
    "no training row": ((ones(0), ones(10), torch.arange(0)), ["training batch has no rows"]),
    "no validation row": ((ones(2), ones(0), [1, 2], torch.arange(0)), ["validation batch has no rows"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_batch_is_named_and_leaves_the_stored_state_as_it_was(reweighter, case):
    args, words = REFUSED[case]
    before = snapshot(reweighter)
    assert len(before) >= 2 and not torch.equal(before["weights_"], torch.ones(N_TRAIN))
    with raises(*words):
        reweighter.partial_fit(*args)
    assert unchanged(reweighter, before)


def test_a_loop_with_losses_that_are_not_finite_stops_before_any_stored_weight_changes(reweighter):
    model = torch.nn.Linear(2, 3)
    before = snapshot(reweighter)
    x, y = torch.randn(4, 2), torch.tensor([0, 1, 2, 0])
    x[2] = torch.nan
    clean = (torch.randn(N_VAL, 2), torch.arange(N_VAL) % 3, torch.arange(N_VAL))
    with raises(r"NaN or infinity in training rows \[11\]", "stored weights are unchanged", "learning rate"):
        reweighter.weighted_loss(model, (x, y, torch.tensor([3, 9, 11, 4])), clean)
    assert unchanged(reweighter, before)


def test_kliep_and_lsif_alone_need_to_know_the_validation_rows_of_a_part():
    batch = (ones(4), ones(3), torch.arange(4))
    for name in ("kliep", "lsif"):
        reweighter = DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0)
        with raises("val_index is needed", "10 validation rows", "batch has 3", "Indexed"):
            reweighter.partial_fit(*batch)
    for name in ("kmm", "wasserstein"):
        reweighter = DynamicReweighter(name, N_TRAIN, N_VAL, warmup_epochs=0).partial_fit(*batch)
        assert not torch.equal(reweighter.weights_, torch.ones(N_TRAIN))


# Wasserstein takes the losses themselves, so that a loop asks it for no kernel.
WRONG = [(name, *wrong) for name in NAMES for wrong in (("gamma", -1.0), ("kernel", "gauss")) if name != "wasserstein"]
WRONG += [(name, "solver", "newton") for name in NAMES]


@pytest.mark.parametrize(("name", "parameter", "value"), WRONG)
def test_a_wrong_parameter_of_the_ratio_is_refused_before_the_warm_up_is_over(name, parameter, value):
    ratio = IN_LOOPS[name](**{parameter: value})
    with raises(parameter):
        DynamicReweighter(ratio, N_TRAIN, N_VAL).partial_fit(ones(4), ones(N_VAL), torch.arange(4))


@pytest.mark.parametrize("unknown", ["klieb", None, KLIEP])
def test_an_unknown_ratio_is_refused_with_the_known_ones(unknown):
    with raises("ratio must be", listed(IN_LOOPS), re.escape(repr(unknown))):
        DynamicReweighter(unknown, N_TRAIN, N_VAL)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"n_train": 0}, ["n_train must be an int >= 1", "0"]),
        ({"n_val": 0}, ["n_val must be an int >= 1", "0"]),
        ({"warmup_epochs": -1}, ["warmup_epochs must be a number in", "-1"]),
        ({"warmup_epochs": float("nan")}, ["warmup_epochs must be a number in", "nan"]),
        ({"warmup_steps": -1}, ["warmup_steps must be a number in", "-1"]),
    ],
    ids=str,
)
def test_a_size_or_warm_up_out_of_range_is_refused(params, words):
    with raises(*words):
        DynamicReweighter("kmm", **{"n_train": 5, "n_val": 5, **params})


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (KMM(regularization="a"), "regularization"),
        (KMM(regularization=["a", 1.0]), "regularization"),
        (KMM(max_weight="a"), "max_weight"),
        (KMM(approximation="nystrom"), "approximation"),
        (LSIF(alpha="a"), "alpha"),
        (LSIF(alpha=1.0), "alpha"),
        (LSIF(l1_ratio="a"), "l1_ratio"),
        (LSIF(nonnegative="no"), "nonnegative"),
        (KLIEP(tol="a"), "tol"),
        (KLIEP(gamma=True), "gamma"),
    ],
    ids=str,
)
def test_a_parameter_of_another_type_is_a_value_error_that_names_it(ratio, name):
    with pytest.raises(ValueError, match=name):
        ratio.fit(X, Y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_whose_squares_overflow_are_refused_with_their_column(dtype):
    rows = np.ones((6, 2), dtype=dtype)
    rows[3, 1] = np.finfo(dtype).max / 10.0
    for given in (rows, csr_array(rows)):
        with pytest.raises(ValueError, match=r"in column 1, and squares of more than .* overflow"):
            LSIF(scale=None).fit(given, [0, 0, 0, 1, 1, 1])
        # Scaled values are small enough.
        assert np.isfinite(LSIF().fit(given, [0, 0, 0, 1, 1, 1]).weights_).all()


@pytest.mark.parametrize(
    ("ratio", "solver"), [(KMM, "closed_form"), (KLIEP, "active_set"), (LSIF, "likelihood_newton"), (Wasserstein, "active_set")]
)
def test_a_solver_that_does_not_suit_is_named_as_it_was_given_and_says_what_it_solves(ratio, solver):
    rows = X[:, :1]
    with pytest.raises(ValueError, match=rf'^solver=.{solver}. cannot fit {ratio.__name__} .*: it solves problems .*solver="auto"'):
        ratio(solver=solver).fit(rows, Y)
