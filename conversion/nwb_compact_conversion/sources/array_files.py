"""Named arrays of .npz, .npy, .csv and MATLAB files of both kinds, read without trusting them: nothing is unpickled.

MATLAB's arrays keep the order of axes that they have in MATLAB. Its version 7.3 files are HDF5 and hold them transposed, its cell
arrays there are references, and its empty arrays hold their size: all three are undone here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float

from nwb_compact.errors import NwbCompactError, counted
from nwb_compact.hdf5_links import require_within
from nwb_compact_conversion.sources.source_files import read_array
from nwb_compact_conversion.text_table import read_rows

SUFFIXES = (".npz", ".npy", ".csv", ".tsv", ".mat")
PICKLED = "pickled objects (not read: unpickling can run code); save one array a unit instead, np.savez(file, **arrays)"
HEADER, COLUMNS, ARRAY = "header", "columns", "array"
"""What the parts of a CSV and the one array of an .npy are called."""


@dataclass(frozen=True, eq=False)
class Variables:
    """What a file holds, by name; fields of MATLAB structures as `structure.field`."""

    numbers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays of numbers, in float64 where they are whole or real."""
    vectors: Mapping[str, tuple[Float[np.ndarray, "_"], ...]] = field(default_factory=dict)
    """Cell arrays of vectors, or a field over the elements of a structure array."""
    text: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Texts, lists of texts, the header of a CSV."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """What is there and could not be read, with the reason."""


def read_variables(file_path: Path) -> Variables:
    """Everything in a file that is a number, a text or a list of these.

    Raises
    ------
    NwbCompactError
        If it is missing, of another format, or damaged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "counts.npz")
    ...     np.savez(file, counts=np.ones((2, 3)), names=["a", "b", "c"])
    ...     read = read_variables(file)
    >>> read.numbers["counts"].shape, read.text["names"]
    ((2, 3), ('a', 'b', 'c'))
    """
    expected = f"a file of type {', '.join(SUFFIXES)}"
    if not file_path.is_file():
        raise NwbCompactError(file_path, found="no such file", expected=expected, next_step="correct the path")
    readers = dict(zip(SUFFIXES, (_npz, _npy, _csv, _csv, _mat), strict=True))
    if file_path.suffix.lower() not in readers:
        found = f"a {file_path.suffix or 'file without suffix'}"
        raise NwbCompactError(file_path, found=found, expected=expected, next_step="save the arrays in one of these formats")
    try:
        return _sorted_out(dict(readers[file_path.suffix.lower()](file_path)))
    except NwbCompactError:
        raise
    except Exception as error:  # readers fail in many ways on a damaged file
        said = " ".join(str(error).split())[:200] or type(error).__name__
        found = f"content that cannot be read ({said})"
        raise NwbCompactError(file_path, found=found, expected=f"a whole {file_path.suffix} file", next_step="save it again") from error


class _Unread(str):
    """Why a value is not read."""


def _sorted_out(values: dict[str, Any]) -> Variables:
    numbers = {name: _as_float(value) for name, value in values.items() if isinstance(value, np.ndarray) and value.dtype.kind in "biuf"}
    text = {name: tuple(str(one) for one in value.ravel()) for name, value in values.items() if _is_text(value)}
    vectors = {name: value for name, value in values.items() if isinstance(value, tuple)}
    unread = {name: str(value) for name, value in values.items() if isinstance(value, _Unread)}
    other = {name: f"values of type {value.dtype}" for name, value in values.items() if name not in numbers | text | vectors | unread}
    return Variables(numbers, vectors, text, unread | other)


def _is_text(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "U"


def _as_float(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


# numpy and CSV ----------------------------------------------------------------------------------------------------------


def _npy(file_path: Path) -> Iterator[tuple[str, Any]]:
    try:
        yield ARRAY, read_array(file_path)
    except NwbCompactError as error:
        next_step = "save the array again as numbers; spike times of several units as .npz, one array a unit"
        raise NwbCompactError(file_path, found=error.fault.found, expected=error.fault.expected, next_step=next_step) from error


def _npz(file_path: Path) -> Iterator[tuple[str, Any]]:
    with np.load(file_path, allow_pickle=False) as kept:
        for name in kept.files:
            try:
                yield name, kept[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                yield name, _Unread(PICKLED)


def _csv(file_path: Path) -> Iterator[tuple[str, Any]]:
    """A header where the first line is not all numbers; an unnamed first column that counts the rows, as pandas adds, is dropped."""
    rows = read_rows(file_path, "numbers")
    if not rows:
        raise NwbCompactError(file_path, found="no row", expected="numbers", next_step="save it again")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            found, expected = f"{counted(len(row), 'cell')} in row {number + 1}", f"{len(rows[0])} as in the first"
            raise NwbCompactError(file_path, found=found, expected=expected, next_step="save it again")
    names = None if all(_number(cell) is not None for cell in rows[0]) else rows.pop(0)
    columns = [[_number(cell) for cell in column] for column in zip(*rows, strict=True)]
    if names is not None and not names[0] and columns[0] == list(range(len(rows))):
        names, columns, rows = names[1:], columns[1:], [row[1:] for row in rows]
    if names is not None:
        yield HEADER, np.array(names)
    if not any(None in column for column in columns):
        yield COLUMNS, np.array(columns, np.float64).T
        return
    for name, column, cells in zip(names or map(str, range(len(columns))), columns, zip(*rows, strict=True), strict=True):
        # Columns of several kinds, such as names of units beside spike times.
        yield name, np.array(cells) if None in column else np.array(column, np.float64)


def _number(text: str) -> float | None:
    try:
        return float(text or "nan")
    except ValueError:
        return None


# MATLAB -----------------------------------------------------------------------------------------------------------------


def _mat(file_path: Path) -> Iterator[tuple[str, Any]]:
    if h5py.is_hdf5(file_path):
        with h5py.File(file_path, "r") as file:
            require_within(file, file_path)
            for name in file:
                if not name.startswith("#"):  # what references point at
                    yield from _of_hdf5(name, file[name])
        return
    from scipy.io import loadmat

    for name, value in loadmat(file_path).items():
        if not name.startswith("__"):
            yield from _of_matlab(name, value)


def _of_matlab(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A variable of version 5 to 7 as scipy gives it."""
    if hasattr(value, "toarray"):
        yield name, value.toarray()
    elif getattr(value, "dtype", np.dtype("V")).names:
        for part in value.dtype.names:
            yield from _of_matlab(f"{name}.{part}", value[part].ravel()[0] if value.size == 1 else value[part])
    elif value.dtype.kind == "O":
        yield name, _of_cells([np.asarray(one) for one in value.ravel(order="F")], value.shape)
    else:
        yield name, np.char.strip(value) if value.dtype.kind == "U" else value


def _of_hdf5(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A variable of version 7.3: arrays transposed, structures as groups."""
    if isinstance(value, h5py.Group):
        if "MATLAB_sparse" in value.attrs:
            yield name, _Unread("a sparse matrix; save full(matrix) instead")
            return
        for part in value:
            yield from _of_hdf5(f"{name}.{part}", value[part])
    elif h5py.check_ref_dtype(value.dtype) is not None:
        cells = [_hdf5_array(value.file[reference]) for reference in value[()].ravel()]
        yield name, _of_cells(cells, value.shape)
    else:
        yield name, _hdf5_array(value)


def _hdf5_array(value: Any) -> np.ndarray:
    if not isinstance(value, h5py.Dataset):
        return np.array(None)
    if "MATLAB_empty" in value.attrs:
        # An empty array holds its size where others hold their values.
        return np.zeros([int(size) for size in value[()].ravel()])
    stored = value[()].T
    if value.attrs.get("MATLAB_class", b"") == b"char":
        return np.array(["".join(chr(letter) for letter in row).strip() for row in np.atleast_2d(stored)])
    return stored


def _of_cells(cells: list[np.ndarray], shape: tuple[int, ...]) -> Any:
    if sum(size > 1 for size in shape) > 1:
        return _Unread(f"a cell array of {' x '.join(str(size) for size in shape)}; keep one cell a unit")
    is_text = [cell.dtype.kind == "U" for cell in cells]
    # An empty cell among texts is [], of numbers, as often as ''.
    if any(is_text) and all(cell.size == text or not cell.size for cell, text in zip(cells, is_text, strict=True)):
        return np.array(["".join(cell.ravel().astype(str)) for cell in cells])
    if all(cell.dtype.kind in "biuf" and sum(size > 1 for size in cell.shape) <= 1 for cell in cells):
        return tuple(cell.ravel().astype(np.float64) for cell in cells)
    return _Unread("cells of several kinds; keep one vector of numbers a cell")
