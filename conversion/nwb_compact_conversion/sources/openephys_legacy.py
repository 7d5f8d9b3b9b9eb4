"""The legacy format of Open Ephys: a .continuous file for each channel, and .events files.

Neo 0.14 drops a record that is cut, cuts all channels to the shortest, fills lost samples with zeros and does not tell whether a TTL
line rose or fell. Records are therefore checked, and events read, here.
"""

import re
from datetime import datetime
from pathlib import Path

import numpy as np
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import (
    TWO_SESSIONS,
    check_ascending,
    ends_early,
    from_zero,
    in_stretches,
    name_channels,
    read_by,
    single_channels,
)

HEADER_BYTES = 1024
RECORD_SAMPLES = 1024
RECORD = np.dtype("<i8, <u2, <u2, (1024,)>i2, (10,)u1")
RECORD.names = ("sample", "length", "recording", "voltage", "marker")
EVENT = np.dtype("<i8, <i2, u1, u1, u1, u1, <u2")
EVENT.names = ("sample", "position", "kind", "processor", "up", "line", "recording")
TTL = 3
"""Kind of an event that is an edge of a TTL line."""
VOLTAGE, ANALOG = "Signals CH", "Signals ADC"
"""Neo's names of the streams."""


def read_legacy(folder: Path, stream: str | None) -> Recorded:
    """See `openephys.read_openephys`."""
    from neuroconv.datainterfaces import OpenEphysLegacyRecordingInterface
    from spikeinterface.extractors.extractor_classes import OpenEphysLegacyRecordingExtractor

    files = sorted(folder.rglob("*.continuous"))
    samples = _records(files)
    streams = [str(name) for name in OpenEphysLegacyRecordingExtractor.get_streams(folder_path=folder)[0]]
    chosen = stream or VOLTAGE
    if chosen not in streams:
        found, next_step = f"streams {', '.join(streams)}", "name one of them with --stream"
        raise NwbCompactError(folder, found=found, expected=chosen, next_step=next_step)
    interface = OpenEphysLegacyRecordingInterface(folder_path=folder, stream_name=chosen)
    recording = interface.recording_extractor
    if recording.get_num_segments() > 1:
        raise NwbCompactError(folder, found=f"{recording.get_num_segments()} recordings, each with a clock of its own", expected="one",
                              next_step="move the files of each (_2, _3, ...) to a folder of its own")
    events = sorted(file for file in folder.rglob("*.events") if file.name != "messages.events")
    analog: dict[str, BaseRecording] = {}
    if ANALOG in streams:
        analog = single_channels(_without_gaps(folder, OpenEphysLegacyRecordingExtractor(folder, stream_name=ANALOG), samples))
    return Recorded(
        files=(*files, *events, *sorted(folder.rglob("settings*.xml"))),
        reader=read_by("neuroconv", "OpenEphysLegacyRecordingInterface"),
        start_time=_start(files[0]),
        device=Device("Open Ephys", manufacturer="Open Ephys"),
        recording=_without_gaps(folder, recording, samples),
        events=_events(events, int(samples[0]), recording.sampling_frequency),
        analog=analog,
    )


def _records(files: list[Path]) -> np.ndarray:
    """Number of the first sample of each record, the same in all files."""
    first = None
    for file in files:
        if (rest := (file.stat().st_size - HEADER_BYTES) % RECORD.itemsize) or file.stat().st_size <= HEADER_BYTES:
            raise ends_early(file, file.stat().st_size, file.stat().st_size + RECORD.itemsize - rest)
        records = np.memmap(file, RECORD, "r", HEADER_BYTES)
        samples = np.array(records["sample"])
        if first is None:
            first = samples
        elif not np.array_equal(samples, first):
            found = f"{len(samples)} records, or others than {files[0].name} has ({len(first)})"
            raise NwbCompactError(file, found=found, expected="the same records in all channels", next_step="copy the recording again")
        if (back := np.flatnonzero(np.diff(samples) < RECORD_SAMPLES)).size:
            found = f"sample {samples[back[0] + 1]:,} in the record after that of sample {samples[back[0]]:,}"
            raise NwbCompactError(file, found=found, expected="sample numbers that only increase", next_step=TWO_SESSIONS)
    assert first is not None
    return first


def _without_gaps(folder: Path, recording: BaseRecording, samples: np.ndarray) -> BaseRecording:
    """Neo puts zeros where records are missing; they are cut out again."""
    begins = np.concatenate([[0], np.flatnonzero(np.diff(samples) != RECORD_SAMPLES) + 1])
    first = samples[begins] - samples[0]
    last = np.append(samples[begins[1:] - 1], samples[-1]) + RECORD_SAMPLES - samples[0]
    cut = in_stretches(name_channels(recording), first, last, first / recording.sampling_frequency)
    from_zero(cut, folder)
    return cut


def _events(files: list[Path], zero: int, rate_hz: float) -> dict[str, Events]:
    edges = []
    for file in files:
        if (rest := (file.stat().st_size - HEADER_BYTES) % EVENT.itemsize) or file.stat().st_size < HEADER_BYTES:
            raise ends_early(file, file.stat().st_size, file.stat().st_size + EVENT.itemsize - rest)
        stored = np.fromfile(file, EVENT, offset=HEADER_BYTES)
        edges.append(stored[stored["kind"] == TTL])
    if not edges:
        return {}
    all_edges = np.concatenate(edges)
    events = {}
    for line in np.unique(all_edges["line"]):
        one = all_edges[all_edges["line"] == line]
        time_s = check_ascending(files[0], f"events of line {line + 1}", (one["sample"] - zero) / rate_hz)
        events[f"TTL{line + 1}"] = Events(time_s, one["up"].astype(np.int64))
    return events


def _start(file: Path) -> datetime | None:
    """The program leaves out leading zeros of the time, which may then be any of several: such a one is not given."""
    with file.open("rb") as opened:
        header = opened.read(HEADER_BYTES).decode("latin-1")
    told = re.search(r"date_created\s*=\s*'(\d+-\w+-\d+ \d{6})'", header)
    return None if told is None else datetime.strptime(told[1], "%d-%b-%Y %H%M%S")
