"""Batches of a data set on one device: what they hold, how images are augmented, and going on where it stopped."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densratio.training import endless
from densratio.training.loop.data import DeviceData


def rows(n, d=3):
    """Rows and labels that tell their number."""
    return torch.arange(n * d, dtype=torch.float32).reshape(n, d), torch.arange(n)


def images(n=6, channels=2, height=5, width=4):
    """Bytes, all different within an image and never 0, the color of the padding."""
    pixels = torch.arange(1, channels * height * width + 1, dtype=torch.uint8).reshape(1, channels, height, width)
    return pixels.repeat(n, 1, 1, 1), torch.arange(n)


def equal(one, other):
    return all(torch.equal(a, b) for batch, same in zip(one, other, strict=True) for a, b in zip(batch, same, strict=True))


# ---------------------------------------------------------------- a pass


@given(n=st.integers(1, 40), size=st.integers(1, 12), drop_last=st.booleans(), shuffle=st.booleans(), seed=st.integers(0, 99))
def test_a_pass_holds_each_row_once_with_its_label_and_number(n, size, drop_last, shuffle, seed):
    if drop_last and size > n:
        return
    x, y = rows(n)
    data = DeviceData(x, y, size, drop_last=drop_last, shuffle=shuffle, seed=seed)
    for _ in range(2):
        batches = list(data)
        assert len(batches) == len(data)
        seen = torch.cat([index for _, _, index in batches])
        expected = n - n % size if drop_last else n
        assert len(seen.unique()) == len(seen) == expected
        assert all(torch.equal(a, x[i]) and torch.equal(b, y[i]) for a, b, i in batches)
        assert all(len(i) == size for _, _, i in batches[:-1])
        if not shuffle:
            assert torch.equal(seen, torch.arange(expected))


def test_each_pass_is_shuffled_anew_by_its_own_generator_alone():
    before = torch.random.get_rng_state()
    orders = [torch.cat([i for _, _, i in data]) for data in (DeviceData(*rows(50), 7, seed=s) for s in (0, 0, 1))]
    data = DeviceData(*rows(50), 7, seed=0)
    first, second = (torch.cat([i for _, _, i in data]) for _ in range(2))
    assert torch.equal(orders[0], orders[1]) and torch.equal(orders[0], first)
    assert not torch.equal(orders[0], orders[2]) and not torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())


# ---------------------------------------------------------------- augmentation


def test_bytes_are_scaled_to_the_unit_interval_and_other_rows_stay_as_they_are():
    x, y = images()
    assert torch.equal(next(iter(DeviceData(x, y, 6, shuffle=False)))[0], x / 255.0)
    for plain in (rows(4)[0], rows(4)[0].double(), rows(4)[0].long()):
        batch = next(iter(DeviceData(plain, torch.arange(4), 4, shuffle=False)))[0]
        assert batch.dtype == plain.dtype and torch.equal(batch, plain)


def test_normalization_is_by_channel():
    x, y = images()
    batch = next(iter(DeviceData(x, y, 6, shuffle=False, mean=[0.1, 0.2], std=[0.5, 2.0])))[0]
    expected = torch.stack([(x[:, 0] / 255.0 - 0.1) / 0.5, (x[:, 1] / 255.0 - 0.2) / 2.0], dim=1)
    assert torch.allclose(batch, expected, rtol=0, atol=1e-7)


def all_crops(image, padding):
    """(top, left, is mirrored) -> what a crop there gives."""
    channels, height, width = image.shape
    padded = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    padded[:, padding : padding + height, padding : padding + width] = image
    corners = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    plain = {(top, left, False): padded[:, top : top + height, left : left + width] for top, left in corners}
    return {**plain, **{(*corner, True): plain[*corner, False][:, :, ::-1] for corner in corners}}


@pytest.mark.parametrize(("padding", "flip"), [(2, True), (1, False), (0, True), (2, False)])
def test_every_augmented_image_is_one_crop_of_the_padded_image_and_all_crops_come(padding, flip):
    x, y = images(n=400)
    batch = (next(iter(DeviceData(x, y, 400, crop_padding=padding, flip=flip, seed=3)))[0] * 255.0).round().numpy()
    crops = all_crops(x[0].numpy(), padding)
    found = [next(place for place, crop in crops.items() if np.array_equal(crop, image)) for image in batch]
    assert set(found) == {place for place in crops if flip or not place[2]}
    if flip:
        # 400 draws of probability 1/2: five deviations are 50.
        assert abs(sum(mirrored for _, _, mirrored in found) - 200) < 50


def test_a_wide_image_is_cropped_to_its_own_shape_and_the_given_rows_stay():
    x, y = images(height=3, width=7)
    kept = x.clone()
    batch = next(iter(DeviceData(x, y, 6, crop_padding=4, flip=True)))[0]
    assert batch.shape == x.shape and torch.equal(x, kept)


# ---------------------------------------------------------------- stop and resume


def augmented(seed=0):
    x, y = images(n=11)
    return DeviceData(x, y, 3, crop_padding=2, flip=True, seed=seed)


@given(taken=st.integers(0, 13))
def test_a_state_taken_after_any_batch_gives_the_batches_that_would_have_come(taken):
    data, other = augmented(), augmented(seed=5)
    stream = endless(data)
    list(islice(stream, taken))
    other.load_state_dict(data.state_dict())
    assert equal(list(islice(stream, 9)), list(islice(endless(other), 9)))


def test_iterating_goes_on_where_a_loop_was_left_and_ends_with_the_pass():
    whole, broken = list(augmented()), augmented()
    parts = list(islice(broken, 1))
    parts += list(broken)
    assert equal(parts, whole)
    assert len(list(broken)) == len(whole)


def test_the_state_of_another_number_of_rows_is_refused():
    data = DeviceData(*rows(8), 3)
    next(iter(data))
    with pytest.raises(ValueError, match="8 rows and the data set has 9"):
        DeviceData(*rows(9), 3).load_state_dict(data.state_dict())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("n", "n_labels", "options", "words"),
    [
        (4, 3, {}, "as many rows.*4 and 3"),
        (0, 0, {}, "at least one.*0 and 0"),
        (4, 4, {"batch_size": 0}, "batch_size must be an int >= 1; got 0"),
        (4, 4, {"crop_padding": -1}, "crop_padding must be an int >= 0; got -1"),
        (4, 4, {"batch_size": 5, "drop_last": True}, "4 rows give no batch of 5"),
        (4, 4, {"flip": True}, r"take images \(n, c, h, w\); got rows of \(3,\)"),
        (4, 4, {"mean": [0.0]}, "take images"),
    ],
)
def test_data_that_gives_no_batches_is_refused_in_plain_words(n, n_labels, options, words):
    with pytest.raises(ValueError, match=words):
        DeviceData(rows(n)[0], torch.arange(n_labels), **{"batch_size": 2, **options})


def test_a_mean_of_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="std must have one number for each of the 2 channels; got 3"):
        DeviceData(*images(), 2, std=[1.0, 1.0, 1.0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_no_step_waits_for_the_gpu_and_its_state_resumes_there():
    data = DeviceData(*images(n=11), 3, device="cuda", crop_padding=2, flip=True, mean=[0.1, 0.2], std=[1.0, 1.0])
    stream = endless(data)
    next(stream)
    torch.cuda.set_sync_debug_mode("error")
    try:
        list(islice(stream, 5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    other = DeviceData(*images(n=11), 3, device="cuda", crop_padding=2, flip=True, mean=[0.1, 0.2], std=[1.0, 1.0], seed=4)
    other.load_state_dict(data.state_dict())
    assert equal(list(islice(stream, 9)), list(islice(endless(other), 9)))


def test_a_state_of_another_kind_of_device_is_refused_and_changes_nothing():
    data = DeviceData(*rows(9), 3)
    next(iter(data))
    before = data.state_dict()
    with pytest.raises(ValueError, match="taken on another kind of device than cpu"):
        # A GPU's generator has 16 bytes.
        data.load_state_dict({**before, "position": 0, "generator": torch.zeros(16, dtype=torch.uint8)})
    assert data.state_dict()["position"] == before["position"] == 1
