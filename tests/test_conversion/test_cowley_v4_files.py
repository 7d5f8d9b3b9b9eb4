from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.cowley_v4_files import NumberedImages, check_numbers, find_files, read_numbered_images, sessions_in


def test_repeats_are_preferred_to_averages(source):
    files = find_files(source.write().data, source.session)
    assert (files.images, files.raw, files.averaged) == (source.zip, source.raw_file, source.mean_file)
    assert files.responses == source.raw_file
    source.raw_file.unlink()
    assert find_files(source.data, source.session).responses == source.mean_file


def test_a_session_counts_as_there_only_with_images_and_responses(source):
    assert sessions_in(source.write().root) == (source.session,)
    source.zip.unlink()
    assert sessions_in(source.root) == ()


def test_a_long_list_of_numbers_is_cut(tmp_path):
    number = tuple(range(1, 6))
    found = NumberedImages(number, ("x",) * 5, np.zeros((5, 1, 1, 3), np.uint8))
    check_numbers(tmp_path, found, tmp_path, 5)
    with pytest.raises(NwbCompactError, match="found no image 6, 7, 8 and 2 more, expected one for each of the 10 columns"):
        check_numbers(tmp_path, found, tmp_path, 10)


# Images -----------------------------------------------------------------------------------------------------------------


def refused(file):
    with pytest.raises(NwbCompactError) as caught:
        read_numbered_images(file)
    return str(caught.value)


def write_zip(file, members):
    with ZipFile(file, "w") as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return file


def test_images_are_ordered_by_number_whatever_their_order_and_folder(tmp_path, make_jpeg):
    members = [(f"folder/image{k:04d}.jpg", make_jpeg(k)) for k in (10, 2, 1)]
    leftovers = [("folder/", b""), ("__MACOSX/folder/._image0001.jpg", b"x"), ("folder/.DS_Store", b"x"), ("folder/read me.txt", b"x")]
    got = read_numbered_images(write_zip(tmp_path / "i.zip", leftovers + members))
    assert got.number == (1, 2, 10)
    assert got.name == ("image0001.jpg", "image0002.jpg", "image0010.jpg")
    assert got.pixels.dtype == np.uint8
    for pixels, seed in zip(got.pixels, got.number, strict=True):
        np.testing.assert_array_equal(pixels, np.asarray(Image.open(BytesIO(make_jpeg(seed)))))


def test_a_grey_image_becomes_rgb_without_loss(tmp_path, make_jpeg):
    got = read_numbered_images(write_zip(tmp_path / "i.zip", [("image1.jpg", make_jpeg(1, mode="L"))]))
    grey = np.asarray(Image.open(BytesIO(make_jpeg(1, mode="L"))))
    np.testing.assert_array_equal(got.pixels[0], np.stack([grey] * 3, axis=-1))


def test_a_number_twice_is_named(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("a/image0002.jpg", make_jpeg(2)), ("b/image2.jpg", make_jpeg(2))])
    found = "found image number 2 twice ('a/image0002.jpg', 'b/image2.jpg'), expected each number once"
    assert refused(file) == f"{file}: {found}. Next: remove the one that does not belong"


def test_a_zip_without_images_is_named(tmp_path):
    file = write_zip(tmp_path / "i.zip", [("__MACOSX/image0001.jpg", b"")])
    assert refused(file) == f"{file}: found no image, expected images named image0001.jpg and so on. Next: download the file again"


def test_a_name_without_a_number_is_named(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1)), ("a/photo.jpg", make_jpeg(2))])
    assert refused(file) == f"{file}: found 'a/photo.jpg', expected names like image0001.jpg. Next: rename or remove that image"


def test_an_image_of_another_size_is_named(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1)), ("image0002.jpg", make_jpeg(2, width=9))])
    expected = "expected 8 x 8 px as in 'image0001.jpg'. Next: use images of one size"
    assert refused(file) == f"{file}: 'image0002.jpg': found 8 x 9 px, {expected}"


def test_what_is_no_jpeg_is_named(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1)), ("image0002.jpg", b"not a picture")])
    found = "found an image that cannot be decoded (cannot identify image file)"
    assert refused(file) == f"{file}: 'image0002.jpg': {found}, expected a whole JPEG. Next: download the file again"


def test_a_cut_jpeg_is_not_filled_with_grey(tmp_path, make_jpeg):
    content = make_jpeg(2, height=64, width=64)
    message = refused(write_zip(tmp_path / "i.zip", [("image0001.jpg", content[: len(content) // 2])]))
    assert "'image0001.jpg': found an image that cannot be decoded (" in message
    assert "truncated" in message


def test_a_truncated_zip_is_named(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1))])
    file.write_bytes(file.read_bytes()[:-30])
    found = "found a truncated or corrupt zip (File is not a zip file)"
    assert refused(file) == f"{file}: {found}, expected a zip of numbered JPEG images. Next: download the file again"


def test_a_changed_byte_inside_the_zip_is_noticed(tmp_path, make_jpeg):
    file = write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1))])
    content = bytearray(file.read_bytes())
    content[200] ^= 255
    file.write_bytes(content)
    assert f"{file}: found a truncated or corrupt zip (Bad CRC-32 for file 'image0001.jpg'), expected" in refused(file)


@pytest.mark.parametrize("most_px", [40, 20])
def test_a_small_file_that_is_a_huge_image_is_named(most_px, tmp_path, make_jpeg, monkeypatch):
    """PIL warns of 8 x 8 px above the one limit, and refuses them above twice of it."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most_px)
    message = refused(write_zip(tmp_path / "i.zip", [("image0001.jpg", make_jpeg(1))]))
    assert "'image0001.jpg': found an image that cannot be decoded (Image size (64 pixels) exceeds limit of" in message
