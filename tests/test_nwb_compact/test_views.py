import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from nwb_compact.config import Distill
from nwb_compact.natural_images import natural_images
from nwb_compact.views import BLEND_MOST, DRAWS, PASTE_SIDES, _draws, views

OFF = {"shift_px": 0, "zoom": 1.0, "mirror": 0.0, "contrast": 0.0, "brightness": 0.0, "blend": 0.0, "paste": 0.0}
ALL = Distill(shift_px=12, zoom=1.25, mirror=0.5, contrast=0.3, brightness=20.0, blend=0.3, paste=0.3)


class Held:
    """Images in memory as a pool."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def read(self, rows):
        return self.images[rows]


def only(**changes):
    return Distill(**(OFF | changes))


def ramps(n=40):
    """On ramps the value of a pixel tells where it came from."""
    rows, columns = np.mgrid[:112, :112]
    return Held(np.repeat(np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)[None], n, axis=0))


def plain(levels):
    return Held(np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 112, 112, 3), np.uint8))


def every(pool, number, options, seed=0):
    return views(pool, np.arange(len(pool)), number, options, seed=seed)


# What decides ---------------------------------------------------------------------------------------------------------
@settings(max_examples=10, deadline=None)
@given(rows=st.lists(st.integers(0, 19), min_size=1, max_size=30), number=st.integers(0, 10**6), seed=st.integers(0, 5))
def test_any_batch_gives_what_all_at_once_give(rows, number, seed):
    pool = Held(natural_images(20, seed=0))
    rows = np.array(rows)
    np.testing.assert_array_equal(views(pool, rows, number, ALL, seed=seed), every(pool, number, ALL, seed)[rows])


def test_threads_change_no_pixel():
    pool, before = Held(natural_images(24, seed=0)), torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(every(pool, 3, ALL))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_batch_may_hold_several_views():
    pool, rows = Held(natural_images(4, seed=0)), np.array([0, 0, 3, 2, 0])
    found = views(pool, rows, np.array([0, 1, 2, 0, 1]), ALL, seed=0)
    for place, (row, number) in enumerate(zip(rows, (0, 1, 2, 0, 1), strict=True)):
        np.testing.assert_array_equal(found[place], every(pool, number, ALL)[row])
    np.testing.assert_array_equal(found[3], pool.images[2])


def test_another_row_number_or_seed_is_another_view():
    pool = Held(np.repeat(natural_images(1, seed=0), 3, axis=0))
    first = every(pool, 1, only(shift_px=8))
    assert (first[0] != first[1]).any()
    assert (first != every(pool, 2, only(shift_px=8))).any(axis=(1, 2, 3)).all()
    assert (first != every(pool, 1, only(shift_px=8), seed=1)).any(axis=(1, 2, 3)).all()


def test_the_numbers_drawn_are_uniform_and_unrelated():
    drawn = _draws(np.arange(20000), np.full(20000, 7), 0)
    assert tuple(drawn) == DRAWS
    table = np.stack([*drawn.values(), *_draws(np.arange(20000), np.full(20000, 8), 0).values(), np.roll(drawn["zoom"], 1)])
    for numbers in table:
        np.testing.assert_allclose(np.histogram(numbers, 10, (0, 1))[0], 2000, atol=200)
    assert np.abs(np.corrcoef(table) - np.eye(len(table))).max() < 0.04


# What a view does -----------------------------------------------------------------------------------------------------
def test_view_0_and_a_view_without_changes_are_the_image_itself():
    pool = Held(natural_images(5, seed=0))
    np.testing.assert_array_equal(every(pool, 0, ALL), pool.images)
    np.testing.assert_array_equal(every(pool, 4, only()), pool.images)


def test_the_pictures_themselves_are_left_alone():
    pool = Held(natural_images(5, seed=0))
    before = pool.images.copy()
    every(pool, 1, ALL)
    np.testing.assert_array_equal(pool.images, before)


def test_a_view_is_shifted_enlarged_or_mirrored_no_further_than_said():
    found = every(ramps(), 3, only(shift_px=6, zoom=1.25, mirror=0.5)).astype(float)
    down, right = np.diff(found[:, 46:66, 56, 0], axis=1).mean(axis=1), np.diff(found[:, 56, 46:66, 1], axis=1).mean(axis=1)
    assert (down > 1 / 1.25 - 0.06).all()
    assert (down < 1.06).all(), "up stays up"
    np.testing.assert_allclose(np.abs(right), down, atol=0.11)
    assert {-1.0, 1.0} == set(np.sign(right)), "some are mirrored"
    centre = found[:, 55:57, 55:57].mean(axis=(1, 2))[:, :2] - 55.5
    assert np.abs(centre).max() <= 6.6
    assert np.abs(centre).max() > 4


def test_a_shift_is_what_torch_samples_with_reflected_borders():
    pool = Held(natural_images(6, seed=1))
    found = every(pool, 1, only(shift_px=20, zoom=1.5, mirror=0.5))
    drawn = _draws(np.arange(6), np.full(6, 1), 0)
    scale, sign = 1 / (1 + drawn["zoom"] * 0.5), np.where(drawn["mirror"] < 0.5, -1, 1)
    affine = np.zeros((6, 2, 3), np.float32)
    affine[:, 0, 0], affine[:, 1, 1] = scale * sign, scale
    affine[:, 0, 2], affine[:, 1, 2] = ((2 * drawn[name] - 1) * 20 * 2 / 112 for name in ("right", "down"))
    grid = functional.affine_grid(torch.from_numpy(affine), [6, 3, 112, 112], align_corners=False)
    floats = torch.from_numpy(pool.images).permute(0, 3, 1, 2).float()
    wanted = functional.grid_sample(floats, grid, padding_mode="reflection", align_corners=False).permute(0, 2, 3, 1).numpy()
    assert np.abs(found - wanted).max() <= 4.5, "places are rounded to 1/64 px, values to whole levels"
    assert np.abs(found - wanted).mean() < 0.4


def test_contrast_changes_about_the_mean_and_brightness_moves_it():
    rng = np.random.default_rng(0)
    pool = Held(rng.integers(90, 150, (40, 112, 112, 3), np.uint8))
    sd, mean = (np.array(what) for what in (pool.images.std(axis=(1, 2, 3)), pool.images.mean(axis=(1, 2, 3))))
    contrasted, brightened = every(pool, 1, only(contrast=0.25)), every(pool, 1, only(brightness=20))
    ratio = contrasted.std(axis=(1, 2, 3)) / sd
    assert 0.79 < ratio.min() < 0.86
    assert 1.18 < ratio.max() < 1.26
    np.testing.assert_allclose(contrasted.mean(axis=(1, 2, 3)), mean, atol=0.1)
    np.testing.assert_allclose(brightened.std(axis=(1, 2, 3)), sd, rtol=0.01)
    moved = brightened.mean(axis=(1, 2, 3)) - mean
    assert -20.5 < moved.min() < -14 < 14 < moved.max() < 20.5


def test_values_are_cut_off_and_do_not_turn_over():
    found = every(plain([0, 255] * 20), 1, only(brightness=100))
    assert {0, 255} <= {int(image.flat[0]) for image in found}
    assert (found[0::2] <= 100).all()
    assert (found[1::2] >= 155).all()


@pytest.mark.parametrize("n", [2, 50])
def test_a_blend_has_at_most_half_of_another_image(n):
    levels = np.arange(n) * 5
    found = every(plain(levels), 1, only(blend=1.0))
    assert (found == found[:, :1, :1]).all()
    moved = found[:, 0, 0, 0].astype(float) - levels
    if n == 2:
        assert (np.abs(moved) <= 5 * BLEND_MOST + 0.5).all()
    else:
        assert np.abs(moved).max() > 20
        assert ((found[:, 0, 0, 0] < 250 * BLEND_MOST + levels * (1 - BLEND_MOST) + 1) & (moved > -levels * BLEND_MOST - 1)).all()


def test_a_pasted_rectangle_is_another_image_and_the_rest_is_left():
    levels = np.arange(50) * 5
    found = every(plain(levels), 1, only(paste=1.0))
    inside = (found != levels[:, None, None, None])[..., 0]
    heights, widths = inside.any(axis=2).sum(axis=1), inside.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(inside.sum(axis=(1, 2)), heights * widths)
    assert min(heights.min(), widths.min()) >= round(112 * PASTE_SIDES[0])
    assert max(heights.max(), widths.max()) <= round(112 * PASTE_SIDES[1])
    for image, within, level in zip(found, inside, levels, strict=True):
        (other,) = set(image[within].ravel().tolist())
        assert other in levels
        assert other != level


def test_shares_are_shares():
    levels = np.arange(200)
    pool = plain(levels)
    for name, share in (("blend", 0.3), ("paste", 0.2)):
        changed = (every(pool, 1, only(**{name: share})) != pool.images).any(axis=(1, 2, 3)).mean()
        assert share - 0.1 < changed < share + 0.1
    mirrored = every(ramps(200), 1, only(mirror=0.3))[:, 0, 0, 1] == 111
    assert 0.2 < mirrored.mean() < 0.4


def test_one_picture_is_its_own_partner():
    pool = plain([70])
    np.testing.assert_array_equal(every(pool, 1, only(blend=1.0, paste=1.0)), pool.images)
