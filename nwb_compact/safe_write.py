"""A file changes as a whole or not at all.

A kill during an HDF5 append destroyed the original file when it was tried. So every change is made to a copy in the same
folder, which is validated, flushed to the disk and then put in the original's place in one step of the file system. A kill,
a full disk, a program that has the file open or a failed validation leaves the original as it was, bit for bit.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pynwb

from nwb_compact.address import FETCH, Address, require_path
from nwb_compact.errors import NwbCompactError, one_line
from nwb_compact.nwb_io import LOCK_WAIT_S, opened
from nwb_compact.unfinished import own_name, remove_leftovers

SPARE_BYTES = 64 * 2**20
"""Disk that must be free beyond a copy of the file: results are far smaller."""
CORE_NAMESPACES = {"core", "hdmf-common", "hdmf-experimental"}


@contextmanager
def replaced_safely(target: Path, *, source: Path | Address | None = None, room_bytes: int = 0) -> Iterator[Path]:
    """A path at which to write, within the block, the file that takes the target's place when the block ends well.

    Parameters
    ----------
    target
        An existing file or a new one; a symbolic link stays and the file it names is replaced.
    source
        The file that the new one is made from, if any: so much room is asked for, unless it lies at an address, and faults it has
        already are not held against the new one.
    room_bytes
        Room asked for beyond that.

    Raises
    ------
    NwbCompactError
        If source or folder is missing, the target is open elsewhere or changes meanwhile, what was written is not valid, or the disk
        is too full. The target is then untouched.

    Examples
    --------
    >>> with replaced_safely(Path("no-such-folder/new.nwb")) as temporary:
    ...     pass
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-folder: found no folder, expected one to write new.nwb in. Next: create it
    """
    if isinstance(source, Path) and not source.is_file():
        raise NwbCompactError(source, found="no file", expected="an NWB file", next_step="correct the path")
    named, target = target, require_path(target).resolve()
    require_folder(named)
    with _file_system_faults(named), sole_access(target, LOCK_WAIT_S):
        _remove_leftovers(target)
        require_room(target, room_bytes + (source.stat().st_size if isinstance(source, Path) else 0))
        before = _state(target)
        temporary = _temporary(target)
        try:
            yield temporary
            _require_valid(temporary, source)
            _keep_permissions(target, temporary)
            _flush(temporary)
            if _state(target) != before:
                found, expected = "a change made by another program meanwhile", "nothing else to write the file"
                raise NwbCompactError(named, found=found, expected=expected, next_step="run again")
            os.replace(temporary, target)
            _flush(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def changed_copy(source: Path, write: Callable[[Path], None]) -> Iterator[Path]:
    """A changed copy of a file, beside it until the block ends; what a kill leaves of it is removed by the next writer of the file.

    Parameters
    ----------
    source
        The file; it is not changed.
    write
        Writes the copy, which is not larger than the file.

    Raises
    ------
    NwbCompactError
        If the copy cannot be written, or is not valid where the file is.
    """
    temporary = _temporary(source)
    try:
        with _file_system_faults(source):
            _remove_leftovers(source)
            require_room(source, source.stat().st_size, what="a copy", next_step="free some space, or share it from another disk")
            write(temporary)
            _require_valid(temporary, source)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(file_path: Path | Address, *, output: Path | None = None) -> None:
    """Ask before a long run whether its results can be written afterwards.

    Raises
    ------
    NwbCompactError
        If the file could not be replaced now: it is at an address, missing, open elsewhere, write-protected, or the disk is too full.
    """
    target = (require_path(file_path, next_step=FETCH) if output is None else require_path(output)).resolve()
    if isinstance(file_path, Path) and not file_path.is_file():
        raise NwbCompactError(file_path, found="no file", expected="an NWB file", next_step="correct the path")
    require_folder(output or target)
    with _file_system_faults(output or file_path), sole_access(target, LOCK_WAIT_S):
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(f"no permission to write in {target.parent}")
        require_room(target, file_path.stat().st_size if isinstance(file_path, Path) else 0)


def require_folder(target: Path) -> None:
    """Ask before the work whether there is a folder to write a file, or a folder, in."""
    if not target.resolve().parent.is_dir():
        raise NwbCompactError(target.parent, found="no folder", expected=f"one to write {target.name} in", next_step="create it")


@contextmanager
def _file_system_faults(where: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        found = f"that it could not be written ({one_line(error)})"
        next_step = "free disk space or correct the permissions and run again; the file is as it was"
        raise NwbCompactError(where, found=found, expected="a disk and folder that can be written", next_step=next_step) from error


@contextmanager
def sole_access(
    target: Path, wait_s: float, *, found: str = "a file that another program has open", next_step: str = "close it there and run again"
) -> Iterator[None]:
    """Hold the lock that HDF5 itself takes, so that no reader loses its file and two writers do not lose each other's runs.

    Parameters
    ----------
    target
        A file; where there is none, nothing is locked.
    wait_s
        How long to wait for others.
    found, next_step
        What is said when others still hold it.
    """
    if sys.platform == "win32" or not target.exists():
        yield
        return
    import fcntl

    until = time.monotonic() + wait_s
    while True:
        with open(target, "r+b") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise NwbCompactError(target, found=found, expected="sole access to write", next_step=next_step) from None
                time.sleep(0.1)
                continue
            except OSError:
                pass  # a file system without locks; a change by others is then seen from `_state`
            # Another writer may have put a new file here while we waited for the old one, or removed it.
            if not target.exists() or os.fstat(handle.fileno()).st_ino != target.stat().st_ino:
                continue
            yield
            return


def _temporary(target: Path) -> Path:
    return target.with_name(own_name(f".{target.name}.writing", ".nwb"))


def _remove_leftovers(target: Path) -> None:
    remove_leftovers(target.parent, re.escape(f".{target.name}.writing"), ".nwb")


def require_room(
    target: Path, n_bytes: int, *, what: str = "a safe copy", next_step: str = "free some space on it"
) -> None:
    """Raise an `NwbCompactError` if the disk of a file to be written has no room for so many bytes and `SPARE_BYTES`."""
    free, needed = shutil.disk_usage(target.absolute().parent).free, SPARE_BYTES + n_bytes
    if free < needed:
        found, expected = f"{free / 2**20:.0f} MiB free on its disk", f"at least {needed / 2**20:.0f} MiB for {what}"
        raise NwbCompactError(target, found=found, expected=expected, next_step=next_step)


def _state(target: Path) -> tuple[int, ...] | None:
    if not target.exists():
        return None
    stat = target.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _require_valid(temporary: Path, source: Path | Address | None) -> None:
    faults = schema_faults(temporary)
    if faults and source is not None:
        faults -= schema_faults(source)
    if faults:
        found, expected = f"{len(faults)} fault(s) after writing ({min(faults)})", "a file that pynwb validates"
        next_step = "report this; the file is as it was"
        raise NwbCompactError(source or temporary, found=found, expected=expected, next_step=next_step)


def schema_faults(file_path: Path | Address) -> set[str]:
    """What pynwb says against a file."""
    with opened(file_path, locking=False) as file:
        # Parsing the copy of the schema that every file carries takes most of a second and is needed for extensions only.
        extended = bool(set(file.hdf5.get("specifications", ())) - CORE_NAMESPACES)
        return {one_line(error) for error in pynwb.validate(io=file.io, use_cached_namespaces=extended)}


def _keep_permissions(target: Path, temporary: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
        with suppress(PermissionError):
            os.chown(temporary, target.stat().st_uid, target.stat().st_gid)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
