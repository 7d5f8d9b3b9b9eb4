"""A folder for what sorters leave behind, gone with the conversion; what a killed conversion left is gone with the next."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nwb_compact.errors import NwbCompactError
from nwb_compact.safe_write import is_alive


@contextmanager
def scratch_folder(output: Path, parent: Path | None = None) -> Iterator[Path]:
    """A new folder beside the file to be written, or in `parent`, that exists until the block ends.

    Raises
    ------
    NwbCompactError
        If `parent` is no folder, or cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> with scratch_folder(Path(mkdtemp(), "session.nwb")) as folder:
    ...     existed = folder.is_dir()
    >>> existed, folder.exists()
    (True, False)
    """
    parent = output.absolute().parent if parent is None else parent
    begins = f".{output.name}.sorting-{socket.gethostname()}-"
    folder = parent / f"{begins}{os.getpid()}"
    try:
        for left in parent.glob(f"{begins}*"):
            if left.name.removeprefix(begins).isdecimal() and not is_alive(int(left.name.removeprefix(begins))):
                shutil.rmtree(left)
        folder.mkdir()
    except OSError as error:
        next_step = "name an existing folder with --scratch"
        raise NwbCompactError(parent, found=f"that no folder can be made in it ({error.strerror})", expected="room for the sorter's files",
                              next_step=next_step) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
