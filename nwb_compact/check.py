"""Every fault of a session file at once, before a long run finds the first one.

What is a fault is said in `session_faults`.
"""

from pathlib import Path

import click
import numpy as np

from nwb_compact.address import FILE_OR_ADDRESS, Address
from nwb_compact.errors import Fault, NwbCompactError, SeveralFaults, one_line
from nwb_compact.nwb_io import open_hdf5
from nwb_compact.nwb_session import open_session
from nwb_compact.responses import responses_of
from nwb_compact.session import Session
from nwb_compact.session_faults import session_faults


@click.command("check")
@click.argument("file", type=FILE_OR_ADDRESS)
def command(file: Path | Address) -> None:
    """List every fault of a session FILE, one a line; exit 1 on any."""
    faults = check(file)
    for fault in faults:
        click.echo(str(fault))
    if faults:
        raise SystemExit(1)
    click.echo(f"{file}: all is well; {summary(file)}")


def check(file_path: str | Path) -> tuple[Fault, ...]:
    """Every fault of a session file; empty when it can be fitted. A file that cannot be read is a fault like any other.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from nwb_compact.nwb_session import write_session
    >>> from nwb_compact.session import example_session
    >>> file_path = Path(mkdtemp()) / "session.nwb"
    >>> write_session(example_session(), file_path)
    >>> check(file_path)
    ()
    >>> print(*check(Path("no-such-file.nwb")))
    no-such-file.nwb: found no file, expected an NWB file. Next: correct the path
    """
    try:
        with open_hdf5(file_path) as hdf5:
            faults = session_faults(hdf5, str(file_path))
        if not faults:
            with open_session(file_path):
                pass
        return faults
    except NwbCompactError as error:
        return error.faults
    except Exception as error:  # hostile files make h5py and pynwb raise anything
        found = f"a file that cannot be read ({type(error).__name__}: {one_line(error)})"
        return (Fault(str(file_path), found, "a session file", "convert the session again"),)


def require_sound(file_path: str | Path) -> None:
    """Stop before a long run where the file has a fault.

    Raises
    ------
    NwbCompactError
        Carrying all faults, one line each.
    """
    faults = check(file_path)
    if faults:
        raise SeveralFaults(faults)


def summary(file_path: str | Path) -> str:
    """What a sound file holds, in one line. An image without a response, or with none in a valid presentation, is left out by a fit.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from nwb_compact.nwb_session import write_session
    >>> from nwb_compact.session import example_session
    >>> file_path = Path(mkdtemp()) / "session.nwb"
    >>> write_session(example_session(), file_path)
    >>> summary(file_path)
    '2 units, 24 images (24 different, 0 without a response), 60 presentations, single-trial counts'
    """
    with open_session(file_path) as session:
        return contents(session)


def contents(session: Session) -> str:
    """What `summary` says, of a session that is open."""
    images, presentations = session.images, session.presentations
    unanswered = int((~np.isfinite(responses_of(session).mean).any(axis=1)).sum())
    different = len(set(images.sha256))
    parts = [f"{len(session.units)} units", f"{len(images)} images ({different} different, {unanswered} without a response)"]
    parts += [] if presentations is None else [f"{len(presentations)} presentations"]
    parts.append("repeat averages only" if session.counts is None else "single-trial counts")
    return ", ".join(parts)
