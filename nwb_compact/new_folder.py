"""A folder for what is about to be written, refused where it would be mixed with what is there."""

from pathlib import Path

from nwb_compact.address import require_path
from nwb_compact.errors import NwbCompactError, counted

ANOTHER = "name another folder"


def require_new_folder(folder: Path, *, overwrite: bool, if_file: str = ANOTHER, if_filled: str = ANOTHER) -> None:
    """Stop before a folder is written into that is a file, or holds something and is not to be overwritten.

    Parameters
    ----------
    folder
        Need not be there.
    overwrite
        Whether it may hold something.
    if_file, if_filled
        What to do next.

    Raises
    ------
    NwbCompactError
        If it is a file, or is not empty and `overwrite` is not given.

    Examples
    --------
    >>> require_new_folder(Path("no/such/folder"), overwrite=False)
    """
    require_path(folder)
    if folder.exists() and not folder.is_dir():
        raise NwbCompactError(folder, found="a file", expected="a folder", next_step=if_file)
    if not overwrite and folder.is_dir() and (n := sum(1 for _ in folder.iterdir())):
        found = f"a folder with {counted(n, 'file')} in it"
        raise NwbCompactError(folder, found=found, expected="an empty or a new folder", next_step=if_filled)
