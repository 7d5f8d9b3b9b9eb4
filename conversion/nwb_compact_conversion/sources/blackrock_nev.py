"""What a Blackrock .nev holds: digital words, threshold crossings and sorted units."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from spikeinterface import BaseRecording

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Electrodes, Units
from nwb_compact_conversion.electrodes import ONE_ARRAY, UNKNOWN
from nwb_compact_conversion.recorded import Events
from nwb_compact_conversion.sources.blackrock_clock import SampleClock
from nwb_compact_conversion.sources.blackrock_headers import NevHeader
from nwb_compact_conversion.sources.reading import AROUND_RESET, channel_names, check_ascending

PORTS = ("digital_input_port", "serial_input_port")
NOISE = 255
"""Sort code of waveforms that were sorted out; they are no unit."""
UNSORTED = 0
"""Sort code of threshold crossings that nobody sorted: multi-unit activity of a channel."""


def nev_reader(nev: Path) -> Any:
    """What Neo reads of a .nev, without any .nsX.

    Raises
    ------
    NwbCompactError
        If its clock was reset.
    """
    from neo.rawio import BlackrockRawIO

    reader = BlackrockRawIO(str(nev), nsx_to_load=[])
    reader.parse_header()
    if reader.segment_count(0) != 1:
        found = f"a clock that was reset {reader.segment_count(0) - 1} times"
        raise NwbCompactError(nev, found=found, expected="timestamps that only increase", next_step=AROUND_RESET)
    return reader


def events_of(nev: Path, reader: Any, clock: SampleClock) -> dict[str, Events]:
    """The words of each port that received any."""
    events = {}
    for index, name in enumerate(reader.header["event_channels"]["name"]):
        ticks, _, words = reader.get_event_timestamps(0, 0, index)
        if name in PORTS and len(ticks):
            time_s = clock.of(reader.rescale_event_timestamp(ticks, "float64", index))
            events[str(name)] = Events(check_ascending(nev, f"words of the {name}", time_s), words.astype(np.int64))
    return events


def units_of(
    nev: Path, reader: Any, header: NevHeader, recording: BaseRecording | None, clock: SampleClock, *, keep_unsorted: bool
) -> tuple[Units, Electrodes | None]:
    """The units, on the channels of `recording`; without one, and the electrodes on which there are spikes."""
    trains = _trains(nev, reader, clock, keep_unsorted=keep_unsorted)
    numbers = [number for number, _ in trains]
    if recording is None:
        names = {number: f"ch{number}" for number in sorted(set(numbers))}
        n = len(names)
        electrodes = Electrodes(tuple(names.values()), (ONE_ARRAY,) * n, (UNKNOWN,) * n)
    else:
        recorded = zip(recording.channel_ids, channel_names(recording), strict=True)
        names, electrodes = {int(channel): name for channel, name in recorded}, None
    row = {number: index for index, number in enumerate(names)}
    channel = [names.get(number, f"ch{number}") for number in numbers]
    units = Units(
        name=tuple(f"{name}#{code}" for name, (_, code) in zip(channel, trains, strict=True)),
        spike_times_s=tuple(trains.values()),
        resolution_s=1 / header.ticks_per_s,
        electrode_index=np.array([row[number] for number in numbers], np.uint32) if set(numbers) <= set(row) else None,
        properties={c.CHANNEL_NAME: np.array(channel), "sort_code": np.array([code for _, code in trains], np.int64)},
    )
    return units, electrodes


def _trains(nev: Path, reader: Any, clock: SampleClock, *, keep_unsorted: bool) -> Mapping[tuple[int, int], Float[np.ndarray, "_"]]:
    """Spike times by electrode number and sort code."""
    trains = {}
    for index, name in enumerate(reader.header["spike_channels"]["name"]):
        number, code = (int(part) for part in str(name).removeprefix("ch").split("#"))
        if code == NOISE or (code == UNSORTED and not keep_unsorted):
            continue
        ticks = reader.get_spike_timestamps(0, 0, index)
        trains[number, code] = check_ascending(nev, f"spikes of {name}", clock.of(reader.rescale_spike_timestamp(ticks, "float64")))
    return trains
