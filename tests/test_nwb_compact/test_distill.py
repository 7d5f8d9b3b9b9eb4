from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import convolve

from nwb_compact import config
from nwb_compact.bank import Bank, BankShape
from nwb_compact.distill import EPOCHS, Lessons, _stream, answers_of, lessons, smooth_kernels, train_bank
from nwb_compact.image_pool import ImagePool

SHAPE = BankShape(n_units=2, widths=(3, 3, 2, 2, 2), shared_layers=2)
SETTINGS = config.Distill(batch_images=8, blur_times=0)


class Killed(Exception):
    """What a kill looks like from within."""


def blobs(n=24):
    """A bright or dark square on grey at some place: easy to learn."""
    rng = np.random.default_rng(0)
    images = np.full((n, 112, 112, 3), 110, np.uint8)
    for image, level, row, column in zip(images, rng.integers(0, 256, n), *rng.integers(8, 70, (2, n)), strict=True):
        image[row : row + 32, column : column + 32] = level
    return images


def brightness(images, view=0):
    """A teacher of two units: how bright, and how dark."""
    mean = images.astype(np.float32).mean(axis=(1, 2, 3))
    return np.stack([mean / 10, 40 - mean / 5], axis=1)


@pytest.fixture(scope="module")
def taught():
    return lessons(ImagePool(blobs()), brightness, config.Distill(views=1), seed=0)


def new_bank(seed=0):
    torch.manual_seed(seed)
    return Bank(SHAPE)


def trained(taught, *, settings=SETTINGS, images_seen=160, seed=0, **more):
    return train_bank(new_bank(), taught, settings, images_seen=images_seen, learning_rate=0.01, seed=seed, **more)


# Lessons --------------------------------------------------------------------------------------------------------------
def test_the_teacher_is_asked_about_every_view_and_the_first_is_the_image_itself():
    images = blobs(6)
    asked, views = [], []

    def teacher(shown, view):
        asked.append(shown)
        views.append(view)
        return brightness(shown)

    found = lessons(ImagePool(images), teacher, config.Distill(views=3, shift_px=10), seed=0)
    assert found.images.shape == (18, 112, 112, 3)
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images[:6], images)
    np.testing.assert_array_equal(found.images, np.concatenate(asked))
    assert views == [0, 1, 2]
    np.testing.assert_allclose(found.answer * found.scale + found.offset, brightness(found.images), rtol=1e-4)
    np.testing.assert_allclose(found.answer.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.answer.std(axis=0), 1, rtol=1e-4)


def test_the_seed_decides_on_the_views():
    settings = config.Distill(views=2)
    first, again, other = (lessons(ImagePool(blobs(4)), brightness, settings, seed=seed).images for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first[4:] != other[4:]).any()


def test_a_unit_of_which_the_teacher_says_always_the_same_is_no_division_by_zero():
    found = lessons(ImagePool(blobs(4)), lambda images, view: np.full((len(images), 2), 3.0, np.float32), config.Distill(views=1), seed=0)
    np.testing.assert_array_equal(found.answer, 0)
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_array_equal(found.offset, 3)


# The order of lessons -------------------------------------------------------------------------------------------------
@given(n=st.integers(1, 30), parts=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 3))
def test_the_stream_visits_every_lesson_once_a_pass_however_it_is_cut(n, parts, seed):
    starts = np.cumsum([0, *parts])
    pieces = [_stream(n, int(start), length, seed) for start, length in zip(starts, parts, strict=False)]
    assert [len(piece) for piece in pieces] == parts
    stream = np.concatenate(pieces)
    for start in range(0, len(stream), n):
        seen = stream[start : start + n]
        assert len(set(seen.tolist())) == len(seen)
        assert set(seen.tolist()) <= set(range(n))


def test_every_pass_has_an_order_of_its_own():
    stream = _stream(50, 0, 100, 0)
    assert (stream[:50] != stream[50:]).any()
    assert (stream != _stream(50, 0, 100, 1)).any()


# Training -------------------------------------------------------------------------------------------------------------
def test_training_lowers_the_loss_and_the_answers_are_in_the_teachers_units(taught):
    untrained, bank = new_bank(), trained(taught, images_seen=800)
    assert not bank.training
    before, after = (np.mean((answers_of(of, taught, taught.images) - brightness(taught.images)) ** 2, axis=0) for of in (untrained, bank))
    assert (after < 0.25 * brightness(taught.images).var(axis=0)).all()
    assert (after < before).all()


def test_the_seed_decides_on_the_training(taught):
    first, again, other = (answers_of(trained(taught, seed=seed), taught, taught.images) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_even_the_shortest_training_sees_images(taught):
    """100 images are 5 an epoch, fewer than half of a batch."""
    settings = config.Distill(batch_images=32, blur_times=0)
    assert (answers_of(trained(taught, settings=settings, images_seen=100), taught, taught.images)
            != answers_of(new_bank().eval(), taught, taught.images)).any()


def test_a_training_sees_as_many_images_as_it_was_told(taught):
    class Counted:
        def __init__(self, images):
            self.images, self.seen = images, []

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            self.seen.extend(np.asarray(index).tolist())
            return self.images[index]

    counted = Counted(taught.images)
    lesson = Lessons(taught.images, taught.answer, taught.offset, taught.scale)
    object.__setattr__(lesson, "images", counted)
    trained(lesson, images_seen=24 * 20)
    assert len(counted.seen) == 24 * 20
    assert np.bincount(counted.seen).tolist() == [20] * 24


def test_a_killed_training_ends_as_one_that_was_not(taught, tmp_path):
    settings = config.Distill(batch_images=8, blur_times=4)
    done = []

    def advance(n=1, note=""):
        done.append(n)
        if sum(done) == 7:
            raise Killed

    whole = trained(taught, settings=settings)
    with pytest.raises(Killed):
        trained(taught, settings=settings, checkpoint=tmp_path / "bank.pt", advance=advance)
    resumed = trained(taught, settings=settings, checkpoint=tmp_path / "bank.pt")
    np.testing.assert_array_equal(answers_of(resumed, taught, taught.images), answers_of(whole, taught, taught.images))


# Smoothing ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sigma_px", [0.5, 1.0])
def test_smoothing_is_a_gaussian_on_the_kernels_of_layers_2_to_5(sigma_px):
    bank, smoothed = new_bank(), new_bank()
    smooth_kernels(smoothed, sigma_px)
    gauss = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma_px**2))
    blur = np.outer(gauss, gauss) / gauss.sum() ** 2
    for layer in range(4):
        before, after = (of.depthwise[layer].weight.detach().numpy()[:, 0] for of in (bank, smoothed))
        for kernel, found in zip(before, after, strict=True):
            np.testing.assert_allclose(found, convolve(kernel, blur, mode="constant"), rtol=1e-4, atol=1e-6)
    assert torch.equal(bank.first.weight, smoothed.first.weight)
    assert torch.equal(bank.readout, smoothed.readout)


@pytest.mark.parametrize(("blur_times", "blur_px", "expected"), [(4, 0.5, 4), (1, 0.5, 1), (0, 0.5, 0), (4, 0.0, 0)])
def test_kernels_are_smoothed_as_often_as_asked_and_never_in_the_last_fifth(taught, monkeypatch, blur_times, blur_px, expected):
    done, smoothed_at = [], []
    monkeypatch.setattr("nwb_compact.distill.smooth_kernels", lambda bank, sigma: smoothed_at.append((sum(done), sigma)))
    settings = config.Distill(batch_images=8, blur_times=blur_times, kernel_blur_px=blur_px)
    trained(replace(taught, images=taught.images[:4], answer=taught.answer[:4]), settings=settings, images_seen=100,
            advance=lambda n=1, note="": done.append(n))
    assert len(smoothed_at) == expected
    assert all(epoch < 0.8 * EPOCHS and sigma == blur_px for epoch, sigma in smoothed_at)
