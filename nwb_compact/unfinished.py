"""What is being made lies beside its place, under a name that tells which process of which machine makes it.

A kill so leaves the old thing or the new one, never half of either, and whoever works there next removes what dead processes left.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A place to write a file or make a folder, which takes its own when the block ends well and is removed when it does not.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> path = Path(mkdtemp()) / "costs.json"
    >>> with written_whole(path) as beside:
    ...     _ = beside.write_text("{}")
    ...     path.exists()
    False
    >>> path.read_text()
    '{}'
    """
    begins = f".{path.name}.writing"
    beside = path.with_name(own_name(begins))
    if path.parent.is_dir():
        remove_leftovers(path.parent, re.escape(begins))
    try:
        yield beside
        os.replace(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True) if beside.is_dir() else beside.unlink(missing_ok=True)


def own_name(begins: str, ends: str = "") -> str:
    """A name that no other process has, such as '.a.nwb.writing-MACHINE-PROCESS.nwb'."""
    return f"{begins}-{socket.gethostname()}-{os.getpid()}{ends}"


def remove_leftovers(folder: Path, begins: str, ends: str = "") -> None:
    """Remove what killed processes of this machine left in a folder; that of a living one or of another machine stays.

    Parameters
    ----------
    folder
        Where to look; folders below it are not looked into.
    begins, ends
        As `own_name` was told them, `begins` as a regular expression.
    """
    name = re.compile(rf"{begins}-{re.escape(socket.gethostname())}-(\d+){re.escape(ends)}")
    for path in folder.iterdir():
        match = name.fullmatch(path.name)
        if match and not _is_alive(int(match[1])):
            with suppress(FileNotFoundError):  # another process removes it too
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _is_alive(pid: int) -> bool:
    """Whether another process of that number runs on this machine."""
    if pid == os.getpid():
        return False  # whatever carries our number and lies there before we start is from an earlier process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
