"""Files of a source, read without trusting them: numeric .npy arrays and zips of numbered JPEG images.

Every fault of a file ends as one `NwbCompactError` that names the file; nothing is unpickled and nothing is repaired.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import file_digest
from io import BytesIO
from math import prod
from pathlib import Path, PurePosixPath
from tokenize import TokenError
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, UnidentifiedImageError

from nwb_compact.errors import NwbCompactError, one_line

FETCH_AGAIN = "download the file again"


@dataclass(frozen=True, eq=False)
class NumberedImages:
    """The images of one zip, ascending by the number in their file name."""

    number: tuple[int, ...]
    name: tuple[str, ...]
    """File names without folders, such as image0001.jpg."""
    pixels: UInt8[np.ndarray, "image height width 3"]


def read_array(file_path: Path, *, mapped: bool = False) -> Num[np.ndarray, "..."]:
    """A numeric array from an .npy file, never unpickled; `mapped` leaves it on disk until it is indexed.

    Raises
    ------
    NwbCompactError
        If the file is missing, is no .npy file, holds pickled objects or text, or ends early.

    Examples
    --------
    >>> read_array(Path("none.npy"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: none.npy: found no such file, expected an array of numbers in .npy format.
    Next: download the file again
    """
    expected = "an array of numbers in .npy format"
    try:
        with file_path.open("rb") as file:
            shape, dtype = _npy_header(file)
            stored = file_path.stat().st_size - file.tell()
        if dtype.kind not in "uif":
            found = "pickled Python objects (not read: unpickling can run code)" if dtype.hasobject else f"values of type {dtype}"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN)
        needed = prod(shape) * dtype.itemsize
        if stored < needed:
            raise NwbCompactError(
                file_path, found=f"{stored} bytes of numbers", expected=f"{needed} for shape {shape}, {dtype}", next_step=FETCH_AGAIN
            )
        return np.load(file_path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except FileNotFoundError as error:
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step=FETCH_AGAIN) from error
    except (OSError, ValueError, EOFError, TokenError) as error:
        found = f"unreadable content ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN) from error


def read_numbered_images(file_path: Path) -> NumberedImages:
    """Every imageNNNN.jpg of a zip, decoded to RGB, in whatever folder and order it lies there.

    What an operating system leaves behind (``__MACOSX``, ``.DS_Store``) and files that are no JPEG are passed over.

    Raises
    ------
    NwbCompactError
        If the zip is missing, truncated or corrupt, holds no image, a JPEG without a number, a number twice, an image that
        cannot be decoded, or one whose size differs from the first.

    Examples
    --------
    >>> read_numbered_images(Path("none.zip"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: none.zip: found no such file, expected a zip of numbered JPEG images. Next: download the file again
    """
    expected = "a zip of numbered JPEG images"
    try:
        with ZipFile(file_path) as zipped:
            members = _numbered_members(file_path, zipped)
            pixels = np.stack(list(_decoded(file_path, zipped, [members[number] for number in sorted(members)])))
    except FileNotFoundError as error:
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step=FETCH_AGAIN) from error
    except (BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        found = f"a truncated or corrupt zip ({one_line(error)})"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step=FETCH_AGAIN) from error
    number = tuple(sorted(members))
    return NumberedImages(number, tuple(PurePosixPath(members[n]).name for n in number), pixels)


def file_sha256(file_path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with file_path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    # Read by itself so that a pickle and a cut file can be told apart before numpy tries either.
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f".npy format {version} is not one of 1.0, 2.0")
    shape, _, dtype = read[version](file)
    return shape, dtype


def _numbered_members(file_path: Path, zipped: ZipFile) -> dict[int, str]:
    members: dict[int, str] = {}
    for member in zipped.namelist():
        path = PurePosixPath(member)
        if "__MACOSX" in path.parts or path.name.startswith(".") or path.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        match = re.fullmatch(r"image(\d+)", path.stem)
        if match is None:
            expected = "names like image0001.jpg"
            raise NwbCompactError(file_path, found=f"{member!r}", expected=expected, next_step="rename or remove that image")
        number = int(match[1])
        if number in members:
            found = f"image number {number} twice ({members[number]!r}, {member!r})"
            raise NwbCompactError(file_path, found=found, expected="each number once", next_step="remove the one that does not belong")
        members[number] = member
    if not members:
        raise NwbCompactError(file_path, found="no image", expected="images named image0001.jpg and so on", next_step=FETCH_AGAIN)
    return members


def _decoded(file_path: Path, zipped: ZipFile, members: list[str]) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    first: tuple[int, int] | None = None
    for member in members:
        content = zipped.read(member)
        try:
            with Image.open(BytesIO(content), formats=("JPEG",)) as image:
                size = (image.height, image.width)
                first = first or size
                if size != first:
                    found, expected = f"{size[0]} x {size[1]} px", f"{first[0]} x {first[1]} px as in {members[0]!r}"
                    raise NwbCompactError(f"{file_path}: {member!r}", found=found, expected=expected, next_step="use images of one size")
                yield np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            found = f"an image that cannot be decoded ({one_line(error)})"
            raise NwbCompactError(f"{file_path}: {member!r}", found=found, expected="a whole JPEG", next_step=FETCH_AGAIN) from error
