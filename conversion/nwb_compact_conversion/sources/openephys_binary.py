"""The binary format of Open Ephys: structure.oebin, continuous.dat and .npy files.

Neo 0.14 takes sample numbers of the voltage for one clock and time stamps of events for the same; it drops events without a partner
and does not look for lost samples. Sample numbers and events are therefore read here. The voltage is read by SpikeInterface: NeuroConv's
interface needs lxml and the settings.xml of the whole session.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from spikeinterface import BaseRecording, append_recordings

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import (
    COPY_AGAIN,
    check_ascending,
    ends_early,
    from_zero,
    in_pieces,
    in_stretches,
    name_channels,
    read_by,
    single_channels,
    stretch_starts,
)

ADC = "_ADC"
"""What Neo adds to the name of a stream for its ADC channels."""


@dataclass(frozen=True)
class Part:
    """One recording folder and the chosen stream in it."""

    folder: Path
    stream: str
    """Name of its folder."""
    rate_hz: float
    told: dict[str, Any]
    """Content of structure.oebin."""

    @property
    def continuous(self) -> Path:
        """Where its voltage is."""
        return self.folder / "continuous" / self.stream

    @property
    def numbers_file(self) -> Path:
        """The numbers of its samples; versions before 0.6 called them time stamps."""
        now = self.continuous / "sample_numbers.npy"
        return now if now.exists() else self.continuous / "timestamps.npy"

    def numbers(self) -> Integer[np.ndarray, "sample"]:
        """Of each sample, on disk."""
        return np.load(self.numbers_file, mmap_mode="r", allow_pickle=False)


def read_binary(folder: Path, stream: str | None) -> Recorded:
    """See `openephys.read_openephys`."""
    from spikeinterface.extractors.extractor_classes import OpenEphysBinaryRecordingExtractor

    folders = _folders(folder)
    streams = [str(name) for name in OpenEphysBinaryRecordingExtractor.get_streams(folder_path=folder)[0]]
    chosen = _chosen(folder, streams, stream)
    parts = [part for one in folders if (part := _with_stream(one, chosen)) is not None]
    for part in parts:
        _check_whole(part)
    recording = OpenEphysBinaryRecordingExtractor(folder, stream_name=chosen)
    settings = _settings(parts)
    analog: dict[str, BaseRecording] = {}
    if (adc := chosen + ADC) in streams:
        analog = single_channels(_on_one_clock(folder, OpenEphysBinaryRecordingExtractor(folder, stream_name=adc), parts))
    return Recorded(
        files=_files(settings, parts),
        reader=read_by("spikeinterface", "OpenEphysBinaryRecordingExtractor"),
        start_time=_start(settings),
        device=_device(recording, parts[0].told),
        recording=_on_one_clock(folder, recording, parts),
        events=_events(parts),
        analog=analog,
    )


def _folders(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Recording folders in the order of their numbers."""
    found = sorted((file.parent for file in folder.rglob("structure.oebin")), key=lambda one: (len(one.name), one.name))
    if len(experiments := sorted({one.parent.name for one in found})) > 1:
        raise NwbCompactError(folder, found=f"{len(experiments)} experiments ({', '.join(experiments)})", expected="one",
                              next_step="name the folder of one experiment")
    return [(one, json.loads((one / "structure.oebin").read_text("utf-8"))) for one in found]


def _chosen(folder: Path, streams: Sequence[str], stream: str | None) -> str:
    voltage = [name for name in streams if not name.endswith((ADC, "SYNC")) and "NI-DAQ" not in name]
    if stream is not None and stream not in voltage:
        found, next_step = f"no stream {stream!r}", f"use one of: {', '.join(voltage)}"
        raise NwbCompactError(folder, found=found, expected="a stream of the recording", next_step=next_step)
    wideband = [name for name in voltage if not name.endswith(("-LFP", "-ADC"))]
    if stream is None and len(wideband) != 1:
        found = f"{len(wideband)} streams ({', '.join(wideband) or 'none'})"
        raise NwbCompactError(folder, found=found, expected="one", next_step="name one with --stream and convert each by itself")
    return stream or wideband[0]


def _with_stream(one: tuple[Path, dict[str, Any]], stream: str) -> Part | None:
    folder, told = one
    node, _, name = stream.rpartition("#")
    if node and folder.parents[1].name != node:
        return None
    info = next((info for info in told["continuous"] if info["folder_name"].strip("/") == name), None)
    return None if info is None else Part(folder, name, float(info["sample_rate"]), told)


def _check_whole(part: Part) -> None:
    data = part.continuous / "continuous.dat"
    info = next(info for info in part.told["continuous"] if info["folder_name"].strip("/") == part.stream)
    size, sample_bytes, n = data.stat().st_size, 2 * len(info["channels"]), len(part.numbers())
    if size < sample_bytes * n:
        raise ends_early(data, size, sample_bytes * n)
    if size > sample_bytes * n:
        raise NwbCompactError(part.numbers_file, found=f"{n:,} numbers", expected=f"one for each of {size / sample_bytes:,.0f} samples",
                              next_step=COPY_AGAIN)


def _device(recording: BaseRecording, told: dict[str, Any]) -> Device:
    if recording.has_probe():
        probe = recording.get_probe()
        named = f"Neuropixels{probe.name or 'Probe'}"
        return Device(named, probe.serial_number and f"serial number {probe.serial_number}", probe.manufacturer)
    version = told.get("GUI version")
    return Device("Open Ephys", None if version is None else f"recorded with Open Ephys GUI {version}", "Open Ephys")


def _settings(parts: list[Part]) -> list[Path]:
    """Of the chosen experiment, in its record node: settings.xml of the first, settings_2.xml of the second, ..."""
    experiment = parts[0].folder.parent
    number = experiment.name.removeprefix("experiment")
    named = experiment.parent / ("settings.xml" if number == "1" else f"settings_{number}.xml")
    return [named] if named.exists() else []


def _start(settings: list[Path]) -> datetime | None:
    told = re.search(r"<DATE>(.+?)</DATE>", settings[0].read_text("utf-8", "replace")) if settings else None
    return None if told is None else datetime.strptime(told[1], "%d %b %Y %H:%M:%S")


def _on_one_clock(folder: Path, recording: BaseRecording, parts: list[Part]) -> BaseRecording:
    name_channels(recording)
    pieces = []
    for index, part in enumerate(parts):
        first, numbers = stretch_starts(part.numbers_file, in_pieces(part.numbers()))
        one = recording.select_segments([index])
        starts_s = (numbers - _zero(parts)) / part.rate_hz
        pieces.append(in_stretches(one, first, np.append(first[1:], one.get_num_samples()), starts_s))
    whole = pieces[0] if len(pieces) == 1 else append_recordings(pieces)
    from_zero(whole, folder)
    return whole


def _zero(parts: list[Part]) -> int:
    return int(parts[0].numbers()[0])


def _files(settings: list[Path], parts: list[Part]) -> tuple[Path, ...]:
    used = [file for part in parts for file in (part.folder / "structure.oebin", *part.continuous.iterdir())]
    used += [file for part in parts for line in _lines(part) for file in line.iterdir()]
    return tuple(sorted(file for file in {*used, *settings} if file.is_file()))


# Events ---------------------------------------------------------------------------------------------------------------


def _lines(part: Part) -> list[Path]:
    """Folders of TTL events."""
    folders = [part.folder / "events" / info["folder_name"] for info in part.told.get("events", [])]
    return [one for one in folders if (one / "states.npy").exists() or (one / "channel_states.npy").exists()]


def _events(parts: list[Part]) -> dict[str, Events]:
    times: dict[str, list[np.ndarray]] = {}
    codes: dict[str, list[np.ndarray]] = {}
    for part in parts:
        for folder in _lines(part):
            now = folder / "states.npy"
            states = np.load(now if now.exists() else folder / "channel_states.npy", allow_pickle=False).astype(np.int64)
            of_stream = folder.relative_to(part.folder / "events").parts[0]
            time_s = _own_times(part, folder, _zero(parts)) if of_stream == part.stream else _others_times(part, folder, _zero(parts))
            if time_s is None:
                continue
            if len(time_s) != len(states):
                raise NwbCompactError(folder, found=f"{len(states)} states and {len(time_s)} times", expected="as many of both",
                                      next_step=COPY_AGAIN)
            for line in np.unique(np.abs(states)):
                name = f"TTL{line}" if of_stream == part.stream else f"{of_stream}#TTL{line}"
                times.setdefault(name, []).append(time_s[np.abs(states) == line])
                codes.setdefault(name, []).append((states[np.abs(states) == line] > 0).astype(np.int64))
    return {name: Events(check_ascending(parts[0].folder, f"events of {name}", np.concatenate(of)), np.concatenate(codes[name]))
            for name, of in times.items()}


def _own_times(part: Part, folder: Path, zero: int) -> Float[np.ndarray, "event"]:
    now = folder / "sample_numbers.npy"
    numbers = np.load(now if now.exists() else folder / "timestamps.npy", allow_pickle=False)
    return (numbers.astype(np.int64) - zero) / part.rate_hz


def _others_times(part: Part, folder: Path, zero: int) -> Float[np.ndarray, "event"] | None:
    """By the time stamps that all streams share: the sample of the voltage at that moment, between two of them."""
    if not (folder / "sample_numbers.npy").exists() or not (part.continuous / "sample_numbers.npy").exists():
        return None
    stamp_s = np.load(part.continuous / "timestamps.npy", mmap_mode="r", allow_pickle=False)
    event_s = np.load(folder / "timestamps.npy", allow_pickle=False)
    if not stamp_s[0] < stamp_s[-1]:
        raise NwbCompactError(part.continuous / "timestamps.npy", found="time stamps that do not increase", expected="synchronised streams",
                              next_step="name the stream that has the TTL lines, or give events as a CSV with the source recording")
    after = np.clip(np.searchsorted(stamp_s, event_s), 1, len(stamp_s) - 1)
    numbers, before_s, after_s = part.numbers(), stamp_s[after - 1], stamp_s[after]
    return (numbers[after - 1] - zero + (event_s - before_s) / (after_s - before_s) * (numbers[after] - numbers[after - 1])) / part.rate_hz
