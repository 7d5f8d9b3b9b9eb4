import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.images import CHUNK, GREY_LEVELS, as_rgb, is_grey, pixel_digests, same_picture, square_rgb
from nwb_compact.natural_images import natural_images

RNG = np.random.default_rng(0)


# as_rgb ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(2, 64, 64), (2, 64, 64, 3), (2, 200, 200, 3), (1, 112, 112), (CHUNK + 3, 8, 8)])
def test_images_of_any_size_become_rgb_of_112_px(shape):
    pixels = np.full(shape, 7, np.uint8)
    found = as_rgb(pixels)
    assert found.shape == (shape[0], 112, 112, 3)
    assert (found == 7).all()


def test_images_that_are_not_square_are_refused():
    with pytest.raises(NwbCompactError, match="found images of 300 x 200 px, expected square images"):
        as_rgb(np.zeros((2, 300, 200, 3), np.uint8))


def test_a_picture_is_known_again_when_it_was_resized_saved_or_made_grey():
    pictures = natural_images(12, seed=3)
    large = natural_images(12, seed=3, size_px=224)
    stream = io.BytesIO()
    Image.fromarray(pictures[0]).save(stream, "JPEG", quality=85)
    saved = np.asarray(Image.open(stream))[None]
    grey = np.repeat((pictures[1:2] @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None], 3, axis=3)
    by_area = np.asarray([np.asarray(Image.fromarray(image).resize((112, 112), Image.Resampling.BOX)) for image in large])
    by_us = as_rgb(large)
    assert same_picture(saved, pictures).all()
    assert same_picture(grey, pictures).all()
    assert same_picture(by_area, by_us).all()


def test_other_pictures_are_not_the_same():
    assert not same_picture(natural_images(40, seed=1), natural_images(40, seed=2)).any()
    grey = np.full((1, 112, 112, 3), 128, np.uint8)
    dot = grey.copy()
    dot[0, 50:56, 50:56] = 190
    assert not same_picture(dot, grey).any()
    assert not same_picture(grey, grey[:0]).any()


def test_pictures_beyond_a_chunk_are_compared_too():
    others = natural_images(3, seed=4)
    images = np.repeat(natural_images(1, seed=9), CHUNK + 3, axis=0)
    images[[0, CHUNK - 1, CHUNK + 1]] = others
    assert np.flatnonzero(same_picture(images, others)).tolist() == [0, CHUNK - 1, CHUNK + 1]


def test_images_of_the_right_size_are_left_as_they_are():
    pixels = RNG.integers(0, 256, (3, 112, 112, 3), np.uint8)
    np.testing.assert_array_equal(as_rgb(pixels), pixels)


def test_grey_images_have_the_same_value_in_all_channels():
    grey = RNG.integers(0, 256, (2, 112, 112), np.uint8)
    np.testing.assert_array_equal(as_rgb(grey), np.repeat(grey[..., None], 3, axis=-1))


def test_halving_averages_and_does_not_pick():
    chequered = np.indices((224, 224)).sum(axis=0) % 2 * np.uint8(200)
    inside = as_rgb(chequered[None].astype(np.uint8))[0, 4:-4, 4:-4]
    assert 95 <= inside.min() <= inside.max() <= 105


def test_images_beyond_a_chunk_keep_their_order():
    pixels = (np.arange(CHUNK + 5) % 251).astype(np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(as_rgb(pixels)[:, 50, 50, 1], pixels[:, 0, 0, 0])


# Encoded images of any kind ---------------------------------------------------------------------------------------------
def test_the_sides_of_a_wide_image_are_cut_off():
    wide = np.full((60, 180, 3), 30, np.uint8)
    wide[:, :60], wide[:, 120:] = 200, 100
    found = square_rgb(Image.fromarray(wide))
    assert found.shape == (112, 112, 3)
    assert (found[:, 6:-6] == 30).all()


@pytest.mark.parametrize(("mode", "expected"), [("L", 102), ("1", 255), ("RGBA", 102), ("P", 102), ("CMYK", 102), ("LA", 102)])
def test_images_of_other_modes_become_rgb(mode, expected):
    found = square_rgb(Image.new("RGB", (80, 80), (expected,) * 3).convert(mode))
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_palette_with_transparency_is_read_without_a_warning():
    stream = io.BytesIO()
    Image.new("P", (80, 80), 3).save(stream, "PNG", transparency=bytes([255, 0, 0, 128]))
    assert square_rgb(Image.open(stream)).shape == (112, 112, 3)


def test_luminance_alone():
    found = square_rgb(Image.new("RGB", (80, 80), (200, 100, 0)), coloured=False)
    assert (np.abs(found - (0.299 * 200 + 0.587 * 100)) < 1).all()


def test_an_image_is_grey_where_its_channels_are_nearly_the_same_everywhere():
    images = np.repeat(RNG.integers(0, 250, (4, 112, 112, 1), np.uint8), 3, axis=3)
    images[1, 70, 3, 2] += GREY_LEVELS
    images[2, 70, 3, 2] += GREY_LEVELS + 1
    images[3, :, :, 0] = 0
    assert is_grey(images).tolist() == [True, True, False, False]


def test_a_digest_is_the_start_of_sha256():
    images = RNG.integers(0, 256, (2, 112, 112, 3), np.uint8)
    expected = [int.from_bytes(hashlib.sha256(image.tobytes()).digest()[:8], "little") for image in images]
    assert pixel_digests(images).tolist() == expected
    assert pixel_digests(images[:0]).tolist() == []


def test_images_that_are_mirrored_in_memory_are_resized_too():
    """The usual turn of BGR into RGB."""
    bgr = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), np.uint8)
    np.testing.assert_array_equal(as_rgb(bgr[..., ::-1]), as_rgb(np.ascontiguousarray(bgr[..., ::-1])))
