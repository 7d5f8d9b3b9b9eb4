import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from nwb_compact.errors import NwbCompactError
from nwb_compact.image_files import ImageFile, decoded, image_files

NEXT = "name another"


def encoded(pixels=None, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8) if pixels is None else pixels).save(buffer, kind)
    return buffer.getvalue()


def zipped(file, members):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file


def refused(place):
    with pytest.raises(NwbCompactError) as caught:
        list(image_files(place, next_step=NEXT))
    return str(caught.value)


HIDDEN = [".a.png", ".cache/a.png", "__MACOSX/sub/._b.png", ".DS_Store", "Thumbs.db", "read me.txt"]


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path):
    for name in [*HIDDEN, "sub/b.png"]:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(name.encode())
    place = zipped(tmp_path / "a.zip", [(name, name) for name in [*HIDDEN, "sub\\b.png"]])
    in_folder, in_zip = (list(image_files(one, next_step=NEXT)) for one in (tmp_path / "folder", place))
    assert in_folder == [ImageFile(str(tmp_path / "folder/sub/b.png"), "b.png", b"sub/b.png")]
    assert in_zip == [ImageFile(f"{place}:sub/b.png", "b.png", b"sub\\b.png")], "Windows writes such paths"


def test_a_folder_that_is_itself_in_a_hidden_one_is_read(tmp_path):
    place = tmp_path / ".lab" / "images"
    place.mkdir(parents=True)
    (place / "a.png").write_bytes(encoded())
    assert len(list(image_files(place, next_step=NEXT))) == 1


def test_the_order_is_the_callers(tmp_path):
    place = zipped(tmp_path / "a.zip", [("b.png", b"1"), ("a.png", b"2"), ("c/a.png", b"3")])
    assert [file.content for file in image_files(place, next_step=NEXT, ordered=lambda names: names[::-1])] == [b"3", b"2", b"1"]


def test_a_link_that_leads_nowhere_is_not_passed_over(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "away.png")
    assert refused(tmp_path).startswith(f"{tmp_path}: found [Errno 2] No such file or directory: '{tmp_path / 'a.png'}'")


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/a.png", "C:/a.png", "..\\a.png"])
def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path, name):
    message = refused(zipped(tmp_path / "a.zip", [(name, encoded())]))
    assert message.startswith(f"{tmp_path / 'a.zip'}: found the path {name.replace(chr(92), '/')!r}, which leads out of the zip, expected ")


def test_a_file_too_large_to_be_a_stimulus_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("nwb_compact.image_files.LARGEST_FILE_BYTES", 1000)
    place = zipped(tmp_path / "a.zip", [("a.png", bytes(1001))])
    assert refused(place).startswith(f"{place}: found 'a.png' of 1001 bytes, expected at most 1000 bytes an image. Next: do not trust")


def png_16_bit_rgb():
    """Written by hand, since PIL cannot: one pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" + bytes(range(6)))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("content", "mode"), [
    (png_16_bit_rgb(), "RGB"),
    (encoded(np.zeros((4, 4), np.uint16)), "I;16"),
    (encoded(np.zeros((4, 4), np.float32), "TIFF"), "F"),
    (encoded(np.zeros((4, 4), np.int32), "TIFF"), "I"),
], ids=["16-bit colour", "16-bit grey", "float", "32-bit"])
def test_more_than_8_bits_are_refused_and_not_cut_off(content, mode):
    assert Image.open(io.BytesIO(content)).mode == mode
    with pytest.raises(NwbCompactError) as caught:
        decoded(ImageFile("here", "a.png", content))
    found = f"found more than 8 bits a channel (mode {mode})"
    assert str(caught.value) == f"here: {found}, expected 8 bits a channel. Next: save the images with 8 bits, as they were shown"


def test_a_warning_of_a_decompression_bomb_is_a_refusal(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(NwbCompactError, match=r"^here: found DecompressionBombWarning: .*, expected a readable image"):
        decoded(ImageFile("here", "a.png", encoded()))


def test_a_format_that_starts_other_programs_is_not_tried():
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"
    with pytest.raises(NwbCompactError, match=r"^here: found UnidentifiedImageError: cannot identify image file, expected"):
        decoded(ImageFile("here", "a.png", content))
