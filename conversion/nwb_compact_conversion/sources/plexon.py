"""Plexon .plx: units with their sort codes, events, and the continuous channels.

Read by NeuroConv, SpikeInterface and Neo. Neo 0.14 misplaces voltage where blocks differ in length, loses the last block, takes
millivolts for microvolts and joins what a pause parted; each is put right here and in `plexon_voltage`, and a file that ends early is
refused.
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

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device, Electrodes, Units
from nwb_compact_conversion.electrodes import ONE_ARRAY, UNKNOWN
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import (
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

EXPECTED = "a Plexon .plx file"
WIDEBAND = "WB"
"""Prefix of the unfiltered channels."""
STROBED, START, STOP = 257, 258, 259
"""Event channels: words, and the marks that the recording program makes itself. Every other channel is one line that rose."""
UNSORTED = 0
LATEST_S = 1e9
"""Neo passes over what is later than the last block unless it is given an end."""


def read_plexon(file_path: Path, *, keep_unsorted: bool = True) -> Recorded:
    """One Plexon recording.

    Parameters
    ----------
    file_path
        A .plx. For a .pl2 SpikeInterface needs the vendor's Windows library, so it is refused.
    keep_unsorted
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
        return _read(file_path, keep_unsorted=keep_unsorted)


def _read(file_path: Path, *, keep_unsorted: bool) -> Recorded:
    from neuroconv.datainterfaces import PlexonSortingInterface

    interface = PlexonSortingInterface(file_path=file_path)
    reader = interface.sorting_extractor.neo_reader
    _check_whole(file_path, reader)
    recording, start_s = None, 0.0
    streams = [str(stream) for stream in reader.header["signal_streams"]["id"]]
    if WIDEBAND in streams:
        recording = _stream(file_path, WIDEBAND)
        start_s = from_zero(recording, file_path)
    units = _units(file_path, reader, recording, start_s, keep_unsorted=keep_unsorted)
    start: datetime | None = interface.get_metadata()["NWBFile"].get("session_start_time")
    return Recorded(
        files=(file_path,),
        reader=read_by("neuroconv", "PlexonSortingInterface"),
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
    channels: dict[str, BaseRecording] = {}
    for stream in streams:
        recording = _stream(file_path, stream)
        recording.shift_times(-start_s)
        channels |= single_channels(recording)
    return channels


def _stream(file_path: Path, stream: str) -> BaseRecording:
    """Parted where it paused, and without its last sample."""
    from nwb_compact_conversion.sources.plexon_voltage import MendedPlexonRecordingExtractor

    whole = MendedPlexonRecordingExtractor(file_path, stream)
    ticks_per_s = float(whole.neo_reader._global_ssampling_rate)
    first, starts_s = _stretches(file_path, whole.blocks, ticks_per_s, whole.sampling_frequency)
    last = np.append(first[1:], whole.get_num_samples() - 1)
    return in_stretches(name_channels(whole), first, last, starts_s)


def _stretches(
    file_path: Path, blocks: np.ndarray, ticks_per_s: float, rate_hz: float
) -> tuple[Integer[np.ndarray, "stretch"], np.ndarray]:
    """First sample and time of each run of blocks that follow one another within a sample."""
    start_s = check_ascending(file_path, "blocks of voltage", blocks["timestamp"] / ticks_per_s)
    after_s = start_s[:-1] + blocks["size"][:-1] // 2 / rate_hz
    begins = np.concatenate([[True], np.abs(start_s[1:] - after_s) > 1 / rate_hz])
    return blocks["cumsum"][begins].astype(np.int64), start_s[begins]


# Spikes and events ----------------------------------------------------------------------------------------------------


def _units(file_path: Path, reader: Any, recording: BaseRecording | None, start_s: float, *, keep_unsorted: bool) -> Units:
    names, codes, trains = [], [], []
    for index, channel in enumerate(reader.header["spike_channels"]):
        code = int(str(channel["id"]).split("#")[1])
        if code == UNSORTED and not keep_unsorted:
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
        properties={c.CHANNEL_NAME: np.array(names, str), "sort_code": np.array(codes, np.int64)},
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
    names = tuple(dict.fromkeys(str(name) for name in units.properties[c.CHANNEL_NAME]))
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
