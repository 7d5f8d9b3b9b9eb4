from hashlib import sha256

import numpy as np
import pytest

from nwb_compact.errors import NwbCompactError
from nwb_compact_conversion.sources.source_files import file_sha256, read_array

ARRAYS = [np.arange(6.0).reshape(2, 3), np.arange(6, dtype=np.uint16), np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))]


@pytest.mark.parametrize("values", ARRAYS)
def test_an_array_is_read_as_it_was_saved(tmp_path, values):
    np.save(tmp_path / "a.npy", values)
    got = read_array(tmp_path / "a.npy")
    assert got.dtype == values.dtype
    assert got.shape == values.shape
    assert got.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([{}], dtype=object), "found pickled Python objects (not read: unpickling can run code)"),
        (np.array(["a"]), "found values of type <U1"),
        (np.array([1j]), "found values of type complex128"),
    ],
)
def test_an_array_of_anything_but_numbers_is_refused(tmp_path, values, found):
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(NwbCompactError) as caught:
        read_array(tmp_path / "a.npy")
    assert str(caught.value) == f"{tmp_path / 'a.npy'}: {found}, expected an array of numbers in .npy format. Next: download the file again"


def test_a_cut_array_tells_how_much_is_missing(tmp_path):
    file = tmp_path / "a.npy"
    np.save(file, np.ones((2, 3)))
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(NwbCompactError) as caught:
        read_array(file)
    expected = "expected 48 for shape (2, 3), float64. Next: download the file again"
    assert str(caught.value) == f"{file}: found 43 bytes of numbers, {expected}"


BROKEN = {
    "empty": b"",
    "magic only": b"\x93NUMPY",
    "cut header": b"\x93NUMPY\x01\x00\x76\x00{'descr'",
    "open bracket": b"\x93NUMPY\x01\x00\x12\x00{'descr': '<f8', (\n",
    "a zip": b"PK\x03\x04 a zip",
    "a pickle": b"\x80\x04K\x01.",
    "a later version": b"\x93NUMPY\x09\x00zzzz",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_npy_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(NwbCompactError, match=r"a\.npy: found unreadable content \(.+\), expected an array of numbers") as caught:
        read_array(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)


def test_file_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert file_sha256(tmp_path / "a") == sha256(b"content").hexdigest()
