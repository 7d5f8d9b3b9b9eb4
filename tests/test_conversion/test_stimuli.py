from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Pixels, image_sha256
from nwb_compact_conversion.session_yaml import Stimuli
from nwb_compact_conversion.sources.cowley_v4_files import read_numbered_images
from nwb_compact_conversion.stimulus.stimuli import NAME_ANOTHER, natural_order, read_stimuli

COLOUR = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
GREY = COLOUR[..., 0]


def encoded(image, kind="PNG", **options):
    content = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, kind, **options)
    return content.getvalue()


def refused(place, **told):
    with pytest.raises(NwbCompactError) as caught:
        read_stimuli(Stimuli(images=place, **told))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one(tmp_path, write_images, content, name="a.png"):
    return read_stimuli(Stimuli(images=write_images(tmp_path / "one", {name: content}))).pixels[0]


def test_images_come_in_natural_order_with_their_hashes_and_what_is_told_of_them(image_place, write_images, make_png):
    names = ["image10.png", "sub/image2.png", "Image1.png", "image2b.png"]
    write_images(image_place, {name: make_png(value) for value, name in enumerate(names)} | {"notes.txt": b"", ".image3.png": b"x"})
    images = read_stimuli(Stimuli(images=image_place, kind="natural", licence="CC0-1.0"))
    assert images.name == ("Image1.png", "image2.png", "image2b.png", "image10.png")
    np.testing.assert_array_equal(images.pixels[:, 0, 0], [2, 1, 3, 0])
    assert images.pixels.shape == (4, 4, 4)
    assert images.sha256 == tuple(image_sha256(np.full((4, 4), value, np.uint8)) for value in (2, 1, 3, 0))
    assert images.kind == ("natural",) * 4
    assert images.licence == ("CC0-1.0",) * 4
    assert images.source is images.split is None


def test_hashes_alone_are_kept_where_asked_and_are_the_same(image_place, write_images, make_png):
    write_images(image_place, {"a.png": make_png(1), "b.png": make_png(2)})
    hashed = read_stimuli(Stimuli(images=image_place, keep_pixels=False))
    assert hashed.pixels is None
    assert hashed.sha256 == read_stimuli(Stimuli(images=image_place)).sha256


@pytest.mark.parametrize(("kind", "name"), [("PNG", "a.png"), ("BMP", "a.BMP"), ("TIFF", "a.tiff"), ("WEBP", "a.webp")])
def test_colour_is_kept_as_it_is(tmp_path, write_images, kind, name):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(one(tmp_path, write_images, encoded(COLOUR, kind, **options), name), COLOUR)


@pytest.mark.parametrize("image", [COLOUR, GREY])
def test_a_jpeg_is_what_pil_decodes(tmp_path, write_images, image):
    content = encoded(image, "JPEG")
    np.testing.assert_array_equal(one(tmp_path, write_images, content, "a.JPG"), np.asarray(Image.open(BytesIO(content))))


BLACK_AND_WHITE = Image.fromarray(GREY).point(lambda level: 255 * (level > 127)).convert("1")
PALETTE = Image.fromarray(COLOUR).quantize(8)


@pytest.mark.parametrize(("image", "kind", "expected"), [
    (BLACK_AND_WHITE, "PNG", 255 * (GREY > 127)),
    (PALETTE, "PNG", np.asarray(PALETTE.convert("RGB"))),
    (PALETTE, "GIF", np.asarray(PALETTE.convert("RGB"))),
    (np.dstack([COLOUR, np.full_like(GREY, 255)]), "PNG", COLOUR),
    (np.dstack([GREY, np.full_like(GREY, 255)]), "PNG", GREY),
], ids=["bilevel", "palette", "gif", "opaque colour", "opaque grey"])
def test_other_ways_to_write_8_bits_are_converted(tmp_path, write_images, image, kind, expected):
    np.testing.assert_array_equal(one(tmp_path, write_images, encoded(image, kind), f"a.{kind.lower()}"), expected)


def test_a_transparent_colour_that_is_not_used_has_no_effect(tmp_path, write_images):
    np.testing.assert_array_equal(one(tmp_path, write_images, encoded(GREY | 1, transparency=0)), GREY | 1)


def test_grey_among_colour_becomes_colour(image_place, write_images):
    write_images(image_place, {"a.png": encoded(GREY), "b.png": encoded(COLOUR)})
    images = read_stimuli(Stimuli(images=image_place))
    np.testing.assert_array_equal(images.pixels, np.stack([np.dstack([GREY] * 3), COLOUR]))
    assert images.sha256 == tuple(image_sha256(image) for image in images.pixels)


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 6, 5, 3)])
def test_a_stack_stays_on_disk_and_is_numbered_as_the_log_counts(tmp_path, shape):
    stack = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save(tmp_path / "a.npy", stack)
    images = read_stimuli(Stimuli(images=tmp_path / "a.npy", first_number=0))
    assert isinstance(images.pixels, np.memmap)
    assert isinstance(images.pixels, Pixels)
    np.testing.assert_array_equal(images.pixels, stack)
    assert images.name == ("image00000", "image00001", "image00002")
    assert images.sha256 == tuple(image_sha256(image) for image in stack)


@pytest.mark.parametrize(("values", "found"), [
    (np.zeros((3, 6, 5), np.uint16), "uint16 of shape (3, 6, 5)"),
    (np.zeros((3, 6, 5)), "float64 of shape (3, 6, 5)"),
    (np.zeros((6, 5), np.uint8), "uint8 of shape (6, 5)"),
    (np.zeros((3, 6, 5, 4), np.uint8), "uint8 of shape (3, 6, 5, 4)"),
    (np.zeros((6, 5, 3), np.uint8), "uint8 of shape (6, 5, 3)"),
    (np.zeros((0, 6, 5), np.uint8), "uint8 of shape (0, 6, 5)"),
])
def test_a_stack_of_something_else_is_refused(tmp_path, values, found):
    np.save(tmp_path / "a.npy", values)
    expected = "expected uint8 of shape (image height width) or (image height width 3)"
    message = f"{tmp_path / 'a.npy'}: found {found}, {expected}. Next: make 8-bit images of them and save the stack again"
    assert refused(tmp_path / "a.npy") == message


def test_a_damaged_stack_is_refused(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    assert "a.npy: found unreadable content (" in refused(tmp_path / "a.npy")


def test_a_place_that_is_not_there_is_named(tmp_path):
    message = f"{tmp_path / 'absent'}: found no such file or folder, expected the images. Next: {NAME_ANOTHER}"
    assert refused(tmp_path / "absent") == message
    assert refused(None) == f"stimuli.images: found nothing, expected the images. Next: {NAME_ANOTHER}"


def test_a_place_without_images_is_named(image_place, write_images):
    write_images(image_place, {"notes.txt": b"", "Thumbs.db": b"", "__MACOSX/._a.png": b""})
    assert refused(image_place).startswith(f"{image_place}: found no image, expected files ending in .jpg, .jpeg, .png")


def test_a_file_that_is_neither_is_named(tmp_path, make_png):
    (tmp_path / "a.png").write_bytes(make_png(1))
    message = f"{tmp_path / 'a.png'}: found File is not a zip file, expected a folder or a zip of images. Next: {NAME_ANOTHER}"
    assert refused(tmp_path / "a.png") == message


def test_one_name_twice_is_refused(image_place, write_images, make_png):
    write_images(image_place, {"a/x.png": make_png(1), "b/x.png": make_png(2), "y.png": make_png(3)})
    message = refused(image_place)
    assert message.startswith(f"{image_place}: found two images named 'x.png' ('")
    assert "'a/x.png'" in message
    assert "'b/x.png'" in message


def test_two_files_of_one_path_in_a_zip_are_refused(tmp_path, make_png):
    with ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("a.png", make_png(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            zipped.writestr("a.png", make_png(2))
    assert "found two images named 'a.png' ('a.png', 'a.png'), expected each name once" in refused(tmp_path / "a.zip")


def test_endings_may_differ_alone(image_place, write_images, make_png, make_jpeg):
    write_images(image_place, {"a.png": make_png(1, 8, 8), "a.jpg": make_jpeg(1, mode="L")})
    assert read_stimuli(Stimuli(images=image_place)).name == ("a.jpg", "a.png")


CLEAR = np.dstack([COLOUR, np.full_like(GREY, 255)])
CLEAR[0, 0, 3] = 254
FRAMES = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
CUT = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")[:700]
FAULTS = {
    "another size": (encoded(GREY[:4]), "found 4 x 5 px, expected 6 x 5 px (height x width) as in 'a.png'. Next: use images of one size"),
    "16 bits": (encoded(GREY.astype(np.uint16)), "found more than 8 bits a channel (mode I;16)"),
    "float": (encoded(GREY.astype(np.float32), "TIFF"), "found more than 8 bits a channel (mode F)"),
    "cmyk": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "TIFF"), "found a CMYK image, expected an 8-bit grey or RGB image"),
    "cmyk jpeg": (encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG"), "found a CMYK image, expected an 8-bit grey or RGB image"),
    "lab": (encoded(Image.fromarray(COLOUR, "RGB").convert("YCbCr"), "TIFF"), "found a YCbCr image, expected"),
    "transparent": (encoded(CLEAR), "found transparent pixels, expected an opaque image. Next: save it on the background"),
    "transparent colour": (encoded(GREY, transparency=int(GREY[0, 0])), "found transparent pixels, expected an opaque image"),
    "transparent palette": (encoded(PALETTE, transparency=0), "found transparent pixels, expected an opaque image"),
    "animated": (encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]), "found 2 frames, expected a still image"),
    "pages": (encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]), "found 2 frames, expected a still image"),
    "no image": (b"no image", "found UnidentifiedImageError: cannot identify image file, expected a readable image"),
    "empty": (b"", "found UnidentifiedImageError: cannot identify image file, expected a readable image"),
    "cut": (CUT, "found OSError: image file is truncated ("),
}


@pytest.mark.parametrize(("content", "found"), FAULTS.values(), ids=FAULTS)
def test_an_image_that_will_not_do_is_named(image_place, write_images, content, found):
    write_images(image_place, {"a.png": encoded(GREY), "b.png": content})
    assert f"b.png: {found}" in refused(image_place)


def test_a_decompression_bomb_is_refused(image_place, write_images, make_png, monkeypatch):
    write_images(image_place, {"a.png": make_png(1, 60, 60)})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert "a.png: found DecompressionBombWarning: " in refused(image_place)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "a.png: found DecompressionBombError: " in refused(image_place)


def test_a_truncated_or_changed_zip_is_refused(tmp_path, write_images, make_png):
    place = write_images(tmp_path / "a.zip", {"a.png": make_png(1)})
    whole = place.read_bytes()
    place.write_bytes(whole[:-30])
    assert refused(place).startswith(f"{place}: found File is not a zip file, expected a folder or a zip of images. Next: ")
    place.write_bytes(whole[:50] + bytes([whole[50] ^ 255]) + whole[51:])
    assert refused(place).startswith(f"{place}: found ")


def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path, write_images, make_png):
    place = write_images(tmp_path / "a.zip", {"../a.png": make_png(1)})
    assert refused(place).startswith(f"{place}: found the path '../a.png', which leads out of the zip")


@given(st.lists(st.integers(0, 10**25), unique=True))
def test_numbers_in_names_are_sorted_by_value(numbers):
    names = sorted((f"image{number}_a.png" for number in numbers), key=natural_order)
    assert names == [f"image{number}_a.png" for number in sorted(numbers)]


@given(st.lists(st.text(st.sampled_from("aB0123._ ²٣"), max_size=8), unique=True))
def test_any_names_have_one_order(names):
    assert sorted(names, key=natural_order) == sorted(reversed(names), key=natural_order)


def test_published_images_are_those_that_the_reader_of_that_source_finds(published_v4):
    place = min((published_v4 / "images").glob("*.zip"), key=lambda file: file.stat().st_size)
    images, numbered = read_stimuli(Stimuli(images=place)), read_numbered_images(place)
    assert images.name == numbered.name
    assert images.sha256 == tuple(image_sha256(image) for image in numbered.pixels)
