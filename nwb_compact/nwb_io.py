"""NWB tables in and out, column by column, and files opened so that whatever is wrong with them is said in one line.

Rows are never added one at a time: that is slow in pynwb and leaves types to chance.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from hdmf.common import DynamicTable, DynamicTableRegion, VectorData, VectorIndex
from jaxtyping import Integer, UInt, UInt32
from pynwb import NWBHDF5IO, H5DataIO, NWBFile
from pynwb.ecephys import LFP, ElectricalSeries, FilteredEphys

from nwb_compact.address import Address, located
from nwb_compact.errors import COPY_AGAIN, NwbCompactError, one_line
from nwb_compact.hdf5_links import require_within
from nwb_compact.remote_file import remote_file

LOCK_WAIT_S = 10.0
"""How long to wait for another program to close the file."""
LOCKED = "unable to lock file"
"""How HDF5 says that another program writes it."""
COMPRESSED_BYTES = 64 * 1024
"""Numbers above this are chunked and compressed; below it the chunk's own book-keeping costs more than it saves."""


class OpenFile(NamedTuple):
    """One file seen three ways, all valid until it is closed."""

    hdf5: h5py.File
    io: NWBHDF5IO
    nwbfile: NWBFile


@contextmanager
def opened(file_path: str | Path, *, locking: bool = True) -> Iterator[OpenFile]:
    """The file, open for reading.

    Parameters
    ----------
    file_path
        An NWB file on disk, or its address (see `address`), from which is fetched what is read.
    locking
        False only for a writer that holds the file's lock itself.

    Raises
    ------
    NwbCompactError
        If it is missing, being written by another program, damaged, not NWB, or leads to other files (see `hdf5_links`); of an address also
        whatever `remote_file` raises, then or when something is read.

    Examples
    --------
    >>> with opened(Path("no-such-file.nwb")) as file:
    ...     pass
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-file.nwb: found no file, expected an NWB file. Next: correct the path
    """
    with ExitStack() as closes:
        hdf5 = closes.enter_context(open_hdf5(file_path, locking=locking))
        try:
            with warnings.catch_warnings():
                # Files of other schema versions make pynwb tell which version it chose; that is no news to a user.
                warnings.filterwarnings("ignore", message="Ignoring")
                io = closes.enter_context(NWBHDF5IO(file=hdf5, mode="r", load_namespaces=True))
                nwbfile = io.read()
        except NwbCompactError:  # a server that failed meanwhile
            raise
        except Exception as error:  # pynwb and hdmf raise nearly every type there is on a file that is not theirs
            raise _not_nwb(file_path, error) from error
        yield OpenFile(hdf5, io, nwbfile)


def open_hdf5(file_path: str | Path, *, locking: bool | None = True) -> h5py.File:
    """The file as bare HDF5, open for reading; a moment in which another program writes it is waited for. Raises as `opened` does.

    `locking` None opens it as libraries do that leave this to HDF5, where one of them has it open already.
    """
    place = located(file_path)
    until = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            hdf5 = h5py.File(remote_file(place), "r") if isinstance(place, Address) else h5py.File(place, "r", locking=locking)
            break
        except OSError as error:
            if LOCKED not in str(error) or time.monotonic() > until:
                raise _not_hdf5(place, error) from error
        time.sleep(0.1)
    with ExitStack() as closes:
        closes.callback(hdf5.close)
        try:
            require_within(hdf5, place, may_follow=False if isinstance(place, Address) else None)
        except NwbCompactError:
            raise
        except Exception as error:  # h5py raises many on a damaged file
            raise _damaged(place, error) from error
        closes.pop_all()
    return hdf5


def export_changed(file: OpenFile, target: Path) -> None:
    """Write an open file anew, object by object, without what was taken out of it; what is linked from other files is copied too."""
    file.nwbfile.set_modified()
    with NWBHDF5IO(target, "w") as io:
        io.export(src_io=file.io, nwbfile=file.nwbfile, write_args={"link_data": False})


def drop_voltage(nwbfile: NWBFile) -> tuple[str, ...]:
    """Take the raw voltage out of an open file that will be exported; the names of what was taken."""
    voltage = tuple(name for name, held in nwbfile.acquisition.items() if isinstance(held, ElectricalSeries | LFP | FilteredEphys))
    for name in voltage:
        nwbfile.acquisition.pop(name)
    return voltage


def table(name: str, description: str, n_rows: int, *columns: VectorData) -> DynamicTable:
    """A table of whole columns, each from `column`, `region` or `ragged`.

    Examples
    --------
    >>> table("fruit", "what there is", 2, column("kind", "which", ["apple", "pear"])).colnames
    ('kind',)
    """
    return DynamicTable(name=name, description=description, id=np.arange(n_rows), columns=list(columns))


def column(name: str, description: str, data: Sequence[str] | np.ndarray) -> VectorData:
    """One column of strings or numbers; its first axis is the rows."""
    return VectorData(name=name, description=description, data=compressed(data) if isinstance(data, np.ndarray) else list(data))


def ragged(name: str, description: str, rows: Sequence[np.ndarray], dtype: Any) -> tuple[VectorData, VectorIndex]:
    """One column whose rows differ in length, as its values and the index that parts them; a row may be empty."""
    flat = np.concatenate(rows).astype(dtype) if rows else np.zeros(0, dtype)
    values = VectorData(name=name, description=description, data=compressed(flat))
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    return values, VectorIndex(name=f"{name}_index", data=ends, target=values)


def region(name: str, description: str, rows: Integer[np.ndarray, "row"], target: DynamicTable) -> DynamicTableRegion:
    """One column that points at rows of another table."""
    return DynamicTableRegion(name=name, description=description, data=rows.astype(np.int32), table=target)


def compressed(data: np.ndarray) -> Any:
    """The array as it is when small, else marked for compression."""
    if data.nbytes < COMPRESSED_BYTES:
        return data
    return H5DataIO(data, compression="gzip", compression_opts=4, shuffle=True, chunks=True)


def smallest_unsigned(values: Integer[np.ndarray, "*shape"]) -> UInt[np.ndarray, "*shape"]:
    """The same whole numbers in the smallest unsigned type that holds them.

    Examples
    --------
    >>> smallest_unsigned(np.array([3, 300])).dtype
    dtype('uint16')
    """
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def strings(source: DynamicTable, name: str, where: object) -> tuple[str, ...]:
    """A column of strings, in memory."""
    return tuple(str(value) for value in _data(source, name, where)[:])


def numbers(source: DynamicTable, name: str, where: object) -> np.ndarray:
    """A column of numbers or truth values, in memory, in the type it was stored in; raises `NwbCompactError` where it holds others."""
    values = np.asarray(_data(source, name, where)[:])
    if values.dtype.kind not in "biuf":
        found = f"values of type {values.dtype}"
        raise NwbCompactError(f"{where}: {source.name}/{name}", found=found, expected="numbers", next_step=COPY_AGAIN)
    return values


def indices(source: DynamicTable, name: str, where: object) -> UInt32[np.ndarray, "row"]:
    """A column of row numbers, whether a region or plain."""
    return unsigned(numbers(source, name, where), f"{where}: {source.name}/{name}").astype(np.uint32)


def unsigned(values: np.ndarray, where: object) -> UInt[np.ndarray, "*shape"]:
    """Whole numbers from 0 on, in an unsigned type.

    Raises
    ------
    NwbCompactError
        If a number is negative or not whole.
    """
    if not np.issubdtype(values.dtype, np.integer) or (values.size and values.min() < 0):
        found = f"{values.dtype} numbers" + (f" from {values.min()}" if values.size else "")
        raise NwbCompactError(where, found=found, expected="whole numbers from 0 on", next_step="run nwb-compact check on the file")
    return values.astype(np.dtype(f"uint{8 * values.dtype.itemsize}"))


def ragged_rows(source: DynamicTable, name: str, where: object) -> list[np.ndarray]:
    """A ragged column, one array a row, in memory."""
    require_columns(source, (name,), where)
    index = source[name]
    values, ends = np.asarray(index.target.data[:]), np.asarray(index.data[:], np.int64)
    return [values[start:end] for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)]


def require_table(tables: Any, name: str, where: object) -> DynamicTable:
    """One of several tables by name; raises `NwbCompactError` where it is not there."""
    found = tables.get(name)
    if not isinstance(found, DynamicTable):
        there = ", ".join(sorted(tables)) or "none"
        next_step = "run nwb-compact check on the file; docs/nwb_layout.md says what it must hold"
        raise NwbCompactError(where, found=f"no table {name} (there: {there})", expected="a session file", next_step=next_step)
    return found


def given(values: Any) -> dict[str, Any]:
    """The fields of a frozen value that are given; nothing is filled in for the others."""
    return {item.name: getattr(values, item.name) for item in fields(values) if getattr(values, item.name) is not None}


def require_columns(source: DynamicTable, names: Sequence[str], where: object) -> None:
    """Stop where a table lacks a column."""
    missing = [name for name in names if name not in source.colnames]
    if missing:
        found, expected = f"columns {', '.join(source.colnames)}", f"also {', '.join(missing)}"
        raise NwbCompactError(f"{where}: {source.name}", found=found, expected=expected, next_step="see docs/nwb_layout.md")


def _data(source: DynamicTable, name: str, where: object) -> Any:
    require_columns(source, (name,), where)
    return source[name].data


def _not_hdf5(file_path: Path | Address, error: OSError) -> NwbCompactError:
    expected = "an NWB file"
    if isinstance(file_path, Address):
        return _damaged(file_path, error)
    if not file_path.exists():
        return NwbCompactError(file_path, found="no file", expected=expected, next_step="correct the path")
    if file_path.is_dir():
        return NwbCompactError(file_path, found="a folder", expected=expected, next_step="name a file in it")
    if isinstance(error, PermissionError) or "Permission denied" in str(error):
        return NwbCompactError(file_path, found="no permission to read it", expected=expected, next_step="change its permissions")
    if LOCKED in str(error):
        return NwbCompactError(file_path, found="a file that another program is writing", expected=expected, next_step="close that program")
    return _damaged(file_path, error)


def _damaged(file_path: Path | Address, error: Exception) -> NwbCompactError:
    found = f"a file that is damaged or not HDF5 ({one_line(error)})"
    return NwbCompactError(file_path, found=found, expected="an NWB file", next_step="convert or copy it again")


def _not_nwb(file_path: str | Path, error: Exception) -> NwbCompactError:
    found = f"a file that pynwb cannot read ({type(error).__name__}: {one_line(error)})"
    return NwbCompactError(file_path, found=found, expected="an NWB file of schema 2", next_step="convert or copy it again")
