"""Images, presentations and digital events as NWB tables, in and out; the pixels themselves are `nwb_images`' matter."""

from collections.abc import Mapping

import numpy as np
from hdmf.common import DynamicTable
from pynwb import NWBFile
from pynwb.base import Images as NwbImages
from pynwb.epoch import TimeIntervals
from pynwb.event import EventsTable, TimestampVectorData

from nwb_compact import contract as c
from nwb_compact.nwb_images import add_images, add_index_series, lazy_pixels
from nwb_compact.nwb_io import (
    OpenFile,
    column,
    compressed,
    indices,
    numbers,
    require_table,
    smallest_unsigned,
    strings,
    table,
)
from nwb_compact.session import Events, Images, Presentations

NOT_VALID = "False where fixation broke, the trial failed, nothing was shown or the counting window was not recorded"


def add_stimulus_images(nwbfile: NWBFile, images: Images, *, objects_limit: int = c.IMAGES_AS_OBJECTS_LIMIT) -> None:
    """The table of images and, unless only hashes may be kept, their pixels."""
    nwbfile.add_stimulus(_image_table(images))
    if images.pixels is not None:
        add_images(nwbfile, images.pixels, objects_limit=objects_limit)


def add_presentations(nwbfile: NWBFile, presentations: Presentations) -> None:
    """What was shown when; where the images are objects, also the `IndexSeries` that other readers know."""
    columns = [
        column(c.IMAGE_INDEX, f"row in {c.IMAGE_TABLE}, from 0", smallest_unsigned(presentations.image_index)),
        column(c.REPEAT, "how often this image had been shown before", smallest_unsigned(presentations.repeat)),
        column(c.IS_VALID, NOT_VALID, presentations.is_valid),
    ]
    description = "what was shown when: one row for each time an image was on the screen"
    if presentations.start_time_s is None or presentations.stop_time_s is None:
        rows = table(c.PRESENTATIONS, f"{description}; the source gave no times", len(presentations), *columns)
        nwbfile.add_stimulus(rows)
        return
    times = [
        column(c.START_TIME, "image onset, seconds", presentations.start_time_s),
        column(c.STOP_TIME, "image offset, seconds", presentations.stop_time_s),
    ]
    if presentations.alignment_residual_s is not None:
        description_of = "onset marked in the recording minus onset computed from the stimulus clock, seconds; NaN where not marked"
        columns.append(column(c.ALIGNMENT_RESIDUAL, description_of, presentations.alignment_residual_s))
    rows = TimeIntervals(name=c.PRESENTATIONS, description=description, id=np.arange(len(presentations)), columns=times + columns)
    nwbfile.add_time_intervals(rows)
    if isinstance(nwbfile.stimulus_template.get(c.IMAGES), NwbImages):
        add_index_series(nwbfile, presentations)


def add_events(nwbfile: NWBFile, events: Mapping[str, Events]) -> None:
    """Every digital event of the recording, in one table."""
    channel = np.repeat(list(events), [len(one.time_s) for one in events.values()])
    time_s, code = (np.concatenate([getattr(one, name) for one in events.values()]) for name in ("time_s", "code"))
    order = np.argsort(time_s, kind="stable")
    columns = [
        TimestampVectorData(name=c.TIMESTAMP, description="seconds, on the clock of the recording", data=compressed(time_s[order])),
        column(c.CHANNEL, "line or port", channel[order].tolist()),
        column(c.CODE, "word; on a single line 1 where it rose, 0 where it fell", code[order]),
    ]
    description = "digital events as the acquisition system recorded them"
    nwbfile.add_events_table(EventsTable(name=c.EVENTS, description=description, id=np.arange(len(order)), columns=columns))


def presentation_table(nwbfile: NWBFile) -> DynamicTable | None:
    """The table of presentations, wherever it lies; None where there is none."""
    timed = (nwbfile.intervals or {}).get(c.PRESENTATIONS)
    return timed if timed is not None else nwbfile.stimulus.get(c.PRESENTATIONS)


def read_images(file: OpenFile, where: object) -> Images:
    """The images of a file; their pixels stay on disk."""
    rows = require_table(file.nwbfile.stimulus, c.IMAGE_TABLE, where)
    optional = {name: strings(rows, name, where) for name in c.OPTIONAL_IMAGE_COLUMNS if name in rows.colnames}
    return Images(strings(rows, c.NAME, where), strings(rows, c.SHA256, where), lazy_pixels(file.hdf5), **optional)


def read_presentations(nwbfile: NWBFile, where: object) -> Presentations | None:
    """The presentations of a file; None where it has none."""
    rows = presentation_table(nwbfile)
    if rows is None:
        return None
    is_timed = isinstance(rows, TimeIntervals)
    return Presentations(
        image_index=indices(rows, c.IMAGE_INDEX, where),
        repeat=indices(rows, c.REPEAT, where),
        is_valid=numbers(rows, c.IS_VALID, where).astype(bool),
        start_time_s=numbers(rows, c.START_TIME, where) if is_timed else None,
        stop_time_s=numbers(rows, c.STOP_TIME, where) if is_timed else None,
        alignment_residual_s=numbers(rows, c.ALIGNMENT_RESIDUAL, where) if c.ALIGNMENT_RESIDUAL in rows.colnames else None,
    )


def read_events(nwbfile: NWBFile, where: object) -> dict[str, Events]:
    """The digital events of a file by line or port, empty where there are none."""
    rows = (nwbfile.events or {}).get(c.EVENTS)
    if rows is None:
        return {}
    channel = np.array(strings(rows, c.CHANNEL, where), object)
    time_s, code = (numbers(rows, name, where) for name in (c.TIMESTAMP, c.CODE))
    return {name: Events(time_s[channel == name], code[channel == name]) for name in dict.fromkeys(channel)}


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
