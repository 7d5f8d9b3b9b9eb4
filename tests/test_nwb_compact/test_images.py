import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.images import CHUNK, ZOOM, as_rgb, read_images, same_picture, view
from nwb_compact.natural_images import natural_images

RNG = np.random.default_rng(0)


def encoded(pixels, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def smooth(n=3):
    """Images that vary slowly, so that shifts and zooms change them little but visibly."""
    rows, columns = np.mgrid[:112, :112]
    return np.stack([np.stack([rows * 2, columns * 2, (rows + columns) + 5 * number], axis=-1) for number in range(n)]).astype(np.uint8)


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


# Views ----------------------------------------------------------------------------------------------------------------
def test_view_0_is_the_image_itself():
    images = smooth()
    assert view(images, 0, shift_px=8, seed=0) is images


@settings(max_examples=10, deadline=None)
@given(number=st.integers(1, 50), shift_px=st.integers(0, 30), seed=st.integers(0, 5))
def test_a_view_is_made_of_the_values_of_its_image(number, shift_px, seed):
    images = (smooth() // 2 + 60).astype(np.uint8)
    found = view(images, number, shift_px=shift_px, seed=seed)
    assert found.dtype == np.uint8
    assert found.shape == images.shape
    assert (found.min(axis=(1, 2)) >= images.min(axis=(1, 2))).all()
    assert (found.max(axis=(1, 2)) <= images.max(axis=(1, 2))).all()


def test_the_same_number_and_seed_give_the_same_view_and_others_another():
    images = smooth()
    first = view(images, 1, shift_px=8, seed=0)
    np.testing.assert_array_equal(first, view(images, 1, shift_px=8, seed=0))
    assert (first != view(images, 2, shift_px=8, seed=0)).any()
    assert (first != view(images, 1, shift_px=8, seed=1)).any()


def test_a_view_is_shifted_enlarged_or_mirrored_no_further_than_said():
    """On ramps the pixel value tells where it came from."""
    rows, columns = np.mgrid[:112, :112]
    ramp = np.stack([rows, columns, rows * 0], axis=-1).astype(np.uint8)
    found = view(np.repeat(ramp[None], 40, axis=0), 3, shift_px=6, seed=0).astype(float)
    down, right = np.diff(found[:, 46:66, 56, 0], axis=1).mean(axis=1), np.diff(found[:, 56, 46:66, 1], axis=1).mean(axis=1)
    assert (down > 1 / ZOOM - 0.06).all()
    assert (down < 1.06).all(), "up stays up"
    np.testing.assert_allclose(np.abs(right), down, atol=0.11)
    assert {-1.0, 1.0} == set(np.sign(right)), "some are mirrored"
    centre = found[:, 55:57, 55:57].mean(axis=(1, 2))[:, :2] - 55.5
    assert np.abs(centre).max() <= 6.6
    assert np.abs(centre).max() > 4


# Reading --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def pictures():
    """By name: plain colours, so that order and crop can be told."""
    def plain(value, height=20, width=20):
        return np.full((height, width, 3), value, np.uint8)

    wide = plain(30, 20, 60)
    wide[:, :20], wide[:, 40:] = 200, 100
    return {"b.png": encoded(plain(20)), "a.PNG": encoded(plain(10)), "sub/c.bmp": encoded(wide, "bmp"), "notes.txt": b"not an image"}


def write(place, files):
    if place.suffix == ".zip":
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
    return place


@pytest.mark.parametrize("place", ["folder", "images.zip"])
def test_a_folder_and_a_zip_are_read_alike_sorted_by_name_and_cropped_to_the_centre(tmp_path, pictures, place):
    found = read_images(write(tmp_path / place, pictures))
    assert found.shape == (3, 112, 112, 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, 56, 56, 0], [10, 20, 30])
    assert (found[2, :, 6:-6] == 30).all(), "the sides of a wide image are cut off"


def test_what_a_mac_adds_to_a_zip_is_passed_over(tmp_path, pictures):
    assert len(read_images(write(tmp_path / "images.zip", pictures | {"__MACOSX/._a.png": b"resource fork"}))) == 3


def test_a_folder_whose_name_ends_as_an_image_does_is_passed_over(tmp_path, pictures):
    assert len(read_images(write(tmp_path / "folder", pictures | {"d.png/e.png": pictures["b.png"]}))) == 4


@pytest.mark.parametrize(("mode", "expected"), [("L", 102), ("1", 255), ("RGBA", 102), ("P", 102), ("CMYK", 102)])
def test_images_of_other_modes_become_rgb(tmp_path, mode, expected):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (expected,) * 3).convert(mode).save(buffer, "tiff")
    found = read_images(write(tmp_path / "folder", {"a.tif": buffer.getvalue()}))
    assert abs(int(found[0, 5, 5, 0]) - expected) <= 1


@pytest.mark.parametrize("place", ["folder", "images.zip"])
def test_a_place_without_images_is_named(tmp_path, place):
    with pytest.raises(NwbCompactError, match=rf"{place}: found no image, expected files ending in .jpg, .* Next: name a folder or zip"):
        read_images(write(tmp_path / place, {"notes.txt": b"nothing"}))


@pytest.mark.parametrize("place", ["folder", "images.zip"])
@pytest.mark.parametrize(("data", "found"), [
    (b"no image at all", "UnidentifiedImageError"),
    (b"", "UnidentifiedImageError"),
    (encoded(RNG.integers(0, 256, (40, 40, 3), np.uint8))[:900], "OSError"),
])
def test_an_image_that_cannot_be_read_is_named(tmp_path, pictures, place, data, found):
    with pytest.raises(NwbCompactError, match=rf"bad\.png: found .*{found}.*, expected a readable image\. Next: remove or repair it"):
        read_images(write(tmp_path / place, pictures | {"bad.png": data}))


def test_16_bits_are_refused_and_not_cut_off(tmp_path, pictures):
    with pytest.raises(NwbCompactError, match=r"bad\.png: found more than 8 bits a channel \(mode I;16\), expected 8 bits a channel"):
        read_images(write(tmp_path / "folder", pictures | {"bad.png": encoded(np.full((8, 8), 300, np.uint16))}))


def test_an_image_that_would_fill_the_memory_is_refused_before_it_does(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    bomb = encoded(np.zeros((60, 60), np.uint8))
    with pytest.raises(NwbCompactError, match=r"bomb\.png: found DecompressionBombError: .*, expected a readable image"):
        read_images(write(tmp_path / "folder", {"bomb.png": bomb}))


def test_neither_a_folder_nor_a_zip_is_named(tmp_path):
    (tmp_path / "images.zip").write_bytes(b"no zip")
    for place in (tmp_path / "images.zip", tmp_path / "absent"):
        with pytest.raises(NwbCompactError, match=rf"{place.name}: found .*, expected a folder or a zip of images\. Next: check --images"):
            read_images(place)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_named(tmp_path, kind):
    place = tmp_path / "images.zip"
    noise = encoded(RNG.integers(0, 256, (40, 40, 3), np.uint8), "bmp")
    with zipfile.ZipFile(place, "w", kind) as archive:
        archive.writestr("a.bmp", noise)
    data = bytearray(place.read_bytes())
    data[40:60] = b"\xff" * 20
    place.write_bytes(bytes(data))
    with pytest.raises(NwbCompactError, match=r"images\.zip: found .*, expected a folder or a zip of images"):
        read_images(place)


def test_an_encrypted_zip_is_named(tmp_path, pictures):
    place = write(tmp_path / "images.zip", {"b.png": pictures["b.png"]})
    data = bytearray(place.read_bytes())
    data[6] |= 1  # the flag of encryption, in the local header and in the central directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    place.write_bytes(bytes(data))
    with pytest.raises(NwbCompactError, match=r"images\.zip: found .*encrypted.*, expected a folder or a zip of images"):
        read_images(place)
