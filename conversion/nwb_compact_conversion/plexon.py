"""Plexon .plx: units with their sort codes, events, and the continuous channels.

Read by NeuroConv, SpikeInterface and Neo. Neo 0.14 misplaces voltage where blocks differ in length, loses the last block, takes
millivolts for microvolts and joins what a pause parted; each is put right here, and a file that ends early is refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device, Electrodes, Units
from nwb_compact_conversion.electrodes import ONE_ARRAY, UNKNOWN
from nwb_compact_conversion.reading import (
    channel_names,
    check_ascending,
    ends_early,
    existing_file,
    from_zero,
    in_stretches,
    name_channels,
    read_by,
    reading,
    single_channels,
)
from nwb_compact_conversion.recorded import Events, Recorded

EXPECTED = "a Plexon .plx file"
WIDEBAND = "WB"
"""Prefix of the unfiltered channels."""
STROBED, START, STOP = 257, 258, 259
"""Event channels: words, and the marks that the recording program makes itself. Every other channel is one line that rose."""
UNSORTED = 0
MICROVOLTS = 1000.0
"""The file's scales give millivolts (Plexon's description of .plx; python-neo issue 372)."""
LATEST_S = 1e9
"""Neo passes over what is later than the last block unless it is given an end."""


def read_plexon(file_path: Path, *, unsorted: bool = True) -> Recorded:
    """One Plexon recording.

    Parameters
    ----------
    file_path
        A .plx. For a .pl2 SpikeInterface needs the vendor's Windows library, so it is refused.
    unsorted
        Whether threshold crossings that nobody sorted (sort code 0) are a unit of their channel.

    Returns
    -------
    Recorded
        `recording` is the wideband stream, where the file has one; every other continuous channel (field potentials, auxiliary
        inputs) is in `analog`. Times are from the first wideband sample, and from the start of the file's clock where there is none.
        Units are named channel#code and carry `channel_name` and `sort_code`.

    Raises
    ------
    NwbCompactError
        If the file is absent, of another kind, ends early, or has timestamps that go back.

    Examples
    --------
    >>> read_plexon(Path("day.pl2"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: day.pl2: found a .pl2 file, which only the vendor's Windows library reads,
    expected a Plexon .plx file. Next: export it as .plx or NWB with Plexon's Offline Sorter or PlexUtil
    """
    if file_path.suffix.lower() == ".pl2":
        next_step = "export it as .plx or NWB with Plexon's Offline Sorter or PlexUtil"
        found = "a .pl2 file, which only the vendor's Windows library reads"
        raise NwbCompactError(file_path, found=found, expected=EXPECTED, next_step=next_step)
    existing_file(file_path, EXPECTED, (".plx",))
    with open(file_path, "rb") as file:
        if (magic := file.read(4)) != b"PLEX":
            next_step = "name a .plx that a Plexon program wrote"
            raise NwbCompactError(file_path, found=f"a file that begins with {magic!r}", expected=EXPECTED, next_step=next_step)
    with reading(file_path, EXPECTED), _quiet():
        return _read(file_path, unsorted=unsorted)


def _read(file_path: Path, *, unsorted: bool) -> Recorded:
    from neuroconv.datainterfaces import PlexonRecordingInterface, PlexonSortingInterface

    interface = PlexonSortingInterface(file_path=file_path)
    reader, names = interface.sorting_extractor.neo_reader, ["PlexonSortingInterface"]
    _check_whole(file_path, reader)
    recording, start_s = None, 0.0
    streams = [str(stream) for stream in reader.header["signal_streams"]["id"]]
    if WIDEBAND in streams:
        names.append("PlexonRecordingInterface")
        recording = _mended(file_path, PlexonRecordingInterface(file_path=file_path).recording_extractor)
        start_s = from_zero(recording, file_path)
    units = _units(file_path, reader, recording, start_s, unsorted=unsorted)
    start: datetime | None = interface.get_metadata()["NWBFile"].get("session_start_time")
    return Recorded(
        files=(file_path,),
        reader=read_by("neuroconv", ", ".join(names)),
        start_time=start,
        device=Device("Plexon", manufacturer="Plexon"),
        recording=recording,
        units=units if len(units) else None,
        electrodes=None if recording is not None or not len(units) else _electrodes(units),
        events=_events(file_path, reader, start_s),
        analog=_analog(file_path, [stream for stream in streams if stream != WIDEBAND], start_s),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Neo draws progress bars on standard error, which cannot be switched off from SpikeInterface."""
    with redirect_stderr(StringIO()):
        yield


def _check_whole(file_path: Path, reader: Any) -> None:
    blocks = [one for kind in reader._data_blocks.values() for one in kind.values() if len(one)]
    end = max((int((one["pos"] + one["size"]).max()) for one in blocks), default=0)
    if end > (size := file_path.stat().st_size):
        raise ends_early(file_path, size, end)


# Continuous channels --------------------------------------------------------------------------------------------------


def _analog(file_path: Path, streams: list[str], start_s: float) -> dict[str, BaseRecording]:
    from spikeinterface.extractors import read_plexon as read_plx

    channels: dict[str, BaseRecording] = {}
    for stream in streams:
        recording = _mended(file_path, read_plx(file_path, stream_id=stream))
        recording.shift_times(-start_s)
        channels |= single_channels(recording)
    return channels


def _mended(file_path: Path, recording: BaseRecording) -> BaseRecording:
    """The stream as the file has it: samples in place, in microvolts, parted where it paused.

    Its last sample is left out: asked for that, Neo gives zeros for the whole last block.
    """
    reader = recording.neo_reader
    numbers = reader.header["signal_channels"][reader.header["signal_channels"]["stream_id"] == recording.stream_id]["id"]
    blocks = [reader._data_blocks[5][int(number)] for number in numbers]
    for one in blocks:
        one["cumsum"] = np.concatenate([[0], np.cumsum(one["size"][:-1] // 2)])
        if not np.array_equal(one["timestamp"], blocks[0]["timestamp"]):
            found, next_step = f"channels of stream {recording.stream_id} that pause at different times", "export the file again"
            raise NwbCompactError(file_path, found=found, expected="one clock for all of them", next_step=next_step)
    gains = recording.get_channel_gains() * MICROVOLTS
    if not np.isfinite(gains).all():
        raise NwbCompactError(file_path, found="a gain of 0", expected="the gain of every channel", next_step="export the file again")
    recording.set_channel_gains(gains)
    first, starts_s = _stretches(file_path, blocks[0], float(reader._global_ssampling_rate), recording.sampling_frequency)
    last = np.append(first[1:], recording.get_num_samples() - 1)
    return name_channels(in_stretches(recording, first, last, starts_s))


def _stretches(
    file_path: Path, blocks: np.ndarray, ticks_per_s: float, rate_hz: float
) -> tuple[Integer[np.ndarray, "stretch"], np.ndarray]:
    """First sample and time of each run of blocks that follow one another within a sample."""
    start_s = check_ascending(file_path, "blocks of voltage", blocks["timestamp"] / ticks_per_s)
    after_s = start_s[:-1] + blocks["size"][:-1] // 2 / rate_hz
    begins = np.concatenate([[True], np.abs(start_s[1:] - after_s) > 1 / rate_hz])
    return blocks["cumsum"][begins].astype(np.int64), start_s[begins]


# Spikes and events ----------------------------------------------------------------------------------------------------


def _units(file_path: Path, reader: Any, recording: BaseRecording | None, start_s: float, *, unsorted: bool) -> Units:
    names, codes, trains = [], [], []
    for index, channel in enumerate(reader.header["spike_channels"]):
        code = int(str(channel["id"]).split("#")[1])
        if code == UNSORTED and not unsorted:
            continue
        ticks = reader.get_spike_timestamps(0, 0, index, t_start=None, t_stop=LATEST_S)
        time_s = reader.rescale_spike_timestamp(ticks, "float64") - start_s
        names.append(str(channel["name"]).strip())
        codes.append(code)
        trains.append(check_ascending(file_path, f"spikes of {names[-1]}", time_s))
    return Units(
        name=tuple(f"{name}#{code}" for name, code in zip(names, codes, strict=True)),
        spike_times_s=tuple(trains),
        resolution_s=1 / reader._global_ssampling_rate,
        electrode_index=_electrode_index(names, recording),
        properties={"channel_name": np.array(names, str), "sort_code": np.array(codes, np.int64)},
    )


def _electrode_index(names: list[str], recording: BaseRecording | None) -> np.ndarray | None:
    """A unit's channel is called SPK07 or sig007 and its wideband WB07: they meet by number, where every one does."""
    if recording is None:
        row = {name: index for index, name in enumerate(dict.fromkeys(names))}
        return np.array([row[name] for name in names], np.uint32)
    rows = {_number(name): index for index, name in enumerate(channel_names(recording))}
    numbers = [_number(name) for name in names]
    return np.array([rows[number] for number in numbers], np.uint32) if set(numbers) <= set(rows) else None


def _number(name: str) -> int | None:
    digits = "".join(character if character.isdigit() else " " for character in name).split()
    return int(digits[-1]) if digits else None


def _electrodes(units: Units) -> Electrodes:
    names = tuple(dict.fromkeys(str(name) for name in units.properties["channel_name"]))
    return Electrodes(names, (ONE_ARRAY,) * len(names), (UNKNOWN,) * len(names))


def _events(file_path: Path, reader: Any, start_s: float) -> dict[str, Events]:
    events = {}
    for index, channel in enumerate(reader.header["event_channels"]):
        number = int(channel["id"])
        ticks, _, words = reader.get_event_timestamps(0, 0, index, t_start=None, t_stop=LATEST_S)
        if number in (START, STOP) or not len(ticks):
            continue
        name = str(channel["name"]).strip() or f"event {number}"
        time_s = reader.rescale_event_timestamp(ticks, "float64", index) - start_s
        code = words.astype(np.int64) if number == STROBED else np.ones(len(ticks), np.int64)
        events[name] = Events(check_ascending(file_path, f"events of {name}", time_s), code)
    return events
