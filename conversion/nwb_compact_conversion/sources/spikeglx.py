"""SpikeGLX: the voltage of a Neuropixels probe, its sync line, and the digital lines and analog channels of a NI-DAQ.

Read by NeuroConv and SpikeInterface. A probe and a NI-DAQ have a clock each. What the NI-DAQ recorded is put on the clock of the
probe by the square wave that SpikeGLX records on both (see `read_spikeglx`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikeinterface import BaseRecording

from nwb_compact.errors import NwbCompactError
from nwb_compact.session import Device
from nwb_compact_conversion.recorded import Events, Recorded
from nwb_compact_conversion.sources.reading import ends_early, existing_folder, from_zero, line_events, name_channels, read_by, reading
from nwb_compact_conversion.sources.spikeglx_board import SYNC_OF_PROBE, Info, board_alone, on_the_probes_clock

EXPECTED = "a SpikeGLX run folder (.bin and .meta files)"
NIDQ = "nidq"
SYNC_BIT = 6
"""Bit of a probe's SY word that carries the sync input (SpikeGLX, metadata help); the other bits report the state of the probe."""


def read_spikeglx(folder: Path, *, stream: str | None = None, shortened: bool = False) -> Recorded:
    """One SpikeGLX run.

    Parameters
    ----------
    folder
        Holds the .bin and .meta files, in folders of their own or not.
    stream
        Which probe, for example imec0.ap; needed where there are several.
    shortened
        Take files that were cut after a whole sample, as examples are; otherwise a .bin shorter than its .meta says is refused.

    Returns
    -------
    Recorded
        `recording` is the AP stream; without a probe it is None and times are those of the NI-DAQ. Events are the edges of each
        NI-DAQ line (XD0, XD1, ...) and of the probe's sync input (SY0), 1 where it rose and 0 where it fell. `analog` are the
        NI-DAQ's analog channels (XA0, ...).

    Raises
    ------
    NwbCompactError
        If the folder is absent, holds no run or several probes, a file ends early, or the NI-DAQ cannot be put on the probe's clock.

    Notes
    -----
    Rising edges of the sync wave on the probe (SY0, bit 6) and on the NI-DAQ (the line or channel that its .meta names) are paired by
    the start samples in the .meta files, and a line through the pairs maps the NI-DAQ's clock to the probe's, as SpikeGLX's TPrime
    does. A wave that was used for this is no event. Without it only the start samples are known, which suffices for a run so short
    that clocks cannot drift by a millisecond; a longer one is refused.

    Examples
    --------
    >>> read_spikeglx(Path("no-such-run"))
    Traceback (most recent call last):
    ...
    nwb_compact.errors.NwbCompactError: no-such-run: found no such folder, expected a SpikeGLX run folder (.bin and .meta files).
    Next: correct the path
    """
    existing_folder(folder, EXPECTED)
    with reading(folder, EXPECTED):
        return _read(folder, stream, shortened=shortened)


def _read(folder: Path, stream: str | None, *, shortened: bool) -> Recorded:
    from spikeinterface.extractors.extractor_classes import SpikeGLXRecordingExtractor

    for meta in folder.rglob("*.meta"):
        _check_whole(meta, shortened=shortened)
    streams = sorted(str(one) for one in SpikeGLXRecordingExtractor.get_streams(folder_path=folder)[1])
    chosen = _chosen(folder, streams, stream)
    used = [one for one in (chosen, NIDQ) if one in streams]
    if not used:
        found = f"streams {', '.join(streams)}"
        raise NwbCompactError(folder, found=found, expected="an AP stream or a NI-DAQ", next_step="name the folder that holds it")
    board = SpikeGLXRecordingExtractor(folder, stream_id=NIDQ) if NIDQ in streams else None
    recording, device, start = (None, None, None) if chosen is None else _probe(folder, chosen)
    readable: Any = board if recording is None else recording
    infos: list[Info] = [info for info in readable.neo_reader.signals_info_list if info["stream_name"] in used]
    files = tuple(sorted(Path(info[kind]) for info in infos for kind in ("bin_file", "meta_file")))
    if recording is None:
        return board_alone(files, board, infos, folder)
    start_s = from_zero(recording, folder)
    events = _sync_of_probe(folder, chosen, start_s) if f"{chosen}-SYNC" in streams else {}
    analog: dict[str, BaseRecording] = {}
    if board is not None:
        board.shift_times(-start_s)
        infos = [info for info in infos if info["stream_name"] == NIDQ]
        events, analog = on_the_probes_clock(folder, board, infos, events, recording.get_total_duration())
    return Recorded(
        files=files,
        reader=read_by("neuroconv", "SpikeGLXRecordingInterface"),
        start_time=start,
        device=device,
        recording=recording,
        events=events,
        analog=analog,
    )


def _chosen(folder: Path, streams: Sequence[str], stream: str | None) -> str | None:
    probes = [one for one in streams if one.endswith(".ap")]
    if stream is not None and stream not in probes:
        found, next_step = f"no stream {stream!r}", f"use one of: {', '.join(probes) or 'none here'}"
        raise NwbCompactError(folder, found=found, expected="the AP stream of a probe", next_step=next_step)
    if stream is None and len(probes) > 1:
        found = f"{len(probes)} probes ({', '.join(probes)})"
        raise NwbCompactError(folder, found=found, expected="one", next_step="name one with --stream and convert each by itself")
    return stream or next(iter(probes), None)


def _probe(folder: Path, stream: str) -> tuple[BaseRecording, Device, Any]:
    from neuroconv.datainterfaces import SpikeGLXRecordingInterface

    interface = SpikeGLXRecordingInterface(folder_path=folder, stream_id=stream)
    recording, metadata = interface.recording_extractor, interface.get_metadata()
    if "channel_names" in recording.get_property_keys():
        recording.delete_property("channel_names")  # the same as channel_name
    device = next(iter(metadata["Devices"].values()))
    model = metadata.get("DeviceModels", {}).get(device.get("device_model_metadata_key"), {})
    told = [model.get("description"), f"serial number {device['serial_number']}" if device.get("serial_number") else None]
    description = ", ".join(one for one in told if one) or None
    about = Device(device["name"], description, model.get("manufacturer"))
    return name_channels(recording), about, metadata["NWBFile"].get("session_start_time")


def _check_whole(meta: Path, *, shortened: bool) -> None:
    known = dict(line.split("=", 1) for line in meta.read_text().splitlines() if "=" in line)
    file = meta.with_suffix(".bin")
    if not file.exists() or "nSavedChans" not in known:
        return
    sample_bytes, announced, size = 2 * int(known["nSavedChans"]), int(known.get("fileSizeBytes", 0)), file.stat().st_size
    if size % sample_bytes:
        raise ends_early(file, size, max(announced, size + sample_bytes - size % sample_bytes))
    if size < announced and not shortened:
        raise ends_early(file, size, announced)


def _sync_of_probe(folder: Path, stream: str | None, start_s: float) -> dict[str, Events]:
    from spikeinterface.extractors import read_spikeglx as read_stream

    sync = read_stream(folder, stream_id=f"{stream}-SYNC")
    sync.shift_times(-start_s)
    return line_events(sync, sync.channel_ids[0], {SYNC_OF_PROBE: SYNC_BIT})
