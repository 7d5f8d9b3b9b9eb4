"""A `Session` as an NWB file: the one writer and the one reader, side by side.

What the session does not hold is not in the file, and the reader gives `None` for it. Where things lie is in `contract`;
docs/nwb_layout.md draws it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from hdmf.common import DynamicTable
from pynwb import NWBHDF5IO, NWBFile
from pynwb.epoch import TimeIntervals
from pynwb.event import EventsTable, TimestampVectorData
from pynwb.file import Subject as NwbSubject

from nwb_compact import __version__
from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.nwb_images import add_images, add_index_series, lazy_pixels
from nwb_compact.nwb_io import (
    OpenFile,
    column,
    compressed,
    indices,
    numbers,
    opened,
    region,
    smallest_unsigned,
    strings,
    table,
    unsigned,
)
from nwb_compact.nwb_units import add_electrodes, add_units, read_device, read_electrodes, read_units
from nwb_compact.safe_write import replaced_safely
from nwb_compact.session import About, Events, Images, MeanResponses, Presentations, ResponseUnits, Session, SpikeCounts, Subject, WiringRow


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
    """The session of a file; its pixels stay on disk and are read when indexed, until the block ends.

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
        yield _session(file, Path(file_path))


def read_session(file_path: str | Path) -> Session:
    """The session of a file, all of it in memory; raises as `open_session` does."""
    with open_session(file_path) as session:
        pixels = session.images.pixels
        return replace(session, images=replace(session.images, pixels=None if pixels is None else pixels[:]))


# Writing --------------------------------------------------------------------------------------------------------------


def _filled(nwbfile: NWBFile, session: Session, objects_limit: int) -> NWBFile:
    if session.subject is not None:
        nwbfile.subject = NwbSubject(**_given(session.subject))
    if session.electrodes is not None and nwbfile.electrodes is None:
        add_electrodes(nwbfile, session.electrodes, session.device)
    if session.events:
        nwbfile.add_events_table(_event_table(session.events))
    presentations = _add_stimuli(nwbfile, session, objects_limit) if len(session.images) else None
    if len(session.units):
        _add_responses(nwbfile, session, presentations)
    if session.wiring:
        nwbfile.add_scratch(_wiring_table(session.wiring))
    return nwbfile


def _add_stimuli(nwbfile: NWBFile, session: Session, objects_limit: int) -> DynamicTable | None:
    nwbfile.add_stimulus(_image_table(session.images))
    if session.images.pixels is not None:
        add_images(nwbfile, session.images.pixels, objects_limit=objects_limit)
    return None if session.presentations is None else _add_presentations(nwbfile, session, objects_limit)


def _add_responses(nwbfile: NWBFile, session: Session, presentations: DynamicTable | None) -> None:
    ecephys = nwbfile.create_processing_module(c.ECEPHYS, "units and their responses to the images")
    units = add_units(nwbfile, session.units)
    ecephys.add(_response_unit_table(session.response_units, units))
    if session.counts is not None and presentations is not None:
        ecephys.add(_count_table(session.counts, presentations))
    if session.mean_responses is not None:
        ecephys.add(_mean_table(session.mean_responses))


def _require_coherent(session: Session) -> None:
    """Stop before a contradiction becomes a file; `check` says more about what a file holds."""
    images, presentations, n_response_units = session.images, session.presentations, len(session.response_units.unit_index)
    means, counts = session.mean_responses, session.counts
    of_images = [images.name, *(getattr(images, name) for name in c.OPTIONAL_IMAGE_COLUMNS)]
    complaints = {
        "no image, no unit and no event": not (len(images) or len(session.units) or session.events),
        "presentations or means without images": not len(images) and (presentations is not None or means is not None),
        "responses without units": not len(session.units) and n_response_units > 0,
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


def _given(values: Any) -> dict[str, Any]:
    """The fields of a frozen value that are given; nothing is filled in for the others."""
    return {item.name: getattr(values, item.name) for item in fields(values) if getattr(values, item.name) is not None}


def _about_to_nwb(about: About) -> NWBFile:
    given = _given(about)
    if "source_script" in given:
        given["source_script_file_name"] = "nwb_compact"  # NWB requires a name beside the text
    return NWBFile(**given, was_generated_by=[("nwb_compact", __version__)])


def _image_table(images: Images) -> DynamicTable:
    columns = [
        column(c.NAME, "name of the image in its source", images.name),
        column(c.SHA256, "SHA-256 over 'HEIGHTxWIDTHxCHANNEL:' and the decoded 8-bit pixels, the identity of the image", images.sha256),
    ]
    kept = {c.KIND: "what sort of image it is", c.SOURCE: "where it is from", c.LICENCE: "its licence", c.SPLIT: "what it serves for"}
    for name, description in kept.items():
        values = getattr(images, name)
        columns += [] if values is None else [column(name, description, values)]
    return table(c.IMAGE_TABLE, "one row an image; image_index elsewhere is the row here, from 0", len(images), *columns)


def _event_table(events: Mapping[str, Events]) -> EventsTable:
    channel = np.repeat(list(events), [len(one.time_s) for one in events.values()])
    time_s, code = (np.concatenate([getattr(one, name) for one in events.values()]) for name in ("time_s", "code"))
    order = np.argsort(time_s, kind="stable")
    columns = [
        TimestampVectorData(name=c.TIMESTAMP, description="seconds, on the clock of the recording", data=compressed(time_s[order])),
        column(c.CHANNEL, "line or port", channel[order].tolist()),
        column(c.CODE, "word; on a single line 1 where it rose, 0 where it fell", code[order]),
    ]
    description = "digital events as the acquisition system recorded them"
    return EventsTable(name=c.EVENTS, description=description, id=np.arange(len(order)), columns=columns)


def _add_presentations(nwbfile: NWBFile, session: Session, objects_limit: int) -> DynamicTable:
    presentations = session.presentations
    assert presentations is not None
    columns = [
        column(c.IMAGE_INDEX, f"row in {c.IMAGE_TABLE}, from 0", smallest_unsigned(presentations.image_index)),
        column(c.REPEAT, "how often this image had been shown before", smallest_unsigned(presentations.repeat)),
        column(c.IS_VALID, "False where fixation broke or the trial failed", presentations.is_valid),
    ]
    description = "what was shown when: one row for each time an image was on the screen"
    if presentations.start_time_s is None or presentations.stop_time_s is None:
        rows = table(c.PRESENTATIONS, f"{description}; the source gave no times", len(presentations), *columns)
        nwbfile.add_stimulus(rows)
        return rows
    times = [
        column(c.START_TIME, "image onset, seconds", presentations.start_time_s),
        column(c.STOP_TIME, "image offset, seconds", presentations.stop_time_s),
    ]
    if presentations.alignment_residual_s is not None:
        description_of = "onset marked in the recording minus onset computed from the stimulus clock, seconds; NaN where not marked"
        columns.append(column(c.ALIGNMENT_RESIDUAL, description_of, presentations.alignment_residual_s))
    rows = TimeIntervals(name=c.PRESENTATIONS, description=description, id=np.arange(len(presentations)), columns=times + columns)
    nwbfile.add_time_intervals(rows)
    if session.images.pixels is not None and len(session.images) <= objects_limit:
        add_index_series(nwbfile, presentations)
    return rows


def _response_unit_table(response_units: ResponseUnits, units: DynamicTable) -> DynamicTable:
    about = {
        c.WINDOW_START: "start of the counting window after image onset, seconds",
        c.WINDOW_STOP: "end of the counting window after image onset, seconds",
        "latency_s": "latency of the response, seconds",
        "reliability": "split-half reliability as the source gave it",
        "snr": "signal-to-noise ratio as the source gave it",
    }
    given = _given(response_units)
    columns = [region(c.UNIT, "the unit", response_units.unit_index, units)]
    columns += [column(name, description, given[name]) for name, description in about.items() if name in given]
    return table(c.RESPONSE_UNITS, "row j describes column j of the responses", len(response_units.unit_index), *columns)


def _count_table(counts: SpikeCounts, presentations: DynamicTable) -> DynamicTable:
    columns = [
        region(c.PRESENTATION, "the presentation", counts.presentation_index, presentations),
        column(c.COUNT, f"spikes in the counting window, one column a row of {c.RESPONSE_UNITS}", smallest_unsigned(counts.count)),
    ]
    return table(c.SPIKE_COUNTS, counts.description, len(counts.presentation_index), *columns)


def _mean_table(means: MeanResponses) -> DynamicTable:
    columns = [column(c.MEAN, f"mean spike count over repeats, one column a row of {c.RESPONSE_UNITS}; NaN where not held", means.mean)]
    columns += [] if means.n_repeats is None else [column(c.N_REPEATS, "repeats behind each mean", means.n_repeats)]
    return table(c.MEAN_RESPONSES, means.description, len(means.mean), *columns)


def _wiring_table(wiring: tuple[WiringRow, ...]) -> DynamicTable:
    by_field = zip(fields(WiringRow), zip(*map(astuple, wiring), strict=True), strict=True)
    columns = [
        column(item.name, "how the simulated units were wired", values if item.type is str else np.array(values, float))
        for item, values in by_field
    ]
    return table(c.WIRING, "one row a connection of a simulated unit", len(wiring), *columns)


# Reading --------------------------------------------------------------------------------------------------------------


def _session(file: OpenFile, where: Path) -> Session:
    nwbfile = file.nwbfile
    ecephys = nwbfile.processing[c.ECEPHYS].data_interfaces if c.ECEPHYS in nwbfile.processing else {}
    counts, means = ecephys.get(c.SPIKE_COUNTS), ecephys.get(c.MEAN_RESPONSES)
    return Session(
        about=_in_memory(About, nwbfile),
        subject=None if nwbfile.subject is None else _in_memory(Subject, nwbfile.subject),
        images=_read_images(file, where),
        presentations=_read_presentations(nwbfile, where),
        units=read_units(nwbfile.units if nwbfile.units is not None else _require_table(ecephys, c.NEURONS, where), where),
        response_units=_read_response_units(_require_table(ecephys, c.RESPONSE_UNITS, where), where),
        counts=None if counts is None else _read_counts(counts, where),
        mean_responses=None if means is None else _read_means(means, where),
        wiring=_read_wiring(nwbfile, where),
        electrodes=read_electrodes(nwbfile, where),
        device=read_device(nwbfile),
        events=_read_events(nwbfile, where),
    )


def _require_table(tables: Any, name: str, where: Path) -> DynamicTable:
    found = tables.get(name)
    if not isinstance(found, DynamicTable):
        there = ", ".join(sorted(tables)) or "none"
        next_step = "run nwb-compact check on the file; docs/nwb_layout.md says what it must hold"
        raise NwbCompactError(where, found=f"no table {name} (there: {there})", expected="a session file", next_step=next_step)
    return found


def _in_memory(kind: Any, container: Any) -> Any:
    """A frozen value from the attributes of the same names; lists become tuples."""
    values = {}
    for item in fields(kind):
        value = getattr(container, item.name)
        is_many = value is not None and not isinstance(value, str) and hasattr(value, "__len__")
        values[item.name] = tuple(str(one) for one in value[:]) if is_many else value
    return kind(**values)


def _read_images(file: OpenFile, where: Path) -> Images:
    rows = _require_table(file.nwbfile.stimulus, c.IMAGE_TABLE, where)
    optional = {name: strings(rows, name, where) for name in c.OPTIONAL_IMAGE_COLUMNS if name in rows.colnames}
    return Images(strings(rows, c.NAME, where), strings(rows, c.SHA256, where), lazy_pixels(file.hdf5), **optional)


def _read_presentations(nwbfile: NWBFile, where: Path) -> Presentations | None:
    timed = (nwbfile.intervals or {}).get(c.PRESENTATIONS)
    rows = timed if timed is not None else nwbfile.stimulus.get(c.PRESENTATIONS)
    if rows is None:
        return None
    return Presentations(
        image_index=indices(rows, c.IMAGE_INDEX, where),
        repeat=indices(rows, c.REPEAT, where),
        is_valid=numbers(rows, c.IS_VALID, where).astype(bool),
        start_time_s=None if timed is None else numbers(rows, c.START_TIME, where),
        stop_time_s=None if timed is None else numbers(rows, c.STOP_TIME, where),
        alignment_residual_s=numbers(rows, c.ALIGNMENT_RESIDUAL, where) if c.ALIGNMENT_RESIDUAL in rows.colnames else None,
    )


def _read_response_units(rows: DynamicTable, where: Path) -> ResponseUnits:
    names = (c.WINDOW_START, c.WINDOW_STOP, *c.OPTIONAL_RESPONSE_UNIT_COLUMNS)
    given = {name: numbers(rows, name, where) if name in rows.colnames else None for name in names}
    return ResponseUnits(indices(rows, c.UNIT, where), **given)


def _read_counts(rows: DynamicTable, where: Path) -> SpikeCounts:
    count = unsigned(numbers(rows, c.COUNT, where), f"{where}: {c.SPIKE_COUNTS}/{c.COUNT}")
    return SpikeCounts(indices(rows, c.PRESENTATION, where), count, rows.description)


def _read_means(rows: DynamicTable, where: Path) -> MeanResponses:
    n_repeats = numbers(rows, c.N_REPEATS, where).astype(float) if c.N_REPEATS in rows.colnames else None
    return MeanResponses(numbers(rows, c.MEAN, where), n_repeats, rows.description)


def _read_events(nwbfile: NWBFile, where: Path) -> dict[str, Events]:
    rows = (nwbfile.events or {}).get(c.EVENTS)
    if rows is None:
        return {}
    channel = np.array(strings(rows, c.CHANNEL, where), object)
    time_s, code = (numbers(rows, name, where) for name in (c.TIMESTAMP, c.CODE))
    return {name: Events(time_s[channel == name], code[channel == name]) for name in dict.fromkeys(channel)}


def _read_wiring(nwbfile: NWBFile, where: Path) -> tuple[WiringRow, ...]:
    rows = (nwbfile.scratch or {}).get(c.WIRING)
    if rows is None:
        return ()
    by_field = [
        strings(rows, item.name, where) if item.type is str else numbers(rows, item.name, where).tolist() for item in fields(WiringRow)
    ]
    return tuple(WiringRow(*values) for values in zip(*by_field, strict=True))
