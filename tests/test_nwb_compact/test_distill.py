import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from nwb_compact import config
from nwb_compact.bank import SCALED_BY, BankShape, new_bank
from nwb_compact.bank_training import standardised_answers
from nwb_compact.distill import (
    ASKED_TOGETHER,
    EPOCHS,
    _stream,
    asked,
    bank_for,
    lessons,
    train_bank,
)
from nwb_compact.image_pool import ImagePool
from nwb_compact.streaming import as_tensor
from nwb_compact.views import views

SHAPES = {
    "shared": BankShape(n_units=2, widths=(3, 3, 4, 4, 4), shared_layers=5),
    "own": BankShape(n_units=2, widths=(3, 3, 2, 2, 2), shared_layers=2),
    "dense": BankShape(n_units=2, widths=(3, 3, 2, 2, 2), shared_layers=2, readout="dense"),
}
SETTINGS = config.Distill(batch_images=8, blur_times=0)
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


class Killed(Exception):
    """What a kill looks like from within."""


class Counted:
    """Pictures that write down which of them are read."""

    def __init__(self, images):
        self.images, self.read_rows = images, []

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        self.read_rows.append(rows.tolist())
        return self.images[rows]


def blobs(n=24):
    """A bright or dark square on grey at some place: easy to learn."""
    rng = np.random.default_rng(0)
    images = np.full((n, 112, 112, 3), 110, np.uint8)
    for image, level, row, column in zip(images, rng.integers(0, 256, n), *rng.integers(8, 70, (2, n)), strict=True):
        image[row : row + 32, column : column + 32] = level
    return images


def brightness(images):
    """A teacher of two units: how bright, and how dark."""
    mean = images.astype(np.float32).mean(axis=(1, 2, 3))
    return np.stack([mean / 10, 40 - mean / 5], axis=1)


def lessons_on(pictures, settings=None, teacher=brightness, seed=0):
    """As a fit makes them."""
    settings = settings or config.Distill(views=1)
    answers = tuple(asked(teacher, pictures, number, settings, seed=seed) for number in range(settings.views))
    return lessons(pictures, answers, settings, seed=seed)


def all_of(taught):
    """Images of all lessons, and the teacher's answers to them in its own units."""
    every = np.arange(len(taught))
    return taught.images(every), taught.z(every) * taught.scale + taught.offset


@pytest.fixture(scope="module")
def taught():
    return lessons_on(ImagePool(blobs()))


def a_bank(shape=SHAPES["own"], seed=0):
    return new_bank(shape, as_tensor(blobs(), "cpu"), seed=seed)


def trained(taught, *, shape=SHAPES["own"], settings=SETTINGS, images_seen=160, seed=0, bank=None, **more):
    bank = a_bank(shape) if bank is None else bank
    return train_bank(bank, taught, settings, images_seen=images_seen, learning_rate=0.01, seed=seed, **more)


def answers_of(bank, taught):
    """Of a bank to all lessons, in the teacher's units."""
    return standardised_answers(bank, taught.images(np.arange(len(taught)))) * taught.scale + taught.offset


# Lessons --------------------------------------------------------------------------------------------------------------
def test_the_teacher_is_asked_about_every_view_and_the_first_is_the_image_itself():
    images, settings, shown = blobs(6), config.Distill(views=3, shift_px=10), []

    def teacher(images):
        shown.append(images)
        return brightness(images)

    found = lessons_on(ImagePool(images), settings, teacher)
    assert (len(found), found.n_units) == (18, 2)
    pixels, answers = all_of(found)
    assert pixels.shape == (18, 112, 112, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:6], images)
    np.testing.assert_array_equal(pixels, np.concatenate(shown))
    assert (pixels[6:12] != images).any()
    assert (pixels[6:12] != pixels[12:]).any()
    np.testing.assert_allclose(answers, brightness(pixels), rtol=1e-4)
    z = found.z(np.arange(18))
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=1e-4)


def test_any_lessons_in_any_order_are_those_of_all_at_once():
    found = lessons_on(ImagePool(blobs(5)), config.Distill(views=3))
    drawn = np.array([14, 0, 7, 7, 11, 4])
    np.testing.assert_array_equal(found.images(drawn), found.images(np.arange(15))[drawn])
    np.testing.assert_array_equal(found.z(drawn), found.z(np.arange(15))[drawn])
    np.testing.assert_array_equal(found.images(drawn[:1]), views(ImagePool(blobs(5)), np.array([4]), 2, found.settings, seed=0))


def test_pictures_are_read_only_as_they_are_shown():
    """The pool may lie on a disk and hold millions."""
    pictures = Counted(blobs(6))
    found = lessons_on(pictures, config.Distill(views=2))
    assert pictures.read_rows == [list(range(6))] * 2
    pictures.read_rows.clear()
    found.z(np.arange(12))
    assert pictures.read_rows == []
    found.images(np.array([8, 3]))
    assert pictures.read_rows == [[2, 3]]


def test_many_pictures_are_asked_about_some_at_a_time_and_told():
    class Many:
        def __len__(self):
            return ASKED_TOGETHER + 3

        def read(self, rows):
            return np.broadcast_to((rows % 256).astype(np.uint8)[:, None, None, None], (len(rows), 112, 112, 3)).copy()

    shown, told = [], []

    def teacher(images):
        shown.append(len(images))
        return images[:, :2, 0, 0].astype(np.float64)

    answers = asked(teacher, Many(), 0, config.Distill(), seed=0, advance=lambda n=1, note="": told.append(n))
    assert shown == told == [ASKED_TOGETHER, 3]
    assert answers.dtype == np.float32
    np.testing.assert_array_equal(answers, np.repeat(np.arange(ASKED_TOGETHER + 3)[:, None] % 256, 2, axis=1))


def test_the_seed_decides_on_the_views():
    settings = config.Distill(views=2)
    first, again, other = (all_of(lessons_on(ImagePool(blobs(4)), settings, seed=seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first[4:] != other[4:]).any()


def test_a_unit_of_which_the_teacher_says_always_the_same_is_no_division_by_zero():
    found = lessons_on(ImagePool(blobs(4)), teacher=lambda images: np.full((len(images), 2), 3.0, np.float32))
    np.testing.assert_array_equal(found.z(np.arange(4)), 0)
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_array_equal(found.offset, 3)


def test_a_unit_whose_teacher_is_flat_leaves_the_z_scores_of_others_alone_and_is_learned_as_its_mean():
    def flat(images):
        return np.stack([brightness(images)[:, 0], np.full(len(images), 3.0, np.float32)], axis=1)

    both, found = lessons_on(ImagePool(blobs())), lessons_on(ImagePool(blobs()), teacher=flat)
    every = np.arange(24)
    np.testing.assert_array_equal(found.z(every)[:, 0], both.z(every)[:, 0])
    np.testing.assert_array_equal(found.z(every)[:, 1], 0)
    bank = trained(found, images_seen=800)
    learned = answers_of(bank, found)
    assert np.mean((learned[:, 0] - flat(blobs())[:, 0]) ** 2) < 0.25 * flat(blobs())[:, 0].var()
    np.testing.assert_allclose(learned[:, 1], 3, atol=0.2)


def test_answers_on_a_disk_are_lessons_too(tmp_path):
    """The fit keeps them there: see `Work.array`."""
    in_memory = lessons_on(ImagePool(blobs(6)), config.Distill(views=2))
    for number, view in enumerate(in_memory.answers):
        np.save(tmp_path / f"{number}.npy", np.concatenate([np.full((6, 3), 9e9, np.float32), view], axis=1))
    on_disk = tuple(np.load(tmp_path / f"{number}.npy", mmap_mode="r")[:, 3:] for number in range(2))
    found = lessons(in_memory.pictures, on_disk, in_memory.settings, seed=0)
    np.testing.assert_array_equal(found.z(np.arange(12)), in_memory.z(np.arange(12)))


# A new bank -----------------------------------------------------------------------------------------------------------
@every_shape
def test_a_new_bank_is_scaled_to_a_sample_of_the_lessons(shape):
    """Its first filters answer the sample with mean 0 and standard deviation 1."""
    pictures = Counted(blobs(SCALED_BY + 20))
    found = lessons_on(pictures, config.Distill(views=2, shift_px=0, zoom=1, mirror=0))  # views that are all the image itself
    pictures.read_rows.clear()
    bank = bank_for(found, shape, seed=3)
    (rows,) = pictures.read_rows
    assert len(set(rows)) > 0.5 * SCALED_BY == 0.5 * len(rows)
    with torch.no_grad():
        answers = functional.conv2d(as_tensor(pictures.images[rows], "cpu") - bank.mean, bank.kernel, bank.bias[0], padding=2)
    torch.testing.assert_close(answers.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(answers.std(dim=(0, 2, 3)), torch.ones(3), rtol=1e-3, atol=0)
    assert bank.shape == shape
    again, other = bank_for(found, shape, seed=3), bank_for(found, shape, seed=4)
    assert all(torch.equal(one, two) for one, two in zip(bank.parameters(), again.parameters(), strict=True))
    assert not torch.equal(bank.kernel, other.kernel)


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
@every_shape
def test_training_lowers_the_loss_and_the_answers_are_in_the_teachers_units(taught, shape):
    untrained, bank = a_bank(shape), trained(taught, shape=shape, images_seen=1600)  # of 200 steps, the first 100 are slow
    assert not bank.training
    wanted = brightness(blobs())
    before, after = (np.mean((answers_of(of, taught) - wanted) ** 2, axis=0) for of in (untrained, bank))
    assert (after < 0.25 * wanted.var(axis=0)).all()
    assert (after < before).all()


@every_shape
def test_the_seed_decides_on_the_training(taught, shape):
    first, again, other = (answers_of(trained(taught, shape=shape, seed=seed), taught) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_even_the_shortest_training_sees_images(taught):
    """100 images are 5 an epoch, fewer than half of a batch."""
    settings = config.Distill(batch_images=32, blur_times=0)
    assert (answers_of(trained(taught, settings=settings, images_seen=100), taught) != answers_of(a_bank(), taught)).any()


def test_a_training_sees_as_many_images_as_it_was_told():
    pictures = Counted(blobs())
    found = lessons_on(pictures)
    pictures.read_rows.clear()
    trained(found, images_seen=24 * 20)
    seen = np.concatenate(pictures.read_rows)
    assert len(seen) == 24 * 20
    assert np.bincount(seen).tolist() == [20] * 24


def test_layers_that_are_fixed_stay_as_they_are_and_the_others_learn(taught):
    before, bank = a_bank(), a_bank().fix(2)
    trained(taught, settings=config.Distill(batch_images=8, blur_times=4), bank=bank)
    for layer in range(1, 6):
        same = [torch.equal(one, two) for one, two in zip(before.arrays_of(layer), bank.arrays_of(layer), strict=True)]
        assert same == [layer <= 2] * len(same), layer


def test_weights_between_layers_are_made_sparse_and_no_others(taught):
    dense, sparse = (trained(taught, settings=config.Distill(batch_images=8, sparsity=by), images_seen=6400) for by in (0.0, 0.5))
    assert all(bool((mixing != 0).all()) for mixing in dense.pointwise)
    assert sum(int((mixing == 0).sum()) for mixing in sparse.pointwise) >= 3
    assert all(bool((spatial != 0).all()) for spatial in (sparse.kernel, *sparse.depthwise))


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
    np.testing.assert_array_equal(answers_of(resumed, taught), answers_of(whole, taught))


# Smoothing ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("blur_times", "blur_px", "expected"), [(4, 0.5, 4), (1, 0.5, 1), (0, 0.5, 0), (4, 0.0, 0)])
def test_kernels_are_smoothed_as_often_as_asked_and_never_in_the_last_fifth(monkeypatch, blur_times, blur_px, expected):
    done, smoothed_at = [], []
    monkeypatch.setattr("nwb_compact.distill.smooth_kernels", lambda bank, sigma: smoothed_at.append((sum(done), sigma)))
    settings = config.Distill(batch_images=8, blur_times=blur_times, kernel_blur_px=blur_px)
    trained(lessons_on(ImagePool(blobs(4))), settings=settings, images_seen=100, advance=lambda n=1, note="": done.append(n))
    assert len(smoothed_at) == expected
    assert all(epoch < 0.8 * EPOCHS and sigma == blur_px for epoch, sigma in smoothed_at)
