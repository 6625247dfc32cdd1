"""What the frameworks share: validation batches, the state of a loop, the page, and imports that cost nothing."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import re
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from integration_cases import (
    N_COLUMNS,
    N_TRAIN,
    TRAIN,
    TRAIN_SET,
    VAL,
    VAL_SET,
    Classifier,
    columns,
    dynamic,
    network,
    one_thread,  # noqa: F401
    same,
)
from torch import nn
from torch.utils.data import TensorDataset

from densratio.training import Indexed, Uniform
from densratio.training.integrations import LoopState, ValidationBatches
from densratio.training.integrations.validation import _batches_of_rows

PAGE = Path(__file__).parent.parent / "docs" / "integrations.md"


@given(st.integers(1, 30), st.integers(1, 10), st.integers(0, 5), st.integers(0, 3))
def test_every_pass_over_the_validation_rows_is_a_new_permutation(n, size, seed, passes):
    stream = _batches_of_rows(n, size, seed, 0, 0, 1)
    flat = np.concatenate([next(stream) for _ in range(-(-n * (passes + 1) // size))])[: n * (passes + 1)].reshape(-1, n)
    assert np.array_equal(np.sort(flat, axis=1), np.tile(np.arange(n), (passes + 1, 1)))
    if n >= 20 and passes:
        assert not np.array_equal(flat[0], flat[1])


@given(st.integers(1, 30), st.integers(1, 10), st.integers(2, 3), st.integers(0, 5))
def test_the_ranks_share_the_rows_of_one_process_with_larger_batches(n, size, ranks, steps):
    whole = _batches_of_rows(n, size * ranks, 0, 0, 0, 1)
    parts = [_batches_of_rows(n, size, 0, 0, rank, ranks) for rank in range(ranks)]
    for _ in range(steps):
        assert next(whole) == [row for part in parts for row in next(part)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9), st.booleans())
def test_validation_batches_go_on_where_they_were(n, size, drawn, by_pickle):
    def new():
        return ValidationBatches(TensorDataset(torch.arange(n)), size, seed=3)

    batches = new()
    for _ in range(drawn):
        next(batches)
    resumed = pickle.loads(pickle.dumps(batches)) if by_pickle else new()
    resumed.rows_drawn = batches.rows_drawn
    for _ in range(4):
        ([x], index), ([x_2], index_2) = next(batches), next(resumed)
        assert torch.equal(x, x_2) and torch.equal(index, index_2) and torch.equal(x, index) and len(x) == min(size, n)


def test_workers_that_load_ahead_give_the_same_validation_batches():
    one, several = (ValidationBatches(VAL_SET, 7, num_workers=n) for n in (0, 2))
    first = [next(several) for _ in range(3)]
    several.rows_drawn = 7
    assert same(list(islice(one, 6)), [first[0], *islice(several, 5)])


def test_drawing_validation_batches_leaves_the_global_random_state():
    before = torch.random.get_rng_state()
    assert len(list(islice(ValidationBatches(VAL_SET, 7), 9))) == 9
    assert torch.equal(torch.random.get_rng_state(), before)


def test_with_val_refresh_no_more_validation_rows_are_loaded():
    state = LoopState(dynamic(val_refresh=4), Indexed(VAL_SET), 16)
    (x, y), index = next(state.batches)
    assert x.shape == (4, N_COLUMNS) and len(y) == len(index) == 4


def test_wrong_sizes_and_kinds_are_told():
    with pytest.raises(ValueError, match=r"n_val=24 .* has 90"):
        LoopState(dynamic(), TRAIN_SET, 16)
    with pytest.raises(ValueError, match=r"n_train=90 .* has 91"):
        LoopState(dynamic(), VAL_SET, 16).check_train(91)
    with pytest.raises(TypeError, match="Reweighter such as DynamicReweighter"):
        LoopState("kliep", VAL_SET, 16)
    with pytest.raises(TypeError, match="map-style"):
        LoopState(Uniform(N_TRAIN), iter([1]), 16)
    with pytest.raises(ValueError, match="batch_size be >= 1; got 24 rows and 0"):
        LoopState(Uniform(N_TRAIN), VAL_SET, 0)


@pytest.mark.parametrize("name", ["lightning", "transformers", "skorch"])
def test_a_missing_framework_is_told_with_the_command_that_installs_it(name, monkeypatch):
    module = f"densratio.training.integrations.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(ImportError, match=re.escape(f'pip install "densratio-toolkit[{name}]"')):
        importlib.import_module(module)


SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize(("section", "needs"), [("Lightning", "lightning"), ("Hugging Face", "transformers"), ("skorch", "skorch")])
def test_the_code_of_the_page_runs(section, needs, tmp_path, monkeypatch):
    pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```py\n(.*?)^```", SECTIONS[section], flags=re.MULTILINE | re.DOTALL)
    names = {"model": network(), "Network": network, "train_set": TRAIN_SET, "val_set": VAL_SET, "nn": nn,
             "X": TRAIN[0].numpy(), "y": TRAIN[1].numpy(), "X_val": VAL[0].numpy(), "y_val": VAL[1].numpy()}  # fmt: skip
    if section == "Hugging Face":
        names |= {"model": Classifier(), "train_set": columns(*TRAIN), "val_set": columns(*VAL), "test_set": columns(*VAL)}
    assert blocks
    for block in blocks:
        exec(compile(block, f"{PAGE.name}, {section}", "exec"), names)
