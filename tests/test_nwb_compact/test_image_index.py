import io
import os
import subprocess
import sys
import tarfile
import zipfile
import zlib

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact.image_files import UnusableImage
from nwb_compact.image_index import WRITTEN_TOGETHER, image_index, opened_index

FILES = {f"{folder}image {number}.PNG": bytes([number % 256]) * (number % 40) for number in range(300) for folder in ("", "a/b/", "ü/")}
HIDDEN = {name: b"hidden" for name in (".a.png", ".cache/a.png", "__MACOSX/b.png", "a/.b.png", "notes.txt", "Thumbs.db")}


def folder_of(place, files):
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def zip_of(place, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(place, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def tar_of(place, files, mode="w"):
    with tarfile.open(place, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return place


@pytest.fixture(params=["folder", "deflated.zip", "stored.zip", "a.tar", "zip_in_disguise", "tar_in_disguise"])
def packed(request, tmp_path):
    """Writes files as each kind of place."""
    def write(files):
        place = tmp_path / request.param
        if request.param == "folder":
            return folder_of(place, files)
        if "zip" in request.param:
            return zip_of(place, files, zipfile.ZIP_STORED if "stored" in request.param else zipfile.ZIP_DEFLATED)
        return tar_of(place, files)
    return write


def contents(index):
    return {index.name(number): index.read(number).content for number in range(len(index))}


def refused(place, tmp_path):
    with pytest.raises(NwbCompactError) as caught:
        image_index(place, tmp_path / "listing")
    return str(caught.value)


# Listing and reading --------------------------------------------------------------------------------------------------
def test_every_image_is_listed_and_read_in_any_order(packed, tmp_path):
    index = image_index(packed(FILES | HIDDEN), tmp_path / "listing")
    assert len(index) == len(FILES) == 900
    for number in np.random.default_rng(0).permutation(len(index)).tolist():
        file = index.read(number)
        assert file.content == FILES[index.name(number)]
        assert file.name == index.name(number).rsplit("/")[-1]
        assert file.where.endswith(index.name(number))


def test_a_listing_opens_again(packed, tmp_path):
    place = packed(FILES)
    index = image_index(place, tmp_path / "listing")
    assert contents(opened_index(place, index.kind, tmp_path / "listing")) == FILES


def test_a_listing_longer_than_what_is_written_together(tmp_path):
    files = {f"{number}.png": str(number).encode() for number in range(2 * WRITTEN_TOGETHER + 1)}
    assert contents(image_index(zip_of(tmp_path / "a.zip", files), tmp_path / "listing")) == files


def test_the_identity_changes_with_names_sizes_and_times(tmp_path):
    identities = []
    place = folder_of(tmp_path / "images", {"a.png": b"1", "b.png": b"2"})

    def note():
        identities.append(image_index(place, tmp_path / "listing").identity)

    note()
    note()
    assert identities[0] == identities[1]
    os.utime(place / "a.png", ns=(1, 1))
    note()
    (place / "a.png").rename(place / "c.png")
    note()
    (place / "sub").mkdir()
    (place / "sub" / "d.png").write_bytes(b"3")
    note()
    assert len(set(identities)) == 4


def test_the_identity_does_not_depend_on_the_order_in_which_a_folder_is_listed(tmp_path, monkeypatch):
    place = folder_of(tmp_path / "images", {f"{number}.png": b"" for number in range(20)})
    first, scandir = image_index(place, tmp_path / "1"), os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", lambda path: Reversed(reversed(list(scandir(path)))))
    other = image_index(place, tmp_path / "2")
    assert [first.name(number) for number in range(20)] == [other.name(number) for number in range(20)][::-1]
    assert first.identity == other.identity


def test_windows_writes_slashes_the_other_way(tmp_path):
    index = image_index(zip_of(tmp_path / "a.zip", {"sub\\b.png": b"1"}), tmp_path / "listing")
    assert index.name(0) == "sub/b.png"


def test_a_tar_of_a_folder_and_links_in_it(tmp_path):
    place = folder_of(tmp_path / "images", {"a.png": b"1", "sub/b.png": b"22"})
    (place / "link.png").symlink_to("a.png")
    os.link(place / "a.png", place / "z hard.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(place, ".")
    found = contents(image_index(tmp_path / "a.tar", tmp_path / "listing"))
    assert sorted(found.values()) == [b"1", b"22"]
    assert set(contents(image_index(place, tmp_path / "2"))) == {"a.png", "sub/b.png", "link.png", "z hard.png"}


def test_links_to_folders_are_not_followed(tmp_path):
    place = folder_of(tmp_path / "images", {"a.png": b"1"})
    (place / "again").symlink_to(place)
    (place / "c.png").symlink_to(place)
    assert contents(image_index(place, tmp_path / "listing")) == {"a.png": b"1"}


LONG = """
import os, resource, sys
from pathlib import Path
from types import SimpleNamespace
from nwb_compact.image_index import image_index

class Entry(SimpleNamespace):
    def is_dir(self, follow_symlinks=True): return False
    def stat(self): return SimpleNamespace(st_size=5, st_mtime_ns=6)

class Many:
    def __init__(self, n): self.n = n
    def __enter__(self): return (Entry(name=f"{number:020d}.jpg") for number in range(self.n))
    def __exit__(self, *_): pass

def peak_bytes(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

place = Path(sys.argv[1])
os.scandir = lambda path: Many(10_000)
image_index(place, place / "short")
before = peak_bytes()
os.scandir = lambda path: Many(200_000)
index = image_index(place, place / "long")
print(len(index), index.name(123_456), peak_bytes() - before)
"""


def test_a_long_listing_is_not_held_in_memory(tmp_path):
    """200,000 paths alone would take 15 MB. In a process of its own: here the types of all arguments are checked, which is slow."""
    told = subprocess.run([sys.executable, "-c", LONG, str(tmp_path)], capture_output=True, text=True, check=True).stdout.split()
    assert told[:2] == ["200000", f"{123_456:020d}.jpg"]
    assert int(told[2]) < 5e6


# Faults of one image --------------------------------------------------------------------------------------------------
def broken(index, number=0):
    with pytest.raises(UnusableImage) as caught:
        index.read(number)
    assert caught.value.reason == "broken"
    return str(caught.value)


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    (place / "a.png").symlink_to(tmp_path / "away.png")
    message = broken(image_index(place, tmp_path / "listing"))
    assert message.startswith(f"{place / 'a.png'}: found FileNotFoundError: [Errno 2] No such file or directory")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_file_in_a_zip_is_known_by_its_checksum(tmp_path, compression):
    content = bytes(range(256)) * 4
    place = zip_of(tmp_path / "a.zip", {"a.png": content, "b.png": content}, compression)
    data = bytearray(place.read_bytes())
    data[60:64] = bytes(byte ^ 0xFF for byte in data[60:64])
    place.write_bytes(bytes(data))
    index = image_index(place, tmp_path / "listing")
    assert broken(index).startswith(f"{place}:a.png: found ")
    assert index.read(1).content == content


def test_a_zip_that_unpacks_to_more_than_it_says_is_stopped(tmp_path):
    place = zip_of(tmp_path / "a.zip", {"a.png": bytes(100_000)})
    data = bytearray(place.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = (1000).to_bytes(4, "little")
    data[at - 8 : at - 4] = zlib.crc32(bytes(100_000)).to_bytes(4, "little")
    place.write_bytes(bytes(data))
    assert "its bytes are not those that the listing names" in broken(image_index(place, tmp_path / "listing"))


def test_a_place_that_was_cut_since(packed, tmp_path):
    place = packed({"a.png": bytes(range(200))})
    index = image_index(place, tmp_path / "listing")
    if place.is_dir():
        (place / "a.png").unlink()
    else:
        os.truncate(place, 100)
    broken(index)


# Faults of a place ----------------------------------------------------------------------------------------------------
def test_a_place_without_images_is_named(packed, tmp_path):
    place = packed(HIDDEN)
    expected = "expected files ending in .jpg, .jpeg, .png, .bmp, .tif, .tiff, .gif, .webp. Next: name a folder, zip or tar of images"
    assert refused(place, tmp_path) == f"{place}: found no image, {expected}"


def test_a_place_that_is_not_there(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "away")
    for name in ("away", "link", "away.zip", "away.tar"):
        where = tmp_path / name
        assert refused(where, tmp_path) == (
            f"{where}: found [Errno 2] No such file or directory: '{where}', expected a folder, zip, tar or session file of images. "
            "Next: check --images"
        )


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    place, scandir = folder_of(tmp_path / "images", {"a.png": b"1", "closed/b.png": b"2"}), os.scandir

    def guarded(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert refused(place, tmp_path).startswith(f"{place}: found [Errno 13] Permission denied: '{place / 'closed'}', expected a folder")


@pytest.mark.parametrize("name", ["images", "images.zip", "images.tar"])
def test_a_file_that_is_no_place(tmp_path, name):
    (tmp_path / name).write_bytes(b"notes")
    found = {"images": "no zip or tar (truncated header)", "images.zip": "File is not a zip file", "images.tar": "truncated header"}[name]
    assert refused(tmp_path / name, tmp_path).startswith(f"{tmp_path / name}: found {found}, expected a folder, zip, tar or session file")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_to_be_unpacked(tmp_path, mode):
    place = tar_of(tmp_path / "a.tar.packed", {"a.png": b"1"}, mode)
    assert refused(place, tmp_path) == (
        f"{place}: found a compressed file, in which no image can be reached without those before it, expected a .tar that is not "
        "compressed. Next: unpack it once (gunzip, for example) and name the .tar"
    )


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/a.png", "C:/a.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_path_that_leads_out_is_refused(tmp_path, kind, name):
    place = {"zip": zip_of, "tar": tar_of}[kind](tmp_path / f"a.{kind}", {name: b"1"})
    assert refused(place, tmp_path) == (
        f"{place}: found the path {name!r}, which leads out of the {kind}, expected paths within it. "
        f"Next: do not trust this {kind}; make it again from the images"
    )


def test_an_encrypted_zip_and_one_of_another_compression(tmp_path):
    place = zip_of(tmp_path / "a.zip", {"b.png": b"1"})
    data = bytearray(place.read_bytes())
    data[6] |= 1  # the flag of encryption, in the local header and in the central directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    place.write_bytes(bytes(data))
    rest = "expected files that are stored or deflated, without a password. Next: make the zip again, or unpack it"
    assert refused(place, tmp_path) == f"{place}: found an encrypted file ('b.png'), {rest}"
    place = zip_of(tmp_path / "b.zip", {"b.png": b"1"}, zipfile.ZIP_LZMA)
    assert refused(place, tmp_path) == f"{place}: found compression of kind 14 ('b.png'), {rest}"


def test_a_damaged_header_in_a_tar_is_not_its_end(tmp_path):
    place = tar_of(tmp_path / "a.tar", {"a.png": bytes(600), "b.png": b"1", "c.png": b"2"})
    data = bytearray(place.read_bytes())
    assert data[1536:1541] == b"b.png"
    data[1536 + 148 : 1536 + 156] = b"99999999"
    place.write_bytes(bytes(data))
    assert refused(place, tmp_path).startswith(f"{place}: found a damaged header at byte 1,536, expected a folder, zip, tar")
    place.write_bytes(bytes(data[:1000]))
    assert refused(place, tmp_path).startswith(f"{place}: found unexpected end of data, expected")
