"""A folder for what sorters leave behind, gone with the conversion; what a killed conversion left is gone with the next."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nwb_compact.errors import NwbCompactError
from nwb_compact.unfinished import own_name, remove_leftovers


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
    begins = f".{output.name}.sorting"
    folder = parent / own_name(begins)
    try:
        remove_leftovers(parent, re.escape(begins))
        folder.mkdir()
    except OSError as error:
        next_step = "name an existing folder with --scratch"
        raise NwbCompactError(parent, found=f"that no folder can be made in it ({error.strerror})", expected="room for the sorter's files",
                              next_step=next_step) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
