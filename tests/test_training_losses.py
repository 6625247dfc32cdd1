"""Losses for wrong labels and unequal classes, against their formulas, and each other's limits."""

from __future__ import annotations

import contextlib
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_steps import Tape
from small_loops import as_on_a_device
from torch.nn import functional

from densratio.training.losses import (
    backward_corrected,
    cross_entropy,
    focal,
    forward_corrected,
    generalized_cross_entropy,
    label_margins,
    pixel_cross_entropy,
    symmetric_cross_entropy,
    token_cross_entropy,
)

N, C = 12, 4
drawn = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 10**6)


def rows(seed):
    draws = torch.Generator().manual_seed(seed)
    logits = 3.0 * torch.randn(N, C, generator=draws, dtype=torch.float64)
    y = torch.randint(C, (N,), generator=draws)
    p = torch.softmax(logits, dim=1)
    return logits, y, p, p[torch.arange(N), y]


@drawn
@given(seed=seeds, gamma=st.floats(0.0, 5.0), q=st.floats(0.05, 1.0))
def test_focal_and_generalized_losses_are_their_formulas(seed, gamma, q):
    logits, y, _, own = rows(seed)
    torch.testing.assert_close(focal(logits, y, gamma), -((1.0 - own) ** gamma) * own.log())
    torch.testing.assert_close(generalized_cross_entropy(logits, y, q), (1.0 - own**q) / q)


@drawn
@given(seed=seeds)
def test_the_generalized_loss_lies_between_cross_entropy_and_the_absolute_error(seed):
    logits, y, p, _ = rows(seed)
    torch.testing.assert_close(generalized_cross_entropy(logits, y, 1e-9), cross_entropy(logits, y), rtol=1e-6, atol=1e-9)
    absolute = (p - functional.one_hot(y, C)).abs().sum(dim=1) / 2.0
    torch.testing.assert_close(generalized_cross_entropy(logits, y, 1.0), absolute)


@drawn
@given(seed=seeds)
def test_forward_correction_is_the_cross_entropy_of_the_noisy_probabilities(seed):
    logits, y, p, _ = rows(seed)
    transition = np.random.default_rng(seed).dirichlet(np.ones(C), size=C)
    noisy = p @ torch.as_tensor(transition)
    torch.testing.assert_close(forward_corrected(transition)(logits, y), -noisy[torch.arange(N), y].log())
    torch.testing.assert_close(forward_corrected(np.eye(C))(logits, y), cross_entropy(logits, y))


@drawn
@given(seed=seeds, sharpness=st.floats(0.3, 3.0))
def test_backward_correction_is_unbiased_and_so_is_its_gradient(seed, sharpness):
    """Its mean over the noisy labels that each row may have is the cross entropy of its right label."""
    logits, y, _, _ = rows(seed)
    transition = np.random.default_rng(seed).dirichlet(np.ones(C), size=C) + sharpness * np.eye(C)
    transition = torch.as_tensor(transition / transition.sum(axis=1, keepdims=True))
    loss, logits = backward_corrected(transition.tolist()), logits.requires_grad_()
    mean = sum(transition[y, noisy] * loss(logits, torch.full((N,), noisy)) for noisy in range(C))
    clean = functional.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(mean, clean, rtol=1e-6, atol=1e-8)
    slopes = [torch.autograd.grad(each.sum(), logits, retain_graph=True)[0] for each in (mean, clean)]
    torch.testing.assert_close(*slopes, rtol=1e-6, atol=1e-8)


@drawn
@given(seed=seeds, alpha=st.floats(0.0, 6.0), beta=st.floats(0.0, 2.0), log_zero=st.floats(-9.0, -1.0))
def test_the_symmetric_loss_sums_both_cross_entropies_with_a_number_for_the_logarithm_of_0(seed, alpha, beta, log_zero):
    logits, y, p, own = rows(seed)
    log_label = torch.where(functional.one_hot(y, C) == 1, 0.0, log_zero)
    expected = -alpha * own.log() - beta * (p * log_label).sum(dim=1)
    torch.testing.assert_close(symmetric_cross_entropy(logits, y, alpha, beta, log_zero), expected)


@drawn
@given(seed=seeds)
def test_the_margin_of_a_class_is_the_fourth_root_of_its_size(seed):
    logits, y, _, _ = rows(seed)
    sizes = np.random.default_rng(seed).integers(1, 1000, C)
    by_hand = logits.clone()
    for row, label in enumerate(y):
        by_hand[row, label] -= 0.5 * (sizes.min() / sizes[label]) ** 0.25
    torch.testing.assert_close(label_margins(sizes)(logits, y), functional.cross_entropy(30.0 * by_hand, y, reduction="none"))


@pytest.mark.parametrize(
    "loss", [forward_corrected(np.full((C, C), 1.0 / C)), backward_corrected(np.eye(C)), label_margins([5, 4, 3, 2])]
)
def test_a_loss_with_a_parameter_survives_pickling(loss):
    logits, y, _, _ = rows(0)
    assert torch.equal(pickle.loads(pickle.dumps(loss))(logits, y), loss(logits, y))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: forward_corrected(np.ones((2, 2))), r"transition must be \(C, C\), rows of sum 1"),
        (lambda: forward_corrected([[2.0, -1.0], [0.0, 1.0]]), "entries >= 0"),
        (lambda: backward_corrected(np.ones((2, 2))), r"transition must be \(C, C\), rows of sum 1"),
        (lambda: backward_corrected(np.full((2, 2), 0.5)), "must have an inverse; this one has none. forward_corrected takes it"),
        (lambda: backward_corrected(np.eye(3))(torch.zeros(1, 2), torch.tensor([0])), r"logits must be \(n, 3\); got \(1, 2\)"),
        (lambda: symmetric_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), -0.1), r"alpha must be a number in \[0, inf\)"),
        (lambda: symmetric_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), log_zero=1.0), "-log_zero must be a number in"),
        (lambda: label_margins([3, 0]), r"class_sizes must be \(C,\) numbers > 0"),
        (lambda: generalized_cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 0.0), r"q must be a number in \(0, 1\]"),
        (lambda: focal(torch.zeros(1, 2), torch.tensor([0]), -1.0), r"gamma must be a number in \[0, inf\); got -1.0"),
        (lambda: focal(torch.zeros(1, 2), torch.tensor([0]), float("inf")), r"gamma must be a number in \[0, inf\); got inf"),
        (lambda: forward_corrected(np.eye(3))(torch.zeros(1, 2), torch.tensor([0])), r"logits must be \(n, 3\); got \(1, 2\)"),
        (lambda: label_margins([3, 4, 5])(torch.zeros(1, 2), torch.tensor([0])), r"class_sizes has 3 classes.*got \(1, 2\)"),
    ],
)
def test_a_parameter_out_of_range_is_told(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ---------------------------------------------------------------- labels of no class


CLASS_LOSSES = {
    "cross entropy": cross_entropy,
    "focal": focal,
    "generalized": generalized_cross_entropy,
    "symmetric": symmetric_cross_entropy,
    "forward": forward_corrected(np.full((C, C), 0.1) + 0.6 * np.eye(C)),
    "backward": backward_corrected(np.full((C, C), 0.1) + 0.6 * np.eye(C)),
    "margins": label_margins([4, 3, 2, 1]),
    "tokens": lambda logits, y: token_cross_entropy(logits[:, None], y[:, None]),
    "pixels": lambda logits, y: pixel_cross_entropy(logits[:, :, None, None], y[:, None, None]),
}


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_row_of_the_label_that_stands_for_none_has_no_loss_and_no_gradient(name):
    logits, y, _, _ = rows(0)
    expected = CLASS_LOSSES[name](logits, y)
    y[3] = -100
    logits.requires_grad_()
    for on_a_device in (contextlib.nullcontext, as_on_a_device):
        with on_a_device():
            losses = CLASS_LOSSES[name](logits, y)
        assert float(losses[3].detach()) == 0.0
        torch.testing.assert_close(losses[y >= 0], expected[y >= 0])
        assert not torch.autograd.grad(losses.sum(), logits)[0][3].any()


@pytest.mark.parametrize("label", [-1, C, 1000])
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_labels_of_no_class_are_told_on_the_host_and_marked_without_a_look_on_a_device(name, label):
    logits, y, _, _ = rows(0)
    expected = CLASS_LOSSES[name](logits, y)
    y[[3, 5]] = label
    least, most = min(0, label), max(C - 1, label)
    words = rf"has 4 classes and the labels go from {least} to {most}: row 3 of the batch has {label}, and 2 of the 12 rows"
    with pytest.raises(ValueError, match=words):
        CLASS_LOSSES[name](logits, y)
    logits.requires_grad_()
    with as_on_a_device(), Tape():
        losses = CLASS_LOSSES[name](logits, y)
    marked = losses == -float("inf")
    assert marked.nonzero()[:, 0].tolist() == [3, 5]
    torch.testing.assert_close(losses[~marked], expected[~marked])
    gradient = torch.autograd.grad(losses.sum(), logits)[0]
    assert bool(gradient.isfinite().all()) and not gradient[[3, 5]].any()


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integer_labels_of_any_width_are_classes(dtype):
    logits, y, _, _ = rows(1)
    torch.testing.assert_close(cross_entropy(logits, y.to(dtype)), cross_entropy(logits, y))


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_no_loss_looks_at_a_value_on_the_host_so_it_is_mapped_by_vmap(name):
    logits, y, _, _ = rows(2)
    y[3] = -100
    each = torch.func.vmap(lambda row, label: CLASS_LOSSES[name](row[None], label[None])[0])
    torch.testing.assert_close(each(logits, y), CLASS_LOSSES[name](logits, y))


@pytest.mark.parametrize("name", ["cross entropy", "forward", "backward", "margins"])
def test_a_compiled_loss_has_no_break(name):
    logits, y, _, _ = rows(2)
    compiled = torch.compile(CLASS_LOSSES[name], backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, y), CLASS_LOSSES[name](logits, y))


@pytest.mark.parametrize("name", ["forward", "backward", "margins"])
@pytest.mark.parametrize("wrong", [torch.float32, (N, 1), (N, C)])
def test_losses_of_classes_alone_take_no_fractions_for_labels(name, wrong):
    logits, y, _, _ = rows(2)
    y = y.to(wrong) if isinstance(wrong, torch.dtype) else torch.ones(wrong).long()
    with pytest.raises(ValueError, match=rf"labels are the class of each row, \(12,\) integers; got \({y.shape[0]},.* of torch"):
        CLASS_LOSSES[name](logits, y)
