"""Intan RHD and RHS: amplifier channels, digital inputs as events, analog inputs for a photodiode.

Read by NeuroConv, SpikeInterface and Neo. A recording that the program split into files of some minutes is read as one; samples that
were lost are gaps; the voltage is stored signed, as sorters want it.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from spikeinterface import BaseRecording, concatenate_recordings

from nwb_compact import contract as c
from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import (
    ends_early,
    existing_file,
    from_zero,
    in_pieces,
    in_stretches,
    line_events,
    name_channels,
    read_by,
    reading,
    single_channels,
    stretch_starts,
)

EXPECTED = "an Intan .rhd or .rhs file, or the folder of one recording"
SUFFIXES = (".rhd", ".rhs")
ANALOG_INPUTS = "3"
"""Neo's number of the stream of analog inputs, of both systems."""
DIGITAL_INPUTS = {".rhd": "4", ".rhs": "5"}
MIDDLE = 32768
"""Stored value of 0 V where samples are unsigned."""


def read_intan(path: Path) -> Recorded:
    """One Intan recording.

    Parameters
    ----------
    path
        A .rhd or .rhs that holds header and data; an info.rhd or info.rhs, whose data lie in .dat files beside it; or a folder, in
        which case all .rhd or .rhs files in it are one recording in the order of their names, as the program writes them when it
        begins a new file every few minutes.

    Returns
    -------
    Recorded
        Events are the edges of each digital input, 1 where it rose and 0 where it fell. `analog` are the analog inputs. The format
        has no start time; the one that the program writes into the file's name (_YYMMDD_HHMMSS) is given, without a time zone.

    Raises
    ------
    NwbCompactError
        If the path is absent or another file, a file ends early, or sample numbers go back.

    Notes
    -----
    Neo holds nine bytes for each sample of a file while it opens it (the sample numbers, their differences): 2 GB for 2 h at 30 kHz in
    one file, 16 MB for the minute that the program puts into a file by itself.

    Examples
    --------
    >>> read_intan(Path("no-such.rhd"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such.rhd: found no such file, expected an Intan .rhd or .rhs file,
    or the folder of one recording. Next: correct the path
    """
    files = _files(path)
    with reading(path, EXPECTED):
        return _read(path, files)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [existing_file(path, EXPECTED, SUFFIXES)]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found or len({file.suffix.lower() for file in found}) > 1:
        what = "both .rhd and .rhs files" if found else "a folder without .rhd or .rhs files"
        raise NwbCompactError(path, found=what, expected=EXPECTED, next_step="name the folder, or a file, of one recording")
    return found


def _read(path: Path, files: list[Path]) -> Recorded:
    from neuroconv.datainterfaces import IntanRecordingInterface

    interfaces = [IntanRecordingInterface(file_path=file, ignore_integrity_checks=True) for file in files]
    amplifiers = [interface.recording_extractor for interface in interfaces]
    first, numbers = stretch_starts(path, _numbers(files, amplifiers))
    starts_s = (numbers - numbers[0]) / amplifiers[0].sampling_frequency
    parts = {"amplifier": amplifiers}
    streams = {str(stream) for stream in amplifiers[0].neo_reader.header["signal_streams"]["id"]}
    for name, stream in (("analog", ANALOG_INPUTS), ("digital", DIGITAL_INPUTS[files[0].suffix.lower()])):
        if stream in streams:
            parts[name] = [_stream(file, stream) for file in files]
    whole = {name: _on_one_clock(path, part, first, starts_s) for name, part in parts.items()}
    device = interfaces[0].get_metadata()["Devices"]["intan_device"]
    return Recorded(
        files=(*files, *_data_files(files)),
        reader=read_by("neuroconv", "IntanRecordingInterface"),
        start_time=_start(files[0]),
        device=Device(device["name"], device.get("description"), "Intan"),
        recording=_signed(whole["amplifier"]),
        events=_events(whole["digital"]) if "digital" in whole else {},
        analog=single_channels(whole["analog"]) if "analog" in whole else {},
    )


def _stream(file: Path, stream: str) -> BaseRecording:
    from spikeinterface.extractors import read_intan as read_stream

    return read_stream(file, stream_id=stream, ignore_integrity_checks=True)


def _data_files(files: list[Path]) -> list[Path]:
    """What lies beside an info file; the other files hold their data themselves."""
    return sorted(files[0].parent.glob("*.dat")) if files[0].stem == "info" else []


def _numbers(files: list[Path], amplifiers: list[BaseRecording]) -> Iterator[Integer[np.ndarray, "_"]]:
    """The number that the hardware gave each sample, piece by piece; it leaves numbers out where samples were lost."""
    for file, amplifier in zip(files, amplifiers, strict=True):
        # Neo's own get_intan_timestamps copies all of them each time it is asked.
        stored = amplifier.neo_reader._raw_data["timestamp"]
        numbers = stored[0] if isinstance(stored, list) else stored
        _check_whole(file, amplifier, numbers.size)
        yield from in_pieces(numbers)


def _check_whole(file: Path, amplifier: BaseRecording, n_samples: int) -> None:
    """Neo refuses a file with header and data that ends within a block; of .dat files it reads as many samples as there are."""
    if amplifier.get_num_samples() != n_samples:
        raise NwbCompactError(file, found=f"{amplifier.get_num_samples():,} samples of the amplifier",
                              expected=f"{n_samples:,} as time.dat has", next_step="copy the recording again from where it was made")
    for data in _data_files([file]):
        if (rest := data.stat().st_size % (2 * n_samples)) or data.stat().st_size == 0:
            raise ends_early(data, data.stat().st_size, data.stat().st_size + 2 * n_samples - rest)


def _on_one_clock(
    path: Path, parts: list[BaseRecording], first: Integer[np.ndarray, "stretch"], starts_s: Float[np.ndarray, "stretch"]
) -> BaseRecording:
    recording = name_channels(parts[0] if len(parts) == 1 else concatenate_recordings(parts))
    cut = in_stretches(recording, first, np.append(first[1:], recording.get_num_samples()), starts_s)
    from_zero(cut, path)
    return cut


def _signed(recording: BaseRecording) -> BaseRecording:
    """Sorters and filters want signed samples; SpikeInterface makes them, and leaves the offset as it was."""
    if recording.get_dtype().kind != "u":
        return recording
    from spikeinterface.preprocessing import unsigned_to_signed

    signed = unsigned_to_signed(recording)
    signed.set_channel_offsets(recording.get_channel_offsets() + MIDDLE * recording.get_channel_gains())
    return signed


def _events(digital: BaseRecording) -> dict[str, Events]:
    events: dict[str, Events] = {}
    for name, channel in zip(digital.get_property(c.CHANNEL_NAME), digital.channel_ids, strict=True):
        events |= line_events(digital, channel, {str(name): 0})
    return events


def _start(file: Path) -> datetime | None:
    named: Any = re.search(r"_(\d{6}_\d{6})$", file.parent.name if file.stem == "info" else file.stem)
    try:
        return None if named is None else datetime.strptime(named[1], "%y%m%d_%H%M%S")
    except ValueError:
        return None
