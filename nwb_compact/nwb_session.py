"""A `Session` as an NWB file: the one writer and the one reader, side by side.

What the session does not hold is not in the file, and the reader gives `None` for it. Where things lie is in `contract`;
docs/nwb_layout.md draws it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from hdmf.common import DynamicTable
from pynwb import NWBHDF5IO, NWBFile
from pynwb.file import Subject as NwbSubject

from nwb_compact import __version__
from nwb_compact import contract as c
from nwb_compact.address import located
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_io import OpenFile, column, given, numbers, opened, require_table, strings, table
from nwb_compact.nwb_responses import add_responses, read_counts, read_means, read_response_units
from nwb_compact.nwb_stimuli import add_events, add_presentations, add_stimulus_images, read_events, read_images, read_presentations
from nwb_compact.nwb_units import add_electrodes, read_device, read_electrodes, read_units
from nwb_compact.safe_write import replaced_safely
from nwb_compact.session import About, Session, Subject, WiringRow


def write_session(
    session: Session, file_path: str | Path, *, overwrite: bool = False, objects_limit: int = c.IMAGES_AS_OBJECTS_LIMIT,
    add_voltage: Callable[[NWBFile], None] | None = None, voltage_bytes: int = 0,
) -> None:
    """Write a session as an NWB file of core types, as a whole or not at all.

    Parameters
    ----------
    session
        Pixels may be lazy; they are written some chunks at a time. Without images or without units the file holds what there is,
        and `read_session` refuses it as no session to fit.
    file_path
        The new file.
    overwrite
        Replace a file that is there already.
    objects_limit
        Up to so many images are `Images` objects, more are one stack.
    add_voltage
        Adds the recording that the session was made from, with its electrodes in the order of `session.electrodes`, to the
        still empty file.
    voltage_bytes
        Room on the disk that it may take.

    Raises
    ------
    NwbCompactError
        If the file exists and `overwrite` is False, or the session contradicts itself, or the disk cannot be written.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from nwb_compact.session import example_session
    >>> file_path = Path(mkdtemp()) / "session.nwb"
    >>> write_session(example_session(), file_path)
    >>> read_session(file_path).units.name
    ('unit-1', 'unit-2')
    """
    file_path = Path(file_path)
    if file_path.exists() and not overwrite:
        raise NwbCompactError(file_path, found="a file", expected="none yet", next_step="choose another name, or allow to overwrite it")
    _require_coherent(session)
    with replaced_safely(file_path, room_bytes=voltage_bytes) as temporary, NWBHDF5IO(temporary, "w") as io:
        nwbfile = _about_to_nwb(session.about)
        if add_voltage is not None:
            add_voltage(nwbfile)
        io.write(_filled(nwbfile, session, objects_limit))


@contextmanager
def open_session(file_path: str | Path) -> Iterator[Session]:
    """The session of a file or address; its pixels stay there and are read when indexed, until the block ends.

    Raises
    ------
    NwbCompactError
        If the file cannot be read or lacks a table or column; `check` then lists all that is wrong with it.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from nwb_compact.session import example_session
    >>> file_path = Path(mkdtemp()) / "session.nwb"
    >>> write_session(example_session(), file_path)
    >>> with open_session(file_path) as session:
    ...     session.images.pixels[[5, 2, 5]].shape
    (3, 8, 8, 3)
    """
    with opened(file_path) as file:
        yield _session(file, located(file_path))


def read_session(file_path: str | Path) -> Session:
    """The session of a file, all of it in memory; raises as `open_session` does."""
    with open_session(file_path) as session:
        pixels = session.images.pixels
        return replace(session, images=replace(session.images, pixels=None if pixels is None else pixels[:]))


# Writing --------------------------------------------------------------------------------------------------------------


def _filled(nwbfile: NWBFile, session: Session, objects_limit: int) -> NWBFile:
    if session.subject is not None:
        nwbfile.subject = NwbSubject(**given(session.subject))
    if session.electrodes is not None and nwbfile.electrodes is None:
        add_electrodes(nwbfile, session.electrodes, session.device)
    if session.events:
        add_events(nwbfile, session.events)
    if len(session.images):
        add_stimulus_images(nwbfile, session.images, objects_limit=objects_limit)
    if session.presentations is not None:
        add_presentations(nwbfile, session.presentations)
    if len(session.units):
        add_responses(nwbfile, session.units, session.response_units, session.counts, session.mean_responses)
    if session.wiring:
        nwbfile.add_scratch(_wiring_table(session.wiring))
    return nwbfile


def _require_coherent(session: Session) -> None:
    """Stop before a contradiction becomes a file; `check` says more about what a file holds."""
    images, presentations, n_response_units = session.images, session.presentations, len(session.response_units.unit_index)
    means, counts = session.mean_responses, session.counts
    of_images = [images.name, *(getattr(images, name) for name in c.OPTIONAL_IMAGE_COLUMNS)]
    complaints = {
        "no image, no unit, no event and no electrode": not (len(images) or len(session.units) or session.events or session.electrodes),
        "presentations or means without images": not len(images) and (presentations is not None or means is not None),
        "responses without units": not len(session.units) and n_response_units > 0,
        "an array called 'electrodes', where NWB keeps the table of electrodes": session.electrodes is not None
        and "electrodes" in session.electrodes.group,
        "columns of images that differ in length": any(values is not None and len(values) != len(images) for values in of_images),
        "pixels of more or fewer images than there are hashes": images.pixels is not None and images.pixels.shape[0] != len(images),
        "only one of start and stop times": presentations is not None
        and (presentations.start_time_s is None) != (presentations.stop_time_s is None),
        "counts without presentations": counts is not None and presentations is None,
        "counts of another number of units": counts is not None and counts.count.shape[1] != n_response_units,
        "means of another number of images or units": means is not None and means.mean.shape != (len(images), n_response_units),
    }
    for found, is_so in complaints.items():
        if is_so:
            where, next_step = f"session '{session.about.identifier}'", "correct what makes the session"
            raise NwbCompactError(where, found=found, expected="a session that agrees with itself", next_step=next_step)


def _about_to_nwb(about: About) -> NWBFile:
    facts = given(about)
    if "source_script" in facts:
        facts["source_script_file_name"] = "nwb_compact"  # NWB requires a name beside the text
    return NWBFile(**facts, was_generated_by=[("nwb_compact", __version__)])


def _wiring_table(wiring: tuple[WiringRow, ...]) -> DynamicTable:
    by_field = zip(fields(WiringRow), zip(*map(astuple, wiring), strict=True), strict=True)
    columns = [
        column(item.name, "how the simulated units were wired", values if item.type is str else np.array(values, float))
        for item, values in by_field
    ]
    return table(c.WIRING, "one row a connection of a simulated unit", len(wiring), *columns)


# Reading --------------------------------------------------------------------------------------------------------------


def _session(file: OpenFile, where: object) -> Session:
    nwbfile = file.nwbfile
    ecephys = nwbfile.processing[c.ECEPHYS].data_interfaces if c.ECEPHYS in nwbfile.processing else {}
    return Session(
        about=in_memory(About, nwbfile),
        subject=None if nwbfile.subject is None else in_memory(Subject, nwbfile.subject),
        images=read_images(file, where),
        presentations=read_presentations(nwbfile, where),
        units=read_units(nwbfile.units if nwbfile.units is not None else require_table(ecephys, c.NEURONS, where), where),
        response_units=read_response_units(require_table(ecephys, c.RESPONSE_UNITS, where), where),
        counts=read_counts(ecephys, where),
        mean_responses=read_means(ecephys, where),
        wiring=_read_wiring(nwbfile, where),
        electrodes=read_electrodes(nwbfile, where),
        device=read_device(nwbfile),
        events=read_events(nwbfile, where),
    )


def in_memory(kind: Any, container: Any) -> Any:
    """A frozen value from the attributes of the same names; lists become tuples."""
    values = {}
    for item in fields(kind):
        value = getattr(container, item.name)
        is_many = value is not None and not isinstance(value, str) and hasattr(value, "__len__")
        values[item.name] = tuple(str(one) for one in value[:]) if is_many else value
    return kind(**values)


def _read_wiring(nwbfile: NWBFile, where: object) -> tuple[WiringRow, ...]:
    rows = (nwbfile.scratch or {}).get(c.WIRING)
    if rows is None:
        return ()
    by_field = [
        strings(rows, item.name, where) if item.type is str else numbers(rows, item.name, where).tolist() for item in fields(WiringRow)
    ]
    return tuple(WiringRow(*values) for values in zip(*by_field, strict=True))
