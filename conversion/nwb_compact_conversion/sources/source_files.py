"""Files of a source: numeric .npy arrays, read without trusting them, and the hash of any.

Every fault of an array ends as one `NwbCompactError` that names the file; nothing is unpickled and nothing is repaired.
"""

from hashlib import file_digest
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO

import numpy as np
from jaxtyping import Num

from nwb_compact.errors import NwbCompactError, one_line

FETCH_AGAIN = "download the file again"


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
            shape, dtype = npy_header(file)
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


def file_sha256(file_path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with file_path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an .npy file, which is then at its first number.

    Read by itself so that a pickle and a cut file can be told apart before numpy tries either.

    Raises
    ------
    ValueError
        If it is no .npy file of a known format.
    """
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f".npy format {version} is not one of 1.0, 2.0")
    shape, _, dtype = read[version](file)
    return shape, dtype
