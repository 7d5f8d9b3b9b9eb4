"""Blackrock Cerebus and Neuroport: voltage from .nsX, digital words, threshold crossings and sorted units from the .nev beside it.

Read by SpikeInterface and Neo. Three things are done here because they do not: a file that ends in the middle of its data is refused,
analog inputs (a photodiode) are kept apart from electrodes, and the voltage scale of file specification 2.1 is taken from the .nev.
"""

import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np
from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.blackrock_clock import SampleClock, clock_of, put_on
from nwb_compact_conversion.sources.blackrock_headers import NevHeader, NsxHeader, read_nev_header, read_nsx_header
from nwb_compact_conversion.sources.blackrock_nev import events_of, nev_reader, units_of
from nwb_compact_conversion.sources.reading import (
    channel_names,
    existing_file,
    name_channels,
    read_by,
    reading,
    single_channels,
)

EXPECTED = "a Blackrock .nsX (.ns1 to .ns6) or .nev file"
NSX = tuple(f".ns{number}" for number in range(1, 7))
NO_GAP_MS = 0.0
"""Gaps up to this are taken as none: every gap starts a new segment."""


def read_blackrock(file_path: Path, *, voltage: bool = False, keep_unsorted: bool = True) -> Recorded:
    """One Blackrock recording.

    Examples
    --------
    >>> read_blackrock(Path("no-such.ns6"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such.ns6: found no such file, expected a Blackrock .nsX (.ns1 to .ns6) or .nev file.
    Next: correct the path

    Parameters
    ----------
    file_path
        A .nsX: its voltage, the digital words and units of the .nev of the same name where there is one, and the analog inputs of
        all .nsX of that name. A .nev: its units and digital words, on the clock of the .nev.
    voltage
        With a .nev: the voltage of the .nsX of the same name with the highest number is read as well, and must be there.
    keep_unsorted
        Whether threshold crossings that nobody sorted (sort code 0) are a unit of their channel. Noise (255) never is.

    Returns
    -------
    Recorded
        Units are named channel#code and carry `channel_name` and `sort_code`; resolution is one tick of the .nev.

    Raises
    ------
    NwbCompactError
        If a file is absent, of another kind, ends early, or has a clock that goes back.

    Notes
    -----
    A .nsX gives its start in UTC (file specification 2.2 and later). The .nev beside it gives local time without a zone, as in the
    example of specification 2.3 by the vendor, where the two differ by seven hours.

    Where every sample has a stamp of the precision time protocol (specification 3.0), words and spikes of the .nev are placed at the
    sample that was taken when they came, see `blackrock_clock`. Neo holds 17 bytes for each sample of such a file while it opens it
    (its stamps, their differences): 3.7 GB for 2 h at 30 kHz.
    """
    existing_file(file_path, EXPECTED, (*NSX, ".nev"))
    nsx: Path | None = file_path
    if file_path.suffix.lower() == ".nev":
        nsx = _voltage_of(file_path) if voltage else None
    nev = file_path if nsx is not file_path else _beside(file_path, ".nev")
    files = tuple(path for path in (nsx, nev) if path is not None)
    with reading(file_path, EXPECTED):
        return _read(files, nsx, nev, keep_unsorted=keep_unsorted)


def _read(files: tuple[Path, ...], nsx: Path | None, nev: Path | None, *, keep_unsorted: bool) -> Recorded:
    nev_header = None if nev is None else read_nev_header(nev)
    recording, clock, header = None, SampleClock(np.zeros(1), np.zeros(1)), None
    analog: dict[str, BaseRecording] = {}
    if nsx is not None:
        header = read_nsx_header(nsx)
        whole = _whole(nsx, header, nev)
        clock = clock_of(nsx, whole)
        recording, analog = _parted(whole)
        more = _analog_of_siblings(nsx, nev, clock)
        files += tuple(path for path, channels in more if set(channels) - set(analog))
        for _, channels in more:
            analog = channels | analog
    spikes, electrodes = None, None
    events: dict[str, Events] = {}
    if nev is not None and nev_header is not None:
        reader = nev_reader(nev)
        events = events_of(nev, reader, clock)
        spikes, electrodes = units_of(nev, reader, nev_header, recording, clock, keep_unsorted=keep_unsorted)
    return Recorded(
        files=files,
        reader=read_by("neo", "BlackrockRawIO") if nsx is None else read_by("spikeinterface", "BlackrockRecordingExtractor"),
        start_time=_start(header, nev_header),
        device=Device("Blackrock", _described(nev_header), "Blackrock Neurotech"),
        recording=recording,
        units=spikes,
        electrodes=electrodes,
        events=events,
        analog=analog,
    )


def _beside(file_path: Path, suffix: str) -> Path | None:
    beside = file_path.with_suffix(suffix)
    return beside if beside.is_file() else None


def _voltage_of(nev: Path) -> Path:
    for suffix in reversed(NSX):
        if (nsx := _beside(nev, suffix)) is not None:
            return nsx
    next_step = "copy it there, or set sorting.sorter to none to use the units of the .nev"
    raise NwbCompactError(nev, found="a .nev without its .nsX", expected="the .nsX that holds the voltage beside it", next_step=next_step)


def _start(nsx: NsxHeader | None, nev: NevHeader | None) -> datetime | None:
    if nsx is not None and nsx.start is not None:
        return nsx.start.replace(tzinfo=UTC)
    return None if nev is None else nev.start


def _described(nev: NevHeader | None) -> str | None:
    return None if nev is None or not nev.application else f"recorded with {nev.application}"


def _whole(nsx: Path, header: NsxHeader, nev: Path | None) -> BaseRecording:
    from spikeinterface.extractors import read_blackrock as read_nsx

    recording = read_nsx(nsx, stream_id=nsx.suffix[-1], gap_tolerance_ms=NO_GAP_MS)
    # Neo opens the file when samples are read and never closes it; without this Python warns when the recording goes.
    weakref.finalize(recording.neo_reader, _close, vars(recording.neo_reader).setdefault("_nsx_fids", {}))
    if header.spec == "2.1":
        _scale_of_nev(recording, nsx, nev)
    return name_channels(recording)


def _close(files: dict[int, BinaryIO]) -> None:
    for file in files.values():
        file.close()


def _scale_of_nev(recording: BaseRecording, nsx: Path, nev: Path | None) -> None:
    """Specification 2.1 keeps the scale in the .nev, which SpikeInterface does not read: it would take one step for one microvolt."""
    from neo.rawio import BlackrockRawIO

    if nev is None:
        expected = "the .nev beside it, which holds the voltage scale in file specification 2.1"
        raise NwbCompactError(nsx, found="no .nev", expected=expected, next_step="copy it there")
    reader = BlackrockRawIO(str(nsx), nsx_to_load=int(nsx.suffix[-1]))
    reader.parse_header()
    scale = {str(channel["id"]): float(channel["gain"]) for channel in reader.header["signal_channels"]}
    recording.set_channel_gains([scale[str(channel)] for channel in recording.channel_ids])


def _parted(whole: BaseRecording) -> tuple[BaseRecording | None, dict[str, BaseRecording]]:
    """Electrodes, and the analog inputs by name: those are called ainp or measured in millivolts."""
    units = whole.get_property("physical_unit")
    is_analog = np.array([name.startswith("ainp") or unit == "mV" for name, unit in zip(channel_names(whole), units, strict=True)])
    if not is_analog.any():
        return whole, {}
    analog = single_channels(whole.select_channels(whole.channel_ids[is_analog]))
    return (None if is_analog.all() else whole.select_channels(whole.channel_ids[~is_analog])), analog


def _analog_of_siblings(nsx: Path, nev: Path | None, clock: SampleClock) -> list[tuple[Path, dict[str, BaseRecording]]]:
    """A photodiode is often sampled at another rate than the electrodes, hence lies in another .nsX; the highest rate first."""
    found = []
    for suffix in reversed(NSX):
        if suffix == nsx.suffix or (path := _beside(nsx, suffix)) is None:
            continue
        header = read_nsx_header(path)
        if not header.has_analog_inputs:
            continue
        whole = _whole(path, header, nev)
        put_on(clock, whole)
        found.append((path, _parted(whole)[1]))
    return found
